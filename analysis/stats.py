"""Statistics over runs: aggregates, stratified bootstrap, profiles, probability of improvement.

The measures are those of Agarwal et al. (2021), "Deep Reinforcement Learning at the Edge of the
Statistical Precipice", with the definitions of their library rliable. A score matrix is ``[n, T]``:
n runs (seeds) on each of T tasks. Every statistic also takes leading axes, ``[..., n, T]``, so that
a bootstrap is one call on the stack of resampled matrices rather than a loop.

Only runs are resampled, each task on its own (the strata), never the episodes within a run: the
question is what another training run would score. Where runs are nested in draws of the data,
whole draws are resampled: the question is then what a run on another draw would score.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Statistic = Callable[..., FloatArray]
Method = Literal["calibrated", "percentile"]

OPTIMALITY_THRESHOLD = 100.0  # score of the expert on D4RL's scale
CONFIDENCE = 0.95
SEED = 0  # of every bootstrap, so that the same records give the same report
BAND_REPETITIONS = 2000  # rliable's choice; a band needs less than a printed number
MINIMUM_RUNS_FOR_CLAIMS = 5  # below this a verdict would rest on too little
INTERVALS = (
    f"Nominal {100 * CONFIDENCE:.0f} % intervals from a stratified bootstrap over runs, widened "
    "for their small number by Student's t."
)
_FEWEST: dict[Method, int] = {"calibrated": 3, "percentile": 2}  # units that allow an interval
# Share of nominal 95 % intervals that hold the truth, in per cent, by number of tasks, method and
# number of runs: the lowest and the highest over the spreads of benchmarks/intervals.py, which
# prints these lines. Other counts of tasks or runs take the next lower one's.
_COVERAGE: dict[int, dict[Method, dict[str, dict[int, tuple[int, int]]]]] = {
    1: {
        "calibrated": {
            "aggregate": {3: (63, 96), 4: (74, 99), 5: (84, 100), 7: (89, 97), 10: (93, 99)},
            "improvement": {
                3: (100, 100),
                4: (100, 100),
                5: (98, 100),
                7: (95, 100),
                10: (94, 100),
            },
        },
        "percentile": {
            "aggregate": {
                2: (41, 83),
                3: (63, 95),
                4: (74, 99),
                5: (81, 96),
                7: (85, 97),
                10: (88, 94),
            },
            "improvement": {
                2: (100, 100),
                3: (94, 100),
                4: (94, 100),
                5: (92, 100),
                7: (90, 100),
                10: (92, 100),
            },
        },
    },
    3: {
        "calibrated": {
            "aggregate": {3: (92, 100), 4: (90, 99), 5: (91, 98), 7: (91, 98), 10: (90, 97)},
            "improvement": {3: (95, 100), 4: (94, 100), 5: (87, 98), 7: (82, 97), 10: (86, 96)},
        },
        "percentile": {
            "aggregate": {
                2: (46, 76),
                3: (67, 83),
                4: (70, 87),
                5: (77, 89),
                7: (81, 93),
                10: (84, 93),
            },
            "improvement": {
                2: (68, 100),
                3: (69, 97),
                4: (72, 95),
                5: (75, 94),
                7: (81, 95),
                10: (86, 94),
            },
        },
    },
    9: {
        "calibrated": {
            "aggregate": {3: (98, 100), 4: (97, 100), 5: (97, 99), 7: (96, 98), 10: (96, 98)},
            "improvement": {3: (96, 100), 4: (88, 98), 5: (88, 97), 7: (90, 97), 10: (95, 96)},
        },
        "percentile": {
            "aggregate": {
                2: (66, 79),
                3: (78, 87),
                4: (86, 91),
                5: (88, 91),
                7: (89, 93),
                10: (91, 94),
            },
            "improvement": {
                2: (62, 86),
                3: (68, 92),
                4: (72, 94),
                5: (79, 94),
                7: (87, 94),
                10: (93, 95),
            },
        },
    },
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
    x, y = x[..., :, None, :], y[..., None, :, :]
    points = (x > y).view(np.int8) + (x >= y).view(np.int8)  # small numbers are fast numbers
    return np.asarray(0.5 * points.mean(axis=(-3, -2, -1)))


@dataclass(frozen=True)
class Estimate:
    """A statistic with its bootstrap interval.

    Attributes:
        value: the statistic of the scores as they are.
        low: lower end, of the shape of ``value``; NaN where too few runs allow no interval.
        high: upper end.
        runs: runs per task behind it, the fewest if samples differ.
        units: independent units per task behind it: draws of the data where there are several,
            runs otherwise. :func:`coverage` goes by this number.
    """

    value: FloatArray
    low: FloatArray
    high: FloatArray
    runs: int
    units: int


def estimate(
    statistic: Statistic,
    *samples: FloatArray,
    rng: np.random.Generator,
    repetitions: int = 10_000,
    confidence: float = CONFIDENCE,
    method: Method = "calibrated",
    draws: Sequence[IntArray | None] = (),
    bounds: tuple[npt.ArrayLike, npt.ArrayLike] = (-np.inf, np.inf),
    sharing: int = 1,
) -> Estimate:
    """Stratified bootstrap over runs (Efron 1979; Agarwal et al. 2021, section 4).

    Each sample is resampled by itself and each task (column) by itself, with replacement. The unit
    is the run; with ``draws`` that name several draws of the data it is the draw with all its runs.
    (Resampling the runs within a draw once more would count their spread twice: Davison & Hinkley
    1997, section 3.8.)

    Args:
        statistic: maps samples ``[..., n_i, T_i]`` to ``[..., *shape]``.
        *samples: score matrices ``[n_i, T_i]``.
        rng: source of the resamples; the same state gives the same interval.
        repetitions: number of resamples.
        confidence: nominal coverage; see :func:`coverage` for what it is worth.
        method: "percentile" takes the quantiles of the resampled statistic, as rliable does;
            "calibrated" moves them away from the value by :func:`widening`.
        draws: for each sample the draw of the data of each run, ``[n_i]``; every draw has equally
            many runs. None, or nothing at all: one draw.
        bounds: range of the statistic, which a calibrated interval does not leave.
        sharing: number of tasks that are sure to share the statistic's variance about equally;
            see :func:`widening`.

    Raises:
        ValueError: if a sample is not a matrix of finite scores with at least one run and task, or
            if its draws are not of equal size.
    """
    nested = [
        _blocks(scores, labels)
        for scores, labels in zip(samples, draws or [None] * len(samples), strict=True)
    ]
    value = np.asarray(statistic(*samples), dtype=np.float64)
    runs = min(map(len, samples))
    units = min(map(len, nested))
    if units < _FEWEST[method]:
        gap = np.full_like(value, np.nan)
        return Estimate(value, gap, gap, runs, units)
    tasks = samples[0].shape[1]
    numbers = tasks * math.prod(len(scores) for scores in samples) * max(1, value.size)
    chunk = max(1, _CHUNK // numbers)
    sizes = [min(chunk, repetitions - done) for done in range(0, repetitions, chunk)]
    resampled = np.concatenate(
        [statistic(*(_resample(blocks, size, rng) for blocks in nested)) for size in sizes]
    )
    tail = (1.0 - confidence) / 2.0
    low, high = map(np.asarray, np.quantile(resampled, [tail, 1.0 - tail], axis=0))
    if method == "calibrated":
        factor = widening(units, sharing, confidence)
        low = np.clip(value - factor * (value - low), bounds[0], value)
        high = np.clip(value + factor * (high - value), value, bounds[1])
    return Estimate(value, low, high, runs, units)


def equal_draws(draws: npt.ArrayLike) -> IntArray | None:
    """Draws of the data by run ``[n]``, as :func:`estimate` takes them.

    None where draws have unequally many runs, so that runs are all there is to resample.
    """
    found = np.asarray(draws, np.int64)
    return found if len(set(np.unique(found, return_counts=True)[1].tolist())) == 1 else None


def band(scores: FloatArray, draws: IntArray | None = None) -> Estimate:
    """The mean over runs at every point of curves ``[n, P]``, with pointwise intervals ``[P]``."""
    return estimate(
        lambda sample: sample.mean(axis=-2),
        scores,
        rng=np.random.default_rng(SEED),
        repetitions=BAND_REPETITIONS,
        draws=[draws],
    )


def estimate_aggregates(scores: FloatArray, draws: IntArray | None = None, **how: Any) -> Estimate:
    """All of ``AGGREGATES`` with intervals, in order; see :func:`estimate` for ``how``."""
    floor = [0.0 if statistic is optimality_gap else -np.inf for statistic in AGGREGATES.values()]
    return estimate(aggregates, scores, draws=[draws], bounds=(floor, np.inf), **how)


def estimate_profile(
    scores: FloatArray, taus: FloatArray, draws: IntArray | None = None, **how: Any
) -> Estimate:
    """A performance profile with its pointwise band; see :func:`estimate` for ``how``."""
    return estimate(
        lambda sample: performance_profile(sample, taus),
        scores,
        draws=[draws],
        bounds=(0.0, 1.0),
        **how,
    )


def estimate_improvement(
    x: FloatArray,
    y: FloatArray,
    draws: Sequence[IntArray | None] = (),
    **how: Any,
) -> Estimate:
    """The probability of improvement with its interval; see :func:`estimate` for ``how``.

    No task can contribute more than its share here, so all are taken to share the variance.
    """
    return estimate(
        probability_of_improvement,
        *(x, y),
        draws=draws,
        bounds=(0.0, 1.0),
        sharing=x.shape[1],
        **how,
    )


def unit_means(scores: FloatArray, draws: IntArray | None = None) -> FloatArray:
    """Means over the runs of each independent unit, ``[n, T] -> [units, T]``.

    The units are the draws of the data, ascending, where there are several; otherwise the runs.

    Raises:
        ValueError: as for :func:`estimate`.
    """
    return np.asarray(_blocks(scores, draws).mean(axis=1))


def _blocks(scores: FloatArray, draws: IntArray | None) -> FloatArray:
    """``[n, T] -> [units, runs per unit, T]``."""
    if scores.ndim != 2 or not scores.size or not np.isfinite(scores).all():
        raise ValueError(
            f"scores of shape {scores.shape} are not a full [runs, tasks] matrix of finite "
            "numbers; leave out the tasks or agents that have gaps"
        )
    if draws is None:
        return scores[:, None]
    labels, sizes = np.unique(draws, return_counts=True)
    if len(draws) != len(scores) or np.ptp(sizes):
        raise ValueError(
            f"{len(scores)} runs in draws of {', '.join(map(str, sizes))} runs; every draw of the "
            "data needs the same number of runs"
        )
    if len(labels) == 1:
        return scores[:, None]
    return scores[np.argsort(draws, kind="stable")].reshape(len(labels), sizes[0], -1)


def _resample(blocks: FloatArray, repetitions: int, rng: np.random.Generator) -> FloatArray:
    """``[units, m, T] -> [repetitions, units * m, T]``: whole units, within each task."""
    units, size, tasks = blocks.shape
    chosen = rng.integers(units, size=(repetitions, units, 1, tasks))
    drawn = blocks[chosen, np.arange(size)[:, None], np.arange(tasks)]
    return drawn.reshape(repetitions, units * size, tasks)


@functools.lru_cache
def widening(units: int, sharing: int = 1, confidence: float = CONFIDENCE) -> float:
    """Factor by which calibrated intervals are wider than percentile intervals.

    The bootstrap's variance of a mean of n numbers is too small by (n - 1) / n, and its quantiles
    are normal ones where Student's are due: sqrt(n / (n - 1)) t / z mends both (Hesterberg 2015
    adjusts the level to the same end). How many degrees of freedom t has depends
    on how many tasks share a statistic's variance, which n runs cannot tell: a task whose second
    mode was not drawn looks calm. One task often carries most of it, so one is assumed, which errs
    on the wide side.

    Args:
        units: independent units per task, at least 2.
        sharing: number of tasks sure to share the variance; the degrees of freedom are
            ``sharing * (units - 1)``.
        confidence: nominal coverage.
    """
    normal = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    student = student_quantile(sharing * (units - 1), confidence)
    return math.sqrt(units / (units - 1)) * student / normal


def student_quantile(freedom: int, central: float) -> float:
    """The t that |T| stays below with probability ``central``, for whole degrees of freedom.

    By bisection in the angle of Abramowitz & Stegun (1964), 26.7.3 and 26.7.4, whose sums are
    finite.
    """

    def probability(angle: float) -> float:
        odd = freedom % 2
        term, total = (math.cos(angle) if odd else 1.0), 0.0
        for k in range(2 + odd, freedom + 1, 2):
            total += term
            term *= math.cos(angle) ** 2 * (k - 1) / k
        total *= math.sin(angle)
        return 2.0 / math.pi * (angle + total) if odd else total

    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if probability(middle) < central else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


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


def coverage(
    units: int,
    tasks: int,
    of: Literal["aggregate", "improvement"] = "aggregate",
    method: Method = "calibrated",
) -> str:
    """What a nominal 95 % interval from so few runs really covers, for printing beside it.

    Simulated on one, three and nine tasks by benchmarks/intervals.py; the range is that over equal,
    unequal, heavy-tailed and two-humped spreads, and over agents of which either is ahead on some
    tasks. The median of few runs may fall below it.

    Args:
        units: per task; see :class:`Estimate`.
        tasks: that the interval is over.
        of: "aggregate" for IQM, mean and optimality gap, "improvement" for the probability.
        method: as for :func:`estimate`.
    """
    if units < _FEWEST[method]:
        return "no interval"
    known = _COVERAGE[max(count for count in _COVERAGE if count <= tasks)][method][of]
    low, high = known[max(count for count in known if count <= units)]
    return f"{low}-{high} %" if low < high else f"{low} %"
