"""``--scores`` of the suites' command line, and the section on tuned configs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.report import build
from suites.cli import main

Make = Callable[..., Path]
NARROW = {"environments": ("hopper",), "qualities": ("medium",), "points": 2}


def test_foreign_scores_reach_the_report_by_the_suites_name(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path / "out", **NARROW, agents=("bc",), seeds=1)
    folder = folder.rename(folder.with_name("core3-quick-local"))
    scores = tmp_path / "scores.csv"
    scores.write_text("task,agent,seed,score\nhopper-medium,theirs,0,50\n")
    command = ["core3", "--report", "--out", str(tmp_path / "out"), "--scores", str(scores)]
    assert main(command) == 0
    assert "theirs†" in capsys.readouterr().out
    assert "theirs†" in (folder / "table.md").read_text()
    scores.write_text("task,agent,seed,score\nhopper-medium,bc,0,50\n")
    assert main(command) == 2
    assert f"error: --scores {scores}: this report has agents of its own called bc;" in (
        capsys.readouterr().err
    )


def test_a_wrong_file_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["core3", "--out", str(out), "--scores", str(tmp_path / "absent.csv")]) == 2
    assert "absent.csv: no such file of scores" in capsys.readouterr().err
    assert not out.exists()


def test_tuned_configs_get_their_curve(make: Make, tmp_path: Path) -> None:
    labels = ("iql-a", "iql-b", "iql-c")
    folder = make(tmp_path, **NARROW, agents=labels, tuned=labels, seeds=3)
    text = build(folder, tmp_path).read_text()
    assert "Expected online performance</h2>" not in text  # three agents, no configs of one
    assert not (folder / "tuned.csv").exists()
    plan = json.loads((folder / "plan.json").read_text())
    for agent in plan["agents"]:
        agent["name"] = "iql"
    (folder / "plan.json").write_text(json.dumps(plan))
    text = build(folder, tmp_path).read_text()
    assert "Expected online performance</h2>" in text
    assert text.count('<tr><th scope="row">iql</th>') == 3
    assert (folder / "figures" / "tuned.svg").exists()
    lines = (folder / "tuned.csv").read_text().splitlines()
    assert [line.split(",")[:3] for line in lines[1:]] == [["iql", str(k), "3"] for k in (1, 2, 3)]
