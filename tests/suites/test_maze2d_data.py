"""Local maze2d data: D4RL's waypoint controller, its journey, and what it is worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from suites.catalog import TASKS, reference
from suites.datasets import describe, local, store
from suites.datasets.recipes import maze2d
from suites.datasets.store import Dataset
from suites.datasets.verify import verify
from suites.envs.mazes import POINT_MAZES, REACH, cells
from suites.envs.mujoco import make_one

MAZES = ("umaze", "medium", "large")
LIMITS = {"umaze": 300, "medium": 600, "large": 800}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTQ_BENCH_CACHE", str(tmp_path))
    return tmp_path


def made(maze: str, size: int, seed: int = 0) -> Dataset:
    return store.load(local.ensure(f"maze2d-{maze}", size, seed), verify=True)


def test_sizes_are_d4rls() -> None:
    sizes = {maze: local.default_size(f"maze2d-{maze}") for maze in MAZES}
    assert sizes == {"umaze": 1_000_000, "medium": 2_000_000, "large": 4_000_000}
    assert all(local.missing(f"maze2d-{maze}") is None for maze in MAZES)


@pytest.mark.parametrize("maze", MAZES)
def test_paths_are_shortest_and_free(maze: str) -> None:
    lines = POINT_MAZES[maze]
    free = cells(lines, ".", "G")
    generator = np.random.default_rng(0)
    for _ in range(30):
        start, goal = (free[i] for i in generator.integers(len(free), size=2))
        path = [start, *maze2d.shortest_path(lines, start, goal), goal]
        if start == goal:
            assert path == [start, goal]
            continue
        steps = np.abs(np.diff(path, axis=0)).sum(axis=1)
        assert (steps == 1).all()
        assert set(path) <= set(free)
        assert len(path) - 1 == maze2d.distances(lines, goal)[start]
    # Against matrix powers: the least n with a walk of n steps.
    places = np.array(free)
    near = np.abs(places[:, None] - places[None]).sum(axis=2) == 1
    reached, distance = np.eye(len(free), dtype=bool), np.zeros((len(free), len(free)), int)
    for step in range(1, len(free)):
        further = reached | ((reached.astype(int) @ near) > 0)
        distance[further & ~reached] = step
        reached = further
    known = maze2d.distances(lines, free[0])
    assert [known[cell] for cell in free] == distance[0].tolist()


@pytest.mark.parametrize("maze", MAZES)
def test_the_controller_arrives(maze: str) -> None:
    """Without noise, from any cell, well within the time limit, and by the waypoints."""
    env = make_one(f"fastq_bench/maze2d-{maze}-v1").unwrapped
    controller = maze2d.Controller(POINT_MAZES[maze], np.random.default_rng(0))
    for seed in range(5):
        observation, _ = env.reset(seed=seed)
        controller.set_out(observation)
        goal = np.array(controller.waypoints[-1])
        assert tuple(goal) in controller.goals
        for _ in range(LIMITS[maze] * 9 // 10):
            action, arrived = controller.act(observation)
            assert np.abs(action).max() <= 1.0
            if arrived:
                break
            observation = env.step(action.astype(np.float32))[0]
        assert arrived, (seed, goal, observation)
        assert np.linalg.norm(observation[:2] - goal) < 0.1


def test_the_controller_solves_the_benchmark_where_it_is_told_the_goal() -> None:
    """A mean score above 100, as in ``docs/local-data.md``."""
    env = make_one("fastq_bench/maze2d-umaze-v1").unwrapped
    controller = maze2d.Controller(POINT_MAZES["umaze"], np.random.default_rng(0))
    controller.goals = cells(POINT_MAZES["umaze"], "G")
    returns = []
    for seed in range(10):
        observation, _ = env.reset(seed=seed)
        controller.set_out(observation)
        returns.append(0.0)
        for _ in range(300):
            action, _ = controller.act(observation)
            observation, reward, *_ = env.step(action.astype(np.float32))
            returns[-1] += reward
    low, high, _ = reference("maze2d-umaze")
    assert np.mean(returns) > high
    assert min(returns) > low


def test_cells_are_told_from_positions() -> None:
    env = make_one("fastq_bench/maze2d-large-v1").unwrapped
    for cell in cells(POINT_MAZES["large"], ".", "G"):
        observation, _ = env.reset(seed=0, options={"cell": cell})
        assert maze2d.cell_of(observation) == cell
    # A cell reaches from 0.7 below its number to 0.3 above; the middle is 0.2 below.
    assert maze2d.cell_of(np.array([1.29, 2.31])) == (1, 3)


@pytest.mark.parametrize("maze", MAZES)
def test_a_dataset(maze: str) -> None:
    limit, size = LIMITS[maze], 10_007
    data = made(maze, size)
    card = data.card
    assert card["horizon"] == limit
    assert card["env_id"] == TASKS[f"maze2d-{maze}"].env_id("local")
    assert card["reward_parts"] == ["reward"]
    np.testing.assert_array_equal(data.column("reward_parts")[:, 0], data.column("rewards"))
    # One journey: the next row begins where a row ended, beyond the ends of ways too.
    observations, following = data.column("observations"), data.column("next_observations")
    np.testing.assert_array_equal(following[:-1], observations[1:])
    assert not data.column("terminations").any()
    ends = np.flatnonzero(data.column("truncations"))
    ways = np.diff(ends)
    assert ends[-1] == size - 1
    assert ways.max() <= limit
    assert 20 < np.median(ways) < 0.6 * limit
    # The reward is the environment's, for the fixed goal.
    goal = np.array(cells(POINT_MAZES[maze], "G")[0])
    near = np.linalg.norm(following[:, :2] - goal, axis=1) <= REACH
    np.testing.assert_array_equal(near, data.column("rewards") > 0)
    assert set(np.unique(data.column("rewards"))) <= {0.0, 1.0}
    assert np.abs(data.column("actions")).max() <= 1.0


def test_returns_are_counted_over_the_time_limit() -> None:
    data = made("umaze", 10_000)
    returns, lengths = data.episodes()
    assert len(returns) == data.card["episodes"] == 33
    assert set(lengths) == {300}
    np.testing.assert_array_equal(
        returns, data.column("rewards")[:9900].reshape(33, 300).sum(axis=1)
    )
    assert data.last_rows().tolist() == list(range(299, 9900, 300))
    (policy,) = data.card["policies"]
    assert policy["name"] == "waypoints"
    assert (policy["share"], policy["episodes"]) == (1.0, 33)
    low, high, _ = reference("maze2d-umaze")
    expected = 100 * (returns.mean() - low) / (high - low)
    assert data.card["score_mean"] == pytest.approx(expected)
    with pytest.raises(store.DatasetError, match="no episode ends within 200 transitions"):
        made("umaze", 200)


def test_the_data_wanders_everywhere_and_ignores_the_benchmarks_goal() -> None:
    data = made("medium", 30_000)
    visited = {maze2d.cell_of(seen) for seen in data.column("observations")}
    assert visited == set(cells(POINT_MAZES["medium"], ".", "G"))
    assert data.column("rewards").mean() < 0.1


def test_bytes_depend_on_seed_and_not_on_processes(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maze2d, "_SHARD", 1200)
    one = made("umaze", 2500)
    assert one.card["sha256"] != made("umaze", 2500, seed=1).card["sha256"]
    wanted = local.identity("maze2d-umaze", 2500)
    shards = maze2d.shards(wanted)
    assert [(shard.start, shard.stop) for shard in shards] == [(0, 900), (900, 1800), (1800, 2500)]
    for shard in reversed(shards):  # in any order
        played = maze2d.play(wanted, shard).table
        np.testing.assert_array_equal(played, one.table[shard.start : shard.stop])
        assert played[-1, one.card["columns"]["truncations"][0]] == 1.0
    assert maze2d._SHARD % 300 == 0


def test_shards_hold_whole_time_limits() -> None:
    assert all(maze2d._SHARD % limit == 0 for limit in LIMITS.values())
    shards = maze2d.shards(local.identity("maze2d-large"))
    assert shards[-1].stop == 4_000_000
    assert all(shard.start % 800 == 0 and shard.stop - shard.start <= 48_000 for shard in shards)


def test_describe_and_verify() -> None:
    data = made("umaze", 6000)
    verdict = verify(data, sampled=300)
    assert not verdict.faults
    assert "20 complete episodes" in describe.describe(data)
    other = {**data.card, "env_id": "fastq_bench/maze2d-medium-v1"}
    wrong = verify(Dataset(None, other, data.table), sampled=300)
    assert wrong.faults
    assert "fastq_bench/maze2d-umaze-v1" in wrong.fits
