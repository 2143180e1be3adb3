"""Decision Transformer: against numpy, where only the return-to-go tells, and its units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from oracles import (
    SEEDS,
    Array,
    Mutant,
    NumpyAdam,
    Oracle,
    compare,
    load,
    make_spec,
    mutant_name,
    shake,
    to_box,
)
from tape import Var, gradients
from windows import (
    FAR,
    STEPS,
    WRONG,
    as_vars,
    by_length,
    clip,
    decided,
    distances,
    dropout_draws,
    histories,
    make_windows,
    named_masks,
    play,
    transform,
    two_steps,
    window_spec,
    windows_of,
)

from baselines.config import UsageError, build
from baselines.dt import DT, DTConfig

BEST, REWARD_SCALE, RETURN_SCALE = 4.0, 2.0, 3.0
CONFIG: dict[str, Any] = {
    "context": STEPS,
    "width": 4,
    "layers": 2,
    "heads": 2,
    "dropout": 0.2,
    "lr": 0.01,
    "weight_decay": 0.1,
    "warmup_updates": 4,
    "max_norm": 0.5,
    "return_scale": RETURN_SCALE,
    "target": 0.75,
}


class DTOracle(Oracle):
    """docs/agents/dt.md in numpy."""

    def __init__(self, agent: Any, seed: int) -> None:
        super().__init__(agent, seed)
        self.adam = NumpyAdam(self.c.lr)

    def update(self, batch: dict[str, Array], *draws: Array) -> dict[str, float]:
        p, c, loss = as_vars(self.actor), self.c, Var(0.0)
        masks = named_masks(c.layers, draws)
        for rows, window in by_length(batch):
            window["returns_to_go"] = window["returns_to_go"] / (RETURN_SCALE * REWARD_SCALE)
            hidden = transform(p, c.layers, c.heads, window, masks, rows)
            error = decided(p, hidden) - window["unit"]
            loss = loss + (error * error).sum()
        loss = (loss / (2 * batch["mask"].sum())).reshape()
        found = clip(gradients(loss, p), c.max_norm)
        self.count += 1
        rate = min(1.0, self.count / c.warmup_updates)
        for name in self.actor:
            self.actor[name] = self.actor[name] * (1 - rate * c.lr * c.weight_decay)
        self.adam.step(self.actor, found, rate)
        return {"action_loss": float(loss.value)}

    def act(self, window: dict[str, Array]) -> Array:
        target = self.c.target * BEST - window.pop("received") / REWARD_SCALE
        window["returns_to_go"] = target / RETURN_SCALE
        p = as_vars(self.actor)
        hidden = transform(p, self.c.layers, self.c.heads, window, None, None)
        return to_box(decided(p, hidden).value[0, -1])


def check_against_numpy(cls: type[Any]) -> None:
    agent = cls(window_spec(BEST, REWARD_SCALE), cls.Config(**CONFIG), SEEDS)
    shake(agent)
    oracles = [DTOracle(agent, i) for i in range(len(SEEDS))]
    compare(agent, oracles, lambda noise: dropout_draws(agent.net, noise), make_windows)
    # Episode 1 begins anew at step 4: a context of fewer than K steps, then of K.
    history = histories(7, 6, 2, {(4, 1)})
    actions = play(agent, *history)
    for i, oracle in enumerate(oracles):
        for t in range(6):
            for episode in range(2):
                wanted = oracle.act(windows_of(*history, actions[i], t, episode))
                np.testing.assert_allclose(actions[i, t, episode], wanted, 1e-8, 1e-8)


def test_the_agent_equals_the_numpy_oracle() -> None:
    check_against_numpy(load("dt"))


MUTANTS: list[Mutant] = [
    # sign, coefficient, mask
    ("dt", "dt", ("masks) - actions).square()", "masks) + actions).square()")),
    ("dt", "dt", (".square().mean(-1)", ".square().sum(-1)")),
    ("dt", "dt", ('masked_mean(errors, batch["mask"])', "errors.mean((1, 2))")),
    ("dt", "transformer", ("(values * mask).sum((1, 2))", "values.sum((1, 2))")),
    # units, and the return to aim at
    ("dt", "dt", ('actions = self.box.unscale(batch["actions"])', 'actions = batch["actions"]')),
    (
        "dt",
        "dt",
        ("training_window(batch, actions, self.scale)", "training_window(batch, actions, 1.0)"),
    ),
    (
        "dt",
        "dt",
        (
            "candidate_windows(memory, targets, self.scale)",
            "candidate_windows(memory, targets, 1.0)",
        ),
    ),
    ("dt", "dt", ("return self.box.scale(unit), remember", "return unit, remember")),
    ("dt", "dt", ("remember(memory, unit)", "memory")),
    ("dt", "dt", ("remember(memory, unit)", "remember(memory, self.box.scale(unit))")),
    (
        "dt",
        "transformer",
        (
            "cls(reward_scale, return_scale * reward_scale, best)",
            "cls(reward_scale, return_scale, best)",
        ),
    ),
    (
        "dt",
        "transformer",
        ("[target * self.reward_scale / self.scale for", "[target / self.scale for"),
    ),
    (
        "dt",
        "transformer",
        ("(targets.reshape(-1, 1) - received)", "(targets.reshape(-1, 1) + received)"),
    ),
    (
        "dt",
        "transformer",
        ('memory["received"][..., -1] + step["rewards"]', 'memory["received"][..., -1]'),
    ),
    (
        "dt",
        "transformer",
        ("torch.where(first, zero, memory", "torch.where(first, step['rewards'], memory"),
    ),
    ("dt", "transformer", ('memory["timesteps"][..., -1] + 1)', 'memory["timesteps"][..., -1])')),
    # attention: who sees whom
    ("dt", "transformer", ("causal.tril() &", "causal &")),
    ("dt", "transformer", ("& real.unsqueeze(-2)", "& (real | True).unsqueeze(-2)")),
    ("dt", "transformer", ("math.sqrt(self.width // self.heads)", "math.sqrt(self.width)")),
    ("dt", "transformer", ("STATES = slice(1, None, 3)", "STATES = slice(0, None, 3)")),
    (
        "dt",
        "transformer",
        ("returns + time, states + time, actions + time", "returns, states + 0 * time, actions"),
    ),
    (
        "dt",
        "transformer",
        ("returns + time, states + time, actions", "states + time, returns + time, actions"),
    ),
    ("dt", "transformer", ("clamp(max=self.timesteps - 1)", "remainder(self.timesteps)")),
    (
        "dt",
        "transformer",
        ("torch.addcmul(tokens, part, masks[name])", "part * masks[name]"),
    ),
    (
        "dt",
        "transformer",
        ('_norm(p, f"inner_norm{i}", tokens))', "0 * _norm(p, f'inner_norm{i}', tokens) + tokens)"),
    ),
    (
        "dt",
        "transformer",
        ('_norm(p, "final_norm", tokens)', "tokens + 0 * _norm(p, 'final_norm', tokens)"),
    ),
    (
        "dt",
        "transformer",
        (
            '_norm(p, "embedding_norm", tokens.flatten(2, 3))',
            "tokens.flatten(2, 3) + 0 * _norm(p, 'embedding_norm', tokens.flatten(2, 3))",
        ),
    ),
    ("dt", "transformer", ("values if masks is None else values * masks[name]", "values")),
    ("dt", "transformer", ("if masks is None else torch.addcmul", "if True else torch.addcmul")),
    # optimiser: clip, decay, warm-up
    ("dt", "dt", ("max_norm=config.max_norm,", "")),
    ("dt", "dt", ("weight_decay=config.weight_decay,", "l2=config.weight_decay,")),
    ("dt", "dt", ("warmup_steps=config.warmup_updates,", "")),
    (
        "dt",
        "common",
        (
            "self.lr * (self.updates + 1) / self.warmup_steps",
            "self.lr * self.updates / self.warmup_steps",
        ),
    ),
    ("dt", "common", (".div_(1.0 - dropped / 2**16)", "")),
    # the seed axis
    ("dt", "transformer", ("reshape(-1, 1, 1) * self.timesteps", "reshape(-1, 1, 1) * 0")),
    ("dt", "transformer", ("mask.sum((1, 2)).clamp(min=1.0)", "mask.sum()")),
    (
        "dt",
        "common",
        ("flatten(1).square().sum(1) for g", "flatten(1).square().sum().expand(2) for g"),
    ),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=mutant_name)
def test_the_oracle_kills(mutant: Mutant) -> None:
    name, module, *edits = mutant
    with pytest.raises(AssertionError):
        check_against_numpy(load(name, module, edits))


# Equivalent: no test of results can tell these from the original. Listed, so that they stay known.
SURVIVORS: list[Mutant] = [
    # What a padded token computes is read by no real one.
    ("dt", "transformer", ("torch.finfo(tokens.dtype).min", "-1e30")),
    # The last block need not be spared the tokens that nothing reads.
    (
        "dt",
        "transformer",
        (
            "LAST if last else STATES, masks)).tanh()",
            "STATES, masks)).tanh()[:, :, -1 if last else 0 :]",
        ),
    ),
]


@pytest.mark.parametrize("mutant", SURVIVORS, ids=mutant_name)
def test_equivalent_mutants_survive(mutant: Mutant) -> None:
    name, module, *edits = mutant
    check_against_numpy(load(name, module, edits))


SIZE: dict[str, Any] = {
    "context": 2,
    "width": 16,
    "layers": 1,
    "lr": 5e-3,
    "warmup_updates": 10,
    "max_norm": 1.0,
    "return_scale": 1.0,
}
# The least-squares clone acts at (1 - 2 WRONG) u*, which is 2 WRONG FAR away from u*.
CLONE, BEST_RETURN = 1 - (2 * WRONG * FAR) ** 2, 1.0
THRESHOLD = (CLONE + BEST_RETURN) / 2


def test_the_idea_passes_where_cloning_cannot() -> None:
    """Only the return-to-go tells right from wrong; one too small to be read leaves a clone."""
    data = two_steps(lambda distance, _: 1 - distance**2)
    found = {}
    for name, scale in (("with", 1.0), ("without", 1e6)):
        config = DTConfig(**{**SIZE, "return_scale": scale})
        found[name] = float((1 - distances(DT, config, data, 200) ** 2).mean())
    print(f"dt: {found}; clone {CLONE:.2f}; threshold {THRESHOLD:.2f}")
    assert found["with"] > THRESHOLD
    assert found["without"] < THRESHOLD
    assert found["without"] == pytest.approx(CLONE, abs=0.25)


@pytest.mark.parametrize(
    ("settings", "statistics", "target", "scale"),
    [
        ({}, {}, 0.75 * 4 / 3, 6.0),
        ({"target_return": 9.0}, {}, 3.0, 6.0),
        ({"return_scale": None}, {}, 0.75 * 4 / 6, 12.0),
        ({"return_scale": None}, {"return_worst": 0.0, "return_best": 0.0}, 0.0, 2.0),
        ({"target": 1.5}, {"return_best": -2.0}, -1.0, 6.0),
    ],
)
def test_returns_are_measured_in_training_units(
    settings: dict[str, Any], statistics: dict[str, float], target: float, scale: float
) -> None:
    agent = DT(
        window_spec(BEST, REWARD_SCALE, **statistics), DTConfig(**{**CONFIG, **settings}), SEEDS
    )
    assert agent.targets == pytest.approx([target])
    assert agent.scale == pytest.approx(scale)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "name the return to aim at"),
        ({"return_scale": None}, "set return_scale to a number"),
    ],
)
def test_data_of_unknown_returns_is_explained(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DT(make_spec(), DTConfig(**{**CONFIG, **settings}), SEEDS)
    DT(make_spec(), DTConfig(**{**CONFIG, "target_return": 5.0}), SEEDS)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"context": 0}, "here: context must be at least 1, not 0"),
        ({"dropout": 1.0}, "here: dropout must be from 0 to 0.99, not 1"),
        ({"heads": 3}, "here: heads must divide width 128, not 3"),
        ({"return_scale": 0}, "here: return_scale must be above 0 or null, not 0"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(DTConfig, setting, "here")
    assert str(caught.value) == message
