"""The figures of studies: bars with a point per run, pictures of states, predicted against true."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import plots_coefficients
from analysis.plots import (
    _STYLE,
    INK,
    Look,
    _label_margin,
    _legend,
    _panels,
    _rows_of_bars,
    _thousands,
)
from analysis.studies import (
    KINDS,
    LIFTS,
    VIEWS,
    Finding,
    Numbers,
    applying,
    number,
    parts_of,
    relative_bias,
    relative_error,
)
from analysis.text import slug

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHADES = ("#9aa0a6", "#56b4e9", "#0173b2")  # raw, before, after
_KIND_COLOURS = {
    **{"logged": "#9aa0a6", "agent": "#0173b2", "counterfactual": "#de8f05", "chosen": "#d55e00"}
}
_PART_COLOURS = ("#0173b2", "#029e73", "#cc78bc", "#de8f05", "#56b4e9", "#ca9161")
_OVERFLOW = "#c9ccd1"
_GROUP_COLOURS = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#56b4e9")
_MOST_PICTURES = 6  # agents in one figure of pictures
Cells = Mapping[tuple[str, str], list[Finding]]
Bounded = tuple[float, float, float]  # value, lower, upper; NaN ends: none


@dataclass(frozen=True)
class StudyFigure:
    """A figure with what the report needs to place it.

    Attributes:
        name: of its files.
        caption: what is drawn.
        figure: drawn.
        tasks: it is about.
    """

    name: str
    caption: str
    figure: Figure
    tasks: list[str]


def study_figures(
    study: str, findings: Sequence[Finding], look: Mapping[str, Look]
) -> Iterator[StudyFigure]:
    """All figures of a study, none where it applied to nobody."""
    cells = applying(findings)
    maker = {
        "balance": _balance,
        "exploration": _exploration,
        "decomposition": _decomposition,
        "coefficients": _coefficients,
    }.get(study)
    if maker is not None and cells:
        shown = {name for _, name in cells}
        yield from maker(cells, {agent: style for agent, style in look.items() if agent in shown})


def _coefficients(cells: Cells, agents: Mapping[str, Look]) -> Iterator[StudyFigure]:
    for task, figure in plots_coefficients.by_task(cells, agents, "coefficients"):
        caption = f"{task}: {plots_coefficients.CAPTION}"
        yield StudyFigure(f"coefficients-{slug(task)}", caption, figure, [task])


def _tasks(cells: Cells) -> list[str]:
    return list(dict.fromkeys(task for task, _ in cells))


# Bars -----------------------------------------------------------------------------------------


def _bars(
    cells: Cells,
    agents: Mapping[str, Look],
    series: Mapping[str, str],
    take: Callable[[Numbers, str], Bounded],
    label: str,
    decorate: Callable[[Axes, int, float, str, list[Finding]], None] | None = None,
    line: Callable[[str], float] | None = None,
) -> Figure:
    """A panel per task, a row per agent, a bar per series; a point with whiskers per run.

    Args:
        cells: findings by (task, agent).
        agents: rows.
        series: colours by name, in order.
        take: a run's number of a series with its interval; NaN leaves it out.
        label: of the axis.
        decorate: draws more into a row's series: axis, row, height, series, findings.
        line: a task's vertical dashed line.
    """
    from matplotlib import rc_context
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    tasks, names = _tasks(cells), list(series)
    step = 0.8 / len(names)
    with rc_context(_STYLE):
        figure, axes = _panels(
            len(tasks), height=0.35 + len(agents) * (0.2 * len(names) + 0.1),
            left=_label_margin(agents), legend=names, gap=0.3,
        )  # fmt: skip
        for i, (task, axis) in enumerate(zip(tasks, axes, strict=True)):
            for y, agent in enumerate(agents):
                found = cells.get((task, agent), [])
                for k, name in enumerate(names):
                    middle = y - 0.4 + (k + 0.5) * step
                    bounds = [take(finding.numbers, name) for finding in found]
                    _bar_of_runs(axis, middle, 0.86 * step, bounds, series[name])
                    if decorate is not None:
                        decorate(axis, y, middle, name, found)
            _rows_of_bars(axis, list(agents) if i % 3 == 0 else [], len(agents))
            axis.set_title(task, loc="left")
            axis.xaxis.set_major_locator(MaxNLocator(4))
            axis.axvline(0, color=INK, linewidth=0.8)
            if line is not None:
                axis.axvline(line(task), color=INK, linestyle=(0, (4, 3)), linewidth=1)
        for axis in axes[-min(len(axes), 3) :]:
            axis.set_xlabel(label)
        _legend(figure, [Patch(color=colour) for colour in series.values()], names)
    return figure


def _bar_of_runs(
    axis: Axes, middle: float, height: float, bounds: Sequence[Bounded], colour: str
) -> None:
    known = [b for b in bounds if math.isfinite(b[0])]
    if not known:
        return
    mean = float(np.mean([value for value, _, _ in known]))
    axis.barh(middle, mean, height=height, color=colour, alpha=0.55, linewidth=0)
    for j, (value, low, high) in enumerate(known):
        y = middle + height * ((j + 0.5) / len(known) - 0.5) * 0.7
        if math.isfinite(low):
            axis.hlines(y, low, high, color=INK, linewidth=0.9)
        axis.plot(value, y, marker="o", markersize=2.6, color=INK)


def _bounded(numbers: Numbers, *path: str) -> Bounded:
    return (
        number(numbers, *path, "mean"),
        number(numbers, *path, "low"),
        number(numbers, *path, "high"),
    )


# Balance --------------------------------------------------------------------------------------


def _balance(cells: Cells, agents: Mapping[str, Look]) -> Iterator[StudyFigure]:
    tasks, shades = _tasks(cells), dict(zip(VIEWS, _SHADES, strict=True))

    def accuracy(numbers: Numbers, view: str) -> Bounded:
        return (
            number(numbers, "views", view, "accuracy", "value"),
            number(numbers, "views", view, "accuracy", "low"),
            number(numbers, "views", view, "accuracy", "high"),
        )

    def chance(task: str) -> float:
        return next(
            number(f.numbers, "chance") for (where, _), row in cells.items() if where == task
            for f in row
        )  # fmt: skip

    def distance(numbers: Numbers, view: str) -> Bounded:
        return number(numbers, "views", view, "distance", "between"), math.nan, math.nan

    def floor(axis: Axes, y: int, middle: float, view: str, found: list[Finding]) -> None:
        floors = [number(f.numbers, "views", view, "distance", "floor") for f in found]
        if floors:
            axis.vlines(np.mean(floors), middle - 0.12, middle + 0.12, color="#d55e00", linewidth=2)

    yield StudyFigure(
        "balance-accuracy",
        "Balanced accuracy of a fresh classifier that tells the groups of logging policies apart, "
        "on held-out episodes. Bars: mean over runs; points: runs, with 95 % intervals over "
        "episodes; dashed: chance. Lower is better balanced.",
        _bars(cells, agents, shades, accuracy, "balanced accuracy", line=chance),
        tasks,
    )
    yield StudyFigure(
        "balance-distance",
        "Sliced Wasserstein distance between the groups on standardised dimensions. Bars: mean "
        "over runs; points: runs; orange: the floor, the distance between two halves of one "
        "group's episodes. Views have different dimensions: compare a bar with its own floor.",
        _bars(cells, agents, shades, distance, "distance", decorate=floor),
        tasks,
    )
    for task in tasks:
        rows = [
            (agent, arrays)
            for agent in agents
            for finding in cells.get((task, agent), [])[:1]
            for arrays in [finding.arrays("balance")]
            if arrays is not None
        ][:_MOST_PICTURES]
        if rows:
            yield StudyFigure(
                f"balance-states-{slug(task)}",
                f"{task}: t-SNE of logged states in the representation before and after balancing, "
                "coloured by the group of policies that acted (0 has the lowest returns); one run "
                "of each agent, six agents at most. A picture, not a measurement: t-SNE keeps "
                "neighbours, not distances.",
                _pictures(rows),
                [task],
            )


def _pictures(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> Figure:
    from matplotlib import rc_context
    from matplotlib.lines import Line2D

    count = 1 + max(int(arrays["groups"].max()) for _, arrays in rows)
    labels = [f"group {group}" for group in range(count)]
    with rc_context(_STYLE):
        figure, axes = _panels(
            2 * len(rows), height=2.2, left=0.2, columns=4, legend=labels, gap=0.25
        )
        for (agent, arrays), pair in zip(
            rows, zip(axes[::2], axes[1::2], strict=True), strict=True
        ):
            colours = [_GROUP_COLOURS[g % len(_GROUP_COLOURS)] for g in arrays["groups"].tolist()]
            pair[0].set_title(agent, loc="left")
            for view, axis in zip(("before", "after"), pair, strict=True):
                x, y = arrays[view].T
                axis.scatter(x, y, s=7, c=colours, alpha=0.6, linewidths=0, rasterized=True)
                axis.set(xticks=[], yticks=[], xlabel=view)
                axis.grid(visible=False)
                axis.spines[:].set_visible(False)
        handles = [
            Line2D([], [], marker="o", linestyle="", color=_GROUP_COLOURS[g % len(_GROUP_COLOURS)])
            for g in range(count)
        ]
        _legend(figure, handles, labels)
    return figure


# Exploration ----------------------------------------------------------------------------------


def _exploration(cells: Cells, agents: Mapping[str, Look]) -> Iterator[StudyFigure]:
    tasks = _tasks(cells)
    everything = [finding.numbers for row in cells.values() for finding in row]
    kinds = [kind for kind in KINDS if any(kind in n["kinds"] for n in everything)]
    lifts = [kind for kind in LIFTS if any(kind in n["lift"] for n in everything)]

    def bias(numbers: Numbers, kind: str) -> Bounded:
        low, high = (relative_bias(numbers, kind, end) for end in ("low", "high"))
        return relative_bias(numbers, kind), low, high

    def order(numbers: Numbers, kind: str) -> Bounded:
        return number(numbers, "kinds", kind, "rank_correlation"), math.nan, math.nan

    def lift(numbers: Numbers, kind: str) -> Bounded:
        return _bounded(numbers, "lift", kind, "true")

    def claim(axis: Axes, y: int, middle: float, kind: str, found: list[Finding]) -> None:
        claims = [number(f.numbers, "lift", kind, "predicted", "mean") for f in found]
        known = [value for value in claims if math.isfinite(value)]
        if known:
            axis.plot(
                np.mean(known), middle, marker="D", markersize=5, color="none",
                markeredgecolor="#d55e00", markeredgewidth=1.4,
            )  # fmt: skip

    yield StudyFigure(
        "exploration-bias",
        "Predicted Q minus measured return, by kind of first action, in standard deviations of the "
        "measured returns. Bars: mean over runs; points: runs, with 95 % intervals over states. "
        "Right of 0 the critic promises too much.",
        _bars(cells, agents, _colours(kinds), bias, "bias (standard deviations)"),
        tasks,
    )
    yield StudyFigure(
        "exploration-order",
        "Spearman's rank correlation of predicted Q and measured return over states, by kind of "
        "first action. Bars: mean over runs; points: runs. 1: the critic orders the pairs rightly.",
        _bars(cells, agents, _colours(kinds), order, "rank correlation"),
        tasks,
    )
    yield StudyFigure(
        "exploration-lift",
        "True lift: measured return of an action minus that of the logged one in the same state, "
        "discounted, the agent's policy going on after either. Counterfactual: mean over the other "
        "groups' actions; chosen: the one of them that the critic prefers. Bars: mean over runs; "
        "points: runs, with 95 % intervals over states; orange diamonds: what the critic claims.",
        _bars(cells, agents, _colours(lifts), lift, "lift (discounted reward)", decorate=claim),
        tasks,
    )
    for task in tasks:
        yield from _scatter(cells, agents, task, "exploration", _pairs_by_kind)


def _colours(kinds: Sequence[str]) -> dict[str, str]:
    return {kind: _KIND_COLOURS[kind] for kind in kinds}


def _pairs_by_kind(arrays: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Kind, predicted and measured values of a run's exploration."""
    predicted, returned = arrays["predicted"], arrays["returned"]
    if "groups" in arrays:
        other = np.arange(len(predicted) - 2)[:, None] != arrays["groups"][None]
        yield "counterfactual", predicted[2:][other], returned[2:][other]
    yield "agent", predicted[1], returned[1]
    yield "logged", predicted[0], returned[0]


def _logged_pairs(arrays: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    if "predicted" in arrays:
        yield "logged", arrays["predicted"], arrays["returned"]


def _scatter(
    cells: Cells,
    agents: Mapping[str, Look],
    task: str,
    study: str,
    pairs: Callable[[Mapping[str, Any]], Iterator[tuple[str, Any, Any]]],
) -> Iterator[StudyFigure]:
    """Predicted against measured values of one run of every agent on a task."""
    from matplotlib import rc_context
    from matplotlib.lines import Line2D

    panels = {
        agent: found
        for agent in agents
        for finding in cells.get((task, agent), [])[:1]
        for arrays in [finding.arrays(study)]
        if arrays is not None
        for found in [list(pairs(arrays))]
        if found
    }
    if not panels:
        return
    drawn = {kind for found in panels.values() for kind, _, _ in found}
    labels = [kind for kind in KINDS if kind in drawn]
    with rc_context(_STYLE):
        figure, axes = _panels(len(panels), height=2.7, left=0.75, legend=labels)
        for (agent, found), axis in zip(panels.items(), axes, strict=True):
            for kind, predicted, returned in found:
                axis.scatter(
                    returned, predicted, s=8, color=_KIND_COLOURS[kind], alpha=0.45, linewidths=0,
                    rasterized=True,
                )  # fmt: skip
            low = min(float(returned.min()) for _, _, returned in found)
            high = max(float(returned.max()) for _, _, returned in found)
            axis.plot([low, high], [low, high], color=INK, linewidth=1, linestyle=(0, (4, 3)))
            axis.set_title(agent, loc="left")
        for axis in axes[-min(len(axes), 3) :]:
            axis.set_xlabel("measured return")
        for axis in axes[::3]:
            axis.set_ylabel("predicted Q")
        handles = [
            Line2D([], [], marker="o", linestyle="", color=_KIND_COLOURS[kind]) for kind in labels
        ]
        _legend(figure, handles, labels)
    yield StudyFigure(
        f"{study}-values-{slug(task)}",
        f"{task}: predicted Q against the measured discounted return, a point per state and first "
        "action, one run of each agent. Dashed: equal.",
        figure,
        [task],
    )


# Decomposition --------------------------------------------------------------------------------


def _decomposition(cells: Cells, agents: Mapping[str, Look]) -> Iterator[StudyFigure]:
    tasks = _tasks(cells)
    parts = parts_of(finding.numbers for row in cells.values() for finding in row)
    colours = {part: _PART_COLOURS[i % len(_PART_COLOURS)] for i, part in enumerate(parts)}
    shown = {**colours, "overflow": _OVERFLOW}

    def weight(numbers: Numbers, part: str) -> Bounded:
        return number(numbers, "weights", part), math.nan, math.nan

    def error(numbers: Numbers, part: str) -> Bounded:
        return relative_error(numbers, part), math.nan, math.nan

    yield StudyFigure(
        "decomposition-weights",
        "Mean share of Q that goes to each part of the reward, and to the overflow. Bars: mean "
        "over runs; points: runs.",
        _bars(cells, agents, shown, weight, "mean weight"),
        tasks,
    )
    yield StudyFigure(
        "decomposition-fit",
        "Error of w Q against the part of the reward that it should explain, in units of the "
        "part's root mean square. 0: perfect; dashed: what a weight of 0 would give. Bars: mean "
        "over runs; points: runs.",
        _bars(cells, agents, colours, error, "relative error", line=lambda _: 1.0),
        tasks,
    )
    for task in tasks:
        yield from _scatter(cells, agents, task, "decomposition", _logged_pairs)
    stages = _stages(cells, agents)
    if stages is not None:
        yield StudyFigure(
            "decomposition-stages",
            "Discount and TD loss at the evaluations during training, a line per run, on the first "
            "three tasks.",
            stages,
            tasks[:3],
        )


def _stages(cells: Cells, agents: Mapping[str, Look]) -> Figure | None:
    """Metrics over updates, where runs have them: a column per task, a row per metric."""
    from matplotlib import rc_context
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    names = {"discount": "discount", "td_loss": "TD loss"}
    tasks = _tasks(cells)[:3]
    points = [p for row in cells.values() for f in row for p in f.run.record.curve]
    found = [name for name in names if any(name in point.get("metrics", {}) for point in points)]
    if not found:
        return None
    with rc_context(_STYLE):
        figure, axes = _panels(
            len(tasks) * len(found), height=1.9, left=0.75, columns=len(tasks), legend=list(agents)
        )
        for n, axis in enumerate(axes):
            name, task = found[n // len(tasks)], tasks[n % len(tasks)]
            for agent, style in agents.items():
                for finding in cells.get((task, agent), []):
                    curve = [p for p in finding.run.record.curve if name in p.get("metrics", {})]
                    axis.plot(
                        [p["update"] for p in curve], [p["metrics"][name] for p in curve],
                        color=style.colour, linestyle=style.line, linewidth=1.4,
                        marker=style.marker, markersize=2.5, alpha=0.8,
                    )  # fmt: skip
            drawn = np.concatenate([line.get_ydata() for line in axis.get_lines()] or [[1.0]])
            if name == "td_loss" and 0 < 10 * drawn.min() < drawn.max():
                axis.set_yscale("log")
                axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axis.yaxis.set_minor_formatter(NullFormatter())
            axis.set_title(task if n < len(tasks) else "", loc="left")
            axis.xaxis.set_major_locator(MaxNLocator(4))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _thousands(value)))
            if n % len(tasks) == 0:
                axis.set_ylabel(names[name])
        for axis in axes[-len(tasks) :]:
            axis.set_xlabel("gradient updates")
        lines = [Line2D([], [], color=s.colour, linestyle=s.line) for s in agents.values()]
        _legend(figure, lines, list(agents))
    return figure
