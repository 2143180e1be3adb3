"""A baseline in plain PyTorch, written for one seed: behaviour cloning with dropout.

    python -m suites.run core3 --plugin examples/single_seed_plugin.py --agents dropout_bc
    python -m baselines.check --plugin examples/single_seed_plugin.py

``stack`` makes as many learners as there are seeds, each with random generators of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from baselines.contract import Batch, Memory, Needs, Spec
from baselines.nets import ActionBox
from baselines.single import stack


@dataclass(frozen=True)
class DropoutBCConfig:
    """Settings; the comments are the documentation, with unit and source."""

    dropout: float = 0.1  # share of hidden units switched off per update; Srivastava et al. 2014
    hidden: int = 256  # units in each of two layers; as bc
    lr: float = 3e-4  # Adam; as bc


class DropoutBC:
    """Behaviour cloning with dropout in the policy network."""

    Config: ClassVar = DropoutBCConfig
    version: ClassVar[int] = 1

    @staticmethod
    def needs(config: DropoutBCConfig) -> Needs:
        return Needs(("observations", "actions"), observations="standardized")

    def __init__(self, spec: Spec, config: DropoutBCConfig, seed: int) -> None:
        self.box = ActionBox.of(spec.action_space)
        (inputs,) = spec.observation_space.shape or ()
        self.policy = nn.Sequential(
            nn.Linear(inputs, config.hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, self.box.size),
            nn.Tanh(),
        ).to(spec.device, spec.torch_dtype())
        self.optimizer = torch.optim.Adam(self.policy.parameters(), config.lr)

    def update(self, batch: Batch, phase: str) -> Mapping[str, float]:
        self.policy.train()
        error = self.policy(batch["observations"]) - self.box.unscale(batch["actions"])
        loss = error.square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"bc_loss": loss.item()}

    def act(self, observations: Tensor, memory: Memory | None) -> tuple[Tensor, Memory | None]:
        self.policy.eval()
        return self.box.scale(self.policy(observations).detach()), None

    def state_dict(self) -> dict[str, Any]:
        return {"policy": self.policy.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])


AGENTS = {"dropout_bc": stack(DropoutBC)}
