"""Synthetic suites whose environments report measures beside the return."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from synthetic import make_episodes, make_record

from results.record import Plan, write_plan, write_record

MEASURES = ("player_returns", "lifetime_value", "engagement", "dwell_time", "recommendation_cost")
AGENTS = ("random", "behaviour", "bc", "td3_bc", "fastq")
Value = Callable[[str, str, int, int, str], float]  # of task, agent, draw, seed and measure


def plausible(task: str, agent: str, draw: int, seed: int, measure: str) -> float:
    """Every platform has a level of its own; agents differ from its mixture by some per cent."""
    place = MEASURES.index(measure)
    platform = int(task.split("-")[1])
    level = (20.0, 140.0, 0.4, 33.0, 5.0)[place] * (1.0 + 0.2 * platform)
    lift = {"random": -0.2, "behaviour": 0.0, "bc": -0.01, "td3_bc": 0.02, "fastq": 0.05}[agent]
    sign = -1.0 if measure.endswith("_cost") else 1.0
    if agent == "behaviour":
        return level
    noise = np.random.default_rng([platform, draw, seed, place, AGENTS.index(agent)]).normal()
    return float(level * (1.0 + sign * lift + 0.01 * noise))


def write_measured(
    out: Path,
    *,
    platforms: Iterable[str] = ("players-0",),
    qualities: Iterable[str] = ("overlap-50",),
    agents: Iterable[str] = AGENTS,
    seeds: int = 3,
    draws: int = 1,
    value: Value | None = plausible,
    score: Value | None = None,
    absent: Iterable[tuple[str, str, int]] = (),
    shrunk: Iterable[str] = (),
    caveats: Iterable[str] = (),
) -> Path:
    """Writes a plan and its records; returns the plan's folder.

    Args:
        value: the measures; None leaves them out.
        score: of a run, with the measure "score"; by default that of ``make_record``.
        absent: (task, agent, seed) not run.
    """
    tasks, cells, absent, shrunk = [], [], set(absent), set(shrunk)
    for environment, quality in itertools.product(platforms, qualities):
        task = f"{environment}-{quality}"
        described = {"id": task, "title": task, "environment": environment, "quality": quality}
        tasks.append({**described, "missing": None})
        for agent, draw in itertools.product(agents, range(draws)):
            for seed in range(1 if agent in ("random", "behaviour") else seeds):
                path = f"cells/local/{task}/{agent}/{draw}-seed{seed}"
                cells.append(
                    {"task": task, "agent": agent, "seed": seed, "draw": draw, "path": path}
                )
                if (task, agent, seed) in absent:
                    continue
                record = make_record(environment, quality, agent, seed, seeds, "local", 2)
                final: dict[str, Any] = dict(record.final)
                if value is not None:
                    final["measures"] = {
                        name: value(task, agent, draw, seed, name) for name in MEASURES
                    }
                if score is not None:
                    final["score"] = score(task, agent, draw, seed, "score")
                budget = record.budget | {"name": "quick", "shrunk": agent in shrunk}
                data = record.dataset | {"seed": draw}
                record = replace(record, final=final, budget=budget, dataset=data)
                write_record(out / path, record, make_episodes(record, 4))
                if value is not None:
                    _add_measures(out / path / "episodes.npz", final["measures"])
    folder = out / "reports" / "players-quick-local"
    rows: list[dict[str, Any]] = [
        {
            "label": agent,
            "name": agent,
            "reference": agent in ("random", "behaviour"),
            "shrunk": agent in shrunk,
        }
        for agent in agents
    ]
    plan = Plan(
        "players", "Players", "quick", "local", list(range(seeds)), tasks, rows, cells,
        caveats=list(caveats),
    )  # fmt: skip
    write_plan(folder, plan)
    return folder


def _add_measures(path: Path, measures: dict[str, float]) -> None:
    """The measures of every episode beside its return, as records of such environments have."""
    with np.load(path) as kept:
        arrays = dict(kept)
    episodes = len(arrays["returns"])
    arrays |= {f"measure_{name}": np.full(episodes, value) for name, value in measures.items()}
    np.savez_compressed(path, **arrays)
