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


def normal_log_density(standardized: Tensor, log_std: Tensor) -> Tensor:
    """Log-densities, number by number, of a normal variable from its standardized value."""
    return -0.5 * standardized.square() - log_std - 0.5 * math.log(2 * math.pi)


def free_log_std(parameters: Parameters, size: int) -> Tensor:
    """A log std ``[S, 1, size]`` that no input changes, trained, 0 at first."""
    return torch.zeros_like(parameters["bias0"][..., :1]).repeat(1, 1, size).requires_grad_()


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
        normal = normal_log_density(standardized, self.log_std)
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
        mlp: observation -> 2 A numbers, or A where the log std is free.
        log_std: bounds of the log std.
        offset: added to the log std before it is clamped.
        free_std: the log std is the same in all states, a parameter beside the network's.
    """

    mlp: MLP
    log_std: tuple[float, float] = (-20.0, 2.0)
    offset: float = 0.0
    free_std: bool = False

    @classmethod
    def build(
        cls, observation: int, action: int, hidden: Sequence[int], **options: Any
    ) -> SquashedPolicy:
        """A network observation -> hidden -> mean and log std of the action."""
        return cls(MLP((observation, *hidden, 2 * action)), **options)

    def init(self, noise: Noise) -> Parameters:
        """Draws the network's parameters."""
        parameters = self.mlp.init(noise)
        if self.free_std:
            parameters["log_std"] = free_log_std(parameters, self.mlp.sizes[-1])
        return parameters

    def __call__(self, parameters: Parameters, observations: Tensor) -> SquashedGaussian:
        """pi(. | s) at ``[S, B, observation]``."""
        mean = self.mlp(parameters, observations)
        if self.free_std:
            log_std = parameters["log_std"].expand_as(mean)
        else:
            mean, log_std = mean.chunk(2, -1)
        return SquashedGaussian(mean, (log_std + self.offset).clamp(*self.log_std))


def values_of_samples(
    net: TwinQ, parameters: Parameters, observations: Tensor, actions: Tensor
) -> Tensor:
    """Values of N actions per state.

    Where layers are rectifiers no state is repeated: its share of the first layer, weight_s s +
    bias, is computed once and added to weight_a a of each of its actions. No gradient flows into
    actions.

    Args:
        net: the networks.
        parameters: theirs.
        observations: ``[S, B, observation]``.
        actions: ``[S, B, N, A]``.

    Returns:
        ``[S, 2, B, N]``.
    """
    if net.mlp.activation is not torch.relu or net.mlp.layer_norm:
        repeated = observations.repeat_interleave(actions.shape[2], 1)
        values = net(parameters, repeated, actions.flatten(1, 2))
        return values.reshape(*values.shape[:2], *actions.shape[1:3])
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


def conservative_actions(
    policy: SquashedGaussian, next_policy: SquashedGaussian, noise: Tensor, uniform: Tensor
) -> tuple[Tensor, Tensor]:
    """The actions that CQL(H) pushes down, N of each of three kinds, and their log-densities.

    Args:
        policy: pi(. | s).
        next_policy: pi(. | s').
        noise: standard normal, ``[S, B, 2 N, A]``.
        uniform: in [0, 1), ``[S, B, N, A]``.

    Returns:
        Actions in [-1, 1] ``[S, B, 3 N, A]``, and log mu of each ``[S, B, 3 N]``.
    """
    now, then = noise.chunk(2, 2)
    uniform = 2.0 * uniform - 1.0
    log_uniform = torch.full_like(uniform[..., 0], -uniform.shape[-1] * math.log(2.0))
    from_policy, log_policy = policy.repeated().sample(now)
    from_next, log_next = next_policy.repeated().sample(then)
    actions = torch.cat([uniform, from_policy, from_next], 2)
    return actions, torch.cat([log_uniform, log_policy, log_next], 2)


def conservative_losses(
    values: Tensor, targets: Tensor, log_density: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """TD losses and CQL(H)'s gaps of two critics.

    Args:
        values: of the logged action and of those sampled, ``[S, 2, B, 1 + 3 N]``.
        targets: ``[S, B]``.
        log_density: of the sampled ones, ``[S, B, 3 N]``.

    Returns:
        Both losses ``[S, 2]``, and the logged actions' values ``[S, 2, B]``, a constant.
    """
    logged, others = values[..., 0], values[..., 1:]
    td_losses = (logged - targets.unsqueeze(1)).square().mean(2)
    soft_maxima = (others - log_density.unsqueeze(1)).logsumexp(-1)
    return td_losses, (soft_maxima - logged).mean(2), logged.detach()


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
        states = None
        if ctx.needs_input_grad[0]:  # of both networks of a seed, which see the same states
            each_net = torch.stack([net.state_slopes() for net in ctx.nets])
            states = each_net.reshape(*layers[0].shape[:2], *each_net.shape[1:]).sum(1)
        return states, None, *(g.reshape(v.shape) for g, v in zip(gradients, layers, strict=True))


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
        by_state = self.by_state = passed.reshape(*self.shape[:2], -1).sum(1)
        first = [torch.mm(self.observations.t(), by_state), torch.mm(self.actions.t(), passed)]
        gradients += [by_state.sum(0, keepdim=True), torch.cat(first)]
        return gradients[::-1]

    def state_slopes(self) -> Tensor:
        """The gradient ``[B, observation]`` of the observations, after :meth:`backward`."""
        return torch.mm(self.by_state, self.weights[0][: self.observations.shape[-1]].t())
