"""The transformer: who may see what, and the memory of one that acts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oracles import OBSERVATION, SEEDS
from torch import Tensor, nn
from windows import ROWS, STEPS, WINDOWS, make_windows

from baselines.common import Noise
from baselines.transformer import (
    TrajectoryTransformer,
    candidate_windows,
    masked_mean,
    recall,
    remember,
)

NET = TrajectoryTransformer(OBSERVATION, 2, 8, 2, 2, ROWS)


def parameters(net: TrajectoryTransformer = NET) -> dict[str, Tensor]:
    made = net.init(Noise.for_seeds(SEEDS, "init", dtype=torch.float64))
    shaken = Noise.for_seeds(SEEDS, "shaken", dtype=torch.float64)
    return {k: (v + 0.3 * shaken.normal(*v.shape[1:])).detach() for k, v in made.items()}


P = parameters()


def changed(window: dict[str, Tensor], name: str, step: int) -> dict[str, Tensor]:
    """The window with one field of one step altered."""
    value = window[name].clone()
    value[:, :, step] = value[:, :, step] + 1
    return {**window, name: value}


@pytest.mark.parametrize("step", range(STEPS))
@pytest.mark.parametrize("name", ["observations", "actions", "returns_to_go", "timesteps"])
def test_nothing_sees_what_comes_after_it(name: str, step: int) -> None:
    window = make_windows(0) | {"mask": torch.ones(len(SEEDS), WINDOWS, STEPS)}
    window["timesteps"] = window["timesteps"] % (ROWS - 1)
    before, after = (NET.actions(P, w) for w in (window, changed(window, name, step)))
    moved = (before != after).any(-1).all((0, 1)).tolist()
    seen_from = step + (name == "actions")  # an action is what its own step has to find
    assert moved == [t >= seen_from for t in range(STEPS)]


def test_what_stands_in_the_padding_is_not_seen() -> None:
    window = make_windows(0)
    mask = window["mask"].bool()
    blank = {
        name: torch.where(mask.reshape(*mask.shape, *[1] * (v.dim() - 3)), v, torch.zeros_like(v))
        for name, v in window.items()
    }
    for options in ({}, {"last": True}):
        a, b = (NET.actions(P, w, **options) for w in (window, blank))
        kept = mask[:, :, -a.shape[2] :]
        torch.testing.assert_close(a[kept], b[kept], rtol=0, atol=0)


def test_the_last_step_alone_equals_the_last_of_all() -> None:
    window = make_windows(0)
    everything, last = NET.actions(P, window), NET.actions(P, window, last=True)
    assert last.shape == (len(SEEDS), WINDOWS, 1, 2)
    torch.testing.assert_close(last[:, :, 0], everything[:, :, -1], rtol=1e-12, atol=1e-12)


def test_a_block_equals_torchs_own_layer() -> None:
    """``nn.TransformerEncoderLayer``, norm first, with one seed's weights."""
    net = TrajectoryTransformer(OBSERVATION, 2, 8, 1, 2, ROWS)
    p = parameters(net)
    one = {name: value[1] for name, value in p.items()}
    layer = nn.TransformerEncoderLayer(8, 2, 32, 0.0, norm_first=True, batch_first=True).double()
    mixed = torch.cat([one["weight_query0"], one["weight_key_value0"]], 1).T
    start = torch.cat([one["bias_query0"], one["bias_key_value0"]], 1)[0]
    state = {"self_attn.in_proj_weight": mixed, "self_attn.in_proj_bias": start}
    for theirs, ours in {
        "self_attn.out_proj": "attended0",
        "linear1": "inner0",
        "linear2": "outer0",
        "norm1": "norm0",
        "norm2": "inner_norm0",
    }.items():
        weight = one[f"weight_{ours}"]
        state[f"{theirs}.weight"] = weight[0] if "norm" in theirs else weight.T
        state[f"{theirs}.bias"] = one[f"bias_{ours}"][0]
    layer.load_state_dict(state)
    tokens = Noise.for_seeds(SEEDS, "tokens", dtype=torch.float64).normal(5, 7, 8)
    later = torch.ones(7, 7, dtype=torch.bool).triu(1)
    with torch.no_grad():
        wanted = layer(tokens[1], src_mask=later)
    hiding = torch.zeros(7, 7, dtype=torch.float64).masked_fill(later, -1e300)
    found = net._block(p, 0, tokens, hiding.expand(2 * 5 * 2, 7, 7), slice(None), None)
    torch.testing.assert_close(found[1], wanted, rtol=1e-10, atol=1e-10)


def test_next_observations_are_predicted_from_actions() -> None:
    net = TrajectoryTransformer(OBSERVATION, 2, 8, 2, 2, ROWS, next_state=True)
    p, window = parameters(net), make_windows(0)
    window["mask"] = torch.ones_like(window["mask"])
    actions, following = net.actions_and_next(p, window)
    torch.testing.assert_close(actions, net.actions(p, window), rtol=1e-12, atol=1e-12)
    assert following.shape == (len(SEEDS), WINDOWS, STEPS - 1, OBSERVATION)
    _, other = net.actions_and_next(p, changed(window, "actions", 1))
    assert (following != other).any(-1).all((0, 1)).tolist() == [False, True]


def test_dropout_factors_have_their_rate_and_seed() -> None:
    net = TrajectoryTransformer(OBSERVATION, 2, 8, 2, 2, ROWS, dropout=0.25)
    masks = net.dropout_masks(Noise.for_seeds(SEEDS, "update"), 200, STEPS)
    assert masks is not None
    for value in masks.values():
        assert value.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
        assert (value == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
        assert not torch.equal(value[0], value[1])
    alone = net.dropout_masks(Noise.for_seeds(SEEDS[1:], "update"), 200, STEPS)
    assert alone is not None
    assert all(torch.equal(value[0], masks[name][1]) for name, value in alone.items())
    assert NET.dropout_masks(Noise.for_seeds(SEEDS, "update"), 200, STEPS) is None


def test_weights_start_as_the_authors_do() -> None:
    net = TrajectoryTransformer(3, 2, 64, 1, 1, 500)
    p = net.init(Noise.for_seeds(SEEDS, "init"))
    assert p["time"].std().item() == pytest.approx(1.0, abs=0.02)
    for name in ("query0", "key_value0", "attended0", "inner0", "outer0"):
        assert p[f"weight_{name}"].std().item() == pytest.approx(0.02, abs=0.001)
        assert not p[f"bias_{name}"].any()
    for name, inputs in (("return", 1), ("state", 3), ("action", 2), ("act", 64)):
        for kind in ("weight", "bias"):
            assert p[f"{kind}_{name}"].abs().max().item() <= inputs**-0.5
            assert p[f"{kind}_{name}"].abs().max().item() > 0.3 * inputs**-0.5


def see(observation: float, reward: float, *first: bool) -> Any:
    shape = (1, len(first))
    return {
        "observations": torch.full((*shape, 1), observation),
        "rewards": torch.full(shape, reward),
        "first": torch.tensor([first]),
    }


def test_memory_is_the_last_steps_of_the_episode() -> None:
    memory = None
    for t in range(4):
        memory = recall(memory, see(float(t), 10.0 * t, t == 0, t in (0, 3)), STEPS, 1)
        memory = remember(memory, torch.full((1, 2, 1), t + 0.5))
    assert memory is not None
    one, two = ({k: v[0, e].squeeze(-1).tolist() for k, v in memory.items()} for e in (0, 1))
    assert one == {
        "observations": [1, 2, 3],
        "actions": [1.5, 2.5, 3.5],
        "received": [10, 30, 60],
        "timesteps": [1, 2, 3],
        "mask": [1, 1, 1],
    }
    assert two == {  # began at the last step: the reward of the step before is not its own
        "observations": [0, 0, 3],
        "actions": [0, 0, 3.5],
        "received": [0, 0, 0],
        "timesteps": [0, 0, 0],
        "mask": [0, 0, 1],
    }


def test_candidates_differ_in_their_returns_alone() -> None:
    memory = recall(None, see(1.0, 0.0, True, True), STEPS, 1)
    memory = recall(remember(memory, torch.ones(1, 2, 1)), see(2.0, 4.0, False, True), STEPS, 1)
    window = candidate_windows(memory, torch.tensor([5.0, 7.0]), 2.0)
    assert window["returns_to_go"].tolist() == [[[0, 5, 3], [0, 7, 5], [0, 0, 5], [0, 0, 7]]]
    for name in ("observations", "actions", "timesteps", "mask"):
        for i in range(4):
            assert torch.equal(window[name][:, i], memory[name][:, i // 2])


def test_means_are_over_the_real_steps_of_a_seed() -> None:
    values = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
    mask = torch.tensor([[[0.0, 1.0], [1.0, 1.0]], [[0.0, 1.0], [0.0, 0.0]]])
    assert masked_mean(values, mask).tolist() == [3.0, 6.0]
