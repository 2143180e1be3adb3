"""Turning what a training produced into the records that are kept of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from results.record import Episodes, Record, normalized_score
from suites import provenance
from suites.job import Job

LAST = 10  # evaluations averaged beside the final one


def metric_points(curve: list[dict[str, Any]], i: int) -> list[dict[str, Any]]:
    """The metrics of the stack's i-th seed: list of {update, metrics {name: number}}."""
    return [
        {
            "update": point["update"],
            "metrics": {name: values[i] for name, values in point["metrics"].items()},
        }
        for point in curve
    ]


def summary(job: Job, returns: Any) -> dict[str, float]:
    """Mean and spread of returns, and the mean on D4RL's scale; what there is of these."""
    if not np.size(returns):
        return {}
    mean = float(np.mean(returns))
    found = {"return_mean": mean, "return_std": float(np.std(returns))}
    low, high = job.task["reference_min"], job.task["reference_max"]
    return found if low is None else {**found, "score": normalized_score(mean, low, high)}


def make_record(
    job: Job,
    i: int,
    card: dict[str, Any],
    timing: dict[str, float],
    episodes: Episodes,
    curve: list[dict[str, Any]],
    judged: Mapping[str, float] | None = None,
) -> Record:
    """The record of the stack's i-th seed; ``judged`` is what else is known of the policy."""
    final = summary(job, episodes.returns) | dict(judged or {})
    if episodes.lengths.size:
        final["length_mean"] = float(np.mean(episodes.lengths))
    if "score" in final:
        scores = [point["score"] for point in curve[-LAST:]]
        final["last10_score"] = float(np.mean(scores)) if scores else final["score"]
    facts = {
        key: value for key, value in card.items() if key not in ("columns", "policies", "recipe")
    }
    return Record(
        status="done",
        cell={**job.cell, "seed": job.seeds[i]},
        task=job.task,
        agent=job.agent,
        seed=job.seeds[i],
        stack=job.seeds,
        budget=job.budget,
        phases=job.phases,
        dataset=facts,
        versions=provenance.describe(job.device),
        timing=timing,
        curve=curve,
        final=final,
    )
