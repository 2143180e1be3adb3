"""Worker processes that cost a fork instead of seconds of imports, for tests of what they do.

A server has imported what workers need. In a worker's place a client starts, small and at once:
it hands its streams, environment and folder to the server, whose fork becomes the worker. Whoever
kills the client kills the worker, and the client ends as the worker ends, so to ``suites.launch``
there is no difference. A fork runs under the memory settings of the server, not of the worker.

    python forks.py serve SOCKET
    python forks.py SOCKET MODULE         like python -m MODULE
"""

import contextlib
import json
import os
import select
import signal
import socket
import sys

MOST = 1 << 20  # bytes of a request


def serve(path: str) -> None:
    """Forks a process for every client; ends when standard input closes."""
    import runpy
    from importlib import import_module

    from suites import provenance

    for needed in ("suites.train", "baselines.bc", "baselines.iql", "baselines.td3_bc"):
        import_module(needed)
    provenance.describe("cpu")  # keeps what git says
    sys.path.pop(0)  # this file's folder
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    print("ready", flush=True)
    while sys.stdin not in select.select([listening, sys.stdin], [], [])[0]:
        while reap():
            pass
        client, _ = listening.accept()
        if os.fork():
            client.close()
            continue
        listening.close()
        request, streams, _, _ = socket.recv_fds(client, MOST, 3)
        worker = os.fork()
        if worker:
            for stream in streams:
                os.close(stream)
            os._exit(watch(client, worker))
        client.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        become(**json.loads(request))
        code = 1
        try:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def reap() -> bool:
    """Takes leave of a process that has ended, if any has."""
    try:
        return os.waitpid(-1, os.WNOHANG)[0] > 0
    except ChildProcessError:
        return False


def become(module: str, folder: str, environment: dict[str, str]) -> None:
    """Does what Python does at its start."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv, sys.orig_argv = [module], [sys.executable, "-m", module]
    added = [place for place in environment.get("PYTHONPATH", "").split(os.pathsep) if place]
    sys.path[:0] = [folder, *added]
    sys.modules.pop("sitecustomize", None)
    with contextlib.suppress(ModuleNotFoundError):
        import sitecustomize  # noqa: F401


def watch(client: socket.socket, worker: int) -> int:
    """Kills the worker when its client is gone; tells the client how the worker has ended."""
    ended = os.pidfd_open(worker)
    if client in select.select([client, ended], [], [])[0]:
        os.kill(worker, signal.SIGKILL)
    _, status = os.waitpid(worker, 0)
    with contextlib.suppress(OSError):
        client.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    return 0


def ask(path: str, module: str) -> None:
    """Has the server fork, and ends as the fork ends."""
    request = {"module": module, "folder": os.getcwd(), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2])
        code = int(server.recv(16) or 1)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        ask(*sys.argv[1:])
