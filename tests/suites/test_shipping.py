"""Shipping behaviour policies: the right ones are chosen, rounded, scored and listed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from suites.datasets import behaviour, local, shipping, store
from suites.datasets.behaviour import Policy, SquashedPolicy

STEPS = list(range(0, 300, 10))


def kept_policy(steps: int) -> SquashedPolicy:
    """A policy whose bias tells how long it was trained."""
    weight = np.full((11, 6), 1 / 3, np.float32)
    return SquashedPolicy((weight,), (np.full(6, steps, np.float32),))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> shipping.Run:
    """Thirty policies; with the noise of the data, policy n * 10 scores n * 2."""
    shipped = tmp_path / "shipped"
    monkeypatch.setattr(behaviour, "folder", lambda environment: shipped / environment)
    monkeypatch.setattr(shipping, "score", score)
    folder = tmp_path / "run"
    folder.mkdir()
    for steps in STEPS:
        kept_policy(steps).save(shipping.policy_file(folder, steps))
    curve = [{"steps": float(steps)} for steps in STEPS]
    curve_says = {steps: steps / 5 + 3.0 for steps in STEPS}  # 3 points too good
    proposed = dict.fromkeys(("medium", "expert"), curve_says)
    return shipping.Run("hopper", folder, "tqc", {"batch": 1}, 7, 290, 1.0, curve, proposed)


def score(environment: str, policy: Policy, noise: float, episodes: int, stream: int) -> float:
    return round(float(policy.biases[0][0]) / 5, 1)


def shipped(every: int, run: shipping.Run) -> dict[str, Any]:
    shipping.ship(run, every)
    content: dict[str, Any] = json.loads(
        (behaviour.folder("hopper") / behaviour.INDEX_FILE).read_text()
    )
    return content


def test_levels_are_chosen_by_their_measured_scores(run: shipping.Run) -> None:
    index = shipped(1, run)
    # 44 is D4RL's medium: the earliest within two points of it, by measurement and not by the curve
    assert index["levels"] == {
        "medium": {"checkpoint": "step210", "noise": 1.0, "score": 42.0},
        "expert": {"checkpoint": "step290", "noise": 0.25, "score": 58.0},
    }


def test_checkpoints_until_medium_and_the_levels_are_shipped(run: shipping.Run) -> None:
    index = shipped(1, run)
    names = [entry["name"] for entry in index["checkpoints"]]
    assert names == [f"step{steps}" for steps in (*range(0, 220, 10), 290)]
    assert index["training"]["algorithm"] == "tqc"
    folder = behaviour.folder("hopper")
    for entry in index["checkpoints"]:
        assert store.file_sha256(folder / entry["file"]) == entry["sha256"]
        weight = Policy.load(folder / entry["file"]).weights[0]
        np.testing.assert_array_equal(weight, np.float32(np.float16(1 / 3)))
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*(f"{name}.npz" for name in names), behaviour.INDEX_FILE]
    )


def test_every_other_policy(run: shipping.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "FEWEST", 8)
    index = shipped(2, run)
    steps = [entry["steps"] for entry in index["checkpoints"]]
    assert steps == [*range(0, 210, 20), 210, 290]


def test_a_level_below_its_threshold_is_not_called_an_expert(run: shipping.Run) -> None:
    shipped(1, run)
    behaviour.index.cache_clear()
    try:
        why = local.missing("hopper-expert")
        assert why == (
            "hopper-expert: the best shipped policy, best-58, is no expert; "
            "an expert scores at least 95"
        )
        assert local.missing("hopper-medium") is None
    finally:
        behaviour.index.cache_clear()


def test_state_is_replaced_in_one_step(tmp_path: Path) -> None:
    assert shipping.load_state(tmp_path) is None
    for number in (1, 2):
        shipping.save_state(tmp_path, {"number": number})
    assert shipping.load_state(tmp_path) == {"number": 2}
    assert [path.name for path in tmp_path.iterdir()] == [shipping.STATE_FILE]


def test_nothing_to_ship(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["suites.datasets.tqc", "ship", "hopper", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit):
        shipping.command_line("suites.datasets.tqc", None, 1, lambda *a: None, lambda *a: None)  # type: ignore[arg-type]
    assert "nothing was trained there; use train first" in capsys.readouterr().err


def test_scores_are_of_played_episodes() -> None:
    """Standing still: HalfCheetah earns about nothing, which D4RL's scale puts near 2."""
    still = SquashedPolicy((np.zeros((17, 12), np.float32),), (np.zeros(12, np.float32),))
    assert shipping.score("halfcheetah", still, 0.0, 1, stream=0) == pytest.approx(2.3, abs=0.3)
