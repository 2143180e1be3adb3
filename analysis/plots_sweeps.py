"""The figure of sweeps: score over the values of one setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from analysis.plots import _PALETTE, _STYLE, _legend, _panels
from analysis.sweeps import Sweep, value_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = (
    "Arms of one agent that differ in one setting: mean score over runs, with intervals. Values "
    "are set apart evenly, not to scale."
)


def sweep_panels(sweeps: Sequence[Sweep]) -> Figure:
    """Score over a setting's values, a panel per agent and setting and a line per task.

    Args:
        sweeps: at least one, from :func:`analysis.sweeps.find`.
    """
    from matplotlib import rc_context

    tasks = list(dict.fromkeys(task for sweep in sweeps for task in sweep.estimates))
    colours = {task: _PALETTE[i % len(_PALETTE)] for i, task in enumerate(tasks)}
    shift = {task: 0.06 * (i - (len(tasks) - 1) / 2) for i, task in enumerate(tasks)}
    with rc_context(_STYLE):
        figure, axes = _panels(len(sweeps), height=2.6, left=0.65, legend=tasks)
        handles = {}
        for sweep, axis in zip(sweeps, axes, strict=True):
            places = np.arange(len(sweep.values), dtype=float)
            for task, estimates in sweep.estimates.items():
                kept = [i for i, found in enumerate(estimates) if found is not None]
                known = [found for found in estimates if found is not None]
                x = places[kept] + shift[task]
                y = np.array([float(found.value) for found in known])
                (handles[task],) = axis.plot(
                    x, y, color=colours[task], marker="o", markersize=4, linewidth=1.4,
                    linestyle="solid" if sweep.numeric else "none",
                )  # fmt: skip
                low = np.array([float(found.low) for found in known])
                high = np.array([float(found.high) for found in known])
                axis.vlines(x, low, high, color=colours[task], linewidth=1.2, alpha=0.6)
            axis.set_xticks(places, [value_text(value) for value in sweep.values])
            axis.set_title(f"{sweep.agent}: {sweep.setting}", loc="left")
            axis.margins(x=0.1)
        axes[0].set_ylabel("score")
        _legend(figure, [handles[task] for task in tasks], tasks)
    return figure
