"""The critic with Q decomposition: twin values and how they divide among objectives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from baselines.common import Noise, Parameters
from baselines.nets import MLP


@dataclass(frozen=True)
class DecomposedQ:
    """Two networks (z, a) -> hidden -> Q and, where there are D objectives, D + 1 logits.

    The last layer bears both, so that the penultimate one serves values and weights alike; the
    weights are a softmax, of which the last, the overflow, has no objective. With D = 0 these are
    TD3's plain twins.

    Attributes:
        mlp: both networks, side by side.
        objectives: D.
    """

    mlp: MLP
    objectives: int

    @classmethod
    def build(
        cls, features: int, action: int, hidden: Sequence[int], objectives: int
    ) -> DecomposedQ:
        """Networks of ``hidden`` units per layer."""
        outputs = objectives + 2 if objectives else 1
        return cls(MLP((features + action, *hidden, outputs), copies=2), objectives)

    def init(self, noise: Noise) -> Parameters:
        """Draws parameters of both networks."""
        return self.mlp.init(noise)

    def __call__(self, parameters: Parameters, features: Tensor, actions: Tensor) -> Tensor:
        """Values, and logits if D > 0: ``[S, 2, B, 1]`` or ``[S, 2, B, D + 2]``."""
        return self.mlp(parameters, torch.cat([features, actions], -1))

    def values(self, parameters: Parameters, features: Tensor, actions: Tensor) -> Tensor:
        """Values alone, ``[S, 2, B]``."""
        return self.mlp(self._values_only(parameters), torch.cat([features, actions], -1))[..., 0]

    def first(self, parameters: Parameters, features: Tensor, actions: Tensor) -> Tensor:
        """The first network's values ``[S, B]``, without computing the second's."""
        one = self.mlp.member(self._values_only(parameters), lambda value: value[:, 0])
        single = replace(self.mlp, copies=None)
        return single(one, torch.cat([features, actions], -1))[..., 0]

    def _values_only(self, parameters: Parameters) -> Parameters:
        if not self.objectives:
            return parameters
        last = len(self.mlp.sizes) - 2
        heads = {f"{kind}{last}": parameters[f"{kind}{last}"][..., :1] for kind in KINDS}
        return {**parameters, **heads}


KINDS = ("weight", "bias")


def objective_weights(outputs: Tensor) -> Tensor:
    """w ``[S, 2, B, D + 1]`` of a critic's outputs."""
    return outputs[..., 1:].softmax(-1)


def decomposition_losses(outputs: Tensor, parts: Tensor) -> Tensor:
    """L_dec ``[S]``: the sum over twins of the mean over D of (w_i Q - c_i r_i)^2.

    Args:
        outputs: ``[S, 2, B, D + 2]``, from :class:`DecomposedQ`.
        parts: c_i r_i, the positive contributions to the scalar reward, ``[S, B, D]``.
    """
    shares = objective_weights(outputs)[..., :-1] * outputs[..., :1]
    return (shares - parts.unsqueeze(1)).square().mean((2, 3)).sum(1)
