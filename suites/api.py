"""The suites from Python; ``from suites import run, load_results, load_policy``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baselines.config import UsageError
from results.record import PLAN_FILE, RECORD_FILE, Plan, RecordError, read_plan, read_record

if TYPE_CHECKING:
    import pandas as pd

    from suites.policy import Policy


def run(
    suite: str = "",
    *,
    jobs: int | None = None,
    retry: bool = False,
    allow_missing: bool = False,
    **options: Any,
) -> int:
    """Plans and runs a suite as the command line does; what is done is skipped.

    Args:
        suite: name, or path of a manifest; "" for the usual agents on ``tasks``, which then are
            files of your own data.
        jobs: worker processes; one per core by default.
        retry: also run failed cells again.
        allow_missing: aggregate over an incomplete matrix.
        **options: the other fields of :class:`suites.resolve.Options`, for example ``budget``,
            ``agents`` and ``tasks`` (lists, or text as on the command line), ``seeds``, ``out``.

    Returns:
        The command line's exit code: 0 if all is well, 1 if cells failed.

    Raises:
        UsageError: one sentence about what is wrong with the input.
    """
    from dataclasses import fields

    from baselines.config import check_name, convert
    from suites import console
    from suites.cli import Conduct, execute, make_console, names, worker_count
    from suites.plan import make_plan
    from suites.resolve import Options

    for name, value in options.items():
        check_name(name, [f.name for f in fields(Options)], "option", "run")
        if isinstance(value, str):
            if name in ("agents", "tasks"):
                options[name] = names(value)
            elif name in ("plugins", "settings"):
                options[name] = [value]
        if name in ("seeds", "dataset_seeds", "stack") and value is not None:
            options[name] = convert(value, int, f"run: {name}")
    for name in ("out", "data_dir"):
        if options.get(name) is not None:
            options[name] = Path(options[name])
    plan = make_plan(Options(suite=suite, **options))
    screen = make_console()
    console.print_plan(screen, plan)
    return execute(
        screen, plan, Conduct(worker_count(jobs), retry=retry, allow_missing=allow_missing)
    )


def load_results(where: str | Path = "results/runs") -> pd.DataFrame:
    """Finished runs as a tidy table, one row each.

    Args:
        where: an output folder (all of its runs), one report's folder in it (the runs of that
            suite and budget), or one cell's folder.

    Returns:
        The columns of :data:`analysis.frame.RUN_COLUMNS`; docs/using-results.md explains them.

    Warns:
        UserWarning: if there are none, or if runs of one label differ in settings, version or data
            alone.

    Raises:
        UsageError: if there is no such folder, or what lies there cannot be read.
    """
    from analysis.frame import load

    runs = load(*locate(Path(where)))
    if runs.empty:
        warnings.warn(
            f"{where} holds no finished runs; give an output folder, such as results/runs, a "
            "report's folder in it, or a cell's",
            stacklevel=2,
        )
    alike = runs.duplicated(["source", "task", "draw", "agent", "budget", "seed"], keep=False)
    if alike.any():
        names = ", ".join(sorted(set(runs.loc[alike, "agent"])))
        warnings.warn(
            f"{where} has several runs of one task, budget and seed of {names}, of other settings, "
            "versions or data (columns config, version, dataset); select among them before you "
            "average, or load one report's folder",
            stacklevel=2,
        )
    return runs


def load_episodes(where: str | Path = "results/runs") -> pd.DataFrame:
    """Every final episode of finished runs, one row each; see :func:`load_results`.

    Returns:
        The columns of :data:`analysis.frame.EPISODE_COLUMNS`.
    """
    from analysis.frame import load_episodes

    return load_episodes(*locate(Path(where)))


def locate(where: Path) -> tuple[Path, Plan | None]:
    """Where finished runs are.

    Args:
        where: as for :func:`load_results`.

    Returns:
        The output folder, and the plan that picks what is asked for; None for everything.

    Raises:
        UsageError: if there is no such folder, or what lies there cannot be read.
    """
    if not where.is_dir():
        raise UsageError(f"{where} is not there; give a folder that a suite has run into")
    try:
        if (where / PLAN_FILE).is_file():
            return where.resolve().parents[1], read_plan(where / PLAN_FILE)
        if not (where / RECORD_FILE).is_file():
            return where, None
        record = read_record(where)
    except RecordError as error:
        raise UsageError(str(error)) from None
    cell = where.resolve()
    above = cell.parents  # agent, task, source, cells, the output folder; or a copy elsewhere
    out = above[4] if len(above) > 4 and above[3].name == "cells" else above[0]
    found = {
        "task": record.task["id"],
        "agent": record.agent["label"],
        "seed": record.seed,
        "path": cell.relative_to(out).as_posix(),
    }
    return out, Plan("", "", "", "", [], [], [], [found])


def load_policy(path: str | Path, plugins: Sequence[str | Path] = ()) -> Policy:
    """The policy of a finished cell; ``load_policy(path).act(observations)``.

    Args:
        path: the cell's folder, or the ``policy.pt`` in it.
        plugins: the agent's plugin files, if they have moved since the run.

    Raises:
        UsageError: if there is none, or it cannot be read.
    """
    from suites.policy import read_policy

    return read_policy(Path(path), plugins)
