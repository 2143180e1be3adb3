"""What happens to runs on a machine that is full, busy, interrupted or out of memory."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from results.record import RECORD_FILE, Record, read_episodes, read_record, scan
from suites import cli
from suites.cli import main
from suites.job import read_state

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LONG = """
tasks: [hopper-random]
agents:
  bc: {config: {hidden: [16], batch_size: 8}}
budget: tiny
budgets:
  tiny: {updates: UPDATES, seeds: 1, evaluations: 1, evaluation_episodes: 1, final_episodes: 2,
         transitions: 1000}
"""
# Faults that only a worker meets, by the environment variable FAULT. Python runs a sitecustomize
# module at its start, so the product itself needs no door for tests.
FAULTS = """
import errno, os, sys, time

fault, trigger = os.environ.get("FAULT"), os.environ.get("FAULT_WHILE", "")
if fault and "suites.worker" in " ".join(sys.orig_argv):
    real_replace = os.replace

    def replace(source, target, **named):
        active = not trigger or os.path.exists(trigger)
        if active and fault == "full" and os.environ["FAULT_FILE"] in os.fspath(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), source)
        if active and fault == "read-only" and os.environ["FAULT_FILE"] in os.fspath(target):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), source)
        return real_replace(source, target, **named)

    os.replace = replace
"""


# Measuring for the estimate and drawing the report cost more than what is tested here.
BARE = """
from suites import cli
from suites.estimate import Estimate

cli.estimate = lambda jobs, source: [Estimate()] * len(jobs)
cli.report = lambda *arguments, **named: cli.OK
cli.Refresher.refresh = lambda self: None
"""


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, hastened: None) -> None:
    """Runs in this process. Those of :class:`Run` have real workers, and end in the rudest ways."""
    monkeypatch.setattr(cli, "report", lambda *arguments, **named: cli.OK)


def text_of(updates: int) -> str:
    return LONG.replace("UPDATES", str(updates))


def training_record(out: Path) -> tuple[Path, Record]:
    ((path, record),) = [
        (p, r) for p, r in scan(out) if isinstance(r, Record) and r.agent["label"] == "bc"
    ]
    return path, record


class Run:
    """A suite in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"{BARE}\nraise SystemExit(cli.main())", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
        )

    def end(self) -> tuple[int, str]:
        shown, _ = self.process.communicate(timeout=120)
        return self.process.returncode, shown


def workers() -> list[int]:
    """The worker processes of this process."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [
        int(pid)
        for pid in children
        if b"suites.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def wait_for(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Waits until something outside this thread has come about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        threading.Event().wait(0.02)


@pytest.fixture
def sitecustomize(tmp_path: Path) -> str:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(FAULTS)
    return f"{folder}{os.pathsep}{ROOT}"


@pytest.fixture
def suite(tmp_path: Path) -> Callable[[int], list[str]]:
    def arguments(updates: int) -> list[str]:
        path = tmp_path / "long.yaml"
        path.write_text(text_of(updates))
        return [str(path), "--out", str(tmp_path / "runs"), "--jobs", "1"]

    return arguments


def checkpoints(out: Path) -> list[Path]:
    return list(out.rglob("checkpoint-0.pt"))


def test_a_worker_killed_for_memory_is_continued_by_the_same_command(
    suite: Callable[[int], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*suite(2500), "--checkpoint-seconds", "0.05"]

    def kill() -> None:
        wait_for(lambda: checkpoints(tmp_path / "runs"))
        (worker,) = workers()
        os.kill(worker, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    assert main(command) == 1
    killer.join()
    assert "was killed (signal 9), most often because memory ran out" in capsys.readouterr().out
    path, record = training_record(tmp_path / "runs")
    assert read_state(path) == "interrupted"
    assert record.error is not None
    assert record.error["type"] == "WorkerKilled"
    assert main([command[0], "--out", str(tmp_path / "runs"), "--status"]) == 0
    assert "0/1 (1 interrupted)" in capsys.readouterr().out

    assert main(command) == 0
    assert "goes on from its checkpoint after update" in capsys.readouterr().out
    path, record = training_record(tmp_path / "runs")
    assert record.status == "done"
    assert record.resumes[0]["update"] > 0
    assert not checkpoints(tmp_path / "runs")


def test_a_silent_worker_is_ended_and_its_cell_tried_again(
    suite: Callable[[int], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plugin = tmp_path / "sleepy.py"
    plugin.write_text(
        "import os, threading\nfrom baselines.bc import BC\n\n\nclass Sleepy(BC):\n"
        "    def update(self, batch, phase):\n"
        "        if os.environ.get('SLEEPY'):\n            threading.Event().wait()\n"
        "        return super().update(batch, phase)\n\n\nAGENTS = {'sleepy': Sleepy}\n"
    )
    command = [*suite(20), "--plugin", str(plugin), "--agents", "bc"]
    assert main(command) == 0  # so that only the sleeper's patience is tried
    command[-1] = "bc,sleepy"
    monkeypatch.setenv("SLEEPY", "1")
    assert main([*command, "--patience", "2"]) == 1
    assert "gave no sign of life for 2 s and was ended" in capsys.readouterr().out
    monkeypatch.delenv("SLEEPY")
    assert main(command) == 0
    records = [r for _, r in scan(tmp_path / "runs") if isinstance(r, Record)]
    assert {r.agent["label"]: r.status for r in records}["sleepy"] == "done"


@pytest.mark.parametrize(
    ("fault", "words"),
    [("full", "No space left on device"), ("read-only", "Read-only file system")],
)
def test_a_folder_that_cannot_be_written_stops_the_run_with_a_sentence(
    fault: str,
    words: str,
    suite: Callable[[int], list[str]],
    tmp_path: Path,
    sitecustomize: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", sitecustomize)
        patch.setenv("FAULT", fault)
        patch.setenv("FAULT_FILE", "policy.pt")
        assert main(suite(300)) == 1
    shown = capsys.readouterr().out
    assert f"cannot be written ({words})" in shown
    assert "free some space or make the folder writable, then the same command goes on" in shown
    assert "Traceback" not in shown
    done = [r for _, r in scan(tmp_path / "runs") if isinstance(r, Record)]
    assert {r.agent["label"] for r in done} == {"behaviour"}  # random was the first to be stopped
    assert main(suite(300)) == 0
    assert training_record(tmp_path / "runs")[1].status == "done"


def test_a_report_that_cannot_be_written_costs_no_results(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.undo()  # the real report
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analysis.report.build", full)
        command = [str(finished / "tiny.yaml"), "--out", str(finished / "runs"), "--report"]
        assert main(command) == 1
    shown = capsys.readouterr().out
    assert "the report in" in shown
    assert "cannot be written (No space left on device); the results are kept" in shown


def test_no_room_for_a_checkpoint_does_not_stop_training(
    suite: Callable[[int], list[str]],
    tmp_path: Path,
    sitecustomize: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PYTHONPATH", sitecustomize)
    monkeypatch.setenv("FAULT", "full")
    monkeypatch.setenv("FAULT_FILE", "checkpoint-0.pt")
    assert main([*suite(30), "--checkpoint-seconds", "0"]) == 0
    shown = capsys.readouterr().out
    assert "training goes on without a new checkpoint" in shown
    assert "No space left on device" in shown
    assert training_record(tmp_path / "runs")[1].status == "done"


def test_two_runs_in_one_folder_share_the_work(
    suite: Callable[[int], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*suite(600), "--seeds", "3"]
    codes: list[int] = []
    # Locks belong to the worker processes, so two threads are as strange to each other as two runs.
    runs = [threading.Thread(target=lambda: codes.append(main(command))) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert codes == [0, 0]
    records = [r for _, r in scan(tmp_path / "runs") if isinstance(r, Record)]
    assert len(records) == 5
    assert all(record.status == "done" and not record.resumes for record in records)
    assert "another run is at it" in capsys.readouterr().out


def test_one_run_takes_over_when_the_other_is_killed(
    suite: Callable[[int], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*suite(4000), "--checkpoint-seconds", "0.05"]
    first = Run(*command)
    wait_for(lambda: checkpoints(tmp_path / "runs"))

    def kill() -> None:
        wait_for(lambda: "another run is at it" in "".join(heard))
        first.process.kill()  # its worker ends itself
        first.end()

    heard: list[str] = []
    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("suites.console.tell", lambda console, text, style=None: heard.append(text))
        assert main(command) == 0
    killer.join()
    assert any("goes on from its checkpoint after update" in text for text in heard)
    assert training_record(tmp_path / "runs")[1].resumes


def test_a_run_ended_by_a_scheduler_goes_on(
    suite: Callable[[int], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*suite(2500), "--checkpoint-seconds", "0.05"]
    run = Run(*command)
    wait_for(lambda: checkpoints(tmp_path / "runs"))
    run.process.terminate()
    code, shown = run.end()
    assert code == 130
    assert "interrupted; what is finished is kept, and the same command goes on" in shown
    assert main(command) == 0
    assert "goes on from its checkpoint after update" in capsys.readouterr().out


def test_a_truncated_record_is_said_and_made_again(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    shutil.copytree(finished / "runs", out)
    path, record = next(
        (p, r) for p, r in scan(out) if isinstance(r, Record) and r.agent["label"] == "bc"
    )
    before = read_episodes(path)
    (path / RECORD_FILE).write_bytes((path / RECORD_FILE).read_bytes()[:-40])
    command = [str(finished / "tiny.yaml"), "--out", str(out)]
    assert main([*command, "--status"]) == 0
    assert "1/2" in capsys.readouterr().out
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert f"warning: {path / RECORD_FILE} cannot be read and will be made again" in shown
    assert "1 cell to run" in shown
    assert read_record(path).seed == record.seed
    assert (read_episodes(path).returns == before.returns).all()
