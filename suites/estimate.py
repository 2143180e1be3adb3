"""How long a plan will take on this machine, from a few seconds of measuring."""

from __future__ import annotations

from dataclasses import dataclass

from suites.datasets import Source
from suites.job import Job
from suites.measure import Speed, measure
from suites.studies import STUDIES

START_SECONDS = 3.0  # a worker's imports
JOB_SECONDS = 0.5  # checking a dataset's sha256, writing records
COLLECTING_SECONDS = 3e-4  # per step in online phases, beside acting and the simulator
# Episodes end early where a policy falls. Rough mean lengths, in steps of a 1000-step limit, of
# policies between random and expert; the estimate is meant to hold within a factor of 1.5.
MEAN_LENGTH = {"halfcheetah": 1000, "hopper": 450, "walker2d": 600}
RANDOM_LENGTH = {"halfcheetah": 1000, "hopper": 22, "walker2d": 20}
UNKNOWN_LENGTH = 500


@dataclass(frozen=True)
class Estimate:
    """Core-seconds of a job or of a plan, by part; ``unknown`` names agents not measurable.

    Collecting in online phases is part of training.
    """

    data: float = 0.0
    training: float = 0.0
    evaluation: float = 0.0
    unknown: tuple[str, ...] = ()

    @property
    def core_seconds(self) -> float:
        """All of it on one core."""
        return self.data + self.training + self.evaluation

    def wall_seconds(self, workers: int) -> float:
        """With all workers busy to the end."""
        return START_SECONDS + self.core_seconds / workers

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(
            self.data + other.data,
            self.training + other.training,
            self.evaluation + other.evaluation,
            tuple(dict.fromkeys(self.unknown + other.unknown)),
        )


def estimate(jobs: list[Job], source: Source) -> list[Estimate]:
    """Every job's share, measuring each agent once and each environment once."""

    def key(job: Job) -> tuple[str, ...]:
        # One environment speaks for all of an agent's, whose sizes differ little.
        if job.kind == "data":
            return ("data", job.task["env_id"] or "")
        return ("train", job.agent["label"], str(len(job.seeds)))

    representatives = {key(job): job for job in reversed(jobs)}
    speeds = dict(zip(representatives, measure(list(representatives.values())), strict=True))
    env_step = {
        representatives[k].task["env_id"]: speed.env_step for k, speed in speeds.items() if speed
    }
    return [_job(job, speeds[key(job)], env_step, source) for job in jobs]


def _job(job: Job, speed: Speed | None, env_step: dict[str, float], source: Source) -> Estimate:
    environment = job.task["environment"]
    seconds_per_step = env_step.get(job.task["env_id"], 1e-4)
    if job.kind == "data":
        if source.is_cached(job.key, job.data["size"], job.data["seed"]):
            return Estimate(data=JOB_SECONDS)
        size = job.data["size"] or source.default_size(job.key)
        # Recorded data is converted, not played.
        each = getattr(source, "SECONDS_PER_TRANSITION", seconds_per_step)
        return Estimate(data=JOB_SECONDS + size * each)
    if speed is None:
        return Estimate(unknown=(job.agent["label"],))
    budget = job.budget
    training = JOB_SECONDS + job.updates * speed.update
    training += job.env_steps * (speed.act + len(job.seeds) * seconds_per_step + COLLECTING_SECONDS)
    studies = len(job.seeds) * sum(STUDIES[name].seconds for name in job.studies)
    if job.task["env_id"] is None:
        return Estimate(training=training, evaluation=studies)
    lengths = RANDOM_LENGTH if job.agent["reference"] else MEAN_LENGTH
    limit = speed.horizon or 1000
    length = min(lengths.get(environment, UNKNOWN_LENGTH), limit)
    count = len(job.milestones)
    episodes = count * budget["evaluation_episodes"] + budget["final_episodes"]
    acts = (count + 1) * min(limit, 1.5 * length)  # a sweep lasts as long as its longest episode
    return Estimate(
        training=training,
        evaluation=studies
        + len(job.seeds) * episodes * length * seconds_per_step
        + acts * speed.act,
    )
