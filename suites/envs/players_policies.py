"""The three policies that logged data of :mod:`suites.envs.players`, and whom they were given.

Each is a formula on what a player was seen to do, with Gaussian noise added by who plays them. None
knows what is hidden:

- *generous* gives bonuses, larger ones to whoever stays away or ignores it;
- *pushing* asks for high stakes, higher ones after wins;
- *careful* keeps stakes low, lower ones after losses.

All three follow, to some degree, the choices a player was seen to make.
"""

from __future__ import annotations

import numpy as np

from suites.datasets.recipes.players import POLICIES
from suites.envs.players_days import NAMES
from suites.envs.players_model import STATIC, Flags, Floats, Ints

REMEMBERED = 0.2  # weight of the last day with play among the choices seen
RICH, WEAK = 0.35, 0.0  # of the first deposit and of the first day's test, see :func:`home`

_COLUMN = {name: k for k, name in enumerate((*STATIC, *NAMES))}


def column(rows: Floats, name: str) -> Floats:
    """What rows ``[..., 88]`` show under a name."""
    return np.asarray(rows[..., _COLUMN[name]])


def home(rows: Floats) -> Ints:
    """The policy ``[...]`` that players of rows ``[..., 88]`` are at home with."""
    weak = np.where(column(rows, "test") < WEAK, 0, 2)
    return np.where(column(rows, "first_deposit") > RICH, 1, weak).astype(np.int64)


def assigned(rows: Floats, overlap: float, draws: Floats) -> Ints:
    """Who is given players of first rows ``[N, 88]``.

    Args:
        rows: of the first day.
        overlap: o in [0, 1]: chance that home has no say and all policies are equally likely.
        draws: ``[N, 2]``, uniform.
    """
    anyone = np.minimum((len(POLICIES) * draws[..., 1]).astype(np.int64), len(POLICIES) - 1)
    return np.where(draws[..., 0] < overlap, anyone, home(rows))


class Logging:
    """All three policies' memory of N players.

    Args:
        count: N.
    """

    def __init__(self, count: int) -> None:
        self._stake, self._format = np.zeros((2, count))

    def begin(self, index: int, row: Floats) -> None:
        """A new player, of whom what they say is all that is known."""
        self._stake[index] = np.clip(column(row, "says_stake"), -1.0, 1.0)
        self._format[index] = np.clip(column(row, "says_format"), -1.0, 1.0)

    def means(self, rows: Floats, active: Flags | None = None) -> Floats:
        """What each policy would recommend, ``[3, N, 3]``, without noise; once a day.

        Args:
            rows: ``[N, 88]``.
            active: ``[N]``, players of whom the row is news; all by default.
        """
        news = column(rows, "visited") > 0.0
        news = news if active is None else news & active
        for memory, name in ((self._stake, "stake_played"), (self._format, "format_played")):
            moved = memory + REMEMBERED * (column(rows, name) - memory)
            memory[:] = np.where(news, moved, memory)
        s, f = self._stake, self._format
        lost = np.clip(-column(rows, "week_result"), 0.0, 1.5)
        away = np.minimum(column(rows, "gap"), 1.0)
        ignored = np.minimum(column(rows, "ignored"), 1.0)
        wins = np.minimum(column(rows, "wins"), 1.0)
        slighted = 1.0 - column(rows, "week_accept")
        generous = (0.4 * s - 0.1, 0.4 * f - 0.2, 0.4 + 0.3 * away + 0.3 * ignored)
        pushing = (0.45 + 0.3 * s + 0.2 * wins, 0.2 + 0.2 * f, 0.1 + 0.1 * away)
        careful = (-0.35 + 0.4 * s - 0.2 * lost, 0.2 + 0.3 * f, 0.1 + 0.2 * slighted)
        means = np.stack([np.stack(policy, axis=1) for policy in (generous, pushing, careful)])
        means[..., 2] = 2.0 * means[..., 2] - 1.0  # a bonus of u is the action 2 u - 1
        return np.clip(means, -1.0, 1.0)
