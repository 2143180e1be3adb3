"""The random reference: uniform actions, no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor

from baselines.contract import Batch, Memory, Metrics, Needs, Spec, Step
from baselines.nets import ActionBox


@dataclass(frozen=True)
class RandomConfig:
    """Nothing to set."""


class Random:
    """Draws actions uniformly from a bounded box, or from the choices of an integer space."""

    Config: ClassVar = RandomConfig
    version: ClassVar[int] = 1

    @staticmethod
    def needs(config: RandomConfig) -> Needs:
        return Needs(("observations",), batch_size=1)

    def __init__(self, spec: Spec, config: RandomConfig, seeds: Sequence[int]) -> None:
        space, device = spec.action_space, spec.device
        self.counts: Tensor | None = None
        if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
            counts = space.n if isinstance(space, spaces.Discrete) else space.nvec
            self.counts = torch.as_tensor(counts, device=device)
            self.start = torch.as_tensor(space.start, device=device)
        else:
            self.box = ActionBox.of(space)

    def update(self, batch: Batch, phase: str) -> Metrics:
        return {}

    def act(
        self, step: Step, memory: Memory | None = None, *, explore: bool = False
    ) -> tuple[Tensor, Memory | None]:
        if self.counts is None:
            return self.box.scale(2 * step["noise"].uniform(self.box.size) - 1), None
        drawn = (step["noise"].uniform(*self.counts.shape) * self.counts).long()
        return drawn.minimum(self.counts - 1) + self.start, None  # rounding may reach the end

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        return None
