"""Measures beside the score: what environments report of an episode besides its return.

Every measure of every agent is set against the logging mixture, whose means are those of the data,
and against TD3+BC, as a change in per cent of means (:func:`analysis.relative.against`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.comparison import Agent, Scores
from analysis.comparison import agents as agents_of
from analysis.frame import MEASURE
from analysis.published import PublishedMeasures, published_measures
from analysis.relative import (
    BASELINE,
    Against,
    Group,
    Table,
    TablesSection,
    against,
    alike,
    cells_of,
    csv_columns,
    groups,
    matched,
    named,
    size_cell,
    units_note,
)
from analysis.stats import INTERVALS, MINIMUM_RUNS_FOR_CLAIMS, FloatArray
from analysis.tables import heading
from analysis.text import csv_text
from results.record import Plan

if TYPE_CHECKING:
    import pandas as pd

STUDY = "measures"
TITLE = "Measures"
TEXT = (
    "What the environment reports of an episode beside its return. Change of the mean over the "
    "final episodes in per cent, against the logging mixture (the mean of the data) and against "
    f"{BASELINE}."
)
MIXTURE = "behaviour"
NO_RATIO = "no ratio"
_FIRST = ("player_returns", "lifetime_value", "engagement", "dwell_time")  # order of the tables
_COST = "_cost"  # of measures named so less is better
_NOTES = (
    "The ratio is taken of means on each platform, the change then averaged over platforms.",
    f"{MIXTURE}, its means: those of the data as they are, averaged over platforms.",
    "↓ less is better.",
)


@dataclass(frozen=True)
class Change:
    """One measure of one agent against the same of a base, on the tasks of a group.

    Attributes:
        group: the tasks.
        base: label that it is set against.
        agent: whose measure it is.
        measure: its name.
        found: the change in per cent with its interval; None where ``gap`` says why not.
        gap: which runs are missing, or that means allow no ratio; else empty.
    """

    group: Group
    base: str
    agent: Agent
    measure: str
    found: Against | None
    gap: str

    @property
    def text(self) -> str:
        """``+2.1 % [+0.3, +3.9]``; what is missing; ``-`` where nothing was planned."""
        if self.found is None:
            return self.gap or "-"
        return percent(*self.found.bounds)

    @property
    def bold(self) -> bool:
        """Whether the interval lies on the better side of no change, and rests on enough units."""
        if self.found is None or self.agent.kind != "comparison":
            return False
        _, low, high = self.found.bounds
        enough = self.found.estimate.units >= MINIMUM_RUNS_FOR_CLAIMS
        return enough and (high < 0 if is_cost(self.measure) else low > 0)


def is_cost(measure: str) -> bool:
    """Whether less of it is better."""
    return measure.endswith(_COST)


def title(measure: str) -> str:
    """A measure's name for people, with an arrow where less is better."""
    return measure.replace("_", " ") + " ↓" * is_cost(measure)


def percent(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """``+2.1 % [+0.3, +3.9]``, changes below one per cent with a digit more."""
    digits = 2 if abs(value) < 1 else 1
    bounds = "" if math.isnan(low) else f" [{low:+z.{digits}f}, {high:+z.{digits}f}]"
    return f"{value:+z.{digits}f} %{bounds}"


def change(ours: FloatArray, base: FloatArray) -> FloatArray:
    """Change in per cent."""
    return 100.0 * (ours / base - 1.0)


def names(runs: pd.DataFrame) -> list[str]:
    """The measures in a table of runs: the known ones first, costs last."""
    found = sorted(c.removeprefix(MEASURE) for c in runs.columns if c.startswith(MEASURE))
    return sorted(found, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST)
                                           + is_cost(name)))  # fmt: skip


def find(plan: Plan, runs: pd.DataFrame, allow_missing: bool = False) -> list[Change]:
    """All changes, by group, base and agent; none if the runs have no measures.

    Args:
        plan: of the report.
        runs: its table of runs.
        allow_missing: compare what there is where runs are missing.
    """
    found = []
    measured, agents = names(runs), agents_of(plan, runs)
    bases = [base for base in (named(plan, MIXTURE), named(plan, BASELINE)) if base is not None]
    cells = {measure: cells_of(runs, f"{MEASURE}{measure}") for measure in measured}
    for group in _measured(plan, runs, measured):
        for base in bases:
            known = base == MIXTURE
            others = [a for a in agents if a.label != base] if known else alike(agents, base)
            found += [
                _change(plan, cells[measure], group, base, agent, measure, allow_missing)
                for agent in others
                if agent.kind != "foreign"
                for measure in measured
            ]
    return found


def _measured(plan: Plan, runs: pd.DataFrame, measured: Sequence[str]) -> Iterable[Group]:
    """The groups of tasks that any run has measures of."""
    columns = [f"{MEASURE}{name}" for name in measured]
    tasks = set(runs.loc[runs[columns].notna().any(axis=1), "task"]) if columns else set()
    return (group for group in groups(plan) if tasks & set(group.tasks))


def _change(
    plan: Plan,
    cells: Scores,
    group: Group,
    base: str,
    agent: Agent,
    measure: str,
    allow_missing: bool,
) -> Change:
    ours, theirs, lacking = matched(plan, cells, group, agent.label, base, allow_missing)
    if not ours:
        return Change(group, base, agent, measure, None, lacking)
    if any(min(values) <= 0 for draws in theirs.values() for values in draws.values()):
        return Change(group, base, agent, measure, None, NO_RATIO)
    found = against(ours, theirs, change, known=base == MIXTURE)
    return Change(group, base, agent, measure, found, lacking)


def section(changes: Sequence[Change]) -> TablesSection | None:
    """Tables by group and base as a section of the page; None if there are no measures."""
    if not changes:
        return None
    tables, published = [], []
    for group, base in dict.fromkeys((each.group, each.base) for each in changes):
        here = [each for each in changes if (each.group, each.base) == (group, base)]
        printed = published_measures(group.domain)
        published += printed
        tables.append(_table(group, base, here, printed))
    notes = [INTERVALS, *_NOTES, *units_note(each.found for each in changes if each.found)]
    if any(each.bold for each in changes):
        notes.append(
            f"Bold: from {MINIMUM_RUNS_FOR_CLAIMS} independent units on, an interval that lies "
            "wholly on the better side of no change; not corrected for the number of cells, so "
            "among many some err."
        )
    units = [each.found.estimate.units for each in changes if each.found]
    if units and max(units) < MINIMUM_RUNS_FOR_CLAIMS:
        notes.append(f"No change is called better: that takes {MINIMUM_RUNS_FOR_CLAIMS} units.")
    if any(each.gap == NO_RATIO for each in changes):
        notes.append(f"{NO_RATIO}: a mean that is not positive has no change in per cent.")
    if any(each.gap and each.found for each in changes):
        notes.append("The matrix is incomplete: changes are over the runs that there are.")
    notes += dict.fromkeys(entry.note for entry in published)
    return TablesSection(STUDY, TITLE, TEXT, tables, notes)


def _table(
    group: Group, base: str, here: Sequence[Change], published: Sequence[PublishedMeasures]
) -> Table:
    measured = list(dict.fromkeys(each.measure for each in here))
    rows = []
    if base == MIXTURE:
        levels = {each.measure: each.found.base for each in here if each.found}
        cells = [(f"{levels[m]:.4g}", levels[m], False) if m in levels else ("-", math.nan, False)
                 for m in measured]  # fmt: skip
        rows.append((f"{base}, its means", base, [("", math.nan, False), *cells]))
    for agent in dict.fromkeys(each.agent for each in here):
        own = [each for each in here if each.agent == agent]
        some = next((each.found for each in own if each.found), None)
        cells = [(c.text, c.found.bounds[0] if c.found else math.nan, c.bold) for c in own]
        rows.append((heading(agent), agent.label, [size_cell(some), *cells]))
    for entry in published:
        there = [entry.changes.get(measure, math.nan) for measure in measured]
        texts = ["-" if math.isnan(value) else f"{value:+g} %" for value in there]
        cells = [(text, value, False) for text, value in zip(texts, there, strict=True)]
        rows.append((entry.heading, "", [("elsewhere", math.nan, False), *cells]))
    heads = ["runs", *map(title, measured)]
    return Table(f"{group.title}, against {base}", group.quality, heads, rows)


def measure_csv(changes: Sequence[Change]) -> str:
    """One line per group, base, agent and measure."""
    return csv_text(
        "domain quality relative_to agent class measure tasks runs unit units "
        "mean base_mean change_percent low high gap",
        (
            (
                *(c.group.domain, c.group.quality, c.base, c.agent.label, c.agent.kind, c.measure),
                *csv_columns(c.group, c.found, c.gap),
            )
            for c in changes
        ),
    )
