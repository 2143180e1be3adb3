"""The tiny task of the conformance check, and agents on it: built, trained, and asked.

:mod:`baselines.check` has the checks.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from baselines.common import Noise
from baselines.contract import Agent, Batch, Memory, Metrics, Needs, Phase, Spec, Step
from baselines.registry import needs_of

SEEDS = (3, 11, 42)
UPDATES = 24  # enough for delayed updates, schedules and moments to matter


class CheckError(AssertionError):
    """An agent breaks the contract; the message is one sentence saying where and how."""


def require(condition: bool, message: str) -> None:
    """Raises a CheckError unless the condition holds."""
    if not condition:
        raise CheckError(message)


# The task ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """Short episodes in which the reward says how near the action is to a target in the box.

        r(s, a) = 1 - |u - u*(s)|^2,   u: a mapped to [-1, 1],   u*(s) = (sin 2 s_1, s_2 s_3) / 2

    The next state is drawn anew, so acting well is a matter of each step, though values look far
    ahead. Two logging policies act at u* plus noise of standard deviation 0.3 and 0.6: the noise is
    what an agent can do without, and plain cloning already does. Rewards and observations are of
    order one, so that the transforms an agent may ask for are left out. The box is lopsided; if it
    is ``integer``, actions are the integers from ``low`` to ``high``, as a MultiDiscrete space.
    With ``history`` (static numbers, days, numbers of a day) observations are such a Dict, flat;
    ``told`` are the places of s_1, s_2 and s_3 in them.
    """

    episodes: int = 200
    length: int = 5
    low: tuple[float, ...] = (-0.5, -3.0)
    high: tuple[float, ...] = (1.5, -1.0)
    features: int = 5
    integer: bool = False
    history: tuple[int, int, int] | None = None
    told: tuple[int, int, int] = (0, 1, 2)

    def spec(
        self,
        needs: Needs,
        updates: int,
        dtype: Literal["float32", "float64"] = "float64",
        actions: spaces.Space[Any] | None = None,
    ) -> Spec:
        """The specification an agent of these needs is built with; ``actions`` in another space."""
        returns = self.data["returns_to_go"][:: self.length]
        spec = Spec(
            observation_space=self.observations(),
            action_space=actions or self.space(self.low, self.high),
            phases=(Phase("offline", updates),),
            horizon=self.length,
            reward_parts=("near", "constant"),
            policies=2,
            policy_groups=2,
            statistics={
                "transitions": float(self.episodes * self.length),
                "episodes": float(self.episodes),
                "return_mean": float(returns.mean()),
                "return_best": float(returns.max()),
                "return_worst": float(returns.min()),
                "reward_scale": 1.0,
            },
            dtype=dtype,
        )
        if not needs.dataset:
            return spec
        told = ({*needs.fields} - {"mask"}) | {"returns_to_go", "timesteps"}
        return replace(
            spec, dataset={k: _cast(self.data[k], spec.torch_dtype()) for k in sorted(told)}
        )

    def observations(self) -> spaces.Space[Any]:
        """The observations, before they are flat."""

        def numbers(*shape: int) -> spaces.Box:
            return spaces.Box(-np.inf, np.inf, shape, np.float64)

        if self.history is None:
            return numbers(self.features)
        static, days, each = self.history
        return spaces.Dict(static=numbers(static), temporal=numbers(days, each))

    def space(self, low: Sequence[float], high: Sequence[float]) -> spaces.Space[Any]:
        """The actions between two bounds."""
        if not self.integer:
            return spaces.Box(np.asarray(low), np.asarray(high), dtype=np.float64)
        start = np.asarray(low, np.int64)
        return spaces.MultiDiscrete(np.asarray(high, np.int64) - start + 1, start=start)

    def others(self) -> list[spaces.Space[Any]]:
        """Spaces of the same kind in which actions must lie too."""
        if self.integer:
            bounds: list[Any] = [((0, 0), (1, 1)), ((0, 0), (8, 2)), ((-3, 5), (3, 5))]
        else:
            bounds = [((-1, -1), (1, 1)), ((-0.1, 2), (0.7, 9)), ((-1e-3, -1e3), (2e-3, 1e-3))]
        return [self.space(low, high) for low, high in bounds]

    def reward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """r(s, a) ``[...]``, at most 1."""
        return 1.0 - (self._unit(actions) - self._best(observations)).square().sum(-1)

    def _best(self, s: Tensor) -> Tensor:
        a, b, c = (s[..., place] for place in self.told)
        return torch.stack([(2 * a).sin(), b * c], -1) / 2

    def _unit(self, actions: Tensor) -> Tensor:
        actions = actions.double()
        low, high = actions.new_tensor(self.low), actions.new_tensor(self.high)
        return (2 * actions - low - high) / (high - low)

    @functools.cached_property
    def data(self) -> dict[str, Tensor]:
        """The logged transitions ``[N, ...]``, float64, episodes one after the other."""
        noise = Noise.for_seeds([0], "check data", dtype=torch.float64)
        count = self.episodes * self.length
        states = 2 * noise.uniform(count + 1, self.features)[0] - 1
        policies = noise.integers(2, self.episodes)[0].repeat_interleave(self.length)
        spread = 0.3 * (1 + policies.unsqueeze(-1))
        unit = (self._best(states[:-1]) + spread * noise.normal(count, 2)[0]).clamp(-1, 1)
        low, high = unit.new_tensor(self.low), unit.new_tensor(self.high)
        actions = low + (high - low) * (unit + 1) / 2
        actions = actions.round().long() if self.integer else actions
        rewards = self.reward(states[:-1], actions)
        timesteps = torch.arange(count) % self.length
        ends = timesteps == self.length - 1
        limit = torch.arange(count) // self.length % 2 == 1  # every other episode hits a limit
        by_episode = rewards.reshape(self.episodes, self.length)
        return {
            "observations": states[:-1],
            "actions": actions,
            "rewards": rewards,
            "next_observations": states[1:],
            "terminations": (ends & ~limit).double(),
            "truncations": (ends & limit).double(),
            "policy_ids": policies,
            "policy_groups": policies,
            "reward_parts": torch.stack([rewards - 1, torch.ones_like(rewards)], -1),
            "returns_to_go": by_episode.flip(1).cumsum(1).flip(1).flatten(),
            "timesteps": timesteps,
        }

    def batch(self, needs: Needs, spec: Spec, seed: int, number: int) -> Batch:
        """A seed's batch ``number``: fields ``[B, ...]`` or, padded left, ``[B, K, ...]``."""
        draw = Noise([(seed, "check batch", number)], [])
        index = draw.integers(self.episodes * self.length, needs.batch_size)
        dtype = spec.torch_dtype()
        if needs.window is None:
            return {field: _cast(self.data[field][index], dtype) for field in needs.fields}
        end = (index // self.length + 1) * self.length
        steps = torch.minimum(index + needs.window, end).unsqueeze(-1)
        steps = steps + torch.arange(-needs.window, 0)
        mask = steps >= index.unsqueeze(-1)
        table = {**self.data, "mask": torch.ones(len(self.data["rewards"]), dtype=torch.float64)}
        batch = {}
        for field in needs.fields:
            value = _cast(table[field][steps.clamp(min=0)], dtype)
            batch[field] = value * mask.reshape(*mask.shape, *[1] * (value.dim() - 2)).to(
                value.dtype
            )
        return batch

    def play(self, agent: Agent, spec: Spec, seeds: Sequence[int], episodes: int) -> Tensor:
        """The mean return of each seed's policy, ``[S]``."""
        draw = Noise([(0, "check play")], [], dtype=torch.float64)
        states = 2 * draw.uniform(self.length, episodes, self.features) - 1
        states = states.unsqueeze(1).expand(-1, len(seeds), -1, -1)
        noise = evaluation_noise(spec, seeds, range(episodes))
        total = torch.zeros(len(seeds), episodes, dtype=torch.float64)
        rewards, memory = total, None
        for t in range(self.length):
            step = make_step(states[t], rewards, torch.full(total.shape, t == 0), noise, spec)
            with torch.no_grad():
                actions, memory = agent.act(step, memory)
            rewards = self.reward(states[t], actions.double())
            total = total + rewards
        return total.mean(1)


TASKS = {
    "box": Task(),
    "multidiscrete": Task(low=(0, -1), high=(4, 5), integer=True),
    # One of the static numbers, and two of the last day.
    "history": Task(features=2 + 4 * 3, history=(2, 4, 3), told=(0, 11, 13)),
}
_chosen = [TASKS["box"]]


@contextlib.contextmanager
def on_spaces(space: str) -> Iterator[None]:
    """Makes the task with these spaces the one that everything runs on."""
    _chosen.append(TASKS[space])
    try:
        yield
    finally:
        _chosen.pop()


def the_task() -> Task:
    """The task that everything runs on now."""
    return _chosen[-1]


def _cast(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype, copy=True) if value.is_floating_point() else value.clone()


# Building, training and asking an agent --------------------------------------------------------


@dataclass
class Run:
    """An agent on its way through the tiny task.

    Attributes:
        spec, needs, seeds: what the agent was built from.
        agent: the agent.
        metrics: of every update so far.
    """

    spec: Spec
    needs: Needs
    seeds: tuple[int, ...]
    agent: Agent
    metrics: list[Metrics]

    @classmethod
    def new(
        cls,
        agent: type[Agent],
        config: Any,
        seeds: Sequence[int] = SEEDS,
        updates: int = 2 * UPDATES,
        **spec: Any,
    ) -> Run:
        """Builds an agent that expects ``updates`` updates; ``spec`` goes to :meth:`Task.spec`."""
        needs = needs_of(agent, config, agent.__name__)
        made = the_task().spec(needs, updates, **spec)
        return cls(made, needs, tuple(seeds), agent(made, config, tuple(seeds)), [])

    def batch(self, number: int, keys: Sequence[int] | None = None) -> Batch:
        """The stacked batch ``number``; ``keys`` replaces the seeds that choose its rows."""
        rows = [the_task().batch(self.needs, self.spec, key, number) for key in keys or self.seeds]
        return {field: torch.stack([row[field] for row in rows]) for field in self.needs.fields}

    def train(
        self, updates: int = UPDATES, change: Callable[[Batch], Batch] | None = None, **batch: Any
    ) -> Run:
        """Makes updates with the batches that follow; ``change`` may alter each batch first."""
        for _ in range(updates):
            made = self.batch(len(self.metrics), **batch)
            self.metrics.append(self.agent.update(change(made) if change else made, "offline"))
        return self

    def answers(self, **options: Any) -> list[Tensor]:
        """Actions ``[S, E, A]`` over a few steps, as evaluated and as explored."""
        return [
            actions
            for explore in (False, True)
            for actions in rollout(self, Probe(**options), explore=explore)[0]
        ]

    def record(self) -> dict[str, Tensor]:
        """Everything to compare: metrics ``[S, updates]`` by name, and answers."""
        names = self.metrics[-1] if self.metrics else {}
        found = {
            f'metric "{n}"': torch.stack([m[n] for m in self.metrics[-UPDATES:]], 1) for n in names
        }
        return {**found, "the actions": torch.stack(self.answers(), 1)}


@dataclass(frozen=True)
class Probe:
    """Made-up episodes in lockstep: what an agent is asked when its answers are compared.

    Attributes:
        episodes: which episodes, in this order; everything about one follows from its number.
        length: steps.
        begins: (step, episode) pairs at which an episode begins anew; all begin at step 0.
        ended: episodes marked inactive from step 1 on.
        scale: of the observations.
        offset: number of the first step, to join a rollout later.
    """

    episodes: tuple[int, ...] = (0, 1, 2, 3)
    length: int = 4
    begins: tuple[tuple[int, int], ...] = ()
    ended: tuple[int, ...] = ()
    scale: float = 1.0
    offset: int = 0

    def step(self, run: Run, t: int, noise: Noise) -> Step:
        """The step ``t``, the same for every seed."""
        rows, rewards = [], []
        for episode in self.episodes:
            junk = 100.0 if episode in self.ended and t > 0 else 1.0
            draw = Noise([(episode, "check probe", t + self.offset)], [], dtype=torch.float64)
            rows.append((2 * draw.uniform(the_task().features) - 1) * self.scale * junk)
            rewards.append(draw.uniform() * junk * (t > 0))
        first = [t == 0 or (t, episode) in self.begins for episode in self.episodes]
        shape = (len(run.seeds), -1)
        return make_step(
            torch.stack(rows).expand(*shape, -1),
            torch.stack(rewards).expand(*shape),
            torch.tensor(first).expand(*shape),
            noise,
            run.spec,
            torch.tensor([t == 0 or e not in self.ended for e in self.episodes]).expand(*shape),
        )


def evaluation_noise(spec: Spec, seeds: Sequence[int], episodes: Sequence[int]) -> Noise:
    """The noise of one evaluation."""
    return Noise.for_episodes(seeds, "evaluation", 0, episodes, dtype=spec.torch_dtype())


def make_step(
    observations: Tensor,
    rewards: Tensor,
    first: Tensor,
    noise: Noise,
    spec: Spec,
    active: Tensor | None = None,
) -> Step:
    """A step of its own storage, in the agent's floating-point type."""
    return {
        "observations": _cast(observations.contiguous(), spec.torch_dtype()),
        "rewards": _cast(rewards.contiguous(), spec.torch_dtype()),
        "first": first.clone(),
        "active": torch.ones_like(first) if active is None else active.clone(),
        "noise": noise,
    }


def rollout(
    run: Run,
    probe: Probe,
    *,
    explore: bool = False,
    memory: Memory | None = None,
    fresh_noise_at: int | None = None,
) -> tuple[list[Tensor], Memory | None]:
    """The actions of a probe's steps and the memory after them."""
    noise = evaluation_noise(run.spec, run.seeds, probe.episodes)
    actions = []
    for t in range(probe.length):
        if t == fresh_noise_at:
            noise = evaluation_noise(run.spec, run.seeds, probe.episodes)
        with torch.no_grad():
            answer = run.agent.act(probe.step(run, t, noise), memory, explore=explore)
            require(
                isinstance(answer, tuple) and len(answer) == 2,
                "act must return two things, the actions and the memory to pass next (or None)",
            )
            chosen, memory = answer
        actions.append(chosen)
    return actions, memory
