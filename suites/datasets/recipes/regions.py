"""The confounded problem of :mod:`suites.envs.regions`: two policies, and how far they overlap.

Policy 0 acts f(v), policy 1 acts g(v), both with the noise of the environment's module. At overlap
o an episode in region A is policy 0's with probability 1 - o / 2, one in region B policy 1's: at 0
each keeps to its own region, at 1 they are assigned at random.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from suites.catalog import Task
from suites.datasets import store
from suites.datasets.play import play as play_episodes
from suites.datasets.play import shard_entropy
from suites.datasets.recipes import Segment, Shard, divide, overlap

if TYPE_CHECKING:
    from suites.envs import VectorEnv

VERSION = 1  # raised whenever the same identity would give other bytes
PACKAGES: tuple[str, ...] = ()
_SIZE = 20_000  # transitions: 1000 episodes
STEPS = 20  # of an episode
NOISE = 0.1  # standard deviation of both policies' actions, in units of the action
_SHARD = 50_000  # transitions at most


def missing(task: Task) -> str | None:
    """Nothing is: the policies are formulas."""
    return None


def default_size(task: Task) -> int:
    """See :class:`suites.datasets.recipes.Recipe`."""
    return _SIZE


def describe(task: Task, size: int) -> dict[str, Any]:
    """See :class:`suites.datasets.recipes.Recipe`; noise counts in units of the action."""
    policies = [Segment("f", NOISE, 0.5), Segment("g", NOISE, 0.5)]
    return {
        "version": VERSION,
        "overlap": overlap(task.quality),
        "segments": [asdict(policy) for policy in policies],
        "shard": _SHARD,
    }


def shards(wanted: dict[str, Any]) -> list[Shard]:
    """Even runs of whole episodes, in which both policies' are mixed as they were assigned."""
    return divide([0, wanted["transitions"]], _SHARD, STEPS)


def play(wanted: dict[str, Any], shard: Shard) -> store.Dataset:
    """See :class:`suites.datasets.recipes.Recipe`."""
    return play_episodes(
        wanted["env_id"],
        lambda env: _Assigned(env, wanted["recipe"]["overlap"], NOISE),
        rows=shard.stop - shard.start,
        entropy=shard_entropy(wanted, shard),
    )


def logged(data: store.Dataset) -> None:
    """Episodes are those of the table."""


class _Assigned:
    """Both policies, of which one is drawn for every episode."""

    def __init__(self, env: VectorEnv, overlap: float, noise: float) -> None:
        self.overlap, self.noise = overlap, noise
        self.policies = np.zeros(env.count, np.int64)
        self.draws = np.zeros((env.count, env.horizon or 1, 2))

    def begin(
        self, slot: int, observation: npt.NDArray[np.float64], generator: np.random.Generator
    ) -> int:
        own = int(observation[0] > 0)  # policy 0 is at home in A, policy 1 in B
        policy = own if generator.random() < 1.0 - self.overlap / 2 else 1 - own
        self.draws[slot] = self.noise * generator.standard_normal(self.draws[slot].shape)
        self.policies[slot] = policy
        return policy

    def act(
        self, observations: npt.NDArray[np.float64], steps: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        from suites.envs.regions import best_action, other_action

        v = observations[:, 1:5]
        means = np.where((self.policies == 0)[:, None], best_action(v), other_action(v))
        actions = means + self.draws[np.arange(len(steps)), steps]
        return np.clip(actions, -1.0, 1.0).astype(np.float32)
