"""Importance-sampling estimates of a policy's return from episodes that another policy acted.

With rho_t = pi(a_t | s_t) / b(a_t | s_t) for the judged policy pi and the behaviour b, the weight
of an episode's first t + 1 steps is w_t = rho_0 ... rho_t, w = w_T that of the whole, clipped from
above at ``Settings.clip``.

* ``wis``, weighted importance sampling (Precup, Sutton & Singh 2000): sum_i w_i G_i / sum_i w_i
  over episodes i with returns G_i.
* ``pdwis``, its per-decision variant (the same paper; as Thomas 2015, 3.10, writes it): sum over t
  of sum_i w_i,t r_i,t / sum_i w_i,t, where an episode that has ended keeps its last weight.

The effective number of episodes is (sum_i w_i)^2 / sum_i w_i^2 (Kong 1992).

**Softening.** A deterministic policy gives weight 0 to every episode with one action that is not
its own. What is judged instead is (1 - soften) pi + soften b, which needs no more than the logged
action's b: rho = (1 - soften) [a is pi's] / b + soften. Its value is not quite pi's.

**Interval.** A bootstrap over episodes, which are independent where steps are not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from baselines.config import check_ranges

Floats = npt.NDArray[np.float64]
Method = Literal["wis", "pdwis"]
Interval = Literal["student", "bca", "percentile"]
_PIECE = 4_000_000  # numbers drawn at a time


@dataclass(frozen=True)
class Settings:
    """Named choices of an estimate, with their defaults."""

    method: Method = "wis"
    soften: float = 0.01  # towards the behaviour, of policies without chance; Tang et al. 2022
    clip: float = 1000.0  # largest weight; Tang et al. 2022; inf for none
    behaviour: Literal["auto", "logged", "estimated"] = "auto"  # logged where the data tells
    interval: Interval = "student"
    level: float = 0.95  # nominal coverage
    resamples: int = 2000
    seed: int = 0  # of the bootstrap

    def __post_init__(self) -> None:
        check_ranges(self, soften=(0, 1), clip=(0, math.inf), level=(0, 1), resamples=(1, math.inf))


@dataclass(frozen=True)
class Estimate:
    """An off-policy estimate of a policy's return.

    Attributes:
        value: raw return per episode; NaN where no logged episode could be the policy's.
        effective_episodes: (sum of weights)^2 / (sum of squared weights): as many episodes of the
            policy's own would carry as much information. Below a few, the value says nothing.
        episodes: logged episodes behind it.
        low: lower end of the interval; NaN where there is none.
        high: upper end.
        clipped: share of episodes whose weight was cut.
    """

    value: float
    effective_episodes: float
    episodes: int
    low: float = math.nan
    high: float = math.nan
    clipped: float = 0.0


def estimate_return(
    returns: npt.ArrayLike, log_ratios: npt.ArrayLike, settings: Settings | None = None
) -> Estimate:
    """Weighted importance sampling over whole episodes.

    Args:
        returns: ``[E]`` of logged episodes.
        log_ratios: ``[E]``, the sum over an episode of log pi(a | s) - log b(a | s), for the judged
            policy pi and the behaviour policy b; -inf where pi would never have acted so.
        settings: their clip, interval and resamples count; None for no clip and no interval.

    Raises:
        ValueError: if the shapes differ, or a ratio is NaN or +inf.
    """
    values, ratios = np.asarray(returns, np.float64), np.asarray(log_ratios, np.float64)
    if values.shape != ratios.shape or values.ndim != 1:
        raise ValueError(f"returns {values.shape} and log_ratios {ratios.shape} must both be [E]")
    return _estimate(values[:, None], ratios[:, None], settings)


def estimate(
    rewards: npt.ArrayLike,
    log_ratios: npt.ArrayLike,
    starts: npt.ArrayLike,
    settings: Settings | None = None,
) -> Estimate:
    """An estimate from rows of whole episodes, one after the other.

    Args:
        rewards: ``[N]`` by step.
        log_ratios: ``[N]``, log pi(a | s) - log b(a | s) by step; see :func:`soft_log_ratios`.
        starts: ``[E]``, each episode's first row; the first is 0.
        settings: None for the defaults.

    Raises:
        ValueError: if shapes differ, or a ratio is NaN or +inf.
    """
    settings = settings or Settings()
    earned, ratios = np.asarray(rewards, np.float64), np.asarray(log_ratios, np.float64)
    firsts = np.asarray(starts, np.int64)
    if earned.shape != ratios.shape or earned.ndim != 1:
        raise ValueError(f"rewards {earned.shape} and log_ratios {ratios.shape} must both be [N]")
    if settings.method == "wis":
        return _estimate(
            np.add.reduceat(earned, firsts)[:, None],
            np.add.reduceat(ratios, firsts)[:, None],
            settings,
        )
    lengths = np.diff(np.append(firsts, len(earned)))
    steps = np.arange(len(earned)) - np.repeat(firsts, lengths)
    episodes = np.repeat(np.arange(len(firsts)), lengths)
    by_step, logs = np.zeros((2, len(firsts), int(lengths.max())))
    by_step[episodes, steps], logs[episodes, steps] = earned, ratios
    return _estimate(by_step, np.cumsum(logs, axis=1), settings)


def soft_log_ratios(
    own: npt.NDArray[np.bool_], behaviour: npt.NDArray[np.floating], soften: float
) -> Floats:
    """Log ratios ``[N]`` of a policy without chance, softened towards the behaviour.

    Args:
        own: ``[N]``, where the logged action is the policy's.
        behaviour: ``[N]``, logarithm of the probability with which it was logged.
        soften: between 0 (not at all) and 1 (the behaviour itself).
    """
    with np.errstate(divide="ignore"):
        found = np.log((1.0 - soften) * own * np.exp(-behaviour.astype(np.float64)) + soften)
    return np.asarray(found, np.float64)


def _estimate(rewards: Floats, log_weights: Floats, settings: Settings | None) -> Estimate:
    """From rewards and logarithms of the weights until then, ``[E, T]``."""
    if np.isnan(log_weights).any() or (log_weights == np.inf).any():
        raise ValueError(
            "a log ratio is NaN or +inf; behaviour must have a chance to act as it did"
        )
    count, clipped = len(rewards), 0.0
    if settings is not None and math.isfinite(settings.clip):
        limit = math.log(settings.clip) if settings.clip > 0 else -np.inf
        clipped = float((log_weights[:, -1] > limit).mean())
        log_weights = np.minimum(log_weights, limit)
    largest = log_weights.max(axis=0, initial=-np.inf)
    if (largest == -np.inf).any():
        return Estimate(np.nan, 0.0, count, clipped=clipped)
    weights = np.exp(log_weights - largest)  # the factor cancels
    value = float(((weights * rewards).sum(0) / weights.sum(0)).sum())
    whole = weights[:, -1]
    effective = float(whole.sum() ** 2 / np.square(whole).sum())
    low = high = math.nan
    if settings is not None and count > 1:
        low, high = _interval(rewards, weights, value, settings)
    return Estimate(value, effective, count, low, high, clipped)


def _interval(
    rewards: Floats, weights: Floats, value: float, settings: Settings
) -> tuple[float, float]:
    """Ends of a bootstrap interval over episodes; NaN where it cannot be had.

    ``student`` resamples (value - estimate) / its standard error, which the influence of every
    episode gives, and is cut at what no weighted mean of these episodes can leave; ``bca`` is
    Efron's (1987), with the jackknife's acceleration.
    """
    count, steps = rewards.shape
    totals = weights.sum(0)
    by_step = (weights * rewards).sum(0) / totals
    influence = (weights * (rewards - by_step) / totals).sum(1)
    rng = np.random.default_rng(settings.seed)
    tail = (1.0 - settings.level) / 2
    values, errors = np.empty((2, settings.resamples))
    piece = max(1, _PIECE // (count * steps))
    for first in range(0, settings.resamples, piece):
        size = min(piece, settings.resamples - first)
        drawn = rng.integers(count, size=(size, count))
        counts = np.stack([np.bincount(row, minlength=count) for row in drawn]).astype(float)
        sums = counts @ weights  # [size, T]
        with np.errstate(divide="ignore", invalid="ignore"):
            means = counts @ (weights * rewards) / sums
            values[first : first + size] = means.sum(1)
            if settings.interval == "student":
                spread = (weights * rewards)[None] - means[:, None] * weights
                squares = np.square((spread / sums[:, None]).sum(2))
                errors[first : first + size] = np.sqrt((counts * squares).sum(1))
    if settings.interval == "student":
        error = math.sqrt(float(np.square(influence).sum()))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = (values - value) / errors
        ratios = ratios[~np.isnan(ratios)]
        if not len(ratios) or error == 0.0:
            return math.nan, math.nan
        lower, upper = np.quantile(ratios, (tail, 1.0 - tail), method="inverted_cdf")
        ends = np.array([value - upper * error, value - lower * error])
        least, most = rewards.min(0).sum(), rewards.max(0).sum()
        return tuple(np.clip(ends, least, most).tolist())
    values = values[np.isfinite(values)]
    if not len(values):
        return math.nan, math.nan
    shares = np.array([tail, 1.0 - tail])
    if settings.interval == "bca":
        normal = NormalDist()
        below = ((values < value).mean() + (values <= value).mean()) / 2
        below = min(max(float(below), 1.0 / len(values)), 1.0 - 1.0 / len(values))
        bias = normal.inv_cdf(below)
        cubes, squares = float((influence**3).sum()), float((influence**2).sum())
        bend = cubes / (6.0 * squares**1.5) if squares > 0 else 0.0
        moved = [bias + normal.inv_cdf(share) for share in shares.tolist()]
        shares = np.array([normal.cdf(bias + z / max(1.0 - bend * z, 1e-3)) for z in moved])
    low, high = np.quantile(values, shares)
    return float(low), float(high)
