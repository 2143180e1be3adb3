"""Observations that are histories: the last days of an episode, and what holds in all of it.

Tables and simulators hold *day rows* only, ``[N, static + features]``; windows of K days are index
views of them and never stored. What agents see is ``[..., static + K * features]``, in the order in
which gymnasium flattens ``Dict(static=[static], temporal=[K, features])``: the present row's static
numbers, then the days, the oldest first. Days before an episode's first are zeros, after the
transform.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import Tensor

from baselines.contract import Batch, Spec
from suites.datasets.store import Dataset
from suites.datasets.transforms import Transform

Floats = npt.NDArray[np.float64]
View = Callable[[Floats, npt.NDArray[np.bool_]], Floats]


@dataclass(frozen=True)
class History:
    """The sizes of such an observation.

    Attributes:
        days: K.
        static: numbers that hold in all of an episode; the first of a day row.
        features: numbers of a day.
    """

    days: int
    static: int
    features: int

    @classmethod
    def of(cls, space: spaces.Space[Any]) -> History | None:
        """Of a space of observations; None if these are no histories."""
        if not isinstance(space, spaces.Dict):
            return None
        (static,), (days, features) = space["static"].shape, space["temporal"].shape  # type: ignore[misc]
        return cls(int(days), int(static), int(features))

    @property
    def row(self) -> int:
        """Numbers of a day row."""
        return self.static + self.features

    @property
    def size(self) -> int:
        """Numbers of an observation, as agents see it."""
        return self.static + self.days * self.features

    def seen(self, static: Tensor, temporal: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Raw windows, as an environment shows them, as the agent sees them.

        Days before the first one that holds any number but 0 are taken as before the episode.

        Args:
            static: ``[E, static]``.
            temporal: ``[E, K, features]``.
            shift: of the transform, ``[static + features]``.
            scale: same.
        """
        n = self.static
        begun = (temporal != 0).any(-1).cumsum(-1) > 0
        days = (temporal - shift[n:]) * scale[n:] * begun.unsqueeze(-1)
        return torch.cat([(static - shift[:n]) * scale[:n], days.flatten(-2)], -1)


class Windows:
    """Widens batches of day rows to windows of the days up to each.

    Args:
        history: its sizes.
        dataset: the packed table of day rows, in the order of time.
        transform: of observations.
        table: the dataset's, on the device where batches are made.
        dtype: of batches.
    """

    def __init__(
        self,
        history: History,
        dataset: Dataset,
        transform: Transform,
        table: Tensor,
        dtype: torch.dtype,
    ) -> None:
        self.history = history
        start, stop = dataset.card["columns"]["observations"]
        self.days = table[:, start + history.static : stop]
        starts = dataset.episode_starts
        lengths = np.diff(np.append(starts, len(dataset.table)))
        self.first = torch.from_numpy(np.repeat(starts, lengths)).to(table.device)
        self.offsets = torch.arange(1 - history.days, 1, device=table.device)
        self.shift, self.scale = (
            torch.tensor(values[history.static :], dtype=dtype, device=table.device)
            for values in (transform.shift, transform.scale)
        )

    @classmethod
    def of(
        cls,
        spec: Spec,
        dataset: Dataset,
        transform: Transform,
        table: Tensor,
    ) -> Windows | None:
        """Of a task's data; None where its observations are no histories."""
        history = History.of(spec.observation_space)
        if history is None:
            return None
        return cls(history, dataset, transform, table, spec.torch_dtype())

    def until(self, index: Tensor) -> Tensor:
        """The last K days at some rows ``[...]``, transformed, ``[..., K * features]``."""
        rows = index.unsqueeze(-1) + self.offsets
        real = rows >= self.first[index].unsqueeze(-1)
        found = self.days.index_select(0, rows.clamp(min=0).flatten()).to(self.shift.dtype)
        found = found.sub_(self.shift).mul_(self.scale).mul_(real.reshape(-1, 1))
        return found.reshape(*index.shape, -1)

    def widen(self, batch: Batch, index: Tensor) -> None:
        """Puts windows in place of the day rows of a batch, which are transformed already.

        Args:
            batch: ``observations`` and ``next_observations``, if it has them.
            index: the table's rows that they are of.
        """
        n, days = self.history.static, self.until(index)
        if (own := batch.get("observations")) is not None:
            batch["observations"] = torch.cat([own[..., :n], days], -1)
        if (following := batch.get("next_observations")) is not None:
            later = days[..., self.history.features :]
            batch["next_observations"] = torch.cat(
                [following[..., :n], later, following[..., n:]], -1
            )


class Recent:
    """The last days of episodes side by side, as they are played.

    Args:
        history: its sizes.
        count: episodes.
        seen: what was seen last of episodes that have begun, ``[count, size]``.
    """

    def __init__(self, history: History, count: int, seen: Floats | None = None) -> None:
        self.static = history.static
        self.days = np.zeros((count, history.days, history.features))
        if seen is not None:
            self.days[:] = seen[:, self.static :].reshape(self.days.shape)

    def __call__(self, rows: Floats, first: npt.NDArray[np.bool_]) -> Floats:
        """What is seen, ``[count, size]``, of the next day's rows ``[count, static + features]``.

        Args:
            rows: transformed.
            first: where an episode begins, ``[count]``.
        """
        self.days[first] = 0.0
        self.days = np.concatenate([self.days[:, 1:], rows[:, None, self.static :]], axis=1)
        return np.concatenate([rows[:, : self.static], self.days.reshape(len(rows), -1)], axis=1)


def viewing(space: spaces.Space[Any], count: int, seen: Floats | None = None) -> View:
    """What ``count`` episodes in lockstep show an agent, step by step, from transformed rows.

    Args:
        space: of observations.
        count: episodes.
        seen: what they have shown last, ``[count, size]``; None where all are about to begin.

    Returns:
        A :class:`Recent` where observations are histories; elsewhere rows are what is seen.
    """
    history = History.of(space)
    return (lambda rows, first: rows) if history is None else Recent(history, count, seen)
