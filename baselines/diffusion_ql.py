"""Diffusion-QL: diffusion policies for offline RL (Wang, Hunt & Zhou 2023, arXiv 2208.06193).

The policy is a denoising diffusion model of actions given the state, held near the data by its own
training loss and drawn towards good actions by values, differentiated through the whole chain:

    y     = r + gamma (1 - d) min_i Q'_i(s', a'),   a' ~ pi_EMA(s')
    L_Q   = sum_i E (Q_i(s, a) - y)^2
    L_pi  = E |eps - eps_theta(sqrt(abar_t) a + sqrt(1 - abar_t) eps, t, s)|^2
            - eta E Q_i(s, a_pi) / E |Q_j(s, a_pi)|,   a_pi ~ pi(s),  {i, j} = {1, 2} at random
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from baselines.common import Adam, Noise, Stateful, copy_parameters, frozen, polyak
from baselines.config import UsageError, check_ranges
from baselines.contract import Batch, Memory, Metrics, Needs, Spec, Step
from baselines.diffusion import Diffusion
from baselines.encoders import encoded, encoder
from baselines.nets import ActionBox, TwinQ, mish


@dataclass(frozen=True)
class DiffusionQLConfig:
    """Gym settings of the authors' ``main.py`` and agents; max_norm is tuned per dataset there."""

    eta: float = 1.0  # weight of Q against cloning; authors' main.py
    discount: float = 0.99  # gamma per step
    tau: float = 0.005  # Polyak rate of the critic target, per update
    diffusion_steps: int = 5  # T
    beta_min: float = 0.1  # of the variance-preserving schedule, per unit of diffusion time
    beta_max: float = 10.0  # same, at its end
    time_features: int = 16  # of the embedding of t; even
    hidden: tuple[int, ...] = (256, 256, 256)  # units per layer, noise model and critics
    ema_decay: float = 0.995  # of the policy average behind y, per average
    ema_every: int = 5  # updates between two averages
    ema_start: int = 1000  # updates before the first
    backup_actions: int = 1  # a' per s', each critic's best counts; 10 where authors back up max Q
    candidates: int = 50  # actions sampled per decision; authors' ql_diffusion.py
    selection: Literal["softmax", "argmax"] = "softmax"  # which is taken, by min_i Q'_i
    max_norm: float = 5.0  # gradient norm limit, each net; ours: the median of the authors' 1 to 9
    actor_lr: float = 3e-4  # Adam
    critic_lr: float = 3e-4  # Adam
    cosine: bool = True  # both rates fall to 0 over the budget's updates; authors' --lr_decay
    batch_size: int = 256  # transitions per update

    def __post_init__(self) -> None:
        check_ranges(
            self,
            eta=(0, math.inf),
            discount=(0, 1),
            tau=(0, 1),
            diffusion_steps=(1, math.inf),
            beta_min=(0, math.inf),
            beta_max=(self.beta_min, math.inf),
            time_features=(4, math.inf),
            ema_decay=(0, 1),
            ema_every=(1, math.inf),
            ema_start=(0, math.inf),
            backup_actions=(1, math.inf),
            candidates=(1, math.inf),
            max_norm=(0, math.inf),
            actor_lr=(0, math.inf),
            critic_lr=(0, math.inf),
            batch_size=(1, math.inf),
            hidden=(1, math.inf),
        )
        if self.time_features % 2:
            raise UsageError(f"time_features must be even, not {self.time_features}")


class DiffusionQL(Stateful):
    """Diffusion Q-learning."""

    Config: ClassVar = DiffusionQLConfig
    version: ClassVar[int] = 1
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "authors_code": {"cosine": False},  # --lr_decay leaves 0.999 of the rate after their run
        "argmax": {"selection": "argmax"},
        "max_q_backup": {"backup_actions": 10},  # authors' setting for five antmaze tasks
        "check": {
            "hidden": (32, 32),
            "candidates": 10,
            "selection": "argmax",
            "ema_start": 3,
            "tau": 0.05,
            "actor_lr": 3e-3,
            "critic_lr": 3e-3,
            "batch_size": 64,
        },
    }

    @staticmethod
    def needs(config: DiffusionQLConfig) -> Needs:
        return Needs(
            ("observations", "actions", "rewards", "next_observations", "terminations"),
            batch_size=config.batch_size,
        )

    def __init__(self, spec: Spec, config: DiffusionQLConfig, seeds: Sequence[int]) -> None:
        self.config, self.box = config, ActionBox.of(spec.action_space)
        self.encoder = encoder(spec.observation_space)
        self.diffusion = Diffusion(
            self.encoder.size,
            self.box.size,
            config.hidden,
            steps=config.diffusion_steps,
            beta=(config.beta_min, config.beta_max),
            features=config.time_features,
        )
        self.critic_net = TwinQ.build(
            self.encoder.size, self.box.size, config.hidden, activation=mish
        )

        dtype = spec.torch_dtype()
        init = Noise.for_seeds(seeds, "init", device=spec.device, dtype=dtype)
        self.noise = Noise.for_seeds(seeds, "update", device=spec.device, dtype=dtype)
        self.actor, self.critic = self.diffusion.init(init), self.critic_net.init(init)
        self.critic.update(self.encoder.init(init))
        self.actor_ema, self.critic_target = map(copy_parameters, (self.actor, self.critic))
        total = sum(phase.updates for phase in spec.phases) if config.cosine else None
        limits: dict[str, Any] = {"max_norm": config.max_norm, "cosine_steps": total}
        self.actor_optimizer = Adam(self.actor, config.actor_lr, **limits)
        self.critic_optimizer = Adam(self.critic, config.critic_lr, **limits)
        self.parts = {
            "actor": self.actor,
            "critic": self.critic,
            "actor_ema": self.actor_ema,
            "critic_target": self.critic_target,
            "actor_optimizer": self.actor_optimizer,
            "critic_optimizer": self.critic_optimizer,
            "noise": self.noise,
        }

    @torch.no_grad()
    def critic_targets(self, batch: Batch) -> Tensor:
        """y ``[S, B]``."""
        count = self.config.backup_actions
        following = batch["next_observations"].repeat_interleave(count, 1)
        noise = self.noise.normal(self.diffusion.steps, following.shape[1], self.box.size)
        actions = self.diffusion.sample(self.actor_ema, following, noise)
        values = self.critic_net(self.critic_target, following, actions)
        best = values.reshape(*values.shape[:2], -1, count).amax(3)
        continues = 1.0 - batch["terminations"]
        return batch["rewards"] + self.config.discount * continues * best.amin(1)

    def critic_losses(
        self, batch: Batch, actions: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """L_Q ``[S]`` and the values ``[S, 2, B]``."""
        values = self.critic_net(self.critic, batch["observations"], actions)
        return (values - targets.unsqueeze(1)).square().mean(2).sum(1), values

    def cloning_losses(self, batch: Batch, actions: Tensor) -> Tensor:
        """L_d ``[S]``, the diffusion model's own loss."""
        k = self.noise.integers(self.diffusion.steps, actions.shape[1])
        noise = self.noise.normal(*actions.shape[1:])
        return self.diffusion.losses(self.actor, batch["observations"].detach(), actions, k, noise)

    def q_losses(self, batch: Batch) -> Tensor:
        """-E Q_i / E |Q_j| ``[S]`` at actions of the policy."""
        observations = batch["observations"].detach()
        noise = self.noise.normal(self.diffusion.steps, observations.shape[1], self.box.size)
        i, critic = self.noise.integers(2), frozen(self.critic)
        actions = self.diffusion.sample(self.actor, observations, noise)
        values = self.critic_net.chosen(critic, i, observations, actions)
        others = self.critic_net.chosen(critic, 1 - i, observations, actions.detach())
        return -values.mean(1) / others.abs().mean(1)

    def update(self, batch: Batch, phase: str) -> Metrics:
        c, actions = self.config, self.box.unscale(batch["actions"])
        batch = encoded(self.encoder, batch, self.critic, self.critic_target)
        critic_losses, values = self.critic_losses(batch, actions, self.critic_targets(batch))
        self.critic_optimizer.step(critic_losses)

        cloning, q_losses = self.cloning_losses(batch, actions), self.q_losses(batch)
        self.actor_optimizer.step(cloning + c.eta * q_losses)

        if self.updates >= c.ema_start and self.updates % c.ema_every == 0:
            polyak(self.actor_ema, self.actor, 1 - c.ema_decay)
        polyak(self.critic_target, self.critic, c.tau)
        self.updates += 1
        return {
            "critic_loss": critic_losses.detach(),
            "bc_loss": cloning.detach(),
            "q_loss": q_losses.detach(),
            "q_mean": values.detach().mean((1, 2)),
        }

    @torch.no_grad()
    def act(
        self, step: Step, memory: Memory | None = None, *, explore: bool = False
    ) -> tuple[Tensor, Memory | None]:
        """Samples candidates and takes one by its value; exploring does the same."""
        count, noise = self.config.candidates, step["noise"]
        observations, slow = (
            self.encoder(parameters, step["observations"]).repeat_interleave(count, 1)
            for parameters in (self.critic, self.critic_target)
        )
        draws = noise.normal(self.diffusion.steps, count, self.box.size).transpose(1, 2)
        actions = self.diffusion.sample(self.actor, observations, draws.flatten(2, 3))
        values = self.critic_net(self.critic_target, slow, actions).amin(1)
        seeds, episodes = step["observations"].shape[:2]
        values = values.reshape(seeds, episodes, count)
        actions = actions.reshape(seeds, episodes, count, self.box.size)
        if self.config.selection == "argmax":
            chosen = values.argmax(2)
        else:  # the first whose cumulated probability exceeds a uniform number
            cumulated = values.softmax(2).cumsum(2)
            chosen = (cumulated <= noise.uniform(1)).sum(2).clamp(max=count - 1)
        unit = actions.take_along_dim(chosen[..., None, None], 2).squeeze(2)
        return self.box.scale(unit), None
