"""Figures in the style of rliable: interval bars, profiles, improvements, curves, cost.

Every function returns a matplotlib ``Figure``; :func:`draw` makes it PNG and SVG. There is no
pyplot state, so reports can be built in any thread. Ink is one colour throughout, which lets a page
swap it for its own text colour.
"""

from __future__ import annotations

import io
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
# seaborn's colour-blind safe palette (Wong 2011) without the tones that vanish on white or black
_PALETTE = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#56b4e9")
_LINES = ("solid", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)))
_MARKERS = ("o", "s", "^", "D")
_WIDTH = 10.0  # inches, all figures
_DPI = 130
_COLUMNS = 3  # panels side by side
_STYLE = {
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
        """The SVG for an HTML page: the page's text colour and font, ids that start with ``name``."""
        text = self.svg.decode()
        text = text[text.index("<svg") :]
        text = re.sub(r"<(metadata|defs>\s*<style).*?</(metadata|style>\s*</defs)>", "", text, flags=re.S)
        text = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', rf"<svg \1 {_LABEL}>", text, count=1)
        text = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", text)
        text = text.replace(INK, "currentColor").replace(f"fill: {PAPER}", "fill: none")
        text = text.replace("'DejaVu Sans', Verdana, sans-serif", "system-ui, sans-serif")
        return text.replace(_LABEL, f'role="img" aria-label="{html.escape(title)}"', 1)


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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    png, svg = io.BytesIO(), io.BytesIO()
    with rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # A name in a script the font lacks is drawn as boxes, which is all that can be done.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        if watermark:
            figure.text(
                0.5, 0.5, watermark, ha="center", va="center", rotation=18, fontsize=34, alpha=0.13,
                weight="bold", wrap=True,
            )  # fmt: skip
        FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None, "Creator": None})
    # Text stays text, so a machine without the font needs somewhere to fall back to.
    fonts = svg.getvalue().replace(b"'DejaVu Sans'", b"'DejaVu Sans', Verdana, sans-serif")
    return Drawing(png.getvalue(), fonts)


def _panels(
    count: int, *, height: float, left: float, columns: int = _COLUMNS, legend: bool = True,
    gap: float = 0.55,
) -> tuple[Figure, list[Axes]]:  # fmt: skip
    """A grid of panels with margins in inches.

    Fixed margins instead of a layout engine: those draw every figure several times.

    Args:
        count: panels.
        height: of one panel.
        left: margin for labels.
        columns: most panels side by side.
        legend: leaves a strip at the top.
        gap: between panels side by side.
    """
    from matplotlib.figure import Figure

    rows, columns = -(-count // columns), min(count, columns)
    top, bottom, right, between = 0.4 + 0.35 * legend, 0.6, 0.2, 0.75
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


def _legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    # matplotlib drops labels that start with an underscore; a blank before it keeps the name.
    shown = [f" {label}" if label.startswith("_") else label for label in labels]
    height = figure.get_size_inches()[1]
    figure.legend(
        handles, shown, loc="upper left", bbox_to_anchor=(0.01, 1 - 0.02 / height),
        ncols=min(len(shown), 7), handlelength=2.2, columnspacing=1.6,
    )  # fmt: skip


def aggregate_intervals(rows: Sequence[AggregateRow], look: Mapping[str, Look]) -> Figure:
    """Every aggregate of every agent with its interval (Agarwal et al. 2021, figure 9)."""
    from matplotlib import rc_context
    from matplotlib.ticker import MaxNLocator

    labels = [f"{row.agent} ({_runs(row.estimate.runs)})" for row in rows]
    with rc_context(_STYLE):
        figure, axes = _panels(
            len(AGGREGATES), height=0.25 + 0.36 * len(rows), left=_label_margin(labels),
            columns=len(AGGREGATES), legend=False, gap=0.3,
        )  # fmt: skip
        for i, (name, axis) in enumerate(zip(AGGREGATES, axes, strict=True)):
            for y, row in enumerate(rows):
                found = row.estimate
                _bar(axis, y, found.value[i], found.low[i], found.high[i], look[row.agent].colour)
            _rows_of_bars(axis, labels if i == 0 else [], len(rows))
            axis.set_title(name + " ↓" * (name == "Optimality gap"))
            axis.xaxis.set_major_locator(MaxNLocator(4))
        fewest = min(row.estimate.runs for row in rows)
        figure.text(0.5, 0.08 / figure.get_size_inches()[1], _interval_note(fewest), ha="center")
    return figure


def improvement_intervals(pairs: Sequence[Pair], look: Mapping[str, Look]) -> Figure:
    """Probability of improvement of every pair with its interval."""
    from matplotlib import rc_context

    labels = [f"{pair.x} over {pair.y} ({_runs(pair.estimate.runs)})" for pair in pairs]
    with rc_context(_STYLE):
        figure, (axis,) = _panels(
            1, height=0.25 + 0.34 * len(pairs), left=_label_margin(labels), legend=False
        )
        for y, pair in enumerate(pairs):
            found = pair.estimate
            bounds = float(found.value), float(found.low), float(found.high)
            _bar(axis, y, *bounds, look[pair.x].colour)
        _rows_of_bars(axis, labels, len(pairs))
        axis.axvline(0.5, color=INK, linestyle=(0, (4, 3)), linewidth=1)
        axis.set_xlim(min(0.45, axis.get_xlim()[0]), 1.01)
        axis.set_title("Probability that a run of X scores above a run of Y on the same task")
        fewest = min(pair.estimate.runs for pair in pairs)
        figure.text(0.5, 0.08 / figure.get_size_inches()[1], _interval_note(fewest), ha="center")
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

    with rc_context(_STYLE):
        figure, (axis,) = _panels(1, height=3.4, left=0.75)
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
        labels = [f"{agent} ({_runs(found.runs)})" for agent, found in profiles.items()]
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

    seen: set[str] = set()
    drawn = dict(tuple(curves.groupby(["task", "agent"], sort=False)))
    with rc_context(_STYLE):
        figure, axes = _panels(len(tasks), height=2.1, left=0.65)
        for task, axis in zip(tasks, axes, strict=True):
            for agent, style in look.items():
                if (task, agent) not in drawn:
                    continue
                # A seed still missing an evaluation would bend the mean; use common updates only.
                table = drawn[task, agent].pivot_table("score", "update", "seed").dropna()
                average, spread = table.mean(axis=1), table.std(axis=1, ddof=1)
                marker = style.marker if len(table) == 1 else None
                axis.plot(
                    table.index, average, color=style.colour, linestyle=style.line, linewidth=1.6,
                    marker=marker, markersize=4,
                )  # fmt: skip
                if table.shape[1] > 1:
                    axis.fill_between(
                        table.index, average - spread, average + spread, color=style.colour,
                        alpha=0.18, linewidth=0,
                    )  # fmt: skip
                seen.add(agent)
            for name, line in (("behaviour", (0, (4, 2))), ("random", (0, (1, 2)))):
                if (task, name) in references:
                    axis.axhline(references[task, name], color=INK, linestyle=line, linewidth=1.1)
                    seen.add(name)
            axis.set_title(task, loc="left")
            axis.set_xlim(left=0)
            axis.xaxis.set_major_locator(MaxNLocator(4))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _thousands(value)))
        for axis in axes[-min(len(axes), _COLUMNS) :]:
            axis.set_xlabel("gradient updates")
        for axis in axes[::_COLUMNS]:
            axis.set_ylabel("score")
        handles: dict[str, Line2D] = {
            agent: Line2D([], [], color=style.colour, linestyle=style.line, linewidth=1.6)
            for agent, style in look.items()
        }
        handles["behaviour"] = Line2D([], [], color=INK, linestyle=(0, (4, 2)), linewidth=1.1)
        handles["random"] = Line2D([], [], color=INK, linestyle=(0, (1, 2)), linewidth=1.1)
        labels = [label for label in handles if label in seen]
        _legend(figure, [handles[label] for label in labels], labels)
    return figure


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
    with rc_context(_STYLE):
        figure, (axis,) = _panels(1, height=3.4, left=0.75)
        handles, labels = [], []
        for agent, style in look.items():
            if agent not in means.index.get_level_values("agent"):
                continue
            points = means.loc[agent]
            points = points[points["core_seconds"] > 0]
            axis.scatter(
                points["core_seconds"], points["score"], s=14, color=style.colour, alpha=0.3,
                marker=style.marker, linewidths=0,
            )  # fmt: skip
            if not len(points) or set(points.index) < set(tasks):
                continue
            handles.append(
                axis.scatter(
                    points["core_seconds"].mean(), points["score"].mean(), s=110,
                    marker=style.marker, linewidths=2.2, edgecolors=style.colour,
                    facecolors="none" if agent in hollow else style.colour,
                )  # fmt: skip
            )
            labels.append(f"{agent} (shrunk)" if agent in hollow else agent)
        axis.set_xscale("log")
        low, high = axis.get_xlim()
        widen = max(1.0, (10.0 * low / high) ** 0.5)  # at least a decade, for readable ticks
        low, high = low / widen, high * widen
        axis.xaxis.set_major_locator(FixedLocator(_TIMES[(low <= _TIMES) & (high >= _TIMES)]))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(lambda value, _: _duration(value))
        axis.set_xlim(low, high)
        axis.set(xlabel="core time of training, per run", ylabel="score")
        if handles:
            _legend(figure, handles, labels)
    return figure


_TIMES = np.array(
    [1e-3, 1e-2, 0.1, 1, 2, 5, 10, 20, 30, *(60 * m for m in (1, 2, 5, 10, 20, 30))]
    + [*(3600 * h for h in (1, 2, 4, 8, 12)), *(86400 * d for d in (1, 2, 4, 8, 30, 100))]
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


def _interval_note(runs: int) -> str:
    if runs < 2:
        return "one run per task: no interval"
    return (
        f"bars: nominal {100 * CONFIDENCE:.0f} % bootstrap intervals over runs; "
        f"with {runs} runs per task they cover about {coverage(runs)}"
    )
