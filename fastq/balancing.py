"""The balancing representation BR, and the classifier that tells logging policies apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.common import Noise, Parameters
from baselines.nets import perceptron

MOMENTUM, EPSILON = 0.1, 1e-5  # torch.nn.BatchNorm1d's defaults, which the authors' code keeps


@dataclass(frozen=True)
class Balancing:
    """z = BatchNorm(ELU(W h + b)): one dense layer (authors' ``br_network``).

    The statistics of the normalisation are each seed's own.

    Attributes:
        inputs: features of h.
        width: features of z.
    """

    inputs: int
    width: int

    def init(self, noise: Noise) -> Parameters:
        """Draws weights as ``nn.Linear`` does; scale 1 and shift 0 as ``nn.BatchNorm1d``."""
        bound = 1.0 / math.sqrt(self.inputs)
        weight = (2.0 * noise.uniform(self.inputs, self.width) - 1.0) * bound
        bias = (2.0 * noise.uniform(1, self.width) - 1.0) * bound
        parameters = {
            "weight": weight,
            "bias": bias,
            "scale": torch.ones_like(bias[:, 0]),
            "shift": torch.zeros_like(bias[:, 0]),
        }
        return {name: value.requires_grad_() for name, value in parameters.items()}

    def statistics(self, parameters: Parameters) -> Parameters:
        """Running mean 0 and variance 1, ``[S, width]`` each."""
        scale = parameters["scale"].detach()
        return {"mean": torch.zeros_like(scale), "variance": torch.ones_like(scale)}

    def __call__(
        self, parameters: Parameters, statistics: Parameters, features: Tensor, training: bool
    ) -> Tensor:
        """z ``[S, B, width]`` of h ``[S, B, inputs]``.

        Args:
            parameters: from :meth:`init`.
            statistics: running moments; used where not ``training``, moved in place where it is.
            features: h.
            training: normalise by the batch's own moments.
        """
        hidden = perceptron(features, parameters["weight"], parameters["bias"])
        hidden = torch.nn.functional.elu(hidden)
        seeds, batch, width = hidden.shape
        flat = hidden.transpose(0, 1).reshape(batch, seeds * width)  # a channel per seed and unit
        flat = torch.nn.functional.batch_norm(
            flat,
            statistics["mean"].view(-1),
            statistics["variance"].view(-1),
            parameters["scale"].view(-1),
            parameters["shift"].view(-1),
            training,
            MOMENTUM,
            EPSILON,
        )
        return flat.reshape(batch, seeds, width).transpose(0, 1)


def adversary_losses(logits: Tensor, groups: Tensor) -> Tensor:
    """Class-balanced cross-entropy ``[S]``: the mean over classes of each class's mean.

    The logits go straight into the cross-entropy. (The authors put a sigmoid in between on the
    players' data, which confines the loss, and a softmax over one class on Gym's, which has no
    gradient.)

    Args:
        logits: ``[S, B, P]``.
        groups: which logging policy acted, ``[S, B]``.
    """
    likeness = logits.log_softmax(-1).gather(-1, groups.unsqueeze(-1)).squeeze(-1)
    return -(likeness * class_shares(groups, logits.shape[-1], logits.dtype)).sum(1)


@torch.no_grad()
def balanced_accuracy(logits: Tensor, groups: Tensor) -> Tensor:
    """How often ``logits`` ``[S, B, P]`` are right, ``[S]``: the mean over the classes present."""
    right = (logits.argmax(-1) == groups).to(logits.dtype)
    return (right * class_shares(groups, logits.shape[-1], logits.dtype)).sum(1)


def class_shares(groups: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """Weights ``[S, B]`` that sum to 1 and give every class present the same weight.

    Args:
        groups: classes, integers below ``count``, ``[S, B]``.
        count: P, classes there are.
        dtype: of the weights.
    """
    counts = torch.zeros(len(groups), count, dtype=dtype, device=groups.device)
    counts.scatter_add_(1, groups, counts.new_ones(1, 1).expand(groups.shape))
    present = (counts > 0).sum(-1, keepdim=True)
    return (1.0 / (counts.clamp(min=1) * present)).gather(1, groups)
