"""Finished runs leave for a file and arrive in another output folder as what they were."""

from __future__ import annotations

import dataclasses
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from results.record import RECORD_FILE, read_record, read_study, scan, write_record, write_study
from suites import load_episodes, load_results
from suites.cli import main


@pytest.fixture(scope="module")
def archive(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("archive") / "runs.zip"
    assert main(["export", str(finished / "runs"), str(file)]) == 0
    return file


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


def test_runs_taken_in_are_done_and_the_same(
    finished: Path, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "elsewhere"
    assert main(["import", str(archive), "--out", str(out)]) == 0
    count = len(load_results(finished / "runs"))
    shown = said(capsys)
    assert f"{count} runs" in shown
    assert "budget tiny, data local, seeds 0, 1: " in shown
    assert "td3_bc" in shown
    for load in (load_results, load_episodes):
        pd.testing.assert_frame_equal(load(out), load(finished / "runs"))
    assert not list(out.rglob("policy.pt"))

    # The suite that made them finds nothing to do, and reports on them.
    arguments = [str(finished / "tiny.yaml"), "--out", str(out)]
    assert main([*arguments, "--dry-run"]) == 0
    shown = said(capsys)
    assert "2/2" in shown
    assert "0/" not in shown
    assert "to run" not in shown
    assert main(arguments) == 0
    (report,) = (out / "reports").iterdir()
    (original,) = (finished / "runs" / "reports").iterdir()
    for name in ("table.md", "aggregates.csv", "runs.csv", "episodes.csv"):
        assert (report / name).read_bytes() == (original / name).read_bytes(), name


def test_what_is_there_stays(
    finished: Path, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also a record of the same run that says otherwise, and the policy beside it."""
    folder, record = next(scan(finished / "runs"))
    assert not isinstance(record, Exception)
    mine = tmp_path / folder.relative_to(finished / "runs")
    changed = dataclasses.replace(record, timing=record.timing | {"core_seconds": 12345.0})
    write_record(mine, changed)
    assert main(["import", str(archive), "--out", str(tmp_path)]) == 0
    assert "1 were there already" in said(capsys)
    assert read_record(mine) == changed
    assert main(["import", str(archive), "--out", str(tmp_path)]) == 0
    assert "taken into" in said(capsys)


def test_the_same_runs_make_the_same_file(finished: Path, archive: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished / "runs", tmp_path / "copy"))
    assert main(["export", str(copy), str(tmp_path / "again.zip")]) == 0
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()


def test_a_report_folder_and_a_cell(finished: Path, tmp_path: Path) -> None:
    """A report's runs are its plan's alone; a copied cell is taken in where it belongs."""
    runs = Path(shutil.copytree(finished / "runs", tmp_path / "runs"))
    (report,) = (runs / "reports").iterdir()
    folder, record = next(
        found
        for found in scan(runs)
        if found[1].agent["label"] == "bc"  # type: ignore[union-attr]
    )
    assert not isinstance(record, Exception)
    shutil.rmtree(folder)
    cell = tmp_path / "copied"
    write_record(cell, dataclasses.replace(record, studies={"balance": {"applies": True}}))
    write_study(cell, "balance", {"rows": np.arange(3)})

    assert main(["export", str(report), str(tmp_path / "report.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "report.zip") as packed:
        names = packed.namelist()
    assert sum(name.endswith(RECORD_FILE) for name in names) == len(load_results(report))

    assert main(["export", str(cell), str(tmp_path / "cell.zip")]) == 0
    assert main(["import", str(tmp_path / "cell.zip"), "--out", str(runs)]) == 0
    assert read_study(folder, "balance")["rows"].tolist() == [0, 1, 2]
    assert read_record(folder).studies == {"balance": {"applies": True}}


def rewritten(archive: Path, to: Path, change: Callable[[str, bytes], tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(to, "w") as new:
        for name in old.namelist():
            new.writestr(*change(name, old.read(name)))
    return to


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda name, content: ("../../" + name, content), "not the run its name says"),
        (lambda name, content: (name.replace("hopper", "walker"), content), "not the run its"),
        (lambda name, content: (name, content.replace(b'"lr": 0.0003', b'"lr": 0.3')), "not the"),
        (lambda name, content: (name, content[:-9]), "not a readable record"),
        (lambda name, content: (name, content.replace(b'"schema": 1', b'"schema": 9')), "schema 9"),
        (lambda name, content: (name, content.replace(b'"source"', b'"sauce"')), "which run it is"),
        (lambda name, content: (name.replace("record", "thing"), content), "no runs in it"),
    ],
)
def test_an_archive_that_was_changed_is_refused_whole(
    change: Callable[[str, bytes], tuple[str, bytes]],
    words: str,
    archive: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = rewritten(archive, tmp_path / "changed.zip", change)
    assert main(["import", str(file), "--out", str(tmp_path / "out")]) == 2
    assert words in said(capsys)
    assert not (tmp_path / "out").exists()


def test_what_is_no_archive_gets_a_sentence(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.zip").write_text("not a zip file")
    (tmp_path / "cut.zip").write_bytes(archive.read_bytes()[:2000])
    (tmp_path / "file").touch()
    for arguments, words in (
        (["gone.zip"], "no such file of runs"),
        ([str(tmp_path)], "no such file of runs"),
        ([str(tmp_path / "text.zip")], "not a readable zip file"),
        ([str(tmp_path / "cut.zip")], "not a readable zip file"),
        ([str(archive), "--out", str(tmp_path / "file")], "cannot be written"),
    ):
        assert main(["import", *arguments]) == 2
        assert words in said(capsys), words
