"""Logs of the simulated sepsis ward (:mod:`suites.envs.sepsis`), with logged probabilities.

Qualities ``clinician`` and ``clinician-small``: a rule of thumb (antibiotics for a high heart rate
or pressure, vasopressors for a low pressure, ventilation for low oxygen), each of whose three
decisions is the other way with probability ``FLIPS``. In the variant with crises: all three
treatments in a crisis and none otherwise, each the other way with probability ``FLIPS_IN_CRISES``
(``confounded``), or with the same mean over crises and without looking at them (``unconfounded``).

A share of the episodes is held out from training, for off-policy estimates.
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
    from suites.envs.sepsis import VectorSepsis

VERSION = 1  # raised whenever the same identity would give other bytes
PACKAGES: tuple[str, ...] = ()
STEPS = 20  # of an episode at most
FLIPS, FLIPS_IN_CRISES = 0.15, 0.05
_SIZES = {"clinician-small": 12_500}  # transitions, those held out included
_SIZE = 50_000
_HELD_OUT = {"clinician-small": 0.8}  # of the episodes: 2,500 transitions are left to learn from
_HELD_OUT_SHARE = 0.2
_SHARD = 100_000  # transitions at most


def missing(task: Task) -> str | None:
    """Nothing is: the policies are formulas."""
    return None


def default_size(task: Task) -> int:
    """See :class:`suites.datasets.recipes.Recipe`."""
    return _SIZES.get(task.quality, _SIZE)


def describe(task: Task, size: int) -> dict[str, Any]:
    """See :class:`suites.datasets.recipes.Recipe`; noise is the probability of a flip."""
    flips = FLIPS if task.environment == "sepsis" else FLIPS_IN_CRISES
    return {
        "version": VERSION,
        "quality": task.quality,
        "held_out": _HELD_OUT.get(task.quality, _HELD_OUT_SHARE),
        "action_log_probs": True,
        "segments": [asdict(Segment(task.quality, flips, 1.0))],
        "shard": _SHARD,
    }


def shards(wanted: dict[str, Any]) -> list[Shard]:
    """Even runs of rows."""
    return divide([0, wanted["transitions"]], _SHARD)


def play(wanted: dict[str, Any], shard: Shard) -> store.Dataset:
    """See :class:`suites.datasets.recipes.Recipe`."""
    return play_episodes(
        wanted["env_id"],
        lambda env: _Logging(env, wanted["recipe"]["quality"]),
        rows=shard.stop - shard.start,
        entropy=shard_entropy(wanted, shard),
        log_probs=True,
    )


def logged(data: store.Dataset) -> None:
    """Episodes are those of the table."""


class _Logging:
    """The logging policy, which sees the crisis also where observations do not show it.

    Attributes:
        log_probs: ``[E]``, of the last actions.
    """

    def __init__(self, env: VectorEnv, quality: str) -> None:
        from suites.envs.sepsis_values import Ward, logging_policy

        self.patients = cast("VectorSepsis", env).patients
        ward = Ward(self.patients.crises, self.patients.show_crisis)
        self.policy = logging_policy(ward, quality)
        self.draws = np.zeros((env.count, STEPS))
        self.log_probs = np.zeros(env.count)

    def begin(
        self, slot: int, observation: npt.NDArray[np.float64], generator: np.random.Generator
    ) -> int:
        self.draws[slot] = generator.random(STEPS)
        return 0

    def act(
        self, observations: npt.NDArray[np.float64], steps: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        from suites.envs.sepsis import TREATMENT_BITS, pick

        now = self.patients
        chances = self.policy[now.crisis, now.diabetes, now.vitals, now.treatments]
        slots = np.arange(len(steps))
        chosen = pick(np.cumsum(chances, axis=1), self.draws[slots, steps])
        self.log_probs = np.log(chances[slots, chosen])
        return TREATMENT_BITS[chosen].astype(np.float32)
