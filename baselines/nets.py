"""Stacked networks as pure functions of flat parameter dicts.

A network is a small frozen description with ``init(noise)`` -> parameters (every tensor with
leading axis S) and a call ``net(parameters, inputs [S, B, features])``. Being pure, the same call
serves online and target weights, and can be compiled or captured from outside.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from baselines.common import Noise, Parameters
from baselines.config import UsageError


def affine(inputs: Tensor, weight: Tensor, bias: Tensor, *, relu: bool = False) -> Tensor:
    """``inputs @ weight + bias``, through a rectifier if asked; one product per stacked matrix.

    Args:
        inputs: ``[*lead, B, in]``.
        weight: ``[*lead, in, out]``.
        bias: ``[*lead, 1, out]``.
        relu: whether negative outputs become 0.

    Returns:
        ``[*lead, B, out]``.
    """
    if inputs.device.type == "cpu":
        outputs = _Affine.apply(inputs, weight, bias, relu)  # type: ignore[no-untyped-call]
        return cast(Tensor, outputs)
    stacked = torch.baddbmm(*(t.flatten(0, -3) for t in (bias, inputs, weight)))
    return (stacked.relu_() if relu else stacked).unflatten(0, inputs.shape[:-2])


class _Affine(torch.autograd.Function):
    """:func:`affine` on a CPU: the fastest product for each matrix, bias and rectifier fused in."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
        product = functools.partial(_product, relu=relu)
        outputs = _each(product, inputs, weight.mT, bias.squeeze(-2))
        ctx.save_for_backward(inputs, weight, outputs if relu else None)
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight, rectified = ctx.saved_tensors
        gradient = gradient.contiguous()
        if rectified is not None:
            gradient = torch.ops.aten.threshold_backward(gradient, rectified, 0)
        for_inputs, for_weight, for_bias, _ = ctx.needs_input_grad
        return (
            _each(_product, gradient, weight) if for_inputs else None,
            _each(_product, inputs.mT, gradient.mT) if for_weight else None,
            gradient.sum(-2, keepdim=True) if for_bias else None,
            None,
        )


def _each(function: Callable[..., Tensor], *stacks: Tensor) -> Tensor:
    """``function`` of each stacked matrix, results stacked again; ``stacks[0]`` gives the lead."""
    lead = stacks[0].shape[:-2]
    rows = zip(*(s.reshape(-1, *s.shape[len(lead) :]).unbind() for s in stacks), strict=True)
    results = [function(*row) for row in rows]
    joined = torch.stack(results) if len(results) > 1 else results[0].unsqueeze(0)  # no copy
    return joined.reshape(*lead, *joined.shape[1:])


# MKL, behind torch.matmul, leaves half of an AMD processor's vector units idle in float32; oneDNN
# does not. torch.compile calls this operator too. torch.backends.mkldnn.enabled switches it off.
_onednn_linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def _product(left: Tensor, right: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    """``left [n, k] @ right [m, k]^T + bias [m]``; vectors and float64 are no case for oneDNN."""
    if (
        _onednn_linear is not None
        and left.dtype == torch.float32
        and 1 not in right.shape
        and torch.backends.mkldnn.enabled
    ):
        return cast(Tensor, _onednn_linear(left, right, bias, "relu" if relu else "none", [], ""))
    outputs = torch.nn.functional.linear(left, right, bias)
    return outputs.relu_() if relu else outputs


@dataclass(frozen=True)
class MLP:
    """A multilayer perceptron, ``copies`` of it side by side where an ensemble is wanted.

    Attributes:
        sizes: features of input, hidden layers and output.
        copies: None, or the number of ensemble members; the output then is ``[S, copies, B, out]``.
        activation: between layers.
        gain: None for PyTorch's ``nn.Linear`` start, weights and biases uniform in +-1/sqrt(in);
            otherwise orthogonal weights times this number (Saxe et al. 2014) and zero biases.
    """

    sizes: tuple[int, ...]
    copies: int | None = None
    activation: Callable[[Tensor], Tensor] = torch.relu
    gain: float | None = None

    def init(self, noise: Noise) -> Parameters:
        """Draws parameters, ``[S, (copies,) in, out]`` and ``[S, (copies,) 1, out]``."""
        lead = () if self.copies is None else (self.copies,)
        parameters = {}
        for layer, (width, out) in enumerate(itertools.pairwise(self.sizes)):
            if self.gain is None:
                bound = 1.0 / math.sqrt(width)
                weight = (2.0 * noise.uniform(*lead, width, out) - 1.0) * bound
                bias = (2.0 * noise.uniform(*lead, 1, out) - 1.0) * bound
            else:
                weight = orthogonal(noise, *lead, width, out) * self.gain
                bias = torch.zeros_like(weight[..., :1, :])
            parameters[f"weight{layer}"] = weight.requires_grad_()
            parameters[f"bias{layer}"] = bias.requires_grad_()
        return parameters

    def __call__(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """``[S, B, in]`` -> ``[S, B, out]``, or ``[S, copies, B, out]`` for an ensemble."""
        hidden = inputs
        if self.copies is not None:
            hidden = inputs.unsqueeze(1).expand(-1, self.copies, -1, -1)
        last = len(self.sizes) - 2
        for layer in range(last + 1):
            weight, bias = parameters[f"weight{layer}"], parameters[f"bias{layer}"]
            fused = layer < last and self.activation is torch.relu
            hidden = affine(hidden, weight, bias, relu=fused)
            if layer < last and not fused:
                hidden = self.activation(hidden)
        return hidden


def orthogonal(noise: Noise, *shape: int) -> Tensor:
    """Matrices ``[S, *shape]`` with orthonormal rows or columns, uniform among all such."""
    *lead, rows, columns = shape
    tall, wide = max(rows, columns), min(rows, columns)
    q, r = torch.linalg.qr(noise.normal(*lead, tall, wide))
    q = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    matrix: Tensor = q if rows >= columns else q.mT
    return matrix.contiguous()


@dataclass(frozen=True)
class TwinQ:
    """Two state-action value networks, side by side."""

    mlp: MLP

    @classmethod
    def build(
        cls, observation: int, action: int, hidden: Sequence[int], gain: float | None = None
    ) -> TwinQ:
        """Networks (s, a) -> hidden -> 1; ``gain`` as in :class:`MLP`."""
        return cls(MLP((observation + action, *hidden, 1), copies=2, gain=gain))

    def init(self, noise: Noise) -> Parameters:
        """Draws parameters of both networks."""
        return self.mlp.init(noise)

    def __call__(self, parameters: Parameters, observations: Tensor, actions: Tensor) -> Tensor:
        """Values ``[S, 2, B]``."""
        return self.mlp(parameters, torch.cat([observations, actions], -1)).squeeze(-1)

    def first(self, parameters: Parameters, observations: Tensor, actions: Tensor) -> Tensor:
        """The first network's values ``[S, B]``, without computing the second's."""
        one = {name: value[:, 0] for name, value in parameters.items()}
        single = MLP(self.mlp.sizes, activation=self.mlp.activation)
        return single(one, torch.cat([observations, actions], -1)).squeeze(-1)


@dataclass(frozen=True, eq=False)
class ActionBox:
    """A bounded box of actions and its map to and from [-1, 1]."""

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, space: spaces.Space[Any]) -> ActionBox:
        """Reads a bounded, one-dimensional ``Box``.

        Raises:
            UsageError: for any other space.
        """
        if not isinstance(space, spaces.Box) or len(space.shape) != 1 or not space.is_bounded():
            raise UsageError(
                f"this agent needs a bounded one-dimensional Box of actions, not {space}"
            )
        return cls(np.asarray(space.low, np.float64), np.asarray(space.high, np.float64))

    @property
    def size(self) -> int:
        """Number of action dimensions."""
        return len(self.low)

    @functools.cached_property
    def is_unit(self) -> bool:
        """Whether the box already is [-1, 1]."""
        return bool((self.low == -1).all() and (self.high == 1).all())

    def scale(self, unit: Tensor) -> Tensor:
        """[-1, 1] -> the box; what lies outside, by noise or by rounding, is clipped."""
        if self.is_unit:
            return unit.clamp(-1, 1)
        low, high = unit.new_tensor(self.low), unit.new_tensor(self.high)
        return ((high + low) / 2 + (high - low) / 2 * unit).clamp(low, high)

    def unscale(self, actions: Tensor) -> Tensor:
        """The box -> [-1, 1]."""
        if self.is_unit:
            return actions
        low, high = actions.new_tensor(self.low), actions.new_tensor(self.high)
        return (actions - (high + low) / 2) / ((high - low) / 2)


def observation_size(space: spaces.Space[Any]) -> int:
    """Features of a one-dimensional ``Box`` of observations.

    Raises:
        UsageError: for any other space.
    """
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise UsageError(f"this agent needs a one-dimensional Box of observations, not {space}")
    return int(space.shape[0])
