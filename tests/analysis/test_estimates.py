"""Off-policy estimates beside played returns."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from analysis import calibration, estimates
from analysis.plots import Look


def run(agent: str, task: str = "sepsis-clinician", **final: float) -> Any:
    record = SimpleNamespace(final=final, budget={"final_episodes": 400})
    return SimpleNamespace(agent=agent, task=task, record=record)


BOTH = {"return_mean": 0.1, "return_std": 1.0, "ope_return": 0.2, "ope_effective_episodes": 20.0}
RUNS = [
    run("bcq", **BOTH, ope_low=0.0, ope_high=0.5),
    run("bcq", **{**BOTH, "ope_return": 0.4}, ope_low=0.3, ope_high=0.6),
    run("bc", **BOTH, ope_behaviour_estimated=1.0),
    run("random", return_mean=-0.7, return_std=0.5),
    run("td3_bc", ope_effective_episodes=3.0),
]


def test_the_table_sets_estimates_beside_the_truth() -> None:
    cells = estimates.find(RUNS)
    assert list(cells) == [("sepsis-clinician", "bcq"), ("sepsis-clinician", "bc")]
    section = estimates.section(cells)
    assert section is not None
    (_, agent, count, cells_of), (_, _, _, without) = section.rows
    shown = dict(zip(section.heads, cells_of, strict=True))
    assert (agent, count) == ("bcq", 2)
    assert shown["estimate"][0] == "0.300 ± 0.141"
    assert shown["interval"] == ("0.15 to 0.55", 0.4)
    assert shown["standard error"] == ("0.05", 0.05)
    assert shown["inside"] == ("50%", 0.5)
    assert dict(zip(section.heads, without, strict=True))["inside"][0] == ""
    assert "estimated, not logged" in section.notes[-1]
    assert estimates.section({}) is None


def test_figures_are_drawn() -> None:
    look = {"bcq": Look("#0173b2", "solid", "o"), "bc": Look("#de8f05", "solid", "s")}
    assert estimates.figure(estimates.find(RUNS), look) is not None
    assert estimates.figure({}, look) is None
    row = {
        "policy": "best", "true": 0.5, "true_unsoftened": 0.5, "estimate": 0.9,
        "estimate_std": 0.1, "estimate_low": 0.7, "estimate_high": 1.0,
        "effective_episodes": 4.0, "clipped": 0.0, "coverage": 0.4, "coverage_unsoftened": 0.4,
        "width": math.nan, "without_interval": 1.0, "logs": 40,
    }  # fmt: skip
    assert calibration.draw([row], 0.95, 100).png.startswith(b"\x89PNG")
    assert calibration.csv([row]).splitlines()[1].split(",")[11] == ""
    assert "| best | 0.500 | 0.900 |" in calibration.table([row])
