"""The dial of overlap: what an agent is ahead of TD3+BC by, as logging policies share more states.

Wherever a suite has tasks of one domain whose qualities of data are ``overlap-<percent>``, as
``regions-overlap-25``, the difference of mean scores is taken at each of them
(:func:`analysis.relative.against`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.comparison import Agent, Scores, scores_by_cell
from analysis.comparison import agents as agents_of
from analysis.relative import (
    BASELINE,
    Against,
    Group,
    Table,
    TablesSection,
    against,
    alike,
    csv_columns,
    groups,
    matched,
    named,
    size_cell,
    units_note,
)
from analysis.stats import INTERVALS, FloatArray
from analysis.tables import heading
from analysis.text import csv_text
from results.record import Plan

if TYPE_CHECKING:
    import pandas as pd

STUDY = "overlap"
TITLE = "Over the overlap of logging policies"
_FEWEST = 2  # overlaps that make a curve


@dataclass(frozen=True)
class Point:
    """One agent's advantage at one overlap.

    Attributes:
        group: the tasks.
        percent: their overlap.
        base: label of the agent it is set against.
        agent: whose advantage it is.
        found: the difference of mean scores with its interval; None where runs are missing.
        gap: which.
    """

    group: Group
    percent: int
    base: str
    agent: Agent
    found: Against | None
    gap: str

    @property
    def text(self) -> str:
        """``+3.1 [+1.0, +5.2]``; what is missing; ``-`` where nothing was planned."""
        if self.found is None:
            return self.gap or "-"
        value, low, high = self.found.bounds
        bounds = "" if math.isnan(low) else f" [{low:+z.1f}, {high:+z.1f}]"
        return f"{value:+z.1f}{bounds}"


def difference(ours: FloatArray, base: FloatArray) -> FloatArray:
    """Ours above theirs."""
    return ours - base


def find(plan: Plan, runs: pd.DataFrame, allow_missing: bool = False) -> list[Point]:
    """All points, by domain, agent and overlap; see :func:`analysis.measures.find`."""
    dials: dict[str, list[tuple[int, Group]]] = {}
    for group in groups(plan):
        setting = re.fullmatch(r"overlap-(\d+)", group.quality)
        if setting:
            dials.setdefault(group.domain, []).append((int(setting[1]), group))
    base = named(plan, BASELINE)
    if base is None:
        return []
    agents, cells = alike(agents_of(plan, runs), base), scores_by_cell(runs)
    found = []
    for dial in dials.values():
        if len(dial) >= _FEWEST:
            found += [
                _point(plan, cells, percent, group, base, agent, allow_missing)
                for agent in agents
                for percent, group in sorted(dial, key=lambda setting: setting[0])
            ]
    return found if any(point.found for point in found) else []


def _point(
    plan: Plan,
    cells: Scores,
    percent: int,
    group: Group,
    base: str,
    agent: Agent,
    allow_missing: bool,
) -> Point:
    ours, theirs, lacking = matched(plan, cells, group, agent.label, base, allow_missing)
    found = against(ours, theirs, difference) if ours else None
    return Point(group, percent, base, agent, found, lacking)


def section(points: Sequence[Point]) -> TablesSection | None:
    """A table per domain as a section of the page; None if there are no points."""
    if not points:
        return None
    base = points[0].base
    tables = []
    for domain in dict.fromkeys(point.group.domain for point in points):
        here = [point for point in points if point.group.domain == domain]
        rows = []
        for agent in dict.fromkeys(point.agent for point in here):
            own = [point for point in here if point.agent == agent]
            some = next((point.found for point in own if point.found), None)
            cells = [(p.text, p.found.bounds[0] if p.found else math.nan, False) for p in own]
            rows.append((heading(agent), agent.label, [size_cell(some), *cells]))
        heads = ["runs", *(f"{percent} %" for percent in dict.fromkeys(p.percent for p in here))]
        tables.append(Table(f"{domain}, by overlap", "", heads, rows))
    text = (
        f"Mean score above that of {base}, by how much of their states the logging policies share."
    )
    notes = [INTERVALS, *units_note(point.found for point in points if point.found)]
    if any(point.gap and point.found for point in points):
        notes.append("The matrix is incomplete: differences are over the runs that there are.")
    return TablesSection(STUDY, TITLE, text, tables, notes)


def overlap_csv(points: Sequence[Point]) -> str:
    """One line per domain, agent and overlap."""
    return csv_text(
        "domain overlap relative_to agent class tasks runs unit units "
        "mean base_mean advantage low high gap",
        (
            (
                *(p.group.domain, p.percent, p.base, p.agent.label, p.agent.kind),
                *csv_columns(p.group, p.found, p.gap),
            )
            for p in points
        ),
    )
