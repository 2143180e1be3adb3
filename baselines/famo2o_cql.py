"""FamO2O on conservative Q-learning (Wang et al. 2023, arXiv 2310.17966), locomotion.

One policy pi(a | s, beta) learns every weight beta of the value in a range; the balance model
b(beta | s) chooses one for each state. a~ are uniform, from pi(. | s, beta) and from pi(. | s',
beta'), N of each and all judged at s, mu the density each was drawn from:

    beta     ~ U(low, high) offline, ~ b(. | s) online;   beta' ~ b(. | s');   both constants
    d_i      = E [log sum_a~ exp(Q_i(s, a~) - log mu(a~)) - Q_i(s, a)]
    y        = r + gamma (1 - d) min_i Q'_i(s', a'),   a' ~ pi(. | s', beta')
    L_Q      = sum_i E (Q_i(s, a) - y)^2 + weight d_i
    L_pi     = E alpha log pi(a^ | s, beta) - beta min_i Q_i(s, a^),   a^ ~ pi(. | s, beta)
    L_b      = -E min_i Q_i(s, a^),   a^ ~ pi(. | s, beta^),   beta^ ~ b(. | s)
    L_alpha  = -log alpha E (log pi(a^ | s, beta) + target entropy)

All losses are taken at the old weights, in both phases. Acting: pi at the mean of b.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from baselines.common import Adam, Noise, Stateful, copy_parameters, frozen, polyak
from baselines.config import check_ranges
from baselines.contract import Batch, Memory, Metrics, Needs, Spec, Step
from baselines.family import Family, FamilyConfig, online_phases
from baselines.nets import ActionBox, TwinQ, observation_size
from baselines.sampled import (
    SquashedPolicy,
    conservative_actions,
    conservative_losses,
    values_of_samples,
)


@dataclass(frozen=True)
class FamO2OCQLConfig(FamilyConfig):
    """Settings of the authors' ``finetune_configs/family.py``."""

    coefficient_range: tuple[float, float] = (0.5, 1.5)  # low, high; authors' family.py
    weight: float = 1.0  # of the conservative term; same
    samples: int = 10  # N, sampled actions of each of three kinds; same
    discount: float = 0.99  # gamma per step; same
    tau: float = 0.005  # Polyak rate of the critic target, per update; same
    target_entropy: float = -1.0  # of pi, per action dimension; same
    log_std_min: float = -20.0  # of the Gaussians under the tanh; hierarchical_policy.py
    log_std_max: float = 2.0  # same
    log_std_offset: float = -1.0  # added to the networks' log std; same (there it is trained)
    hidden: tuple[int, ...] = (256, 256)  # units per layer, all networks; family.py
    layer_norm: bool = True  # in the critics, before each rectifier; authors' family_model.py
    policy_lr: float = 3e-4  # Adam, policy and temperature; authors' family.py
    balance_lr: float = 3e-4  # Adam, balance model; same
    critic_lr: float = 3e-4  # Adam, critics; same
    batch_size: int = 256  # transitions per update; same

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(
            self,
            weight=(0, math.inf),
            samples=(1, math.inf),
            discount=(0, 1),
            tau=(0, 1),
            policy_lr=(0, math.inf),
            balance_lr=(0, math.inf),
            critic_lr=(0, math.inf),
            batch_size=(1, math.inf),
            log_std_max=(self.log_std_min, math.inf),
            hidden=(1, math.inf),
        )


class FamO2OCQL(Stateful):
    """FamO2O with the critics of CQL."""

    Config: ClassVar = FamO2OCQLConfig
    version: ClassVar[int] = 1
    presets: ClassVar = {
        "check": {
            "samples": 2,
            "hidden": (32, 32),
            "policy_lr": 1e-2,
            "balance_lr": 1e-2,
            "critic_lr": 1e-2,
            "batch_size": 64,
        },
    }

    @staticmethod
    def needs(config: FamO2OCQLConfig) -> Needs:
        return Needs(
            ("observations", "actions", "rewards", "next_observations", "terminations"),
            batch_size=config.batch_size,
        )

    def __init__(self, spec: Spec, config: FamO2OCQLConfig, seeds: Sequence[int]) -> None:
        self.config, self.box = config, ActionBox.of(spec.action_space)
        self.online = online_phases(spec.phases)
        observation = observation_size(spec.observation_space)
        bounds, offset = (config.log_std_min, config.log_std_max), config.log_std_offset
        options = {"log_std": bounds, "offset": offset}
        self.family = Family(config, SquashedPolicy.build(observation, 1, config.hidden, **options))
        width = observation + config.code_size
        self.policy_net = SquashedPolicy.build(width, self.box.size, config.hidden, **options)
        norm: dict[str, Any] = {"layer_norm": config.layer_norm, "norm_first": True}
        self.critic_net = TwinQ.build(observation, self.box.size, config.hidden, **norm)

        dtype = spec.torch_dtype()
        init = Noise.for_seeds(seeds, "init", device=spec.device, dtype=dtype)
        self.noise = Noise.for_seeds(seeds, "update", device=spec.device, dtype=dtype)
        self.policy, self.critic = self.policy_net.init(init), self.critic_net.init(init)
        self.critic_target = copy_parameters(self.critic)
        self.balance = self.family.init(init)
        zeros = torch.zeros(len(seeds), device=spec.device, dtype=dtype)
        self.temperature = {"log": zeros.requires_grad_()}  # alpha
        self.policy_optimizer = Adam(self.policy, config.policy_lr)
        self.critic_optimizer = Adam(self.critic, config.critic_lr)
        self.balance_optimizer = Adam(self.balance, config.balance_lr)
        self.temperature_optimizer = Adam(self.temperature, config.policy_lr)
        self.parts = {
            "policy": self.policy,
            "critic": self.critic,
            "critic_target": self.critic_target,
            "balance": self.balance,
            "temperature": self.temperature,
            "policy_optimizer": self.policy_optimizer,
            "critic_optimizer": self.critic_optimizer,
            "balance_optimizer": self.balance_optimizer,
            "temperature_optimizer": self.temperature_optimizer,
            "noise": self.noise,
        }

    def lowest(self, observations: Tensor, actions: Tensor) -> Tensor:
        """min_i Q_i(s, a) ``[S, B]``, with a gradient into the actions alone."""
        return self.critic_net(frozen(self.critic), observations, actions).amin(1)

    def balance_losses(
        self, observations: Tensor, normal: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """L_b ``[S]`` and beta^ ``[S, B, 1]``, from ``normal`` for beta^ and ``noise`` for a^."""
        coefficients, _ = self.family.sample(self.balance, observations, normal)
        inputs = self.family.inputs(observations, coefficients)
        chosen, _ = self.policy_net(frozen(self.policy), inputs).sample(noise)
        return -self.lowest(observations, chosen).mean(1), coefficients.detach()

    def update(self, batch: Batch, phase: str) -> Metrics:
        c, actions, rows = self.config, self.box.unscale(batch["actions"]), len(batch["rewards"][0])
        observations, following = batch["observations"], batch["next_observations"]
        noise = self.noise.normal(rows, 3 + 2 * c.samples, self.box.size)
        uniform = self.noise.uniform(rows, c.samples, self.box.size)
        by_chance, normal = self.noise.uniform(rows, 2), self.noise.normal(rows, 3)
        coefficients = self.family.choose(
            self.balance,
            observations,
            by_chance[..., :1],
            normal[..., :1],
            whole=phase not in self.online,  # offline pi learns all of the family
        )
        next_coefficients = self.family.choose(
            self.balance, following, by_chance[..., 1:], normal[..., 1:2]
        )
        policy = self.policy_net(self.policy, self.family.inputs(observations, coefficients))
        next_policy = self.policy_net(
            frozen(self.policy), self.family.inputs(following, next_coefficients)
        )

        # All losses are taken at the old weights, then all steps are made.
        with torch.no_grad():
            next_actions, _ = next_policy.sample(noise[:, :, 0])
            next_values = self.critic_net(self.critic_target, following, next_actions)
            continues = 1.0 - batch["terminations"]
            targets = batch["rewards"] + c.discount * continues * next_values.amin(1)
            sampled, log_density = conservative_actions(
                policy, next_policy, noise[:, :, 3:], uniform
            )
        every = torch.cat([actions.unsqueeze(2), sampled], 2)
        td_losses, gaps, values = conservative_losses(
            values_of_samples(self.critic_net, self.critic, observations, every),
            targets,
            log_density,
        )
        critic_losses = (td_losses + c.weight * gaps).sum(1)

        alpha = self.temperature["log"].detach().exp()
        chosen, log_prob = policy.sample(noise[:, :, 1])
        worth = coefficients.squeeze(-1) * self.lowest(observations, chosen)
        policy_losses = alpha * log_prob.mean(1) - worth.mean(1)
        entropy = -log_prob.detach().mean(1)

        balanced: Metrics = {}
        if self.family.adaptive:
            losses, proposed = self.balance_losses(observations, normal[..., 2:], noise[:, :, 2])
            balanced = {
                "balance_loss": losses.detach(),
                "coefficient_mean": proposed.mean((1, 2)),
                "coefficient_std": proposed.std((1, 2), correction=0),
            }
            self.balance_optimizer.step(losses)
        self.policy_optimizer.step(policy_losses)
        self.critic_optimizer.step(critic_losses)
        surplus = -entropy + c.target_entropy * self.box.size
        self.temperature_optimizer.step(-self.temperature["log"] * surplus)
        polyak(self.critic_target, self.critic, c.tau)
        self.updates += 1
        return {
            "policy_loss": policy_losses.detach(),
            "critic_loss": critic_losses.detach(),
            "td_loss": td_losses.detach().sum(1),
            "gap": gaps.detach().mean(1),
            "q_mean": values.mean((1, 2)),
            "entropy": entropy,
            "temperature": alpha,
            **balanced,
        }

    def coefficients(self, observations: Tensor) -> dict[str, Any]:
        """The coefficients chosen ``[S, B]`` and their range; for studies."""
        return self.family.shown(self.balance, observations)

    @torch.no_grad()
    def value(self, observations: Tensor, actions: Tensor, groups: Tensor | None = None) -> Tensor:
        """Predicted Q ``[S, B]`` of actions in the space; for studies."""
        return self.lowest(observations, self.box.unscale(actions))

    def discounts(self) -> Tensor:
        """The discount of :meth:`value`, ``[S]``; for studies."""
        return torch.full_like(self.temperature["log"].detach(), self.config.discount)

    @torch.no_grad()
    def act(
        self, step: Step, memory: Memory | None = None, *, explore: bool = False
    ) -> tuple[Tensor, Memory | None]:
        coefficients = self.family.choose_to_act(self.balance, step)
        inputs = self.family.inputs(step["observations"], coefficients)
        policy = self.policy_net(self.policy, inputs)
        if explore:
            return self.box.scale(policy.sample(step["noise"].normal(self.box.size))[0]), None
        return self.box.scale(policy.mean.tanh()), None
