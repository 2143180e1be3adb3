"""What the platform of :mod:`suites.envs.players_model` sees of a player's day: 78 numbers.

None of them is the hidden state; some are noisy signs of it. All are clipped to [-8, 8].
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from suites.envs.players_constants import DAYS, LOW
from suites.envs.players_model import Floats, reward_parts

LIMIT = 8.0
NAMES = (
    # The calendar, and two noisy signs of the regime.
    *(f"weekday_{k}" for k in range(7)),
    "day",
    "activity",
    "market",
    # Coming and staying away.
    "visited",
    "gap",
    "streak",
    "visits",
    "week_visits",
    "month_visits",
    "returned_after",
    # What was recommended, and whether it was taken.
    "stake_shown",
    "format_shown",
    "bonus_shown",
    "accepted",
    "stake_accepted",
    "format_accepted",
    "week_accept",
    "ignored",
    "week_bonus",
    # What was played, and what was looked at.
    "stake_played",
    "format_played",
    "own_stake",
    "own_format",
    "browsed_stake",
    "browsed_format",
    "looked_unwind",
    "looked_compete",
    "looked_chase",
    # Time.
    "hours",
    "log_hours",
    "week_dwell",
    "longest",
    "over_usual",
    # Results of play; money in units of the square root of 1 + amount, with the sign.
    "result",
    "result_per_wager",
    "won",
    "lost",
    "loss",
    "gain",
    "losses",
    "wins",
    "week_result",
    # Money.
    "wallet",
    "wagered",
    "rake",
    "deposit",
    "deposited",
    "raked",
    "given",
    "since_deposit",
    "short",
    "ruined",
    "bonus_paid",
    # Signs of mood.
    "clicks",
    "rating",
    "opened",
    "complaint",
    "night",
    "speed",
    "rebuys",
    "chat",
    # The parts of the reward.
    "part_dwell",
    "part_engagement",
    "part_cost",
    "part_return",
    # Nothing to do with anything.
    "friends",
    "device_hours",
    "latency",
    "battery",
    "traffic",
    "weather",
)


def _money(amount: Floats) -> Floats:
    """Heavy tails made presentable: the sign times log(1 + size)."""
    return np.asarray(np.sign(amount) * np.log1p(np.abs(amount)))


def _calendar(now: SimpleNamespace) -> dict[str, Floats]:
    """Of the day to come."""
    weekday = (now.weekday + now.day) % 7
    shown = {f"weekday_{k}": (weekday == k).astype(np.float64) for k in range(7)}
    return {**shown, "day": now.day / DAYS}


def first_rows(now: SimpleNamespace) -> Floats:
    """``[M, 78]`` before the first day: the calendar, and zeros."""
    return _rows(_calendar(now), len(now.day))


def day_rows(now: SimpleNamespace, happened: SimpleNamespace) -> Floats:
    """``[M, 78]`` of the day that is over, in the order of ``NAMES``.

    Args:
        now: the state after it.
        happened: what :meth:`suites.envs.players_model.Population.step` returned.
    """
    h, d, visited = happened, happened.draws, happened.visited
    accepted, alone = h.accepted, visited - h.accepted
    action, parts = h.action, reward_parts(h)
    won, lost = visited * (h.result > 0.0), visited * (h.result < 0.0)
    net = h.result - h.rake
    shown = {
        **_calendar(now),
        "activity": 0.5 * (now.regime == 1) - 0.3 * (now.regime == 2) + 0.5 * d.activity,
        "market": (now.regime == 2) + 0.5 * d.market,
        "visited": visited,
        "gap": (now.gap - 1.0) / 7.0,
        "streak": now.streak / 14.0,
        "visits": now.visits / 60.0,
        "week_visits": now.week_visits,
        "month_visits": now.month_visits,
        "returned_after": visited * (h.gap - 1.0) / 7.0,
        "stake_shown": action[:, 0],
        "format_shown": action[:, 1],
        "bonus_shown": h.bonus,
        "accepted": accepted,
        "stake_accepted": accepted * action[:, 0],
        "format_accepted": accepted * action[:, 1],
        "week_accept": now.week_accept,
        "ignored": now.ignored / 7.0,
        "week_bonus": now.week_bonus,
        "stake_played": h.stake,
        "format_played": h.form,
        "own_stake": alone * h.stake,
        "own_format": alone * h.form,
        "browsed_stake": visited * (h.wished[0] + 0.5 * d.browse_stake),
        "browsed_format": visited * (h.wished[1] + 0.5 * d.browse_format),
        "looked_unwind": visited * ((now.intent == 0) + d.look_unwind),
        "looked_compete": visited * ((now.intent == 1) + d.look_compete),
        "looked_chase": visited * ((now.intent == 2) + d.look_chase),
        "hours": h.hours,
        "log_hours": np.log1p(h.hours),
        "week_dwell": now.week_dwell,
        "longest": np.log1p(now.longest),
        "over_usual": visited * (h.hours - now.week_dwell),
        "result": _money(h.result),
        "result_per_wager": visited * _money(h.result / (h.wagered + 1e-9)),
        "won": won,
        "lost": lost,
        "loss": h.loss,
        "gain": visited * np.log1p(np.maximum(net, 0.0) / (now.bankroll + now.wealth)),
        "losses": now.losses / 5.0,
        "wins": now.wins / 5.0,
        "week_result": _money(now.week_result),
        # In steps, as a wallet that is not all of what a player has.
        "wallet": np.round(2.0 * np.log1p(now.bankroll)) / 4.0,
        "wagered": np.log1p(h.wagered),
        "rake": np.log1p(h.rake),
        "deposit": np.log1p(h.deposit) / 2.0,
        "deposited": np.log1p(now.deposited) / 2.0,
        "raked": np.log1p(now.raked),
        "given": np.log1p(now.given),
        "since_deposit": now.since_deposit / 30.0,
        "short": visited * (now.bankroll < LOW * now.wealth),
        "ruined": h.ruined,
        "bonus_paid": visited * h.bonus,
        "clicks": visited * (h.match + 0.3 * d.clicks),
        "rating": accepted * (h.good + 0.3 * d.rating),
        "opened": 0.5 * now.patience + 0.3 * h.bonus + 0.4 * d.opened,
        "complaint": visited * (0.5 - now.patience + 0.4 * d.complaint),
        "night": visited * (0.5 * now.tilt + 0.5 * d.night),
        "speed": visited * (0.4 * now.tilt + 0.5 * d.speed),
        "rebuys": visited * np.maximum(now.tilt + 0.5 * d.rebuys, 0.0),
        "chat": visited * d.chat,
        "part_dwell": parts[:, 0],
        "part_engagement": parts[:, 1],
        "part_cost": parts[:, 2],
        "part_return": parts[:, 3],
        "friends": d.friends,
        "device_hours": d.device,
        "latency": d.latency,
        "battery": d.battery,
        "traffic": d.traffic,
        "weather": d.weather,
    }
    return _rows(shown, len(visited))


def _rows(shown: dict[str, Floats], count: int) -> Floats:
    rows = np.zeros((len(NAMES), count))
    for place, name in enumerate(NAMES):
        if name in shown:
            rows[place] = shown[name]
    return np.ascontiguousarray(np.clip(rows, -LIMIT, LIMIT).T)
