"""Training of behaviour policies: seeded, resumable, and the same policy in numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from suites.datasets import ppo
from suites.datasets.behaviour import Policy
from suites.datasets.ppo import Config, Learner, RunningMoments


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(environments=2, horizon=32, minibatch=16, epochs=2, save_every=1)
    monkeypatch.setitem(ppo.CONFIGS, "hopper", config)


def test_is_seeded(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        ppo.train("hopper", 128, seed, tmp_path / name)
    one, again, other = (
        Policy.load(tmp_path / name / "00000128.npz") for name in ("one", "again", "other")
    )
    np.testing.assert_array_equal(one.weights[0], again.weights[0])
    assert not np.array_equal(one.weights[0], other.weights[0])


def test_continues_where_it_stopped(tmp_path: Path) -> None:
    ppo.train("hopper", 128, 0, tmp_path)
    ppo.train("hopper", 256, 0, tmp_path)
    kept = [int(path.stem) for path in sorted(tmp_path.glob("*.npz"))]
    assert kept == [0, 64, 128, 192, 256]
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert [point["steps"] for point in state["curve"]] == kept
    learner = Learner("hopper", ppo.CONFIGS["hopper"], 5)
    learner.load_state_dict(state)
    again = learner.state_dict()
    for part in ("actor", "critic"):
        for name, values in state[part].items():
            torch.testing.assert_close(again[part][name], values, rtol=0, atol=0)
    assert again["progress"] == state["progress"]
    assert again["generator"] != state["generator"]  # new episodes have begun


def test_numpy_policy_is_the_torch_actor() -> None:
    learner = Learner("hopper", ppo.CONFIGS["hopper"], 0)
    learner.iterate(1.0)
    observations = np.random.default_rng(0).normal(size=(5, 11))
    with torch.no_grad():
        expected = learner.actor(learner._normalise(observations)).numpy()
    np.testing.assert_allclose(learner.policy().mean_action(observations), expected, atol=1e-5)


def test_running_moments() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, (100, 4))
    moments = RunningMoments((4,))
    for part in np.split(values, 5):
        moments.update(part)
    np.testing.assert_allclose(moments.mean, values.mean(0), rtol=1e-4)
    np.testing.assert_allclose(moments.std(), values.std(0), rtol=1e-4)


def test_what_is_kept_can_be_shipped(tmp_path: Path) -> None:
    ppo.train("hopper", 128, 0, tmp_path)
    run = ppo.finished("hopper", 0, tmp_path)
    assert (run.algorithm, run.steps, run.seed) == ("ppo", 128, 0)
    assert run.proposed["medium"] == run.proposed["expert"]
    assert [run.file(steps).exists() for steps in run.proposed["medium"]] == [True] * 3
