"""Decomposition: do the weights of a decomposed Q say what they claim to?

An agent's ``decompose`` splits Q(s, a) into shares w_i for the parts of the reward that it names,
and one that overflows. The claim is w_i Q = c_i r_i for each part's immediate contribution c_i r_i;
here it is compared on the data, together with how far the weights have saturated, how often Q is
below 0 (where shares of it mean nothing), and whether Q itself is right.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from suites.studies.context import Context, DoesNotApply, Floats, Ints, Outcome, StudyError
from suites.studies.measures import agreement, correlation
from suites.studies.rollouts import SLOTS, Rollouts

ROWS = 4000  # of the data, for weights and fit
PAIRS = 8 * SLOTS  # factual (state, action) pairs whose returns are measured
SATURATED = 0.95  # a state with a weight above this has but one


def run(context: Context) -> list[Outcome]:
    """Weights, fit and, where there is a simulator, values of every seed; see above."""
    known = list(context.dataset.card.get("reward_parts", ()))
    if not known or "reward_parts" not in context.dataset.fields:
        raise DoesNotApply("the data does not split its rewards into parts")
    count = min(ROWS, len(context.dataset.table))
    rows = np.stack(
        [
            context.rng("decomposition", i).choice(len(context.dataset.table), count, replace=False)
            for i in range(len(context.seeds))
        ]
    )
    actions = context.raw("actions", rows)
    groups = context.groups_of(rows) if context.policy_groups is not None else None
    found = context.ask(
        "decompose",
        context.seen(rows),
        context.tensor(actions),
        None if groups is None else context.tensor(groups),
    )
    parts, weights = list(found["parts"]), found["weights"]
    if any(part not in known for part in parts) or weights.shape[2:] != (len(parts) + 1,):
        raise StudyError(
            f"decompose returned parts {parts} and weights of shape {weights.shape}; the data has "
            f"the parts {known}, and weights are [S, B, number of parts + 1]"
        )
    values = context.value(rows, actions, groups)
    columns = [known.index(part) for part in parts]
    # What a part takes away is a cost, which no positive share of a positive Q can explain.
    targets = np.maximum(context.raw("reward_parts", rows)[..., columns], 0.0)
    measured = _measured(context)
    results = []
    for i in range(len(context.seeds)):
        outcome = summarise(parts, weights[i], values[i], targets[i])
        numbers, arrays = measured[i]
        results.append(
            Outcome({**outcome.numbers, "returns": numbers}, {**outcome.arrays, **arrays})
        )
    return results


def summarise(parts: list[str], weights: Floats, values: Floats, targets: Floats) -> Outcome:
    """One seed's weights ``[B, D + 1]`` and fit of w Q to targets ``[B, D]``, values ``[B]``."""
    names = [*parts, "overflow"]
    fits = {}
    for i, part in enumerate(parts):
        explained, target = weights[:, i] * values, targets[:, i]
        error = float(np.square(explained - target).mean())
        spread = float(target.var())
        fits[part] = {
            "explained": float(explained.mean()),
            "target": float(target.mean()),
            "rmse": error**0.5,
            "target_std": spread**0.5,
            "r2": 1.0 - error / spread if spread > 1e-12 else np.nan,
            "correlation": correlation(explained, target),
        }
    numbers = {
        "rows": len(values),
        "weights": {name: float(weights[:, i].mean()) for i, name in enumerate(names)},
        "weights_std": {name: float(weights[:, i].std()) for i, name in enumerate(names)},
        "saturated": float((weights.max(axis=1) > SATURATED).mean()),
        "negative_values": float((values < 0).mean()),
        "fit": fits,
    }
    arrays = {
        "parts": np.array(names),
        "weights": weights.astype(np.float32),
        "values": values.astype(np.float32),
        "targets": targets.astype(np.float32),
    }
    return Outcome(numbers, arrays)


def _measured(context: Context) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Predicted Q of logged pairs against Monte-Carlo returns, for every seed."""
    try:
        rollouts = Rollouts(context)
    except DoesNotApply as why:
        return [({"applies": False, "why": str(why)}, {})] * len(context.seeds)
    try:
        rows, passed = rollouts.choose_rows("decomposition", PAIRS)
        actions = context.raw("actions", rows)
        groups: Ints | None = None
        if context.policy_groups is not None:
            groups = context.groups_of(rows)
        predicted = context.value(rows, actions, groups)
        returned, _ = rollouts.returns(rows, actions, context.discounts())
    except DoesNotApply as why:
        return [({"applies": False, "why": str(why)}, {})] * len(context.seeds)
    finally:
        rollouts.close()
    return [
        (
            {"applies": True, "passed_over": skipped, **agreement(p, r)},
            {"predicted": p.astype(np.float32), "returned": r.astype(np.float32)},
        )
        for p, r, skipped in zip(predicted, returned, passed, strict=True)
    ]
