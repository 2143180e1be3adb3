"""Playing whole episodes into rows: what every local recipe has in common.

Nothing in the result depends on how many episodes are played side by side, or on which of them
ended sooner.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from suites.datasets import store

if TYPE_CHECKING:
    from suites.datasets.recipes import Shard
    from suites.envs import VectorEnv

SLOTS = 32  # environments stepped together at most
# Data collection resets with seeds from here on; smaller ones are left to training and evaluation.
FIRST_RESET_SEED = 2**32


class Actor(Protocol):
    """Who acts in the slots of a vector environment, an episode in each."""

    def begin(
        self, slot: int, observation: npt.NDArray[np.float64], generator: np.random.Generator
    ) -> int:
        """An episode begins; all its randomness is drawn here. Returns the policy's number."""
        ...

    def act(
        self, observations: npt.NDArray[np.float64], steps: npt.NDArray[np.int64]
    ) -> npt.NDArray[Any]:
        """Actions ``[E, A]``, in [-1, 1] or integers, on ``observations`` ``[E, O]``.

        Slot e has made ``steps[e]`` steps of its episode; slots without one are ignored.
        """
        ...


def task_entropy(task: str) -> int:
    """A number for each task, so that tasks share no episodes."""
    return int.from_bytes(hashlib.sha256(task.encode()).digest()[:8])


def shard_entropy(wanted: Mapping[str, Any], shard: Shard) -> tuple[int, ...]:
    """What a shard's randomness is drawn from: the draw of the data, its task, and its number."""
    return wanted["seed"], task_entropy(wanted["task"]), shard.number


def episode_chance(entropy: tuple[int, ...], number: int) -> tuple[np.random.Generator, int]:
    """What one who acts draws an episode's randomness from, and the seed of the episode's reset.

    Args:
        entropy: as :func:`play` has it.
        number: of the episode.
    """
    generator = np.random.default_rng(np.random.SeedSequence([*entropy, number]))
    return generator, FIRST_RESET_SEED + int(generator.integers(2**31))


def part_names(env: VectorEnv) -> tuple[str, ...]:
    """The parts of the reward that local data has; all of it is one where none are known."""
    return env.reward_parts or ("reward",)


def columns_of(env: VectorEnv, log_probs: bool = False) -> dict[str, list[int]]:
    """The card's ``columns`` of a local dataset of this environment.

    Args:
        env: the simulator.
        log_probs: whether the logged actions' log-probabilities are among them.
    """
    from suites.envs.mujoco import measure_names

    observation = math.prod(env.observation_space.shape or ())
    action = math.prod(env.action_space.shape or ())
    return store.layout(
        {
            "observations": observation,
            "actions": action,
            "rewards": 1,
            "next_observations": observation,
            "terminations": 1,
            "truncations": 1,
            "policy_ids": 1,
            "reward_parts": len(part_names(env)),
            **({"action_log_probs": 1} if log_probs else {}),
            **({"measures": len(names)} if (names := measure_names(env)) else {}),
        }
    )


def play(
    env_id: str,
    make_actor: Callable[[VectorEnv], Actor],
    *,
    rows: int,
    entropy: tuple[int, ...],
    log_probs: bool = False,
) -> store.Dataset:
    """Plays whole episodes, in the order they began, until they fill ``rows`` rows.

    The last episode is cut to fit (its last row is a truncation). Episodes are numbered as they
    begin, and nothing in the result depends on which of them ended sooner, so short episodes are
    not preferred.

    Args:
        env_id: an environment with a time limit.
        make_actor: makes the one who acts in the slots of a vector environment.
        rows: transitions wanted.
        entropy: non-negative numbers from which, with the episode's number, its seeds are derived.
        log_probs: keep the logged actions' log-probabilities, the actor's ``log_probs`` ``[E]``.

    Returns:
        A dataset in memory. The reward is the float32 sum of the float32 parts, in their order:
        within float32's precision of the environment's float64 reward.
    """
    from suites.envs import make_vector

    vector = make_vector(env_id, 1)
    horizon = vector.horizon
    assert horizon is not None
    vector.close()
    # As many slots as let full-length episodes fill the rows in whole waves: few steps are wasted.
    waves = math.ceil(rows / (SLOTS * horizon))
    slots = math.ceil(rows / (horizon * waves))
    vector = make_vector(env_id, slots)
    actor = make_actor(vector)
    columns = columns_of(vector, log_probs)
    width = max(stop for _, stop in columns.values())

    def put(target: store.Table, field: str, values: npt.NDArray[Any]) -> None:
        start, stop = columns[field]
        target[:, start:stop] = values if values.ndim == 2 else values[:, None]

    running = np.full(slots, -1)  # number of the episode in each slot, -1 if the slot is free
    observations = np.zeros((slots, *(vector.observation_space.shape or ())))
    policies = np.zeros(slots)
    buffers = np.zeros((slots, horizon, width), np.float32)
    row = np.zeros((slots, width), np.float32)
    finished: dict[int, store.Table] = {}
    lengths = np.zeros(rows + slots, np.int64)  # by episode: rows so far
    begun, played = 0, 0  # episodes; rows of all of them

    while True:
        if played < rows:
            free = np.flatnonzero(running < 0).tolist()
            if free:
                # No more episodes than are likely needed: one begun too many is work thrown away.
                # The numbers of a table do not depend on this, nor on the slots.
                expected = min(horizon, played / max(1, len(finished)))
                coming = expected - lengths[running[running >= 0]]
                due = rows - played - float(np.maximum(coming, 0).sum())
            for slot in free:
                if due <= 0:
                    break
                due -= expected
                generator, reset_seed = episode_chance(entropy, begun)
                observations[slot] = vector.reset(slot, reset_seed)
                policies[slot] = actor.begin(slot, observations[slot], generator)
                running[slot] = begun
                begun += 1
            active = running >= 0
        else:
            # Earlier episodes can only grow: whoever begins after the last row, or has reached it,
            # need not go on.
            last = int(np.searchsorted(np.cumsum(lengths[:begun]), rows))
            active = (running >= 0) & (running < last)
            if not active.any():
                break
        episode_step = np.where(active, lengths[running], 0)
        actions = actor.act(observations, episode_step)
        step = vector.step(actions, active)

        known = step.parts if vector.reward_parts else step.rewards[:, None]
        parts = known.astype(np.float32)
        put(row, "observations", observations)
        put(row, "actions", actions)
        put(row, "rewards", np.add.accumulate(parts, axis=1)[:, -1])
        put(row, "next_observations", step.observations)
        put(row, "terminations", step.terminations)
        put(row, "truncations", step.truncations)
        put(row, "policy_ids", policies)
        put(row, "reward_parts", parts)
        if step.measures is not None:
            put(row, "measures", step.measures)
        if log_probs:
            put(row, "action_log_probs", actor.log_probs)  # type: ignore[attr-defined]
        stepped = np.flatnonzero(active)
        buffers[stepped, episode_step[stepped]] = row[stepped]
        observations = step.observations
        lengths[running[stepped]] += 1
        played += len(stepped)
        for slot in np.flatnonzero(step.terminations | step.truncations).tolist():
            episode = int(running[slot])
            finished[episode] = buffers[slot, : lengths[episode]].copy()
            running[slot] = -1
    vector.close()

    for slot in np.flatnonzero(running >= 0).tolist():
        finished[int(running[slot])] = buffers[slot, : lengths[running[slot]]]
    table = np.concatenate([finished[episode] for episode in range(last + 1)])[:rows]
    if not table[-1, columns["terminations"][0]]:
        table[-1, columns["truncations"][0]] = 1.0
    return store.Dataset(None, {"columns": columns, "horizon": horizon}, table)
