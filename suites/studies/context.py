"""What a study gets and gives, and how it is run.

A study is a module with ``run(context) -> list[Outcome]``, an outcome per seed. It raises
:class:`DoesNotApply` where the agent or the data have nothing to study. What it draws it draws from
:meth:`Context.rng`, which depends on study, data and seed alone: it gives the same numbers whenever
it is repeated, and all agents of one seed are studied on the same states.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from baselines.common import derive_seed
from baselines.contract import Spec
from suites.datasets.history import Windows
from suites.datasets.store import Dataset
from suites.datasets.transforms import Transform
from suites.job import Job
from suites.studies import STUDIES

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_CHUNK = 4096  # rows of a seed that an agent's method gets at a time


class DoesNotApply(Exception):  # noqa: N818 - an answer, not an error
    """There is nothing to study; the message says why."""


class StudyError(RuntimeError):
    """An agent's optional method broke the contract; the message says how."""


@dataclass(frozen=True)
class Outcome:
    """What a study found out about one seed.

    Attributes:
        numbers: for the record, plain JSON.
        arrays: for ``study-<name>.npz`` beside it; nothing is written if there are none.
    """

    numbers: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """A trained stack and what it was trained on.

    Attributes:
        agent: S trained seeds.
        spec: what the agent knew of its task.
        job: task, seeds, settings.
        dataset: the data it learned from, untransformed.
        transform: from the data to what the agent sees.
        policy_groups: the group of every logging policy, ``[policies]``; None where the data does
            not say who acted.
        curves: for every seed its list of {update, metrics {name: number}}.
        listen: to be called now and then, as a sign of life.
    """

    agent: Any
    spec: Spec
    job: Job
    dataset: Dataset
    transform: Transform
    policy_groups: Ints | None
    curves: Sequence[list[dict[str, Any]]]
    listen: Callable[[], None]

    @property
    def seeds(self) -> list[int]:
        """The S training seeds, in the stack's order."""
        return self.job.seeds

    def rng(self, study: str, i: int) -> np.random.Generator:
        """The source of randomness of a study of the stack's i-th seed."""
        data = str(self.dataset.card.get("id", ""))
        return np.random.default_rng(derive_seed("study", study, data, self.seeds[i]))

    def groups_of(self, rows: Ints) -> Ints:
        """The group of the policy that acted in each of some rows, in the shape of ``rows``.

        Raises:
            DoesNotApply: if the data does not say who acted.
        """
        if self.policy_groups is None or "policy_ids" not in self.dataset.fields:
            raise DoesNotApply("the data does not say which policies acted")
        ids = self.dataset.column("policy_ids")[rows].astype(np.int64)
        return np.asarray(self.policy_groups[ids])

    def raw(self, name: str, rows: Ints) -> Floats:
        """A field of the data in some rows ``[S, B]``, untransformed, ``[S, B, ...]``."""
        return np.asarray(self.dataset.column(name)[rows], np.float64)

    def tensor(self, values: npt.NDArray[Any]) -> Tensor:
        """An array as the agent takes it: its type and device, integers as int64."""
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        dtype = self.spec.torch_dtype() if tensor.is_floating_point() else torch.int64
        return tensor.to(self.spec.device, dtype)

    @cached_property
    def windows(self) -> Windows | None:
        """Of the data's rows, where observations are histories."""
        table = torch.from_numpy(self.dataset.table)
        return Windows.of(self.spec, self.dataset, self.transform, table)

    def seen(self, rows: Ints) -> Tensor:
        """The observations of the data in some rows ``[S, B]`` as the agent sees them."""
        batch = {
            "observations": self.tensor(self.transform.observations(self.raw("observations", rows)))
        }
        if self.windows is not None:
            self.windows.widen(batch, torch.from_numpy(rows))
        return batch["observations"]

    @torch.no_grad()
    def ask(self, method: str, *stacked: Tensor | None) -> Any:
        """Calls an optional method of the agent in pieces along the second axis, and joins them.

        Args:
            method: whose result is a tensor ``[S, B, ...]``, or a mapping of such and other things.
            *stacked: its arguments, tensors ``[S, B, ...]`` or None; the first is a tensor.

        Raises:
            DoesNotApply: if the method says by a ValueError that this configuration has nothing.
            StudyError: if it returns anything else than it should.
        """
        first = stacked[0]
        assert first is not None
        found = []
        for start in range(0, first.shape[1], _CHUNK):
            piece = slice(start, start + _CHUNK)
            arguments = [None if value is None else value[:, piece] for value in stacked]
            try:
                found.append(getattr(self.agent, method)(*arguments))
            except ValueError as why:
                raise DoesNotApply(str(why)) from why
            self.listen()
        if isinstance(found[0], Mapping):
            return {
                key: self._joined(f'{method}: "{key}"', [part[key] for part in found], first)
                if isinstance(value, Tensor)
                else value
                for key, value in found[0].items()
            }
        return self._joined(method, found, first)

    def _joined(self, what: str, parts: list[Any], like: Tensor) -> Floats:
        """Pieces ``[S, b, ...]`` as one finite array ``[S, B, ...]``."""
        if not all(isinstance(part, Tensor) for part in parts):
            raise StudyError(f"{what} returned {type(parts[0]).__name__}; a tensor is asked for")
        shape = (len(like), sum(part.shape[1] if part.dim() > 1 else 0 for part in parts))
        if shape != tuple(like.shape[:2]) or any(len(part) != len(like) for part in parts):
            raise StudyError(
                f"{what} returned a tensor of shape {tuple(parts[0].shape)}; its first two axes "
                f"are seeds and rows, here {tuple(like.shape[:2])}"
            )
        joined = torch.cat(parts, 1).detach().double().cpu().numpy()
        if not np.isfinite(joined).all():
            raise StudyError(f"{what} returned NaN or infinity")
        return np.asarray(joined, np.float64)

    def value(self, rows: Ints, actions: Floats, groups: Ints | None) -> Floats:
        """Predicted Q ``[S, B]`` in the environment's units of reward.

        Args:
            rows: of the data, whose observations are judged in, ``[S, B]``.
            actions: ``[S, B, A]``.
            groups: whose representation to judge from, ``[S, B]``; None for the acting one.
        """
        seen = self.seen(rows)
        known = None if groups is None else self.tensor(groups)
        values = np.asarray(self.ask("value", seen, self.tensor(actions), known))
        if values.ndim != 2:
            raise StudyError(f"value returned shape {values.shape}; [S, B] is asked for")
        return values / self.transform.reward_scale

    def discounts(self) -> Floats:
        """The discount that each seed's values are of, ``[S]``."""
        found = torch.as_tensor(self.agent.discounts()).detach().double().cpu().numpy()
        if found.shape != (len(self.seeds),):
            raise StudyError(
                f"discounts returned shape {found.shape}; ({len(self.seeds)},) is asked for"
            )
        return np.asarray(found, np.float64)


def run_study(name: str, context: Context) -> list[Outcome]:
    """Runs one study; says of agents that it cannot study that it does not apply."""
    study, count = STUDIES[name], len(context.seeds)
    try:
        for method in study.methods:
            if not callable(getattr(context.agent, method, None)):
                raise DoesNotApply(f'the agent has no method "{method}"')
        found = importlib.import_module(study.module).run(context)
    except DoesNotApply as why:
        return [Outcome({"applies": False, "why": str(why)})] * count
    return [
        Outcome({"applies": True, **plain(outcome.numbers)}, outcome.arrays) for outcome in found
    ]


def plain(value: Any) -> Any:
    """Numbers as JSON has them: what is not finite becomes None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
