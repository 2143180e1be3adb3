"""Saved policies against the stacks they were saved from, and for use outside the suite."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from baselines.config import UsageError
from baselines.contract import Agent, Spec
from baselines.registry import Registry, make_config
from results.record import Episodes
from suites.datasets.transforms import Transform
from suites.evaluate import CURVE_RESET_SEED, FINAL_RESET_SEED, Evaluator
from suites.export import ExportError, export_policy
from suites.online import TRAINING_RESET_SEED
from suites.policy import BLOCK, BLOCKS, FRESH_RESET_SEED, Policy, read_policy

ENV_ID = "Hopper-v5"
SEEDS = [4, 9]
ACTORS = """
import torch
from baselines.bc import BC


class Remembers(BC):
    '''Adds up what it has seen, and draws noise of both kinds.'''

    def act(self, step, memory=None, *, explore=False):
        seen = step["observations"].mean(-1, keepdim=True)
        total = seen if memory is None else memory["total"] + seen
        noise = step["noise"].normal(3) + step["noise"].integers(5, 3)
        return (super().act(step)[0] + total + 0.1 * noise).tanh(), {"total": total}


class Branches(BC):
    '''Looks at its numbers, which a traced program cannot.'''

    def act(self, step, memory=None, *, explore=False):
        actions = super().act(step)[0]
        return (actions if bool((actions > 0).any()) else -actions), None


AGENTS = {"remembers": Remembers, "branches": Branches}
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "actors.py"
    path.write_text(ACTORS)
    return path


def trained(name: str, plugins: list[str]) -> tuple[Agent, Spec, Transform, dict[str, Any]]:
    """A stack of two seeds, and what training saves of it."""
    env = gymnasium.make(ENV_ID)
    spec = Spec(env.observation_space, env.action_space)
    env.close()
    cls = Registry(plugins).get(name)
    agent = cls(spec, make_config(cls, {}, name), SEEDS)
    rng = np.random.default_rng(1)
    transform = Transform(rng.standard_normal(11) * 0.1, rng.uniform(0.5, 2.0, 11), 1.0)
    saved = {
        "agent": {"label": name, "name": name, "config": {}},
        "task": {"id": "hop", "env_id": ENV_ID, "reference_min": 0.0, "reference_max": 50.0},
        "seeds": SEEDS,
        "index": 1,
        "plugins": plugins,
        "phases": [{"name": "offline", "updates": 1}],
        "precision": "float32",
        "reward_parts": [],
        "policies": 0,
        "statistics": {},
        "transform": transform.to_dict(),
        "state": agent.state_dict(),
    }
    return agent, spec, transform, saved


@pytest.mark.parametrize("name", ["bc", "random", "remembers"])
def test_one_seed_of_a_stack_plays_as_it_did_in_the_stack(name: str, plugin: Path) -> None:
    agent, spec, transform, saved = trained(name, [str(plugin)])
    evaluator = Evaluator(ENV_ID, spec, SEEDS, transform, 3, FINAL_RESET_SEED)
    stack = evaluator.run(agent, 2)
    evaluator.close()
    recorded = Episodes(stack.returns[1], stack.lengths[1], stack.reset_seeds)
    record: Any = type("Record", (), {"curve": [{}, {}]})
    played = Policy(saved).replay(record, recorded)
    assert played.equals(recorded)
    np.testing.assert_allclose(played.scores, 2.0 * recorded.returns)
    other = Policy({**saved, "index": 0}).replay(record, recorded)
    assert not other.equals(recorded)


def test_fresh_episodes_are_fresh() -> None:
    policy = Policy(trained("random", [])[3])
    first, again, second = (policy.evaluate(2, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.reset_seeds, FRESH_RESET_SEED + np.arange(2))
    np.testing.assert_array_equal(first.returns, again.returns)
    assert not set(first.reset_seeds) & set(second.reset_seeds)
    assert not np.array_equal(first.returns, second.returns)
    assert CURVE_RESET_SEED < FINAL_RESET_SEED < FRESH_RESET_SEED
    last = policy.evaluate(2, BLOCKS - 1).reset_seeds[0]
    assert TRAINING_RESET_SEED - 2 * BLOCK < last <= TRAINING_RESET_SEED - BLOCK
    for episodes, seed in ((0, 0), (BLOCK + 1, 0), (1, -1), (1, BLOCKS)):
        with pytest.raises(UsageError, match="must be between"):
            policy.evaluate(episodes, seed)


def test_acting_says_what_is_wrong_with_observations(plugin: Path) -> None:
    policy = Policy(trained("remembers", [str(plugin)])[3])
    with pytest.raises(UsageError, match=r"shape \(4, 12\); those of hop are \(11,\)"):
        policy.act(np.zeros((4, 12)))
    one, two = policy.act(np.ones((2, 11))), policy.act(np.ones((2, 11)))
    assert not np.array_equal(one, two)  # it remembers
    with pytest.raises(UsageError, match="call reset"):
        policy.act(np.ones((3, 11)))
    policy.reset()
    assert policy.act(np.ones((3, 11))).shape == (3, 3)
    forgetful = Policy(trained("bc", [])[3])
    assert forgetful.act(np.ones((2, 11))).shape == (2, 3)
    np.testing.assert_allclose(
        forgetful.act(np.ones(11)), forgetful.act(np.ones((5, 11)))[4], rtol=1e-5
    )


def test_a_policy_that_no_longer_fits_its_agent_says_so(tmp_path: Path, plugin: Path) -> None:
    *_, saved = trained("remembers", [str(plugin)])
    torch.save({**saved, "state": {"updates": 1}}, tmp_path / "policy.pt")
    with pytest.raises(UsageError, match="does not fit the agent as it is now"):
        read_policy(tmp_path)
    torch.save({**saved, "plugins": ["/gone/actors.py"]}, tmp_path / "policy.pt")
    with pytest.raises(UsageError, match="is not there"):
        read_policy(tmp_path)
    assert read_policy(tmp_path, [plugin]).seed == 9


def test_an_exported_policy_acts_without_the_suite(tmp_path: Path) -> None:
    policy = Policy(trained("bc", [])[3])
    assert export_policy(policy, tmp_path / "policy.pt2") < 1e-5
    rng = np.random.default_rng(3)
    observations = rng.standard_normal((5, 11)) * 4.0
    np.save(tmp_path / "observations.npy", observations)
    alone = """
import sys
for name in ("analysis", "baselines", "results", "suites", "gymnasium", "mujoco"):
    sys.modules[name] = None  # to import it would fail
import json, numpy, torch
about = {"about.json": ""}
program = torch.export.load("policy.pt2", extra_files=about).module()
actions = program(torch.from_numpy(numpy.load("observations.npy")))
numpy.save("actions.npy", actions.numpy())
assert json.loads(about["about.json"])["seed"] == 9
"""
    subprocess.run([sys.executable, "-W", "error", "-c", alone], check=True, cwd=tmp_path)
    np.testing.assert_allclose(
        np.load(tmp_path / "actions.npy"), policy.act(observations), atol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("random", "draws noise when it acts"),
        ("remembers", "draws noise when it acts"),
        ("branches", "torch.export cannot trace how it acts"),
    ],
)
def test_policies_that_cannot_be_exported_say_why(
    name: str, words: str, tmp_path: Path, plugin: Path
) -> None:
    policy = Policy(trained(name, [str(plugin)])[3])
    with pytest.raises(ExportError, match=words):
        export_policy(policy, tmp_path / "policy.pt2")
    plugin.write_text(ACTORS.replace("0.1 * noise", "0").replace("noise = ", "# "))
    if name == "remembers":
        policy = Policy(trained(name, [str(plugin)])[3])
        with pytest.raises(ExportError, match="it remembers earlier steps"):
            export_policy(policy, tmp_path / "policy.pt2")
    assert not (tmp_path / "policy.pt2").exists()


def test_an_export_that_acts_otherwise_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy(trained("bc", [])[3])
    act = policy.act
    monkeypatch.setattr(policy, "act", lambda observations: act(observations) + 0.01)
    with pytest.raises(ExportError, match="differs from the policy by"):
        export_policy(policy, tmp_path / "policy.pt2")
    assert not (tmp_path / "policy.pt2").exists()
