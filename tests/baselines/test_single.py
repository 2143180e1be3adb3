"""Learners of one seed, stacked: memory, metrics, states and global generators."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from baselines.common import Noise
from baselines.contract import Batch, Memory, Needs, Spec, Step
from baselines.single import stack


@dataclass(frozen=True)
class Nothing:
    """No settings."""


class Counter:
    """Counts the steps of every episode; draws from all three global generators."""

    Config: ClassVar = Nothing
    version: ClassVar[int] = 3
    presets: ClassVar = {"check": {}}

    @staticmethod
    def needs(config: Nothing) -> Needs:
        return Needs(("observations",))

    def __init__(self, spec: Spec, config: Nothing, seed: int) -> None:
        self.seed, self.total = seed, 0.0
        self.start = torch.rand(()).item()

    def update(self, batch: Batch, phase: str) -> Mapping[str, float]:
        drawn = torch.rand(()).item() + np.random.random() + random.random()  # noqa: NPY002
        self.total += float(batch["observations"].sum())
        return {"drawn": drawn, "total": self.total, "start": self.start}

    def act(self, observations: Tensor, memory: Memory | None) -> tuple[Tensor, Memory | None]:
        np.random.random(), random.random(), torch.rand(())  # noqa: NPY002
        count = torch.zeros(len(observations)) if memory is None else memory["count"] + 1
        return torch.stack([count, torch.full_like(count, self.seed)], -1), {"count": count}

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total, "note": b"bytes are welcome"}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.total = state["total"]


SPEC = Spec(spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (2,)))


def make(*seeds: int) -> Any:
    return stack(Counter)(SPEC, Nothing(), seeds)


def step(first: list[list[bool]]) -> Step:
    flags = torch.tensor(first)
    return {
        "observations": torch.zeros(*flags.shape, 2),
        "rewards": torch.zeros(flags.shape),
        "first": flags,
        "active": torch.ones_like(flags),
        "noise": Noise.for_seeds([0], "x"),
    }


def test_the_class_keeps_its_description() -> None:
    cls: Any = stack(Counter)
    assert (cls.__name__, cls.version, cls.Config) == ("Counter", 3, Nothing)
    assert (cls.__module__, cls.__doc__) == (Counter.__module__, Counter.__doc__)
    assert cls.presets == Counter.presets
    assert cls.needs(Nothing()).fields == ("observations",)


def test_memory_with_mixed_first() -> None:
    agent = make(1, 2)
    counts, memory = [], None
    for first in (
        [[True, True, True], [True, True, True]],
        [[False, False, False], [False, False, False]],
        [[False, True, False], [False, False, False]],
        [[False, False, False], [True, True, True]],
    ):
        actions, memory = agent.act(step(first), memory)
        counts.append(actions[..., 0].tolist())
    assert counts[1] == [[1, 1, 1], [1, 1, 1]]
    assert counts[2] == [[2, 0, 2], [2, 2, 2]]
    assert counts[3] == [[3, 1, 3], [0, 0, 0]]
    assert actions[..., 1].tolist() == [[1] * 3, [2] * 3]


def test_metrics_are_stacked() -> None:
    agent = make(1, 2)
    batch = {"observations": torch.stack([torch.ones(4, 2), torch.full((4, 2), 2.0)])}
    metrics = agent.update(batch, "offline")
    assert metrics["total"].tolist() == [8, 16]
    assert metrics["drawn"][0] != metrics["drawn"][1]


def test_each_learner_has_global_generators_of_its_own() -> None:
    batch = {"observations": torch.zeros(2, 1, 2)}
    stacked = make(1, 2)
    before = torch.get_rng_state(), np.random.get_state()[1].sum(), random.getstate()  # noqa: NPY002
    found = [stacked.update(batch, "offline") for _ in range(3)]
    after = torch.get_rng_state(), np.random.get_state()[1].sum(), random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    for i, seed in enumerate((1, 2)):
        alone = make(seed)
        for metrics in found:
            alone.act(step([[True]]))  # acting does not move them
            mine = alone.update({"observations": torch.zeros(1, 1, 2)}, "offline")
            assert mine["drawn"].item() == metrics["drawn"][i].item()
            assert mine["start"].item() == metrics["start"][i].item()


def test_generators_are_saved_with_the_learner() -> None:
    batch = {"observations": torch.zeros(2, 1, 2)}
    agent, other = make(1, 2), make(3, 4)
    agent.update(batch, "offline")
    state = agent.state_dict()
    expected = [agent.update(batch, "offline")["drawn"].tolist() for _ in range(3)]
    other.load_state_dict(state)
    assert [other.update(batch, "offline")["drawn"].tolist() for _ in range(3)] == expected


def test_a_state_of_other_seeds_is_refused() -> None:
    with pytest.raises(ValueError, match="of 2 seeds and this agent has 1"):
        make(1).load_state_dict(make(1, 2).state_dict())
