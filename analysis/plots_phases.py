"""The figure of training that goes on online: score over environment steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from analysis.phases import Cell, band
from analysis.plots import _STYLE, Look, _legend, _panels, _runs, _thousands

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = (
    "Score over environment steps: mean over runs with pointwise intervals. At 0 it is the score "
    "that was reached offline."
)


def online_curves(cells: Sequence[Cell], look: Mapping[str, Look]) -> Figure:
    """Score over environment steps after offline training, a panel per task.

    Args:
        cells: at least one, from :func:`analysis.phases.find`.
        look: agents in legend order.
    """
    from matplotlib import rc_context
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    tasks = list(dict.fromkeys(cell.task for cell in cells))
    agents = [agent for agent in look if any(cell.agent == agent for cell in cells)]
    fewest = {a: min(len(c.keys) for c in cells if c.agent == a) for a in agents}
    labels = [f"{agent} ({_runs(fewest[agent])})" for agent in agents]
    with rc_context(_STYLE):
        figure, axes = _panels(len(tasks), height=2.3, left=0.65, legend=labels)
        for task, axis in zip(tasks, axes, strict=True):
            for cell in cells:
                if cell.task != task:
                    continue
                style, found = look[cell.agent], band(cell)
                axis.plot(
                    cell.steps, found.value, color=style.colour, linestyle=style.line,
                    linewidth=1.6, marker=style.marker if len(cell.steps) == 1 else None,
                )  # fmt: skip
                if np.isfinite(found.low).all():
                    axis.fill_between(
                        cell.steps, found.low, found.high, color=style.colour, alpha=0.15,
                        linewidth=0,
                    )  # fmt: skip
            axis.set_title(task, loc="left")
            axis.set_xlim(left=0)
            axis.xaxis.set_major_locator(MaxNLocator(4))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _thousands(value)))
        for axis in axes[-min(len(axes), 3) :]:
            axis.set_xlabel("environment steps")
        for axis in axes[::3]:
            axis.set_ylabel("score")
        handles = [
            Line2D([], [], color=look[agent].colour, linestyle=look[agent].line, linewidth=1.6)
            for agent in agents
        ]
        _legend(figure, handles, labels)
    return figure
