"""Figures of agents set against another: changes of measures, and advantage over the overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from analysis.measures import Change, title
from analysis.overlap import Point
from analysis.plots import _STYLE, INK, Look, _label_margin, _legend, _panels, _rows_of_bars

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHANGES_CAPTION = (
    "Change of every measure in per cent against {base}, with intervals; hollow: shrunk by the "
    "budget. ↓ less is better. Dashed: no change."
)
OVERLAP_CAPTION = (
    "Mean score above that of {base} over the overlap of the logging policies, with intervals. "
    "Dashed: no difference."
)
_DASHED = (0, (4, 3))


def measure_changes(changes: Sequence[Change], look: Mapping[str, Look]) -> Figure | None:
    """Changes against one base: a row of panels per group, a panel per measure.

    Args:
        changes: against one base, from :func:`analysis.measures.find`.
        look: agents in order; others, the references, are not drawn.

    Returns:
        None where there is nothing to draw.
    """
    from matplotlib import rc_context
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    cells = {(c.group, c.measure, c.agent.label): c for c in changes if c.found}
    agents = [a for a in look if any(a == agent for *_, agent in cells)]
    if not agents:
        return None
    groups = list(dict.fromkeys(change.group for change in changes))
    one_domain = len({group.domain for group in groups}) == 1
    labels = [group.quality if one_domain else group.title for group in groups]
    measures = list(dict.fromkeys(change.measure for change in changes))
    with rc_context(_STYLE):
        figure, axes = _panels(
            len(groups) * len(measures), height=max(0.9, 0.3 + 0.3 * len(agents)),
            left=_label_margin(agents) + 0.3, columns=len(measures), gap=0.3,
        )  # fmt: skip
        for place, axis in enumerate(axes):
            row, column = divmod(place, len(measures))
            for y, agent in enumerate(agents):
                cell = cells.get((groups[row], measures[column], agent))
                if cell is not None:
                    _dot(axis, y, cell, look[agent])
            axis.axvline(0.0, color=INK, linestyle=_DASHED, linewidth=1)
            _rows_of_bars(axis, agents if column == 0 else [], len(agents))
            axis.xaxis.set_major_locator(MaxNLocator(3))
            axis.xaxis.set_major_formatter(
                FuncFormatter(lambda value, _: f"{value:+g}" if value else "0")
            )
            if row == 0:
                axis.set_title(title(measures[column]), fontsize=8.5)
            if column == 0:
                axis.set_ylabel(labels[row], weight="bold", fontsize=8.5)
        for column in range(len(measures)):  # one scale for all groups
            panels = axes[column :: len(measures)]
            ends = np.array([axis.get_xlim() for axis in panels])
            for axis in panels:
                axis.set_xlim(ends[:, 0].min(), ends[:, 1].max())
        for axis in axes[-len(measures) :]:
            axis.set_xlabel("change, %")
    return figure


def _dot(axis: Axes, y: int, change: Change, style: Look) -> None:
    assert change.found is not None
    value, low, high = change.found.bounds
    axis.hlines(y, low, high, color=style.colour, linewidth=2.2, alpha=0.75)
    hollow = change.agent.kind == "shrunk"
    axis.plot(
        value, y, color=style.colour, marker=style.marker, markersize=6.5,
        markerfacecolor="none" if hollow else style.colour,
    )  # fmt: skip


def overlap_curves(points: Sequence[Point], look: Mapping[str, Look]) -> Figure:
    """Advantage over the overlap, a panel per domain and a line per agent.

    Args:
        points: at least one with a number, from :func:`analysis.overlap.find`.
        look: agents in legend order.
    """
    from matplotlib import rc_context

    known = [point for point in points if point.found]
    domains = list(dict.fromkeys(point.group.domain for point in known))
    agents = [agent for agent in look if any(agent == p.agent.label for p in known)]
    with rc_context(_STYLE):
        figure, axes = _panels(len(domains), height=3.2, left=0.75, columns=2, legend=agents)
        handles = {}
        for domain, axis in zip(domains, axes, strict=True):
            percents = sorted({p.percent for p in known if p.group.domain == domain})
            for place, agent in enumerate(agents):
                own = [p for p in known if (p.group.domain, p.agent.label) == (domain, agent)]
                bounds = [point.found.bounds for point in own if point.found]
                if not bounds:
                    continue
                value, low, high = np.array(bounds).T
                # Side by side, so that bars do not hide one another.
                x = np.array([float(p.percent) for p in own]) + place - (len(agents) - 1) / 2
                style = look[agent]
                (handles[agent],) = axis.plot(
                    x, value, color=style.colour, linestyle=style.line, marker=style.marker,
                    markersize=4.5, linewidth=1.5,
                )  # fmt: skip
                axis.vlines(x, low, high, color=style.colour, linewidth=1.6, alpha=0.6)
            axis.axhline(0.0, color=INK, linestyle=_DASHED, linewidth=1)
            axis.set_xticks(percents)
            axis.set_title(domain, loc="left")
            axis.set_xlabel("overlap, %")
        axes[0].set_ylabel(f"score above {points[0].base}")
        _legend(figure, list(handles.values()), list(handles))
    return figure
