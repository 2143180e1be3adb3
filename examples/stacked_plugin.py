"""A baseline of your own in one file: advantage-weighted regression (AWR; Peng et al. 2019).

    python -m suites.run core3 --plugin examples/stacked_plugin.py --agents awr
    python -m baselines.check --plugin examples/stacked_plugin.py

It clones the data, better-than-usual actions more: with G the return that followed,

    L_V  = E (V(s) - G)^2                 in units of the data's largest return
    L_pi = E w |pi(s) - a|^2,             w = min(exp((G - V(s)) / T), 20)
    T    = temperature sqrt(E (G - V(s))^2)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from baselines.common import Adam, Noise, Stateful
from baselines.contract import Batch, Memory, Metrics, Needs, Spec, Step
from baselines.nets import MLP, ActionBox, observation_size


@dataclass(frozen=True)
class AWRConfig:
    """Settings; the comments are the documentation, with unit and source."""

    temperature: float = 1.0  # of the weights, in standard deviations of the advantage; ours
    weight_clip: float = 20.0  # largest weight of a sample; Peng et al. 2019, section 5
    hidden: tuple[int, ...] = (256, 256)  # units per layer, both networks; as td3_bc
    lr: float = 3e-4  # Adam, both networks; as td3_bc
    batch_size: int = 256  # transitions per update; as td3_bc


class AWR(Stateful):  # Stateful writes state_dict and load_state_dict from self.parts
    """Advantage-weighted regression with a deterministic tanh policy."""

    Config: ClassVar = AWRConfig
    version: ClassVar[int] = 1

    @staticmethod
    def needs(config: AWRConfig) -> Needs:
        # Returns-to-go are a field of windows; a window of one step is a transition.
        return Needs(
            ("observations", "actions", "returns_to_go"),
            batch_size=config.batch_size,
            window=1,
            observations="standardized",
        )

    def __init__(self, spec: Spec, config: AWRConfig, seeds: Sequence[int]) -> None:
        self.config, self.box = config, ActionBox.of(spec.action_space)
        observation = observation_size(spec.observation_space)
        self.actor_net = MLP((observation, *config.hidden, self.box.size))
        self.value_net = MLP((observation, *config.hidden, 1))
        init = Noise.for_seeds(seeds, "init", device=spec.device, dtype=spec.torch_dtype())
        self.actor, self.value = self.actor_net.init(init), self.value_net.init(init)
        self.actor_optimizer = Adam(self.actor, config.lr)
        self.value_optimizer = Adam(self.value, config.lr)
        extremes = [abs(spec.statistics[key]) for key in ("return_best", "return_worst")]
        self.unit = max(*extremes, 1e-6)
        self.parts = {
            "actor": self.actor,
            "value": self.value,
            "actor_optimizer": self.actor_optimizer,
            "value_optimizer": self.value_optimizer,
        }

    def policy(self, observations: torch.Tensor) -> torch.Tensor:
        """Actions in [-1, 1], ``[S, B, A]``."""
        return self.actor_net(self.actor, observations).tanh()

    def update(self, batch: Batch, phase: str) -> Metrics:
        step = {field: value.squeeze(2) for field, value in batch.items()}  # [S, B, 1, ...]
        values = self.value_net(self.value, step["observations"]).squeeze(-1)
        advantages = step["returns_to_go"] / self.unit - values
        value_losses = advantages.square().mean(1)
        self.value_optimizer.step(value_losses)  # losses are [S]: one per seed

        advantages = advantages.detach()
        spread = value_losses.detach().sqrt().clamp(min=1e-6).unsqueeze(-1)  # each seed's own
        weights = (advantages / (self.config.temperature * spread)).exp()
        weights = weights.clamp(max=self.config.weight_clip).unsqueeze(-1)
        errors = self.policy(step["observations"]) - self.box.unscale(step["actions"])
        actor_losses = (weights * errors.square()).mean((1, 2))
        self.actor_optimizer.step(actor_losses)
        self.updates += 1
        return {"value_loss": value_losses.detach(), "actor_loss": actor_losses.detach()}

    def act(
        self, step: Step, memory: Memory | None = None, *, explore: bool = False
    ) -> tuple[torch.Tensor, Memory | None]:
        return self.box.scale(self.policy(step["observations"]).detach()), None


AGENTS = {"awr": AWR}
