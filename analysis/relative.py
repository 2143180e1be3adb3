"""One agent's numbers against another's, where runs are nested in draws of data and in platforms.

Several tasks of one domain and one quality of data, such as ``players-0-overlap-50`` and
``players-1-overlap-50``, are draws of one problem: *platforms*. Each may have several draws of its
data, and each of these several runs. Runs of one platform share its luck, and runs of one draw that
draw's, so the independent unit is the platform where there are several, else the draw of the data
where there are several, else the run (docs/statistics.md).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.comparison import Agent, Scores, scores_by_cell
from analysis.stats import SEED, Estimate, FloatArray, estimate, mean
from analysis.text import bullets, markdown
from results.record import Plan

if TYPE_CHECKING:
    import pandas as pd

BASELINE = "td3_bc"  # the agent that others are set against

Numbers = Mapping[str, Mapping[int, Sequence[float]]]  # of runs, by task and draw of the data
Comparing = Callable[[FloatArray, FloatArray], FloatArray]


@dataclass(frozen=True)
class Group:
    """Tasks of one domain with one quality of data; several of them are its platforms."""

    domain: str
    quality: str
    tasks: tuple[str, ...]

    @property
    def title(self) -> str:
        """``players overlap-50``."""
        return f"{self.domain} {self.quality}"


@dataclass(frozen=True)
class Against:
    """A number of one agent against the same of another.

    Attributes:
        estimate: of the comparison.
        mean: of our number alone: over the runs of a platform, then over platforms.
        base: of theirs.
        runs: runs of ours.
        unit: "platform", "draw" or "run": what is independent.
    """

    estimate: Estimate
    mean: float
    base: float
    runs: int
    unit: str

    @property
    def units(self) -> str:
        """``5 platforms``."""
        return f"{self.estimate.units} {self.unit}{'s' * (self.estimate.units != 1)}"

    @property
    def bounds(self) -> tuple[float, float, float]:
        """Value, low and high."""
        found = self.estimate
        return float(found.value), float(found.low), float(found.high)


@dataclass(frozen=True)
class Table:
    """A table with a row per agent.

    Attributes:
        title: heading.
        quality: of the data it is about, "" if of several.
        heads: of the columns behind the agent.
        rows: what to print for the agent, its label ("" if it is none of the plan's), and for every
            column a text, a number for sorting, and whether it is bold.
    """

    title: str
    quality: str
    heads: list[str]
    rows: list[tuple[str, str, list[tuple[str, float, bool]]]]


@dataclass(frozen=True)
class TablesSection:
    """A place on the page for several tables; ``study`` names it in addresses and figures."""

    study: str
    title: str
    text: str
    tables: list[Table]
    notes: list[str]


def domain(environment: str) -> str:
    """What platforms of one domain share: the name without the number of the draw."""
    return re.sub(r"-\d+$", "", environment)


def groups(plan: Plan) -> list[Group]:
    """The plan's tasks with data, by domain and quality, in its order."""
    found: dict[tuple[str, str], list[str]] = {}
    for task in plan.tasks:
        if not task["missing"]:
            key = domain(str(task["environment"])), str(task["quality"])
            found.setdefault(key, []).append(str(task["id"]))
    return [Group(*key, tuple(tasks)) for key, tasks in found.items()]


def named(plan: Plan, name: str) -> str | None:
    """The label of an agent: the one labelled like it, else the first arm of it, else None."""
    labels = [str(agent["label"]) for agent in plan.agents if agent["name"] == name]
    return name if name in labels else next(iter(labels), None)


def cells_of(runs: pd.DataFrame, column: str) -> Scores:
    """A column of a table of runs as :func:`analysis.comparison.scores_by_cell` has the scores."""
    return scores_by_cell(runs.assign(score=runs[column]))


def numbers(cells: Scores, tasks: Iterable[str], agent: str) -> Numbers:
    """One agent's numbers, by task and draw."""
    found: dict[str, dict[int, list[float]]] = {}
    for task in tasks:
        for (draw, _), value in cells.get((task, agent), {}).items():
            found.setdefault(task, {}).setdefault(draw, []).append(value)
    return found


def gap(plan: Plan, group: Group, agent: str, found: Numbers) -> str:
    """``3/5 seeds`` while an agent's runs are missing, else empty."""
    planned = sum(c["agent"] == agent and c["task"] in group.tasks for c in plan.cells)
    done = sum(len(values) for draws in found.values() for values in draws.values())
    unit = "seeds" if planned == len(plan.seeds) else "runs"
    return f"{done}/{planned} {unit}" if done < planned else ""


def matched(
    plan: Plan, cells: Scores, group: Group, agent: str, base: str, allow_missing: bool = False
) -> tuple[Numbers, Numbers, str]:
    """Two agents' numbers on what both have of a group's tasks and draws of their data.

    Returns:
        Ours, theirs, and which runs are missing, if any are. Without ``allow_missing`` no numbers
        then: an average over what happened to finish favours whoever fails on hard tasks.
    """
    ours, theirs = (numbers(cells, group.tasks, label) for label in (agent, base))
    lacking = gap(plan, group, agent, ours)
    if not lacking and (there := gap(plan, group, base, theirs)):
        lacking = f"{base} {there}"
    if lacking and not allow_missing:
        return {}, {}, lacking
    keys = {task: sorted(set(ours[task]) & set(theirs.get(task, {}))) for task in ours}
    one, other = (
        {task: {draw: side[task][draw] for draw in draws} for task, draws in keys.items() if draws}
        for side in (ours, theirs)
    )
    return one, other, lacking


def against(ours: Numbers, theirs: Numbers, compared: Comparing, known: bool = False) -> Against:
    """Compares means, with an interval over independent units.

    Of several platforms each has its own comparison, of the means over all its runs, draws weighing
    alike; the value is the mean over platforms. Of several draws of one platform's data the means
    over draws are compared, and draws are resampled with both agents' runs. Of runs on one draw the
    means over runs are compared, and both agents' runs are resampled, each by themselves.

    Args:
        ours: at least one number.
        theirs: of the same tasks and draws.
        compared: maps two arrays of means to an array of comparisons.
        known: whether theirs has no luck of its own to resample, as the mean of a dataset.
    """
    rng = np.random.default_rng(SEED)
    tasks = list(ours)
    one, other = (np.array([_mean(side[task]) for task in tasks]) for side in (ours, theirs))
    if len(tasks) > 1:
        unit, found = "platform", estimate(mean, compared(one, other)[:, None], rng=rng)
    elif len(ours[tasks[0]]) > 1:
        pairs = np.array(
            [[np.mean(ours[tasks[0]][d]), np.mean(theirs[tasks[0]][d])] for d in ours[tasks[0]]]
        )

        def of_draws(places: FloatArray) -> FloatArray:
            means = pairs[places[..., 0].astype(int)].mean(axis=-2)
            return compared(means[..., 0], means[..., 1])

        # Both agents' runs of a draw go together: what is resampled is the draw's number.
        unit, found = "draw", estimate(of_draws, np.arange(float(len(pairs)))[:, None], rng=rng)
    else:
        (x,), (y,) = ours[tasks[0]].values(), theirs[tasks[0]].values()
        samples = [np.array(values, dtype=float)[:, None] for values in ([x] if known else [x, y])]

        def of_runs(*drawn: FloatArray) -> FloatArray:
            first, *second = map(mean, drawn)
            return compared(first, *(second or [other[0]]))

        unit, found = "run", estimate(of_runs, *samples, rng=rng)
    runs = sum(len(values) for draws in ours.values() for values in draws.values())
    return Against(found, float(one.mean()), float(other.mean()), runs, unit)


def _mean(draws: Mapping[int, Sequence[float]]) -> float:
    return float(np.mean([np.mean(values) for values in draws.values()]))


def alike(agents: Iterable[Agent], base: str) -> list[Agent]:
    """The agents that may be set against another: of its class, trained at a like budget."""
    agents = list(agents)
    kinds = {agent.label: agent.kind for agent in agents}
    return [agent for agent in agents if agent.kind == kinds[base] and agent.label != base]


def units_note(found: Iterable[Against]) -> list[str]:
    """How many independent units there are, and what intervals over them are worth."""
    counts = dict.fromkeys(each.units for each in found)
    if not counts:
        return []
    return [
        "Independent are platforms where a domain has several of one quality, else draws of the "
        f"data where there are several, else runs; here {', '.join(counts)}. From three on there "
        "are intervals; simulated ones of this kind hold the truth in 94 to 98 % of cases."
    ]


def size_cell(found: Against | None) -> tuple[str, float, bool]:
    """A table's cell on how much a row rests on: ``25 in 5 platforms``."""
    if found is None:
        return "-", math.nan, False
    nested = found.unit != "run"
    return f"{found.runs}" + f" in {found.units}" * nested, float(found.runs), False


def tables_markdown(section: TablesSection) -> str:
    """A section's tables as Markdown."""
    blocks = [f"## {section.title}", section.text]
    for table in section.tables:
        rows = [
            [shown, *(f"**{text}**" if bold else text for text, _, bold in cells)]
            for shown, _, cells in table.rows
        ]
        blocks += [f"### {table.title}", markdown(["agent", *table.heads], rows)]
    return "\n\n".join([*blocks, bullets(section.notes)]) + "\n"


def csv_columns(group: Group, found: Against | None, note: str) -> tuple[Any, ...]:
    """What CSV files say of a comparison: its size, its value with the interval, and the gap."""
    tasks = len(group.tasks)
    if found is None:
        return (tasks, "", "", "", *[math.nan] * 5, note)
    sizes = (tasks, found.runs, found.unit, found.estimate.units)
    return (*sizes, found.mean, found.base, *found.bounds, note)
