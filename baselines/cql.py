"""Conservative Q-learning, CQL(H) (Kumar et al. 2020, arXiv 2006.04779), on soft actor-critic.

With a~ uniform, from pi(. | s) and from pi(. | s'), N of each and all judged at s, and mu the
density each was drawn from:

    d_i      = E [log sum_a~ exp(Q_i(s, a~) - log mu(a~)) - Q_i(s, a)]                CQL(H), eq. 4
    y        = r + gamma (1 - d) min_i Q'_i(s', a'),   a' ~ pi(. | s')
    L_Q      = sum_i E (Q_i(s, a) - y)^2 + m (weight d_i - tau)        m = 1, tau = 0; or Lagrange's
    L_pi     = E alpha log pi(a^ | s) - min_i Q_i(s, a^),   a^ ~ pi(. | s)
    L_alpha  = -log alpha E (log pi(a^ | s) + target entropy)
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
from baselines.nets import ActionBox, TwinQ
from baselines.sampled import (
    SquashedGaussian,
    SquashedPolicy,
    conservative_actions,
    conservative_losses,
    values_of_samples,
)


@dataclass(frozen=True)
class CQLConfig:
    """Settings of ``young-geng/CQL``, the code most people run; presets have the others'."""

    weight: float = 5.0  # of the conservative term; young-geng conservative_sac.py
    samples: int = 10  # N, sampled actions of each of three kinds; all codes
    lagrange: float | None = None  # tau, the gap at which the multiplier rests; None: no multiplier
    discount: float = 0.99  # gamma per step
    tau: float = 0.005  # Polyak rate of the critic target, per update
    target_entropy: float = -1.0  # per action dimension, of pi on [-1, 1]; SAC
    log_std_min: float = -20.0  # of the Gaussian under the tanh; young-geng model.py
    log_std_max: float = 2.0  # same
    log_std_offset: float = -1.0  # added to the network's log std; same (there it is trained)
    hidden: tuple[int, ...] = (256, 256)  # units per layer, policy and critics
    policy_lr: float = 3e-4  # Adam, policy and temperature
    critic_lr: float = 3e-4  # Adam, critics and multiplier
    cloning_steps: int = 0  # first updates in which pi maximises log pi(a | s) in place of Q
    batch_size: int = 256  # transitions per update
    standardize: bool = False  # observations to mean 0, std 1 (+ 1e-3)

    def __post_init__(self) -> None:
        check_ranges(
            self,
            weight=(0, math.inf),
            samples=(1, math.inf),
            discount=(0, 1),
            tau=(0, 1),
            policy_lr=(0, math.inf),
            critic_lr=(0, math.inf),
            cloning_steps=(0, math.inf),
            batch_size=(1, math.inf),
            log_std_max=(self.log_std_min, math.inf),
            hidden=(1, math.inf),
        )
        if self.lagrange is not None:
            check_ranges(self, lagrange=(0, math.inf))


class CQL(Stateful):
    """Conservative Q-learning with a tanh-squashed Gaussian policy."""

    Config: ClassVar = CQLConfig
    version: ClassVar[int] = 1
    presets: ClassVar = {
        "paper": {  # appendix F
            "weight": 1.0,
            "lagrange": 10.0,
            "hidden": (256, 256, 256),
            "policy_lr": 3e-5,
        },
        "official_script": {  # the defaults of cql_mujoco_new.py's arguments
            "weight": 1.0,
            "lagrange": 5.0,
            "hidden": (256, 256, 256),
            "policy_lr": 1e-4,
            "cloning_steps": 40_000,
            "log_std_min": -5.0,
            "log_std_offset": 0.0,
        },
        "corl": {  # configs/offline/cql, Gym
            "weight": 10.0,
            "hidden": (256, 256, 256),
            "policy_lr": 3e-5,
            "standardize": True,
        },
        "check": {
            "samples": 2,
            "hidden": (32, 32),
            "policy_lr": 1e-2,
            "critic_lr": 1e-2,
            "batch_size": 64,
        },
    }

    @staticmethod
    def needs(config: CQLConfig) -> Needs:
        return Needs(
            ("observations", "actions", "rewards", "next_observations", "terminations"),
            batch_size=config.batch_size,
            observations="standardized" if config.standardize else "raw",
        )

    def __init__(self, spec: Spec, config: CQLConfig, seeds: Sequence[int]) -> None:
        self.config, self.box = config, ActionBox.of(spec.action_space)
        self.encoder = encoder(spec.observation_space)
        self.policy_net = SquashedPolicy.build(
            self.encoder.size,
            self.box.size,
            config.hidden,
            log_std=(config.log_std_min, config.log_std_max),
            offset=config.log_std_offset,
        )
        self.critic_net = TwinQ.build(self.encoder.size, self.box.size, config.hidden)

        dtype = spec.torch_dtype()
        init = Noise.for_seeds(seeds, "init", device=spec.device, dtype=dtype)
        self.noise = Noise.for_seeds(seeds, "update", device=spec.device, dtype=dtype)
        self.policy, self.critic = self.policy_net.init(init), self.critic_net.init(init)
        self.critic.update(self.encoder.init(init))
        self.critic_target = copy_parameters(self.critic)
        zeros = torch.zeros(len(seeds), device=spec.device, dtype=dtype)
        self.temperature = {"log": zeros.clone().requires_grad_()}  # alpha
        self.multiplier = {"log": zeros.clone().requires_grad_()}  # m, trained if lagrange is set
        self.policy_optimizer = Adam(self.policy, config.policy_lr)
        self.critic_optimizer = Adam(self.critic, config.critic_lr)
        self.temperature_optimizer = Adam(self.temperature, config.policy_lr)
        self.multiplier_optimizer = Adam(self.multiplier, config.critic_lr)
        self.parts = {
            "policy": self.policy,
            "critic": self.critic,
            "critic_target": self.critic_target,
            "temperature": self.temperature,
            "multiplier": self.multiplier,
            "policy_optimizer": self.policy_optimizer,
            "critic_optimizer": self.critic_optimizer,
            "temperature_optimizer": self.temperature_optimizer,
            "multiplier_optimizer": self.multiplier_optimizer,
            "noise": self.noise,
        }

    def policy_losses(
        self, batch: Batch, actions: Tensor, policy: SquashedGaussian, alpha: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """L_pi and E log pi(a^ | s), each ``[S]``, from ``noise`` ``[S, B, A]``."""
        chosen, log_prob = policy.sample(noise)
        if self.updates < self.config.cloning_steps:
            worth = policy.log_prob(actions)
        else:
            critic = frozen(self.critic)
            worth = self.critic_net(critic, batch["observations"].detach(), chosen).amin(1)
        return alpha * log_prob.mean(1) - worth.mean(1), log_prob.detach().mean(1)

    @torch.no_grad()
    def critic_targets(self, batch: Batch, next_policy: SquashedGaussian, noise: Tensor) -> Tensor:
        """y ``[S, B]`` from ``noise`` ``[S, B, A]``; no entropy is added."""
        next_actions, _ = next_policy.sample(noise)
        next_values = self.critic_net(self.critic_target, batch["next_observations"], next_actions)
        continues = 1.0 - batch["terminations"]
        return batch["rewards"] + self.config.discount * continues * next_values.amin(1)

    def critic_losses(
        self, batch: Batch, actions: Tensor, targets: Tensor, sampled: Tensor, log_density: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """TD losses and gaps d_i of both critics ``[S, 2]``, and the logged actions' values."""
        every = torch.cat([actions.unsqueeze(2), sampled], 2)
        values = values_of_samples(self.critic_net, self.critic, batch["observations"], every)
        return conservative_losses(values, targets, log_density)

    def update(self, batch: Batch, phase: str) -> Metrics:
        c, actions = self.config, self.box.unscale(batch["actions"])
        noise = self.noise.normal(len(actions[0]), 2 + 2 * c.samples, self.box.size)
        batch = encoded(self.encoder, batch, self.critic, self.critic_target)
        policy = self.policy_net(self.policy, batch["observations"].detach())
        next_policy = self.policy_net(frozen(self.policy), batch["next_observations"])

        # All losses are taken at the old weights, then all steps are made.
        targets = self.critic_targets(batch, next_policy, noise[:, :, 0])
        uniform = self.noise.uniform(len(actions[0]), c.samples, self.box.size)
        with torch.no_grad():
            sampled, log_density = conservative_actions(
                policy, next_policy, noise[:, :, 2:], uniform
            )
        td_losses, gaps, values = self.critic_losses(batch, actions, targets, sampled, log_density)
        alpha = self.temperature["log"].detach().exp()
        policy_losses, log_prob = self.policy_losses(batch, actions, policy, alpha, noise[:, :, 1])

        excess = c.weight * gaps - (c.lagrange or 0.0)
        multiplier = self.multiplier["log"].exp().clamp(0.0, 1e6)
        critic_losses = (td_losses + multiplier.detach().unsqueeze(1) * excess).sum(1)
        self.policy_optimizer.step(policy_losses)
        self.critic_optimizer.step(critic_losses)
        surplus = log_prob + c.target_entropy * self.box.size
        self.temperature_optimizer.step(-self.temperature["log"] * surplus)
        if c.lagrange is not None:
            self.multiplier_optimizer.step(-multiplier * excess.detach().mean(1))
        polyak(self.critic_target, self.critic, c.tau)
        self.updates += 1
        return {
            "policy_loss": policy_losses.detach(),
            "critic_loss": critic_losses.detach(),
            "td_loss": td_losses.detach().sum(1),
            "gap": gaps.detach().mean(1),
            "q_mean": values.mean((1, 2)),
            "entropy": -log_prob,
            "temperature": alpha,
            "multiplier": multiplier.detach(),
        }

    def act(
        self, step: Step, memory: Memory | None = None, *, explore: bool = False
    ) -> tuple[Tensor, Memory | None]:
        seen = self.encoder(self.critic, step["observations"])
        policy = self.policy_net(self.policy, seen).detach()
        if explore:
            return self.box.scale(policy.sample(step["noise"].normal(self.box.size))[0]), None
        return self.box.scale(policy.mean.tanh()), None
