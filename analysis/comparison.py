"""Which runs may be compared, and what the comparison says.

Aggregates, profiles and probabilities of improvement are taken over agents of one class: trained at
the same, unshrunk budget. References and shrunk agents stay in the task table only.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from analysis.stats import (
    BAND_REPETITIONS,
    MINIMUM_RUNS_FOR_CLAIMS,
    SEED,
    Estimate,
    FloatArray,
    IntArray,
    estimate_aggregates,
    estimate_improvement,
    estimate_profile,
    exact_p_value,
    holm,
    probability_of_improvement,
    unit_means,
)
from results.record import Plan

if TYPE_CHECKING:
    import pandas as pd

ALL_TASKS = "all tasks"
LEVEL = 0.05  # family-wise, after Holm
_FIRST = ("random", "behaviour", "bc")  # the yardsticks, in table order
_NAMED_GAPS = 5

Scores = dict[tuple[str, str], dict[tuple[int, int], float]]
Kind = Literal["reference", "comparison", "shrunk", "foreign"]


class IncompleteMatrixError(ValueError):
    """Runs are missing, so aggregates are refused; the message names them."""


@dataclass(frozen=True)
class Agent:
    """A column of the task table."""

    label: str
    kind: Kind
    tuned: bool = False
    configs_tried: int = 1


@dataclass(frozen=True)
class Comparison:
    """Full score matrices of the agents of one class.

    Attributes:
        scores: ``[n, T]`` by agent; n may differ between agents.
        tasks: the T columns.
        groups: columns by name: all tasks, then each quality that has at least two.
        notes: sentences on what was left out, and on draws of the data.
        draws: ``[n]`` draw of the data of each run, by agent; an agent that is not in it has one.
    """

    scores: dict[str, FloatArray]
    tasks: list[str]
    groups: dict[str, list[int]]
    notes: list[str]
    draws: dict[str, IntArray] = field(default_factory=dict)


@dataclass(frozen=True)
class AggregateRow:
    """One agent's aggregates over a group of tasks; ``estimate`` is in the order of AGGREGATES."""

    group: str
    agent: str
    tasks: int
    estimate: Estimate


@dataclass(frozen=True)
class Pair:
    """How often a run of ``x`` scores above a run of ``y``.

    Attributes:
        x: the agent that is ahead (or was listed first, at one half).
        y: the other.
        tasks: number of tasks.
        estimate: probability of improvement of x over y.
        p: exact two-sided p-value of their being alike on every task; of the means over draws of
            the data where there are several.
        p_holm: the same, adjusted for all pairs of the report.
    """

    x: str
    y: str
    tasks: int
    estimate: Estimate
    p: float
    p_holm: float

    @property
    def has_interval(self) -> bool:
        """Whether the estimate has an interval with a width; without one it tells nothing."""
        return bool(self.estimate.low < self.estimate.high)

    @property
    def verdict(self) -> str:
        """What may be said of the pair in words."""
        if self.estimate.units < MINIMUM_RUNS_FOR_CLAIMS:
            nested = self.estimate.units < self.estimate.runs
            return f"no verdict under {MINIMUM_RUNS_FOR_CLAIMS} {'draws' if nested else 'runs'}"
        return f"{self.x} better" if self.p_holm < LEVEL else "not separated"


def agents(plan: Plan, runs: pd.DataFrame) -> list[Agent]:
    """Columns of the task table: random, behaviour and bc, the plan's others, foreign ones."""
    planned = [
        Agent(
            label=str(agent["label"]),
            kind="reference"
            if agent["reference"]
            else "shrunk"
            if agent["shrunk"]
            else "comparison",
            tuned=agent.get("track") == "tuned",
            configs_tried=int(agent.get("configs_tried") or 1),
        )
        for agent in plan.agents
    ]
    planned.sort(key=lambda agent: _FIRST.index(agent.label) if agent.label in _FIRST else 99)
    foreign = dict.fromkeys(runs.loc[runs["foreign"].astype(bool), "agent"])
    return planned + [Agent(label, "foreign") for label in foreign]


def scores_by_cell(runs: pd.DataFrame) -> Scores:
    """Scores as ``{(task, agent): {(draw, seed): score}}``, draws and seeds ascending.

    Runs without a score, of tasks without a simulator or a scale, are not in it.

    A table without the column "draw" has one draw of the data, 0.
    """
    draws = runs["draw"] if "draw" in runs else itertools.repeat(0, len(runs))
    cells: Scores = {}
    for task, agent, draw, seed, score in zip(
        runs["task"], runs["agent"], draws, runs["seed"], runs["score"], strict=True
    ):
        if not math.isnan(score):
            cells.setdefault((task, agent), {})[int(draw), int(seed)] = float(score)
    return {key: dict(sorted(scores.items())) for key, scores in cells.items()}


def scored_tasks(plan: Plan) -> list[str]:
    """The plan's tasks on which policies are scored: with data, a simulator and a scale."""
    unscored = itertools.chain(*unscored_tasks(plan))
    without = {*unscored, *(str(task["id"]) for task in plan.tasks if task["missing"])}
    return [task for task in (str(task["id"]) for task in plan.tasks) if task not in without]


def unscored_tasks(plan: Plan) -> tuple[list[str], list[str]]:
    """Tasks with data but without a simulator, and those with one but without a scale."""
    with_data = [task for task in plan.tasks if not task["missing"]]
    blind = [str(task["id"]) for task in with_data if not task.get("simulator", True)]
    unscaled = [str(task["id"]) for task in with_data if not task.get("scored", True)]
    return blind, [task for task in unscaled if task not in blind]


def compare(plan: Plan, runs: pd.DataFrame, allow_missing: bool = False) -> Comparison:
    """Collects the score matrices that may be aggregated.

    Tasks whose data is missing are left out and named. With ``allow_missing`` so are agents without
    any run and tasks that one of the others has not begun; what remains is cut to the same number
    of runs (and of draws of the data) on every task of an agent, lowest first, so that tasks keep
    equal weight.

    Raises:
        IncompleteMatrixError: if runs are missing and ``allow_missing`` is not set, or if nothing
            is left.
    """
    cells = scores_by_cell(runs)
    columns = agents(plan, runs)
    tasks = scored_tasks(plan)
    notes = _what_is_left_out(plan, columns)
    ours = [agent.label for agent in columns if agent.kind == "comparison"]
    if not ours or not tasks:
        lacking = "agents at an unshrunk budget" if tasks else "tasks with data and scores"
        raise IncompleteMatrixError(f"No aggregates: this plan has no {lacking}.")

    planned = Counter((str(cell["task"]), str(cell["agent"])) for cell in plan.cells)
    expected = max([len(plan.seeds), *(planned[task, label] for task in tasks for label in ours)])
    unit = "seeds" if expected == len(plan.seeds) else "runs"
    gaps = [
        f"{label} has {done}/{expected} {unit} on {task}"
        for task in tasks
        for label in ours
        if (done := len(cells.get((task, label), {}))) < expected
    ]
    if gaps and not allow_missing:
        more = f"; and {len(gaps) - _NAMED_GAPS} more gaps" if len(gaps) > _NAMED_GAPS else ""
        raise IncompleteMatrixError(
            f"No aggregates over an incomplete matrix: {'; '.join(gaps[:_NAMED_GAPS])}{more}. "
            "Finish these runs, or pass --allow-missing to aggregate over what is there."
        )
    if gaps:
        idle = [label for label in ours if not any((task, label) in cells for task in tasks)]
        ours = [label for label in ours if label not in idle]
        partial = [task for task in tasks if any((task, label) not in cells for label in ours)]
        tasks = [task for task in tasks if task not in partial]
        if not ours or not tasks:
            raise IncompleteMatrixError("No aggregates: no task has a run of every agent yet.")
        notes += [f"{label} has no finished run and is left out." for label in idle]
        notes += [f"{task} lacks runs of some agents and is left out." for task in partial]
        notes.append(
            "The matrix is incomplete: each agent counts with as many runs per task as it has on "
            "the task where it has fewest."
        )

    compared = list(ours)
    for label in (agent.label for agent in columns if agent.kind == "foreign"):
        uncovered = [task for task in tasks if (task, label) not in cells]
        if uncovered:
            notes.append(f"{label} (foreign) lacks {', '.join(uncovered)} and is left out.")
        else:
            compared.append(label)
    qualities = {str(task["id"]): str(task["quality"]) for task in plan.tasks}
    counts = Counter(qualities[task] for task in tasks)
    groups = {ALL_TASKS: list(range(len(tasks)))}
    for quality, count in counts.items():
        if 1 < count < len(tasks):
            groups[quality] = [i for i, task in enumerate(tasks) if qualities[task] == quality]
    matrices = {label: _matrix(cells, label, tasks) for label in compared}
    draws = {label: labels for label, (_, labels) in matrices.items()}
    return Comparison(
        scores={label: scores for label, (scores, _) in matrices.items()},
        tasks=tasks,
        groups=groups,
        notes=notes + _about_draws(draws),
        draws=draws,
    )


def _what_is_left_out(plan: Plan, columns: list[Agent]) -> list[str]:
    missing = [str(task["id"]) for task in plan.tasks if task["missing"]]
    shrunk = [agent.label for agent in columns if agent.kind == "shrunk"]
    notes = []
    if missing:
        notes.append(f"Without data and left out: {', '.join(missing)}.")
    blind, unscaled = unscored_tasks(plan)
    if blind:
        notes.append(f"Without a simulator, so without returns, and left out: {', '.join(blind)}.")
    if unscaled:
        notes.append(f"Without a scale of returns and left out: {', '.join(unscaled)}.")
    if shrunk:
        notes.append(f"Shrunk by the budget and left out: {', '.join(shrunk)}.")
    return notes


def _about_draws(draws: dict[str, IntArray]) -> list[str]:
    counts = {label: len(np.unique(labels)) for label, labels in draws.items()}
    many = max(counts.values(), default=1)
    if many == 1:
        return []
    few = [label for label, count in counts.items() if count == 1]
    return [
        f"Runs are nested in {many} draws of the data: intervals and p-values are over draws, each "
        "with all its runs, so that they also describe new data of the same recipe.",
        *([f"Of one draw of the data, or of unknown ones: {', '.join(few)}."] if few else []),
    ]


def _matrix(cells: Scores, label: str, tasks: list[str]) -> tuple[FloatArray, IntArray]:
    """Scores ``[n, T]`` and draws ``[n]``.

    As many draws as the agent has on the task where it has fewest, and as many runs of each as the
    smallest of these draws has.
    """
    nested = []
    for task in tasks:
        by_draw: dict[int, list[float]] = {}
        for (draw, _), score in cells[task, label].items():
            by_draw.setdefault(draw, []).append(score)
        nested.append(list(by_draw.values()))
    draws = min(map(len, nested))
    runs = min(len(scores) for column in nested for scores in column[:draws])
    scores = np.array([[draw[:runs] for draw in column[:draws]] for column in nested])
    return scores.reshape(len(tasks), -1).T, np.repeat(np.arange(draws), runs)


def aggregate_rows(comparison: Comparison) -> list[AggregateRow]:
    """Aggregates with intervals for every group and agent."""
    return [
        AggregateRow(
            group=group,
            agent=agent,
            tasks=len(columns),
            estimate=estimate_aggregates(
                scores[:, columns],
                comparison.draws.get(agent),
                rng=np.random.default_rng(SEED),
            ),
        )
        for group, columns in comparison.groups.items()
        for agent, scores in comparison.scores.items()
    ]


def pairs(comparison: Comparison) -> list[Pair]:
    """Probability of improvement for every pair of agents, p-values adjusted over all of them."""
    found = []
    for x, y in itertools.combinations(comparison.scores, 2):
        if probability_of_improvement(comparison.scores[x], comparison.scores[y]) < 0.5:
            x, y = y, x
        ours, theirs = comparison.scores[x], comparison.scores[y]
        draws = comparison.draws.get(x), comparison.draws.get(y)
        value = estimate_improvement(ours, theirs, draws, rng=np.random.default_rng(SEED))
        p = exact_p_value(unit_means(ours, draws[0]), unit_means(theirs, draws[1]))
        found.append((x, y, value, p))
    adjusted = holm([p for *_, p in found])
    return [
        Pair(x, y, len(comparison.tasks), value, p, float(p_holm))
        for (x, y, value, p), p_holm in zip(found, adjusted, strict=True)
    ]


def profiles(comparison: Comparison, points: int = 201) -> tuple[FloatArray, dict[str, Estimate]]:
    """Performance profiles on a common grid of thresholds.

    Returns:
        Thresholds ``[points]`` that span all scores and 0 to 100, and the profile of every agent.
    """
    everything = np.concatenate([scores.ravel() for scores in comparison.scores.values()])
    low, high = min(0.0, everything.min()), max(100.0, everything.max())
    taus = np.linspace(np.floor(low / 10) * 10, np.ceil(high / 10) * 10, points)
    return taus, {
        agent: estimate_profile(
            scores,
            taus,
            comparison.draws.get(agent),
            rng=np.random.default_rng(SEED),
            repetitions=BAND_REPETITIONS,
        )
        for agent, scores in comparison.scores.items()
    }
