"""Run records as tidy tables: a row per finished run, point of a curve, or final episode."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.record import (
    RECORD_FILE,
    Episodes,
    Plan,
    Record,
    RecordError,
    cell_folder,
    normalized_score,
    read_episodes,
    read_record,
    scan,
)

if TYPE_CHECKING:
    import pandas as pd

RUN_COLUMNS = (
    "task",
    "environment",
    "quality",
    "source",
    "agent",
    "seed",
    "draw",  # seed of the dataset: runs of one draw saw the same data, 0 where it has no seed
    "score",  # final evaluation of the last policy, D4RL's scale; NaN where there is none
    "last10_score",  # mean score of the last ten evaluations during training
    "return_mean",  # raw return, mean over the final episodes
    "return_std",
    "length_mean",  # steps
    "success_rate",  # of the final episodes, NaN where the environment knows no success
    "budget",
    "version",  # of the agent
    "preset",  # of the agent's settings, "default" if none was named
    "config",  # all its settings, JSON
    "updates",  # gradient updates made, 0 for references
    "shrunk",  # trained with less than the published size or steps
    "reference",  # random or behaviour: a yardstick, not a competitor
    "foreign",  # read from a CSV of scores made elsewhere
    "core_seconds",  # this seed's share of its stack
    "stack",  # seeds trained together in the job, which makes each cheaper
    "total_s",  # wall-clock seconds of the job
    "data_return_mean",  # raw return, mean over the dataset's episodes
    "expert_return_mean",  # the same of this environment's expert dataset, NaN if there is none
    "dataset",  # identity of the data
    "commit",  # of the code, "" where it ran outside a repository; "+" behind it: with changes
    "machine",  # GPU or processor
    "path",
)
MEASURE = "measure_"  # a column for each measure beside the return, where any run has them
CURVE_COLUMNS = (
    *("task", "environment", "agent", "seed", "draw"),
    *("update", "phase", "env_steps", "score", "return_mean"),
)
EPISODE_COLUMNS = (
    *("task", "agent", "seed", "draw"),
    "episode",  # number, from 0
    "return",  # raw
    "length",  # steps
    "reset_seed",  # the seed the episode was reset with, -1 where there was no reset
)
FOREIGN_COLUMNS = ("task", "agent", "seed", "score")


class ScoresError(ValueError):
    """A file of foreign scores that cannot be used; the message names the place and the remedy."""


@dataclass(frozen=True)
class Run:
    """A run that ended, well or in an error.

    Attributes:
        agent: its label in the plan.
        folder: where its files lie.
        record: what it wrote.
    """

    agent: str
    folder: Path
    record: Record

    @property
    def task(self) -> str:
        """The task's id."""
        return str(self.record.task["id"])

    @property
    def seed(self) -> int:
        """The training seed."""
        return self.record.seed

    @property
    def draw(self) -> int:
        """The dataset's seed, 0 where it has none: recorded data is what it is."""
        planned = self.record.cell.get("dataset", {})  # all there is of a run that failed early
        return int(self.record.dataset.get("seed") or planned.get("seed") or 0)

    @property
    def score(self) -> float:
        """Of the last policy, NaN where there are no returns or no scale for them."""
        task, final = self.record.task, self.record.final
        if "score" in final:
            return float(final["score"])
        if task["reference_min"] is None or "return_mean" not in final:
            return math.nan
        returns = float(final["return_mean"])
        return float(normalized_score(returns, task["reference_min"], task["reference_max"]))

    @property
    def measures(self) -> dict[str, float]:
        """Means over the final episodes of what the environment reports beside the return.

        By the names of their columns, ``measure_<name>``; empty where it reports nothing.
        """
        found: Any = self.record.final.get("measures") or {}
        return {f"{MEASURE}{name}": float(value) for name, value in found.items()}

    @property
    def simulated(self) -> bool:
        """Whether the task has a simulator, so that policies have returns."""
        return self.record.task.get("env_id") is not None

    @property
    def failed(self) -> bool:
        """Whether it ended in an error."""
        return self.record.status == "failed"

    @property
    def inexact(self) -> bool:
        """Whether it was resumed so that an uninterrupted run would have given other numbers."""
        return any(not resume.get("exact") for resume in self.record.resumes)

    @property
    def ended(self) -> str:
        """How it ended, in a few words."""
        if self.failed:
            return f"failed: {self.error['type']}"
        if self.inexact:
            return "finished, inexactly resumed"
        return "finished, resumed" if self.record.resumes else "finished"

    @property
    def error(self) -> dict[str, str]:
        """Type, message and traceback of the error; each is there, if only as a placeholder."""
        found = self.record.error or {}
        return {
            "type": found.get("type", "Error"),
            "message": found.get("message", "no message was recorded"),
            "traceback": found.get("traceback", ""),
        }


@dataclass(frozen=True)
class Results:
    """Everything an output folder says about a plan's cells.

    Attributes:
        runs: one row per finished run, columns ``RUN_COLUMNS``, behind them ``measure_<name>`` for
            what environments report beside the return, where any does.
        curves: one row per evaluation during training, columns ``CURVE_COLUMNS``.
        ended: the runs behind the tables and those that failed, in the plan's order.
        unreadable: one sentence per record that could not be read.
    """

    runs: pd.DataFrame
    curves: pd.DataFrame
    ended: list[Run]
    unreadable: list[str]

    @property
    def failures(self) -> list[Run]:
        """The runs that ended in an error."""
        return [run for run in self.ended if run.failed]

    @property
    def finished(self) -> list[Run]:
        """The runs that ended well, in the order of ``runs``."""
        return [run for run in self.ended if not run.failed]


def load(out: Path, plan: Plan | None = None) -> pd.DataFrame:
    """The finished runs of an output folder as a tidy table, columns ``RUN_COLUMNS``.

    A run is one training seed on one draw of the data: ``draw`` is the dataset's own seed, 0 for
    recorded data, which has none. Where environments report measures beside the return, these are
    further columns, ``measure_<name>``.

    Args:
        out: the output folder, the one that holds ``cells/``.
        plan: keep to this plan's cells, in its order and with its labels; by default every record.
    """
    return collect(out, plan).runs


def load_curves(out: Path, plan: Plan | None = None) -> pd.DataFrame:
    """The learning curves of an output folder, columns ``CURVE_COLUMNS``; see :func:`load`."""
    return collect(out, plan).curves


def load_episodes(out: Path, plan: Plan | None = None) -> pd.DataFrame:
    """Every episode of the final evaluations, columns ``EPISODE_COLUMNS``; see :func:`load`.

    Runs whose ``episodes.npz`` is missing or damaged have no rows.
    """
    import pandas as pd

    found = ((run, read_evaluations(run)) for run in collect(out, plan).finished)
    return pd.DataFrame(list(_episode_rows(found)), columns=list(EPISODE_COLUMNS))


def read_evaluations(run: Run) -> Episodes | None:
    """The evaluation episodes of a run, None if they were not kept or cannot be read."""
    try:
        return read_episodes(run.folder)
    except RecordError:
        return None  # the record has the means; what is lost is the detail


def episode_csv(found: Iterable[tuple[Run, Episodes | None]]) -> str:
    """The same table as CSV, returns to six digits."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(EPISODE_COLUMNS)
    for *key, value, length, reset_seed in _episode_rows(found):
        writer.writerow((*key, f"{value:.6g}", length, reset_seed))
    return stream.getvalue()


def _episode_rows(found: Iterable[tuple[Run, Episodes | None]]) -> Iterator[tuple[Any, ...]]:
    for run, episodes in found:
        if episodes is not None:
            key = (run.task, run.agent, run.seed, run.draw)
            numbers = (episodes.returns, episodes.lengths, episodes.reset_seeds)
            columns = (array.tolist() for array in numbers)
            for i, row in enumerate(zip(*columns, strict=True)):
                yield (*key, i, *row)


def collect(out: Path, plan: Plan | None = None) -> Results:
    """Reads finished and failed runs; see :func:`load` for the arguments."""
    import pandas as pd

    ended: list[Run] = []
    unreadable: list[str] = []
    for label, folder, record in _cells(out, plan):
        if isinstance(record, RecordError):
            unreadable.append(str(record))
        else:
            if plan is not None and plan.budget:
                # A cell may have been run by a budget of other name and the same numbers.
                record = replace(record, budget={**record.budget, "name": plan.budget})
            ended.append(Run(label or str(record.agent["label"]), folder, record))
    finished = [run for run in ended if not run.failed]
    experts = _expert_returns(out, [run.record for run in finished])
    columns = dict.fromkeys((*RUN_COLUMNS, *(name for run in finished for name in run.measures)))
    return Results(
        runs=pd.DataFrame(
            [_run_row(run, run.folder.relative_to(out), experts) for run in finished],
            columns=list(columns),
        ),
        curves=pd.DataFrame(
            [row for run in finished for row in _curve_rows(run)], columns=list(CURVE_COLUMNS)
        ),
        ended=ended,
        unreadable=unreadable,
    )


def _cells(out: Path, plan: Plan | None) -> Iterator[tuple[str | None, Path, Record | RecordError]]:
    if plan is None:
        yield from ((None, folder, record) for folder, record in scan(out))
        return
    for cell in plan.cells:
        folder = cell_folder(out, cell)
        if not (folder / RECORD_FILE).exists():
            continue
        try:
            yield str(cell["agent"]), folder, read_record(folder)
        except RecordError as error:
            yield str(cell["agent"]), folder, error


def _run_row(run: Run, path: Path, experts: dict[tuple[str, str], float]) -> dict[str, Any]:
    record = run.record
    task, final, timing, versions = record.task, record.final, record.timing, record.versions
    return_mean = float(final.get("return_mean", math.nan))
    return {
        "task": str(task["id"]),
        "environment": str(task["environment"]),
        "quality": str(task["quality"]),
        "source": str(task["source"]),
        "agent": run.agent,
        "seed": run.seed,
        "draw": run.draw,
        "score": run.score,
        "last10_score": float(final.get("last10_score", math.nan)),
        "return_mean": return_mean,
        "return_std": float(final.get("return_std", math.nan)),
        "length_mean": float(final.get("length_mean", math.nan)),
        "success_rate": float(final.get("success_rate", math.nan)),
        "budget": str(record.budget.get("name", "")),
        "version": int(record.agent.get("version") or 0),
        "preset": str(record.agent.get("preset") or "default"),
        "config": json.dumps(record.agent.get("config") or {}, sort_keys=True),
        "updates": sum(int(phase["updates"]) for phase in record.phases),
        "shrunk": bool(record.budget.get("shrunk", False)),
        "reference": bool(record.agent.get("reference", False)),
        "foreign": False,
        "core_seconds": float(timing.get("core_seconds", math.nan)),
        "stack": len(record.stack),
        "total_s": float(timing.get("total_s", math.nan)),
        "data_return_mean": float(record.dataset.get("return_mean", math.nan)),
        "expert_return_mean": experts.get((task["source"], task["environment"]), math.nan),
        "dataset": str(record.dataset.get("id", "")),
        "commit": f"{versions.get('git_commit') or ''}{'+' * bool(versions.get('git_dirty'))}",
        "machine": str(versions.get("gpu") or versions.get("cpu") or ""),
        "path": path.as_posix(),
        **run.measures,
    }


def _curve_rows(run: Run) -> Iterator[dict[str, Any]]:
    for point in run.record.curve:
        yield {
            "task": run.task,
            "environment": str(run.record.task["environment"]),
            "agent": run.agent,
            "seed": run.seed,
            "draw": run.draw,
            "update": int(point["update"]),
            "phase": str(point.get("phase", "")),
            "env_steps": int(point.get("env_steps", 0)),
            "score": float(point.get("score", math.nan)),
            "return_mean": float(point.get("return_mean", math.nan)),
        }


def _expert_returns(out: Path, records: Iterable[Record]) -> dict[tuple[str, str], float]:
    """Mean return of the expert data by (source, environment), from these records or beside them.

    A plan without expert tasks still gets the yardstick if an earlier run left the behaviour
    record of ``<environment>-expert`` in the output folder.
    """
    returns: dict[tuple[str, str], float] = {}
    wanted: set[tuple[str, str]] = set()
    for record in records:
        key = (str(record.task["source"]), str(record.task["environment"]))
        wanted.add(key)
        if record.task["quality"] == "expert" and "return_mean" in record.dataset:
            returns[key] = float(record.dataset["return_mean"])
    for source, environment in sorted(wanted - set(returns)):
        folder = out / "cells" / source / f"{environment}-expert" / "behaviour"
        for path in sorted(folder.glob(f"*/{RECORD_FILE}")):
            try:
                record = read_record(path.parent)
            except RecordError:
                continue  # a yardstick from outside the plan: without it the column stays empty
            if "return_mean" in record.dataset:
                returns[source, environment] = float(record.dataset["return_mean"])
    return returns


def read_csv(path: Path) -> pd.DataFrame:
    """Scores made elsewhere, to stand beside ours: columns task, agent, seed, score.

    Further columns are ignored. Scores are on the scale of this report.

    Raises:
        ScoresError: naming the line that is wrong.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    seen: set[tuple[str, str, int]] = set()
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in FOREIGN_COLUMNS if name not in (reader.fieldnames or [])]
            if missing:
                raise ScoresError(
                    f"{path}: no column {', '.join(missing)}; "
                    f"the first line must name {', '.join(FOREIGN_COLUMNS)}"
                )
            for line in reader:
                row = _foreign_row(f"{path}, line {reader.line_num}", line)
                key = (row["task"], row["agent"], row["seed"])
                if key in seen:
                    raise ScoresError(
                        f"{path}, line {reader.line_num}: a second score of {row['agent']} on "
                        f"{row['task']} with seed {row['seed']}; keep one"
                    )
                seen.add(key)
                rows.append(row)
    except FileNotFoundError:
        raise ScoresError(f"{path}: no such file of scores") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ScoresError(f"{path}: not a readable CSV file in UTF-8 ({error})") from None
    if not rows:
        raise ScoresError(f"{path}: no scores; write one line per task, agent and seed")
    return pd.DataFrame(rows, columns=list(FOREIGN_COLUMNS))


def _foreign_row(place: str, line: dict[str, str | None]) -> dict[str, Any]:
    values = {name: (line[name] or "").strip() for name in FOREIGN_COLUMNS}
    for name in ("task", "agent"):
        if not values[name]:
            raise ScoresError(f"{place}: the {name} is empty")
    try:
        seed = int(values["seed"])
    except ValueError:
        raise ScoresError(f"{place}: seed {values['seed']!r} is not a whole number") from None
    try:
        score = float(values["score"])
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise ScoresError(f"{place}: score {values['score']!r} is not a finite number")
    return {"task": values["task"], "agent": values["agent"], "seed": seed, "score": score}


def add_foreign(
    plan: Plan, runs: pd.DataFrame, paths: Iterable[Path]
) -> tuple[pd.DataFrame, list[str]]:
    """Appends foreign scores to a plan's runs.

    Returns:
        The longer table, and one sentence per file about tasks the plan does not have.

    Raises:
        ScoresError: if a file is invalid or names an agent that the plan or another file has.
    """
    import pandas as pd

    tasks = {task["id"]: task for task in plan.tasks}
    taken = {str(agent["label"]) for agent in plan.agents}
    rows: list[dict[str, Any]] = runs.to_dict("records")
    notes: list[str] = []
    for path in paths:
        scores = read_csv(path)
        names = set(scores["agent"])
        if names & taken:
            raise ScoresError(
                f"{path}: this report has agents of its own called "
                f"{', '.join(sorted(names & taken))}; give those in the file other names"
            )
        taken |= names
        unknown = sorted(set(scores["task"]) - set(tasks))
        if unknown:
            others = f"{', '.join(unknown)}, which this report does not have"
            if len(unknown) == scores["task"].nunique():
                raise ScoresError(f"{path}: all its scores are on {others}; check the tasks' names")
            notes.append(f"{path.name} also has scores on {others}.")
        for row in scores.to_dict("records"):
            if row["task"] in tasks:
                task = tasks[row["task"]]
                rows.append(
                    {
                        "environment": task["environment"],
                        "quality": task["quality"],
                        "source": plan.source,
                        "draw": 0,
                        "budget": "foreign",
                        "shrunk": False,
                        "reference": False,
                        "foreign": True,
                        "path": path.name,
                        **row,
                    }
                )
    return pd.DataFrame(rows, columns=list(runs.columns)), notes
