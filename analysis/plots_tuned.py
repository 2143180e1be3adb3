"""The figure of expected online performance: score against the number of configs tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from analysis.plots import _STYLE, Look, _legend, _panels, _runs
from analysis.tuning import TunedCurve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = (
    "Expected online performance: score of the best of k configs per task, chosen by all seeds but "
    "one and scored on the one left out, mean over tasks (Kurenkov & Kolesnikov 2022). Bands: "
    "nominal 95 % intervals over configs, each with its seeds; towards the right end they cover "
    "about 90 %."
)


def expected_performance(curves: Sequence[TunedCurve], look: Mapping[str, Look]) -> Figure:
    """Score of the best of k configs, one line per agent.

    Args:
        curves: at least one, from :func:`analysis.tuning.tuned_curves`.
        look: by label; an agent is drawn as its first config.
    """
    from matplotlib import rc_context
    from matplotlib.ticker import MaxNLocator

    labels = [
        f"{curve.agent} ({len(curve.labels)} configs of {_runs(curve.runs)})" for curve in curves
    ]
    with rc_context(_STYLE):
        figure, (axis,) = _panels(1, height=3.4, left=0.75, titles=False, legend=labels)
        handles = []
        for curve in curves:
            style, found = look[curve.labels[0]], curve.estimate
            tried = range(1, len(curve.labels) + 1)
            handles += axis.plot(
                tried, found.value, color=style.colour, linestyle=style.line,
                marker=style.marker, linewidth=2, markersize=4,
            )  # fmt: skip
            axis.fill_between(
                tried, found.low, found.high, color=style.colour, alpha=0.18, linewidth=0
            )
        axis.set(xlabel="configs tried per task", ylabel="expected score of the chosen one")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend(figure, handles, labels)
    return figure
