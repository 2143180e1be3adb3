"""Two regions, two logging policies: a confounded problem whose optimum is known.

The problem is made for one question: does an agent learn that in one region the action of the
*other* region's policy is the better one? ``docs/fastq-overlap.md`` says why it is as it is.

An episode draws u, whose size is uniform in [0.2, 1] and whose sign says where it plays: region A
(u < 0) or B (u > 0). It stays. Step t = 0 ... T-1, T = 20, is, with eps standard normal in R^4::

    x[0] ~ N(0, I),   x[t+1] = 0.8 x[t] + 0.6 eps[t],   v = min(max(x, -3), 3)
    f(v) =  0.5 + 0.4 tanh(F v)          the best action, in both regions
    g(v) = -0.5 + 0.4 tanh(G v)          the other one
    l[t] = |a[t] - f(v[t])| / (2 sqrt 2) the mistake, in [0, 1]; a in [-1, 1]^2, | | Euclidean
    m[0] = 0,   m[t+1] = 0.5 m[t] + 0.5 l[t]
    r[t] = base + penalty,   base = 1 + b [u > 0],   penalty = -m[t+1]

The observation is (u, v, m): everything that the future depends on but for the noise (and x, where
v is clipped). Nothing ends an episode before T.

With E l of a policy (x is stationary, so that it is the same at every t) the expected return is::

    T (1 + b [u > 0]) - P E l,   P = sum of 1 - 0.5^(t+1) over t = T - 1 + 0.5^T

so f(v) returns T (1 + b [u > 0]) exactly, and b = P (E l of g - E l of f) / T makes f with noise in
A and g with noise in B return the same: returns do not tell which of them is better.

``python -m suites.envs.regions`` prints the three E l that stand below.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.utils import seeding

from suites.datasets.recipes.regions import NOISE
from suites.datasets.recipes.regions import STEPS as HORIZON
from suites.envs.mujoco import Flags, Floats, VectorStep, _Slots

F = np.array([[0.6, -0.4, 0.3, 0.2], [-0.2, 0.5, 0.4, -0.5]])
G = np.array([[-0.3, 0.5, -0.5, 0.4], [0.5, 0.2, -0.6, -0.3]])
SHOWN = 3.0  # v is clipped here
NEAREST, FARTHEST = 0.2, 1.0  # |u|

# E l of f and of g, both with the noise, and of uniformly random actions.
LOSS_BEST, LOSS_OTHER, LOSS_RANDOM = 0.044065, 0.519894, 0.360769
DRAWS, DRAWS_SEED = 100_000_000, 0  # that gave them, with standard errors below 2e-5
PAID = HORIZON - 1 + 0.5**HORIZON  # P: how much of a constant mistake an episode pays
BONUS = PAID * (LOSS_OTHER - LOSS_BEST) / HORIZON  # b


def best_action(v: Floats) -> Floats:
    """f(v), ``[..., 2]``, for v ``[..., 4]`` as observed."""
    return np.asarray(0.5 + 0.4 * np.tanh((v[..., None, :] * F).sum(-1)))


def other_action(v: Floats) -> Floats:
    """g(v), ``[..., 2]``, for v ``[..., 4]`` as observed."""
    return np.asarray(-0.5 + 0.4 * np.tanh((v[..., None, :] * G).sum(-1)))


def mistake(actions: npt.NDArray[Any], best: Floats) -> Floats:
    """l ``[...]``, for actions and best actions ``[..., 2]``."""
    off = np.clip(actions, -1.0, 1.0) - best
    return np.asarray(np.sqrt(off[..., 0] ** 2 + off[..., 1] ** 2) / (2.0 * np.sqrt(2.0)))


def _draw(generator: np.random.Generator) -> tuple[float, Floats]:
    """An episode's u, and its v ``[T + 1, 4]``."""
    size, sign = generator.uniform(NEAREST, FARTHEST), generator.integers(2)
    context = _contexts(generator.standard_normal(4), generator)
    return float(size if sign else -size), context


def _contexts(first: Floats, generator: np.random.Generator) -> Floats:
    """v ``[T + 1, 4]`` from the first x ``[4]`` on."""
    x = np.empty((HORIZON + 1, 4))
    x[0] = first
    for step, noise in enumerate(generator.standard_normal((HORIZON, 4))):
        x[step + 1] = 0.8 * x[step] + 0.6 * noise
    return np.clip(x, -SHOWN, SHOWN)


class Regions(gymnasium.Env[Floats, npt.NDArray[np.float32]]):
    """The problem for gymnasium, which knows it as ``fastq_bench/Regions-v0`` with its time limit.

    ``info`` of a step has ``reward_base`` and ``reward_penalty``.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012 (gymnasium's type)
    reward_parts: tuple[str, ...] = ("base", "penalty")

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        low = np.array([-FARTHEST, *[-SHOWN] * 4, 0.0])
        high = np.array([FARTHEST, *[SHOWN] * 4, 1.0])
        self.observation_space = spaces.Box(low, high, dtype=np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Floats, dict[str, Any]]:
        """Draws an episode, noise and all."""
        super().reset(seed=seed)
        self._u, self._v = _draw(self.np_random)
        self._best = best_action(self._v)
        self._time, self._fatigue = 0, 0.0
        self._last = np.zeros(2)
        return self._observation(), {}

    def set_state(self, observation: npt.NDArray[Any]) -> None:
        """Puts the episode where an observation ``[6]`` was seen; time and noise stay."""
        self._u, self._fatigue = float(observation[0]), float(observation[5])
        self._v[self._time] = observation[1:5]
        self._best[self._time] = best_action(self._v[self._time])

    def step(self, action: npt.NDArray[Any]) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """Pays for the action; actions beyond [-1, 1] are clipped."""
        loss = float(mistake(action, self._best[self._time]))
        self._fatigue = 0.5 * self._fatigue + 0.5 * loss
        self._time += 1
        self._last = np.clip(action, -1.0, 1.0)
        base, penalty = 1.0 + BONUS * (self._u > 0), -self._fatigue
        info = {"reward_base": base, "reward_penalty": penalty}
        return self._observation(), base + penalty, False, False, info

    def render(self) -> Any:
        """The square of actions, ``[200, 200, 3]`` uint8.

        Green is what f says now, red what g says, black the last action; B is tinted.
        """
        picture = np.full((200, 200, 3), (255, 255, 220) if self._u > 0 else 255, np.uint8)
        v = self._v[self._time]
        for action, color in (
            (best_action(v), (0, 150, 0)),
            (other_action(v), (200, 0, 0)),
            (self._last, (0, 0, 0)),
        ):
            column, row = np.clip(100 + 95 * action * (1, -1), 4, 195).astype(int)
            picture[row - 4 : row + 5, column - 4 : column + 5] = color
        return picture

    def _observation(self) -> Floats:
        return np.array([self._u, *self._v[self._time], self._fatigue])


class VectorRegions(_Slots):
    """Many copies of :class:`Regions`, stepped at once; see :class:`suites.envs.VectorEnv`."""

    reward_parts: tuple[str, ...] = Regions.reward_parts

    def __init__(self, env_id: str, count: int) -> None:
        super().__init__(env_id, count, gymnasium.make(env_id))
        self._u = np.zeros(count)
        self._v = np.zeros((count, HORIZON + 1, 4))
        self._best = np.zeros((count, HORIZON + 1, 2))
        self._fatigue = np.zeros(count)
        self._time = np.zeros(count, np.int64)

    def reset(self, index: int, seed: int) -> Floats:
        """Begins an episode in one slot."""
        generator, _ = seeding.np_random(seed)
        return self._begin(index, *_draw(generator), 0.0)

    def restorable(self, observations: npt.NDArray[Any]) -> Flags:
        """Which observations ``[..., 6]`` tell the whole state: those that clip no context."""
        return np.asarray((np.abs(observations[..., 1:5]) < SHOWN).all(axis=-1))

    def set_state(self, index: int, observation: npt.NDArray[Any]) -> Floats:
        """Begins an episode in the state that an observation ``[6]`` shows; its observation.

        The time limit is counted from here. The noise that follows depends on the state alone, so
        that different actions in it meet the same.
        """
        state = np.asarray(observation, np.float64)
        generator = np.random.default_rng(np.frombuffer(state.tobytes(), np.uint32))
        return self._begin(index, state[0], _contexts(state[1:5], generator), state[5])

    def _begin(self, index: int, u: float, v: Floats, fatigue: float) -> Floats:
        self._u[index], self._v[index], self._fatigue[index] = u, v, fatigue
        self._best[index] = best_action(v)
        self._time[index], self._reset[index] = 0, True
        return np.array(self._observations()[index])

    def step(self, actions: npt.NDArray[Any], active: Flags | None = None) -> VectorStep:
        """Steps the active slots."""
        active = self._check(actions, active)
        slots = np.arange(self.count)
        loss = mistake(actions, self._best[slots, np.minimum(self._time, HORIZON)])
        self._fatigue = np.where(active, 0.5 * self._fatigue + 0.5 * loss, self._fatigue)
        self._time += active
        base = 1.0 + BONUS * (self._u > 0)
        parts = np.where(active[:, None], np.stack((base, -self._fatigue), axis=1), 0.0)
        return VectorStep(
            observations=self._observations(),
            rewards=parts[:, 0] + parts[:, 1],
            terminations=np.zeros(self.count, bool),
            truncations=active & (self._time >= HORIZON),
            parts=parts,
        )

    def _observations(self) -> Floats:
        shown = self._v[np.arange(self.count), np.minimum(self._time, HORIZON)]
        return np.column_stack((self._u, shown, self._fatigue))

    def close(self) -> None:
        """There is nothing to release."""


def measure_losses(draws: int, seed: int) -> tuple[Floats, Floats]:
    """E l of f and g with noise and of random actions ``[3]``, by simulation; standard errors."""
    generator = np.random.default_rng(seed)
    sums, squares, left = np.zeros(3), np.zeros(3), draws
    while left:
        count = min(left, 1_000_000)
        left -= count
        v = np.clip(generator.standard_normal((count, 4)), -SHOWN, SHOWN)
        best, noise = best_action(v), NOISE * generator.standard_normal((2, count, 2))
        random = generator.uniform(-1.0, 1.0, (count, 2))
        for k, actions in enumerate((best + noise[0], other_action(v) + noise[1], random)):
            loss = mistake(actions, best)
            sums[k] += loss.sum()
            squares[k] += np.square(loss).sum()
    mean = sums / draws
    return mean, np.sqrt((squares / draws - mean**2) / draws)


if __name__ == "__main__":
    means, errors = measure_losses(DRAWS, DRAWS_SEED)
    for name, value, error in zip(("best", "other", "random"), means, errors, strict=True):
        print(f"E l of {name:<6} {value:.6f}, standard error {error:.1e}")
