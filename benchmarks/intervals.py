"""What the report's intervals are worth, and what they cost.

``python benchmarks/intervals.py`` prints how often a nominal 95 % interval holds the truth on nine
tasks (``--tasks 3``: those of ``core3``, ``--tasks 1``: one of these), by method, number of runs,
spread of the runs and statistic, and how wide it is; how often the exact test rejects where there
is nothing to find; the lines that ``analysis.stats.coverage`` quotes (from 2000 experiments on nine
tasks, 1000 on fewer); and how long the bootstrap takes here and in rliable.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis.stats import (
    AGGREGATES,
    Estimate,
    FloatArray,
    Method,
    aggregates,
    estimate_aggregates,
    estimate_improvement,
    estimate_profile,
    exact_p_value,
    probability_of_improvement,
)

QUALITIES = ("medium", "medium-replay", "medium-expert")
TASKS = {  # by number, those whose published scores are taken
    1: ["walker2d-medium-expert"],
    3: ["hopper-medium-replay", "walker2d-medium-expert", "halfcheetah-medium"],
    9: [f"{body}-{data}" for body in ("halfcheetah", "hopper", "walker2d") for data in QUALITIES],
}
LEVEL = 0.05
SHIFT = 4.0  # how much less the other agent scores, on every task
APART = 12.0  # how much less or more, in turn, where the two are "opposed"
NAMES = [*AGGREGATES, "P(X > Y)"]
PUBLISHED = Path(__file__).parents[1] / "results" / "published" / "d4rl_scores.csv"
PAPER = "Fujimoto & Gu 2021"  # TD3+BC on D4RL's v2 locomotion tasks, mean and deviation of 5 seeds
SPREADS = (2.0, 6.0, 15.0)  # of the runs of made-up suites with unequal ones, in turn
HUMP = 0.3  # share of the runs that end on the lower hump
DROP = 40.0  # how far below

Sampler = Callable[[tuple[int, ...], np.random.Generator], FloatArray]


def published(names: list[str]) -> tuple[FloatArray, FloatArray]:
    """Means and standard deviations over runs of TD3+BC on these tasks."""
    with PUBLISHED.open(newline="", encoding="utf-8") as stream:
        found = {
            row["task"]: (float(row["score"]), float(row["std"]))
            for row in csv.DictReader(stream)
            if row["agent"] == "td3_bc" and row["source"].startswith(PAPER)
        }
    means, deviations = np.array([found[name] for name in names]).T
    return means, deviations


def samplers(tasks: int) -> dict[str, Sampler]:
    """By name, what draws ``[..., tasks]`` scores of runs."""
    means, deviations = published(TASKS[tasks])
    expert = np.array([task.endswith("-expert") for task in TASKS[tasks]])
    levels = np.linspace(10.0, 110.0, tasks)
    unequal = np.resize(SPREADS, tasks)

    def normal(shape: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
        return rng.standard_normal((*shape, tasks))

    def heavy(shape: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
        noise = rng.standard_t(3, (*shape, tasks)) / np.sqrt(3.0)  # of variance one
        return np.asarray(levels + unequal * noise)

    def humps(shape: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
        fallen = expert & (rng.random((*shape, tasks)) < HUMP)
        return means + deviations * normal(shape, rng) - DROP * fallen

    return {
        "equal": lambda shape, rng: levels + 6.0 * normal(shape, rng),
        "unequal": lambda shape, rng: levels + unequal * normal(shape, rng),
        "d4rl": lambda shape, rng: means + deviations * normal(shape, rng),
        "heavy": heavy,
        "humps": humps,
        "opposed": lambda shape, rng: levels + 4.0 * normal(shape, rng),
    }


def shift_of(spread: str, tasks: int) -> FloatArray:
    """How much less the other agent scores, ``[tasks]``."""
    return np.resize([APART, -APART], tasks) if spread == "opposed" else np.full(tasks, SHIFT)


def truth_of(draw: Sampler, shift: FloatArray, rng: np.random.Generator) -> FloatArray:
    """What the intervals should hold, in the order of ``NAMES``."""
    improvement = np.mean(
        [
            probability_of_improvement(draw((500,), rng), draw((500,), rng) - shift)
            for _ in range(20)
        ]
    )
    return np.append(aggregates(draw((200_000,), rng)), improvement)


def measure(
    draw: Sampler, shift: FloatArray, runs: int, experiments: int, rng: np.random.Generator
) -> dict[Method, tuple[FloatArray, FloatArray]]:
    """Share of the intervals that hold the truth, and their mean width, by method.

    Where there is no interval, nothing is counted; NaN if there is none at all.
    """
    truth = truth_of(draw, shift, rng)
    hits, widths, counts = (
        {method: np.zeros(len(NAMES)) for method in get_args(Method)} for _ in range(3)
    )
    for _ in range(experiments):
        ours, theirs = draw((runs,), rng), draw((runs,), rng) - shift
        seed = int(rng.integers(1 << 62))
        for method in hits:
            how = {"repetitions": 1000, "method": method}
            found: list[Estimate] = [
                estimate_aggregates(ours, rng=np.random.default_rng(seed), **how),
                estimate_improvement(ours, theirs, rng=np.random.default_rng(seed), **how),
            ]
            low = np.hstack([each.low for each in found])
            high = np.hstack([each.high for each in found])
            there = high > low  # without width, the report shows none
            hits[method] += there & (low <= truth) & (truth <= high)
            widths[method] += np.nan_to_num(high - low)
            counts[method] += there
    with np.errstate(invalid="ignore"):
        return {
            method: (hits[method] / counts[method], widths[method] / counts[method])
            for method in hits
        }


def false_alarms(draw: Sampler, runs: int, experiments: int, rng: np.random.Generator) -> float:
    """Share of experiments in which the exact test tells two equal agents apart."""
    pairs = ((draw((runs,), rng), draw((runs,), rng)) for _ in range(experiments))
    return float(np.mean([exact_p_value(ours, theirs) < LEVEL for ours, theirs in pairs]))


def table(tasks: int, runs: list[int], experiments: int, rng: np.random.Generator) -> None:
    """Prints coverage, widths and the lines for ``analysis.stats``."""
    print(f"{'method':11} {'runs':>4} {'spread':8}" + "".join(f"{name:>15}" for name in NAMES))
    ranges: dict[tuple[Method, int], list[FloatArray]] = {}
    alarms = []
    for count in runs:
        for spread, draw in samplers(tasks).items():
            found = measure(draw, shift_of(spread, tasks), count, experiments, rng)
            alarms.append(false_alarms(draw, count, experiments, rng))
            plain = found["percentile"][1]
            for method, (shares, widths) in found.items():
                if np.isnan(widths).any():
                    continue  # too few runs for an interval
                ranges.setdefault((method, count), []).append(shares)
                cells = "".join(
                    f"{100 * share:8.1f} % x{width:4.2f}"
                    for share, width in zip(shares, widths / plain, strict=True)
                )
                print(f"{method:11} {count:4d} {spread:8}{cells}", flush=True)
    print(f"exact test at level {LEVEL:g}: {min(alarms):.3f} to {max(alarms):.3f} false alarms")
    kept = {"aggregate": [0, 2, 3], "improvement": [4]}  # of NAMES: IQM, mean, optimality gap
    for (method, count), rows in ranges.items():
        for of, columns in kept.items():
            some = 100 * np.array(rows)[:, columns]
            print(f"{method} {of} {count}: ({some.min():.0f}, {some.max():.0f}),")


def seconds(repetitions: int, rng: np.random.Generator) -> None:
    """Prints the time of IQM intervals here and in rliable, and of a whole report's intervals."""
    draw = samplers(9)["d4rl"]
    agents = {name: draw((5,), rng) for name in "xyz"}
    start = time.perf_counter()
    for matrix in agents.values():
        estimate_aggregates(matrix, rng=rng, repetitions=repetitions)
    ours = time.perf_counter() - start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its dependencies, at import
        from rliable import library, metrics
    start = time.perf_counter()
    library.get_interval_estimates(
        agents,
        lambda matrix: np.array(
            [
                metrics.aggregate_iqm(matrix),
                metrics.aggregate_median(matrix),
                metrics.aggregate_mean(matrix),
                metrics.aggregate_optimality_gap(matrix, 100.0),
            ]
        ),
        reps=repetitions,
    )
    rliable = time.perf_counter() - start
    print(
        f"aggregates of 3 agents, {repetitions} resamples: {ours:.3f} s here, {rliable:.1f} s in "
        f"rliable, ratio {rliable / ours:.0f}"
    )
    many = [rng.normal(50.0, 5.0, (5, 15)) for _ in range(8)]
    start = time.perf_counter()
    for i, x in enumerate(many):
        for columns in (range(15), range(5), range(5, 10), range(10, 15)):
            estimate_aggregates(x[:, columns], rng=rng)
        estimate_profile(x, np.linspace(0.0, 120.0, 201), rng=rng, repetitions=2000)
        for y in many[:i]:
            estimate_improvement(x, y, rng=rng)
    print(f"all intervals of 8 agents, 15 tasks, 600 runs: {time.perf_counter() - start:.1f} s")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=300, help="simulated suites per row")
    parser.add_argument("--repetitions", type=int, default=10_000, help="resamples when timing")
    parser.add_argument("--tasks", type=int, choices=TASKS, default=9)
    parser.add_argument("--runs", type=int, nargs="+", default=[3, 5, 10], help="per task")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    table(options.tasks, options.runs, options.experiments, rng)
    seconds(options.repetitions, rng)


if __name__ == "__main__":
    main()
