"""Studies and failure signatures in the report."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from studied import add_studies

from analysis.frame import collect
from analysis.report import build
from analysis.studies import find, relative_error, sections, warning_notes
from results.record import read_plan, read_record

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def report(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("studied")
    folder = make(out, environments=("hopper",))
    add_studies(folder, out)
    build(folder, out)
    return folder


def test_sections_tables_and_figures_are_there(report: Path) -> None:
    html = (report / "index.html").read_text()
    for study in ("balance", "exploration", "decomposition"):
        assert html.count(f'id="study-{study}"') == 1
        assert html.count(f'href="#study-{study}"') == 1
    names = {path.stem for path in (report / "figures").glob("*.svg")}
    tasks = ("hopper-medium", "hopper-medium-replay")
    expected = {"balance-accuracy", "balance-distance", *(f"balance-states-{t}" for t in tasks)}
    expected |= {"exploration-bias", "exploration-order", "exploration-lift"}
    expected |= {f"{study}-values-{t}" for study in ("exploration", "decomposition") for t in tasks}
    expected |= {"decomposition-weights", "decomposition-fit", "decomposition-stages"}
    assert {name for name in names if name.split("-")[0] in html and "-" in name} >= expected
    for name in expected:
        ElementTree.parse(report / "figures" / f"{name}.svg")
        assert (report / "figures" / f"{name}.png").stat().st_size > 5000
    assert "Does not apply to bc on hopper-medium, bc on hopper-medium-replay: the agent" in html
    assert "hopper-medium-replay: nothing to balance in 6 of 6 runs" in html


def test_numbers_are_means_over_runs(report: Path) -> None:
    out = report.parent.parent
    results = collect(out, read_plan(report / "plan.json"))
    made = {section.study: section for section in sections(find(results.finished))}
    task, agent, runs, cells = made["balance"].rows[0]
    assert (task, agent, runs) == ("hopper-medium", "td3_bc", 3)
    values = [
        run.record.studies["balance"]["views"]["raw"]["accuracy"]["value"]
        for run in results.finished
        if (run.task, run.agent) == (task, agent)
    ]
    text, mean = cells[made["balance"].heads.index("accuracy, raw")]
    assert mean == pytest.approx(sum(values) / 3)
    assert text.startswith(f"{mean:.3f} ± 0.0")
    heads = made["exploration"].heads
    rows = {row[1]: row[3] for row in made["exploration"].rows if row[0] == task}
    assert rows["td3_bc"][heads.index("true lift, counterfactual")][0] == ""
    assert rows["iql"][heads.index("true lift, counterfactual")][0] != ""


def test_error_is_relative_to_the_size_of_the_part() -> None:
    fit = {"rmse": 1.0, "target": 3.0, "target_std": 4.0}
    assert relative_error({"fit": {"forward": fit}}, "forward") == 0.2
    constant_zero = {"rmse": 1.0, "target": 0.0, "target_std": 0.0}
    assert relative_error({"fit": {"x": constant_zero}}, "x") != relative_error({}, "x")  # NaN


def test_every_number_is_in_the_csv(report: Path) -> None:
    with (report / "studies.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    place = next(
        cell["path"]
        for cell in read_plan(report / "plan.json").cells
        if (cell["agent"], cell["seed"], cell["task"]) == ("iql", 1, "hopper-medium")
    )
    record = read_record(report.parent.parent / place)
    (found,) = [
        row["value"]
        for row in rows
        if (row["agent"], row["seed"], row["task"]) == ("iql", "1", "hopper-medium")
        and (row["study"], row["quantity"]) == ("exploration", "lift.chosen.true.mean")
    ]
    expected = record.studies["exploration"]["lift"]["chosen"]["true"]["mean"]
    assert float(found) == pytest.approx(expected, rel=1e-5)
    applies = [row["value"] for row in rows if row["quantity"] == "applies"]
    assert sorted(set(applies)) == ["0", "1"]


def test_failure_signatures_are_counted_and_escaped(report: Path) -> None:
    results = collect(report.parent.parent, read_plan(report / "plan.json"))
    sentence = (
        "iql: gamma stalled in 1 of 3 runs on hopper-medium, in 1 of 3 runs on "
        "hopper-medium-replay."
    )
    assert warning_notes(results.finished) == [sentence]
    html = (report / "index.html").read_text()
    assert sentence in html
    assert sentence in (report / "table.md").read_text()
    assert "stage 2 \\u003cb\\u003eof 5" in html  # in the data of the run's details
    assert "stage 2 <b>" not in html


def test_a_report_without_studies_says_nothing_of_them(make: Make, tmp_path: Path) -> None:
    folder = make(tmp_path, environments=("hopper",))
    (folder / "studies.csv").write_text("of an earlier build")
    page = build(folder, tmp_path)
    assert "study-" not in page.read_text()
    assert not (folder / "studies.csv").exists()


def test_missing_arrays_cost_their_figure_only(make: Make, tmp_path: Path) -> None:
    folder = make(tmp_path, environments=("hopper",), qualities=("medium",), seeds=1)
    add_studies(folder, tmp_path)
    for path in (tmp_path / "cells").rglob("study-balance.npz"):
        path.unlink()
    for path in (tmp_path / "cells").rglob("study-exploration.npz"):
        path.write_bytes(b"damaged")
    build(folder, tmp_path)
    names = {path.stem for path in (folder / "figures").glob("*.png")}
    assert {"balance-accuracy", "exploration-lift", "decomposition-values-hopper-medium"} <= names
    assert not {"balance-states-hopper-medium", "exploration-values-hopper-medium"} & names
