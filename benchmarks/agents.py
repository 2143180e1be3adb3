"""Training speed on one core: our agents, and the same algorithms as they are commonly written.

    python benchmarks/agents.py [--seconds 3] [--stacks 1 5]

Prints, for each agent and stack size, seed-updates per second, the arithmetic of an update, and how
near that comes to the core's limit: 256 x 256 products by ``torch.mm``, and by the product our
networks use. The plain versions (``nn.Module``, ``loss.backward()``, ``torch.optim``) run in turn
with ours, in the same process and with the same memory settings, so that the ratio is a fair one.
Batches are prepared beforehand and left out.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from baselines import nets
from baselines.contract import Batch, Phase, Spec
from baselines.registry import Registry
from suites.launch import WORKER_ENVIRONMENT

OBSERVATION, ACTION, HIDDEN, BATCH = 11, 3, 256, 256  # hopper, the published networks
ROUNDS = 12  # every contestant runs this often, in turn; its best round counts


# The plain versions --------------------------------------------------------------------------


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers with rectifiers between them."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def follow(target: nn.Module, online: nn.Module, tau: float) -> None:
    """Polyak averaging, parameter by parameter."""
    for slow, fast in zip(target.parameters(), online.parameters(), strict=True):
        slow.data.copy_((1 - tau) * slow.data + tau * fast.data)


class Plain:
    """One seed: a policy, two critics and their targets."""

    def __init__(self) -> None:
        self.actor = nn.Sequential(*mlp(OBSERVATION, HIDDEN, HIDDEN, ACTION), nn.Tanh())
        self.q1 = mlp(OBSERVATION + ACTION, HIDDEN, HIDDEN, 1)
        self.q2 = mlp(OBSERVATION + ACTION, HIDDEN, HIDDEN, 1)
        self.actor_target, self.q1_target, self.q2_target = map(
            copy.deepcopy, (self.actor, self.q1, self.q2)
        )
        critics = [*self.q1.parameters(), *self.q2.parameters()]
        self.actor_adam = torch.optim.Adam(self.actor.parameters(), lr=3e-4)
        self.critic_adam = torch.optim.Adam(critics, lr=3e-4)
        self.updates = 0

    @staticmethod
    def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def critic_loss(self, batch: Batch, target: Tensor) -> Tensor:
        joined = torch.cat([batch["observations"], batch["actions"]], 1)
        mse = nn.functional.mse_loss
        return mse(self.q1(joined).squeeze(1), target) + mse(self.q2(joined).squeeze(1), target)

    def smallest_target(self, observations: Tensor, actions: Tensor) -> Tensor:
        joined = torch.cat([observations, actions], 1)
        return torch.min(self.q1_target(joined), self.q2_target(joined)).squeeze(1)


class PlainTD3BC(Plain):
    """TD3+BC as in most repositories."""

    def update(self, batch: Batch) -> None:
        with torch.no_grad():
            noise = (torch.randn_like(batch["actions"]) * 0.2).clamp(-0.5, 0.5)
            following = (self.actor_target(batch["next_observations"]) + noise).clamp(-1, 1)
            values = self.smallest_target(batch["next_observations"], following)
            target = batch["rewards"] + 0.99 * (1 - batch["terminations"]) * values
        self.descend(self.critic_adam, self.critic_loss(batch, target))
        self.updates += 1
        if self.updates % 2:
            return
        chosen = self.actor(batch["observations"])
        q = self.q1(torch.cat([batch["observations"], chosen], 1))
        loss = -2.5 / q.abs().mean().detach() * q.mean()
        self.descend(self.actor_adam, loss + nn.functional.mse_loss(chosen, batch["actions"]))
        for target_net, online in (
            (self.q1_target, self.q1),
            (self.q2_target, self.q2),
            (self.actor_target, self.actor),
        ):
            follow(target_net, online, 0.005)


class PlainIQL(Plain):
    """IQL as in most repositories."""

    def __init__(self) -> None:
        super().__init__()
        self.value = mlp(OBSERVATION, HIDDEN, HIDDEN, 1)
        self.log_std = nn.Parameter(torch.zeros(ACTION))
        self.value_adam = torch.optim.Adam(self.value.parameters(), lr=3e-4)
        self.actor_adam = torch.optim.Adam([*self.actor.parameters(), self.log_std], lr=3e-4)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.actor_adam, 1_000_000)

    def update(self, batch: Batch) -> None:
        with torch.no_grad():
            smallest = self.smallest_target(batch["observations"], batch["actions"])
            following = self.value(batch["next_observations"]).squeeze(1)
        advantage = smallest - self.value(batch["observations"]).squeeze(1)
        weight = torch.abs(0.7 - (advantage < 0).float())
        self.descend(self.value_adam, (weight * advantage**2).mean())

        target = batch["rewards"] + 0.99 * (1 - batch["terminations"]) * following
        self.descend(self.critic_adam, self.critic_loss(batch, target))
        follow(self.q1_target, self.q1, 0.005)
        follow(self.q2_target, self.q2, 0.005)

        importance = torch.exp(3.0 * advantage.detach()).clamp(max=100.0)
        spread = self.log_std.clamp(-5, 2).exp()
        policy = torch.distributions.Normal(self.actor(batch["observations"]), spread)
        log_prob = policy.log_prob(batch["actions"]).sum(1)
        self.descend(self.actor_adam, -(importance * log_prob).mean())
        self.schedule.step()


# Arithmetic ----------------------------------------------------------------------------------


def forward(inputs: int, outputs: int) -> float:
    """Multiplications and additions of one network's forward pass."""
    return 2.0 * BATCH * (inputs * HIDDEN + HIDDEN * HIDDEN + HIDDEN * outputs)


def train(inputs: int, outputs: int) -> float:
    """Forward, gradients of all weights, and of all inputs but the network's own."""
    return 3 * forward(inputs, outputs) - 2.0 * BATCH * inputs * HIDDEN


JOINED = OBSERVATION + ACTION
TD3_BC = (
    forward(OBSERVATION, ACTION)  # the next action
    + 2 * forward(JOINED, 1)  # its values
    + 2 * train(JOINED, 1)  # both critics
    + (train(OBSERVATION, ACTION) + 2 * forward(JOINED, 1)) / 2  # every second time: the policy,
)  # and one critic there and back to its inputs
IQL = (
    2 * forward(JOINED, 1)  # target values
    + train(OBSERVATION, 1)  # the state value
    + 2 * forward(OBSERVATION, 1)  # again, after its step, at s and s'
    + train(OBSERVATION, ACTION)  # the policy
    + 2 * train(JOINED, 1)  # both critics
)
ARITHMETIC = {"bc": train(OBSERVATION, ACTION), "td3_bc": TD3_BC, "iql": IQL}
# What the algorithm needs; the plain version also makes gradients that nobody uses. Plain IQL takes
# advantages before the value's step, which saves a pass.
PLAIN_ARITHMETIC = {"td3_bc": TD3_BC, "iql": IQL - forward(OBSERVATION, 1)}


# Measuring -----------------------------------------------------------------------------------


def rate(function: Callable[[int], Any], seconds: float) -> float:
    """Calls per second over about ``seconds``."""
    count, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        function(count)
        count += 1
    return count / elapsed


def make_batches(stack: int) -> list[Batch]:
    """A few batches ``[S, B, ...]`` of made-up transitions."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(stack, BATCH, *shape, generator=generator)

    return [
        {
            "observations": normal(OBSERVATION),
            "actions": normal(ACTION).tanh(),
            "rewards": normal(),
            "next_observations": normal(OBSERVATION),
            "terminations": (normal() > 2).float(),
        }
        for _ in range(8)
    ]


def ours(name: str, stack: int) -> Callable[[int], Any]:
    """An update of one of our agents."""
    cls = Registry().get(name)
    spec = Spec(
        spaces.Box(-np.inf, np.inf, (OBSERVATION,)),
        spaces.Box(-1, 1, (ACTION,)),
        (Phase("offline", 1_000_000),),
    )
    agent, batches = cls(spec, cls.Config(), range(stack)), make_batches(stack)
    return lambda i: agent.update(batches[i % 8], "offline")


def plain(agent: Any) -> Callable[[int], Any]:
    """An update of a plain version."""
    batches = [{field: value[0] for field, value in b.items()} for b in make_batches(1)]
    return lambda i: agent.update(batches[i % 8])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Training speed of the agents on one core.")
    parser.add_argument("--seconds", type=float, default=3.0, help="per contestant")
    parser.add_argument("--stacks", type=int, nargs="+", default=[1, 5], help="seeds in a stack")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)

    a, b, c = (torch.randn(256, 256) for _ in range(3))
    contestants: dict[tuple[str, int], Callable[[int], Any]] = {
        ("torch.mm", 0): lambda i: torch.mm(a, b, out=c),
        ("our product", 0): lambda i: nets._product(a, b.mT),
        ("plain td3_bc", 1): plain(PlainTD3BC()),
        ("plain iql", 1): plain(PlainIQL()),
    }
    for name in ARITHMETIC:
        for stack in options.stacks:
            contestants[name, stack] = ours(name, stack)
    for update in contestants.values():
        for i in range(10):
            update(i)
    best = dict.fromkeys(contestants, 0.0)
    for _ in range(ROUNDS):
        for key, update in contestants.items():
            best[key] = max(best[key], rate(update, options.seconds / ROUNDS))

    flop = 2.0 * 256**3
    limit, fastest = best["torch.mm", 0] * flop, best["our product", 0] * flop
    print(f"256 x 256 products, one core, float32: torch.mm {limit / 1e9:.0f} GFLOP/s, ", end="")
    print(f"our product {fastest / 1e9:.0f} GFLOP/s\n")
    print("| agent | S | seed-updates/s | GFLOP | of torch.mm | of our product | to plain |")
    print("|---|---|---|---|---|---|---|")
    for (name, stack), found in best.items():
        if not stack:
            continue
        bare = name.removeprefix("plain ")
        work = (ARITHMETIC if bare == name else PLAIN_ARITHMETIC)[bare]
        speed = found * stack
        reference = best.get((f"plain {bare}", 1))
        ratio = f"{speed / reference:.2f}" if reference else ""
        print(
            f"| {name} | {stack} | {speed:.0f} | {work / 1e9:.2f} | {speed * work / limit:.0%} | "
            f"{speed * work / fastest:.0%} | {ratio} |"
        )


if __name__ == "__main__":
    # The C library reads its settings when a process starts, hence the second start.
    if any(os.environ.get(name) != value for name, value in WORKER_ENVIRONMENT.items()):
        environment = {**os.environ, **WORKER_ENVIRONMENT}
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)
    main()
