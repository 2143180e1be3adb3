"""Batch-constrained Q-learning: what BCQ, factored BCQ and AD-BCQ have in common.

Two networks have an output for every choice of every head k = 1..K: one makes values, the other
logits of the data's policy. What is much less likely than its head's favourite is no candidate,
neither when acting nor in the target. The agents differ in their heads (one of all joint actions,
or one per factor) and in how values of heads make the value Q(s, a) of an action; the rest is here.
With primes for targets, H the Huber loss, d = 1 where the environment ended:

    pi(a | s) = prod_k pi_k(a_k | s)
    A_k(s)   = {b : pi_k(b | s) >= threshold max pi_k(. | s)}
    a*       = argmax Q(s', a) over the a with every a_k in A_k(s')
    y        = r + gamma (1 - d) Q'(s', a*)
    L_Q      = E H(Q(s, a) - y)
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

from baselines.common import Adam, Noise, Parameters, Stateful, copy_parameters, polyak
from baselines.config import check_ranges
from baselines.contract import Batch, Memory, Metrics, Needs, Spec, Step
from baselines.factored import Factors, epsilon_greedy
from baselines.nets import MLP, observation_size


@dataclass(frozen=True)
class ConstrainedConfig:
    """Settings of all three: of Fujimoto et al.'s code for tasks that are no images."""

    threshold: float = 0.3  # smallest pi / max pi of a candidate; authors' main.py
    logit_penalty: float = 1e-2  # weight of the squared logits; authors' discrete_BCQ.py
    bins: int = 5  # values per dimension of a box, odd; ours
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
            hidden=(1, math.inf),
        )


class BatchConstrained(Stateful):
    """An agent but for its values."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        # Tang et al. 2022's MIMIC code; its observations come from an encoder, as they are.
        "mimic": {"l2": 1e-3, "batch_size": 100, "standardize": False},
        "check": {"hidden": (32, 32), "lr": 5e-3, "bins": 5, "batch_size": 64},
    }

    @staticmethod
    def needs(config: ConstrainedConfig) -> Needs:
        return Needs(
            ("observations", "actions", "rewards", "next_observations", "terminations"),
            batch_size=config.batch_size,
            observations="standardized" if config.standardize else "raw",
        )

    def __init__(self, spec: Spec, config: Any, seeds: Sequence[int]) -> None:
        self.config, self.factors = config, Factors.of_spec(spec, config.bins)
        self.heads = self.outputs()
        sizes = (observation_size(spec.observation_space), *config.hidden, self.heads.choices)
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

    # What an agent adds: its heads, and how their values make one --------------------------------

    def outputs(self) -> Factors:
        """The heads, as factors of an integer action; those of the action itself if not told."""
        return self.factors

    def encode(self, actions: Tensor) -> Tensor:
        """Actions in the space -> choices ``[..., K]``, one per head."""
        return self.factors.encode(actions)

    def factored(self, choices: Tensor) -> Tensor:
        """Choices by head -> choices by factor of the action."""
        return choices

    def first_weights(self, init: Noise) -> Parameters:
        """The critic's weights at the start."""
        return self.critic_net.init(init)

    def joined(self, critic: Parameters, values: Tensor) -> Tensor:
        """Q(s, a) ``[S, B]`` from the values of its choices ``[S, B, K]``."""
        raise NotImplementedError

    def best(self, values: Tensor) -> Tensor:
        """argmax_a Q(s, a) ``[S, B, K]``, from values ``[S, B, K, N]`` that are -inf off A_k.

        Head by head, if not told: right where Q never falls with any head's value.
        """
        return values.argmax(-1)

    # Batch-constrained Q-learning ----------------------------------------------------------------

    def likely(self, logits: Tensor) -> Tensor:
        """A_k as booleans, from logits ``[..., K, N]``; each head's favourite is always in it."""
        return logits - logits.amax(-1, keepdim=True) >= floor(self.config.threshold)

    @torch.no_grad()
    def greedy(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """a* ``[S, B, K]`` and the mask it was chosen under ``[S, B, K, N]``."""
        logits = self.behaviour_net(self.behaviour, observations)
        allowed = self.likely(self.heads.split(logits))
        values = self.heads.split(self.critic_net(self.critic, observations))
        return self.best(values.masked_fill(~allowed, -math.inf)), allowed

    @torch.no_grad()
    def critic_targets(self, batch: Batch, chosen: Tensor) -> Tensor:
        """y ``[S, B]`` for the next choices ``[S, B, K]``."""
        outputs = self.critic_net(self.critic_target, batch["next_observations"])
        next_values = self.joined(self.critic_target, self.heads.chosen(outputs, chosen))
        continues = 1.0 - batch["terminations"]
        targets: Tensor = batch["rewards"] + self.config.discount * continues * next_values
        return targets

    def critic_losses(
        self, batch: Batch, choices: Tensor, values: Tensor, targets: Tensor
    ) -> tuple[Tensor, Metrics]:
        """L_Q ``[S]`` and what there is to report, from the values of choices ``[S, B, K]``."""
        joined = self.joined(self.critic, values)
        losses = smooth_l1_loss(joined, targets, reduction="none").mean(1)
        return losses, {"critic_loss": losses.detach(), "q_mean": joined.detach().mean(1)}

    def behaviour_losses(self, logits: Tensor, choices: Tensor) -> tuple[Tensor, Metrics]:
        """L_pi ``[S]`` and what there is to report: its first term."""
        cloning = -self.log_prob(logits, choices).mean(1)
        losses = cloning + self.config.logit_penalty * logits.square().mean((1, 2))
        return losses, {"behaviour_loss": cloning.detach()}

    def log_prob(self, logits: Tensor, choices: Tensor) -> Tensor:
        """log pi(a | s) ``[S, B]``."""
        return pick(self.heads.split(logits).log_softmax(-1), choices).sum(-1)

    def update(self, batch: Batch, phase: str) -> Metrics:
        choices = self.encode(batch["actions"])
        chosen, allowed = self.greedy(batch["next_observations"])
        targets = self.critic_targets(batch, chosen)
        values = self.heads.chosen(self.critic_net(self.critic, batch["observations"]), choices)
        critic_losses, critic_metrics = self.critic_losses(batch, choices, values, targets)
        self.critic_optimizer.step(critic_losses)
        logits = self.behaviour_net(self.behaviour, batch["observations"])
        behaviour_losses, behaviour_metrics = self.behaviour_losses(logits, choices)
        self.behaviour_optimizer.step(behaviour_losses)
        polyak(self.critic_target, self.critic, self.config.tau)
        self.updates += 1
        share = allowed.sum((-2, -1)).to(targets.dtype).mean(1) / self.heads.choices
        return {
            **critic_metrics,
            **behaviour_metrics,
            "allowed": share,
            **binning(self.factors, batch["actions"], targets),
        }

    def act(
        self, step: Step, memory: Memory | None = None, *, explore: bool = False
    ) -> tuple[Tensor, Memory | None]:
        indices = self.factored(self.greedy(step["observations"])[0])
        if explore:
            epsilon = self.config.exploration
            indices = epsilon_greedy(step["noise"], indices, self.factors.sizes, epsilon)
        return self.factors.decode(indices), None

    # For studies and off-policy tests ------------------------------------------------------------

    @torch.no_grad()
    def value(self, observations: Tensor, actions: Tensor, groups: Tensor | None = None) -> Tensor:
        """Predicted Q ``[S, B]`` of actions in the space, by their nearest bin."""
        outputs = self.critic_net(self.critic, observations)
        return self.joined(self.critic, self.heads.chosen(outputs, self.encode(actions)))

    def discounts(self) -> Tensor:
        """The discount of :meth:`value`, ``[S]``."""
        bias = self.critic["bias0"].detach()
        return bias.new_full((len(bias),), self.config.discount)

    @torch.no_grad()
    def behaviour_log_prob(self, observations: Tensor, actions: Tensor) -> Tensor:
        """log pi(a | s) ``[S, B]`` of the data's policy as it was learned."""
        return self.log_prob(self.behaviour_net(self.behaviour, observations), self.encode(actions))


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
