"""The figure of training that goes on online: score over environment steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from analysis.phases import Cell
from analysis.plots import _COLUMNS, Look
from analysis.plots_steps import step_curves
from analysis.stats import band

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
    bands = [band(cell.scores, cell.draws) for cell in cells]
    figure, panels = step_curves(cells, bands, look, height=2.3, alpha=0.15)
    axes = list(panels.values())
    for axis in axes:
        axis.set_xlim(left=0)
    for axis in axes[-min(len(axes), _COLUMNS) :]:
        axis.set_xlabel("environment steps")
    return figure
