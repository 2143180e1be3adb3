"""The evaluator against episodes played one by one in plain gymnasium."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from baselines.bc import BC, BCConfig
from baselines.contract import Phase, Spec
from baselines.random_policy import Random, RandomConfig
from suites.datasets.transforms import Transform
from suites.evaluate import Evaluator, PolicyError

SEEDS = (4, 9)
EPISODES = 3


def spec_of(env_id: str) -> Spec:
    env = gymnasium.make(env_id)
    spec = Spec(
        env.observation_space, env.action_space, phases=(Phase("offline", 1),), dtype="float64"
    )
    env.close()
    return spec


def transform_of(spec: Spec) -> Transform:
    rng = np.random.default_rng(1)
    (size,) = spec.observation_space.shape or ()
    return Transform(rng.standard_normal(size) * 0.1, rng.uniform(0.5, 2.0, size), 0.1)


@pytest.mark.parametrize(
    ("env_id", "played"),  # an episode of the cheetah has 1000 steps, so one of them speaks for all
    [("Hopper-v5", EPISODES), ("Walker2d-v5", EPISODES), ("HalfCheetah-v5", 1)],
)
def test_equals_plain_gymnasium_stepping(env_id: str, played: int) -> None:
    spec = spec_of(env_id)
    transform = transform_of(spec)
    agent = BC(spec, BCConfig(), SEEDS)
    evaluator = Evaluator(env_id, spec, SEEDS, transform, EPISODES, first_reset_seed=77)
    found = evaluator.run(agent, 0)
    evaluator.close()
    assert found.returns.shape == found.lengths.shape == (2, EPISODES)
    np.testing.assert_array_equal(found.reset_seeds, [77, 78, 79])

    env = gymnasium.make(env_id)
    for s, seed in enumerate(SEEDS):
        alone = BC(spec, BCConfig(), [seed])
        for e in range(played):
            observation, _ = env.reset(seed=77 + e)
            total, length, over = 0.0, 0, False
            while not over:
                seen = torch.from_numpy(transform.observations(observation))[None, None]
                step: Any = {"observations": seen}
                action = alone.act(step)[0][0, 0].numpy().astype(np.float32)
                observation, reward, terminated, truncated, _ = env.step(action)
                total += float(reward)
                length += 1
                over = terminated or truncated
            # The policy's last bit depends on how many rows are multiplied at once, and a
            # simulator's contacts amplify it; short episodes agree to the end.
            assert found.lengths[s, e] == length
            assert found.returns[s, e] == pytest.approx(total, rel=1e-6)
    env.close()


def test_stochastic_policies_repeat_and_differ_by_evaluation() -> None:
    spec = spec_of("Hopper-v5")
    agent = Random(spec, RandomConfig(), SEEDS)
    evaluator = Evaluator("Hopper-v5", spec, SEEDS, transform_of(spec), EPISODES, 5)
    first, again, second = (evaluator.run(agent, number).returns for number in (0, 0, 1))
    alone = Evaluator("Hopper-v5", spec, SEEDS[1:], transform_of(spec), EPISODES, 5)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first[1:], alone.run(agent, 0).returns)
    evaluator.close()
    alone.close()


class Wrong:
    """Returns what it was made with, whatever it sees."""

    def __init__(self, actions: object) -> None:
        self.actions = actions

    def act(self, step: object, memory: object = None, *, explore: bool = False) -> Any:
        return self.actions, None


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        (torch.zeros(2, EPISODES), "shape"),
        (torch.zeros(2, EPISODES, 4), "shape"),
        (np.zeros((2, EPISODES, 3)), "ndarray"),
        (torch.full((2, EPISODES, 3), torch.nan), "not finite"),
    ],
)
def test_actions_against_the_contract_are_named(actions: object, words: str) -> None:
    spec = spec_of("Hopper-v5")
    evaluator = Evaluator("Hopper-v5", spec, SEEDS, transform_of(spec), EPISODES, 5)
    wrong: Any = Wrong(actions)
    with pytest.raises(PolicyError, match=words):
        evaluator.run(wrong, 0)
    evaluator.close()
