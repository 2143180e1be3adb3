"""Tasks without a simulator: what training and held-out data say where nothing was ever played."""

from __future__ import annotations

import math
from collections.abc import Iterable

from analysis.estimates import interval_text
from analysis.frame import Run
from analysis.studies import Section, cell_text
from analysis.text import bullets, markdown

STUDY = "unsimulated"
TITLE = "Without a simulator"
TEXT = (
    "Nothing here was earned in an environment: these tasks name no simulator, so their policies "
    "were never played and have neither returns nor scores."
)
NOTES = [
    "Action error: distance from the actions logged in held-out episodes, root mean square, 1 for "
    "half the width of the action space; for integer actions the fraction that differs. It says "
    "how closely behaviour was imitated; a better policy may well differ more.",
    "Losses: at the last update, means over runs; losses of different agents do not compare.",
]
OPE_NOTE = (
    "Estimated return: weighted importance sampling over the held-out episodes, with the mean of "
    "the runs' 95 % intervals. Effective episodes say how many carry it; of fewer than about ten "
    "it means little, and the interval is too narrow."
)
NO_OPE_NOTE = (
    "No off-policy estimate applies: that takes integer actions, and a policy that always chooses "
    "one of them."
)


def section(runs: Iterable[Run]) -> Section | None:
    """The tasks without a simulator as a section of the page; None if there are none.

    Args:
        runs: finished ones.
    """
    cells: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if not run.simulated and not run.record.agent.get("reference"):
            cells.setdefault((run.task, run.agent), []).append(run)
    if not cells:
        return None
    numbers = {"action error": "action_error"}
    estimated = any("ope_effective_episodes" in r.record.final for c in cells.values() for r in c)
    if estimated:
        numbers["estimated return"] = "ope_return"
        numbers["effective episodes"] = "ope_effective_episodes"
    heads = [*numbers, *["interval"] * estimated, "losses"]
    rows = []
    for (task, agent), found in cells.items():
        texts = [
            cell_text([run.record.final.get(name, math.nan) for run in found])
            for name in numbers.values()
        ]
        texts += [interval_text(found)] * estimated
        rows.append((task, agent, len(found), [*texts, (_losses(found), math.nan)]))
    notes = [*NOTES, OPE_NOTE if estimated else NO_OPE_NOTE]
    return Section(STUDY, TITLE, TEXT, heads, rows, notes)


def section_markdown(section: Section) -> str:
    """A section's table as Markdown."""
    rows = [
        [task, agent, str(runs), *(text for text, _ in cells)]
        for task, agent, runs, cells in section.rows
    ]
    blocks = [f"## {section.title}", section.text]
    blocks += [markdown(["task", "agent", "runs", *section.heads], rows), bullets(section.notes)]
    return "\n\n".join(blocks) + "\n"


def _losses(runs: list[Run]) -> str:
    """The last metrics of training, ``bc_loss 0.0123 ± 0.002, ...``."""
    last = [run.record.curve[-1]["metrics"] for run in runs if run.record.curve]
    names = dict.fromkeys(name for metrics in last for name in metrics)
    return ", ".join(
        f"{name} {cell_text([metrics.get(name, math.nan) for metrics in last])[0]}"
        for name in names
    )
