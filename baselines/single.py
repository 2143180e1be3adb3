"""From a learner of one seed to a contract agent: S objects and a loop."""

from __future__ import annotations

import contextlib
import functools
import inspect
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from baselines.common import copy_state, derive_seed
from baselines.contract import Agent, Batch, Memory, Metrics, Needs, Spec, Step


class SingleSeedAgent(Protocol):
    """What :func:`stack` asks of a class; ``Config``, ``version`` and ``needs`` as in the contract.

    ``update`` gets tensors ``[B, ...]`` and may do any amount of work. ``act`` gets observations
    ``[E, ...]`` and the memory it returned last (None where episodes begin): a dict of tensors
    ``[E, ...]``, or None. ``state_dict`` may hold ``bytes``.

    Each learner has global random generators (``torch``, ``numpy``, ``random``) of its own, seeded
    from its seed and saved with it, so that ordinary code that draws from them keeps the contract.
    What ``act`` draws is forgotten, because acting must not disturb training. Where it explores, in
    an online phase, what it draws is new at every step; an ``act`` that takes ``explore`` is told.
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

    asks = "explore" in inspect.signature(cls.act).parameters

    class Stacked:
        Config: ClassVar = cls.Config
        version: ClassVar[int] = cls.version
        presets: ClassVar = getattr(cls, "presets", {})
        needs = staticmethod(cls.needs)

        def __init__(self, spec: Spec, config: Any, seeds: Sequence[int]) -> None:
            self.random = [GlobalRandom(seed, spec.device) for seed in seeds]
            self.learners = []
            for seed, generators in zip(seeds, self.random, strict=True):
                with generators.swapped_in():
                    self.learners.append(cls(spec, config, seed))

        def update(self, batch: Batch, phase: str) -> Metrics:
            rows = []
            for i, (learner, generators) in enumerate(zip(self.learners, self.random, strict=True)):
                mine = {field: value[i] for field, value in batch.items()}
                with generators.swapped_in():
                    rows.append(learner.update(mine, phase))
            return {
                name: torch.tensor([float(row[name]) for row in rows], dtype=torch.float64)
                for name in rows[0]
            }

        def act(
            self, step: Step, memory: Memory | None = None, *, explore: bool = False
        ) -> tuple[Tensor, Memory | None]:
            results = []
            told: dict[str, Any] = {"explore": True} if explore and asks else {}
            numbers = step["noise"].integers(2**63 - 1)[:, 0].tolist() if explore else None
            for i, (learner, generators) in enumerate(zip(self.learners, self.random, strict=True)):
                mine = None if memory is None else {key: value[i] for key, value in memory.items()}
                act = functools.partial(learner.act, **told)
                with generators.swapped_in(keep=False):
                    if numbers is not None:
                        generators.seed(numbers[i])
                    results.append(_act(act, step["observations"][i], step["first"][i], mine))
            actions = torch.stack([action for action, _ in results])
            memories = [remembered for _, remembered in results if remembered is not None]
            if not memories:
                return actions, None
            return actions, {key: torch.stack([m[key] for m in memories]) for key in memories[0]}

        def state_dict(self) -> dict[str, Any]:
            return {
                str(i): {"learner": copy_state(learner.state_dict()), "random": generators.state}
                for i, (learner, generators) in enumerate(
                    zip(self.learners, self.random, strict=True)
                )
            }

        def load_state_dict(self, state: Mapping[str, Any]) -> None:
            if len(state) != len(self.learners):
                raise ValueError(
                    f"the saved state is of {len(state)} seeds and this agent has "
                    f"{len(self.learners)}; build it with the same seeds"
                )
            for i, (learner, generators) in enumerate(zip(self.learners, self.random, strict=True)):
                learner.load_state_dict(copy_state(state[str(i)]["learner"]))
                generators.state = copy_state(state[str(i)]["random"])

    Stacked.__name__ = Stacked.__qualname__ = cls.__name__
    Stacked.__doc__, Stacked.__module__ = cls.__doc__, cls.__module__
    return cast("type[Agent]", Stacked)


class GlobalRandom:
    """The global random generators as one learner sees them: its own, though it shares a process.

    Attributes:
        state: of torch's, numpy's and Python's generators, in types that ``torch.save`` keeps.
            Never changed in place.
    """

    def __init__(self, seed: int, device: str) -> None:
        self.device = torch.device(device)
        outside = self._read()
        self.seed(derive_seed(seed, "global"))
        self.state = self._read()
        self._write(outside)

    @staticmethod
    def seed(number: int) -> None:
        """Seeds the process's generators, whosever they are now."""
        torch.manual_seed(number)
        np.random.seed(number % 2**32)  # noqa: NPY002
        random.seed(number)

    @contextlib.contextmanager
    def swapped_in(self, keep: bool = True) -> Iterator[None]:
        """Makes these the global generators for a while; ``keep`` what they have moved on to."""
        outside = self._read()
        self._write(self.state)
        try:
            yield
            if keep:
                self.state = self._read()
        finally:
            self._write(outside)

    def _read(self) -> dict[str, Any]:
        kind, keys, *rest = np.random.get_state()  # noqa: NPY002
        state = {
            "torch": torch.get_rng_state(),
            "numpy": [kind, torch.from_numpy(np.asarray(keys, np.int64)), *rest],
            "python": random.getstate(),
        }
        if self.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.device)
        return state

    def _write(self, state: Mapping[str, Any]) -> None:
        kind, keys, *rest = state["numpy"]
        torch.set_rng_state(state["torch"])
        np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
        random.setstate(state["python"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], self.device)


def _act(
    act: Callable[[Tensor, Memory | None], tuple[Tensor, Memory | None]],
    observations: Tensor,
    first: Tensor,
    memory: Memory | None,
) -> tuple[Tensor, Memory | None]:
    """Acts in all episodes; those that begin are asked apart, because they have no memory."""
    if memory is None or bool(first.all()):
        return act(observations, None)
    actions, remembered = act(observations, memory)
    if bool(first.any()):
        fresh, begun = act(observations[first], None)
        actions = actions.clone()
        actions[first] = fresh
        if remembered is not None and begun is not None:
            remembered = {key: value.clone() for key, value in remembered.items()}
            for key, value in begun.items():
                remembered[key][first] = value
    return actions, remembered
