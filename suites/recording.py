"""Turning what a training produced into the records that are kept of it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from baselines.common import copy_state
from results.record import (
    POLICY_FILE,
    Episodes,
    Record,
    normalized_score,
    write_atomically,
    write_record,
    write_study,
)
from suites import provenance
from suites.checkpoint import storing
from suites.job import Job, read_state

if TYPE_CHECKING:
    from suites.evaluate import Evaluation
    from suites.train import Training

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


def summary(job: Job, returns: Any) -> dict[str, Any]:
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
    if episodes.measures and episodes.lengths.size:
        final["measures"] = {name: float(np.mean(v)) for name, v in episodes.measures.items()}
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


def save(training: Training, final: Evaluation) -> None:
    """Writes every seed's policy, episodes and record, and removes the checkpoint.

    A seed that has its record already, since an interruption struck between two, keeps it.

    Raises:
        StorageError: if the output folder cannot be written.
    """
    job = training.job
    seconds = training.spent()
    core = seconds.pop("core") / len(job.seeds)
    timing = {
        **{f"{part}_s": value for part, value in seconds.items()},
        "core_seconds": core,
        "updates_per_s": job.updates / seconds["training"] if seconds["training"] else 0.0,
        "peak_memory_mib": provenance.peak_memory_mib(),
    }
    policy = _policy(training)
    for i, path in enumerate(job.paths):
        folder = Path(job.out) / path
        if read_state(folder) == "done":
            continue
        stream = io.BytesIO()
        torch.save({**policy, "index": i}, stream)
        episodes = _episodes(training, i, final)
        record = make_record(
            job,
            i,
            training.dataset.card,
            timing,
            episodes,
            _curve(training, i),
            training.judged[i] | final.success_rate(i),
        )
        studied = {name: outcomes[i] for name, outcomes in training.studies.items()}
        record = replace(
            record,
            resumes=training.resumes,
            studies={name: outcome.numbers for name, outcome in studied.items()},
            warnings=training.findings[i],
        )
        with storing(folder):
            write_atomically(folder / POLICY_FILE, stream.getbuffer())
            for name, outcome in studied.items():
                if outcome.arrays:
                    write_study(folder, name, outcome.arrays)
            write_record(folder, record, episodes)
    if not job.keep_checkpoints:
        training.keeper.remove()


def _policy(training: Training) -> dict[str, Any]:
    """What a policy file holds: all that :class:`suites.policy.Policy` is made of."""
    job, spec = training.job, training.spec
    return {
        "agent": job.agent,
        "task": job.task,
        "seeds": job.seeds,
        "plugins": job.plugins,
        "phases": job.phases,
        "precision": job.precision,
        "reward_parts": list(spec.reward_parts),
        "policies": spec.policies,
        "policy_groups": spec.policy_groups,
        "statistics": dict(spec.statistics),
        "transform": training.transform.to_dict(),
        "state": copy_state(training.agent.state_dict()),
    }


def _episodes(training: Training, i: int, final: Evaluation) -> Episodes:
    curve: dict[str, Any] = {}
    if training.curve:
        curve = {
            "curve_updates": np.array([point["update"] for point in training.curve], np.int64),
            "curve_returns": np.stack([e.returns[i] for e in training.curve_evaluations]),
            "curve_lengths": np.stack([e.lengths[i] for e in training.curve_evaluations]),
        }
    measures = dict(zip(training.measures, final.measures[i].T, strict=True))
    return Episodes(
        final.returns[i], final.lengths[i], final.reset_seeds, **curve, measures=measures
    )


def _curve(training: Training, i: int) -> list[dict[str, Any]]:
    return [
        {
            "update": point["update"],
            "phase": point["phase"],
            "env_steps": point.get("env_steps", 0),  # older checkpoints lack it
            **summary(training.job, evaluation.returns[i]),
            "metrics": metrics["metrics"],
        }
        for point, evaluation, metrics in zip(
            training.curve,
            training.curve_evaluations,
            metric_points(training.curve, i),
            strict=True,
        )
    ]
