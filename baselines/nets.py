"""Stacked networks as pure functions of flat parameter dicts.

A network is a small frozen description with ``init(noise)`` -> parameters (every tensor with
leading axis S) and a call ``net(parameters, inputs [S, B, features])``. Being pure, the same call
serves online and target weights, and can be compiled or captured from outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from baselines.common import Noise, Parameters

NARROW = 3  # outputs up to which a weighted sum beats a batched matrix product on a CPU


def linear(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """inputs ``[..., B, in]``, weight ``[..., in, out]``, bias ``[..., 1, out]`` -> ``[..., B, out]``.

    Leading axes broadcast.
    """
    if weight.shape[-1] <= NARROW and inputs.device.type == "cpu":
        columns = [(inputs * column.unsqueeze(-2)).sum(-1) for column in weight.unbind(-1)]
        return torch.stack(columns, -1) + bias
    if inputs.dim() == 3:
        return torch.baddbmm(bias, inputs, weight)
    return inputs @ weight + bias


@dataclass(frozen=True)
class MLP:
    """A multilayer perceptron, ``copies`` of it side by side where an ensemble is wanted.

    Weights start as PyTorch's ``nn.Linear``: uniform in +-1/sqrt(in).

    Attributes:
        sizes: features of input, hidden layers and output.
        copies: None, or the number of ensemble members; the output then is ``[S, copies, B, out]``.
        activation: between layers.
    """

    sizes: tuple[int, ...]
    copies: int | None = None
    activation: Callable[[Tensor], Tensor] = torch.relu

    def init(self, noise: Noise) -> Parameters:
        """Draws parameters, ``[S, (copies,) in, out]`` and ``[S, (copies,) 1, out]``."""
        lead = () if self.copies is None else (self.copies,)
        parameters = {}
        for layer, (width, out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            bound = 1.0 / math.sqrt(width)
            for name, rows in (("weight", width), ("bias", 1)):
                value = (2.0 * noise.uniform(*lead, rows, out) - 1.0) * bound
                parameters[f"{name}{layer}"] = value.requires_grad_()
        return parameters

    def __call__(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """``[S, B, in]`` -> ``[S, B, out]``, or ``[S, copies, B, out]`` for an ensemble."""
        hidden = inputs if self.copies is None else inputs.unsqueeze(1)
        last = len(self.sizes) - 2
        for layer in range(last + 1):
            hidden = linear(hidden, parameters[f"weight{layer}"], parameters[f"bias{layer}"])
            if layer < last:
                hidden = self.activation(hidden)
        return hidden


@dataclass(frozen=True)
class TwinQ:
    """Two state-action value networks, side by side."""

    mlp: MLP

    @classmethod
    def build(cls, observation: int, action: int, hidden: Sequence[int]) -> TwinQ:
        """Networks (s, a) -> hidden -> 1."""
        return cls(MLP((observation + action, *hidden, 1), copies=2))

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


@dataclass(frozen=True)
class ActionBox:
    """A bounded box of actions and its map to and from [-1, 1]."""

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, space: spaces.Space) -> ActionBox:
        """Reads a bounded, one-dimensional ``Box``.

        Raises:
            ValueError: for any other space.
        """
        if not isinstance(space, spaces.Box) or len(space.shape) != 1 or not space.is_bounded():
            raise ValueError(f"this agent needs a bounded one-dimensional Box of actions, not {space}")
        return cls(np.asarray(space.low, np.float64), np.asarray(space.high, np.float64))

    @property
    def size(self) -> int:
        """Number of action dimensions."""
        return len(self.low)

    def _like(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        return actions.new_tensor((self.high + self.low) / 2), actions.new_tensor(
            (self.high - self.low) / 2
        )

    def scale(self, unit: Tensor) -> Tensor:
        """[-1, 1] -> the box."""
        if self.is_unit:
            return unit
        middle, half = self._like(unit)
        return middle + half * unit

    def unscale(self, actions: Tensor) -> Tensor:
        """The box -> [-1, 1]."""
        if self.is_unit:
            return actions
        middle, half = self._like(actions)
        return (actions - middle) / half

    @property
    def is_unit(self) -> bool:
        """Whether the box already is [-1, 1]."""
        return bool((self.low == -1).all() and (self.high == 1).all())


def observation_size(space: spaces.Space) -> int:
    """Features of a one-dimensional ``Box`` of observations.

    Raises:
        ValueError: for any other space.
    """
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise ValueError(f"this agent needs a one-dimensional Box of observations, not {space}")
    return int(space.shape[0])
