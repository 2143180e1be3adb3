"""What policies are worth in :mod:`suites.envs.sepsis`, computed and not played.

The state is finite, so the expected undiscounted return of 20 steps is a sum. Tables of policies
are ``[C, 2, 90, 8, 8]``: the probability of each combination of treatments given crisis (C = 1
without crises), diabetes, vitals, and treatments of the last step. A policy that does not see the
crisis has the same table for both; one that knows the time has a table ``[20, ...]`` for each step.

``python -m suites.envs.sepsis_values`` prints the returns that score 0 and 100
(``results/published/own_reference_scores.csv``) and what ``docs/sepsis.md`` says of other policies.
``python -m suites.envs.sepsis_values FOLDER...`` prints the exact values of trained policies.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from suites.datasets.recipes.sepsis import FLIPS, FLIPS_IN_CRISES
from suites.datasets.recipes.sepsis import STEPS as HORIZON
from suites.envs.exact import main
from suites.envs.mujoco import SEPSIS, SEPSIS_HIDDEN, SEPSIS_SHOWN, Floats
from suites.envs.sepsis import (
    CRISIS,
    ENDS,
    REWARDS,
    TREATMENT_BITS,
    TREATMENTS,
    VITAL_LEVELS,
    VITALS,
    VectorSepsis,
    observe,
    start,
    transitions,
    treatment_index,
)

DISCOUNT = 0.99  # of the policy that a discounting agent would find with unlimited data
_SWEEPS = 5000  # of value iteration at most


@cache
def _by_action(crises: bool) -> Floats:
    """:func:`transitions` as matrices ``[2, 8, C * 90 * 8, 90]`` by diabetes and action."""
    moved = transitions(crises).transpose(1, 4, 0, 2, 3, 5)
    return np.ascontiguousarray(moved).reshape(2, TREATMENTS, -1, VITALS)


@dataclass(frozen=True)
class Ward:
    """One setting of the simulator.

    Attributes:
        crises: whether there are any.
        shown: whether policies see them; without, the best policy is sought among those that
            do not.
    """

    crises: bool = False
    shown: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a table of states."""
        return (2 if self.crises else 1, 2, VITALS, TREATMENTS)

    @property
    def shares(self) -> Floats:
        """P(crisis), ``[C]``."""
        return np.array([1.0 - CRISIS, CRISIS] if self.crises else [1.0])

    def q(self, following: Floats, discount: float = 1.0) -> Floats:
        """Q ``[C, 2, 90, 8, 8]`` of one step from values ``[2, 90, 8]`` of what follows.

        The values are means over the crisis, which the step does not tell.
        """
        # By vitals and treatments that follow, [2, 90, 8].
        worth = REWARDS + discount * np.where(ENDS, 0.0, following)
        found = _by_action(self.crises) @ worth.transpose(0, 2, 1)[..., None]  # [2, 8, C 90 8, 1]
        parts = found.reshape(2, TREATMENTS, *self.shape[:1], VITALS, TREATMENTS)
        return np.asarray(parts.transpose(2, 0, 3, 4, 1))

    def mean(self, values: Floats) -> Floats:
        """Means over the crisis of ``[C, ...]``."""
        return np.asarray(np.tensordot(self.shares, values, 1))

    def at_start(self, values: Floats) -> float:
        """The mean over first states of values ``[2, 90, 8]``."""
        return float((start() * values[:, :, 0]).sum())

    def value(self, policy: Floats) -> float:
        """The expected return of a policy, ``[C, 2, 90, 8, 8]`` or by step ``[20, ...]``."""
        following = np.zeros((2, VITALS, TREATMENTS))
        for t in reversed(range(HORIZON)):
            now = policy[t] if policy.ndim == 6 else policy
            following = self.mean((now * self.q(following)).sum(-1))
        return self.at_start(following)

    def greedy(self, q: Floats) -> Floats:
        """The best policy ``[C, 2, 90, 8, 8]`` for Q; one for both crises if they are not seen.

        Among equals the one that comes first in the order of the actions.
        """
        seen = q if self.shown else self.mean(q)[None]
        best = np.eye(TREATMENTS)[np.round(seen, 12).argmax(-1)]
        return np.broadcast_to(best, (*self.shape, TREATMENTS))

    def optimal(self) -> tuple[float, Floats]:
        """The greatest expected return of 20 steps, and a policy ``[20, ...]`` that has it.

        Exact also where the crisis is not seen: crises are independent of all before, so that what
        is seen says nothing of them and remains a Markov chain.
        """
        following = np.zeros((2, VITALS, TREATMENTS))
        steps = []
        for _ in range(HORIZON):
            q = self.q(following)
            steps.append(self.greedy(q))
            following = self.mean((steps[-1] * q).sum(-1))
        return self.at_start(following), np.stack(steps[::-1])

    def learned(
        self, behaviour: Floats | None = None, discount: float = DISCOUNT
    ) -> tuple[float, Floats]:
        """What an agent without clock would learn from unlimited logs, by value iteration.

        Args:
            behaviour: the policy ``[C, 2, 90, 8, 8]`` that logged; None for one that did not look
                at the crisis.
            discount: the agent's.

        Returns:
            The discounted value that it believes in, and its policy ``[C, 2, 90, 8, 8]``. Where
            crises are not shown, the model of such an agent is the mean over crises of those
            *logged with that action*: P(crisis | s, a), not P(crisis).
        """
        weights = np.broadcast_to(self.shares[:, None, None, None, None], (*self.shape, TREATMENTS))
        if behaviour is not None and not self.shown:
            weights = weights * behaviour
            weights = weights / weights.sum(0)
        following = np.zeros((2, VITALS, TREATMENTS))
        for _ in range(_SWEEPS):
            q = self.q(following, discount)
            if not self.shown:  # believed
                q = np.broadcast_to((weights * q).sum(0), q.shape)
            best = self.mean(q.max(-1))
            change = np.abs(best - following).max()
            following = best
            if change < 1e-12:
                break
        chosen = np.eye(TREATMENTS)[np.round(q, 9).argmax(-1)]
        return self.at_start(following), chosen

    def table(self, act: Callable[[Floats], npt.NDArray[Any]]) -> Floats:
        """The table of a policy without memory or chance.

        Args:
            act: actions ``[N, 3]`` for observations ``[N, 17 or 18]``.
        """
        crisis, diabetes, vitals, treatments = (part.ravel() for part in np.indices(self.shape))
        seen = observe(diabetes, vitals, treatments, crisis if self.shown else None)
        chosen = treatment_index(act(seen))
        return np.asarray(np.eye(TREATMENTS)[chosen].reshape(*self.shape, TREATMENTS))


def uniform(ward: Ward) -> Floats:
    """Uniformly random treatments."""
    return np.full((*ward.shape, TREATMENTS), 1.0 / TREATMENTS)


def clinician(ward: Ward) -> Floats:
    """A rule of thumb that looks at the vitals alone.

    Antibiotics for a high heart rate or pressure, vasopressors for a low pressure, ventilation for
    low oxygen.
    """
    heart, pressure, oxygen, _ = VITAL_LEVELS.T
    bits = np.stack(((heart == 2) | (pressure == 2), pressure == 0, oxygen == 0), 1)
    chosen = np.eye(TREATMENTS)[treatment_index(bits)]  # [90, 8]
    return np.broadcast_to(chosen[:, None], (*ward.shape, TREATMENTS))


def all_in_a_crisis(ward: Ward) -> Floats:
    """All three treatments in a crisis, none otherwise."""
    treats = np.zeros((*ward.shape, TREATMENTS))
    treats[0, ..., 0] = treats[1:, ..., TREATMENTS - 1] = 1.0
    return treats


def softened(policy: Floats, flips: float) -> Floats:
    """Every treatment on its own is the other way with probability ``flips``."""
    differ = (TREATMENT_BITS[:, None] != TREATMENT_BITS).sum(-1)
    return np.asarray(policy @ (flips**differ * (1.0 - flips) ** (3 - differ)))


def blind(ward: Ward, policy: Floats) -> Floats:
    """A policy's mean over crises: it acts as often, and without looking at them."""
    return np.broadcast_to(ward.mean(policy), policy.shape)


def logging_policy(ward: Ward, quality: str) -> Floats:
    """The policy that logged the data of a quality; see :mod:`suites.datasets.recipes.sepsis`."""
    if not ward.crises:
        return softened(clinician(ward), FLIPS)
    logged = softened(all_in_a_crisis(ward), FLIPS_IN_CRISES)
    return blind(ward, logged) if quality == "unconfounded" else logged


def ward_of(env_id: str) -> Ward:
    """The setting of a registered environment."""
    patients = VectorSepsis(env_id, 1).patients
    return Ward(patients.crises, patients.show_crisis)


def _references() -> None:
    """Prints what ``docs/sepsis.md`` and the reference scores say."""
    for env_id in (SEPSIS, SEPSIS_HIDDEN, SEPSIS_SHOWN):
        ward = ward_of(env_id)
        low, high = ward.value(uniform(ward)), ward.optimal()[0]
        found = {"random": low, "optimal": high}
        if ward.crises:
            confounded = logging_policy(ward, "confounded")
            found["all in a crisis (logged)"] = ward.value(confounded)
            found["the same, blind (logged)"] = ward.value(blind(ward, confounded))
            found["learned from confounded logs"] = ward.value(ward.learned(confounded)[1])
            found["learned from blind logs"] = ward.value(ward.learned()[1])
        else:
            found["clinician"] = ward.value(clinician(ward))
            found["clinician, softened (logged)"] = ward.value(logging_policy(ward, "clinician"))
            found["best without a clock"] = ward.value(ward.learned()[1])
        found["never treats"] = ward.value(np.eye(TREATMENTS)[np.zeros(ward.shape, int)])
        print(env_id)
        for name, value in found.items():
            print(f"  {name:<30} {value:9.6f}  score {100 * (value - low) / (high - low):6.1f}")


def _of_trained(policy: Any) -> tuple[float, str]:
    """The exact value of a trained policy."""
    ward = ward_of(str(policy.task["env_id"]))
    return ward.value(ward.table(policy.act)), ""


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], _references, _of_trained))
