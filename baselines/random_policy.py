"""The random reference: uniform actions, no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from baselines.contract import Batch, Memory, Metrics, Needs, Spec, Step
from baselines.nets import ActionBox


@dataclass(frozen=True)
class RandomConfig:
    """Nothing to set."""


class Random:
    """Draws actions uniformly from a bounded box."""

    Config: ClassVar = RandomConfig
    version: ClassVar[int] = 1

    @staticmethod
    def needs(config: RandomConfig) -> Needs:
        return Needs(("observations",), batch_size=1)

    def __init__(self, spec: Spec, config: RandomConfig, seeds: Sequence[int]) -> None:
        self.box = ActionBox.of(spec.action_space)

    def update(self, batch: Batch, phase: str) -> Metrics:
        return {}

    def act(
        self, step: Step, memory: Memory | None = None, *, explore: bool = False
    ) -> tuple[Tensor, Memory | None]:
        return self.box.scale(2 * step["noise"].uniform(self.box.size) - 1), None

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        return None
