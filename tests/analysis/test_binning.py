"""What binning costs is told once for each agent and number of bins."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from analysis.binning import binning_notes
from analysis.frame import Run


def run(agent: str, task: str, *metrics: dict[str, float]) -> Run:
    curve = [{"update": i, "metrics": found} for i, found in enumerate(metrics)]
    record: Any = SimpleNamespace(task={"id": task}, curve=curve)
    return Run(agent, Path(), cast(Any, record))


def test_bins_and_rounding_are_told_by_task() -> None:
    cut = {"bins": 3.0, "binning_error": 0.2}
    runs = [
        run("ad_rl", "hopper", cut, {**cut, "binning_error": 0.3}),
        run("ad_rl", "walker", cut),
        run("ad_rl", "hopper", {**cut, "binning_error": 0.4}),
        run("iql", "hopper", {"q_mean": 1.0}),
        run("fine", "hopper", {"bins": 7.0, "binning_error": 0.05}),
    ]
    assert binning_notes(runs) == [
        "ad_rl cuts each dimension of the actions into 3 bins; logged actions lie off their bins "
        "by (root mean square, in half ranges): hopper 0.30, walker 0.20.",
        "fine cuts each dimension of the actions into 7 bins; logged actions lie off their bins "
        "by (root mean square, in half ranges): hopper 0.05.",
    ]
