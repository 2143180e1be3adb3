"""The paper's failure signatures, read off the metrics of one seed's learning curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

EARLY = 0.3  # before this share of the training, representation and values have not settled
SIGNATURES = (  # name, metric, the largest value that is no failure, what is wrong beyond it
    (
        "balancing_collapsed",
        "policy_accuracy",  # balanced, of the adversary
        0.9,
        "the adversary still tells logging policies apart with accuracy {:.2f}: the representation "
        "is not balanced",
    ),
    (
        "q_explosion",
        "q_excess",
        2.0,
        "values are {:.1f} times the largest that rewards and discount allow",
    ),
    (
        "decomposition_saturated",
        "weight_saturation",  # share of samples with one weight above 0.999
        0.95,
        "one weight takes all of Q in {:.0%} of samples: nothing is decomposed",
    ),
    (
        "actions_clustered",
        "nearest_policy_share",
        0.95,
        "{:.0%} of actions are nearest to one and the same logging policy's",
    ),
    (
        "discount_stalled",
        "discounts_forced",
        0.5,
        "{:.0%} of the discount's raises came by deadline, not by a stable loss",
    ),
)


def diagnose(curve: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Names what went wrong, each signature once, where it was first seen.

    Args:
        curve: points in order, each with ``update`` and ``metrics`` (name -> number), among them
            ``progress``, the share of the training done; what a configuration does not measure
            cannot be diagnosed.

    Returns:
        A list of ``{"name", "update", "text"}``.
    """
    found: dict[str, dict[str, Any]] = {}
    for point in curve:
        metrics = point["metrics"]
        if metrics.get("progress", 1.0) < EARLY:
            continue
        for name, metric, limit, text in SIGNATURES:
            value = metrics.get(metric, 0.0)
            if value > limit:
                sign = {"name": name, "update": point["update"], "text": text.format(value)}
                found.setdefault(name, sign)
    return list(found.values())
