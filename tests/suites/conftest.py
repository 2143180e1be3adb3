"""A suite so small that its whole pipeline runs in seconds, on real simulators and real data."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # for what several tests share (``own_data.py``)

TINY = """
title: tiny
tasks: [hopper-random, walker2d-random]
agents: [bc, td3_bc, iql]
budget: tiny
budgets:
  tiny: {updates: 6, seeds: 2, evaluations: 2, evaluation_episodes: 2, final_episodes: 3,
         transitions: 1000}
"""


@pytest.fixture(scope="session")
def data_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, data_cache: Path) -> None:
    monkeypatch.setenv("FASTQ_BENCH_CACHE", str(data_cache))


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, data_cache: Path) -> Path:
    """A folder in which the tiny suite has run through the command line, once: its ``runs``."""
    from suites.cli import main

    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTQ_BENCH_CACHE", str(data_cache))
        assert main([str(folder / "tiny.yaml"), "--out", str(folder / "runs"), "--jobs", "2"]) == 0
    return folder
