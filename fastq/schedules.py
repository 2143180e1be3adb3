"""Schedules: exploration and adversary along the updates, the discount along the loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

CALM = 0.05  # |fast - slow| below this share of slow is "stable"


def between(ends: tuple[float, float], progress: float) -> float:
    """The value at ``progress`` in [0, 1] on the line from ``ends[0]`` to ``ends[1]``."""
    return ends[0] + (ends[1] - ends[0]) * min(progress, 1.0)


class DiscountStages:
    """Raises each seed's discount step by step, when its loss is stable or its time is up.

    With L the temporal-difference loss over the variance of its targets, a seed advances once
    ``|fast - slow| < 5 %`` of ``slow`` has held for a window of 2 % of the updates, where fast and
    slow are moving averages of L over a quarter of the window and over the window; or at the end of
    its share of the first half of training, so that the last half runs at the largest discount.
    Nothing here waits for the device.

    Args:
        stages: discounts, rising.
        updates: of the whole training.
        like: a tensor ``[S]`` that tells device and type.
    """

    def __init__(self, stages: Sequence[float], updates: int, like: Tensor) -> None:
        self.stages = torch.tensor(stages, dtype=like.dtype, device=like.device)
        self.window = max(1, round(0.02 * updates))
        raises = max(1, len(stages) - 1)
        self.deadlines = torch.tensor(
            [(i + 1) * updates / (2 * raises) for i in range(len(stages) - 1)] + [float("inf")],
            dtype=torch.float64,
            device=like.device,
        )
        counts = torch.zeros_like(like, dtype=torch.int64)
        self.state = {
            "stage": counts,
            "age": counts.clone(),  # updates since the stage began
            "calm": counts.clone(),  # of them, the last that were stable in a row
            "forced": counts.clone(),  # raises that no stability brought about
            "fast": torch.zeros_like(like),
            "slow": torch.zeros_like(like),
        }

    @property
    def discounts(self) -> Tensor:
        """gamma of every seed, ``[S]``."""
        return self.stages[self.state["stage"]]

    @torch.no_grad()
    def observe(self, losses: Tensor, targets: Tensor, updates: int) -> None:
        """Hears of an update's loss ``[S]`` and targets ``[S, B]``, the ``updates``-th."""
        if len(self.stages) == 1:
            return
        s = self.state
        relative = losses / (targets.var(1) + 1e-8)
        begins = s["age"] == 0
        for name, span in (("fast", max(1.0, self.window / 4)), ("slow", float(self.window))):
            s[name].copy_(torch.where(begins, relative, torch.lerp(s[name], relative, 1 / span)))
        s["age"] += 1
        stable = (s["fast"] - s["slow"]).abs() < CALM * s["slow"]
        # The averages begin with the stage; before a window has passed they say little.
        s["calm"].copy_(torch.where(stable & (s["age"] > self.window), s["calm"] + 1, 0))
        settled = (s["calm"] >= self.window) & (s["stage"] < len(self.stages) - 1)
        late = updates >= self.deadlines[s["stage"]]
        rises = settled | late
        s["forced"] += late & ~settled
        s["stage"] += rises
        for name in ("age", "calm"):
            s[name].masked_fill_(rises, 0)
