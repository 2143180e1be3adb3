"""What policies are worth in :mod:`suites.envs.bedside`, and what unlimited logs of it teach.

All is finite, so both are sums. Tables of policies are ``[2, 2, 3, 17, 9]``: the probability of
each pair of doses (of drug B fast) given the day (good, bad), the visit, x, and health in points,
-8 to 8; at the first visit only the row of 0 points counts. A policy that does not see the day has
the same table for both.

``python -m suites.envs.bedside_values`` prints the returns that score 0 and 100
(``results/published/own_reference_scores.csv``) and what ``docs/confounder.md`` says of other
policies. ``python -m suites.envs.bedside_values FOLDER...`` prints the exact values of trained
policies.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from baselines.config import UsageError
from suites.datasets.recipes.bedside import DRUG_B, doses
from suites.envs.bedside import DAY, DOSES, GAIN, KINDS, POINTS, Bedside, observe
from suites.envs.exact import main
from suites.envs.mujoco import Floats, make_one

Learner = Literal["bcq", "factored_bcq", "ad_bcq"]
DISCOUNT = 0.99  # of the agents
PAIRS = DOSES**2
HEALTH = np.arange(-DAY - DOSES + 1, DAY + DOSES)  # points that there are at a visit
ZERO = DAY + DOSES - 1  # the index of 0 points
SHAPE = (2, 2, KINDS, len(HEALTH))  # of a table of states
# Points after a visit, [day, x, points before, pair].
AFTER = (
    HEALTH[:, None] + GAIN.reshape(KINDS, 1, PAIRS) + DAY * np.array([1, -1])[:, None, None, None]
)
# By pair: one-hot doses of both drugs, [9, 6].
CHOICES = np.concatenate(
    (np.repeat(np.eye(DOSES), DOSES, 0), np.tile(np.eye(DOSES), (DOSES, 1))), axis=1
)
ALONE = np.array([[0, 3, 6], [0, 1, 2]])  # [drug, dose]: the pair in which the other drug is not


def worth(values: Floats) -> Floats:
    """Values ``[3, 17]`` of the second visit, where the first one leads: ``[2, 3, 9]``."""
    return np.asarray(values[np.arange(KINDS)[:, None], AFTER[:, :, ZERO] + ZERO])


def per_episode(policy: Floats, first: Floats, second: Floats) -> float:
    """The mean over episodes of what is paid by the first pair of doses plus what by the second.

    Args:
        policy: ``[2, 2, 3, 17, 9]``.
        first: by day, x and pair, ``[2, 3, 9]`` or what broadcasts to it.
        second: by day, x, points before and pair, ``[2, 3, 17, 9]`` or what broadcasts to it.
    """
    later = (policy[:, 1] * second).sum(-1).mean(0)
    return float((policy[:, 0, :, ZERO] * (first + worth(later))).sum(-1).mean())


def value(policy: Floats) -> float:
    """The expected return of a policy ``[2, 2, 3, 17, 9]``."""
    return per_episode(policy, np.zeros(()), AFTER / POINTS)


def given(policy: Floats) -> tuple[float, float]:
    """Mean dose of drug A in a visit, and by how much the dose of drug B is off in the mean."""
    a = CHOICES[:, :DOSES] @ np.arange(DOSES)
    off = (a - GAIN.reshape(KINDS, PAIRS))[:, None]  # |b - x|, [x, 1, pair]
    return per_episode(policy, a, a) / 2, per_episode(policy, off[:, 0], off) / 2


def uniform() -> Floats:
    """Uniformly random doses."""
    return np.full((*SHAPE, PAIRS), 1.0 / PAIRS)


def constant(a: int) -> Floats:
    """Always dose a of drug A, and the right one of drug B."""
    right = np.arange(KINDS)
    return np.broadcast_to(np.eye(PAIRS)[DOSES * a + right][:, None], (*SHAPE, PAIRS))


def behaviour(quality: str) -> Floats:
    """P(pair | day) ``[2, 9]`` of the doctor who logged the data of a quality."""
    return np.stack([np.outer(day, DRUG_B).ravel() for day in doses(quality)])


@dataclass(frozen=True)
class Logs:
    """Unlimited logs.

    Attributes:
        quality: which doctor's.
        shown: whether the day is in the observation.
    """

    quality: str
    shown: bool = False

    def seen(self) -> tuple[Floats, Floats]:
        """What the logs say of the behaviour and of the day, by what is seen of the day.

        Returns:
            P(pair | seen) ``[D, 9]`` and P(day | seen, pair) ``[D, 2, 9]``: D is 2 where the day is
            seen, else 1. Then the second is P(day | pair): the doctor's choice tells of the day.
        """
        chances = behaviour(self.quality)
        if self.shown:
            known = np.broadcast_to(np.eye(2)[:, :, None], (2, 2, PAIRS))
            return chances, known
        return chances.mean(0)[None], (chances / chances.sum(0))[None]

    def logging_policy(self) -> Floats:
        """The doctor's own table."""
        chances = behaviour(self.quality)[:, None, None, None]
        return np.broadcast_to(chances, (*SHAPE, PAIRS))

    def rarest(self) -> float:
        """The least P(pair | seen) relative to the favourite pair's; a mask is below it or bites.

        Of single doses it is no smaller.
        """
        chances, _ = self.seen()
        return float((chances.min(1) / chances.max(1)).min())

    def cloned(self) -> Floats:
        """The policy of the favourite dose of each drug."""
        chances = self.seen()[0] @ CHOICES
        a, b = chances[:, :DOSES].argmax(1), chances[:, DOSES:].argmax(1)
        return np.broadcast_to(np.eye(PAIRS)[DOSES * a + b][:, None, None, None], (*SHAPE, PAIRS))

    def believed(self) -> Floats:
        """What each dose of drug A seems to add to health in a visit, ``[D, 3]``, against none."""
        _, days = self.seen()
        gain = DAY * (days[:, 0] - days[:, 1])[:, ALONE[0]] + np.arange(DOSES)
        return np.asarray((gain - gain[:, :1]) / POINTS)

    def learned(self, learner: Learner, discount: float = DISCOUNT) -> Floats:
        """The policy that an agent's fixed point has, state by state, with a table for a network.

        Losses are squared ones, as the agents' are for errors below 1, and no mask bites. The model
        of ``ad_bcq`` is what the logs say follows a pair: P(day | seen, pair).

        Args:
            learner: whose losses.
            discount: the agent's.
        """
        chances, days = self.seen()
        second = np.einsum("dua,uxpa->dxpa", days, AFTER / POINTS)
        q_second, own_second = self._fit(learner, second, second[..., ALONE], chances)
        best = q_second.max(-1).mean(0)  # the day of the next visit is anyone's guess
        first = discount * np.einsum("dua,uxa->dxa", days, worth(best))
        alone = np.stack(
            [
                discount * np.einsum("dua,uxa->dxa", days, worth(own.max(-1).mean(0)))[..., pairs]
                for own, pairs in zip(np.moveaxis(own_second, -2, 0), ALONE, strict=True)
            ],
            axis=-2,
        )
        q_first, _ = self._fit(learner, first, alone, chances)
        q = np.stack((np.broadcast_to(q_first[:, :, None], q_second.shape), q_second), 1)
        chosen = np.eye(PAIRS)[np.round(q, 9).argmax(-1)]
        return np.broadcast_to(chosen, (*SHAPE, PAIRS))

    def _fit(
        self, learner: Learner, targets: Floats, alone: Floats, chances: Floats
    ) -> tuple[Floats, Floats]:
        """Q ``[D, ..., 9]`` and Q_k ``[D, ..., 2, 3]`` that minimise an agent's loss.

        Args:
            learner: whose.
            targets: y ``[D, ..., 9]``.
            alone: y_k ``[D, ..., 2, 3]``, used by ``ad_bcq``.
            chances: P(pair) in the batch ``[D, 9]``.
        """
        if learner == "bcq":
            return targets, alone
        joint = CHOICES / (2.0 if learner == "ad_bcq" else 1.0)  # the mean, or the sum, of two
        found = []
        for y, y_alone, share in zip(targets, alone, chances, strict=True):
            rows, goals, weights = joint, y, share
            if learner == "ad_bcq":
                rows = np.concatenate((joint, np.eye(2 * DOSES)))
                goals = np.concatenate((y, y_alone.reshape(*y.shape[:-1], 2 * DOSES)), -1)
                weights = np.concatenate((share, share @ CHOICES / 2))
            root = np.sqrt(weights)
            found.append((goals * root) @ np.linalg.pinv(rows * root[:, None]).T)
        own = np.stack(found)
        return own @ joint.T, own.reshape(*own.shape[:-1], 2, DOSES)


def table(act: Callable[[Floats], npt.NDArray[Any]], shown: bool) -> Floats:
    """The table of a policy without memory or chance.

    Args:
        act: actions ``[N, 2]`` for observations ``[N, 5 or 6]``.
        shown: whether the day is in them.
    """
    bad, visits, kind, health = (part.ravel() for part in np.indices(SHAPE))
    seen = observe(kind, HEALTH[health], visits, bad if shown else None)
    chosen = np.asarray(act(seen), np.int64) @ np.array([DOSES, 1])
    return np.asarray(np.eye(PAIRS)[chosen].reshape(*SHAPE, PAIRS))


def shows_day(env_id: str) -> bool:
    """Whether an environment's observations show the day.

    Raises:
        UsageError: for an environment of another problem.
    """
    env = make_one(env_id).unwrapped
    if not isinstance(env, Bedside):
        raise UsageError(f"{env_id} is another problem; give runs of the bedside tasks")
    return env.patient.show_day


LOGS = {
    "bedside-hidden-confounded": Logs("confounded"),
    "bedside-hidden-unconfounded": Logs("unconfounded"),
    "bedside-shown-confounded": Logs("confounded", shown=True),
}


def _references() -> None:
    """Prints what ``docs/confounder.md`` and the reference scores say."""
    low, high = value(uniform()), value(constant(DOSES - 1))

    def say(name: str, policy: Floats) -> None:
        found = value(policy)
        print(f"  {name:<34} {found:9.6f}  score {100 * (found - low) / (high - low):6.1f}")

    say("random", uniform())
    say("optimal", constant(DOSES - 1))
    say("no drug A, drug B right", constant(0))
    say("mild drug A, drug B right", constant(1))
    for task, logs in LOGS.items():
        print(f"{task}: rarest pair {logs.rarest():.3f} of the favourite")
        print(f"  drug A seems to add {np.round(logs.believed(), 4).tolist()}")
        say("logged", logs.logging_policy())
        say("the favourite doses (bc)", logs.cloned())
        learner: Learner
        for learner in ("bcq", "factored_bcq", "ad_bcq"):
            say(f"learned by {learner}", logs.learned(learner))


def _of_trained(policy: Any) -> tuple[float, str]:
    """The exact value of a trained policy, and what it gives."""
    found = table(policy.act, shows_day(str(policy.task["env_id"])))
    dose, mistake = given(found)
    return value(found), f", drug A {dose:.3f} a visit, drug B off by {mistake:.3f}"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], _references, _of_trained))
