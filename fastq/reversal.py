"""Gradient reversal (Ganin et al. 2016, arXiv 1505.07818, section 3.2)."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return features.view_as(features)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradient, None


def reverse(features: Tensor, weight: float) -> Tensor:
    """The features themselves; on the way back their gradient is multiplied by ``-weight``.

    What stands behind learns as usual, what stands before learns to spoil it.
    """
    return cast(Tensor, _Reversal.apply(features, weight))  # type: ignore[no-untyped-call]
