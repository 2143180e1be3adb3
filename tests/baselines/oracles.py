"""What the oracle tests share: numpy networks and Adam, made-up batches, and mutants of a module.

An oracle trains one seed with its own forward pass, backward pass and Adam, in float64, written
from the equations of the agent's docs page; the agent trains a stack. After a few updates every
weight, target and metric must be the same.
"""

from __future__ import annotations

import functools
import importlib
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces

from baselines.common import Noise
from baselines.contract import Batch, Phase, Spec, Step
from baselines.registry import Registry

Array = npt.NDArray[np.float64]
Weights = dict[str, Array]

SEEDS, BATCH, OBSERVATION = (5, 9), 12, 4
LOW, HIGH = np.array([-0.5, -3.0]), np.array([1.5, -1.0])
UPDATES = 7


# The oracle ----------------------------------------------------------------------------------


def forward(weights: Weights, inputs: Array) -> list[Array]:
    """Inputs of every layer, then the output; rectifiers between layers."""
    seen, layers = [inputs], sum(name.startswith("weight") for name in weights)
    for i in range(layers):
        out = seen[-1] @ weights[f"weight{i}"] + weights[f"bias{i}"][0]
        seen.append(np.maximum(out, 0) if i < layers - 1 else out)
    return seen


def backward(weights: Weights, seen: list[Array], gradient: Array) -> tuple[Weights, Array]:
    """Gradients of the weights and of the inputs, from the gradient of the output."""
    found = {}
    for i in reversed(range(len(seen) - 1)):
        found[f"weight{i}"] = seen[i].T @ gradient
        found[f"bias{i}"] = gradient.sum(0, keepdims=True)
        gradient = gradient @ weights[f"weight{i}"].T
        if i:
            gradient = gradient * (seen[i] > 0)
    return found, gradient


@dataclass
class NumpyAdam:
    """Adam (Kingma & Ba 2015, algorithm 1)."""

    lr: float
    count: int = 0
    moments: dict[str, tuple[Array, Array]] = field(default_factory=dict)

    def step(self, weights: Weights, gradients: Weights, rate: float = 1.0) -> None:
        self.count += 1
        for name, g in gradients.items():
            m, v = self.moments.get(name, (np.zeros_like(g), np.zeros_like(g)))
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            self.moments[name] = m, v
            m_hat, v_hat = m / (1 - 0.9**self.count), v / (1 - 0.999**self.count)
            weights[name] = weights[name] - rate * self.lr * m_hat / (np.sqrt(v_hat) + 1e-8)


def follow(targets: Weights, weights: Weights, tau: float) -> None:
    for name, value in weights.items():
        targets[name] = (1 - tau) * targets[name] + tau * value


def take(agent: Any, part: str, seed: int, member: int | None = None) -> Weights:
    """One seed's weights (of one ensemble member) as float64 arrays."""
    values = {name: v.detach()[seed].numpy().copy() for name, v in agent.parts[part].items()}
    return values if member is None else {name: v[member] for name, v in values.items()}


class Oracle:
    """What the oracles share: one seed's copy of the agent's weights."""

    nets: tuple[str, ...] = ("actor",)
    twins: tuple[str, ...] = ()

    def __init__(self, agent: Any, seed: int) -> None:
        self.c, self.count = agent.config if hasattr(agent, "config") else None, 0
        for name in self.nets:
            setattr(self, name, take(agent, name, seed))
        for name in self.twins:
            setattr(self, name, [take(agent, name, seed, member) for member in (0, 1)])

    def compare(self, agent: Any, seed: int) -> None:
        for name in self.nets:
            self._same(name, getattr(self, name), take(agent, name, seed))
        for name in self.twins:
            for member, mine in enumerate(getattr(self, name)):
                self._same(name, mine, take(agent, name, seed, member))

    @staticmethod
    def _same(part: str, mine: Weights, theirs: Weights) -> None:
        for name, value in mine.items():
            np.testing.assert_allclose(theirs[name], value, 1e-8, 1e-8, err_msg=f"{part} {name}")


# The comparison ------------------------------------------------------------------------------


def make_spec(updates: int = UPDATES) -> Spec:
    return Spec(
        spaces.Box(-np.inf, np.inf, (OBSERVATION,), np.float64),
        spaces.Box(LOW, HIGH, dtype=np.float64),
        phases=(Phase("offline", updates),),
        dtype="float64",
    )


def make_batch(number: int) -> Batch:
    """Rows that end by termination, by truncation, and not at all."""
    rng = np.random.default_rng(number)
    shape = (len(SEEDS), BATCH)
    ended = np.tile(np.arange(BATCH) % 3, (len(SEEDS), 1))
    arrays = {
        "observations": rng.normal(size=(*shape, OBSERVATION)),
        "actions": rng.uniform(LOW, HIGH, (*shape, 2)),
        "rewards": rng.normal(size=shape),
        "next_observations": rng.normal(size=(*shape, OBSERVATION)),
        "terminations": (ended == 0).astype(float),
        "truncations": (ended == 1).astype(float),
    }
    return {name: torch.from_numpy(value) for name, value in arrays.items()}


def shake(agent: Any) -> None:
    """Makes an agent's weights large, and takes targets and log std away from their start."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in agent.parts.values():
            if isinstance(part, dict):
                for key, value in part.items():
                    if key.startswith(("weight", "bias", "log_std")):
                        value += 0.4 * torch.randn(
                            value.shape, generator=generator, dtype=value.dtype
                        )


def compare(
    agent: Any,
    oracles: Sequence[Any],
    draw: Callable[[Noise], Sequence[torch.Tensor]],
    batches: Callable[[int], Batch] = make_batch,
) -> None:
    """Trains an agent and one oracle per seed side by side.

    Args:
        agent: the stack.
        oracles: have ``update(batch, *draws)`` -> metrics, and ``compare(agent, seed)``.
        draw: repeats the draws of one update, ``[S, ...]`` each; an oracle gets its seed's.
        batches: the batch of an update; actions mapped to [-1, 1] are added to it as "unit".

    Raises:
        AssertionError: where they first differ.
    """
    noise = Noise.for_seeds(SEEDS, "update", dtype=torch.float64)
    for number in range(UPDATES):
        batch = batches(number)
        metrics = agent.update(batch, "offline")
        draws = [drawn.numpy() for drawn in draw(noise)]
        for i, oracle in enumerate(oracles):
            mine = {key: value[i].numpy() for key, value in batch.items()}
            mine["unit"] = 2 * (mine["actions"] - LOW) / (HIGH - LOW) - 1
            for key, value in oracle.update(mine, *(drawn[i] for drawn in draws)).items():
                np.testing.assert_allclose(metrics[key][i].item(), value, 1e-8, 1e-8, err_msg=key)
    for i, oracle in enumerate(oracles):
        oracle.compare(agent, i)


def acting_step() -> Step:
    """A step of ``BATCH`` episodes that begin."""
    observations = make_batch(99)["observations"]
    first = torch.ones(observations.shape[:2], dtype=torch.bool)
    return {
        "observations": observations,
        "rewards": torch.zeros(first.shape, dtype=torch.float64),
        "first": first,
        "active": first,
        "noise": Noise.for_episodes(SEEDS, "evaluation", 0, range(BATCH), dtype=torch.float64),
    }


def to_box(unit: Array) -> Array:
    """[-1, 1] -> the box, clipped."""
    return LOW + (np.clip(unit, -1, 1) + 1) / 2 * (HIGH - LOW)


# Mutants -------------------------------------------------------------------------------------


Edit = tuple[str, str]  # old text, new text


def rebuild(module: str, edits: Sequence[Edit] = ()) -> types.ModuleType:
    """A fresh copy of a module (of ``baselines``, if not told) with some of its text replaced."""
    original = importlib.import_module(full_name(module))
    text = Path(str(original.__file__)).read_text()
    for old, new in edits:
        if old not in text:  # no AssertionError: that would pass for a kill
            raise LookupError(f"{module} no longer contains {old!r}: rewrite this mutant")
        text = text.replace(old, new)
    copy = types.ModuleType(original.__name__)
    exec(compile(text, str(original.__file__), "exec"), copy.__dict__)
    return copy


def full_name(module: str) -> str:
    """ "nets" is ``baselines.nets``; "fastq.agent" is itself."""
    return module if "." in module else f"baselines.{module}"


@functools.cache
def targets() -> dict[str, str]:
    """Where every agent's class is; looking for installed agents takes longer than a mutant."""
    return dict(Registry().targets)


def load(name: str, module: str = "", edits: Sequence[Edit] = ()) -> type[Any]:
    """An agent's class, from a copy of its module, with a mutant in it or in a module it uses."""
    target: Any = targets()[name]
    home, _, cls = target.partition(":")
    if module == "" or full_name(module) == home:
        return vars(rebuild(home, edits))[cls]
    mutant, agent = vars(rebuild(module, edits)), vars(rebuild(home))
    for key in mutant.keys() & agent.keys():
        if getattr(mutant[key], "__module__", "") == full_name(module):
            agent[key] = mutant[key]
    return agent[cls]


Mutant = tuple[Any, ...]  # agent, module, edits


def mutant_name(mutant: Mutant) -> str:
    """A mutant's name in the list of tests."""
    return f"{mutant[0]}: {mutant[2][0]} -> {mutant[2][1]}"[:70]
