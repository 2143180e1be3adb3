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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from baselines.common import Noise, Parameters
from baselines.config import UsageError


def perceptron(
    inputs: Tensor, *layers: Tensor, activation: Callable[[Tensor], Tensor] = torch.relu
) -> Tensor:
    """Affine maps with rectifiers between them; one map alone is ``inputs @ weight + bias``.

    Args:
        inputs: ``[*lead, B, in]``.
        layers: weight ``[*lead, in, out]`` and bias ``[*lead, 1, out]`` of each map, in turn.
        activation: ``torch.relu``, or ``torch.nn.functional.elu`` or :func:`mish` in its place.

    Returns:
        ``[*lead, B, out]``.
    """
    lead = inputs.shape[:-2]
    hidden, *flat = (value.flatten(0, -3) for value in (inputs, *layers))
    if inputs.device.type == "cpu":
        slopes = activation is mish and torch.is_grad_enabled()
        hidden = cast(Tensor, _Perceptron.apply(activation, slopes, hidden, *flat))  # type: ignore[no-untyped-call]
    else:
        for i in range(0, len(flat), 2):
            hidden = torch.baddbmm(flat[i + 1], activation(hidden) if i else hidden, flat[i])
    return hidden.reshape(*lead, *hidden.shape[1:])


class _Perceptron(torch.autograd.Function):
    """:func:`perceptron` on a CPU: matrix by matrix, by the fastest product there is.

    Written out to spare autograd a node and a stack of copies per layer, and to fuse bias and
    rectifier into the product.
    """

    @staticmethod
    def forward(
        ctx: Any,
        activation: Callable[[Tensor], Tensor],
        with_slopes: bool,
        inputs: Tensor,
        *layers: Tensor,
    ) -> Tensor:
        with_slopes = with_slopes and any(ctx.needs_input_grad)
        seen = [inputs.unbind()]  # the inputs of every layer, of every stacked network
        slopes: list[list[Tensor]] = [[]]  # of the activation before each layer, but of relu
        outputs: Sequence[Tensor] = seen[0]
        for i in range(0, len(layers), 2):
            hidden = i < len(layers) - 2
            relu = hidden and activation is torch.relu
            maps = zip(outputs, layers[i].unbind(), layers[i + 1].unbind(), strict=True)
            outputs = [_product(x, w.t(), b[0], relu) for x, w, b in maps]
            if hidden and activation is mish:
                pairs = [_mish(z, with_slopes) for z in outputs]
                outputs = [h for h, _ in pairs]
                slopes.append([slope for _, slope in pairs if slope is not None])
            elif hidden and not relu:
                outputs = [torch.nn.functional.elu_(z) for z in outputs]
            seen.append(tuple(outputs))
        ctx.save_for_backward(*layers)  # so that autograd notices a step taken in between
        ctx.seen, ctx.slopes, ctx.activation = seen[:-1], slopes, activation
        return _stack(outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        layers, needed = ctx.saved_tensors, ctx.needs_input_grad[2:]
        gradients: list[Tensor | None] = []
        passed: Sequence[Tensor] = gradient.contiguous().unbind()
        for i in reversed(range(0, len(layers), 2)):
            seen = ctx.seen[i // 2]
            pairs = list(zip(passed, seen, strict=True))
            for_bias = _stack([g.sum(0, keepdim=True) for g in passed]) if needed[i + 2] else None
            for_weight = (
                _stack([_product(x.t(), g.t()) for g, x in pairs]) if needed[i + 1] else None
            )
            gradients += [for_bias, for_weight]
            if i or needed[0]:
                passed = [_product(g, w) for g, w in zip(passed, layers[i].unbind(), strict=True)]
            if i and len(ctx.slopes) > 1:
                passed = [g.mul_(s) for g, s in zip(passed, ctx.slopes[i // 2], strict=True)]
            elif i:
                back = _rectify if ctx.activation is torch.relu else _elu_slope
                passed = [back(g, x) for g, x in zip(passed, seen, strict=True)]
        return (None, None, _stack(passed) if needed[0] else None, *reversed(gradients))


def mish(inputs: Tensor) -> Tensor:
    """x tanh(log(1 + e^x)) (Misra 2020, arXiv 1908.08681)."""
    return torch.nn.functional.mish(inputs)


def _mish(x: Tensor, with_slope: bool) -> tuple[Tensor, Tensor | None]:
    """:func:`mish` of a matrix on a CPU and, if wanted, its derivative there.

    With e = exp(x) and q = 1 / ((e + 1)^2 + 1), mish is x (1 - 2 q) and its derivative
    1 - 2 q + 4 q^2 x e (e + 1): one exponential where the definition, and torch's own kernel, take
    three transcendental functions.
    """
    if not with_slope:  # where e overflows, the quotient is 0 and the rest right
        return torch.addcdiv(x, x, x.exp().add_(1).square_().add_(1), value=-2), None
    e = x.clamp(max=20).exp_()  # beyond 20 the derivative is 1 to the last bit
    one_more = e + 1
    slope = e.mul_(one_more)
    q = one_more.square_().add_(1).reciprocal_()
    slope.mul_(q).mul_(x).mul_(4).sub_(2).mul_(q).add_(1)
    return torch.addcmul(x, x, q, value=-2), slope


def _rectify(gradient: Tensor, rectified: Tensor) -> Tensor:
    """The gradient before a rectifier, from that behind it and its output."""
    return cast(Tensor, torch.ops.aten.threshold_backward(gradient, rectified, 0))


def _elu_slope(gradient: Tensor, output: Tensor) -> Tensor:
    """The gradient before an ELU, from that behind it and its output."""
    return cast(Tensor, torch.ops.aten.elu_backward(gradient, 1, 1, 1, True, output))


def _stack(matrices: Sequence[Tensor]) -> Tensor:
    """``torch.stack``, without the copy where there is but one."""
    return torch.stack(list(matrices)) if len(matrices) > 1 else matrices[0].unsqueeze(0)


# With AVX-512 oneDNN multiplies large float32 matrices as fast as MKL, which is behind
# torch.matmul, and fuses bias and rectifier. On AMD processors it is twice as fast for small ones,
# too; on Intel's a call of MKL takes 5 us in place of 35, and transposed matrices need no copies.
# torch.compile uses this operator too; torch.backends.mkldnn.enabled turns it off.
_onednn_linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
_avx512 = torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def _vendor() -> str:
    """Who made the processor, as Linux tells; "" where that is not known."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.split()[-1] for line in lines if line.startswith("vendor_id")), "")


_FEWEST_ROWS = 4096 if _vendor() == "GenuineIntel" else 0  # of a product by oneDNN


def _many_rows(left: Tensor) -> bool:
    """Not asked while a program is traced: its answer would bind the program to this many rows."""
    return not torch.compiler.is_compiling() and left.shape[0] >= _FEWEST_ROWS


def _product(left: Tensor, right: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    """``left [n, k] @ right [m, k]^T + bias [m]``; vectors and float64 are no case for oneDNN."""
    if (
        _onednn_linear is not None
        and _avx512
        and left.dtype == torch.float32
        and (not _FEWEST_ROWS or _many_rows(left))
        and 1 not in right.shape
        and torch.backends.mkldnn.enabled
    ):
        return cast(Tensor, _onednn_linear(left, right, bias, "relu" if relu else "none", [], ""))
    outputs = torch.nn.functional.linear(left, right, bias)
    return outputs.relu_() if relu else outputs


FUSED = (torch.relu, torch.nn.functional.elu, mish)  # the activations perceptron knows


@dataclass(frozen=True)
class MLP:
    """A multilayer perceptron, ``copies`` of it side by side where an ensemble is wanted.

    Attributes:
        sizes: features of input, hidden layers and output.
        copies: None, or the number of ensemble members; the output then is ``[S, copies, B, out]``.
        activation: between layers.
        gain: None for PyTorch's ``nn.Linear`` start, weights and biases uniform in +-1/sqrt(in);
            otherwise orthogonal weights times this number (Saxe et al. 2014) and zero biases.
        last: None, or the bound of the last layer's uniform start; biases before it start at 0.1.
        layer_norm: behind each activation, with learned scale and shift (Ba et al. 2016).
        norm_first: before each activation instead.
    """

    sizes: tuple[int, ...]
    copies: int | None = None
    activation: Callable[[Tensor], Tensor] = torch.relu
    gain: float | None = None
    last: float | None = None
    layer_norm: bool = False
    norm_first: bool = False

    def init(self, noise: Noise) -> Parameters:
        """Draws parameters, ``[S, (copies,) in, out]`` and ``[S, (copies,) 1, out]``."""
        lead = () if self.copies is None else (self.copies,)
        parameters = {}
        for layer, (width, out) in enumerate(itertools.pairwise(self.sizes)):
            hidden = layer < len(self.sizes) - 2
            if self.gain is None:
                bound = 1.0 / math.sqrt(width) if self.last is None or hidden else self.last
                weight = (2.0 * noise.uniform(*lead, width, out) - 1.0) * bound
                bias = (2.0 * noise.uniform(*lead, 1, out) - 1.0) * bound
            else:
                weight = orthogonal(noise, *lead, width, out) * self.gain
                bias = torch.zeros_like(weight[..., :1, :])
            if self.last is not None and hidden:
                bias = torch.full_like(bias, 0.1)
            if self.layer_norm and hidden:
                parameters[f"scale{layer}"] = torch.ones_like(bias).requires_grad_()
                parameters[f"shift{layer}"] = torch.zeros_like(bias).requires_grad_()
            parameters[f"weight{layer}"] = weight.requires_grad_()
            parameters[f"bias{layer}"] = bias.requires_grad_()
        return parameters

    def __call__(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """``[S, B, in]`` -> ``[S, B, out]``, or ``[S, copies, B, out]`` for an ensemble.

        Members of an ensemble see the same inputs, or each its own of ``[S, copies, B, in]``.
        """
        hidden = inputs
        if self.copies is not None and inputs.dim() == 3:
            hidden = inputs.unsqueeze(1).expand(-1, self.copies, -1, -1)
        layers = [
            parameters[f"{kind}{i}"]
            for i in range(len(self.sizes) - 1)
            for kind in ("weight", "bias")
        ]
        if self.activation in FUSED and not self.layer_norm:
            return perceptron(hidden, *layers, activation=self.activation)
        for i in range(len(self.sizes) - 1):
            if i and self.layer_norm and self.norm_first:
                hidden = self._normalised(parameters, hidden, i)
            hidden = self.activation(hidden) if i else hidden
            if i and self.layer_norm and not self.norm_first:
                hidden = self._normalised(parameters, hidden, i)
            hidden = perceptron(hidden, *layers[2 * i : 2 * i + 2])
        return hidden

    def member(self, parameters: Parameters, choose: Callable[[Tensor], Tensor]) -> Parameters:
        """The parameters of one member of an ensemble, by ``choose`` from all of each.

        An encoder's, which may lie among them (:mod:`baselines.encoders`), are left out.
        """
        return {name: choose(value) for name, value in parameters.items() if "." not in name}

    def _normalised(self, parameters: Parameters, hidden: Tensor, i: int) -> Tensor:
        """Layer normalisation of what layer ``i`` will see, or of what its activation will."""
        hidden = torch.nn.functional.layer_norm(hidden, self.sizes[i : i + 1], eps=1e-6)
        scale, shift = parameters[f"scale{i - 1}"], parameters[f"shift{i - 1}"]
        return torch.addcmul(shift, hidden, scale)


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
        cls,
        observation: int,
        action: int,
        hidden: Sequence[int],
        gain: float | None = None,
        activation: Callable[[Tensor], Tensor] = torch.relu,
        **options: Any,
    ) -> TwinQ:
        """Networks (s, a) -> hidden -> 1; ``gain`` and what follows as in :class:`MLP`."""
        sizes = (observation + action, *hidden, 1)
        return cls(MLP(sizes, copies=2, activation=activation, gain=gain, **options))

    def init(self, noise: Noise) -> Parameters:
        """Draws parameters of both networks."""
        return self.mlp.init(noise)

    def __call__(self, parameters: Parameters, observations: Tensor, actions: Tensor) -> Tensor:
        """Values ``[S, 2, B]``."""
        return self.mlp(parameters, torch.cat([observations, actions], -1)).squeeze(-1)

    def first(self, parameters: Parameters, observations: Tensor, actions: Tensor) -> Tensor:
        """The first network's values ``[S, B]``, without computing the second's."""
        one = self.mlp.member(parameters, lambda value: value[:, 0])
        return self._single(one, observations, actions)

    def chosen(
        self, parameters: Parameters, which: Tensor, observations: Tensor, actions: Tensor
    ) -> Tensor:
        """The values ``[S, B]`` of network ``which`` ``[S]`` (0 or 1, each seed its own) alone."""
        seeds = torch.arange(len(which), device=which.device)
        one = self.mlp.member(parameters, lambda value: value[seeds, which])
        return self._single(one, observations, actions)

    def _single(self, one: Parameters, observations: Tensor, actions: Tensor) -> Tensor:
        single = replace(self.mlp, copies=None)
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
