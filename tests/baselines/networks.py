"""Perceptrons on the tape, for oracles whose gradients are long."""

from __future__ import annotations

import numpy as np
from oracles import Array, Weights
from tape import Var


def as_vars(weights: Weights) -> dict[str, Var]:
    return {name: Var(value) for name, value in weights.items()}


def network(p: dict[str, Var], inputs: Var) -> Var:
    """Rectifiers between the layers, and behind them, where it has a scale, layer normalisation."""
    hidden, layers = inputs, sum(name.startswith("weight") for name in p)
    for i in range(layers):
        hidden = hidden @ p[f"weight{i}"] + p[f"bias{i}"]
        if i == layers - 1:
            break
        hidden = hidden.relu()
        if f"scale{i}" in p:
            centred = hidden - hidden.mean(-1)
            spread = ((centred * centred).mean(-1) + 1e-6).power(0.5)
            hidden = centred / spread * p[f"scale{i}"] + p[f"shift{i}"]
    return hidden


def pick(values: list[Var], smallest: bool) -> Var:
    """Row by row the smallest of some columns ``[B, 1]``, or the first."""
    if not smallest:
        return values[0]
    best = np.argmin([v.value for v in values], 0)
    parts = [v * (best == i) for i, v in enumerate(values)]
    return sum(parts[1:], parts[0])


def joined(*arrays: Array) -> Array:
    return np.concatenate(arrays, -1)
