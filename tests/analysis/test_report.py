"""The page, its figures and its command line."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from analysis.frame import EPISODE_COLUMNS
from analysis.report import build, main
from analysis.stats import coverage

Make = Callable[..., Path]
HOSTILE = "<script>alert(1)</script>"
VOID = {"meta", "link", "input", "br"}


class Page(HTMLParser):
    """Collects what a test asks of a page, and checks that its elements nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts = 0
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.scripts += tag == "script"
        self.ids += [found["id"] or ""] if "id" in found else []
        self.addresses += [found[a] or "" for a in ("src", "href", "xlink:href") if a in found]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def text_of(page: Path) -> str:
    text = page.read_text()
    text = re.sub(r"<(script|style|svg).*?</\1>", "", text, flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


def test_a_full_report(make: Make, tmp_path: Path) -> None:
    folder = make(tmp_path, seeds=5, caveats=["Read with care."], tuned=("iql",))
    page = build(folder, tmp_path)
    names = {path.name for path in folder.iterdir()}
    assert names >= {"index.html", "table.md", "table.csv", "aggregates.md", "runs.csv"}
    assert names >= {"aggregates.csv", "improvement.csv", "episodes.csv"}
    assert "published.csv" not in names
    figures = {path.name for path in (folder / "figures").iterdir()}
    stems = ("aggregates", "profiles", "improvement", "curves-hopper", "curves-walker2d", "cost")
    assert figures == {stem + suffix for stem in stems for suffix in (".png", ".svg")}
    for path in (folder / "figures").glob("*.svg"):
        ElementTree.parse(path)
    text = text_of(page)
    assert re.findall(r"<h2>(.*?)</h2>", page.read_text()) == [
        "Scores by task",
        "Aggregates",
        "Performance profiles",
        "Probability of improvement",
        "Learning curves",
        "Score against training time",
        "Open ends",
        "Provenance",
        "All runs",
    ]
    assert "68 of 68 runs finished" in text
    assert text.count("Read with care.") == 4  # at the top and under every table of scores
    assert "every planned run has finished" in text
    assert text.count(coverage(5, 4)) >= 3  # coverage beside every aggregate, over all tasks
    assert text.count(coverage(5, 2)) >= 6  # and over those of each quality
    assert "The highest interquartile mean is that of td3_bc" in text
    assert "learning_rate" in text
    assert "c0ffee0" in text


def test_the_page_stands_alone(make: Make, tmp_path: Path) -> None:
    html = build(make(tmp_path), tmp_path).read_text()
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert {address[1:] for address in page.addresses if address[0] == "#"} <= set(page.ids)
    assert "http" not in html.replace("http://www.w3.org", "")
    assert "url(http" not in html


def test_names_are_text_and_nothing_else(make: Make, tmp_path: Path) -> None:
    folder = make(
        tmp_path,
        environments=("hopper",),
        agents=("random", "bc", HOSTILE, "_under", "$x$", "a&b"),
        failed=[("hopper-medium", HOSTILE, 0)],
        title=HOSTILE,
        caveats=[HOSTILE],
        command=HOSTILE,
        watermark=HOSTILE,
        stale=[{"path": HOSTILE, "why": HOSTILE}],
    )
    html = build(folder, tmp_path, allow_missing=True).read_text()
    assert Page(html).scripts == 2  # the data of the runs, and the code
    assert HOSTILE not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    for svg in (folder / "figures").glob("*.svg"):
        assert HOSTILE not in svg.read_text()
    assert "_under" in (folder / "figures" / "curves-hopper.svg").read_text()
    assert "$x$" in (folder / "figures" / "curves-hopper.svg").read_text()


def run_data(page: Path) -> dict[str, Any]:
    found = re.search(r'id="run-data">(.*?)</script>', page.read_text(), re.S)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_every_run_is_there_in_full(make: Make, tmp_path: Path) -> None:
    failed = [("hopper-medium", "iql", 1)]
    folder = make(tmp_path, environments=("hopper",), failed=failed, episodes=7, points=4)
    page = build(folder, tmp_path, allow_missing=True)
    data = run_data(page)
    plan = json.loads((folder / "plan.json").read_text())
    assert len(data["runs"]) == len(plan["cells"])
    assert set(data["runs"]) == set(re.findall(r'<tr id="(run-\w+)"', page.read_text()))
    by_path = {run["path"]: run for run in data["runs"].values()}
    for cell in plan["cells"]:
        run = by_path[cell["path"]]
        record = json.loads((tmp_path / cell["path"] / "record.json").read_text())
        assert data["shared"][run["settings"]]["config"] == record["agent"]["config"]
        assert data["shared"][run["versions"]] == record["versions"]
        if record["status"] == "failed":
            assert run["error"] == record["error"]
            assert "returns" not in run
            continue
        with np.load(tmp_path / cell["path"] / "episodes.npz") as kept:
            np.testing.assert_allclose(run["returns"], kept["returns"], rtol=1e-5)
            np.testing.assert_array_equal(run["lengths"], kept["lengths"])
            seeds = data["shared"][run["reset_seeds"]]
            np.testing.assert_array_equal(seeds, kept["reset_seeds"])
        assert run["curve"].get("update", []) == [point["update"] for point in record["curve"]]
    with (folder / "episodes.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == EPISODE_COLUMNS
    assert len(rows) == 7 * (len(plan["cells"]) - 1)


def test_a_run_without_its_episodes_is_still_listed(make: Make, tmp_path: Path) -> None:
    folder = make(tmp_path, environments=("hopper",), qualities=("medium",), episodes=0)
    page = build(folder, tmp_path)
    runs = run_data(page)["runs"].values()
    assert all("returns" not in run and run["final"] for run in runs)
    assert (folder / "episodes.csv").read_text().count("\n") == 1


def test_interruptions_are_told(make: Make, tmp_path: Path) -> None:
    folder = make(tmp_path, environments=("hopper",), qualities=("medium",), agents=("bc",))
    cells = json.loads((folder / "plan.json").read_text())["cells"]
    for cell, exact in zip(cells, (True, False), strict=False):
        file = tmp_path / cell["path"] / "record.json"
        record = json.loads(file.read_text())
        record["resumes"] = [{"update": 700, "exact": exact, "notes": ["another torch"]}]
        file.write_text(json.dumps(record))
    page = build(folder, tmp_path)
    text = text_of(page)
    assert text.count("finished, resumed") == 1
    assert text.count("finished, inexactly resumed") == 1
    assert "not quite what their seeds give: bc on hopper-medium, seed 1." in text
    assert [run["resumes"] for run in run_data(page)["runs"].values()][2] == []


def test_draws_of_the_data_are_told_apart(make: Make, tmp_path: Path) -> None:
    narrow = {"environments": ("hopper",), "qualities": ("medium",), "agents": ("bc",)}
    folder = make(tmp_path, **narrow, changes={"dataset": {"seed": 4}})
    assert "data draw" not in text_of(build(folder, tmp_path))  # one draw needs no column
    first = tmp_path / json.loads((folder / "plan.json").read_text())["cells"][0]["path"]
    record = json.loads((first / "record.json").read_text())
    record["dataset"]["seed"] = 5
    (first / "record.json").write_text(json.dumps(record))
    text = text_of(build(folder, tmp_path, allow_missing=True))
    assert "data draw" in text
    assert "hopper-medium, draw 5" in text


def test_an_incomplete_report_says_what_is_missing(make: Make, tmp_path: Path) -> None:
    folder = make(
        tmp_path,
        absent=[("walker2d-medium", "td3_bc", 2)],
        failed=[("hopper-medium", "iql", 1)],
        missing=("hopper-medium-replay",),
        stale=[{"path": "cells/x", "why": "made by version 1"}],
    )
    text = text_of(build(folder, tmp_path))
    assert "31 of 33 runs finished" in text
    assert "1 failed" in text
    assert "No aggregates over an incomplete matrix" in text
    assert "iql has 2/3 seeds on hopper-medium" in text
    assert "the loss became NaN at update 1200" in text
    assert "no data for hopper-medium-replay; run with --source local" in text
    assert "td3_bc on walker2d-medium: 2/3 seeds" in text
    assert "made by version 1" in text
    figures = {path.stem for path in (folder / "figures").glob("*.svg")}
    assert not figures & {"aggregates", "profiles", "improvement"}
    assert "No aggregates" in (folder / "aggregates.md").read_text()
    text = text_of(build(folder, tmp_path, allow_missing=True))
    assert "The matrix is incomplete" in text
    assert (folder / "figures" / "aggregates.svg").exists()
    build(folder, tmp_path)
    assert not (folder / "figures" / "aggregates.svg").exists()


def test_nothing_has_finished_yet(make: Make, tmp_path: Path) -> None:
    folder = make(tmp_path)
    shutil.rmtree(tmp_path / "cells")
    page = build(folder, tmp_path)
    Page(page.read_text())
    text = text_of(page)
    assert "0 of 44 runs finished" in text
    assert "0/3 seeds" in text
    assert "No run has finished yet" in text


def test_a_plan_without_cells_makes_a_page(make: Make, tmp_path: Path) -> None:
    folder = make(tmp_path, environments=())
    assert "0 of 0 runs finished" in text_of(build(folder, tmp_path))


def test_smoke_numbers_are_called_meaningless(make: Make, tmp_path: Path) -> None:
    folder = make(
        tmp_path,
        environments=("hopper",),
        budget="smoke",
        seeds=1,
        watermark="meaningless numbers",
        meaningless=True,
    )
    assert "The numbers are meaningless" in text_of(build(folder, tmp_path))
    for svg in (folder / "figures").glob("*.svg"):
        assert "meaningless numbers" in svg.read_text()


def test_shrunk_agents_appear_against_cost_only(make: Make, tmp_path: Path) -> None:
    folder = make(tmp_path, environments=("hopper",), shrunk=("iql",))
    text = text_of(build(folder, tmp_path))
    assert "iql*" in text
    assert "Shrunk by the budget and left out: iql." in text
    assert "iql (shrunk)" in (folder / "figures" / "cost.svg").read_text()
    assert "iql" not in (folder / "figures" / "aggregates.svg").read_text()


def test_one_agent_on_one_task(make: Make, tmp_path: Path) -> None:
    folder = make(tmp_path, environments=("hopper",), qualities=("medium",), agents=("bc",))
    assert "It takes two agents of one class." in text_of(build(folder, tmp_path))


def test_the_same_records_give_the_same_bytes(make: Make, tmp_path: Path) -> None:
    def content(out: Path) -> dict[str, bytes]:
        folder = make(out, environments=("hopper",))
        build(folder, out)
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.*")}

    first, second = content(tmp_path / "a"), content(tmp_path / "b")
    assert [name for name in first if first[name] != second[name]] == []


def test_command_line(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path, environments=("hopper",))
    scores = tmp_path / "other.csv"
    scores.write_text("task,agent,seed,score\nhopper-medium,theirs,0,50\n")
    monkeypatch.chdir(folder)
    assert main([".", "--scores", str(scores)]) == 0
    assert capsys.readouterr().out.strip() == "index.html"
    assert "theirs†" in (folder / "table.md").read_text()
    assert main([str(tmp_path)]) == 2
    assert "plan.json: no such plan; name a folder below reports/" in capsys.readouterr().err
    assert main([str(folder), "--out", str(tmp_path), "--scores", "absent.csv"]) == 2
    assert "no such file" in capsys.readouterr().err


def test_module_runs_from_the_command_line(make: Make, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "analysis.report",
        str(make(tmp_path, qualities=())),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("index.html")
    assert done.stderr == ""
