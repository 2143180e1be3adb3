"""Agents against numpy written from their docs' equations, and mutants that must not agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from oracles import (
    BATCH,
    OBSERVATION,
    SEEDS,
    UPDATES,
    Array,
    Mutant,
    NumpyAdam,
    Oracle,
    acting_step,
    backward,
    compare,
    follow,
    forward,
    load,
    make_spec,
    mutant_name,
    shake,
    to_box,
)

CONFIGS: dict[str, dict[str, Any]] = {
    "bc": {"hidden": (6, 5), "lr": 0.01},
    # Large noise and small clips, so that every clip acts on a part of the batch.
    "td3_bc": {
        "hidden": (6, 5),
        "policy_noise": 0.6,
        "noise_clip": 0.5,
        "tau": 0.05,
        "discount": 0.9,
        "actor_lr": 0.01,
        "critic_lr": 0.02,
    },
    "iql": {
        "hidden": (6, 5),
        "advantage_clip": 1.5,
        "tau": 0.05,
        "discount": 0.9,
        "lr": 0.01,
        "expectile": 0.8,
    },
}


class BCOracle(Oracle):
    def __init__(self, agent: Any, seed: int) -> None:
        super().__init__(agent, seed)
        self.adam = NumpyAdam(CONFIGS["bc"]["lr"])

    def update(self, batch: dict[str, Array], noise: Array) -> dict[str, float]:
        seen = forward(self.actor, batch["observations"])
        unit = np.tanh(seen[-1])
        error = unit - batch["unit"]
        gradients, _ = backward(self.actor, seen, 2 * error / error.size * (1 - unit**2))
        self.adam.step(self.actor, gradients)
        return {"bc_loss": (error**2).mean()}


class TD3BCOracle(Oracle):
    nets = ("actor", "actor_target")
    twins = ("critic", "critic_target")

    def __init__(self, agent: Any, seed: int) -> None:
        super().__init__(agent, seed)
        self.critic_adams = [NumpyAdam(self.c.critic_lr) for _ in (0, 1)]
        self.actor_adam = NumpyAdam(self.c.actor_lr)
        self.policy_metrics = {"actor_loss": 0.0, "bc_loss": 0.0}

    def update(self, batch: dict[str, Array], noise: Array) -> dict[str, float]:
        c, size = self.c, len(batch["rewards"])
        smoothing = np.clip(noise * c.policy_noise, -c.noise_clip, c.noise_clip)
        following = forward(self.actor_target, batch["next_observations"])[-1]
        action = np.clip(np.tanh(following) + smoothing, -1, 1)
        joined = np.hstack([batch["next_observations"], action])
        lowest = np.min([forward(q, joined)[-1][:, 0] for q in self.critic_target], axis=0)
        y = batch["rewards"] + c.discount * (1 - batch["terminations"]) * lowest

        joined = np.hstack([batch["observations"], batch["unit"]])
        loss, values = 0.0, []
        for q, adam in zip(self.critic, self.critic_adams, strict=True):
            seen = forward(q, joined)
            error = seen[-1][:, 0] - y
            loss += (error**2).mean()
            values.append(seen[-1].mean())
            gradients, _ = backward(q, seen, 2 * error[:, None] / size)
            adam.step(q, gradients)

        self.count += 1
        if self.count % c.policy_delay == 0:
            self._policy(batch)
        return {"critic_loss": loss, "q_mean": float(np.mean(values)), **self.policy_metrics}

    def _policy(self, batch: dict[str, Array]) -> None:
        c, size = self.c, len(batch["rewards"])
        seen = forward(self.actor, batch["observations"])
        unit = np.tanh(seen[-1])
        judged = forward(self.critic[0], np.hstack([batch["observations"], unit]))
        weight = c.alpha / np.abs(judged[-1]).mean()
        _, to_inputs = backward(self.critic[0], judged, np.full((size, 1), -weight / size))
        error = unit - batch["unit"]
        to_unit = to_inputs[:, OBSERVATION:] + 2 * error / error.size
        gradients, _ = backward(self.actor, seen, to_unit * (1 - unit**2))
        cloning = (error**2).mean()
        self.policy_metrics = {
            "actor_loss": -weight * judged[-1].mean() + cloning,
            "bc_loss": cloning,
        }
        self.actor_adam.step(self.actor, gradients)
        for target, online in zip(self.critic_target, self.critic, strict=True):
            follow(target, online, c.tau)
        follow(self.actor_target, self.actor, c.tau)


class IQLOracle(Oracle):
    nets = ("actor", "value")
    twins = ("critic", "critic_target")

    def __init__(self, agent: Any, seed: int) -> None:
        super().__init__(agent, seed)
        self.critic_adams = [NumpyAdam(self.c.lr) for _ in (0, 1)]
        self.actor_adam, self.value_adam = NumpyAdam(self.c.lr), NumpyAdam(self.c.lr)

    def update(self, batch: dict[str, Array], noise: Array) -> dict[str, float]:
        c, size = self.c, len(batch["rewards"])
        joined = np.hstack([batch["observations"], batch["unit"]])
        lowest = np.min([forward(q, joined)[-1][:, 0] for q in self.critic_target], axis=0)

        seen = forward(self.value, batch["observations"])
        u = lowest - seen[-1][:, 0]
        weight = np.abs(c.expectile - (u < 0))
        gradients, _ = backward(self.value, seen, (-2 * weight * u / size)[:, None])
        self.value_adam.step(self.value, gradients)
        value_loss = (weight * u**2).mean()

        advantage = lowest - forward(self.value, batch["observations"])[-1][:, 0]
        importance = np.minimum(np.exp(c.temperature * advantage), c.advantage_clip)
        seen = forward(self.actor, batch["observations"])
        mean, raw = np.tanh(seen[-1]), self.actor["log_std"][0]
        log_std = np.clip(raw, c.log_std_min, c.log_std_max)
        z = (batch["unit"] - mean) / np.exp(log_std)
        log_prob = (-(z**2) / 2 - log_std - np.log(2 * np.pi) / 2).sum(1)
        actor_loss = -(importance * log_prob).mean()
        to_mean = -importance[:, None] / size * z / np.exp(log_std)
        gradients, _ = backward(self.actor, seen, to_mean * (1 - mean**2))
        to_std = (-importance[:, None] / size * (z**2 - 1)).sum(0)
        inside = (raw >= c.log_std_min) & (raw <= c.log_std_max)
        gradients["log_std"] = (to_std * inside)[None]
        rate = (1 + np.cos(np.pi * self.count / UPDATES)) / 2
        self.actor_adam.step(self.actor, gradients, rate)

        following = forward(self.value, batch["next_observations"])[-1][:, 0]
        y = batch["rewards"] + c.discount * (1 - batch["terminations"]) * following
        critic_loss = 0.0
        for q, target, adam in zip(self.critic, self.critic_target, self.critic_adams, strict=True):
            seen = forward(q, joined)
            error = seen[-1][:, 0] - y
            critic_loss += (error**2).mean()
            gradients, _ = backward(q, seen, 2 * error[:, None] / size)
            adam.step(q, gradients)
            follow(target, q, c.tau)
        self.count += 1
        return {
            "value_loss": value_loss,
            "actor_loss": actor_loss,
            "critic_loss": critic_loss,
            "q_mean": lowest.mean(),
        }


ORACLES: dict[str, type[Any]] = {"bc": BCOracle, "td3_bc": TD3BCOracle, "iql": IQLOracle}


# The comparison ------------------------------------------------------------------------------


def agrees(cls: type[Any], name: str) -> None:
    """Trains agent and oracles side by side, and asks the agent to act.

    Raises:
        AssertionError: where they first differ.
    """
    agent = cls(make_spec(), cls.Config(**CONFIGS[name]), SEEDS)
    shake(agent)
    if name == "iql":
        with torch.no_grad():
            agent.actor["log_std"][:, 0, 0] = 2.5  # beyond its limit: no gradient
    oracles = [ORACLES[name](agent, i) for i in range(len(SEEDS))]
    compare(agent, oracles, lambda noise: [noise.normal(BATCH, 2)])
    for i, oracle in enumerate(oracles):
        act(agent, oracle, i, name)


def act(agent: Any, oracle: Any, seed: int, name: str) -> None:
    """The evaluated action is the policy's mean, mapped to the box."""
    step = acting_step()
    unit = np.tanh(forward(oracle.actor, step["observations"][seed].numpy())[-1])
    np.testing.assert_allclose(agent.act(step)[0][seed].numpy(), to_box(unit), 1e-8, 1e-8)
    if name == "bc":
        return
    explored = agent.act(step, explore=True)[0][seed].numpy()
    draws = acting_step()["noise"].normal(2)[seed].numpy()
    std = 0.1 if name == "td3_bc" else np.exp(np.clip(oracle.actor["log_std"][0], -5, 2))
    np.testing.assert_allclose(explored, to_box(unit + std * draws), 1e-8, 1e-8)


@pytest.mark.parametrize("name", CONFIGS)
def test_agent_equals_the_numpy_oracle(name: str) -> None:
    agrees(load(name), name)


# Mutants -------------------------------------------------------------------------------------


MUTANTS: list[Mutant] = [
    # sign
    ("bc", "bc", ('- self.box.unscale(batch["actions"])', '+ self.box.unscale(batch["actions"])')),
    ("td3_bc", "td3_bc", ("-weight * values", "weight * values")),
    ("td3_bc", "td3_bc", ("mean(1) + cloning", "mean(1) - cloning")),
    ("iql", "iql", ("return -(weights", "return (weights")),
    ("iql", "iql", ("target_values - self.values(", "self.values(")),
    ("iql", "iql", ("advantages = target_values - values", "advantages = values - target_values")),
    ("iql", "sampled", ("- log_std - 0.5", "+ log_std - 0.5")),
    ("iql", "common", ("difference < 0", "difference > 0")),
    # detach and stop-gradients
    ("td3_bc", "td3_bc", ("values.detach().abs()", "values.abs()")),
    (
        "td3_bc",
        "td3_bc",
        ("alpha / values.detach().abs().mean(1)", "alpha / values.detach().mean(1)"),
    ),
    # targets
    ("td3_bc", "td3_bc", ("next_values.amin(1)", "next_values.amax(1)")),
    ("td3_bc", "td3_bc", ("next_values.amin(1)", "next_values.mean(1)")),
    ("td3_bc", "td3_bc", ("next_values.amin(1)", "next_values[:, 0]")),
    ("td3_bc", "td3_bc", ("self.policy(self.actor_target,", "self.policy(self.actor,")),
    ("td3_bc", "td3_bc", ("self.critic_target, batch", "self.critic, batch")),
    ("td3_bc", "td3_bc", ("polyak(self.actor_target, self.actor, self.config.tau)", "pass")),
    ("td3_bc", "td3_bc", ("polyak(self.critic_target, self.critic, self.config.tau)", "pass")),
    ("iql", "iql", (".amin(1)", ".amax(1)")),
    (
        "iql",
        "iql",
        ("self.critic_net(self.critic_target, slow", "self.critic_net(self.critic, slow"),
    ),
    ("iql", "iql", ("polyak(self.critic_target, self.critic, self.config.tau)", "pass")),
    ("iql", "common", ("list(online.values()), tau)", "list(online.values()), 1 - tau)")),
    # discount and the mask of terminations
    ("td3_bc", "td3_bc", ("c.discount * continues", "continues")),
    ("td3_bc", "td3_bc", ('1.0 - batch["terminations"]', "1.0")),
    ("td3_bc", "td3_bc", ('batch["terminations"]', 'batch["truncations"]')),
    (
        "td3_bc",
        "td3_bc",
        (
            '1.0 - batch["terminations"]',
            '(1.0 - batch["terminations"]) * (1.0 - batch["truncations"])',
        ),
    ),
    ("iql", "iql", ("self.config.discount * continues", "continues")),
    ("iql", "iql", ('1.0 - batch["terminations"]', "1.0")),
    ("iql", "iql", ('batch["terminations"]', 'batch["truncations"]')),
    # coefficients
    ("td3_bc", "td3_bc", ("mean(1) + cloning", "mean(1) + 2 * cloning")),
    ("td3_bc", "td3_bc", (".mean(2).sum(1), values", ".mean(2).mean(1), values")),
    ("td3_bc", "td3_bc", ("square().mean((1, 2))", "square().sum(2).mean(1)")),
    ("iql", "iql", ("self.config.temperature * advantages", "advantages")),
    ("iql", "sampled", ("-0.5 * standardized", "-standardized")),
    ("iql", "iql", (".mean(2).sum(1)", ".mean(2).mean(1)")),
    ("iql", "common", ("full_like(difference, expectile)", "full_like(difference, 1.0)")),
    # clips
    ("td3_bc", "td3_bc", (".clamp(-c.noise_clip, c.noise_clip)", "")),
    ("td3_bc", "td3_bc", ("next_actions.clamp(-1, 1)", "next_actions")),
    ("td3_bc", "nets", (".clamp(low, high)", "")),
    ("iql", "iql", (".clamp(max=self.config.advantage_clip)", "")),
    ("iql", "iql", (".clamp(self.config.log_std_min, self.config.log_std_max)", "")),
    # delay, order and schedule
    ("td3_bc", "td3_bc", ("% self.config.policy_delay == 0", "% self.config.policy_delay == 1")),
    ("td3_bc", "td3_bc", ("self.updates % self.config.policy_delay == 0", "True")),
    ("iql", "iql", ("if config.cosine else None", "if not config.cosine else None")),
    ("iql", "common", ("0.5 * self.lr * (1.0 +", "self.lr * (1.0 +")),
    (
        "iql",
        "common",
        ("self.updates / self.cosine_steps", "(self.updates + 1) / self.cosine_steps"),
    ),
    (
        "iql",
        "iql",
        ("        self.value_optimizer.step(value_losses)\n", ""),
        (
            "        self.updates += 1",
            "        self.value_optimizer.step(value_losses)\n        self.updates += 1",
        ),
    ),
    # the policy's net, its twin and its box
    ("td3_bc", "td3_bc", ("self.critic_net.first(", "(lambda *a: self.critic_net(*a).amin(1))(")),
    ("td3_bc", "nets", ("value[:, 0]", "value[:, 1]")),
    ("bc", "nets", ("(high + low) / 2", "(high - low) / 2")),
    ("td3_bc", "td3_bc", ('self.box.unscale(batch["actions"])', 'batch["actions"]')),
    # the seed axis
    ("bc", "bc", ("square().mean((1, 2))", "square().mean((0, 1, 2)).expand(len(errors))")),
    ("td3_bc", "td3_bc", (".abs().mean(1)", ".abs().mean()")),
    ("td3_bc", "td3_bc", ("mean(2).sum(1), values", "mean(2).sum(1).flip(0), values")),
    (
        "iql",
        "iql",
        ("self.config.expectile).mean(1)", "self.config.expectile).mean((0, 1)).expand(2)"),
    ),
    ("td3_bc", "common", ("value.detach().clone() for", "value.detach() for")),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=mutant_name)
def test_the_oracle_kills(mutant: Mutant) -> None:
    name, module, *edits = mutant
    with pytest.raises(AssertionError):
        agrees(load(name, module, edits), name)


# Equivalent: no test of results can tell these from the original. Listed, so that they stay known.
SURVIVORS: list[Mutant] = [
    # The actor's step takes no gradient of the critic either way; frozen saves computing it.
    ("td3_bc", "td3_bc", ("frozen(self.critic)", "self.critic")),
    # A difference of exactly 0 has loss and gradient 0 with either weight.
    ("iql", "common", ("difference < 0", "difference <= 0")),
    # The weight of eq. 7 is a constant already: its advantages come from no_grad.
    (
        "iql",
        "iql",
        (
            "(self.config.temperature * advantages)",
            "(self.config.temperature * advantages.detach())",
        ),
    ),
]


@pytest.mark.parametrize("mutant", SURVIVORS, ids=mutant_name)
def test_equivalent_mutants_survive(mutant: Mutant) -> None:
    name, module, *edits = mutant
    agrees(load(name, module, edits), name)
