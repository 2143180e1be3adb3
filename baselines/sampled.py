"""Sampled actions: tanh-squashed Gaussian policies, and the values of many actions per state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from baselines.common import Noise, Parameters
from baselines.nets import MLP, TwinQ, _product, perceptron

EDGE = 1.0 - 1e-6  # logged actions are pulled inside before their density is asked for


class SquashedGaussian(NamedTuple):
    """tanh(x), x normal and independent over dimensions (Haarnoja et al. 2018, arXiv 1812.05905).

    Attributes:
        mean: of x, ``[..., A]``.
        log_std: of x, ``[..., A]``.
    """

    mean: Tensor
    log_std: Tensor

    def sample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions in [-1, 1] and their log-densities, from standard normal ``noise [..., A]``."""
        raw = self.mean + self.log_std.exp() * noise
        return raw.tanh(), self._log_density(raw, noise)

    def log_prob(self, actions: Tensor) -> Tensor:
        """The log-density ``[...]`` of actions in [-1, 1], kept off the ends, where it diverges."""
        raw = actions.clamp(-EDGE, EDGE).atanh()
        return self._log_density(raw, (raw - self.mean) / self.log_std.exp())

    def _log_density(self, raw: Tensor, standardized: Tensor) -> Tensor:
        normal = -0.5 * standardized.square() - self.log_std - 0.5 * math.log(2 * math.pi)
        # log(1 - tanh(x)^2), without the cancellation
        slope = 2.0 * (math.log(2.0) - raw - torch.nn.functional.softplus(-2.0 * raw))
        return (normal - slope).sum(-1)

    def detach(self) -> SquashedGaussian:
        """The same distribution, a constant."""
        return SquashedGaussian(self.mean.detach(), self.log_std.detach())

    def repeated(self) -> SquashedGaussian:
        """With an axis before the last, along which any number of samples is drawn."""
        return SquashedGaussian(self.mean.unsqueeze(-2), self.log_std.unsqueeze(-2))


@dataclass(frozen=True)
class SquashedPolicy:
    """A network whose outputs are mean and log std of a squashed Gaussian.

    Attributes:
        mlp: observation -> 2 A numbers.
        log_std: bounds of the log std.
        offset: added to the log std before it is clamped.
    """

    mlp: MLP
    log_std: tuple[float, float] = (-20.0, 2.0)
    offset: float = 0.0

    @classmethod
    def build(
        cls, observation: int, action: int, hidden: Sequence[int], **options: Any
    ) -> SquashedPolicy:
        """A network observation -> hidden -> mean and log std of the action."""
        return cls(MLP((observation, *hidden, 2 * action)), **options)

    def init(self, noise: Noise) -> Parameters:
        """Draws the network's parameters."""
        return self.mlp.init(noise)

    def __call__(self, parameters: Parameters, observations: Tensor) -> SquashedGaussian:
        """pi(. | s) at ``[S, B, observation]``."""
        mean, log_std = self.mlp(parameters, observations).chunk(2, -1)
        return SquashedGaussian(mean, (log_std + self.offset).clamp(*self.log_std))


def values_of_samples(
    net: TwinQ, parameters: Parameters, observations: Tensor, actions: Tensor
) -> Tensor:
    """Values of N actions per state, by networks of rectifiers.

    No state is repeated: its share of the first layer, weight_s s + bias, is computed once and
    added to weight_a a of each of its actions. No gradient flows into observations and actions.

    Args:
        net: the networks.
        parameters: theirs.
        observations: ``[S, B, observation]``.
        actions: ``[S, B, N, A]``.

    Returns:
        ``[S, 2, B, N]``.

    Raises:
        ValueError: for networks of another activation or with layer normalisation.
    """
    if net.mlp.activation is not torch.relu or net.mlp.layer_norm:
        raise ValueError("values_of_samples is for rectifiers without layer normalisation")
    names = [f"{kind}{i}" for i in range(len(net.mlp.sizes) - 1) for kind in ("weight", "bias")]
    layers = [parameters[name] for name in names]
    if _on_cpu(observations):
        return cast(Tensor, _Samples.apply(observations, actions, *layers))  # type: ignore[no-untyped-call]
    split = observations.shape[-1]
    by_state = perceptron(
        observations.unsqueeze(1).expand(-1, 2, -1, -1), layers[0][:, :, :split], layers[1]
    )
    by_action = actions.flatten(1, 2).unsqueeze(1) @ layers[0][:, :, split:]
    hidden = by_action.reshape(*by_action.shape[:2], *actions.shape[1:3], -1) + by_state.unsqueeze(
        3
    )
    return perceptron(hidden.relu().flatten(2, 3), *layers[2:]).reshape(hidden.shape[:-1])


def _on_cpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


class _Samples(torch.autograd.Function):
    """:func:`values_of_samples` on a CPU, network by network."""

    @staticmethod
    def forward(ctx: Any, observations: Tensor, actions: Tensor, *layers: Tensor) -> Tensor:
        ctx.nets = [
            _Net([layer[seed, copy] for layer in layers], observations[seed], actions[seed])
            for seed in range(len(actions))
            for copy in range(layers[0].shape[1])
        ]
        ctx.save_for_backward(*layers)  # so that autograd notices a step taken in between
        values = torch.stack([net.forward() for net in ctx.nets])
        return values.reshape(*layers[0].shape[:2], *actions.shape[1:3])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, ...]:
        layers = ctx.saved_tensors
        found = [net.backward(s) for net, s in zip(ctx.nets, slopes.flatten(0, 1), strict=True)]
        gradients = [torch.stack(each) for each in zip(*found, strict=True)]
        return None, None, *(g.reshape(v.shape) for g, v in zip(gradients, layers, strict=True))


class _Net:
    """One network's way there and back; ``layers`` are weight and bias of each layer, in turn."""

    def __init__(self, layers: list[Tensor], observations: Tensor, actions: Tensor) -> None:
        self.weights, self.biases = layers[::2], layers[1::2]
        self.observations, self.actions, self.shape = (
            observations,
            actions.flatten(0, 1),
            actions.shape,
        )
        self.seen: list[Tensor] = []

    def forward(self) -> Tensor:
        """Values ``[B, N]``."""
        split = self.observations.shape[-1]
        by_state = torch.addmm(self.biases[0], self.observations, self.weights[0][:split])
        hidden = torch.mm(self.actions, self.weights[0][split:]).reshape(*self.shape[:2], -1)
        self.seen = [hidden.add_(by_state.unsqueeze(1)).relu_().flatten(0, 1)]
        for weight, bias in zip(self.weights[1:-1], self.biases[1:-1], strict=True):
            self.seen.append(_product(self.seen[-1], weight.t(), bias[0], relu=True))
        values = torch.addmm(self.biases[-1], self.seen[-1], self.weights[-1])
        return values.reshape(self.shape[:2])

    def backward(self, slopes: Tensor) -> list[Tensor]:
        """Gradients of the layers, from the loss's slopes ``[B, N]`` by the values."""
        gradients: list[Tensor] = []
        passed = slopes.reshape(-1, 1)
        for weight, seen in zip(self.weights[:0:-1], self.seen[::-1], strict=True):
            gradients += [passed.sum(0, keepdim=True), torch.mm(seen.t(), passed)]
            passed = _product(passed, weight)
            torch.ops.aten.threshold_backward.grad_input(passed, seen, 0, grad_input=passed)
        by_state = passed.reshape(*self.shape[:2], -1).sum(1)
        first = [torch.mm(self.observations.t(), by_state), torch.mm(self.actions.t(), passed)]
        gradients += [by_state.sum(0, keepdim=True), torch.cat(first)]
        return gradients[::-1]
