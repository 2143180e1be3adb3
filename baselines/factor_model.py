"""A model of what the factors of an action do, and the synthetic batches that come from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from baselines.common import Adam, Noise, Parameters, Stateful
from baselines.config import UsageError, check_ranges
from baselines.contract import Batch, Metrics, Spec
from baselines.factored import Factors, MixerKind
from baselines.nets import MLP, observation_size

Synthetic = Literal["auto", "effects", "intervention", "marginal"]
FLOOR = 1e-8  # added to variances before their root


@dataclass(frozen=True)
class DecomposedConfig:
    """Settings of agents that mix factors' values and learn each from synthetic batches."""

    mixer: MixerKind = "average"  # F; the paper finds the simpler ones at least as good
    mixer_hidden: int = 32  # rectifiers of the mixers relu and two_layer
    augmentation: bool = True  # whether the synthetic batches are learned from
    synthetic: Synthetic = "auto"  # how they come about; effects where the task tells them
    projected_weight: float = 1.0  # of their loss
    model_hidden: tuple[int, ...] = (256, 256)  # units per layer
    model_lr: float = 3e-4  # Adam
    model_warmup: float = 0.02  # share of the run's updates before their loss counts
    model_noise: float = 0.0  # noise on predictions, in standard deviations of what is predicted

    def __post_init__(self) -> None:
        check_ranges(
            self,
            mixer_hidden=(1, math.inf),
            projected_weight=(0, math.inf),
            model_lr=(0, math.inf),
            model_warmup=(0, 1),
            model_noise=(0, math.inf),
            model_hidden=(1, math.inf),
        )

    def make_model(self, spec: Spec, factors: Factors, seeds: Sequence[int]) -> FactorModel | None:
        """The model of synthetic batches, None where there are none or they are real ones."""
        if not self.augmentation or self.synthetic == "marginal":
            return None
        return FactorModel(
            spec,
            factors,
            Noise.for_seeds(seeds, "model", device=spec.device, dtype=spec.torch_dtype()),
            synthetic=self.synthetic,
            hidden=self.model_hidden,
            lr=self.model_lr,
            noise=self.model_noise,
        )


def marginal_batches(batch: Batch, factors: Factors) -> Batch:
    """The real batch once for every factor: a sample of what follows (s, a_k) in the data.

    The other factors then do what the behaviour does, so nothing is intervened on and no model is
    needed. Shapes as :meth:`FactorModel.batches` has them.
    """
    return {
        field: batch[field].unsqueeze(1).expand(-1, factors.count, *batch[field].shape[1:])
        for field in ("next_observations", "rewards", "terminations")
    }


class FactorModel(Stateful):
    """What an action brings about: changes of the state, reward and end, learned from real batches.

    Two perceptrons on s and the one-hot choices: one predicts the change s' - s; the other, told
    the change too, the reward and whether the environment ends. Changes and rewards are
    standardised with running means and deviations. From them come the synthetic batches B_k of
    do(a_k, the other factors do nothing):

    - ``effects``: the task tells which coordinates factor k alone acts on. These come from the real
      s', all others from the model asked at (s, no-op of every factor).
    - ``intervention``: all coordinates from the model asked at (s, (a_k, no-op of the others)).

    Reward and end of B_k are the second perceptron's, asked at (a_k, no-op of the others) and s'_k.

    Args:
        spec: of the task.
        factors: of its actions.
        init: noise the weights are drawn from, a source per seed.
        synthetic: which of the two; ``auto`` is the first where the task tells effects.
        hidden: units per layer.
        lr: of Adam.
        noise: standard deviation of the noise added to predicted changes and rewards, in units of
            their standard deviations over the data seen.

    Raises:
        UsageError: ``effects`` where the task tells none, or ``marginal``, which has no model.
    """

    def __init__(
        self,
        spec: Spec,
        factors: Factors,
        init: Noise,
        *,
        synthetic: Synthetic = "auto",
        hidden: Sequence[int] = (256, 256),
        lr: float = 3e-4,
        noise: float = 0.0,
    ) -> None:
        if synthetic == "marginal":
            raise UsageError("marginal batches are real ones; they need no model")
        if synthetic == "effects" and spec.effects is None:
            raise UsageError(
                "this task does not tell which coordinates each factor acts on; set synthetic to "
                '"intervention" or "marginal"'
            )
        self.factors, self.noise = factors, noise
        self.size = observation_size(spec.observation_space)
        self.own: Tensor | None = None  # [K, 1, O]: which coordinates of s' are real in B_k
        if spec.effects is not None and synthetic != "intervention":
            self.own = torch.zeros(
                factors.count, 1, self.size, dtype=torch.bool, device=spec.device
            )
            for k, coordinates in enumerate(spec.effects):
                self.own[k, 0, list(coordinates)] = True
        inputs = self.size + factors.choices
        self.change_net = MLP((inputs, *hidden, self.size))
        self.outcome_net = MLP((inputs + self.size, *hidden, 2))
        self.change, self.outcome = self.change_net.init(init), self.outcome_net.init(init)
        zeros = torch.zeros_like(init.uniform(1, self.size + 1))
        self.moments: Parameters = {"mean": zeros, "variance": zeros.clone()}
        every = {f"change_{name}": value for name, value in self.change.items()}
        self.optimizer = Adam({**every, **self.outcome}, lr)
        self.parts = {
            "change": self.change,
            "outcome": self.outcome,
            "moments": self.moments,
            "optimizer": self.optimizer,
        }

    # Learning from real batches ------------------------------------------------------------------

    def _inputs(self, observations: Tensor, indices: Tensor) -> Tensor:
        """s and one-hot choices, ``[S, B, O + sum of sizes]``."""
        choices = self.factors.one_hot(indices, observations.dtype)
        return torch.cat([observations, choices], -1)

    @torch.no_grad()
    def observe(self, batch: Batch) -> Tensor:
        """Moves the moments; returns (change, reward) standardised, ``[S, B, O + 1]``."""
        change = batch["next_observations"] - batch["observations"]
        rows = torch.cat([change, batch["rewards"].unsqueeze(-1)], -1)
        weight = 1.0 / (self.updates + 1)
        mean, variance = self.moments["mean"], self.moments["variance"]
        mean.lerp_(rows.mean(1, keepdim=True), weight)
        variance.lerp_((rows - mean).square().mean(1, keepdim=True), weight)
        return (rows - mean) / self.deviations()

    def deviations(self) -> Tensor:
        """Standard deviations of (change, reward) over the data seen, ``[S, 1, O + 1]``."""
        return (self.moments["variance"] + FLOOR).sqrt()

    def losses(self, batch: Batch, indices: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """Squared errors of change and reward, cross-entropy of the end, each ``[S]``.

        Args:
            batch: real transitions.
            indices: their choices ``[S, B, K]``.
            rows: their standardised changes and rewards, from :meth:`observe`.
        """
        inputs = self._inputs(batch["observations"], indices)
        change, reward = rows[..., :-1], rows[..., -1]
        predicted = self.change_net(self.change, inputs)
        outcome = self.outcome_net(self.outcome, torch.cat([inputs, change], -1))
        ending = binary_cross_entropy_with_logits(
            outcome[..., 1], batch["terminations"], reduction="none"
        )
        return {
            "change_loss": (predicted - change).square().mean((1, 2)),
            "reward_loss": (outcome[..., 0] - reward).square().mean(1),
            "end_loss": ending.mean(1),
        }

    def update(self, batch: Batch, indices: Tensor) -> Metrics:
        """One step on a real batch; its losses, and how far the queries are from the data.

        ``moved``: share of logged choices that are not the no-op, which is the share of the other
        factors' choices that an intervention changes. ``support``: share of logged actions that are
        themselves of the queried form, at most one factor not doing nothing.
        """
        losses = self.losses(batch, indices, self.observe(batch))
        self.optimizer.step(torch.stack([*losses.values()]).sum(0))
        self.updates += 1
        active = indices != torch.tensor(self.factors.noop, device=indices.device)
        dtype = batch["rewards"].dtype
        return {
            **{name: value.detach() for name, value in losses.items()},
            "moved": active.to(dtype).mean((1, 2)),
            "support": (active.sum(-1) <= 1).to(dtype).mean(1),
        }

    # Asking --------------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(self, observations: Tensor, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """s' ``[S, B, O]``, r ``[S, B]`` and the probability of an end ``[S, B]``.

        Args:
            observations: ``[S, B, O]``.
            indices: choices ``[S, B, K]``.
        """
        change = self._change(observations, indices)
        return observations + change, *self._outcome(observations, indices, change)

    def _change(self, observations: Tensor, indices: Tensor) -> Tensor:
        standard = self.change_net(self.change, self._inputs(observations, indices))
        return standard * self.deviations()[..., :-1] + self.moments["mean"][..., :-1]

    def _outcome(
        self, observations: Tensor, indices: Tensor, change: Tensor
    ) -> tuple[Tensor, Tensor]:
        mean, deviation = self.moments["mean"], self.deviations()
        standard = (change - mean[..., :-1]) / deviation[..., :-1]
        inputs = torch.cat([self._inputs(observations, indices), standard], -1)
        reward, ending = self.outcome_net(self.outcome, inputs).unbind(-1)
        return reward * deviation[..., -1] + mean[..., -1], ending.sigmoid()

    @torch.no_grad()
    def batches(self, batch: Batch, indices: Tensor, noise: Noise) -> Batch:
        """The synthetic batches B_k of a real one; their (s, a_k) are the real ones.

        Args:
            batch: real transitions.
            indices: their choices ``[S, B, K]``.
            noise: drawn from (standard normal ``[S, K, B, O + 1]``) only if noise is to be added.

        Returns:
            ``next_observations`` ``[S, K, B, O]``, ``rewards`` ``[S, K, B]`` and, as probabilities,
            ``terminations`` ``[S, K, B]``.
        """
        count, rows = self.factors.count, indices.shape[1]
        shape = (len(indices), count, rows, -1)
        seen = batch["observations"]
        repeated = seen.repeat(1, count, 1)  # [S, K B, O]
        queries = self.factors.interventions(indices).flatten(1, 2)
        if self.own is None:
            change = self._change(repeated, queries).reshape(shape)
        else:
            noop = torch.tensor(self.factors.noop, device=indices.device)
            change = self._change(seen, noop.expand_as(indices)).unsqueeze(1).expand(shape)
        draws = torch.zeros_like(change[..., :1])
        if self.noise:
            spread = self.noise * self.deviations().unsqueeze(1)
            draws = spread * noise.normal(count, rows, self.size + 1)
            change = change + draws[..., :-1]
        following = seen.unsqueeze(1) + change
        if self.own is not None:
            real = batch["next_observations"].unsqueeze(1)
            following = torch.where(self.own, real, following)
        change = following.flatten(1, 2) - repeated
        reward, ending = self._outcome(repeated, queries, change)
        return {
            "next_observations": following,
            "rewards": reward.reshape(shape[:3]) + draws[..., -1],
            "terminations": ending.reshape(shape[:3]),
        }
