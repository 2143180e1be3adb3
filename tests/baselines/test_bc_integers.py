"""Behaviour cloning of integer actions: the loss by hand, and what it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from baselines.bc import BC, BCConfig
from baselines.common import Noise
from baselines.contract import Spec

SPACES = [spaces.Discrete(4, start=2), spaces.MultiDiscrete([2, 3])]


def agent_on(space: spaces.Space[np.int64]) -> BC:
    spec = Spec(spaces.Box(-1, 1, (2,)), space, dtype="float64")
    return BC(spec, BCConfig(hidden=(16,), lr=0.01), [0, 1])


def rows(space: spaces.Space[np.int64]) -> dict[str, torch.Tensor]:
    """Four kinds of observations, of which each has its own action."""
    kinds = torch.arange(64) % 4
    seen = torch.stack((kinds % 2, kinds // 2), -1).double() * 2 - 1
    actions = (
        kinds + 2
        if isinstance(space, spaces.Discrete)
        else torch.stack((kinds % 2, kinds // 2 + (kinds == 3)), -1)
    )
    return {"observations": seen.expand(2, 64, 2), "actions": actions.expand(2, *actions.shape)}


def test_the_loss_is_the_sum_of_the_factors_cross_entropies() -> None:
    agent, batch = agent_on(SPACES[1]), rows(SPACES[1])
    outputs = agent.actor_net(agent.actor, batch["observations"]).detach().numpy()
    expected = np.zeros((2, 64))
    for k, piece in enumerate((outputs[..., :2], outputs[..., 2:])):
        likely = np.exp(piece) / np.exp(piece).sum(-1, keepdims=True)
        chosen = batch["actions"][..., k, None].numpy()
        expected -= np.log(np.take_along_axis(likely, chosen, -1))[..., 0]
    np.testing.assert_allclose(agent.losses(batch).detach(), expected.mean(1), atol=1e-12)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_it_learns_to_act_as_the_log(space: spaces.Space[np.int64]) -> None:
    agent, batch = agent_on(space), rows(space)
    for _ in range(150):
        metrics = agent.update(batch, "offline")
    assert (metrics["bc_loss"] < 0.1).all()
    noise = Noise.for_episodes([0, 1], "test", 0, range(64), device="cpu", dtype=torch.float64)
    step = {"observations": batch["observations"], "noise": noise}
    actions, memory = agent.act(step)  # type: ignore[arg-type]
    assert memory is None
    assert torch.equal(actions, batch["actions"])
    assert all(space.contains(action) for action in actions[0].numpy())
