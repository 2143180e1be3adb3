"""From a learner of one seed to a contract agent: S objects and a loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import Tensor

from baselines.common import copy_state
from baselines.contract import Agent, Batch, Memory, Metrics, Needs, Spec, Step


class SingleSeedAgent(Protocol):
    """What :func:`stack` asks of a class; ``Config``, ``version`` and ``needs`` as in the contract.

    ``update`` gets tensors ``[B, ...]`` and may do any amount of work. ``act`` gets observations
    ``[E, ...]`` and the memory it returned last (None where episodes begin): a dict of tensors
    ``[E, ...]``, or None. ``state_dict`` may hold ``bytes``.
    """

    Config: ClassVar[type[Any]]
    version: ClassVar[int]

    @staticmethod
    def needs(config: Any) -> Needs: ...

    def __init__(self, spec: Spec, config: Any, seed: int) -> None: ...

    def update(self, batch: Batch, phase: str) -> Mapping[str, float]: ...

    def act(self, observations: Tensor, memory: Memory | None) -> tuple[Tensor, Memory | None]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def stack(cls: type[SingleSeedAgent]) -> type[Agent]:
    """Makes a contract agent of a single-seed class.

    Example:
        ``AGENTS = {"my_agent": stack(MyAgent)}``
    """

    class Stacked:
        Config: ClassVar = cls.Config
        version: ClassVar[int] = cls.version
        presets: ClassVar = getattr(cls, "presets", {})
        needs = staticmethod(cls.needs)

        def __init__(self, spec: Spec, config: Any, seeds: Sequence[int]) -> None:
            self.learners = [cls(spec, config, seed) for seed in seeds]

        def update(self, batch: Batch, phase: str) -> Metrics:
            rows = [
                learner.update({field: value[i] for field, value in batch.items()}, phase)
                for i, learner in enumerate(self.learners)
            ]
            return {
                name: torch.tensor([float(row[name]) for row in rows], dtype=torch.float64)
                for name in rows[0]
            }

        def act(
            self, step: Step, memory: Memory | None = None, *, explore: bool = False
        ) -> tuple[Tensor, Memory | None]:
            results = [
                _act_one(learner, step["observations"][i], step["first"][i], _row(memory, i))
                for i, learner in enumerate(self.learners)
            ]
            actions = torch.stack([action for action, _ in results])
            memories = [remembered for _, remembered in results if remembered is not None]
            if not memories:
                return actions, None
            return actions, {key: torch.stack([m[key] for m in memories]) for key in memories[0]}

        def state_dict(self) -> dict[str, Any]:
            return {str(i): copy_state(a.state_dict()) for i, a in enumerate(self.learners)}

        def load_state_dict(self, state: Mapping[str, Any]) -> None:
            for i, learner in enumerate(self.learners):
                learner.load_state_dict(copy_state(state[str(i)]))

    Stacked.__name__ = Stacked.__qualname__ = cls.__name__
    Stacked.__doc__ = cls.__doc__
    return cast("type[Agent]", Stacked)


def _row(memory: Memory | None, i: int) -> Memory | None:
    return None if memory is None else {key: value[i] for key, value in memory.items()}


def _act_one(
    learner: SingleSeedAgent, observations: Tensor, first: Tensor, memory: Memory | None
) -> tuple[Tensor, Memory | None]:
    """Acts in all episodes; those that begin are asked apart, because they have no memory."""
    if memory is None or bool(first.all()):
        return learner.act(observations, None)
    actions, remembered = learner.act(observations, memory)
    if bool(first.any()):
        fresh, begun = learner.act(observations[first], None)
        actions = actions.clone()
        actions[first] = fresh
        if remembered is not None and begun is not None:
            remembered = {key: value.clone() for key, value in remembered.items()}
            for key, value in begun.items():
                remembered[key][first] = value
    return actions, remembered
