"""How long a report of 600 runs takes, and how big it is.

``python benchmarks/report.py`` writes synthetic records through the writer of real ones (15 tasks,
8 agents of five seeds and two references; 100 final episodes, 20 evaluations each), builds their
report, compares the folder with itself, and prints seconds and megabytes.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from analysis.compare import write
from analysis.pairing import compare_folders
from analysis.report import build

ROOT = Path(__file__).resolve().parents[1]
AGENTS = ("random", "behaviour", "bc", "td3_bc", "iql", "cql", "rebrac", "dt", "qt", "diffusion_ql")


def synthetic() -> Any:
    """The tests' writer of synthetic suites."""
    spec = importlib.util.spec_from_file_location("synthetic", ROOT / "tests/analysis/conftest.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def timed(what: str, work: Callable[[], Any]) -> Any:
    """Runs it and prints its wall-clock and processor seconds."""
    wall, core = time.perf_counter(), time.process_time()
    result = work()
    wall, core = time.perf_counter() - wall, time.process_time() - core
    print(f"{what}: {wall:.1f} s ({core:.1f} s of a core)")
    return result


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=100, help="final episodes per run")
    parser.add_argument("--points", type=int, default=20, help="evaluations during training")
    options = parser.parse_args()
    writer = synthetic()
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        folder = writer.write_suite(
            out,
            environments=writer.ENVIRONMENTS,
            qualities=(*writer.QUALITIES, "expert"),
            agents=AGENTS,
            seeds=5,
            episodes=options.episodes,
            points=options.points,
        )
        runs = len(list(out.glob("cells/*/*/*/*/record.json")))
        print(f"{runs} runs of {options.episodes} final episodes")
        page = timed("report", lambda: build(folder, out))
        files = [path for path in folder.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        print(f"report: {size / 1e6:.1f} MB in all, page {page.stat().st_size / 1e6:.1f} MB")
        timed("compare", lambda: write(compare_folders(out, out), out / "comparison"))


if __name__ == "__main__":
    main()
