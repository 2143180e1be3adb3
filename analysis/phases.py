"""Training that goes on online: scores at the end of the offline phases and at the end of it all.

A run has both where its last phases collect in the environment and an earlier one does not. The
*offline score* is the evaluation at the end of the last phase before the agent first collects; the
*online score* that of the last policy. Their difference is taken run by run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.frame import Run
from analysis.stats import (
    INTERVALS,
    SEED,
    Estimate,
    FloatArray,
    IntArray,
    equal_draws,
    estimate,
    mean,
)
from analysis.studies import Section
from analysis.text import csv_text, interval

STUDY = "phases"
TITLE = "From offline to online"
TEXT = (
    "Agents that went on online after they had learned from data. Offline: score at the end of the "
    "last phase that learned from the data alone. Online: score of the last policy. Gain: the "
    "difference, run by run."
)
NOTE = (
    "Offline scores are those of an evaluation during training, online scores those of the final "
    "one, which may have more episodes."
)


@dataclass(frozen=True)
class Cell:
    """One agent's runs on one task.

    Attributes:
        task: its id.
        agent: label.
        keys: (draw, seed) of the n runs.
        offline: ``[n]`` scores when the agent first began to collect.
        online: ``[n]`` scores of the last policies.
        steps: ``[P]`` environment steps at which all of the runs were evaluated, from 0 on.
        scores: ``[n, P]``; the first column is ``offline``.
    """

    task: str
    agent: str
    keys: list[tuple[int, int]]
    offline: FloatArray
    online: FloatArray
    steps: FloatArray
    scores: FloatArray

    @property
    def draws(self) -> IntArray | None:
        """The draw of the data of each run; None where they are not equally many in each."""
        return equal_draws([draw for draw, _ in self.keys])


def find(runs: Iterable[Run]) -> list[Cell]:
    """All cells with runs that went on online, in the order of the runs.

    Args:
        runs: finished ones.
    """
    cells: dict[tuple[str, str], list[tuple[Run, dict[float, float]]]] = {}
    for run in runs:
        curve = online_curve(run)
        if curve is not None:
            cells.setdefault((run.task, run.agent), []).append((run, curve))
    return [_cell(task, agent, found) for (task, agent), found in cells.items()]


def online_curve(run: Run) -> dict[float, float] | None:
    """Scores by environment steps, the one at 0 being the offline score.

    Returns:
        None for a run without an offline phase before an online one, or without scores.
    """
    sources = [str(phase.get("source", "dataset")) for phase in run.record.phases]
    online = [i for i, source in enumerate(sources) if source != "dataset"]
    if run.record.agent.get("reference") or not online or not online[0]:
        return None
    last = str(run.record.phases[online[0] - 1]["name"])
    names = {str(run.record.phases[i]["name"]) for i in online}
    ends = [p for p in run.record.curve if p.get("phase") == last and "score" in p]
    if not ends or not np.isfinite(run.score):
        return None
    curve = {0.0: float(ends[-1]["score"])}
    for point in run.record.curve:
        if point.get("phase") in names and point.get("env_steps") and "score" in point:
            curve[float(point["env_steps"])] = float(point["score"])
    return curve


def _cell(task: str, agent: str, found: list[tuple[Run, dict[float, float]]]) -> Cell:
    shared = sorted(set.intersection(*(set(curve) for _, curve in found)))
    return Cell(
        task=task,
        agent=agent,
        keys=[(run.draw, run.seed) for run, _ in found],
        offline=np.array([curve[0.0] for _, curve in found]),
        online=np.array([run.score for run, _ in found]),
        steps=np.array(shared),
        scores=np.array([[curve[step] for step in shared] for _, curve in found]),
    )


def estimates(cell: Cell) -> dict[str, Estimate]:
    """Mean offline score, mean online score and mean gain, with intervals over runs."""
    numbers = {
        "offline": cell.offline,
        "online": cell.online,
        "gain": cell.online - cell.offline,
    }
    return {
        name: estimate(mean, values[:, None], rng=np.random.default_rng(SEED), draws=[cell.draws])
        for name, values in numbers.items()
    }


def section(cells: Sequence[Cell]) -> Section | None:
    """Both scores and their difference as a section of the page; None if there are no cells."""
    if not cells:
        return None
    rows = []
    for cell in cells:
        found = estimates(cell)
        texts = [
            (interval(float(e.value), float(e.low), float(e.high)), float(e.value))
            for e in found.values()
        ]
        rows.append((cell.task, cell.agent, len(cell.keys), texts))
    return Section(STUDY, TITLE, TEXT, ["offline", "online", "gain"], rows, [INTERVALS, NOTE])


def phase_csv(cells: Sequence[Cell]) -> str:
    """One line per task, agent and number."""
    return csv_text(
        "task agent runs number value low high",
        (
            (cell.task, cell.agent, found.runs, name, found.value, found.low, found.high)
            for cell in cells
            for name, found in estimates(cell).items()
        ),
    )
