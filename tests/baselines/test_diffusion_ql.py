"""Diffusion-QL: against numpy, its schedule, both modes of the data, and values that choose one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from oracles import (
    BATCH,
    OBSERVATION,
    SEEDS,
    UPDATES,
    Array,
    Mutant,
    NumpyAdam,
    Oracle,
    Weights,
    acting_step,
    compare,
    follow,
    load,
    make_spec,
    mutant_name,
    shake,
    to_box,
)
from tape import Var, gradients, join
from windows import as_vars, clip

from baselines.common import Adam, Noise
from baselines.config import UsageError, build
from baselines.contract import Phase, Spec
from baselines.diffusion import Diffusion
from baselines.diffusion_ql import DiffusionQL, DiffusionQLConfig

T, BACKUP, CANDIDATES = 4, 3, 6
SETS, FAR, WRONG = (0, 1, 2), 0.8, 0.75  # seeds, modes +-u, share of the wrong one
# Small limits, so that noise, starts, gradients and averages are clipped, kept and begun in part.
CONFIG: dict[str, Any] = {
    "eta": 0.7,
    "discount": 0.9,
    "tau": 0.05,
    "diffusion_steps": T,
    "time_features": 4,
    "hidden": (6, 5),
    "ema_decay": 0.7,
    "ema_every": 2,
    "ema_start": 4,
    "backup_actions": BACKUP,
    "candidates": CANDIDATES,
    "max_norm": 2.0,
    "actor_lr": 0.01,
    "critic_lr": 0.02,
}


# The oracle ----------------------------------------------------------------------------------


def network(p: dict[str, Var], inputs: Var, prefix: str = "") -> Var:
    """Affine maps with x tanh(log(1 + e^x)) between them."""
    layers = sum(name.startswith(f"{prefix}weight") for name in p)
    for i in range(layers):
        inputs = inputs @ p[f"{prefix}weight{i}"] + p[f"{prefix}bias{i}"]
        inputs = inputs * inputs.softplus().tanh() if i < layers - 1 else inputs
    return inputs


def clipped(x: Var) -> Var:
    return x.each(lambda v: np.clip(v, -1, 1), (np.abs(x.value) <= 1).astype(float))


def predicted_noise(p: dict[str, Var], noisy: object, k: Array, observations: Array) -> Var:
    angles = k[:, None] / 10_000 ** np.array([0.0, 1.0])
    times = network(p, Var(np.hstack([np.sin(angles), np.cos(angles)])), "time_")
    return network(p, join([Var(0.0) + noisy, times, Var(observations)]))


def schedule() -> tuple[Array, Array]:
    """alpha_t and abar_t for t = 1 .. T."""
    t = np.arange(1, T + 1)
    alpha = np.exp(-0.1 / T - (10 - 0.1) * (2 * t - 1) / (2 * T**2))
    return alpha, np.cumprod(alpha)


def denoised(p: dict[str, Var], observations: Array, noise: Array) -> Var:
    """The chain from ``noise`` ``[T, B, A]``."""
    (alpha, abar), noisy = schedule(), Var(noise[0])
    for t in range(T, 0, -1):
        now, before = abar[t - 1], abar[t - 2] if t > 1 else 1.0
        eps = predicted_noise(p, noisy, np.full(len(observations), t - 1.0), observations)
        start = clipped((noisy - np.sqrt(1 - now) * eps) * (1 / np.sqrt(now)))
        noisy = start * (np.sqrt(before) * (1 - alpha[t - 1]) / (1 - now)) + noisy * (
            np.sqrt(alpha[t - 1]) * (1 - before) / (1 - now)
        )
        if t > 1:
            deviation = np.sqrt((1 - alpha[t - 1]) * (1 - before) / (1 - now))
            noisy = noisy + deviation * noise[T - t + 1]
    return noisy


class DiffusionQLOracle(Oracle):
    """docs/agents/diffusion_ql.md in numpy."""

    nets = ("actor", "actor_ema")
    twins = ("critic", "critic_target")

    def __init__(self, agent: Any, seed: int) -> None:
        super().__init__(agent, seed)
        self.actor_adam, self.critic_adam = (
            NumpyAdam(self.c.actor_lr),
            NumpyAdam(self.c.critic_lr),
        )

    def update(
        self, batch: dict[str, Array], backup: Array, k: Array, added: Array, chain: Array, i: Array
    ) -> dict[str, float]:
        c, rate = self.c, (1 + np.cos(np.pi * self.count / UPDATES)) / 2
        following = np.repeat(batch["next_observations"], BACKUP, 0)
        action = denoised(as_vars(self.actor_ema), following, backup).value
        best = [
            value.reshape(BATCH, BACKUP).max(1)
            for value in (self.value(q, following, action).value for q in self.critic_target)
        ]
        y = batch["rewards"] + c.discount * (1 - batch["terminations"]) * np.minimum(*best)

        critics = [as_vars(q) for q in self.critic]
        values = [self.values(q, batch["observations"], Var(batch["unit"])) for q in critics]
        errors = [v - y[:, None] for v in values]
        loss = (errors[0] * errors[0]).mean() + (errors[1] * errors[1]).mean()
        both = {f"{m} {name}": v for m in (0, 1) for name, v in critics[m].items()}
        stepped = {f"{m} {name}": v for m in (0, 1) for name, v in self.critic[m].items()}
        found = clip(gradients(loss, both), c.max_norm)
        self.critic_adam.step(stepped, found, rate)
        self.critic = [{n[2:]: v for n, v in stepped.items() if n[0] == str(m)} for m in (0, 1)]

        p, abar = as_vars(self.actor), schedule()[1][k][:, None]
        noisy = np.sqrt(abar) * batch["unit"] + np.sqrt(1 - abar) * added
        wrong = predicted_noise(p, noisy, k.astype(float), batch["observations"]) - added
        cloning = (wrong * wrong).mean()
        chosen = denoised(p, batch["observations"], chain)
        judged = self.values(as_vars(self.critic[i]), batch["observations"], chosen)
        other = self.value(self.critic[1 - i], batch["observations"], chosen.value).value
        q_loss = judged.mean() * (-1 / np.abs(other).mean())
        found = clip(gradients(cloning + q_loss * c.eta, p), c.max_norm)
        self.actor_adam.step(self.actor, found, rate)

        if self.count >= c.ema_start and self.count % c.ema_every == 0:
            follow(self.actor_ema, self.actor, 1 - c.ema_decay)
        for target, online in zip(self.critic_target, self.critic, strict=True):
            follow(target, online, c.tau)
        self.count += 1
        return {
            "critic_loss": loss.value.item(),
            "bc_loss": cloning.value.item(),
            "q_loss": q_loss.value.item(),
            "q_mean": np.mean([v.value.mean() for v in values]),
        }

    @staticmethod
    def values(q: dict[str, Var], observations: Array, actions: Var) -> Var:
        return network(q, join([Var(observations), actions]))

    def value(self, q: Weights, observations: Array, actions: Array) -> Var:
        return self.values(as_vars(q), observations, Var(actions))

    def act(self, observations: Array, noise: Array, uniform: Array | None) -> Array:
        """Of candidates from ``noise`` ``[E, T, candidates, A]``, the best or a drawn one."""
        repeated = np.repeat(observations, CANDIDATES, 0)
        draws = noise.transpose(1, 0, 2, 3).reshape(T, len(repeated), 2)
        actions = denoised(as_vars(self.actor), repeated, draws).value
        values = np.minimum(*(self.value(q, repeated, actions).value for q in self.critic_target))
        actions, values = actions.reshape(-1, CANDIDATES, 2), values.reshape(-1, CANDIDATES)
        if uniform is None:
            taken = values.argmax(1)
        else:
            weights = np.exp(values - values.max(1, keepdims=True))
            edges = np.cumsum(weights / weights.sum(1, keepdims=True), 1)
            taken = (uniform < edges).argmax(1)
        return actions[np.arange(len(actions)), taken]


def draws_of_an_update(noise: Noise) -> list[torch.Tensor]:
    return [
        noise.normal(T, BATCH * BACKUP, 2),
        noise.integers(T, BATCH),
        noise.normal(BATCH, 2),
        noise.normal(T, BATCH, 2),
        noise.integers(2),
    ]


def agrees(cls: type[Any], **settings: Any) -> None:
    """Trains agent and oracles side by side, and asks the agent to act.

    Raises:
        AssertionError: where they first differ.
    """
    agent = cls(make_spec(), cls.Config(**{**CONFIG, **settings}), SEEDS)
    shake(agent)
    oracles = [DiffusionQLOracle(agent, i) for i in range(len(SEEDS))]
    compare(agent, oracles, draws_of_an_update)
    step, noise = acting_step(), acting_step()["noise"]
    unit, drawn = agent.act(step)[0], noise.normal(T, CANDIDATES, 2).numpy()
    uniform = noise.uniform(1).numpy()
    for i, oracle in enumerate(oracles):
        exact = agent.config.selection == "argmax"
        wanted = oracle.act(
            step["observations"][i].numpy(), drawn[i], None if exact else uniform[i]
        )
        np.testing.assert_allclose(unit[i].numpy(), to_box(wanted), 1e-8, 1e-8)


@pytest.mark.parametrize("selection", ["softmax", "argmax"])
def test_agent_equals_the_numpy_oracle(selection: str) -> None:
    agrees(load("diffusion_ql"), selection=selection)


MUTANTS: list[Mutant] = [
    # sign
    ("diffusion_ql", "diffusion_ql", ("-values.mean(1) / others", "values.mean(1) / others")),
    ("diffusion_ql", "diffusion", ("noisy - self.spread[k]", "noisy + self.spread[k]")),
    ("diffusion_ql", "diffusion", ("signal * actions + spread", "signal * actions - spread")),
    # targets, averages and stop-gradients
    ("diffusion_ql", "diffusion_ql", ("self.actor_ema, following", "self.actor, following")),
    ("diffusion_ql", "diffusion_ql", ("self.critic_target, following", "self.critic, following")),
    ("diffusion_ql", "diffusion_ql", ("best.amin(1)", "best.amax(1)")),
    ("diffusion_ql", "diffusion_ql", ("best.amin(1)", "best[:, 0]")),
    ("diffusion_ql", "diffusion_ql", ("amax(3)", "amin(3)")),
    ("diffusion_ql", "diffusion_ql", ("observations, actions.detach())", "observations, actions)")),
    ("diffusion_ql", "diffusion_ql", ("polyak(self.critic_target, self.critic, c.tau)", "pass")),
    ("diffusion_ql", "diffusion_ql", ("1 - c.ema_decay", "c.ema_decay")),
    ("diffusion_ql", "diffusion_ql", ("self.updates >= c.ema_start", "self.updates > c.ema_start")),
    ("diffusion_ql", "diffusion_ql", ("% c.ema_every == 0", "% c.ema_every == 1")),
    ("diffusion_ql", "diffusion_ql", ("actor, observations, d", "actor_ema, observations, d")),
    ("diffusion_ql", "diffusion_ql", ("self.critic_target, slow", "self.critic, slow")),
    # the discount and the mask of terminations
    ("diffusion_ql", "diffusion_ql", ("self.config.discount * continues", "continues")),
    ("diffusion_ql", "diffusion_ql", ('1.0 - batch["terminations"]', "1.0")),
    ("diffusion_ql", "diffusion_ql", ('batch["terminations"]', 'batch["truncations"]')),
    # coefficients
    ("diffusion_ql", "diffusion_ql", ("cloning + c.eta * q_losses", "cloning + q_losses")),
    ("diffusion_ql", "diffusion_ql", ("others.abs().mean(1)", "others.mean(1).abs()")),
    ("diffusion_ql", "diffusion_ql", ("chosen(critic, 1 - i", "chosen(critic, i")),
    ("diffusion_ql", "diffusion_ql", (".mean(2).sum(1), values", ".mean(2).mean(1), values")),
    ("diffusion_ql", "diffusion", ("squares.mean((1, 2))", "squares.sum(2).mean(1)")),
    ("diffusion_ql", "diffusion", ("self.deviation[k] * noise", "noise")),
    ("diffusion_ql", "diffusion", ("(2 * t - 1)", "(2 * t)")),
    ("diffusion_ql", "diffusion", ("np.arange(steps)[:", "np.arange(1, steps + 1)[:")),
    # clips, order and schedule
    ("diffusion_ql", "diffusion", (".clamp(-1, 1)", "")),
    ("diffusion_ql", "diffusion_ql", ('"max_norm": config.max_norm', '"max_norm": None')),
    ("diffusion_ql", "diffusion_ql", ("if config.cosine", "if not config.cosine")),
    ("diffusion_ql", "diffusion", ("noise[:, self.steps - k]", "noise[:, k]")),
    ("diffusion_ql", "diffusion_ql", ("cumulated <= noise", "cumulated > noise")),
    # nets, box and the seed axis
    ("diffusion_ql", "nets", ("x.exp().add_(1).square_()", "x.exp().square_()")),
    ("diffusion_ql", "nets", ("mul_(4).sub_(2)", "mul_(4).sub_(1)")),
    ("diffusion_ql", "nets", ("value[seeds, which]", "value[seeds, 0]")),
    ("diffusion_ql", "diffusion_ql", ('self.box.unscale(batch["actions"])', 'batch["actions"]')),
    ("diffusion_ql", "diffusion_ql", ("others.abs().mean(1)", "others.abs().mean()")),
    ("diffusion_ql", "diffusion_ql", ("repeat_interleave(count, 1)", "repeat(1, count, 1)")),
]  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=mutant_name)
def test_the_oracle_kills(mutant: Mutant) -> None:
    name, module, *edits = mutant
    with pytest.raises(AssertionError):
        agrees(load(name, module, edits))


# Equivalent: no test of results can tell these from the original. Listed, so that they stay known.
SURVIVORS: list[Mutant] = [
    # The policy's step takes no gradient of the critic either way; frozen saves computing it.
    ("diffusion_ql", "diffusion_ql", ("frozen(self.critic)", "self.critic")),
    # mish's derivative is 1 from 20 on, so where the exponent is cut matters to overflow alone.
    ("diffusion_ql", "nets", ("x.clamp(max=20)", "x.clamp(max=30)")),
]


@pytest.mark.parametrize("mutant", SURVIVORS, ids=mutant_name)
def test_equivalent_mutants_survive(mutant: Mutant) -> None:
    name, module, *edits = mutant
    agrees(load(name, module, edits))


# The diffusion model -------------------------------------------------------------------------


def model(steps: int = 5) -> Diffusion:
    return Diffusion(3, 1, (32, 32), steps=steps, beta=(0.1, 10.0), features=4)


@pytest.mark.parametrize("steps", [1, 2, 5, 50])
def test_the_reverse_chain_undoes_the_schedule(steps: int) -> None:
    """abar_T is that of continuous time, and q(a_(t-1) | a_t, a_0) has the marginal of t - 1."""
    d = model(steps)
    assert d.signal[-1] ** 2 == pytest.approx(np.exp(-(0.1 + 10.0) / 2))
    for k in range(1, steps):
        mean = d.to_start[k] + d.to_noisy[k] * d.signal[k]
        variance = (d.to_noisy[k] * d.spread[k]) ** 2 + d.deviation[k] ** 2
        assert mean == pytest.approx(d.signal[k - 1])
        assert variance == pytest.approx(d.spread[k - 1] ** 2)
    assert d.signal[0] ** 2 + d.spread[0] ** 2 == pytest.approx(1)


def test_who_knows_the_noise_recovers_the_action(monkeypatch: pytest.MonkeyPatch) -> None:
    d, action = model(), torch.tensor([-1.0, -0.3, 0.8, 1.0], dtype=torch.float64).reshape(1, 4, 1)
    init = Noise.for_seeds([0], "init", dtype=torch.float64)
    k = iter(reversed(range(d.steps)))

    def perfect(parameters: Any, noisy: torch.Tensor, *_: Any) -> torch.Tensor:
        at = next(k)
        return (noisy - d.signal[at] * action) / d.spread[at]

    monkeypatch.setattr(d, "predict", perfect)
    found = d.sample(d.init(init), torch.zeros(1, 4, 3, dtype=torch.float64), init.normal(5, 4, 1))
    torch.testing.assert_close(found, action)


def test_both_modes_of_the_data_are_kept() -> None:
    """A clone by least squares acts between them, where there are no data."""
    d, noise, size = model(), Noise.for_seeds(SETS, "init"), 128
    p = d.init(noise)
    adam = Adam(p, 1e-2, cosine_steps=1000)
    for _ in range(1000):
        context = 2 * noise.uniform(size, 3) - 1
        side = torch.where(noise.uniform(size, 1) < WRONG, -FAR, FAR)
        action = side * context[..., :1].sign()
        adam.step(d.losses(p, context, action, noise.integers(5, size), noise.normal(size, 1)))
    context = 2 * noise.uniform(200, 3) - 1
    with torch.no_grad():
        drawn = d.sample(p, context, noise.normal(5, 200, 1)) * context[..., :1].sign()
    beyond = drawn.abs() > FAR / 2  # the clone acts at FAR / 2
    share, wrong = beyond.float().mean().item(), (drawn[beyond] < 0).float().mean().item()
    print(f"beyond the clone's action: {share:.2f}; of these on the wrong side: {wrong:.2f}")
    assert share > 0.65
    assert wrong == pytest.approx(WRONG, abs=0.1)


# Its own idea --------------------------------------------------------------------------------
# A context s is seen and an action taken; next the distance x = |a - u*(s)| is seen and 1 - x^2
# comes, whatever is done. The data hold two modes, u* and, three times as often, -u*. Cloning by
# least squares acts between them, at -u* / 2, and cloning by diffusion at either, which is worse.

CLONE = 1 - (2 * WRONG * FAR) ** 2  # the return of the least-squares clone
THRESHOLD = (CLONE + 1) / 2
SMALL: dict[str, Any] = {
    "hidden": (32, 32),
    "batch_size": 64,
    "actor_lr": 3e-3,
    "critic_lr": 3e-3,
    "tau": 0.05,
    "ema_start": 0,
    "ema_decay": 0.9,
    "candidates": 1,
}


def episodes(count: int) -> dict[str, torch.Tensor]:
    """Both steps of every episode, ``[N, ...]``; observations are (s, second step?, x)."""
    rng = np.random.default_rng(0)
    context = rng.uniform(-1, 1, count)
    best = FAR * np.sign(context)
    action = best * np.where(rng.random(count) < WRONG, -1, 1) + 0.05 * rng.normal(size=count)
    action, nought, one = action.clip(-1, 1), np.zeros(count), np.ones(count)
    distance = np.abs(action - best)
    second = np.stack([nought, one, distance], 1)
    columns = {
        "observations": np.concatenate([np.stack([context, nought, nought], 1), second]),
        "actions": np.concatenate([action, rng.uniform(-1, 1, count)])[:, None],
        "rewards": np.concatenate([nought, 1 - distance**2]),
        "next_observations": np.concatenate([second, np.zeros_like(second)]),
        "terminations": np.concatenate([nought, one]),
    }
    return {name: torch.from_numpy(column).float() for name, column in columns.items()}


def trained(updates: int = 200, **settings: Any) -> tuple[np.ndarray, np.ndarray]:
    """Actions ``[S, contexts]`` of the trained policies, and u* ``[contexts]``."""
    config = DiffusionQLConfig(**{**SMALL, **settings})
    spec = Spec(
        spaces.Box(-np.inf, np.inf, (3,)), spaces.Box(-1, 1, (1,)), (Phase("offline", updates),)
    )
    agent, table = DiffusionQL(spec, config, SETS), episodes(2000)
    noise = Noise.for_seeds(SETS, "batch")
    for _ in range(updates):
        rows = noise.integers(4000, config.batch_size)
        agent.update({name: column[rows] for name, column in table.items()}, "offline")
    context = torch.linspace(-1, 1, 64)
    observations = torch.stack([context, 0 * context, 0 * context], 1).expand(len(SETS), -1, -1)
    step: Any = {"observations": observations}
    step["noise"] = Noise.for_episodes(SETS, "evaluation", 0, range(64))
    return agent.act(step)[0].squeeze(-1).numpy(), FAR * np.sign(context.numpy())


def returned(**settings: Any) -> float:
    actions, best = trained(**settings)
    return float((1 - (actions - best) ** 2).mean())


@pytest.mark.slow
def test_values_choose_between_the_modes() -> None:
    with_it = returned(eta=2.0)
    print(f"{with_it:.2f}; threshold {THRESHOLD:.2f}")
    assert with_it > THRESHOLD
    for off in ({"eta": 0.0}, {"discount": 0.0}):
        without = returned(**{"eta": 2.0, **off})
        print(f"with {off}: {without:.2f}")
        assert without < THRESHOLD


# Acting and settings -------------------------------------------------------------------------


def test_candidates_are_drawn_in_proportion_to_the_exponential_of_their_values() -> None:
    """Two candidates' values 1 apart: e / (1 + e) of the draws take the better."""
    agent = DiffusionQL(make_spec(), DiffusionQLConfig(**{**CONFIG, "candidates": 2}), (0,))
    count = 4000
    observations = torch.zeros(1, count, OBSERVATION, dtype=torch.float64)
    agent.critic_net = lambda parameters, o, a: (a[..., 0] > 0).double().unsqueeze(1)  # type: ignore[assignment]
    agent.diffusion.sample = lambda parameters, o, noise: torch.tensor(  # type: ignore[method-assign]
        [[-0.5, 0.0], [0.5, 0.0]], dtype=torch.float64
    ).repeat(1, count, 1)
    step: Any = {"observations": observations}
    step["noise"] = Noise.for_episodes((0,), "evaluation", 0, range(count), dtype=torch.float64)
    better = agent.act(step)[0][..., 0] > to_box(np.zeros(2))[0]
    assert better.double().mean().item() == pytest.approx(np.e / (1 + np.e), abs=0.03)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"time_features": 5}, "time_features must be even, not 5"),
        ({"beta_max": 0.05}, "beta_max must be at least 0.1, not 0.05"),
        ({"diffusion_steps": 0}, "diffusion_steps must be at least 1, not 0"),
        ({"candidates": 0}, "candidates must be at least 1, not 0"),
        ({"selection": "best"}, 'selection must be one of softmax, argmax, not "best"'),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(DiffusionQLConfig, setting, "here")
    assert str(caught.value) == f"here: {message}"
