"""TD3+BC: a minimalist approach to offline RL (Fujimoto & Gu 2021, arXiv 2106.06860).

TD3 (clipped double Q, target smoothing, delayed policy updates) with one added term:

    y        = r + gamma (1 - d) min_i Q'_i(s', clip(pi'(s') + clip(eps, -c, c)))
    L_Q      = sum_i E (Q_i(s, a) - y)^2
    L_pi     = -lambda E Q_1(s, pi(s)) + E (pi(s) - a)^2,   lambda = alpha / E |Q_1(s, pi(s))|
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from baselines.common import Adam, Noise, Stateful, copy_parameters, frozen, polyak
from baselines.config import check_ranges
from baselines.contract import Batch, Memory, Metrics, Needs, Spec, Step
from baselines.encoders import encoded, encoder
from baselines.nets import MLP, ActionBox, TwinQ


@dataclass(frozen=True)
class TD3BCConfig:
    """Settings of the paper's Table 3, which its code shares."""

    alpha: float = 2.5  # weight of Q against behaviour cloning; section 5
    discount: float = 0.99  # gamma per step
    tau: float = 0.005  # Polyak rate of the targets, per policy update
    policy_noise: float = 0.2  # std of target smoothing, in units of half the action range
    noise_clip: float = 0.5  # its clip, same units
    policy_delay: int = 2  # critic updates per policy and target update
    exploration_noise: float = 0.1  # std when exploring, same units; Fujimoto et al. 2018, Table 3
    hidden: tuple[int, ...] = (256, 256)  # units per layer, actor and critics
    actor_lr: float = 3e-4  # Adam
    critic_lr: float = 3e-4  # Adam
    batch_size: int = 256  # transitions per update
    standardize: bool = True  # observations to mean 0, std 1 (+ 1e-3); section 5

    def __post_init__(self) -> None:
        check_ranges(
            self,
            alpha=(0, math.inf),
            discount=(0, 1),
            tau=(0, 1),
            policy_noise=(0, math.inf),
            noise_clip=(0, math.inf),
            policy_delay=(1, math.inf),
            exploration_noise=(0, math.inf),
            actor_lr=(0, math.inf),
            critic_lr=(0, math.inf),
            batch_size=(1, math.inf),
            hidden=(1, math.inf),
        )


class TD3BC(Stateful):
    """TD3+BC."""

    Config: ClassVar = TD3BCConfig
    version: ClassVar[int] = 1

    @staticmethod
    def needs(config: TD3BCConfig) -> Needs:
        return Needs(
            ("observations", "actions", "rewards", "next_observations", "terminations"),
            batch_size=config.batch_size,
            observations="standardized" if config.standardize else "raw",
        )

    def __init__(self, spec: Spec, config: TD3BCConfig, seeds: Sequence[int]) -> None:
        self.config, self.box = config, ActionBox.of(spec.action_space)
        self.encoder = encoder(spec.observation_space)
        self.actor_net = MLP((self.encoder.size, *config.hidden, self.box.size))
        self.critic_net = TwinQ.build(self.encoder.size, self.box.size, config.hidden)

        dtype = spec.torch_dtype()
        init = Noise.for_seeds(seeds, "init", device=spec.device, dtype=dtype)
        self.noise = Noise.for_seeds(seeds, "update", device=spec.device, dtype=dtype)
        self.actor, self.critic = self.actor_net.init(init), self.critic_net.init(init)
        self.critic.update(self.encoder.init(init))
        self.actor_target = copy_parameters(self.actor)
        self.critic_target = copy_parameters(self.critic)
        self.actor_optimizer = Adam(self.actor, config.actor_lr)
        self.critic_optimizer = Adam(self.critic, config.critic_lr)
        zeros = torch.zeros(len(seeds), device=spec.device, dtype=dtype)
        self.policy_metrics = {"actor_loss": zeros, "bc_loss": zeros.clone()}  # of the last update
        self.parts = {
            "actor": self.actor,
            "critic": self.critic,
            "actor_target": self.actor_target,
            "critic_target": self.critic_target,
            "actor_optimizer": self.actor_optimizer,
            "critic_optimizer": self.critic_optimizer,
            "policy_metrics": self.policy_metrics,
            "noise": self.noise,
        }

    def policy(self, parameters: dict[str, Tensor], observations: Tensor) -> Tensor:
        """Actions in [-1, 1], ``[S, B, A]``."""
        return self.actor_net(parameters, observations).tanh()

    @torch.no_grad()
    def critic_targets(self, batch: Batch, noise: Tensor) -> Tensor:
        """y ``[S, B]`` from standard normal ``noise`` ``[S, B, A]``."""
        c = self.config
        smoothing = (noise * c.policy_noise).clamp(-c.noise_clip, c.noise_clip)
        next_actions = self.policy(self.actor_target, batch["next_observations"]) + smoothing
        next_values = self.critic_net(
            self.critic_target, batch["next_observations"], next_actions.clamp(-1, 1)
        )
        continues = 1.0 - batch["terminations"]
        return batch["rewards"] + c.discount * continues * next_values.amin(1)

    def critic_losses(
        self, batch: Batch, actions: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """L_Q ``[S]`` and the values ``[S, 2, B]``."""
        values = self.critic_net(self.critic, batch["observations"], actions)
        return (values - targets.unsqueeze(1)).square().mean(2).sum(1), values

    def actor_losses(self, batch: Batch, actions: Tensor) -> tuple[Tensor, Tensor]:
        """L_pi and its behaviour-cloning term, each ``[S]``."""
        chosen = self.policy(self.actor, batch["observations"])
        values = self.critic_net.first(frozen(self.critic), batch["observations"], chosen)
        weight = self.config.alpha / values.detach().abs().mean(1)
        cloning = (chosen - actions).square().mean((1, 2))
        return -weight * values.mean(1) + cloning, cloning

    def update(self, batch: Batch, phase: str) -> Metrics:
        actions = self.box.unscale(batch["actions"])
        batch = encoded(self.encoder, batch, self.critic, self.critic_target)
        targets = self.critic_targets(batch, self.noise.normal(*actions.shape[1:]))
        critic_losses, values = self.critic_losses(batch, actions, targets)
        self.critic_optimizer.step(critic_losses)
        batch = {**batch, "observations": batch["observations"].detach()}  # critics train encoders
        self.updates += 1

        if self.updates % self.config.policy_delay == 0:
            actor_losses, cloning = self.actor_losses(batch, actions)
            self.actor_optimizer.step(actor_losses)
            polyak(self.critic_target, self.critic, self.config.tau)
            polyak(self.actor_target, self.actor, self.config.tau)
            self.policy_metrics.update(actor_loss=actor_losses.detach(), bc_loss=cloning.detach())
        return {
            "critic_loss": critic_losses.detach(),
            "q_mean": values.detach().mean((1, 2)),
            **self.policy_metrics,
        }

    @torch.no_grad()
    def value(self, observations: Tensor, actions: Tensor, groups: Tensor | None = None) -> Tensor:
        """Predicted Q ``[S, B]`` of actions in the space; for studies."""
        seen = self.encoder(self.critic, observations)
        return self.critic_net(self.critic, seen, self.box.unscale(actions)).amin(1)

    def discounts(self) -> Tensor:
        """The discount of :meth:`value`, ``[S]``; for studies."""
        return torch.full_like(self.policy_metrics["bc_loss"], self.config.discount)

    def act(
        self, step: Step, memory: Memory | None = None, *, explore: bool = False
    ) -> tuple[Tensor, Memory | None]:
        unit = self.policy(self.actor, self.encoder(self.critic, step["observations"])).detach()
        if explore:
            noise = step["noise"].normal(self.box.size)
            unit = unit + self.config.exploration_noise * noise
        return self.box.scale(unit), None
