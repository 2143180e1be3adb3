"""The direct simulator is gymnasium's, bit for bit."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import gymnasium
import numpy as np
import pytest

from suites.datasets import behaviour
from suites.datasets.behaviour import Policy
from suites.envs import make_vector
from suites.envs.mujoco import DIRECT, DirectMujoco, GymnasiumLoop, make_one

NAMES = sorted(DIRECT)
INFO_KEYS = {"forward": "reward_forward", "survive": "reward_survive", "control": "reward_ctrl"}

Act = Callable[[np.ndarray], np.ndarray]


def random_actions(env_id: str, scale: float) -> Act:
    generator = np.random.default_rng(7)
    size = make_one(env_id).action_space.shape[0]
    return lambda observation: generator.uniform(-scale, scale, size).astype(np.float32)


def good_actions(env_id: str) -> Act:
    environment = env_id.split("-")[0].lower()
    index = behaviour.index(environment)
    assert index is not None
    name = index["levels"]["expert"]["checkpoint"]
    policy = Policy.load(behaviour.folder(environment) / f"{name}.npz")
    return lambda observation: policy.act(observation[None])[0]


def compare(env_id: str, act: Act, limits: Sequence[int]) -> int:
    """Plays in the middle one of three slots, whose neighbours are busy; the longest episode.

    ``limits``: of every episode, the steps after which it is left.
    """
    vector, env = make_vector(env_id, 3), make_one(env_id)
    assert isinstance(vector, DirectMujoco)
    noise = random_actions(env_id, 1.0)
    for neighbour in (0, 2):
        vector.reset(neighbour, seed=neighbour)
    longest = 0
    for episode, steps in enumerate(limits):
        observation, _ = env.reset(seed=100 + episode)
        np.testing.assert_array_equal(vector.reset(1, seed=100 + episode), observation)
        for count in range(1, steps + 1):
            action = act(observation)
            step = vector.step(np.stack((noise(observation), action, noise(observation))))
            observation, reward, terminated, truncated, info = env.step(action)
            np.testing.assert_array_equal(step.observations[1], observation)
            assert step.rewards[1] == reward
            assert step.terminations[1] == terminated
            assert step.truncations[1] == truncated
            if env_id.endswith("-v5"):
                parts = [info[INFO_KEYS[name]] for name in vector.reward_parts]
                assert step.parts[1].tolist() == parts
            longest = max(longest, count)
            if terminated or truncated:
                break
    return longest


@pytest.mark.parametrize("scale", [1.0, 0.1, 1.7])
@pytest.mark.parametrize("env_id", NAMES)
def test_equals_gymnasium_with_random_actions(env_id: str, scale: float) -> None:
    compare(env_id, random_actions(env_id, scale), [200] * 3)


@pytest.mark.parametrize("env_id", NAMES)
def test_equals_gymnasium_with_good_actions_until_the_time_limit(env_id: str) -> None:
    longest = compare(env_id, good_actions(env_id), [1001, 50])
    if env_id.endswith("-v5"):  # the policies were trained there
        assert longest == 1000


def test_double_precision_actions() -> None:
    vector, env = make_vector("Hopper-v5", 1), make_one("Hopper-v5")
    vector.reset(0, seed=3)
    env.reset(seed=3)
    action = np.asarray([0.1, -0.2, 0.3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gymnasium would rather have float32
        assert vector.step(action[None]).rewards[0] == env.step(action)[1]


@pytest.mark.parametrize("env_id", NAMES)
def test_parts_sum_to_the_reward(env_id: str) -> None:
    vector = make_vector(env_id, 2)
    for index in range(2):
        vector.reset(index, seed=index)
    act, ended = random_actions(env_id, 1.0), np.zeros(2, bool)
    for _ in range(60):
        step = vector.step(np.stack([act(row) for row in np.zeros((2, 1))]), ~ended)
        np.testing.assert_allclose(step.parts.sum(axis=1), step.rewards, rtol=0, atol=1e-12)
        # -v4 pays for health even on the step that ends the episode, -v5 does not.
        if "survive" in vector.reward_parts:
            paid = step.parts[~ended, vector.reward_parts.index("survive")]
            fallen = step.terminations[~ended]
            assert (paid == (~fallen | env_id.endswith("-v4"))).all()
        ended |= step.terminations


@pytest.mark.parametrize("env_id", ["Walker2d-v5", "Pendulum-v1"])
def test_resting_slots_keep_their_last_observation(env_id: str) -> None:
    vector = make_vector(env_id, 3)
    first = np.stack([vector.reset(index, seed=index) for index in range(3)])
    actions = np.full((3, *vector.action_space.shape), 0.3, np.float32)
    step = vector.step(actions, np.asarray([True, False, True]))
    np.testing.assert_array_equal(step.observations[1], first[1])
    assert step.rewards[1] == 0
    assert not step.parts[1].any()
    assert not step.terminations[1]
    assert not step.truncations[1]
    alone = make_vector(env_id, 1)
    alone.reset(0, seed=1)
    late = vector.step(actions, np.asarray([False, True, False]))
    np.testing.assert_array_equal(late.observations[1], alone.step(actions[:1]).observations[0])
    np.testing.assert_array_equal(late.observations[0], step.observations[0])


def test_results_are_not_overwritten_by_later_steps() -> None:
    vector = make_vector("Hopper-v5", 1)
    vector.reset(0, seed=0)
    step = vector.step(np.zeros((1, 3), np.float32))
    kept = step.observations.copy()
    vector.step(np.ones((1, 3), np.float32))
    np.testing.assert_array_equal(step.observations, kept)


def test_any_other_environment_is_looped_over() -> None:
    vector, env = make_vector("CartPole-v1", 2), gymnasium.make("CartPole-v1")
    assert isinstance(vector, GymnasiumLoop)
    assert vector.reward_parts == ()
    assert vector.horizon == 500
    observation, _ = env.reset(seed=4)
    np.testing.assert_array_equal(vector.reset(0, seed=4), observation.astype(float))
    vector.reset(1, seed=5)
    for action in (0, 1, 1, 1):
        step = vector.step(np.asarray([action, 0]))
        observation, reward, terminated, truncated, _ = env.step(action)
        np.testing.assert_array_equal(step.observations[0], observation.astype(float))
        assert (step.rewards[0], step.terminations[0], step.truncations[0]) == (
            reward,
            terminated,
            truncated,
        )
    assert step.parts.shape == (2, 0)
    vector.close()


def test_spaces_and_names() -> None:
    vector = make_vector("Hopper-v4", 4)
    assert (vector.env_id, vector.count, vector.horizon) == ("Hopper-v4", 4, 1000)
    assert vector.observation_space.shape == (11,)
    assert vector.action_space.shape == (3,)
    assert vector.reward_parts == ("forward", "survive", "control")
    assert make_vector("HalfCheetah-v5", 1).reward_parts == ("forward", "control")
    vector.close()


def test_only_the_advice_against_v4_is_silenced() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_vector("HalfCheetah-v4", 1)
        assert not caught
        gymnasium.make("HalfCheetah-v4")
        assert len(caught) == 1


def test_misuse_is_explained() -> None:
    with pytest.raises(ValueError, match="Hopper-v5: count is 0; ask for at least one"):
        make_vector("Hopper-v5", 0)
    with pytest.raises(gymnasium.error.Error):
        make_vector("Hoper-v5", 1)
    with pytest.raises(ValueError, match="Blackjack-v1: observations are a Tuple"):
        make_vector("Blackjack-v1", 1)
    vector = make_vector("Hopper-v5", 2)
    vector.reset(0, seed=0)
    with pytest.raises(ValueError, match=r"actions are \(3,\); they must be \(2, 3\)"):
        vector.step(np.zeros(3))
    with pytest.raises(ValueError, match="slot 1 was never reset"):
        vector.step(np.zeros((2, 3)))
