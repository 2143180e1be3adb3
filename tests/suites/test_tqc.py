"""Off-policy training of behaviour policies: right derivatives, seeded, resumable."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from suites.datasets import shipping, tqc
from suites.datasets.behaviour import Policy
from suites.datasets.tqc import Config, Learner, quantile_huber_slope

SMALL = Config(
    environments=2,
    updates=1,
    warmup=8,
    batch=16,
    hidden=16,
    quantiles=5,
    dropped=1,
    replay=64,
    keep_every=20,
    save_every=20,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "score", lambda *args, **kwargs: 1.5)


def train(out: Path, steps: int, seed: int = 0) -> None:
    tqc.train("hopper", steps, seed, out, SMALL)


def perceptron(parameters: list[Tensor], hidden: Tensor) -> Tensor:
    for i in range(0, len(parameters), 2):
        hidden = hidden.relu() if i else hidden
        hidden = torch.baddbmm(parameters[i + 1], hidden, parameters[i])
    return hidden


def leaves(network: tqc.Network) -> list[Tensor]:
    return [part.clone().requires_grad_() for part in network.parameters]


def test_actor_and_temperature_descend_the_papers_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = Learner("hopper", SMALL, 0)
    monkeypatch.setattr(tqc.Network, "descend", lambda self, rate: None)
    observations = torch.randn(16, 11, generator=learner.torch_generator)
    temperature = torch.tensor([0.3])
    before = learner.torch_generator.get_state()
    learner._improve_actor(observations, temperature)
    learner.torch_generator.set_state(before)

    actor = leaves(learner.actor)
    mean, log_std = perceptron(actor, observations[None])[0].chunk(2, -1)
    raw = mean + log_std.exp() * torch.randn(mean.shape, generator=learner.torch_generator)
    actions = raw.tanh()
    normal: Any = torch.distributions.Normal(mean, log_std.exp())
    density = (normal.log_prob(raw) - torch.log(1 - actions.square())).sum(-1)
    critic = [part.clone() for part in learner.critic.parameters]
    inputs = torch.cat([observations, actions], -1).expand(2, -1, -1)
    loss = (temperature * density - perceptron(critic, inputs).mean((0, 2))).mean()
    loss.backward()
    for part, gradient in zip(actor, learner.actor.gradients, strict=True):
        torch.testing.assert_close(gradient, part.grad, rtol=1e-4, atol=1e-6)
    goal = -(density.detach() - learner.action).mean()  # d/dlog of -log (density + goal)
    torch.testing.assert_close(learner.temperature.gradient[0], goal, rtol=1e-4, atol=1e-5)


def test_critic_descends_the_quantile_huber_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    network = tqc.Network((3, 8, 5), copies=2)
    network.start(generator)
    inputs = torch.randn(2, 7, 3, generator=generator)
    goals = 3 * torch.randn(7, 9, generator=generator)
    levels = (torch.arange(5) + 0.5) / 5
    seen = network(inputs)
    slope = quantile_huber_slope(seen[-1], goals, levels)
    network.backward(seen, slope, learn=True)

    parameters = leaves(network)
    u = goals[None, :, None, :] - perceptron(parameters, inputs)[..., None]
    huber = torch.where(u.abs() < 1, 0.5 * u.square(), u.abs() - 0.5)
    loss = ((levels[:, None] - (u < 0).float()).abs() * huber).mean(-1).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    for part, gradient in zip(parameters, network.gradients, strict=True):
        torch.testing.assert_close(gradient, part.grad, rtol=1e-4, atol=1e-5)


def test_slopes_by_the_inputs() -> None:
    generator = torch.Generator().manual_seed(0)
    network = tqc.Network((3, 8, 5), copies=2)
    network.start(generator)
    inputs = torch.randn(2, 7, 3, generator=generator).requires_grad_()
    perceptron(list(network.parameters), inputs).sum().backward()  # type: ignore[no-untyped-call]
    seen = network(inputs.detach())
    slope = network.backward(seen, torch.ones_like(seen[-1]), learn=False)
    torch.testing.assert_close(slope, inputs.grad)


def test_adam_is_torchs() -> None:
    network = tqc.Network((3, 4, 2))
    network.start(torch.Generator().manual_seed(0))
    parameter = network.flat.clone().requires_grad_()
    optimiser = torch.optim.Adam([parameter], lr=0.01)
    for step in range(3):
        network.gradient.copy_(torch.linspace(-1, 2, len(network.flat)) * (step + 1))
        parameter.grad = network.gradient.clone()
        network.descend(0.01)
        optimiser.step()
    torch.testing.assert_close(network.flat, parameter.detach())


def test_numpy_policy_is_the_torch_actor() -> None:
    learner = Learner("hopper", SMALL, 0)
    observations = np.random.default_rng(0).normal(size=(5, 11))
    sampled = learner._sample(torch.as_tensor(observations, dtype=torch.float32))
    mean = sampled.seen[-1][0].chunk(2, -1)[0]
    policy = learner.policy()
    np.testing.assert_allclose(policy.act(observations), mean.tanh().numpy(), atol=1e-6)
    spread = sampled.seen[-1][0].chunk(2, -1)[1].exp()
    noise = (sampled.spread / spread).numpy()
    np.testing.assert_allclose(policy.act(observations, noise), sampled.actions.numpy(), atol=1e-5)


def test_is_seeded(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        train(tmp_path / name, 40, seed)
    one, again, other = (
        Policy.load(shipping.policy_file(tmp_path / name, 40)) for name in ("one", "again", "other")
    )
    np.testing.assert_array_equal(one.weights[0], again.weights[0])
    assert not np.array_equal(one.weights[0], other.weights[0])


def test_continues_where_it_stopped(tmp_path: Path) -> None:
    train(tmp_path, 40)
    train(tmp_path, 100)
    kept = [int(path.stem) for path in sorted(tmp_path.glob("*.npz"))]
    assert kept == [0, 20, 40, 60, 80, 100]
    state = shipping.load_state(tmp_path)
    assert state is not None
    assert [point["steps"] for point in state["curve"]] == kept
    assert state["progress"]["updates"] == 47  # one for every two steps from the 8th on
    assert len(state["replay"]) == SMALL.replay
    learner = Learner("hopper", SMALL, 5)
    learner.load_state_dict(state)
    again = learner.state_dict()
    for name, parts in state["networks"].items():
        for key, value in parts.items():
            torch.testing.assert_close(again["networks"][name][key], value, rtol=0, atol=0)
    torch.testing.assert_close(again["replay"], state["replay"], rtol=0, atol=0)
    assert again["progress"] == state["progress"]


def test_keeps_fewer_policies_once_it_is_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(SMALL, dense_until=1.0, keep_later=40)
    tqc.train("hopper", 100, 0, tmp_path, config)
    assert [int(path.stem) for path in sorted(tmp_path.glob("*.npz"))] == [0, 40, 80]


def test_what_is_kept_can_be_shipped(tmp_path: Path) -> None:
    train(tmp_path, 40)
    run = tqc.finished("hopper", 0, tmp_path)
    assert (run.algorithm, run.steps, run.seed) == ("tqc", 40, 0)
    assert run.proposed["medium"] == run.proposed["expert"] == {0: 1.5, 20: 1.5, 40: 1.5}
    assert all(run.file(steps).exists() for steps in run.proposed["medium"])
