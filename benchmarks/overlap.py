"""The verdicts on the hypotheses of ``docs/fastq-overlap.md``, from the runs of ``fastq_overlap``.

``python benchmarks/overlap.py results/runs/reports/fastq_overlap-study-local`` prints them. It was
written before any agent was run on the problem.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis.stats import Estimate, estimate, estimate_improvement, mean

SEEDS, DRAWS = 10, 5  # at least
MARGIN = 5.0  # points of score within which H2 calls two agents alike
BASELINE, METHOD = "td3_bc", "fastq"
PARTS = ("fastq_no_adversary", "fastq_no_exploration", "fastq_neither")


def scores(runs: pd.DataFrame, task: str, agent: str) -> pd.Series[float]:
    """Scores by (draw, seed), in that order.

    Raises:
        ValueError: if there are fewer draws, or seeds on one of them, than the plan asks for.
    """
    found = runs[(runs["task"] == task) & (runs["agent"] == agent)]
    series = found.set_index(["draw", "seed"])["score"].dropna().sort_index()
    sizes = series.groupby("draw").size()
    if len(sizes) < DRAWS or sizes.min() < SEEDS:
        raise ValueError(
            f"{agent} on {task}: {len(sizes)} draws of the data with {list(sizes)} seeds; the "
            f"hypotheses ask for at least {DRAWS} with {SEEDS}"
        )
    return series


def beats(runs: pd.DataFrame, task: str, x: str, y: str) -> Estimate:
    """The probability that a run of x beats one of y, its interval over draws."""
    both = [scores(runs, task, agent) for agent in (x, y)]
    matrices = [series.to_numpy()[:, None] for series in both]
    draws = [series.index.get_level_values("draw").to_numpy() for series in both]
    return estimate_improvement(*matrices, draws, rng=np.random.default_rng(0))


def difference(runs: pd.DataFrame, task: str, x: str, y: str) -> Estimate:
    """Mean score of x less that of y; runs are paired by draw and seed, the units are draws."""
    pairs = (scores(runs, task, x) - scores(runs, task, y)).dropna()
    draws = pairs.index.get_level_values("draw").to_numpy()
    return estimate(mean, pairs.to_numpy()[:, None], rng=np.random.default_rng(0), draws=[draws])


def ahead(found: Estimate) -> bool:
    """Whether the interval of a probability of improvement lies above one half."""
    return bool(found.low > 0.5)


def verdicts(runs: pd.DataFrame) -> Iterator[str]:
    """One line for each question, with the numbers that answer it."""

    def say(what: str, found: Estimate, answer: Any) -> str:
        return f"{what}: {found.value:.2f} [{found.low:.2f}, {found.high:.2f}]  {answer}"

    apart, together = "regions-overlap-0", "regions-overlap-100"
    whole = beats(runs, apart, METHOD, BASELINE)
    yield say("H1 P(fastq > td3_bc), overlap 0", whole, "holds" if ahead(whole) else "fails")
    gap = difference(runs, together, METHOD, BASELINE)
    alike = gap.low > -MARGIN and gap.high < MARGIN
    yield say("H2 fastq - td3_bc, overlap 100", gap, "holds" if alike else "fails")
    for part in PARTS:
        without = beats(runs, apart, part, BASELINE)
        cost = beats(runs, apart, METHOD, part)
        answer = "keeps the advantage" if ahead(without) else "shows no advantage"
        yield say(f"H3 P({part} > td3_bc), overlap 0", without, answer)
        answer = "what it lacks matters" if ahead(cost) else "not separated"
        yield say(f"H3 P(fastq > {part}), overlap 0", cost, answer)


def main() -> None:
    from suites import load_results

    for line in verdicts(load_results(sys.argv[1])):
        print(line)


if __name__ == "__main__":
    main()
