"""Where a number comes from: versions, hardware, and the state of the code."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("fast-q-bench", "gymnasium", "mujoco", "numpy", "torch")


@cache
def _git() -> dict[str, Any]:
    def ask(*arguments: str) -> str | None:
        folder = Path(__file__).resolve().parent
        try:
            answer = subprocess.run(
                ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return answer.stdout.strip() if answer.returncode == 0 else None

    if ask("ls-files", "--error-unmatch", __file__) is None:  # installed, or some other repository
        return {"git_commit": None, "git_dirty": None}
    return {
        "git_commit": ask("rev-parse", "HEAD"),
        "git_dirty": bool(ask("status", "--porcelain", "--untracked-files=no")),
    }


def cpu_name() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def gpu_name(device: str) -> str | None:
    """The name of a torch device's GPU, None for the CPU."""
    if not device.startswith("cuda"):
        return None
    import torch

    return str(torch.cuda.get_device_name(device))


def describe(device: str) -> dict[str, Any]:
    """Versions, machine and code state, as plain JSON."""
    packages: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            packages[name.replace("-", "_")] = version(name)
        except PackageNotFoundError:
            packages[name.replace("-", "_")] = None
    return {
        "python": platform.python_version(),
        **packages,
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "gpu": gpu_name(device),
        "device": device,
        "executable": Path(sys.executable).name,
        **_git(),
    }


def peak_memory_mib() -> float:
    """The most memory this process has held, in MiB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)
