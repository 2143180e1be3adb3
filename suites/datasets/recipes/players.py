"""Logs of the synthetic players of :mod:`suites.envs.players`: three policies, and their overlap.

The policies, and whom each is at home with, are in :mod:`suites.envs.players_policies`. At overlap
o a player is the home policy's with probability 1 - o, and otherwise any one's at random: at 0 the
first day's row tells the policy, at 1 nothing does.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from suites.catalog import Task
from suites.datasets import store
from suites.datasets.play import episode_chance, shard_entropy
from suites.datasets.play import play as play_episodes
from suites.datasets.recipes import Segment, Shard, divide, overlap

if TYPE_CHECKING:
    from suites.envs import VectorEnv

VERSION = 1  # raised whenever the same identity would give other bytes
PACKAGES: tuple[str, ...] = ()
_SIZE = 200_000  # transitions: days of players
STEPS = 180  # of an episode at most
POLICIES = ("generous", "pushing", "careful")
NOISE = 0.25  # standard deviation of all policies' actions, in units of the action
_SHARD = 50_000  # transitions at most


def missing(task: Task) -> str | None:
    """Nothing is: the policies are formulas."""
    return None


def default_size(task: Task) -> int:
    """See :class:`suites.datasets.recipes.Recipe`."""
    return _SIZE


def describe(task: Task, size: int) -> dict[str, Any]:
    """See :class:`suites.datasets.recipes.Recipe`; noise counts in units of the action."""
    return {
        "version": VERSION,
        "overlap": overlap(task.quality),
        "segments": [asdict(Segment(policy, NOISE, 1.0)) for policy in POLICIES],
        "shard": _SHARD,
    }


def shards(wanted: dict[str, Any]) -> list[Shard]:
    """Even runs of rows, in which the policies' episodes are mixed as they were assigned."""
    return divide([0, wanted["transitions"]], _SHARD)


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


def reset_seeds(data: store.Dataset) -> npt.NDArray[np.int64]:
    """What each episode of such data was reset with, ``[E]``, in the order of ``episode_starts``.

    With the logged actions they put the simulator where an episode stood on any day
    (:meth:`suites.envs.players.VectorPlayers.replay`). They are derived again, from all of the
    dataset.
    """
    starts = data.episode_starts
    seeds = np.zeros(len(starts), np.int64)
    for shard in shards(data.card):
        here = np.flatnonzero((starts >= shard.start) & (starts < shard.stop))
        entropy = shard_entropy(data.card, shard)
        seeds[here] = [episode_chance(entropy, number)[1] for number in range(len(here))]
    return seeds


class _Assigned:
    """The three policies, of which one is drawn for every episode."""

    def __init__(self, env: VectorEnv, overlap: float, noise: float) -> None:
        from suites.envs.players_policies import Logging

        self.overlap, self.noise = overlap, noise
        self.logging = Logging(env.count)
        self.policies = np.zeros(env.count, np.int64)
        self.draws = np.zeros((env.count, STEPS, 3))

    def begin(
        self, slot: int, observation: npt.NDArray[np.float64], generator: np.random.Generator
    ) -> int:
        from suites.envs.players_policies import assigned

        self.policies[slot] = assigned(observation, self.overlap, generator.random(2))
        self.draws[slot] = self.noise * generator.standard_normal(self.draws[slot].shape)
        self.logging.begin(slot, observation)
        return int(self.policies[slot])

    def act(
        self, observations: npt.NDArray[np.float64], steps: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        slots = np.arange(len(steps))
        means = self.logging.means(observations)[self.policies, slots]
        actions = means + self.draws[slots, np.minimum(steps, STEPS - 1)]
        return np.clip(actions, -1.0, 1.0).astype(np.float32)
