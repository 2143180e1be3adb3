"""The paper's failure signatures, read off the metrics of one seed's learning curve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

RECOGNISED = 0.9  # balanced accuracy with which the adversary still tells the policies apart
EXPLODED = 2.0  # times the largest value that rewards and discount allow
SATURATED = 0.95  # share of samples whose decomposition has one weight above 0.999
CLUSTERED = 0.95  # share of actions that are nearest to one and the same logging policy's
FORCED = 0.5  # share of the discount's raises that came by deadline
EARLY = 0.3  # before this share of the training, representation and values have not settled


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
        if point["metrics"].get("progress", 1.0) >= EARLY:
            for name, text in _signs(point["metrics"]):
                found.setdefault(name, {"name": name, "update": point["update"], "text": text})
    return list(found.values())


def _signs(metrics: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    accuracy = metrics.get("policy_accuracy", 0.0)
    if accuracy > RECOGNISED:
        yield (
            "balancing_collapsed",
            f"the adversary still tells logging policies apart with accuracy {accuracy:.2f}: "
            "the representation is not balanced",
        )
    excess = metrics.get("q_excess", 0.0)
    if excess > EXPLODED:
        yield (
            "q_explosion",
            f"values are {excess:.1f} times the largest that rewards and discount allow",
        )
    saturation = metrics.get("weight_saturation", 0.0)
    if saturation > SATURATED:
        yield (
            "decomposition_saturated",
            f"one weight takes all of Q in {saturation:.0%} of samples: nothing is decomposed",
        )
    share = metrics.get("nearest_policy_share", 0.0)
    if share > CLUSTERED:
        yield (
            "actions_clustered",
            f"{share:.0%} of actions are nearest to one and the same logging policy's",
        )
    forced = metrics.get("discounts_forced", 0.0)
    if forced > FORCED:
        yield (
            "discount_stalled",
            f"{forced:.0%} of the discount's raises came by deadline, not by a stable loss",
        )
