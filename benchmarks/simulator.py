"""Steps per second of the vectorised simulator against plain gymnasium, side by side in one run.

``OMP_NUM_THREADS=1 python benchmarks/simulator.py [--seconds 5]`` prints two tables:

* stepping: 32 environments stepped together with random actions, against a loop over one;
* data: dataset generation by a shipped policy, against the loop one would write with gymnasium and
  the same numpy policy, one observation at a time.

The contestants take turns in short rounds of processor time, so that a busy machine slows them
alike; the best round of each counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from suites.datasets import behaviour
from suites.datasets.behaviour import Policy
from suites.datasets.recipes.locomotion import ENVIRONMENTS, play_policy
from suites.envs import make_vector
from suites.envs.mujoco import make_one

ROUNDS = 5


def best_rates(contestants: dict[str, Callable[[], int]], seconds: float) -> dict[str, float]:
    """Units per processor second of each contestant: the best of its rounds, played in turn."""
    best = dict.fromkeys(contestants, 0.0)
    for _ in range(ROUNDS):
        for name, contestant in contestants.items():
            units, started = 0, time.process_time()
            while (elapsed := time.process_time() - started) < seconds / ROUNDS:
                units += contestant()
            best[name] = max(best[name], units / elapsed)
    return best


def loop(env_id: str, policy: Policy | None, noise: float, steps: int = 500) -> Callable[[], int]:
    """A plain gymnasium loop over one environment, keeping the transitions."""
    env, generator = make_one(env_id), np.random.default_rng(0)
    state = {"observation": env.reset(seed=0)[0]}
    size = env.action_space.shape[0]

    def play() -> int:
        rows = []
        for _ in range(steps):
            if policy is None:
                action = generator.uniform(-1.0, 1.0, size).astype(np.float32)
            else:
                draw = generator.standard_normal(size, np.float32)
                action = policy.act(state["observation"][None], noise * draw)[0]
            following, reward, terminated, truncated, _ = env.step(action)
            rows.append((state["observation"], action, reward, following, terminated, truncated))
            state["observation"] = env.reset()[0] if terminated or truncated else following
        return len(rows)

    return play


def vector(env_id: str, count: int = 32, steps: int = 50) -> Callable[[], int]:
    """Our simulator, with random actions; ended episodes are reset."""
    env, generator = make_vector(env_id, count), np.random.default_rng(0)
    for index in range(count):
        env.reset(index, index)

    def play() -> int:
        for _ in range(steps):
            actions = generator.uniform(-1.0, 1.0, (count, *env.action_space.shape))
            step = env.step(actions.astype(np.float32))
            for index in np.flatnonzero(step.terminations | step.truncations).tolist():
                env.reset(index, index)
        return steps * count

    return play


def shard(env_id: str, policy: Policy, noise: float) -> Callable[[], int]:
    """Our data generation."""
    return lambda: len(play_policy(env_id, policy, noise=noise, rows=50_000, entropy=(0,)).table)


def report(title: str, unit: str, lines: list[tuple[str, dict[str, float]]]) -> None:
    """Prints one table; the first contestant is the reference of the ratio."""
    print(f"\n{title}\n{'':>12}  {'gymnasium':>10}  {'ours':>10}  ratio   ({unit})")
    for name, rates in lines:
        plain, ours = rates["gymnasium"], rates["ours"]
        print(f"{name:>12}  {plain:10.0f}  {ours:10.0f}  {ours / plain:5.2f}")


def main() -> None:
    """The command line; see the module's text."""
    parser = argparse.ArgumentParser(description="Simulator and data generation against gymnasium.")
    parser.add_argument("--seconds", type=float, default=5.0, help="per contestant")
    seconds = parser.parse_args().seconds

    stepping, data = [], []
    for environment, env_id in ENVIRONMENTS.items():
        contestants = {"gymnasium": loop(env_id, None, 1.0), "ours": vector(env_id)}
        stepping.append((environment, best_rates(contestants, seconds)))
    report("Stepping, random actions", "environment steps/s", stepping)

    for environment, env_id in ENVIRONMENTS.items():
        index = behaviour.index(environment)
        if index is None:
            continue
        level = index["levels"]["medium"]
        policy = Policy.load(behaviour.folder(environment) / f"{level['checkpoint']}.npz")

        contestants = {
            "gymnasium": loop(env_id, policy, level["noise"]),
            "ours": shard(env_id, policy, level["noise"]),
        }
        data.append((environment, best_rates(contestants, seconds)))
    report("Data generation, medium policy", "transitions/s", data)


if __name__ == "__main__":
    main()
