"""A made-up simulator whose observations are histories, and data that it was played for."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from suites.datasets import store
from suites.envs.mujoco import VectorStep

DAYS, STATIC, FEATURES, ACTIONS = 4, 2, 3, 2
ROW = STATIC + FEATURES


class Diary:
    """Episodes of 2 to 9 days; a day row says who it is, and what was done the day before."""

    env_id, history, static = "Diary-v0", DAYS, STATIC
    horizon, reward_parts = None, ()
    observation_space = spaces.Box(-np.inf, np.inf, (ROW,), np.float32)
    action_space = spaces.Box(-1, 1, (ACTIONS,), np.float32)

    def __init__(self, env_id: str = "Diary-v0", count: int = 1) -> None:
        self.count = count
        self.rngs: list[Any] = [None] * count
        self.left = np.zeros(count, int)
        self.rows = np.zeros((count, ROW))

    def reset(self, index: int, seed: int) -> np.ndarray:
        rng = self.rngs[index] = np.random.default_rng(seed)
        self.left[index] = 2 + rng.integers(8)
        self.rows[index] = 5 + rng.standard_normal(ROW)
        return self.rows[index].copy()

    def step(self, actions: np.ndarray, active: np.ndarray | None = None) -> VectorStep:
        rewards, ended = np.zeros(self.count), np.zeros(self.count, bool)
        for i in np.flatnonzero(np.ones(self.count, bool) if active is None else active):
            self.rows[i, STATIC:] = 5 + self.rngs[i].standard_normal(FEATURES)
            self.rows[i, STATIC] += actions[i].sum()
            rewards[i] = -np.square(actions[i]).sum()
            self.left[i] -= 1
            ended[i] = self.left[i] == 0
        odd = ended & (np.floor(self.rows[:, 0] * 100) % 2 == 1)
        return VectorStep(
            self.rows.copy(), rewards, ended & ~odd, ended & odd, np.zeros((self.count, 0))
        )

    def close(self) -> None: ...


def windows_space() -> spaces.Dict:
    """What agents are told that they see."""
    return spaces.Dict(
        static=spaces.Box(-np.inf, np.inf, (STATIC,), np.float32),
        temporal=spaces.Box(-np.inf, np.inf, (DAYS, FEATURES), np.float32),
    )


def fields(episodes: int = 12, seed: int = 0) -> dict[str, np.ndarray]:
    """Transitions of episodes played at random, in the store's fields; the last is cut short."""
    env, rng = Diary(), np.random.default_rng(seed)
    rows: dict[str, list[Any]] = {name: [] for name in (*store.REQUIRED, "policy_ids")}
    for episode in range(episodes):
        seen, over = env.reset(0, 1000 * seed + episode), False
        while not over:
            action = rng.uniform(-1, 1, ACTIONS).astype(np.float32)
            made = env.step(action[None])
            over = bool(made.terminations[0] or made.truncations[0])
            values = (seen, action, made.rewards[0], made.observations[0])
            values += (made.terminations[0], made.truncations[0], episode % 3)
            for name, value in zip(rows, values, strict=True):
                rows[name].append(value)
            seen = made.observations[0]
    return {name: np.array(values)[:-1] for name, values in rows.items()}


def dataset(**options: int) -> store.Dataset:
    """The same, packed."""
    table, columns = store.pack(fields(**options))
    card = {"columns": columns, "history": DAYS, "static": STATIC}
    return store.Dataset(None, {**card, "return_best": 0.0, "return_worst": -9.0}, table)


def slow_window(rows: np.ndarray, t: int) -> np.ndarray:
    """What is seen of an episode's transformed day rows ``[T, ROW]`` on day t, day by day."""
    days = []
    for day in range(t - DAYS + 1, t + 1):
        days.append(rows[day, STATIC:] if day >= 0 else np.zeros(FEATURES))
    return np.concatenate([rows[t, :STATIC], *days])
