"""Perceptrons on the tape, for oracles whose gradients are long."""

from __future__ import annotations

from typing import Any

import numpy as np
from oracles import Array, Weights
from tape import Var, join


def as_vars(weights: Weights) -> dict[str, Var]:
    return {name: Var(value) for name, value in weights.items()}


def network(p: dict[str, Var], inputs: Var, norm_first: bool = False) -> Var:
    """Rectifiers between the layers, and behind them, where it has a scale, layer normalisation."""
    hidden, layers = inputs, sum(name.startswith("weight") for name in p)
    for i in range(layers):
        hidden = hidden @ p[f"weight{i}"] + p[f"bias{i}"]
        if i == layers - 1:
            break
        hidden = hidden if norm_first else hidden.relu()
        if f"scale{i}" in p:
            centred = hidden - hidden.mean(-1)
            spread = ((centred * centred).mean(-1) + 1e-6).power(0.5)
            hidden = centred / spread * p[f"scale{i}"] + p[f"shift{i}"]
        hidden = hidden.relu() if norm_first else hidden
    return hidden


def pick(values: list[Var], smallest: bool) -> Var:
    """Row by row the smallest of some columns ``[B, 1]``, or the first."""
    if not smallest:
        return values[0]
    best = np.argmin([v.value for v in values], 0)
    parts = [v * (best == i) for i, v in enumerate(values)]
    return sum(parts[1:], parts[0])


def clipped(raw: Var, low: float, high: float) -> Var:
    return raw.each(lambda x: np.clip(x, low, high), (raw.value >= low) & (raw.value <= high))


def log_slope(raw: Var) -> Var:
    """log of the derivative of tanh."""
    return (raw + (raw * -2.0).softplus() - np.log(2.0)) * -2.0


class Squashed:
    """tanh of a normal variable, of mean and log std ``[B, A]`` on the tape."""

    def __init__(self, mean: Var, log_std: Var) -> None:
        self.mean, self.log_std = mean, log_std

    @classmethod
    def from_outputs(cls, outputs: Var, c: Any) -> Squashed:
        """From a network's 2 A outputs, and the bounds in a configuration."""
        size = outputs.shape[1] // 2
        raw = outputs[:, size:] + c.log_std_offset
        return cls(outputs[:, :size], clipped(raw, c.log_std_min, c.log_std_max))

    def density(self, raw: Var, z: Var) -> Var:
        each = z * z * -0.5 - self.log_std - 0.5 * np.log(2 * np.pi) - log_slope(raw)
        return each.sum(1)

    def sample(self, noise: Array) -> tuple[Var, Var]:
        raw = self.mean + self.log_std.exp() * noise
        return raw.tanh(), self.density(raw, Var(noise))

    def log_prob(self, actions: Array) -> Var:
        raw = Var(np.arctanh(actions))
        return self.density(raw, (raw - self.mean) / self.log_std.exp())


def joined(*arrays: Array) -> Array:
    return np.concatenate(arrays, -1)


def sigmoid(x: Var) -> Var:
    value = 1 / (1 + np.exp(-x.value))
    return x.each(lambda _: value, value * (1 - value))


def history_features(p: dict[str, Var], observations: Array, static: int, days: int) -> Var:
    """An LSTM's last state beside a rectified layer, day by day, from one encoder's weights."""
    windows = observations[:, static:].reshape(len(observations), days, -1)
    size = p["encoder.recurrent"].value.shape[0]
    state = cell = Var(np.zeros((len(observations), size)))
    for day in range(days):
        gates = Var(windows[:, day]) @ p["encoder.input"] + state @ p["encoder.recurrent"]
        gates = gates + p["encoder.bias"]
        i, f, g, o = (gates[:, n * size : (n + 1) * size] for n in range(4))
        cell = sigmoid(f) * cell + sigmoid(i) * g.tanh()
        state = sigmoid(o) * cell.tanh()
    seen = Var(observations[:, :static]) @ p["encoder.static_weight"] + p["encoder.static_bias"]
    return join([state, seen.relu()])
