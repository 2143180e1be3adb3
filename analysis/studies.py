"""What runs found in studies: gathered from records, as tables, sentences and CSV.

A study's numbers stand in the record, one block per study; what figures need more of lies beside
it. Numbers of one run are set beside those of other runs, never pooled with them: a table cell is
the mean over runs with their standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.frame import Run
from analysis.text import csv_text
from results.record import RecordError, read_study

COLUMNS = ("study", "task", "agent", "seed", "draw", "quantity", "value")
VIEWS = ("raw", "before", "after")
KINDS = ("logged", "agent", "counterfactual")
LIFTS = ("agent", "counterfactual", "chosen")
Numbers = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """One run's outcome of one study."""

    run: Run
    numbers: Numbers

    @property
    def applies(self) -> bool:
        """Whether there was anything to study."""
        return bool(self.numbers.get("applies"))

    def arrays(self, study: str) -> dict[str, Any] | None:
        """What lies beside the record; None if it is not there or damaged."""
        try:
            return read_study(self.run.folder, study)
        except RecordError:
            return None


@dataclass(frozen=True)
class Section:
    """A study's place on the page.

    Attributes:
        study: its name.
        title: heading.
        text: what was done, in a few sentences.
        heads: of the table's columns behind task, agent and runs.
        rows: task, agent, number of runs, and a text and a number for sorting per column.
        notes: sentences beneath.
    """

    study: str
    title: str
    text: str
    heads: list[str]
    rows: list[tuple[str, str, int, list[tuple[str, float]]]]
    notes: list[str]


def find(runs: Iterable[Run]) -> dict[str, list[Finding]]:
    """All outcomes by study, in the order of the page; reference rows have none."""
    found: dict[str, list[Finding]] = {}
    for run in runs:
        for name, numbers in run.record.studies.items():
            found.setdefault(name, []).append(Finding(run, numbers))
    order = [*_DESCRIPTIONS, *sorted(set(found) - set(_DESCRIPTIONS))]
    return {name: found[name] for name in order if name in found}


def applying(findings: Iterable[Finding]) -> dict[tuple[str, str], list[Finding]]:
    """Those that apply, by (task, agent), in the order of the runs."""
    cells: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        if finding.applies:
            cells.setdefault((finding.run.task, finding.run.agent), []).append(finding)
    return cells


def number(numbers: Numbers, *path: str) -> float:
    """A number deep in a study's block; NaN where it is not there."""
    value: Any = numbers
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) else math.nan


def sections(found: Mapping[str, list[Finding]]) -> list[Section]:
    """A section for every study that any run has, also where it applied to none."""
    return [_section(study, findings) for study, findings in found.items()]


def _section(study: str, findings: list[Finding]) -> Section:
    title, text, columns, notes = _DESCRIPTIONS.get(study, (study, "", _no_columns, _no_notes))
    cells = applying(findings)
    made = columns([finding.numbers for row in cells.values() for finding in row])
    rows = [
        (task, agent, len(row), [cell_text([take(f.numbers) for f in row]) for _, take in made])
        for (task, agent), row in cells.items()
    ]
    remarks = notes(cells)
    without: dict[str, list[str]] = {}
    for finding in findings:
        if not finding.applies:
            names = without.setdefault(str(finding.numbers.get("why", "no reason given")), [])
            name = f"{finding.run.agent} on {finding.run.task}"
            names += [name] if name not in names else []
    remarks += [f"Does not apply to {', '.join(names)}: {why}." for why, names in without.items()]
    return Section(study, title, text, [head for head, _ in made], rows, remarks)


def cell_text(values: Sequence[float]) -> tuple[str, float]:
    """Mean over runs and, from two on, their standard deviation."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return "", math.nan
    mean = float(np.mean(known))
    size = max(map(abs, known))
    digits = 2 - math.floor(math.log10(size)) if size > 0 else 0  # three figures of the largest
    digits = min(max(digits, 0), 6)
    spread = f" ± {np.std(known, ddof=1):.{digits}f}" if len(known) > 1 else ""
    return f"{mean:.{digits}f}{spread}", mean


Columns = list[tuple[str, Callable[[Numbers], float]]]


def _at(*path: str) -> Callable[[Numbers], float]:
    return lambda numbers: number(numbers, *path)


def _no_columns(numbers: list[Numbers]) -> Columns:
    return []


def _no_notes(cells: Mapping[tuple[str, str], list[Finding]]) -> list[str]:
    return []


def _balance_columns(numbers: list[Numbers]) -> Columns:
    return [
        *((f"accuracy, {view}", _at("views", view, "accuracy", "value")) for view in VIEWS),
        ("chance", _at("chance")),
        *((f"distance, {view}", _at("views", view, "distance", "between")) for view in VIEWS),
        ("its floor, after", _at("views", "after", "distance", "floor")),
    ]


def _balance_notes(cells: Mapping[tuple[str, str], list[Finding]]) -> list[str]:
    notes = []
    for task in dict.fromkeys(task for task, _ in cells):
        runs = [f.numbers for (where, _), row in cells.items() if where == task for f in row]
        idle = sum(bool(numbers.get("nothing_to_balance")) for numbers in runs)
        if idle:
            raw = np.mean([number(n, "views", "raw", "accuracy", "value") for n in runs])
            notes.append(
                f"{task}: nothing to balance in {idle} of {len(runs)} runs (observations tell the "
                f"groups apart with accuracy {raw:.2f}, chance {number(runs[0], 'chance'):.2f})."
            )
    return notes


def relative_bias(numbers: Numbers, kind: str, end: str = "mean") -> float:
    """Bias (or an end of its interval) in standard deviations of the measured returns."""
    spread = number(numbers, "kinds", kind, "returned_std")
    return number(numbers, "kinds", kind, "bias", end) / spread if spread > 0 else math.nan


def _exploration_columns(numbers: list[Numbers]) -> Columns:
    kinds = [k for k in KINDS if any(k in n.get("kinds", {}) for n in numbers)]
    lifts = [k for k in LIFTS if any(k in n.get("lift", {}) for n in numbers)]

    def bias(kind: str) -> Callable[[Numbers], float]:
        return lambda n: relative_bias(n, kind)

    return [
        ("discount", _at("discount")),
        *((f"bias, {kind}", bias(kind)) for kind in kinds),
        *((f"rank corr., {kind}", _at("kinds", kind, "rank_correlation")) for kind in kinds),
        *((f"true lift, {kind}", _at("lift", kind, "true", "mean")) for kind in lifts),
        *((f"claimed lift, {kind}", _at("lift", kind, "predicted", "mean")) for kind in lifts),
    ]


def _exploration_notes(cells: Mapping[tuple[str, str], list[Finding]]) -> list[str]:
    everything = [finding.numbers for row in cells.values() for finding in row]
    if not everything:
        return []
    pairs = [int(number(n, "pairs")) for n in everything]
    shares = [
        number(n, "passed_over") / (number(n, "passed_over") + number(n, "states"))
        for n in everything
    ]
    errors = [number(n, "restored_reward_error") for n in everything]
    return [
        f"Each run: {_range(pairs)} pairs of a state and an action. Passed over, because a clipped "
        f"velocity hides the simulator's state: {min(shares):.0%} to {max(shares):.0%} of the "
        "states drawn, which are those of fast movements. Logged actions replayed from restored "
        f"states differ from the logged reward by {max(errors):.2g} at most (median of a run).",
        "Bias: predicted minus measured, in standard deviations of the measured returns. Lifts: "
        "in discounted reward, at each agent's own discount, so arms of other discounts are "
        "not comparable in them.",
    ]


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def relative_error(numbers: Numbers, part: str) -> float:
    """Error of w Q against its part, in units of the part's root mean square."""
    size = math.hypot(
        number(numbers, "fit", part, "target"), number(numbers, "fit", part, "target_std")
    )
    return number(numbers, "fit", part, "rmse") / size if size > 0 else math.nan


def parts_of(numbers: Iterable[Numbers]) -> list[str]:
    """Parts of the reward that any run decomposes into, without the overflow."""
    return list(dict.fromkeys(part for block in numbers for part in block.get("fit", {})))


def _decomposition_columns(numbers: list[Numbers]) -> Columns:
    parts = parts_of(numbers)

    def error(part: str) -> Callable[[Numbers], float]:
        return lambda n: relative_error(n, part)

    def bias(n: Numbers) -> float:
        spread = number(n, "returns", "returned_std")
        return number(n, "returns", "bias", "mean") / spread if spread > 0 else math.nan

    return [
        *((f"weight, {part}", _at("weights", part)) for part in (*parts, "overflow")),
        *((f"error, {part}", error(part)) for part in parts),
        ("saturated", _at("saturated")),
        ("Q < 0", _at("negative_values")),
        ("bias", bias),
        ("rank corr.", _at("returns", "rank_correlation")),
    ]


def _decomposition_notes(cells: Mapping[tuple[str, str], list[Finding]]) -> list[str]:
    if not cells:
        return []
    return [
        "Error: root mean square of w Q minus its part of the reward, over the part's own root "
        "mean square: 0 is a perfect fit, 1 what a weight of 0 would give. Saturated: share of "
        "states with one weight above 0.95. Bias in standard deviations of the measured returns."
    ]


def _coefficient_columns(numbers: list[Numbers]) -> Columns:
    return [
        ("coefficient", _at("mean")),
        ("its std", _at("std")),
        ("rank corr. with quality", _at("rank_correlation", "value")),
        ("lower end", _at("rank_correlation", "low")),
        ("upper end", _at("rank_correlation", "high")),
        ("share at low", _at("at_low")),
        ("share at high", _at("at_high")),
    ]


def _coefficient_notes(cells: Mapping[tuple[str, str], list[Finding]]) -> list[str]:
    if not cells:
        return []
    return [
        "Quality: the rank of a state's logged return from there on, discounted by 0.99 a step. "
        "The ends of the correlation's interval are from a bootstrap over episodes, run by run. "
        "Share at low, at high: of states within a twentieth of the range from its end."
    ]


_DESCRIPTIONS: dict[str, tuple[str, str, Any, Any]] = {
    "balance": (
        "Balance of the representation",
        "Whether a fresh classifier can tell from a state's representation which group of logging "
        "policies acted, judged on episodes it has not seen (balanced accuracy), and how far apart "
        "the groups lie (sliced Wasserstein distance on standardised dimensions; its floor is the "
        "distance between halves of one group). Raw: the observations, before and after: the "
        "agent's representation around its balancing layer.",
        _balance_columns,
        _balance_notes,
    ),
    "exploration": (
        "Counterfactual actions",
        "The simulator is put into logged states; the logged action, the agent's own and what "
        "other groups of logging policies would have done are tried there, and the agent's policy "
        "goes on. Predicted Q is set against the measured return. Lift: how much better an action "
        "is than the logged one.",
        _exploration_columns,
        _exploration_notes,
    ),
    "decomposition": (
        "Decomposition of Q",
        "Whether the weights of a decomposed Q explain the parts of the reward they stand for, "
        "and whether Q of logged actions is right.",
        _decomposition_columns,
        _decomposition_notes,
    ),
    "coefficients": (
        "Coefficients by state",
        "What balance of improvement and constraint an agent chooses for logged states, over how "
        "much was earned from there on in the data.",
        _coefficient_columns,
        _coefficient_notes,
    ),
}


def study_csv(found: Mapping[str, list[Finding]]) -> str:
    """Every number of every study of every run, one per line."""
    rows = (
        (study, run.task, run.agent, run.seed, run.draw, name, value)
        for study, findings in found.items()
        for finding in findings
        for run in [finding.run]
        for name, value in _leaves(finding.numbers)
    )
    return csv_text(" ".join(COLUMNS), rows)


def _leaves(block: Numbers, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in block.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        elif isinstance(value, bool):
            yield prefix + key, int(value)
        elif value is not None:
            yield prefix + key, value


def warning_notes(runs: Iterable[Run]) -> list[str]:
    """A sentence for every failure signature of an agent on a task, with its number of runs."""
    counts: dict[tuple[str, str, str], int] = {}
    totals: dict[tuple[str, str], int] = {}
    for run in runs:
        totals[run.agent, run.task] = totals.get((run.agent, run.task), 0) + 1
        for name in dict.fromkeys(str(warning["name"]) for warning in run.record.warnings):
            key = run.agent, name, run.task
            counts[key] = counts.get(key, 0) + 1
    sentences: dict[tuple[str, str], list[str]] = {}
    for (agent, name, task), count in counts.items():
        total = totals[agent, task]
        where = f"in {count} of {total} run{'s' * (total != 1)} on {task}"
        sentences.setdefault((agent, name), []).append(where)
    return [
        f"{agent}: {name.replace('_', ' ')} {', '.join(where)}."
        for (agent, name), where in sentences.items()
    ]
