"""Records and plans come back as they were written, or say in one sentence why not."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from results.record import (
    EPISODES_FILE,
    PLAN_FILE,
    RECORD_FILE,
    Episodes,
    Plan,
    Record,
    RecordError,
    normalized_score,
    read_episodes,
    read_plan,
    read_record,
    scan,
    write_atomically,
    write_plan,
    write_record,
)

RECORD = Record(
    status="done",
    cell={"seed": 1},
    task={"id": "hopper-medium"},
    agent={"label": "bc"},
    seed=1,
    stack=[1],
    budget={"updates": 3},
    phases=[{"name": "offline"}],
    dataset={"id": "x"},
    versions={"torch": "2"},
    timing={"total_s": 1.5},
    final={"score": 3.0},
)
EPISODES = Episodes(
    returns=np.array([1.5, 2.5]),
    lengths=np.array([3, 4]),
    reset_seeds=np.array([7, 8]),
    curve_updates=np.array([10]),
    curve_returns=np.array([[0.5, 0.25]]),
    curve_lengths=np.array([[1, 2]]),
)
PLAN = Plan("s", "t", "quick", "local", [0], [], [], [])


def test_round_trip(tmp_path: Path) -> None:
    folder = tmp_path / "cells/local/hopper-medium/bc/x-seed1"
    write_record(folder, RECORD, EPISODES)
    assert read_record(folder) == RECORD
    back = read_episodes(folder)
    for name in vars(EPISODES):
        np.testing.assert_array_equal(getattr(back, name), getattr(EPISODES, name))
    assert list(scan(tmp_path)) == [(folder, RECORD)]
    write_plan(tmp_path, PLAN)
    assert read_plan(tmp_path / PLAN_FILE) == PLAN
    assert {path.name for path in folder.iterdir()} == {RECORD_FILE, EPISODES_FILE}


def test_measures_stand_beside_a_record(tmp_path: Path) -> None:
    """Where there are any: other files are what they were, and are read as before."""
    none = np.zeros(0, np.int64)
    plain = Episodes(np.ones(2), np.ones(2, np.int64), none)
    write_record(tmp_path / "plain", RECORD, plain)
    with np.load(tmp_path / "plain" / "episodes.npz") as arrays:
        assert not [name for name in arrays.files if name.startswith("measure_")]
    assert read_episodes(tmp_path / "plain").measures == {}
    values = np.array([3.0, 4.5])
    with_some = Episodes(np.ones(2), np.ones(2, np.int64), none, measures={"dwell_time": values})
    write_record(tmp_path / "more", RECORD, with_some)
    with np.load(tmp_path / "more" / "episodes.npz") as arrays:
        np.testing.assert_array_equal(arrays["measure_dwell_time"], values)
    back = read_episodes(tmp_path / "more").measures
    np.testing.assert_array_equal(back["dwell_time"], values)


@given(cut=st.integers(0, 400))
def test_a_truncated_record_is_named(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("cut")
    write_record(folder, RECORD)
    path = folder / RECORD_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[: min(cut, len(whole) - 1)])
    with pytest.raises(RecordError, match=r"record\.json: not a readable record; delete it"):
        read_record(folder)


@pytest.mark.parametrize("content", ["[]", "{}", '{"schema": 99}', "3", "null"])
def test_another_schema_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / RECORD_FILE).write_text(content)
    with pytest.raises(RecordError, match="schema"):
        read_record(tmp_path)


def test_missing_and_extra_keys_are_named(tmp_path: Path) -> None:
    write_record(tmp_path, RECORD)
    path = tmp_path / RECORD_FILE
    content = json.loads(path.read_text())
    del content["final"]
    content["finale"] = {}
    path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match="final, finale"):
        read_record(tmp_path)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no such record"):
        read_record(tmp_path)
    with pytest.raises(RecordError, match="no such file"):
        read_episodes(tmp_path)
    (tmp_path / EPISODES_FILE).write_bytes(b"PK no archive")
    with pytest.raises(RecordError, match="damaged"):
        read_episodes(tmp_path)
    assert list(scan(tmp_path)) == []


def test_numbers_that_json_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_record(tmp_path, replace(RECORD, final={"score": float("nan")}))
    assert not (tmp_path / RECORD_FILE).exists()


def test_a_failed_write_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_normalized_score() -> None:
    assert normalized_score(-20.272305, -20.272305, 3234.3) == 0
    assert normalized_score(3234.3, -20.272305, 3234.3) == 100
    np.testing.assert_allclose(normalized_score(np.array([1607.0138475]), -20.272305, 3234.3), [50])


def test_reading_needs_only_numpy() -> None:
    code = (
        "import results.record, sys\n"
        "heavy = {'torch', 'pandas', 'gymnasium', 'mujoco', 'matplotlib', 'scipy'}\n"
        "assert not heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
