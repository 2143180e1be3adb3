"""Trains the behaviour policies of the local datasets: a compact PPO.

``python -m suites.datasets.ppo train hopper --steps 1000000 --seed 0`` learns and keeps a policy
every few iterations; called again it continues where it stopped. ``... ship hopper --seed 0``
puts those that the datasets need into ``suites/datasets/behaviour`` (see
:mod:`suites.datasets.shipping`).

Schulman et al. 2017, "Proximal Policy Optimization Algorithms" (arXiv:1707.06347), with the details
that matter on continuous control according to Engstrom et al. 2020, "Implementation Matters in Deep
Policy Gradients" (arXiv:2005.12729): observations and rewards are normalised by running statistics,
weights start orthogonal, the learning rate decays to zero.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from results.record import normalized_score
from suites.catalog import reference
from suites.datasets import behaviour, shipping
from suites.datasets.behaviour import GaussianPolicy
from suites.datasets.recipes.locomotion import ENVIRONMENTS
from suites.envs import make_vector

CLIPPED = behaviour.SHOWN  # normalised observations and rewards stay within +-10


@dataclass(frozen=True)
class Config:
    """Hyperparameters; the numbers are those of the paper's MuJoCo runs unless noted."""

    environments: int = 8  # stepped together; 8 x 256 = the paper's 2048 steps per iteration
    horizon: int = 256  # steps per environment and iteration
    epochs: int = 10  # passes over an iteration's data
    minibatch: int = 64  # transitions
    hidden: int = 64  # units in each of two tanh layers
    learning_rate: float = 3e-4  # Adam's, decays linearly to 0
    gamma: float = 0.99  # discount
    lam: float = 0.95  # of generalised advantage estimation
    clip: float = 0.2  # of the probability ratio
    gradient_norm: float = 0.5  # clipped above
    log_std: float = 0.0  # initial exploration
    save_every: int = 4  # iterations between two kept policies


# Larger minibatches and rates learn as much in half the time where they do not get stuck.
CONFIGS = {
    "hopper": Config(minibatch=256, learning_rate=1e-3),
    "halfcheetah": Config(minibatch=256, learning_rate=1e-3, log_std=-0.5),
    "walker2d": Config(),
}


class RunningMoments:
    """Mean and variance of everything seen so far (Chan et al. 1979, parallel update)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.mean, self.variance, self.count = np.zeros(shape), np.ones(shape), 1e-4

    def update(self, values: npt.NDArray[Any]) -> None:
        """Takes in ``[n, *shape]`` values."""
        n, delta = len(values), values.mean(0) - self.mean
        total = self.count + n
        squares = self.variance * self.count + values.var(0) * n + delta**2 * self.count * n / total
        self.mean, self.variance, self.count = self.mean + delta * n / total, squares / total, total

    def std(self) -> npt.NDArray[np.float64]:
        """The standard deviation, bounded away from zero."""
        return np.sqrt(self.variance + 1e-8)


def _network(inputs: int, hidden: int, outputs: int, last_gain: float) -> nn.Sequential:
    sizes, gains = (inputs, hidden, hidden, outputs), (2**0.5, 2**0.5, last_gain)
    layers: list[nn.Module] = []
    for into, out, gain in zip(sizes[:-1], sizes[1:], gains, strict=True):
        layer = nn.Linear(into, out)
        nn.init.orthogonal_(layer.weight, gain)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


class Learner:
    """Everything that training continues from, and one iteration of it."""

    def __init__(self, environment: str, config: Config, seed: int) -> None:
        self.config, self.environment = config, environment
        self.env = make_vector(ENVIRONMENTS[environment], config.environments)
        torch.manual_seed(seed)
        self.generator = np.random.default_rng(seed)
        inputs, outputs = self.env.observation_space.shape[0], self.env.action_space.shape[0]  # type: ignore[index]
        self.actor = _network(inputs, config.hidden, outputs, 0.01)
        self.critic = _network(inputs, config.hidden, 1, 1.0)
        self.log_std = nn.Parameter(torch.full((outputs,), config.log_std))
        self.parameters = [*self.actor.parameters(), *self.critic.parameters(), self.log_std]
        self.optimiser = torch.optim.Adam(self.parameters, eps=1e-5, fused=True)
        self.seen, self.returns = RunningMoments((inputs,)), RunningMoments(())
        self.steps, self.seconds = 0, 0.0
        self.recent: list[float] = []  # returns of the last episodes, with exploration
        self.curve: list[dict[str, float]] = []
        self._begin()

    def _begin(self) -> None:
        count = self.config.environments
        self.observations = np.stack([self._reset(i) for i in range(count)])
        self.episode_return, self.discounted = np.zeros(count), np.zeros(count)

    def _reset(self, index: int) -> npt.NDArray[np.float64]:
        return self.env.reset(index, int(self.generator.integers(2**31)))

    def policy(self) -> GaussianPolicy:
        """The current policy, with the normaliser as it is now."""

        def arrays(name: str) -> tuple[npt.NDArray[np.float32], ...]:
            layers = [layer for layer in self.actor if isinstance(layer, nn.Linear)]
            return tuple(getattr(layer, name).detach().numpy().T.copy() for layer in layers)

        return GaussianPolicy(
            weights=arrays("weight"),
            biases=arrays("bias"),
            log_std=self.log_std.detach().numpy().copy(),
            mean=self.seen.mean.astype(np.float32),
            std=self.seen.std().astype(np.float32),
        )

    def _normalise(self, observations: npt.NDArray[Any]) -> torch.Tensor:
        scaled = (observations - self.seen.mean) / self.seen.std()
        return torch.as_tensor(np.clip(scaled, -CLIPPED, CLIPPED), dtype=torch.float32)

    def collect(self) -> dict[str, npt.NDArray[Any]]:
        """Acts for one iteration; fields ``[T, E, ...]``, next observations never reset ones."""
        policy, rows = self.policy(), []
        shape = (self.config.horizon, self.config.environments, len(policy.log_std))
        noise = np.exp(policy.log_std) * self.generator.standard_normal(shape, np.float32)
        for step in range(self.config.horizon):
            actions = policy.mean_action(self.observations) + noise[step]
            result = self.env.step(np.clip(actions, -1.0, 1.0))
            self.episode_return += result.rewards
            self.discounted = self.config.gamma * self.discounted + result.rewards
            self.returns.update(self.discounted)
            ended = result.terminations | result.truncations
            scaled = np.clip(result.rewards / self.returns.std(), -CLIPPED, CLIPPED)
            rows.append(
                {
                    "observations": self.observations,
                    "actions": actions,
                    "rewards": scaled,
                    "next_observations": result.observations,
                    "terminations": result.terminations,
                    "ended": ended,
                }
            )
            self.observations = result.observations
            for index in np.flatnonzero(ended):
                self.recent = [*self.recent[-49:], float(self.episode_return[index])]
                self.episode_return[index] = self.discounted[index] = 0.0
                self.observations = self.observations.copy()
                self.observations[index] = self._reset(int(index))
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def iterate(self, fraction_left: float) -> None:
        """Collects, estimates advantages and improves; ``fraction_left`` scales the rate."""
        config, began = self.config, time.perf_counter()
        batch = self.collect()
        observations = self._normalise(batch["observations"])
        with torch.no_grad():
            values = self.critic(observations).squeeze(-1).numpy()
            next_observations = self._normalise(batch["next_observations"])
            next_values = self.critic(next_observations).squeeze(-1).numpy()
        deltas = batch["rewards"] + config.gamma * next_values * ~batch["terminations"] - values
        advantages, running = np.zeros_like(deltas), np.zeros(config.environments)
        for step in reversed(range(config.horizon)):
            running = deltas[step] + config.gamma * config.lam * ~batch["ended"][step] * running
            advantages[step] = running

        actions = torch.as_tensor(batch["actions"])
        with torch.no_grad():
            log_prob = self._log_prob(observations, actions)
        data = [
            tensor.flatten(0, 1)
            for tensor in (
                observations,
                actions,
                log_prob,
                torch.as_tensor(advantages, dtype=torch.float32),
                torch.as_tensor(advantages + values, dtype=torch.float32),
            )
        ]
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * fraction_left
        for _ in range(config.epochs):
            order = torch.randperm(len(data[0]))
            for chosen in torch.split(order, config.minibatch):
                self._improve(*(tensor[chosen] for tensor in data))
        self.seen.update(batch["observations"].reshape(-1, observations.shape[-1]))
        self.steps += config.environments * config.horizon
        self.seconds += time.perf_counter() - began

    def _log_prob(self, observations: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Log density up to a constant, which no ratio sees."""
        distance: torch.Tensor = (actions - self.actor(observations)) * torch.exp(-self.log_std)
        return -0.5 * distance.square().sum(-1) - self.log_std.sum()

    def _improve(
        self,
        observations: torch.Tensor,
        actions: torch.Tensor,
        old_log_prob: torch.Tensor,
        advantages: torch.Tensor,
        targets: torch.Tensor,
    ) -> None:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        ratio = torch.exp(self._log_prob(observations, actions) - old_log_prob)
        bounded = ratio.clamp(1 - self.config.clip, 1 + self.config.clip)
        policy_loss = -torch.minimum(advantages * ratio, advantages * bounded).mean()
        value_loss = 0.5 * (self.critic(observations).squeeze(-1) - targets).square().mean()
        self.optimiser.zero_grad()
        (policy_loss + 0.5 * value_loss).backward()
        nn.utils.clip_grad_norm_(self.parameters, self.config.gradient_norm)
        self.optimiser.step()

    def keep(self, out: Path) -> None:
        """Saves the current policy in ``out`` and adds a point to the curve."""
        self.policy().save(shipping.policy_file(out, self.steps))
        point = {"steps": self.steps, "seconds": round(self.seconds, 1)}
        if self.recent:
            point["return_noisy"] = round(float(np.mean(self.recent)), 1)
        self.curve.append(point)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the simulators: a resumed run begins new episodes."""
        return {
            "actor": self.actor.state_dict(),
            "critic": self.critic.state_dict(),
            "log_std": self.log_std.detach(),
            "optimiser": self.optimiser.state_dict(),
            "moments": [
                {
                    "mean": torch.as_tensor(moments.mean),
                    "variance": torch.as_tensor(moments.variance),
                    "count": moments.count,
                }
                for moments in (self.seen, self.returns)
            ],
            "generator": self.generator.bit_generator.state,
            "torch_generator": torch.get_rng_state(),
            "progress": {"steps": self.steps, "seconds": self.seconds, "recent": self.recent},
            "curve": self.curve,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from what :meth:`state_dict` returned."""
        self.actor.load_state_dict(state["actor"])
        self.critic.load_state_dict(state["critic"])
        self.log_std.data.copy_(state["log_std"])
        self.optimiser.load_state_dict(state["optimiser"])
        for moments, saved in zip((self.seen, self.returns), state["moments"], strict=True):
            moments.mean, moments.variance = saved["mean"].numpy(), saved["variance"].numpy()
            moments.count = saved["count"]
        self.generator.bit_generator.state = state["generator"]
        torch.set_rng_state(state["torch_generator"])
        self.steps, self.seconds = state["progress"]["steps"], state["progress"]["seconds"]
        self.recent, self.curve = state["progress"]["recent"], state["curve"]
        self._begin()


def train(environment: str, steps: int, seed: int, out: Path) -> None:
    """Learns for ``steps`` steps; ``out`` holds the policies and the state to go on from."""
    config = CONFIGS[environment]
    learner = Learner(environment, config, seed)
    out.mkdir(parents=True, exist_ok=True)
    if (state := shipping.load_state(out)) is not None:
        learner.load_state_dict(state)
    else:
        learner.keep(out)
    per_iteration = config.environments * config.horizon
    while learner.steps < steps:
        learner.iterate(1.0 - learner.steps / steps)
        due = (learner.steps // per_iteration) % config.save_every == 0
        if due or learner.steps >= steps:
            learner.keep(out)
            shipping.save_state(out, learner.state_dict())
            shipping.tell(f"{environment} seed {seed}", learner.curve[-1])


def finished(environment: str, seed: int, out: Path) -> shipping.Run:
    """What a run folder holds."""
    state = torch.load(out / shipping.STATE_FILE, weights_only=True)
    minimum, maximum, _ = reference(environment)
    proposed = {
        point["steps"]: float(
            normalized_score(point.get("return_noisy", minimum), minimum, maximum)
        )
        for point in state["curve"]
    }
    return shipping.Run(
        environment=environment,
        folder=out,
        algorithm="ppo",
        config=asdict(CONFIGS[environment]),
        seed=seed,
        steps=state["progress"]["steps"],
        seconds=state["progress"]["seconds"],
        curve=state["curve"],
        proposed=dict.fromkeys(("medium", "expert"), proposed),
    )


if __name__ == "__main__":
    shipping.command_line("suites.datasets.ppo", __doc__, 1_000_000, train, finished)
