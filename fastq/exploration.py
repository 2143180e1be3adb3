"""Counterfactual exploration: which logging policy the actor learns from, sample by sample."""

from __future__ import annotations

from torch import Tensor


def swap(groups: Tensor, coins: Tensor, jumps: Tensor, count: int, rate: float) -> Tensor:
    """The policies ``[S, B]`` to learn from: with probability ``rate`` another than the sample's.

    Args:
        groups: which policy acted, ``[S, B]``.
        coins: uniform in [0, 1), ``[S, B]``; a coin for each sample (the authors' code throws one
            per batch).
        jumps: uniform integers in [0, count - 1), ``[S, B]``: which of the others.
        count: P, at least 2.
        rate: epsilon.
    """
    others = (groups + 1 + jumps) % count
    return others.where(coins < rate, groups)
