"""How fast agents and environments are here, measured in a process of its own.

Agents may be anybody's code: one that raises or kills its process must not take the planner along,
and workers' settings (threads, memory) should hold while measuring. Jobs come in on standard input
as one JSON list; a JSON line goes out per job.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from suites.job import Job
from suites.launch import WORKER_ENVIRONMENT

MEASURE_SECONDS = 0.3  # per number
MEASURE_CALLS = 3  # at least, however slow
WARM_CALLS = 3
EPISODES = 10  # environments stepped side by side
MANY = 200  # of those that are stepped by arithmetic on arrays
TIMEOUT = 120.0  # of one process, which measures as many jobs as it can
PARTS = ("one", "two", "three")  # of made-up rewards


@dataclass(frozen=True)
class Speed:
    """Seconds per gradient update of a stack, per ``act`` of it, and per environment step.

    The latter are 0 for tasks without a simulator. ``horizon`` is the simulator's time limit.
    """

    update: float
    act: float
    env_step: float
    horizon: int | None = None


def measure(jobs: list[Job]) -> list[Speed | None]:
    """Measures one job after another; None for one that fails."""
    found: list[Speed | None] = []
    while len(found) < len(jobs):
        rest = jobs[len(found) :]
        try:
            answer = subprocess.run(
                [sys.executable, "-m", "suites.measure"],
                input=json.dumps([asdict(job) for job in rest]),
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                env={**os.environ, **WORKER_ENVIRONMENT},
            )
            lines, died = answer.stdout.splitlines(), answer.returncode != 0
        except subprocess.TimeoutExpired as error:
            text = (error.stdout or b"").decode()  # whatever text=True says, these are bytes
            lines = text[: text.rfind("\n") + 1].splitlines()
            died = not lines  # else time may just have been short: the rest get as much again
        for line in lines:
            values = json.loads(line)
            found.append(None if values is None else Speed(**values))
        if died and len(found) < len(jobs):
            found.append(None)  # the one that it died of
    return found


def main() -> None:
    """Measures the jobs on standard input."""
    protocol = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    env_steps: dict[str | None, tuple[float, int | None]] = {None: (0.0, None)}
    for values in json.load(sys.stdin):
        job = Job(**values)
        env_id = job.task["env_id"]
        try:
            if env_id not in env_steps:
                env_steps[env_id] = _env_step(env_id)
            update, act = _agent(job) if job.kind == "train" else (0.0, 0.0)
            protocol.write(json.dumps(asdict(Speed(update, act, *env_steps[env_id]))) + "\n")
        except Exception:
            protocol.write("null\n")


def _env_step(env_id: str) -> tuple[float, int | None]:
    from suites.envs import make_vector
    from suites.envs.mujoco import DirectMujoco, GymnasiumLoop

    count, env = EPISODES, make_vector(env_id, EPISODES)
    if not isinstance(env, DirectMujoco | GymnasiumLoop):  # computed for all slots at once
        env.close()
        count, env = MANY, make_vector(env_id, MANY)
    env.action_space.seed(0)
    for i in range(count):
        env.reset(i, i)
    actions = np.stack([env.action_space.sample() for _ in range(count)])
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < MEASURE_SECONDS:
        played = env.step(actions)
        steps += count
        for i in np.flatnonzero(played.terminations | played.truncations).tolist():
            env.reset(i, steps + i)
    env.close()
    return (time.perf_counter() - started) / steps, env.horizon


def _agent(job: Job) -> tuple[float, float]:
    import torch
    from gymnasium.spaces import flatdim

    from baselines.common import Noise
    from baselines.registry import Registry, make_config, needs_of
    from suites.datasets.sampler import Sampler
    from suites.datasets.transforms import Transform
    from suites.train import make_spec, synchronize

    torch.set_num_threads(1)
    cls = Registry(job.plugins).get(job.agent["name"])
    config = make_config(cls, job.agent["config"], job.name)
    needs = needs_of(cls, config, job.name)
    dataset = made_up_dataset(job.task)
    transform = Transform.fit(dataset, needs)
    spec = make_spec(job, dataset, transform, needs)
    agent = cls(spec, config, job.seeds)
    sampler = Sampler(dataset, needs, transform, job.seeds, spec)
    update, wait = 0.0, partial(synchronize, spec.device)
    if job.updates:
        phase = spec.phases[0].name
        update = _seconds_per_call(lambda: agent.update(sampler.sample(), phase), wait)
    shape, dtype = (len(job.seeds), EPISODES), spec.torch_dtype()
    width = flatdim(spec.observation_space)
    flags = torch.ones(shape, dtype=torch.bool, device=spec.device)
    noise = Noise.for_episodes(
        job.seeds, "evaluation", 0, range(EPISODES), device=spec.device, dtype=dtype
    )
    step: Any = {
        "observations": torch.zeros(*shape, width, dtype=dtype, device=spec.device),
        "rewards": torch.zeros(shape, dtype=dtype, device=spec.device),
        "first": flags,
        "active": flags,
        "noise": noise,
    }
    with torch.no_grad():
        return update, _seconds_per_call(lambda: agent.act(step), wait)


def made_up_dataset(task: Mapping[str, Any]) -> Any:
    """A small dataset of noise with a task's shapes; only its speed is of interest."""
    from gymnasium.spaces import Box

    from suites.datasets import store
    from suites.datasets.history import History
    from suites.spaces import facts_of

    facts = facts_of(task)
    observation_space, action_space = facts["observation_space"], facts["action_space"]
    rng, rows, length = np.random.default_rng(0), 4000, 100
    history = History.of(observation_space)
    shape = (history.row,) if history else observation_space.shape or ()
    observations = rng.standard_normal((rows, *shape))
    if isinstance(action_space, Box):
        actions = rng.uniform(-0.9, 0.9, (rows, *action_space.shape))
    else:
        action_space.seed(0)
        actions = np.stack([action_space.sample() for _ in range(rows)])
    table, columns = store.pack(
        {
            "observations": observations,
            "actions": actions,
            "rewards": rng.standard_normal(rows),
            "next_observations": observations,
            "terminations": np.zeros(rows),
            "truncations": (np.arange(rows) % length == length - 1).astype(float),
            "policy_ids": rng.integers(0, 3, rows),
            "reward_parts": rng.standard_normal((rows, len(PARTS))),
        }
    )
    card = {
        "columns": columns,
        "reward_parts": list(PARTS),
        "policies": [{}, {}, {}],
        "transitions": rows,
        "episodes": rows // length,
        "return_mean": 0.0,
        "return_best": 1.0,
        "return_worst": -1.0,
    }
    return store.Dataset(None, card, table)


def _seconds_per_call(call: Callable[[], object], wait: Callable[[], None]) -> float:
    for _ in range(WARM_CALLS):
        call()
    wait()
    calls, started = 0, time.perf_counter()
    while calls < MEASURE_CALLS or time.perf_counter() - started < MEASURE_SECONDS:
        call()
        calls += 1
    wait()
    return (time.perf_counter() - started) / calls


if __name__ == "__main__":
    main()
