"""Arms that differ in one setting: found by themselves, numbers, figure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import write_suite

from analysis import sweeps
from analysis.frame import collect
from analysis.report import build
from results.record import read_plan, read_record, write_record

ARMS: dict[str, dict[str, Any]] = {
    "qt": {"eta": 1.0, "n_step": 19, "targets": [1.0]},
    "qt_strong": {"eta": 5.0, "n_step": 19, "targets": [1.0]},
    "qt_weak": {"eta": 0.1, "n_step": 19, "targets": [1.0]},
    "qt_short": {"eta": 1.0, "n_step": 1, "targets": [1.0]},
    "qt_alone": {"eta": 0.0, "n_step": 1, "targets": [0.5]},  # differs in more than one
}


def write(out: Path, arms: dict[str, dict[str, Any]]) -> Path:
    """A suite of these arms of one agent, beside behaviour cloning."""
    folder = write_suite(out, qualities=["medium"], agents=["behaviour", "bc", *arms], seeds=5)
    for label, config in arms.items():
        for path in sorted((out / "cells").glob(f"*/*/{label}/*")):
            record = read_record(path)
            agent = record.agent | {"name": "qt", "config": config}
            write_record(path, replace(record, agent=agent), None)
    return folder


def find(out: Path, folder: Path) -> list[sweeps.Sweep]:
    results = collect(out, read_plan(folder / "plan.json"))
    return sweeps.find(results.finished, results.runs)


def test_arms_that_differ_in_one_setting_are_a_sweep(tmp_path: Path) -> None:
    (found,) = find(tmp_path, write(tmp_path, ARMS))
    assert (found.agent, found.setting, found.numeric) == ("qt", "eta", True)
    assert found.values == [0.1, 1.0, 5.0]
    assert found.labels == ["qt_weak", "qt", "qt_strong"]
    assert list(found.estimates) == ["hopper-medium", "walker2d-medium"]
    results = collect(tmp_path, read_plan(next(tmp_path.glob("reports/*")) / "plan.json"))
    frame = results.runs
    for label, estimate in zip(found.labels, found.estimates["hopper-medium"], strict=True):
        own = frame[(frame["agent"] == label) & (frame["task"] == "hopper-medium")]["score"]
        assert estimate is not None
        assert estimate.runs == 5
        assert float(estimate.value) == pytest.approx(float(np.mean(own)))
        assert estimate.low < estimate.value < estimate.high


def test_two_values_are_none_and_names_keep_their_order(tmp_path: Path) -> None:
    two = {label: ARMS[label] for label in ("qt", "qt_strong", "qt_short")}
    assert find(tmp_path / "two", write(tmp_path / "two", two)) == []
    kinds = {f"mix_{kind}": {"mixer": kind} for kind in ("relu", "average", "linear")}
    (found,) = find(tmp_path / "names", write(tmp_path / "names", kinds))
    assert found.values == ["relu", "average", "linear"]
    assert not found.numeric


def test_the_report_shows_them(tmp_path: Path) -> None:
    folder = write(tmp_path, ARMS)
    page = build(folder, tmp_path).read_text("utf-8")
    assert "One setting varied" in page
    assert "eta 0.1" in page
    assert (folder / "figures" / "sweeps.png").stat().st_size > 5000
    lines = (folder / "sweeps.csv").read_text("utf-8").splitlines()
    assert lines[0] == "task,agent,setting,value,label,runs,score,low,high"
    assert len(lines) == 1 + 2 * 3
