"""The local engine: worker processes of one thread each, fed with jobs as their data gets ready.

Jobs are self-contained JSON, so another engine (a cluster's queue) can stand in for this one.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, TypeAlias

from results.record import Record, write_record
from suites import provenance
from suites.job import INTERRUPTIONS, Job, read_state

# glibc gives large blocks back to the system at once and maps them anew for the next batch. Keeping
# them mapped makes training 1.1 to 1.3 times as fast; it must be set before a process starts.
WORKER_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
    "MALLOC_TOP_PAD_": str(1 << 26),
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


PATIENCE = 3600.0  # seconds; a learner from elsewhere may do any amount of work in one update
NOT_ITS_FAULT = (*INTERRUPTIONS, "ResumeError", "StorageError")
_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_TICK = 1.0  # seconds between two looks at silent workers and at cells that another run has
_BUSY_SECONDS = 5.0

Messages: TypeAlias = "queue.SimpleQueue[tuple[int, dict[str, Any]]]"


@dataclass
class Worker:
    """A worker process and the job it has."""

    process: subprocess.Popen[str]
    log: IO[bytes]
    reader: threading.Thread
    job: Job | None = None
    since: float = 0.0
    heard: float = 0.0

    def start(self, job: Job) -> None:
        """Hands it a job."""
        assert self.process.stdin is not None
        self.job, self.since, self.heard = job, time.monotonic(), time.monotonic()
        self.process.stdin.write(json.dumps(asdict(job)) + "\n")
        self.process.stdin.flush()

    def log_tail(self, characters: int = 2000) -> str:
        """The end of what it wrote to standard error."""
        self.log.flush()
        size = self.log.seek(0, os.SEEK_END)
        self.log.seek(max(0, size - characters))
        return self.log.read().decode("utf-8", "replace")

    def stop(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()
        self.reader.join()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            if stream is not None:
                with suppress(BrokenPipeError):  # what was still to be sent is lost with it
                    stream.close()


@dataclass(frozen=True)
class Event:
    """What the engine tells its caller.

    Attributes:
        kind: "start", "progress", "note", "busy" (another run has it; it is tried again), "done",
            "failed", or "interrupted" (nothing was wrong with it; the next run goes on with it).
        job: which job.
        slot: which worker, from 0.
        seconds: since the job started.
        values: of "progress": done, total, what; of "note": text; of "failed" and "interrupted":
            type, message, traceback.
    """

    kind: str
    job: Job
    slot: int
    seconds: float
    values: dict[str, Any] = field(default_factory=dict)


def run_jobs(
    jobs: list[Job], workers: int, listen: Callable[[Event], None], patience: float = PATIENCE
) -> None:
    """Runs all jobs; a task's training starts when its data is ready. Failed cells are recorded.
    A task whose data fails is left out. When results can no longer be stored, all stop.

    Args:
        jobs: in the order in which they should start.
        workers: how many processes.
        listen: hears of every event; called from this thread.
        patience: seconds without a sign of life after which a worker is ended.
    """
    _Engine(jobs, listen, patience).run(workers)


class _Engine:
    """What :func:`run_jobs` keeps track of."""

    def __init__(self, jobs: list[Job], listen: Callable[[Event], None], patience: float) -> None:
        self.listen, self.patience = listen, patience
        self.pending = list(jobs)
        self.waiting_for = {job.dataset for job in jobs if job.kind == "data"}
        self.busy: dict[str, float] = {}  # jobs that another run has, by name: when to try again
        self.full = False  # no result can be stored any more
        self.messages: Messages = queue.SimpleQueue()
        self.crew: list[Worker] = []

    def run(self, workers: int) -> None:
        with _crew(min(workers, len(self.pending)), self.messages) as self.crew:
            self.assign()
            while not self.full and (self.pending or any(worker.job for worker in self.crew)):
                with suppress(queue.Empty):
                    self.hear(*self.messages.get(timeout=_TICK))
                self.dismiss_the_silent()
                self.assign()

    def assign(self) -> None:
        """Hands the next jobs to the workers that have none."""
        for slot, worker in enumerate(self.crew):
            job = next((j for j in self.pending if self.is_ready(j)), None)
            if worker.job is None and job is not None:
                self.pending.remove(job)
                worker.start(job)
                if job.name not in self.busy:
                    self.listen(Event("start", job, slot, 0.0))

    def is_ready(self, job: Job) -> bool:
        if self.busy.get(job.name, 0.0) > time.monotonic():
            return False
        return job.kind == "data" or job.dataset not in self.waiting_for

    def dismiss_the_silent(self) -> None:
        for slot, worker in enumerate(self.crew):
            if worker.job is not None and time.monotonic() - worker.heard > self.patience:
                message = {
                    "type": "WorkerSilent",
                    "message": f"the worker process gave no sign of life for {self.patience:,.0f} "
                    "s and was ended; the same command goes on from its last checkpoint; if single "
                    "updates take so long, give it more --patience",
                    "traceback": worker.log_tail(),
                }
                self.replace(slot)
                self.end(slot, worker, "failed", message)

    def replace(self, slot: int) -> None:
        """A new worker for one that has died, or that a failed job may have left anything in."""
        self.crew[slot].stop()
        self.crew[slot] = _hire(slot, self.messages)

    def hear(self, slot: int, message: dict[str, Any]) -> None:
        """Acts on a worker's message."""
        worker = self.crew[slot]
        kind = message.pop("event")
        if message.pop("pid") != worker.process.pid:
            return  # of a worker that was replaced
        worker.heard = time.monotonic()
        if kind == "exit":
            message = _death(worker)
            self.replace(slot)
            kind = "failed"
        if worker.job is None:
            return
        if kind in ("progress", "note"):
            self.listen(Event(kind, worker.job, slot, worker.heard - worker.since, message))
            return
        if kind == "failed" and self.crew[slot] is worker:
            self.replace(slot)
        self.end(slot, worker, kind, message)

    def end(self, slot: int, worker: Worker, kind: str, message: dict[str, Any]) -> None:
        """A job has ended, one way or another."""
        job, seconds = worker.job, time.monotonic() - worker.since
        assert job is not None
        worker.job = None
        if kind == "busy":
            if job.name not in self.busy:
                self.listen(Event("busy", job, slot, seconds))
            self.busy[job.name] = time.monotonic() + _BUSY_SECONDS
            self.pending.append(job)
            return
        if kind == "failed" and job.kind == "train":
            kind = self.fail(job, message, seconds)
        self.listen(Event(kind, job, slot, seconds, {} if kind == "done" else message))
        if job.kind == "data":
            self.waiting_for.discard(job.dataset)
            if kind == "failed":
                # Without data nothing was tried, so nothing is recorded: the next run tries.
                self.pending = [j for j in self.pending if j.dataset != job.dataset]
                self.full |= message["type"] == "StorageError"

    def fail(self, job: Job, message: dict[str, Any], seconds: float) -> str:
        """Records a failed training job if it can; says how it is to be called."""
        if message["type"] == "StorageError":
            self.full = True
        elif message["type"] != "ResumeError":
            try:
                record_failure(job, message, seconds)
            except OSError:
                self.full = True
        return "interrupted" if self.full or message["type"] in NOT_ITS_FAULT else "failed"


@contextmanager
def _crew(count: int, messages: Messages) -> Iterator[list[Worker]]:
    crew = [_hire(slot, messages) for slot in range(count)]
    try:
        yield crew
    finally:
        for worker in crew:
            worker.stop()


def _hire(slot: int, messages: Messages) -> Worker:
    log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
    process = subprocess.Popen(
        [sys.executable, "-m", "suites.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env={**os.environ, **WORKER_ENVIRONMENT},
        start_new_session=True,  # Ctrl-C is for the parent, which stops its workers
    )

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            messages.put((slot, {**json.loads(line), "pid": process.pid}))
        process.wait()
        messages.put((slot, {"event": "exit", "pid": process.pid}))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    return Worker(process, log, reader)


def _death(worker: Worker) -> dict[str, str]:
    code = worker.process.returncode
    kind = "WorkerDied"
    if code is not None and -code in _FROM_OUTSIDE:
        kind = "WorkerKilled"
        why = f"was killed (signal {-code})"
        if code == -signal.SIGKILL:
            why += ", most often because memory ran out; try fewer --jobs"
        why += "; the same command goes on from its last checkpoint"
    elif code is not None and code < 0:
        why = f"died of signal {-code} ({signal.Signals(-code).name})"
    else:
        why = f"ended with exit code {code}"
    return {
        "type": kind,
        "message": f"the worker process {why}",
        "traceback": worker.log_tail(),
    }


def record_failure(job: Job, error: dict[str, str], seconds: float) -> None:
    """Writes a failed record for every cell of a job that has no final one."""
    for seed, path in zip(job.seeds, job.paths, strict=True):
        if read_state(Path(job.out) / path) == "done":
            continue
        record = Record(
            status="failed",
            cell={**job.cell, "seed": seed},
            task=job.task,
            agent=job.agent,
            seed=seed,
            stack=job.seeds,
            budget=job.budget,
            phases=job.phases,
            dataset={"id": job.cell["dataset"]["id"]},
            versions=provenance.describe("cpu"),
            timing={"total_s": seconds, "core_seconds": seconds / len(job.seeds)},
            error=error,
        )
        write_record(Path(job.out) / path, record)
