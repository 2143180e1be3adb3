"""The parts of FAST-Q, each by itself, and the presets that are something known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from oracles import BATCH, SEEDS, UPDATES, Edit, make_batch, make_spec, rebuild
from rows import PARTS, POLICIES, Stages, make_rows
from torch import Tensor, nn

from baselines.check import checks
from baselines.common import Noise
from baselines.config import UsageError
from baselines.contract import Spec
from baselines.registry import Registry, make_config
from baselines.td3_bc import TD3BC
from fastq.agent import FastQ
from fastq.balancing import Balancing, adversary_losses, balanced_accuracy, class_shares
from fastq.critic import DecomposedQ, decomposition_losses, objective_weights
from fastq.diagnosis import diagnose
from fastq.experts import PolicyExperts, pick
from fastq.exploration import swap
from fastq.reversal import reverse
from fastq.schedules import DiscountStages, between

DOUBLE = torch.float64
SMALL = {"hidden": (8, 7), "expert_hidden": (6,), "classifier_hidden": (5,)}


def make_agent(preset: str, **settings: Any) -> FastQ:
    config = make_config(FastQ, {**SMALL, **settings}, "fastq", preset)
    spec = replace(make_spec(), reward_parts=PARTS, policies=5, policy_groups=POLICIES)
    return FastQ(spec, config, SEEDS)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


# The contract --------------------------------------------------------------------------------


def test_it_is_a_plugin_like_any_other() -> None:
    registry = Registry()
    assert registry.sources["fastq"].startswith("installed by")
    assert registry.get("fastq") is FastQ


@pytest.mark.parametrize("check", checks(), ids=lambda check: check.__name__)
def test_contract(check: Any) -> None:
    check(FastQ)


STATES = make_config(
    FastQ, {**FastQ.presets["check"], "experts": "none", "acting": "classifier"}, "fastq"
)
AUTHORS = make_config(FastQ, {**SMALL, "batch_size": 32}, "fastq", "authors_code")


@pytest.mark.parametrize("config", [STATES, AUTHORS], ids=["states", "authors_code"])
@pytest.mark.parametrize(
    "check", [c for c in checks() if c.__name__ != "check_learns"], ids=lambda c: c.__name__
)
def test_contract_of_other_configs(check: Any, config: Any) -> None:
    check(FastQ, config)


# Presets -------------------------------------------------------------------------------------


def test_with_all_parts_off_it_is_td3_bc() -> None:
    ours, theirs = make_agent("td3_bc"), TD3BC(make_spec(), TD3BC.Config(hidden=(8, 7)), SEEDS)
    assert FastQ.needs(ours.config) == TD3BC.needs(theirs.config)
    assert FastQ.phases(ours.config) == [{"name": "policy"}]
    for number in range(30):
        batch = make_batch(number)
        mine, other = ours.update(batch, "policy"), theirs.update(batch, "policy")
        for name in other:
            torch.testing.assert_close(mine[name], other[name], rtol=0, atol=1e-10)
    for part in ("actor", "critic", "actor_target", "critic_target"):
        for name, value in getattr(theirs, part).items():
            torch.testing.assert_close(getattr(ours, part)[name], value, rtol=0, atol=1e-10)


class AuthorsLayer(nn.Module):
    """The balancing layer of the public Gym code."""

    def __init__(self, agent: FastQ, seed: int) -> None:
        super().__init__()
        weights = {name: value[seed].detach() for name, value in agent.balance.items()}
        width = weights["scale"].shape[-1]
        self.linear = nn.Linear(*weights["weight"].shape, dtype=DOUBLE)
        self.norm = nn.BatchNorm1d(width, dtype=DOUBLE)
        with torch.no_grad():
            self.linear.weight.copy_(weights["weight"].T)
            self.linear.bias.copy_(weights["bias"][0])

    def forward(self, states: Tensor) -> Tensor:
        out: Tensor = self.norm(nn.functional.elu(self.linear(states)))
        return out


def test_authors_code_is_td3_bc_on_a_random_layer() -> None:
    agent = make_agent("authors_code")
    before = {name: value.detach().clone() for name, value in agent.balance.items()}
    spec = replace(make_spec(), observation_space=_box(agent.critic_net.mlp.sizes[0] - 2))
    layers = [AuthorsLayer(agent, i) for i in range(len(SEEDS))]
    plain = TD3BC(spec, TD3BC.Config(hidden=(8, 7)), SEEDS)
    for part in ("actor", "critic", "actor_target", "critic_target"):
        for name, value in getattr(plain, part).items():
            with torch.no_grad():
                value.copy_(getattr(agent, part)[name])
    for number in range(UPDATES):
        batch = make_batch(number)
        agent.update(batch, "policy")
        features, following = [], []
        for i, layer in enumerate(layers):  # three passes of training a step
            layer(batch["observations"][i])
            features.append(layer(batch["observations"][i]))
            following.append(layer(batch["next_observations"][i]))
        seen = {
            "observations": torch.stack(features).detach(),
            "next_observations": torch.stack(following).detach(),
        }
        plain.update(batch | seen, "offline")
    for part in ("actor", "critic", "critic_target"):
        for name, value in getattr(plain, part).items():
            torch.testing.assert_close(getattr(agent, part)[name], value, rtol=0, atol=1e-10)
    for name, value in before.items():  # it is never trained
        assert torch.equal(agent.balance[name], value)
    states = make_batch(50)["observations"]
    for i, layer in enumerate(layers):  # acting uses the running moments
        layer.eval()
        expected = layer(states[i])
        torch.testing.assert_close(agent.features_to_act(states)[i], expected, rtol=0, atol=1e-10)


def _box(features: int) -> Any:
    from gymnasium import spaces

    return spaces.Box(-np.inf, np.inf, (features,), np.float64)


@pytest.mark.parametrize("preset", ["paper", "paper_mujoco"])
def test_one_logging_policy_leaves_no_one_to_ask(preset: str) -> None:
    config = make_config(FastQ, SMALL, "fastq", preset)
    spec = replace(make_spec(), reward_parts=PARTS, policies=1, policy_groups=1)
    agent = FastQ(spec, config, SEEDS)
    assert not agent.explores
    assert not agent.judges
    batch = make_rows(0)
    batch["policy_groups"] = torch.zeros_like(batch["policy_groups"])
    metrics = agent.update(batch, "offline")
    assert "policy_accuracy" not in metrics
    assert "exploration" not in metrics


# Gradient reversal and the classifier --------------------------------------------------------


def test_reversal_gradients() -> None:
    """The classifier's gradient is plain cross-entropy, BR's is -lambda times it."""
    agent = make_agent("paper_mujoco")
    batch = make_rows(3)
    groups = batch["policy_groups"]

    def gradients(weight: float | None) -> dict[str, Tensor]:
        z = agent.balanced(batch["observations"], training=True)
        z = z if weight is None else reverse(z, weight)
        loss = adversary_losses(agent.classifier_net(agent.classifier, z), groups).sum()
        names = [*agent.classifier, *(f"BR {name}" for name in agent.balance)]
        leaves = [*agent.classifier.values(), *agent.balance.values()]
        return dict(zip(names, torch.autograd.grad(loss, leaves), strict=True))

    plain, reversed_ = gradients(None), gradients(0.3)
    assert any(plain[f"BR {name}"].abs().max() > 1e-6 for name in agent.balance)
    for name, value in plain.items():
        factor = -0.3 if name.startswith("BR ") else 1.0
        torch.testing.assert_close(reversed_[name], factor * value, rtol=1e-12, atol=1e-15)


def test_the_actor_gives_the_representation_no_gradient() -> None:
    agent = make_agent("paper_mujoco")
    batch = make_rows(3)
    agent.update(batch, "policy")
    before = {name: value.detach().clone() for name, value in agent.balance.items()}
    actions = agent.box.unscale(batch["actions"])
    agent.improve_actor(batch, batch["observations"], batch["observations"], actions)
    for name, value in before.items():
        assert torch.equal(agent.balance[name], value)


def test_verdicts_balance_the_classes() -> None:
    groups = torch.tensor([[0, 0, 0, 1], [2, 2, 2, 2]])
    shares = class_shares(groups, 3, DOUBLE)
    expected = torch.tensor([[1 / 6, 1 / 6, 1 / 6, 1 / 2], [1 / 4] * 4], dtype=DOUBLE)
    torch.testing.assert_close(shares, expected)
    logits = torch.zeros(2, 4, 3, dtype=DOUBLE)
    logits[..., 0] = 2.0  # says "0" of everyone
    assert balanced_accuracy(logits, groups).tolist() == pytest.approx([0.5, 0.0])
    frequency = torch.bincount(groups[0], minlength=3).to(DOUBLE)
    weights = torch.where(frequency > 0, 1 / frequency.clamp(min=1), 0)
    reference = nn.functional.cross_entropy(logits[0], groups[0], weight=weights)
    torch.testing.assert_close(adversary_losses(logits, groups)[0], reference)


def test_balancing_is_a_torch_layer_per_seed() -> None:
    net = Balancing(4, 6)
    noise = Noise.for_seeds(SEEDS, "init", dtype=DOUBLE)
    parameters = net.init(noise)
    moments = net.statistics(parameters)
    with torch.no_grad():
        parameters["scale"] += normal(len(SEEDS), 6)
        parameters["shift"] += normal(len(SEEDS), 6, seed=1)
    layers = []
    for i in range(len(SEEDS)):
        linear, norm = nn.Linear(4, 6, dtype=DOUBLE), nn.BatchNorm1d(6, dtype=DOUBLE)
        with torch.no_grad():
            linear.weight.copy_(parameters["weight"][i].T)
            linear.bias.copy_(parameters["bias"][i, 0])
            norm.weight.copy_(parameters["scale"][i])
            norm.bias.copy_(parameters["shift"][i])
        layers.append(nn.Sequential(linear, nn.ELU(), norm))
    for number in range(3):
        states = 3 * normal(len(SEEDS), 10, 4, seed=number)
        found = net(parameters, moments, states, training=True)
        expected = torch.stack([f(s) for f, s in zip(layers, states, strict=True)])
        torch.testing.assert_close(found, expected)
    for i, layer in enumerate(layers):
        layer.eval()
        norm: Any = layer[2]
        torch.testing.assert_close(moments["mean"][i], norm.running_mean)
        torch.testing.assert_close(moments["variance"][i], norm.running_var)
        found = net(parameters, moments, states, training=False)[i]
        torch.testing.assert_close(found, layer(states[i]))


# Experts and exploration ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["separate", "shared"])
def test_experts_learn_from_their_own_policy_only(kind: Any) -> None:
    experts = PolicyExperts.build(3, spaces.Box(-1, 1, (4,)), 2, (8,), kind)
    parameters = experts.init(Noise.for_seeds(SEEDS, "init", dtype=DOUBLE))
    states, groups = normal(len(SEEDS), 30, 4), torch.arange(30).repeat(len(SEEDS), 1) % 2
    losses = experts.losses(
        parameters, states, torch.zeros(len(SEEDS), 30, 2, dtype=DOUBLE), groups
    )
    (gradient,) = torch.autograd.grad(losses.sum(), [parameters["head.weight0"]])
    assert gradient[:, :2].abs().amin((1, 2, 3)).ge(0).all()
    assert gradient[:, :2].abs().amax((2, 3)).gt(0).all()
    assert gradient[:, 2].abs().max() == 0  # policy 2 has no samples


def test_experts_tell_what_each_policy_does() -> None:
    """Two policies act oppositely in the same states; a shared clone would answer 0."""
    agent = make_agent("paper_mujoco", expert_lr=0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        states = torch.randn(len(SEEDS), 64, 4, generator=generator, dtype=DOUBLE)
        groups = torch.randint(3, (len(SEEDS), 64), generator=generator)
        unit = (groups - 1.0).unsqueeze(-1) * 0.6 * states[..., :1].tanh().expand(-1, -1, 2)
        batch = {"observations": states, "actions": agent.box.scale(unit), "policy_groups": groups}
        agent.update({**batch, "rewards": groups.double()}, "represent")
    states = normal(len(SEEDS), 20, 4, seed=5)
    told = agent.box.unscale(agent.counterfactual_actions(states))
    true = torch.tensor([-1.0, 0.0, 1.0]).reshape(1, 1, 3, 1) * 0.6 * states[..., None, :1].tanh()
    assert (told - true).abs().mean() < 0.1


def test_representing_trains_experts_alone_and_the_policy_leaves_them() -> None:
    agent = make_agent("paper")
    start = agent.state_dict()
    agent.update(make_rows(0), "represent")
    after = agent.state_dict()
    assert not torch.equal(start["experts"]["head.weight0"], after["experts"]["head.weight0"])
    assert all(torch.equal(start[p]["weight0"], after[p]["weight0"]) for p in ("actor", "critic"))
    assert after["updates"] == 0
    for number in range(4):
        agent.update(make_rows(number), "policy")
    last = agent.state_dict()
    for name, value in after["experts"].items():
        assert torch.equal(last["experts"][name], value)
    assert not torch.equal(last["actor"]["weight0"], after["actor"]["weight0"])


def test_swaps_are_one_coin_per_sample_and_never_to_oneself() -> None:
    generator = torch.Generator().manual_seed(0)
    groups = torch.randint(4, (2, 40_000), generator=generator)
    coins = torch.rand(groups.shape, generator=generator)
    jumps = torch.randint(3, groups.shape, generator=generator)
    chosen = swap(groups, coins, jumps, 4, 0.3)
    away = chosen != groups
    assert torch.equal(away, coins < 0.3)
    assert away.double().mean() == pytest.approx(0.3, abs=0.01)
    for policy in range(4):
        visited = torch.bincount(chosen[away & (groups == policy)], minlength=4).double()
        assert visited[policy] == 0
        assert (visited / visited.sum()).max() < 0.36  # all others alike


# The critic ----------------------------------------------------------------------------------


def test_decomposition() -> None:
    net = DecomposedQ.build(4, 2, (8,), 2)
    parameters = net.init(Noise.for_seeds(SEEDS, "init", dtype=DOUBLE))
    z, a = normal(len(SEEDS), 9, 4), normal(len(SEEDS), 9, 2, seed=1)
    outputs = net(parameters, z, a)
    w = objective_weights(outputs)
    assert w.shape == (len(SEEDS), 2, 9, 3)
    torch.testing.assert_close(w.sum(-1), torch.ones_like(w[..., 0]))
    torch.testing.assert_close(net.values(parameters, z, a), outputs[..., 0])
    torch.testing.assert_close(net.first(parameters, z, a), outputs[:, 0, :, 0])
    # Parts that are what the weights say cost nothing; the overflow may be anything.
    exact = (w[:, 0, :, :-1] * outputs[:, 0, :, :1]).detach()
    both = outputs[:, :1].expand(-1, 2, -1, -1)
    assert decomposition_losses(both, exact).abs().max() < 1e-20
    off_by_one = decomposition_losses(both, exact + 1)
    torch.testing.assert_close(off_by_one, torch.full_like(off_by_one, 2.0))  # both twins


def test_parts_that_cost_have_no_weight() -> None:
    agent = make_agent("paper_mujoco")
    told = agent.decompose(make_rows(0)["observations"], make_rows(0)["actions"])
    assert told["parts"] == ("forward", "survive")
    assert told["weights"].shape == (len(SEEDS), BATCH, 3)
    batch = make_rows(0)
    rewards = agent.objective_rewards(batch)
    assert (rewards >= 0).all()
    assert torch.equal(rewards > 0, batch["reward_parts"][..., :2] > 0)


# Schedules -----------------------------------------------------------------------------------


def test_lines() -> None:
    assert [between((0.1, 0.5), p) for p in (0.0, 0.5, 1.0, 2.0)] == pytest.approx(
        [0.1, 0.3, 0.5, 0.5]
    )


def climbs_as_told(cls: Any) -> None:
    """Follows losses that settle, jump, grow and settle again, beside the same in plain numbers.

    Raises:
        AssertionError: where they first differ.
    """
    updates, discounts = 400, (0.1, 0.5, 0.7, 0.9)
    rng = np.random.default_rng(0)
    number = np.arange(updates)
    losses = np.stack(
        [
            np.where(number < 12, 1.0, 8.0) + 0.02 * rng.normal(size=updates),  # jumps, settles
            np.where(number < 76, 1.05**number, 1.05**76),  # grows past a deadline, settles
            np.where(number // 8 % 2, 3.0, 1.0),  # never settles
            0.951 ** (number // 8),  # falls by just less than 5 % from window to window
        ]
    )
    scale = np.exp(rng.normal(size=(4, updates)))  # of targets; the loss is relative to it
    noise = rng.normal(size=(4, 10))
    noise = (noise - noise.mean(1, keepdims=True)) / noise.std(1, ddof=1, keepdims=True)
    stages = cls(discounts, updates, torch.zeros(4, dtype=DOUBLE))
    plain = [Stages(discounts, updates) for _ in losses]
    for n in number:
        targets = noise * scale[:, n, None]
        loss = losses[:, n] * scale[:, n] ** 2
        stages.observe(torch.from_numpy(loss), torch.from_numpy(targets), int(n) + 1)
        for i, one in enumerate(plain):
            one.observe(loss[i], targets[i])
        assert stages.state["stage"].tolist() == [one.stage for one in plain], n
        assert stages.state["forced"].tolist() == [one.forced for one in plain], n
    assert [one.stage for one in plain] == [3, 3, 3, 3]
    assert [one.forced for one in plain] == [0, 1, 3, 0]
    torch.testing.assert_close(stages.discounts, torch.full((4,), 0.9, dtype=DOUBLE))

    # Stable at the very update at which the time is up: not forced.
    stages = cls(np.linspace(0, 0.9, 13).tolist(), 48, torch.zeros(1, dtype=DOUBLE))
    for n in range(48):
        stages.observe(torch.ones(1, dtype=DOUBLE), torch.from_numpy(noise[:1]), n + 1)
        assert stages.state["stage"].item() == min(12, (n + 1) // 2)
    assert stages.state["forced"].item() == 0


def test_discounts_rise_when_the_loss_is_stable_or_the_time_is_up() -> None:
    climbs_as_told(DiscountStages)


@pytest.mark.parametrize(
    "edit",
    [
        ("(i + 1) * updates", "(i + 2) * updates"),
        ("targets.var(1)", "targets.var()"),
        ("late & ~settled", "late"),
        ('s["sum"].zero_()', "pass"),
        ('s["sum"].zero_()', 's["sum"].masked_fill_(rises, 0)'),
        (".masked_fill(rises, math.inf)", ""),
        ("if updates % self.window:", "if False:"),
        ("updates > self.over", "updates >= self.over"),
        ('< CALM * s["before"]', "< CALM * mean"),
        ("CALM = 0.05", "CALM = 0.2"),
        ("0.02 * updates", "0.1 * updates"),
    ],
    ids=lambda edit: edit[1],
)
def test_the_climb_kills(edit: Edit) -> None:
    with pytest.raises(AssertionError):
        climbs_as_told(rebuild("fastq.schedules", [edit]).DiscountStages)


def test_one_discount_is_constant() -> None:
    stages = DiscountStages((0.99,), 10, torch.zeros(2))
    stages.observe(torch.ones(2), torch.ones(2, 5), 10)
    assert stages.discounts.tolist() == pytest.approx([0.99, 0.99])


# Acting --------------------------------------------------------------------------------------


def acts(acting: str) -> tuple[FastQ, Tensor]:
    agent = make_agent("paper", acting=acting)
    for number in range(4):
        agent.update(make_rows(number), "offline")
    return agent, agent.features_to_act(make_batch(9)["observations"])


def test_acting_takes_the_mean_of_the_views_or_one_of_them() -> None:
    states = make_batch(9)["observations"]
    agent, mean = acts("mean")
    groups = [torch.full((len(SEEDS), BATCH), k) for k in range(POLICIES)]
    views = [agent.represent(states, group)["after"] for group in groups]
    torch.testing.assert_close(mean, torch.stack(views).mean(0))
    for k in range(POLICIES):
        torch.testing.assert_close(acts(f"fixed:{k}")[1], views[k])

    everyone = torch.stack(views, 1)
    likeness = agent.classifier_net(agent.classifier, everyone.flatten(1, 2)).softmax(-1)
    likeness = likeness.reshape(len(SEEDS), POLICIES, BATCH, POLICIES)
    own = torch.stack([likeness[:, k, :, k] for k in range(POLICIES)], 1)
    torch.testing.assert_close(acts("classifier")[1], pick(everyone, own.argmax(1)))

    def promise(view: Tensor) -> Tensor:
        actions = agent.policy(agent.actor, view)
        return agent.critic_net.values(agent.critic, view, actions).amin(1)

    best = torch.stack([promise(view) for view in views], 1).argmax(1)
    torch.testing.assert_close(acts("q_argmax")[1], pick(everyone, best))


def test_values_are_what_the_critic_says_of_the_sample_s_own_view() -> None:
    agent, _ = acts("mean")
    batch = make_rows(2)
    states, groups = batch["observations"], batch["policy_groups"]
    features = agent.represent(states, groups)["after"]
    unit = agent.box.unscale(batch["actions"])
    expected = agent.critic_net(agent.critic, features, unit)[..., 0].amin(1)
    torch.testing.assert_close(agent.value(states, batch["actions"], groups), expected)


# Mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"discounts": (0.9, 0.5)}, "discounts must rise"),
        ({"discounts": (0.9, 1.5)}, "from 0 to 1"),
        ({"discounts": ()}, "discounts must be one number"),
        ({"exploration": (0.1, 2.0)}, "exploration must be from 0 to 1, not 2"),
        ({"acting": "best"}, "fixed:<k>"),
        ({"acting": "classifier", "adversary": 0.0}, "set adversary above 0"),
        ({"balance": "none"}, "set adversary to 0"),
        ({"tau": 2.0}, "tau must be"),
    ],
)
def test_wrong_settings_are_told(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make_config(FastQ, settings, "fastq")


def test_acting_by_a_policy_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="3 logging policies"):
        make_agent("paper", acting="fixed:3")


def test_needs_follow_the_parts_that_are_on() -> None:
    def fields(preset: str, **settings: Any) -> set[str]:
        return set(FastQ.needs(make_config(FastQ, settings, "fastq", preset)).fields)

    assert {"policy_groups", "reward_parts"} <= fields("paper_mujoco")
    assert "policy_groups" not in fields("single_policy")
    assert "reward_parts" not in fields("paper", decomposition=0.0)
    assert fields("authors_code") == set(TD3BC.needs(TD3BC.Config()).fields)


# Failure signatures --------------------------------------------------------------------------


def point(update: int, **metrics: float) -> dict[str, Any]:
    return {"update": update, "metrics": {**metrics, "progress": update / 100}}


@pytest.mark.parametrize(
    ("metrics", "name"),
    [
        ({"policy_accuracy": 0.95}, "balancing_collapsed"),
        ({"q_excess": 3.0}, "q_explosion"),
        ({"weight_saturation": 0.99}, "decomposition_saturated"),
        ({"nearest_policy_share": 0.99}, "actions_clustered"),
        ({"discounts_forced": 0.8}, "discount_stalled"),
    ],
)
def test_failures_have_names(metrics: dict[str, float], name: str) -> None:
    quiet = dict.fromkeys(metrics, 0.0)
    curve = [point(10, **metrics), point(60, **quiet), point(80, **metrics), point(100, **metrics)]
    (found,) = diagnose(curve)  # what is seen before things have settled does not count
    assert (found["name"], found["update"]) == (name, 80)
    assert "{" not in found["text"]
    assert diagnose([point(update, **quiet) for update in (10, 100)]) == []


def test_no_curve_no_failure() -> None:
    assert FastQ.diagnose([]) == []


def test_a_forced_discount_is_diagnosed_from_a_real_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fastq.agent.WATCH", 1)
    monkeypatch.setattr("fastq.schedules.CALM", 0.0)  # nothing is stable
    agent = make_agent("paper_mujoco", discounts=(0.1, 0.9))
    curve = []
    for number in range(4):
        metrics = agent.update(make_rows(number), "policy")
        values = {name: v[0].item() for name, v in metrics.items()}
        curve.append({"update": number, "metrics": values})
    assert curve[-1]["metrics"]["progress"] == pytest.approx(4 / UPDATES)
    assert "discount_stalled" in {found["name"] for found in diagnose(curve)}


def test_spec_is_a_frozen_fact() -> None:
    """The agent reads groups from the spec, not from a batch that lacks some of them."""
    spec: Spec = replace(make_spec(), reward_parts=PARTS, policies=9, policy_groups=5)
    agent = FastQ(spec, make_config(FastQ, SMALL, "fastq"), SEEDS)
    assert agent.counterfactual_actions(make_batch(0)["observations"]).shape[2] == 5
