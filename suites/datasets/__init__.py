"""Data sources. A source is named explicitly and never mixed with another in one table."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from baselines.config import UsageError, check_name

SOURCES = {
    "local": "suites.datasets.local",
    "file": "suites.datasets.file",
    "d4rl": "suites.datasets.d4rl",
    "minari": "suites.datasets.minari_source",
}
DATA_SUFFIXES = (".npz", ".h5", ".hdf5")  # of the files that the source "file" reads


class Source(Protocol):
    """What a data source offers, as a module or an object. None of it needs torch.

    Some sources also define ``own_task(name)`` (tasks that no catalogue has), ``key(task, place)``
    (data that the user names a place of), ``fields(task)`` (where fields differ by task),
    ``fetch(task, progress)`` (downloads) and ``SECONDS_PER_TRANSITION`` (to convert recorded data).
    """

    FIELDS: tuple[str, ...]  # fields every transition of this source has

    def missing(self, task: str) -> str | None:
        """None, or the sentence that says why this task's data is not to be had."""
        ...

    def default_size(self, task: str) -> int:
        """Transitions of the whole dataset."""
        ...

    def identity(self, task: str, size: int | None = None, seed: int = 0) -> dict[str, Any]:
        """All that the dataset's bytes depend on, its digest "id", and "env_id"; instant."""
        ...

    def is_cached(self, task: str, size: int | None = None, seed: int = 0) -> bool:
        """Whether the dataset lies ready on this machine."""
        ...

    def ensure(
        self,
        task: str,
        size: int | None = None,
        seed: int = 0,
        jobs: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> Path:
        """The dataset's folder, made first if it is not there."""
        ...


@dataclass(frozen=True)
class OwnTask:
    """A task that is not in the catalogue, as the source that has its data describes it.

    Attributes:
        id: names rows and folders; made by :func:`task_label`.
        key: what the source's functions take in place of the id, as text that means the same in
            another process: an absolute path, or the name of a dataset.
        title: the name for people.
        environment: what tasks with the same simulator and scale have in common.
        quality: of the data; tables are also pooled by it.
        version: part of a cell's identity.
        reference: returns that score 0 and 100 (raw units), and where they come from; None if they
            are not known. Then there are returns, but no scores.
        spaces: "observation" and "action" as plain JSON (:mod:`suites.spaces`); None only while the
            data is missing.
        horizon: the time limit in steps, None if there is none.
        fields: what every transition has; None for the source's ``FIELDS``.
        notes: sentences a person should read before the data is used.
    """

    id: str
    key: str
    title: str
    environment: str
    quality: str
    version: int = 1
    reference: tuple[float, float, str] | None = None
    spaces: dict[str, Any] | None = None
    horizon: int | None = None
    fields: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


def task_key(source: Source, task: str, place: Path | None) -> str:
    """What the source's functions take for a task of the catalogue.

    Args:
        source: one that defines ``key(task, place) -> str``, if a place is given.
        task: the id.
        place: the file or folder that the user named with ``--data-dir``; None for none.

    Raises:
        UsageError: if the source has no use for a place.
    """
    if place is None:
        return task
    make = getattr(source, "key", None)
    if make is None:
        raise UsageError(f"--data-dir {place}: only source d4rl takes one; leave it out")
    return str(make(task, place))


def task_fields(source: Source, key: str) -> tuple[str, ...]:
    """What every transition of a task has, where it differs by task: ``source.fields(key)``."""
    find = getattr(source, "fields", None)
    return source.FIELDS if find is None else cast("tuple[str, ...]", find(key))


def task_label(name: str) -> str:
    """A file's or dataset's name as a task's id: letters, digits, "_", "-" and "."."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "data"


def own_task(source: Source, name: str) -> OwnTask | None:
    """The source's own task of this name; None if it has none, as sources of the catalogue do.

    A source that has tasks of its own defines ``own_task(name) -> OwnTask | None``.

    Raises:
        DatasetError: if the name is plainly meant for the source and its data cannot be used.
    """
    find = getattr(source, "own_task", None)
    return None if find is None else cast("OwnTask | None", find(name))


def has_own_tasks(name: str) -> bool:
    """Whether the source of this name can have tasks that are not in the catalogue."""
    return hasattr(get_source(name), "own_task")


def choose_source(name: str, *tasks: Sequence[str] | None) -> str:
    """The source asked for; without a name, "file" where a task is a file of data, else "local"."""
    if name:
        return check_name(name, SOURCES, "source")
    named = (Path(task) for chosen in tasks for task in chosen or ())
    return "file" if any(task.suffix.lower() in DATA_SUFFIXES for task in named) else "local"


def get_source(name: str) -> Source:
    """A data source by name.

    Raises:
        UsageError: unknown name.
    """
    return cast(Source, importlib.import_module(SOURCES[check_name(name, SOURCES, "source")]))
