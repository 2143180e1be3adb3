"""The simulated players of ``docs/players.md``: how fast they are, how far their policies overlap.

``python benchmarks/players.py`` prints days of players per second of one core (processor time), of
the vector environment and of a loop over single ones. ``python benchmarks/players.py overlap
[TRANSITIONS]`` prints, for every task of platform 0, how well a classifier tells from a day's row
who acted, and how far apart the three policies' rows lie, with the floor of that distance; both as
the study ``balance`` measures them. The same of the ten static numbers alone, which no policy can
have changed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from suites.catalog import ENVIRONMENTS
from suites.datasets import local, store
from suites.envs import make_vector
from suites.envs.mujoco import make_one
from suites.studies.balance import balanced_accuracy, classify, distances, draw, standardised
from suites.studies.context import Context

ENV_ID = "fastq_bench/players-0-v0"
DAYS = 4_000  # of each measurement, at least
TRANSITIONS = 60_000


def vector_speed(count: int) -> float:
    """Days per second of ``count`` slots, resets included; slots whose player left begin anew."""
    env = make_vector(ENV_ID, count)
    began, days, seed = time.process_time(), 0, count
    for slot in range(count):
        env.reset(slot, slot)
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (count, 3))
    while days < max(DAYS, 30 * count):
        step = env.step(actions)
        days += count
        for slot in np.flatnonzero(step.terminations | step.truncations).tolist():
            env.reset(slot, seed)
            seed += 1
    return days / (time.process_time() - began)


def single_speed() -> float:
    """The same of one gymnasium environment."""
    env = make_one(ENV_ID)
    env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (DAYS, 3)).astype(np.float32)
    began = time.process_time()
    for seed, action in enumerate(actions):
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset(seed=seed)
    return DAYS / (time.process_time() - began)


def overlap(task: str, transitions: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Accuracy of the classifier, with its interval, and the distance with its floor, by view."""
    data = store.load(local.ensure(task, transitions))
    nobody: Any = None  # these measures ask the context for the data and its policies alone
    context = Context(
        agent=nobody,
        spec=nobody,
        job=nobody,
        dataset=data,
        transform=nobody,
        policy_groups=np.arange(len(data.card["policies"])),
        curves=(),
        listen=lambda: None,
    )
    generator = np.random.default_rng(0)
    sample = draw(context, generator)
    rows = standardised(np.asarray(data.column("observations")[sample.rows], np.float64))
    for name, view in (("rows", rows), ("static", rows[:, : data.card["static"]])):
        accuracy = balanced_accuracy(classify(view, sample, seed=0), sample, generator)
        yield name, {**accuracy, **distances(view, sample, generator)}


def main(verb: str = "speed", transitions: str = str(TRANSITIONS)) -> None:
    if verb == "overlap":
        for quality in ENVIRONMENTS["players-0"].qualities:
            for view, found in overlap(f"players-0-{quality}", int(transitions)):
                print(
                    f"{quality:<12} {view:<6} accuracy {found['value']:.3f} [{found['low']:.3f}, "
                    f"{found['high']:.3f}], distance {found['between']:.3f}, floor "
                    f"{found['floor']:.3f}",
                    flush=True,
                )
    elif verb == "speed":
        print(f"single environment        {single_speed():10,.0f} days per second")
        for count in (1, 32, 256, 1024):
            print(f"vector of {count:<5} players   {vector_speed(count):10,.0f} days per second")
    else:
        raise SystemExit(f"{verb}: no such verb; there are speed and overlap")


if __name__ == "__main__":
    main(*sys.argv[1:])
