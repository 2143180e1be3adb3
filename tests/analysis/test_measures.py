"""Measures beside the score, and the dial of overlap, against numbers worked out by hand."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measured import AGENTS, MEASURES, write_measured
from synthetic import write_suite

from analysis import measures, overlap, plots, plots_relative, relative
from analysis.comparison import agents as agents_of
from analysis.frame import RUN_COLUMNS, load, load_episodes
from analysis.published import _rows, published_measures
from analysis.report import build
from analysis.stats import Estimate, estimate, mean
from results.record import PLAN_FILE, read_plan

PLATFORMS = ("players-0", "players-1", "players-2")


def found_in(folder: Path, out: Path, allow_missing: bool = False) -> list[measures.Change]:
    plan = read_plan(folder / PLAN_FILE)
    return measures.find(plan, load(out, plan), allow_missing)


def of(changes: list[measures.Change], base: str, agent: str, measure: str) -> measures.Change:
    (one,) = [c for c in changes if (c.base, c.agent.label, c.measure) == (base, agent, measure)]
    return one


def bounds(found: Estimate) -> tuple[float, float, float]:
    return float(found.value), float(found.low), float(found.high)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.figures.score_figures", lambda *rest: [])  # the others take long


def test_a_change_is_a_ratio_of_means_on_each_platform_averaged_over_them(tmp_path: Path) -> None:
    values = {  # by platform: the mixture, two runs of td3_bc, two of fastq
        "players-0": (10.0, (8.0, 12.0), (11.0, 13.0)),
        "players-1": (20.0, (25.0, 25.0), (30.0, 30.0)),
        "players-2": (40.0, (10.0, 30.0), (35.0, 45.0)),
    }

    def value(task: str, agent: str, draw: int, seed: int, measure: str) -> float:
        mixture, *runs = values[task.removesuffix("-overlap-50")]
        if agent == "behaviour":
            return mixture
        return runs[("td3_bc", "fastq").index(agent)][seed]

    folder = write_measured(
        tmp_path, platforms=PLATFORMS, seeds=2, agents=("behaviour", "td3_bc", "fastq"),
        value=value,
    )  # fmt: skip
    changes = found_in(folder, tmp_path)
    against_mixture = of(changes, "behaviour", "fastq", "player_returns").found
    assert against_mixture is not None
    each = [20.0, 50.0, 0.0]
    assert against_mixture.bounds[0] == pytest.approx(70 / 3)
    assert (against_mixture.mean, against_mixture.base) == pytest.approx((82 / 3, 70 / 3))
    assert (against_mixture.runs, against_mixture.units) == (6, "3 platforms")
    expected = estimate(mean, np.array(each)[:, None], rng=rng())
    assert against_mixture.bounds[1:] == pytest.approx(bounds(expected)[1:])
    against_td3_bc = of(changes, "td3_bc", "fastq", "dwell_time").found
    assert against_td3_bc is not None
    assert against_td3_bc.bounds[0] == pytest.approx((20.0 + 20.0 + 100.0) / 3)
    assert of(changes, "behaviour", "td3_bc", "engagement").found is not None
    assert not [c for c in changes if c.base == c.agent.label or c.agent.label == "behaviour"]


def test_runs_on_one_draw(tmp_path: Path) -> None:
    folder = write_measured(tmp_path, seeds=4)
    changes = found_in(folder, tmp_path)
    runs = load(tmp_path)
    by_agent = {a: runs.loc[runs["agent"] == a, "measure_engagement"].to_numpy() for a in AGENTS}
    ours, theirs = (by_agent[a][:, None] for a in ("fastq", "td3_bc"))
    level = by_agent["behaviour"][0]
    one = of(changes, "behaviour", "fastq", "engagement").found
    assert one is not None and one.units == "4 runs"
    # The mean of the data is what it is, so only our runs are resampled.
    expected = estimate(mean, 100 * (ours / level - 1), rng=rng())
    assert one.bounds == pytest.approx(bounds(expected))
    other = of(changes, "td3_bc", "fastq", "engagement").found
    expected = estimate(lambda x, y: 100 * (mean(x) / mean(y) - 1), ours, theirs, rng=rng())
    assert other is not None
    assert other.bounds == pytest.approx(bounds(expected))
    single = of(changes, "behaviour", "random", "engagement").found
    assert single is not None and math.isnan(single.bounds[1])


def test_draws_of_the_data_are_resampled_with_both_agents() -> None:
    theirs = {"t": {0: [10.0, 12.0], 1: [20.0, 24.0], 2: [40.0, 36.0]}}
    ours = {"t": {d: [1.1 * x for x in row] for d, row in theirs["t"].items()}}
    found = relative.against(ours, theirs, measures.change)
    assert found.bounds == pytest.approx((10.0, 10.0, 10.0))  # the same ratio on every draw
    assert (found.unit, found.estimate.units, found.runs) == ("draw", 3, 6)
    moved = {"t": {**ours["t"], 2: [30.0, 30.0]}}
    found = relative.against(moved, theirs, measures.change)
    value, low, high = found.bounds
    assert value == pytest.approx(100 * ((12.1 + 24.2 + 30) / (11 + 22 + 38) - 1))
    assert low < value < high


@pytest.mark.parametrize("platforms", [1, 5])
def test_more_runs_on_the_same_units_do_not_narrow_an_interval(platforms: int) -> None:
    generator = rng()
    level = generator.normal(10.0, 2.0, (platforms, 5))

    def made(runs: int, lift: float) -> relative.Numbers:
        return {
            f"players-{p}": {d: [float(level[p, d] + lift * (p + d))] * runs for d in range(5)}
            for p in range(platforms)
        }

    base = made(1, 0.0)
    few, many = (relative.against(made(n, 0.3), base, overlap.difference) for n in (1, 20))
    assert few.bounds == pytest.approx(many.bounds)
    assert few.bounds[1] < few.bounds[0] < few.bounds[2]
    assert many.estimate.units == 5


def test_two_units_allow_no_interval() -> None:
    base = {"a": {0: [10.0] * 9}, "b": {0: [12.0] * 9}}
    found = relative.against({"a": {0: [11.0] * 9}, "b": {0: [10.0] * 9}}, base, measures.change)
    assert math.isnan(found.bounds[1]) and math.isnan(found.bounds[2])


@pytest.mark.parametrize(
    ("platforms", "draws", "seeds"), [(5, 1, 2), (5, 3, 1), (1, 5, 2), (1, 1, 6)]
)
def test_intervals_hold_the_truth(platforms: int, draws: int, seeds: int) -> None:
    """Platforms and draws shift both agents; the truth is a change of 10 %."""
    generator, held, experiments = rng(), 0, 150

    def made(lift: float, luck: np.ndarray) -> relative.Numbers:
        noise = generator.normal(0.0, 0.3, (platforms, draws, seeds))
        # Besides, what an agent gains differs between units, as it does where there are several.
        own = generator.normal(0.0, 0.3, (platforms, draws, 1)) * (platforms * draws > 1)
        values = luck * lift + noise + own
        return {str(p): {d: values[p, d].tolist() for d in range(draws)} for p in range(platforms)}

    for _ in range(experiments):
        luck = generator.normal(10.0, 1.0, (platforms, draws, 1)) if platforms * draws > 1 else 10.0
        theirs, ours = made(1.0, np.asarray(luck)), made(1.1, np.asarray(luck))
        _, low, high = relative.against(ours, theirs, measures.change).bounds
        held += low <= 10.0 <= high
    assert held / experiments > 0.9


def test_costs_fall_for_the_better_and_few_units_say_nothing(tmp_path: Path) -> None:
    changes = found_in(write_measured(tmp_path / "5", seeds=5), tmp_path / "5")
    cost = of(changes, "behaviour", "fastq", "recommendation_cost")
    assert cost.found is not None and cost.found.bounds[2] < 0 and cost.bold
    assert cost.text.startswith("-5.4 % [-6.")
    assert of(changes, "behaviour", "fastq", "lifetime_value").bold
    assert not of(changes, "behaviour", "bc", "recommendation_cost").bold  # it costs more
    assert not of(changes, "behaviour", "random", "recommendation_cost").bold
    assert [c.measure for c in changes[:5]] == list(MEASURES)
    few = found_in(write_measured(tmp_path / "4", seeds=4), tmp_path / "4")
    assert not any(change.bold for change in few)
    section = measures.section(few)
    assert section is not None and "better: that takes 5 units" in " ".join(section.notes)


def test_missing_runs_are_named_not_averaged(tmp_path: Path) -> None:
    task = "players-0-overlap-50"
    absent = [(task, "fastq", 1), (task, "fastq", 4)]
    folder = write_measured(tmp_path, seeds=5, absent=absent)
    changes = found_in(folder, tmp_path)
    gap = of(changes, "behaviour", "fastq", "engagement")
    assert gap.found is None and gap.text == "3/5 seeds"
    assert of(changes, "td3_bc", "fastq", "engagement").text == "3/5 seeds"
    assert of(changes, "behaviour", "td3_bc", "engagement").found is not None
    there = of(found_in(folder, tmp_path, True), "behaviour", "fastq", "engagement")
    assert there.found is not None and there.found.runs == 3
    section = measures.section(found_in(folder, tmp_path, True))
    assert section is not None and "incomplete" in " ".join(section.notes)
    # A base that lacks runs is no base.
    other = write_measured(tmp_path / "b", seeds=5, absent=[(task, "td3_bc", 0)])
    assert of(found_in(other, tmp_path / "b"), "td3_bc", "fastq", "engagement").text == (
        "td3_bc 4/5 seeds"
    )
    # Over several platforms the count is of runs.
    absent = [("players-1-overlap-50", "fastq", 0)]
    nested = write_measured(tmp_path / "n", platforms=PLATFORMS, seeds=2, absent=absent)
    assert of(found_in(nested, tmp_path / "n"), "td3_bc", "fastq", "engagement").text == "5/6 runs"
    nothing = write_measured(tmp_path / "x", seeds=1, absent=[(task, "behaviour", 0)])
    gap = of(found_in(nothing, tmp_path / "x", True), "behaviour", "fastq", "engagement")
    assert gap.text == "behaviour 0/1 seeds"


def test_agents_of_another_class_are_not_set_against_td3_bc(tmp_path: Path) -> None:
    changes = found_in(write_measured(tmp_path, shrunk=["bc"], seeds=5), tmp_path)
    assert {c.agent.label for c in changes if c.base == "td3_bc"} == {"fastq"}
    shrunk = of(changes, "behaviour", "bc", "engagement")
    assert shrunk.found is not None and not shrunk.bold
    section = measures.section(changes)
    assert section is not None
    assert "bc*" in [shown for shown, _, _ in section.tables[0].rows]


def test_without_td3_bc_only_the_mixture_is_left(tmp_path: Path) -> None:
    agents = ("behaviour", "bc", "fastq")
    folder = write_measured(tmp_path, agents=agents, qualities=("overlap-0", "overlap-50"))
    changes = found_in(folder, tmp_path)
    assert {change.base for change in changes} == {"behaviour"}
    plan = read_plan(folder / PLAN_FILE)
    assert overlap.find(plan, load(tmp_path, plan)) == []
    assert overlap.section([]) is None


def test_an_arm_may_stand_for_td3_bc(tmp_path: Path) -> None:
    plan = read_plan(write_measured(tmp_path) / PLAN_FILE)
    arms = [agent | {"label": f"{agent['label']}_small"} for agent in plan.agents]
    assert relative.named(replace(plan, agents=arms), "td3_bc") == "td3_bc_small"
    assert relative.named(replace(plan, agents=arms + plan.agents), "td3_bc") == "td3_bc"
    assert relative.named(replace(plan, agents=[]), "td3_bc") is None


def test_no_ratio_to_what_is_not_positive(tmp_path: Path) -> None:
    def value(task: str, agent: str, draw: int, seed: int, measure: str) -> float:
        return 0.0 if agent == "behaviour" else 1.0 + seed

    changes = found_in(write_measured(tmp_path, value=value), tmp_path)
    assert of(changes, "behaviour", "fastq", "engagement").text == "no ratio"
    assert of(changes, "td3_bc", "fastq", "engagement").found is not None
    section = measures.section(changes)
    assert section is not None and any(note.startswith("no ratio") for note in section.notes)


def test_texts_and_names() -> None:
    assert measures.percent(2.13, 0.31, 3.94) == "+2.1 % [+0.3, +3.9]"
    assert measures.percent(0.153, -0.02, 0.33) == "+0.15 % [-0.02, +0.33]"
    assert measures.percent(-12.0) == "-12.0 %"
    assert measures.title("recommendation_cost") == "recommendation cost ↓"
    assert [relative.domain(name) for name in ("players-12", "players", "maze2d-large")] == [
        *("players", "players", "maze2d-large")
    ]


def test_the_table_of_runs_has_the_measures(tmp_path: Path) -> None:
    write_measured(tmp_path / "with")
    runs = load(tmp_path / "with")
    assert tuple(runs.columns[: len(RUN_COLUMNS)]) == RUN_COLUMNS
    assert set(runs.columns[len(RUN_COLUMNS) :]) == {f"measure_{name}" for name in MEASURES}
    assert runs["measure_dwell_time"].notna().all()
    assert len(load_episodes(tmp_path / "with")) == 4 * len(runs)
    write_measured(tmp_path / "without", value=None)
    assert tuple(load(tmp_path / "without").columns) == RUN_COLUMNS


def test_the_page_has_tables_and_figures(tmp_path: Path, plain: None) -> None:
    caveat = "Synthetic platforms."
    folder = write_measured(
        tmp_path, platforms=PLATFORMS, seeds=2, qualities=("overlap-0", "overlap-100"),
        caveats=[caveat],
    )  # fmt: skip
    html = build(folder, tmp_path).read_text("utf-8")
    for study in ("measures", "overlap"):
        assert f'id="study-{study}"' in html and f'href="#study-{study}"' in html
    for name in ("measures-behaviour", "measures-td3-bc", "overlap"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 10_000
    assert "recommendation cost ↓" in html and "players overlap-0, against td3_bc" in html
    changes = found_in(folder, tmp_path)
    value, _, interval = of(changes[:30], "behaviour", "fastq", "engagement").text.partition(" ")
    interval = interval.removeprefix("% ")
    assert f"{value} %<small>{interval}</small>" in html
    body = html[html.index('id="study-measures"') : html.index('id="study-overlap"')]
    assert "fastq ‡" in body and "-10 %" in body and caveat in body
    assert "Published on another platform" in body
    markdown = (folder / "table.md").read_text("utf-8")
    assert "### players overlap-100, against behaviour" in markdown and "## Over the" in markdown

    with (folder / "measures.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * 5 * (4 + 2)  # qualities, measures, agents against each base
    (row,) = [
        r for r in rows
        if (r["quality"], r["relative_to"], r["agent"], r["measure"])
        == ("overlap-100", "td3_bc", "fastq", "dwell_time")
    ]  # fmt: skip
    assert (row["domain"], row["tasks"], row["runs"], row["unit"]) == (
        *("players", "3", "6", "platform"),
    )
    told = of([c for c in changes if c.group.quality == "overlap-100"], "td3_bc", "fastq",
              "dwell_time").found  # fmt: skip
    assert told is not None
    numbers = [float(row[name]) for name in ("change_percent", "low", "high")]
    assert numbers == pytest.approx(told.bounds, rel=1e-5)
    assert float(row["mean"]) == pytest.approx(told.mean, rel=1e-5)
    assert not any(row["agent"].startswith("fastq ") for row in rows)  # ours alone


def test_other_domains_get_no_published_row(tmp_path: Path) -> None:
    def value(task: str, agent: str, draw: int, seed: int, measure: str) -> float:
        return 2.0 + seed

    folder = write_measured(tmp_path, platforms=("games-0",), value=value)
    section = measures.section(found_in(folder, tmp_path))
    assert section is not None and "‡" not in str(section)
    assert section.tables[0].title == "games overlap-50, against behaviour"


def test_every_published_measure_has_a_source() -> None:
    rows = _rows("fastq_measures.csv")
    assert [row["measure"] for row in rows] == list(MEASURES)
    for row in rows:
        assert all(row[key] for key in ("agent", "against", "protocol", "source", "read_from"))
        assert row["url"].startswith("https://arxiv.org/")
    (entry,) = published_measures("players")
    assert list(entry.changes.values()) == [0.15, 2.0, 0.4, 2.0, -10.0]
    assert "2504.21383" in entry.note and "stored copy" in entry.note
    assert published_measures("regions") == []


def test_a_suite_without_measures_has_no_such_section(tmp_path: Path, plain: None) -> None:
    folder = write_suite(tmp_path, environments=("hopper",), qualities=("medium",), seeds=2)
    for name in ("measures.csv", "overlap.csv"):
        (folder / name).write_text("left by an earlier build")
    html = build(folder, tmp_path).read_text("utf-8")
    assert "study-measures" not in html and "study-overlap" not in html
    assert not (folder / "measures.csv").exists() and not (folder / "overlap.csv").exists()
    assert "measure" not in (folder / "runs.csv").read_text("utf-8")
    assert "‡" not in html
    assert measures.section([]) is None


def test_advantage_over_the_dial(tmp_path: Path) -> None:
    """Suites without measures have the dial, too; shares count in their order, not as texts."""
    ahead = {"overlap-100": 1.0, "overlap-0": 9.0, "overlap-25": 4.0}

    def score(task: str, agent: str, draw: int, seed: int, measure: str) -> float:
        ours = ahead[task.removeprefix("regions-")] * (agent == "fastq")
        return 50.0 + 5.0 * draw + ours + [-1.0, 1.0][seed] * (agent == "fastq")

    folder = write_measured(
        tmp_path, platforms=("regions",), qualities=ahead, value=None, score=score, seeds=2,
        draws=3,
    )  # fmt: skip
    plan = read_plan(folder / PLAN_FILE)
    points = overlap.find(plan, load(tmp_path, plan))
    ours = [point for point in points if point.agent.label == "fastq"]
    assert [point.percent for point in ours] == [0, 25, 100]
    for point, value in zip(ours, (9.0, 4.0, 1.0), strict=True):
        assert point.found is not None and point.found.units == "3 draws"
        assert point.found.bounds == pytest.approx((value,) * 3)  # the draws' luck cancels out
    assert {point.agent.label for point in points} == {"bc", "fastq"}
    section = overlap.section(points)
    assert section is not None and section.tables[0].heads == ["runs", "0 %", "25 %", "100 %"]
    assert section.tables[0].rows[1][2][1][0] == "+9.0 [+9.0, +9.0]"
    rows = list(csv.DictReader(overlap.overlap_csv(points).splitlines()))
    first = next(row for row in rows if row["agent"] == "fastq")
    assert (first["domain"], first["overlap"], first["relative_to"]) == ("regions", "0", "td3_bc")
    assert float(first["advantage"]) == pytest.approx(9.0)
    figure = plots_relative.overlap_curves(points, plots.looks(agents_of(plan, load(tmp_path))))
    (axis,) = figure.axes
    assert axis.get_title(loc="left") == "regions"
    assert plots.draw(figure, "overlap").png


def test_a_dial_needs_two_overlaps_and_finished_runs(tmp_path: Path) -> None:
    def points(folder: Path, out: Path, **how: Any) -> list[overlap.Point]:
        plan = read_plan(folder / PLAN_FILE)
        return overlap.find(plan, load(out, plan), **how)

    assert points(write_measured(tmp_path / "1"), tmp_path / "1") == []
    qualities = ("overlap-0", "overlap-50")
    absent = [("players-0-overlap-50", "fastq", 2)]
    folder = write_measured(tmp_path / "2", qualities=qualities, absent=absent)
    texts = [p.text for p in points(folder, tmp_path / "2") if p.agent.label == "fastq"]
    assert texts[1] == "2/3 seeds" and texts[0] != "2/3 seeds"
    assert all(p.found for p in points(folder, tmp_path / "2", allow_missing=True))
    everything = [(f"players-0-{q}", "td3_bc", s) for q in qualities for s in range(3)]
    none = write_measured(tmp_path / "3", qualities=qualities, absent=everything)
    assert points(none, tmp_path / "3") == []


def test_figures_leave_out_what_is_missing(tmp_path: Path) -> None:
    folder = write_measured(
        tmp_path, qualities=("overlap-0", "overlap-50"), shrunk=["bc"],
        absent=[("players-0-overlap-50", "fastq", 0)],
    )  # fmt: skip
    plan = read_plan(folder / PLAN_FILE)
    look = plots.looks(agents_of(plan, load(tmp_path, plan)))
    changes = [c for c in found_in(folder, tmp_path) if c.base == "behaviour"]
    figure = plots_relative.measure_changes(changes, look)
    assert figure is not None and len(figure.axes) == 10
    dots = [len(axis.lines) - 1 for axis in figure.axes]  # the other line is that of no change
    assert dots == [3] * 5 + [2] * 5
    assert figure.axes[0].lines[0].get_markerfacecolor() == "none"  # bc is shrunk
    assert plots_relative.measure_changes([c for c in changes if not c.found], look) is None
