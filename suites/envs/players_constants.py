"""Every constant of the simulated players' platforms; ``docs/players.md`` says what they do.

``Constants`` differ between platforms and are drawn from ``RANGES``; the others are alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from suites.datasets.recipes.players import STEPS

DAYS = STEPS  # of an episode at most
CONSTANTS_SEED = 20_250  # platform d has the constants drawn by [this, d]

# Of every platform alike. Intents are unwind, compete, chase; regimes calm, season, volatile.
HOME = 0.6  # chance that an intent that is left for another is left for the player's own
REGIME_VISITS = np.array([0.0, 0.3, -0.2])  # what a regime adds to the logit of a visit
REGIME_SWING = np.array([1.0, 1.0, 1.8])  # what it multiplies the results of play by
BONUS_BY_INTENT = np.array([0.35, 0.2, 1.0])  # how far a bonus matters to who came for what
WIN_BACK = 0.1  # by which every day of absence, up to five, makes a bonus matter more
CHASING = 0.3  # what tilt adds to the stake that a player wants
BANKROLL = 30.0  # at the start, in units of wealth
WAGER, RAKE, SWING, EDGE = 7.0, 0.06, 0.25, 0.04  # of wealth per hour; shares of what is wagered
LOW, RUIN, DEPOSIT = 10.0, 4.0, 20.0  # in units of wealth
BONUS_MONEY = 0.4  # paid for a full bonus on a day with play
COEFFICIENT = 0.25  # of every part of the reward


@dataclass(frozen=True)
class Constants:
    """What platforms differ in; ``RANGES`` says between which bounds.

    Attributes:
        unwind_stake, unwind_format, compete_stake, compete_format, chase_stake, chase_format: the
            stake and format that are good for a player of each intent, before all that shifts them.
        season_stake, season_format, volatile_stake, volatile_format: shifts by a regime.
        craving_stake, craving_format: by which what is wanted differs from what is good.
        width: distance at which a match is exp(-1/2).
        intent_rate, regime_rate: chance per day that an intent, or a regime, gives way.
        patience_pull, match_pull, bonus_pull, regret_pull, expectation_pull: on the logit of a
            visit.
        expectation_rate: how fast bonuses become what is expected, per day.
        thrill: of the stake, on the logarithm of the hours played.
        wear: of a mismatch, on patience, per visit.
        tilt_gain, tilt_kept: by a loss of the bankroll; from day to day.
        churn, churn_patience, churn_tilt: logit of leaving for good.
        tails: degrees of freedom of the results of play.
    """

    unwind_stake: float
    unwind_format: float
    compete_stake: float
    compete_format: float
    chase_stake: float
    chase_format: float
    season_stake: float
    season_format: float
    volatile_stake: float
    volatile_format: float
    craving_stake: float
    craving_format: float
    width: float
    intent_rate: float
    regime_rate: float
    patience_pull: float
    match_pull: float
    bonus_pull: float
    regret_pull: float
    expectation_pull: float
    expectation_rate: float
    thrill: float
    wear: float
    tilt_gain: float
    tilt_kept: float
    churn: float
    churn_patience: float
    churn_tilt: float
    tails: float


RANGES: dict[str, tuple[float, float]] = {
    "unwind_stake": (-0.75, -0.45),
    "unwind_format": (0.1, 0.5),
    "compete_stake": (0.4, 0.7),
    "compete_format": (0.2, 0.6),
    "chase_stake": (-0.2, 0.2),
    "chase_format": (-0.8, -0.5),
    "season_stake": (-0.25, 0.25),
    "season_format": (-0.25, 0.25),
    "volatile_stake": (-0.25, 0.25),
    "volatile_format": (-0.25, 0.25),
    "craving_stake": (0.15, 0.3),
    "craving_format": (-0.3, -0.15),
    "width": (0.46, 0.54),
    "intent_rate": (0.02, 0.05),
    "regime_rate": (0.015, 0.035),
    "patience_pull": (2.5, 3.5),
    "match_pull": (0.4, 0.8),
    "bonus_pull": (2.0, 3.0),
    "regret_pull": (0.8, 1.2),
    "expectation_pull": (1.4, 2.0),
    "expectation_rate": (0.08, 0.15),
    "thrill": (0.4, 0.6),
    "wear": (0.05, 0.08),
    "tilt_gain": (2.5, 3.5),
    "tilt_kept": (0.80, 0.88),
    "churn": (-6.4, -6.0),
    "churn_patience": (3.0, 4.0),
    "churn_tilt": (1.1, 1.5),
    "tails": (2.2, 2.8),
}


def constants_of(platform: int) -> Constants:
    """The constants of platform d = 0, 1, ...: uniform in ``RANGES``, in the order of the table."""
    generator = np.random.default_rng([CONSTANTS_SEED, platform])
    drawn = {name: float(generator.uniform(*RANGES[name])) for name in RANGES}
    return Constants(**drawn)
