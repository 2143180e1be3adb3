"""Action-decomposed deep Q-learning (AD-DQN of AD-RL; arXiv 2504.21326).

DecQN whose factors also learn what each of them does alone. A model of the dynamics turns the real
batch B into synthetic batches B_k = (s, a_k, r_k, s'_k, d_k) of do(a_k, the other factors do
nothing), see :mod:`baselines.factor_model`. With a mixer F over the factors' values, primes for
targets and H the Huber loss:

    F      = F(Q_1(s, a_1), ..., Q_K(s, a_K)),    a*_k of s' the best choices of the online F
    y      = r + gamma (1 - d) F'(Q'_1(s', a*_1), ..., Q'_K(s', a*_K))          on B
    y_k    = r_k + gamma (1 - d_k) max_b Q'_k(s'_k, b)                           on B_k
    L      = E H(F - y) + projected_weight 1/K sum_k E H(Q_k(s, a_k) - y_k)

The model learns from B first, with losses and an optimiser of its own. Without augmentation only
the first term of L is left, which with the mean for F is DecQN. That term, and exploration, are in
:mod:`baselines.q_learning`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from baselines.common import Noise, Parameters
from baselines.config import UsageError
from baselines.contract import Batch, Metrics, Spec
from baselines.factor_model import DecomposedConfig, marginal_batches
from baselines.factored import Mixer
from baselines.q_learning import QLearner, QLearningConfig


@dataclass(frozen=True)
class ADDQNConfig(DecomposedConfig, QLearningConfig):
    """The family's settings, and the idea's; the paper's were not obtained, so all are ours."""

    mixer_gradient: bool = True  # whether the mixer's loss also trains the factors' values

    def __post_init__(self) -> None:
        QLearningConfig.__post_init__(self)
        DecomposedConfig.__post_init__(self)
        if not (self.augmentation or self.mixer_gradient):
            raise UsageError(
                "without augmentation and mixer_gradient nothing trains the factors' values; "
                "set one of them to true"
            )


class ADDQN(QLearner):
    """AD-DQN."""

    Config: ClassVar = ADDQNConfig
    version: ClassVar[int] = 1
    presets: ClassVar = {"check": {**QLearner.presets["check"], "model_hidden": (32, 32)}}

    def __init__(self, spec: Spec, config: ADDQNConfig, seeds: Sequence[int]) -> None:
        super().__init__(spec, config, seeds)
        self.model = config.make_model(spec, self.factors, seeds)
        if self.model is not None:
            self.parts["model"] = self.model

    def outputs(self) -> int:
        return self.factors.choices

    def first_weights(self, init: Noise) -> Parameters:
        self.mixer = Mixer(self.config.mixer, self.factors.count, self.config.mixer_hidden)
        return {**self.net.init(init), **self.mixer.init(init)}

    def joined(self, critic: Parameters, outputs: Tensor, indices: Tensor) -> Tensor:
        """F(Q_1(s, a_1), ..., Q_K(s, a_K)) ``[S, B]``."""
        return self.mixer(critic, self.factors.chosen(outputs, indices))

    def best(self, critic: Parameters, outputs: Tensor) -> Tensor:
        """The choices ``[S, B, K]`` of the largest F."""
        return self.mixer.best(critic, self.factors.split(outputs))

    @torch.no_grad()
    def projected_targets(self, made: Batch) -> Tensor:
        """y_k ``[S, B, K]`` on synthetic batches, whose fields have K before B."""
        following = made["next_observations"]
        outputs = self.net(self.critic_target, following.flatten(1, 2))
        outputs = outputs.reshape(*following.shape[:3], -1)
        continues = (1.0 - made["terminations"]).mT
        best = self.factors.own(outputs).amax(-1)
        targets: Tensor = made["rewards"].mT + self.config.discount * continues * best
        return targets

    def losses(self, batch: Batch, indices: Tensor, outputs: Tensor) -> tuple[Tensor, Metrics]:
        """L ``[S]`` and what else there is to report; trains the model first."""
        c = self.config
        heard = outputs if c.mixer_gradient else outputs.detach()
        losses, metrics = super().losses(batch, indices, heard)
        if not c.augmentation:
            return losses, metrics
        if self.model is None:
            made = marginal_batches(batch, self.factors)
        else:
            metrics |= self.model.update(batch, indices)
            made = self.model.batches(batch, indices, self.noise)
        values = self.factors.chosen(outputs, indices)
        projected = self.huber(values, self.projected_targets(made)).mean((1, 2))
        weight = c.projected_weight if self.updates >= c.model_warmup * self.total else 0.0
        return losses + weight * projected, {**metrics, "projected_loss": projected.detach()}
