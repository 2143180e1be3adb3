"""Coefficients: what balance does a state-adaptive agent choose, and where?

FamO2O's claim is that states of which the data is good want another balance of improvement and
constraint than the rest. A logged state's quality is how much was earned from there on: its
discounted logged return, as a rank among the states asked. It is set against the coefficient the
agent chooses there.
"""

from __future__ import annotations

import numpy as np

from suites.studies.context import Context, DoesNotApply, Floats, Ints, Outcome, StudyError
from suites.studies.measures import CONFIDENCE, rank_correlation

ROWS = 4000  # states asked
DISCOUNT = 0.99  # of logged returns, per step
AHEAD = 300  # steps that must be left before a time limit: what lies beyond weighs under 5 %
END = 0.05  # share of the range that counts as its end
RESAMPLES = 500  # of episodes, for the interval
DECILES = 10


def run(context: Context) -> list[Outcome]:
    """Rank correlation, shares at the range's ends, and means by tenth of quality."""
    returned, episodes, whole = returns_ahead(context)
    known = np.flatnonzero(whole)
    if len(known) < DECILES:
        raise DoesNotApply(f"the data has no episode with {AHEAD} steps left or a termination")
    count = min(ROWS, len(known))
    rows = np.stack(
        [
            known[context.rng("coefficients", i).choice(len(known), count, replace=False)]
            for i in range(len(context.seeds))
        ]
    )
    found = context.ask("coefficients", context.seen(rows))
    if not isinstance(found, dict) or set(found) != {"coefficients", "low", "high"}:
        raise StudyError("coefficients must return a dict of coefficients, low and high")
    chosen, low, high = found["coefficients"], float(found["low"]), float(found["high"])
    if chosen.shape != rows.shape:
        raise StudyError(f"coefficients has shape {chosen.shape}; {rows.shape} is asked for")
    return [
        summarise(
            chosen[i],
            returned[rows[i]],
            episodes[rows[i]],
            (low, high),
            context.rng("coefficients-interval", i),
        )
        for i in range(len(context.seeds))
    ]


def returns_ahead(context: Context) -> tuple[Floats, Ints, np.ndarray]:
    """Of every row: discounted logged return, number of its episode, whether it is all there.

    It is all there where the episode terminates, or goes on for ``AHEAD`` steps.
    """
    data = context.dataset
    rewards = np.asarray(data.column("rewards"), np.float64)
    terminated = np.asarray(data.column("terminations")) > 0
    starts = data.episode_starts
    lengths = np.diff(np.append(starts, len(rewards)))
    returned, total, episode = np.empty(len(rewards)), 0.0, len(starts) - 1
    for row in range(len(rewards) - 1, -1, -1):
        total = rewards[row] + DISCOUNT * total
        returned[row] = total
        if row == starts[episode]:
            total, episode = 0.0, episode - 1
    ends = np.repeat(starts + lengths, lengths)
    whole = terminated[ends - 1] | (ends - np.arange(len(rewards)) >= AHEAD)
    return returned, np.repeat(np.arange(len(starts)), lengths), whole


def summarise(
    chosen: Floats,
    returned: Floats,
    episodes: Ints,
    bounds: tuple[float, float],
    rng: np.random.Generator,
) -> Outcome:
    """One seed's numbers; all arrays ``[n]``.

    The interval resamples episodes, because states of one are alike.
    """
    from scipy.stats import rankdata

    low, high = bounds
    quality = (rankdata(returned) - 0.5) / len(returned)
    tenth = np.minimum((quality * DECILES).astype(int), DECILES - 1)
    names, members = np.unique(episodes, return_inverse=True)
    order = np.argsort(members, kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(members))[:-1])
    samples = []
    for _ in range(RESAMPLES if len(names) > 1 else 0):
        some = np.concatenate([groups[k] for k in rng.integers(len(names), size=len(names))])
        samples.append(rank_correlation(quality[some], chosen[some]))
    tail = 50.0 * (1.0 - CONFIDENCE)
    ends = np.percentile(samples, [tail, 100.0 - tail]) if samples else (np.nan, np.nan)
    margin = END * (high - low)
    numbers = {
        "states": len(chosen),
        "episodes": len(names),
        "low": low,
        "high": high,
        "mean": float(chosen.mean()),
        "std": float(chosen.std()),
        "rank_correlation": {
            "value": rank_correlation(quality, chosen),
            "low": float(ends[0]),
            "high": float(ends[1]),
        },
        "at_low": float((chosen <= low + margin).mean()),
        "at_high": float((chosen >= high - margin).mean()),
        "by_quality": {
            str(k + 1): float(chosen[tenth == k].mean()) if (tenth == k).any() else np.nan
            for k in range(DECILES)
        },
    }
    arrays = {"quality": quality.astype(np.float32), "coefficients": chosen.astype(np.float32)}
    return Outcome(numbers, arrays)
