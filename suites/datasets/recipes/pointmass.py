"""The point mass of :mod:`suites.envs.pointmass`: uniformly random choices.

Its agents learn online from nothing and never read this data; it is what the row of the behaviour
and the scales of transforms are taken from.
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
from suites.datasets.recipes import Segment, Shard, divide

if TYPE_CHECKING:
    from suites.envs import VectorEnv

VERSION = 1  # raised whenever the same identity would give other bytes
PACKAGES: tuple[str, ...] = ()
_SIZE = 20_000  # transitions: 400 episodes
STEPS = 50  # of an episode
_SHARD = 50_000  # transitions at most


def missing(task: Task) -> str | None:
    """Nothing is: choices are drawn."""
    return None


def default_size(task: Task) -> int:
    """See :class:`suites.datasets.recipes.Recipe`."""
    return _SIZE


def describe(task: Task, size: int) -> dict[str, Any]:
    """See :class:`suites.datasets.recipes.Recipe`; there is no noise beside the choices."""
    return {
        "version": VERSION,
        "segments": [asdict(Segment("random", 0.0, 1.0))],
        "shard": _SHARD,
    }


def shards(wanted: dict[str, Any]) -> list[Shard]:
    """Even runs of whole episodes."""
    return divide([0, wanted["transitions"]], _SHARD, STEPS)


def play(wanted: dict[str, Any], shard: Shard) -> store.Dataset:
    """See :class:`suites.datasets.recipes.Recipe`."""
    return play_episodes(
        wanted["env_id"],
        _Random,
        rows=shard.stop - shard.start,
        entropy=shard_entropy(wanted, shard),
    )


def logged(data: store.Dataset) -> None:
    """Episodes are those of the table."""


class _Random:
    """Every choice of every factor is as likely as any other."""

    def __init__(self, env: VectorEnv) -> None:
        from gymnasium.spaces import MultiDiscrete

        assert isinstance(env.action_space, MultiDiscrete)
        self.choices = env.action_space.nvec
        self.draws = np.zeros((env.count, env.horizon or 1, len(self.choices)), np.int64)

    def begin(
        self, slot: int, observation: npt.NDArray[np.float64], generator: np.random.Generator
    ) -> int:
        self.draws[slot] = generator.integers(self.choices, size=self.draws[slot].shape)
        return 0

    def act(
        self, observations: npt.NDArray[np.float64], steps: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        return self.draws[np.arange(len(steps)), steps]
