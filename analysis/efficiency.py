"""Sample efficiency of agents that learn online from nothing: what a step of the environment buys.

A run's *area* is the mean of its score over environment steps: the curve is drawn straight from one
evaluation to the next and, before the first, from 0, the score of uniformly random actions, which
is what an agent that knows nothing begins with. Runs on one task are cut where the shortest of them
ends. Unlike the last score an area also tells apart agents that arrive at the same place at
different times, and no threshold has to be chosen for it.

Areas take the place of scores in everything that :mod:`analysis.comparison` says of scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from analysis.comparison import (
    ALL_TASKS,
    IncompleteMatrixError,
    Pair,
    aggregate_rows,
    compare,
    pairs,
)
from analysis.frame import Run
from analysis.stats import AGGREGATES, INTERVALS, SEED, Estimate, FloatArray, estimate, mean
from analysis.studies import Section
from analysis.tables import pair_text
from analysis.text import csv_text, interval, p_value
from results.record import Plan

if TYPE_CHECKING:
    import pandas as pd

STUDY = "efficiency"
TITLE = "Sample efficiency"
TEXT = (
    "Agents that learned online from nothing, by environment steps. Area: the mean score over all "
    "steps of training, the curve drawn from 0 at the first step."
)
THRESHOLDS = (50.0, 75.0, 90.0)  # scores
LEAST_AREA = 1.0  # of means that are divided: below it a ratio says nothing
MOST_PAIRS = 3  # that are all told of; of more only those that are separated


@dataclass(frozen=True)
class Cell:
    """One agent's runs on one task.

    Attributes:
        task: its id.
        agent: label.
        joint: number of joint actions of the task, None where the records do not tell.
        keys: (draw, seed) of the n runs.
        steps: ``[P]`` environment steps at which all of the runs were evaluated.
        scores: ``[n, P]``.
        areas: ``[n]``, up to the step where the task's shortest run ends.
        reached: ``[n, thresholds]`` steps at the first evaluation that reached each of
            ``THRESHOLDS``, infinite where none did.
    """

    task: str
    agent: str
    joint: int | None
    keys: list[tuple[int, int]]
    steps: FloatArray
    scores: FloatArray
    areas: FloatArray
    reached: FloatArray


def from_nothing(run: Run) -> bool:
    """Whether all that a run learned from was collected by itself, and scored on the way."""
    phases, curve = run.record.phases, run.record.curve
    return (
        not run.record.agent.get("reference")
        and bool(phases)
        and all(phase.get("source") == "replay" for phase in phases)
        and bool(curve)
        and all(point.get("env_steps") and "score" in point for point in curve)
    )


def joint_actions(run: Run) -> int | None:
    """The size of the task's action space; None for boxes, and where the record does not tell."""
    task = run.record.task
    if task.get("joint_actions"):
        return int(task["joint_actions"])
    action = (task.get("spaces") or {}).get("action", {})
    if action.get("kind") == "MultiDiscrete":
        return math.prod(int(n) for n in action["nvec"])
    return int(action["n"]) if action.get("kind") == "Discrete" else None


def area(steps: FloatArray, scores: FloatArray, upto: float) -> float:
    """Mean score over the first ``upto`` environment steps.

    Args:
        steps: ``[P]``, ascending and positive; the last is at least ``upto``.
        scores: ``[P]``.
        upto: where to cut, positive.
    """
    at = np.concatenate(([0.0], steps[steps < upto], [upto]))
    height = np.interp(at, np.concatenate(([0.0], steps)), np.concatenate(([0.0], scores)))
    return float((np.diff(at) * (height[1:] + height[:-1]) / 2).sum() / upto)


def first_reach(steps: FloatArray, scores: FloatArray, threshold: float) -> float:
    """Environment steps at the first evaluation of at least ``threshold``, infinite if none."""
    there = np.flatnonzero(scores >= threshold)
    return float(steps[there[0]]) if len(there) else math.inf


def find(runs: Iterable[Run]) -> list[Cell]:
    """All cells with runs from nothing, in the order of the runs.

    Args:
        runs: finished ones.
    """
    cells: dict[tuple[str, str], list[Run]] = {}
    ends: dict[str, float] = {}
    for run in runs:
        if from_nothing(run):
            cells.setdefault((run.task, run.agent), []).append(run)
            last = float(run.record.curve[-1]["env_steps"])
            ends[run.task] = min(last, ends.get(run.task, math.inf))
    return [_cell(task, agent, found, ends[task]) for (task, agent), found in cells.items()]


def _cell(task: str, agent: str, runs: list[Run], end: float) -> Cell:
    curves = [_curve(run) for run in runs]
    shared = sorted(set.intersection(*(set(steps.tolist()) for steps, _ in curves)))
    scores = [values[np.isin(steps, shared)] for steps, values in curves]
    return Cell(
        task=task,
        agent=agent,
        joint=joint_actions(runs[0]),
        keys=[(run.draw, run.seed) for run in runs],
        steps=np.array(shared),
        scores=np.array(scores),
        areas=np.array([area(*curve, end) for curve in curves]),
        reached=np.array(
            [[first_reach(*curve, threshold) for threshold in THRESHOLDS] for curve in curves]
        ),
    )


def _curve(run: Run) -> tuple[FloatArray, FloatArray]:
    """Steps ``[P]``, ascending, and scores; of evaluations at the same step the last counts."""
    points = {float(point["env_steps"]): float(point["score"]) for point in run.record.curve}
    steps = np.array(sorted(points))
    return steps, np.array([points[step] for step in steps])


def mean_area(cell: Cell) -> Estimate:
    """The mean area over runs, with its interval."""
    return estimate(mean, cell.areas[:, None], rng=np.random.default_rng(SEED))


def ratio(ours: Sequence[Cell], theirs: Sequence[Cell]) -> Estimate:
    """Ratios of mean areas on each of T tasks, ``[T]``, with intervals.

    Means below ``LEAST_AREA`` count as that much.
    """
    return estimate(_ratios, *_matrices(ours, theirs), rng=np.random.default_rng(SEED))


def growth(ours: Sequence[Cell], theirs: Sequence[Cell]) -> Estimate:
    """How many times the ratio of mean areas on the first task is that on the last one.

    Args:
        ours: cells of one agent, of tasks in order of their action spaces.
        theirs: cells of another on the same tasks.
    """

    def grown(x: FloatArray, y: FloatArray) -> FloatArray:
        found = _ratios(x, y)
        return np.asarray(found[..., -1] / found[..., 0])

    return estimate(grown, *_matrices(ours, theirs), rng=np.random.default_rng(SEED))


def _ratios(x: FloatArray, y: FloatArray) -> FloatArray:
    ours, theirs = (np.maximum(areas.mean(axis=-2), LEAST_AREA) for areas in (x, y))
    return np.asarray(ours / theirs)


def _matrices(ours: Sequence[Cell], theirs: Sequence[Cell]) -> tuple[FloatArray, FloatArray]:
    """Areas ``[n, T]`` of both, n the fewest runs that any task has."""
    return _columns(ours), _columns(theirs)


def _columns(cells: Sequence[Cell]) -> FloatArray:
    runs = min(len(cell.areas) for cell in cells)
    return np.stack([cell.areas[:runs] for cell in cells], axis=1)


def by_size(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """By agent its cells in order of joint actions; none unless all have two or more sizes."""
    known = sorted((cell for cell in cells if cell.joint), key=lambda cell: cell.joint or 0)
    sizes = {cell.joint for cell in known}
    tasks = {cell.task for cell in known}
    if len(sizes) < 2 or len(sizes) < len(tasks):
        return {}
    found: dict[str, list[Cell]] = {}
    for cell in known:
        found.setdefault(cell.agent, []).append(cell)
    return {agent: row for agent, row in found.items() if len(row) == len(tasks)}


def area_runs(runs: pd.DataFrame, cells: Sequence[Cell]) -> pd.DataFrame:
    """The runs behind the cells, with areas where their scores were."""
    areas = {
        (cell.task, cell.agent, *key): value
        for cell in cells
        for key, value in zip(cell.keys, cell.areas.tolist(), strict=True)
    }
    keys = list(zip(runs["task"], runs["agent"], runs["draw"], runs["seed"], strict=True))
    score = [areas.get(key, math.nan) for key in keys]
    return runs.assign(score=score)[[key in areas for key in keys]]


def area_pairs(
    plan: Plan, runs: pd.DataFrame, cells: Sequence[Cell], allow_missing: bool = False
) -> dict[str, list[Pair]]:
    """How often an area of x lies above one of y: by task, and over all of them if several.

    Tasks that lack runs are left out. P-values are adjusted within a task.
    """
    areas, tasks = area_runs(runs, cells), list(dict.fromkeys(cell.task for cell in cells))
    groups = [[task] for task in tasks] + [tasks] * (len(tasks) > 1)
    found = {}
    for group in groups:
        try:
            compared = compare(_part(plan, cells, group), areas, allow_missing)
        except IncompleteMatrixError:
            continue
        found[group[0] if len(group) == 1 else ALL_TASKS] = pairs(compared)
    return found


def _part(plan: Plan, cells: Sequence[Cell], tasks: Sequence[str]) -> Plan:
    """The plan as if it had these tasks alone, and the agents of the cells."""
    agents = {cell.agent for cell in cells}
    return replace(
        plan,
        tasks=[task for task in plan.tasks if task["id"] in tasks],
        agents=[agent for agent in plan.agents if agent["label"] in agents],
        cells=[c for c in plan.cells if c["task"] in tasks and c["agent"] in agents],
    )


def pooled_areas(
    plan: Plan, runs: pd.DataFrame, cells: Sequence[Cell], allow_missing: bool = False
) -> dict[str, tuple[int, Estimate]]:
    """By agent the number of tasks and the mean area over them, by stratified bootstrap.

    Empty for a single task, and where runs are missing.
    """
    tasks = list(dict.fromkeys(cell.task for cell in cells))
    if len(tasks) < 2:
        return {}
    try:
        compared = compare(_part(plan, cells, tasks), area_runs(runs, cells), allow_missing)
    except IncompleteMatrixError:
        return {}
    place = list(AGGREGATES).index("Mean")
    return {
        row.agent: (row.tasks, _at(row.estimate, place))
        for row in aggregate_rows(compared)
        if row.group == ALL_TASKS
    }


def _at(found: Estimate, place: int) -> Estimate:
    value, low, high = (np.asarray(a[place]) for a in (found.value, found.low, found.high))
    return replace(found, value=value, low=low, high=high)


def section(
    plan: Plan, runs: pd.DataFrame, cells: Sequence[Cell], allow_missing: bool = False
) -> Section | None:
    """Areas, thresholds and probabilities as a section of the page; None if there are no cells.

    Args:
        plan: of the report.
        runs: its table of runs.
        cells: from :func:`find`.
        allow_missing: compare what there is where runs are missing.
    """
    if not cells:
        return None
    rows = []
    for cell in cells:
        texts = [_text(mean_area(cell))]
        texts += [_reach_text(cell.reached[:, place]) for place in range(len(THRESHOLDS))]
        rows.append((cell.task, cell.agent, len(cell.areas), texts))
    heads = ["area", *(f"steps to {threshold:g}" for threshold in THRESHOLDS)]
    notes = [
        INTERVALS,
        "Steps to a score: median over runs of the first evaluation that reached it, and how many "
        "runs did; runs that never did count as later than all others.",
    ]
    for agent, (tasks, found) in pooled_areas(plan, runs, cells, allow_missing).items():
        notes.append(f"Over {tasks} tasks the mean area of {agent} is {_text(found)[0]}.")
    for task, compared in area_pairs(plan, runs, cells, allow_missing).items():
        told = [
            pair
            for pair in compared
            if len(compared) <= MOST_PAIRS or pair.verdict == f"{pair.x} better"
        ]
        notes += [f"On {task}, {_pair_text(pair)}" for pair in told]
        if len(told) < len(compared):
            notes.append(f"On {task}, {len(compared) - len(told)} other pairs are not separated.")
    notes += _growth_notes(by_size(cells))
    return Section(STUDY, TITLE, TEXT, heads, rows, notes)


def _text(found: Estimate) -> tuple[str, float]:
    value = float(found.value)
    return interval(value, float(found.low), float(found.high)), value


def _reach_text(reached: FloatArray) -> tuple[str, float]:
    median, count = float(np.median(reached)), int(np.isfinite(reached).sum())
    text = f"{median:,.0f}" if math.isfinite(median) else "never"
    return f"{text} ({count}/{len(reached)})", median if math.isfinite(median) else math.nan


def _pair_text(pair: Pair) -> str:
    return (
        f"an area of {pair.x} lies above one of {pair.y} with probability {pair_text(pair)}; "
        f"adjusted p {p_value(pair.p_holm)}: {pair.verdict}."
    )


def _growth_notes(sizes: Mapping[str, list[Cell]]) -> list[str]:
    """How ratios to the first agent grow from the smallest action space to the largest."""
    if len(sizes) < 2:
        return []
    (first, theirs), *others = sizes.items()
    spaces = f"{theirs[0].joint:,} to {theirs[-1].joint:,} joint actions"
    notes = []
    for agent, ours in others:
        found = growth(ours, theirs)
        bounds = interval(float(found.value), float(found.low), float(found.high), digits=2)
        notes.append(f"From {spaces} the ratio of areas, {agent} to {first}, grows {bounds} times.")
    return notes


def efficiency_csv(cells: Iterable[Cell]) -> str:
    """One line for each run: its area, and the steps to every threshold."""
    reach = " ".join(f"steps_to_{threshold:g}" for threshold in THRESHOLDS)
    return csv_text(
        f"task agent draw seed joint_actions area {reach}",
        (
            (cell.task, cell.agent, draw, seed, cell.joint or "", value, *_finite(reached))
            for cell in cells
            for (draw, seed), value, reached in zip(
                cell.keys, cell.areas, cell.reached, strict=True
            )
        ),
    )


def _finite(values: FloatArray) -> list[float]:
    return [float(value) if math.isfinite(value) else math.nan for value in values]
