"""What agents see of an observation: the observation itself, or features of a history.

An encoder is a small frozen description like those of :mod:`baselines.nets`: ``init(noise)`` draws
parameters and a call applies them. Its parameters' names begin with "encoder.", so that they may
lie among those of the network that trains it: then one optimiser steps both, and one Polyak copy
serves as the target of both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from baselines.common import Noise, Parameters
from baselines.config import UsageError
from baselines.contract import Batch
from baselines.nets import perceptron

HIDDEN = 64  # units of the LSTM; authors' players code
DENSE = 32  # features of what is static; same, with a batch normalisation that is left out here
PREFIX = "encoder."
NAMES = ("input", "recurrent", "bias", "static_weight", "static_bias")


@dataclass(frozen=True)
class Encoder:
    """Features of flat observations; those of a vector are the vector itself.

    Attributes:
        size: features.
    """

    size: int

    def init(self, noise: Noise) -> Parameters:
        """Draws parameters; none, and nothing is drawn, where features are the observation."""
        return {}

    def __call__(self, parameters: Parameters, observations: Tensor) -> Tensor:
        """``[S, B, observation]`` -> ``[S, B, size]``.

        Args:
            parameters: the encoder's own, among others.
            observations: flat.
        """
        return observations


@dataclass(frozen=True)
class HistoryEncoder(Encoder):
    """LSTM over days beside a rectified layer on what is static (Hochreiter & Schmidhuber 1997).

        i, f, g, o = sigma(x_t W + h_t-1 U + b), g by tanh        c_t = f c_t-1 + i g
        h_t        = o tanh(c_t),  h_0 = c_0 = 0                  features = (h_K, max(0, s V + d))

    Attributes:
        static: numbers of s, the first of an observation.
        days: K.
        features: numbers of a day.
        copies: None, or the number of encoders side by side; features then are
            ``[S, copies, B, size]``.
    """

    static: int = 0
    days: int = 1
    features: int = 1
    copies: int | None = None

    def init(self, noise: Noise) -> Parameters:
        """Draws weights and biases uniformly as ``nn.LSTM`` and ``nn.Linear`` do.

        There is one bias per gate, where ``nn.LSTM`` adds two.
        """
        lead = () if self.copies is None else (self.copies,)
        gates = 4 * HIDDEN
        shapes = {
            "input": (self.features, gates, HIDDEN),
            "recurrent": (HIDDEN, gates, HIDDEN),
            "bias": (1, gates, HIDDEN),
            "static_weight": (self.static, DENSE, self.static),
            "static_bias": (1, DENSE, self.static),
        }
        return {
            f"{PREFIX}{name}": (
                (2.0 * noise.uniform(*lead, rows, columns) - 1.0) / math.sqrt(fan)
            ).requires_grad_()
            for name, (rows, columns, fan) in shapes.items()
        }

    def __call__(self, parameters: Parameters, observations: Tensor) -> Tensor:
        """``[S, B, static + days * features]`` -> ``[S, B, size]``, or ``[S, copies, B, size]``."""
        if self.copies is not None:
            observations = observations.unsqueeze(1).expand(-1, self.copies, -1, -1)
        own = [parameters[PREFIX + name] for name in NAMES]
        static, days = observations[..., : self.static], observations[..., self.static :]
        days = days.reshape(*days.shape[:-1], self.days, self.features)
        seen = perceptron(static, *own[3:]).relu()
        return torch.cat([lstm(days, *own[:3]), seen], -1)


def lstm(days: Tensor, into: Tensor, recurrent: Tensor, bias: Tensor) -> Tensor:
    """The state h_K ``[*lead, B, H]`` of an LSTM that has seen days ``[*lead, B, K, features]``.

    Network by network, by PyTorch's own kernel, which on a CPU is oneDNN's.

    Args:
        days: the oldest first.
        into: W, ``[*lead, features, 4 H]``; gates i, f, g, o.
        recurrent: U, ``[*lead, H, 4 H]``.
        bias: b, ``[*lead, 1, 4 H]``.
    """
    lead, (batch, width) = days.shape[:-3], (days.shape[-3], recurrent.shape[-2])
    start = days.new_zeros(1, batch, width)
    none = torch.zeros_like(bias.flatten(0, -3)[0, 0])  # the second bias, which no gate needs
    states = []
    stacked = zip(
        days.flatten(0, -4), *(v.flatten(0, -3) for v in (into, recurrent, bias)), strict=True
    )
    for x, w, u, b in stacked:
        weights = [w.t().contiguous(), u.t().contiguous(), b[0], none]
        # As in training, without which cuDNN cannot differentiate; there is no dropout to apply.
        found = torch.lstm(x, (start, start), weights, True, 1, 0.0, True, False, True)
        states.append(found[1][0])
    return torch.stack(states).reshape(*lead, batch, width)


def encoder(space: spaces.Space[Any], copies: int | None = None) -> Encoder:
    """What shows an agent the observations of a space.

    Args:
        space: a one-dimensional ``Box``, which is shown as it is, or a ``Dict`` of "static"
            ``[static]`` and "temporal" ``[days, features]``, of which features are learned.
        copies: None, or how many encoders of histories stand side by side.

    Raises:
        UsageError: for any other space.
    """
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return Encoder(int(space.shape[0]))
    if isinstance(space, spaces.Dict) and set(space) == {"static", "temporal"}:
        shapes = [space[key].shape for key in ("static", "temporal")]
        if [len(shape or ()) for shape in shapes] == [1, 2]:
            (static,), (days, features) = shapes  # type: ignore[misc]
            sizes = (int(static), int(days), int(features))
            return HistoryEncoder(HIDDEN + DENSE, *sizes, copies=copies)
    raise UsageError(
        "this agent needs a one-dimensional Box of observations, or a Dict of static [n] and "
        f"temporal [days, features], not {space}"
    )


def encoded(encoder: Encoder, batch: Batch, parameters: Parameters, following: Parameters) -> Batch:
    """A batch with features in place of observations; the same one where these are the same.

    Args:
        encoder: what encodes.
        batch: with ``observations`` and ``next_observations``.
        parameters: of the encoder at ``observations``; their gradient flows.
        following: of the encoder at ``next_observations``, which are constants.
    """
    if not isinstance(encoder, HistoryEncoder):
        return batch
    with torch.no_grad():
        next_features = encoder(following, batch["next_observations"])
    features = encoder(parameters, batch["observations"])
    return {**batch, "observations": features, "next_observations": next_features}
