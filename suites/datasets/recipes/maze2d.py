"""D4RL's maze2d datasets: a waypoint controller on its way to one random goal after another.

The recipe is D4RL's (Fu et al. 2020, arXiv:2004.07219; Farama-Foundation/D4RL@b92efad
``scripts/generation/generate_maze2d_datasets.py``, @61b0d25
``d4rl/pointmaze/waypoint_controller.py``). A point is driven along a shortest path of cells to a
random cell; where it arrives, or when the time limit is over, it goes on from there to the next
one. All the while the reward is that of the benchmark's own goal, of which the controller knows
nothing. What differs from D4RL is told in ``docs/local-data.md``.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import asdict
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from suites.catalog import Task
from suites.datasets import store
from suites.datasets.play import FIRST_RESET_SEED, columns_of, shard_entropy
from suites.datasets.recipes import Segment, Shard, divide

VERSION = 1  # raised whenever the same identity would give other bytes
PACKAGES = ("mujoco",)
NOISE = 0.5  # standard deviation of the actions', in units of the action; D4RL's option --noisy
_SIZES = {"maze2d-umaze": 1_000_000, "maze2d-medium": 2_000_000, "maze2d-large": 4_000_000}
_SHARD = 48_000  # transitions at most: whole numbers of all time limits
_GAIN, _DAMPING = 10.0, -1.0  # of the distance to the waypoint and of the velocity
_NEAR = 0.1  # distance at which a waypoint or the goal is reached
_SPREAD = 0.2  # of waypoints within their cell: towards its middle, which lies 0.2 lower

Cell = tuple[int, int]


def missing(task: Task) -> str | None:
    """Nothing is: the controller is a formula."""
    return None


def default_size(task: Task) -> int:
    """D4RL's number of transitions for this task."""
    return _SIZES[task.environment]


def describe(task: Task, size: int) -> dict[str, Any]:
    """See :class:`suites.datasets.recipes.Recipe`; noise counts in units of the action."""
    return {
        "version": VERSION,
        "segments": [asdict(Segment("waypoints", NOISE, 1.0))],
        "shard": _SHARD,
    }


def shards(wanted: dict[str, Any]) -> list[Shard]:
    """Even runs of whole time limits."""
    _, limit = _layout(wanted["env_id"])
    return divide([0, wanted["transitions"]], _SHARD, limit)


def _layout(env_id: str) -> tuple[dict[str, list[int]], int]:
    """The card's ``columns``, and the time limit in steps."""
    from suites.envs import make_vector

    vector = make_vector(env_id, 1)
    vector.close()
    assert vector.horizon is not None
    return columns_of(vector), vector.horizon


def logged(data: store.Dataset) -> npt.NDArray[np.float64]:
    """Return, length and last row of each run of as many steps as the time limit, ``[E, 3]``.

    A way to a random goal is no episode of the benchmark's. What the controller's behaviour is
    worth there is what it collects within the benchmark's time limit.
    """
    steps = data.card["horizon"]
    count = len(data.table) // steps
    returns = data.column("rewards")[: count * steps].reshape(count, steps).sum(1, np.float64)
    last = steps * np.arange(1, count + 1) - 1
    return np.stack((returns, np.full(count, steps), last), axis=1).astype(np.float64)


def play(wanted: dict[str, Any], shard: Shard) -> store.Dataset:
    """See :class:`suites.datasets.recipes.Recipe`: one unbroken journey, cut where goals change."""
    from suites.envs.mujoco import make_one

    columns, limit = _layout(wanted["env_id"])
    env: Any = make_one(wanted["env_id"]).unwrapped  # without the time limit
    rows = shard.stop - shard.start
    entropy = shard_entropy(wanted, shard)
    generator = np.random.default_rng(np.random.SeedSequence(entropy))
    noise = NOISE * generator.standard_normal((rows, 2))
    observation, _ = env.reset(seed=FIRST_RESET_SEED + int(generator.integers(2**31)))
    controller = Controller(env.maze, generator)

    observations = np.zeros((rows + 1, 4), np.float32)
    observations[0] = observation
    actions = np.zeros((rows, 2), np.float32)
    rewards, ends = np.zeros((2, rows, 1), np.float32)
    steps = limit  # on the way to this goal
    for row in range(rows):
        if steps == limit:
            controller.set_out(observation)
            steps = 0
        forces, arrived = controller.act(observation)
        action = np.clip(forces + noise[row], -1.0, 1.0, out=actions[row], casting="same_kind")
        observation, rewards[row], _, _, _ = env.step(action)
        observations[row + 1] = observation
        steps = limit if arrived else steps + 1
        ends[row] = steps == limit
    env.close()
    ends[-1] = 1.0
    none = np.zeros_like(ends)
    fields = {
        "observations": observations[:-1],
        "actions": actions,
        "rewards": rewards,
        "next_observations": observations[1:],
        "terminations": none,
        "truncations": ends,
        "policy_ids": none,
        "reward_parts": rewards,
    }
    table = np.concatenate([fields[name] for name in columns], axis=1)
    return store.Dataset(None, {"columns": columns, "horizon": limit}, table)


class Controller:
    """Drives the point from cell to cell: a spring towards the next waypoint, and a damper.

    Args:
        maze: the maze's lines, "#" is a wall.
        generator: draws goals and waypoints.
    """

    def __init__(self, maze: tuple[str, ...], generator: np.random.Generator) -> None:
        self.maze, self.generator = maze, generator
        self.goals = sorted(distances(maze, None))
        self.waypoints: deque[tuple[float, float]] = deque()  # the last is the goal

    def set_out(self, observation: npt.NDArray[np.float64]) -> None:
        """Draws a goal among the free cells, and the waypoints there from an observation."""
        goal = self.goals[self.generator.integers(len(self.goals))]
        path = shortest_path(self.maze, cell_of(observation), goal)
        draws = _SPREAD * self.generator.random((len(path), 2))
        self.waypoints = deque(
            (cell[0] - draw[0], cell[1] - draw[1])
            for cell, draw in zip(path, draws.tolist(), strict=True)
        )
        self.waypoints.append((float(goal[0]), float(goal[1])))

    def act(self, observation: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], bool]:
        """The forces ``[2]`` in [-1, 1], and whether the point has arrived at its goal."""
        x, y, vx, vy = observation.tolist()

        def distance(waypoint: tuple[float, float]) -> float:
            return math.hypot(waypoint[0] - x, waypoint[1] - y)

        while len(self.waypoints) > 1 and distance(self.waypoints[0]) < _NEAR:
            self.waypoints.popleft()
        aim = self.waypoints[0]
        arrived = len(self.waypoints) == 1 and distance(aim) < _NEAR
        forces = np.array(
            (_GAIN * (aim[0] - x) + _DAMPING * vx, _GAIN * (aim[1] - y) + _DAMPING * vy)
        )
        return np.clip(forces, -1.0, 1.0, out=forces), arrived


def cell_of(observation: npt.NDArray[np.float64]) -> Cell:
    """The (row, column) of the cell that an observation's position lies in.

    The middle of cell (r, c) is at (r - 0.2, c - 0.2).
    """
    return math.floor(observation[0] + 0.7), math.floor(observation[1] + 0.7)


@cache
def distances(maze: tuple[str, ...], goal: Cell | None) -> dict[Cell, int]:
    """Steps from every free cell to the goal's; without a goal, 0 for every free cell."""
    free = {
        (row, column): 0
        for row, line in enumerate(maze)
        for column, sign in enumerate(line)
        if sign != "#"
    }
    if goal is None:
        return free
    found = {goal: 0}
    queue = deque([goal])
    while queue:
        row, column = here = queue.popleft()
        for cell in ((row - 1, column), (row, column - 1), (row, column + 1), (row + 1, column)):
            if cell in free and cell not in found:
                found[cell] = found[here] + 1
                queue.append(cell)
    return found


def shortest_path(maze: tuple[str, ...], start: Cell, goal: Cell) -> list[Cell]:
    """The cells between the start's and the goal's, both left out."""
    far, path, cell = distances(maze, goal), [], start
    while far[cell] > 1:
        row, column = cell
        around = ((row - 1, column), (row, column - 1), (row, column + 1), (row + 1, column))
        cell = next(near for near in around if far.get(near) == far[cell] - 1)
        path.append(cell)
    return path
