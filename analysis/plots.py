"""Figures in the style of rliable: interval bars, profiles, improvements, curves, cost.

Every function returns a matplotlib ``Figure``; :func:`draw` makes it PNG and SVG. There is no
pyplot state, so reports can be built in any thread. Ink is one colour throughout, which lets a page
swap it for its own text colour.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.comparison import Agent, AggregateRow, Pair
from analysis.stats import AGGREGATES, CONFIDENCE, Estimate, FloatArray, coverage

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#24292f"
PAPER = "#ffffff"
# seaborn's colour-blind safe palette (after Wong 2011), its three pale tones replaced by dark ones
_PALETTE = (
    *("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc"),
    *("#ca9161", "#56b4e9", "#7a5cc7", "#8a8a8a", "#a3314f"),
)
_FONTS = "'DejaVu Sans', Verdana, sans-serif"
_LINES = ("solid", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)))
_MARKERS = ("o", "s", "^", "D")
_WIDTH = 10.0  # inches, all figures
_DPI = 130
_COLUMNS = 3  # panels side by side
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # names are names, also those with a dollar sign
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Look:
    """How an agent is drawn, the same in every figure of a report."""

    colour: str
    line: Any
    marker: str


@dataclass(frozen=True)
class Drawing:
    """One figure in both formats."""

    png: bytes
    svg: bytes

    def inline(self, name: str, title: str) -> str:
        """The SVG as an element of an HTML page, in the page's text colour and font.

        Args:
            name: prefix of the ids within, so that several figures can share the page.
            title: read out in place of the picture.
        """
        head, _, body = self.svg.decode().partition("</defs>")  # XML, metadata and style sheet
        box = re.search(r'viewBox="[\d. ]+"', head)
        assert box is not None  # matplotlib always writes it
        body = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", body)
        body = body.replace(INK, "currentColor").replace(f"fill: {PAPER}", "fill: none")
        body = body.replace(_FONTS, "inherit")
        return f'<svg {box[0]} role="img" aria-label="{html.escape(title)}">{body}'


def looks(agents: Iterable[Agent]) -> dict[str, Look]:
    """Assigns colours in table order; past the palette, lines and markers change."""
    competitors = [agent.label for agent in agents if agent.kind != "reference"]
    return {
        label: Look(
            colour=_PALETTE[i % len(_PALETTE)],
            line=_LINES[i // len(_PALETTE) % len(_LINES)],
            marker=_MARKERS[i // len(_PALETTE) % len(_MARKERS)],
        )
        for i, label in enumerate(competitors)
    }


def draw(figure: Figure, name: str, watermark: str = "") -> Drawing:
    """Renders a figure; the same figure gives the same bytes.

    Args:
        figure: from one of the functions below.
        name: salts the SVG's internal ids, so that several can share a page.
        watermark: printed across the figure.
    """
    from matplotlib import rc_context

    png, svg = io.BytesIO(), io.BytesIO()
    with rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # A name in a script the font lacks is drawn as boxes, which is all that can be done.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        if watermark:
            figure.text(
                0.5, 0.5, watermark, ha="center", va="center", rotation=18, fontsize=34, alpha=0.13,
                weight="bold", wrap=True,
            )  # fmt: skip
        # The lightest compression: what it saves in time is worth a tenth more bytes.
        figure.savefig(
            png, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 1}
        )
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    # Text stays text, so a machine without the font needs somewhere to fall back to.
    text = svg.getvalue().replace(b"'DejaVu Sans'", _FONTS.encode())
    return Drawing(png.getvalue(), text)


def _panels(
    count: int, *, height: float, left: float, columns: int = _COLUMNS, titles: bool = True,
    legend: Sequence[str] = (), gap: float = 0.55,
) -> tuple[Figure, list[Axes]]:  # fmt: skip
    """A grid of panels with margins in inches.

    Fixed margins instead of a layout engine: those draw every figure several times.

    Args:
        count: panels.
        height: of one panel.
        left: margin for labels.
        columns: most panels side by side.
        titles: leaves room above every panel.
        legend: labels to leave room for at the top of the figure.
        gap: between panels side by side.
    """
    from matplotlib.figure import Figure

    rows, columns = -(-count // columns), min(count, columns)
    legend_rows = -(-len(legend) // _legend_columns(legend)) if legend else 0
    top = 0.1 + 0.3 * titles + 0.15 * bool(legend) + 0.22 * legend_rows
    bottom, right, between = 0.6, 0.2, 0.75
    total = top + bottom + rows * height + (rows - 1) * between
    figure = Figure(figsize=(_WIDTH, total), dpi=_DPI)
    width = (_WIDTH - left - right - (columns - 1) * gap) / columns
    axes = []
    for i in range(count):
        row, column = divmod(i, columns)
        x = left + column * (width + gap)
        y = total - top - (row + 1) * height - row * between
        box = (x / _WIDTH, y / total, width / _WIDTH, height / total)
        axes.append(figure.add_axes(box))
    return figure, axes


def _label_margin(labels: Iterable[str]) -> float:
    """Inches that hold the longest label, within reason."""
    return min(3.2, 0.35 + 0.085 * max(map(len, labels), default=0))


def _legend_columns(labels: Sequence[str]) -> int:
    """Entries that fit side by side."""
    return max(1, min(len(labels), int((_WIDTH - 0.3) / (0.75 + 0.085 * max(map(len, labels))))))


def _legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    # matplotlib drops labels that start with an underscore; a blank before it keeps the name.
    shown = [f" {label}" if label.startswith("_") else label for label in labels]
    height = figure.get_size_inches()[1]
    figure.legend(
        handles, shown, loc="upper left", bbox_to_anchor=(0.01, 1 - 0.02 / height),
        ncols=_legend_columns(labels), handlelength=2.2, columnspacing=1.6, labelspacing=0.4,
    )  # fmt: skip


def aggregate_intervals(rows: Sequence[AggregateRow], look: Mapping[str, Look]) -> Figure:
    """Every aggregate of every agent with its interval (Agarwal et al. 2021, figure 9)."""
    from matplotlib import rc_context
    from matplotlib.ticker import MaxNLocator

    labels = [f"{row.agent} ({_runs(row.estimate.runs)})" for row in rows]
    with rc_context(_STYLE):
        figure, axes = _panels(
            len(AGGREGATES), height=0.25 + 0.36 * len(rows), left=_label_margin(labels),
            columns=len(AGGREGATES), gap=0.3,
        )  # fmt: skip
        for i, (name, axis) in enumerate(zip(AGGREGATES, axes, strict=True)):
            for y, row in enumerate(rows):
                found = row.estimate
                _bar(axis, y, found.value[i], found.low[i], found.high[i], look[row.agent].colour)
            _rows_of_bars(axis, labels if i == 0 else [], len(rows))
            axis.set_title(name + " ↓" * (name == "Optimality gap"))
            axis.xaxis.set_major_locator(MaxNLocator(4))
        _interval_note(
            figure, {r.estimate.units: coverage(r.estimate.units, r.tasks) for r in rows}
        )
    return figure


def improvement_intervals(pairs: Sequence[Pair], look: Mapping[str, Look]) -> Figure:
    """Probability of improvement of every pair with its interval."""
    from matplotlib import rc_context

    labels = [f"{pair.x} over {pair.y} ({_runs(pair.estimate.runs)})" for pair in pairs]
    with rc_context(_STYLE):
        figure, (axis,) = _panels(1, height=0.25 + 0.34 * len(pairs), left=_label_margin(labels))
        for y, pair in enumerate(pairs):
            found = pair.estimate
            bounds = float(found.value), float(found.low), float(found.high)
            _bar(axis, y, *bounds, look[pair.x].colour)
        _rows_of_bars(axis, labels, len(pairs))
        axis.axvline(0.5, color=INK, linestyle=(0, (4, 3)), linewidth=1)
        axis.set_xlim(min(0.45, axis.get_xlim()[0]), 1.01)
        axis.set_title("Probability that a run of X scores above a run of Y on the same task")
        covers = {
            pair.estimate.units: coverage(pair.estimate.units, pair.tasks, "improvement")
            for pair in pairs
        }
        _interval_note(figure, covers)
    return figure


def _bar(axis: Axes, y: int, value: float, low: float, high: float, colour: str) -> None:
    if np.isfinite(low):
        axis.barh(y, high - low, left=low, height=0.62, color=colour, alpha=0.75, linewidth=0)
    axis.vlines(value, y - 0.31, y + 0.31, color=INK, linewidth=1.6)


def _rows_of_bars(axis: Axes, labels: Sequence[str], count: int) -> None:
    axis.set_ylim(count - 0.4, -0.6)
    axis.set_yticks(range(count) if labels else [], labels=labels)
    axis.use_sticky_edges = False  # room beside the longest bar
    axis.margins(x=0.08)
    axis.spines["left"].set_visible(False)
    axis.grid(visible=False, axis="y")


def performance_profiles(
    taus: FloatArray, profiles: Mapping[str, Estimate], look: Mapping[str, Look]
) -> Figure:
    """Fraction of runs above every threshold, with pointwise bands (Agarwal et al. 2021)."""
    from matplotlib import rc_context

    labels = [f"{agent} ({_runs(found.runs)})" for agent, found in profiles.items()]
    with rc_context(_STYLE):
        figure, (axis,) = _panels(1, height=3.4, left=0.75, titles=False, legend=labels)
        handles = []
        for agent, found in profiles.items():
            style = look[agent]
            handles += axis.plot(
                taus, found.value, color=style.colour, linestyle=style.line, linewidth=2
            )
            axis.fill_between(
                taus, found.low, found.high, color=style.colour, alpha=0.18, linewidth=0
            )
        axis.set(
            xlim=(taus[0], taus[-1]), ylim=(0, 1.02), xlabel="score τ",
            ylabel="fraction of runs with score > τ",
        )  # fmt: skip
        _legend(figure, handles, labels)
    return figure


def learning_curves(
    tasks: Sequence[str],
    curves: pd.DataFrame,
    references: Mapping[tuple[str, str], float],
    look: Mapping[str, Look],
) -> Figure:
    """Score over gradient updates: mean over seeds, band of one standard deviation.

    Args:
        tasks: one panel each.
        curves: from :func:`analysis.frame.load_curves`.
        references: horizontal lines by (task, "random" or "behaviour").
        look: agents in legend order.
    """
    from matplotlib import rc_context
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    drawn = {
        key: _mean_curve(rows)
        for key, rows in curves[curves["task"].isin(tasks)].groupby(["task", "agent"], sort=False)
    }
    lines = {
        name: line
        for name, line in (("behaviour", (0, (4, 2))), ("random", (0, (1, 2))))
        if any((task, name) in references for task in tasks)
    }
    trained = [agent for agent in look if any((task, agent) in drawn for task in tasks)]
    labels = [*trained, *lines]
    with rc_context(_STYLE):
        figure, axes = _panels(len(tasks), height=2.1, left=0.65, legend=labels)
        for task, axis in zip(tasks, axes, strict=True):
            for agent in trained:
                if (task, agent) not in drawn:
                    continue
                style = look[agent]
                updates, average, spread = drawn[task, agent]
                marker = style.marker if len(updates) == 1 else None
                axis.plot(
                    updates, average, color=style.colour, linestyle=style.line, linewidth=1.6,
                    marker=marker, markersize=4,
                )  # fmt: skip
                if np.isfinite(spread).any():
                    axis.fill_between(
                        updates, average - spread, average + spread, color=style.colour,
                        alpha=0.18, linewidth=0,
                    )  # fmt: skip
            for name, line in lines.items():
                if (task, name) in references:
                    axis.axhline(references[task, name], color=INK, linestyle=line, linewidth=1.1)
            axis.set_title(task, loc="left")
            axis.set_xlim(left=0)
            axis.xaxis.set_major_locator(MaxNLocator(4))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _thousands(value)))
        for axis in axes[-min(len(axes), _COLUMNS) :]:
            axis.set_xlabel("gradient updates")
        for axis in axes[::_COLUMNS]:
            axis.set_ylabel("score")
        handles = [
            Line2D([], [], color=look[agent].colour, linestyle=look[agent].line, linewidth=1.6)
            for agent in trained
        ] + [Line2D([], [], color=INK, linestyle=line, linewidth=1.1) for line in lines.values()]
        _legend(figure, handles, labels)
    return figure


def _mean_curve(rows: pd.DataFrame) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Updates, mean and standard deviation over runs, ``[k]`` each, NaN spread for one run.

    A run still missing an evaluation would bend the mean: only updates that all runs have count.
    """
    updates, places = np.unique(rows["update"].to_numpy(), return_inverse=True)
    labels = np.stack([rows["draw"].to_numpy(), rows["seed"].to_numpy()], axis=1)
    runs, columns = np.unique(labels, axis=0, return_inverse=True)
    table = np.full((len(updates), len(runs)), np.nan)
    table[places, columns.ravel()] = rows["score"].to_numpy()
    shared = np.isfinite(table).all(axis=1)
    table = table[shared]
    spread = table.std(axis=1, ddof=1) if len(runs) > 1 else np.full(len(table), np.nan)
    return updates[shared], table.mean(axis=1), spread


def score_against_cost(
    runs: pd.DataFrame, tasks: Sequence[str], shrunk: Iterable[str], look: Mapping[str, Look]
) -> Figure:
    """Score against core-seconds of training; the one figure that shrunk agents share.

    Small points are tasks (means over runs). A large point, hollow for shrunk agents, is the mean
    over all ``tasks`` and is drawn only for agents that have a run on every one.
    """
    from matplotlib import rc_context
    from matplotlib.ticker import FixedLocator, NullLocator

    hollow = set(shrunk)
    means = runs.groupby(["agent", "task"], sort=False)[["core_seconds", "score"]].mean()
    points = {agent: means.loc[agent] for agent in look if agent in means.index}
    whole = [agent for agent, found in points.items() if set(found.index) >= set(tasks)]
    labels = [f"{agent} (shrunk)" if agent in hollow else agent for agent in whole]
    with rc_context(_STYLE):
        figure, (axis,) = _panels(1, height=3.4, left=0.75, titles=False, legend=labels)
        for agent, found in points.items():
            axis.scatter(
                found["core_seconds"], found["score"], s=16, color=look[agent].colour, alpha=0.45,
                marker=look[agent].marker, linewidths=0,
            )  # fmt: skip
        handles = [
            axis.scatter(
                points[agent]["core_seconds"].mean(),
                points[agent]["score"].mean(),
                s=110,
                marker=look[agent].marker,
                linewidths=2.2,
                edgecolors=look[agent].colour,
                facecolors="none" if agent in hollow else look[agent].colour,
            )
            for agent in whole
        ]
        axis.set_xscale("log")
        low, high = axis.get_xlim()
        widen = max(1.0, (10.0 * low / high) ** 0.5)  # at least a decade, for readable ticks
        low, high = low / widen, high * widen
        axis.xaxis.set_major_locator(FixedLocator(_TIMES[(low <= _TIMES) & (high >= _TIMES)]))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(lambda value, _: _duration(value))
        axis.set_xlim(low, high)
        axis.set(xlabel="processor time per run (log scale)", ylabel="score")
        if handles:
            _legend(figure, handles, labels)
    return figure


_TIMES = np.array(
    [
        *(1e-3, 1e-2, 0.1, 1, 2, 5, 10, 20, 30),
        *(60 * minutes for minutes in (1, 2, 5, 10, 20, 30)),
        *(3600 * hours for hours in (1, 2, 4, 8, 12)),
        *(86400 * days for days in (1, 2, 4, 8, 30, 100)),
    ]
)  # seconds


def _duration(seconds: float) -> str:
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s"


def _thousands(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"


def _interval_note(figure: Figure, covers_with: Mapping[int, str]) -> None:
    """Says below the axes what the bars are worth, by number of runs."""
    covers = ", ".join(f"{text} with {_runs(n)}" for n, text in sorted(covers_with.items()))
    text = (
        f"bars: nominal {100 * CONFIDENCE:.0f} % intervals over runs; simulated coverage: {covers}"
    )
    figure.text(0.5, 0.08 / figure.get_size_inches()[1], text, ha="center")
