"""The figure of the study of coefficients: what is chosen, over the quality of the state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from analysis.plots import _STYLE, INK, Look, _panels
from analysis.studies import Finding, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = (
    "the coefficient chosen over the quality of the state, the rank of its logged return. Points: "
    "states of the first run; lines: means by tenth, a line per run; dotted: the range."
)
_POINTS = 1500  # states drawn per panel


def by_task(
    cells: Mapping[tuple[str, str], list[Finding]], look: Mapping[str, Look], study: str
) -> Iterator[tuple[str, Figure]]:
    """A figure per task, a panel per agent that chooses."""
    for task in dict.fromkeys(task for task, _ in cells):
        agents = [agent for agent in look if (task, agent) in cells]
        if agents:
            yield task, _panels_of(task, agents, cells, look, study)


def _panels_of(
    task: str,
    agents: list[str],
    cells: Mapping[tuple[str, str], list[Finding]],
    look: Mapping[str, Look],
    study: str,
) -> Figure:
    from matplotlib import rc_context

    with rc_context(_STYLE):
        figure, axes = _panels(len(agents), height=2.6, left=0.65)
        for agent, axis in zip(agents, axes, strict=True):
            findings, colour = cells[task, agent], look[agent].colour
            arrays = findings[0].arrays(study)
            if arrays is not None:
                axis.scatter(
                    arrays["quality"][:_POINTS], arrays["coefficients"][:_POINTS], s=6,
                    color="#9aa0a6", alpha=0.35, linewidths=0, rasterized=True,
                )  # fmt: skip
            for finding in findings:
                means = [number(finding.numbers, "by_quality", str(k + 1)) for k in range(10)]
                axis.plot((np.arange(10) + 0.5) / 10, means, color=colour, linewidth=1.6)
                for end in ("low", "high"):
                    edge = number(finding.numbers, end)
                    axis.axhline(edge, color=INK, linestyle=(0, (1, 2)), linewidth=1)
            axis.set_title(agent, loc="left")
            axis.set_xlim(0, 1)
            axis.set_xlabel("quality of the state")
        for axis in axes[::3]:
            axis.set_ylabel("coefficient")
    return figure
