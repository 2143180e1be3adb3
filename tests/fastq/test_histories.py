"""FAST-Q where states are histories: an LSTM per expert, asked once for the same states."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from networks import as_vars, history_features
from oracles import SEEDS, Edit, make_spec, rebuild
from rows import PARTS, POLICIES, make_rows
from torch import Tensor

from baselines.common import Noise
from baselines.encoders import HistoryEncoder
from baselines.registry import make_config
from fastq.agent import FastQ
from fastq.experts import PolicyExperts, pick

STATIC, DAYS, EACH = 2, 3, 2
SIZE = STATIC + DAYS * EACH
SPACE = spaces.Dict(
    static=spaces.Box(-np.inf, np.inf, (STATIC,)),
    temporal=spaces.Box(-np.inf, np.inf, (DAYS, EACH)),
)
SMALL = {"hidden": (8, 7), "expert_hidden": (6, 5), "classifier_hidden": (5,)}


def make_agent(cls: type[Any] = FastQ, preset: str = "paper", **settings: Any) -> Any:
    config = make_config(FastQ, {**SMALL, **settings}, "fastq", preset)
    spec = replace(
        make_spec(),
        observation_space=SPACE,
        reward_parts=PARTS,
        policies=5,
        policy_groups=POLICIES,
    )
    return cls(spec, config, SEEDS)


def days(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((*shape, SIZE)))


def history_rows(number: int) -> dict[str, Tensor]:
    batch = make_rows(number)
    shape = batch["rewards"].shape
    batch["observations"] = days(*shape, seed=number)
    batch["next_observations"] = days(*shape, seed=100 + number)
    return batch


def experts_agree(build: Any, kind: Any) -> None:
    """Features and actions of every expert, and the loss, against numpy."""
    experts = build(POLICIES, SPACE, 2, (6, 5), kind)
    parameters = experts.init(Noise.for_seeds(SEEDS, "init", dtype=torch.float64))
    states, actions = days(len(SEEDS), 9), days(len(SEEDS), 9, seed=1)[..., :2].tanh()
    groups = torch.arange(9).repeat(len(SEEDS), 1) % POLICIES
    features = experts.features(parameters, states)
    guesses = experts.actions(parameters, features)
    losses = experts.losses(parameters, states, actions, groups)
    for seed in range(len(SEEDS)):
        errors = []
        for k in range(POLICIES):
            mine = {}
            for name, value in parameters.items():
                one = value.detach()[seed].numpy()
                own = name.startswith("head.") or kind == "separate"
                mine[name] = one[k] if own else one
            hidden = history_features(as_vars(mine), states[seed].numpy(), STATIC, DAYS).value
            for i in range(2):
                hidden = hidden @ mine[f"trunk.weight{i}"] + mine[f"trunk.bias{i}"]
                hidden = np.maximum(hidden, 0)
            np.testing.assert_allclose(features[seed, k].detach(), hidden, atol=1e-10)
            told = np.tanh(hidden @ mine["head.weight0"] + mine["head.bias0"])
            np.testing.assert_allclose(guesses[seed, k].detach(), told, atol=1e-10)
            missed = np.square(told - actions[seed].numpy()).mean(1)
            errors.append(missed[groups[seed].numpy() == k].mean())
        np.testing.assert_allclose(losses[seed].item(), np.mean(errors), atol=1e-10)


@pytest.mark.parametrize("kind", ["separate", "shared"])
def test_experts_are_numpys(kind: Any) -> None:
    experts_agree(PolicyExperts.build, kind)


MUTANTS: list[tuple[str, Edit]] = [
    ("fastq.experts", ("encoder(space, copies)", "encoder(space)")),
    ("fastq.experts", ("seen).relu()", "seen)")),
    ("encoders", ("int(days), int(features)", "int(features), int(days)")),
    ("encoders", ("[lstm(days, *own[:3]), seen]", "[0 * lstm(days, *own[:3]), seen]")),
    ("encoders", ("own[3:]).relu()", "own[3:])")),
    ("encoders", ("w.t().contiguous()", "w.t().contiguous().flip(0)")),
    ("encoders", ("weights = [w.t().contiguous(), u", "weights = [w.t().contiguous(), 0 * u")),
    ("encoders", ("b[0], none]", "none, none]")),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant[0]}: {mutant[1][0]}")
def test_the_oracle_kills(mutant: tuple[str, Edit]) -> None:
    module, edit = mutant
    experts = vars(rebuild("fastq.experts", [edit] if module == "fastq.experts" else ()))
    if module == "encoders":
        experts["encoder"] = vars(rebuild("encoders", [edit]))["encoder"]
    with pytest.raises((AssertionError, RuntimeError, IndexError, ValueError)):
        experts_agree(experts["PolicyExperts"].build, "separate")


def test_an_expert_learns_from_its_own_policys_days() -> None:
    experts = PolicyExperts.build(3, SPACE, 2, (6,), "separate")
    parameters = experts.init(Noise.for_seeds(SEEDS, "init", dtype=torch.float64))
    groups = torch.arange(8).repeat(len(SEEDS), 1) % 2
    losses = experts.losses(
        parameters, days(len(SEEDS), 8), torch.zeros(len(SEEDS), 8, 2).double(), groups
    )
    for name in ("encoder.input", "encoder.recurrent", "encoder.static_weight"):
        (gradient,) = torch.autograd.grad(losses.sum(), [parameters[name]], retain_graph=True)
        assert gradient[:, :2].abs().amax((2, 3)).gt(0).all()
        assert gradient[:, 2].abs().max() == 0  # policy 2 has no samples


@pytest.mark.parametrize("experts", ["separate", "shared", "none"])
def test_experts_see_the_same_states_once(monkeypatch: pytest.MonkeyPatch, experts: str) -> None:
    """Every LSTM of theirs each state of a policy update, and only its own of the next states."""
    agent = make_agent(experts=experts, exploration=(0.5, 0.5), policy_delay=1)
    seen: list[Tensor] = []
    count = HistoryEncoder.__call__

    def counting(self: HistoryEncoder, parameters: Any, observations: Tensor) -> Tensor:
        if "encoder.input" in parameters and "trunk.weight0" in parameters:  # an expert's
            seen.append(observations)
        return count(self, parameters, observations)

    monkeypatch.setattr(HistoryEncoder, "__call__", counting)
    batch = history_rows(0)
    agent.update(batch, "policy")
    whole = [shown is batch["observations"] for shown in seen]
    rows = len(SEEDS) * batch["rewards"].shape[1]
    assert sum(whole) == 1
    others = sum(shown.shape[0] * shown.shape[1] for shown in seen) - rows
    assert others == (0 if experts == "none" else rows)


def test_an_expert_alone_sees_what_it_sees_among_all() -> None:
    agent = make_agent()
    states = days(len(SEEDS), 9)
    each = agent.experts_views(states)
    for groups in (torch.arange(9) % POLICIES, torch.arange(9) // 5, torch.full((9,), 2)):
        groups = groups.repeat(len(SEEDS), 1)
        own = agent.experts_net.own(agent.experts, states, groups)
        torch.testing.assert_close(own, pick(each, groups), rtol=0, atol=1e-12)


def test_views_told_twice_or_once_are_the_same() -> None:
    agent = make_agent(exploration=(0.5, 0.5))
    batch = history_rows(1)
    groups = batch["policy_groups"]
    each = agent.experts_views(batch["observations"])
    told = agent.view(batch["observations"], groups, each)
    again = agent.view(batch["observations"], groups)
    torch.testing.assert_close(told, again, rtol=0, atol=1e-12)
    state = agent.noise.state_dict()
    once = agent.explore(batch, told, batch["actions"], each)
    agent.noise.load_state_dict(state)
    twice = agent.explore(batch, told, batch["actions"], None)
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))


@pytest.mark.parametrize("acting", ["mean", "classifier", "q_argmax", "fixed:1"])
def test_it_learns_and_acts_on_days(acting: str) -> None:
    agent = make_agent(acting=acting)
    for number in range(4):
        agent.update(history_rows(number), "represent" if number < 2 else "policy")
    step: Any = {"observations": days(len(SEEDS), 3)}
    actions, _ = agent.act(step)
    assert actions.shape == (len(SEEDS), 3, 2)
    assert agent.represent(days(len(SEEDS), 3), torch.zeros(len(SEEDS), 3, dtype=torch.int64))[
        "before"
    ].shape == (len(SEEDS), 3, 5)
