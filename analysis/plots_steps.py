"""Score over environment steps, a panel per task: what figures of online phases have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from analysis.plots import _COLUMNS, _STYLE, Look, _legend, _panels, _runs, _thousands
from analysis.stats import Estimate, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Curve(Protocol):
    """One agent's runs on one task: n of them, evaluated at P steps."""

    @property
    def task(self) -> str:
        """Its id."""

    @property
    def agent(self) -> str:
        """Label."""

    @property
    def keys(self) -> list[tuple[int, int]]:
        """(draw, seed) of every run."""

    @property
    def steps(self) -> FloatArray:
        """``[P]``."""


def step_curves(
    cells: Sequence[Curve],
    bands: Sequence[Estimate],
    look: Mapping[str, Look],
    *,
    height: float,
    alpha: float,
) -> tuple[Figure, dict[str, Axes]]:
    """Mean scores with their intervals.

    Args:
        cells: at least one.
        bands: of each cell, ``[P]``.
        look: agents in legend order.
        height: of a panel, in inches.
        alpha: opacity of the intervals.

    Returns:
        The figure, and the panel of every task.
    """
    from matplotlib import rc_context
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    tasks = list(dict.fromkeys(cell.task for cell in cells))
    agents = [agent for agent in look if any(cell.agent == agent for cell in cells)]
    fewest = {a: min(len(c.keys) for c in cells if c.agent == a) for a in agents}
    labels = [f"{agent} ({_runs(fewest[agent])})" for agent in agents]
    with rc_context(_STYLE):
        figure, axes = _panels(len(tasks), height=height, left=0.65, legend=labels)
        panels = dict(zip(tasks, axes, strict=True))
        for cell, found in zip(cells, bands, strict=True):
            axis, style = panels[cell.task], look[cell.agent]
            axis.plot(
                cell.steps, found.value, color=style.colour, linestyle=style.line,
                linewidth=1.6, marker=style.marker if len(cell.steps) == 1 else None,
            )  # fmt: skip
            if np.isfinite(found.low).all():
                axis.fill_between(
                    cell.steps, found.low, found.high, color=style.colour, alpha=alpha, linewidth=0
                )
        for task, axis in panels.items():
            axis.set_title(task, loc="left")
            axis.xaxis.set_major_locator(MaxNLocator(4))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _thousands(value)))
        for axis in axes[::_COLUMNS]:
            axis.set_ylabel("score")
        handles = [
            Line2D([], [], color=look[agent].colour, linestyle=look[agent].line, linewidth=1.6)
            for agent in agents
        ]
        _legend(figure, handles, labels)
    return figure, panels
