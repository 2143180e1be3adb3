"""Evaluation's environment steps per second against a plain gymnasium loop, in one run.

The plain loop is what most published code does: one environment, one observation at a time through
the same policy, episode after episode. Both play the same episodes, one thread each.

    python benchmarks/evaluation.py
"""

from __future__ import annotations

import time

import gymnasium
import numpy as np
import torch

from baselines.bc import BC, BCConfig
from baselines.contract import Spec
from suites.datasets.transforms import Transform
from suites.evaluate import Evaluator

EPISODES = 10
ROUNDS = 3


def plain(env_id: str, agent: BC) -> tuple[int, float]:
    """Plays the episodes one by one; returns steps and seconds."""
    env = gymnasium.make(env_id)
    steps, started = 0, time.perf_counter()
    for seed in range(EPISODES):
        observation, _ = env.reset(seed=seed)
        over = False
        while not over:
            seen = torch.as_tensor(observation, dtype=torch.float32)[None, None]
            with torch.no_grad():
                action = agent.act({"observations": seen})[0][0, 0].numpy()  # type: ignore[typeddict-item]
            observation, _, terminated, truncated, _ = env.step(action)
            steps += 1
            over = terminated or truncated
    seconds = time.perf_counter() - started
    env.close()
    return steps, seconds


def lockstep(env_id: str, spec: Spec, agent: BC, seeds: list[int]) -> tuple[int, float]:
    """Plays the same episodes side by side for every seed; returns steps and seconds."""
    (size,) = spec.observation_space.shape or ()
    identity = Transform(np.zeros(size), np.ones(size), 1.0)
    evaluator = Evaluator(env_id, spec, seeds, identity, EPISODES, first_reset_seed=0)
    started = time.perf_counter()
    evaluation = evaluator.run(agent, 0)
    seconds = time.perf_counter() - started
    evaluator.close()
    return int(evaluation.lengths.sum()), seconds


def main() -> None:
    """Prints a table of medians over interleaved rounds."""
    torch.set_num_threads(1)
    print(f"{'environment':<16}{'plain':>12}{'1 seed':>12}{'ratio':>8}{'5 seeds':>12}{'ratio':>8}")
    for env_id in ("Hopper-v5", "Walker2d-v5", "HalfCheetah-v5"):
        env = gymnasium.make(env_id)
        spec = Spec(env.observation_space, env.action_space)
        env.close()
        agents = {count: BC(spec, BCConfig(), range(count)) for count in (1, 5)}
        rates: dict[str, list[float]] = {"plain": [], "1": [], "5": []}
        for _ in range(ROUNDS):
            for name, (steps, seconds) in {
                "plain": plain(env_id, agents[1]),
                "1": lockstep(env_id, spec, agents[1], [0]),
                "5": lockstep(env_id, spec, agents[5], list(range(5))),
            }.items():
                rates[name].append(steps / seconds)
        base, one, five = (float(np.median(rates[name])) for name in ("plain", "1", "5"))
        print(
            f"{env_id:<16}{base:>10,.0f}/s{one:>10,.0f}/s{one / base:>7.2f}x"
            f"{five:>10,.0f}/s{five / base:>7.2f}x"
        )


if __name__ == "__main__":
    main()
