"""Trains behaviour policies off-policy: truncated quantile critics.

``python -m suites.datasets.tqc train halfcheetah --steps 2000000 --seed 0`` learns and keeps
policies on the way; called again it continues where it stopped. ``... ship halfcheetah --seed 0``
puts those that the datasets need into ``suites/datasets/behaviour`` (see
:mod:`suites.datasets.shipping`).

Kuznetsov et al. 2020, "Controlling Overestimation Bias with Truncated Mixture of Continuous
Distributional Quantile Critics" (arXiv:2005.04269), on soft actor-critic with an automatic
temperature (Haarnoja et al. 2018, arXiv:1812.05905).
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.optim.adamw import adamw

from suites.datasets import behaviour, shipping
from suites.datasets.behaviour import Policy, SquashedPolicy
from suites.datasets.recipes.locomotion import ENVIRONMENTS
from suites.envs import make_vector


@dataclass(frozen=True)
class Config:
    """Hyperparameters; the numbers are those of the paper's HalfCheetah runs unless noted."""

    environments: int = 8  # stepped together; simulating is cheap beside an update
    updates: int = 4  # per step of all environments; the paper's is one per environment step
    warmup: int = 10_000  # uniformly random environment steps; SAC's
    batch: int = 128  # transitions; the paper's is 256, which takes twice as long
    hidden: int = 256  # units in each of two layers; the paper's critics have three of 512
    critics: int = 2  # the paper's is 5
    quantiles: int = 25  # of each critic
    dropped: int = 2  # largest quantiles per critic, of all of them pooled; 0 in the paper
    actor_every: int = 2  # critic updates; TD3's delay (arXiv:1802.09477)
    learning_rate: float = 5e-4  # of all Adams; the paper's is 3e-4
    gamma: float = 0.99  # discount
    tau: float = 0.005  # of the targets
    replay: int = 1_000_000  # transitions
    keep_every: int = 4_000  # environment steps between two kept policies until the dense ones end
    dense_until: float = 60.0  # score at which they end
    keep_later: int = 40_000  # environment steps between two kept policies after that
    save_every: int = 40_000  # environment steps between two savings of the state


CONFIG = Config()  # for every environment


class Network:
    """Perceptrons with rectifiers, several side by side, and their derivatives.

    Written out, without autograd: at this size its bookkeeping takes longer than the products. All
    parameters lie in one vector, so that an optimiser's step is one operation.

    Args:
        sizes: features of input, hidden layers and output.
        copies: networks side by side, N.
    """

    def __init__(self, sizes: tuple[int, ...], copies: int = 1) -> None:
        shapes = [
            shape for pair in pairwise(sizes) for shape in ((copies, *pair), (copies, 1, pair[1]))
        ]
        self.counts = [math.prod(shape) for shape in shapes]
        self.shapes = shapes
        self.flat = torch.zeros(sum(self.counts))
        self.gradient = torch.zeros_like(self.flat)
        self.parameters, self.gradients = self._views(self.flat), self._views(self.gradient)
        self.means, self.squares = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self.updates = torch.zeros(())

    def _views(self, flat: Tensor) -> list[Tensor]:
        parts = zip(torch.split(flat, self.counts), self.shapes, strict=True)
        return [part.view(shape) for part, shape in parts]

    def start(self, generator: torch.Generator) -> None:
        """Draws everything uniformly in +-1/sqrt(in), PyTorch's start of linear layers."""
        for weight, bias in zip(self.parameters[::2], self.parameters[1::2], strict=True):
            bound = weight.shape[1] ** -0.5
            for part in (weight, bias):
                part.uniform_(-bound, bound, generator=generator)

    def __call__(self, inputs: Tensor) -> list[Tensor]:
        """The inputs ``[N, B, in]`` of every layer, and last the outputs ``[N, B, out]``."""
        seen = [inputs]
        for weight, bias in zip(self.parameters[::2], self.parameters[1::2], strict=True):
            if len(seen) > 1:
                seen[-1].relu_()
            seen.append(torch.baddbmm(bias, seen[-1], weight))
        return seen

    def backward(self, seen: list[Tensor], slope: Tensor, learn: bool) -> Tensor:
        """From the loss's slope by the outputs that by the inputs, ``[N, B, in]``.

        If ``learn``, fills the gradient of the parameters, and leaves out that of the inputs.
        """
        for layer in reversed(range(len(seen) - 1)):
            if learn:
                torch.bmm(seen[layer].mT, slope, out=self.gradients[2 * layer])
                torch.sum(slope, 1, keepdim=True, out=self.gradients[2 * layer + 1])
            if layer or not learn:
                slope = torch.bmm(slope, self.parameters[2 * layer].mT)
            if layer:
                slope = torch.ops.aten.threshold_backward(slope, seen[layer], 0)
        return slope

    def descend(self, learning_rate: float) -> None:
        """One step of Adam."""
        adamw(
            [self.flat],
            [self.gradient],
            [self.means],
            [self.squares],
            [],
            [self.updates],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=learning_rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )

    def state(self) -> dict[str, Tensor]:
        """The tensors that training continues from, not copied."""
        return {name: getattr(self, name) for name in ("flat", "means", "squares", "updates")}


class Learner:
    """Everything that training continues from, and one step of it."""

    def __init__(self, environment: str, config: Config, seed: int) -> None:
        self.config, self.environment = config, environment
        self.env = make_vector(ENVIRONMENTS[environment], config.environments)
        self.observation, self.action = (
            math.prod(space.shape or ())
            for space in (self.env.observation_space, self.env.action_space)
        )
        hidden = (config.hidden, config.hidden)
        critic = (self.observation + self.action, *hidden, config.quantiles)
        self.actor = Network((self.observation, *hidden, 2 * self.action))
        self.critic = Network(critic, config.critics)
        self.target = Network(critic, config.critics)
        self.temperature = Network((0, 1))  # its bias is the temperature's logarithm
        self.networks = {
            name: getattr(self, name) for name in ("actor", "critic", "target", "temperature")
        }
        self.torch_generator = torch.Generator().manual_seed(seed)
        self.generator = np.random.default_rng(seed)
        self.actor.start(self.torch_generator)
        self.critic.start(self.torch_generator)
        self.target.flat.copy_(self.critic.flat)
        self.levels = (torch.arange(config.quantiles) + 0.5) / config.quantiles
        self.columns = np.cumsum([self.observation, self.action, 1, self.observation]).tolist()
        self.replay = torch.zeros(config.replay, self.columns[-1] + 1)
        self.steps, self.updates, self.seconds = 0, 0, 0.0
        self.curve: list[dict[str, float]] = []
        self._begin()

    def _begin(self) -> None:
        count = self.config.environments
        self.observations = np.stack([self._reset(i) for i in range(count)])

    def _reset(self, index: int) -> npt.NDArray[np.float64]:
        return self.env.reset(index, int(self.generator.integers(2**31)))

    def policy(self) -> SquashedPolicy:
        """The current policy."""
        parts = [part[0].numpy().copy() for part in self.actor.parameters]
        return SquashedPolicy(tuple(parts[::2]), tuple(bias[0] for bias in parts[1::2]))

    def _sample(self, observations: Tensor) -> _Sample:
        seen = self.actor(observations.unsqueeze(0))
        mean, log_std = seen[-1][0].chunk(2, -1)
        bounded = log_std.clamp(*behaviour.LOG_STD)
        noise = torch.randn(mean.shape, generator=self.torch_generator)
        spread = bounded.exp().mul_(noise)
        raw = mean + spread
        # log(1 - tanh(x)^2) without the cancellation
        squash = 2.0 * (math.log(2.0) - raw - torch.nn.functional.softplus(-2.0 * raw))
        density = -0.5 * noise.square() - bounded - 0.5 * math.log(2.0 * math.pi) - squash
        return _Sample(raw.tanh(), density.sum(-1), seen, spread, log_std == bounded)

    @torch.inference_mode()
    def iterate(self) -> None:
        """Steps every environment once, and then improves."""
        config, began = self.config, time.perf_counter()
        if self.steps < config.warmup:
            shape = (config.environments, self.action)
            actions = 2.0 * torch.rand(shape, generator=self.torch_generator) - 1.0
        else:
            actions = self._sample(torch.from_numpy(self.observations).float()).actions
        result = self.env.step(actions.numpy())
        rows = (
            self.observations,
            actions.numpy(),
            result.rewards[:, None],
            result.observations,
            result.terminations[:, None],
        )
        first = self.steps % config.replay
        self.replay[first : first + config.environments] = torch.from_numpy(
            np.concatenate(rows, axis=1)
        )
        self.steps += config.environments
        self.observations = result.observations
        for index in np.flatnonzero(result.terminations | result.truncations).tolist():
            self.observations[index] = self._reset(index)
        if self.steps >= config.warmup:
            for _ in range(config.updates):
                self.improve()
        self.seconds += time.perf_counter() - began

    def improve(self) -> None:
        """One update of the critics, and of actor and temperature when it is their turn."""
        config = self.config
        filled = min(self.steps, config.replay)
        index = torch.randint(filled, (config.batch,), generator=self.torch_generator)
        rows = self.replay.index_select(0, index)
        observations, _, rewards, following, terminations = rows.tensor_split(self.columns, -1)
        temperature = self.temperature.flat.exp()

        # Critics: towards the pooled quantiles of the targets without the largest.
        sampled = self._sample(following)
        pooled = self.target(self._twice(following, sampled.actions))[-1]
        pooled = pooled.transpose(0, 1).flatten(1).sort(-1).values
        kept = pooled[:, : pooled.shape[-1] - config.critics * config.dropped]
        soft = kept - (temperature * sampled.density).unsqueeze(-1)
        goals = rewards + config.gamma * (1.0 - terminations) * soft
        seen = self.critic(self._twice(rows[:, : self.columns[1]]))
        slope = quantile_huber_slope(seen[-1], goals, self.levels) / config.batch
        self.critic.backward(seen, slope, learn=True)
        self.critic.descend(config.learning_rate)
        self.target.flat.lerp_(self.critic.flat, config.tau)

        if self.updates % config.actor_every == 0:
            self._improve_actor(observations, temperature)
        self.updates += 1

    def _twice(self, *parts: Tensor) -> Tensor:
        """The same inputs ``[B, in]`` for all critics, ``[N, B, in]``."""
        return torch.cat(parts, -1).expand(self.config.critics, -1, -1)

    def _improve_actor(self, observations: Tensor, temperature: Tensor) -> None:
        """Descends mean(temperature log density - value), values averaged over all quantiles."""
        config = self.config
        sampled = self._sample(observations)
        seen = self.critic(self._twice(observations, sampled.actions))
        even = torch.full_like(seen[-1], 1.0 / (config.critics * config.quantiles))
        by_inputs = self.critic.backward(seen, even, learn=False).sum(0)
        by_actions = by_inputs[:, self.observation :]
        squared = sampled.actions.square()
        by_raw = 2.0 * temperature * sampled.actions - by_actions * (1.0 - squared)
        by_log_std = (by_raw * sampled.spread - temperature) * sampled.free
        slope = torch.cat([by_raw, by_log_std], -1).unsqueeze(0) / config.batch
        self.actor.backward(sampled.seen, slope, learn=True)
        self.actor.descend(config.learning_rate)
        # The temperature rises where the entropy is below its goal, -1 per action dimension.
        # d/dlog of -log (density + goal), the goal being -A.
        self.temperature.gradient.copy_(self.action - sampled.density.mean())
        self.temperature.descend(config.learning_rate)

    def keep(self, out: Path) -> None:
        """Saves the current policy in ``out`` and adds a point to the curve."""
        file = shipping.policy_file(out, self.steps)
        self.policy().save(file)
        policy = Policy.load(file)
        self.curve.append(
            {
                "steps": self.steps,
                "updates": self.updates,
                "seconds": round(self.seconds, 1),
                "score": shipping.score(self.environment, policy, 0.0, 4, stream=5),
                "score_noisy": shipping.score(self.environment, policy, 1.0, 4, stream=5),
                "temperature": round(float(self.temperature.flat.exp()), 4),
            }
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything but the simulators: a resumed run begins new episodes."""
        return {
            "networks": {name: network.state() for name, network in self.networks.items()},
            "replay": self.replay[: self.steps],
            "generator": self.generator.bit_generator.state,
            "torch_generator": self.torch_generator.get_state(),
            "progress": {
                "steps": self.steps,
                "updates": self.updates,
                "seconds": self.seconds,
            },
            "curve": self.curve,
        }

    @torch.inference_mode()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from what :meth:`state_dict` returned."""
        for name, network in self.networks.items():
            for key, value in network.state().items():
                value.copy_(state["networks"][name][key])
        self.replay[: len(state["replay"])] = state["replay"]
        self.generator.bit_generator.state = state["generator"]
        self.torch_generator.set_state(state["torch_generator"])
        progress = state["progress"]
        self.steps, self.updates = progress["steps"], progress["updates"]
        self.seconds, self.curve = progress["seconds"], state["curve"]
        self._begin()


class _Sample(NamedTuple):
    """Actions ``[B, A]``, their log densities ``[B]``, and what the actor's derivative needs."""

    actions: Tensor
    density: Tensor
    seen: list[Tensor]
    spread: Tensor  # [B, A], the noise before the tanh
    free: Tensor  # [B, A], False where the deviation is at its bound


def quantile_huber_slope(values: Tensor, goals: Tensor, levels: Tensor) -> Tensor:
    """Derivative of the quantile Huber loss by ``values``.

    The loss is |level - 1(u < 0)| Huber(u), u = goal - value, averaged over goals (Dabney et al.
    2018, arXiv:1710.10044, equation 10, with kappa = 1).

    Args:
        values: ``[*lead, Q]``.
        goals: ``[*lead, G]``, broadcast against ``values``.
        levels: Q levels in (0, 1), broadcast against ``values``.

    Returns:
        ``[*lead, Q]``.
    """
    pairs = goals.unsqueeze(-2) - values.unsqueeze(-1)
    above = torch.nn.functional.hardtanh(pairs, 0.0, 1.0).sum(-1)
    below = torch.nn.functional.hardtanh_(pairs, -1.0, 0.0).sum(-1)
    return -(levels * above + (1.0 - levels) * below) / goals.shape[-1]


def train(environment: str, steps: int, seed: int, out: Path, config: Config = CONFIG) -> None:
    """Learns for ``steps`` steps; ``out`` holds the policies and the state to go on from."""
    learner = Learner(environment, config, seed)
    out.mkdir(parents=True, exist_ok=True)
    if (state := shipping.load_state(out)) is not None:
        learner.load_state_dict(state)
    else:
        learner.keep(out)
    while learner.steps < steps:
        learner.iterate()
        dense = all(point["score"] < config.dense_until for point in learner.curve)
        if learner.steps % (config.keep_every if dense else config.keep_later) == 0:
            learner.keep(out)
            shipping.tell(f"{environment} seed {seed}", learner.curve[-1])
        if learner.steps % config.save_every == 0 or learner.steps >= steps:
            shipping.save_state(out, learner.state_dict())


def finished(environment: str, seed: int, out: Path) -> shipping.Run:
    """What a run folder holds."""
    state = torch.load(out / shipping.STATE_FILE, weights_only=True)
    return shipping.Run(
        environment=environment,
        folder=out,
        algorithm="tqc",
        config=asdict(CONFIG),
        seed=seed,
        steps=state["progress"]["steps"],
        seconds=state["progress"]["seconds"],
        curve=state["curve"],
        proposed={
            level: {point["steps"]: point[score] for point in state["curve"]}
            for level, score in (("medium", "score_noisy"), ("expert", "score"))
        },
    )


if __name__ == "__main__":
    shipping.command_line("suites.datasets.tqc", __doc__, 2_000_000, train, finished)
