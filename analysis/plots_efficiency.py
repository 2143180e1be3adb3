"""The figures of sample efficiency: score over environment steps, areas over action spaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from analysis.efficiency import Cell, by_size, mean_area, ratio
from analysis.plots import _STYLE, Look, _legend, _panels
from analysis.plots_steps import step_curves
from analysis.stats import Estimate, FloatArray, band

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES_CAPTION = (
    "Score over environment steps from nothing: mean over runs with pointwise intervals. What the "
    "area is taken of begins at 0 (dotted)."
)
GROWTH_CAPTION = (
    "Left: area, the mean score over all environment steps, by the number of joint actions. Right: "
    "areas divided by those of {first}. Bars are intervals over runs."
)


def efficiency_curves(cells: Sequence[Cell], look: Mapping[str, Look]) -> Figure:
    """Score over environment steps, a panel per task.

    Args:
        cells: at least one, from :func:`analysis.efficiency.find`.
        look: agents in legend order.
    """
    bands = [band(cell.scores) for cell in cells]
    figure, panels = step_curves(cells, bands, look, height=2.6, alpha=0.18)
    for cell, found in zip(cells, bands, strict=True):
        panels[cell.task].plot(
            [0, cell.steps[0]], [0, found.value[0]], color=look[cell.agent].colour,
            linestyle=(0, (1, 2)), linewidth=1,
        )  # fmt: skip
    axes = list(panels.values())
    ends = np.array([axis.get_ylim() for axis in axes])
    for axis in axes:  # one scale for all tasks
        axis.set_ylim(ends[:, 0].min(), ends[:, 1].max())
        axis.set_xlim(left=0)
        axis.set_xlabel("environment steps")
    return figure


def growth_caption(cells: Sequence[Cell]) -> str:
    """The caption of :func:`efficiency_growth`; it names the agent that ratios are taken to."""
    return GROWTH_CAPTION.format(first=next(iter(by_size(cells)), ""))


def efficiency_growth(cells: Sequence[Cell], look: Mapping[str, Look]) -> Figure | None:
    """Areas, and their ratios to the first agent's, over the number of joint actions.

    Returns:
        None where the tasks have fewer than two sizes of action spaces.
    """
    from matplotlib import rc_context

    rows = by_size(cells)
    if not rows:
        return None
    (first, base), *_ = rows.items()
    sizes = np.array([float(cell.joint or 0) for cell in base])
    ticks = [f"{size:,.0f}" for size in sizes]
    with rc_context(_STYLE):
        figure, (left, right) = _panels(
            2, height=3.2, left=0.75, columns=2, titles=True, legend=list(rows), gap=0.9
        )
        handles = []
        for place, (agent, row) in enumerate(rows.items()):
            # Side by side, so that bars do not hide one another.
            at = sizes * 1.06 ** (place - (len(rows) - 1) / 2)
            style = look[agent]
            areas = [mean_area(cell) for cell in row]
            handles.append(_bars(left, at, _joined(areas), style))
            if agent != first:
                _bars(right, at, ratio(row, base), style)
        right.axhline(1.0, color=look[first].colour, linestyle=look[first].line, linewidth=1.6)
        left.set_title("area")
        left.set_ylabel("mean score over steps")
        right.set_title(f"area, times that of {first}")
        for axis in (left, right):
            axis.set_xscale("log")
            axis.set_xticks(sizes, labels=ticks)
            axis.set_xticks([], minor=True)
            axis.set_xlabel("joint actions")
        left.set_ylim(bottom=min(0.0, left.get_ylim()[0]))
        right.set_ylim(bottom=0)
        _legend(figure, handles, list(rows))
    return figure


def _joined(found: Sequence[Estimate]) -> Estimate:
    value, low, high = (np.array([getattr(f, name) for f in found])
                        for name in ("value", "low", "high"))  # fmt: skip
    return Estimate(value, low, high, min(f.runs for f in found), min(f.units for f in found))


def _bars(axis: Axes, at: FloatArray, found: Estimate, style: Look) -> object:
    """A line through the values with an interval at each; the line, for the legend."""
    (line,) = axis.plot(
        at, found.value, color=style.colour, linestyle=style.line, marker=style.marker,
        linewidth=1.4, markersize=5,
    )  # fmt: skip
    axis.vlines(at, found.low, found.high, color=style.colour, linewidth=1.6)
    return line
