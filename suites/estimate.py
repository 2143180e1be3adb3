"""How long a plan will take on this machine, measured in a few seconds before it starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from suites.datasets import store
from suites.job import Job
from suites.plan import SuitePlan

MEASURE_SECONDS = 0.4  # per agent and environment
MEASURE_UPDATES = 3  # at least, however slow
WARM_UPDATES = 3
MEASURE_EPISODES = 10  # environments stepped side by side while measuring
START_SECONDS = 3.0  # a worker's imports, shared by its jobs
# Episodes end early where a policy falls. Rough mean lengths, in steps of a 1000-step limit, of
# policies between random and expert; the estimate is meant to hold within a factor of 1.5.
MEAN_LENGTH = {"halfcheetah": 1000, "hopper": 450, "walker2d": 600}
RANDOM_LENGTH = {"halfcheetah": 1000, "hopper": 22, "walker2d": 20}


@dataclass(frozen=True)
class Estimate:
    """Core-seconds by part, and wall seconds with a number of workers."""

    data: float = 0.0
    training: float = 0.0
    evaluation: float = 0.0
    workers: int = 1

    @property
    def core_seconds(self) -> float:
        """All of it on one core."""
        return self.data + self.training + self.evaluation

    @property
    def wall_seconds(self) -> float:
        """With all workers busy to the end."""
        return START_SECONDS + self.core_seconds / self.workers


class Estimator:
    """Measures environments and agents on first use and adds up what jobs will take."""

    def __init__(self, plan: SuitePlan) -> None:
        self.plan = plan
        self._env: dict[str, float] = {}
        # By label and stack; one environment speaks for all, whose sizes differ little.
        self._update: dict[tuple[str, int], float] = {}
        self._act: dict[tuple[str, int], float] = {}

    def job(self, job: Job) -> Estimate:
        """One job's share."""
        env_id, environment = job.task["env_id"], job.task["environment"]
        if job.kind == "data":
            if self.plan.source.is_cached(job.task["id"], job.data["size"], job.data["seed"]):
                return Estimate()
            size = job.data["size"] or self.plan.source.default_size(job.task["id"])
            return Estimate(data=size * self.env_step_seconds(env_id))
        budget = job.budget
        lengths = RANDOM_LENGTH if job.agent["reference"] else MEAN_LENGTH
        episodes = budget["evaluations"] * budget["evaluation_episodes"] + budget["final_episodes"]
        sweeps = budget["evaluations"] + 1
        self._measure_agent(job)
        key = (job.agent["label"], len(job.seeds))
        steps = len(job.seeds) * episodes * lengths[environment]
        acts = sweeps * min(1000, 1.5 * lengths[environment])
        return Estimate(
            training=job.updates * self._update[key],
            evaluation=steps * self.env_step_seconds(env_id) + acts * self._act[key],
        )

    def total(self, jobs: list[Job], workers: int) -> Estimate:
        """All jobs together."""
        total = Estimate(workers=workers)
        for job in jobs:
            part = self.job(job)
            total = replace(
                total,
                data=total.data + part.data,
                training=total.training + part.training,
                evaluation=total.evaluation + part.evaluation,
            )
        return total

    def env_step_seconds(self, env_id: str) -> float:
        """Seconds per environment step under random actions."""
        if env_id not in self._env:
            from suites.envs import make_vector

            env = make_vector(env_id, MEASURE_EPISODES)
            rng = np.random.default_rng(0)
            low, high = env.action_space.low, env.action_space.high
            for i in range(MEASURE_EPISODES):
                env.reset(i, i)
            steps, started = 0, time.perf_counter()
            while time.perf_counter() - started < MEASURE_SECONDS:
                played = env.step(rng.uniform(low, high, (MEASURE_EPISODES, len(low))))
                steps += MEASURE_EPISODES
                for i in np.flatnonzero(played.terminations | played.truncations):
                    env.reset(int(i), steps + int(i))
            self._env[env_id] = (time.perf_counter() - started) / steps
            env.close()
        return self._env[env_id]

    def _measure_agent(self, job: Job) -> None:
        key = (job.agent["label"], len(job.seeds))
        if key in self._update:
            return
        import torch

        from baselines.common import Noise
        from baselines.registry import make_config, needs_of
        from suites.datasets.sampler import Sampler
        from suites.datasets.transforms import Transform
        from suites.train import make_spec

        torch.set_num_threads(1)
        row = next(row for row in self.plan.rows if row.label == job.agent["label"])
        config = make_config(row.cls, row.config, row.label)
        needs = needs_of(row.cls, config, row.label)
        dataset = self._made_up_dataset(job)
        spec = make_spec(job, dataset)
        agent = row.cls(spec, config, job.seeds)
        sampler = Sampler(dataset, needs, Transform.fit(dataset, needs), job.seeds, spec)
        phase = spec.phases[0].name
        self._update[key] = 0.0
        if job.updates:
            for _ in range(WARM_UPDATES):
                agent.update(sampler.sample(), phase)
            self._update[key] = _seconds_per_call(lambda: agent.update(sampler.sample(), phase))
        observation, seeds = spec.observation_space.shape or (), len(job.seeds)
        step = {
            "observations": torch.zeros(seeds, MEASURE_EPISODES, *observation, dtype=spec.torch_dtype()),
            "rewards": torch.zeros(seeds, MEASURE_EPISODES, dtype=spec.torch_dtype()),
            "first": torch.ones(seeds, MEASURE_EPISODES, dtype=torch.bool),
            "active": torch.ones(seeds, MEASURE_EPISODES, dtype=torch.bool),
            "noise": Noise.for_episodes(
                job.seeds, "evaluation", 0, range(MEASURE_EPISODES), dtype=spec.torch_dtype()
            ),
        }
        step = {k: v.to(spec.device) if isinstance(v, torch.Tensor) else v for k, v in step.items()}
        with torch.no_grad():
            self._act[key] = _seconds_per_call(lambda: agent.act(step))

    def _made_up_dataset(self, job: Job) -> store.Dataset:
        from suites.envs import make_vector

        env = make_vector(job.task["env_id"], 1)
        rng, rows = np.random.default_rng(0), 4000
        observations = rng.standard_normal((rows, *(env.observation_space.shape or ())))
        actions = rng.uniform(-0.9, 0.9, (rows, *(env.action_space.shape or ())))
        flags = np.zeros(rows)
        fields = {
            "observations": observations,
            "actions": actions,
            "rewards": rng.standard_normal(rows),
            "next_observations": observations,
            "terminations": flags,
            "truncations": (np.arange(rows) % 100 == 99).astype(float),
            "policy_ids": rng.integers(0, 3, rows),
            "reward_parts": rng.standard_normal((rows, max(1, len(env.reward_parts)))),
        }
        table, columns = store.pack(fields)
        card = {
            "columns": columns,
            "reward_parts": list(env.reward_parts),
            "policies": [{}, {}, {}],
            "transitions": rows,
            "episodes": rows // 100,
            "return_mean": 0.0,
            "return_best": 1.0,
            "return_worst": -1.0,
        }
        env.close()
        return store.Dataset(None, card, table)


def _seconds_per_call(call: Callable[[], object]) -> float:
    calls, started = 0, time.perf_counter()
    while calls < MEASURE_UPDATES or time.perf_counter() - started < MEASURE_SECONDS:
        call()
        calls += 1
    return (time.perf_counter() - started) / calls
