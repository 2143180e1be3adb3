"""Reverse-mode differentiation of numpy arrays, for the oracles whose gradients are long."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from oracles import Array

Back = Callable[[Array], Array]


class Var:
    """An array and how to pass a gradient on to what it was made of."""

    __array_ufunc__ = None  # so that array - Var is this class's business

    def __init__(self, value: object, parents: Sequence[tuple[Var, Back]] = ()) -> None:
        self.value: Array = np.asarray(value, np.float64)
        self.parents = parents

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def __add__(self, other: object) -> Var:
        b = as_var(other)
        parents = [(v, lambda g, v=v: fold(g, v.shape)) for v in (self, b)]
        return Var(self.value + b.value, parents)

    def __mul__(self, other: object) -> Var:
        b = as_var(other)
        return Var(
            self.value * b.value,
            [
                (self, lambda g: fold(g * b.value, self.shape)),
                (b, lambda g: fold(g * self.value, b.shape)),
            ],
        )

    def __matmul__(self, other: Var) -> Var:
        b = other
        return Var(
            self.value @ b.value,
            [
                (self, lambda g: fold(g @ b.value.swapaxes(-1, -2), self.shape)),
                (b, lambda g: fold(self.value.swapaxes(-1, -2) @ g, b.shape)),
            ],
        )

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Var:
        return self * -1.0

    def __sub__(self, other: object) -> Var:
        return self + -as_var(other)

    def __rsub__(self, other: object) -> Var:
        return -self + other

    def __truediv__(self, other: object) -> Var:
        return self * as_var(other).power(-1.0)

    def power(self, exponent: float) -> Var:
        slope = exponent * self.value ** (exponent - 1)
        return Var(self.value**exponent, [(self, lambda g: g * slope)])

    def each(self, function: Callable[[Array], Array], slope: Array) -> Var:
        return Var(function(self.value), [(self, lambda g: g * slope)])

    def exp(self) -> Var:
        return self.each(np.exp, np.exp(self.value))

    def tanh(self) -> Var:
        return self.each(np.tanh, 1 - np.tanh(self.value) ** 2)

    def relu(self) -> Var:
        return self.each(lambda x: np.maximum(x, 0), (self.value > 0).astype(float))

    def softplus(self) -> Var:
        return self.each(lambda x: np.log1p(np.exp(x)), 1 / (1 + np.exp(-self.value)))

    def sum(self, axis: int | tuple[int, ...] | None = None) -> Var:
        kept = self.value.sum(axis, keepdims=True)
        return Var(kept, [(self, lambda g: np.broadcast_to(g, self.shape))])

    def mean(self, axis: int | None = None) -> Var:
        kept = self.value.mean(axis, keepdims=True)
        return self.sum(axis) * (kept.size / self.value.size)

    def reshape(self, *shape: int) -> Var:
        return Var(self.value.reshape(shape), [(self, lambda g: g.reshape(self.shape))])

    def swap(self, a: int, b: int) -> Var:
        return Var(self.value.swapaxes(a, b), [(self, lambda g: g.swapaxes(a, b))])

    def __getitem__(self, index: object) -> Var:
        def back(g: Array) -> Array:
            whole = np.zeros(self.shape)
            np.add.at(whole, index, g)  # type: ignore[call-overload]
            return whole

        return Var(self.value[index], [(self, back)])  # type: ignore[index]


def logsumexp(columns: Var) -> Var:
    """Over the last axis of ``[B, N]``, kept."""
    peak = columns.value.max(1, keepdims=True)
    total = (columns - peak).exp().sum(1)
    return total.each(np.log, 1 / total.value) + peak


def as_var(value: object) -> Var:
    return value if isinstance(value, Var) else Var(value)


def stack(parts: Sequence[Var], axis: int) -> Var:
    """``np.stack``."""
    parents = [(p, lambda g, i=i: g.take(i, axis)) for i, p in enumerate(parts)]
    return Var(np.stack([p.value for p in parts], axis), parents)


def join(parts: Sequence[Var], axis: int = -1) -> Var:
    """``np.concatenate``."""
    edges = np.cumsum([0] + [p.shape[axis] for p in parts])
    parents = [
        (p, lambda g, a=a, b=b: g.take(np.arange(a, b), axis))
        for p, a, b in zip(parts, edges[:-1], edges[1:], strict=True)
    ]
    return Var(np.concatenate([p.value for p in parts], axis), parents)


def fold(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Sums what broadcasting repeated."""
    if gradient.shape == shape:
        return gradient
    gradient = gradient.sum(tuple(range(gradient.ndim - len(shape))))
    repeated = tuple(i for i, n in enumerate(shape) if n == 1 and gradient.shape[i] != 1)
    return gradient.sum(repeated, keepdims=True)


def gradients(loss: Var, wanted: dict[str, Var]) -> dict[str, Array]:
    """The gradient of a scalar by name; zeros where it does not depend."""
    order: list[Var] = []
    seen: set[int] = set()

    def visit(var: Var) -> None:
        if id(var) not in seen:
            seen.add(id(var))
            for parent, _ in var.parents:
                visit(parent)
            order.append(var)

    visit(loss)
    found = {id(loss): np.ones(loss.shape)}
    for var in reversed(order):
        gradient = found.get(id(var))
        for parent, back in var.parents if gradient is not None else ():
            found[id(parent)] = found.get(id(parent), 0.0) + back(gradient)
    return {name: found.get(id(v), np.zeros(v.shape)) for name, v in wanted.items()}
