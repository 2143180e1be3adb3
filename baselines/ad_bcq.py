"""Action-decomposed BCQ (AD-BCQ of AD-RL; arXiv 2504.21326).

Factored BCQ whose factors also learn what each of them does alone. A model of the dynamics turns
rows of the real batch B into synthetic batches B_k = (s, a_k, r_k, s'_k, d_k) of do(a_k, the other
factors do nothing), see :mod:`baselines.factor_model`. With a mixer F over the factors' values,
primes for targets, H the Huber loss, and A_k(s) factored BCQ's candidates:

    F      = F(Q_1(s, a_1), ..., Q_K(s, a_K)),    a*_k of s' the best candidates of the online F
    y      = r + gamma (1 - d) F'(Q'_1(s', a*_1), ..., Q'_K(s', a*_K))          on B
    y_k    = r_k + gamma (1 - d_k) max_{b in A_k(s'_k)} Q'_k(s'_k, b)           on B_k
    L      = E H(F - y) + projected_weight 1/K sum_k E H(Q_k(s, a_k) - y_k)

The model learns from B first, with losses and an optimiser of its own. Without augmentation only
the first term of L is left, which with the mean for F is factored BCQ. That term, masks and the
behaviour's loss are in :mod:`baselines.constrained`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from baselines.common import Noise, Parameters
from baselines.constrained import BatchConstrained, ConstrainedConfig, pick
from baselines.contract import Batch, Metrics, Spec
from baselines.factor_model import DecomposedConfig, marginal_batches
from baselines.factored import Mixer


@dataclass(frozen=True)
class ADBCQConfig(DecomposedConfig, ConstrainedConfig):
    """The family's settings, and the idea's; the paper's were not obtained, so all are ours."""

    def __post_init__(self) -> None:
        ConstrainedConfig.__post_init__(self)
        DecomposedConfig.__post_init__(self)


class ADBCQ(BatchConstrained):
    """AD-BCQ."""

    Config: ClassVar = ADBCQConfig
    version: ClassVar[int] = 1
    presets: ClassVar = {
        **BatchConstrained.presets,
        "check": {**BatchConstrained.presets["check"], "model_hidden": (16, 16)},
    }

    def __init__(self, spec: Spec, config: ADBCQConfig, seeds: Sequence[int]) -> None:
        super().__init__(spec, config, seeds)
        dtype, device = spec.torch_dtype(), spec.device
        self.noise = self.parts["noise"] = Noise.for_seeds(
            seeds, "update", device=device, dtype=dtype
        )
        self.warmup = config.model_warmup * sum(phase.updates for phase in spec.phases)
        self.rows = math.ceil(config.batch_size / self.factors.count)  # of B, in every B_k
        self.model = config.make_model(spec, self.factors, seeds)
        if self.model is not None:
            self.parts["model"] = self.model

    def first_weights(self, init: Noise) -> Parameters:
        self.mixer = Mixer(self.config.mixer, self.factors.count, self.config.mixer_hidden)
        return {**self.critic_net.init(init), **self.mixer.init(init)}

    def joined(self, critic: Parameters, values: Tensor) -> Tensor:
        """F(Q_1(s, a_1), ..., Q_K(s, a_K)) ``[S, B]``."""
        return self.mixer(critic, values)

    def best(self, values: Tensor) -> Tensor:
        """The candidates ``[S, B, K]`` of the largest F."""
        return self.mixer.best(self.critic, values)

    def made(self, batch: Batch, choices: Tensor) -> Batch:
        """The synthetic batches of the first B/K rows, so that K factors cost what one would."""
        some = {name: value[:, : self.rows] for name, value in batch.items()}
        if self.model is None:
            return marginal_batches(some, self.factors)
        return self.model.batches(some, choices[:, : self.rows], self.noise)

    @torch.no_grad()
    def projected_targets(self, made: Batch) -> Tensor:
        """y_k ``[S, rows, K]`` on synthetic batches, whose fields have K before their rows."""
        following = made["next_observations"]

        def own(outputs: Tensor) -> Tensor:
            return self.factors.own(outputs.reshape(*following.shape[:3], -1))

        values = own(self.critic_net(self.critic_target, following.flatten(1, 2)))
        allowed = self.likely(own(self.behaviour_net(self.behaviour, following.flatten(1, 2))))
        continues = (1.0 - made["terminations"]).mT
        best = values.masked_fill(~allowed, -math.inf).amax(-1)
        targets: Tensor = made["rewards"].mT + self.config.discount * continues * best
        return targets

    def critic_losses(
        self, batch: Batch, choices: Tensor, values: Tensor, targets: Tensor
    ) -> tuple[Tensor, Metrics]:
        """L ``[S]`` and what there is to report; trains the model first."""
        losses, metrics = super().critic_losses(batch, choices, values, targets)
        if not self.config.augmentation:
            return losses, metrics
        if self.model is not None:
            metrics |= self.model.update(batch, choices)
        projected_targets = self.projected_targets(self.made(batch, choices))
        own_values = values[:, : self.rows]
        projected = smooth_l1_loss(own_values, projected_targets, reduction="none").mean((1, 2))
        weight = self.config.projected_weight if self.updates >= self.warmup else 0.0
        return losses + weight * projected, {**metrics, "projected_loss": projected.detach()}

    def behaviour_losses(self, logits: Tensor, choices: Tensor) -> tuple[Tensor, Metrics]:
        losses, metrics = super().behaviour_losses(logits, choices)
        if self.model is not None:
            metrics |= self.query_distance(logits.detach(), choices)
        return losses, metrics

    def query_distance(self, logits: Tensor, choices: Tensor) -> Metrics:
        """How far the interventions asked of the model are from the data, each ``[S]``.

        ``query_distance``: how much less likely the behaviour takes (a_k, no-op of the others) than
        the logged action, as a difference of log-probabilities, mean over k. ``query_allowed``: the
        share of interventions whose no-ops are all candidates.
        """
        logits = self.factors.split(logits)
        noop = torch.tensor(self.factors.noop, device=choices.device).expand_as(choices)
        log_probs = logits.log_softmax(-1)
        gaps = (pick(log_probs, choices) - pick(log_probs, noop)).sum(-1)
        strange = (~pick(self.likely(logits), noop)).long()
        others = strange.sum(-1, keepdim=True) - strange
        return {
            "query_distance": (1 - 1 / self.factors.count) * gaps.mean(1),
            "query_allowed": (others == 0).to(logits.dtype).mean((1, 2)),
        }
