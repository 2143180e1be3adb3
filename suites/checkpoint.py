"""Checkpoints of unfinished jobs: whole or not at all, two generations, and no pickle.

A checkpoint lies in the folder of its stack's first cell until the records are final. The file is
the sha256 of what follows, then what ``torch.save`` made of a header and a state. The header says
under which circumstances training went on so far, because only the same ones continue bit for bit.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from results.record import TEMPORARY, write_atomically
from suites.job import BusyError, Job, checkpoint_name, remove_checkpoints
from suites.provenance import cpu_name, gpu_name

SCHEMA = 1
LOCK_FILE = ".lock"
# Writing checkpoints may take this share of the time at most, however large they are.
LARGEST_SHARE = 0.05
_DIGEST = hashlib.sha256().digest_size


class StorageError(RuntimeError):
    """The output folder cannot be written; the message names file, cause and remedy."""


class ResumeError(RuntimeError):
    """A checkpoint that would not continue bit for bit; the message says what to do."""


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turns an operating system's refusal to write into one sentence.

    Raises:
        StorageError: naming the path, the cause and the remedy.
    """
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise StorageError(
            f"{path} cannot be written ({why}); free some space or make the folder writable, then "
            "the same command goes on"
        ) from error


@contextmanager
def claimed(folders: Sequence[Path]) -> Iterator[None]:
    """Holds the cells of a job, so that no other run works on them.

    The system frees the locks when this process ends, however it ends. The lock files stay, since
    removing one would let two processes hold "the same" lock.

    Raises:
        BusyError: at once, if another process holds one of them.
        StorageError: if a folder cannot be written.
    """
    with ExitStack() as stack:
        for folder in folders:
            with storing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                stream: IO[bytes] = stack.enter_context((folder / LOCK_FILE).open("ab"))
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BusyError(f"another run is working on {folder}") from None
            for temporary in folder.glob(TEMPORARY):  # of a process that died while writing
                temporary.unlink(missing_ok=True)
        yield


def circumstances(job: Job, dataset_sha256: str) -> dict[str, str]:
    """All that must be equal for training to continue bit for bit."""
    return {
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "processor": cpu_name(),
        "device": gpu_name(job.device) or "cpu",
        "threads": str(torch.get_num_threads()),
        "precision": job.precision,
        "dataset sha256": dataset_sha256,
        "agent version": str(job.agent["version"]),
        "plugin code": str(job.agent["code"]),
    }


class Keeper:
    """Keeps the checkpoints of one job.

    Args:
        job: whose.
        now: the present :func:`circumstances`.
    """

    def __init__(self, job: Job, now: Mapping[str, str]) -> None:
        self.job, self.now = job, dict(now)
        self.path = Path(job.out) / job.paths[0] / checkpoint_name(job.seeds)
        self.older = self.path.with_suffix(".old.pt")
        self.seconds = job.checkpoint_seconds
        self.last = time.monotonic()

    def due(self) -> bool:
        """True when the last one is old enough."""
        return time.monotonic() - self.last >= self.seconds

    def save(self, state: Mapping[str, Any]) -> None:
        """Writes a checkpoint; the one before it stays as the older generation.

        Raises:
            StorageError: if it cannot be written; the ones before it are as they were.
        """
        started = time.monotonic()
        header = {"schema": SCHEMA, "seeds": list(self.job.seeds), "circumstances": self.now}
        stream = io.BytesIO()
        stream.write(bytes(_DIGEST))
        torch.save({"header": header, "state": dict(state)}, stream)
        content = stream.getbuffer()
        content[:_DIGEST] = hashlib.sha256(content[_DIGEST:]).digest()
        with storing(self.path):
            write_atomically(self.path, content, keep=self.older)
        self.last = time.monotonic()
        if self.seconds:  # 0 asks for a checkpoint after every update
            self.seconds = max(self.job.checkpoint_seconds, (self.last - started) / LARGEST_SHARE)

    def postpone(self) -> None:
        """Waits as long as after a checkpoint, because there is no room for one."""
        self.last = time.monotonic()

    def load(self) -> tuple[dict[str, Any] | None, bool, list[str]]:
        """The newest state that can be read.

        Returns:
            The state, None if there is nothing to continue from; whether it continues bit for bit;
            and sentences about what stood in the way.

        Raises:
            ResumeError: if the circumstances differ and this was not allowed.
        """
        notes = []
        for path in (self.path, self.older):
            if not path.exists():
                continue
            saved = _read(path)
            if saved is None or saved["header"].get("schema") != SCHEMA:
                notes.append(f"{path} is damaged or of another version and was passed over")
                continue
            before = saved["header"]["circumstances"]
            differing = [
                f"{key} was {before.get(key)}, is {self.now.get(key)}"
                for key in sorted({*before, *self.now})
                if before.get(key) != self.now.get(key)
            ]
            if differing and not self.job.allow_inexact_resume:
                raise ResumeError(
                    f"{path} would not continue bit for bit: {'; '.join(differing)}. "
                    "--allow-inexact-resume continues and marks the record; deleting the file "
                    "starts over"
                )
            if differing:
                notes.append(f"inexact: {'; '.join(differing)}")
            state: dict[str, Any] = saved["state"]
            return state, not differing, notes
        return None, True, notes

    def remove(self) -> None:
        """Removes the checkpoints of a job that needs them no more, its cells' other ones too."""
        for path in self.job.paths:
            remove_checkpoints(Path(self.job.out) / path)


def _read(path: Path) -> dict[str, Any] | None:
    """A checkpoint's header and state; None if the file is damaged."""
    content = path.read_bytes()
    if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
        return None
    stream = io.BytesIO(content[_DIGEST:])
    try:
        saved: dict[str, Any] = torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # the file is whole, so what is in it is to blame
        raise ResumeError(
            f"{path} cannot be read back: the agent's state_dict holds something else than "
            "tensors, numbers, strings, bytes, and dicts, lists and tuples of these; python -m "
            "baselines.check says more; delete the file to start over"
        ) from error
    return saved
