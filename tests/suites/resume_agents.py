"""Agents for the tests of resuming: one of windows with a memory, one of two phases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from baselines.bc import BC
from baselines.common import Adam, Noise, Stateful
from baselines.contract import Batch, Memory, Metrics, Needs, Spec, Step


@dataclass(frozen=True)
class WindowConfig:
    window: int = 3
    dropout: float = 0.2


class Window(Stateful):
    """Clones actions from the last K observations, with dropout; remembers them when acting."""

    Config = WindowConfig
    version = 1

    @staticmethod
    def needs(config: WindowConfig) -> Needs:
        fields = ("observations", "actions", "mask", "returns_to_go")
        return Needs(fields, batch_size=16, window=config.window, observations="standardized")

    def __init__(self, spec: Spec, config: WindowConfig, seeds: Sequence[int]) -> None:
        self.config = config
        self.noise = Noise.for_seeds(seeds, "update", dtype=spec.torch_dtype())
        self.actions = spec.action_space.shape[0]  # type: ignore[index]
        width = config.window * spec.observation_space.shape[0]  # type: ignore[index]
        start = Noise.for_seeds(seeds, "init", dtype=spec.torch_dtype())
        self.weights = {"w": (0.1 * start.normal(width, self.actions)).requires_grad_()}
        self.adam = Adam(self.weights, 1e-2)
        self.parts = {"weights": self.weights, "adam": self.adam, "noise": self.noise}

    def update(self, batch: Batch, phase: str) -> Metrics:
        inputs = batch["observations"].flatten(2)
        kept = self.noise.uniform(*inputs.shape[1:]) > self.config.dropout
        predicted = torch.bmm(inputs * kept, self.weights["w"]).tanh()
        loss = (predicted - batch["actions"][:, :, -1]).square().mean((1, 2))
        self.adam.step(loss)
        self.updates += 1
        return {"loss": loss.detach()}

    def act(
        self, step: Step, memory: Memory | None = None, *, explore: bool = False
    ) -> tuple[torch.Tensor, Memory | None]:
        now = step["observations"]
        past = (
            torch.zeros(*now.shape[:2], self.config.window, now.shape[2], dtype=now.dtype)
            if memory is None
            else memory["past"] * ~step["first"][..., None, None]
        )
        past = torch.cat([past[:, :, 1:], now[:, :, None]], dim=2)
        shake = 0.1 * step["noise"].normal(self.actions)
        action = torch.bmm(past.flatten(2), self.weights["w"].detach()) + shake
        return action.tanh(), {"past": past}


class TwoPhase(BC):
    """Behaviour cloning that learns ten times as slowly in its second phase."""

    def update(self, batch: Batch, phase: str) -> Metrics:
        self.optimizer.lr = {"represent": 1e-3, "policy": 1e-4}[phase]
        return super().update(batch, phase)


AGENTS: dict[str, Any] = {"window": Window, "two_phase": TwoPhase}
