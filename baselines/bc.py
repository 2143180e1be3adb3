"""Behaviour cloning (BC): regression from observations to the logged actions (Pomerleau 1991).

Boxes:    L(theta) = E_(s,a)~D |pi_theta(s) - a|^2
Integers: L(theta) = E_(s,a)~D sum_k -log pi_theta,k(a_k | s), one softmax per factor k; it acts by
          the most likely choice of each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from gymnasium import spaces
from torch import Tensor

from baselines.common import Adam, Noise, Stateful
from baselines.config import check_ranges
from baselines.contract import Batch, Memory, Metrics, Needs, Spec, Step
from baselines.encoders import encoder
from baselines.factored import Factors
from baselines.nets import MLP, ActionBox


@dataclass(frozen=True)
class BCConfig:
    """Settings; the same network, optimiser and normalisation as td3_bc."""

    hidden: tuple[int, ...] = (256, 256)  # units per layer; Fujimoto & Gu 2021, Table 3
    lr: float = 3e-4  # Adam; Fujimoto & Gu 2021, Table 3
    batch_size: int = 256  # transitions per update; Fujimoto & Gu 2021, Table 3
    standardize: bool = True  # observations to mean 0, std 1; as td3_bc

    def __post_init__(self) -> None:
        check_ranges(
            self,
            lr=(0, math.inf),
            batch_size=(1, math.inf),
            hidden=(1, math.inf),
        )


class BC(Stateful):
    """Behaviour cloning with a deterministic policy: tanh in a box, argmax of integers."""

    Config: ClassVar = BCConfig
    version: ClassVar[int] = 1

    @staticmethod
    def needs(config: BCConfig) -> Needs:
        return Needs(
            ("observations", "actions"),
            batch_size=config.batch_size,
            observations="standardized" if config.standardize else "raw",
        )

    def __init__(self, spec: Spec, config: BCConfig, seeds: Sequence[int]) -> None:
        self.factors: Factors | None = None
        if isinstance(spec.action_space, spaces.Discrete | spaces.MultiDiscrete):
            self.factors = Factors.of_spec(spec, 0)
            outputs = self.factors.choices
        else:
            self.box = ActionBox.of(spec.action_space)
            outputs = self.box.size
        self.encoder = encoder(spec.observation_space)
        self.actor_net = MLP((self.encoder.size, *config.hidden, outputs))
        init = Noise.for_seeds(seeds, "init", device=spec.device, dtype=spec.torch_dtype())
        self.actor = {**self.actor_net.init(init), **self.encoder.init(init)}
        self.optimizer = Adam(self.actor, config.lr)
        self.parts = {"actor": self.actor, "optimizer": self.optimizer}

    def outputs(self, observations: Tensor) -> Tensor:
        """What the network says, ``[S, B, outputs]``."""
        return self.actor_net(self.actor, self.encoder(self.actor, observations))

    def policy(self, observations: Tensor) -> Tensor:
        """Actions in [-1, 1], ``[S, B, A]``."""
        return self.outputs(observations).tanh()

    def log_probs(self, factors: Factors, observations: Tensor) -> Tensor:
        """Log pi_k(a_k | s) of every choice of every factor, ``[S, B, K, N]``."""
        return factors.split(self.outputs(observations)).log_softmax(-1)

    def losses(self, batch: Batch) -> Tensor:
        """L by seed, ``[S]``."""
        if self.factors is None:
            errors = self.policy(batch["observations"]) - self.box.unscale(batch["actions"])
            return errors.square().mean((1, 2))
        chosen = self.factors.encode(batch["actions"]).unsqueeze(-1)
        likely = self.log_probs(self.factors, batch["observations"]).gather(-1, chosen)
        return -likely.sum((2, 3)).mean(1)

    def update(self, batch: Batch, phase: str) -> Metrics:
        losses = self.losses(batch)
        self.optimizer.step(losses)
        self.updates += 1
        return {"bc_loss": losses.detach()}

    def act(
        self, step: Step, memory: Memory | None = None, *, explore: bool = False
    ) -> tuple[Tensor, Memory | None]:
        seen = step["observations"]
        if self.factors is None:
            return self.box.scale(self.policy(seen).detach()), None
        return self.factors.decode(self.log_probs(self.factors, seen).argmax(-1)), None
