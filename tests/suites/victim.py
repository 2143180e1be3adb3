"""A process that trains jobs in children of its own and has each killed at a chosen moment.

Requests come in on standard input, a JSON object a line: ``job``, and ``kill``: null, or the kind
of event and which of them (from 1) the child must not survive. Answers go out on standard output:
how the child ended (a negative number is a signal), and how many events of every kind it met. The
modules are imported once, and the machine is described once, so that a child costs a fork.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import baselines.td3_bc  # noqa: F401 - so that children need not
import results.record
from suites import provenance, recording, train
from suites.checkpoint import Keeper
from suites.datasets.sampler import Sampler
from suites.envs import mujoco
from suites.job import Job


def events_of(kill: tuple[str, int] | None) -> Counter[str]:
    """Makes this process count events, and die by SIGKILL at the chosen one."""
    met: Counter[str] = Counter()

    def meet(kind: str) -> None:
        met[kind] += 1
        if kill is not None and (kind, met[kind]) == tuple(kill):
            os.kill(os.getpid(), signal.SIGKILL)

    def before(owner: Any, name: str, kind: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            meet(kind)
            return original(*arguments, **named)

        setattr(owner, name, wrapped)

    before(Sampler, "sample", "update")
    before(Keeper, "save", "checkpoint")
    before(Keeper, "remove", "removal")
    before(mujoco.DirectMujoco, "step", "step")
    before(train.Training, "evaluate", "evaluation")
    before(results.record, "write_record", "record")
    before(train, "write_record", "record")
    before(recording, "write_record", "record")

    class Halting:
        """A stream that can die with half of its content written."""

        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def __enter__(self) -> Halting:
            return self

        def __exit__(self, *_: object) -> None:
            self.stream.close()

        def write(self, content: Any) -> None:
            half = len(content) // 2
            self.stream.write(content[:half])
            self.stream.flush()
            meet("half written")
            self.stream.write(content[half:])

        def __getattr__(self, name: str) -> Any:
            return getattr(self.stream, name)

    class Calls:
        """The ``os`` that ``results.record`` sees."""

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def fdopen(self, *arguments: Any) -> Halting:
            return Halting(os.fdopen(*arguments))

        def fsync(self, handle: int) -> None:
            meet("sync")
            os.fsync(handle)

        def replace(self, *arguments: Any) -> None:
            meet("before rename")
            os.replace(*arguments)
            meet("after rename")

    vars(results.record)["os"] = Calls()
    return met


def main() -> None:
    """Serves requests until standard input closes."""
    here = provenance.describe("cpu")
    provenance.describe = lambda device: here
    for line in sys.stdin:
        request = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            met = events_of(request["kill"])
            notes: list[str] = []
            code = 1
            try:
                train.train(Job(**request["job"]), lambda *_: None, notes.append)
                code = 0
            finally:
                os.write(writing, json.dumps({"met": met, "notes": notes}).encode())
                os._exit(code)
        os.close(writing)
        with os.fdopen(reading, "rb") as stream:
            told = stream.read()
        _, status = os.waitpid(child, 0)
        answer = {"code": os.waitstatus_to_exitcode(status), **json.loads(told or b"{}")}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
