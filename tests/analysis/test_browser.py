"""The pages in headless Chromium: they sort, filter, open runs, and the console stays silent."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.compare import main as compare
from analysis.report import build

Make = Callable[..., Path]
HOSTILE = "</script><script>alert(1)</script>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


def browse(page: Path, script: str, fragment: str = "") -> Any:
    """What a script that fills ``seen`` finds on a page; fails if the console says anything."""
    assert CHROMIUM is not None
    head, _, tail = page.read_text().rpartition("</body>")
    probe = f"<script>const seen = {{}};\n{script}\ndocument.title = JSON.stringify(seen);</script>"
    probed = page.with_name("probed.html")
    probed.write_text(f"{head}{probe}</body>{tail}")
    done = subprocess.run(
        [
            CHROMIUM,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--enable-logging=stderr", f"--user-data-dir={page.parent / 'browser'}"),
            *("--dump-dom", probed.as_uri() + fragment),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert re.findall(r".*CONSOLE.*", done.stderr) == []
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.S)
    assert title is not None
    return json.loads(title[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))


def test_tables_sort_filter_and_open(make: Make, tmp_path: Path) -> None:
    folder = make(tmp_path, absent=[("hopper-medium", "td3_bc", s) for s in range(3)], points=3)
    seen = browse(
        build(folder, tmp_path),
        """
        const table = document.querySelector("#tasks table");
        const heads = [...table.tHead.rows[0].cells];
        const column = heads.findIndex((head) => head.textContent.includes("td3_bc"));
        const visible = (within) =>
          [...document.querySelector(within).tBodies[0].rows].filter((row) => !row.hidden);
        const read = () => visible("#tasks table").map((row) => row.cells[column].dataset.value);
        for (const name of ["down", "up"]) {
          heads[column].querySelector("button").click();
          seen[name] = read();
          seen[name + "_label"] = heads[column].getAttribute("aria-sort");
        }
        const set = (control, value) => {
          control.value = value;
          control.dispatchEvent(new Event("input", { bubbles: true }));
        };
        const choose = (name, text) => {
          const control = document.querySelector(`#filters select[name=${name}]`);
          set(control, [...control.options].find((option) => option.text === text).value);
        };
        const rows = () => visible("#runs table").map((row) => row.textContent);
        const search = document.querySelector("#filters input");
        set(search, "Hopper REPLAY bc");
        seen.words = rows();
        seen.count = document.querySelector("output").textContent;
        set(search, "");
        choose("quality", "medium-replay");
        choose("agent", "iql");
        seen.chosen = rows();
        seen.heads = heads.filter((head) => !head.hidden).map((head) => head.textContent);
        choose("quality", "all");
        choose("agent", "all");
        choose("task", "hopper-medium");
        seen.tasks = read().length;
        seen.figures = [...document.querySelectorAll("#curves figure")].map((item) => item.hidden);
        choose("task", "all");

        const run = visible("#runs table").at(-1);
        const more = run.querySelector("button.more");
        more.focus();
        seen.focus = document.activeElement === more;
        more.click();
        const opened = run.nextElementSibling;
        seen.opened = more.getAttribute("aria-expanded");
        seen.text = opened.textContent;
        seen.episodes = [...opened.querySelectorAll(".numbers")].at(-1).tBodies[0].rows.length;
        seen.points = opened.querySelectorAll("circle").length;
        document.querySelector("#runs thead button").click();
        seen.follows = run.nextElementSibling === opened;
        set(search, "no such run");
        seen.together = opened.hidden;
        more.click();
        seen.closed = run.nextElementSibling !== opened;
        """,
    )
    down = [float(value) for value in seen["down"][:-1]]
    assert down == sorted(down, reverse=True)
    assert seen["up"] == [*seen["down"][-2::-1], ""]  # what has no number stays at the end
    assert (seen["down_label"], seen["up_label"]) == ("descending", "ascending")
    assert len(seen["words"]) == 6  # bc and td3_bc, three seeds each
    assert all("hopper-medium-replay" in text and "bc" in text for text in seen["words"])
    assert re.fullmatch(r"\d+ of \d+ rows", seen["count"])
    assert len(seen["chosen"]) == 6
    assert all("medium-replay" in text and "iql" in text for text in seen["chosen"])
    assert seen["heads"] == ["task", "iql"]
    assert seen["tasks"] == 1
    assert seen["figures"] == [False, True]  # hopper's stays, walker2d's goes
    assert (seen["opened"], seen["episodes"], seen["points"]) == ("true", 5, 3)
    for text in ("Finished after", "learning_rate", "20000004", "2.13.0"):
        assert text in seen["text"]
    assert seen["focus"] and seen["follows"] and seen["together"] and seen["closed"]


def test_a_link_opens_its_run_and_names_stay_text(make: Make, tmp_path: Path) -> None:
    folder = make(
        tmp_path,
        environments=("hopper",),
        qualities=("medium",),
        agents=("bc", HOSTILE),
        failed=[("hopper-medium", HOSTILE, 1)],
        changes={"versions": {"torch": HOSTILE}},
    )
    page = build(folder, tmp_path, allow_missing=True)
    failed = re.findall(r'<tr id="(run-\w+)"', page.read_text())[-2]
    seen = browse(
        page,
        """
        const [opened, ...others] = document.querySelectorAll("tr.opened");
        seen.text = opened.textContent;
        seen.others = others.length;
        seen.scripts = document.scripts.length;
        """,
        f"#{failed}",
    )
    assert "Failed after" in seen["text"]
    assert "the loss became NaN at update 1200" in seen["text"]
    assert HOSTILE in seen["text"]
    assert (seen["others"], seen["scripts"]) == (0, 3)  # data, code, and this probe


def test_the_comparison_page(make: Make, tmp_path: Path) -> None:
    for name, shift in (("a", 0.0), ("b", 20.0)):
        make(tmp_path / name, agents=("bc", "iql", HOSTILE), seeds=5, shift=shift)
    assert compare([str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    seen = browse(
        tmp_path / "b" / "comparisons" / "a" / "index.html",
        """
        const control = document.querySelector("select[name=agent]");
        control.value = "1";
        control.dispatchEvent(new Event("input", { bubbles: true }));
        seen.rows = [...document.querySelector("#differences table").tBodies[0].rows]
          .filter((row) => !row.hidden).map((row) => row.textContent);
        seen.scripts = document.scripts.length;
        """,
    )
    assert len(seen["rows"]) == 5  # pooled, and four tasks
    assert all("iql" in row and "higher in B" in row for row in seen["rows"])
    assert seen["scripts"] == 2
