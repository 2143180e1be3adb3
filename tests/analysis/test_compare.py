"""Two output folders side by side: matching, differences, identity, and the command line."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measured import write_measured

from analysis.compare import main
from analysis.comparison import ALL_TASKS
from analysis.pairing import CompareError, FolderComparison, compare_folders
from results.record import RecordError

Make = Callable[..., Path]
SMALL: dict[str, Any] = {
    "environments": ("hopper",),
    "agents": ("random", "bc", "iql"),
    "seeds": 5,
    "points": 2,
}


def both(make: Make, folder: Path, **of_b: Any) -> FolderComparison:
    make(folder / "a", **SMALL)
    make(folder / "b", **(SMALL | of_b))
    return compare_folders(folder / "a", folder / "b")


def verdicts(found: FolderComparison) -> dict[tuple[str, str], str]:
    return {(row.agent, row.task): row.verdict for row in found.rows}


def test_the_same_runs_are_identical(make: Make, tmp_path: Path) -> None:
    found = both(make, tmp_path)
    assert found.identical == len(found.pairs) == 22  # random once, two agents five times, twice
    assert set(verdicts(found).values()) == {"identical"}
    assert not found.changes and not found.unmatched
    assert all(row.estimate.value == 0 for row in found.rows)


@pytest.mark.parametrize("array", ["returns", "lengths", "reset_seeds", "curve_returns"])
def test_one_bit_of_one_episode_is_seen(make: Make, tmp_path: Path, array: str) -> None:
    make(tmp_path / "a", **SMALL)
    make(tmp_path / "b", **SMALL)
    file = next((tmp_path / "b").glob("cells/*/hopper-medium/iql/*-seed3/episodes.npz"))
    with np.load(file) as kept:
        arrays = dict(kept)
    flat = arrays[array].reshape(-1)
    flat[0] = np.nextafter(flat[0], np.inf) if flat.dtype.kind == "f" else flat[0] + 1
    np.savez(file, **arrays)
    found = compare_folders(tmp_path / "a", tmp_path / "b")
    moved = [pair.key for pair in found.pairs if not pair.identical]
    assert [(key.task, key.agent, key.seed) for key in moved] == [("hopper-medium", "iql", 3)]
    assert verdicts(found)["iql", "hopper-medium"] == "not separated"
    assert verdicts(found)["bc", ALL_TASKS] == "identical"
    what = [change.what for change in found.changes]
    starts = ["start states of the final evaluation"]
    assert what == (starts if array == "reset_seeds" else [])


def test_one_bit_of_one_measure_is_seen(tmp_path: Path) -> None:
    for name in "ab":
        write_measured(tmp_path / name, agents=("random", "bc"), seeds=2)
    assert compare_folders(tmp_path / "a", tmp_path / "b").identical == 3
    file = next((tmp_path / "b").glob("cells/*/*/bc/*-seed1/episodes.npz"))
    with np.load(file) as kept:
        arrays = dict(kept)
    measure = next(name for name in arrays if name.startswith("measure_"))
    arrays[measure][0] = np.nextafter(arrays[measure][0], np.inf)
    np.savez(file, **arrays)
    found = compare_folders(tmp_path / "a", tmp_path / "b")
    assert [pair.key.seed for pair in found.pairs if not pair.identical] == [1]
    del arrays[measure]
    np.savez(file, **arrays)
    assert compare_folders(tmp_path / "a", tmp_path / "b").identical == 2


def test_without_episodes_scores_and_curves_must_agree(make: Make, tmp_path: Path) -> None:
    found = both(make, tmp_path, episodes=0)
    assert found.identical == len(found.pairs)


@pytest.mark.parametrize(("shift", "verdict"), [(20.0, "higher in B"), (-20.0, "lower in B")])
def test_a_shift_is_found(make: Make, tmp_path: Path, shift: float, verdict: str) -> None:
    found = both(make, tmp_path, shift=shift)
    assert verdicts(found)["iql", ALL_TASKS] == verdict
    assert verdicts(found)["random", ALL_TASKS] == "identical"
    row = next(row for row in found.pooled if row.agent == "bc")
    assert (row.tasks, row.pairs, row.identical) == (2, 10, 0)
    assert float(row.estimate.value) == pytest.approx(shift)
    assert row.mean_b - row.mean_a == pytest.approx(shift)
    assert row.time_ratio == pytest.approx(1.0)


def test_few_pairs_get_no_verdict(make: Make, tmp_path: Path) -> None:
    make(tmp_path / "a", **(SMALL | {"seeds": 2}))
    make(tmp_path / "b", **SMALL, shift=20.0)
    found = compare_folders(tmp_path / "a", tmp_path / "b")
    assert verdicts(found)["iql", ALL_TASKS] == "no verdict under 5 pairs per task"
    assert all(math.isnan(row.estimate.low) for row in found.pooled)
    assert sum("missing in A, finished in B" in line for line in found.unmatched) == 12


def test_what_differs_is_named(make: Make, tmp_path: Path) -> None:
    changes = {
        "versions": {"torch": "2.14.0"},
        "dataset": {"sha256": "cd" * 32},
        "agent": {"config": {"learning_rate": 1e-3, "hidden": [256, 256]}},
    }
    found = both(make, tmp_path, changes=changes)
    seen = {(change.what, change.a, change.b): change for change in found.changes}
    assert seen["versions torch", "2.13.0", "2.14.0"].pairs == 22
    assert seen["data sha256", "abababababab", "cdcdcdcdcdcd"].pairs == 22
    learning_rate = seen["config learning_rate", "0.0003", "0.001"]
    assert (learning_rate.pairs, learning_rate.agents) == (20, ["bc", "iql"])
    assert found.identical == len(found.pairs)  # and yet no episode moved


def test_failed_and_missing_runs_are_listed(make: Make, tmp_path: Path) -> None:
    found = both(
        make,
        tmp_path,
        failed=[("hopper-medium", "bc", 1)],
        absent=[("hopper-medium", "iql", 2)],
    )
    assert found.unmatched == [
        "bc on hopper-medium, seed 1 (quick, local): finished in A, failed with "
        "FloatingPointError in B",
        "iql on hopper-medium, seed 2 (quick, local): finished in A, missing in B",
    ]
    row = next(row for row in found.pooled if row.agent == "bc")
    assert (row.pairs, row.estimate.runs) == (9, 4)


def test_draws_of_the_data_are_the_unit(make: Make, tmp_path: Path) -> None:
    for side, shift in (("a", 0.0), ("b", 2.0)):
        folder = make(tmp_path / side, **SMALL, shift=shift)
        for cell in json.loads((folder / "plan.json").read_text())["cells"]:
            file = tmp_path / side / cell["path"] / "record.json"
            record = json.loads(file.read_text())
            record["dataset"]["seed"] = cell["seed"] % 3
            file.write_text(json.dumps(record))
    found = compare_folders(tmp_path / "a", tmp_path / "b")
    row = next(row for row in found.pooled if row.agent == "bc")
    assert (row.pairs, row.estimate.runs) == (10, 3)
    assert {pair.key.draw for pair in found.pairs} == {0, 1, 2}


def test_stale_records_are_left_aside(make: Make, tmp_path: Path) -> None:
    make(tmp_path / "a", **SMALL)
    make(tmp_path / "b", **SMALL)
    current = next((tmp_path / "b").glob("cells/*/hopper-medium/iql/*-seed0"))
    stale = current.with_name("0000-seed0")
    stale.mkdir()
    record = json.loads((current / "record.json").read_text())
    record["final"]["score"] = -1.0
    (stale / "record.json").write_text(json.dumps(record))
    found = compare_folders(tmp_path / "a", tmp_path / "b")
    assert found.identical == len(found.pairs)
    (tmp_path / "b" / "reports" / "gym-quick-local" / "plan.json").unlink()
    found = compare_folders(tmp_path / "a", tmp_path / "b")  # without a plan both are candidates
    assert any("several runs of iql on hopper-medium, seed 0" in note for note in found.b.notes)


def test_folders_that_cannot_be_compared(make: Make, tmp_path: Path) -> None:
    make(tmp_path / "a", **SMALL)
    make(tmp_path / "smoke", **SMALL, budget="smoke")
    with pytest.raises(CompareError, match="nowhere: no such folder"):
        compare_folders(tmp_path / "a", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CompareError, match="empty: no finished or failed runs"):
        compare_folders(tmp_path / "a", tmp_path / "empty")
    with pytest.raises(CompareError, match="22 runs of smoke on local data"):
        compare_folders(tmp_path / "a", tmp_path / "smoke")
    (tmp_path / "empty" / "plan.json").write_text("{")
    with pytest.raises(RecordError, match="not a readable plan"):
        compare_folders(tmp_path / "a", tmp_path / "empty")


def test_command_line(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "<i>|agent</i>"
    small = SMALL | {"agents": ("bc", hostile)}
    report = make(tmp_path / "a", **small)
    make(tmp_path / "b", **small, shift=30.0)
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert main([a, b]) == 0
    text = capsys.readouterr().out
    assert "0 of 20 pairs of runs are identical" in text
    assert f"{hostile} is higher in B: +30.0 [30.0, 30.0] over 2 tasks." in text
    page = tmp_path / "b" / "comparisons" / "a" / "index.html"
    assert f"page: {page}" in text
    html = page.read_text()
    assert hostile not in html
    assert "&lt;i&gt;|agent&lt;/i&gt;" in html
    assert "http" not in html
    with (page.parent / "pairs.csv").open() as stream:
        pairs = list(csv.DictReader(stream))
    assert len(pairs) == 20
    assert {pair["difference"] for pair in pairs} == {"30"}
    with (page.parent / "differences.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["verdict"] for row in rows] == ["higher in B"] * 6

    assert main([a, b, "--exit-code", "--to", str(tmp_path / "to")]) == 1
    assert main([str(report), a, "--exit-code", "--to", str(tmp_path / "to")]) == 0
    assert "All 20 pairs of runs are identical" in (tmp_path / "to" / "index.html").read_text()
    capsys.readouterr()
    assert main([a, str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'nowhere'}: no such folder")
    (tmp_path / "file").write_text("")
    assert main([a, b, "--to", str(tmp_path / "file")]) == 2
    assert "name another folder with --to" in capsys.readouterr().err
