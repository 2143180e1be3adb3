"""The players of :mod:`suites.envs.players` and their days: constants, chance, and what follows.

Nothing here claims anything about a real platform. ``docs/players.md`` has every equation; the
names and their order are the same there.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from suites.envs.players_constants import (
    BANKROLL,
    BONUS_BY_INTENT,
    BONUS_MONEY,
    CHASING,
    COEFFICIENT,
    DAYS,
    DEPOSIT,
    EDGE,
    HOME,
    LOW,
    RAKE,
    REGIME_SWING,
    REGIME_VISITS,
    RUIN,
    SWING,
    WAGER,
    WIN_BACK,
    Constants,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

STATIC = (  # what is known of a player from the first day on
    "channel_0", "channel_1", "channel_2", "device", "age", "test", "first_deposit", "says_stake",
    "says_format", "hour",
)  # fmt: skip

# What a day's chance consists of: uniform numbers, standard normal ones, one of Student's t.
UNIFORMS = (
    "visit", "accept", "churn", "intent", "intent_to", "regime", "regime_to", "deposit",
)  # fmt: skip
NORMALS = (
    "dwell", "own_stake", "own_format", "browse_stake", "browse_format", "look_unwind",
    "look_compete", "look_chase", "clicks", "rating", "night", "speed", "rebuys", "chat", "friends",
    "device", "activity", "market", "latency", "battery", "traffic", "weather", "opened",
    "complaint",
)  # fmt: skip
DRAWS = (*UNIFORMS, *NORMALS, "luck")
TRAIT_UNIFORMS, TRAIT_NORMALS = 5, 10  # per player

TRAITS = ("skill", "wealth", "temper", "taste", "segment", "weekday")
HIDDEN = ("intent", "regime", "bankroll", "tilt", "patience", "expectation", "fatigue", "regret")
TALLIES = (
    "day", "gap", "streak", "visits", "week_visits", "month_visits", "week_dwell", "week_accept",
    "week_result", "week_bonus", "longest", "losses", "wins", "ignored", "deposited", "raked",
    "given", "since_deposit",
)  # fmt: skip
STATE = (*TRAITS, *HIDDEN, *TALLIES)


@dataclass(frozen=True)
class Chance:
    """All that is drawn for an episode; its outcome is a function of this and of the actions.

    Attributes:
        traits: ``[15]``, uniform in the first five, then standard normal.
        days: ``[DAYS, len(DRAWS)]``.
    """

    traits: Floats
    days: Floats


def draw_chance(generator: np.random.Generator, tails: float) -> Chance:
    """An episode's chance; ``tails`` are the degrees of freedom of the luck in play."""
    traits = np.concatenate(
        (generator.random(TRAIT_UNIFORMS), generator.standard_normal(TRAIT_NORMALS))
    )
    days = np.concatenate(
        (
            generator.random((DAYS, len(UNIFORMS))),
            generator.standard_normal((DAYS, len(NORMALS))),
            generator.standard_t(tails, (DAYS, 1)),
        ),
        axis=1,
    )
    return Chance(traits, days)


def sigmoid(logit: Floats) -> Floats:
    """1 / (1 + exp(-logit))."""
    return np.asarray(1.0 / (1.0 + np.exp(-logit)))


class Population:
    """N players side by side, on one platform.

    Attributes:
        constants: of the platform.
        state: ``[len(STATE), N]``; :meth:`see` names its rows.
        static: ``[N, 10]``, in the order of ``STATIC``.
    """

    def __init__(self, count: int, constants: Constants) -> None:
        self.constants = constants
        self.state = np.zeros((len(STATE), count))
        self.static = np.zeros((count, len(STATIC)))
        self._over = np.ones(count, bool)
        self._days = np.zeros((count, DAYS, len(DRAWS)))
        c = constants
        self._liked = np.array(  # [2, intents]
            [
                [c.unwind_stake, c.compete_stake, c.chase_stake],
                [c.unwind_format, c.compete_format, c.chase_format],
            ]
        )
        self._shift = np.array(  # [2, regimes]
            [
                [0.0, c.season_stake, c.volatile_stake],
                [0.0, c.season_format, c.volatile_format],
            ]
        )

    def see(self, where: Any = slice(None)) -> SimpleNamespace:
        """The state of some players or all, one array ``[M]`` for each name in ``STATE``."""
        return SimpleNamespace(**dict(zip(STATE, self.state[:, where], strict=True)))

    def begin(self, index: int, chance: Chance) -> None:
        """A new player in one slot."""
        u, n = chance.traits[:TRAIT_UNIFORMS], chance.traits[TRAIT_UNIFORMS:]
        segment = int(3 * u[0])
        skill, wealth = n[0], np.exp(0.7 * n[1])
        values = dict.fromkeys(STATE, 0.0) | {
            "skill": skill,
            "wealth": wealth,
            "temper": np.exp(0.4 * n[2]),
            "taste": np.exp(0.4 * n[3]),
            "segment": segment,
            "weekday": int(7 * u[1]),
            "intent": segment if u[2] < HOME else (segment + 1 + (u[2] > (1 + HOME) / 2)) % 3,
            "regime": int(3 * u[3]),
            "bankroll": BANKROLL * wealth,
            "patience": 0.6,
            "expectation": 0.3,
            "regret": 0.5,
            "gap": 1.0,
            "since_deposit": 1.0,
        }
        self.state[:, index] = [values[name] for name in STATE]
        # The channel tells the segment three times in four: by how the number falls in its third.
        part = 3 * u[0] - segment
        channel = segment if part < 0.75 else (segment + 1 + (part > 0.875)) % 3
        liked = self._liked[:, segment]
        self.static[index] = [
            *(float(channel == k) for k in range(3)),
            float(n[4] > 0.0),
            0.5 * skill + 0.8 * n[5],
            0.7 * skill + 0.7 * n[6],
            np.log(wealth) + 0.3 * n[7],
            liked[0] + 0.4 * n[8],
            liked[1] + 0.4 * n[9],
            u[4],
        ]
        self._days[index] = chance.days
        self._over[index] = False

    def ideal(self, now: SimpleNamespace) -> tuple[Floats, Floats]:
        """The stake and the format that are good for players in the long run, ``[M]`` each."""
        intent, regime = now.intent.astype(np.int64), now.regime.astype(np.int64)
        funds = np.log((now.bankroll + now.wealth) / ((BANKROLL + 1.0) * now.wealth))
        stake = (
            self._liked[0, intent]
            + self._shift[0, regime]
            + 0.2 * np.tanh(funds)
            + 0.1 * np.clip(now.skill, -2.0, 2.0)
        )
        form = self._liked[1, intent] + self._shift[1, regime] - 0.3 * now.fatigue
        return np.clip(stake, -1.0, 1.0), np.clip(form, -1.0, 1.0)

    def wish(self, now: SimpleNamespace) -> tuple[Floats, Floats]:
        """The stake and the format that players want today, ``[M]`` each."""
        stake, form = self.ideal(now)
        stake = stake + self.constants.craving_stake + CHASING * now.tilt
        form = form + self.constants.craving_format
        return np.clip(stake, -1.0, 1.0), np.clip(form, -1.0, 1.0)

    def match(self, actions: Floats, liked: tuple[Floats, Floats]) -> Floats:
        """How near recommendations ``[M, 3]`` come to a stake and a format, ``[M]`` in (0, 1]."""
        off = (actions[:, 0] - liked[0]) ** 2 + (actions[:, 1] - liked[1]) ** 2
        return np.asarray(np.exp(-off / (2.0 * self.constants.width**2)))

    def visit_chance(self, now: SimpleNamespace, actions: Floats, match: Floats) -> Floats:
        """Chance ``[M]`` that players come on this day."""
        c, bonus = self.constants, bonus_of(actions)
        pull = now.taste * BONUS_BY_INTENT[now.intent.astype(np.int64)]
        pull = pull + WIN_BACK * np.minimum(now.gap - 1.0, 5.0)
        return sigmoid(
            0.0
            + c.patience_pull * (now.patience - 0.5)
            + c.match_pull * (match - 0.5)
            + c.bonus_pull * pull * bonus
            - c.regret_pull * now.regret
            - c.expectation_pull * np.maximum(now.expectation - bonus, 0.0)
            + REGIME_VISITS[now.regime.astype(np.int64)]
            + 0.4 * ((now.weekday + now.day) % 7 >= 5)
            - 0.12 * np.minimum(now.gap - 1.0, 10.0)
            - 0.5 * now.fatigue
        )

    def accept_chance(self, now: SimpleNamespace, actions: Floats, match: Floats) -> Floats:
        """Chance ``[M]`` that players who came play what was recommended."""
        chase = BONUS_BY_INTENT[now.intent.astype(np.int64)]
        return np.asarray(0.05 + 0.8 * match + 0.15 * chase * bonus_of(actions))

    def hours(
        self, now: SimpleNamespace, stake: Floats, form: Floats, pleased: Floats, noise: Floats
    ) -> Floats:
        """Hours ``[M]`` of play by who came; ``pleased`` is the match, 0 without acceptance."""
        return np.asarray(
            np.exp(
                -0.5
                + 0.6 * pleased
                + self.constants.thrill * stake
                + 0.25 * form
                + 0.3 * now.tilt
                - 0.4 * now.fatigue
                + 0.25 * noise
            )
        )

    def step(self, where: Any, actions: npt.NDArray[Any]) -> SimpleNamespace:
        """A day of the players at ``where``.

        Args:
            where: slots, M of them.
            actions: ``[M, 3]``; beyond [-1, 1] they are clipped.

        Returns:
            What happened, ``[M]`` each: ``visited``, ``accepted``, ``churned``, ``ruined`` (flags
            as numbers), ``match`` (with what is wanted), ``good`` (with what is good), ``stake``
            and ``form`` (played; 0 without play), ``hours``, ``wagered``, ``result``, ``rake``,
            ``deposit``, ``bonus``, ``loss`` (share of the bankroll), ``gap`` (days since the last
            visit), ``churn_chance``; also ``action`` ``[M, 3]``, ``wished`` (stake and format) and
            ``draws`` (by name).

        Raises:
            ValueError: if a player has left for good, or 180 days are over.
        """
        if (over := self._over[where]).any():
            slot = np.asarray(where)[over][0]
            raise ValueError(f"player {slot}'s episode is over; reset the slot first")
        c = self.constants
        state = self.state[:, where]
        now = SimpleNamespace(**dict(zip(STATE, state, strict=True)))
        day = now.day[:].astype(np.int64)
        draws = SimpleNamespace(**dict(zip(DRAWS, self._days[where, day].T.copy(), strict=True)))
        actions = np.clip(np.asarray(actions, np.float64), -1.0, 1.0)
        bonus = bonus_of(actions)
        self._turn(now, draws)
        wished = self.wish(now)
        match, good = self.match(actions, wished), self.match(actions, self.ideal(now))

        visited = (draws.visit < self.visit_chance(now, actions, match)).astype(np.float64)
        accepted = visited * (draws.accept < self.accept_chance(now, actions, match))
        stake = np.where(accepted, actions[:, 0], wished[0] + 0.15 * draws.own_stake)
        form = np.where(accepted, actions[:, 1], wished[1] + 0.15 * draws.own_format)
        stake, form = visited * np.clip(stake, -1.0, 1.0), visited * np.clip(form, -1.0, 1.0)
        hours = visited * self.hours(now, stake, form, accepted * match, draws.dwell)

        wagered = np.minimum(WAGER * now.wealth * np.exp(0.9 * stake) * hours, now.bankroll)
        swing = SWING * REGIME_SWING[now.regime.astype(np.int64)]
        result = np.maximum(wagered * (EDGE * now.skill + swing * draws.luck), -wagered)
        rake = RAKE * wagered
        loss = np.maximum(rake - result, 0.0) / (now.bankroll + now.wealth)
        funds = np.maximum(now.bankroll + result - rake, 0.0)
        short = visited * (funds < LOW * now.wealth)
        deposit = short * (draws.deposit < 0.1 + 0.5 * now.patience) * DEPOSIT * now.wealth
        ruined = visited * (funds + deposit < RUIN * now.wealth)

        gap = now.gap.copy()
        short_of = np.maximum(now.expectation - bonus, 0.0)
        now.bankroll[:] = funds + deposit
        now.tilt[:] = np.minimum(c.tilt_kept * now.tilt + c.tilt_gain * now.temper * loss, 2.0)
        now.patience[:] = np.clip(
            now.patience
            + 0.05 * (0.6 - now.patience)
            + visited * c.wear * (good - 0.6)
            - visited * 0.08 * short_of
            - 0.1 * ruined
            - 0.02 * now.tilt,
            0.0,
            1.0,
        )
        now.expectation[:] += c.expectation_rate * (bonus - now.expectation)
        now.fatigue[:] = 0.7 * now.fatigue + 0.3 * np.minimum(hours, 4.0) / 2.0
        now.regret[:] = np.where(visited, 1.0 - good, 0.5 * now.regret)
        now.gap[:] = np.where(visited, 1.0, now.gap + 1.0)
        churn_chance = sigmoid(
            c.churn
            + c.churn_patience * (0.5 - now.patience)
            + c.churn_tilt * now.tilt
            + 1.0 * ruined
            + 0.1 * np.minimum(now.gap - 1.0, 14.0)
        )
        churned = (draws.churn < churn_chance).astype(np.float64)
        happened = SimpleNamespace(
            action=actions,
            bonus=bonus,
            match=match,
            good=good,
            visited=visited,
            accepted=accepted,
            stake=stake,
            form=form,
            hours=hours,
            wagered=wagered,
            result=result,
            rake=rake,
            loss=loss,
            deposit=deposit,
            ruined=ruined,
            gap=gap,
            churned=churned,
            churn_chance=churn_chance,
            wished=wished,
            draws=draws,
        )
        _tally(now, happened)
        self.state[:, where] = state
        self._over[where] = (churned > 0.0) | (now.day >= DAYS)
        return happened

    def _turn(self, now: SimpleNamespace, draws: SimpleNamespace) -> None:
        """Intents and regimes give way to others."""
        c = self.constants
        one, two = (now.intent + 1.0) % 3, (now.intent + 2.0) % 3
        other = np.where(draws.intent_to < 0.5, one, two)
        home = np.where(draws.intent_to < HOME, now.segment, np.where(now.segment == one, two, one))
        to = np.where(now.intent == now.segment, other, home)
        now.intent[:] = np.where(draws.intent < c.intent_rate, to, now.intent)
        to = (now.regime + 1.0 + (draws.regime_to < 0.5)) % 3
        now.regime[:] = np.where(draws.regime < c.regime_rate, to, now.regime)


def bonus_of(actions: Floats) -> Floats:
    """u ``[M]`` in [0, 1] of actions ``[M, 3]``."""
    return np.asarray((actions[:, 2] + 1.0) / 2.0)


def reward_parts(happened: SimpleNamespace) -> Floats:
    """Dwell, engagement, cost, return: ``[M, 4]``, with coefficient and sign."""
    dwell = happened.hours / (1.0 + happened.hours)
    engagement = happened.accepted * (0.4 + 0.6 * happened.match)
    cost = happened.visited * happened.bonus**2
    back = happened.visited / happened.gap
    return np.asarray(COEFFICIENT * np.stack((dwell, engagement, -cost, back), axis=1))


def measures(happened: SimpleNamespace) -> Floats:
    """What a day adds to the five measures, ``[M, 5]``."""
    given = BONUS_MONEY * happened.visited * happened.bonus**2
    engagement = happened.accepted * (0.4 + 0.6 * happened.match)
    return np.stack(
        (happened.visited, happened.rake - given, engagement, happened.hours, given), axis=1
    )


def _tally(now: SimpleNamespace, happened: SimpleNamespace) -> None:
    """What the platform remembers of past days."""
    visited = happened.visited

    def average(memory: Floats, value: Floats, rate: float) -> None:
        memory[:] += rate * (value - memory)

    def on_visits(memory: Floats, value: Floats) -> None:
        memory[:] += visited * (value - memory) / 7.0

    now.day[:] += 1.0
    now.streak[:] = visited * (now.streak + 1.0)
    now.visits[:] += visited
    average(now.week_visits, visited, 1.0 / 7.0)
    average(now.month_visits, visited, 1.0 / 30.0)
    average(now.week_dwell, happened.hours, 1.0 / 7.0)
    on_visits(now.week_accept, happened.accepted)
    on_visits(now.week_result, (happened.result - happened.rake) / now.wealth)
    average(now.week_bonus, happened.bonus, 1.0 / 7.0)
    now.longest[:] = np.maximum(now.longest, happened.hours)
    lost = happened.result < 0.0
    now.losses[:] = np.where(visited, lost * (now.losses + 1.0), now.losses)
    now.wins[:] = np.where(visited, ~lost * (now.wins + 1.0), now.wins)
    now.ignored[:] = np.where(visited, (1.0 - happened.accepted) * (now.ignored + 1), now.ignored)
    now.deposited[:] += happened.deposit
    now.raked[:] += happened.rake
    now.given[:] += BONUS_MONEY * visited * happened.bonus**2
    now.since_deposit[:] = np.where(happened.deposit > 0.0, 0.0, now.since_deposit + 1.0)
