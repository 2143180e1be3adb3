"""A synthetic, volatile gaming platform that several policies logged: ``docs/players.md``.

A step is a calendar day, an episode one player for at most 180 days; who leaves for good ends it.
The action is the day's recommendation, in [-1, 1]^3: a stake, a format (quick to long) and a bonus
(none to full). What suits a player depends on what cannot be seen: what the player came for, the
platform's regime, the bankroll, how far losses have put the player on tilt, how much patience is
left, and what bonuses the player has come to expect. Results of play have heavy tails.

The model is in :mod:`suites.envs.players_model`, what is shown of a day in
:mod:`suites.envs.players_days`. All of an episode's chance is drawn by its reset, so an episode can
be played again up to any day (:meth:`VectorPlayers.replay`) and then go on otherwise.

``python -m suites.envs.players`` prints the returns that score 0 and 100 on each platform, and what
other policies are worth (:mod:`suites.envs.players_reference`).
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.utils import seeding

from suites.envs.mujoco import Flags, Floats, VectorStep, _Slots
from suites.envs.players_constants import DAYS, constants_of
from suites.envs.players_days import LIMIT, NAMES, day_rows, first_rows
from suites.envs.players_model import (
    STATIC,
    Ints,
    Population,
    draw_chance,
    measures,
    reward_parts,
)

HISTORY = 30  # days of an observation
PARTS = ("dwell", "engagement", "cost", "return")
MEASURES = (
    "player_returns",
    "lifetime_value",
    "engagement",
    "dwell_time",
    "recommendation_cost",
)
_WIDTH = len(STATIC) + len(NAMES)

Observation = dict[str, npt.NDArray[np.float32]]


class Players(gymnasium.Env[Observation, npt.NDArray[np.float32]]):
    """One player for gymnasium, which knows platform d as ``fastq_bench/players-<d>-v0``.

    An observation is ``static`` ``[10]`` and ``temporal`` ``[30, 78]``: the last days, oldest
    first, with zeros before the first. ``info`` of a step has the parts of the reward
    (``reward_dwell``, ...) and what the day adds to the measures (``measure_player_returns``, ...).

    Args:
        platform: d; chooses the constants.
        render_mode: None or "rgb_array".
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012 (gymnasium's type)
    reward_parts: tuple[str, ...] = PARTS

    def __init__(self, platform: int = 0, render_mode: str | None = None) -> None:
        self.platform, self.render_mode = platform, render_mode
        self.population = Population(1, constants_of(platform))
        self.action_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
        shown: Any = spaces.Dict(
            {
                "static": spaces.Box(-LIMIT, LIMIT, (len(STATIC),), np.float32),
                "temporal": spaces.Box(-LIMIT, LIMIT, (HISTORY, len(NAMES)), np.float32),
            }
        )
        self.observation_space = shown
        self._temporal = np.zeros((HISTORY, len(NAMES)), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """A new player, with all of the episode's chance."""
        super().reset(seed=seed)
        self.population.begin(0, draw_chance(self.np_random, self.population.constants.tails))
        self._temporal[:] = 0.0
        return self._observe(first_rows(self.population.see())), {}

    def step(
        self, action: npt.NDArray[Any]
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """A day."""
        happened = self.population.step(np.zeros(1, np.int64), np.asarray(action)[None])
        now = self.population.see()
        parts = reward_parts(happened)[0].tolist()
        info = {f"reward_{name}": value for name, value in zip(PARTS, parts, strict=True)}
        added = measures(happened)[0].tolist()
        info |= {f"measure_{name}": value for name, value in zip(MEASURES, added, strict=True)}
        return (
            self._observe(day_rows(now, happened)),
            sum(parts),
            bool(happened.churned[0]),
            bool(now.day[0] >= DAYS),
            info,
        )

    def render(self) -> Any:
        """The last 30 days, ``[100, 240, 3]`` uint8: hours grey, bonuses shown red."""
        picture = np.full((100, 240, 3), 255, np.uint8)
        hours = self._temporal[:, NAMES.index("log_hours")]
        bonus = self._temporal[:, NAMES.index("bonus_shown")]
        for k in range(HISTORY):
            left = 8 * k
            picture[100 - int(min(40.0 * hours[k], 99)) :, left : left + 6] = (120, 120, 120)
            picture[: int(20.0 * bonus[k]), left : left + 6] = (200, 0, 0)
        return picture

    def _observe(self, row: Floats) -> Observation:
        self._temporal[:-1] = self._temporal[1:].copy()
        self._temporal[-1] = row[0]
        static = np.clip(self.population.static[0], -LIMIT, LIMIT).astype(np.float32)
        return {"static": static, "temporal": self._temporal.copy()}


class VectorPlayers(_Slots):
    """Many players on one platform, a day at once; see :class:`suites.envs.VectorEnv`.

    Observations are *rows* ``[88]``: static, then what is shown of the last day.

    Attributes:
        population: the players, with all that is hidden.
        history: rows that an observation is made of.
        static: numbers of a row that stay.
    """

    reward_parts: tuple[str, ...] = PARTS
    measures: tuple[str, ...] = MEASURES
    history: int = HISTORY
    static: int = len(STATIC)

    def __init__(self, env_id: str, count: int) -> None:
        from suites.envs import registered

        env = registered.make(env_id)
        super().__init__(env_id, count, env)
        one: Any = env.unwrapped
        self.observation_space = spaces.Box(-LIMIT, LIMIT, (_WIDTH,), np.float64)
        self.population = Population(count, one.population.constants)
        self._rows = np.zeros((count, _WIDTH))

    def reset(self, index: int, seed: int) -> Floats:
        """Begins an episode in one slot."""
        generator, _ = seeding.np_random(seed)
        population = self.population
        population.begin(index, draw_chance(generator, population.constants.tails))
        self._rows[index, : self.static] = np.clip(population.static[index], -LIMIT, LIMIT)
        self._rows[index, self.static :] = first_rows(population.see(slice(index, index + 1)))[0]
        self._reset[index] = True
        return np.array(self._rows[index])

    def step(self, actions: npt.NDArray[Any], active: Flags | None = None) -> VectorStep:
        """A day of the active slots."""
        active = self._check(actions, active)
        slots = np.flatnonzero(active)
        happened = self.population.step(slots, actions[slots])
        now = self.population.see(slots)
        self._rows[slots, self.static :] = day_rows(now, happened)
        parts, added = np.zeros((self.count, len(PARTS))), np.zeros((self.count, len(MEASURES)))
        parts[slots], added[slots] = reward_parts(happened), measures(happened)
        terminations, truncations = np.zeros((2, self.count), bool)
        terminations[slots], truncations[slots] = happened.churned > 0.0, now.day >= DAYS
        return VectorStep(
            observations=self._rows.copy(),
            # In the parts' order, as a single environment adds them.
            rewards=np.add.accumulate(parts, axis=1)[:, -1],
            terminations=terminations,
            truncations=truncations,
            parts=parts,
            measures=added,
        )

    def replay(self, seeds: Ints, actions: npt.NDArray[Any], days: Ints) -> Floats:
        """Puts the first M slots where logged episodes stood, hidden state and coming chance too.

        The same action then has the same outcome as in the log, and another one meets the same
        chance.

        Args:
            seeds: the episodes' reset seeds, ``[M]``; M is at most ``count``.
            actions: those taken, ``[M, T, 3]``.
            days: how many of them, from the first on, ``[M]``, at most T; no player may have left
                before.

        Returns:
            The rows of these days, ``[M, T + 1, 88]``, the reset's first; zeros after day ``days``.

        Raises:
            ValueError: if a player left before the day asked for, as other actions than the logged
                ones can bring about.
        """
        count = len(seeds)
        rows = np.zeros((count, actions.shape[1] + 1, _WIDTH))
        for slot, seed in enumerate(seeds.tolist()):
            rows[slot, 0] = self.reset(slot, seed)
        given = np.zeros((self.count, 3), actions.dtype)
        active = np.zeros(self.count, bool)
        for day in range(int(days.max(initial=0))):
            active[:count] = day < days
            given[:count] = actions[:, day]
            step = self.step(given, active)
            rows[active[:count], day + 1] = step.observations[active]
            gone = np.flatnonzero(step.terminations[:count] & (day + 1 < days))
            if gone.size:
                raise ValueError(
                    f"{self.env_id}: player {gone[0]} left on day {day + 1}, before day "
                    f"{days[gone[0]]}; give the actions that were logged"
                )
        return rows

    def close(self) -> None:
        """There is nothing to release."""


if __name__ == "__main__":
    from suites.envs.players_reference import main

    main()
