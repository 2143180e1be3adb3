"""D4RL's other domains: what the environments do, against their definitions and gymnasium's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from baselines.contract import Phase, Spec
from suites import catalog
from suites.catalog import NAMESPACE
from suites.datasets.transforms import Transform
from suites.envs import make_vector, manipulation, mazes, registered
from suites.envs.mujoco import make_one
from suites.evaluate import Evaluation, Evaluator

HORIZONS = {
    **{"maze2d-umaze-v1": 300, "maze2d-medium-v1": 600, "maze2d-large-v1": 800},
    **{"antmaze-umaze-v2": 700, "antmaze-medium-v2": 1000, "antmaze-large-v2": 1000},
    **{"pen-v1": 100, "hammer-v1": 200, "door-v1": 200, "relocate-v1": 200},
    **{"kitchen-complete-v0": 280, "kitchen-partial-v0": 280, "kitchen-mixed-v0": 280},
}
# Observations and actions of D4RL's datasets.
SIZES = {"maze2d": (4, 2), "antmaze": (29, 8), "kitchen": (60, 9), "pen": (45, 24)}
SIZES |= {"hammer": (46, 26), "door": (39, 28), "relocate": (39, 30)}


def one(name: str) -> Any:
    return make_one(NAMESPACE + name)


@pytest.mark.parametrize("name", HORIZONS)
def test_shapes_limits_and_seeds(name: str) -> None:
    env = one(name)
    assert env.spec.max_episode_steps == HORIZONS[name]
    size, actions = SIZES[name.partition("-")[0]]
    assert env.observation_space.shape == (size,) and env.action_space.shape == (actions,)
    assert env.action_space.low.tolist() == [-1.0] * actions
    env.action_space.seed(0)
    played = []
    chosen = [env.action_space.sample() for _ in range(3)]
    for seed in (7, 7, 8):
        steps = [env.reset(seed=seed)[0], *(env.step(action)[0] for action in chosen)]
        played.append(np.stack(steps))
    assert np.array_equal(played[0], played[1])
    assert not np.array_equal(played[0], played[2])
    assert env.observation_space.contains(played[0][-1])
    env.close()


def test_every_task_of_d4rl_has_one_of_them() -> None:
    make_one(NAMESPACE + "maze2d-umaze-v1").close()
    for task in catalog.TASKS.values():
        env_id = task.env_id("d4rl")
        assert env_id is None or env_id in gymnasium.registry


def test_the_point_moves_as_gymnasium_robotics_point_does() -> None:
    manipulation.register_robotics()
    theirs: Any = gymnasium.make("PointMaze_Medium-v3").unwrapped
    theirs.reset(seed=0)
    env = one("maze2d-medium-v1").unwrapped
    rows, columns = len(env.maze), len(env.maze[0])

    def seen_from_there(state: Any) -> tuple[Any, Any]:
        # There x runs along the columns and y up the rows, from the maze's middle; and D4RL's
        # particle lies 0.2 off the middle of the cell that its numbers name.
        position = (state[1] + 0.7 - columns / 2, rows / 2 - state[0] - 0.7)
        return np.array(position), np.array((state[3], -state[2]))

    state, _ = env.reset(seed=1)
    theirs.point_env.set_state(*seen_from_there(state))
    rng, walls = np.random.default_rng(0), 0
    for step in range(1500):
        if step % 25 == 0:
            action = rng.uniform(-1, 1, 2)
        state, *_ = env.step(action)
        walls += env.data.ncon > 0
        other, *_ = theirs.point_env.step(np.array([action[1], -action[0]]))
        assert np.abs(other - np.concatenate(seen_from_there(state))).max() < 1e-6
    assert walls > 100
    theirs.close()


@pytest.mark.parametrize(
    ("maze", "goal"), [("umaze", (1, 1)), ("medium", (6, 6)), ("large", (7, 9))]
)
def test_maze2d_pays_for_being_at_the_goal_and_never_ends(maze: str, goal: Any) -> None:
    env = make_vector(f"{NAMESPACE}maze2d-{maze}-v1", 1)
    inner = env._envs[0].unwrapped  # type: ignore[attr-defined]
    env.reset(0, 0)
    for offset, reward in ((0.0, 1.0), (-0.35, 1.0), (-0.36, 0.0)):
        inner._begin(np.array(goal) + offset, np.zeros(2))  # 0.5 away between the last two
        played = env.step(np.zeros((1, 2)))
        assert (played.rewards[0], played.terminations[0]) == (reward, False)
        assert played.successes is None
    for step in range(HORIZONS[f"maze2d-{maze}-v1"] - 3):
        assert not played.truncations[0], step
        played = env.step(np.zeros((1, 2)))
    assert played.truncations[0] and not played.terminations[0]
    env.close()


def test_maze2d_starts_anywhere_and_limits_its_speed() -> None:
    env = one("maze2d-umaze-v1").unwrapped
    starts = np.stack([env.reset(seed=seed)[0] for seed in range(200)])
    cells = {tuple(cell) for cell in starts[:, :2].round().astype(int).tolist()}
    assert cells == {(1, 1), (1, 2), (1, 3), (2, 3), (3, 1), (3, 2), (3, 3)}
    assert np.abs(starts[:, :2] - starts[:, :2].round()).max() <= 0.1
    env._begin(np.array([1.0, 1.0]), np.array([0.0, 9.0]))
    state, *_ = env.step(np.zeros(2))
    assert 4.9 < state[3] <= 5.0
    assert np.allclose(env.reset(options={"cell": (3, 1)})[0][:2], (3, 1), atol=0.1)


@pytest.mark.parametrize(
    ("maze", "goal"), [("umaze", (0.0, 8.0)), ("medium", (20.0, 20.0)), ("large", (32.0, 24.0))]
)
def test_antmaze_ends_with_success(maze: str, goal: tuple[float, float]) -> None:
    env = make_vector(f"{NAMESPACE}antmaze-{maze}-v2", 1)
    inner = env._envs[0].unwrapped  # type: ignore[attr-defined]
    goals = []
    for seed in range(50):
        assert np.abs(env.reset(0, seed)[:2]).max() <= 0.1
        goals.append(inner.goal - goal)
    assert np.min(goals) >= 0.0 and 1.0 < np.max(goals) <= 1.5  # D4RL's two noises
    played = env.step(np.zeros((1, 8)))
    assert (played.rewards[0], played.terminations[0]) == (0.0, False)
    assert played.successes is not None and not played.successes[0]
    inner.data.qpos[:2] = inner.goal + 0.3
    played = env.step(np.zeros((1, 8)))
    assert (played.rewards[0], played.terminations[0]) == (1.0, True)
    assert played.successes is not None and played.successes[0]
    env.close()


def test_the_ant_is_d4rls() -> None:
    model = one("antmaze-umaze-v2").unwrapped.model
    assert model.opt.timestep == 0.02
    assert model.actuator_gear[:, 0].tolist() == [30.0] * 8
    assert np.allclose(model.geom_solimp[:, :3], (0.8, 0.8, 0.01))
    # It stands where D4RL's coordinates have their origin, and the maze around it.
    walls = [model.geom(i) for i in range(model.ngeom) if model.geom(i).name.startswith("wall")]
    assert len(walls) == len(mazes.cells(mazes.ANT_MAZES["umaze"], "#"))
    assert np.allclose(walls[0].pos, (-4.0, -4.0, 1.0)) and np.allclose(walls[0].size, (2, 2, 1))


@pytest.mark.parametrize("hand", ["hammer", "door", "relocate"])
def test_hands_are_charged_for_the_distance(hand: str) -> None:
    env = one(f"{hand}-v1")
    env.action_space.seed(0)
    env.reset(seed=0)
    base = env.unwrapped
    for _ in range(5):
        _, reward, terminated, _, info = env.step(env.action_space.sample())
        assert not terminated and info == {"success": False}
        assert reward == pytest.approx(_published_reward(hand, base), abs=1e-9)
    env.close()


def _published_reward(hand: str, base: Any) -> float:
    """D4RL's reward where no bonus is due, from the simulator's state."""
    palm = base.data.site("S_grasp").xpos
    if hand == "door":
        hinge = base.data.joint("door_hinge").qpos[0]
        distance = np.linalg.norm(palm - base.data.site("S_handle").xpos)
        speed = np.square(base.data.qvel).sum()
        return float(-0.1 * distance - 0.1 * (hinge - 1.57) ** 2 - 1e-5 * speed)
    thing = base.data.body("Object").xpos
    reward = -0.1 * np.linalg.norm(palm - thing)
    if hand == "hammer":
        nail, goal = base.data.site("S_target").xpos, base.data.site("nail_goal").xpos
        reward -= np.linalg.norm(base.data.site("tool").xpos - nail)
        reward -= 10 * np.linalg.norm(nail - goal) + 1e-2 * np.linalg.norm(base.data.qvel)
        lifted = thing[2] > 0.04 and base.data.site("tool").xpos[2] > 0.04
        return float(reward + 2 * lifted)
    assert thing[2] <= 0.04
    return float(reward)


def test_a_dropped_pen_ends_the_episode_and_laps_make_success() -> None:
    env = one("pen-v1")
    env.reset(seed=0)
    base = env.unwrapped
    assert not env.step(np.zeros(24))[2]
    height = base.model.body_pos[base.obj_body_id, 2]
    base.model.body_pos[base.obj_body_id, 2] = 0.05
    assert env.step(np.zeros(24))[2]
    base.model.body_pos[base.obj_body_id, 2] = height
    env.reset(seed=0)
    inner = env.env
    while not isinstance(inner, manipulation.Adroit):
        inner = inner.env
    inner.env.step = lambda _: (None, 0.0, False, False, {"success": True})
    told = [inner.step(None)[4]["success"] for _ in range(22)]
    assert told == [False] * 20 + [True] * 2  # the goal must hold on more than 20 steps
    env.close()


def test_the_kitchen_counts_tasks() -> None:
    env = one("kitchen-mixed-v0")
    shown, _ = env.reset(seed=0)
    # microwave, kettle, bottom burner, light switch; nothing is asked of other things
    goal = {22: -0.75, 11: -0.88, 12: -0.01, 17: -0.69, 18: -0.05}
    goal |= dict(zip(range(23, 30), (-0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06), strict=True))
    assert shown[30:].tolist() == [goal.get(i, 0.0) for i in range(30)]
    base = env.unwrapped
    assert np.allclose(shown[:30], base.data.qpos, atol=0.1)
    total = 0.0
    for joints in ((22,), (11, 12), (17, 18), tuple(range(23, 30))):
        for joint in joints:
            base.data.qpos[joint] = goal[joint]
        _, reward, terminated, _, info = env.step(np.zeros(9))
        total += reward
        assert reward == 1.0
        assert info["success"] is terminated is (total == 4.0)
    env.close()


def test_settings_in_a_name() -> None:
    name = registered.with_settings("PointMaze_UMaze-v3", {"continuing_task": False})
    assert name == 'PointMaze_UMaze-v3?{"continuing_task": false}'
    assert registered.with_settings("Hopper-v5", {}) == "Hopper-v5"
    env = make_vector(name, 1)
    assert env.env_id == name and env.horizon == 300
    assert env.observation_space.shape == (8,)  # achieved goal, desired goal, observation
    assert not env._envs[0].unwrapped.continuing_task  # type: ignore[attr-defined]
    env.reset(0, 0)
    played = env.step(np.zeros((1, 2)))
    assert played.successes is not None
    env.close()


class _Still:
    """A policy that never moves."""

    def act(self, step: Any, memory: Any = None, *, explore: bool = False) -> Any:
        return torch.zeros(*step["first"].shape, 8), memory


def test_the_evaluator_counts_successes(monkeypatch: pytest.MonkeyPatch) -> None:
    env_id = NAMESPACE + "antmaze-umaze-v2"
    env = make_vector(env_id, 1)
    # Two starts: in the first the goal is where the ant stands, in the second it is far.
    draw = mazes.AntMaze.reset

    def reset(self: Any, *, seed: int | None = None, options: Any = None) -> Any:
        found = draw(self, seed=seed, options=options)
        self.goal = np.zeros(2) if seed == 5 else np.full(2, 50.0)
        return found

    monkeypatch.setattr(mazes.AntMaze, "reset", reset)
    monkeypatch.setitem(registered.gymnasium.registry[env_id].__dict__, "max_episode_steps", 3)
    spec = Spec(env.observation_space, env.action_space, (Phase("offline", 1),), 3)
    transform = Transform(np.zeros(29), np.ones(29), 1.0)
    evaluator = Evaluator(env_id, spec, (0, 1), transform, 2, 5)
    found = evaluator.run(_Still(), 0)  # type: ignore[arg-type]
    assert found.successes.tolist() == [[1.0, 0.0]] * 2
    assert found.returns.tolist() == [[1.0, 0.0]] * 2
    assert found.lengths.tolist() == [[1, 3]] * 2
    assert found.success_rate(1) == {"success_rate": 0.5}
    back = Evaluation.from_tensors(found.to_tensors())
    assert np.array_equal(back.successes, found.successes)
    nothing = replace(found, successes=np.full((2, 2), np.nan))
    assert nothing.success_rate(0) == {}
