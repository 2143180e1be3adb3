"""What policies are worth on the platforms of :mod:`suites.envs.players`, by simulation.

All policies meet the same players and the same chance (an episode's chance does not depend on who
acts). Those that were searched for were searched on players of their own.

The *ceiling* sees the hidden state, though not the chance to come: what suits the player best, plus
a linear function of the state for the stake, the format and the bonus, whose weights a
cross-entropy search found for the mean undiscounted return. It is not proved to be optimal.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from types import SimpleNamespace
from typing import Protocol

import numpy as np

from suites.catalog import PLAYERS
from suites.datasets.recipes.players import NOISE, POLICIES
from suites.envs.players_constants import BANKROLL, DAYS, constants_of
from suites.envs.players_days import day_rows, first_rows
from suites.envs.players_model import (
    Chance,
    Floats,
    Ints,
    Population,
    bonus_of,
    draw_chance,
    measures,
    reward_parts,
)
from suites.envs.players_policies import Logging, assigned, column

PLAYERS_JUDGED, JUDGING_SEED = 4_000, 1
PLAYERS_SEARCHED, SEARCHING_SEED = 250, 2
ROUNDS, CONSTANT_ROUNDS, TRIED, KEPT = 5, 3, 12, 3  # of the cross-entropy search
_PIECE = 2_000  # players at once


class Policy(Protocol):
    """Who acts for N players of one platform.

    Attributes:
        looks: whether it needs rows, which take most of the time; where not, they are out of date.
    """

    looks: bool

    def begin(self, rows: Floats, generator: np.random.Generator) -> None:
        """New players, of first rows ``[N, 88]``."""
        ...

    def act(self, population: Population, here: Ints, rows: Floats) -> Floats:
        """Actions ``[M, 3]`` for the players ``here`` ``[M]``; rows are ``[N, 88]``."""
        ...


class Random:
    """Uniformly random actions."""

    looks = False

    def begin(self, rows: Floats, generator: np.random.Generator) -> None:
        """See :class:`Policy`."""
        self._generator = generator

    def act(self, population: Population, here: Ints, rows: Floats) -> Floats:
        """See :class:`Policy`."""
        return np.asarray(self._generator.uniform(-1.0, 1.0, (len(here), 3)))


class Constant:
    """The same action ``[3]`` always."""

    looks = False

    def __init__(self, action: Floats) -> None:
        self._action = action

    def begin(self, rows: Floats, generator: np.random.Generator) -> None:
        """See :class:`Policy`."""

    def act(self, population: Population, here: Ints, rows: Floats) -> Floats:
        """See :class:`Policy`."""
        return np.tile(self._action, (len(here), 1))


class Logged:
    """The logging policies: one of them by its number, or all as at an overlap."""

    looks = True

    def __init__(self, number: int | None = None, overlap: float = 0.0) -> None:
        self._number, self._overlap = number, overlap

    def begin(self, rows: Floats, generator: np.random.Generator) -> None:
        """See :class:`Policy`."""
        count, self._generator = len(rows), generator
        who = assigned(rows, self._overlap, generator.random((count, 2)))
        self._who = who if self._number is None else np.full(count, self._number)
        self._logging = Logging(count)
        for index, row in enumerate(rows):
            self._logging.begin(index, row)

    def act(self, population: Population, here: Ints, rows: Floats) -> Floats:
        """See :class:`Policy`."""
        active = np.zeros(len(rows), bool)
        active[here] = True
        means = self._logging.means(rows, active)[self._who[here], here]
        return np.asarray(means + NOISE * self._generator.standard_normal(means.shape))


class Follower:
    """Sees only rows: gives what was browsed for lately, with less stake, longer, small bonuses."""

    looks = True
    REMEMBERED, LOWER, LONGER, BONUS = 0.2, 0.2, 0.2, 0.3

    def begin(self, rows: Floats, generator: np.random.Generator) -> None:
        """See :class:`Policy`."""
        says = column(rows, "says_stake"), column(rows, "says_format")
        # What players say they like is what is good for them.
        self._seen = np.stack((says[0] + self.LOWER, says[1] - self.LONGER))

    def act(self, population: Population, here: Ints, rows: Floats) -> Floats:
        """See :class:`Policy`."""
        browsed = np.stack((column(rows, "browsed_stake"), column(rows, "browsed_format")))
        moved = self._seen + self.REMEMBERED * (browsed - self._seen)
        self._seen = np.where(column(rows, "visited") > 0.0, moved, self._seen)
        bonus = np.full(len(here), 2.0 * self.BONUS - 1.0)
        seen = self._seen[:, here]
        action = np.stack((seen[0] - self.LOWER, seen[1] + self.LONGER, bonus), axis=1)
        return np.asarray(np.clip(action, -1.0, 1.0))


class Greedy:
    """Sees the hidden state and takes what the day to come pays most for, as things stand."""

    looks = False

    def begin(self, rows: Floats, generator: np.random.Generator) -> None:
        """See :class:`Policy`."""

    def act(self, population: Population, here: Ints, rows: Floats) -> Floats:
        """See :class:`Policy`."""
        now = population.see(here)
        wished = population.wish(now)
        best, chosen = np.full(len(here), -np.inf), np.zeros((len(here), 3))
        more = (0.0, 0.15)
        for higher, longer, bonus in product(more, more, np.linspace(0.0, 1.0, 6)):
            action = wished[0] + higher, wished[1] + longer, np.full(len(here), 2.0 * bonus - 1.0)
            tried = np.clip(np.stack(action, axis=1), -1.0, 1.0)
            value = self._worth(population, now, tried, wished)
            chosen = np.where((value > best)[:, None], tried, chosen)
            best = np.maximum(best, value)
        return chosen

    @staticmethod
    def _worth(
        population: Population, now: SimpleNamespace, tried: Floats, wished: tuple[Floats, Floats]
    ) -> Floats:
        match = population.match(tried, wished)
        visit = population.visit_chance(now, tried, match)
        accept = population.accept_chance(now, tried, match)
        none = np.zeros(len(match))
        with_it = population.hours(now, tried[:, 0], tried[:, 1], match, none)
        without = population.hours(now, *wished, none, none)
        dwell = accept * with_it / (1 + with_it) + (1 - accept) * without / (1 + without)
        engagement = accept * (0.4 + 0.6 * match)
        return np.asarray(visit * (dwell + engagement - bonus_of(tried) ** 2 + 1.0 / now.gap))


class Informed:
    """The ceiling: sees the hidden state; ``weights`` ``[13]`` say what it makes of it."""

    looks = False
    START = np.array([0.05, 0.0, 0.0, 0.0, -0.05, 0.2, 0.2, 0.4, *[0.0] * 5])

    def __init__(self, weights: Floats) -> None:
        self._stake, self._format, self._bonus = np.split(weights, (4, 5))

    def begin(self, rows: Floats, generator: np.random.Generator) -> None:
        """See :class:`Policy`."""

    def act(self, population: Population, here: Ints, rows: Floats) -> Floats:
        """See :class:`Policy`."""
        now = population.see(here)
        stake, form = population.ideal(now)
        one, patience = np.ones(len(here)), now.patience - 0.6
        funds = np.log((now.bankroll + now.wealth) / ((BANKROLL + 1.0) * now.wealth))
        about_stake = np.stack((one, now.tilt, patience, funds))
        about_bonus = np.stack(
            (
                *(now.intent == k for k in range(3)),
                (now.taste - 1.0) * (now.intent == 2),
                patience,
                now.expectation - 0.3,
                np.minimum(now.gap - 1.0, 5.0) / 5.0,
                now.tilt,
            )
        )
        bonus = np.clip((self._bonus[:, None] * about_bonus).sum(0), 0.0, 1.0)
        stake = stake + (self._stake[:, None] * about_stake).sum(0)
        action = np.stack((stake, form + self._format, 2.0 * bonus - 1.0), axis=1)
        return np.asarray(np.clip(action, -1.0, 1.0))


@dataclass(frozen=True)
class Worth:
    """What N players brought: ``returns``, ``days`` ``[N]``, ``parts`` ``[N, 4]``, ``measures``."""

    returns: Floats
    days: Floats
    parts: Floats
    measures: Floats

    def mean(self) -> tuple[float, float]:
        """Of the returns, with its standard error."""
        return float(self.returns.mean()), float(self.returns.std() / np.sqrt(len(self.returns)))


def play(platform: int, make: Callable[[], Policy], players: int, seed: int) -> Worth:
    """Plays one episode of each player.

    Args:
        platform: d.
        make: makes the policy.
        players: N; the n-th is always the same, whoever acts.
        seed: of the players.
    """
    pieces = [
        _play(platform, make(), range(first, min(first + _PIECE, players)), seed)
        for first in range(0, players, _PIECE)
    ]
    names = ("returns", "days", "parts", "measures")
    return Worth(*(np.concatenate([getattr(piece, name) for piece in pieces]) for name in names))


def _play(platform: int, policy: Policy, who: range, seed: int) -> Worth:
    constants, count = constants_of(platform), len(who)
    population = Population(count, constants)
    for index, player in enumerate(who):
        population.begin(index, _chance(seed, platform, player, constants.tails))
    rows = np.concatenate((population.static, first_rows(population.see())), axis=1)
    policy.begin(rows, np.random.default_rng([seed, platform, who[0], 1]))
    found = Worth(np.zeros(count), np.zeros(count), np.zeros((count, 4)), np.zeros((count, 5)))
    here = np.arange(count)
    for _ in range(DAYS):
        happened = population.step(here, policy.act(population, here, rows))
        found.parts[here] += reward_parts(happened)
        found.measures[here] += measures(happened)
        found.days[here] += 1.0
        if policy.looks:
            rows[here, population.static.shape[1] :] = day_rows(population.see(here), happened)
        here = here[happened.churned == 0.0]
        if not here.size:
            break
    found.returns[:] = found.parts.sum(axis=1)
    return found


@lru_cache(maxsize=PLAYERS_JUDGED + PLAYERS_SEARCHED)
def _chance(seed: int, platform: int, player: int, tails: float) -> Chance:
    return draw_chance(np.random.default_rng([seed, platform, player]), tails)


def search(
    platform: int,
    make: Callable[[Floats], Policy],
    mean: Floats,
    spread: float,
    rounds: int = ROUNDS,
) -> Floats:
    """Weights of the largest mean return, by the cross-entropy method with the same chance for all.

    Args:
        platform: d.
        make: makes a policy of weights.
        mean: weights to begin around.
        spread: standard deviation of the first round's.
        rounds: how many.
    """
    generator = np.random.default_rng([SEARCHING_SEED, platform])
    deviation = np.full(len(mean), spread)
    for _ in range(rounds):
        tried = mean + deviation * generator.standard_normal((TRIED, len(mean)))
        tried[0] = mean
        values = [_searched(platform, make, weights) for weights in tried]
        best = tried[np.argsort(values)[-KEPT:]]
        mean, deviation = best.mean(axis=0), best.std(axis=0) + 0.01
    return mean


def _searched(platform: int, make: Callable[[Floats], Policy], weights: Floats) -> float:
    found = play(platform, lambda: make(weights), PLAYERS_SEARCHED, SEARCHING_SEED)
    return float(found.returns.mean())


def best_constant(platform: int) -> Floats:
    """The best action ``[3]`` to take always: the best of a grid, and the search from there."""
    levels = np.linspace(-0.6, 0.6, 4), np.linspace(-0.6, 0.6, 4), np.array([-0.4])
    grid = [np.array(action) for action in product(*levels)]
    values = [_searched(platform, Constant, action) for action in grid]
    return search(platform, Constant, grid[int(np.argmax(values))], 0.15, CONSTANT_ROUNDS)


def ceiling(platform: int) -> Floats:
    """Weights of :class:`Informed`."""
    return search(platform, Informed, Informed.START, 0.1)


def policies(platform: int) -> Iterator[tuple[str, Callable[[], Policy], Floats | None]]:
    """Those to be compared: name, maker, and what was searched for."""
    yield "random", Random, None
    for number, name in enumerate(POLICIES):
        yield name, lambda number=number: Logged(number), None  # type: ignore[misc]
    for overlap in (0.0, 1.0):
        yield f"mixture {overlap:g}", lambda overlap=overlap: Logged(None, overlap), None  # type: ignore[misc]
    action = best_constant(platform)
    yield "constant", lambda: Constant(action), action
    yield "follower", Follower, None
    yield "greedy", Greedy, None
    weights = ceiling(platform)
    yield "ceiling", lambda: Informed(weights), weights


def main() -> None:
    """Prints a line for each policy on the platforms named in the command line, or on all."""
    for name in sys.argv[1:] or PLAYERS:
        for policy, make, searched in policies(PLAYERS[name]):
            found = play(PLAYERS[name], make, PLAYERS_JUDGED, JUDGING_SEED)
            value, error = found.mean()
            numbers = " ".join(f"{value:.3f}" for value in found.measures.mean(axis=0))
            weights = "" if searched is None else f" at {searched.round(3).tolist()}"
            print(
                f"{name} {policy:<11} {value:.4f}, standard error {error:.4f}, "
                f"{found.days.mean():.1f} days, {numbers}{weights}",
                flush=True,
            )
