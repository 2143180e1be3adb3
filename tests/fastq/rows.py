"""Batches that know who logged them, and the discount's stages in plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from oracles import Array, make_batch

from baselines.contract import Batch

POLICIES, PARTS = 3, ("forward", "survive", "control")


def make_rows(number: int) -> Batch:
    """The shared batch with logging policies, and parts that sum to the reward."""
    batch = make_batch(number)
    rng = np.random.default_rng(100 + number)
    shape = batch["rewards"].shape
    # Not all policies in every batch, and not equally often.
    groups = rng.choice(POLICIES, shape, p=[0.6, 0.3, 0.1])
    parts = rng.normal(size=(*shape, len(PARTS)))
    # Wide, so that no unit of BR stays in one piece of its ELU for a whole batch: else BatchNorm
    # takes its bias' gradient away, and Adam makes steps of what rounding leaves.
    wide = {name: 2 * batch[name] for name in ("observations", "next_observations")}
    return (
        batch
        | wide
        | {
            "policy_groups": torch.from_numpy(groups),
            "reward_parts": torch.from_numpy(parts),
            "rewards": torch.from_numpy(parts.sum(-1)),
        }
    )


@dataclass
class Stages:
    """One seed's discount, as the agent's page tells it."""

    discounts: Sequence[float]
    updates: int
    count: int = 0
    stage: int = 0
    forced: int = 0
    seen: list[float] = field(default_factory=list)  # L since the stage began

    def observe(self, loss: float, targets: Array) -> None:
        self.count += 1
        last, window = len(self.discounts) - 1, max(1, round(0.02 * self.updates))
        if self.stage == last:
            return
        self.seen.append(loss / (targets.var(ddof=1) + 1e-8))
        settled = False
        if len(self.seen) >= 2 * window and len(self.seen) % window == 0:
            before, now = np.mean(self.seen[-2 * window : -window]), np.mean(self.seen[-window:])
            settled = bool(abs(now - before) < 0.05 * before)
        share = (self.stage + 1) * self.updates / (2 * last)
        late = self.count >= window * math.ceil(share / window - 1e-9)
        if settled or late:
            self.forced += late and not settled
            self.stage += 1
            self.seen.clear()
