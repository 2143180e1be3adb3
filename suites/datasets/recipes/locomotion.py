"""D4RL's locomotion datasets, played by shipped behaviour policies.

The recipes are those of D4RL (Fu et al. 2020, arXiv:2004.07219) with other policies; what differs
is told in ``docs/local-data.md``.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from suites import catalog
from suites.catalog import Task
from suites.datasets import behaviour, store
from suites.datasets.behaviour import Policy
from suites.datasets.play import SLOTS, shard_entropy
from suites.datasets.play import play as play_episodes
from suites.datasets.recipes import Segment, Shard, divide

if TYPE_CHECKING:
    from suites.envs import VectorEnv

VERSION = 1  # raised whenever the same identity would give other bytes
PACKAGES = ("mujoco",)
ENVIRONMENTS = {
    name: environment.env_ids["local"]
    for name, environment in catalog.ENVIRONMENTS.items()
    if environment.domain == "locomotion"
}
# A policy that scores less is not called an expert.
EXPERT_SCORE = {"halfcheetah": 75.0, "hopper": 95.0, "walker2d": 95.0}

# D4RL's number of transitions: v2 files, its wiki's "Tasks" table; medium-replay to the next 1000.
_SIZES = {"medium-expert": 2_000_000}
_REPLAY_SIZES = {"halfcheetah": 202_000, "hopper": 402_000, "walker2d": 302_000}
_SHARD = 50_000  # transitions at most
_FEWEST_STEPS = 2_000  # of each policy in medium-replay: two episodes of the time limit


def missing(task: Task) -> str | None:
    """See :class:`suites.datasets.recipes.Recipe`."""
    if task.quality == "random":
        return None
    index = behaviour.index(task.environment)
    if index is None:
        return (
            f"{task.id}: no behaviour policies are shipped for {task.environment}; train some with "
            f"python -m suites.datasets.ppo train {task.environment}"
        )
    best, least = index["levels"]["expert"]["score"], EXPERT_SCORE[task.environment]
    if "expert" in task.quality and best < least:
        return (
            f"{task.id}: the best shipped policy, best-{best:.0f}, is no expert; an expert scores "
            f"at least {least:.0f}"
        )
    return None


def default_size(task: Task) -> int:
    """D4RL's number of transitions for this task."""
    if task.quality == "medium-replay":
        return _REPLAY_SIZES[task.environment]
    return _SIZES.get(task.quality, 1_000_000)


def describe(task: Task, size: int) -> dict[str, Any]:
    """See :class:`suites.datasets.recipes.Recipe`; noise counts in the policy's own deviations."""
    segments = [
        replace(segment, sha256=_checkpoint(task.environment, segment.policy).get("sha256"))
        for segment in _segments(task.environment, task.quality, size)
    ]
    return {
        "version": VERSION,
        "segments": [asdict(segment) for segment in segments],
        "shard": _SHARD,
        "slots": SLOTS,
    }


def _checkpoint(environment: str, name: str) -> dict[str, Any]:
    index = behaviour.index(environment)
    checkpoints = index["checkpoints"] if index else []
    return next((entry for entry in checkpoints if entry["name"] == name), {})


def _segments(environment: str, quality: str, size: int) -> list[Segment]:
    """The policies of a dataset of ``size`` transitions in the order in which they act."""
    index = behaviour.index(environment)
    if quality == "random" or index is None:
        return [Segment("random", 1.0, 1.0)]

    def level(name: str) -> Segment:
        return Segment(index["levels"][name]["checkpoint"], index["levels"][name]["noise"], 1.0)

    if quality == "medium-replay":
        # Each policy acts for as many steps as the learner took until it kept the next one.
        steps = {entry["name"]: entry["steps"] for entry in index["checkpoints"]}
        last = steps[level("medium").policy]
        kept = [name for name in steps if steps[name] <= last]
        # A small dataset takes fewer of them, evenly spaced, so that each finishes episodes.
        count = min(len(kept), 1 + max(1, size // _FEWEST_STEPS))
        kept = [kept[i] for i in np.linspace(0, len(kept) - 1, count).round().astype(int)]
        spans = np.diff([steps[name] for name in kept])
        return [Segment(name, 1.0, float(span)) for name, span in zip(kept, spans, strict=False)]
    parts = {"medium": ("medium",), "expert": ("expert",), "medium-expert": ("medium", "expert")}
    return [level(name) for name in parts[quality]]


def shards(wanted: dict[str, Any]) -> list[Shard]:
    """Divides the rows among the policies by their shares, and each one's into even shards."""
    share = np.cumsum([segment["share"] for segment in wanted["recipe"]["segments"]])
    edges = [0, *np.round(wanted["transitions"] * share / share[-1]).astype(int).tolist()]
    return divide(edges, _SHARD)


def play(wanted: dict[str, Any], shard: Shard) -> store.Dataset:
    """See :class:`suites.datasets.recipes.Recipe`."""
    segment = wanted["recipe"]["segments"][shard.segment]
    environment = catalog.TASKS[wanted["task"]].environment
    policy = None
    if segment["policy"] != "random":
        file = _checkpoint(environment, segment["policy"])["file"]
        policy = Policy.load(behaviour.folder(environment) / file)
    return play_policy(
        wanted["env_id"],
        policy,
        noise=segment["noise"],
        rows=shard.stop - shard.start,
        entropy=shard_entropy(wanted, shard),
        policy_id=shard.segment,
    )


def logged(data: store.Dataset) -> None:
    """Episodes are those of the table."""


def play_policy(
    env_id: str,
    policy: Policy | None,
    *,
    noise: float,
    rows: int,
    entropy: tuple[int, ...],
    policy_id: int = 0,
) -> store.Dataset:
    """Plays one policy's whole episodes until they fill ``rows`` rows.

    Args:
        env_id: an environment whose reward parts are known.
        policy: who acts; None for uniformly random actions.
        noise: in units of the policy's own standard deviation.
        rows: transitions wanted.
        entropy: see :func:`suites.datasets.play.play`.
        policy_id: written into the rows.

    Returns:
        A dataset in memory.
    """
    return play_episodes(
        env_id, lambda env: _Noisy(env, policy, noise, policy_id), rows=rows, entropy=entropy
    )


class _Noisy:
    """One policy in all slots, with noise drawn for the whole episode when it begins."""

    def __init__(self, env: VectorEnv, policy: Policy | None, noise: float, policy_id: int) -> None:
        self.policy, self.noise, self.policy_id = policy, noise, policy_id
        shape = env.action_space.shape or ()
        self.draws = np.zeros((env.count, env.horizon or 1, *shape), np.float32)

    def begin(
        self, slot: int, observation: npt.NDArray[np.float64], generator: np.random.Generator
    ) -> int:
        shape = self.draws[slot].shape
        if self.policy is None:
            self.draws[slot] = generator.uniform(-1.0, 1.0, shape)
        else:
            self.draws[slot] = self.noise * generator.standard_normal(shape, np.float32)
        return self.policy_id

    def act(
        self, observations: npt.NDArray[np.float64], steps: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        draws: npt.NDArray[np.float32] = self.draws[np.arange(len(steps)), steps]
        return draws if self.policy is None else self.policy.act(observations, draws)
