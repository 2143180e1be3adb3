"""Factored BCQ: BCQ whose values add up over the factors of the action (Tang et al. 2022).

arXiv 2305.01738. One network has an output for every choice of every factor, another their logits;
a joint action is a candidate if each of its choices is:

    Q(s, a)  = sum_k Q_k(s, a_k),     pi(a | s) = prod_k pi_k(a_k | s)
    A_k(s)   = {a_k : pi_k(a_k | s) >= threshold max pi_k(. | s)}
    a*_k     = argmax_{a_k in A_k(s')} Q_k(s', a_k)
    L_Q      = E huber(Q(s, a) - r - gamma (1 - d) Q'(s', a*))
    L_pi     = E [-log pi(a | s)] + logit_penalty E logits^2
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from baselines.bcq import BCQConfig, binning, floor, pick
from baselines.common import Adam, Noise, Parameters, Stateful, copy_parameters, polyak
from baselines.contract import Batch, Memory, Metrics, Needs, Spec, Step
from baselines.factored import Factors, epsilon_greedy
from baselines.nets import MLP, observation_size


@dataclass(frozen=True)
class FactoredBCQConfig(BCQConfig):
    """bcq's settings, which are those of Tang et al. 2022, too."""

    bins: int = 5  # values per dimension of a box, odd; ours: the joint actions are no limit here


class FactoredBCQ(Stateful):
    """Batch-constrained Q-learning with a value and a mask per factor."""

    Config: ClassVar = FactoredBCQConfig
    version: ClassVar[int] = 1
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        # Tang et al. 2022's MIMIC code; its observations come from an encoder, as they are.
        "mimic": {"l2": 1e-3, "batch_size": 100, "standardize": False},
        "check": {"hidden": (32, 32), "lr": 5e-3, "bins": 5, "batch_size": 64},
    }

    @staticmethod
    def needs(config: FactoredBCQConfig) -> Needs:
        return Needs(
            ("observations", "actions", "rewards", "next_observations", "terminations"),
            batch_size=config.batch_size,
            observations="standardized" if config.standardize else "raw",
        )

    def __init__(self, spec: Spec, config: FactoredBCQConfig, seeds: Sequence[int]) -> None:
        self.config, self.factors = config, Factors.of_spec(spec, config.bins)
        sizes = (observation_size(spec.observation_space), *config.hidden, self.factors.choices)
        self.critic_net = self.behaviour_net = MLP(sizes)
        init = Noise.for_seeds(seeds, "init", device=spec.device, dtype=spec.torch_dtype())
        self.critic, self.behaviour = self.first_weights(init), self.behaviour_net.init(init)
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

    def first_weights(self, init: Noise) -> Parameters:
        """The critic's weights."""
        return self.critic_net.init(init)

    def joined(self, critic: Parameters, outputs: Tensor, choices: Tensor) -> Tensor:
        """Q(s, a) ``[S, B]`` from the critic's outputs and choices ``[S, B, K]``."""
        return self.factors.chosen(outputs, choices).sum(-1)

    def best(self, outputs: Tensor, allowed: Tensor) -> Tensor:
        """The candidate of the largest Q, as choices ``[S, B, K]``."""
        return self.factors.split(outputs).masked_fill(~allowed, -math.inf).argmax(-1)

    def likely(self, logits: Tensor) -> Tensor:
        """A_k as booleans, from logits ``[..., K, N]``; each factor's favourite is always in it."""
        return logits - logits.amax(-1, keepdim=True) >= floor(self.config.threshold)

    @torch.no_grad()
    def greedy(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """a* ``[S, B, K]`` and the mask it was chosen under ``[S, B, K, N]``."""
        logits = self.behaviour_net(self.behaviour, observations)
        allowed = self.likely(self.factors.split(logits))
        return self.best(self.critic_net(self.critic, observations), allowed), allowed

    @torch.no_grad()
    def critic_targets(self, batch: Batch, chosen: Tensor) -> Tensor:
        """y ``[S, B]`` for the next choices ``[S, B, K]``."""
        outputs = self.critic_net(self.critic_target, batch["next_observations"])
        next_values = self.joined(self.critic_target, outputs, chosen)
        continues = 1.0 - batch["terminations"]
        return batch["rewards"] + self.config.discount * continues * next_values

    def critic_losses(
        self, batch: Batch, choices: Tensor, targets: Tensor
    ) -> tuple[Tensor, Metrics]:
        """L_Q ``[S]`` and what there is to report."""
        outputs = self.critic_net(self.critic, batch["observations"])
        values = self.joined(self.critic, outputs, choices)
        losses = smooth_l1_loss(values, targets, reduction="none").mean(1)
        return losses, {"critic_loss": losses.detach(), "q_mean": values.detach().mean(1)}

    def behaviour_losses(self, logits: Tensor, choices: Tensor) -> tuple[Tensor, Metrics]:
        """L_pi ``[S]`` and what there is to report: its first term."""
        cloning = -log_prob(self.factors, logits, choices).sum(-1).mean(1)
        losses = cloning + self.config.logit_penalty * logits.square().mean((1, 2))
        return losses, {"behaviour_loss": cloning.detach()}

    def update(self, batch: Batch, phase: str) -> Metrics:
        choices = self.factors.encode(batch["actions"])
        chosen, allowed = self.greedy(batch["next_observations"])
        targets = self.critic_targets(batch, chosen)
        critic_losses, critic_metrics = self.critic_losses(batch, choices, targets)
        self.critic_optimizer.step(critic_losses)
        logits = self.behaviour_net(self.behaviour, batch["observations"])
        behaviour_losses, behaviour_metrics = self.behaviour_losses(logits, choices)
        self.behaviour_optimizer.step(behaviour_losses)
        polyak(self.critic_target, self.critic, self.config.tau)
        self.updates += 1
        share = allowed.sum((-2, -1)).to(targets.dtype).mean(1) / self.factors.choices
        return {
            **critic_metrics,
            **behaviour_metrics,
            "allowed": share,
            **binning(self.factors, batch["actions"], targets),
        }

    @torch.no_grad()
    def value(self, observations: Tensor, actions: Tensor, groups: Tensor | None = None) -> Tensor:
        """Predicted Q ``[S, B]`` of actions in the space, by their nearest bin; for studies."""
        outputs = self.critic_net(self.critic, observations)
        return self.joined(self.critic, outputs, self.factors.encode(actions))

    def discounts(self) -> Tensor:
        """The discount of :meth:`value`, ``[S]``; for studies."""
        bias = self.critic["bias0"].detach()
        return bias.new_full((len(bias),), self.config.discount)

    @torch.no_grad()
    def behaviour_log_prob(self, observations: Tensor, actions: Tensor) -> Tensor:
        """log pi(a | s) ``[S, B]`` of the data's policy as it was learned; for off-policy tests."""
        logits = self.behaviour_net(self.behaviour, observations)
        return log_prob(self.factors, logits, self.factors.encode(actions)).sum(-1)

    def act(
        self, step: Step, memory: Memory | None = None, *, explore: bool = False
    ) -> tuple[Tensor, Memory | None]:
        indices = self.greedy(step["observations"])[0]
        if explore:
            epsilon = self.config.exploration
            indices = epsilon_greedy(step["noise"], indices, self.factors.sizes, epsilon)
        return self.factors.decode(indices), None


def log_prob(factors: Factors, logits: Tensor, choices: Tensor) -> Tensor:
    """log pi_k(a_k | s) ``[..., K]`` from logits ``[..., sum of sizes]``."""
    return pick(factors.split(logits).log_softmax(-1), choices)
