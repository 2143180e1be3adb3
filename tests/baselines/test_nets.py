"""Stacked networks against torch's own layers, and the action box."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from baselines import nets
from baselines.common import Noise, frozen
from baselines.config import UsageError
from baselines.nets import MLP, ActionBox, TwinQ, observation_size, perceptron

SEEDS = (3, 11)


def inputs(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return Noise.for_seeds(SEEDS, "inputs", dtype=dtype).normal(*shape)


def plain(parameters: dict[str, Tensor], *index: int) -> nn.Sequential:
    """torch's own layers with one seed's weights."""
    layers: list[nn.Module] = []
    for layer in range(len(parameters) // 2):
        weight, bias = parameters[f"weight{layer}"][index], parameters[f"bias{layer}"][index]
        linear = nn.Linear(*weight.shape, dtype=weight.dtype)
        linear.weight.data, linear.bias.data = weight.mT.contiguous(), bias[0]
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("activation", [torch.relu, torch.tanh])
def test_mlp_equals_torchs_layers(activation: object) -> None:
    mlp = MLP((4, 8, 7, 2), activation=activation)  # type: ignore[arg-type]
    parameters = mlp.init(Noise.for_seeds(SEEDS, "init", dtype=torch.float64))
    x = inputs(5, 4)
    y = mlp(parameters, x)
    assert y.shape == (2, 5, 2)
    for i in range(2):
        net = plain(parameters, i)
        if activation is torch.tanh:
            net = nn.Sequential(*(nn.Tanh() if isinstance(m, nn.ReLU) else m for m in net))
        torch.testing.assert_close(y[i], net(x[i]))


def test_twin_q_equals_two_networks() -> None:
    twin = TwinQ.build(4, 2, (8,))
    parameters = twin.init(Noise.for_seeds(SEEDS, "init", dtype=torch.float64))
    observations, actions = inputs(5, 4), inputs(5, 2)
    values = twin(parameters, observations, actions)
    assert values.shape == (2, 2, 5)
    joined = torch.cat([observations, actions], -1)
    for i, member in itertools.product(range(2), range(2)):
        expected = plain(parameters, i, member)(joined[i]).squeeze(-1)
        torch.testing.assert_close(values[i, member], expected)
    torch.testing.assert_close(twin.first(parameters, observations, actions), values[:, 0])
    which = torch.tensor([1, 0])
    chosen = twin.chosen(parameters, which, observations, actions)
    torch.testing.assert_close(chosen, values[torch.arange(2), which])


@pytest.mark.parametrize("lead", [(1,), (3,), (2, 2)])
@pytest.mark.parametrize("sizes", [(3, 4), (3, 5, 1), (3, 4, 5, 2)])
@pytest.mark.parametrize("activation", nets.FUSED)
def test_gradients_of_a_perceptron(
    lead: tuple[int, ...], sizes: tuple[int, ...], activation: object
) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    arguments = [draw(*lead, 6, 3)]
    for width, out in itertools.pairwise(sizes):
        arguments += [draw(*lead, width, out), draw(*lead, 1, out)]
    apply = functools.partial(perceptron, activation=activation)
    assert torch.autograd.gradcheck(apply, arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mish_equals_torchs(dtype: torch.dtype) -> None:
    """Far out too, with its derivative and without, through a layer of weight 1."""
    x = torch.tensor([-200.0, -50, -20, -3, -1e-3, 0, 0.5, 4, 19, 21, 50, 200], dtype=dtype)
    x = x.reshape(1, -1, 1).requires_grad_()
    one, nought = torch.ones(1, 1, 1, dtype=dtype), torch.zeros(1, 1, 1, dtype=dtype)
    expected = torch.nn.functional.mish(x)
    found = perceptron(x, one, nought, one, nought, activation=nets.mish)
    with torch.no_grad():
        quick = perceptron(x, one, nought, one, nought, activation=nets.mish)
    tolerance = {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(found, expected, **tolerance)
    torch.testing.assert_close(quick, expected, **tolerance)
    slopes = (torch.autograd.grad(y.sum(), x)[0] for y in (found, expected))
    torch.testing.assert_close(*slopes, **tolerance)


def test_no_product_is_made_for_gradients_that_nobody_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []
    product = nets._product
    monkeypatch.setattr(nets, "_product", lambda *a: made.append(1) or product(*a))
    mlp = MLP((4, 5, 6, 1))
    parameters = mlp.init(Noise.for_seeds([3], "init", dtype=torch.float64))
    x = torch.ones(1, 2, 4, dtype=torch.float64)

    mlp(parameters, x).sum().backward()
    assert len(made) == 3 + 3 + 2  # forward, weights, inputs of all layers but the first
    made.clear()
    mlp(frozen(parameters), x.requires_grad_()).sum().backward()
    assert len(made) == 3 + 3  # forward, inputs


def test_a_step_between_forward_and_backward_is_noticed() -> None:
    weight = torch.ones(1, 3, 3, requires_grad=True)
    y = perceptron(torch.ones(1, 2, 3), weight, torch.zeros(1, 1, 3))
    with torch.no_grad():
        weight.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("out", [1, 3, 32])
def test_float32_products_equal_float64_ones(out: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN's products, forward and backward, against plain ones; on, off, and in float64."""
    monkeypatch.setattr(nets, "_avx512", True)
    mlp = MLP((14, 32, 32, out), copies=2)
    results = []
    for dtype, enabled in ((torch.float64, True), (torch.float32, False), (torch.float32, True)):
        parameters = mlp.init(Noise.for_seeds(SEEDS, "init", dtype=torch.float32))
        parameters = {k: v.detach().to(dtype).requires_grad_() for k, v in parameters.items()}
        x = inputs(64, 14, dtype=torch.float32).to(dtype).requires_grad_()
        before = torch.backends.mkldnn.set_flags(_enabled=enabled)
        try:
            y = mlp(parameters, x)
            found = torch.autograd.grad(y.square().sum(), [x, *parameters.values()])
        finally:
            torch.backends.mkldnn.set_flags(_enabled=before[0])
        results.append([y.detach().double(), *(g.double() for g in found)])
    for exact, *others in zip(*results, strict=True):
        for other in others:
            torch.testing.assert_close(other, exact, rtol=1e-4, atol=1e-4)


def test_a_seed_computes_the_same_bits_alone_and_in_a_stack() -> None:
    mlp = MLP((11, 64, 64, 3))
    stacked = mlp.init(Noise.for_seeds(SEEDS, "init"))
    x = inputs(32, 11, dtype=torch.float32)
    y = mlp(stacked, x)
    for i, seed in enumerate(SEEDS):
        alone = mlp.init(Noise.for_seeds([seed], "init"))
        assert torch.equal(mlp(alone, x[i : i + 1])[0], y[i])


def test_there_is_no_second_derivative() -> None:
    x = torch.ones(1, 2, 3, requires_grad=True)
    y = perceptron(x, torch.ones(1, 3, 2, requires_grad=True), torch.zeros(1, 1, 2))
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_start_as_torchs_linear() -> None:
    parameters = MLP((16, 200, 3)).init(Noise.for_seeds(SEEDS, "init"))
    for layer, width in enumerate((16, 200)):
        for name in (f"weight{layer}", f"bias{layer}"):
            bound = 1 / math.sqrt(width)
            assert parameters[name].abs().max() <= bound
            assert parameters[name].requires_grad
        assert parameters[f"weight{layer}"].std().item() == pytest.approx(
            bound / math.sqrt(3), rel=0.1
        )


@pytest.mark.parametrize("sizes", [(6, 4), (4, 6), (5, 5)])
@pytest.mark.parametrize("copies", [None, 2])
def test_orthogonal_start(sizes: tuple[int, int], copies: int | None) -> None:
    noise = Noise.for_seeds(SEEDS, "init", dtype=torch.float64)
    parameters = MLP(sizes, copies=copies, gain=3.0).init(noise)
    weight = parameters["weight0"] / 3.0
    product = weight.mT @ weight if sizes[0] >= sizes[1] else weight @ weight.mT
    torch.testing.assert_close(product, torch.eye(min(sizes)).double().expand_as(product))
    assert parameters["bias0"].abs().max() == 0


LOPSIDED = spaces.Box(np.array([-0.3, 1.0]), np.array([0.1, 7.0]), dtype=np.float64)


def test_action_box_maps_there_and_back() -> None:
    box = ActionBox.of(LOPSIDED)
    assert box.size == 2
    corners = torch.tensor([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]])
    expected = torch.tensor([[-0.3, 1.0], [-0.1, 4.0], [0.1, 7.0]])
    torch.testing.assert_close(box.scale(corners), expected)
    torch.testing.assert_close(box.unscale(expected), corners)


@pytest.mark.parametrize("box", [ActionBox.of(LOPSIDED), ActionBox.of(spaces.Box(-1, 1, (2,)))])
def test_scaled_actions_stay_inside(box: ActionBox) -> None:
    generator = torch.Generator().manual_seed(0)
    unit = torch.cat([torch.rand(10_000, 2, generator=generator) * 2 - 1, torch.full((1, 2), 1.5)])
    scaled = box.scale(unit)
    assert (scaled >= scaled.new_tensor(box.low)).all()
    assert (scaled <= scaled.new_tensor(box.high)).all()


@pytest.mark.parametrize(
    "space", [spaces.Discrete(3), spaces.Box(-np.inf, np.inf, (2,)), spaces.Box(-1, 1, (2, 2))]
)
def test_other_action_spaces_are_refused(space: spaces.Space) -> None:  # type: ignore[type-arg]
    with pytest.raises(UsageError, match="bounded one-dimensional Box of actions"):
        ActionBox.of(space)


def test_other_observation_spaces_are_refused() -> None:
    assert observation_size(spaces.Box(-1, 1, (5,))) == 5
    for space in (spaces.Discrete(3), spaces.Box(0, 1, (3, 8, 8))):
        with pytest.raises(UsageError, match="one-dimensional Box of observations"):
            observation_size(space)


def test_onednn_is_used_where_it_exists() -> None:
    assert nets._onednn_linear is not None or not torch.backends.mkldnn.is_available()


def test_other_devices_take_the_plain_path() -> None:
    mlp = MLP((4, 8, 2), copies=2)
    parameters = mlp.init(Noise.for_seeds(SEEDS, "init"))
    elsewhere = {name: value.to("meta") for name, value in parameters.items()}
    y = mlp(elsewhere, torch.zeros(2, 5, 4, device="meta"))
    assert y.shape == (2, 2, 5, 2)
    assert type(y.grad_fn).__name__ != "_PerceptronBackward"
