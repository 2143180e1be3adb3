"""The report of a plan: one page, its tables as Markdown and CSV, its figures as PNG and SVG.

``python -m analysis.report FOLDER_OF_PLAN`` builds it again at any time, also while runs go on.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis import efficiency, estimates, measures, overlap, phases, studies, sweeps, tables
from analysis import figures as figures_of
from analysis.binning import binning_notes
from analysis.comparison import (
    ALL_TASKS,
    AggregateRow,
    IncompleteMatrixError,
    aggregate_rows,
    compare,
    pairs,
)
from analysis.details import provenance, run_details, run_id
from analysis.frame import (
    Results,
    Run,
    ScoresError,
    add_foreign,
    collect,
    episode_csv,
    read_evaluations,
)
from analysis.page import numbered, page_environment
from analysis.published import published
from analysis.relative import tables_markdown
from analysis.stats import AGGREGATES, MINIMUM_RUNS_FOR_CLAIMS, coverage
from analysis.tuning import tuned_curves
from analysis.unsimulated import section, section_markdown
from results.record import PLAN_FILE, Episodes, Plan, RecordError, read_plan, write_atomically

if TYPE_CHECKING:
    import pandas as pd


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
    evaluations = [(run, read_evaluations(run)) for run in results.ended]
    columns, published_notes = published(plan, _dataset_versions(results.finished))
    remarks = published_notes + foreign_notes + _inexact(results.finished)
    remarks += studies.warning_notes(results.finished) + binning_notes(results.finished)
    table = tables.task_table(plan, runs, columns, remarks)
    refusal, comparison = "", None
    try:
        comparison = compare(plan, runs, allow_missing)
    except IncompleteMatrixError as error:
        refusal = str(error)
    rows = aggregate_rows(comparison) if comparison else []
    compared = pairs(comparison) if comparison else []
    notes = comparison.notes if comparison else []

    tuned, tuned_notes = tuned_curves(plan, runs)
    figures = figures_of.score_figures(
        plan, runs, results.curves, table.agents, comparison, rows, compared, tuned
    )
    studied = studies.find(results.finished)
    figures += figures_of.study_figures(plan, studied, table.agents)
    efficient = efficiency.find(results.finished)
    figures += figures_of.efficiency_figures(plan, efficient, table.agents)
    efficient_section = efficiency.section(plan, results.runs, efficient, allow_missing)
    continued = phases.find(results.finished)
    figures += figures_of.phase_figures(plan, continued, table.agents)
    continued_section = phases.section(continued)
    swept = sweeps.find(results.finished, results.runs)
    figures += figures_of.sweep_figures(plan, swept)
    estimated = estimates.find(results.finished)
    figures += figures_of.estimate_figures(plan, estimated, table.agents)
    estimated_section = estimates.section(estimated)
    changes = measures.find(plan, runs, allow_missing)
    figures += figures_of.measure_figures(plan, changes, table.agents)
    dial = overlap.find(plan, runs, allow_missing)
    figures += figures_of.overlap_figures(plan, dial, table.agents)
    against = [*filter(None, (measures.section(changes), overlap.section(dial)))]
    figures_of.write_figures(plan_folder / "figures", figures)
    caveats = "".join(f"- {caveat}\n" for caveat in plan.caveats)
    markdown = tables.task_markdown(table)
    unsimulated = section(results.finished)
    for more in (unsimulated, estimated_section, efficient_section, continued_section):
        if more is not None:
            markdown += "\n" + section_markdown(more)
    markdown += "".join("\n" + tables_markdown(more) for more in against)
    aggregates = refusal + "\n" if refusal else tables.aggregate_markdown(rows, compared, notes)
    origin = tables.origin(plan, runs)
    texts = {
        "table.md": f"# {plan.title}\n\n{origin}\n\n{markdown}\n{caveats}",
        "table.csv": tables.task_csv(table),
        "aggregates.md": f"# {plan.title}: aggregates\n\n{origin}\n\n{aggregates}\n{caveats}",
        "aggregates.csv": tables.aggregate_csv(rows),
        "improvement.csv": tables.pair_csv(compared),
        "published.csv": tables.published_csv(table),
        "tuned.csv": tables.tuned_csv(tuned),
        "studies.csv": studies.study_csv(studied),
        "sweeps.csv": sweeps.sweep_csv(swept),
        "efficiency.csv": efficiency.efficiency_csv(efficient),
        "measures.csv": measures.measure_csv(changes),
        "overlap.csv": overlap.overlap_csv(dial),
        "phases.csv": phases.phase_csv(continued),
        "runs.csv": _frame_csv(runs),
        "episodes.csv": episode_csv(_evaluated(evaluations)),
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
            provenance=provenance(results.finished),
            run_rows=_run_rows(results, runs, out),
            tuned_rows=tables.tuned_rows(tuned),
            tuned_notes=tuned_notes,
            against=against,
            studies=[
                *filter(
                    None, (unsimulated, estimated_section, efficient_section, continued_section)
                ),
                *studies.sections(studied),
                *filter(None, (sweeps.section(swept),)),
            ],
            has_draws=len({run.draw for run in results.ended}) > 1,
            details=run_details(evaluations, out),
            meaningless=plan.meaningless,
        ),
    }
    empty = {"published.csv": not (table.published or table.published_others)}
    empty["tuned.csv"], empty["studies.csv"] = not tuned, not studied
    empty["efficiency.csv"], empty["sweeps.csv"] = not efficient, not swept
    empty["phases.csv"], empty["measures.csv"] = not continued, not changes
    empty["overlap.csv"] = not dial
    for name, text in texts.items():
        if empty.get(name):
            (plan_folder / name).unlink(missing_ok=True)
        else:
            write_atomically(plan_folder / name, text.encode())
    return plan_folder / INDEX_FILE


def _frame_csv(frame: pd.DataFrame) -> str:
    return str(frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def _evaluated(
    found: Iterable[tuple[Run, Episodes | None]],
) -> Iterator[tuple[Run, Episodes | None]]:
    """All but the behaviour's, whose episodes are those of the data and may be 50,000."""
    for run, episodes in found:
        if episodes is not None and (episodes.reset_seeds >= 0).any():
            yield run, episodes


def _inexact(runs: Iterable[Run]) -> list[str]:
    names = [f"{run.agent} on {run.task}, seed {run.seed}" for run in runs if run.inexact]
    if not names:
        return []
    return [f"Inexactly resumed, so not quite what their seeds give: {'; '.join(names)}."]


def _dataset_versions(runs: Iterable[Run]) -> dict[str, str]:
    """What the datasets' cards say of their version, for example "v2", by task."""
    found = {run.task: run.record.dataset.get("dataset_version") for run in runs}
    return {task: str(version) for task, version in found.items() if version is not None}


def _run_rows(results: Results, runs: pd.DataFrame, out: Path) -> list[dict[str, Any]]:
    """The page's list of runs, in the plan's order; failed ones have no numbers."""
    rows: list[dict[str, Any]] = runs.to_dict("records")  # the finished, in order, then foreign
    finished = iter(rows)
    listed: list[dict[str, Any]] = []
    for run in results.ended:
        key = {"task": run.task, "agent": run.agent, "seed": run.seed, "draw": run.draw}
        row = dict.fromkeys(runs.columns, math.nan) | key if run.failed else next(finished)
        listed.append(row | {"id": run_id(run, out), "ended": run.ended, "failed": run.failed})
    return listed + [row | {"id": "", "ended": "elsewhere", "failed": False} for row in finished]


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
    units = min(row.estimate.units for row in overall)
    if units < MINIMUM_RUNS_FOR_CLAIMS:
        return (
            f"With {runs} run{'s' * (runs != 1)} per task this report calls no agent better than "
            f"another: that takes {MINIMUM_RUNS_FOR_CLAIMS}."
        )
    first = list(AGGREGATES).index("IQM")
    best = max(overall, key=lambda row: row.estimate.value[first])
    return (
        f"The highest interquartile mean is that of {best.agent}: "
        f"{tables.aggregate_texts(best)[first]} ({runs} runs per task; such intervals cover "
        f"{coverage(units, best.tasks)} in simulations)."
    )


def _gaps(table: tables.TaskTable) -> list[str]:
    return [
        f"{agent.label} on {task['id']}: {cell.score}"
        for task in table.tasks
        for agent in table.agents
        for cell in [table.cells[str(task["id"]), agent.label]]
        if not task["missing"] and cell.runs < cell.expected
    ]


def _page(plan: Plan, table: tables.TaskTable, **context: Any) -> str:
    from analysis import plots

    qualities = {str(task["id"]): str(task["quality"]) for task in plan.tasks}
    return (
        page_environment()
        .get_template("report.html")
        .render(
            plan=plan,
            table=table,
            qualities=qualities,
            index={
                "task": numbered(qualities),
                "quality": numbered(qualities.values()),
                "agent": numbered(agent.label for agent in table.agents),
            },
            looks=plots.looks(table.agents),
            tables=tables,
            aggregate_names=list(AGGREGATES),
            **context,
        )
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
        "--scores", type=Path, action="append", default=[], metavar="FILE",
        help="scores made elsewhere: task, agent, seed, score; may be repeated",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    out = options.out or options.folder.resolve().parent.parent
    try:
        page = build(options.folder, out, options.allow_missing, options.scores)
    except (RecordError, ScoresError) as error:
        known = "" if (options.folder / PLAN_FILE).exists() else "; name a folder below reports/"
        print(f"error: {error}{known}", file=sys.stderr)
        return 2
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
