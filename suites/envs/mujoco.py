"""Many copies of one environment, stepped together.

:func:`make_vector` returns either :class:`DirectMujoco`, which steps the MuJoCo locomotion tasks
without gymnasium's per-environment overhead and yields the same bits, or :class:`GymnasiumLoop`,
which steps any gymnasium environment in a plain loop.

There is no auto-reset: an episode ends, and its slot waits until somebody resets it.
"""

from __future__ import annotations

import re
import warnings
from typing import Any, NamedTuple, Protocol

import gymnasium
import mujoco
import numpy as np
import numpy.typing as npt

from suites.catalog import NAMESPACE, POINT_MASSES
from suites.envs import registered

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

DIRECT = frozenset(
    f"{robot}-{version}"
    for robot in ("Hopper", "HalfCheetah", "Walker2d")
    for version in ("v4", "v5")
)

REGIONS = "fastq_bench/Regions-v0"
SEPSIS = "fastq_bench/sepsis-v0"
# With crises that the observation does not show, and with crises that it shows.
SEPSIS_HIDDEN, SEPSIS_SHOWN = "fastq_bench/sepsis-hidden-v0", "fastq_bench/sepsis-shown-v0"
POINT_MASS_IDS = frozenset(f"{NAMESPACE}{name}-v0" for name in POINT_MASSES)

# Hopper and Walker2d clip the joint velocities they show; gymnasium writes the bound as a literal
# in `_get_obs` (gymnasium 1.4.0, envs/mujoco/hopper_v5.py and walker2d_v5.py).
SHOWN_VELOCITY = 10.0


class VectorStep(NamedTuple):
    """What one step did to E slots; rows of slots that were not stepped are 0 and False.

    Attributes:
        observations: ``[E, *O]``, for slots that were not stepped their last observation.
        rewards: ``[E]``.
        terminations: ``[E]``, True where the environment ended the episode.
        truncations: ``[E]``, True where the time limit was reached.
        parts: ``[E, C]``, the additive parts of the reward, in the order of ``reward_parts``.
        successes: ``[E]``, True where ``info["success"]`` is; None if the environment has none.
    """

    observations: Floats
    rewards: Floats
    terminations: Flags
    truncations: Flags
    parts: Floats
    successes: Flags | None = None


class VectorEnv(Protocol):
    """``count`` independent copies of one environment.

    Those that can be put into a state also have ``restorable`` and ``set_state``, as
    :class:`DirectMujoco` has; studies ask for them. Those whose whole state can be kept have
    ``save`` and ``load``; of others, a run that goes on in the middle of an episode plays it again.
    ``noop`` and ``effects`` are the environment's attributes of these names, if it has them; see
    :class:`baselines.contract.Spec`.

    Attributes:
        env_id: gymnasium's name of the environment.
        count: number of slots, E.
        observation_space: of one environment.
        action_space: of one environment.
        horizon: the time limit in steps, None if there is none.
        reward_parts: names of the reward's parts, () where they are not known.
    """

    env_id: str
    count: int
    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]
    horizon: int | None
    reward_parts: tuple[str, ...]

    def reset(self, index: int, seed: int) -> Floats:
        """Begins an episode in one slot, as ``env.reset(seed=seed)`` would; its observation."""
        ...

    def step(self, actions: npt.NDArray[Any], active: Flags | None = None) -> VectorStep:
        """Steps the ``active`` slots ``[E]``, all by default, with ``actions`` ``[E, *A]``.

        Raises:
            ValueError: if ``actions`` has not one row per slot, or a slot was never reset.
        """
        ...

    def close(self) -> None:
        """Releases the environments."""
        ...


def make_vector(env_id: str, count: int) -> VectorEnv:
    """``count`` copies of a gymnasium environment, by the fastest way proved identical to it.

    Raises:
        ValueError: if ``count`` is below 1 or the environment's observations are not one array.
        gymnasium.error.Error: if gymnasium does not know the environment.
    """
    if count < 1:
        raise ValueError(f"{env_id}: count is {count}; ask for at least one environment")
    if env_id == REGIONS:
        from suites.envs.regions import VectorRegions

        return VectorRegions(env_id, count)
    if env_id in (SEPSIS, SEPSIS_HIDDEN, SEPSIS_SHOWN):
        from suites.envs.sepsis import VectorSepsis

        return VectorSepsis(env_id, count)
    if env_id.partition("?")[0] in POINT_MASS_IDS:
        from suites.envs.pointmass import VectorPointMass

        return VectorPointMass(env_id, count)
    return DirectMujoco(env_id, count) if env_id in DIRECT else GymnasiumLoop(env_id, count)


def make_one(env_id: str) -> gymnasium.Env[Any, Any]:
    """``gymnasium.make`` without its advice to leave -v4, which D4RL's files were made for."""
    with warnings.catch_warnings():
        if env_id.endswith("-v4"):
            advice = rf".*The environment {re.escape(env_id)} is out of date"
            warnings.filterwarnings("ignore", message=advice, category=DeprecationWarning)
        return registered.make(env_id)


class _Slots:
    """Bookkeeping that both simulators share: the spaces, and how long each slot has been going."""

    def __init__(self, env_id: str, count: int, env: gymnasium.Env[Any, Any]) -> None:
        self.env_id = env_id
        self.count = count
        self.observation_space = env.observation_space
        self.action_space = env.action_space
        self.horizon = env.spec.max_episode_steps if env.spec is not None else None
        self.noop: tuple[int, ...] | None = getattr(env.unwrapped, "noop", None)
        self.effects: tuple[tuple[int, ...], ...] | None = getattr(env.unwrapped, "effects", None)
        self._reset = np.zeros(count, bool)

    def _check(self, actions: npt.NDArray[Any], active: Flags | None) -> Flags:
        shape = (self.count, *(self.action_space.shape or ()))
        if actions.shape != shape:
            raise ValueError(f"{self.env_id}: actions are {actions.shape}; they must be {shape}")
        active = np.ones(self.count, bool) if active is None else np.asarray(active, bool)
        waiting = np.flatnonzero(active & ~self._reset)
        if waiting.size:
            raise ValueError(f"{self.env_id}: slot {waiting[0]} was never reset; reset it first")
        return active


class DirectMujoco(_Slots):
    """Hopper, HalfCheetah and Walker2d (-v4 and -v5), stepped on MuJoCo itself.

    One model is shared, every slot has its own simulation state, and observations, rewards and
    health are computed for all slots at once. Every constant is read from the gymnasium
    environment, which also performs the resets. The arithmetic keeps gymnasium's order and types,
    so that all results are equal to the last bit; ``tests/suites/test_mujoco.py`` compares them.
    """

    def __init__(self, env_id: str, count: int) -> None:
        env = make_one(env_id)
        super().__init__(env_id, count, env)
        base: Any = env.unwrapped
        self._base = base
        self._dt = base.dt
        self._falls = hasattr(base, "_healthy_z_range")
        # -v4 pays for health on the step that ends an episode too, -v5 does not.
        self._pays_the_fallen = env_id.endswith("-v4")
        self.reward_parts = ("forward", *["survive"] * self._falls, "control")

        model = base.model
        self._states = [mujoco.MjData(model) for _ in range(count)]
        # Views into the simulation states: making them anew at every step is slow.
        self._ctrl = [state.ctrl for state in self._states]
        self._qpos_views = [state.qpos for state in self._states]
        self._qvel_views = [state.qvel for state in self._states]
        self._qpos = np.zeros((count, model.nq))
        self._qvel = np.zeros((count, model.nv))
        self._elapsed = np.zeros(count, np.int64)

    def reset(self, index: int, seed: int) -> Floats:
        """Begins an episode in one slot; see :class:`VectorEnv`."""
        self._base.data = self._states[index]
        observation, _ = self._base.reset(seed=seed)
        self._qpos[index] = self._qpos_views[index]
        self._qvel[index] = self._qvel_views[index]
        self._elapsed[index] = 0
        self._reset[index] = True
        return np.asarray(observation)

    def restorable(self, observations: npt.NDArray[Any]) -> Flags:
        """Which observations ``[..., O]`` tell the whole state, that is, show no clipped velocity.

        The position along the track is never shown, and nothing depends on it.
        """
        velocities = np.abs(observations[..., self._qpos.shape[1] - 1 :])
        return np.asarray((not self._falls) | (velocities < SHOWN_VELOCITY).all(axis=-1))

    def set_state(self, index: int, observation: npt.NDArray[Any]) -> Floats:
        """Begins an episode in the state that an observation ``[O]`` shows; its observation.

        The robot stands at the start of the track and the time limit is counted from here. What
        follows equals what followed the observation up to rounding: the solver starts cold.

        Raises:
            ValueError: if the observation has another shape, or does not tell the state.
        """
        observation = np.asarray(observation, np.float64)
        if observation.shape != self.observation_space.shape:
            raise ValueError(
                f"{self.env_id}: an observation is {self.observation_space.shape}, not "
                f"{observation.shape}"
            )
        if not self.restorable(observation):
            raise ValueError(
                f"{self.env_id}: a velocity of the observation is clipped to {SHOWN_VELOCITY:g}; "
                "leave out what `restorable` does not allow"
            )
        positions = self._qpos.shape[1] - 1
        self._base.data = self._states[index]
        mujoco.mj_resetData(self._base.model, self._base.data)
        self._base.set_state(np.append(0.0, observation[:positions]), observation[positions:])
        self._qpos[index] = self._qpos_views[index]
        self._qvel[index] = self._qvel_views[index]
        self._elapsed[index] = 0
        self._reset[index] = True
        return np.asarray(self._observations()[index])

    def save(self, index: int) -> Floats:
        """A slot's whole state ``[n]``, the solver's warm start and the time limit included."""
        size = mujoco.mj_stateSize(self._base.model, mujoco.mjtState.mjSTATE_INTEGRATION)
        state = np.empty(size + 1)
        mujoco.mj_getState(
            self._base.model,
            self._states[index],
            state[:-1],
            mujoco.mjtState.mjSTATE_INTEGRATION,
        )
        state[-1] = self._elapsed[index]
        return state

    def load(self, index: int, state: Floats) -> None:
        """Goes on, to the last bit, from what :meth:`save` returned."""
        mujoco.mj_setState(
            self._base.model,
            self._states[index],
            np.ascontiguousarray(state[:-1]),
            mujoco.mjtState.mjSTATE_INTEGRATION,
        )
        self._qpos[index] = self._qpos_views[index]
        self._qvel[index] = self._qvel_views[index]
        self._elapsed[index] = round(state[-1])
        self._reset[index] = True

    def step(self, actions: npt.NDArray[Any], active: Flags | None = None) -> VectorStep:
        """Steps the active slots; see :class:`VectorEnv`."""
        active = self._check(actions, active)
        before = self._qpos[:, 0].copy()
        model, frames = self._base.model, self._base.frame_skip
        for index in np.flatnonzero(active).tolist():
            self._ctrl[index][:] = actions[index]
            mujoco.mj_step(model, self._states[index], frames)
        np.concatenate(self._qpos_views, out=self._qpos.reshape(-1))
        np.concatenate(self._qvel_views, out=self._qvel.reshape(-1))
        self._elapsed += active

        parts, healthy = self._reward_parts(before, actions)
        parts[~active] = 0.0
        rewards = parts[:, 0].copy()
        for column in range(1, parts.shape[1]):
            rewards += parts[:, column]
        return VectorStep(
            observations=self._observations(),
            rewards=rewards,
            terminations=active & ~healthy,
            truncations=active & (self._elapsed >= (self.horizon or np.inf)),
            parts=parts,
        )

    def _observations(self) -> Floats:
        shown = self._qvel
        if self._falls:
            shown = np.clip(shown, -SHOWN_VELOCITY, SHOWN_VELOCITY)
        return np.concatenate((self._qpos[:, 1:], shown), axis=1)

    def _reward_parts(self, before: Floats, actions: npt.NDArray[Any]) -> tuple[Floats, Flags]:
        """The parts ``[E, C]`` of the reward, and which slots ``[E]`` are healthy."""
        base = self._base
        forward = base._forward_reward_weight * ((self._qpos[:, 0] - before) / self._dt)
        # In the actions' own precision, as gymnasium does.
        control = -(base._ctrl_cost_weight * np.sum(np.square(actions), axis=1))
        if not self._falls:
            return np.stack((forward, control), axis=1), np.ones(self.count, bool)
        healthy = self._healthy()
        survive = (healthy | self._pays_the_fallen) * base._healthy_reward
        return np.stack((forward, survive, control), axis=1), healthy

    def _healthy(self) -> Flags:
        def inside(values: Floats, bounds: tuple[float, float]) -> Flags:
            return (bounds[0] < values) & (values < bounds[1])

        base = self._base
        healthy = inside(self._qpos[:, 1], base._healthy_z_range)
        healthy &= inside(self._qpos[:, 2], base._healthy_angle_range)
        if hasattr(base, "_healthy_state_range"):  # the hopper's alone
            healthy &= inside(self._qpos[:, 2:], base._healthy_state_range).all(axis=1)
            healthy &= inside(self._qvel, base._healthy_state_range).all(axis=1)
        return healthy

    def close(self) -> None:
        """Releases the environment."""
        self._base.close()


def _flat(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    if isinstance(env.observation_space, gymnasium.spaces.Dict):
        return gymnasium.wrappers.FlattenObservation(env)
    return env


class GymnasiumLoop(_Slots):
    """Any gymnasium environment whose observations are one array, stepped in a loop.

    A Dict of observations is shown as one vector, by ``gymnasium.spaces.flatten``.
    """

    reward_parts: tuple[str, ...] = ()

    def __init__(self, env_id: str, count: int) -> None:
        self._envs = [_flat(make_one(env_id)) for _ in range(count)]
        super().__init__(env_id, count, self._envs[0])
        shape = self.observation_space.shape
        if shape is None:
            kind = type(self.observation_space).__name__
            raise ValueError(f"{env_id}: observations are a {kind}; wrap it to show one array")
        self._observations = np.zeros((count, *shape))

    def reset(self, index: int, seed: int) -> Floats:
        """Begins an episode in one slot; see :class:`VectorEnv`."""
        observation, _ = self._envs[index].reset(seed=seed)
        self._observations[index] = observation
        self._reset[index] = True
        return np.array(observation, np.float64)

    def step(self, actions: npt.NDArray[Any], active: Flags | None = None) -> VectorStep:
        """Steps the active slots; see :class:`VectorEnv`."""
        active = self._check(actions, active)
        rewards = np.zeros(self.count)
        terminations, truncations, successes = np.zeros((3, self.count), bool)
        told = False
        for index in np.flatnonzero(active).tolist():
            result = self._envs[index].step(actions[index])
            self._observations[index], rewards[index] = result[0], result[1]
            terminations[index], truncations[index] = result[2], result[3]
            told = told or "success" in result[4]
            successes[index] = bool(result[4].get("success", False))
        return VectorStep(
            observations=self._observations.copy(),
            rewards=rewards,
            terminations=terminations,
            truncations=truncations,
            parts=np.zeros((self.count, 0)),
            successes=successes if told else None,
        )

    def close(self) -> None:
        """Releases the environments."""
        for env in self._envs:
            env.close()
