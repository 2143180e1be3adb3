"""Task and aggregate tables, as Markdown and CSV."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from analysis.comparison import (
    LEVEL,
    Agent,
    AggregateRow,
    Pair,
    Scores,
    agents,
    scores_by_cell,
    unscored_tasks,
)
from analysis.published import MARK, PublishedColumn
from analysis.stats import (
    AGGREGATES,
    INTERVALS,
    MINIMUM_RUNS_FOR_CLAIMS,
    OPTIMALITY_THRESHOLD,
    FloatArray,
    coverage,
    exact_p_value,
    unit_means,
)
from analysis.text import bullets, csv_text, interval, markdown, p_value
from analysis.tuning import TunedCurve
from results.record import Plan

if TYPE_CHECKING:
    import pandas as pd

PERCENT_NOTE = (
    "Per cent: mean return over the mean return of the task's data / of its environment's expert "
    "data, where that was made."
)
AGGREGATE_NOTE = (
    f"{INTERVALS} "
    "Runs: per task. Coverage: how often such an interval holds the truth with so few runs, "
    "simulated on one, three or nine tasks (the median's may be a point or two lower). "
    f"Optimality gap: mean shortfall below {OPTIMALITY_THRESHOLD:.0f}, lower is better."
)
PAIR_NOTE = (
    "P(X > Y): probability that a run of X scores above a run of Y on the same task, averaged over "
    "tasks. p: exact stratified rank-sum test, Holm-corrected over all pairs. No interval: on "
    "every task all runs of one agent are above all of the other, and resampling varies nothing."
)
PUBLISHED_NOTE = (
    f"{MARK} published elsewhere, on the same version of these datasets, with the protocol named; "
    "never part of aggregates."
)
REFERENCE = "the reference of each environment (its page says which)"
_MARKS = {"shrunk": "*", "foreign": "†"}


@dataclass(frozen=True)
class Cell:
    """One agent on one task.

    Attributes:
        runs: finished runs.
        expected: planned runs.
        mean: mean score over runs, NaN without any.
        std: sample standard deviation over runs, NaN under two.
        percent_of_data: mean return in per cent of the data's, NaN where that has no meaning.
        percent_of_expert: the same of the expert data's.
        bold: among the highest of its row.
        kind: of ``mean`` and ``std``: "score"; "return" where returns have no scale; "none" where
            there are no returns.
    """

    runs: int
    expected: int
    mean: float
    std: float
    percent_of_data: float
    percent_of_expert: float
    bold: bool = False
    kind: Literal["score", "return", "none"] = "score"

    @property
    def complete(self) -> bool:
        """Whether there is a number to print."""
        return 0 < self.runs >= self.expected

    @property
    def score(self) -> str:
        """For people: ``83.2 ± 4.1``, ``3/5 seeds`` while runs are missing, ``-`` if unplanned."""
        if not self.complete:
            return f"{self.runs}/{self.expected} seeds" if self.expected else "-"
        if self.kind == "none":
            return "no returns"
        unit = "return " if self.kind == "return" else ""
        return f"{unit}{self.mean:z.1f}" + ("" if math.isnan(self.std) else f" ± {self.std:.1f}")

    @property
    def text(self) -> str:
        """The score with its number of runs: ``83.2 ± 4.1 (5)``."""
        return f"{self.score} ({self.runs})" if self.complete else self.score

    @property
    def percent(self) -> str:
        """For people: ``112 / 46 %`` of data and expert, ``112 %`` of data alone, or empty."""
        if not self.complete or math.isnan(self.percent_of_data):
            return ""
        numbers = (self.percent_of_data, self.percent_of_expert)
        return " / ".join(str(round(number)) for number in numbers if math.isfinite(number)) + " %"


@dataclass(frozen=True)
class TaskTable:
    """Tasks by agents.

    Attributes:
        tasks: the plan's tasks, in order.
        agents: columns, yardsticks first.
        cells: by (task id, agent label).
        notes: sentences to print beneath.
        published: scores of the same agents from elsewhere, to the right of ours.
        published_others: scores of further agents from elsewhere, a table of their own.
    """

    tasks: list[dict[str, Any]]
    agents: list[Agent]
    cells: dict[tuple[str, str], Cell]
    notes: list[str]
    published: list[PublishedColumn]
    published_others: list[PublishedColumn]

    @property
    def has_percents(self) -> bool:
        """Whether any return has a yardstick in its data."""
        return any(cell.percent for cell in self.cells.values())


def origin(plan: Plan, runs: pd.DataFrame) -> str:
    """One line that lets a copied table be traced: suite, budget, data, seeds and code."""
    known = runs.loc[~runs["foreign"].astype(bool), "commit"]
    commits = sorted({text[:7] + "+" * text.endswith("+") for text in known if text})
    seeds = ", ".join(map(str, plan.seeds))
    by = "FAST-Q Bench" + (f", commit {', '.join(commits)}" if commits else "")
    what = f"Suite {plan.suite}, budget {plan.budget}, data {plan.source}, seeds {seeds}"
    return f"{what}; made by {by}."


def heading(agent: Agent) -> str:
    """The agent's label with its mark: ``*`` shrunk, ``†`` foreign."""
    return agent.label + _MARKS.get(agent.kind, "")


def task_table(
    plan: Plan,
    runs: pd.DataFrame,
    published: Sequence[PublishedColumn] = (),
    notes: Sequence[str] = (),
) -> TaskTable:
    """The table every report starts with.

    Args:
        plan: what was planned.
        runs: the finished runs, from :func:`analysis.frame.load`.
        published: from :func:`analysis.published.published`.
        notes: further sentences to print beneath.
    """
    columns = agents(plan, runs)
    planned = Counter((str(cell["task"]), str(cell["agent"])) for cell in plan.cells)
    scores = scores_by_cell(runs)
    finished = Counter(zip(runs["task"], runs["agent"], strict=True))
    returns: dict[tuple[str, str], list[float]] = {}
    for key, value in zip(
        zip(runs["task"], runs["agent"], strict=True), runs["return_mean"], strict=True
    ):
        returns.setdefault(key, []).extend([float(value)] * math.isfinite(value))
    percents = _percents(runs) if plan.source == "local" else {}
    cells: dict[tuple[str, str], Cell] = {}
    for task in (str(task["id"]) for task in plan.tasks):
        for agent in columns:
            key = (task, agent.label)
            values = list(scores.get(key, {}).values())
            kind: Literal["score", "return", "none"] = "score"
            if not values and finished[key]:
                values = returns[key]
                kind = "return" if values else "none"
            of_data, of_expert = percents.get(key, (math.nan, math.nan))
            cells[key] = Cell(
                runs=finished[key],
                expected=planned[key],
                mean=float(np.mean(values)) if values else math.nan,
                std=float(np.std(values, ddof=1)) if len(values) > 1 else math.nan,
                percent_of_data=of_data,
                percent_of_expert=of_expert,
                kind=kind,
            )
    bold = _among_the_highest(plan, columns, cells, scores)
    cells = {key: Cell(**{**vars(cell), "bold": key in bold}) for key, cell in cells.items()}
    names = {str(agent["name"]) for agent in plan.agents}
    own = [column for column in published if column.agent in names]
    sentences = _notes(plan, columns, bool(bold)) + _unscored_notes(plan)
    if own:
        sentences += [PUBLISHED_NOTE, *(column.note for column in own)]
    return TaskTable(
        tasks=plan.tasks,
        agents=columns,
        cells=cells,
        notes=[*sentences, *notes],
        published=own,
        published_others=[column for column in published if column.agent not in names],
    )


def _percents(runs: pd.DataFrame) -> dict[tuple[str, str], tuple[float, float]]:
    """Returns in per cent of the data's and the expert data's mean, where both are positive."""
    yardsticks = ["data_return_mean", "expert_return_mean"]
    means = runs.groupby(["task", "agent"], sort=False)[["return_mean", *yardsticks]].mean()
    means = means.where(means > 0)
    percents = 100.0 * means[["return_mean"]].to_numpy() / means[yardsticks].to_numpy()
    return {
        (str(task), str(agent)): (float(of_data), float(of_expert))
        for (task, agent), (of_data, of_expert) in zip(means.index, percents, strict=True)
    }


def _among_the_highest(
    plan: Plan,
    columns: list[Agent],
    cells: dict[tuple[str, str], Cell],
    scores: Scores,
) -> set[tuple[str, str]]:
    """Cells to print bold: the highest mean of a row and what a test does not separate from it.

    Only full rows of two agents of one class at least, each with ``MINIMUM_RUNS_FOR_CLAIMS``
    independent runs (or draws of the data).
    """
    bold: set[tuple[str, str]] = set()
    ours = [agent.label for agent in columns if agent.kind == "comparison"]
    for task in (str(task["id"]) for task in plan.tasks):
        row = [cells[task, label] for label in ours]
        if len(ours) < 2 or not all(c.complete and c.runs and c.kind == "score" for c in row):
            continue
        samples = {label: _units(scores[task, label]) for label in ours}
        if min(map(len, samples.values())) < MINIMUM_RUNS_FOR_CLAIMS:
            continue
        best = max(ours, key=lambda label: cells[task, label].mean)
        bold |= {
            (task, label)
            for label in ours
            if label == best or exact_p_value(samples[best], samples[label]) >= LEVEL
        }
    return bold


def _units(scores: dict[tuple[int, int], float]) -> FloatArray:
    """Independent scores ``[n, 1]``: of runs, or the means of the draws of the data."""
    draws = np.array([draw for draw, _ in scores])
    return unit_means(np.array([*scores.values()])[:, None], draws)


def _notes(plan: Plan, columns: list[Agent], bold: bool) -> list[str]:
    expert = all(task.get("expert", True) for task in plan.tasks)
    notes = [
        f"Score of the last policy, 0 = random and 100 = {'expert' if expert else REFERENCE}: mean "
        "± sample standard deviation over runs (number of runs)."
    ]
    if bold:
        notes.append(
            "Bold: the highest mean of the row and every agent that an exact rank test "
            f"(two-sided, level {LEVEL:g}, not corrected) does not separate from it."
        )
    if any(agent.kind == "shrunk" for agent in columns):
        notes.append(
            "* smaller or trained for fewer steps than published, to fit the budget; "
            "not comparable with the unmarked agents."
        )
    if any(agent.kind == "foreign" for agent in columns):
        notes.append("† scores made elsewhere; their protocol and budget were not checked.")
    tuned = [f"{agent.label} ({agent.configs_tried} tried)" for agent in columns if agent.tuned]
    if tuned:
        notes.append(f"Configured for each dataset: {', '.join(tuned)}.")
    return notes


def _unscored_notes(plan: Plan) -> list[str]:
    blind, unscaled = unscored_tasks(plan)
    notes = []
    if blind:
        notes.append(
            f"No simulator: no returns. {', '.join(blind)}: policies were trained and never played;"
            " their losses, and what held-out data says of them, stand in a table of their own. A "
            "return of behaviour is that of the data."
        )
    if unscaled:
        notes.append(
            f"Returns as they are, not scores: {', '.join(unscaled)}. No returns are known that "
            "score 0 and 100 there."
        )
    return notes


def task_markdown(table: TaskTable) -> str:
    """The task table as Markdown, with a second one for per cents where there are any."""
    blocks = [_task_block(table, "text"), bullets(table.notes)]
    if table.has_percents:
        blocks += [_task_block(table, "percent"), bullets([PERCENT_NOTE])]
    if table.published_others:
        notes = [PUBLISHED_NOTE, *(column.note for column in table.published_others)]
        blocks += [markdown(*_published_rows(table)), bullets(notes)]
    return "\n\n".join(blocks) + "\n"


def _task_block(table: TaskTable, attribute: str) -> str:
    rows = []
    for task in table.tasks:
        row = [str(task["id"])]
        for agent in table.agents:
            cell = table.cells[str(task["id"]), agent.label]
            text = "no data" if task["missing"] and not cell.runs else getattr(cell, attribute)
            row.append(f"**{text}**" if cell.bold and attribute == "text" else text)
        rows.append(row)
    header = ["task", *map(heading, table.agents)]
    if attribute == "text":
        header += [column.heading for column in table.published]
        for row in rows:
            row += [column.text(row[0]) for column in table.published]
    return markdown(header, rows)


def _published_rows(table: TaskTable) -> tuple[list[str], list[list[str]]]:
    columns = table.published_others
    tasks = [str(task["id"]) for task in table.tasks]
    return (
        ["task", *(column.heading for column in columns)],
        [[task, *(column.text(task) for column in columns)] for task in tasks],
    )


def published_csv(table: TaskTable) -> str:
    """One line per task, agent and source of published scores."""
    return csv_text(
        "task agent source details score std",
        (
            (task, column.agent, column.source, column.details, score.score, score.std)
            for column in (*table.published, *table.published_others)
            for task, score in column.scores.items()
        ),
    )


def task_csv(table: TaskTable) -> str:
    """One line per task and agent."""
    return csv_text(
        "task agent class runs planned score_mean score_std percent_of_data percent_of_expert",
        (
            (
                *(task["id"], agent.label, agent.kind, cell.runs, cell.expected),
                *(cell.mean, cell.std, cell.percent_of_data, cell.percent_of_expert),
            )
            for task in table.tasks
            for agent in table.agents
            for cell in [table.cells[str(task["id"]), agent.label]]
        ),
    )


def aggregate_markdown(
    rows: Sequence[AggregateRow], compared: Sequence[Pair], notes: Iterable[str] = ()
) -> str:
    """Aggregates and probabilities of improvement as two Markdown tables, with notes between."""
    header = ["tasks", "agent", "runs", "coverage", *AGGREGATES]
    body = [
        [
            f"{row.group} ({row.tasks})",
            row.agent,
            str(row.estimate.runs),
            coverage(row.estimate.units, row.tasks),
            *aggregate_texts(row),
        ]
        for row in rows
    ]
    blocks = [markdown(header, body), bullets([AGGREGATE_NOTE, *notes])]
    if compared:
        header = ["X", "Y", "runs", "coverage", "P(X > Y)", "p", "p (Holm)", "verdict"]
        body = [
            [
                pair.x,
                pair.y,
                str(pair.estimate.runs),
                pair_coverage(pair),
                pair_text(pair),
                p_value(pair.p),
                p_value(pair.p_holm),
                pair.verdict,
            ]
            for pair in compared
        ]
        blocks += [markdown(header, body), bullets([PAIR_NOTE])]
    return "\n\n".join(blocks) + "\n"


def aggregate_texts(row: AggregateRow) -> list[str]:
    """Every aggregate of a row with its interval."""
    found = row.estimate
    return [interval(*bounds) for bounds in zip(found.value, found.low, found.high, strict=True)]


def pair_text(pair: Pair) -> str:
    """Probability of improvement with its interval, if that has a width."""
    found = pair.estimate
    low = float(found.low) if pair.has_interval else math.nan
    return interval(float(found.value), low, float(found.high), digits=2)


def pair_coverage(pair: Pair) -> str:
    """What such an interval covers."""
    if not pair.has_interval:
        return "no interval"
    return coverage(pair.estimate.units, pair.tasks, "improvement")


def aggregate_csv(rows: Sequence[AggregateRow]) -> str:
    """One line per group, agent and aggregate."""
    return csv_text(
        "tasks number_of_tasks agent runs_per_task aggregate value low high",
        (
            (row.group, row.tasks, row.agent, row.estimate.runs, name, *bounds)
            for row in rows
            for name, *bounds in zip(
                AGGREGATES, row.estimate.value, row.estimate.low, row.estimate.high, strict=True
            )
        ),
    )


def pair_csv(compared: Sequence[Pair]) -> str:
    """One line per pair of agents."""
    return csv_text(
        "x y runs_per_task probability_of_improvement low high p p_holm",
        (
            (pair.x, pair.y, found.runs, found.value, found.low, found.high, pair.p, pair.p_holm)
            for pair in compared
            for found in [pair.estimate]
        ),
    )


def tuned_rows(curves: Iterable[TunedCurve]) -> list[tuple[Any, ...]]:
    """Expected online performance: agent, configs tried, seeds per config, value, low, high."""
    return [
        (curve.agent, k, curve.runs, *map(float, bounds))
        for curve in curves
        for found in [curve.estimate]
        for k, bounds in enumerate(zip(found.value, found.low, found.high, strict=True), start=1)
    ]


def tuned_csv(curves: Iterable[TunedCurve]) -> str:
    """One line per agent and number of configs."""
    return csv_text("agent configs_tried runs_per_config score low high", tuned_rows(curves))
