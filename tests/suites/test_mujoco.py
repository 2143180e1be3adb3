"""The direct simulator is gymnasium's, bit for bit."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from suites.envs import make_vector
from suites.envs.mujoco import DIRECT, DirectMujoco, GymnasiumLoop, make_one

NAMES = sorted(DIRECT)


def policy(kind: str, actions: int):
    """Random actions, or a calm policy that keeps a hopper or walker on its feet for longer."""
    generator = np.random.default_rng(7)
    scale = {"random": 1.0, "calm": 0.1, "beyond": 1.7}[kind]
    return lambda: generator.uniform(-scale, scale, actions).astype(np.float32)


@pytest.mark.parametrize("kind", ["random", "calm", "beyond"])
@pytest.mark.parametrize("env_id", NAMES)
def test_equals_gymnasium_bit_for_bit(env_id: str, kind: str) -> None:
    vector = make_vector(env_id, 3)
    assert isinstance(vector, DirectMujoco)
    env = make_one(env_id)
    draw = policy(kind, env.action_space.shape[0])
    noise = policy("random", env.action_space.shape[0])
    for other in (0, 2):
        vector.reset(other, seed=other)
    for episode in range(3):
        ours = vector.reset(1, seed=100 + episode)
        theirs, _ = env.reset(seed=100 + episode)
        np.testing.assert_array_equal(ours, theirs)
        for _ in range(300):
            action = draw()
            step = vector.step(np.stack((noise(), action, noise())))
            theirs, reward, terminated, truncated, info = env.step(action)
            np.testing.assert_array_equal(step.observations[1], theirs)
            assert step.rewards[1] == reward
            assert step.terminations[1] == terminated
            assert step.truncations[1] == truncated
            if env_id.endswith("-v5"):
                keys = {"forward": "reward_forward", "survive": "reward_survive", "control": "reward_ctrl"}
                assert step.parts[1].tolist() == [info[keys[name]] for name in vector.reward_parts]
            if terminated or truncated:
                break


@pytest.mark.parametrize("env_id", ["HalfCheetah-v4", "HalfCheetah-v5"])
def test_time_limit(env_id: str) -> None:
    vector, env = make_vector(env_id, 1), make_one(env_id)
    draw = policy("random", 6)
    vector.reset(0, seed=5)
    env.reset(seed=5)
    for count in range(1, 1001):
        action = draw()
        step = vector.step(action[None])
        theirs, reward, _, truncated, _ = env.step(action)
        assert bool(step.truncations[0]) == truncated == (count == 1000)
        assert step.rewards[0] == reward
    np.testing.assert_array_equal(step.observations[0], theirs)
    vector.reset(0, seed=6)
    assert not vector.step(action[None]).truncations[0]
