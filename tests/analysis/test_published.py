"""Published scores: the shipped file, and where they may stand."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.published import _rows, published
from analysis.report import build
from results.record import PLAN_FILE, read_plan

Make = Callable[..., Path]
DATA = dict.fromkeys(("maze2d", "pen", "hammer", "door", "relocate"), "v1")  # others: v2


def test_every_shipped_score_has_a_source() -> None:
    rows = _rows()
    assert len(rows) > 200
    for row in rows:
        assert all(row[key] for key in ("task", "agent", "protocol", "source", "read_from"))
        assert row["dataset_version"] == DATA.get(row["task"].partition("-")[0], "v2")
        assert row["url"].startswith("https://")
        assert -10 < float(row["score"]) < 230
        assert not row["std"] or (float(row["std"]) >= 0 and row["spread"])
    keys = [(row["task"], row["agent"], row["source"]) for row in rows]
    assert len(set(keys)) == len(keys)
    one = next(row for row in rows if row["task"] == "hopper-medium" and row["agent"] == "iql")
    assert one["source"] == "Kostrikov et al. 2021 (arXiv 2110.06169), Table 1"
    assert float(one["score"]) == 66.3


def test_they_stand_beside_d4rl_data(make: Make, tmp_path: Path) -> None:
    folder = make(tmp_path, environments=("hopper",), source="d4rl", seeds=1, points=2)
    html = build(folder, tmp_path).read_text()
    assert "Published scores of other agents" in html
    assert "http" not in html.replace("http://www.w3.org", "")
    markdown = (folder / "table.md").read_text()
    assert markdown.splitlines()[2].endswith(
        ", data d4rl, seeds 0; made by FAST-Q Bench, commit c0ffee0."
    )
    header = markdown.splitlines()[4]
    assert [cell.strip() for cell in header.split("|")[2:8]] == [
        *("random", "behaviour", "bc", "td3_bc", "iql", "bc ‡1")
    ]
    assert "iql ‡6: Kostrikov et al. 2021 (arXiv 2110.06169), Table 1; v2 data" in markdown
    assert "| 66.3 |" in markdown
    with (folder / "published.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["task"] for row in rows} == {"hopper-medium", "hopper-medium-replay"}
    assert {"iql", "rebrac", "qt"} <= {row["agent"] for row in rows}
    aggregates = (folder / "aggregates.md").read_text()
    assert "‡" not in aggregates


@pytest.mark.parametrize("source", ["local", "minari", "file"])
def test_never_beside_other_data(make: Make, tmp_path: Path, source: str) -> None:
    plan = read_plan(make(tmp_path, source="d4rl") / PLAN_FILE)
    assert published(plan, {})[0]
    assert published(replace(plan, source=source), {}) == ([], [])


def test_a_report_on_local_data_has_none(make: Make, tmp_path: Path) -> None:
    folder = make(tmp_path, environments=("hopper",), qualities=("medium",), agents=("bc", "iql"))
    (folder / "published.csv").write_text("left by an earlier build")
    assert "‡" not in build(folder, tmp_path).read_text()
    assert "‡" not in (folder / "table.md").read_text()
    assert not (folder / "published.csv").exists()


def test_another_version_of_the_data_gets_none(make: Make, tmp_path: Path) -> None:
    folder = make(
        tmp_path,
        environments=("hopper",),
        qualities=("medium",),
        agents=("bc",),
        source="d4rl",
        seeds=1,
        changes={"dataset": {"dataset_version": "v0"}},
    )
    html = build(folder, tmp_path).read_text()
    assert "No published scores on hopper-medium: they are on another version" in html
    assert "‡" not in html
