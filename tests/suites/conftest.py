"""A suite so small that its whole pipeline runs in seconds, on real simulators and real data."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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


@pytest.fixture(scope="session")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Starts ``python -m MODULE`` as a fork (``forks.py``) instead of a process with imports."""
    script, path = Path(__file__).with_name("forks.py"), tmp_path_factory.mktemp("forks") / "socket"
    server = subprocess.Popen(
        [sys.executable, str(script), "serve", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(script.parents[2]), "OMP_NUM_THREADS": "1"},
    )

    def start(command: list[str], **named: Any) -> Any:
        assert command[:2] == [sys.executable, "-m"]
        client = [sys.executable, "-I", "-S", str(script), str(path), *command[2:]]
        return subprocess.Popen(client, **named)

    assert server.stdout is not None and server.stdin is not None
    assert server.stdout.readline() == b"ready\n"
    yield start
    server.stdin.close()
    server.wait()
    server.stdout.close()


@pytest.fixture(scope="session")
def hasten(forked: Callable[..., Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """Makes a run start at once: its workers are forks, and nothing is measured for its estimate.

    The runs of ``finished`` and those in processes of their own go the whole way.
    """
    from suites.estimate import Estimate

    def patch_all(patch: pytest.MonkeyPatch) -> None:
        stand_in = SimpleNamespace(Popen=forked, PIPE=subprocess.PIPE)
        patch.setattr("suites.launch.subprocess", stand_in)
        patch.setattr("suites.cli.estimate", lambda jobs, source: [Estimate()] * len(jobs))
        patch.setattr("suites.cli.Refresher.refresh", lambda self: None)

    return patch_all


@pytest.fixture
def hastened(hasten: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs of one test start at once."""
    hasten(monkeypatch)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sends all tests of the finished suite to one worker, so that it runs once."""
    for item in items:
        if "finished" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("finished"))


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
