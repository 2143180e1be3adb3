"""Runs nested in draws of the data, and configs chosen from: what the intervals are worth there.

``python benchmarks/nesting.py`` prints how often nominal 95 % intervals hold the truth

- where every draw of the data shifts all runs on it: with runs taken for independent, and with
  whole draws resampled;
- for expected online performance: at k = 1, half of the configs, and all of them; and by how much
  a score that took part in the choice flatters.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis.stats import AGGREGATES, FloatArray, aggregates, estimate_aggregates
from analysis.tuning import estimate_curve, expected_online_performance

TASKS = 9
LEVELS = np.linspace(10.0, 110.0, TASKS)
SPREAD = np.tile([2.0, 6.0, 15.0], TASKS // 3)  # over runs on one draw, by task
CONFIGS = 8.0  # standard deviation over configs
SEEDS = 5.0  # and over the runs of one


def nested(draws: int, seeds: int, ratio: float, rng: np.random.Generator) -> FloatArray:
    """``[draws * seeds, 9]`` scores; draws spread ``ratio`` times as much as runs on one draw."""
    shift = ratio * rng.standard_normal((draws, 1, TASKS))
    noise = rng.standard_normal((draws, seeds, TASKS))
    return (LEVELS + SPREAD * (shift + noise)).reshape(-1, TASKS)


def print_draws(experiments: int, rng: np.random.Generator) -> None:
    """Coverage and mean width of both readings of nested runs."""
    print(f"{'draws x seeds':14}{'ratio':>6}  {'unit':5}" + "".join(f"{n:>16}" for n in AGGREGATES))
    for draws, seeds in ((1, 5), (1, 15), (3, 5), (5, 3), (5, 1), (10, 2)):
        labels = np.repeat(np.arange(draws), seeds)
        for ratio in (0.5, 1.0):
            truth = aggregates(nested(100_000, 1, ratio, rng))
            for unit in ("run", "draw") if draws > 1 and seeds > 1 else ("run",):
                hits, widths = np.zeros(len(truth)), np.zeros(len(truth))
                for _ in range(experiments):
                    found = estimate_aggregates(
                        nested(draws, seeds, ratio, rng),
                        labels if unit == "draw" else None,
                        rng=rng,
                        repetitions=1000,
                    )
                    hits += (found.low <= truth) & (truth <= found.high)
                    widths += found.high - found.low
                cells = "".join(
                    f"{100 * hit:8.1f} % {width:5.1f}"
                    for hit, width in zip(hits / experiments, widths / experiments, strict=True)
                )
                print(f"{draws:5d} x {seeds:<6d}{ratio:6g}  {unit:5}{cells}", flush=True)


def tried(configs: int, seeds: int, rng: np.random.Generator) -> FloatArray:
    """``[configs, seeds, 9]`` scores; half of a config's merit holds on every task."""
    merit = rng.standard_normal((configs, 1, TASKS)) + rng.standard_normal((configs, 1, 1))
    noise = rng.standard_normal((configs, seeds, TASKS))
    return np.asarray(LEVELS + CONFIGS * merit / np.sqrt(2.0) + SEEDS * noise)


def print_configs(experiments: int, rng: np.random.Generator) -> None:
    """Coverage of expected online performance, and what choosing and scoring alike would add."""
    print("configs x seeds: at k, truth, by the chosen run's own score, coverage, mean width")
    for configs, seeds in ((5, 5), (8, 5), (20, 3)):
        samples = [tried(configs, seeds, rng) for _ in range(4000)]
        truth = np.mean([expected_online_performance(sample) for sample in samples], axis=0)
        means = [sample.mean(axis=1, keepdims=True) for sample in samples]
        flattered = np.mean([expected_online_performance(mean) for mean in means], axis=0)
        found = [estimate_curve(tried(configs, seeds, rng)) for _ in range(experiments)]
        hits = np.mean([(each.low <= truth) & (truth <= each.high) for each in found], axis=0)
        widths = np.mean([each.high - each.low for each in found], axis=0)
        for k in (1, configs // 2, configs):
            numbers = truth[k - 1], flattered[k - 1], 100 * hits[k - 1], widths[k - 1]
            cells = "{:8.1f}{:8.1f}{:8.1f} %{:8.1f}".format(*numbers)
            print(f"{configs:3d} x {seeds}: {k:3d}{cells}", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=300, help="simulated suites per row")
    options = parser.parse_args()
    print_draws(options.experiments, np.random.default_rng(0))
    print_configs(options.experiments, np.random.default_rng(1))


if __name__ == "__main__":
    main()
