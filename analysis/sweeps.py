"""Arms of one agent that differ in one setting: what that setting does to the score.

Nothing has to be declared. Wherever at least three arms of a plan are the same agent, trained
alike, with configurations that are equal but for one setting, they are drawn over its values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.frame import Run
from analysis.stats import SEED, Estimate, FloatArray, equal_draws, estimate, mean
from analysis.studies import Section
from analysis.text import csv_text, interval
from results.record import to_json

if TYPE_CHECKING:
    import pandas as pd

STUDY = "sweeps"
FEWEST = 3  # values that make a sweep


@dataclass(frozen=True)
class Sweep:
    """One agent over the values of one setting.

    Attributes:
        agent: registered name.
        setting: the field of its configuration.
        values: numbers ascending, or anything else in the plan's order.
        labels: the arm of each value.
        estimates: mean score with interval, by task and then value; None where there is no run.
    """

    agent: str
    setting: str
    values: list[Any]
    labels: list[str]
    estimates: dict[str, list[Estimate | None]]

    @property
    def numeric(self) -> bool:
        """Whether the values are numbers, which have distances."""
        return all(_is_number(value) for value in self.values)


def find(runs: Iterable[Run], frame: pd.DataFrame) -> list[Sweep]:
    """All sweeps among finished runs.

    Args:
        runs: finished, in the plan's order.
        frame: the same runs' scores, with the columns of :data:`analysis.frame.RUN_COLUMNS`.
    """
    arms: dict[str, Run] = {}
    for run in runs:
        if not run.record.agent.get("reference"):
            arms.setdefault(run.agent, run)
    scores = frame[frame["score"].notna()]
    tasks = list(dict.fromkeys(scores["task"]))
    found = []
    for (agent, setting), members in _families(arms).items():
        values, labels = [value for value, _ in members], [label for _, label in members]
        estimates = {task: [_estimate(scores, task, label) for label in labels] for task in tasks}
        known = {t: e for t, e in estimates.items() if sum(x is not None for x in e) >= FEWEST}
        if known:
            found.append(Sweep(agent, setting, values, labels, known))
    return found


def _families(arms: Mapping[str, Run]) -> dict[tuple[str, str], list[tuple[Any, str]]]:
    """(value, label) by (agent, setting), wherever at least ``FEWEST`` differ in nothing else."""
    groups: dict[tuple[str, str, str], list[tuple[Any, str]]] = {}
    for label, run in arms.items():
        agent, config = run.record.agent, run.record.agent.get("config", {})
        for setting in config:
            rest = {name: value for name, value in config.items() if name != setting}
            budget = {k: v for k, v in run.record.budget.items() if k != "name"}
            key = to_json([agent.get("version"), rest, run.record.phases, budget]).decode()
            groups.setdefault((agent["name"], setting, key), []).append((config[setting], label))
    families: dict[tuple[str, str], list[tuple[Any, str]]] = {}
    for (name, setting, _), members in groups.items():
        distinct = {to_json(value): (value, label) for value, label in reversed(members)}
        if len(distinct) < FEWEST:
            continue
        kept = list(reversed(distinct.values()))
        if all(_is_number(value) for value, _ in kept):
            kept.sort(key=lambda member: float(member[0]))
        if len(kept) > len(families.get((name, setting), [])):
            families[name, setting] = kept
    return families


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _estimate(scores: pd.DataFrame, task: str, label: str) -> Estimate | None:
    own = scores[(scores["task"] == task) & (scores["agent"] == label)]
    if own.empty:
        return None
    values: FloatArray = own["score"].to_numpy(float)[:, None]
    rng = np.random.default_rng(SEED)
    return estimate(mean, values, rng=rng, draws=[equal_draws(own["draw"])])


def value_text(value: Any) -> str:
    """A setting's value for people."""
    return f"{value:g}" if _is_number(value) else str(value).replace("'", "")


def section(sweeps: Sequence[Sweep]) -> Section | None:
    """The sweeps' place on the page; None if there are none."""
    if not sweeps:
        return None
    rows = []
    for sweep in sweeps:
        for task, estimates in sweep.estimates.items():
            for i, found in enumerate(estimates):
                if found is not None:
                    setting = f"{sweep.setting} {value_text(sweep.values[i])}"
                    text = interval(float(found.value), float(found.low), float(found.high))
                    cells = [(setting, float(i)), (text, float(found.value))]
                    rows.append((task, sweep.labels[i], found.runs, cells))
    return Section(
        STUDY,
        "One setting varied",
        "Arms of one agent that differ in one setting only: mean score over runs, with intervals.",
        ["setting", "score"],
        rows,
        [],
    )


def sweep_csv(sweeps: Sequence[Sweep]) -> str:
    """All numbers, long."""
    rows = [
        (task, s.agent, s.setting, value_text(value), label, e.runs, e.value, e.low, e.high)
        for s in sweeps
        for task, estimates in s.estimates.items()
        for value, label, e in zip(s.values, s.labels, estimates, strict=True)
        if e is not None
    ]
    return csv_text("task agent setting value label runs score low high", rows)
