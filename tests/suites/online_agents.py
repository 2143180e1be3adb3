"""Agents for the tests of online phases: one that remembers and explores, one of a single seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from baselines.common import Noise, Stateful
from baselines.contract import Batch, Memory, Metrics, Needs, Spec, Step
from baselines.single import stack

FIELDS = ("observations", "actions", "rewards", "next_observations", "terminations", "truncations")


@dataclass(frozen=True)
class Small:
    """Settings of both."""

    batch_size: int = 8


class Wanderer(Stateful):
    """Explores with noise that lasts within an episode; learns from every field of its batches."""

    Config: ClassVar = Small
    version: ClassVar[int] = 1

    @staticmethod
    def needs(config: Small) -> Needs:
        return Needs(FIELDS, batch_size=config.batch_size, observations="standardized")

    def __init__(self, spec: Spec, config: Small, seeds: Sequence[int]) -> None:
        self.shape = spec.action_space.shape or ()
        self.noise = Noise.for_seeds(seeds, "update", dtype=spec.torch_dtype())
        weights = Noise.for_seeds(seeds, "init", dtype=spec.torch_dtype()).normal(1, *self.shape)
        self.weights = {"w": weights}
        self.parts = {"weights": self.weights, "noise": self.noise}

    def update(self, batch: Batch, phase: str) -> Metrics:
        mean = torch.stack([batch[field].flatten(1).mean(1) for field in FIELDS]).sum(0)
        self.weights["w"] += 0.1 * self.noise.normal(1, *self.shape) + 0.01 * mean[:, None, None]
        self.updates += 1
        return {"mean": mean, "online": torch.full_like(mean, float(phase == "online"))}

    def act(
        self, step: Step, memory: Memory | None = None, *, explore: bool = False
    ) -> tuple[Tensor, Memory | None]:
        pushed = torch.zeros(*step["first"].shape, *self.shape, dtype=self.weights["w"].dtype)
        if memory is not None:
            pushed = 0.9 * memory["pushed"] * ~step["first"][..., None]
        if explore:
            pushed = pushed + 0.3 * step["noise"].normal(*self.shape)
        seen = step["observations"].mean(2, keepdim=True) + 0.1 * step["rewards"][..., None]
        return (self.weights["w"] * seen).tanh() + pushed, {"pushed": pushed}  # may leave the box


class Alone:
    """A learner of one seed that explores with torch's own generator."""

    Config: ClassVar = Small
    version: ClassVar[int] = 1

    @staticmethod
    def needs(config: Small) -> Needs:
        return Needs(("observations", "actions"), batch_size=config.batch_size)

    def __init__(self, spec: Spec, config: Small, seed: int) -> None:
        spaces = (spec.observation_space, spec.action_space)
        observation, action = (space.shape or (1,) for space in spaces)
        self.layer = torch.nn.Linear(observation[0], action[0])

    def update(self, batch: Batch, phase: str) -> Mapping[str, float]:
        loss = (self.layer(batch["observations"]) - batch["actions"]).square().mean()
        weights = list(self.layer.parameters())
        with torch.no_grad():
            for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight.sub_(1e-3 * slope)
        return {"loss": loss.item()}

    def act(
        self, observations: Tensor, memory: Memory | None, explore: bool = False
    ) -> tuple[Tensor, Memory | None]:
        mean = self.layer(observations).tanh()
        return (mean + 0.5 * torch.randn_like(mean)).clamp(-1, 1) if explore else mean, None

    def state_dict(self) -> dict[str, Any]:
        return {"layer": dict(self.layer.state_dict())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.layer.load_state_dict(state["layer"])


AGENTS: dict[str, Any] = {"wanderer": Wanderer, "alone": stack(Alone)}
