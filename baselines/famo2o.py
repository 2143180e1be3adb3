"""FamO2O on implicit Q-learning (Wang et al. 2023, arXiv 2310.17966): a policy for each balance.

One policy pi(a | s, beta) learns every strength beta of improvement in a range; the balance model
b(beta | s) chooses one for each state. Values are IQL's. With A = min_i Q'_i(s, a) - V(s):

    L_V    = E L2_expectile(A)
    L_b    = E temp log b(beta | s) - min_i Q'_i(s, a^),   beta ~ b(. | s), a^ ~ pi(. | s, beta)
    L_temp = temp (-E log b(beta | s) - target entropy)
    L_pi   = -E exp(min(beta A, log clip)) log pi(a | s, beta),
             beta ~ U(low, high) offline, beta ~ b(. | s) online, a constant
    L_Q    = sum_i E (r + gamma (1 - d) V(s') - Q_i(s, a))^2

In this order; L_b and L_temp are taken at the old weights. Acting: pi at the mean of b.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from baselines.common import Adam, Noise, Stateful, copy_parameters, expectile_loss, frozen, polyak
from baselines.config import check_ranges
from baselines.contract import Batch, Memory, Metrics, Needs, Spec, Step
from baselines.family import Family, FamilyConfig, online_phases
from baselines.nets import MLP, ActionBox, TwinQ, observation_size
from baselines.sampled import SquashedPolicy, free_log_std, normal_log_density


@dataclass(frozen=True)
class FamO2OConfig(FamilyConfig):
    """Locomotion: the authors ship no setting for it, so range and expectile are ours."""

    target_entropy: float = -0.5  # of b, in nats of beta; authors' number, theirs is of x
    initial_temperature: float = 1.0  # of b; authors' family_learner.py
    temperature_lr: float = 3e-4  # Adam; same
    balance_log_std_min: float = -10.0  # of b's one log std, under the tanh; authors' policy.py
    balance_log_std_max: float = 2.0  # same
    expectile: float = 0.7  # of the value regression; IQL's for locomotion
    discount: float = 0.99  # gamma per step
    tau: float = 0.005  # Polyak rate of the critic target, per update
    advantage_clip: float = 100.0  # largest weight of a sample in L_pi; authors' family_actor.py
    log_std_min: float = -5.0  # of pi's one log std; authors' family_learner.py
    log_std_max: float = 2.0  # same
    hidden: tuple[int, ...] = (256, 256)  # units per layer, all networks
    lr: float = 3e-4  # Adam, all networks
    cosine: bool = True  # pi's lr falls to 0 over all updates; switch off to go on online
    batch_size: int = 256  # transitions per update
    scale_rewards: bool = True  # r * 1000 / (best - worst return); authors' training script
    reward_shift: float = 0.0  # added to every (scaled) reward

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(
            self,
            initial_temperature=(0, math.inf),
            temperature_lr=(0, math.inf),
            expectile=(0, 1),
            discount=(0, 1),
            tau=(0, 1),
            advantage_clip=(0, math.inf),
            lr=(0, math.inf),
            batch_size=(1, math.inf),
            balance_log_std_max=(self.balance_log_std_min, math.inf),
            log_std_max=(self.log_std_min, math.inf),
            hidden=(1, math.inf),
        )


class FamO2O(Stateful):
    """FamO2O with the values of IQL."""

    Config: ClassVar = FamO2OConfig
    version: ClassVar[int] = 1
    presets: ClassVar = {
        "check": {"hidden": (32, 32), "lr": 1e-2, "batch_size": 64},
        "antmaze": {  # authors' family_antmaze_finetune_config.py and training script
            "coefficient_range": (8.0, 14.0),
            "target_entropy": -0.5 + math.log(3.0),  # theirs is of x = (beta - 11) / 3
            "expectile": 0.9,
            "cosine": False,
            "scale_rewards": False,
            "reward_shift": -1.0,
        },
    }

    @staticmethod
    def needs(config: FamO2OConfig) -> Needs:
        return Needs(
            ("observations", "actions", "rewards", "next_observations", "terminations"),
            batch_size=config.batch_size,
            rewards="return_range" if config.scale_rewards else "raw",
        )

    def __init__(self, spec: Spec, config: FamO2OConfig, seeds: Sequence[int]) -> None:
        self.config, self.box = config, ActionBox.of(spec.action_space)
        self.online = online_phases(spec.phases)
        observation, gain = observation_size(spec.observation_space), math.sqrt(2)
        bounds = config.balance_log_std_min, config.balance_log_std_max
        net = MLP((observation, *config.hidden, 1), gain=gain)
        self.family = Family(config, SquashedPolicy(net, bounds, free_std=True))
        width = observation + config.code_size
        self.actor_net = MLP((width, *config.hidden, self.box.size), gain=gain)
        self.critic_net = TwinQ.build(observation, self.box.size, config.hidden, gain)
        self.value_net = MLP((observation, *config.hidden, 1), gain=gain)

        dtype = spec.torch_dtype()
        init = Noise.for_seeds(seeds, "init", device=spec.device, dtype=dtype)
        self.noise = Noise.for_seeds(seeds, "update", device=spec.device, dtype=dtype)
        self.actor = self.actor_net.init(init)
        self.actor["log_std"] = free_log_std(self.actor, self.box.size)
        self.critic, self.state_value = self.critic_net.init(init), self.value_net.init(init)
        self.critic_target = copy_parameters(self.critic)
        self.balance = self.family.init(init)
        log = torch.full((len(seeds),), math.log(config.initial_temperature), dtype=dtype)
        self.temperature = {"log": log.to(spec.device).requires_grad_()}
        total = sum(phase.updates for phase in spec.phases) if config.cosine else None
        self.actor_optimizer = Adam(self.actor, config.lr, cosine_steps=total)
        self.critic_optimizer = Adam(self.critic, config.lr)
        self.value_optimizer = Adam(self.state_value, config.lr)
        self.balance_optimizer = Adam(self.balance, config.lr)
        self.temperature_optimizer = Adam(self.temperature, config.temperature_lr)
        self.parts = {
            "actor": self.actor,
            "critic": self.critic,
            "value": self.state_value,
            "critic_target": self.critic_target,
            "balance": self.balance,
            "temperature": self.temperature,
            "actor_optimizer": self.actor_optimizer,
            "critic_optimizer": self.critic_optimizer,
            "value_optimizer": self.value_optimizer,
            "balance_optimizer": self.balance_optimizer,
            "temperature_optimizer": self.temperature_optimizer,
            "noise": self.noise,
        }

    def policy(self, parameters: dict[str, Tensor], inputs: Tensor) -> tuple[Tensor, Tensor]:
        """pi(. | s, beta): its mean in [-1, 1], ``[S, B, A]``, and its log std, ``[S, 1, A]``."""
        bounds = self.config.log_std_min, self.config.log_std_max
        return self.actor_net(parameters, inputs).tanh(), parameters["log_std"].clamp(*bounds)

    def values(self, observations: Tensor) -> Tensor:
        """V(s) ``[S, B]``."""
        return self.value_net(self.state_value, observations).squeeze(-1)

    def lowest(self, observations: Tensor, actions: Tensor) -> Tensor:
        """min_i Q'_i(s, a) ``[S, B]``."""
        return self.critic_net(self.critic_target, observations, actions).amin(1)

    def balance_step(self, observations: Tensor, normal: Tensor) -> Metrics:
        """Moves the balance model and its temperature, from ``normal`` ``[S, B, 1 + A]``."""
        coefficients, log_prob = self.family.sample(self.balance, observations, normal[..., :1])
        inputs = self.family.inputs(observations, coefficients)
        mean, log_std = self.policy(frozen(self.actor), inputs)  # a gradient into beta alone
        worth = self.lowest(observations, mean + log_std.exp() * normal[..., 1:])
        temperature, entropy = self.temperature["log"].exp(), -log_prob.mean(1)
        losses = -temperature.detach() * entropy - worth.mean(1)
        self.balance_optimizer.step(losses)
        surplus = entropy.detach() - self.config.target_entropy
        self.temperature_optimizer.step(temperature * surplus)
        return {
            "balance_loss": losses.detach(),
            "coefficient_mean": coefficients.detach().mean((1, 2)),
            "coefficient_std": coefficients.detach().std((1, 2), correction=0),
            "entropy": entropy.detach(),
            "temperature": temperature.detach(),
        }

    def actor_losses(
        self, batch: Batch, actions: Tensor, advantages: Tensor, coefficients: Tensor
    ) -> Tensor:
        """L_pi ``[S]``."""
        mean, log_std = self.policy(
            self.actor, self.family.inputs(batch["observations"], coefficients)
        )
        log_prob = normal_log_density((actions - mean) / log_std.exp(), log_std).sum(-1)
        exponents = coefficients.squeeze(-1) * advantages
        weights = exponents.clamp(max=math.log(self.config.advantage_clip)).exp()
        return -(weights * log_prob).mean(1)

    def update(self, batch: Batch, phase: str) -> Metrics:
        c, observations = self.config, batch["observations"]
        actions = self.box.unscale(batch["actions"])
        normal = self.noise.normal(len(actions[0]), 2 + self.box.size)
        uniform = self.noise.uniform(len(actions[0]), 1)
        coefficients = self.family.choose(
            self.balance,
            observations,
            uniform,
            normal[..., :1],
            whole=phase not in self.online,
        )

        with torch.no_grad():
            target_values = self.lowest(observations, actions)
        value_losses = expectile_loss(target_values - self.values(observations), c.expectile)
        self.value_optimizer.step(value_losses.mean(1))
        with torch.no_grad():
            both = torch.cat([observations, batch["next_observations"]], 1)
            values, next_values = self.values(both).chunk(2, 1)
            continues = 1.0 - batch["terminations"]
            rewards = batch["rewards"] + c.reward_shift
            targets = rewards + c.discount * continues * next_values

        balanced = self.balance_step(observations, normal[..., 1:]) if self.family.adaptive else {}
        actor_losses = self.actor_losses(batch, actions, target_values - values, coefficients)
        self.actor_optimizer.step(actor_losses)

        predicted = self.critic_net(self.critic, observations, actions)
        critic_losses = (predicted - targets.unsqueeze(1)).square().mean(2).sum(1)
        self.critic_optimizer.step(critic_losses)
        polyak(self.critic_target, self.critic, c.tau)
        self.updates += 1
        return {
            "value_loss": value_losses.detach().mean(1),
            "actor_loss": actor_losses.detach(),
            "critic_loss": critic_losses.detach(),
            "q_mean": target_values.mean(1),
            **balanced,
        }

    def coefficients(self, observations: Tensor) -> dict[str, Any]:
        """The coefficients chosen ``[S, B]`` and their range; for studies."""
        return self.family.shown(self.balance, observations)

    @torch.no_grad()
    def value(self, observations: Tensor, actions: Tensor, groups: Tensor | None = None) -> Tensor:
        """Predicted Q ``[S, B]`` of actions in the space; for studies."""
        return self.critic_net(self.critic, observations, self.box.unscale(actions)).amin(1)

    def discounts(self) -> Tensor:
        """The discount of :meth:`value`, ``[S]``; for studies."""
        return torch.full_like(self.temperature["log"].detach(), self.config.discount)

    @torch.no_grad()
    def act(
        self, step: Step, memory: Memory | None = None, *, explore: bool = False
    ) -> tuple[Tensor, Memory | None]:
        coefficients = self.family.choose_to_act(self.balance, step)
        inputs = self.family.inputs(step["observations"], coefficients)
        unit, log_std = self.policy(self.actor, inputs)
        if explore:
            unit = unit + log_std.exp() * step["noise"].normal(self.box.size)
        return self.box.scale(unit), None
