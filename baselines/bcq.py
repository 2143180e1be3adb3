"""Discrete-action BCQ over joint actions (Fujimoto et al. 2019, arXiv 1910.01708).

A behaviour network says how likely the data's policy is to take each action. What is much less
likely than its favourite is no candidate, neither when acting nor in the target:

    A(s) = {a : pi(a | s) >= threshold max_a' pi(a' | s)}
    a*   = argmax_{a in A(s')} Q(s', a)                                   eq. 14
    L_Q  = E huber(Q(s, a) - r - gamma (1 - d) Q'(s', a*))
    L_pi = E [-log pi(a | s)] + logit_penalty E logits^2

An action of several factors is one of the product of their choices; a box is cut into bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from baselines.common import Adam, Noise, Stateful, copy_parameters, polyak
from baselines.config import UsageError, check_ranges
from baselines.contract import Batch, Memory, Metrics, Needs, Spec, Step
from baselines.factored import Factors, epsilon_greedy
from baselines.nets import MLP, observation_size

LARGEST = 10_000  # joint actions; the published networks then have three million weights


@dataclass(frozen=True)
class BCQConfig:
    """Settings of the authors' code for tasks that are no images."""

    threshold: float = 0.3  # smallest pi / max pi of a candidate; authors' main.py
    logit_penalty: float = 1e-2  # weight of the squared logits; authors' discrete_BCQ.py
    bins: int = 3  # values per dimension of a box, odd; ours
    discount: float = 0.99  # gamma per step; authors' main.py
    tau: float = 0.005  # Polyak rate of the target, per update; authors' main.py
    exploration: float = 0.1  # chance of a uniform action when exploring; authors' main.py
    hidden: tuple[int, ...] = (256, 256)  # units per layer, both networks; authors' discrete_BCQ.py
    lr: float = 3e-4  # Adam, both networks; authors' main.py
    l2: float = 0.0  # added to the gradients, times the weights; authors' main.py
    batch_size: int = 256  # transitions per update; as the other agents (authors: 64)
    standardize: bool = True  # observations to mean 0, std 1; as td3_bc

    def __post_init__(self) -> None:
        check_ranges(
            self,
            threshold=(0, 1),
            logit_penalty=(0, math.inf),
            discount=(0, 1),
            tau=(0, 1),
            exploration=(0, 1),
            lr=(0, math.inf),
            l2=(0, math.inf),
            batch_size=(1, math.inf),
        )


class BCQ(Stateful):
    """Batch-constrained Q-learning over joint actions."""

    Config: ClassVar = BCQConfig
    version: ClassVar[int] = 1
    presets: ClassVar = {
        # Tang et al. 2022's MIMIC code; its observations come from an encoder, as they are.
        "mimic": {"l2": 1e-3, "batch_size": 100, "standardize": False},
        "check": {"hidden": (32, 32), "lr": 5e-3, "bins": 5, "batch_size": 64},
    }

    @staticmethod
    def needs(config: BCQConfig) -> Needs:
        return Needs(
            ("observations", "actions", "rewards", "next_observations", "terminations"),
            batch_size=config.batch_size,
            observations="standardized" if config.standardize else "raw",
        )

    def __init__(self, spec: Spec, config: BCQConfig, seeds: Sequence[int]) -> None:
        self.config, self.factors = config, Factors.of_spec(spec, config.bins)
        if self.factors.joint > LARGEST:
            raise UsageError(
                f"bcq would need an output for each of {self.factors.joint:,} joint actions, more "
                f"than {LARGEST:,}; take factored_bcq or ad_bcq, or fewer bins"
            )
        sizes = (observation_size(spec.observation_space), *config.hidden, self.factors.joint)
        self.critic_net = self.behaviour_net = MLP(sizes)
        init = Noise.for_seeds(seeds, "init", device=spec.device, dtype=spec.torch_dtype())
        self.critic, self.behaviour = self.critic_net.init(init), self.behaviour_net.init(init)
        self.critic_target = copy_parameters(self.critic)
        self.critic_optimizer = Adam(self.critic, config.lr, l2=config.l2)
        self.behaviour_optimizer = Adam(self.behaviour, config.lr, l2=config.l2)
        self.parts = {
            "critic": self.critic,
            "behaviour": self.behaviour,
            "critic_target": self.critic_target,
            "critic_optimizer": self.critic_optimizer,
            "behaviour_optimizer": self.behaviour_optimizer,
        }

    def allowed(self, observations: Tensor) -> Tensor:
        """A(s) as booleans ``[S, B, joint]``; the favourite is always in it."""
        logits = self.behaviour_net(self.behaviour, observations)
        return logits - logits.amax(-1, keepdim=True) >= floor(self.config.threshold)

    @torch.no_grad()
    def greedy(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """a* ``[S, B]`` and the mask it was chosen under ``[S, B, joint]``."""
        allowed = self.allowed(observations)
        values = self.critic_net(self.critic, observations)
        return values.masked_fill(~allowed, -math.inf).argmax(-1), allowed

    @torch.no_grad()
    def critic_targets(self, batch: Batch, chosen: Tensor) -> Tensor:
        """y ``[S, B]`` for the next actions ``[S, B]``."""
        next_values = pick(self.critic_net(self.critic_target, batch["next_observations"]), chosen)
        continues = 1.0 - batch["terminations"]
        return batch["rewards"] + self.config.discount * continues * next_values

    def critic_losses(
        self, batch: Batch, actions: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """L_Q ``[S]`` and Q(s, a) ``[S, B]``."""
        values = pick(self.critic_net(self.critic, batch["observations"]), actions)
        return smooth_l1_loss(values, targets, reduction="none").mean(1), values

    def behaviour_losses(self, batch: Batch, actions: Tensor) -> tuple[Tensor, Tensor]:
        """L_pi and its first term, each ``[S]``."""
        logits = self.behaviour_net(self.behaviour, batch["observations"])
        cloning = -pick(logits.log_softmax(-1), actions).mean(1)
        return cloning + self.config.logit_penalty * logits.square().mean((1, 2)), cloning

    def update(self, batch: Batch, phase: str) -> Metrics:
        actions = self.factors.joint_index(self.factors.encode(batch["actions"]))
        chosen, allowed = self.greedy(batch["next_observations"])
        targets = self.critic_targets(batch, chosen)
        critic_losses, values = self.critic_losses(batch, actions, targets)
        self.critic_optimizer.step(critic_losses)
        behaviour_losses, cloning = self.behaviour_losses(batch, actions)
        self.behaviour_optimizer.step(behaviour_losses)
        polyak(self.critic_target, self.critic, self.config.tau)
        self.updates += 1
        return {
            "critic_loss": critic_losses.detach(),
            "q_mean": values.detach().mean(1),
            "behaviour_loss": cloning.detach(),
            "allowed": allowed.to(targets.dtype).mean((1, 2)),
            **binning(self.factors, batch["actions"], targets),
        }

    @torch.no_grad()
    def value(self, observations: Tensor, actions: Tensor, groups: Tensor | None = None) -> Tensor:
        """Predicted Q ``[S, B]`` of actions in the space, by their nearest bin; for studies."""
        joint = self.factors.joint_index(self.factors.encode(actions))
        return pick(self.critic_net(self.critic, observations), joint)

    def discounts(self) -> Tensor:
        """The discount of :meth:`value`, ``[S]``; for studies."""
        bias = self.critic["bias0"].detach()
        return bias.new_full((len(bias),), self.config.discount)

    @torch.no_grad()
    def behaviour_log_prob(self, observations: Tensor, actions: Tensor) -> Tensor:
        """log pi(a | s) ``[S, B]`` of the data's policy as it was learned; for off-policy tests."""
        joint = self.factors.joint_index(self.factors.encode(actions))
        return pick(self.behaviour_net(self.behaviour, observations).log_softmax(-1), joint)

    def act(
        self, step: Step, memory: Memory | None = None, *, explore: bool = False
    ) -> tuple[Tensor, Memory | None]:
        indices = self.factors.from_joint(self.greedy(step["observations"])[0])
        if explore:
            epsilon = self.config.exploration
            indices = epsilon_greedy(step["noise"], indices, self.factors.sizes, epsilon)
        return self.factors.decode(indices), None


def pick(values: Tensor, indices: Tensor) -> Tensor:
    """``[..., N]`` at ``[...]``."""
    return values.gather(-1, indices.unsqueeze(-1)).squeeze(-1)


def floor(threshold: float) -> float:
    """The smallest log pi - log max pi of a candidate; at 0 every choice that exists is one."""
    return math.log(threshold) if threshold > 0 else -1e30


def binning(factors: Factors, actions: Tensor, like: Tensor) -> Metrics:
    """Metrics of a box that was cut: values per dimension, and what rounding costs.

    ``binning_error`` is the root-mean-square distance of the batch's actions to their bins, over
    all dimensions, in half ranges. Integer spaces have neither.
    """
    if factors.box is None:
        return {}
    errors = torch.stack([factors.binning_error(seed) for seed in actions])  # [S, K]
    return {
        "bins": like.new_full((len(actions),), factors.sizes[0]),
        "binning_error": errors.square().mean(1).sqrt().to(like.dtype),
    }
