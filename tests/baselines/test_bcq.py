"""BCQ, factored BCQ and AD-BCQ: against numpy, and where only interventions tell what to do."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from family import CONSTRAINED, load_family
from gymnasium import spaces
from networks import as_vars, joined, network
from oracles import (
    BATCH,
    HIGH,
    LOW,
    SEEDS,
    Array,
    Mutant,
    NumpyAdam,
    Oracle,
    Weights,
    acting_step,
    compare,
    follow,
    make_batch,
    make_spec,
    mutant_name,
    shake,
)
from tape import Var, gradients, join

from baselines.ad_bcq import ADBCQ, ADBCQConfig
from baselines.bc import BC
from baselines.bcq import BCQ, BCQConfig
from baselines.check import check_actions, check_episodes_are_independent, check_metrics
from baselines.common import Noise
from baselines.config import UsageError, build
from baselines.contract import Batch, Phase, Spec
from baselines.factored_bcq import FactoredBCQ, FactoredBCQConfig

CONFIG: dict[str, Any] = {
    "hidden": (6, 5),
    "threshold": 0.5,
    "logit_penalty": 0.1,
    "bins": 3,
    "discount": 0.9,
    "tau": 0.05,
    "lr": 0.01,
    "l2": 0.05,
    "batch_size": BATCH,
}
MODEL: dict[str, Any] = {
    "model_hidden": (5,),
    "model_lr": 0.02,
    "model_warmup": 0.3,  # the last five of seven updates
    "projected_weight": 0.7,
}
Arm = tuple[str, str, dict[str, Any]]  # agent, actions, settings
ARMS: dict[str, Arm] = {
    "joint box": ("bcq", "box", {}),
    "joint integers": ("bcq", "integers", {}),
    "factored box": ("factored_bcq", "box", {}),
    "factored integers": ("factored_bcq", "integers", {}),
    "ad box": ("ad_bcq", "box", MODEL),
    "ad integers": ("ad_bcq", "integers", {**MODEL, "mixer": "linear"}),
    "ad effects": ("ad_bcq", "effects", MODEL),
    "ad marginal": ("ad_bcq", "integers", {**MODEL, "synthetic": "marginal"}),
    "ad off": ("ad_bcq", "box", {**MODEL, "augmentation": False}),
}
AGENTS: dict[str, Any] = {"bcq": BCQ, "factored_bcq": FactoredBCQ, "ad_bcq": ADBCQ, "bc": BC}
SIZES = {"box": (3, 3), "integers": (3, 2), "effects": (3, 2)}
NOOP = {"box": (1, 1), "integers": (2, 1), "effects": (2, 1)}
STARTS = np.array([1, 5])  # of the integers
EFFECTS = ((0, 2), (3,))


def spec_of(actions: str) -> Spec:
    if actions == "box":
        return make_spec()
    return replace(
        make_spec(),
        action_space=spaces.MultiDiscrete(list(SIZES[actions]), start=STARTS),
        noop=tuple(int(n) for n in STARTS + NOOP[actions]),
        effects=EFFECTS if actions == "effects" else None,
    )


def batch_of(actions: str, number: int) -> Batch:
    batch = make_batch(number)
    if actions != "box":
        rng = np.random.default_rng(100 + number)
        choices = rng.integers(0, SIZES[actions], (len(SEEDS), BATCH, 2))
        batch["actions"] = torch.from_numpy(choices + STARTS)
    return batch


# The oracle ----------------------------------------------------------------------------------


def huber(error: Var) -> Var:
    """Half the square up to 1, then the distance less one half."""
    size = np.abs(error.value)
    value = np.where(size < 1, error.value**2 / 2, size - 0.5)
    return error.each(lambda _: value, np.clip(error.value, -1, 1))


def softmax(logits: Array) -> Array:
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(raised / raised.sum(-1, keepdims=True))


class BCQOracle(Oracle):
    """Equations of docs/agents/bcq.md; a joint action is a single factor of many choices."""

    nets = ("critic", "critic_target", "behaviour")
    c: Any

    def __init__(self, agent: Any, seed: int, actions: str, arm: Arm) -> None:
        super().__init__(agent, seed)
        self.arm, self.actions, self.sizes = arm[0], actions, SIZES[actions]
        self.heads = (math.prod(self.sizes),) if self.arm == "bcq" else self.sizes
        self.cuts = np.cumsum((0, *self.heads))
        self.critic: Weights
        self.critic_target: Weights
        self.behaviour: Weights
        self.adams = NumpyAdam(self.c.lr), NumpyAdam(self.c.lr)
        if self.arm == "ad_bcq" and self.c.augmentation and self.c.synthetic != "marginal":
            self.model = ModelOracle(agent.model, seed, self)
        self.total = agent.warmup / self.c.model_warmup if self.arm == "ad_bcq" else 0

    def choices(self, batch: dict[str, Array]) -> Array:
        """``[B, heads]``."""
        if self.actions == "box":
            bins = np.array([-1.0, 0.0, 1.0])
            found = np.abs(batch["unit"][..., None] - bins).argmin(-1)
        else:
            found = batch["actions"].astype(int) - STARTS
        if self.arm == "bcq":
            found = found[:, :1] * self.sizes[1] + found[:, 1:]
        return np.asarray(found)

    def by_head(self, values: Array) -> list[Array]:
        return [values[:, a:b] for a, b in zip(self.cuts[:-1], self.cuts[1:], strict=True)]

    def masks(self, observations: Array) -> list[Array]:
        logits = network(as_vars(self.behaviour), Var(observations)).value
        probabilities = [softmax(part) for part in self.by_head(logits)]
        return [p / p.max(1, keepdims=True) > self.c.threshold for p in probabilities]

    def greedy(self, observations: Array) -> Array:
        values = network(as_vars(self.critic), Var(observations)).value
        pairs = zip(self.by_head(values), self.masks(observations), strict=True)
        return np.stack([np.where(mask, v, -np.inf).argmax(1) for v, mask in pairs], 1)

    def mix(self, critic: Weights | dict[str, Var], values: list[Var]) -> Var:
        if self.arm != "ad_bcq":
            return sum(values[1:], values[0])
        if self.c.mixer == "average":
            return sum(values[1:], values[0]) * (1 / len(values))
        p = {name: v if isinstance(v, Var) else Var(v) for name, v in critic.items()}
        weight = p["mixer_weight0"].softplus()
        return join([v.reshape(-1, 1) for v in values]) @ weight + p["mixer_bias0"]

    def chosen(self, outputs: Var, choices: Array) -> list[Var]:
        rows = np.arange(len(choices))
        return [outputs[rows, cut + c] for cut, c in zip(self.cuts[:-1], choices.T, strict=True)]

    def update(self, batch: dict[str, Array]) -> dict[str, float]:
        c, s, s2 = self.c, batch["observations"], batch["next_observations"]
        choices = self.choices(batch)
        following = network(as_vars(self.critic_target), Var(s2))
        next_value = self.mix(self.critic_target, self.chosen(following, self.greedy(s2)))
        y = batch["rewards"] + c.discount * (1 - batch["terminations"]) * next_value.value.ravel()
        allowed = np.concatenate(self.masks(s2), 1).mean()

        p = as_vars(self.critic)
        outputs = network(p, Var(s))
        values = self.chosen(outputs, choices)
        value = self.mix(p, values).reshape(-1)
        loss = critic_loss = huber(value - y).mean()
        metrics: dict[str, float] = {}
        if self.arm == "ad_bcq" and c.augmentation:
            rows = math.ceil(BATCH / 2)
            terms = []
            for k, made in enumerate(self.made(batch, choices, rows, metrics)):
                after, reward, ending = made
                q = self.by_head(network(as_vars(self.critic_target), Var(after)).value)[k]
                best = np.where(self.masks(after)[k], q, -np.inf).max(1)
                error = values[k][:rows] - (reward + c.discount * (1 - ending) * best)
                terms.append(huber(error).mean())
            projected = (terms[0] + terms[1]) * 0.5
            metrics["projected_loss"] = projected.value.item()
            if self.count >= c.model_warmup * self.total:
                loss = loss + c.projected_weight * projected
        self.step(self.adams[0], self.critic, gradients(loss, p))

        b = as_vars(self.behaviour)
        logits = network(b, Var(s))
        cloning = Var(0.0)
        for cut, size, choice in zip(self.cuts[:-1], self.heads, choices.T, strict=True):
            part = logits[:, cut : cut + size]
            total = part.exp().sum(1)
            normal = total.each(np.log, 1 / total.value)
            cloning = cloning - (part - normal)[np.arange(BATCH), choice].mean()
        if hasattr(self, "model"):
            metrics |= self.distance(logits.value, choices)
        penalty = (logits * logits).mean()
        self.step(self.adams[1], self.behaviour, gradients(cloning + c.logit_penalty * penalty, b))
        follow(self.critic_target, self.critic, c.tau)
        self.count += 1
        return {
            "critic_loss": critic_loss.value.item(),
            "q_mean": value.value.mean(),
            "behaviour_loss": cloning.value.item(),
            "allowed": allowed,
            **metrics,
        }

    def step(self, adam: NumpyAdam, weights: Weights, gradient: Weights) -> None:
        adam.step(weights, {n: g + self.c.l2 * weights[n] for n, g in gradient.items()})

    def made(
        self, batch: dict[str, Array], choices: Array, rows: int, metrics: dict[str, float]
    ) -> list[tuple[Array, Array, Array]]:
        """s'_k, r_k and d_k of every factor."""
        if not hasattr(self, "model"):
            names = ("next_observations", "rewards", "terminations")
            return [tuple(batch[name][:rows] for name in names)] * 2  # type: ignore[list-item]
        metrics |= self.model.update(batch, choices)
        some = {name: value[:rows] for name, value in batch.items()}
        return [self.model.intervene(some, choices[:rows], k) for k in range(2)]

    def distance(self, logits: Array, choices: Array) -> dict[str, float]:
        noop = NOOP[self.actions]
        gaps, strange = np.zeros((BATCH, 2)), np.zeros((BATCH, 2))
        for j, part in enumerate(self.by_head(logits)):
            p = softmax(part)
            logged = p[np.arange(BATCH), choices[:, j]]
            gaps[:, j] = np.log(logged / p[:, noop[j]])
            strange[:, j] = p[:, noop[j]] / p.max(1) <= self.c.threshold
        # Of two factors the query of each changes the other one.
        return {
            "query_distance": (gaps[:, ::-1].sum(1) / 2).mean(),
            "query_allowed": (1 - strange[:, ::-1]).mean(),
        }

    def compare(self, agent: Any, seed: int) -> None:
        super().compare(agent, seed)
        step = acting_step()
        indices = self.greedy(step["observations"][seed].numpy())
        if self.arm == "bcq":
            indices = np.concatenate(np.divmod(indices, self.sizes[1]), 1)
        wanted = LOW + indices / 2 * (HIGH - LOW) if self.actions == "box" else indices + STARTS
        np.testing.assert_allclose(agent.act(step)[0][seed].numpy(), wanted, 1e-8, 1e-8)
        if self.arm != "bcq":
            batch = {"unit": 2 * (wanted - LOW) / (HIGH - LOW) - 1, "actions": wanted}
            choices = self.choices(batch)
            observations = step["observations"]
            found = agent.behaviour_log_prob(observations, agent.act(step)[0])[seed].numpy()
            parts = self.by_head(
                network(as_vars(self.behaviour), Var(observations[seed].numpy())).value
            )
            rows = np.arange(BATCH)
            mine = sum(np.log(softmax(p)[rows, choices[:, j]]) for j, p in enumerate(parts))
            np.testing.assert_allclose(found, mine, 1e-8, 1e-8)


class ModelOracle:
    """Equations of docs/agents/ad-rl.md: what an action brings about, learned and asked."""

    def __init__(self, model: Any, seed: int, owner: BCQOracle) -> None:
        def of(part: str) -> Weights:
            return {n: v.detach()[seed].numpy().copy() for n, v in model.parts[part].items()}

        self.change, self.outcome = of("change"), of("outcome")
        self.owner, self.count = owner, 0
        self.mean, self.variance = np.zeros(5), np.zeros(5)
        self.adams = NumpyAdam(owner.c.model_lr), NumpyAdam(owner.c.model_lr)

    def inputs(self, observations: Array, choices: Array) -> Array:
        hot = [np.eye(size)[choices[:, j]] for j, size in enumerate(self.owner.sizes)]
        return joined(observations, *hot)

    def update(self, batch: dict[str, Array], choices: Array) -> dict[str, float]:
        rows = joined(batch["next_observations"] - batch["observations"], batch["rewards"][:, None])
        weight = 1 / (self.count + 1)
        self.mean = self.mean + weight * (rows.mean(0) - self.mean)
        spread = ((rows - self.mean) ** 2).mean(0)
        self.variance = self.variance + weight * (spread - self.variance)
        rows = (rows - self.mean) / np.sqrt(self.variance + 1e-8)
        change, outcome = as_vars(self.change), as_vars(self.outcome)
        inputs = self.inputs(batch["observations"], choices)
        error = network(change, Var(inputs)) - rows[:, :4]
        found = network(outcome, Var(joined(inputs, rows[:, :4])))
        reward = found[:, 0] - rows[:, 4]
        ending = found[:, 1].softplus() - found[:, 1] * batch["terminations"]
        losses = (error * error).mean(), (reward * reward).mean(), ending.mean()
        self.adams[0].step(self.change, gradients(losses[0], change))
        self.adams[1].step(self.outcome, gradients(losses[1] + losses[2], outcome))
        self.count += 1
        names = ("change_loss", "reward_loss", "end_loss")
        return {name: loss.value.item() for name, loss in zip(names, losses, strict=True)}

    def intervene(
        self, batch: dict[str, Array], choices: Array, k: int
    ) -> tuple[Array, Array, Array]:
        asked = np.broadcast_to(NOOP[self.owner.actions], choices.shape).copy()
        effects = self.owner.actions == "effects"
        deviation = np.sqrt(self.variance + 1e-8)
        if not effects:
            asked[:, k] = choices[:, k]
        inputs = self.inputs(batch["observations"], asked)
        change = network(as_vars(self.change), Var(inputs)).value * deviation[:4] + self.mean[:4]
        if effects:
            own = list(EFFECTS[k])
            change[:, own] = (batch["next_observations"] - batch["observations"])[:, own]
            asked[:, k] = choices[:, k]
            inputs = self.inputs(batch["observations"], asked)
        told = joined(inputs, (change - self.mean[:4]) / deviation[:4])
        reward, ending = network(as_vars(self.outcome), Var(told)).value.T
        return (
            batch["observations"] + change,
            reward * deviation[4] + self.mean[4],
            1 / (1 + np.exp(-ending)),
        )


def agrees(cls: type[Any], arm: str) -> None:
    """Trains agent and oracles side by side, and asks the agent to act.

    Raises:
        AssertionError: where they first differ.
    """
    _, actions, settings = ARMS[arm]
    agent = cls(spec_of(actions), cls.Config(**CONFIG, **settings), SEEDS)
    shake(agent)
    oracles = [BCQOracle(agent, i, actions, ARMS[arm]) for i in range(len(SEEDS))]
    compare(agent, oracles, lambda _: [], lambda number: batch_of(actions, number))


@pytest.mark.parametrize("arm", ARMS)
def test_agent_equals_the_numpy_oracle(arm: str) -> None:
    agrees(AGENTS[ARMS[arm][0]], arm)


BRICK, JOINT, FACTORED, MIXED, AD = CONSTRAINED
MUTANTS: list[Mutant] = [  # arm of the oracle, module, edits
    # the mask
    ("joint box", BRICK, ("masked_fill(~allowed", "masked_fill(allowed")),
    ("joint box", BRICK, ("keepdim=True) >= floor", "keepdim=True) <= floor")),
    ("joint box", BRICK, ("return math.log(threshold) if", "return threshold if")),
    (
        "joint box",
        BRICK,
        ("return math.log(threshold) if threshold > 0 else -1e30", "return -1e30"),
    ),
    ("factored box", BRICK, ("values.masked_fill(~allowed, -math.inf)", "values")),
    ("factored box", BRICK, ("logits - logits.amax(-1, keepdim=True)", "logits")),
    ("factored box", BRICK, ("amax(-1, keepdim=True)", "amax((-2, -1), keepdim=True)")),
    ("factored integers", BRICK, ("/ self.heads.choices", "/ allowed[0, 0].numel()")),
    ("ad box", BRICK, ("values.masked_fill(~allowed, -math.inf)", "values")),
    ("ad box", AD, ("values.masked_fill(~allowed, -math.inf).amax", "values.amax")),
    # heads and how they make one value
    ("joint integers", JOINT, ("encode(actions)).uns", "encode(actions).flip(-1)).uns")),
    ("joint integers", JOINT, ("self.factors.from_joint(", "self.factors.from_joint(1 + ")),
    ("joint box", JOINT, ("values.squeeze(-1)", "-values.squeeze(-1)")),
    ("factored box", BRICK, ("values.argmax(-1)", "values.argmin(-1)")),
    ("factored box", FACTORED, ("values.sum(-1)", "values.mean(-1)")),
    ("ad integers", AD, ("self.mixer(critic, ", "self.mixer(self.critic, ")),
    # targets
    (
        "joint box",
        BRICK,
        ("outputs = self.critic_net(self.critic_target,", "outputs = self.critic_net(self.critic,"),
    ),
    (
        "factored box",
        BRICK,
        (
            "values = self.heads.split(self.critic_net(self.critic, obs",
            "values = self.heads.split(self.critic_net(self.critic_target, obs",
        ),
    ),
    ("ad integers", BRICK, ("self.joined(self.critic_target, ", "self.joined(self.critic, ")),
    ("joint box", BRICK, ("polyak(self.critic_target, self.critic, self.config.tau)", "pass")),
    ("ad box", AD, ("own(self.critic_net(self.critic_target,", "own(self.critic_net(self.critic,")),
    # discount and terminations
    ("joint box", BRICK, ("self.config.discount * continues", "continues")),
    ("joint box", BRICK, ('1.0 - batch["terminations"]', "1.0")),
    ("factored box", BRICK, ('1.0 - batch["terminations"]', '1.0 - batch["truncations"]')),
    ("ad box", AD, ("self.config.discount * continues", "continues")),
    ("ad box", AD, ('(1.0 - made["terminations"])', 'torch.ones_like(made["terminations"])')),
    ("ad box", AD, ('made["rewards"].mT +', "")),
    # losses and their coefficients
    ("joint box", BRICK, ("cloning = -self.log_prob", "cloning = self.log_prob")),
    ("joint box", BRICK, ("+ self.config.logit_penalty * logits", "+ logits")),
    ("joint box", BRICK, ("l2=config.l2", "l2=0.0")),
    ("factored box", BRICK, ("choices).sum(-1)", "choices).mean(-1)")),
    ("ad box", AD, ("weight * projected", "projected")),
    ("ad box", AD, ("losses + weight * projected", "losses - weight * projected")),
    ("ad box", AD, ("self.updates >= self.warmup", "True")),
    (
        "ad box",
        AD,
        (
            "self.model.update(batch, choices)",
            "self.model.losses(batch, choices, self.model.observe(batch))",
        ),
    ),
    # which rows, choices and distances
    ("ad box", AD, ("values[:, : self.rows]", "values[:, : self.rows].detach()")),
    ("ad box", AD, ("values[:, : self.rows]", "values[:, -self.rows :]")),
    ("ad box", AD, ("choices[:, : self.rows], self.noise", "choices[:, -self.rows :], self.noise")),
    ("ad box", AD, ("math.ceil(config.batch_size / self.factors.count)", "config.batch_size")),
    ("ad box", AD, ("(1 - 1 / self.factors.count) * ", "")),
    ("ad box", AD, ("strange.sum(-1, keepdim=True) - strange", "strange.sum(-1, keepdim=True)")),
    ("ad effects", MIXED, ("synthetic=self.synthetic", 'synthetic="intervention"')),
    ("ad marginal", MIXED, ('self.synthetic == "marginal"', "False")),
    # the seed axis
    ("joint box", BRICK, ('reduction="none").mean(1)', 'reduction="none").mean(1).flip(0)')),
    ("ad box", AD, ('reduction="none").mean((1, 2))', 'reduction="none").mean((1, 2)).flip(0)')),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=mutant_name)
def test_the_oracle_kills(mutant: Mutant) -> None:
    arm, module, *edits = mutant
    cls = load_family(module, edits, CONSTRAINED)[AGENTS[ARMS[arm][0]].__name__]
    with pytest.raises((AssertionError, UsageError)):
        agrees(cls, arm)


# The idea ------------------------------------------------------------------------------------

# Two drugs, each none, mild or strong (the action 0, 1, -1 of its own dimension). The first step
# chooses, the second pays by what was chosen, whatever is done then. Each drug's mild dose is good
# alone, and both together best, but that pair was never logged: mild mostly met the other's strong
# dose, which is poison. So in the data mild looks bad.
PAYS = np.array([[0.0, 0.6, 0.1], [0.6, 1.0, -1.0], [0.1, -1.0, 0.2]])
LOGGED = np.array([[0.04, 0.05, 0.05], [0.05, 0.0, 0.22], [0.05, 0.22, 0.25]])
DOSES = np.array([0.0, 1.0, -1.0])
BEST = PAYS.max()
# Without the idea at most 0.2: joint candidates are the three frequent pairs; the best sum of
# values by drug (least squares over what was logged) has no mild dose; the mean dose is none.
WITHOUT = 0.2
THRESHOLD = (BEST + WITHOUT) / 2
SMALL: dict[str, Any] = {"hidden": (32, 32), "batch_size": 64, "lr": 1e-2}
BCQ_SMALL = {**SMALL, "discount": 0.9, "tau": 0.1}
AD_SMALL = {**BCQ_SMALL, "model_hidden": (32, 32), "model_lr": 1e-2, "projected_weight": 4.0}
EPISODES, STEPS = 4000, 200  # less and bcq has not found its best candidate everywhere


def logs() -> dict[str, torch.Tensor]:
    """Both steps of all episodes; observations are the two doses taken and whether they were."""
    rng = np.random.default_rng(0)
    share = LOGGED.ravel() / LOGGED.sum()
    pairs = np.stack(np.divmod(rng.choice(9, EPISODES, p=share), 3), 1)
    before, ones = np.zeros((EPISODES, 3)), np.ones(EPISODES)
    after = np.concatenate([DOSES[pairs], ones[:, None]], 1)
    arrays = {
        "observations": [before, after],
        "actions": [DOSES[pairs], DOSES[rng.integers(3, size=(EPISODES, 2))]],
        "rewards": [0 * ones, PAYS[pairs[:, 0], pairs[:, 1]]],
        "next_observations": [after, before],
        "terminations": [0 * ones, ones],
    }
    return {k: torch.from_numpy(np.concatenate(v)).float() for k, v in arrays.items()}


def earned(name: str, **settings: Any) -> float:
    """What the first step's doses pay, mean over three seeds."""
    cls, table, seeds = AGENTS[name], logs(), (0, 1, 2)
    config = cls.Config(**settings)
    spec = Spec(
        spaces.Box(-np.inf, np.inf, (3,)), spaces.Box(-1, 1, (2,)), (Phase("offline", STEPS),)
    )
    agent = cls(spec, config, seeds)
    noise = Noise.for_seeds(seeds, "batch")
    for _ in range(STEPS):
        index = noise.integers(2 * EPISODES, config.batch_size)
        batch = {field: table[field][index] for field in cls.needs(config).fields}
        agent.update(batch, "offline")
    step: Any = {"observations": torch.zeros(3, 1, 3)}
    doses = agent.act(step)[0].squeeze(1).round().long() % 3  # 0, 1, -1 -> 0, 1, 2
    return float(PAYS[doses[:, 0], doses[:, 1]].mean())


def additive_fit() -> tuple[Array, Array]:
    """Least squares of what was logged by a sum of values by drug: where factored values end."""
    rows = np.array([[*np.eye(3)[i], *np.eye(3)[j]] for i in range(3) for j in range(3)])
    weight = np.sqrt(LOGGED.ravel())
    fit = np.linalg.lstsq(rows * weight[:, None], PAYS.ravel() * weight, rcond=None)[0]
    return fit[:3], fit[3:]


def test_the_bounds_hold_of_every_policy_without_the_idea() -> None:
    candidates = LOGGED / LOGGED.max() >= 0.3
    assert PAYS[candidates].max() <= WITHOUT
    for values in additive_fit():
        assert values.argmin() == 1
    assert PAYS[[0, 0, 2, 2], [0, 2, 0, 2]].max() <= WITHOUT
    for axis in (0, 1):
        share = LOGGED.sum(axis) / LOGGED.sum()
        assert share[1] > 0.4 * share.max()  # yet each drug's mild dose is a candidate
        assert abs(share @ DOSES) < 0.5  # the mean dose is nearest to none


def test_interventions_tell_what_the_logs_hide() -> None:
    found = {
        "ad_bcq": earned("ad_bcq", **AD_SMALL),
        "without": earned("ad_bcq", **AD_SMALL, augmentation=False),
        "bcq": earned("bcq", **BCQ_SMALL),
        "bc": earned("bc", **SMALL),
    }
    print(f"{found}; threshold {THRESHOLD:.2f}, best {BEST:.2f}")
    assert found.pop("ad_bcq") > THRESHOLD
    assert max(found.values()) <= WITHOUT + 1e-6


# Settings and siblings -----------------------------------------------------------------------


def test_absurdly_many_joint_actions_are_refused() -> None:
    space = spaces.Box(-1, 1, (6,))
    spec = Spec(spaces.Box(-np.inf, np.inf, (3,)), space, (Phase("offline", 1),))
    with pytest.raises(UsageError) as caught:
        BCQ(spec, BCQConfig(bins=5), SEEDS)
    assert str(caught.value) == (
        "bcq would need an output for each of 15,625 joint actions, more than 10,000; "
        "take factored_bcq or ad_bcq, or fewer bins"
    )
    assert FactoredBCQ(spec, FactoredBCQConfig(bins=5), SEEDS).factors.choices == 30


def test_without_augmentation_the_mean_is_all_that_is_left_of_ad_bcq() -> None:
    agent = ADBCQ(make_spec(), ADBCQConfig(**CONFIG, augmentation=False), SEEDS)
    assert agent.model is None
    assert set(agent.critic) == set(FactoredBCQ(make_spec(), FactoredBCQConfig(), SEEDS).critic)


@pytest.mark.parametrize("mixer", ["relu", "two_layer"])
def test_other_mixers_keep_to_candidates_and_improve_on_each_factors_best(mixer: Any) -> None:
    agent = ADBCQ(spec_of("integers"), ADBCQConfig(**{**CONFIG, "mixer": mixer}), SEEDS)
    shake(agent)
    agent.update(batch_of("integers", 0), "offline")
    observations = acting_step()["observations"]
    chosen, allowed = agent.greedy(observations)
    assert not allowed.all()
    assert allowed.gather(-1, chosen.unsqueeze(-1)).all()
    values = agent.factors.split(agent.critic_net(agent.critic, observations))
    alone = values.masked_fill(~allowed, -math.inf).argmax(-1)
    mixed = [
        agent.joined(agent.critic, values.gather(-1, choices.unsqueeze(-1)).squeeze(-1))
        for choices in (chosen, alone)
    ]
    gain = mixed[0] - mixed[1]
    assert (gain >= 0).all()
    assert (chosen == alone).all() == (mixer == "relu")


@pytest.mark.parametrize("cls", [BCQ, FactoredBCQ, ADBCQ])
def test_the_threshold_goes_from_q_learning_to_cloning(cls: type[Any]) -> None:
    for arm, threshold in (("integers", 0.0), ("box", 1.0)):
        agent = cls(spec_of(arm), cls.Config(**{**CONFIG, "threshold": threshold}), SEEDS)
        shake(agent)
        metrics = agent.update(batch_of(arm, 0), "offline")
        heads = 1 if cls is BCQ else 2
        choices = math.prod(SIZES[arm]) if cls is BCQ else sum(SIZES[arm])
        found = metrics["allowed"].numpy() * choices
        np.testing.assert_allclose(found, heads if threshold else choices, 1e-10)


def test_boxes_report_bins_and_rounding_by_seed() -> None:
    agent = ADBCQ(make_spec(), ADBCQConfig(**CONFIG), SEEDS)
    batch = make_batch(0)
    metrics = agent.update(batch, "offline")
    unit = 2 * (batch["actions"].numpy() - LOW) / (HIGH - LOW) - 1
    error = np.sqrt(((unit - unit.round()) ** 2).mean((1, 2)))  # the bins are -1, 0 and 1
    np.testing.assert_allclose(metrics["binning_error"].numpy(), error, 1e-10)
    assert metrics["bins"].tolist() == [3.0, 3.0]
    integers = ADBCQ(spec_of("integers"), ADBCQConfig(**CONFIG), SEEDS)
    assert "bins" not in integers.update(batch_of("integers", 0), "offline")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"threshold": 2}, "here: threshold must be from 0 to 1, not 2"),
        ({"projected_weight": -1}, "here: projected_weight must be at least 0, not -1"),
        ({"model_warmup": 3}, "here: model_warmup must be from 0 to 1, not 3"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(ADBCQConfig, setting, "here")
    assert str(caught.value) == message


def test_bins_must_be_odd() -> None:
    with pytest.raises(UsageError, match="bins must be odd"):
        ADBCQ(make_spec(), ADBCQConfig(bins=4), SEEDS)


@pytest.mark.parametrize("cls", [BCQ, FactoredBCQ])
def test_integer_actions_pass_the_checks_that_look_at_actions(cls: type[Any]) -> None:
    for check in (check_metrics, check_actions, check_episodes_are_independent):
        check(cls, space="multidiscrete")
