"""Measuring what agents take: one that hangs costs its own number and no other's."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass
from typing import Any

import pytest

from suites import measure as module
from suites.measure import Speed, measure


@dataclass
class Named:
    """What stands for a job where only its place in the list matters."""

    name: str


def test_an_agent_that_hangs_or_dies_costs_its_own_number_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two jobs fit into a process's time; "hangs" never ends, "dies" takes its process along."""
    speed = Speed(1.0, 2.0, 3.0)

    def run(*_: Any, input: str, **__: Any) -> subprocess.CompletedProcess[str]:
        said = ""
        for place, job in enumerate(json.loads(input)):
            if job["name"] == "hangs" or place == 2:
                # What came so far is bytes, and ends wherever the time was up.
                raise subprocess.TimeoutExpired("measure", 1.0, (said + '{"upd').encode())
            if job["name"] == "dies":
                return subprocess.CompletedProcess("measure", -6, said, "")
            said += json.dumps(asdict(speed)) + "\n"
        return subprocess.CompletedProcess("measure", 0, said, "")

    monkeypatch.setattr(module.subprocess, "run", run)
    names = ["a", "hangs", "b", "c", "d", "dies", "e", "hangs"]
    jobs: Any = [Named(name) for name in names]
    known = [None if name in ("hangs", "dies") else speed for name in names]
    assert measure(jobs) == known


def test_silence_from_the_beginning_is_the_first_ones_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(*_: Any, input: str, **__: Any) -> subprocess.CompletedProcess[str]:
        raise subprocess.TimeoutExpired("measure", 1.0, None)

    monkeypatch.setattr(module.subprocess, "run", run)
    jobs: Any = [Named("a"), Named("b")]
    assert measure(jobs) == [None, None]
