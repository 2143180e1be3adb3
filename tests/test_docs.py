"""The documentation's code runs: the tutorial all through, the rest as far as it is cheap."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from glob import glob
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from suites.cli import main
from suites.commands import VERBS
from suites.estimate import Estimate
from suites.manifest import load_budgets, shipped

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
# Modules with arguments, and what has their ``main``.
PARSED = {
    "suites.run": "suites.cli",
    "suites.datasets": "suites.datasets.__main__",
    "suites.ope": "suites.ope.__main__",
    "baselines.check": "baselines.check",
    "analysis.report": "analysis.report",
}


class Block(NamedTuple):
    """A fenced block of a page; a first line such as ``# name.yaml`` names a file to save."""

    language: str
    text: str

    @property
    def file(self) -> str | None:
        found = re.match(r"# ([\w-]+\.\w+)\n", self.text)
        return found[1] if found else None


def blocks(page: Path) -> list[Block]:
    fences = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.M | re.S)
    return [Block(language, text) for language, text in fences]


def run_block(block: Block, names: dict[str, Any]) -> None:
    """Does what a reader of the page would do with a block, in the current folder."""
    if block.file is not None:
        Path(block.file).write_text(block.text)
    elif block.language == "python":
        exec(compile(block.text, "<docs>", "exec"), names)
    elif block.language == "bash":
        for line in block.text.splitlines():
            run_line(line)


def run_line(line: str) -> None:
    words = shlex.split(line, comments=True)
    words = [found for word in words for found in (sorted(glob(word)) or [word])]
    if words[:1] == ["python"] and words[1:3] != ["-m", "suites.run"]:
        subprocess.run([sys.executable, *words[1:]], check=True)
    elif words[:3] == ["python", "-m", "suites.run"]:
        assert main(words[3:]) == 0, line  # here and now spares importing everything anew
    else:
        subprocess.run(words, check=True)


def test_the_tutorial_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTQ_BENCH_CACHE", str(tmp_path / "cache"))
    # The report is also written at the end of each run; in between it would only take time, and so
    # would measuring how long the runs will take.
    monkeypatch.setattr("suites.cli.Refresher.refresh", lambda _: None)
    monkeypatch.setattr("suites.cli.estimate", lambda jobs, _: [Estimate()] * len(jobs))
    names: dict[str, Any] = {}
    for block in blocks(DOCS / "tutorial.md"):
        run_block(block, names)
    shown = capfd.readouterr().out
    assert "equal to the record's final episodes, to the last bit" in shown
    assert set(names["runs"]["agent"]) == {"random", "behaviour", "bc", "td3_bc", "median_bc"}
    assert {"tour.yaml", "median_bc.py", "policy.pt2", "runs.csv", "results"} <= {
        path.name for path in tmp_path.iterdir()
    }
    assert names["actions"].shape == (1, 3)
    assert np.isfinite(names["table"][["bc", "median_bc"]].to_numpy()).all()


def test_the_worked_example_of_own_logs_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTQ_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("suites.cli.estimate", lambda jobs, _: [Estimate()] * len(jobs))
    names: dict[str, Any] = {}
    for block in blocks(DOCS / "own-histories.md"):
        run_block(block, names)
    assert set(names["runs"]["agent"]) >= {"bc", "fastq"}
    assert names["offer"].shape == (1, 1) and abs(names["offer"]).max() <= 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_on_every_page_is_python(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            ast.parse(block.text)


class UnderstoodError(Exception):
    """A command's arguments were taken; what it does with them is left out here."""


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every command on a page, a program each."""
    for block in blocks(page):
        for line in block.text.splitlines() if block.language == "bash" else ():
            for command in line.split("&&"):
                if words := shlex.split(command, comments=True):
                    yield [words[0].removeprefix(".venv/bin/"), *words[1:]]


def is_plannable(arguments: list[str]) -> bool:
    """Whether a command of suites begins a run, and one that needs no file of the reader's."""
    files = any(Path(word).suffix in (".npz", ".yaml") for word in arguments)
    looks = {"--status", "--report", "--list", "--retry"} & set(arguments)
    return arguments[0] not in VERBS and not files and not looks


def follow(words: list[str]) -> None:
    """Goes along with a command up to its arguments; a suite's up to its plan and estimate."""
    program, *arguments = words
    assert program in ("python", "python3", "pip", "tox", "pre-commit", "cat"), program
    if program not in ("python", "python3"):
        return
    if arguments[0] != "-m":
        assert (ROOT / arguments[0]).exists() or arguments[0].startswith("make_"), arguments
        return
    module, *arguments = arguments[1:]
    if module == "suites.run" and is_plannable(arguments):
        assert main([*arguments, "--dry-run"]) == 0, words
    elif module in PARSED:
        parse = ArgumentParser.parse_args

        def understand(self: ArgumentParser, *given: Any, **named: Any) -> Any:
            parse(self, *given, **named)
            raise UnderstoodError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ArgumentParser, "parse_args", understand)
            with pytest.raises(UnderstoodError):
                import_module(PARSED[module]).main(arguments)
    else:
        assert find_spec(module) is not None, module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_every_page_are_understood(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tutorial's run, above; of the others, which would take long, the arguments are taken."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("suites.cli.estimate", lambda jobs, _: [Estimate()] * len(jobs))
    for words in commands(page):
        follow(words)


def test_every_column_of_the_tables_is_explained() -> None:
    from analysis.frame import EPISODE_COLUMNS, RUN_COLUMNS

    explained = set(re.findall(r"`(\w+)`", (DOCS / "using-results.md").read_text()))
    assert {*RUN_COLUMNS, *EPISODE_COLUMNS} <= explained


def test_agents_that_a_budget_cuts_are_listed() -> None:
    page = (DOCS / "suites.md").read_text()
    (table,) = re.findall(r"^\| cut in .*?(?=\n\n)", page, re.M | re.S)
    listed: dict[str, set[str]] = {"quick": set(), "standard": set(), "full": set()}
    for line in table.splitlines()[2:]:
        names, *cells = line.strip("|").split("|")
        for budget, cell in zip(("quick", "standard"), cells, strict=True):
            listed[budget] |= set(re.findall(r"`(\w+)`", names)) if cell.strip() else set()
    for name, budget in load_budgets().items():
        if name != "smoke":
            cut = {agent for agent in budget.agents if budget.adjustment(agent).shrunk}
            assert listed[name] == cut


def test_every_shipped_suite_is_listed() -> None:
    page = (DOCS / "suites.md").read_text()
    (table,) = re.findall(r"^## Suites that come.*?(?=^## )", page, re.M | re.S)
    first_cells = "".join(line.split("|")[1] for line in table.splitlines() if line[:1] == "|")
    assert set(re.findall(r"`(\w+)`", first_cells)) == set(shipped())
