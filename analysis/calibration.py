"""The figure and table of how well off-policy estimates are calibrated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.plots import _PALETTE, _STYLE, INK, Drawing, _panels
from analysis.plots import draw as draw_figure
from analysis.text import csv_text, markdown

CAPTION = (
    "Left: estimated against true value, a policy per point; bars: 5 % to 95 % quantile of the "
    "estimates over independent logs. Right: how often the interval holds the true value, "
    "over the effective number of episodes; bars: the standard error of the share."
)
Rows = Sequence[Mapping[str, Any]]


def csv(rows: Rows) -> str:
    """All numbers of all policies."""
    return csv_text(" ".join(rows[0]), (tuple(row.values()) for row in rows))


def table(rows: Rows) -> str:
    """The numbers worth reading, as Markdown."""
    heads = ["policy", "true", "estimate", "spread", "effective episodes", "coverage", "width"]
    cells = [
        [
            str(row["policy"]),
            f"{row['true']:.3f}",
            f"{row['estimate']:.3f}",
            f"{row['estimate_std']:.3f}",
            f"{row['effective_episodes']:.1f}",
            f"{row['coverage']:.1%}",
            f"{row['width']:.2f}",
        ]
        for row in rows
    ]
    return markdown(heads, cells)


def draw(rows: Rows, level: float, episodes: int) -> Drawing:
    """Estimated against true values, and coverage over effective episodes.

    Args:
        rows: a policy's numbers each.
        level: nominal coverage.
        episodes: of a log.
    """
    from matplotlib import rc_context
    from matplotlib.ticker import PercentFormatter, ScalarFormatter

    with rc_context(_STYLE):
        figure, (left, right) = _panels(2, height=3.6, left=0.8, gap=0.95, columns=2)
        for i, row in enumerate(rows):
            colour = _PALETTE[i % len(_PALETTE)]
            ends = row["estimate_low"], row["estimate_high"]
            left.vlines(row["true"], *ends, color=colour, linewidth=1.6, alpha=0.6)
            left.plot(row["true"], row["estimate"], "o", color=colour, markersize=5)
            share = row["coverage"]
            error = math.sqrt(share * (1 - share) / row["logs"])
            x = row["effective_episodes"]
            right.vlines(x, share - error, share + error, color=colour, linewidth=1.6, alpha=0.6)
            right.plot(x, share, "o", color=colour, markersize=5, label=str(row["policy"]))
        values = [row[key] for row in rows for key in ("true", "estimate_low", "estimate_high")]
        span = [min(values), max(values)]
        dashes: Any = (0, (4, 3))
        left.plot(span, span, color=INK, linewidth=1, linestyle=dashes)
        left.set(xlabel="true value of the judged policy", ylabel="estimated value")
        left.set_title(f"{rows[0]['logs']} logs of {episodes:,} episodes", loc="left")
        right.axhline(level, color=INK, linewidth=1, linestyle=dashes)
        right.set_xscale("log")
        right.xaxis.set_major_formatter(ScalarFormatter())
        right.yaxis.set_major_formatter(PercentFormatter(1.0))
        right.set_ylim(min(0.5, *(row["coverage"] - 0.05 for row in rows)), 1.01)
        right.set(xlabel="effective episodes (mean over logs)", ylabel="intervals that hold it")
        right.set_title(f"coverage of nominal {level:.0%} intervals", loc="left")
        right.legend(loc="lower right", fontsize=8)
    return draw_figure(figure, "calibration")
