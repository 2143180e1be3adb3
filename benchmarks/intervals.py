"""What the report's intervals are worth, and what they cost.

``python benchmarks/intervals.py`` prints how often a nominal 95 % interval holds the truth with 3,
5 and 10 runs on nine tasks, how often the exact test rejects where there is nothing to find, and
how long the bootstrap takes here and in rliable. ``analysis.stats.coverage`` quotes the result with
2000 experiments.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis.stats import (
    AGGREGATES,
    FloatArray,
    aggregates,
    estimate,
    exact_p_value,
    iqm,
    probability_of_improvement,
)

TASKS = 9
LEVEL = 0.05


SPREADS = {  # standard deviation over runs, by task
    "equal": np.full(TASKS, 6.0),
    "unequal": np.tile([2.0, 6.0, 15.0], TASKS // 3),
}


def scores(runs: int, spread: str, rng: np.random.Generator) -> FloatArray:
    """``[runs, 9]`` scores at levels from 10 to 110, as on locomotion tasks."""
    levels = np.linspace(10.0, 110.0, TASKS)
    return levels + SPREADS[spread] * rng.standard_normal((runs, TASKS))


def coverage(runs: int, spread: str, experiments: int, rng: np.random.Generator) -> FloatArray:
    """Share of experiments whose interval holds the truth, ``[aggregates + 1]``.

    The last entry is the probability of improvement over an agent that scores 4 less on each task.
    """
    whole = scores(200_000, spread, rng)
    truth = np.append(
        aggregates(whole), probability_of_improvement(whole[:1000], whole[1000:2000] - 4.0)
    )
    hits = np.zeros(len(truth))
    for _ in range(experiments):
        ours, theirs = scores(runs, spread, rng), scores(runs, spread, rng) - 4.0
        single = estimate(aggregates, ours, rng=rng, repetitions=1000)
        pair = estimate(probability_of_improvement, ours, theirs, rng=rng, repetitions=1000)
        hits += (np.append(single.low, pair.low) <= truth) & (
            truth <= np.append(single.high, pair.high)
        )
    return hits / experiments


def false_alarms(runs: int, spread: str, experiments: int, rng: np.random.Generator) -> float:
    """Share of experiments in which the exact test tells two equal agents apart."""
    return float(
        np.mean(
            [
                exact_p_value(scores(runs, spread, rng), scores(runs, spread, rng)) < LEVEL
                for _ in range(experiments)
            ]
        )
    )


def seconds(repetitions: int, rng: np.random.Generator) -> tuple[float, float]:
    """Seconds for the IQM intervals of three agents with five runs, here and in rliable."""
    agents = {name: scores(5, "unequal", rng) for name in "xyz"}
    start = time.perf_counter()
    for matrix in agents.values():
        estimate(iqm, matrix, rng=rng, repetitions=repetitions)
    ours = time.perf_counter() - start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its dependencies, at import
        from rliable import library, metrics
    start = time.perf_counter()
    library.get_interval_estimates(
        agents, lambda matrix: np.array([metrics.aggregate_iqm(matrix)]), reps=repetitions
    )
    return ours, time.perf_counter() - start


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=500, help="simulated suites per row")
    parser.add_argument("--repetitions", type=int, default=10_000, help="resamples when timing")
    parser.add_argument("--runs", type=int, nargs="+", default=[3, 5, 10], help="per task")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    names = [*AGGREGATES, "P(X > Y)", f"test at {LEVEL:g}"]
    print("spread   runs  " + "  ".join(f"{name:>14}" for name in names))
    for spread in SPREADS:
        for runs in options.runs:
            shares = [*coverage(runs, spread, options.experiments, rng)]
            shares.append(false_alarms(runs, spread, options.experiments, rng))
            row = "  ".join(f"{100 * share:12.1f} %" for share in shares)
            print(f"{spread:8}{runs:5d}  {row}", flush=True)
    ours, rliable = seconds(options.repetitions, rng)
    print(
        f"IQM of 3 agents, {options.repetitions} resamples: {ours:.3f} s here, {rliable:.1f} s in "
        f"rliable, ratio {rliable / ours:.0f}"
    )


if __name__ == "__main__":
    main()
