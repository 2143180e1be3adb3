"""The one training loop: a stack of cells in, one record per seed out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baselines.contract import Agent, Metrics, Needs, Phase, Spec
from baselines.registry import Registry, make_config, needs_of
from results.record import Episodes, write_record
from suites import provenance
from suites.checkpoint import (
    Keeper,
    ResumeError,
    StorageError,
    circumstances,
    claimed,
    storing,
)
from suites.datasets import get_source, store
from suites.datasets.groups import policy_groups
from suites.datasets.sampler import Sampler, whole
from suites.datasets.store import Dataset
from suites.datasets.transforms import Transform
from suites.diagnosis import Finding, new_findings
from suites.evaluate import (
    CURVE_RESET_SEED,
    FINAL_RESET_SEED,
    Evaluation,
    Evaluator,
    NoSimulator,
)
from suites.job import Job, env_steps_due, is_online, read_state
from suites.online import Collector
from suites.ope import judge
from suites.recording import make_record, metric_points, save
from suites.spaces import facts_of
from suites.studies.context import Context, Outcome, run_study

Progress = Callable[[int, int, str], None]  # done, total, what
Note = Callable[[str], None]  # a sentence for people
REPORT_SECONDS = 1.0


class AgentError(RuntimeError):
    """An agent broke the contract while training; the message says how."""


def open_dataset(job: Job, progress: Callable[[int, int], None] | None = None) -> Dataset:
    """The job's dataset, made first if it is not there.

    Raises:
        DatasetError: if it cannot be had, or is no longer what was planned.
    """
    source = get_source(job.task["source"])
    folder = source.ensure(job.key, job.data["size"], job.data["seed"], progress=progress)
    dataset = store.load(folder)
    if dataset.card["id"] != job.cell["dataset"]["id"]:
        raise store.DatasetError(
            f"the data of {job.task['id']} has changed since this was planned; run the command "
            "again, and its results will be new ones"
        )
    return dataset


def make_spec(job: Job, dataset: Dataset, transform: Transform, needs: Needs) -> Spec:
    """What the agent may know of its task."""
    card = dataset.card
    spec = Spec(
        **facts_of(job.task),
        phases=job.stages,
        reward_parts=tuple(card.get("reward_parts", ())),
        policies=len(card.get("policies", ())),
        policy_groups=(
            int(policy_groups(card, needs.policy_groups).max()) + 1 if card.get("policies") else 0
        ),
        statistics={
            key: card[key]
            for key in ("transitions", "episodes", "return_mean", "return_best", "return_worst")
        }
        | {"reward_scale": transform.reward_scale},
        device=job.device,
        dtype=job.precision,
    )
    if not needs.dataset:
        return spec
    return replace(spec, dataset=whole(dataset, needs, transform, spec))


def make_random(spec: Spec, seeds: Sequence[int]) -> Agent:
    """The agent that acts uniformly at random."""
    cls = Registry().get("random")
    agent: Agent = cls(spec, cls.Config(), seeds)
    return agent


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
    """One job on its way: dataset, agent, sampler and evaluators, and what they have produced.

    Everything that the rest of the training depends on is in :meth:`state_dict`.
    """

    def __init__(self, job: Job, progress: Progress, note: Note) -> None:
        self.job, self.progress, self.note = job, progress, note
        self.started, self.core_started = time.perf_counter(), time.process_time()
        parts = ("data", "training", "collection", "evaluation", "total", "core")
        self.seconds = dict.fromkeys(parts, 0.0)
        self.done = 0  # updates
        self.resumes: list[dict[str, Any]] = []
        self.reported = -REPORT_SECONDS
        started = time.perf_counter()
        self.dataset, self.held_out = open_dataset(job).split()
        self.seconds["data"] = time.perf_counter() - started

        who = f'agent "{job.agent["label"]}"'
        cls = Registry(job.plugins).get(job.agent["name"])
        config = make_config(cls, job.agent["config"], who)
        self.needs = needs = needs_of(cls, config, who)
        self.transform = Transform.fit(self.dataset, needs)
        self.spec = make_spec(job, self.dataset, self.transform, needs)
        self.agent: Agent = cls(self.spec, config, job.seeds)
        self.collector: Collector | None = None
        if any(is_online(phase) for phase in self.spec.phases):
            self.collector = Collector(
                job.task["env_id"], self.spec, job.seeds, self.transform, self.dataset, needs
            )
        self.sampler = Sampler(
            self.dataset,
            needs,
            self.transform,
            job.seeds,
            self.spec,
            None if self.collector is None else self.collector.replay,
        )
        self.curve: list[dict[str, Any]] = []
        self.findings: list[list[Finding]] = [[] for _ in job.seeds]
        self.studies: dict[str, list[Outcome]] = {}
        self.curve_evaluations: list[Evaluation] = []
        self.measures: tuple[str, ...] = ()  # of the final evaluation
        self.judged: list[dict[str, float]] = [{} for _ in job.seeds]  # by held-out data
        self.keeper = Keeper(job, circumstances(job, self.dataset.card["sha256"]))

    def state_dict(self) -> dict[str, Any]:
        """Where the training stands; tensors, numbers, strings, and dicts and lists of these."""
        return {
            "done": self.done,
            "agent": self.agent.state_dict(),
            "sampler": self.sampler.state_dict(),
            "curve": self.curve,
            "findings": self.findings,
            "collector": None if self.collector is None else self.collector.state_dict(),
            "evaluations": [evaluation.to_tensors() for evaluation in self.curve_evaluations],
            "seconds": self.spent(),
            "resumes": self.resumes,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to where ``state_dict`` was taken."""
        self.done = int(state["done"])
        self.agent.load_state_dict(state["agent"])
        self.sampler.load_state_dict(state["sampler"])
        if self.collector is not None:
            self.collector.load_state_dict(state["collector"])
        self.curve = list(state["curve"])
        self.findings = list(state.get("findings", self.findings))  # older checkpoints lack it
        self.curve_evaluations = [Evaluation.from_tensors(e) for e in state["evaluations"]]
        self.seconds = {**self.seconds, **state["seconds"]}  # older checkpoints lack a part
        self.resumes = list(state["resumes"])
        self.started, self.core_started = time.perf_counter(), time.process_time()

    def spent(self) -> dict[str, float]:
        """Seconds by part; what was lost to interruptions is not in them."""
        total = time.perf_counter() - self.started
        # With one thread, processor time is what a run costs, however busy the machine is.
        core = time.process_time() - self.core_started if self.job.device == "cpu" else total
        seconds = self.seconds
        return {**seconds, "total": seconds["total"] + total, "core": seconds["core"] + core}

    def resume(self) -> None:
        """Continues from the last checkpoint, if there is one.

        Raises:
            ResumeError: if it would not continue bit for bit and this was not allowed.
        """
        state, exact, notes = self.keeper.load()
        for note in notes:
            self.note(note)
        if state is not None:
            self.load_state_dict(state)
            self.resumes.append({"update": self.done, "exact": exact, "notes": notes})
            self.note(f"goes on from its checkpoint after update {self.done:,}")

    def checkpoint(self) -> None:
        """Saves where the training stands; a full disk costs the checkpoint, not the training."""
        try:
            self.keeper.save(self.state_dict())
        except StorageError as error:
            self.keeper.postpone()
            self.note(f"training goes on without a new checkpoint: {error}")

    def tell(self, what: str) -> None:
        """Reports progress, at most once in a while; a sign of life, too."""
        if time.monotonic() - self.reported > REPORT_SECONDS:
            self.progress(self.done, self.job.updates, what)
            self.reported = time.monotonic()

    def evaluator(self, episodes: int, first_reset_seed: int) -> Evaluator | NoSimulator:
        """An evaluator for this job's stack."""
        if self.job.task["env_id"] is None:
            return NoSimulator(self.job.seeds)
        return Evaluator(
            self.job.task["env_id"],
            self.spec,
            self.job.seeds,
            self.transform,
            episodes,
            first_reset_seed,
        )

    def collect(self, phase: Phase) -> None:
        """Makes the environment steps that come before the next update."""
        assert self.collector is not None
        started = time.perf_counter()
        due = env_steps_due(self.spec.phases, self.done + 1)
        if not self.done and self.collector.steps < phase.warmup_env_steps:
            # Nobody has learnt anything yet.
            anybody = make_random(self.spec, self.job.seeds)
            while self.collector.steps < phase.warmup_env_steps:
                self.collector.step(anybody)
                self.tell("environment steps")
        while self.collector.steps < due:
            self.collector.step(self.agent)
            self.tell("environment steps")
        self.seconds["collection"] += time.perf_counter() - started

    def run(self) -> Evaluation:
        """Trains through what is left of all phases, and plays the final episodes."""
        self.resume()
        budget, total = self.job.budget, self.job.updates
        milestones = self.job.milestones
        evaluator = self.evaluator(budget["evaluation_episodes"], CURVE_RESET_SEED)
        ends = accumulate(phase.updates for phase in self.spec.phases)
        for phase, end in zip(self.spec.phases, ends, strict=True):
            while self.done < end:
                if is_online(phase):
                    self.collect(phase)
                since = time.perf_counter()
                metrics = self.agent.update(self.sampler.sample(phase.source), phase.name)
                self.done += 1
                if self.done in milestones or self.done in (1, total):
                    check_metrics(metrics, len(self.job.seeds), self.done)
                    synchronize(self.spec.device)
                self.seconds["training"] += time.perf_counter() - since
                if self.done in milestones:
                    self.evaluate(evaluator, phase.name, metrics)
                if self.done in milestones or self.done == total:
                    self.diagnose(metrics)
                if self.keeper.due() or self.done == total:
                    self.checkpoint()
                self.tell("updates")
        evaluator.close()
        if self.collector is not None:
            self.collector.close()

        self.progress(self.done, total, "final evaluation")
        started = time.perf_counter()
        final_evaluator = self.evaluator(budget["final_episodes"], FINAL_RESET_SEED)
        final = final_evaluator.run(self.agent, len(self.curve), self.evaluating)
        self.measures = final_evaluator.measures
        final_evaluator.close()
        if self.held_out is not None:
            self.judged = judge(
                self.agent,
                self.spec,
                self.transform,
                self.held_out,
                self.job.seeds,
                self.dataset,
            )
        self.seconds["evaluation"] += time.perf_counter() - started
        return final

    def evaluate(self, evaluator: Evaluator | NoSimulator, phase: str, metrics: Metrics) -> None:
        """One evaluation during training; becomes a point of every seed's learning curve."""
        started = time.perf_counter()
        self.curve_evaluations.append(evaluator.run(self.agent, len(self.curve), self.evaluating))
        values = {name: value.detach().double().tolist() for name, value in metrics.items()}
        self.curve.append(
            {
                "update": self.done,
                "phase": phase,
                "env_steps": 0 if self.collector is None else self.collector.steps,
                "metrics": values,
            }
        )
        self.seconds["evaluation"] += time.perf_counter() - started

    def diagnose(self, metrics: Metrics) -> None:
        """Asks the agent what it finds wrong in its metrics, and tells of what is new."""
        for i, (seed, known) in enumerate(zip(self.job.seeds, self.findings, strict=True)):
            points = metric_points(self.curve, i)
            if not points or points[-1]["update"] != self.done:  # the end, without an evaluation
                last = {name: float(value[i]) for name, value in metrics.items()}
                points.append({"update": self.done, "metrics": last})
            for finding in new_findings(self.agent, points, known):
                known.append(finding)
                who = f"seed {seed}: " if len(self.job.seeds) > 1 else ""
                self.note(
                    f"{who}{finding['name']} by update {finding['update']:,}: {finding['text']}"
                )

    def study(self) -> None:
        """Runs the studies that were asked for; their time is no part of the training's."""
        if not self.job.studies:
            return
        wall, core = time.perf_counter(), time.process_time()
        card = self.dataset.card
        context = Context(
            agent=self.agent,
            spec=self.spec,
            job=self.job,
            dataset=self.dataset,
            transform=self.transform,
            policy_groups=(
                policy_groups(card, self.needs.policy_groups) if card.get("policies") else None
            ),
            curves=[metric_points(self.curve, i) for i in range(len(self.job.seeds))],
            listen=lambda: self.tell("studies"),
        )
        for name in self.job.studies:
            self.progress(self.done, self.job.updates, f"study: {name}")
            self.studies[name] = run_study(name, context)
        wall, core = time.perf_counter() - wall, time.process_time() - core
        self.seconds["studies"] = wall
        self.started += wall
        self.core_started += core

    def evaluating(self) -> None:
        """Hears of every step of an evaluation."""
        self.tell("evaluation")


def synchronize(device: str) -> None:
    """Waits for what a GPU was told to do, before a clock is read."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def train(job: Job, progress: Progress, note: Note) -> None:
    """Runs one training job from dataset to records, or what is left of it.

    Raises:
        BusyError: at once, if another run is working on one of its cells.
        ResumeError: if its checkpoint would not continue bit for bit and this was not allowed.
        StorageError: if the output folder cannot be written.
        Exception: what the agent raises; AgentError or PolicyError if it breaks the contract.
    """
    torch.set_num_threads(1)
    folders = [Path(job.out) / path for path in job.paths]
    with claimed(folders):
        if all(read_state(folder) == "done" for folder in folders):
            return  # another run has been here since this one was planned
        training = Training(job, progress, note)
        try:
            final = training.run()
        except (StorageError, ResumeError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:
            # The agent's own fault would come again, and mended it must not go on from here.
            training.keeper.remove()
            raise
        training.study()  # what goes wrong here costs no training: the last checkpoint stays
        save(training, final)


def prepare(job: Job, progress: Progress) -> None:
    """Makes a dataset ready and records the behaviour that logged it."""
    started = time.perf_counter()
    dataset = open_dataset(job, lambda done, total: progress(done, total, "transitions"))
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
    nowhere = np.full(len(returns), -1, np.int64)
    episodes = Episodes(returns, lengths, nowhere, measures=dataset.episode_measures())
    for path in job.paths:
        folder = Path(job.out) / path
        record = make_record(job, 0, dataset.card, timing, episodes, [])
        with storing(folder):
            write_record(folder, record, episodes)
