"""Schedules: exploration and adversary along the updates, the discount along the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

CALM = 0.05  # a window's mean loss this near to the one before is "stable"


def between(ends: tuple[float, float], progress: float) -> float:
    """The value at ``progress`` in [0, 1] on the line from ``ends[0]`` to ``ends[1]``."""
    return ends[0] + (ends[1] - ends[0]) * min(progress, 1.0)


class DiscountStages:
    """Raises each seed's discount step by step, when its loss is stable or its time is up.

    With L the temporal-difference loss over the variance of its targets, a seed advances when the
    mean of L over a window of 2 % of the updates is within 5 % of that over the window before, or
    at the end of the window in which its share of the first half of training is over, so that the
    last half runs at the largest discount. (Moving averages in place of windows would remember for
    too long what a raise does to the loss at once.) Nothing here waits for the device.

    Args:
        stages: discounts, rising.
        updates: of the whole training.
        like: a tensor ``[S]`` that tells device and type.
    """

    def __init__(self, stages: Sequence[float], updates: int, like: Tensor) -> None:
        self.stages = torch.tensor(stages, dtype=like.dtype, device=like.device)
        self.window = max(1, round(0.02 * updates))
        raises = len(stages) - 1
        # Rounded up to whole windows.
        ends = [-(-(i + 1) * updates // (2 * raises * self.window)) for i in range(raises)]
        self.over = self.window * max(ends, default=0)  # the last raise lies behind every seed
        self.deadlines = self.window * torch.tensor(
            [*ends, math.inf], dtype=torch.float64, device=like.device
        )
        counts = torch.zeros_like(like, dtype=torch.int64)
        self.state = {
            "stage": counts,
            "forced": counts.clone(),  # raises that no stability brought about
            "sum": torch.zeros_like(like),  # of L in this window
            "before": torch.full_like(like, math.inf),  # mean of L in the last one
        }

    @property
    def discounts(self) -> Tensor:
        """gamma of every seed, ``[S]``."""
        return self.stages[self.state["stage"]]

    @torch.no_grad()
    def observe(self, losses: Tensor, targets: Tensor, updates: int) -> None:
        """Hears of an update's loss ``[S]`` and targets ``[S, B]``, the ``updates``-th."""
        if updates > self.over:
            return
        s = self.state
        s["sum"] += losses / (targets.var(1) + 1e-8)
        if updates % self.window:
            return
        mean = s["sum"] / self.window
        stable = (mean - s["before"]).abs() < CALM * s["before"]
        settled = stable & (s["stage"] < len(self.stages) - 1)
        late = updates >= self.deadlines[s["stage"]]
        rises = settled | late
        s["forced"] += late & ~settled
        s["stage"] += rises
        s["before"].copy_(mean.masked_fill(rises, math.inf))
        s["sum"].zero_()
