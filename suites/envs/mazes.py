"""D4RL's maze2d and antmaze on current MuJoCo: a point and an ant that look for a fixed goal.

Mazes, coordinates, resets, rewards and ends of episodes are those of D4RL's benchmark (Fu et al.
2020, arXiv:2004.07219; Farama-Foundation/D4RL@89141a6, ``d4rl/pointmaze/maze_model.py``,
``d4rl/locomotion/maze_env.py``, ``ant.py``, ``goal_reaching_env.py``), so that observations of its
datasets mean the same here. The physics is MuJoCo's of today, where D4RL used mujoco-py; the
point's is that of gymnasium-robotics' PointMaze. What differs is told in ``docs/d4rl-data.md``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer

# "#" is a wall, "G" the goal, "R" where the ant starts.
POINT_MAZES = {
    "umaze": ("#####", "#G..#", "###.#", "#...#", "#####"),
    "medium": (
        "########",
        "#..##..#",
        "#..#...#",
        "##...###",
        "#..#...#",
        "#.#..#.#",
        "#...#.G#",
        "########",
    ),
    "large": (
        "############",
        "#....#.....#",
        "#.##.#.#.#.#",
        "#......#...#",
        "#.####.###.#",
        "#..#.#.....#",
        "##.#.#.#.###",
        "#..#...#.G.#",
        "############",
    ),
}
# The ant walks the same mazes from the upper left; only in the U it starts where the point ends.
ANT_MAZES = {
    "umaze": ("#####", "#R..#", "###.#", "#G..#", "#####"),
    "medium": ("########", "#R.##..#", *POINT_MAZES["medium"][2:]),
    "large": ("############", "#R...#.....#", *POINT_MAZES["large"][2:]),
}
REACH = 0.5  # a position this near to the goal has reached it

_POINT = """
<mujoco model="maze2d">
  <option timestep="0.01" gravity="0 0 0" iterations="20" integrator="Euler"/>
  <compiler inertiafromgeom="true"/>
  <default>
    <joint damping="1"/>
    <geom friction=".5 .1 .1" density="1000" margin="0.002" condim="1"/>
  </default>
  <worldbody>
    <light pos="0 0 20" directional="true"/>
    <geom name="ground" type="plane" size="40 40 0.25" pos="0 0 -0.1" rgba=".2 .3 .4 1"
          contype="0" conaffinity="0"/>
    <body name="particle" pos="1.2 1.2 0">
      <geom name="particle" type="sphere" size="0.1" rgba="0.3 0.6 0.3 1"/>
      <joint name="x" type="slide" axis="1 0 0"/>
      <joint name="y" type="slide" axis="0 1 0"/>
    </body>
  </worldbody>
  <actuator>
    <motor joint="x" gear="100" ctrlrange="-1 1" ctrllimited="true"/>
    <motor joint="y" gear="100" ctrlrange="-1 1" ctrllimited="true"/>
  </actuator>
</mujoco>
"""


def cells(maze: tuple[str, ...], *signs: str) -> list[tuple[int, int]]:
    """The (row, column) of all cells that bear one of the signs, in reading order."""
    return [
        (row, column)
        for row, line in enumerate(maze)
        for column, sign in enumerate(line)
        if sign in signs
    ]


class _Maze(gymnasium.Env[npt.NDArray[np.float64], npt.NDArray[np.float32]]):
    """What both mazes share: a MuJoCo model, spaces, and pictures from above."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012 (gymnasium's type)

    def __init__(self, spec: Any, observations: int, frames: int, render_mode: str | None) -> None:
        self.render_mode = render_mode
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self._frames = frames
        self._renderer: Any = None
        self.goal = np.zeros(2)
        self.observation_space = spaces.Box(-np.inf, np.inf, (observations,), np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (self.model.nu,), np.float32)

    def _begin(self, qpos: npt.NDArray[np.float64], qvel: npt.NDArray[np.float64]) -> None:
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:], self.data.qvel[:] = qpos, qvel
        mujoco.mj_forward(self.model, self.data)

    def _advance(self, action: npt.NDArray[Any]) -> bool:
        """Simulates one step; whether the goal is reached after it."""
        self.data.ctrl[:] = np.clip(action, -1.0, 1.0)
        mujoco.mj_step(self.model, self.data, self._frames)
        x, y = self.data.qpos[:2]
        return bool(np.hypot(x - self.goal[0], y - self.goal[1]) <= REACH)

    def _observation(self) -> npt.NDArray[np.float64]:
        return np.concatenate((self.data.qpos, self.data.qvel))

    def render(self) -> Any:
        """The maze from above, ``[480, 480, 3]`` uint8."""
        if self._renderer is None:
            walls = self.model.geom_pos[self.model.geom("wall0").id :]
            view = {
                "lookat": (walls.min(0) + walls.max(0)) / 2,
                "distance": 1.6 * float(np.ptp(walls, axis=0).max()),
                "azimuth": 90.0,
                "elevation": -90.0,
            }
            self._renderer = MujocoRenderer(self.model, self.data, view, 480, 480)
        return self._renderer.render("rgb_array")

    def close(self) -> None:
        """Frees the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def _add_wall(
    spec: Any, number: int, position: tuple[float, float], half: float, height: float
) -> None:
    spec.worldbody.add_geom(
        name=f"wall{number}",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=(*position, height),
        size=(half, half, height),
        contype=1,
        conaffinity=1,
        rgba=(0.7, 0.5, 0.3, 1.0),
    )


class Maze2d(_Maze):
    """D4RL's maze2d-*-v1: a force-driven point; reward 1 on every step within reach of the goal.

    Episodes never end before the time limit: to stay at the goal is what is paid for. Starts are
    spread over all free cells, the goal's included.

    Observations are [x, y, vx, vy], where x counts the maze's rows and y its columns: a cell's
    whole numbers are D4RL's coordinates of it, 0.2 off the cell's middle. The goal, which is fixed,
    is not among them. Actions are forces along x and y in [-1, 1].

    Args:
        maze: "umaze", "medium" or "large".
        render_mode: "rgb_array" or None.
    """

    MAX_SPEED = 5.0  # per axis, enforced before every step

    def __init__(self, maze: str = "umaze", render_mode: str | None = None) -> None:
        self.maze = POINT_MAZES[maze]
        spec = mujoco.MjSpec.from_string(_POINT)
        for number, (row, column) in enumerate(cells(self.maze, "#")):
            _add_wall(spec, number, (row + 1.0, column + 1.0), 0.5, 0.2)
        super().__init__(spec, 4, 1, render_mode)
        self.starts = np.array(cells(self.maze, ".", "G"), np.float64)
        self.goal = np.array(cells(self.maze, "G")[0], np.float64)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float64], dict[str, Any]]:
        """Puts the point near the middle of a random free cell, almost at rest.

        Args:
            seed: of the environment's random numbers.
            options: {"cell": (row, column)} to start there.
        """
        super().reset(seed=seed)
        cell = (options or {}).get("cell")
        if cell is None:
            cell = self.starts[self.np_random.integers(len(self.starts))]
        noise = self.np_random.uniform(-0.1, 0.1, 2)
        self._begin(np.asarray(cell) + noise, 0.1 * self.np_random.standard_normal(2))
        return self._observation(), {}

    def step(
        self, action: npt.NDArray[Any]
    ) -> tuple[npt.NDArray[np.float64], float, bool, bool, dict[str, Any]]:
        """Pushes the point for a hundredth of a second."""
        np.clip(self.data.qvel, -self.MAX_SPEED, self.MAX_SPEED, out=self.data.qvel)
        reached = self._advance(action)
        return self._observation(), float(reached), False, False, {}


class AntMaze(_Maze):
    """D4RL's antmaze-*-v2: an ant that is paid 1 for reaching the goal, which ends the episode.

    So an episode's return is 1 for success and 0 otherwise, and the score is the success rate. The
    ant starts in one corner; the goal is drawn anew with every episode within its cell. A fall does
    not end an episode.

    The ant is gymnasium's with the numbers of D4RL's: steps of 5 x 0.02 s, torques up to 30, softer
    contacts. (gymnasium-robotics' AntMaze has five times the torque and half the step, so D4RL's
    actions mean something else there.)

    Observations are the 15 positions and 14 velocities of the ant; the goal is not among them.

    Args:
        maze: "umaze", "medium" or "large".
        render_mode: "rgb_array" or None.
    """

    CELL = 4.0  # side of a cell
    TORQUE = 30.0

    def __init__(self, maze: str = "umaze", render_mode: str | None = None) -> None:
        self.maze = ANT_MAZES[maze]
        (row0, column0) = cells(self.maze, "R")[0]
        assets = Path(str(gymnasium.__file__)).parent / "envs" / "mujoco" / "assets"
        spec = mujoco.MjSpec.from_file(str(assets / "ant.xml"))
        spec.option.timestep = 0.02
        half = self.CELL / 2
        for number, (row, column) in enumerate(cells(self.maze, "#")):
            where = ((column - column0) * self.CELL, (row - row0) * self.CELL)
            _add_wall(spec, number, where, half, half / 2)
        super().__init__(spec, 29, 5, render_mode)
        self.model.actuator_gear[:, 0] = self.TORQUE
        self.model.geom_solimp[:, :3] = 0.8, 0.8, 0.01
        row, column = cells(self.maze, "G")[0]
        self._goal_cell = self.CELL * np.array([column - column0, row - row0], np.float64)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float64], dict[str, Any]]:
        """Puts the ant into its corner and draws the goal."""
        super().reset(seed=seed)
        draw = self.np_random.uniform
        # The cell's noise and the sampler's, which D4RL adds one to the other.
        noise = draw(0.0, 0.25 * self.CELL, 2) + draw(0.0, 0.125 * self.CELL, 2)
        self.goal = np.maximum(self._goal_cell + noise, 0.0)
        qpos = self.model.qpos0 + draw(-0.1, 0.1, self.model.nq)
        self._begin(qpos, 0.1 * self.np_random.standard_normal(self.model.nv))
        return self._observation(), {"success": False}

    def step(
        self, action: npt.NDArray[Any]
    ) -> tuple[npt.NDArray[np.float64], float, bool, bool, dict[str, Any]]:
        """Moves the ant for a tenth of a second."""
        reached = self._advance(action)
        return self._observation(), float(reached), reached, False, {"success": reached}
