"""Downloads of data that a person asked for, with a bar in a terminal and lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from baselines.config import UsageError
from suites.datasets import Source, task_key
from suites.datasets.store import DatasetError

QUIET_SECONDS = 10.0  # between two lines where there is no terminal


def fetch_all(
    source: Source, name: str, tasks: Sequence[str], place: Path | None = None
) -> list[Any]:
    """Fetches what is not on this machine yet.

    Args:
        source: one that defines ``fetch(task, progress) -> Path``.
        name: the source's.
        tasks: names of tasks.
        place: ``--data-dir``, where data is looked for first.

    Returns:
        Where each task's data lies.

    Raises:
        UsageError: if the source has nothing to download, or a download fails.
    """
    fetch: Callable[..., Any] | None = getattr(source, "fetch", None)
    if fetch is None:
        raise UsageError(f"source {name} downloads nothing: its data is made or lies here")
    console = Console(stderr=True)
    try:
        if not console.is_terminal:
            return [fetch(task_key(source, task, place), _speaker(task)) for task in tasks]
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        with Progress(*columns, TransferSpeedColumn(), console=console, transient=True) as bars:
            found = []
            for task in tasks:
                bar = bars.add_task(task, total=None)

                def show(done: int, total: int, bar: Any = bar) -> None:
                    bars.update(bar, completed=done, total=total or None)

                found.append(fetch(task_key(source, task, place), show))
            return found
    except DatasetError as error:
        raise UsageError(str(error)) from None


def _speaker(task: str) -> Callable[[int, int], None]:
    spoken = -QUIET_SECONDS

    def say(done: int, total: int) -> None:
        nonlocal spoken
        if time.monotonic() - spoken > QUIET_SECONDS:
            spoken = time.monotonic()
            whole = f" of {total / 1e6:,.0f}" if total else ""
            print(f"{task}: {done / 1e6:,.0f}{whole} MB", file=sys.stderr, flush=True)

    return say
