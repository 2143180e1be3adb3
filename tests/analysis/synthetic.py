"""Synthetic suites: plausible records written through the same writer a real run uses."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from results.record import Episodes, Plan, Record, write_plan, write_record

QUALITIES = {"random": 3.0, "medium": 44.0, "medium-replay": 25.0, "medium-expert": 65.0}
ENVIRONMENTS = {  # returns of the random and the expert policy
    "hopper": (-20.3, 3234.3),
    "walker2d": (1.6, 4592.3),
    "halfcheetah": (-280.2, 12135.0),
}
ERROR = {
    "type": "FloatingPointError",
    "message": "the loss became NaN at update 1200",
    "traceback": "Traceback (most recent call last):\n  ...\nFloatingPointError",
}
LIFT = {"random": 0.0, "behaviour": 0.0, "bc": 2.0, "td3_bc": 14.0, "iql": 11.0}


def write_suite(
    out: Path,
    *,
    environments: Iterable[str] = ("hopper", "walker2d"),
    qualities: Iterable[str] = ("medium", "medium-replay"),
    agents: Iterable[str] = ("random", "behaviour", "bc", "td3_bc", "iql"),
    seeds: int = 3,
    shrunk: Iterable[str] = (),
    tuned: Iterable[str] = (),
    missing: Iterable[str] = (),
    absent: Iterable[tuple[str, str, int]] = (),
    failed: Iterable[tuple[str, str, int]] = (),
    source: str = "local",
    budget: str = "quick",
    points: int = 20,
    episodes: int = 5,
    shift: float = 0.0,
    changes: dict[str, dict[str, Any]] | None = None,
    **plan: Any,
) -> Path:
    """Writes a plan and its records below ``out``; returns the plan's folder.

    Args:
        missing: tasks without data.
        absent: (task, agent, seed) not run.
        failed: (task, agent, seed) that ended in an error.
        episodes: final episodes of every run; 0 keeps none.
        shift: added to every score of a trained agent.
        changes: values to put into every record's blocks, by the blocks' names.
        **plan: further fields of the plan.
    """
    shrunk, tuned, missing = set(shrunk), set(tuned), set(missing)
    absent, failed = set(absent), set(failed)
    tasks, cells = [], []
    for environment, quality in itertools.product(environments, qualities):
        task = f"{environment}-{quality}"
        sentence = f"no data for {task}; run with --source local" if task in missing else None
        tasks.append(
            {
                "id": task,
                "title": task.replace("-", " "),
                "environment": environment,
                "quality": quality,
                "missing": sentence,
            }
        )
        for agent in agents if sentence is None else ():
            reference = agent in ("random", "behaviour")
            for seed in range(1 if reference else seeds):
                folder = "".join(c if c.isalnum() or c in "_-" else "_" for c in agent)
                path = f"cells/{source}/{task}/{folder}/0123-seed{seed}"
                cells.append({"task": task, "agent": agent, "seed": seed, "path": path})
                if (task, agent, seed) in absent:
                    continue
                record = make_record(
                    environment, quality, agent, seed, seeds, source, points, shift
                )
                record.budget.update(
                    name=budget, shrunk=agent in shrunk, meaningless=budget == "smoke"
                )
                for block, values in (changes or {}).items():
                    getattr(record, block).update(values)
                if (task, agent, seed) in failed:
                    record = replace(record, status="failed", final={}, curve=[], error=ERROR)
                    write_record(out / path, record)
                else:
                    write_record(out / path, record, make_episodes(record, episodes))
    folder = out / "reports" / f"gym-{budget}-{source}"
    content: dict[str, Any] = {
        "suite": "gym",
        "title": "Locomotion from logged data",
        "budget": budget,
        "source": source,
        "seeds": list(range(seeds)),
        "tasks": tasks,
        "agents": [
            {
                "label": agent,
                "name": agent,
                "reference": agent in ("random", "behaviour"),
                "shrunk": agent in shrunk,
                "track": "tuned" if agent in tuned else "fixed",
                "configs_tried": 4 if agent in tuned else 1,
            }
            for agent in agents
        ],
        "cells": cells,
        "command": f"python -m suites.run gym --budget {budget}",
    }
    write_plan(folder, Plan(**(content | plan)))
    return folder


def make_record(
    environment: str,
    quality: str,
    agent: str,
    seed: int,
    seeds: int,
    source: str,
    points: int,
    shift: float = 0.0,
) -> Record:
    """One finished run with ``points`` evaluations; the same arguments give the same numbers."""
    rng = np.random.default_rng([seed, zlib.crc32(f"{environment} {quality} {agent}".encode())])
    low, high = ENVIRONMENTS.get(environment, (0.0, 1000.0))
    reference = agent in ("random", "behaviour")
    data = QUALITIES.get(quality, 95.0)
    score = 0.4 if agent == "random" else data + LIFT.get(agent, 8.0)
    score += 0.0 if reference else float(rng.normal(0.0, 3.0)) + shift
    updates = np.linspace(1000, 20000, 0 if reference else points).astype(int)
    climb = score * (1.0 - np.exp(-updates / 4000)) + rng.normal(0.0, 2.0, len(updates))
    seconds = {"bc": 60.0, "td3_bc": 150.0, "iql": 170.0}.get(agent, 900.0) * rng.uniform(0.9, 1.1)
    task = f"{environment}-{quality}"

    def to_return(value: float) -> float:
        return low + (high - low) * value / 100.0

    return Record(
        status="done",
        cell={},
        task={
            "id": task,
            "title": task,
            "environment": environment,
            "quality": quality,
            "env_id": f"{environment.title()}-v5",
            "source": source,
            "reference_min": low,
            "reference_max": high,
            "reference_source": "D4RL",
        },
        agent={
            "label": agent,
            "name": agent,
            "version": 1,
            "config": {} if reference else {"learning_rate": 3e-4, "hidden": [256, 256]},
            "preset": "default",
            "track": "fixed",
            "configs_tried": 1,
            "reference": reference,
        },
        seed=seed,
        stack=[0] if reference else list(range(seeds)),
        budget={"updates": 20000},
        phases=[{"name": "offline", "updates": 20000}],
        dataset={
            "id": f"{task}-v2",
            "dataset_version": "v2",
            "sha256": "ab" * 32,
            "transitions": 200_000,
            "episodes": 400,
            "return_mean": to_return(data),
            "return_std": 120.0,
            "score_mean": data,
        },
        versions={
            "python": "3.11.7",
            "torch": "2.13.0",
            "mujoco": "3.11.0",
            "cpu": "a CPU",
            "gpu": None,
            "git_commit": "c0ffee0",
            "git_dirty": False,
        },
        timing={
            "training_s": seconds,
            "total_s": seconds + 10.0,
            "core_seconds": 0.0 if reference else seconds,
        },
        curve=[
            {
                "update": int(update),
                "phase": "offline",
                "env_steps": 0,
                "score": float(value),
                "return_mean": to_return(float(value)),
                "return_std": 10.0,
                "metrics": {"loss": 0.1},
            }
            for update, value in zip(updates, climb, strict=True)
        ],
        final={
            "return_mean": to_return(score),
            "return_std": 30.0,
            "length_mean": 900.0,
            "score": score,
            "last10_score": score - 1.0,
        },
    )


def make_episodes(record: Record, episodes: int) -> Episodes | None:
    """Final episodes around the record's mean return, started as every run's are."""
    if not episodes:
        return None
    rng = np.random.default_rng(record.seed)
    updates = [point["update"] for point in record.curve]
    return Episodes(
        returns=record.final["return_mean"] + 30.0 * rng.standard_normal(episodes),
        lengths=rng.integers(500, 1000, episodes),
        reset_seeds=20_000_000 + np.arange(episodes),
        curve_updates=np.array(updates, np.int64),
        curve_returns=np.array([[point["return_mean"]] for point in record.curve]).reshape(-1, 1),
        curve_lengths=np.full((len(updates), 1), 900),
    )
