"""Statistics over runs: aggregates, stratified bootstrap, profiles, probability of improvement.

The measures are those of Agarwal et al. (2021), "Deep Reinforcement Learning at the Edge of the
Statistical Precipice", with the definitions of their library rliable. A score matrix is ``[n, T]``:
n runs (seeds) on each of T tasks. Every statistic also takes leading axes, ``[..., n, T]``, so that
a bootstrap is one call on the stack of resampled matrices rather than a loop.

Only runs are resampled, each task on its own (the strata), never the episodes within a run: the
question is what another training run would score.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Statistic = Callable[..., FloatArray]

OPTIMALITY_THRESHOLD = 100.0  # score of the expert on D4RL's scale
CONFIDENCE = 0.95
MINIMUM_RUNS_FOR_CLAIMS = 5  # below this the intervals are too narrow to call anything better
# simulated on nine tasks by benchmarks/intervals.py; other counts take the next lower one's
_COVERAGE = {
    "aggregate": {
        **{1: "no interval", 2: "70-80 %", 3: "82-87 %", 4: "87-90 %", 5: "89-92 %"},
        **{7: "91-93 %", 10: "92-94 %", 20: "93-94 %"},
    },
    "improvement": {1: "no interval", 2: "86 %", 3: "90-93 %", 4: "93 %", 10: "94 %"},
}
_CHUNK = 1 << 20  # numbers resampled at a time: keeps the bootstrap in cache and its memory small


def iqm(scores: FloatArray) -> FloatArray:
    """Interquartile mean: the mean of the middle half of all runs, ``[..., n, T] -> [...]``."""
    pooled = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = pooled.shape[-1] // 4
    return np.asarray(pooled[..., cut : pooled.shape[-1] - cut].mean(axis=-1))


def median(scores: FloatArray) -> FloatArray:
    """Median over tasks of the mean over runs, ``[..., n, T] -> [...]``."""
    return np.asarray(np.median(scores.mean(axis=-2), axis=-1))


def mean(scores: FloatArray) -> FloatArray:
    """Mean over tasks and runs, ``[..., n, T] -> [...]``."""
    return np.asarray(scores.mean(axis=(-2, -1)))


def optimality_gap(scores: FloatArray, threshold: float = OPTIMALITY_THRESHOLD) -> FloatArray:
    """Mean shortfall below ``threshold``; what lies above earns nothing, ``[..., n, T] -> [...]``.

    Lower is better.
    """
    return np.asarray(threshold - np.minimum(scores, threshold).mean(axis=(-2, -1)))


AGGREGATES: dict[str, Statistic] = {
    "IQM": iqm,
    "Median": median,
    "Mean": mean,
    "Optimality gap": optimality_gap,
}


def aggregates(scores: FloatArray) -> FloatArray:
    """All of ``AGGREGATES``, in order, ``[..., n, T] -> [..., 4]``."""
    return np.stack([statistic(scores) for statistic in AGGREGATES.values()], axis=-1)


def performance_profile(scores: FloatArray, taus: FloatArray) -> FloatArray:
    """Fraction of runs with a score above each threshold, ``[..., n, T], [K] -> [..., K]``."""
    return np.asarray((scores[..., None] > taus).mean(axis=(-3, -2)))


def probability_of_improvement(x: FloatArray, y: FloatArray) -> FloatArray:
    """P(a run of X scores above a run of Y on the same task), averaged over tasks; ties count half.

    Args:
        x: ``[..., n, T]`` scores of X.
        y: ``[..., m, T]`` scores of Y on the same tasks, in the same order.

    Returns:
        ``[...]`` probabilities.
    """
    wins = np.sign(x[..., :, None, :] - y[..., None, :, :])
    return np.asarray(0.5 + 0.5 * wins.mean(axis=(-3, -2, -1)))


@dataclass(frozen=True)
class Estimate:
    """A statistic with its percentile-bootstrap interval.

    Attributes:
        value: the statistic of the scores as they are.
        low: lower end, of the shape of ``value``; NaN where one run allows no interval.
        high: upper end.
        runs: runs per task behind it, the fewest if samples differ.
    """

    value: FloatArray
    low: FloatArray
    high: FloatArray
    runs: int


def estimate(
    statistic: Statistic,
    *samples: FloatArray,
    rng: np.random.Generator,
    repetitions: int = 10_000,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Stratified percentile bootstrap over runs (Efron 1979; Agarwal et al. 2021, section 4).

    Each sample is resampled by itself and each task (column) by itself, with replacement.

    Args:
        statistic: maps samples ``[..., n_i, T_i]`` to ``[..., *shape]``.
        *samples: score matrices ``[n_i, T_i]``.
        rng: source of the resamples; the same state gives the same interval.
        repetitions: number of resamples.
        confidence: nominal coverage; see :func:`coverage` for what it is worth.

    Raises:
        ValueError: if a sample is not a matrix of finite scores with at least one run and task.
    """
    for scores in samples:
        if scores.ndim != 2 or not scores.size or not np.isfinite(scores).all():
            raise ValueError(
                f"scores of shape {scores.shape} are not a full [runs, tasks] matrix of finite "
                "numbers; leave out the tasks or agents that have gaps"
            )
    value = np.asarray(statistic(*samples), dtype=np.float64)
    runs = min(len(scores) for scores in samples)
    if runs < 2:
        gap = np.full_like(value, np.nan)
        return Estimate(value, gap, gap, runs)
    tasks = samples[0].shape[1]
    numbers = tasks * math.prod(len(scores) for scores in samples) * max(1, value.size)
    chunk = max(1, _CHUNK // numbers)
    sizes = [min(chunk, repetitions - done) for done in range(0, repetitions, chunk)]
    draws = np.concatenate(
        [statistic(*(_resample(scores, size, rng) for scores in samples)) for size in sizes]
    )
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail], axis=0)
    return Estimate(value, np.asarray(low), np.asarray(high), runs)


def _resample(scores: FloatArray, repetitions: int, rng: np.random.Generator) -> FloatArray:
    """``[n, T] -> [repetitions, n, T]``, drawing runs with replacement within each task."""
    runs, tasks = scores.shape
    return scores[rng.integers(runs, size=(repetitions, runs, tasks)), np.arange(tasks)]


def exact_p_value(x: FloatArray, y: FloatArray) -> float:
    """Two-sided exact p-value of the stratified Wilcoxon rank-sum test (van Elteren 1960).

    Null hypothesis: on every task, runs of X and of Y are drawn from one distribution. The
    statistic is the mean over tasks of the Mann-Whitney U, which is the probability of improvement
    up to scale. Its distribution is exact, ties included: the number of ways to hand n of the n + m
    ranks of a task to X is counted for every rank sum, then convolved over tasks. Unlike the
    bootstrap this holds its level with any number of runs.

    Args:
        x: ``[n, T]`` scores of X.
        y: ``[m, T]`` scores of Y on the same tasks.
    """
    total, statistic = np.ones(1), 0
    for ours, theirs in zip(x.T, y.T, strict=True):
        both = np.concatenate([ours, theirs])
        # Twice the midrank is an integer: numbers below, plus numbers at or below, plus one.
        ranks = (both[:, None] > both).sum(axis=1) + (both[:, None] >= both).sum(axis=1) + 1
        statistic += int(ranks[: len(ours)].sum())
        total = np.convolve(total, _rank_sums(tuple(sorted(ranks.tolist())), len(ours)))
    sums = np.arange(len(total))
    distance = np.abs(sums - total @ sums)
    # Both sides of a tie must count as equally extreme, which rounding of the mean would break.
    return min(1.0, float(total[distance >= distance[statistic] - 1e-6].sum()))


@functools.lru_cache(maxsize=1024)
def _rank_sums(ranks: tuple[int, ...], draws: int) -> FloatArray:
    """Probability of every sum of ``draws`` of the ranks, drawn without replacement, ``[sum]``."""
    ways = np.zeros((draws + 1, sum(ranks[-draws:]) + 1))
    ways[0, 0] = 1.0
    for rank in ranks:
        ways[1:, rank:] += ways[:-1, : ways.shape[1] - rank].copy()
    return np.asarray(ways[draws] / ways[draws].sum())


def holm(p_values: Sequence[float] | FloatArray) -> FloatArray:
    """Holm's (1979) adjusted p-values, ``[k] -> [k]``: family-wise error at most the level."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * steps))
    return adjusted


def coverage(runs: int, of: Literal["aggregate", "improvement"] = "aggregate") -> str:
    """What a nominal 95 % interval from so few runs really covers, for printing beside it.

    The percentile bootstrap sees only the runs it has, so with few of them it is too narrow. The
    lower figure holds where some tasks spread much more than others, the upper one where all spread
    alike; for the median both are lower still.

    Args:
        runs: per task.
        of: "aggregate" for IQM, mean and optimality gap, "improvement" for the probability.
    """
    known = _COVERAGE[of]
    return known[max(count for count in known if count <= max(runs, 1))]
