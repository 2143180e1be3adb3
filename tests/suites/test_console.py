"""What a person hears of running jobs."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from suites import console as show
from suites.launch import Event
from suites.plan import make_plan
from suites.resolve import Options


@pytest.mark.parametrize("terminal", [False, True])
def test_a_job_that_another_run_had_begins_without_saying_so(
    manifest: Path, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine told of its start once, when it turned out to be taken."""
    monkeypatch.setattr(show, "QUIET_SECONDS", -1.0)
    plan = make_plan(Options(str(manifest), out=manifest.parent / "runs", device="cpu"))
    job, other, *rest = plan.jobs()
    jobs = [job, other, *rest]
    text = io.StringIO()
    console = Console(file=text, width=200, force_terminal=terminal)
    seconds = {job.name: 100.0 for job in jobs}
    values = {"done": 1, "total": 2, "what": "updates"}
    with show.Monitor(console, jobs, seconds, 3) as monitor:
        monitor(Event("start", job, 0, 0.0))
        monitor(Event("busy", job, 0, 0.0))
        monitor(Event("start", other, 0, 0.0))
        monitor(Event("progress", job, 2, 1.0, values))
        monitor(Event("progress", other, 0, 1.0, values))
        assert set(monitor.running.values()) == {job.name, other.name}
        monitor(Event("done", job, 2, 2.0))
        assert set(monitor.running.values()) == {other.name}
    assert "another run is at it; waiting for it to end" in text.getvalue()
    if not terminal:
        assert f"... {job.name}: 1/2 updates" in text.getvalue()
