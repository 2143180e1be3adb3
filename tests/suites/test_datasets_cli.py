"""``python -m suites.datasets``: what people see of the local datasets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from suites.datasets import behaviour, local, store
from suites.datasets.__main__ import main
from suites.datasets.describe import coverage, effective_dimensions, histogram

SIZE = ["--size", "3000"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_list_says_what_there_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FASTQ_BENCH_CACHE", str(tmp_path / "cache"))
    shipped = behaviour.index
    poor = dict(shipped("walker2d") or {})
    poor["levels"] = {**poor["levels"], "expert": {"score": 61.2}}
    monkeypatch.setattr(
        behaviour, "index", lambda name: poor if name == "walker2d" else shipped(name)
    )
    card = store.load(local.ensure("hopper-random", 3000)).card
    assert main(["list", *SIZE]) == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert set(local.tasks()) <= set(lines)
    made = lines["hopper-random"]
    assert made[1] == "3,000"
    assert made[3] == str(card["episodes"])
    assert made[4] == f"{card['score_mean']:.1f}"
    assert lines["hopper-medium"][-2:] == ["not", "made"]
    assert lines["walker2d-expert"][-1] == "missing"
    assert lines["cache:"][1] == str(tmp_path / "cache")


def test_list_calls_no_policy_an_expert_that_is_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        behaviour, "index", lambda name: {"levels": {"expert": {"score": 61.2}}, "checkpoints": []}
    )
    monkeypatch.setattr(local, "folder", lambda *a: Path("nowhere"))
    main(["list"])
    out = capsys.readouterr().out
    for task in ("hopper-expert", "walker2d-medium-expert"):
        assert f"missing: {task}: the best shipped policy, best-61, is no expert" in out


def test_generate_makes_what_is_described_and_verified(
    capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    task = "walker2d-medium-expert"
    assert main(["generate", task, *SIZE]) == 0
    folder = Path(capsys.readouterr().out.split(": ")[1].strip())
    data = store.load(folder, verify=True)
    returns, lengths = data.episodes()

    assert main(["describe", task, *SIZE]) == 0
    out = capsys.readouterr().out
    assert f"{task} (Walker2d-v5), seed 0" in out
    assert f"{len(returns)} complete episodes" in out
    score = next(line for line in out.splitlines() if line.startswith("score"))
    assert score.split()[-1] == f"{data.card['score_mean']:.1f}"
    length = next(line for line in out.splitlines() if line.startswith("length"))
    assert length.split()[1:8:6] == [str(lengths.min()), str(lengths.max())]
    for policy, group in zip(data.card["policies"], "01", strict=True):
        (line,) = (line for line in out.splitlines() if line.startswith(policy["name"]))
        assert line.split()[2] == "50.0%"
        assert line.split()[-1] == group
    picture = here / f"{task}.png"
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"

    picture.unlink()
    assert main(["describe", str(folder), "--picture", "other.png"]) == 0
    assert (here / "other.png").exists()
    assert not picture.exists()
    capsys.readouterr()

    assert main(["verify", task, str(folder), *SIZE]) == 0
    out = capsys.readouterr().out
    assert out.count("  ok") == 2
    assert "next observation of transitions" in out


def test_verify_names_the_fault(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = store.load(local.ensure("hopper-random", 3000))
    fields = {name: np.array(data.column(name)) for name in data.fields}
    card = {k: v for k, v in data.card.items() if k not in ("columns", "transitions", "sha256")}
    store.write(tmp_path / "wrong", fields, card | {"env_id": "Hopper-v4"})
    assert main(["verify", str(tmp_path / "wrong")]) == 1
    out = capsys.readouterr().out
    assert "WRONG  reward of terminations: 100.0% differ from what Hopper-v4 does" in out
    assert "the transitions are those of Hopper-v5" in out


def test_wrong_input(capsys: pytest.CaptureFixture[str]) -> None:
    def error(*arguments: str) -> str:
        assert main(arguments) == 2
        return capsys.readouterr().err

    assert "did you mean hopper-medium?" in error("describe", "hoper-medium")
    # Nothing is made if one of the names is wrong.
    assert "no such local dataset" in error("generate", "hopper-random", "nonsense", "--size", "7")
    assert not local.is_cached("hopper-random", 7)
    assert "jobs is 0; ask for at least one process" in error(
        "generate", "hopper-random", "--jobs", "0"
    )
    assert "cannot be drawn there" in error(
        "describe", "hopper-random", *SIZE, "--picture", "nowhere/x.png"
    )


def test_effective_dimensions() -> None:
    generator = np.random.default_rng(0)
    even = generator.standard_normal((100_000, 4))
    assert effective_dimensions(even) == pytest.approx(4, abs=0.01)
    line = even[:, :1] * np.array([[1.0, 2.0, 3.0]])
    assert effective_dimensions(line) == pytest.approx(1)
    assert effective_dimensions(np.ones((5, 3))) == 0


def test_coverage_of_uniform_actions() -> None:
    data = store.load(local.ensure("hopper-random", 3000))
    found = coverage(data)
    np.testing.assert_allclose(found.action_std, 1 / np.sqrt(3), atol=0.03)
    assert found.action_dimensions == pytest.approx(3, abs=0.05)
    assert found.on_bound.max() < 0.01
    assert 1 < found.observation_dimensions < 11


def test_histogram() -> None:
    lines = histogram(np.array([0.0, 0.0, 20.0]), "things")
    assert lines[0].split() == ["from", "things"]
    assert lines[1].split() == ["0", "█" * 40, "2"]
    assert lines[2].split() == ["1"]
    assert lines[-1].split() == ["19", "█" * 20, "1"]
