"""Areas, thresholds and their intervals against numbers worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic import make_record

from analysis import efficiency, plots, plots_efficiency
from analysis.comparison import Agent
from analysis.frame import Run, collect
from analysis.report import build
from analysis.stats import probability_of_improvement
from results.record import Plan, read_plan, write_plan, write_record

STEPS = (100, 200, 400)
SIZES = {"pointmass-9": 81, "pointmass-17": 289, "pointmass-33": 1089}
AGENTS = ("dqn", "decqn", "ad_dqn")


def made(
    task: str, agent: str, seed: int, scores: tuple[float, ...], steps: tuple[int, ...] = STEPS
) -> Run:
    """A run that learned from nothing, of which only its curve matters."""
    record = make_record(task, "random", agent, seed, 1, "local", 0)
    curve = [
        {"update": at, "phase": "online", "env_steps": at, "score": score, "return_mean": score,
         "return_std": 0.0, "metrics": {}}
        for at, score in zip(steps, scores, strict=True)
    ]  # fmt: skip
    record = replace(
        record,
        task=record.task | {"id": task, "joint_actions": SIZES[task]},
        phases=[{"name": "online", "updates": 400, "source": "replay"}],
        curve=curve,
    )
    return Run(agent, Path(), record)


def written(out: Path, seeds: int = 5, agents: tuple[str, ...] = AGENTS) -> Path:
    """A plan and its records: the second and third agent are ahead by more, the more actions."""
    cells, generator = [], np.random.default_rng(0)
    for size, task in enumerate(SIZES):
        for place, agent in enumerate(agents):
            for seed in range(seeds):
                top = 40.0 + 10.0 * place * (size + 1) + generator.normal()
                run = made(task, agent, seed, (top / 2, top * 0.8, top))
                path = f"cells/local/{task}/{agent}/0-seed{seed}"
                cells.append({"task": task, "agent": agent, "seed": seed, "path": path})
                write_record(out / path, run.record)
    folder = out / "reports" / "pointmass-quick-local"
    tasks = [
        {"id": task, "title": task, "environment": task, "quality": "random", "missing": None}
        for task in SIZES
    ]
    described: list[dict[str, Any]] = [
        {"label": agent, "name": agent, "reference": False, "shrunk": False} for agent in agents
    ]
    plan = Plan("pointmass", "Point mass", "quick", "local", list(range(seeds)), tasks, described,
                cells)  # fmt: skip
    write_plan(folder, plan)
    return folder


def test_an_area_is_the_mean_height_of_the_curve_from_zero() -> None:
    steps, scores = np.array([100.0, 200.0, 400.0]), np.array([10.0, 30.0, 50.0])
    # Triangle to 10, then trapezes: (500 + 2000 + 8000) / 400.
    assert efficiency.area(steps, scores, 400.0) == pytest.approx(10_500 / 400)
    assert efficiency.area(steps, scores, 200.0) == pytest.approx(2500 / 200)
    assert efficiency.area(steps, scores, 300.0) == pytest.approx((2500 + 100 * 35) / 300)
    assert efficiency.area(steps, np.full(3, -7.0), 100.0) == pytest.approx(-3.5)


def test_the_first_evaluation_that_reaches_a_score() -> None:
    steps, scores = np.array([100.0, 200.0, 400.0]), np.array([49.0, 75.0, 60.0])
    assert efficiency.first_reach(steps, scores, 50.0) == 200.0
    assert efficiency.first_reach(steps, scores, 49.0) == 100.0
    assert math.isinf(efficiency.first_reach(steps, scores, 90.0))


def test_runs_of_a_task_end_where_the_shortest_does() -> None:
    runs = [
        made("pointmass-9", "dqn", 0, (10.0, 30.0, 50.0)),
        made("pointmass-9", "ad_dqn", 0, (40.0, 60.0), (100, 200)),
    ]
    dqn, ours = efficiency.find(runs)
    assert dqn.areas.tolist() == [pytest.approx(12.5)]
    assert ours.areas.tolist() == [pytest.approx((2000 + 5000) / 200)]
    assert dqn.joint == 81
    assert dqn.reached[0].tolist() == [400.0, math.inf, math.inf]


def test_only_runs_from_nothing_count() -> None:
    run = made("pointmass-9", "dqn", 0, (1.0, 2.0, 3.0))

    def but(**changes: Any) -> Run:
        return Run("dqn", Path(), replace(run.record, **changes))

    offline = [{"name": "offline", "updates": 400, "source": "dataset"}, *run.record.phases]
    assert efficiency.from_nothing(run)
    assert not efficiency.from_nothing(but(phases=offline))
    assert not efficiency.from_nothing(but(phases=[{"name": "offline", "updates": 1}]))
    assert not efficiency.from_nothing(but(agent=run.record.agent | {"reference": True}))
    assert not efficiency.from_nothing(but(curve=[]))
    assert efficiency.find([but(phases=offline)]) == []


def test_sizes_of_action_spaces() -> None:
    run = made("pointmass-9", "dqn", 0, (1.0, 2.0, 3.0))
    plain = {"kind": "MultiDiscrete", "nvec": [3, 4], "start": [0, 0]}
    own = {key: value for key, value in run.record.task.items() if key != "joint_actions"}
    for action, size in ((plain, 12), ({"kind": "Discrete", "n": 5}, 5), ({"kind": "Box"}, None)):
        task = own | {"spaces": {"action": action}}
        assert efficiency.joint_actions(Run("x", Path(), replace(run.record, task=task))) == size
    assert efficiency.joint_actions(Run("x", Path(), replace(run.record, task=own))) is None


def cells_of(areas: dict[str, list[list[float]]]) -> dict[str, list[efficiency.Cell]]:
    """Cells with given areas, by agent: a list of runs for each size."""
    return {
        agent: [
            efficiency.Cell(task, agent, size, [(0, i) for i in range(len(row))], np.ones(1),
                            np.ones((len(row), 1)), np.array(row), np.ones((len(row), 3)))
            for (task, size), row in zip(SIZES.items(), rows, strict=True)
        ]
        for agent, rows in areas.items()
    }  # fmt: skip


def test_ratios_and_their_growth() -> None:
    cells = cells_of(
        {"dqn": [[20.0, 20.0, 20.0]] * 3, "ad_dqn": [[30.0] * 3, [40.0] * 3, [60.0] * 3]}
    )
    ratio = efficiency.ratio(cells["ad_dqn"], cells["dqn"])
    np.testing.assert_allclose(ratio.value, [1.5, 2.0, 3.0])
    np.testing.assert_allclose(ratio.low, ratio.value)
    grown = efficiency.growth(cells["ad_dqn"], cells["dqn"])
    assert [float(x) for x in (grown.value, grown.low, grown.high)] == pytest.approx([2.0] * 3)
    # Nothing may be divided by next to nothing.
    low = cells_of({"dqn": [[0.01] * 3] * 3, "ad_dqn": [[30.0] * 3] * 3})
    np.testing.assert_allclose(efficiency.ratio(low["ad_dqn"], low["dqn"]).value, 30.0)
    spread = cells_of({"dqn": [[15.0, 20.0, 25.0]] * 3, "ad_dqn": [[30.0] * 3] * 3})
    found = efficiency.ratio(spread["ad_dqn"], spread["dqn"])
    assert (found.low < 1.5).all() and (found.high > 1.5).all()


def test_sizes_need_two_tasks_that_every_agent_has() -> None:
    cells = cells_of({"dqn": [[1.0]] * 3, "ad_dqn": [[1.0]] * 3})
    everything = [cell for row in cells.values() for cell in row]
    assert [cell.joint for cell in efficiency.by_size(everything[::-1])["dqn"]] == [81, 289, 1089]
    assert set(efficiency.by_size(everything[:-1])) == {"dqn"}
    assert efficiency.by_size(everything[:1]) == {}
    assert efficiency.by_size([replace(cell, joint=None) for cell in everything]) == {}


def test_the_report_tells_of_efficiency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.figures.score_figures", lambda *rest: [])  # the others take long
    folder = written(tmp_path)
    page = build(folder, tmp_path)
    text = page.read_text("utf-8")
    assert 'id="study-efficiency"' in text
    for name in ("efficiency", "growth"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 10_000
    table = pd.read_csv(folder / "efficiency.csv")
    assert len(table) == 3 * 3 * 5
    results = collect(tmp_path, read_plan(folder / "plan.json"))
    curve = results.curves[(results.curves["task"] == "pointmass-9")]
    assert sorted(set(curve["env_steps"])) == [100, 200, 400]
    one = table[(table["task"] == "pointmass-33") & (table["agent"] == "ad_dqn")]
    top = results.curves.query("task == 'pointmass-33' and agent == 'ad_dqn' and env_steps == 400")
    # 100 * t/4 + 100 * 0.65 t + 200 * 0.9 t over 400.
    np.testing.assert_allclose(one["area"], 0.675 * top["score"], rtol=1e-5)
    markdown = (folder / "table.md").read_text("utf-8")
    assert "On pointmass-33, an area of ad_dqn lies above one of dqn with probability 1.00" in (
        markdown
    )
    assert "Over 3 tasks the mean area of ad_dqn is " in markdown
    assert "From 81 to 1,089 joint actions the ratio of areas, ad_dqn to dqn, grows" in markdown
    plan = read_plan(folder / "plan.json")
    cells = efficiency.find(results.finished)
    found = efficiency.area_pairs(plan, results.runs, cells)
    areas = {(cell.task, cell.agent): cell.areas[:, None] for cell in cells}
    for task in SIZES:
        for pair in found[task]:
            expected = probability_of_improvement(areas[task, pair.x], areas[task, pair.y])
            assert pair.estimate.value == pytest.approx(float(expected))


def test_a_suite_without_online_runs_has_no_such_section(tmp_path: Path) -> None:
    assert efficiency.section(Plan("x", "", "quick", "local", [], [], [], []), pd.DataFrame(), [])\
        is None  # fmt: skip
    assert efficiency.efficiency_csv([]).startswith("task agent".replace(" ", ","))


def test_figures_draw_what_there_is() -> None:
    look = plots.looks([Agent("dqn", "comparison"), Agent("ad_dqn", "comparison")])
    runs = [made("pointmass-9", agent, 0, (1.0, 2.0, 3.0)) for agent in ("dqn", "ad_dqn")]
    cells = efficiency.find(runs)
    figure = plots_efficiency.efficiency_curves(cells, look)
    (axis,) = figure.axes
    assert len(axis.lines) == 4  # a curve, and the way to it, of each
    assert not axis.collections  # one run has no interval
    assert plots_efficiency.efficiency_growth(cells, look) is None
    assert plots.draw(figure, "efficiency").png
