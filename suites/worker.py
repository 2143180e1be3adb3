"""A worker process: jobs come in on standard input, events go out on standard output, in JSON.

Whatever an agent prints goes to standard error, so it cannot disturb the protocol. A worker whose
parent has gone ends itself.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from typing import Any

from baselines.registry import fault_place
from suites.job import BusyError, Job


def main() -> None:
    """Runs jobs until standard input closes."""
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)  # at once, even in the middle of a job: nobody is left to hear of it

    threading.Thread(target=listen, daemon=True).start()

    def send(event: str, **values: Any) -> None:
        events.write(json.dumps({"event": event, **values}) + "\n")

    def progress(done: int, total: int, what: str) -> None:
        send("progress", done=done, total=total, what=what)

    def note(text: str) -> None:
        send("note", text=text)

    while True:
        job = Job(**json.loads(lines.get()))
        try:
            from suites.train import prepare, train

            if job.kind == "data":
                prepare(job, progress)
            else:
                train(job, progress, note)
            send("done")
        except BusyError:
            send("busy")
        except Exception as error:
            send(
                "failed",
                type=type(error).__name__,
                message=f"{error}{fault_place(error)}",
                traceback=traceback.format_exc(),
            )


if __name__ == "__main__":
    main()
