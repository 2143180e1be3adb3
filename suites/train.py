"""The one training loop: a stack of cells in, one record per seed out."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baselines.common import copy_state
from baselines.contract import Agent, Metrics, Phase, Spec
from baselines.registry import Registry, make_config, needs_of
from results.record import POLICY_FILE, Episodes, Record, normalized_score, write_record
from suites import provenance
from suites.datasets import get_source, store
from suites.datasets.sampler import Sampler
from suites.datasets.store import Dataset
from suites.datasets.transforms import Transform
from suites.envs import make_vector
from suites.evaluate import CURVE_RESET_SEED, FINAL_RESET_SEED, Evaluation, Evaluator
from suites.job import Job

Progress = Callable[[int, int, str], None]  # done, total, what
REPORT_SECONDS = 1.0
LAST = 10  # evaluations averaged beside the final one


class AgentError(RuntimeError):
    """An agent broke the contract while training; the message says how."""


def make_spec(job: Job, dataset: Dataset, transform: Transform) -> Spec:
    """What the agent may know of its task."""
    env = make_vector(job.task["env_id"], 1)
    try:
        card = dataset.card
        return Spec(
            observation_space=env.observation_space,
            action_space=env.action_space,
            phases=tuple(Phase(**phase) for phase in job.phases),
            horizon=env.horizon,
            reward_parts=tuple(card.get("reward_parts", ())),
            policies=len(card.get("policies", ())),
            statistics={
                key: card[key]
                for key in ("transitions", "episodes", "return_mean", "return_best", "return_worst")
            }
            | {"reward_scale": transform.reward_scale},
            device=job.device,
            dtype=job.precision,
        )
    finally:
        env.close()


def check_metrics(metrics: Metrics, seeds: int, update: int) -> None:
    """Refuses metrics that are not finite tensors ``[S]``.

    Raises:
        AgentError: naming the metric, the update and the seed's place in the stack.
    """
    for name, value in metrics.items():
        if not isinstance(value, torch.Tensor) or tuple(value.shape) != (seeds,):
            shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise AgentError(f'metric "{name}" has shape {shape}; the contract asks for ({seeds},)')
        if not torch.isfinite(value).all():
            raise AgentError(f'metric "{name}" is not finite (NaN or infinity) by update {update}')


class Training:
    """One job on its way: dataset, agent, sampler and evaluators, and what they have produced."""

    def __init__(self, job: Job, progress: Progress) -> None:
        self.job, self.progress = job, progress
        self.seconds = {"data": 0.0, "training": 0.0, "evaluation": 0.0}
        started = time.perf_counter()
        source = get_source(job.task["source"])
        folder = source.ensure(job.task["id"], job.data["size"], job.data["seed"])
        self.dataset = store.load(folder)
        self.seconds["data"] = time.perf_counter() - started

        who = f'agent "{job.agent["label"]}"'
        cls = Registry(job.plugins).get(job.agent["name"])
        config = make_config(cls, job.agent["config"], who)
        needs = needs_of(cls, config, who)
        self.transform = Transform.fit(self.dataset, needs)
        self.spec = make_spec(job, self.dataset, self.transform)
        self.agent: Agent = cls(self.spec, config, job.seeds)
        self.sampler = Sampler(self.dataset, needs, self.transform, job.seeds, self.spec)
        self.curve: list[dict[str, Any]] = []
        self.curve_evaluations: list[Evaluation] = []

    def evaluator(self, episodes: int, first_reset_seed: int) -> Evaluator:
        """An evaluator for this job's stack."""
        return Evaluator(
            self.job.task["env_id"],
            self.spec,
            self.job.seeds,
            self.transform,
            episodes,
            first_reset_seed,
        )

    def run(self) -> Evaluation:
        """Trains through all phases, evaluating on the way, and plays the final episodes."""
        budget, total = self.job.budget, self.job.updates
        # Evenly spaced, the last after the last update.
        milestones = {
            round(total * (i + 1) / budget["evaluations"]) for i in range(budget["evaluations"])
        }
        evaluator = self.evaluator(budget["evaluation_episodes"], CURVE_RESET_SEED)
        done, reported = 0, time.monotonic()
        metrics: Metrics = {}
        since = time.perf_counter()
        for phase in self.spec.phases:
            for _ in range(phase.updates):
                metrics = self.agent.update(self.sampler.sample(), phase.name)
                done += 1
                if done == 1 or done in milestones:
                    check_metrics(metrics, len(self.job.seeds), done)
                if done in milestones:
                    self.seconds["training"] += time.perf_counter() - since
                    self.evaluate(evaluator, done, phase.name, metrics)
                    since = time.perf_counter()
                if time.monotonic() - reported > REPORT_SECONDS:
                    self.progress(done, total, "updates")
                    reported = time.monotonic()
        self.seconds["training"] += time.perf_counter() - since
        if metrics:
            check_metrics(metrics, len(self.job.seeds), done)
        evaluator.close()

        self.progress(done, total, "final evaluation")
        started = time.perf_counter()
        final_evaluator = self.evaluator(budget["final_episodes"], FINAL_RESET_SEED)
        final = final_evaluator.run(self.agent, len(self.curve))
        final_evaluator.close()
        self.seconds["evaluation"] += time.perf_counter() - started
        return final

    def evaluate(self, evaluator: Evaluator, update: int, phase: str, metrics: Metrics) -> None:
        """One evaluation during training; becomes a point of every seed's learning curve."""
        started = time.perf_counter()
        evaluation = evaluator.run(self.agent, len(self.curve))
        self.curve_evaluations.append(evaluation)
        values = {name: value.detach().double().tolist() for name, value in metrics.items()}
        self.curve.append({"update": update, "phase": phase, "metrics": values})
        self.seconds["evaluation"] += time.perf_counter() - started

    def save(self, final: Evaluation, total_seconds: float, core_seconds: float) -> None:
        """Writes every seed's policy, episodes and record."""
        job = self.job
        share = 1.0 / len(job.seeds)
        seconds = self.seconds["training"]
        timing = {
            **{f"{part}_s": value for part, value in self.seconds.items()},
            "total_s": total_seconds,
            "core_seconds": core_seconds * share,
            "updates_per_s": job.updates / seconds if job.updates and seconds > 0 else 0.0,
            "peak_memory_mib": provenance.peak_memory_mib(),
        }
        policy = {
            "agent": job.agent,
            "task": job.task,
            "seeds": job.seeds,
            "plugins": job.plugins,
            "phases": job.phases,
            "precision": job.precision,
            "reward_parts": list(self.spec.reward_parts),
            "policies": self.spec.policies,
            "statistics": dict(self.spec.statistics),
            "transform": self.transform.to_dict(),
            "state": copy_state(self.agent.state_dict()),
        }
        for i, path in enumerate(job.paths):
            folder = Path(job.out) / path
            folder.mkdir(parents=True, exist_ok=True)
            torch.save({**policy, "index": i}, folder / POLICY_FILE)
            episodes = self._episodes(i, final)
            write_record(
                folder,
                make_record(job, i, self.dataset.card, timing, episodes, self._curve(i)),
                episodes,
            )

    def _episodes(self, i: int, final: Evaluation) -> Episodes:
        curve: dict[str, Any] = {}
        if self.curve:
            curve = {
                "curve_updates": np.array([point["update"] for point in self.curve], np.int64),
                "curve_returns": np.stack([e.returns[i] for e in self.curve_evaluations]),
                "curve_lengths": np.stack([e.lengths[i] for e in self.curve_evaluations]),
            }
        return Episodes(final.returns[i], final.lengths[i], final.reset_seeds, **curve)

    def _curve(self, i: int) -> list[dict[str, Any]]:
        return [
            {
                "update": point["update"],
                "phase": point["phase"],
                "env_steps": 0,
                **summary(self.job, evaluation.returns[i]),
                "metrics": {name: values[i] for name, values in point["metrics"].items()},
            }
            for point, evaluation in zip(self.curve, self.curve_evaluations, strict=True)
        ]


def summary(job: Job, returns: Any) -> dict[str, float]:
    """Mean and spread of returns, and the mean on D4RL's scale."""
    mean = float(np.mean(returns))
    return {
        "return_mean": mean,
        "return_std": float(np.std(returns)),
        "score": normalized_score(mean, job.task["reference_min"], job.task["reference_max"]),
    }


def make_record(
    job: Job,
    i: int,
    card: dict[str, Any],
    timing: dict[str, float],
    episodes: Episodes,
    curve: list[dict[str, Any]],
) -> Record:
    """The record of the stack's i-th seed."""
    final = summary(job, episodes.returns)
    final["length_mean"] = float(np.mean(episodes.lengths))
    last = curve[-LAST:]
    final["last10_score"] = float(np.mean([p["score"] for p in last])) if last else final["score"]
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


def train(job: Job, progress: Progress) -> None:
    """Runs one training job from dataset to records.

    Raises:
        Exception: what the agent raises; AgentError or PolicyError if it breaks the contract.
    """
    torch.set_num_threads(1)
    started, core_started = time.perf_counter(), time.process_time()
    training = Training(job, progress)
    final = training.run()
    total = time.perf_counter() - started
    # With one thread, processor time is what a run costs, however busy the machine is.
    on_cpu = job.device == "cpu"
    training.save(final, total, time.process_time() - core_started if on_cpu else total)


def prepare(job: Job, progress: Progress) -> None:
    """Makes a dataset ready and records the behaviour that logged it."""
    started = time.perf_counter()
    source = get_source(job.task["source"])
    folder = source.ensure(
        job.task["id"],
        job.data["size"],
        job.data["seed"],
        progress=lambda done, total: progress(done, total, "transitions"),
    )
    dataset = store.load(folder)
    returns, lengths = dataset.episodes()
    seconds = time.perf_counter() - started
    timing = {
        "data_s": seconds,
        "training_s": 0.0,
        "evaluation_s": 0.0,
        "total_s": seconds,
        "core_seconds": 0.0,
        "updates_per_s": 0.0,
        "peak_memory_mib": provenance.peak_memory_mib(),
    }
    episodes = Episodes(returns, lengths, np.full(len(returns), -1, np.int64))
    for path in job.paths:
        record = make_record(job, 0, dataset.card, timing, episodes, [])
        write_record(Path(job.out) / path, record, episodes)
