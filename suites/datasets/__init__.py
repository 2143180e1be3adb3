"""Data sources. A source is named explicitly and never mixed with another in one table."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

from baselines.config import check_name

SOURCES = {"local": "suites.datasets.local"}


class Source(Protocol):
    """What a data source offers, as a module or an object. None of it needs torch."""

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


def get_source(name: str) -> Source:
    """A data source by name.

    Raises:
        UsageError: unknown name.
    """
    return cast(Source, importlib.import_module(SOURCES[check_name(name, SOURCES, "source")]))
