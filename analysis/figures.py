"""Which figures a report has, where they stand on its page, and their files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis import efficiency, estimates, measures, overlap, phases, studies, sweeps
from analysis.comparison import (
    ALL_TASKS,
    Agent,
    AggregateRow,
    Comparison,
    Pair,
    profiles,
    scored_tasks,
)
from analysis.frame import Run
from analysis.text import slug
from analysis.tuning import TunedCurve
from results.record import Plan, write_atomically

if TYPE_CHECKING:
    import pandas as pd

    from analysis.plots import Drawing


@dataclass(frozen=True)
class PageFigure:
    """A figure with its place on the page, and the tasks it is about (none: all of them)."""

    name: str
    section: str
    caption: str
    drawing: Drawing
    tasks: Sequence[str] = ()

    @property
    def inline(self) -> str:
        """The SVG as an element of the page."""
        return self.drawing.inline(self.name, self.caption)


def score_figures(
    plan: Plan,
    runs: pd.DataFrame,
    curves: pd.DataFrame,
    agents: list[Agent],
    comparison: Comparison | None,
    rows: list[AggregateRow],
    compared: list[Pair],
    tuned: list[TunedCurve],
) -> list[PageFigure]:
    """Scores: aggregates, profiles, improvement, tuning, curves, and cost."""
    from analysis import plots, plots_tuned

    look = plots.looks(agents)
    figures: list[PageFigure] = []

    def add(name: str, section: str, caption: str, figure: Any, tasks: Sequence[str] = ()) -> None:
        drawing = plots.draw(figure, name, plan.watermark)
        figures.append(PageFigure(name, section, caption, drawing, tasks))

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
    if tuned:
        figure = plots_tuned.expected_performance(tuned, look)
        add("tuned", "tuned", plots_tuned.CAPTION, figure)
    runs, curves = (frame[frame["score"].notna()] for frame in (runs, curves))
    yardsticks = runs[runs["reference"].astype(bool)].groupby(["task", "agent"])["score"].mean()
    for environment in dict.fromkeys(str(task["environment"]) for task in plan.tasks):
        begun = set(curves.loc[curves["environment"] == environment, "task"])
        tasks = [str(task["id"]) for task in plan.tasks if task["id"] in begun]
        if tasks:
            add(
                f"curves-{slug(environment)}",
                "curves",
                f"{environment}: score over gradient updates, mean and one standard deviation over "
                "runs.",
                plots.learning_curves(tasks, curves, dict(yardsticks), look),
                tasks,
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
                scored_tasks(plan),
                [agent.label for agent in agents if agent.kind == "shrunk"],
                look,
            ),
        )
    return figures


def study_figures(
    plan: Plan, studied: Mapping[str, list[studies.Finding]], agents: list[Agent]
) -> list[PageFigure]:
    """What studies found."""
    from analysis import plots, plots_studies

    look = plots.looks(agents)
    return [
        PageFigure(
            made.name,
            f"study-{study}",
            made.caption,
            plots.draw(made.figure, made.name, plan.watermark),
            made.tasks,
        )
        for study, findings in studied.items()
        for made in plots_studies.study_figures(study, findings, look)
    ]


def efficiency_figures(
    plan: Plan, cells: Sequence[efficiency.Cell], agents: list[Agent]
) -> list[PageFigure]:
    """Sample efficiency of agents that learned online from nothing."""
    from analysis import plots, plots_efficiency

    if not cells:
        return []
    look, section = plots.looks(agents), f"study-{efficiency.STUDY}"
    made = [
        ("efficiency", plots_efficiency.CURVES_CAPTION, plots_efficiency.efficiency_curves),
        ("growth", plots_efficiency.growth_caption(cells), plots_efficiency.efficiency_growth),
    ]
    drawn = [(name, caption, draw(cells, look)) for name, caption, draw in made]
    return [
        PageFigure(name, section, caption, plots.draw(figure, name, plan.watermark))
        for name, caption, figure in drawn
        if figure is not None
    ]


def phase_figures(
    plan: Plan, cells: Sequence[phases.Cell], agents: list[Agent]
) -> list[PageFigure]:
    """Going on online where the data ends."""
    from analysis import plots, plots_phases

    if not cells:
        return []
    drawn = plots_phases.online_curves(cells, plots.looks(agents))
    drawing = plots.draw(drawn, phases.STUDY, plan.watermark)
    tasks = list(dict.fromkeys(cell.task for cell in cells))
    return [PageFigure(phases.STUDY, f"study-{phases.STUDY}", plots_phases.CAPTION, drawing, tasks)]


def sweep_figures(plan: Plan, swept: Sequence[sweeps.Sweep]) -> list[PageFigure]:
    """Arms that differ in one setting."""
    from analysis import plots, plots_sweeps

    if not swept:
        return []
    drawing = plots.draw(plots_sweeps.sweep_panels(swept), sweeps.STUDY, plan.watermark)
    return [PageFigure(sweeps.STUDY, f"study-{sweeps.STUDY}", plots_sweeps.CAPTION, drawing)]


def estimate_figures(
    plan: Plan, cells: Mapping[tuple[str, str], list[Run]], agents: list[Agent]
) -> list[PageFigure]:
    """Off-policy estimates beside what the simulator says."""
    from analysis import plots

    drawn = estimates.figure(cells, plots.looks(agents))
    if drawn is None:
        return []
    name = estimates.STUDY
    drawing = plots.draw(drawn, name, plan.watermark)
    tasks = list(dict.fromkeys(task for task, _ in cells))
    return [PageFigure(name, f"study-{name}", estimates.CAPTION, drawing, tasks)]


def measure_figures(
    plan: Plan, changes: Sequence[measures.Change], agents: list[Agent]
) -> list[PageFigure]:
    """Measures beside the score, a figure for each base that they are set against."""
    from analysis import plots, plots_relative

    figures = []
    for base in dict.fromkeys(change.base for change in changes):
        here = [change for change in changes if change.base == base]
        drawn = plots_relative.measure_changes(here, plots.looks(agents))
        if drawn is not None:
            name = f"{measures.STUDY}-{slug(base)}"
            caption = plots_relative.CHANGES_CAPTION.format(base=base)
            drawing = plots.draw(drawn, name, plan.watermark)
            figures.append(PageFigure(name, f"study-{measures.STUDY}", caption, drawing))
    return figures


def overlap_figures(
    plan: Plan, points: Sequence[overlap.Point], agents: list[Agent]
) -> list[PageFigure]:
    """Advantage over the overlap of the logging policies."""
    from analysis import plots, plots_relative

    if not points:
        return []
    drawn = plots_relative.overlap_curves(points, plots.looks(agents))
    caption = plots_relative.OVERLAP_CAPTION.format(base=points[0].base)
    drawing = plots.draw(drawn, overlap.STUDY, plan.watermark)
    return [PageFigure(overlap.STUDY, f"study-{overlap.STUDY}", caption, drawing)]


def write_figures(folder: Path, figures: Iterable[PageFigure]) -> None:
    """Writes every figure and removes those of an earlier build that have no successor."""
    written = set()
    for figure in figures:
        for suffix, content in ((".png", figure.drawing.png), (".svg", figure.drawing.svg)):
            write_atomically(folder / (figure.name + suffix), content)
            written.add(figure.name + suffix)
    for path in folder.glob("*.*"):
        if path.suffix in (".png", ".svg") and path.name not in written:
            path.unlink()
