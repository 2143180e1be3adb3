"""Batches that know who logged them, and the discount's stages in plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    return batch | {
        "policy_groups": torch.from_numpy(groups),
        "reward_parts": torch.from_numpy(parts),
        "rewards": torch.from_numpy(parts.sum(-1)),
    }


@dataclass
class Stages:
    """One seed's discount, as the agent's page tells it."""

    discounts: Sequence[float]
    updates: int
    count: int = 0
    stage: int = 0
    age: int = 0
    calm: int = 0
    forced: int = 0
    fast: float = 0.0
    slow: float = 0.0

    def observe(self, loss: float, targets: Array) -> None:
        self.count += 1
        last, window = len(self.discounts) - 1, max(1, round(0.02 * self.updates))
        if self.stage == last:
            return
        relative = loss / (targets.var(ddof=1) + 1e-8)
        if self.age == 0:
            self.fast = self.slow = relative
        self.fast += (relative - self.fast) / max(1.0, window / 4)
        self.slow += (relative - self.slow) / window
        self.age += 1
        stable = abs(self.fast - self.slow) < 0.05 * self.slow and self.age > window
        self.calm = self.calm + 1 if stable else 0
        settled = self.calm >= window
        late = self.count >= (self.stage + 1) * self.updates / (2 * last)
        if settled or late:
            self.forced += late and not settled
            self.stage, self.age, self.calm = self.stage + 1, 0, 0
