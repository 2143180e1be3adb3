"""Spaces as factors, mixers whose best joint action is known, and models that find effects."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baselines.common import Noise
from baselines.config import UsageError
from baselines.contract import Batch, Phase, Spec
from baselines.factor_model import FactorModel, marginal_batches
from baselines.factored import Factors, Mixer, MixerKind, epsilon_greedy

SEEDS = (3, 8)
MIXED = Factors.of(spaces.MultiDiscrete([3, 5, 2], start=[0, -2, 7]), 3, (1, 0, 8))


def some_choices(factors: Factors, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.stack(
        [torch.randint(n, shape, generator=generator) for n in factors.sizes], len(shape)
    )


# Spaces --------------------------------------------------------------------------------------


def test_integers_are_their_own_factors() -> None:
    assert (MIXED.sizes, MIXED.noop, MIXED.joint, MIXED.choices) == ((3, 5, 2), (1, 2, 1), 30, 10)
    actions = torch.tensor([[2, -2, 8], [0, 2, 7]])
    assert MIXED.encode(actions).tolist() == [[2, 0, 1], [0, 4, 0]]
    assert torch.equal(MIXED.decode(MIXED.encode(actions)), actions)
    assert MIXED.binning_error(actions).tolist() == [0, 0, 0]


def test_one_discrete_number_is_one_factor() -> None:
    factors = Factors.of(spaces.Discrete(4, start=5), 3)
    assert (factors.count, factors.noop) == (1, (0,))
    assert factors.encode(torch.tensor([5, 8])).tolist() == [[0], [3]]
    assert factors.decode(torch.tensor([[0], [3]])).tolist() == [5, 8]


def test_a_box_is_cut_at_its_bounds_and_its_middle() -> None:
    box = spaces.Box(np.array([-0.5, -3.0]), np.array([1.5, -1.0]), dtype=np.float64)
    factors = Factors.of(box, 5, dtype=torch.float64)
    assert (factors.sizes, factors.noop) == ((5, 5), (2, 2))
    values = factors.decode(torch.arange(5).unsqueeze(-1).expand(-1, 2))
    np.testing.assert_allclose(values[:, 0], [-0.5, 0, 0.5, 1, 1.5], atol=1e-12)
    np.testing.assert_allclose(values[:, 1], [-3, -2.5, -2, -1.5, -1], atol=1e-12)
    beside = values + torch.tensor([0.2, -0.2]).double()
    assert torch.equal(factors.encode(beside)[:, 0], torch.arange(5))
    # Errors of up to a quarter of half the range, uniform: 0.25 / sqrt(3).
    uniform = torch.linspace(0, 1, 40_001).double().unsqueeze(-1) * 2 + values[:1]
    np.testing.assert_allclose(factors.binning_error(uniform), 0.25 / 3**0.5, rtol=1e-3)


@pytest.mark.parametrize(
    ("space", "bins", "noop", "message"),
    [
        (spaces.Box(-1, 1, (2,)), 4, None, "bins must be odd"),
        (spaces.Box(-1, 1, (2,)), 1, None, "bins must be odd"),
        (spaces.MultiDiscrete([[2, 3]]), 3, None, "MultiDiscrete of one axis"),
        (spaces.MultiBinary(3), 3, None, "MultiDiscrete of one axis"),
        (spaces.MultiDiscrete([2, 3]), 3, (1, 3), "no-op .* lies outside"),
    ],
)
def test_other_spaces_are_refused(space: Any, bins: int, noop: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Factors.of(space, bins, noop)


def test_joint_numbers_count_all_actions_once() -> None:
    everything = MIXED.from_joint(torch.arange(30))
    assert everything.tolist() == [list(a) for a in itertools.product(*map(range, MIXED.sizes))]
    assert torch.equal(MIXED.joint_index(everything), torch.arange(30))


def test_values_by_choice_find_their_factor() -> None:
    values, choices = torch.randn(2, 6, 10), some_choices(MIXED, 2, 6)
    table = MIXED.split(values)
    assert table.shape == (2, 6, 3, 5)
    assert torch.equal(table.gather(-1, choices[..., None])[..., 0], MIXED.chosen(values, choices))
    assert torch.equal(table.isinf().sum(-1), torch.tensor([2, 0, 3]).expand(2, 6, 3))
    hot = MIXED.one_hot(choices, torch.float32)
    torch.testing.assert_close((hot * values).sum(-1), MIXED.chosen(values, choices).sum(-1))
    each = torch.randn(2, 3, 6, 10)
    own = MIXED.own(each)
    for k in range(3):
        assert torch.equal(own[:, :, k], MIXED.split(each)[:, k, :, k])


def test_an_intervention_keeps_one_choice() -> None:
    choices = some_choices(MIXED, 2, 6)
    asked = MIXED.interventions(choices)
    assert asked.shape == (2, 3, 6, 3)
    for k, j in itertools.product(range(3), range(3)):
        wanted = choices[..., k] if j == k else torch.full((2, 6), MIXED.noop[j])
        assert torch.equal(asked[:, k, :, j], wanted)


def test_epsilon_is_the_share_of_uniform_joint_actions() -> None:
    noise = Noise.for_seeds(SEEDS, "exploration")
    noise.lead = (2, 1)
    greedy = torch.full((2, 1, 2), 1)
    drawn = torch.cat([epsilon_greedy(noise, greedy, (3, 5), 0.6) for _ in range(3000)], 1)
    assert (drawn.amin((0, 1)).tolist(), drawn.amax((0, 1)).tolist()) == ([0, 0], [2, 4])
    kept = (drawn == 1).all(-1).float().mean().item()
    assert kept == pytest.approx(0.4 + 0.6 / 15, abs=0.02)
    assert torch.equal(epsilon_greedy(noise, greedy, (3, 5), 0.0), greedy)


# Mixers --------------------------------------------------------------------------------------


def every_value(mixer: Mixer, parameters: Any, values: Tensor) -> Tensor:
    """F of all joint actions ``[S, B, joint]``, from values ``[S, B, K, N]``."""
    count, size = values.shape[-2:]
    rows = [
        torch.stack([values[:, :, k, a] for k, a in enumerate(joint)], -1)
        for joint in itertools.product(range(size), repeat=count)
    ]
    return torch.stack([mixer(parameters, row) for row in rows], -1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(get_args(MixerKind)), st.integers(1, 3))
def test_the_best_choices_are_the_best_joint_ones(seed: int, kind: Any, count: int) -> None:
    """For all mixers that grow with every value; the ascent of the other never falls."""
    mixer = Mixer(kind, count, hidden=8)
    noise = Noise.for_seeds([seed, seed + 1], "init", dtype=torch.float64)
    parameters = {k: v + noise.normal(*v.shape[1:]) for k, v in mixer.init(noise).items()}
    values = 3 * noise.normal(5, count, 4)
    values[:, :, 0, 2:] = -torch.inf  # as of a factor with fewer choices
    best = mixer.best(parameters, values)
    assert bool(values.gather(-1, best.unsqueeze(-1)).isfinite().all())

    def mixed(choices: Tensor) -> Tensor:
        return mixer(parameters, values.gather(-1, choices.unsqueeze(-1)).squeeze(-1))

    if kind != "two_layer":
        joint = every_value(mixer, parameters, values.nan_to_num(neginf=-1e9))
        assert bool((mixed(best) >= joint.amax(-1) - 1e-9).all())
    else:
        assert bool((mixed(best) >= mixed(values.argmax(-1)) - 1e-9).all())
        settled = Mixer(kind, count, hidden=8, sweeps=20).best(parameters, values)
        for k in range(count):  # at last no single factor could do better
            for choice in range(2 if k == 0 else 4):
                other = settled.clone()
                other[..., k] = choice
                assert bool((mixed(settled) >= mixed(other) - 1e-9).all())


@pytest.mark.parametrize("kind", ["linear", "relu"])
def test_monotone_mixers_start_near_the_mean(kind: Any) -> None:
    mixer = Mixer(kind, 4, hidden=256)
    parameters = mixer.init(Noise.for_seeds(SEEDS, "init", dtype=torch.float64))
    low, high = torch.zeros(2, 1, 4).double(), torch.full((2, 1, 4), 50.0).double()
    rise = (mixer(parameters, high) - mixer(parameters, low)) / 50
    torch.testing.assert_close(rise, torch.ones_like(rise), rtol=0.0, atol=0.2)


# Models --------------------------------------------------------------------------------------


FACTORS = Factors.of(spaces.MultiDiscrete([5, 5]), 3, (2, 2))


def made_batch(number: int) -> tuple[Batch, Tensor]:
    """Two numbers that drift by half themselves and are moved by a factor each; r = -|s'|^2."""
    noise = Noise([(seed, "batch", number) for seed in SEEDS], [2])
    seen, choices = 2 * noise.uniform(64, 2) - 1, noise.integers(5, 64, 2)
    after = seen / 2 + (choices - 2) / 2
    batch = {
        "observations": seen,
        "next_observations": after,
        "rewards": 5 - after.square().sum(-1),
        "terminations": (after.amax(-1) > 1).float(),
    }
    return batch, choices


def make_model(synthetic: Any = "auto", noise: float = 0.0) -> FactorModel:
    spec = Spec(
        spaces.Box(-2, 2, (2,)),
        spaces.MultiDiscrete([5, 5]),
        (Phase("online", 1),),
        noop=(2, 2),
        effects=((0,), (1,)),
    )
    init = Noise.for_seeds(SEEDS, "model")
    return FactorModel(spec, FACTORS, init, synthetic=synthetic, hidden=(64,), lr=1e-2, noise=noise)


@pytest.mark.parametrize("synthetic", ["effects", "intervention"])
def test_models_learn_what_one_factor_does_alone(synthetic: Any) -> None:
    model, calm = make_model(synthetic), Noise.for_seeds(SEEDS, "update")
    for number in range(250):
        metrics = model.update(*made_batch(number))
    batch, choices = made_batch(1000)
    made = model.batches(batch, choices, calm)
    for k in (0, 1):
        wanted = batch["observations"] / 2
        wanted[..., k] = batch["next_observations"][..., k]
        error = (made["next_observations"][:, k] - wanted).abs().mean()
        rewards = 5 - wanted.square().sum(-1)
        assert error < 0.06
        assert (made["rewards"][:, k] - rewards).abs().mean() < 0.15
        ends = (wanted.amax(-1) > 1).float()
        assert (made["terminations"][:, k].round() == ends).float().mean() > 0.9
        if synthetic == "effects":
            assert torch.equal(made["next_observations"][:, k, :, k], wanted[..., k])
    # 4 of 5 choices are no no-op; 9 of 25 joint actions have at most one such.
    assert metrics["moved"].mean().item() == pytest.approx(0.8, abs=0.1)
    assert metrics["support"].mean().item() == pytest.approx(0.36, abs=0.12)
    predicted, rewards, _ = model.predict(batch["observations"], choices)
    assert (predicted - batch["next_observations"]).abs().mean() < 0.05
    assert (rewards - batch["rewards"]).abs().mean() < 0.15


def test_noise_comes_in_deviations_of_what_is_predicted() -> None:
    calm, noisy = make_model("intervention"), make_model("intervention", 0.5)
    for number in range(30):
        calm.update(*made_batch(number))
        noisy.update(*made_batch(number))
    batch, choices = made_batch(1000)
    batch = {key: value.repeat_interleave(50, 1) for key, value in batch.items()}
    choices = choices.repeat_interleave(50, 1)
    without = calm.batches(batch, choices, Noise.for_seeds(SEEDS, "update"))
    added = noisy.batches(batch, choices, Noise.for_seeds(SEEDS, "update"))
    spread = (added["next_observations"] - without["next_observations"]).std((1, 2))
    torch.testing.assert_close(spread, 0.5 * calm.deviations()[:, 0, :-1], rtol=0.05, atol=0.0)
    rows = torch.cat(
        [torch.cat([b["next_observations"] - b["observations"], b["rewards"][..., None]], -1)
         for b, _ in map(made_batch, range(30))], 1
    )  # fmt: skip
    torch.testing.assert_close(calm.deviations()[:, 0], rows.std(1), rtol=0.05, atol=0.0)


def test_marginal_batches_are_the_real_one() -> None:
    batch, _ = made_batch(0)
    made = marginal_batches(batch, FACTORS)
    for field, value in made.items():
        assert value.shape[:3] == (2, 2, 64)
        for k in (0, 1):
            assert torch.equal(value[:, k], batch[field])
    with pytest.raises(UsageError, match="need no model"):
        make_model("marginal")
