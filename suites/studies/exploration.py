"""Exploration: are counterfactual actions worth what the critic says they are?

States are drawn from the data and the simulator is put into each. From every state several first
actions are tried: the logged one, the agent's own, and, if the agent can say, what each group of
logging policies would have done. Then the agent's policy goes on. The discounted return is what
Q(s, a) of that policy estimates, so predicted Q is set against it: bias, rank correlation, and
whether the actions are better than the logged ones (lift), by the critic's word and in truth.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from suites.studies.context import (
    Context,
    DoesNotApply,
    Floats,
    Ints,
    Outcome,
    StudyError,
)
from suites.studies.measures import agreement, mean_interval
from suites.studies.rollouts import SLOTS, Rollouts

FEWEST_PAIRS = 1000  # (state, action) pairs in all
FEWEST_STATES = 250


def run(context: Context) -> list[Outcome]:
    """Predicted Q against Monte-Carlo returns for every kind of first action; see above."""
    groups_known = context.policy_groups is not None
    count = _number_of_groups(context)
    states = number_of_states(2 + count)
    rollouts = Rollouts(context)
    try:
        rows, passed = rollouts.choose_rows("exploration", states)
        logged = context.raw("actions", rows)
        groups = context.groups_of(rows) if groups_known else None
        kinds: dict[str, tuple[Floats, Ints | None]] = {
            "logged": (logged, groups),
            "agent": (rollouts.first_actions(rows), None),
        }
        if count > 1:
            proposed = context.ask("counterfactual_actions", context.seen(rows))
            for k in range(count):
                kinds[f"group {k}"] = (proposed[:, :, k], np.full(rows.shape, k))
        discounts = context.discounts()
        predicted, returned = [], []
        first_rewards = np.zeros(rows.shape)
        for name, (actions, of) in kinds.items():
            predicted.append(context.value(rows, actions, of))
            totals, rewards = rollouts.returns(rows, actions, discounts)
            returned.append(totals)
            if name == "logged":
                first_rewards = rewards
    finally:
        rollouts.close()
    wrong = np.abs(first_rewards - context.raw("rewards", rows))
    results = []
    for i in range(len(context.seeds)):
        here = groups[i] if groups is not None and count > 1 else None
        found = summarise(
            list(kinds), np.stack([p[i] for p in predicted]), np.stack([r[i] for r in returned]),
            here,
        )  # fmt: skip
        numbers = {
            "states": states,
            "pairs": states * len(kinds),
            "passed_over": passed[i],  # their observation does not tell the state
            "discount": discounts[i],
            "restored_reward_error": float(np.median(wrong[i])),  # replayed logged actions
            **found.numbers,
        }
        arrays = {**found.arrays, "rows": rows[i]}
        results.append(Outcome(numbers, arrays))
    return results


def _number_of_groups(context: Context) -> int:
    """Groups of policies whose counterfactual actions the agent can say; 0 if it cannot."""
    if context.policy_groups is None or not hasattr(context.agent, "counterfactual_actions"):
        return 0
    one_each = np.zeros((len(context.seeds), 1), np.int64)
    seen = context.seen(one_each)
    try:
        shape = context.ask("counterfactual_actions", seen).shape
    except DoesNotApply:  # this configuration does not know them
        return 0
    count = int(context.policy_groups.max()) + 1
    expected = (*one_each.shape, count, *(context.spec.action_space.shape or ()))
    if shape != expected and shape[2:3] != (1,):  # to an agent all policies may be one
        raise StudyError(f"counterfactual_actions returned shape {shape}; {expected} is asked for")
    return count if shape == expected else 0


def number_of_states(kinds: int) -> int:
    """As many as it takes for ``FEWEST_PAIRS``, in whole rounds of the simulators."""
    return max(FEWEST_STATES, -(-FEWEST_PAIRS // (kinds * SLOTS)) * SLOTS)


def summarise(
    kinds: list[str], predicted: Floats, returned: Floats, groups: Ints | None
) -> Outcome:
    """One seed's numbers.

    Args:
        kinds: "logged", "agent", and "group 0", "group 1", ... or none of these.
        predicted: Q by the critic, ``[K, N]``.
        returned: Monte-Carlo returns, ``[K, N]``.
        groups: the group that acted in each state, ``[N]``; a group's own action in its own states
            is not counterfactual and is left out of "counterfactual". None where there are no
            groups.
    """
    numbers: dict[str, Any] = {
        "kinds": {name: agreement(predicted[k], returned[k]) for k, name in enumerate(kinds)}
    }
    lifts = {"agent": (predicted[1] - predicted[0], returned[1] - returned[0])}
    if groups is not None:
        other = np.arange(len(kinds) - 2)[:, None] != groups[None]
        # One number per state: its actions share the state, so they are no independent pairs.
        share = other / other.sum(axis=0)
        numbers["kinds"]["counterfactual"] = agreement(
            predicted[2:][other],
            returned[2:][other],
            ((predicted[2:] - returned[2:]) * share).sum(axis=0),
        )
        lifts["counterfactual"] = (
            ((predicted[2:] - predicted[0]) * share).sum(axis=0),
            ((returned[2:] - returned[0]) * share).sum(axis=0),
        )
        best = np.where(other, predicted[2:], -np.inf).argmax(axis=0)[None]
        lifts["chosen"] = (  # the counterfactual action that the critic likes best
            np.take_along_axis(predicted[2:], best, 0)[0] - predicted[0],
            np.take_along_axis(returned[2:], best, 0)[0] - returned[0],
        )
    numbers["lift"] = {
        name: {"predicted": mean_interval(claim), "true": mean_interval(truth)}
        for name, (claim, truth) in lifts.items()
    }
    arrays = {
        "kinds": np.array(kinds),
        "predicted": predicted.astype(np.float32),
        "returned": returned.astype(np.float32),
    }
    if groups is not None:
        arrays["groups"] = groups.astype(np.int64)
    return Outcome(numbers, arrays)
