"""Two output folders, run by run: what both have, what differs in it, and by how much.

Runs are matched by what they were meant to be: source, budget, task, agent label, training seed and
draw of the data. Everything else (configuration, versions, data, commit) may differ, and what does
is listed, so that a moved score can be traced to what moved it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from analysis.comparison import ALL_TASKS
from analysis.details import flat
from analysis.frame import Run, collect, read_evaluations
from analysis.stats import MINIMUM_RUNS_FOR_CLAIMS, SEED, Estimate, FloatArray, estimate, mean
from results.record import PLAN_FILE, Episodes, RecordError, read_plan

_LONG = 24  # letters from which on a digest is cut


class CompareError(ValueError):
    """Folders that cannot be compared; the message says why and what to do."""


class Key(NamedTuple):
    """What two runs must share to be compared."""

    source: str
    budget: str
    task: str
    agent: str
    seed: int
    draw: int

    def __str__(self) -> str:
        draw = f", draw {self.draw}" if self.draw else ""
        return f"{self.agent} on {self.task}, seed {self.seed}{draw} ({self.budget}, {self.source})"


@dataclass(frozen=True)
class Folder:
    """One side of a comparison.

    Attributes:
        path: as it was named.
        out: the output folder, which holds ``cells/``.
        runs: by key, in the order of its plans.
        notes: sentences on what was left aside.
    """

    path: Path
    out: Path
    runs: dict[Key, Run]
    notes: list[str]


@dataclass(frozen=True)
class Pair:
    """One run of A and its counterpart in B.

    Attributes:
        key: what they share.
        a: the baseline.
        b: the candidate.
        score_a: final score of A.
        score_b: final score of B.
        identical: every evaluation episode, also those during training, equal to the last bit.
        changes: what is not the same, as (name, value in A, value in B).
    """

    key: Key
    a: Run
    b: Run
    score_a: float
    score_b: float
    identical: bool
    changes: list[tuple[str, str, str]]

    @property
    def difference(self) -> float:
        """B minus A."""
        return self.score_b - self.score_a


@dataclass(frozen=True)
class Row:
    """The pairs of one agent on one task, or on all tasks both folders have.

    Attributes:
        source: of the data.
        budget: its name.
        task: id, or ``ALL_TASKS``.
        agent: label.
        tasks: number of tasks.
        pairs: number of pairs, over all its tasks.
        identical: how many of them are identical.
        mean_a: mean score of A over the pairs, tasks weighing alike.
        mean_b: the same of B.
        estimate: mean difference B - A with its interval.
        time_ratio: core seconds of B over those of A, NaN where nothing was trained.
    """

    source: str
    budget: str
    task: str
    agent: str
    tasks: int
    pairs: int
    identical: int
    mean_a: float
    mean_b: float
    estimate: Estimate
    time_ratio: float

    @property
    def verdict(self) -> str:
        """What may be said of it in words."""
        if self.identical == self.pairs:
            return "identical"
        if self.estimate.units < MINIMUM_RUNS_FOR_CLAIMS:
            return f"no verdict under {MINIMUM_RUNS_FOR_CLAIMS} pairs per task"
        if self.estimate.low > 0:
            return "higher in B"
        return "lower in B" if self.estimate.high < 0 else "not separated"


@dataclass(frozen=True)
class Change:
    """Something that is not the same in A and B.

    Attributes:
        what: its name, for example ``versions torch``.
        a: its value in A.
        b: its value in B.
        pairs: in how many pairs.
        agents: labels of the agents concerned.
    """

    what: str
    a: str
    b: str
    pairs: int
    agents: list[str]


@dataclass(frozen=True)
class FolderComparison:
    """What there is to say about two folders.

    Attributes:
        a: the baseline.
        b: the candidate.
        pairs: runs that finished in both.
        rows: by agent and task, the pooled row of an agent first.
        changes: what differs, most frequent first.
        unmatched: one sentence per run that finished in one folder only.
    """

    a: Folder
    b: Folder
    pairs: list[Pair]
    rows: list[Row]
    changes: list[Change]
    unmatched: list[str]

    @property
    def identical(self) -> int:
        """How many pairs are equal to the last bit."""
        return sum(pair.identical for pair in self.pairs)

    @property
    def pooled(self) -> list[Row]:
        """One row per agent, over all of its tasks."""
        return [row for row in self.rows if row.task == ALL_TASKS]


def compare_folders(a: Path, b: Path) -> FolderComparison:
    """Compares two output folders, or two report folders within such.

    Args:
        a: the baseline.
        b: the candidate.

    Raises:
        CompareError: if a folder holds no runs, or if they have none in common.
        RecordError: if a report folder's plan cannot be read.
    """
    one, other = read_folder(a), read_folder(b)
    pairs, unmatched = [], []
    for key in dict.fromkeys([*one.runs, *other.runs]):
        ours, theirs = one.runs.get(key), other.runs.get(key)
        if ours and theirs and not (ours.failed or theirs.failed):
            if math.isnan(ours.score) or math.isnan(theirs.score):
                unmatched.append(f"{key}: has no score, so it is not compared")
            else:
                pairs.append(_pair(key, ours, theirs))
        else:
            unmatched.append(f"{key}: {_how_it_went(ours)} in A, {_how_it_went(theirs)} in B")
    if not pairs:
        raise CompareError(
            f"no run finished in both: {a} has {_contents(one)}; {b} has {_contents(other)}; "
            "runs are matched by source, budget, task, agent, seed and draw of the data"
        )
    return FolderComparison(
        a=one,
        b=other,
        pairs=pairs,
        rows=_rows(pairs),
        changes=_changes(pairs),
        unmatched=unmatched,
    )


def read_folder(path: Path) -> Folder:
    """The runs of an output folder's plans, or of one plan if its report folder is named.

    Records that no plan asks for (stale ones, say) are left aside, unless there is no plan at all.

    Raises:
        CompareError: if there are none.
        RecordError: if the plan of a named report folder cannot be read.
    """
    if not path.is_dir():
        raise CompareError(f"{path}: no such folder; name one that a suite run wrote to")
    notes: list[str] = []
    if (path / PLAN_FILE).exists():
        out, plans = path.resolve().parent.parent, [read_plan(path / PLAN_FILE)]
    else:
        out, plans = path, []
        for file in sorted(path.glob(f"reports/*/{PLAN_FILE}")):
            try:
                plans.append(read_plan(file))
            except RecordError as error:
                notes.append(f"{error}; its runs are left aside")
    found: dict[Key, Run] = {}
    for results in [collect(out, plan) for plan in plans] or [collect(out)]:
        notes += results.unreadable
        for run in results.ended:
            key = _key(run)
            if key in found and found[key].folder != run.folder:
                notes.append(f"{path} has several runs of {key}; the first found counts")
            found.setdefault(key, run)
    if not found:
        raise CompareError(
            f"{path}: no finished or failed runs; name the folder given as --out, "
            "the one that holds cells/, or a report folder within it"
        )
    return Folder(path, out, found, list(dict.fromkeys(notes)))


def _key(run: Run) -> Key:
    record = run.record
    budget = str(record.budget.get("name", ""))
    return Key(str(record.task["source"]), budget, run.task, run.agent, run.seed, run.draw)


def _how_it_went(run: Run | None) -> str:
    if run is None:
        return "missing"
    return f"failed with {run.error['type']}" if run.failed else "finished"


def _contents(folder: Folder) -> str:
    kinds = Counter(f"{key.budget} on {key.source} data" for key in folder.runs)
    return ", ".join(f"{count} runs of {kind}" for kind, count in kinds.items())


def _pair(key: Key, a: Run, b: Run) -> Pair:
    one, other = read_evaluations(a), read_evaluations(b)
    before, after = _facts(a, one), _facts(b, other)
    changes = [
        (what, before.get(what, "absent"), after.get(what, "absent"))
        for what in dict.fromkeys([*before, *after])
        if before.get(what) != after.get(what)
    ]
    return Pair(key, a, b, a.score, b.score, _identical(a, one, b, other), changes)


def _identical(a: Run, one: Episodes | None, b: Run, other: Episodes | None) -> bool:
    """Whether two runs did the same, down to the last bit of every evaluation episode."""
    if a.record.final != b.record.final:
        return False
    if one is None or other is None:  # the curve is the most that is left to compare
        return a.record.curve == b.record.curve
    mine, theirs = one.arrays(), other.arrays()
    return mine.keys() == theirs.keys() and all(
        np.array_equal(values, theirs[name]) for name, values in mine.items()
    )


def _rows(pairs: list[Pair]) -> list[Row]:
    grouped: dict[tuple[str, str, str], dict[str, list[Pair]]] = {}
    for pair in pairs:
        key = pair.key
        tasks = grouped.setdefault((key.source, key.budget, key.agent), {})
        tasks.setdefault(key.task, []).append(pair)
    rows = []
    for (source, budget, agent), tasks in grouped.items():
        rows.append(_row(source, budget, ALL_TASKS, agent, list(tasks.values())))
        rows += [_row(source, budget, task, agent, [found]) for task, found in tasks.items()]
    return rows


def _row(source: str, budget: str, task: str, agent: str, found: list[list[Pair]]) -> Row:
    everything = [pair for pairs in found for pair in pairs]
    before = sum(pair.a.record.timing.get("core_seconds", 0.0) for pair in everything)
    after = sum(pair.b.record.timing.get("core_seconds", 0.0) for pair in everything)
    a, b = (_matrix(found, side) for side in ("score_a", "score_b"))
    return Row(
        source=source,
        budget=budget,
        task=task,
        agent=agent,
        tasks=len(found),
        pairs=len(everything),
        identical=sum(pair.identical for pair in everything),
        mean_a=float(a.mean()),
        mean_b=float(b.mean()),
        estimate=estimate(mean, b - a, rng=np.random.default_rng(SEED)),
        time_ratio=after / before if before > 0 else math.nan,
    )


def _matrix(found: list[list[Pair]], side: str) -> FloatArray:
    """Scores ``[n, T]`` of one side, n the fewest pairs any task has, lowest seeds first.

    With several draws of the data a row is a draw, averaged over its seeds: runs on one draw share
    its luck.
    """
    columns = []
    for pairs in found:
        draws: dict[int, list[float]] = {}
        for pair in sorted(pairs, key=lambda pair: (pair.key.draw, pair.key.seed)):
            draws.setdefault(pair.key.draw, []).append(getattr(pair, side))
        (first, *others) = draws.values()
        columns.append([float(np.mean(draw)) for draw in draws.values()] if others else first)
    units = min(map(len, columns))
    return np.array([column[:units] for column in columns]).T


def _changes(pairs: list[Pair]) -> list[Change]:
    counts: Counter[tuple[str, str, str]] = Counter()
    agents: dict[tuple[str, str, str], dict[str, None]] = {}
    for pair in pairs:
        for change in pair.changes:
            counts[change] += 1
            agents.setdefault(change, {})[pair.key.agent] = None
    return [
        Change(what, _short(a), _short(b), count, list(agents[what, a, b]))
        for (what, a, b), count in counts.most_common()
    ]


def _facts(run: Run, episodes: Episodes | None) -> dict[str, str]:
    """Everything that could explain a difference, as texts by name."""
    record = run.record
    agent = {name: record.agent.get(name) for name in ("name", "version", "code", "preset")}
    task = {name: record.task.get(name) for name in ("env_id", "version")}
    scale = {name: record.task.get(name) for name in ("reference_min", "reference_max")}
    data = {name: record.dataset.get(name) for name in ("id", "sha256")}
    blocks: dict[str, Any] = {
        "agent": agent,
        "config": record.agent.get("config") or {},
        "budget": {key: value for key, value in record.budget.items() if key != "name"},
        "phases": json.dumps(record.phases, sort_keys=True),
        "task": task | scale,
        "data": data,
        "precision": record.cell.get("precision"),
        "seeds trained together": record.stack,
        "inexactly resumed": run.inexact,
        "versions": record.versions,
    }
    if episodes is not None:
        seeds = hashlib.sha256(episodes.reset_seeds.tobytes()).hexdigest()
        blocks["start states of the final evaluation"] = f"{len(episodes.returns)} episodes {seeds}"
    return dict(flat(blocks))


def _short(text: str) -> str:
    """A digest by its first letters, the rest as it is."""
    return re.sub(rf"\b[0-9a-f]{{{_LONG},}}\b", lambda found: found[0][:12], text)
