"""Features of histories: the LSTM against numpy, and where agents use them and learn them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from networks import as_vars, history_features
from oracles import make_batch, make_spec
from tape import gradients
from torch import Tensor

from baselines import check, check_task
from baselines.common import Noise
from baselines.config import UsageError
from baselines.encoders import DENSE, HIDDEN, Encoder, HistoryEncoder, encoded, encoder
from baselines.nets import TwinQ
from baselines.registry import Registry, make_config
from baselines.sampled import values_of_samples

SEEDS = (3, 11)
STATIC, DAYS, EACH = 2, 4, 3
SIZE = STATIC + DAYS * EACH
SPACE = spaces.Dict(
    static=spaces.Box(-np.inf, np.inf, (STATIC,)),
    temporal=spaces.Box(-np.inf, np.inf, (DAYS, EACH)),
)
AGENTS = ("bc", "td3_bc", "iql", "cql", "diffusion_ql", "fastq")
SMALL = {"hidden": (16, 16), "batch_size": 32}
REGISTRY = Registry()


def init_noise(dtype: torch.dtype = torch.float64, seeds: tuple[int, ...] = SEEDS) -> Noise:
    return Noise.for_seeds(seeds, "init", dtype=dtype)


def windows(count: int = 7, seeds: int = len(SEEDS)) -> Tensor:
    found = np.random.default_rng(0).standard_normal((seeds, count, SIZE))
    found[:, :2, STATIC : STATIC + 2 * EACH] = 0  # episodes that have just begun
    return torch.from_numpy(found)


# The encoder ---------------------------------------------------------------------------------


def test_a_vector_is_shown_as_it_is() -> None:
    found, noise = encoder(spaces.Box(-1, 1, (5,))), init_noise()
    before = noise.state_dict()["generators"]
    assert found.size == 5 and found.init(noise) == {}
    assert torch.equal(noise.state_dict()["generators"], before)
    seen = windows()
    assert found({}, seen) is seen
    batch = {"observations": seen, "next_observations": seen}
    assert encoded(found, batch, {}, {}) is batch


@pytest.mark.parametrize("name", AGENTS)
def test_agents_of_vectors_have_nothing_more(name: str) -> None:
    """No parameter, and no key of their state: results are what they were."""
    cls = REGISTRY.get(name)
    config = make_config(cls, SMALL, name)
    state = cls(check_task.Task().spec(cls.needs(config), 10), config, SEEDS).state_dict()
    assert not [key for key in paths(state) if "encoder" in key]


def paths(state: Any, prefix: str = "") -> list[str]:
    if not isinstance(state, Mapping):
        return [prefix]
    return [path for key, value in state.items() for path in paths(value, f"{prefix}/{key}")]


@pytest.mark.parametrize("copies", [None, 3])
def test_the_lstm_and_its_gradients_are_numpys(copies: int | None) -> None:
    net = encoder(SPACE, copies)
    assert net == HistoryEncoder(HIDDEN + DENSE, STATIC, DAYS, EACH, copies=copies)
    parameters, seen = net.init(init_noise()), windows()
    found = net(parameters, seen)
    lead = (len(SEEDS),) if copies is None else (len(SEEDS), copies)
    assert found.shape == (*lead, 7, HIDDEN + DENSE)
    slopes = torch.autograd.grad(found.square().sum(), list(parameters.values()))
    for index in np.ndindex(*lead):
        mine = as_vars({name: v.detach()[index].numpy() for name, v in parameters.items()})
        wanted = history_features(mine, seen[index[0]].numpy(), STATIC, DAYS)
        np.testing.assert_allclose(found[index].detach(), wanted.value, atol=1e-12)
        theirs = gradients((wanted * wanted).mean() * wanted.value.size, mine)
        for name, slope in zip(parameters, slopes, strict=True):
            np.testing.assert_allclose(slope[index], theirs[name], atol=1e-10, err_msg=name)


def test_float32_agrees_with_float64() -> None:
    """Of which a CPU computes the former by other kernels."""
    net, seen = encoder(SPACE), windows(64)
    found = []
    for dtype in (torch.float32, torch.float64):
        parameters = {
            name: value.detach().to(dtype).requires_grad_()
            for name, value in net.init(init_noise()).items()
        }
        features = net(parameters, seen.to(dtype))
        slopes = torch.autograd.grad(features.square().sum(), list(parameters.values()))
        found.append([value.detach().double() for value in (features, *slopes)])
    for single, double in zip(*found, strict=True):
        torch.testing.assert_close(single, double, rtol=1e-4, atol=1e-4)


def test_a_seed_in_a_stack_is_the_seed_alone() -> None:
    net, seen = encoder(SPACE), windows()
    stacked = net(net.init(init_noise()), seen)
    for i, seed in enumerate(SEEDS):
        alone = net(net.init(init_noise(seeds=(seed,))), seen[i : i + 1])
        torch.testing.assert_close(stacked[i], alone[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (3, 4)),
        spaces.Discrete(3),
        spaces.Dict(static=spaces.Box(-1, 1, (3,))),
        spaces.Dict(static=spaces.Box(-1, 1, (3,)), temporal=spaces.Box(-1, 1, (4,))),
        spaces.Dict(static=spaces.Box(-1, 1, (3,)), temporal=spaces.Discrete(3)),
    ],
    ids=str,
)
def test_other_spaces_are_refused_in_a_sentence(space: Any) -> None:
    with pytest.raises(
        UsageError, match="one-dimensional Box of observations, or a Dict of static"
    ):
        encoder(space)


def test_values_of_samples_pass_gradients_on_to_features() -> None:
    net = TwinQ.build(4, 2, (8, 7))
    parameters = net.init(init_noise())
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64).requires_grad_()
    actions = torch.randn(2, 5, 3, 2, generator=generator, dtype=torch.float64)
    found = values_of_samples(net, parameters, states, actions)
    repeated = states.repeat_interleave(3, 1)
    plain = net(parameters, repeated, actions.flatten(1, 2)).reshape(found.shape)
    weights = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    mine, theirs = (torch.autograd.grad((v * weights).sum(), states)[0] for v in (found, plain))
    torch.testing.assert_close(mine, theirs)


# The agents ----------------------------------------------------------------------------------


# What observations have a part in; the rest of the contract holds on all spaces alike.
CHECKS = ("metrics", "stacked_equals_alone", "batch_untouched", "save_and_load", "actions")


@pytest.mark.parametrize("which", CHECKS)
@pytest.mark.parametrize("name", AGENTS)
def test_agents_keep_the_contract_on_histories(name: str, which: str) -> None:
    cls = REGISTRY.get(name)
    preset = "check" if "check" in getattr(cls, "presets", {}) else None
    function = getattr(check, f"check_{which}")
    function(cls, make_config(cls, SMALL, name, preset), space="history")


LEARNERS = [
    pytest.param(name, marks=[pytest.mark.slow] * (name not in ("bc", "td3_bc"))) for name in AGENTS
]


@pytest.mark.parametrize("name", LEARNERS)
def test_agents_learn_from_histories(name: str) -> None:
    cls = REGISTRY.get(name)
    preset = "check" if "check" in getattr(cls, "presets", {}) else None
    sizes = {} if preset else {"batch_size": 64}
    check.check_learns(cls, make_config(cls, sizes, name, preset), space="history")


def make_agent(name: str, space: spaces.Space[Any], **settings: Any) -> Any:
    cls = REGISTRY.get(name)
    config = make_config(cls, {"hidden": (8, 7), **settings}, name)
    spec = replace(make_spec(), observation_space=space, reward_parts=("x",), policy_groups=2)
    return cls(spec, config, SEEDS)


def make_history_batch(number: int = 0) -> dict[str, Tensor]:
    batch = make_batch(number)
    rng = np.random.default_rng(number)
    shape = batch["rewards"].shape
    for field in ("observations", "next_observations"):
        batch[field] = torch.from_numpy(rng.standard_normal((*shape, SIZE)))
    batch["policy_groups"] = torch.from_numpy(rng.integers(0, 2, shape))
    batch["reward_parts"] = batch["rewards"].unsqueeze(-1)
    return batch


def without_encoder(state: Any) -> Any:
    if not isinstance(state, Mapping):
        return state
    return {key: without_encoder(v) for key, v in state.items() if "encoder." not in key}


def section(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in parameters.items() if key.startswith("encoder.")}


# Names of what is trained beside the encoder, and of its target if it has one.
OWNERS = {"bc": ("actor", None), **dict.fromkeys(AGENTS[1:], ("critic", "critic_target"))}


@pytest.mark.parametrize("name", AGENTS)
def test_it_is_the_agent_of_vectors_on_features(name: str) -> None:
    """States by the encoder, next states by its target; one update tells the same numbers."""
    own, target = OWNERS[name]
    ours = make_agent(name, SPACE)
    state = ours.state_dict()
    if target and name != "iql":
        for value in section(state[target]).values():
            value.add_(0.3)  # so that it matters whose features they are
        ours.load_state_dict(state)
    net = encoder(SPACE)
    theirs = make_agent(name, spaces.Box(-np.inf, np.inf, (net.size,)))
    theirs.load_state_dict(without_encoder(ours.state_dict()))
    batch = make_history_batch()
    features = net(state[own], batch["observations"])
    following = net(state[target or own], batch["next_observations"])
    shown = {**batch, "observations": features, "next_observations": following}
    told = [agent.update(rows, "policy") for agent, rows in ((ours, batch), (theirs, shown))]
    assert told[0].keys() == told[1].keys()
    for metric, value in told[1].items():
        torch.testing.assert_close(told[0][metric], value, rtol=0, atol=1e-10, msg=metric)
    moved = without_encoder(ours.state_dict())
    wanted = theirs.state_dict()
    if name != "diffusion_ql":  # whose clip counts the encoder's gradient
        torch.testing.assert_close(moved[own], wanted[own], rtol=0, atol=1e-10)


def test_iqls_target_values_are_of_the_targets_features() -> None:
    ours, net, batch = make_agent("iql", SPACE), encoder(SPACE), make_history_batch()
    state = ours.state_dict()
    for value in section(state["critic_target"]).values():
        value.add_(0.3)
    ours.load_state_dict(state)
    slow = net(state["critic_target"], batch["observations"])
    actions = ours.box.unscale(batch["actions"])
    wanted = ours.critic_net(state["critic_target"], slow, actions).amin(1).mean(1)
    torch.testing.assert_close(ours.update(batch, "offline")["q_mean"], wanted)


RATES = {
    "td3_bc": ("critic_lr", "actor_lr"),
    "cql": ("critic_lr", "policy_lr"),
    "diffusion_ql": ("critic_lr", "actor_lr"),
    "fastq": ("critic_lr", "actor_lr"),
}


@pytest.mark.parametrize("name", RATES)
def test_the_critic_trains_it_and_the_actor_does_not(name: str) -> None:
    critic, actor = RATES[name]
    for rates, moves in (({critic: 0.0}, False), ({actor: 0.0}, True)):
        agent = make_agent(name, SPACE, **rates)
        before = copy.deepcopy(section(agent.state_dict()["critic"]))
        slow = copy.deepcopy(section(agent.state_dict()["critic_target"]))
        for number in range(2):
            agent.update(make_history_batch(number), "policy")
        after = agent.state_dict()
        for key, value in before.items():
            assert torch.equal(section(after["critic"])[key], value) is not moves, key
            assert torch.equal(section(after["critic_target"])[key], slow[key]) is not moves, key


def test_a_frozen_layer_lets_nothing_through_to_an_encoder() -> None:
    cls = REGISTRY.get("fastq")
    config = make_config(cls, {}, "fastq", "authors_code")
    with pytest.raises(UsageError, match="balance frozen lets no gradient through"):
        cls(replace(make_spec(), observation_space=SPACE), config, SEEDS)


def test_agents_without_an_encoder_say_so() -> None:
    with pytest.raises(UsageError, match="needs a one-dimensional Box of observations, not Dict"):
        make_agent("rebrac", SPACE)


def test_encoders_are_of_one_kind() -> None:
    """All six agents have the same: no comparison is one of encoders."""
    sizes = set()
    for name in AGENTS:
        agent = make_agent(name, SPACE)
        assert isinstance(agent.encoder, Encoder)
        own = section(agent.parts[OWNERS[name][0]])
        sizes.add((agent.encoder, sum(value.numel() for value in own.values())))
    assert len(sizes) == 1
