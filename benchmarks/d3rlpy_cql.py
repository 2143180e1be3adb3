"""Training speed of our CQL beside d3rlpy's, in one process and on one core.

    tox -e d3rlpy

d3rlpy pins other versions than ours, so that tox gives it an environment of its own. Both train at
the same size on hopper's spaces: twins and policy of two layers of 256, batches of 256, ten sampled
actions of each kind, no Lagrange multiplier. Batches are drawn beforehand; the two take turns, and
the best round of each counts, in seconds of processor time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import d3rlpy
import numpy as np
import torch
from gymnasium import spaces

from baselines.contract import Phase, Spec
from baselines.cql import CQL, CQLConfig

OBSERVATION, ACTION, BATCH, SAMPLES = 11, 3, 256, 10
ROWS, BATCHES = 20_000, 32  # of made-up data; batches that take turns
WARM_UP = 5


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Observations, actions, rewards and ends of made-up episodes of 100 steps."""
    rng = np.random.default_rng(0)
    ends = np.zeros(ROWS, np.float32)
    ends[99::100] = 1.0
    return (
        rng.normal(size=(ROWS, OBSERVATION)).astype(np.float32),
        rng.uniform(-1, 1, (ROWS, ACTION)).astype(np.float32),
        rng.normal(size=ROWS).astype(np.float32),
        ends,
    )


def theirs() -> Callable[[int], object]:
    """An update of d3rlpy's."""
    observations, actions, rewards, ends = data()
    dataset = d3rlpy.dataset.MDPDataset(observations, actions, rewards, ends)
    config = d3rlpy.algos.CQLConfig(
        batch_size=BATCH,
        n_action_samples=SAMPLES,
        initial_temperature=1.0,
        actor_learning_rate=3e-4,
        critic_learning_rate=3e-4,
        conservative_weight=5.0,
        alpha_learning_rate=0.0,
    )
    algorithm = config.create(device=False)
    algorithm.build_with_dataset(dataset)
    batches = [dataset.sample_transition_batch(BATCH) for _ in range(BATCHES)]
    return lambda i: algorithm.update(batches[i % BATCHES])


def ours() -> Callable[[int], object]:
    """An update of ours, one seed."""
    observations, actions, rewards, ends = data()
    spec = Spec(
        observation_space=spaces.Box(-np.inf, np.inf, (OBSERVATION,), np.float64),
        action_space=spaces.Box(-1.0, 1.0, (ACTION,), np.float32),
        phases=(Phase("offline", 1_000_000),),
    )
    agent = CQL(spec, CQLConfig(batch_size=BATCH, samples=SAMPLES), [0])
    rng = np.random.default_rng(1)
    batches = []
    for _ in range(BATCHES):
        rows = rng.integers(ROWS - 1, size=BATCH)
        columns = {
            "observations": observations[rows],
            "actions": actions[rows],
            "rewards": rewards[rows],
            "next_observations": observations[rows + 1],
            "terminations": ends[rows],
        }
        batches.append({k: torch.from_numpy(v).unsqueeze(0) for k, v in columns.items()})
    return lambda i: agent.update(batches[i % BATCHES], "offline")


def main() -> None:
    """Prints both rates and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=12, help="turns of each")
    parser.add_argument("--updates", type=int, default=10, help="updates in a turn")
    options = parser.parse_args()
    torch.set_num_threads(1)
    contestants = {f"d3rlpy {d3rlpy.__version__}": theirs(), "ours": ours()}
    for update in contestants.values():
        for i in range(WARM_UP):
            update(i)
    seconds = {name: [] for name in contestants}
    for turn in range(options.rounds):
        for name, update in contestants.items():
            started = time.process_time()
            for i in range(options.updates):
                update(turn * options.updates + i)
            seconds[name].append((time.process_time() - started) / options.updates)
    paired = np.divide(*seconds.values())  # theirs by ours, turn by turn
    print("| CQL, 2 x 256, batch 256, 10 actions | updates/s, best turn |")
    print("|---|---|")
    for name, found in seconds.items():
        print(f"| {name} | {1 / min(found):.1f} |")
    best = np.divide(*(min(found) for found in seconds.values()))
    print(f"\nours is {best:.2f} times as fast; {np.median(paired):.2f} by the median of turns")


if __name__ == "__main__":
    main()
