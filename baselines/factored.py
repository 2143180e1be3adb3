"""Factored actions: the factors of a space, values per factor, exploration, and mixers.

An action of K factors is K integers, whatever the space: the factors of a ``MultiDiscrete``, a
``Discrete`` as one factor, a ``Box`` cut into bins, one factor per dimension.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn.functional import one_hot, pad, softplus

from baselines.common import Noise, Parameters
from baselines.config import UsageError
from baselines.contract import Spec
from baselines.nets import ActionBox


@dataclass(frozen=True, eq=False)
class Factors:
    """The K factors of an action space, and the way from actions to choices and back.

    Attributes:
        sizes: number of choices by factor.
        noop: by factor the choice that does nothing.
        starts: by factor the integer that choice 0 stands for; 0 for boxes.
        box: the box that was cut into bins, None for integers.
        scalar: whether an action is a single number without an axis (``Discrete``).
        dtype: of decoded actions.
    """

    sizes: tuple[int, ...]
    noop: tuple[int, ...]
    starts: tuple[int, ...]
    box: ActionBox | None = None
    scalar: bool = False
    dtype: torch.dtype = torch.int64

    @classmethod
    def of(
        cls,
        space: spaces.Space[Any],
        bins: int,
        noop: Sequence[int] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Factors:
        """Reads a ``MultiDiscrete``, a ``Discrete``, or a bounded one-dimensional ``Box``.

        Args:
            space: of actions.
            bins: evenly spaced values per dimension of a box, both bounds among them; odd, so that
                the middle one does nothing. Integer spaces do not use it.
            noop: by factor of an integer space the action that does nothing, as the space counts;
                choice 0 where it is None.
            dtype: of the actions of a box.

        Raises:
            UsageError: for another space, an even number of bins, or a no-op outside the space.
        """
        if isinstance(space, spaces.Box):
            if bins < 3 or bins % 2 == 0:
                raise UsageError(
                    f"bins must be odd and at least 3, so that the middle one does nothing, "
                    f"not {bins}"
                )
            box = ActionBox.of(space)
            none = (0,) * box.size
            return cls((bins,) * box.size, (bins // 2,) * box.size, none, box, dtype=dtype)
        if isinstance(space, spaces.Discrete):
            sizes: tuple[int, ...] = (int(space.n),)
            starts: tuple[int, ...] = (int(space.start),)
        elif isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
            sizes = tuple(int(n) for n in space.nvec)
            starts = tuple(int(n) for n in space.start)
        else:
            raise UsageError(
                "this agent needs a MultiDiscrete of one axis, a Discrete or a bounded "
                f"one-dimensional Box of actions, not {space}"
            )
        chosen = tuple(0 for _ in sizes)
        if noop is not None:
            chosen = tuple(int(n) - start for n, start in zip(noop, starts, strict=True))
        if any(not 0 <= n < size for n, size in zip(chosen, sizes, strict=True)):
            raise UsageError(f"the no-op {tuple(noop or ())} lies outside {space}")
        return cls(sizes, chosen, starts, scalar=isinstance(space, spaces.Discrete))

    @classmethod
    def of_spec(cls, spec: Spec, bins: int) -> Factors:
        """The factors of a task's action space, with its no-op and floating-point type."""
        return cls.of(spec.action_space, bins, spec.noop, spec.torch_dtype())

    @property
    def count(self) -> int:
        """K."""
        return len(self.sizes)

    @property
    def choices(self) -> int:
        """The choices of all factors, one after the other: sum of ``sizes``."""
        return sum(self.sizes)

    @property
    def joint(self) -> int:
        """Number of joint actions: product of ``sizes``."""
        return math.prod(self.sizes)

    def encode(self, actions: Tensor) -> Tensor:
        """Actions ``[..., *action]`` -> choices ``[..., K]`` (int64); boxes by the nearest bin."""
        if self.box is not None:
            unit = self.box.unscale(actions).clamp(-1, 1)
            return ((unit + 1) / 2 * unit.new_tensor([n - 1 for n in self.sizes])).round().long()
        actions = actions.unsqueeze(-1) if self.scalar else actions
        return actions.long() - torch.tensor(self.starts, device=actions.device)

    def decode(self, indices: Tensor) -> Tensor:
        """Choices ``[..., K]`` -> actions ``[..., *action]`` in the space."""
        if self.box is not None:
            steps = torch.tensor([n - 1 for n in self.sizes], device=indices.device)
            return self.box.scale(2 * indices.to(self.dtype) / steps - 1)
        actions = indices + torch.tensor(self.starts, device=indices.device)
        return actions.squeeze(-1) if self.scalar else actions

    def joint_index(self, indices: Tensor) -> Tensor:
        """Choices ``[..., K]`` -> their joint action's number ``[...]``, the last factor fast."""
        number = torch.zeros_like(indices[..., 0])
        for k, size in enumerate(self.sizes):
            number = number * size + indices[..., k]
        return number

    def from_joint(self, number: Tensor) -> Tensor:
        """A joint action's number ``[...]`` -> choices ``[..., K]``."""
        indices = []
        for size in reversed(self.sizes):
            indices.append(number % size)
            number = number // size
        return torch.stack(indices[::-1], -1)

    def binning_error(self, actions: Tensor) -> Tensor:
        """Root-mean-square rounding by dimension ``[K]``, in half ranges; 0 for integers.

        Args:
            actions: ``[..., *action]``.
        """
        if self.box is None:
            return torch.zeros(self.count)
        rounded = self.decode(self.encode(actions)).to(actions.dtype)
        error = self.box.unscale(rounded) - self.box.unscale(actions)
        return error.reshape(-1, self.count).square().mean(0).sqrt()

    def split(self, values: Tensor) -> Tensor:
        """Per choice ``[..., sum of sizes]`` -> ``[..., K, N]``, N the largest size.

        Choices that a smaller factor does not have are -inf.
        """
        widest = max(self.sizes)
        if min(self.sizes) == widest:
            return values.reshape(*values.shape[:-1], self.count, widest)
        parts = torch.split(values, list(self.sizes), -1)
        return torch.stack([pad(v, (0, widest - v.shape[-1]), value=-math.inf) for v in parts], -2)

    def chosen(self, values: Tensor, indices: Tensor) -> Tensor:
        """Per choice ``[..., sum of sizes]``, choices ``[..., K]`` -> their values ``[..., K]``."""
        return values.gather(-1, indices + self._offsets(indices.device))

    def own(self, values: Tensor) -> Tensor:
        """Each factor's own values, where every k has states of its own.

        Args:
            values: of all choices at every s_k, ``[S, K, B, sum of sizes]``.

        Returns:
            Q_k(s_k, .) ``[S, B, K, N]``.
        """
        return self.split(values).diagonal(dim1=1, dim2=3).movedim(-1, 2)

    def one_hot(self, indices: Tensor, dtype: torch.dtype) -> Tensor:
        """Choices ``[..., K]`` -> 0/1 ``[..., sum of sizes]``."""
        where = indices + self._offsets(indices.device)
        return one_hot(where, self.choices).sum(-2).to(dtype)

    def interventions(self, indices: Tensor) -> Tensor:
        """do(a_k, the others do nothing) for every k: ``[S, B, K]`` -> ``[S, K, B, K]``."""
        noop = torch.tensor(self.noop, device=indices.device).expand_as(indices).unsqueeze(1)
        own = torch.eye(self.count, dtype=torch.bool, device=indices.device)[:, None]
        return torch.where(own, indices.unsqueeze(1), noop)

    def _offsets(self, device: torch.device) -> Tensor:
        starts = [sum(self.sizes[:k]) for k in range(self.count)]
        return torch.tensor(starts, device=device)


def epsilon_greedy(noise: Noise, greedy: Tensor, sizes: Sequence[int], epsilon: float) -> Tensor:
    """With probability ``epsilon`` a uniform joint action in place of ``greedy`` ``[S, E, K]``.

    One coin for all factors, so that agents that look at them apart explore as those that do not.
    """
    coin, *rest = noise.uniform(1 + len(sizes)).unbind(-1)
    draws = [(u * n).long().clamp(max=n - 1) for u, n in zip(rest, sizes, strict=True)]
    return torch.where((coin < epsilon).unsqueeze(-1), torch.stack(draws, -1), greedy)


MixerKind = Literal["average", "linear", "relu", "two_layer"]


@dataclass(frozen=True)
class Mixer:
    """From values per factor to one value, ``[..., B, K]`` -> ``[..., B]``.

    ``average`` is the mean and has no weights. ``linear`` and ``relu`` (one hidden layer of
    rectifiers) pass their weights through softplus: they never fall with any factor's value, so
    what is best by factor is best jointly. ``two_layer`` is the net of ``relu`` without that limit;
    its best joint action is searched by coordinate ascent. Parameters are named ``mixer_...``, so
    that they may live in the values' own dict.

    Attributes:
        kind: which.
        factors: K.
        hidden: rectifiers of ``relu`` and ``two_layer``.
        sweeps: rounds of the coordinate ascent.
    """

    kind: MixerKind
    factors: int
    hidden: int = 32
    sweeps: int = 3

    def init(self, noise: Noise) -> Parameters:
        """Draws parameters; ``linear`` starts as the mean, ``relu`` with weights of mean 1/K."""
        k, h = self.factors, self.hidden

        def bounded(limit: float, *shape: int) -> Tensor:
            return (2 * noise.uniform(*shape) - 1) * limit

        drawn: Parameters = {}
        if self.kind == "linear":
            weight = torch.full_like(noise.uniform(k, 1), 1 / k).expm1().log()
            drawn = {"weight0": weight, "bias0": torch.zeros_like(weight[:, :1])}
        elif self.kind == "relu":
            inner, outer = noise.uniform(k, h), noise.uniform(h, 1)
            drawn = {
                "weight0": (2 / k * inner.clamp(min=1e-3)).expm1().log(),
                "bias0": bounded(1 / math.sqrt(k), 1, h),
                "weight1": (2 / h * outer.clamp(min=1e-3)).expm1().log(),
                "bias1": torch.zeros_like(outer[:, :1]),
            }
        elif self.kind == "two_layer":
            drawn = {
                "weight0": bounded(1 / math.sqrt(k), k, h),
                "bias0": bounded(1 / math.sqrt(k), 1, h),
                "weight1": bounded(1 / math.sqrt(h), h, 1),
                "bias1": bounded(1 / math.sqrt(h), 1, 1),
            }
        return {f"mixer_{name}": value.requires_grad_() for name, value in drawn.items()}

    def __call__(self, parameters: Parameters, values: Tensor) -> Tensor:
        """F(Q_1, ..., Q_K): ``[S, ..., B, K]`` -> ``[S, ..., B]``."""
        if self.kind == "average":
            return values.mean(-1)
        lead = values.shape[:-1]
        hidden = values.flatten(1, -2)
        for i in range(1 if self.kind == "linear" else 2):
            weight, bias = parameters[f"mixer_weight{i}"], parameters[f"mixer_bias{i}"]
            weight = weight if self.kind == "two_layer" else softplus(weight)
            hidden = torch.baddbmm(bias, hidden.relu() if i else hidden, weight)
        return hidden.reshape(lead)

    @torch.no_grad()
    def best(self, parameters: Parameters, values: Tensor) -> Tensor:
        """The choices ``[S, B, K]`` of the largest F found.

        Args:
            parameters: the mixer's.
            values: of every choice ``[S, B, K, N]``; -inf where there is none, or none is allowed.

        Returns:
            Each factor's best choice, which is the best joint one for all kinds but ``two_layer``;
            there it is where the ascent starts, and the result is never worse.
        """
        best = values.argmax(-1)
        if self.kind != "two_layer":
            return best
        for k in [*range(self.factors)] * self.sweeps:
            now = values.gather(-1, best.unsqueeze(-1)).squeeze(-1)  # [S, B, K]
            tried = now.unsqueeze(2).repeat(1, 1, values.shape[-1], 1)  # [S, B, N, K]
            tried[..., k] = values[:, :, k]
            allowed = values[:, :, k].isfinite()
            mixed = self(parameters, tried.nan_to_num(neginf=0.0))
            best[..., k] = mixed.masked_fill(~allowed, -math.inf).argmax(-1)
        return best
