"""The report of a plan: one page, its tables as Markdown and CSV, its figures as PNG and SVG.

``python -m analysis.report FOLDER_OF_PLAN`` builds it again at any time, also while runs go on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis import tables
from analysis.comparison import (
    ALL_TASKS,
    Agent,
    AggregateRow,
    Comparison,
    IncompleteMatrixError,
    Pair,
    aggregate_rows,
    compare,
    pairs,
    profiles,
)
from analysis.frame import Results, ScoresError, add_foreign, collect
from analysis.stats import AGGREGATES, MINIMUM_RUNS_FOR_CLAIMS, coverage
from results.record import PLAN_FILE, Plan, Record, RecordError, read_plan, write_atomically

if TYPE_CHECKING:
    import pandas as pd

    from analysis.plots import Drawing

INDEX_FILE = "index.html"


def build(
    plan_folder: Path, out: Path, allow_missing: bool = False, foreign: Iterable[Path] = ()
) -> Path:
    """Writes the report of a plan into its folder.

    Args:
        plan_folder: folder with ``plan.json``; the report's files go beside it.
        out: the output folder that holds ``cells/``.
        allow_missing: aggregate over what there is where runs are missing.
        foreign: CSV files of scores made elsewhere; see :func:`analysis.frame.read_csv`.

    Returns:
        The page, ``index.html``.

    Raises:
        RecordError: if the plan cannot be read.
        ScoresError: if a foreign file cannot be used.
    """
    plan = read_plan(plan_folder / PLAN_FILE)
    results = collect(out, plan)
    runs, foreign_notes = add_foreign(plan, results.runs, foreign)
    table = tables.task_table(plan, runs)
    refusal, comparison = "", None
    try:
        comparison = compare(plan, runs, allow_missing)
    except IncompleteMatrixError as error:
        refusal = str(error)
    rows = aggregate_rows(comparison) if comparison else []
    compared = pairs(comparison) if comparison else []
    notes = (comparison.notes if comparison else []) + foreign_notes

    figures = _figures(plan, runs, results.curves, table.agents, comparison, rows, compared)
    _write_figures(plan_folder / "figures", figures)
    caveats = "".join(f"- {caveat}\n" for caveat in plan.caveats)
    markdown = tables.task_markdown(table)
    aggregates = refusal + "\n" if refusal else tables.aggregate_markdown(rows, compared, notes)
    texts = {
        "table.md": f"# {plan.title}\n\n{markdown}\n{caveats}",
        "table.csv": tables.task_csv(table),
        "aggregates.md": f"# {plan.title}: aggregates\n\n{aggregates}\n{caveats}",
        "aggregates.csv": tables.aggregate_csv(rows),
        "improvement.csv": tables.pair_csv(compared),
        "runs.csv": runs.to_csv(index=False, float_format="%.6g", lineterminator="\n"),
        INDEX_FILE: _page(
            plan=plan,
            progress=_progress(plan, results),
            table=table,
            refusal=refusal,
            headline=_headline(rows),
            aggregates=rows,
            pairs=compared,
            notes=notes,
            figures=figures,
            gaps=_gaps(table),
            failures=results.failures,
            unreadable=results.unreadable,
            provenance=_provenance(results.records),
            runs=runs.to_dict("records"),
            meaningless=plan.meaningless,
        ),
    }
    for name, text in texts.items():
        write_atomically(plan_folder / name, text.encode())
    return plan_folder / INDEX_FILE


@dataclass(frozen=True)
class _Figure:
    """A figure with its place on the page."""

    name: str
    section: str
    caption: str
    drawing: Drawing

    @property
    def inline(self) -> str:
        return self.drawing.inline(self.name, self.caption)


def _figures(
    plan: Plan,
    runs: pd.DataFrame,
    curves: pd.DataFrame,
    agents: list[Agent],
    comparison: Comparison | None,
    rows: list[AggregateRow],
    compared: list[Pair],
) -> list[_Figure]:
    from analysis import plots

    look = plots.looks(agents)
    figures: list[_Figure] = []

    def add(name: str, section: str, caption: str, figure: Any) -> None:
        figures.append(_Figure(name, section, caption, plots.draw(figure, name, plan.watermark)))

    if comparison:
        overall = [row for row in rows if row.group == ALL_TASKS]
        count = len(comparison.tasks)
        add(
            "aggregates",
            "aggregates",
            f"Aggregates over {count} task{'s' * (count != 1)}. ↓ lower is better.",
            plots.aggregate_intervals(overall, look),
        )
        taus, profile = profiles(comparison)
        add(
            "profiles",
            "profiles",
            "Fraction of runs that score above a threshold, over all tasks. The higher curve is "
            "ahead; bands are pointwise intervals over runs.",
            plots.performance_profiles(taus, profile, look),
        )
        if compared:
            add(
                "improvement",
                "improvement",
                "Probability of improvement, averaged over tasks. Dashed: no difference.",
                plots.improvement_intervals(compared, look),
            )
    yardsticks = runs[runs["reference"].astype(bool)].groupby(["task", "agent"])["score"].mean()
    for environment in dict.fromkeys(str(task["environment"]) for task in plan.tasks):
        begun = set(curves.loc[curves["environment"] == environment, "task"])
        tasks = [str(task["id"]) for task in plan.tasks if task["id"] in begun]
        if tasks:
            add(
                f"curves-{_slug(environment)}",
                "curves",
                f"{environment}: score over gradient updates, mean and one standard deviation over "
                "runs.",
                plots.learning_curves(tasks, curves, dict(yardsticks), look),
            )
    trained = runs[runs["core_seconds"] > 0]
    if len(trained):
        add(
            "cost",
            "cost",
            "Score against training time. Small points: tasks; large points: mean over all tasks "
            "with data, for agents that have a run on each; hollow: shrunk by the budget.",
            plots.score_against_cost(
                trained,
                [str(task["id"]) for task in plan.tasks if not task["missing"]],
                [agent.label for agent in agents if agent.kind == "shrunk"],
                look,
            ),
        )
    return figures


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())


def _write_figures(folder: Path, figures: Iterable[_Figure]) -> None:
    """Writes every figure and removes those of an earlier build that have no successor."""
    written = set()
    for figure in figures:
        for suffix, content in ((".png", figure.drawing.png), (".svg", figure.drawing.svg)):
            write_atomically(folder / (figure.name + suffix), content)
            written.add(figure.name + suffix)
    for path in folder.glob("*.*"):
        if path.suffix in (".png", ".svg") and path.name not in written:
            path.unlink()


def _progress(plan: Plan, results: Results) -> dict[str, int]:
    return {
        "planned": len(plan.cells),
        "done": len(results.runs),
        "failed": len(results.failures),
        "unreadable": len(results.unreadable),
    }


def _headline(rows: list[AggregateRow]) -> str:
    """One sentence on the aggregates, as strong as the number of runs allows."""
    overall = [row for row in rows if row.group == ALL_TASKS]
    if not overall:
        return ""
    runs = min(row.estimate.runs for row in overall)
    if runs < MINIMUM_RUNS_FOR_CLAIMS:
        return (
            f"With {runs} run{'s' * (runs != 1)} per task this report calls no agent better than "
            f"another: that takes {MINIMUM_RUNS_FOR_CLAIMS}."
        )
    first = list(AGGREGATES).index("IQM")
    best = max(overall, key=lambda row: row.estimate.value[first])
    return (
        f"The highest interquartile mean is that of {best.agent}: "
        f"{tables.aggregate_texts(best)[first]} ({runs} runs per task; the interval covers about "
        f"{coverage(runs)})."
    )


def _gaps(table: tables.TaskTable) -> list[str]:
    return [
        f"{agent.label} on {task['id']}: {cell.score}"
        for task in table.tasks
        for agent in table.agents
        for cell in [table.cells[str(task["id"]), agent.label]]
        if not task["missing"] and cell.runs < cell.expected
    ]


def _provenance(records: list[tuple[str, Record]]) -> dict[str, Any]:
    """Where the numbers come from: datasets by task, versions with counts, configs by agent."""
    datasets = {str(record.task["id"]): record.dataset for _, record in records}
    counts: dict[str, Counter[str]] = {}
    for _, record in records:
        for key, value in _flat(record.versions):
            counts.setdefault(key, Counter())[value] += 1
    configs: dict[str, dict[str, dict[str, Any]]] = {}
    for label, record in records:
        if record.agent.get("reference"):
            continue
        settings = {
            "agent": record.agent["name"],
            "version": record.agent["version"],
            "preset": record.agent.get("preset"),
            "track": record.agent.get("track"),
            "configs_tried": record.agent.get("configs_tried"),
            "config": record.agent.get("config"),
            "budget": record.budget,
            "phases": record.phases,
        }
        text = json.dumps(settings, indent=2)
        entry = configs.setdefault(label, {}).setdefault(text, {"text": text, "tasks": []})
        if record.task["id"] not in entry["tasks"]:
            entry["tasks"].append(record.task["id"])
    return {
        "datasets": datasets,
        "versions": {key: dict(sorted(found.items())) for key, found in sorted(counts.items())},
        "configs": {label: list(found.values()) for label, found in configs.items()},
    }


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    flat: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            flat += _flat(value, f"{prefix}{key} ")
        else:
            flat.append((prefix + key, "none" if value is None else str(value)))
    return flat


def _page(plan: Plan, table: tables.TaskTable, **context: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from analysis import plots

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value, digits=1: (
        "" if value is None or value != value else f"{value:,.{digits}f}"
    )
    return environment.get_template("report.html").render(
        plan=plan,
        table=table,
        looks=plots.looks(table.agents),
        tables=tables,
        coverage=coverage,
        aggregate_names=list(AGGREGATES),
        **context,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.report", description="Builds the report of a suite run again."
    )
    parser.add_argument("folder", type=Path, help=f"the report folder, which holds {PLAN_FILE}")
    parser.add_argument(
        "--out", type=Path, help="the output folder that holds cells/ (two above FOLDER)"
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="aggregate over an incomplete matrix"
    )
    parser.add_argument(
        "--foreign", type=Path, action="append", default=[], metavar="CSV",
        help="scores made elsewhere: task, agent, seed, score; may be repeated",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    out = options.out or options.folder.resolve().parent.parent
    try:
        page = build(options.folder, out, options.allow_missing, options.foreign)
    except (RecordError, ScoresError) as error:
        print(error, file=sys.stderr)
        return 2
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
