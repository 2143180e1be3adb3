"""DQN, DecQN and AD-DQN against numpy written from their docs' equations, and mutants of them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from family import load_family
from gymnasium import spaces
from networks import as_vars, joined, network
from oracles import (
    BATCH,
    OBSERVATION,
    SEEDS,
    UPDATES,
    Array,
    Mutant,
    NumpyAdam,
    Weights,
    acting_step,
    compare,
    follow,
    make_batch,
    mutant_name,
)
from tape import Var, gradients, stack

from baselines.config import UsageError
from baselines.contract import Batch, Phase, Spec

SIZES, STARTS, NOOP = (3, 4), (0, -1), (1, 1)  # the no-op as the space counts
OFFSETS, CHOSEN_NOOP = np.array([0, 3]), np.array([1, 2])
EFFECTS = ((0, 2), (3,))  # coordinate 1 is nobody's
SHARED: dict[str, Any] = {
    "hidden": (6, 5),
    "lr": 0.01,
    "tau": 0.05,
    "discount": 0.9,
    "huber": 0.8,  # on either side of which some errors are
    "max_norm": 0.3,  # as are some gradients
    "epsilon_start": 0.9,
    "epsilon_end": 0.2,
    "epsilon_share": 0.9,
}
AD = {
    "mixer_hidden": 5,
    "model_hidden": (6,),
    "model_lr": 0.02,
    "projected_weight": 0.7,
    "model_warmup": 0.25,  # two of the seven updates
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "dqn": ("DQN", {}),
    "dqn single": ("DQN", {"double": False}),
    "decqn": ("DecQN", {}),
    "decqn single": ("DecQN", {"double": False}),
    "average": ("ADDQN", {**AD, "mixer": "average", "model_noise": 0.5}),
    "linear": ("ADDQN", {**AD, "mixer": "linear", "synthetic": "intervention", "model_noise": 0.5}),
    "relu": ("ADDQN", {**AD, "mixer": "relu", "synthetic": "intervention"}),
    "two_layer": ("ADDQN", {**AD, "mixer": "two_layer", "double": False}),
    "own": ("ADDQN", {**AD, "mixer": "linear", "mixer_gradient": False}),
    "marginal": ("ADDQN", {**AD, "mixer": "linear", "synthetic": "marginal"}),
}


def make_spec() -> Spec:
    return Spec(
        spaces.Box(-np.inf, np.inf, (OBSERVATION,), np.float64),
        spaces.MultiDiscrete(SIZES, start=STARTS),
        phases=(Phase("online", UPDATES),),
        noop=NOOP,
        effects=EFFECTS,
        dtype="float64",
    )


def integer_batch(number: int) -> Batch:
    """Rows that end by termination, by truncation, and not at all; actions are integers."""
    rng = np.random.default_rng(1000 + number)
    batch = make_batch(number)
    choices = rng.integers(STARTS, np.add(STARTS, SIZES), (len(SEEDS), BATCH, 2))
    return {**batch, "rewards": 2 * batch["rewards"], "actions": torch.from_numpy(choices)}


# The oracle ----------------------------------------------------------------------------------


def one_hot(choices: Array) -> Array:
    return np.stack([np.concatenate([np.eye(3)[a], np.eye(4)[b]]) for a, b in choices])


class FamilyOracle:
    """One seed of any of the three; ``kind`` says whose values and whose mixing."""

    def __init__(self, agent: Any, seed: int, kind: str) -> None:
        self.c, self.kind, self.count = agent.config, kind, 0
        self.critic = self._take(agent.parts["critic"], seed)
        self.target = self._take(agent.parts["critic_target"], seed)
        self.adam = NumpyAdam(self.c.lr)
        self.model: dict[str, Weights] = {}
        if "model" in agent.parts:
            parts = agent.parts["model"].parts
            self.model = {k: self._take(parts[k], seed) for k in ("change", "outcome")}
            self.model_adams = {k: NumpyAdam(self.c.model_lr) for k in self.model}
            self.mean, self.variance = np.zeros(OBSERVATION + 1), np.zeros(OBSERVATION + 1)

    @staticmethod
    def _take(part: dict[str, torch.Tensor], seed: int) -> Weights:
        return {name: value.detach()[seed].numpy().copy() for name, value in part.items()}

    # Values of joint actions

    def mixed(self, p: dict[str, Var], outputs: Var, choices: Array) -> Var:
        """Q(s, a) ``[B, 1]`` of given choices, from outputs ``[B, n]``."""
        rows = np.arange(len(choices))
        if self.kind == "DQN":
            return outputs[rows, choices[:, 0] * 4 + choices[:, 1]].reshape(-1, 1)
        own = stack([outputs[rows, OFFSETS[k] + choices[:, k]] for k in (0, 1)], 1)
        if self.kind == "DecQN" or self.c.mixer == "average":
            return own.mean(1)

        def weight(i: int) -> Var:
            raw = p[f"mixer_weight{i}"]
            return raw if self.c.mixer == "two_layer" else raw.softplus()

        hidden = own @ weight(0) + p["mixer_bias0"]
        if self.c.mixer == "linear":
            return hidden
        return hidden.relu() @ weight(1) + p["mixer_bias1"]

    def best(self, weights: Weights, states: Array) -> Array:
        """The best choices ``[B, 2]``: by trying all joint actions, or by coordinate ascent."""
        p = as_vars(weights)
        outputs = network(p, Var(states))
        if self.kind == "ADDQN" and self.c.mixer == "relu":  # has ties, where rectifiers are off
            return self.separately(outputs.value)
        pairs = list(itertools.product(range(3), range(4)))
        values = np.stack(
            [self.mixed(p, outputs, np.full((len(states), 2), a)).value[:, 0] for a in pairs], 1
        )
        if self.kind != "ADDQN" or self.c.mixer != "two_layer":
            return np.array(pairs)[values.argmax(1)]
        found = self.separately(outputs.value)
        table = values.reshape(-1, 3, 4)
        for b, k in itertools.product(range(len(states)), [0, 1] * 3):
            line = table[b, :, found[b, 1]] if k == 0 else table[b, found[b, 0]]
            found[b, k] = line.argmax()
        return found

    @staticmethod
    def separately(outputs: Array) -> Array:
        return np.stack([outputs[:, :3].argmax(1), outputs[:, 3:].argmax(1)], 1)

    # An update

    def update(self, batch: dict[str, Array], *draws: Array) -> dict[str, float]:
        c = self.c
        choices = (batch["actions"] - np.array(STARTS)).astype(int)
        metrics: dict[str, float] = {}

        following = batch["next_observations"]
        best = self.best(self.critic if c.double else self.target, following)
        p = as_vars(self.target)
        q = self.mixed(p, network(p, Var(following)), best).value[:, 0]
        y = batch["rewards"] + c.discount * (1 - batch["terminations"]) * q

        p = as_vars(self.critic)
        outputs = network(p, Var(batch["observations"]))
        heard = outputs if getattr(c, "mixer_gradient", True) else Var(outputs.value)
        values = self.mixed(p, heard, choices)
        loss = self.huber(values - y[:, None]).mean()
        metrics |= {"td_loss": float(loss.value.item()), "q_mean": float(values.value.mean())}
        if self.kind == "ADDQN":
            metrics |= self.learn_model(batch, choices) if self.model else {}
            made = self.synthetic(batch, choices, draws)
            rows, total = np.arange(BATCH), Var(0.0)
            for k in (0, 1):
                s, r, d = made[k]
                ahead = network(as_vars(self.target), Var(s)).value
                top = ahead[:, :3].max(1) if k == 0 else ahead[:, 3:].max(1)
                y_k = r + c.discount * (1 - d) * top
                error = outputs[rows, OFFSETS[k] + choices[:, k]] - y_k
                total = total + self.huber(error).mean() * 0.5
            metrics["projected_loss"] = float(total.value.item())
            if self.count >= 2:
                loss = loss + total * c.projected_weight
        found = gradients(loss, p)
        norm = np.sqrt(sum((g**2).sum() for g in found.values()))
        found = {name: g * min(1.0, c.max_norm / (norm + 1e-6)) for name, g in found.items()}
        self.adam.step(self.critic, found)
        follow(self.target, self.critic, c.tau)
        self.count += 1
        return {**metrics, "epsilon": self.epsilon()}

    def epsilon(self) -> float:
        return 0.2 + 0.7 * max(0.0, 1 - self.count / (0.9 * UPDATES))

    def huber(self, error: Var) -> Var:
        d = self.c.huber
        return error.each(
            lambda e: np.where(np.abs(e) < d, e**2 / 2, d * (np.abs(e) - d / 2)),
            np.clip(error.value, -d, d),
        )

    # The model

    def learn_model(self, batch: dict[str, Array], choices: Array) -> dict[str, float]:
        change = batch["next_observations"] - batch["observations"]
        rows = np.column_stack([change, batch["rewards"]])
        self.mean = self.mean + (rows.mean(0) - self.mean) / (self.count + 1)
        moment = ((rows - self.mean) ** 2).mean(0)
        self.variance = self.variance + (moment - self.variance) / (self.count + 1)
        rows = (rows - self.mean) / np.sqrt(self.variance + 1e-8)
        inputs = joined(batch["observations"], one_hot(choices))

        p = as_vars(self.model["change"])
        difference = network(p, Var(inputs)) - rows[:, :-1]
        change_loss = (difference * difference).mean()
        self.model_adams["change"].step(self.model["change"], gradients(change_loss, p))

        p = as_vars(self.model["outcome"])
        outcome = network(p, Var(joined(inputs, rows[:, :-1])))
        difference = outcome[:, 0] - rows[:, -1]
        reward_loss = (difference * difference).mean()
        logit, ends = outcome[:, 1], batch["terminations"]
        end_loss = (logit.softplus() - logit * ends).mean()
        self.model_adams["outcome"].step(
            self.model["outcome"], gradients(reward_loss + end_loss, p)
        )
        active = choices != CHOSEN_NOOP
        return {
            "change_loss": float(change_loss.value.item()),
            "reward_loss": float(reward_loss.value.item()),
            "end_loss": float(end_loss.value.item()),
            "moved": float(active.mean()),
            "support": float((active.sum(1) <= 1).mean()),
        }

    def asked(self, states: Array, choices: Array) -> Array:
        """The predicted change ``[B, O]``, in units of the task."""
        inputs = joined(states, one_hot(choices))
        standard = network(as_vars(self.model["change"]), Var(inputs)).value
        return standard * np.sqrt(self.variance + 1e-8)[:-1] + self.mean[:-1]

    def synthetic(
        self, batch: dict[str, Array], choices: Array, draws: tuple[Array, ...]
    ) -> list[tuple[Array, Array, Array]]:
        """s'_k, r_k and d_k of every factor."""
        s, following = batch["observations"], batch["next_observations"]
        if self.c.synthetic == "marginal":
            return [(following, batch["rewards"], batch["terminations"])] * 2
        deviation, made = np.sqrt(self.variance + 1e-8), []
        for k in (0, 1):
            query = np.tile(CHOSEN_NOOP, (BATCH, 1))
            query[:, k] = choices[:, k]
            noise = draws[0][k] * self.c.model_noise * deviation if draws else 0 * deviation[None]
            if self.c.synthetic == "intervention":
                change = self.asked(s, query) + noise[:, :-1]
            else:
                change = self.asked(s, np.tile(CHOSEN_NOOP, (BATCH, 1))) + noise[:, :-1]
                for i in EFFECTS[k]:
                    change[:, i] = following[:, i] - s[:, i]
            standard = (change - self.mean[:-1]) / deviation[:-1]
            inputs = joined(s, one_hot(query), standard)
            outcome = network(as_vars(self.model["outcome"]), Var(inputs)).value
            reward = outcome[:, 0] * deviation[-1] + self.mean[-1] + noise[:, -1]
            made.append((s + change, reward, 1 / (1 + np.exp(-outcome[:, 1]))))
        return made

    def compare(self, agent: Any, seed: int) -> None:
        mine = {"critic": self.critic, "critic_target": self.target}
        parts = dict(agent.parts)
        if self.model:
            parts |= agent.parts["model"].parts
            mine |= self.model
            mine["moments"] = {"mean": self.mean[None], "variance": self.variance[None]}
        for part, weights in mine.items():
            theirs = self._take(parts[part], seed)
            for name, value in weights.items():
                np.testing.assert_allclose(
                    theirs[name], value, 1e-8, 1e-8, err_msg=f"{part} {name}"
                )


# The comparison ------------------------------------------------------------------------------


def shake(agent: Any) -> None:
    """Makes weights large, and targets different from what they follow."""
    generator = torch.Generator().manual_seed(1)
    parts = [agent.critic, agent.critic_target]
    if "model" in agent.parts:
        parts += [agent.model.change, agent.model.outcome]
    with torch.no_grad():
        for part in parts:
            for value in part.values():
                value += 0.5 * torch.randn(value.shape, generator=generator, dtype=value.dtype)


def agrees(names: dict[str, Any], which: str) -> None:
    """Trains agent and oracles side by side, and asks the agent to act.

    Raises:
        AssertionError: where they first differ.
    """
    kind, settings = CONFIGS[which]
    cls = names[kind]
    agent = cls(make_spec(), cls.Config(**{**SHARED, **settings}), SEEDS)
    shake(agent)
    oracles = [FamilyOracle(agent, i, kind) for i in range(len(SEEDS))]
    noisy = settings.get("model_noise")
    compare(
        agent,
        oracles,
        lambda noise: [noise.normal(2, BATCH, OBSERVATION + 1)] if noisy else [],
        integer_batch,
    )
    step = acting_step()
    draws = acting_step()["noise"].uniform(3).numpy()
    greedy, explored = (agent.act(step, explore=e)[0].numpy() for e in (False, True))
    for i, oracle in enumerate(oracles):
        states = step["observations"][i].numpy()
        best = oracle.best(oracle.critic, states)
        np.testing.assert_array_equal(greedy[i], best + STARTS)
        anyhow = (draws[i][:, 1:] * SIZES).astype(int)
        mine = np.where(draws[i][:, :1] < oracle.epsilon(), anyhow, best)
        np.testing.assert_array_equal(explored[i], mine + STARTS)
        p = as_vars(oracle.critic)
        values = oracle.mixed(p, network(p, Var(states)), best).value[:, 0]
        theirs = agent.value(step["observations"], torch.from_numpy(greedy))[i].numpy()
        np.testing.assert_allclose(theirs, values, 1e-8, 1e-8)


@pytest.mark.parametrize("which", CONFIGS)
def test_agent_equals_the_numpy_oracle(which: str) -> None:
    agrees(load_family("ad_dqn"), which)


def test_without_augmentation_the_mean_is_decqn_bit_by_bit() -> None:
    names = load_family("ad_dqn")
    plain = names["DecQN"](make_spec(), names["DecQN"].Config(**SHARED), SEEDS)
    config = names["ADDQN"].Config(**SHARED, mixer="average", augmentation=False)
    decomposed = names["ADDQN"](make_spec(), config, SEEDS)
    for number in range(5):
        batch = integer_batch(number)
        mine, theirs = plain.update(batch, "online"), decomposed.update(batch, "online")
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    for name, value in plain.critic.items():
        assert torch.equal(decomposed.critic[name], value)


def test_a_box_becomes_bins() -> None:
    """Actions of a box are learned from as their nearest bins, and played as bins."""
    names = load_family("ad_dqn")
    low, high = np.array([-0.5, -3.0]), np.array([1.5, -1.0])
    observations = spaces.Box(-np.inf, np.inf, (OBSERVATION,), np.float64)
    box = Spec(observations, spaces.Box(low, high, dtype=np.float64), dtype="float64")
    grid = Spec(observations, spaces.MultiDiscrete([3, 3]), dtype="float64")
    config = names["DecQN"].Config(**SHARED, bins=3)
    binned, integer = (names["DecQN"](spec, config, SEEDS) for spec in (box, grid))
    for number in range(3):
        batch = make_batch(number)
        nearest = np.rint((batch["actions"].numpy() - low) / (high - low) * 2).astype(int)
        binned.update(batch, "online")
        integer.update({**batch, "actions": torch.from_numpy(nearest)}, "online")
    step = acting_step()
    played, chosen = binned.act(step)[0].numpy(), integer.act(step)[0].numpy()
    np.testing.assert_allclose(played, low + chosen / 2 * (high - low), 1e-12)


def test_too_many_joint_actions_are_refused() -> None:
    names = load_family("ad_dqn")
    spec = Spec(spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (8,)))
    with pytest.raises(UsageError, match=r"390625 joint actions.*decqn"):
        names["DQN"](spec, names["DQN"].Config(), SEEDS)
    names["DecQN"](spec, names["DecQN"].Config(), SEEDS)


def test_known_effects_are_asked_for() -> None:
    names = load_family("ad_dqn")
    spec = Spec(spaces.Box(-1, 1, (2,)), spaces.MultiDiscrete([3, 3]))
    config = names["ADDQN"].Config(synthetic="effects")
    with pytest.raises(UsageError, match='set synthetic to "intervention"'):
        names["ADDQN"](spec, config, SEEDS)


def test_something_must_train_the_values() -> None:
    with pytest.raises(UsageError, match="nothing trains the factors' values"):
        load_family("ad_dqn")["ADDQN"].Config(augmentation=False, mixer_gradient=False)


# Mutants -------------------------------------------------------------------------------------


MUTANTS: list[Mutant] = [
    # targets: whose values, whose choice, gamma, the end
    (
        "linear",
        "q_learning",
        (
            "next_values = self.joined(self.critic_target, f",
            "next_values = self.joined(self.critic, f",
        ),
    ),
    (
        "dqn",
        "q_learning",
        ("following = self.net(self.critic_target,", "following = self.net(self.critic,"),
    ),
    (
        "dqn",
        "q_learning",
        ("online = self.net(self.critic,", "online = self.net(self.critic_target,"),
    ),
    ("dqn single", "q_learning", ("if self.config.double:", "if True:")),
    ("decqn", "q_learning", ("if self.config.double:", "if False:")),
    (
        "two_layer",
        "q_learning",
        ("self.best(self.critic_target, following)", "self.best(self.critic, following)"),
    ),
    ("dqn", "q_learning", ("self.config.discount * continues * next", "continues * next")),
    ("dqn", "q_learning", ('1.0 - batch["terminations"]', "1.0")),
    ("dqn", "q_learning", ('batch["terminations"]', 'batch["truncations"]')),
    ("dqn", "q_learning", ('batch["rewards"] + self', '-batch["rewards"] + self')),
    ("dqn", "q_learning", ("polyak(self.critic_target, self.critic, self.config.tau)", "pass")),
    # loss, clip and schedule
    ("dqn", "q_learning", ("delta=self.config.huber", "delta=1.0")),
    ("dqn", "q_learning", (", max_norm=config.max_norm", "")),
    ("dqn", "q_learning", ("c.epsilon_start - c.epsilon_end", "c.epsilon_start")),
    ("dqn", "q_learning", ("1.0 - self.updates / until", "self.updates / until")),
    ("dqn", "q_learning", ("self.config.epsilon_share * self.total", "self.total")),
    ("dqn", "factored", ("coin < epsilon", "coin > epsilon")),
    ("dqn", "factored", ("(u * n).long()", "(u * (n - 1)).long()")),
    # joint actions and factors
    (
        "dqn",
        "factored",
        ("number = number * size + indices[..., k]", "number = number + size * indices[..., k]"),
    ),
    ("dqn", "factored", ("reversed(self.sizes)", "self.sizes")),
    ("dqn", "factored", ("actions.long() - torch", "actions.long() + torch")),
    ("decqn", "decqn", (".mean(-1)", ".sum(-1)")),
    ("decqn", "factored", ("value=-math.inf", "value=5.0")),
    ("decqn", "factored", ("sum(self.sizes[:k])", "k * self.sizes[0] - k")),
    ("dqn", "dqn", ("outputs.argmax(-1)", "outputs.argmin(-1)")),
    ("decqn", "decqn", (".argmax(-1)", ".argmin(-1)")),
    # the mixers
    ("average", "factored", ("return values.mean(-1)", "return values.sum(-1)")),
    ("linear", "factored", ('weight if self.kind == "two_layer" else softplus(weight)', "weight")),
    ("relu", "factored", ('weight if self.kind == "two_layer" else softplus(weight)', "weight")),
    ("relu", "factored", ("hidden.relu() if i else hidden", "hidden")),
    (
        "two_layer",
        "factored",
        ('weight if self.kind == "two_layer" else softplus(weight)', "softplus(weight)"),
    ),
    ("two_layer", "factored", ('if self.kind != "two_layer":', "if True:")),
    (
        "two_layer",
        "factored",
        ("[*range(self.factors)] * self.sweeps", "[*range(self.factors)][:1]"),
    ),
    ("two_layer", "factored", ("masked_fill(~allowed, -math.inf)", "nan_to_num()")),
    (
        "linear",
        "ad_dqn",
        (
            "self.mixer(critic, self.factors.chosen(outputs, indices))",
            "self.mixer(critic, self.factors.chosen(outputs, indices).detach())",
        ),
    ),
    (
        "linear",
        "ad_dqn",
        (
            "self.mixer(critic, self.factors.chosen(outputs, indices))",
            "self.factors.chosen(outputs, indices).mean(-1)",
        ),
    ),
    # projected targets and their loss
    (
        "average",
        "ad_dqn",
        (
            "outputs = self.net(self.critic_target, following",
            "outputs = self.net(self.critic, following",
        ),
    ),
    ("average", "ad_dqn", (".amax(-1)", ".amin(-1)")),
    ("average", "ad_dqn", ("self.config.discount * continues * best", "continues * best")),
    ("average", "ad_dqn", ('(1.0 - made["terminations"]).mT', "1.0")),
    (
        "average",
        "ad_dqn",
        ('made["rewards"].mT +', 'batch["rewards"].unsqueeze(-1) +'),
        ("def projected_targets(self, made", "def projected_targets(self, batch, made"),
        ("self.projected_targets(made)", "self.projected_targets(batch, made)"),
    ),
    ("average", "ad_dqn", ("losses + weight * projected", "losses - weight * projected")),
    ("average", "ad_dqn", ("losses + weight * projected", "losses + projected")),
    ("average", "ad_dqn", ("self.updates >= c.model_warmup * self.total", "True")),
    ("average", "ad_dqn", (".mean((1, 2))", ".mean(1).sum(1)")),
    ("average", "factored", ("diagonal(dim1=1, dim2=3)", "diagonal(dim1=1, dim2=3).flip(-1)")),
    # the model and its batches
    (
        "linear",
        "factored",
        (
            "torch.where(own, indices.unsqueeze(1), noop)",
            "indices.unsqueeze(1).expand_as(noop.expand(-1, self.count, -1, -1))",
        ),
    ),
    (
        "linear",
        "factored",
        (
            "torch.where(own, indices.unsqueeze(1), noop)",
            "torch.where(~own, indices.unsqueeze(1), noop)",
        ),
    ),
    ("average", "factored", ("chosen = tuple(int(n) - start", "chosen = tuple(0 * int(n) * start")),
    (
        "average",
        "factor_model",
        ("torch.where(self.own, real, following)", "torch.where(self.own, following, real)"),
    ),
    (
        "average",
        "factor_model",
        ("torch.where(self.own, real, following)", "real.expand_as(following)"),
    ),
    (
        "average",
        "factor_model",
        ("self._change(seen, noop.expand_as(indices))", "self._change(seen, indices)"),
    ),
    (
        "average",
        "factor_model",
        (
            "self._outcome(repeated, queries,",
            "self._outcome(repeated, indices.repeat(1, count, 1),",
        ),
    ),
    (
        "linear",
        "factor_model",
        ("self._change(repeated, queries)", "self._change(repeated, indices.repeat(1, count, 1))"),
    ),
    (
        "linear",
        "factor_model",
        ("spread = self.noise * self.deviations()", "spread = self.noise + 0 * self.deviations()"),
    ),
    ("linear", "factor_model", ("+ draws[..., -1]", "")),
    ("linear", "factor_model", ("change = change + draws[..., :-1]", "pass")),
    ("linear", "factor_model", ("ending.sigmoid()", "(ending > 0).to(ending.dtype)")),
    (
        "linear",
        "factor_model",
        ('batch["terminations"], reduction', 'batch["truncations"], reduction'),
    ),
    ("linear", "factor_model", ('"end_loss": ending.mean(1)', '"end_loss": 2 * ending.mean(1)')),
    ("linear", "factor_model", ("weight = 1.0 / (self.updates + 1)", "weight = 1.0")),
    (
        "linear",
        "factor_model",
        ("standard = (change - mean[..., :-1]) / deviation[..., :-1]", "standard = change"),
    ),
    ("linear", "factor_model", ("reward * deviation[..., -1] + mean", "reward + mean")),
    (
        "marginal",
        "ad_dqn",
        (
            "marginal_batches(batch, self.factors)",
            "marginal_batches({**batch, 'rewards': -batch['rewards']}, self.factors)",
        ),
    ),
    ("own", "ad_dqn", ("else outputs.detach()", "else outputs")),
    ("linear", "ad_dqn", ("if c.mixer_gradient else", "if not c.mixer_gradient else")),
    # the seed axis
    (
        "dqn",
        "q_learning",
        ("self.targets(batch)).mean(1)", "self.targets(batch)).mean((0, 1)).expand(len(values))"),
    ),
    ("average", "ad_dqn", (".mean((1, 2))", ".mean().expand(len(values))")),
    (
        "linear",
        "factor_model",
        ("rows.mean(1, keepdim=True)", "rows.mean((0, 1), keepdim=True).expand_as(mean)"),
    ),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=mutant_name)
def test_the_oracle_kills(mutant: Mutant) -> None:
    which, module, *edits = mutant
    with pytest.raises((AssertionError, RuntimeError)):  # torch refuses some of them
        agrees(load_family(module, edits), which)


# Equivalent: no test of results can tell these from the original. Listed, so that they stay known.
SURVIVORS: list[Mutant] = [
    # Targets are made of target weights, which need no gradient, and of whole numbers.
    ("dqn", "q_learning", ("    @torch.no_grad()\n    def targets", "    def targets")),
    ("linear", "ad_dqn", ("    @torch.no_grad()\n    def projected", "    def projected")),
    # The critic's step asks for the gradient of its own weights alone.
    ("linear", "factor_model", ("    @torch.no_grad()\n    def batches", "    def batches")),
    # Where coin and epsilon meet is a matter of one number in 2^53.
    ("dqn", "factored", ("coin < epsilon", "coin <= epsilon")),
]


@pytest.mark.parametrize("mutant", SURVIVORS, ids=mutant_name)
def test_equivalent_mutants_survive(mutant: Mutant) -> None:
    which, module, *edits = mutant
    agrees(load_family(module, edits), which)
