"""Groups of logging policies: few classes instead of dozens of neighbouring checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from suites.datasets.store import DatasetError

MOST = 8  # groups


def policy_groups(card: Mapping[str, Any], groups: int = 3) -> npt.NDArray[np.int64]:
    """The group of every policy of a dataset, a function of its card alone.

    The policies are put in the order of their measured returns and cut into ``groups`` runs of
    neighbours whose numbers of transitions are as equal as can be (the least sum of squares). Group
    0 has the lowest returns. A policy none of whose episodes is complete counts as its predecessor
    in training.

    Args:
        card: with the "policies" of a local dataset, each with its "share" (or all are alike) and
            "return_mean".
        groups: P; a dataset of fewer policies has a group for each.

    Returns:
        ``[policies]``, indexed by ``policy_ids``.

    Raises:
        DatasetError: if the dataset's policies are not known, or P is out of range.
    """
    policies = card.get("policies") or []
    if not policies:
        raise DatasetError(
            f"dataset {card.get('task', card.get('id', ''))}: it does not say which policies acted,"
            " so they cannot be grouped; use a local dataset"
        )
    if not 1 <= groups <= MOST:
        raise DatasetError(f"policy groups are {groups}; ask for 1 to {MOST}")
    returns: list[float] = []
    for policy in policies:
        known = policy.get("return_mean")
        returns.append(known if known is not None else returns[-1] if returns else -np.inf)
    order = np.argsort(returns, kind="stable")
    shares = np.array([policies[i].get("share", 1.0) for i in order])
    result = np.empty(len(policies), np.int64)
    result[order] = np.repeat(
        np.arange(min(groups, len(policies))), _even_runs(shares, min(groups, len(policies)))
    )
    return result


def _even_runs(shares: npt.NDArray[np.float64], runs: int) -> list[int]:
    """Lengths of ``runs`` non-empty runs of neighbours, the sum of their squared shares least."""
    total = np.concatenate(([0.0], np.cumsum(shares)))
    # best[n]: (cost, lengths) of the first n members cut into the runs so far
    best: dict[int, tuple[float, list[int]]] = {0: (0.0, [])}
    for _ in range(runs):
        best = {
            stop: min(
                (cost + (total[stop] - total[start]) ** 2, [*lengths, stop - start])
                for start, (cost, lengths) in best.items()
                if start < stop
            )
            for stop in range(1, len(total))
            if min(best) < stop
        }
    return best[len(shares)][1]
