"""CQL: against numpy, and where values of actions nobody took lead astray."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from learning import train
from networks import Squashed, as_vars, joined, network, pick
from oracles import (
    BATCH,
    SEEDS,
    Array,
    Mutant,
    NumpyAdam,
    Oracle,
    acting_step,
    compare,
    follow,
    load,
    make_batch,
    make_spec,
    mutant_name,
    shake,
    to_box,
)
from tape import Var, gradients, join, logsumexp

from baselines import sampled
from baselines.common import Noise
from baselines.config import UsageError, build
from baselines.cql import CQL, CQLConfig
from baselines.nets import TwinQ
from baselines.sampled import SquashedGaussian, values_of_samples

SAMPLES, ACTION = 3, 2
# Narrow bounds of the log std, so that they act on a part of the batch.
CONFIG: dict[str, Any] = {
    "hidden": (6, 5),
    "samples": SAMPLES,
    "weight": 0.8,
    "tau": 0.05,
    "discount": 0.9,
    "policy_lr": 0.01,
    "critic_lr": 0.02,
    "log_std_min": -1.2,
    "log_std_max": -0.3,
}
ARMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "lagrange": {"lagrange": 1.3},
    "cloning": {"cloning_steps": 4},
}


def policy_at(p: dict[str, Var], observations: Array, c: Any) -> Squashed:
    return Squashed.from_outputs(network(p, Var(observations)), c)


class CQLOracle(Oracle):
    nets = ("policy",)
    twins = ("critic", "critic_target")

    def __init__(self, agent: Any, seed: int) -> None:
        super().__init__(agent, seed)
        self.critic_adams = [NumpyAdam(self.c.critic_lr) for _ in (0, 1)]
        self.policy_adam, self.alpha_adam = NumpyAdam(self.c.policy_lr), NumpyAdam(self.c.policy_lr)
        self.multiplier_adam = NumpyAdam(self.c.critic_lr)
        self.log_alpha = {"log": np.zeros(())}
        self.log_multiplier = {"log": np.zeros(())}

    def update(self, batch: dict[str, Array], noise: Array, uniform: Array) -> dict[str, float]:
        c, size = self.c, BATCH
        s, s2, a = (batch[k] for k in ("observations", "next_observations", "unit"))
        p = as_vars(self.policy)
        here, there = policy_at(p, s, c), policy_at(p, s2, c)
        alpha = float(np.exp(self.log_alpha["log"]))

        # the policy
        chosen, log_prob = here.sample(noise[:, 1])
        inputs = join([Var(s), chosen])
        worth = pick([network(as_vars(q), inputs) for q in self.critic], True)
        if self.count < c.cloning_steps:
            worth = here.log_prob(a)
        policy_loss = (log_prob * alpha - worth).mean()
        for_policy = gradients(policy_loss, p)

        # what the critics are judged on
        following = joined(s2, there.sample(noise[:, 0])[0].value)
        lowest = np.min([network(as_vars(q), Var(following)).value for q in self.critic_target], 0)
        y = batch["rewards"] + c.discount * (1 - batch["terminations"]) * lowest[:, 0]
        kinds = [
            (2 * uniform[:, i] - 1, np.full(size, ACTION * np.log(0.5))) for i in range(SAMPLES)
        ]
        for policy, begin in ((here, 2), (there, 2 + SAMPLES)):
            for i in range(begin, begin + SAMPLES):
                action, density = policy.sample(noise[:, i])
                kinds.append((action.value, density.value[:, 0]))

        multiplier = float(np.exp(self.log_multiplier["log"]))
        critic_loss, td_loss, gaps, means = 0.0, 0.0, [], []
        for q, adam in zip(self.critic, self.critic_adams, strict=True):
            w = as_vars(q)
            logged = network(w, Var(joined(s, a)))
            columns = [network(w, Var(joined(s, x))) - mu[:, None] for x, mu in kinds]
            every = join(columns)
            soft = logsumexp(every)
            td = ((logged - y[:, None]) * (logged - y[:, None])).mean()
            gap = (soft - logged).mean()
            loss = td + (gap * c.weight - (c.lagrange or 0.0)) * multiplier
            critic_loss, td_loss = critic_loss + loss.value.item(), td_loss + td.value.item()
            gaps.append(gap.value.item())
            means.append(logged.value.mean())
            adam.step(q, gradients(loss, w))

        self.policy_adam.step(self.policy, for_policy)
        surplus = log_prob.value.mean() - ACTION
        self.alpha_adam.step(self.log_alpha, {"log": -surplus})
        if c.lagrange is not None:
            excess = c.weight * np.mean(gaps) - c.lagrange
            self.multiplier_adam.step(self.log_multiplier, {"log": -multiplier * excess})
        for target, online in zip(self.critic_target, self.critic, strict=True):
            follow(target, online, c.tau)
        self.count += 1
        return {
            "policy_loss": policy_loss.value.item(),
            "critic_loss": critic_loss,
            "td_loss": td_loss,
            "gap": float(np.mean(gaps)),
            "q_mean": float(np.mean(means)),
            "entropy": -log_prob.value.mean(),
            "temperature": alpha,
            "multiplier": multiplier,
        }


def draw(noise: Noise) -> list[torch.Tensor]:
    """One update's draws."""
    normal = noise.normal(BATCH, 2 + 2 * SAMPLES, ACTION)
    return [normal, noise.uniform(BATCH, SAMPLES, ACTION)]


def agrees(cls: type[Any], arm: str = "plain") -> None:
    """Trains agent and oracles side by side, and asks the agent to act.

    Raises:
        AssertionError: where they first differ.
    """
    agent = cls(make_spec(), cls.Config(**CONFIG, **ARMS[arm]), SEEDS)
    shake(agent)
    oracles = [CQLOracle(agent, i) for i in range(len(SEEDS))]
    compare(agent, oracles, draw)
    for i, oracle in enumerate(oracles):
        step = acting_step()
        policy = policy_at(as_vars(oracle.policy), step["observations"][i].numpy(), oracle.c)
        unit, explored = np.tanh(policy.mean.value), agent.act(step, explore=True)[0][i]
        np.testing.assert_allclose(agent.act(step)[0][i].numpy(), to_box(unit), 1e-8, 1e-8)
        action, _ = policy.sample(acting_step()["noise"].normal(ACTION)[i].numpy())
        np.testing.assert_allclose(explored.numpy(), to_box(action.value), 1e-8, 1e-8)


@pytest.mark.parametrize("arm", ARMS)
def test_agent_equals_the_numpy_oracle(arm: str) -> None:
    agrees(load("cql"), arm)


OWN, BRICK = "cql", "sampled"
MUTANTS: list[Mutant] = [
    # sign
    (OWN, BRICK, ("(soft_maxima - logged)", "(logged - soft_maxima)")),
    (OWN, BRICK, ("others - log_density", "others + log_density")),
    (OWN, OWN, ("- worth.mean(1)", "+ worth.mean(1)")),
    (OWN, OWN, ('-self.temperature["log"] * surplus', 'self.temperature["log"] * surplus')),
    (OWN, OWN, ("log_prob + c.target_entropy", "log_prob - c.target_entropy")),
    (OWN, BRICK, ("(normal - slope)", "(normal + slope)")),
    (OWN, BRICK, ("- log_std - 0.5", "+ log_std - 0.5")),
    # targets
    (OWN, OWN, ("next_values.amin(1)", "next_values.amax(1)")),
    (OWN, OWN, ("next_values.amin(1)", "next_values[:, 0]")),
    (OWN, OWN, ("self.critic_target, batch", "self.critic, batch")),
    (OWN, OWN, ("polyak(self.critic_target, self.critic, c.tau)", "pass")),
    (OWN, OWN, ("chosen).amin(1)", "chosen).mean(1)")),
    (OWN, OWN, ("next_policy, noise[:, :, 0])", "policy, noise[:, :, 0])")),
    # discount and the mask of terminations
    (OWN, OWN, ("self.config.discount * continues", "continues")),
    (OWN, OWN, ('1.0 - batch["terminations"]', "1.0")),
    (OWN, OWN, ('batch["terminations"]', 'batch["truncations"]')),
    # what is sampled, and from which density
    (
        OWN,
        BRICK,
        ("2.0 * uniform - 1.0", "uniform"),
    ),
    (OWN, BRICK, ("-uniform.shape[-1] * math.log(2.0)", "0.0")),
    (OWN, BRICK, ("next_policy.repeated().sample(then)", "policy.repeated().sample(then)")),
    (OWN, BRICK, ("log_uniform, log_policy, log_next", "log_uniform, log_next, log_policy")),
    (OWN, BRICK, (".logsumexp(-1)", ".amax(-1)")),
    (
        OWN,
        OWN,
        (
            "torch.cat([actions.unsqueeze(2), sampled], 2)",
            "torch.cat([sampled, actions.unsqueeze(2)], 2)",
        ),
    ),
    (OWN, OWN, ("noise[:, :, 1])", "noise[:, :, 0])")),
    # coefficients
    (OWN, OWN, ("c.weight * gaps", "gaps")),
    (OWN, OWN, ("alpha * log_prob.mean(1)", "log_prob.mean(1)")),
    (OWN, OWN, ("c.target_entropy * self.box.size", "c.target_entropy")),
    (
        OWN,
        BRICK,
        ("log_density.unsqueeze(1)).logsumexp(-1)", "log_density.unsqueeze(1)).logsumexp(-1) / 2"),
    ),
    (OWN, BRICK, (".mean(2)\n    soft_maxima", ".sum(2)\n    soft_maxima")),
    (OWN, OWN, ("* excess).sum(1)", "* excess).mean(1)")),
    (OWN, BRICK, ("-0.5 * standardized", "-standardized")),
    # clips and the box
    (OWN, BRICK, (".clamp(*self.log_std)", "")),
    (OWN, BRICK, ("log_std + self.offset", "log_std")),
    (OWN, OWN, ('self.box.unscale(batch["actions"])', 'batch["actions"]')),
    (OWN, OWN, ("policy.mean.tanh()", "policy.mean")),
    # the seed axis, and values of samples
    (OWN, BRICK, ("mean(2)\n    soft_maxima", "mean(2).flip(0)\n    soft_maxima")),
    (OWN, BRICK, ("[layer[seed, copy] for", "[layer[seed, 0] for")),
    (OWN, BRICK, ("observations[seed], actions[seed]", "observations[0], actions[seed]")),
    (OWN, BRICK, ("torch.cat(first)", "torch.cat(first).mul(1.01)")),
    (OWN, BRICK, ("by_state.sum(0, keepdim=True)", "by_state.mean(0, keepdim=True)")),
    # order: all losses are taken at the old weights
    (
        OWN,
        OWN,
        ('alpha = self.temperature["log"].detach().exp()', "alpha = torch.ones_like(gaps[:, 0])"),
    ),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=mutant_name)
def test_the_oracle_kills(mutant: Mutant) -> None:
    name, module, *edits = mutant
    with pytest.raises((AssertionError, KeyError)):
        agrees(load(name, module, edits))


@pytest.mark.parametrize(
    ("arm", "module", "edit"),
    [
        ("lagrange", OWN, ("- (c.lagrange or 0.0)", "")),
        ("lagrange", OWN, ("-multiplier * excess", "multiplier * excess")),
        ("lagrange", OWN, ("if c.lagrange is not None:", "if False:")),
        (
            "lagrange",
            OWN,
            ("self.multiplier, config.critic_lr", "self.multiplier, config.policy_lr"),
        ),
        ("plain", OWN, ("if c.lagrange is not None:", "if True:")),
        ("cloning", OWN, ("self.updates < self.config", "self.updates <= self.config")),
        ("cloning", BRICK, ("(raw - self.mean) / self.log_std.exp()", "raw - self.mean")),
        ("cloning", BRICK, (".atanh()", "")),
    ],
)
def test_the_other_arms_kill(arm: str, module: str, edit: tuple[str, str]) -> None:
    with pytest.raises(AssertionError):
        agrees(load(OWN, module, [edit]), arm)


# Equivalent: no test of results can tell these from the original. Listed, so that they stay known.
SURVIVORS: list[Mutant] = [
    # Adam does not see the scale of a gradient.
    (OWN, OWN, ("excess.detach().mean(1)", "excess.detach().sum(1)")),
    # The policy's step takes no gradient of the critics either way; frozen saves computing it.
    (OWN, OWN, ("critic = frozen(self.critic)", "critic = self.critic")),
    # Targets come from no_grad already.
    (OWN, OWN, ("self.policy_net(frozen(self.policy),", "self.policy_net(self.policy,")),
    # The multiplier's gradient is not asked for in the critics' step.
    (OWN, OWN, ("multiplier.detach().unsqueeze(1) * excess", "multiplier.unsqueeze(1) * excess")),
]


@pytest.mark.parametrize("mutant", SURVIVORS, ids=mutant_name)
def test_equivalent_mutants_survive(mutant: Mutant) -> None:
    name, module, *edits = mutant
    agrees(load(name, module, edits))


def test_the_multiplier_stays_below_its_limit() -> None:
    agent = CQL(make_spec(), CQLConfig(**CONFIG, lagrange=0.0), SEEDS)
    with torch.no_grad():
        agent.multiplier["log"].fill_(20.0)
    assert agent.update(make_batch(0), "offline")["multiplier"].tolist() == [1e6, 1e6]


# Bricks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [(6,), (6, 5), (7, 6, 5)])
def test_values_of_samples_equal_those_of_repeated_states(
    hidden: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradients, on a CPU and by the path for other devices."""
    net, noise = TwinQ.build(4, 2, hidden), Noise.for_seeds(SEEDS, "x", dtype=torch.float64)
    parameters = net.init(noise)
    observations, actions = noise.normal(5, 4), noise.normal(5, 3, 2)
    repeated = observations.repeat_interleave(3, 1)
    expected = net(parameters, repeated, actions.flatten(1, 2)).reshape(2, 2, 5, 3)
    weights = noise.normal(2, 5, 3)
    wanted = torch.autograd.grad((expected * weights).sum(), list(parameters.values()))
    for path in ("cpu", "other"):
        if path == "other":
            monkeypatch.setattr(sampled, "_on_cpu", lambda _: False)
        values = values_of_samples(net, parameters, observations, actions)
        torch.testing.assert_close(values, expected)
        found = torch.autograd.grad((values * weights).sum(), list(parameters.values()))
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b)


def test_no_state_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first layer sees each state once, and so many rows no other layer of it does."""
    rows = []
    product = torch.addmm

    def counted(bias: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        rows.append(tuple(left.shape))
        return product(bias, left, right)

    monkeypatch.setattr(torch, "addmm", counted)
    net, noise = TwinQ.build(4, 2, (6,)), Noise.for_seeds((1,), "x", dtype=torch.float64)
    values_of_samples(net, net.init(noise), noise.normal(5, 4), noise.normal(5, 3, 2))
    assert rows == [(5, 4), (15, 6)] * 2  # states, hidden features of all actions; two networks


def test_other_networks_see_repeated_states() -> None:
    noise = Noise.for_seeds(SEEDS, "x", dtype=torch.float64)
    observations, actions = noise.normal(5, 4), noise.normal(5, 3, 2)
    for options in ({"layer_norm": True}, {"activation": torch.tanh}):
        net = TwinQ.build(4, 2, (6,), **options)
        parameters = net.init(noise)
        found = values_of_samples(net, parameters, observations, actions)
        for j in range(3):
            torch.testing.assert_close(
                found[..., j], net(parameters, observations, actions[:, :, j])
            )


def test_densities_integrate_to_one() -> None:
    """Over a fine grid of actions, for narrow, wide and lopsided Gaussians."""
    mean = torch.tensor([[-1.0], [0.0], [0.7]], dtype=torch.float64)
    log_std = torch.tensor([[-1.5], [0.3], [-0.5]], dtype=torch.float64)
    grid = torch.linspace(-1, 1, 200_001, dtype=torch.float64)[1:-1]
    density = SquashedGaussian(mean, log_std).repeated().log_prob(grid[None, :, None]).exp()
    torch.testing.assert_close(
        density.sum(1) * 1e-5, torch.ones(3, dtype=torch.float64), rtol=1e-3, atol=1e-3
    )


def test_a_sample_has_the_density_that_it_says() -> None:
    noise = Noise.for_seeds((1,), "x", dtype=torch.float64)
    policy = SquashedGaussian(noise.normal(50, 2), noise.normal(50, 2) - 1)
    actions, density = policy.sample(noise.normal(50, 2))
    torch.testing.assert_close(policy.log_prob(actions), density)
    far, density = policy.sample(1e3 * noise.normal(50, 2))  # tanh is 1 to the last bit
    assert (far.abs() == 1).any()
    assert density.isfinite().all()
    assert policy.log_prob(far).isfinite().all()


# The idea ------------------------------------------------------------------------------------

# In the first step an action is taken; then it is seen, and the reward comes: 4 + 8 a up to
# a = 0.3, and -4 beyond. Three quarters of the actions are logged near a = -1/2, where it is 0, the
# others near 0, none from 0.25 on. From the data alone, the more the better: without the
# conservative term the policy goes on, over the edge.
EPISODES, WRONG, AT, EDGE = 2000, 0.75, -0.5, 0.3
SIZE: dict[str, Any] = {
    "hidden": (32, 32),
    "batch_size": 64,
    "samples": 4,
    "weight": 1.0,
    "policy_lr": 3e-3,
    "critic_lr": 3e-3,
    "tau": 0.05,
}
CLONE, LOGGED = 4 + 8 * WRONG * AT, 4.0  # the clone acts at the mean; the better logged actions
THRESHOLD = (CLONE + LOGGED) / 2


def reward(action: Array) -> Array:
    return np.where(action <= EDGE, 4 + 8 * action, -4.0)


def slope_that_ends() -> dict[str, Array]:
    """Both steps of all episodes; observations are (noise, second step?, first action)."""
    rng = np.random.default_rng(0)
    context = rng.uniform(-1, 1, EPISODES)
    x = np.where(rng.random(EPISODES) < WRONG, AT, 0.0) + 0.05 * rng.normal(size=EPISODES)
    zeros, ones = np.zeros(EPISODES), np.ones(EPISODES)
    before, after = np.stack([context, zeros, zeros], 1), np.stack([zeros, ones, x], 1)
    actions = np.stack([x, rng.uniform(-1, 1, EPISODES)], 1)
    return {
        "observations": np.stack([before, after], 1),
        "actions": actions[..., None],
        "rewards": np.stack([zeros, reward(x)], 1),
        "next_observations": np.stack([after, np.zeros_like(after)], 1),
        "terminations": np.stack([zeros, ones], 1),
    }


def earned(name: str, **settings: Any) -> float:
    """The mean return over seeds."""
    context = np.linspace(-1, 1, 50)
    asked = np.stack([context, 0 * context, 0 * context], 1)
    actions = train(name, slope_that_ends(), asked, 200, **settings)
    return float(reward(actions).mean())


def test_the_conservative_term_keeps_to_what_is_known() -> None:
    small = {k: SIZE[k] for k in ("hidden", "batch_size")}
    found = {
        "cql": earned("cql", **SIZE),
        "without the term": earned("cql", **{**SIZE, "weight": 0.0}),
        "without bootstrap": earned("cql", **SIZE, discount=0.0),
        "bc": earned("bc", **small, lr=3e-3),
    }
    print(f"{found}; least-squares clone {CLONE:.2f}; threshold {THRESHOLD:.2f}")
    assert found.pop("cql") > THRESHOLD
    assert all(value < THRESHOLD for value in found.values())
    assert found["bc"] == pytest.approx(CLONE, abs=0.3)


# Settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", CQL.presets)
def test_presets_build(preset: str) -> None:
    config = build(CQLConfig, CQL.presets[preset], preset)
    assert len(CQL(make_spec(), config, SEEDS).critic) == 2 * (len(config.hidden) + 1)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"samples": 0}, "here: samples must be at least 1, not 0"),
        ({"weight": -1}, "here: weight must be at least 0, not -1"),
        ({"discount": 1.5}, "here: discount must be from 0 to 1, not 1.5"),
        ({"log_std_min": 3}, "here: log_std_max must be at least 3, not 2"),
        ({"lagrange": -1.0}, "here: lagrange must be at least 0, not -1"),
        ({"hidden": (64, 0)}, "here: hidden must be at least 1, not 0"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(CQLConfig, setting, "here")
    assert str(caught.value) == message
