"""Logs of two visits to the clinic (:mod:`suites.envs.bedside`), with the doctor's eye or without.

The doctor doses drug A by how the patient looks, ``DRUG_A``, and drug B by ``DRUG_B``, whatever
else there is (``confounded``); or drug A with the same mean over days and without looking
(``unconfounded``). What the doctor sees is in the observation or not; the environment says which.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from suites.catalog import Task
from suites.datasets import store
from suites.datasets.play import play as play_episodes
from suites.datasets.play import shard_entropy
from suites.datasets.recipes import Segment, Shard, divide

if TYPE_CHECKING:
    from suites.envs import VectorEnv
    from suites.envs.bedside import VectorBedside

VERSION = 1  # raised whenever the same identity would give other bytes
PACKAGES: tuple[str, ...] = ()
STEPS = 2  # visits of an episode
# P(dose 0, 1, 2) of drug A on a good and on a bad day, and of drug B.
DRUG_A = ((0.38, 0.42, 0.20), (0.20, 0.42, 0.38))
DRUG_B = (0.32, 0.36, 0.32)
_SIZE = 100_000  # transitions: 50,000 patients
_SHARD = 100_000  # transitions at most


def missing(task: Task) -> str | None:
    """Nothing is: the policies are formulas."""
    return None


def default_size(task: Task) -> int:
    """See :class:`suites.datasets.recipes.Recipe`."""
    return _SIZE


def describe(task: Task, size: int) -> dict[str, Any]:
    """See :class:`suites.datasets.recipes.Recipe`; all chance is in the doses' probabilities."""
    return {
        "version": VERSION,
        "quality": task.quality,
        "drug_a": [list(day) for day in doses(task.quality)],
        "drug_b": list(DRUG_B),
        "segments": [asdict(Segment(task.quality, 1.0, 1.0))],
        "shard": _SHARD,
    }


def doses(quality: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """P(dose of drug A) on a good and on a bad day, by the logs' quality."""
    if quality == "confounded":
        return DRUG_A
    mean = tuple((good + bad) / 2 for good, bad in zip(*DRUG_A, strict=True))
    return mean, mean


def shards(wanted: dict[str, Any]) -> list[Shard]:
    """Even runs of whole episodes."""
    return divide([0, wanted["transitions"]], _SHARD, STEPS)


def play(wanted: dict[str, Any], shard: Shard) -> store.Dataset:
    """See :class:`suites.datasets.recipes.Recipe`."""
    recipe = wanted["recipe"]
    return play_episodes(
        wanted["env_id"],
        lambda env: _Doctor(env, np.array(recipe["drug_a"]), np.array(recipe["drug_b"])),
        rows=shard.stop - shard.start,
        entropy=shard_entropy(wanted, shard),
    )


def logged(data: store.Dataset) -> None:
    """Episodes are those of the table."""


class _Doctor:
    """Who doses, and looks at the patient also where observations do not show it."""

    def __init__(self, env: VectorEnv, drug_a: npt.NDArray[Any], drug_b: npt.NDArray[Any]) -> None:
        self.patients = cast("VectorBedside", env).patients
        self.drug_a, self.drug_b = np.cumsum(drug_a, axis=1), np.cumsum(drug_b)
        self.draws = np.zeros((env.count, STEPS, 2))

    def begin(
        self, slot: int, observation: npt.NDArray[np.float64], generator: np.random.Generator
    ) -> int:
        self.draws[slot] = generator.random((STEPS, 2))
        return 0

    def act(
        self, observations: npt.NDArray[np.float64], steps: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        draws = self.draws[np.arange(len(steps)), np.minimum(steps, STEPS - 1)]
        a = (self.drug_a[self.patients.bad, :-1] <= draws[:, :1]).sum(1)
        b = (self.drug_b[:-1] <= draws[:, 1:]).sum(1)
        return np.stack((a, b), axis=1).astype(np.float32)
