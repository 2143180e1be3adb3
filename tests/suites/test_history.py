"""Observations that are histories: windows of a table's rows, and of rows as they are played."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from histories import DAYS, FEATURES, ROW, STATIC, Diary, dataset, slow_window, windows_space

from baselines.contract import Needs, Spec
from suites.datasets.history import History, Windows
from suites.datasets.sampler import Sampler
from suites.datasets.transforms import Transform
from suites.evaluate import Evaluator
from suites.ope.judging import _act
from suites.spaces import facts_of, from_plain, to_plain
from suites.spaces import histories as of_rows

NEEDS = Needs(
    ("observations", "next_observations", "rewards", "terminations"),
    batch_size=200,
    observations="standardized",
)


def spec(dtype: Any = "float64") -> Spec:
    return Spec(windows_space(), Diary.action_space, dtype=dtype)


def slow(data: Any, transform: Transform) -> tuple[np.ndarray, np.ndarray]:
    """Windows and next windows of every row, by a loop over episodes and days."""
    rows = transform.observations(data.column("observations").astype(np.float64))
    after = transform.observations(data.column("next_observations").astype(np.float64))
    now, then = [], []
    for start, stop in itertools.pairwise([*data.episode_starts.tolist(), len(rows)]):
        for t in range(stop - start):
            one_more = np.vstack([rows[start : start + t + 1], after[start + t]])
            now.append(slow_window(rows[start:stop], t))
            then.append(slow_window(one_more, t + 1))
    return np.array(now), np.array(then)


def test_batches_are_the_windows_of_a_slow_loop() -> None:
    data = dataset()
    transform = Transform.fit(data, NEEDS)
    assert abs(transform.shift).min() > 1  # so that a zero row is not a zero
    now, then = slow(data, transform)
    drawing = Sampler(data, NEEDS, transform, (0, 1, 2), spec())
    found = drawing.sample()
    index = Sampler(data, NEEDS, transform, (0, 1, 2), spec()).noise.integers(len(now), 200)
    assert set(index.flatten().tolist()) == set(range(len(now)))  # every row, first and last ones
    np.testing.assert_allclose(found["observations"], now[index], atol=1e-6)
    np.testing.assert_allclose(found["next_observations"], then[index], atol=1e-6)
    np.testing.assert_allclose(found["rewards"], data.column("rewards")[index], atol=1e-6)
    padding = (found["observations"] == 0).sum().item()
    assert padding == sum((now[i] == 0).sum() for i in index.flatten().tolist()) > 0


def test_an_agent_may_ask_for_next_windows_alone() -> None:
    data, needs = dataset(), Needs(("next_observations",), batch_size=50)
    both = Needs(("observations", "next_observations"), batch_size=50)
    transform = Transform.fit(data, needs)
    alone, paired = (Sampler(data, n, transform, (3,), spec()).sample() for n in (needs, both))
    assert torch.equal(alone["next_observations"], paired["next_observations"])


class Watching:
    """Acts at random by the step's noise and keeps what it is shown."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []
        self.active: list[torch.Tensor] = []

    def act(self, step: Any, memory: Any = None, *, explore: bool = False) -> Any:
        self.seen.append(step["observations"].clone())
        self.active.append(step["active"].clone())
        return step["noise"].uniform(2) * 2 - 1, None


def test_acting_shows_the_windows_that_batches_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset()
    transform = Transform.fit(data, NEEDS)
    rows: list[np.ndarray] = []

    class Keeping(Diary):
        def step(self, actions: np.ndarray, active: Any = None) -> Any:
            rows.append(self.rows.copy())
            return super().step(actions, active)

    monkeypatch.setattr("suites.evaluate.make_vector", Keeping)
    evaluator = Evaluator("Diary-v0", spec(), (3, 4), transform, 3, 50)
    for number in range(2):  # a second time: nothing is left of the first
        agent: Any = Watching()
        rows.clear()
        evaluator.run(agent, number)
        played = transform.observations(np.stack(rows)).reshape(len(rows), 2, 3, ROW)
        for t, (seen, active) in enumerate(zip(agent.seen, agent.active, strict=True)):
            assert seen.shape == (2, 3, STATIC + DAYS * FEATURES)
            for s, e in np.argwhere(active.numpy()):
                wanted = slow_window(played[: t + 1, s, e], t)
                np.testing.assert_allclose(seen[s, e], wanted, atol=1e-12)
        assert len(rows) > DAYS  # windows were full


def test_held_out_episodes_are_judged_by_windows() -> None:
    data = dataset()
    transform = Transform.fit(data, NEEDS)
    now, _ = slow(data, transform)
    starts = data.episode_starts
    lengths = np.diff(np.append(starts, len(data.table)))
    agent: Any = Watching()
    _act(agent, spec(), transform, data, (1, 2), starts, lengths, 0)
    for e, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        for t in range(length):
            np.testing.assert_allclose(agent.seen[t][1, e], now[start + t], atol=1e-6)


def test_raw_windows_are_seen_as_played_ones_are() -> None:
    data = dataset()
    transform = Transform.fit(data, NEEDS)
    now, _ = slow(data, transform)
    raw = data.column("observations").astype(np.float64)
    history = History.of(windows_space())
    assert history == History(DAYS, STATIC, FEATURES)
    starts = np.repeat(data.episode_starts, np.diff([*data.episode_starts, len(raw)]))
    windows = np.zeros((len(raw), DAYS, FEATURES))
    for row, start in enumerate(starts):
        length = min(DAYS, row - start + 1)
        windows[row, DAYS - length :] = raw[row - length + 1 : row + 1, STATIC:]
    parts = (raw[:, :STATIC], windows, transform.shift, transform.scale)
    seen = history.seen(*(torch.from_numpy(part) for part in parts))
    np.testing.assert_allclose(seen, now, atol=1e-6)


def test_any_rows_are_widened() -> None:
    """An index of any shape."""
    data = dataset()
    transform = Transform.fit(data, NEEDS)
    now, _ = slow(data, transform)
    history, table = History.of(windows_space()), torch.from_numpy(data.table)
    assert history is not None
    windows = Windows(history, data, transform, table, torch.float64)
    index = torch.arange(len(now)).reshape(1, 1, -1)
    np.testing.assert_allclose(windows.until(index)[0, 0], now[:, STATIC:], atol=1e-6)


def test_a_simulator_of_day_rows_tells_agents_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suites.envs.make_vector", Diary)
    facts = facts_of({"env_id": "Diary-v0"})
    assert facts["observation_space"] == windows_space()
    monkeypatch.setattr(Diary, "observation_space", windows_space())  # it may say so itself
    assert facts_of({"env_id": "Diary-v0"})["observation_space"] == windows_space()
    plain = to_plain(windows_space())
    assert from_plain(plain) == windows_space()
    row = spaces.Box(np.arange(5.0) - 9, np.arange(5.0), dtype=np.float64)
    space = of_rows(row, STATIC, DAYS)  # bounds go with their columns
    np.testing.assert_array_equal(space["static"].high, [0, 1])  # type: ignore[attr-defined]
    np.testing.assert_array_equal(space["temporal"].low, [[-7, -6, -5]] * DAYS)  # type: ignore[attr-defined]
