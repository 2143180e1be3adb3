"""Noise, gradient steps, targets and saved states."""

from __future__ import annotations

import pytest
import torch

from baselines.common import (
    Adam,
    Noise,
    Stateful,
    clip_per_seed,
    copy_parameters,
    copy_state,
    derive_seed,
    expectile_loss,
    polyak,
)

SEEDS = (3, 11, 42)


def test_derived_seeds_are_stable_and_distinct() -> None:
    assert derive_seed(3, "init") == 4235290823298658603
    keys = [(s, stream, n) for s in range(20) for stream in ("a", "b") for n in range(20)]
    assert len({derive_seed(*key) for key in keys}) == len(keys)


def test_a_seed_draws_the_same_alone_and_in_a_stack() -> None:
    stacked = Noise.for_seeds(SEEDS, "update")
    alone = [Noise.for_seeds([seed], "update") for seed in SEEDS]
    for draw in (
        lambda n: n.normal(4, 2),
        lambda n: n.uniform(3),
        lambda n: n.integers(9, 5),
        lambda n: n.normal(),
    ):
        together = draw(stacked)
        assert torch.equal(together, torch.cat([draw(n) for n in alone]))
        assert together[0].ne(together[1]).any()


def test_streams_and_evaluations_differ() -> None:
    draws = [
        Noise.for_seeds([3], "init").normal(4),
        Noise.for_seeds([3], "update").normal(4),
        Noise.for_episodes([3], "init", 0, [0]).normal(4)[0],
        Noise.for_episodes([3], "init", 1, [0]).normal(4)[0],
        Noise.for_episodes([3], "init", 0, [1]).normal(4)[0],
    ]
    for i, a in enumerate(draws):
        assert all(not torch.equal(a, b) for b in draws[:i])


def test_an_episode_draws_the_same_wherever_it_stands() -> None:
    a = Noise.for_episodes(SEEDS, "evaluation", 2, [0, 1, 2]).normal(5)
    b = Noise.for_episodes(SEEDS[::-1], "evaluation", 2, [2, 0]).normal(5)
    assert a.shape == (3, 3, 5)
    assert torch.equal(a[:, [2, 0]], b.flip(0))


def test_noise_shapes_ranges_and_types() -> None:
    noise = Noise.for_seeds(SEEDS, "x", dtype=torch.float64)
    assert noise.normal().shape == (3,)
    uniform = noise.uniform(1000)
    assert uniform.dtype == torch.float64
    assert 0 <= uniform.min() < 0.05
    assert 0.95 < uniform.max() < 1
    integers = noise.integers(7, 500)
    assert integers.dtype == torch.int64
    assert set(integers.flatten().tolist()) == set(range(7))
    assert abs(noise.normal(5000).std() - 1) < 0.05


def test_noise_continues_from_its_state() -> None:
    noise = Noise.for_seeds(SEEDS, "x")
    noise.normal(3)
    state = noise.state_dict()
    expected = noise.normal(5), noise.integers(100, 5)
    other = Noise.for_seeds((1, 2, 3), "y")
    other.load_state_dict(copy_state(state))
    assert torch.equal(other.normal(5), expected[0])
    assert torch.equal(other.integers(100, 5), expected[1])


def stacked_parameters(dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    noise = Noise.for_seeds(SEEDS, "parameters", dtype=dtype)
    return {
        "weight": noise.normal(4, 2).requires_grad_(),
        "bias": noise.normal(1, 2).requires_grad_(),
    }


def losses_of(parameters: dict[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
    outputs = inputs @ parameters["weight"] + parameters["bias"]
    return outputs.sin().square().mean((1, 2))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_equals_torchs_for_each_seed(weight_decay: float) -> None:
    parameters = stacked_parameters()
    adam = Adam(parameters, 0.05, weight_decay=weight_decay)
    kind = torch.optim.AdamW if weight_decay else torch.optim.Adam
    alone = [
        {k: v[i : i + 1].detach().clone().requires_grad_() for k, v in parameters.items()}
        for i in range(3)
    ]
    theirs = [kind(p.values(), lr=0.05, weight_decay=weight_decay) for p in alone]
    inputs = Noise.for_seeds(SEEDS, "inputs", dtype=torch.float64)
    for _ in range(20):
        x = inputs.normal(8, 4)
        adam.step(losses_of(parameters, x))
        for i, optimizer in enumerate(theirs):
            optimizer.zero_grad()
            losses_of(alone[i], x[i : i + 1]).sum().backward()
            optimizer.step()
    for name, value in parameters.items():
        expected = torch.cat([p[name] for p in alone])
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


def test_cosine_schedule_equals_the_formula_and_stays_at_zero() -> None:
    adam = Adam({"x": torch.ones(1, requires_grad=True)}, 0.1, cosine_steps=4)
    rates = []
    for _ in range(6):
        rates.append(adam.current_lr)
        adam.step(adam.parameters[0].sum(0, keepdim=True))
    assert rates == pytest.approx([0.1, 0.0853553, 0.05, 0.0146447, 0.0, 0.0], abs=1e-7)


def test_clipping_is_per_seed_and_over_all_parameters() -> None:
    gradients = [torch.tensor([[3.0], [0.3], [0.0]]), torch.tensor([[[4.0]], [[0.4]], [[0.0]]])]
    clipped = clip_per_seed(gradients, 1.0)
    norms = torch.stack([g.flatten(1) for g in clipped]).square().sum((0, 2)).sqrt()
    torch.testing.assert_close(norms, torch.tensor([1.0, 0.5, 0.0]))
    torch.testing.assert_close(clipped[0][:, 0] * 4, clipped[1][:, 0, 0] * 3)


def test_adam_clips_before_it_steps() -> None:
    parameters = {"x": torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)}
    adam = Adam(parameters, 0.1, max_norm=0.5)
    adam.step((parameters["x"] * torch.tensor([[1e6], [1e-2]])).sum(1))
    moment = adam.means["x"].norm(dim=1) / 0.1
    torch.testing.assert_close(moment, torch.tensor([0.5, 3**0.5 * 1e-2], dtype=torch.float64))


def test_polyak_moves_targets_and_nothing_else() -> None:
    online = stacked_parameters()
    targets = copy_parameters(online)
    assert all(not t.requires_grad for t in targets.values())
    before = copy_state(targets)
    with torch.no_grad():
        for value in online.values():
            value.add_(1.0)
    polyak(targets, online, 0.25)
    for name, value in targets.items():
        torch.testing.assert_close(value, before[name] + 0.25)
        torch.testing.assert_close(online[name], before[name] + 1.0)


def test_expectile_loss() -> None:
    difference = torch.tensor([-2.0, 0.0, 3.0])
    expected = torch.tensor([0.2 * 4, 0.0, 0.8 * 9])
    torch.testing.assert_close(expectile_loss(difference, 0.8), expected)


class Thing(Stateful):
    def __init__(self, seeds: int, scale: float) -> None:
        self.weights = {"w": torch.full((seeds, 2), scale)}
        self.noise = Noise.for_seeds(range(seeds), "thing")
        self.parts = {"weights": self.weights, "noise": self.noise}


def test_stateful_restores_in_place() -> None:
    thing, other = Thing(2, 1.0), Thing(2, 5.0)
    thing.updates = 7
    held = other.weights["w"]
    other.load_state_dict(thing.state_dict())
    assert held is other.weights["w"]
    assert torch.equal(held, thing.weights["w"])
    assert other.updates == 7


def test_stateful_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="build it with the same seeds and configuration"):
        Thing(3, 1.0).load_state_dict(Thing(1, 1.0).state_dict())
    with pytest.raises(ValueError, match="lacks weights, noise"):
        Thing(1, 1.0).load_state_dict({"updates": 1})


def test_copied_states_share_nothing() -> None:
    state = {"a": torch.ones(2), "b": [torch.ones(1), (torch.ones(1), "text")], "c": None}
    copy = copy_state(state)
    state["a"].zero_()
    state["b"][1][0].zero_()
    assert copy["a"].sum() == 2
    assert copy["b"][1][0].sum() == 1
    assert isinstance(copy["b"][1], tuple)
