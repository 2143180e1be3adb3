"""Off-policy estimates beside what the simulator says, for runs that have both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from analysis.frame import Run
from analysis.studies import Section, cell_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.plots import Look

STUDY = "estimates"
TITLE = "Off-policy estimates and the truth"
TEXT = (
    "What held-out episodes of the logging policy say of each final policy, by weighted importance "
    "sampling, beside the mean return of the episodes that it then played in the simulator."
)
NOTES = [
    "A row's numbers are means over runs with their standard deviation; the interval is the mean "
    "of the runs' own (nominal 95 %, a bootstrap over held-out episodes).",
    "Inside: share of runs whose interval holds the played mean. All runs of a task share their "
    "held-out episodes, so the share is no check of the interval's coverage: `python -m suites.ope "
    "calibrate` is one.",
    "Effective episodes: how many episodes of the policy's own would tell as much. Below about ten "
    "the estimate is dominated by a few lucky episodes, and its interval is too narrow.",
]
CAPTION = (
    "Off-policy estimate against the mean return played in the simulator, a point per run with its "
    "interval; faint: fewer than ten effective episodes. Dashed: equal."
)
FEW = 10  # effective episodes


def find(runs: Iterable[Run]) -> dict[tuple[str, str], list[Run]]:
    """Runs with an estimate and played returns, by (task, agent)."""
    cells: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        final = run.record.final
        if "ope_effective_episodes" in final and "return_mean" in final:
            cells.setdefault((run.task, run.agent), []).append(run)
    return cells


def interval_text(runs: Sequence[Run]) -> tuple[str, float]:
    """Mean ends of the runs' intervals; empty where no run has one."""
    ends = [
        (run.record.final["ope_low"], run.record.final["ope_high"])
        for run in runs
        if "ope_low" in run.record.final and "ope_high" in run.record.final
    ]
    if not ends:
        return "", math.nan
    low, high = np.mean(ends, axis=0)
    return f"{low:.3g} to {high:.3g}", float(high - low)


def section(cells: Mapping[tuple[str, str], list[Run]]) -> Section | None:
    """The table of estimates and truths; None if no run has both."""
    if not cells:
        return None
    heads = ["estimate", "interval", "effective episodes", "played", "standard error", "inside"]
    rows = []
    for (task, agent), runs in cells.items():
        finals = [run.record.final for run in runs]

        def column(name: str, finals: list[dict[str, float]] = finals) -> tuple[str, float]:
            return cell_text([final.get(name, math.nan) for final in finals])

        errors = [
            final["return_std"] / math.sqrt(run.record.budget["final_episodes"])
            for final, run in zip(finals, runs, strict=True)
        ]
        inside = [
            float(final["ope_low"] <= final["return_mean"] <= final["ope_high"])
            for final in finals
            if "ope_low" in final and "ope_high" in final
        ]
        share = float(np.mean(inside)) if inside else math.nan
        texts = [
            column("ope_return"),
            interval_text(runs),
            column("ope_effective_episodes"),
            column("return_mean"),
            (f"{np.mean(errors):.2g}", float(np.mean(errors))),
            (f"{share:.0%}" if inside else "", share),
        ]
        rows.append((task, agent, len(runs), texts))
    notes = list(NOTES)
    if any(
        run.record.final.get("ope_behaviour_estimated") for row in cells.values() for run in row
    ):
        notes.append("The behaviour's probabilities were estimated, not logged.")
    return Section(STUDY, TITLE, TEXT, heads, rows, notes)


def figure(cells: Mapping[tuple[str, str], list[Run]], look: Mapping[str, Look]) -> Figure | None:
    """Estimates against truths, a panel per task; None if no run has both."""
    from matplotlib import rc_context
    from matplotlib.lines import Line2D

    from analysis.plots import _STYLE, INK, _legend, _panels

    tasks = list(dict.fromkeys(task for task, _ in cells))
    agents = [agent for agent in look if any(agent == known for _, known in cells)]
    if not tasks:
        return None
    with rc_context(_STYLE):
        drawn, axes = _panels(len(tasks), height=2.9, left=0.75, legend=agents)
        for task, axis in zip(tasks, axes, strict=True):
            ends: list[float] = []
            for agent in agents:
                for run in cells.get((task, agent), []):
                    final = run.record.final
                    if "ope_return" not in final:
                        continue
                    x, y = final["return_mean"], final["ope_return"]
                    few = final["ope_effective_episodes"] < FEW
                    low, high = final.get("ope_low", y), final.get("ope_high", y)
                    axis.vlines(x, low, high, color=look[agent].colour, linewidth=1, alpha=0.35)
                    axis.plot(
                        x, y, marker=look[agent].marker, markersize=5,
                        color=look[agent].colour, alpha=0.35 if few else 1.0,
                    )  # fmt: skip
                    ends += [x, low, high]
            if ends:
                span = [min(ends), max(ends)]
                axis.plot(span, span, color=INK, linewidth=1, linestyle=(0, (4, 3)))
            axis.set_title(task, loc="left")
        for axis in axes[-min(len(axes), 3) :]:
            axis.set_xlabel("played return")
        for axis in axes[::3]:
            axis.set_ylabel("estimated return")
        handles = [
            Line2D([], [], marker=look[a].marker, linestyle="", color=look[a].colour)
            for a in agents
        ]
        _legend(drawn, handles, agents)
    return drawn
