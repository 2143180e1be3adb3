"""Implicit Q-learning (IQL; Kostrikov, Nair & Levine 2022, arXiv 2110.06169).

No action outside the data is ever queried. With L2_t(u) = |t - 1(u < 0)| u^2:

    L_V  = E L2_expectile(min_i Q'_i(s, a) - V(s))                        eq. 5
    L_pi = -E exp(beta (min_i Q'_i(s, a) - V(s))) log pi(a | s)           eq. 7
    L_Q  = sum_i E (r + gamma (1 - d) V(s') - Q_i(s, a))^2                eq. 6

Order of updates as in the authors' code: V, policy (with the new V), Q (with the new V), targets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from baselines.common import Adam, Noise, Stateful, copy_parameters, expectile_loss, polyak
from baselines.config import check_ranges
from baselines.contract import Batch, Memory, Metrics, Needs, Spec, Step
from baselines.encoders import encoded, encoder
from baselines.nets import MLP, ActionBox, TwinQ
from baselines.sampled import free_log_std, normal_log_density


@dataclass(frozen=True)
class IQLConfig:
    """Locomotion settings of the paper (appendix B) and of the authors' ``mujoco_config``."""

    expectile: float = 0.7  # tau of the value regression; section 5
    temperature: float = 3.0  # beta, per unit of (scaled) return; section 5
    discount: float = 0.99  # gamma per step
    tau: float = 0.005  # Polyak rate of the critic target, per update
    advantage_clip: float = 100.0  # largest weight of a sample in L_pi; authors' actor.py
    log_std_min: float = -5.0  # of the policy's state-independent log std; authors' policy.py
    log_std_max: float = 2.0  # same
    hidden: tuple[int, ...] = (256, 256)  # units per layer, all networks
    lr: float = 3e-4  # Adam, all networks
    cosine: bool = True  # policy lr falls to 0 over the budget's updates; authors' learner.py
    batch_size: int = 256  # transitions per update; authors' train_offline.py
    scale_rewards: bool = True  # r * 1000 / (best - worst return); authors' train_offline.py

    def __post_init__(self) -> None:
        check_ranges(
            self,
            expectile=(0, 1),
            temperature=(0, math.inf),
            discount=(0, 1),
            tau=(0, 1),
            advantage_clip=(0, math.inf),
            lr=(0, math.inf),
            batch_size=(1, math.inf),
            log_std_max=(self.log_std_min, math.inf),
            hidden=(1, math.inf),
        )


class IQL(Stateful):
    """Implicit Q-learning with a Gaussian policy of tanh mean."""

    Config: ClassVar = IQLConfig
    version: ClassVar[int] = 1

    @staticmethod
    def needs(config: IQLConfig) -> Needs:
        return Needs(
            ("observations", "actions", "rewards", "next_observations", "terminations"),
            batch_size=config.batch_size,
            rewards="return_range" if config.scale_rewards else "raw",
        )

    def __init__(self, spec: Spec, config: IQLConfig, seeds: Sequence[int]) -> None:
        self.config, self.box = config, ActionBox.of(spec.action_space)
        self.encoder, gain = encoder(spec.observation_space), math.sqrt(2)
        self.actor_net = MLP((self.encoder.size, *config.hidden, self.box.size), gain=gain)
        self.critic_net = TwinQ.build(self.encoder.size, self.box.size, config.hidden, gain)
        self.value_net = MLP((self.encoder.size, *config.hidden, 1), gain=gain)

        init = Noise.for_seeds(seeds, "init", device=spec.device, dtype=spec.torch_dtype())
        self.actor = self.actor_net.init(init)
        self.actor["log_std"] = free_log_std(self.actor, self.box.size)
        self.critic, self.state_value = self.critic_net.init(init), self.value_net.init(init)
        self.critic.update(self.encoder.init(init))
        self.critic_target = copy_parameters(self.critic)
        total = sum(phase.updates for phase in spec.phases) if config.cosine else None
        self.actor_optimizer = Adam(self.actor, config.lr, cosine_steps=total)
        self.critic_optimizer = Adam(self.critic, config.lr)
        self.value_optimizer = Adam(self.state_value, config.lr)
        self.parts = {
            "actor": self.actor,
            "critic": self.critic,
            "value": self.state_value,
            "critic_target": self.critic_target,
            "actor_optimizer": self.actor_optimizer,
            "critic_optimizer": self.critic_optimizer,
            "value_optimizer": self.value_optimizer,
        }

    def values(self, observations: Tensor) -> Tensor:
        """V(s) ``[S, B]``."""
        return self.value_net(self.state_value, observations).squeeze(-1)

    def policy_mean(self, observations: Tensor) -> Tensor:
        """The policy's mean in [-1, 1], ``[S, B, A]``."""
        return self.actor_net(self.actor, observations).tanh()

    def log_prob(self, observations: Tensor, actions: Tensor) -> Tensor:
        """log pi(a | s) ``[S, B]``; the Gaussian itself is not squashed."""
        log_std = self.actor["log_std"].clamp(self.config.log_std_min, self.config.log_std_max)
        standardized = (actions - self.policy_mean(observations)) / log_std.exp()
        return normal_log_density(standardized, log_std).sum(-1)

    def value_losses(self, batch: Batch, target_values: Tensor) -> Tensor:
        """L_V ``[S]``."""
        advantages = target_values - self.values(batch["observations"].detach())
        return expectile_loss(advantages, self.config.expectile).mean(1)

    def actor_losses(self, batch: Batch, actions: Tensor, advantages: Tensor) -> Tensor:
        """L_pi ``[S]``."""
        weights = (self.config.temperature * advantages).exp().clamp(max=self.config.advantage_clip)
        return -(weights * self.log_prob(batch["observations"].detach(), actions)).mean(1)

    def critic_losses(self, batch: Batch, actions: Tensor, targets: Tensor) -> Tensor:
        """L_Q ``[S]``."""
        values = self.critic_net(self.critic, batch["observations"], actions)
        return (values - targets.unsqueeze(1)).square().mean(2).sum(1)

    def update(self, batch: Batch, phase: str) -> Metrics:
        actions = self.box.unscale(batch["actions"])
        with torch.no_grad():
            slow = self.encoder(self.critic_target, batch["observations"])
            target_values = self.critic_net(self.critic_target, slow, actions).amin(1)
        batch = encoded(self.encoder, batch, self.critic, self.critic)

        value_losses = self.value_losses(batch, target_values)
        self.value_optimizer.step(value_losses)

        with torch.no_grad():
            both = torch.cat([batch["observations"], batch["next_observations"]], 1)
            values, next_values = self.values(both).chunk(2, 1)
            advantages = target_values - values
            continues = 1.0 - batch["terminations"]
            targets = batch["rewards"] + self.config.discount * continues * next_values

        actor_losses = self.actor_losses(batch, actions, advantages)
        self.actor_optimizer.step(actor_losses)

        critic_losses = self.critic_losses(batch, actions, targets)
        self.critic_optimizer.step(critic_losses)
        polyak(self.critic_target, self.critic, self.config.tau)
        self.updates += 1
        return {
            "value_loss": value_losses.detach(),
            "actor_loss": actor_losses.detach(),
            "critic_loss": critic_losses.detach(),
            "q_mean": target_values.mean(1),
        }

    @torch.no_grad()
    def value(self, observations: Tensor, actions: Tensor, groups: Tensor | None = None) -> Tensor:
        """Predicted Q ``[S, B]`` of actions in the space; for studies."""
        seen = self.encoder(self.critic, observations)
        return self.critic_net(self.critic, seen, self.box.unscale(actions)).amin(1)

    def discounts(self) -> Tensor:
        """The discount of :meth:`value`, ``[S]``; for studies."""
        bias = self.state_value["bias0"]
        return bias.new_full((len(bias),), self.config.discount)

    def act(
        self, step: Step, memory: Memory | None = None, *, explore: bool = False
    ) -> tuple[Tensor, Memory | None]:
        seen = self.encoder(self.critic, step["observations"])
        unit = self.policy_mean(seen).detach()
        if explore:
            log_std = self.actor["log_std"].detach()
            std = log_std.clamp(self.config.log_std_min, self.config.log_std_max).exp()
            unit = unit + std * step["noise"].normal(self.box.size)
        return self.box.scale(unit), None
