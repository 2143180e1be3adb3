"""Offline score, online score, and the way between: what a report says of training that goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import phases, stats
from analysis.frame import Run
from analysis.report import build
from analysis.stats import student_quantile
from results.record import Record, read_plan, read_record, write_record, write_study

Make = Callable[..., Path]
Runs = Callable[[int, float, float], Run]
BOTH = [
    {"name": "offline", "updates": 100, "source": "dataset"},
    {"name": "online", "updates": 100, "source": "dataset+replay"},
]


def continued(record: Any, offline: float, final: float) -> Any:
    """A record as if its run had gone on online: two evaluations offline, two online."""
    points = [
        ("offline", 0, offline - 20),
        ("offline", 0, offline),
        ("online", 60, offline + 1),
        ("online", 110, final - 3),
    ]
    curve = [
        {"update": 50 * (i + 1), "phase": phase, "env_steps": steps, "score": score,
         "return_mean": score, "return_std": 0.0, "metrics": {}}
        for i, (phase, steps, score) in enumerate(points)
    ]  # fmt: skip
    return replace(record, phases=BOTH, curve=curve, final=record.final | {"score": final})


@pytest.fixture(scope="module")
def plain(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Record:
    """A record of a run that ended offline."""
    out = tmp_path_factory.mktemp("plain")
    folder = make(out, environments=["hopper"], qualities=["medium"], agents=["iql"], seeds=1)
    return read_record(out / str(read_plan(folder / "plan.json").cells[0]["path"]))


@pytest.fixture(scope="module")
def run(plain: Record) -> Runs:
    """Makes a run by seed, offline and final score."""

    def made(seed: int, offline: float, final: float) -> Run:
        return Run("iql", Path(), continued(replace(plain, seed=seed), offline, final))

    return made


def test_scores_of_both_phases_with_intervals(run: Runs) -> None:
    (cell,) = phases.find([run(0, 40.0, 60.0), run(1, 50.0, 64.0), run(2, 60.0, 83.0)])
    assert cell.steps.tolist() == [0, 60, 110]
    assert cell.scores[0].tolist() == [40, 41, 57]
    found = phases.estimates(cell)
    assert [float(e.value) for e in found.values()] == pytest.approx([50, 69, 19])
    # Student's interval, which the calibrated bootstrap comes near to.
    for name, values in (("offline", cell.offline), ("gain", cell.online - cell.offline)):
        half = student_quantile(2, 0.95) * values.std(ddof=1) / np.sqrt(3)
        low, high = float(found[name].low), float(found[name].high)
        assert (high - low) / 2 == pytest.approx(half, rel=0.3)
    band = stats.band(cell.scores, cell.draws)
    assert band.value.tolist() == pytest.approx(cell.scores.mean(0).tolist())
    assert (band.low < band.value).all() and (band.value < band.high).all()


def test_a_gain_is_taken_run_by_run(run: Runs) -> None:
    """Runs far apart, all of them with the same gain: it is certain."""
    (cell,) = phases.find([run(0, 10.0, 15.0), run(1, 50.0, 55.0), run(2, 90.0, 95.0)])
    gain = phases.estimates(cell)["gain"]
    assert (float(gain.value), float(gain.low), float(gain.high)) == pytest.approx((5, 5, 5))


def test_who_has_not_gone_on_is_left_out(run: Runs, plain: Record) -> None:
    there = run(0, 40.0, 60.0)

    def but(**blocks: Any) -> Run:
        return Run("iql", Path(), replace(there.record, **blocks))

    assert phases.online_curve(there) == {0.0: 40.0, 60.0: 41.0, 110.0: 57.0}
    assert phases.online_curve(Run("iql", Path(), plain)) is None
    assert phases.online_curve(but(phases=BOTH[1:])) is None  # from nothing
    assert phases.online_curve(but(phases=BOTH[:1])) is None
    assert phases.online_curve(but(agent=there.record.agent | {"reference": True})) is None
    assert phases.online_curve(but(curve=[])) is None
    assert phases.section([]) is None
    (cell,) = phases.find([there])  # a single run has no interval
    section = phases.section([cell])
    assert section is not None
    assert section.rows[0][3][2] == ("20.0", 20.0)


def test_a_report_has_table_figure_and_csv(make: Make, tmp_path: Path) -> None:
    folder = make(tmp_path, environments=["hopper"], qualities=["medium"])
    rng = np.random.default_rng(0)
    for cell in read_plan(folder / "plan.json").cells:
        if cell["agent"] in ("td3_bc", "iql"):
            place = tmp_path / str(cell["path"])
            offline = 40.0 + 5 * int(cell["seed"])
            record = continued(read_record(place), offline, offline + 10)
            known = cell["agent"] == "iql"
            quality = rng.random(50)
            if known:
                arrays = {"quality": quality, "coefficients": 1 + 4 * quality}
                write_study(place, "coefficients", arrays)
            numbers: dict[str, Any] = {"applies": False, "why": "no coefficients"}
            if known:
                numbers = {
                    "applies": True, "mean": 3.0, "std": 1.0, "at_low": 0.1, "at_high": 0.25,
                    "low": 1.0, "high": 5.0,
                    "rank_correlation": {"value": 0.9, "low": 0.8, "high": 0.95},
                    "by_quality": {str(k + 1): 1 + 0.4 * k for k in range(10)},
                }  # fmt: skip
            write_record(place, replace(record, studies={"coefficients": numbers}))
    page = build(folder, tmp_path).read_text()
    assert 'id="study-phases"' in page and "From offline to online" in page
    assert "10.0 [10.0, 10.0]" in page
    lines = (folder / "phases.csv").read_text().splitlines()
    assert lines[0] == "task,agent,runs,number,value,low,high"
    assert lines[-1] == "hopper-medium,iql,3,gain,10,10,10"
    assert len(lines) == 7
    assert "| hopper-medium | td3_bc | 3 |" in (folder / "table.md").read_text()
    for name in ("phases.png", "phases.svg", "coefficients-hopper-medium.png"):
        assert (folder / "figures" / name).stat().st_size > 5000
    assert "Coefficients by state" in page
    assert "Does not apply to td3_bc on hopper-medium: no coefficients." in page


def test_a_report_of_offline_runs_says_nothing_of_phases(make: Make, tmp_path: Path) -> None:
    folder = make(tmp_path, environments=["hopper"], qualities=["medium"], seeds=1)
    assert "study-phases" not in build(folder, tmp_path).read_text()
    assert not (folder / "phases.csv").exists()
