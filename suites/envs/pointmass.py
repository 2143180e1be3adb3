"""A point mass on a square table, pushed by two forces that are chosen from n levels each.

Made for one question: does an agent that knows of the two forces need fewer steps than one that
sees n * n unrelated actions? ``docs/pointmass.md`` says what is asked of it. Step t = 0 ... T-1,
T = 50, is, for each coordinate k of the position p and the velocity v, with eps standard normal::

    e[k] = 2 a[k] / (n - 1) - 1           the force that choice a[k] in {0 ... n-1} stands for
    u[0] = e[0] (1 - c + c e[1]),   u[1] = e[1]       what becomes of it; c is the coupling
    v'[k] = min(max(0.9 v[k] + 0.3 (u[k] + s eps[k]), -3), 3)       s is the noise
    q[k] = p[k] + 0.1 v'[k],   p'[k] = min(max(q[k], -1), 1)
    v'[k] = 0 where q[k] was beyond the table's edge
    r = 1 / (1 + (p'[0]^2 + p'[1]^2) / 0.2^2)

The observation is (p, v), all of the state; p starts uniformly on the table, v at 0. The goal is
the middle. n is odd, so that a choice without force exists: the middle one. Without noise |v| never
reaches 3, which is where force and friction balance. Nothing ends an episode before T.

The reward is that of the point mass of the DeepMind Control Suite in kind (Tunyasuvunakool et al.
2020): near one at the goal, falling with the distance, and so neither a sum nor a product of what
the two forces bring about. Here it has a long tail instead of a sharp edge, and forces cost
nothing, so that some thousand steps are enough to learn from.

At c = 0 either force moves its own coordinate alone. At c = 1 the second force also decides
whether, and which way, the first one pushes: without it the first does nothing.

``python -m suites.envs.pointmass`` prints the returns that score 0 and 100, see :func:`measure`.
"""

from __future__ import annotations

import sys
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.utils import seeding

from suites.catalog import POINT_MASSES
from suites.datasets.recipes.pointmass import STEPS as HORIZON
from suites.envs.mujoco import Flags, Floats, VectorStep, _Slots

EDGE = 1.0  # |p|
FASTEST = 3.0  # |v|
KEPT = 0.9  # of the velocity, by friction
PUSH = 0.3  # velocity gained by the full force
TIME = 0.1  # of a step
WIDTH = 0.2  # distance from the goal that halves the reward
Integers = npt.NDArray[np.int64]

# The grid on which the reference controller's values stand, and the episodes that measured it.
_POSITIONS, _VELOCITIES = 201, 241
EPISODES, EPISODES_SEED = 200_000, 0
_PIECE = 20_000  # episodes played at once


def forces(actions: npt.NDArray[Any], levels: int) -> Floats:
    """e ``[..., 2]`` in [-1, 1], for choices ``[..., 2]``."""
    return np.asarray(2.0 * np.asarray(actions, np.float64) / (levels - 1) - 1.0)


def coupled(force: Floats, coupling: float) -> Floats:
    """u ``[..., 2]``: what becomes of the forces e ``[..., 2]``."""
    first = force[..., 0] * (1.0 - coupling + coupling * force[..., 1])
    return np.stack((first, force[..., 1]), axis=-1)


def move(position: Floats, velocity: Floats, push: Floats) -> tuple[Floats, Floats]:
    """One step of any number of coordinates, ``[...]`` each; ``push`` is u + s eps."""
    speed = np.clip(KEPT * velocity + PUSH * push, -FASTEST, FASTEST)
    reached = position + TIME * speed
    stopped = np.abs(reached) > EDGE
    return np.clip(reached, -EDGE, EDGE), np.where(stopped, 0.0, speed)


def reward(position: Floats) -> Floats:
    """r ``[...]``, for positions p' ``[..., 2]``."""
    off = position[..., 0] ** 2 + position[..., 1] ** 2
    return np.asarray(1.0 / (1.0 + off / WIDTH**2))


def start(generator: np.random.Generator) -> Floats:
    """An episode's first position, ``[2]``."""
    return generator.uniform(-EDGE, EDGE, 2)


class PointMass(gymnasium.Env[Floats, Integers]):
    """The problem for gymnasium, which knows it as ``fastq_bench/pointmass-<n>-v0``, n 9, 17, 33.

    With full coupling it is ``fastq_bench/pointmass-17-coupled-v0``.

    Args:
        levels: n, odd.
        coupling: c in [0, 1].
        noise: s, in units of the full force.
        render_mode: None or "rgb_array".

    Attributes:
        noop: the choices without force.
        effects: for each force the observed numbers that no other force influences in a step.

    Raises:
        ValueError: if a number is out of its range.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (gymnasium's type)

    def __init__(
        self,
        levels: int,
        coupling: float = 0.0,
        noise: float = 0.0,
        render_mode: str | None = None,
    ) -> None:
        if levels < 3 or levels % 2 == 0:
            raise ValueError(f"levels is {levels}; choose an odd number from 3 on")
        if not 0.0 <= coupling <= 1.0:
            raise ValueError(f"coupling is {coupling}; choose a number from 0 to 1")
        if not 0.0 <= noise < np.inf:
            raise ValueError(f"noise is {noise}; choose a number from 0 on")
        self.levels, self.coupling, self.noise = levels, coupling, noise
        self.render_mode = render_mode
        self.noop = (levels // 2,) * 2
        self.effects: tuple[tuple[int, ...], ...] = (() if coupling else (0, 2), (1, 3))
        high = np.array([EDGE, EDGE, FASTEST, FASTEST])
        self.observation_space = spaces.Box(-high, high, dtype=np.float64)
        self.action_space = spaces.MultiDiscrete([levels, levels])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Floats, dict[str, Any]]:
        """Puts the mass anywhere, at rest."""
        super().reset(seed=seed)
        self._position, self._velocity = start(self.np_random), np.zeros(2)
        return self._observation(), {}

    def set_state(self, observation: npt.NDArray[Any]) -> None:
        """Puts the mass where an observation ``[4]`` was seen; the time stays."""
        state = np.asarray(observation, np.float64)
        self._position, self._velocity = state[:2].copy(), state[2:].copy()

    def step(self, action: npt.NDArray[Any]) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """Pushes, then pays for where the mass is."""
        push = coupled(forces(action, self.levels), self.coupling)
        if self.noise:
            push = push + self.noise * self.np_random.standard_normal(2)
        self._position, self._velocity = move(self._position, self._velocity, push)
        return self._observation(), float(reward(self._position)), False, False, {}

    def render(self) -> Any:
        """The table, ``[200, 200, 3]`` uint8: the goal green, the mass black."""
        picture = np.full((200, 200, 3), 255, np.uint8)
        for place, size, color in ((np.zeros(2), 95 * WIDTH, (170, 220, 170)),
                                   (self._position, 5, (0, 0, 0))):  # fmt: skip
            column, row = 100 + 95 * place * (1, -1)
            rows, columns = np.ogrid[:200, :200]
            picture[(rows - row) ** 2 + (columns - column) ** 2 <= size**2] = color
        return picture

    def _observation(self) -> Floats:
        return np.concatenate((self._position, self._velocity))


class VectorPointMass(_Slots):
    """Many copies of :class:`PointMass`, stepped at once; see :class:`suites.envs.VectorEnv`."""

    reward_parts: tuple[str, ...] = ()

    def __init__(self, env_id: str, count: int) -> None:
        from suites.envs import registered

        env = registered.make(env_id)
        super().__init__(env_id, count, env)
        one: Any = env.unwrapped
        self.levels, self.coupling, self.noise = one.levels, one.coupling, one.noise
        self._position, self._velocity = np.zeros((2, count, 2))
        self._generators = [np.random.default_rng(0)] * count
        self._time = np.zeros(count, np.int64)

    def reset(self, index: int, seed: int) -> Floats:
        """Begins an episode in one slot."""
        self._generators[index], _ = seeding.np_random(seed)
        return self._begin(index, start(self._generators[index]), np.zeros(2))

    def restorable(self, observations: npt.NDArray[Any]) -> Flags:
        """Which observations ``[..., 4]`` tell the whole state: all."""
        return np.ones(np.shape(observations)[:-1], bool)

    def set_state(self, index: int, observation: npt.NDArray[Any]) -> Floats:
        """Begins an episode in the state that an observation ``[4]`` shows; its observation.

        The time limit is counted from here. The noise that follows depends on the state alone, so
        that different actions in it meet the same.
        """
        state = np.asarray(observation, np.float64)
        entropy = np.frombuffer(state.tobytes(), np.uint32)
        self._generators[index] = np.random.default_rng(entropy)
        return self._begin(index, state[:2], state[2:])

    def _begin(self, index: int, position: Floats, velocity: Floats) -> Floats:
        self._position[index], self._velocity[index] = position, velocity
        self._time[index], self._reset[index] = 0, True
        return np.concatenate((position, velocity))

    def step(self, actions: npt.NDArray[Any], active: Flags | None = None) -> VectorStep:
        """Steps the active slots."""
        active = self._check(actions, active)
        push = coupled(forces(actions, self.levels), self.coupling)
        if self.noise:
            for slot in np.flatnonzero(active).tolist():
                push[slot] += self.noise * self._generators[slot].standard_normal(2)
        position, velocity = move(self._position, self._velocity, push)
        self._position = np.where(active[:, None], position, self._position)
        self._velocity = np.where(active[:, None], velocity, self._velocity)
        self._time += active
        return VectorStep(
            observations=np.concatenate((self._position, self._velocity), axis=1),
            rewards=np.where(active, reward(self._position), 0.0),
            terminations=np.zeros(self.count, bool),
            truncations=active & (self._time >= HORIZON),
            parts=np.zeros((self.count, 0)),
        )

    def close(self) -> None:
        """There is nothing to release."""


class Controller:
    """A controller that is all but optimal where there is neither coupling nor noise.

    Either coordinate is brought to the goal by itself: its force maximises the sum of
    1 / (1 + x^2 / 0.2^2) over the steps that are left, by dynamic programming backwards in time
    over a grid of (position, velocity), with linear interpolation. The true reward is at most
    either of these terms and has its maximum where they have theirs.

    Args:
        levels: n.
    """

    def __init__(self, levels: int) -> None:
        self.levels = levels
        self._force = forces(np.arange(levels), levels)
        x = np.linspace(-EDGE, EDGE, _POSITIONS)[:, None, None]
        v = np.linspace(-FASTEST, FASTEST, _VELOCITIES)[:, None]
        moved = move(x, v, self._force)
        earned, lookup = 1.0 / (1.0 + moved[0] ** 2 / WIDTH**2), _Lookup(*moved)
        self._values = np.zeros((HORIZON + 1, _POSITIONS, _VELOCITIES))
        for t in range(HORIZON - 1, -1, -1):
            self._values[t] = (earned + lookup(self._values[t + 1])).max(axis=-1)

    def act(self, observations: Floats, time: int) -> Integers:
        """Choices ``[..., 2]`` in the states ``[..., 4]``, of which ``time`` steps are over."""
        position, velocity = observations[..., :2, None], observations[..., 2:, None]
        moved = move(position, velocity, self._force)
        value = 1.0 / (1.0 + moved[0] ** 2 / WIDTH**2) + _Lookup(*moved)(self._values[time + 1])
        return np.asarray(value.argmax(axis=-1))


class _Lookup:
    """Linear interpolation of tables over (position, velocity) at fixed places ``[...]``."""

    def __init__(self, position: Floats, velocity: Floats) -> None:
        row, down = _between(position, EDGE, _POSITIONS)
        column, right = _between(velocity, FASTEST, _VELOCITIES)
        self.corner = row * _VELOCITIES + column
        self.down, self.right = down, right

    def __call__(self, table: Floats) -> Floats:
        flat, at = table.ravel(), self.corner
        upper = flat[at] + self.right * (flat[at + 1] - flat[at])
        at = at + _VELOCITIES
        lower = flat[at] + self.right * (flat[at + 1] - flat[at])
        return np.asarray(upper + self.down * (lower - upper))


def _between(value: Floats, end: float, count: int) -> tuple[Integers, Floats]:
    """The grid point below each value in [-end, end], and how far towards the next it lies."""
    place = (value + end) * ((count - 1) / (2 * end))
    below = np.minimum(place.astype(np.int64), count - 2)
    return below, place - below


def play(
    env: PointMass,
    position: Floats,
    generator: np.random.Generator,
    controller: Controller | None = None,
) -> Floats:
    """Returns ``[E]`` from the first positions ``[E, 2]``.

    Args:
        env: whose levels and coupling count; without noise.
        position: where the mass is at rest.
        generator: of random choices.
        controller: who acts; None for uniformly random choices.
    """
    episodes = len(position)
    velocity, returns = np.zeros((episodes, 2)), np.zeros(episodes)
    for time in range(HORIZON):
        if controller is None:
            actions = generator.integers(env.levels, size=(episodes, 2))
        else:
            actions = controller.act(np.concatenate((position, velocity), axis=1), time)
        push = coupled(forces(actions, env.levels), env.coupling)
        position, velocity = move(position, velocity, push)
        returns += reward(position)
    return returns


def bound(position: Floats) -> Floats:
    """Returns ``[E]`` that no policy can exceed, from the first positions ``[E, 2]``.

    At every step either coordinate is taken to be as near to the goal as full force could have
    brought it by then, with no regard to how fast it would arrive.
    """
    nearest, velocity = np.abs(position), np.zeros(position.shape)
    returns = np.zeros(len(position))
    for _ in range(HORIZON):
        velocity = KEPT * velocity - PUSH
        nearest = np.maximum(nearest + TIME * velocity, 0.0)
        returns += reward(nearest)
    return returns


def measure(env: PointMass, episodes: int = EPISODES) -> dict[str, tuple[float, float]]:
    """Mean returns and their standard errors: of "random" choices, the "controller", the "bound".

    The first scores 0; the second scores 100, or the third where coupling leaves no controller. No
    policy can have a mean above the third but by the luck of the starts, which all three share.
    """
    controller = None if env.coupling else Controller(env.levels)
    pieces: dict[str, list[Floats]] = {"random": [], "controller": [], "bound": []}
    generator = np.random.default_rng(EPISODES_SEED)
    for first in range(0, episodes, _PIECE):
        starts = generator.uniform(-EDGE, EDGE, (min(_PIECE, episodes - first), 2))
        pieces["random"].append(play(env, starts, generator))
        if controller is not None:
            pieces["controller"].append(play(env, starts, generator, controller))
        pieces["bound"].append(bound(starts))
    found = {name: np.concatenate(returns) for name, returns in pieces.items() if returns}
    return {name: (float(r.mean()), float(r.std() / np.sqrt(len(r)))) for name, r in found.items()}


if __name__ == "__main__":
    for name in sys.argv[1:] or POINT_MASSES:
        chosen: Any = POINT_MASSES[name]
        for who, (value, error) in measure(PointMass(**chosen)).items():
            print(f"{name} {who:<10} {value:.4f}, standard error {error:.4f}")
