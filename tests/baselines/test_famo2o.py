"""FamO2O on IQL and on CQL: against numpy, and where every fixed coefficient provably fails."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from learning import train
from networks import Squashed, as_vars, clipped, joined, network, pick
from oracles import (
    BATCH,
    SEEDS,
    UPDATES,
    Array,
    Mutant,
    NumpyAdam,
    Oracle,
    acting_step,
    compare,
    follow,
    load,
    make_spec,
    mutant_name,
    shake,
    to_box,
)
from tape import Var, gradients, join, logsumexp

from baselines.check import checks
from baselines.common import Noise
from baselines.config import UsageError, build
from baselines.contract import Phase
from baselines.famo2o import FamO2O, FamO2OConfig
from baselines.famo2o_cql import FamO2OCQL
from baselines.registry import Registry

SAMPLES, ACTION = 3, 2
FAMILY: dict[str, Any] = {"hidden": (6, 5), "tau": 0.05, "discount": 0.9, "code_base": 20.0}
CONFIGS: dict[str, dict[str, Any]] = {
    "famo2o": {
        **FAMILY,
        "advantage_clip": 4.0,
        "lr": 0.01,
        "temperature_lr": 0.02,
        "initial_temperature": 0.7,
        "expectile": 0.8,
        "reward_shift": -0.3,
    },
    "famo2o_cql": {
        **FAMILY,
        "samples": SAMPLES,
        "weight": 0.8,
        "policy_lr": 0.01,
        "balance_lr": 0.015,
        "critic_lr": 0.02,
        "log_std_min": -1.2,
        "log_std_max": -0.3,
    },
}
ARMS: dict[str, dict[str, Any]] = {
    "offline": {},
    "online": {},
    "fixed": {"coefficient": "fixed"},
    "random": {"coefficient": "random"},
}


class FamilyOracle(Oracle):
    """Coefficients, their code, and who chooses them; one seed."""

    def __init__(self, agent: Any, seed: int, online: bool) -> None:
        super().__init__(agent, seed)
        self.online = online
        self.low, self.high = self.c.coefficient_range

    def model(self, p: dict[str, Var], s: Array) -> Squashed:
        raise NotImplementedError

    def stretch(self, x: Var) -> Var:
        return (x + 1.0) * ((self.high - self.low) / 2) + self.low

    def sampled(self, p: dict[str, Var], s: Array, normal: Array) -> tuple[Var, Var]:
        x, density = self.model(p, s).sample(normal)
        return self.stretch(x), density - np.log((self.high - self.low) / 2)

    def choose(self, s: Array, normal: Array, uniform: Array, online: bool) -> Array:
        """Constants ``[B, 1]``."""
        if self.c.coefficient == "fixed":
            return np.full((len(s), 1), (self.low + self.high) / 2)
        if self.c.coefficient == "random" or not online:
            return self.low + uniform * (self.high - self.low)
        return self.sampled(as_vars(self.balance), s, normal)[0].value

    def inputs(self, s: Array, beta: Var) -> Var:
        """The state beside sin and cos of beta over powers of the base."""
        columns = [Var(s)]
        for i in range(self.c.code_size // 2):
            angle = beta / self.c.code_base ** (2 * i / self.c.code_size)
            columns.append(angle.each(np.sin, np.cos(angle.value)))
            columns.append(angle.each(np.cos, -np.sin(angle.value)))
        return join(columns)

    def acted(self, s: Array, uniform: Array) -> Array:
        """The coefficients acted with, ``[B, 1]``."""
        if self.c.coefficient == "adaptive":
            return self.stretch(self.model(as_vars(self.balance), s).mean.tanh()).value
        return self.choose(s, uniform, uniform, True)


class FamO2OOracle(FamilyOracle):
    nets = ("actor", "value", "balance", "temperature")
    twins = ("critic", "critic_target")

    def __init__(self, agent: Any, seed: int, online: bool) -> None:
        super().__init__(agent, seed, online)
        self.adams = {name: NumpyAdam(self.c.lr) for name in ("actor", "value", "balance")}
        self.critic_adams = [NumpyAdam(self.c.lr) for _ in (0, 1)]
        self.temperature_adam = NumpyAdam(self.c.temperature_lr)

    def model(self, p: dict[str, Var], s: Array) -> Squashed:
        mean = network(p, Var(s))
        bounds = self.c.balance_log_std_min, self.c.balance_log_std_max
        return Squashed(mean, clipped(p["log_std"], *bounds) + np.zeros(mean.shape))

    def policy(self, p: dict[str, Var], inputs: Var) -> tuple[Var, Var]:
        log_std = clipped(p["log_std"], self.c.log_std_min, self.c.log_std_max)
        return network(p, inputs).tanh(), log_std

    def lowest(self, inputs: Var) -> Var:
        return pick([network(as_vars(q), inputs) for q in self.critic_target], True)

    def update(self, batch: dict[str, Array], normal: Array, uniform: Array) -> dict[str, float]:
        c = self.c
        s, s2, a = (batch[k] for k in ("observations", "next_observations", "unit"))
        beta = self.choose(s, normal[:, :1], uniform, self.online)
        lowest = self.lowest(Var(joined(s, a))).value

        p = as_vars(self.value)
        u = -network(p, Var(s)) + lowest
        value_loss = (u * u * np.abs(c.expectile - (u.value < 0))).mean()
        self.adams["value"].step(self.value, gradients(value_loss, p))
        advantage = lowest - network(as_vars(self.value), Var(s)).value
        following = network(as_vars(self.value), Var(s2)).value[:, 0]
        rewards = batch["rewards"] + c.reward_shift
        y = rewards + c.discount * (1 - batch["terminations"]) * following

        found = self.balance_step(s, normal) if c.coefficient == "adaptive" else {}

        p = as_vars(self.actor)
        mean, log_std = self.policy(p, self.inputs(s, Var(beta)))
        z = (-mean + a) / log_std.exp()
        log_prob = (z * z * -0.5 - log_std - 0.5 * np.log(2 * np.pi)).sum(1)
        weight = np.minimum(np.exp(beta * advantage), c.advantage_clip)
        actor_loss = -(log_prob * weight).mean()
        rate = (1 + np.cos(np.pi * self.count / UPDATES)) / 2
        self.adams["actor"].step(self.actor, gradients(actor_loss, p), rate)

        critic_loss = 0.0
        for q, target, adam in zip(self.critic, self.critic_target, self.critic_adams, strict=True):
            p = as_vars(q)
            error = network(p, Var(joined(s, a))) - y[:, None]
            loss = (error * error).mean()
            critic_loss += loss.value.item()
            adam.step(q, gradients(loss, p))
            follow(target, q, c.tau)
        self.count += 1
        return {
            "value_loss": value_loss.value.item(),
            "actor_loss": actor_loss.value.item(),
            "critic_loss": critic_loss,
            "q_mean": lowest.mean(),
            **found,
        }

    def balance_step(self, s: Array, normal: Array) -> dict[str, float]:
        p, temperature = as_vars(self.balance), float(np.exp(self.temperature["log"]))
        beta, log_prob = self.sampled(p, s, normal[:, 1:2])
        mean, log_std = self.policy(as_vars(self.actor), self.inputs(s, beta))
        action = mean + log_std.exp() * normal[:, 2:]
        loss = (log_prob * temperature - self.lowest(join([Var(s), action]))).mean()
        self.adams["balance"].step(self.balance, gradients(loss, p))
        entropy = -log_prob.value.mean()
        slope = temperature * (entropy - self.c.target_entropy)
        self.temperature_adam.step(self.temperature, {"log": np.asarray(slope)})
        return {
            "balance_loss": loss.value.item(),
            "coefficient_mean": beta.value.mean(),
            "coefficient_std": beta.value.std(),
            "entropy": entropy,
            "temperature": temperature,
        }

    def act(self, s: Array, noise: Noise, seed: int) -> tuple[Array, Array]:
        """Unit actions, without and with exploration."""
        chance = self.c.coefficient == "random"
        uniform = noise.uniform(1)[seed].numpy() if chance else np.zeros((len(s), 1))
        inputs = self.inputs(s, Var(self.acted(s, uniform)))
        mean, log_std = self.policy(as_vars(self.actor), inputs)
        draws = noise.normal(ACTION)[seed].numpy()
        return mean.value, mean.value + np.exp(log_std.value) * draws

    @staticmethod
    def draw(noise: Noise) -> list[torch.Tensor]:
        return [noise.normal(BATCH, 2 + ACTION), noise.uniform(BATCH, 1)]


class FamO2OCQLOracle(FamilyOracle):
    nets = ("policy", "balance", "temperature")
    twins = ("critic", "critic_target")

    def __init__(self, agent: Any, seed: int, online: bool) -> None:
        super().__init__(agent, seed, online)
        self.critic_adams = [NumpyAdam(self.c.critic_lr) for _ in (0, 1)]
        self.policy_adam, self.alpha_adam = NumpyAdam(self.c.policy_lr), NumpyAdam(self.c.policy_lr)
        self.balance_adam = NumpyAdam(self.c.balance_lr)

    def model(self, p: dict[str, Var], s: Array) -> Squashed:
        return Squashed.from_outputs(network(p, Var(s)), self.c)

    def policy_at(self, p: dict[str, Var], s: Array, beta: Var) -> Squashed:
        return Squashed.from_outputs(network(p, self.inputs(s, beta)), self.c)

    def lowest(self, critics: list[Any], inputs: Var) -> Var:
        return pick([network(as_vars(q), inputs, norm_first=True) for q in critics], True)

    def update(
        self,
        batch: dict[str, Array],
        noise: Array,
        uniform: Array,
        chance: Array,
        normal: Array,
    ) -> dict[str, float]:
        c, size = self.c, BATCH
        s, s2, a = (batch[k] for k in ("observations", "next_observations", "unit"))
        beta = self.choose(s, normal[:, :1], chance[:, :1], self.online)
        beta2 = self.choose(s2, normal[:, 1:2], chance[:, 1:], True)
        p = as_vars(self.policy)
        here, there = self.policy_at(p, s, Var(beta)), self.policy_at(p, s2, Var(beta2))
        alpha = float(np.exp(self.temperature["log"]))

        chosen, log_prob = here.sample(noise[:, 1])
        worth = self.lowest(self.critic, join([Var(s), chosen]))
        policy_loss = (log_prob * alpha - worth * beta).mean()
        for_policy = gradients(policy_loss, p)

        b, found = as_vars(self.balance), {}
        if c.coefficient == "adaptive":
            proposed, _ = self.sampled(b, s, normal[:, 2:])
            tried, _ = self.policy_at(as_vars(self.policy), s, proposed).sample(noise[:, 2])
            loss = -self.lowest(self.critic, join([Var(s), tried])).mean()
            for_balance = gradients(loss, b)
            found = {
                "balance_loss": loss.value.item(),
                "coefficient_mean": proposed.value.mean(),
                "coefficient_std": proposed.value.std(),
            }

        following = joined(s2, there.sample(noise[:, 0])[0].value)
        lowest = self.lowest(self.critic_target, Var(following)).value[:, 0]
        y = batch["rewards"] + c.discount * (1 - batch["terminations"]) * lowest
        kinds = [
            (2 * uniform[:, i] - 1, np.full(size, ACTION * np.log(0.5))) for i in range(SAMPLES)
        ]
        for policy, begin in ((here, 3), (there, 3 + SAMPLES)):
            for i in range(begin, begin + SAMPLES):
                action, density = policy.sample(noise[:, i])
                kinds.append((action.value, density.value[:, 0]))
        critic_loss, td_loss, gaps, means = 0.0, 0.0, [], []
        for q, adam in zip(self.critic, self.critic_adams, strict=True):
            w = as_vars(q)
            logged = network(w, Var(joined(s, a)), norm_first=True)
            every = join(
                [network(w, Var(joined(s, x)), norm_first=True) - mu[:, None] for x, mu in kinds]
            )
            td = ((logged - y[:, None]) * (logged - y[:, None])).mean()
            gap = (logsumexp(every) - logged).mean()
            loss = td + gap * c.weight
            critic_loss, td_loss = critic_loss + loss.value.item(), td_loss + td.value.item()
            gaps.append(gap.value.item())
            means.append(logged.value.mean())
            adam.step(q, gradients(loss, w))

        self.policy_adam.step(self.policy, for_policy)
        if found:
            self.balance_adam.step(self.balance, for_balance)
        entropy = -log_prob.value.mean()
        self.alpha_adam.step(self.temperature, {"log": np.asarray(entropy + ACTION)})
        for target, online in zip(self.critic_target, self.critic, strict=True):
            follow(target, online, c.tau)
        return {
            "policy_loss": policy_loss.value.item(),
            "critic_loss": critic_loss,
            "td_loss": td_loss,
            "gap": float(np.mean(gaps)),
            "q_mean": float(np.mean(means)),
            "entropy": entropy,
            "temperature": alpha,
            **found,
        }

    def act(self, s: Array, noise: Noise, seed: int) -> tuple[Array, Array]:
        """Unit actions, without and with exploration."""
        chance = self.c.coefficient == "random"
        uniform = noise.uniform(1)[seed].numpy() if chance else np.zeros((len(s), 1))
        policy = self.policy_at(as_vars(self.policy), s, Var(self.acted(s, uniform)))
        draws = noise.normal(ACTION)[seed].numpy()
        return np.tanh(policy.mean.value), policy.sample(draws)[0].value

    @staticmethod
    def draw(noise: Noise) -> list[torch.Tensor]:
        return [
            noise.normal(BATCH, 3 + 2 * SAMPLES, ACTION),
            noise.uniform(BATCH, SAMPLES, ACTION),
            noise.uniform(BATCH, 2),
            noise.normal(BATCH, 3),
        ]


ORACLES: dict[str, Any] = {"famo2o": FamO2OOracle, "famo2o_cql": FamO2OCQLOracle}


def agrees(cls: type[Any], name: str, arm: str = "online") -> None:
    """Trains agent and oracles side by side, and asks the agent to act.

    Raises:
        AssertionError: where they first differ.
    """
    online = arm != "offline"
    source: Any = "dataset+replay" if online else "dataset"
    spec = replace(make_spec(), phases=(Phase("offline", UPDATES, source),))
    agent = cls(spec, cls.Config(**{**CONFIGS[name], **ARMS[arm]}), SEEDS)
    shake(agent)
    if name == "famo2o":
        with torch.no_grad():
            agent.actor["log_std"][:, 0, 0] = 2.5  # beyond their limits: no gradient
            agent.balance["log_std"][:1] = 2.5
    oracles = [ORACLES[name](agent, i, online) for i in range(len(SEEDS))]
    compare(agent, oracles, ORACLES[name].draw)
    for i, oracle in enumerate(oracles):
        step = acting_step()
        s = step["observations"][i].numpy()
        mean, _ = oracle.act(s, acting_step()["noise"], i)
        _, explored = oracle.act(s, acting_step()["noise"], i)
        found = agent.act(step)[0][i].numpy()
        np.testing.assert_allclose(found, to_box(mean), 1e-8, 1e-8)
        found = agent.act(acting_step(), explore=True)[0][i].numpy()
        np.testing.assert_allclose(found, to_box(explored), 1e-8, 1e-8)


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("name", CONFIGS)
def test_agent_equals_the_numpy_oracle(name: str, arm: str) -> None:
    agrees(load(name), name, arm)


IQL, CQL, BRICK = "famo2o", "famo2o_cql", "family"
MUTANTS: list[Mutant] = [
    # sign
    (IQL, IQL, ("- worth.mean(1)", "+ worth.mean(1)")),
    (IQL, IQL, ("-temperature.detach() * entropy", "temperature.detach() * entropy")),
    (IQL, IQL, ("entropy.detach() - self", "entropy.detach() + self")),
    (IQL, IQL, ("return -(weights", "return (weights")),
    (IQL, IQL, ("target_values - values,", "values - target_values,")),
    (CQL, CQL, ("- worth.mean(1)", "+ worth.mean(1)")),
    (CQL, CQL, ("return -self.lowest", "return self.lowest")),
    (CQL, CQL, ('-self.temperature["log"] * surplus', 'self.temperature["log"] * surplus')),
    # detach: the balance model moves by its own loss alone, through pi
    (IQL, IQL, ("inputs = self.family.inputs(observations, coefficients)\n        mean",
                "inputs = self.family.inputs(observations, coefficients.detach())\n        mean")),
    (CQL, CQL, ("self.family.inputs(observations, coefficients)\n        chosen",
                "self.family.inputs(observations, coefficients.detach())\n        chosen")),
    # targets
    (IQL, IQL, ("(self.critic_target, obs", "(self.critic, obs")),
    (IQL, IQL, ("actions).amin(1)\n\n    def balance", "actions).amax(1)\n\n    def balance")),
    (IQL, IQL, ("polyak(self.critic_target, self.critic, c.tau)", "pass")),
    (CQL, CQL, ("self.critic_target, following", "self.critic, following")),
    (CQL, CQL, ("next_values.amin(1)", "next_values.amax(1)")),
    (CQL, CQL, ("next_policy.sample(noise[:, :, 0])", "policy.sample(noise[:, :, 0])")),
    (CQL, CQL, ("polyak(self.critic_target, self.critic, c.tau)", "pass")),
    # everything at s' has its own coefficient
    (CQL, CQL, ("inputs(following, next_coefficients)", "inputs(following, coefficients)")),
    (CQL, CQL, ("self.balance, following, by", "self.balance, observations, by")),
    # discount and the mask of terminations
    (IQL, IQL, ("c.discount * continues", "continues")),
    (IQL, IQL, ('1.0 - batch["terminations"]', "1.0")),
    (IQL, IQL, ('batch["terminations"]', 'batch["truncations"]')),
    (CQL, CQL, ("c.discount * continues", "continues")),
    (CQL, CQL, ('batch["terminations"]', 'batch["truncations"]')),
    # coefficient: weight, range, Jacobian, code
    (IQL, IQL, ("coefficients.squeeze(-1) * advantages", "advantages")),
    (CQL, CQL, ("worth = coefficients.squeeze(-1) * self", "worth = self")),
    (IQL, BRICK, ("(x + 1.0) / 2.0 * (high - low)", "x * (high - low)")),
    (IQL, BRICK, ("density - math.log((high - low) / 2.0)", "density")),
    (IQL, BRICK, ("density - math.log(", "density + math.log(")),
    (IQL, BRICK, ("angles.sin(), angles.cos()", "angles.cos(), angles.sin()")),
    (IQL, BRICK, ("2.0 * powers /", "powers /")),
    (CQL, BRICK, ("self.config.code_base **", "1e4 **")),
    (IQL, BRICK, ("if normal is None:", "if True:")),
    (IQL, BRICK, (".mean.tanh())", ".mean)")),
    (IQL, IQL, ("+ c.reward_shift", "")),
    # clips
    (IQL, IQL, (".clamp(max=math.log(self.config.advantage_clip))", "")),
    (IQL, IQL, ("math.log(self.config.advantage_clip)", "self.config.advantage_clip")),
    (IQL, IQL, (".clamp(*bounds)", "")),
    (IQL, "sampled", (".clamp(*self.log_std)", "")),
    # layer normalisation, before the rectifiers, of the critics
    (CQL, CQL, ('"norm_first": True', '"norm_first": False')),
    # losses and their size
    (CQL, CQL, ("c.weight * gaps", "gaps")),
    (CQL, CQL, ("alpha * log_prob.mean(1)", "log_prob.mean(1)")),
    (CQL, CQL, ("c.target_entropy * self.box.size", "c.target_entropy")),
    (IQL, IQL, ("c.expectile)\n", "1 - c.expectile)\n")),
    # order: pi and the balance model move behind V, by its new values
    (IQL, IQL, ("self.value_optimizer.step(value_losses.mean(1))", "pass")),
    # the seed axis
    (IQL, IQL, ("-log_prob.mean(1)", "-log_prob.mean().expand(2)")),
    (CQL, CQL, ("chosen).mean(1), coefficients", "chosen).mean(1).flip(0), coefficients")),
    # whom the phase lets choose
    (IQL, IQL, ("whole=phase not in self.online", "whole=True")),
    (CQL, CQL, ("whole=phase not in self.online", "whole=True")),
]  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=mutant_name)
def test_the_oracle_kills(mutant: Mutant) -> None:
    name, module, *edits = mutant
    with pytest.raises((AssertionError, KeyError, RuntimeError)):
        agrees(load(name, module, edits), name)


@pytest.mark.parametrize(
    ("arm", "mutant"),
    [
        ("offline", (IQL, IQL, ("whole=phase not in self.online", "whole=False"))),
        ("offline", (CQL, CQL, ("whole=phase not in self.online", "whole=False"))),
        ("offline", (IQL, BRICK, ('phase.source != "dataset"', "True"))),
        ("fixed", (IQL, BRICK, ('self.config.coefficient == "adaptive"', "True"))),
        ("random", (IQL, BRICK, ("low + uniform * (high - low)", "uniform * high"))),
        ("random", (CQL, BRICK, ('step["noise"].uniform(1) if chance', "0.5 if chance"))),
    ],
)
def test_the_other_arms_kill(arm: str, mutant: Mutant) -> None:
    name, module, *edits = mutant
    with pytest.raises((AssertionError, KeyError, AttributeError, TypeError)):
        agrees(load(name, module, edits), name, arm)


# Equivalent: no test of results can tell these from the original. Listed, so that they stay known.
SURVIVORS: list[Mutant] = [
    # Optimisers ask for the gradients of their own weights; frozen saves computing the others.
    (IQL, IQL, ("frozen(self.actor)", "self.actor")),
    (CQL, CQL, ("frozen(self.critic)", "self.critic")),
    # Coefficients that are chosen come from no_grad already, and so do advantages.
    (IQL, IQL, ("exponents = coefficients", "exponents = coefficients.detach()")),
    # The balance model's loss of the CQL side has no density, so its Jacobian does not matter.
    (CQL, BRICK, ("density - math.log((high - low) / 2.0)", "density")),
]


@pytest.mark.parametrize("mutant", SURVIVORS, ids=mutant_name)
def test_equivalent_mutants_survive(mutant: Mutant) -> None:
    name, module, *edits = mutant
    agrees(load(name, module, edits), name)


# The contract, in the arms that the public check does not reach -------------------------------

CHECKED = ("repeatable", "stacked_equals_alone", "save_and_load", "acting_is_repeatable")


def test_only_the_critics_are_normalised() -> None:
    parts = FamO2OCQL(make_spec(), FamO2OCQL.Config(hidden=(6, 5)), SEEDS).parts
    normalised = {
        name for name, part in parts.items() if isinstance(part, dict) and "scale0" in part
    }
    assert normalised == {"critic", "critic_target"}


@pytest.mark.parametrize("choice", ["fixed", "random"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_other_arms_keep_the_contract(name: str, choice: str) -> None:
    cls = Registry().get(name)
    settings = {**cls.presets["check"], "hidden": (8, 8), "batch_size": 8, "coefficient": choice}
    arm = type(f"{cls.__name__}{choice}", (cls,), {"presets": {"check": settings}})
    for check in checks():
        if check.__name__.removeprefix("check_") in CHECKED:
            check(arm)


# The idea ------------------------------------------------------------------------------------

# Two kinds of states, and in both nine tenths of the actions are logged near -0.6 and 0.6. Where
# the reward rises from one to the other, it takes a large coefficient to leave the many worse
# actions; where it has a valley between them, and the better side is rare, any larger coefficient
# pulls the policy's mean into the valley. The mean that weighted regression ends at is known:
# E w a / E w with w = exp(beta r), whatever V is. So is the best return of any one coefficient.
AT, SHARES, ANYWHERE, SPREAD, RANGE = 0.6, (0.2, 0.1), 0.1, 0.08, (0.5, 6.0)
SIZE: dict[str, Any] = {
    "coefficient_range": RANGE,
    "hidden": (32, 32),
    "batch_size": 128,
    "lr": 3e-3,
    "initial_temperature": 0.02,
    "temperature_lr": 3e-3,
    "log_std_max": -2.0,
    "scale_rewards": False,
    "cosine": False,
    "tau": 0.05,
}


def reward(kind: Array, action: Array) -> Array:
    rising = 0.4 * (action + 1)
    valley = (0.5 + 0.5 * np.cos(np.pi * (action - AT) / AT)) * np.where(action < 0, 0.7, 1.0)
    return np.where(kind > 0, rising, valley)


def returns_of_fixed(betas: Array) -> Array:
    """What regression with each fixed coefficient returns in either kind, ``[betas, 2]``."""
    grid = np.linspace(-1, 1, 2001)
    found = []
    for kind, share in zip((1.0, -1.0), SHARES, strict=True):
        bumps = [np.exp(-0.5 * ((grid - at) / SPREAD) ** 2) for at in (-AT, AT)]
        lower, upper = (bump / bump.sum() for bump in bumps)
        density = ANYWHERE / len(grid) + (1 - ANYWHERE) * ((1 - share) * lower + share * upper)
        weights = density * np.exp(betas[:, None] * reward(np.float64(kind), grid))
        found.append(reward(np.float64(kind), weights @ grid / weights.sum(1)))
    return np.stack(found, 1)


def states_of_two_qualities(count: int = 4000) -> dict[str, Array]:
    """Episodes of one step; observations are (kind, noise)."""
    rng = np.random.default_rng(0)
    kind = np.where(rng.random(count) < 0.5, 1.0, -1.0)
    upper = rng.random(count) < np.where(kind > 0, *SHARES)
    action = np.where(upper, AT, -AT) + SPREAD * rng.normal(size=count)
    action = np.where(rng.random(count) < ANYWHERE, rng.uniform(-1, 1, count), action).clip(-1, 1)
    observations = np.stack([kind, rng.uniform(-1, 1, count)], 1)
    fields = {
        "observations": observations,
        "actions": action[:, None],
        "rewards": reward(kind, action),
        "next_observations": np.zeros_like(observations),
        "terminations": np.ones(count),
    }
    return {name: values[:, None] for name, values in fields.items()}


def earned(**settings: Any) -> float:
    """The mean return over kinds and seeds."""
    kind = np.repeat([1.0, -1.0], 20)
    asked = np.stack([kind, np.tile(np.linspace(-1, 1, 20), 2)], 1)
    actions = train("famo2o", states_of_two_qualities(), asked, 500, **{**SIZE, **settings})
    return float(reward(kind, actions).mean())


def test_coefficients_by_state_pass_where_no_fixed_one_can() -> None:
    betas = np.linspace(*RANGE, 200)
    exact = returns_of_fixed(betas)
    best, each = exact.mean(1).max(), exact.max(0).mean()
    at = float(betas[exact.mean(1).argmax()])
    threshold = (best + each) / 2
    adaptive = earned()
    fixed = earned(coefficient="fixed", fixed_coefficient=at)
    print(
        f"adaptive {adaptive:.3f}; fixed {at:.2f}: {fixed:.3f}; exactly, the best fixed one "
        f"{best:.3f}, the best of each kind {each:.3f}; threshold {threshold:.3f}"
    )
    assert adaptive > threshold
    assert fixed < threshold


# Settings ------------------------------------------------------------------------------------


def test_the_antmaze_preset_is_the_authors() -> None:
    config = build(FamO2OConfig, FamO2O.presets["antmaze"], "antmaze")
    assert (config.expectile, config.coefficient_range, config.fixed) == (0.9, (8.0, 14.0), 11.0)
    assert FamO2O.needs(config).rewards == "raw"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            {"coefficient_range": [5, 1]},
            "here: coefficient_range must be two rising numbers, 0 or more, not 5 and 1",
        ),
        (
            {"fixed_coefficient": 7},
            "here: fixed_coefficient must be in coefficient_range, from 1 to 5, not 7",
        ),
        ({"code_size": 5}, "here: code_size must be even and at least 2, not 5"),
        ({"expectile": 2}, "here: expectile must be from 0 to 1, not 2"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(FamO2OConfig, setting, "here")
    assert str(caught.value) == message


@pytest.mark.parametrize("cls", [FamO2O, FamO2OCQL])
def test_coefficients_are_shown_where_they_are_chosen(cls: Any) -> None:
    observations = acting_step()["observations"]
    agent = cls(make_spec(), cls.Config(hidden=(6,)), SEEDS)
    shake(agent)
    found = agent.coefficients(observations)
    assert (found["low"], found["high"]) == agent.config.coefficient_range
    chosen = found["coefficients"]
    assert chosen.shape == observations.shape[:2]
    assert found["low"] < chosen.min() < chosen.max() < found["high"]
    fixed = cls(make_spec(), cls.Config(hidden=(6,), coefficient="fixed"), SEEDS)
    with pytest.raises(ValueError, match="it is fixed"):
        fixed.coefficients(observations)
