"""Q-value regularised transformer (QT; Hu et al. 2024, arXiv 2405.17098).

Decision Transformer's loss keeps the policy near the data, a critic pulls it to better actions:

    y_t  = r_t + .. + gamma^(k-1) r_(t+k-1) + gamma^k min_i Q'_i(s_(t+k), pi'_(t+k)),   k <= n
    L_Q  = sum_i E (Q_i(s_t, a_t) - y_t)^2
    L_pi = E |pi_t - a_t|^2 - eta E Q_i(s_t, pi_t) / E |Q_j(s_t, pi_t)|,   {i, j} = {1, 2} at random

within a window: k is n or reaches its last step. To act, the policy is asked with several returns
to aim at, and the critic chooses among its answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from baselines.common import Adam, Noise, Stateful, copy_parameters, frozen, polyak
from baselines.config import check_ranges
from baselines.contract import Batch, Memory, Metrics, Needs, Spec, Step
from baselines.nets import ActionBox, TwinQ, mish, observation_size
from baselines.transformer import (
    WINDOW,
    ReturnUnits,
    TrajectoryTransformer,
    candidate_windows,
    check_network,
    masked_mean,
    recall,
    remember,
    training_window,
)

FIFTY = {"repeats": 10, "target_noise": 0.1}  # candidates per step, as in the authors' code


@dataclass(frozen=True)
class QTConfig:
    """Settings of the authors' ``experiment.py``; what they choose per task is hopper's."""

    context: int = 20  # K steps of a window
    width: int = 256  # features of a token
    layers: int = 4  # blocks
    heads: int = 4  # of attention
    dropout: float = 0.1  # rate: embeddings, attention weights, both parts of a block
    eta: float = 1.0  # weight of the critic in L_pi; hopper-medium(-expert)
    dt_weight: float = 1.0  # weight of Decision Transformer's loss in L_pi
    state_weight: float = 0.0  # weight of the next observation's squared error in L_pi
    n_step: int = 19  # n: most rewards before the bootstrap; the window allows K - 1
    discount: float = 0.99  # gamma per step
    tau: float = 0.005  # Polyak rate of the target critics, per update
    ema_decay: float = 0.995  # of the averaged policy pi', per averaging
    ema_start: int = 1000  # updates before the first averaging
    ema_every: int = 5  # updates per averaging
    critic_hidden: tuple[int, ...] = (256, 256, 256)  # units per layer, Mish
    lr: float = 3e-4  # Adam, policy and critics
    cosine_updates: int = 500_000  # both rates fall to 0 over these
    weight_decay: float = 1e-4  # L2 penalty of the policy
    max_norm: float = 9.0  # of policy's and critics' gradients, per seed; hopper
    batch_size: int = 256  # windows per update
    return_scale: float | None = 1000.0  # raw return per unit of input; null: the data's largest
    targets: tuple[float, ...] = (0.5, 0.75, 1.0, 1.25, 1.5)  # fractions of the best return; ours
    target_returns: tuple[float, ...] | None = None  # the same in raw units; replaces targets
    repeats: int = 1  # candidates per target
    target_noise: float = 0.0  # std added to all of a target's candidates but one, units of input
    selection: Literal["argmax", "softmax"] = "argmax"  # of a candidate by its value
    timesteps: int = 1000  # rows of the table of times where the task has no time limit
    standardize: bool = True  # observations to mean 0, std 1 (+ 1e-6)

    def __post_init__(self) -> None:
        check_network(self)
        check_ranges(self, context=(2, math.inf), critic_hidden=(1, math.inf))
        check_ranges(
            self,
            eta=(0, math.inf),
            dt_weight=(0, math.inf),
            state_weight=(0, math.inf),
            n_step=(1, math.inf),
            discount=(0, 1),
            tau=(0, 1),
            ema_decay=(0, 1),
            ema_start=(0, math.inf),
            ema_every=(1, math.inf),
            cosine_updates=(1, math.inf),
            repeats=(1, math.inf),
            target_noise=(0, math.inf),
        )
        if not (self.targets if self.target_returns is None else self.target_returns):
            raise ValueError("targets is empty; name at least one return to aim at")


class QT(Stateful):
    """Q-value regularised transformer."""

    Config: ClassVar = QTConfig
    version: ClassVar[int] = 1
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {**FIFTY, "selection": "argmax", "state_weight": 0.0},
        "authors_code": {**FIFTY, "selection": "softmax", "state_weight": 1.0},
        "check": {
            **{"context": 3, "width": 16, "layers": 1, "heads": 2, "return_scale": 5.0},
            **{"critic_hidden": (32, 32), "lr": 5e-3, "tau": 0.02, "ema_start": 5},
            **{"batch_size": 32, "state_weight": 0.1, "repeats": 2, "target_noise": 0.1},
        },
    }

    @staticmethod
    def needs(config: QTConfig) -> Needs:
        return Needs(
            (*WINDOW, "rewards", "terminations"),
            batch_size=config.batch_size,
            window=config.context,
            observations="standardized" if config.standardize else "raw",
            epsilon=1e-6,
        )

    def __init__(self, spec: Spec, config: QTConfig, seeds: Sequence[int]) -> None:
        self.config, self.box = config, ActionBox.of(spec.action_space)
        c, dtype = config, spec.torch_dtype()
        self.net = TrajectoryTransformer.build(spec, c, next_state=c.state_weight > 0)
        observation = observation_size(spec.observation_space)
        self.critic_net = TwinQ.build(observation, self.box.size, c.critic_hidden, activation=mish)
        units = ReturnUnits.of(spec, c.return_scale)
        self.scale = units.scale
        targets = units.targets(c.targets, c.target_returns)
        self.targets = [target for target in targets for _ in range(c.repeats)]

        init = Noise.for_seeds(seeds, "init", device=spec.device, dtype=dtype)
        self.noise = Noise.for_seeds(seeds, "update", device=spec.device, dtype=dtype)
        self.actor, self.critic = self.net.init(init), self.critic_net.init(init)
        self.actor_ema = copy_parameters(self.actor)
        self.critic_target = copy_parameters(self.critic)
        shared: dict[str, Any] = {"max_norm": c.max_norm, "cosine_steps": c.cosine_updates}
        self.actor_optimizer = Adam(self.actor, c.lr, l2=c.weight_decay, **shared)
        self.critic_optimizer = Adam(self.critic, c.lr, **shared)
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
    def critic_targets(self, batch: Batch, window: Batch) -> tuple[Tensor, Tensor]:
        """y and where it is known, each ``[S, B, K]``; a window's last step is at its right end."""
        c, rewards = self.config, batch["rewards"]
        steps = torch.arange(c.context, device=rewards.device)
        last = c.context - 1
        ends = (steps + c.n_step).clamp(max=last)  # where the bootstrap is, for every t
        first = min(c.n_step, last)
        actions = self.net.actions(self.actor_ema, window, last=first == last)
        states = batch["observations"][:, :, first:]
        values = self.critic_net(
            self.critic_target,
            states.flatten(1, 2),
            actions[:, :, first - last - 1 :].flatten(1, 2),
        )
        values = values.amin(1).reshape(*states.shape[:3])[..., ends - first]
        # A window that reaches a terminal step has its last reward in place of a bootstrap.
        terminal = batch["terminations"][..., -1:].bool()
        values = torch.where(terminal & (steps + c.n_step > last), rewards[..., -1:], values)

        ahead = steps - steps.unsqueeze(1)  # [t, j]: j - t
        earned = (ahead >= 0) & (steps < ends.unsqueeze(1))
        weights = torch.where(earned, c.discount ** ahead.clamp(min=0).to(rewards.dtype), 0.0)
        targets = rewards @ weights.T + c.discount ** (ends - steps).to(rewards.dtype) * values
        return targets, batch["mask"] * (terminal | (steps < last))

    def critic_losses(
        self, batch: Batch, actions: Tensor, targets: Tensor, known: Tensor
    ) -> tuple[Tensor, Tensor]:
        """L_Q ``[S]`` and the mean value ``[S]``."""
        states = batch["observations"].flatten(1, 2)
        values = self.critic_net(self.critic, states, actions.flatten(1, 2))
        first, second = values.reshape(len(values), 2, *known.shape[1:]).unbind(1)
        losses = masked_mean((first - targets).square() + (second - targets).square(), known)
        return losses, masked_mean((first + second) / 2, batch["mask"]).detach()

    def actor_losses(
        self, batch: Batch, window: Batch, masks: dict[str, Tensor] | None, which: Tensor
    ) -> tuple[Tensor, Metrics]:
        """L_pi ``[S]`` and its parts; ``which`` ``[S]`` is i - 1."""
        c, mask, states = self.config, batch["mask"], batch["observations"]
        state_losses = torch.zeros_like(mask[:, 0, 0])
        if self.net.next_state:
            chosen, following = self.net.actions_and_next(self.actor, window, masks)
            errors = (following - states[:, :, 1:]).square().mean(-1)
            state_losses = masked_mean(errors, mask[:, :, :-1])
        else:
            chosen = self.net.actions(self.actor, window, masks)
        action_losses = masked_mean((chosen - window["actions"]).square().mean(-1), mask)

        critic, inputs = frozen(self.critic), (states.flatten(1, 2), chosen.flatten(1, 2))
        values = self.critic_net.chosen(critic, which, *inputs).reshape(mask.shape)
        with torch.no_grad():
            others = self.critic_net.chosen(critic, 1 - which, *inputs).reshape(mask.shape)
        q_losses = -masked_mean(values, mask) / masked_mean(others.abs(), mask)
        losses = c.dt_weight * action_losses + c.state_weight * state_losses + c.eta * q_losses
        parts = {"action_loss": action_losses, "state_loss": state_losses, "q_loss": q_losses}
        return losses, {name: value.detach() for name, value in parts.items()}

    def update(self, batch: Batch, phase: str) -> Metrics:
        c = self.config
        actions = self.box.unscale(batch["actions"])
        window = training_window(batch, actions, self.scale)
        targets, known = self.critic_targets(batch, window)
        critic_losses, q_mean = self.critic_losses(batch, actions, targets, known)
        self.critic_optimizer.step(critic_losses)

        masks = self.net.dropout_masks(self.noise, *batch["mask"].shape[1:])
        actor_losses, parts = self.actor_losses(batch, window, masks, self.noise.integers(2))
        self.actor_optimizer.step(actor_losses)
        self.updates += 1

        if self.updates > c.ema_start and self.updates % c.ema_every == 0:
            polyak(self.actor_ema, self.actor, 1.0 - c.ema_decay)
        polyak(self.critic_target, self.critic, c.tau)
        parts |= {"critic_loss": critic_losses.detach(), "actor_loss": actor_losses.detach()}
        return {**parts, "q_mean": q_mean}

    def act(
        self, step: Step, memory: Memory | None = None, *, explore: bool = False
    ) -> tuple[Tensor, Memory | None]:
        c, states = self.config, step["observations"]
        memory = recall(memory, step, c.context, self.box.size)
        window = candidate_windows(memory, states.new_tensor(self.targets), self.scale)
        count = len(self.targets)
        if c.target_noise:
            noise = c.target_noise * step["noise"].normal(count)
            noise[..., :: c.repeats] = 0.0
            window["returns_to_go"][..., -1] += noise.flatten(1, 2)
        candidates = self.net.actions(self.actor, window, last=True).detach()[:, :, 0]
        values = self.critic_net(
            self.critic_target, states.repeat_interleave(count, 1), candidates
        ).amin(1)
        values = values.reshape(*states.shape[:2], count)
        if c.selection == "softmax":  # Gumbel's trick: the argmax is a draw from the softmax
            values = values - (-step["noise"].uniform(count).log()).log()
        best = values.argmax(-1)[..., None, None]
        unit = candidates.reshape(*values.shape, -1).take_along_dim(best, 2)[:, :, 0]
        return self.box.scale(unit), remember(memory, unit)
