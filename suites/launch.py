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
from typing import IO, Any

from results.record import Record, write_record
from suites import provenance
from suites.job import Job

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


@dataclass
class Worker:
    """A worker process and the job it has."""

    process: subprocess.Popen[str]
    log: IO[bytes]
    reader: threading.Thread
    job: Job | None = None
    since: float = 0.0

    def start(self, job: Job) -> None:
        """Hands it a job."""
        assert self.process.stdin is not None
        self.job, self.since = job, time.monotonic()
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
        kind: "start", "progress", "done" or "failed".
        job: which job.
        slot: which worker, from 0.
        seconds: since the job started.
        values: of "progress": done, total, what; of "failed": type, message, traceback.
    """

    kind: str
    job: Job
    slot: int
    seconds: float
    values: dict[str, Any] = field(default_factory=dict)


def run_jobs(jobs: list[Job], workers: int, listen: Callable[[Event], None]) -> None:
    """Runs all jobs; a task's training starts when its data is ready. Failed cells are recorded.
    A task whose data fails is left out.

    Args:
        jobs: in the order in which they should start.
        workers: how many processes.
        listen: hears of every event; called from this thread.
    """
    pending = list(jobs)
    waiting_for = {job.task["id"] for job in jobs if job.kind == "data"}
    messages: queue.SimpleQueue[tuple[int, dict[str, Any]]] = queue.SimpleQueue()
    with _crew(min(workers, len(jobs)), messages) as crew:

        def assign() -> None:
            for slot, worker in enumerate(crew):
                if worker.job is None:
                    job = next(
                        (j for j in pending if j.kind == "data" or j.task["id"] not in waiting_for),
                        None,
                    )
                    if job is not None:
                        pending.remove(job)
                        worker.start(job)
                        listen(Event("start", job, slot, 0.0))

        assign()
        while any(worker.job for worker in crew):
            slot, message = messages.get()
            worker = crew[slot]
            kind, job = message.pop("event"), worker.job
            if kind == "exit":
                if message["pid"] != worker.process.pid:
                    continue  # a worker that was replaced
                message = _death(worker)
                worker.stop()
                crew[slot] = _hire(slot, messages)
                kind = "failed"
            if job is None:
                continue
            seconds = time.monotonic() - worker.since
            if kind == "progress":
                listen(Event(kind, job, slot, seconds, message))
                continue
            worker.job = None
            if kind == "done":
                listen(Event(kind, job, slot, seconds))
            else:
                if job.kind == "train":
                    record_failure(job, message, seconds)
                listen(Event("failed", job, slot, seconds, message))
                if crew[slot] is worker:  # alive, but a failed job may have left anything behind
                    worker.stop()
                    crew[slot] = _hire(slot, messages)
            if job.kind == "data":
                waiting_for.discard(job.task["id"])
                if kind == "failed":
                    # Without data nothing was tried, so nothing is recorded: the next run tries.
                    pending = [j for j in pending if j.task["id"] != job.task["id"]]
            assign()


@contextmanager
def _crew(
    count: int, messages: queue.SimpleQueue[tuple[int, dict[str, Any]]]
) -> Iterator[list[Worker]]:
    crew = [_hire(slot, messages) for slot in range(count)]
    try:
        yield crew
    finally:
        for worker in crew:
            worker.stop()


def _hire(slot: int, messages: queue.SimpleQueue[tuple[int, dict[str, Any]]]) -> Worker:
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
            messages.put((slot, json.loads(line)))
        process.wait()
        messages.put((slot, {"event": "exit", "pid": process.pid}))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    return Worker(process, log, reader)


def _death(worker: Worker) -> dict[str, str]:
    code = worker.process.returncode
    if code == -signal.SIGKILL:
        why = "was killed (signal 9), most often because memory ran out; try fewer --jobs"
    elif code is not None and code < 0:
        why = f"died of signal {-code} ({signal.Signals(-code).name})"
    else:
        why = f"ended with exit code {code}"
    return {
        "type": "WorkerDied",
        "message": f"the worker process {why}",
        "traceback": worker.log_tail(),
    }


def record_failure(job: Job, error: dict[str, str], seconds: float) -> None:
    """Writes a failed record for every cell of a job."""
    for seed, path in zip(job.seeds, job.paths, strict=True):
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
