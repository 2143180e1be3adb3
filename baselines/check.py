"""The conformance test for agents: ``python -m baselines.check td3_bc``, or any agent of yours.

Every check is a function ``check_<what>(cls, config=None)`` that returns nothing or raises a
:class:`CheckError` of one sentence; :func:`checks` lists them, so that a test suite can run them::

    @pytest.mark.parametrize("check", checks(), ids=lambda check: check.__name__)
    def test_contract(check):
        check(MyAgent)

Agents are trained on a tiny task made here, from the fields they need. Its actions are a box, or
with ``space="multidiscrete"`` (``--space multidiscrete``) integers; with ``space="history"`` its
observations are histories of days. An agent that has a preset
called "check" is built with it, so that large models can be checked at a small size. Unless said
otherwise a check runs in float64, where rounding is too small to hide an error.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from baselines import registry
from baselines.common import Noise, copy_state
from baselines.config import UsageError
from baselines.contract import Agent, Batch, Memory, Metrics, Needs, Phase, Spec, Step
from baselines.registry import Registry, fault_place, load_target, make_config, needs_of

SEEDS = (3, 11, 42)
UPDATES = 24  # enough for delayed updates, schedules and moments to matter
LEARNING_UPDATES = 200
TOLERANCE = 1e-10  # between the same seed alone and in a stack, float64, relative to 1 + |value|


class CheckError(AssertionError):
    """An agent breaks the contract; the message is one sentence saying where and how."""


Check = Callable[..., None]
_CHECKS: list[Check] = []


def checks() -> list[Check]:
    """All checks, in the order in which the command line runs them."""
    return list(_CHECKS)


def _check(function: Check) -> Check:
    """Lists a check, builds the default config, and turns any exception into a CheckError."""

    @functools.wraps(function)
    def checked(cls: type[Agent], config: Any = None, space: str = "box") -> None:
        try:
            with _task(space):
                function(cls, default_config(cls) if config is None else config)
        except CheckError:
            raise
        except Exception as error:
            raise CheckError(
                f"{cls.__name__} raised {type(error).__name__}: {error}{fault_place(error)}"
            ) from error

    _CHECKS.append(checked)
    return checked


def default_config(cls: type[Agent]) -> Any:
    """The agent's preset "check" if it has one, else its defaults."""
    return make_config(
        cls, {}, cls.__name__, "check" if "check" in getattr(cls, "presets", {}) else None
    )


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
TASK = TASKS["box"]


@contextlib.contextmanager
def _task(space: str) -> Iterator[None]:
    """Makes the task with these spaces the one that everything here runs on."""
    global TASK
    before, TASK = TASK, TASKS[space]
    try:
        yield
    finally:
        TASK = before


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
        made = TASK.spec(needs, updates, **spec)
        return cls(made, needs, tuple(seeds), agent(made, config, tuple(seeds)), [])

    def batch(self, number: int, keys: Sequence[int] | None = None) -> Batch:
        """The stacked batch ``number``; ``keys`` replaces the seeds that choose its rows."""
        rows = [TASK.batch(self.needs, self.spec, key, number) for key in keys or self.seeds]
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
            rows.append((2 * draw.uniform(TASK.features) - 1) * self.scale * junk)
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


def require(condition: bool, message: str) -> None:
    """Raises a CheckError unless the condition holds."""
    if not condition:
        raise CheckError(message)


def differs(a: Tensor, b: Tensor, tolerance: float = 0.0) -> bool:
    """Whether two tensors differ by more than ``tolerance`` x (1 + |b|), or in shape."""
    if a.shape != b.shape:
        return True
    return not bool(((a - b).abs() <= tolerance * (1 + b.abs())).all())


def require_same(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], when: str, tolerance: float = 0.0
) -> None:
    """Compares two records.

    Raises:
        CheckError: naming the first thing that differs, ``when``, and by how much.
    """
    require(found.keys() == wanted.keys(), f"the names of the metrics change {when}")
    for name, value in wanted.items():
        if differs(found[name], value, tolerance):
            same_shape = found[name].shape == value.shape
            extent = f"by {(found[name] - value).abs().max():.1e}" if same_shape else "in shape"
            raise CheckError(f"{name} changes {when} ({extent})")


@contextlib.contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Sets torch's and numpy's global generators, and puts them back at the end."""
    before, before_numpy = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(before)
        np.random.set_state(before_numpy)  # noqa: NPY002


# The checks ----------------------------------------------------------------------------------


@_check
def check_members(cls: type[Agent], config: Any) -> None:
    """The class has the contract's members, and its Config is frozen and complete."""
    registry.check_members(cls, cls.__name__)
    parameters = cls.Config.__dataclass_params__
    require(parameters.frozen, "Config must be frozen: @dataclass(frozen=True)")
    bare = [
        f.name for f in fields(cls.Config) if f.default is MISSING and f.default_factory is MISSING
    ]
    require(not bare, f"Config fields need defaults: {', '.join(bare)}")
    require(cls.version >= 1, f"version must be at least 1, not {cls.version}")


@_check
def check_needs(cls: type[Agent], config: Any) -> None:
    """Needs name fields of the contract and a positive batch size and window."""
    needs = needs_of(cls, config, cls.__name__)
    require(isinstance(needs, Needs), f"needs must return Needs, not {type(needs).__name__}")
    require(needs.batch_size > 0, f"Needs.batch_size must be positive, not {needs.batch_size}")
    require(
        needs.window is None or needs.window > 0,
        f"Needs.window must be positive, not {needs.window}",
    )
    require(len(set(needs.fields)) == len(needs.fields), "Needs.fields names a field twice")


@_check
def check_metrics(cls: type[Agent], config: Any) -> None:
    """Every update returns the same names, each a finite tensor [S] without gradient."""
    run = Run.new(cls, config).train(6)
    for metrics in run.metrics:
        require(
            isinstance(metrics, dict), f"update must return a dict, not {type(metrics).__name__}"
        )
        for name, value in metrics.items():
            require(
                isinstance(value, Tensor), f'metric "{name}" must be a tensor [S], not {value!r}'
            )
            shape = tuple(value.shape)
            require(shape == (len(SEEDS),), f'metric "{name}" must have shape [S], not {shape}')
            require(bool(value.isfinite().all()), f'metric "{name}" is not finite')
            require(not value.requires_grad, f'metric "{name}" carries a gradient; detach it')
    names = {tuple(sorted(metrics)) for metrics in run.metrics}
    require(len(names) == 1, f"update must return the same names every time, not {sorted(names)}")


@_check
def check_repeatable(cls: type[Agent], config: Any) -> None:
    """Two runs of the same seeds are equal, whatever the global generators hold."""
    with global_seed(1):
        first = Run.new(cls, config).train(6).record()
    with global_seed(2):
        second = Run.new(cls, config).train(6).record()
    require_same(second, first, "between two runs of the same seeds")


@_check
def check_seeds_differ(cls: type[Agent], config: Any) -> None:
    """Seeds fed the same batches become different policies: each has noise of its own."""
    run = Run.new(cls, config).train(6, keys=[SEEDS[0]] * len(SEEDS))
    for actions in run.answers():
        for other in range(1, len(SEEDS)):
            if differs(actions[other], actions[0]):
                return
    raise CheckError("all seeds act alike: they share their noise; draw from common.Noise per seed")


@_check
def check_stacked_equals_alone(cls: type[Agent], config: Any) -> None:
    """A seed trained in a stack equals the same seed trained alone."""
    stacked = Run.new(cls, config).train().record()
    for i, seed in enumerate(SEEDS):
        alone = Run.new(cls, config, [seed]).train().record()
        mine = {name: value[i : i + 1] for name, value in stacked.items()}
        require_same(mine, alone, f"when seed {seed} is trained in a stack", TOLERANCE)


@_check
def check_order_of_seeds(cls: type[Agent], config: Any) -> None:
    """The order of the seeds in the stack does not matter."""
    stacked = Run.new(cls, config).train(6).record()
    turned = Run.new(cls, config, SEEDS[::-1]).train(6).record()
    mine = {name: value.flip(0) for name, value in turned.items()}
    require_same(mine, stacked, "with the order of the seeds", TOLERANCE)


@_check
def check_one_seed_in_trouble(cls: type[Agent], config: Any) -> None:
    """Huge observations and rewards of one seed leave the others as they are."""

    def trouble(batch: Batch) -> Batch:
        for field in ("observations", "next_observations", "rewards", "returns_to_go"):
            if field in batch:
                batch[field][0] *= 1e4
        return batch

    calm = Run.new(cls, config).train(6).record()
    shaken = Run.new(cls, config).train(6, trouble).record()
    require_same(
        {name: value[1:] for name, value in shaken.items()},
        {name: value[1:] for name, value in calm.items()},
        "for the other seeds when one seed's data are huge; clip and normalise per seed",
        TOLERANCE,
    )


@_check
def check_batch_untouched(cls: type[Agent], config: Any) -> None:
    """An update does not write into its batch."""
    run = Run.new(cls, config)
    for number in range(3):
        batch = run.batch(number)
        before = copy_state(batch)
        run.agent.update(batch, "offline")
        require(batch.keys() == before.keys(), "update changes which fields its batch has")
        changed = [field for field, value in before.items() if not torch.equal(batch[field], value)]
        require(not changed, f"update writes into its batch: {', '.join(changed)}")


@_check
def check_save_and_load(cls: type[Agent], config: Any) -> None:
    """Saving to a file, loading into a fresh agent and going on equals never having stopped."""
    run = Run.new(cls, config).train(7)  # odd, so that every second update is caught out of step
    file = io.BytesIO()
    torch.save(run.agent.state_dict(), file)
    file.seek(0)
    try:
        state = torch.load(file, weights_only=True)
    except Exception as error:
        raise CheckError(
            "state_dict holds something that torch.load(weights_only=True) refuses; keep to "
            "tensors, numbers, strings, bytes, and dicts, lists and tuples of these"
        ) from error
    resumed = Run.new(cls, config)
    resumed.train(2)  # moments and generators that loading must overwrite
    resumed.agent.load_state_dict(state)
    require_same(
        {"the actions": torch.stack(resumed.answers())},
        {"the actions": torch.stack(run.answers())},
        "by saving and loading",
    )
    if run.needs.dataset:
        finished = replace(run.spec, dataset=None)
        when = "when a finished policy is loaded, where Spec.dataset is None"
        try:
            loaded = replace(run, spec=finished, agent=cls(finished, config, SEEDS))
            loaded.agent.load_state_dict(state)
        except Exception as error:
            raise CheckError(
                f"{type(error).__name__} {when}: {error}{fault_place(error)}"
            ) from error
        require_same(
            {"the actions": torch.stack(loaded.answers())},
            {"the actions": torch.stack(run.answers())},
            when,
        )
    resumed.metrics = list(run.metrics)
    with global_seed(5):
        run.train(6)
    with global_seed(6):
        resumed.train(6)
    require_same(
        resumed.record(),
        run.record(),
        "when training goes on after saving and loading; is all of weights, targets, optimisers, "
        "generators and counters in state_dict?",
    )


@_check
def check_state_is_a_copy(cls: type[Agent], config: Any) -> None:
    """Training on changes no saved state, and loading one keeps no reference to it."""
    run = Run.new(cls, config).train(2)
    saved = run.agent.state_dict()
    kept = copy_state(saved)
    run.train(2)
    require(_same_state(saved, kept), "a saved state changes as training goes on; copy its tensors")
    run.agent.load_state_dict(saved)
    run.train(2)
    require(
        _same_state(saved, kept), "a loaded state changes as training goes on; copy its tensors"
    )


def _same_state(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(_same_state(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same_state, a, b))
    return bool(a == b)


@_check
def check_evaluation_leaves_training_alone(cls: type[Agent], config: Any) -> None:
    """Acting in between, evaluating or exploring, changes nothing about training."""
    silent, asked = Run.new(cls, config).train(6), Run.new(cls, config)
    for _ in range(6):
        asked.train(1)
        asked.answers()
    require_same(asked.record(), silent.record(), "when the agent acts between updates")


@_check
def check_actions(cls: type[Agent], config: Any) -> None:
    """Actions have the space's shape and type, are finite and inside, whatever space and input."""
    for space in TASK.others():
        run = Run.new(cls, config, dtype="float32", actions=space)
        low, high = (space.low, space.high) if isinstance(space, spaces.Box) else _bounds(space)
        dtype = torch.int64 if TASK.integer else torch.float32
        for scale in (1.0, 1e6):
            for actions in run.answers(scale=scale):
                shape = (len(SEEDS), 4, 2)
                require(
                    isinstance(actions, Tensor) and tuple(actions.shape) == shape,
                    f"act must return actions [S, E, *action] = {shape}, not "
                    f"{tuple(getattr(actions, 'shape', ()))}",
                )
                require(
                    actions.dtype == dtype,
                    f"actions must be {str(dtype).removeprefix('torch.')}, not {actions.dtype}",
                )
                require(
                    bool(actions.isfinite().all()), f"actions are not finite (inputs x {scale:g})"
                )
                # Of rounding to float32; integers have none.
                slack = 0 if TASK.integer else 1e-6 * np.maximum(np.abs(low), np.abs(high))
                values = actions.numpy()
                require(
                    bool((values >= low - slack).all() and (values <= high + slack).all()),
                    f"actions leave the space {low} to {high} (inputs x {scale:g}): "
                    f"from {values.min((0, 1))} to {values.max((0, 1))}",
                )


def _bounds(space: spaces.Space[Any]) -> tuple[Any, Any]:
    assert isinstance(space, spaces.MultiDiscrete)
    return space.start, space.start + space.nvec - 1


@_check
def check_acting_is_repeatable(cls: type[Agent], config: Any) -> None:
    """The same steps and noise give the same actions, and acting changes no state."""
    run = Run.new(cls, config).train(2)
    before = copy_state(run.agent.state_dict())
    with global_seed(1):
        once = torch.stack(run.answers())
    with global_seed(2):
        again = torch.stack(run.answers())
    require_same({"the actions": again}, {"the actions": once}, "between two equal rollouts")
    require(_same_state(run.agent.state_dict(), before), "acting changes the agent's state")


@_check
def check_first_resets_memory(cls: type[Agent], config: Any) -> None:
    """Where ``first`` is True nothing of the past remains, and elsewhere all of it does."""
    run = Run.new(cls, config).train(2)
    past, memory = rollout(run, Probe())
    anew = Probe(offset=7)
    joined, _ = rollout(run, anew, memory=memory)
    fresh, _ = rollout(run, anew)
    require_same(
        {"the actions": torch.stack(joined)},
        {"the actions": torch.stack(fresh)},
        "with what happened before an episode begins; reset memory where first is True",
    )
    some = Probe(begins=((2, 1), (2, 3)))
    partly, _ = rollout(run, some)
    require_same(
        {"the actions": torch.stack(partly)[:, :, [0, 2]]},
        {"the actions": torch.stack(past)[:, :, [0, 2]]},
        "in an episode when another one begins; reset memory only where first is True",
        TOLERANCE,
    )
    restarted, _ = rollout(run, some, fresh_noise_at=2)
    late, _ = rollout(run, Probe(length=2, offset=2))
    require_same(
        {"the actions": torch.stack(restarted[2:])[:, :, [1, 3]]},
        {"the actions": torch.stack(late)[:, :, [1, 3]]},
        "with what was before, when only some episodes begin; reset memory where first is True",
        TOLERANCE,
    )


@_check
def check_episodes_are_independent(cls: type[Agent], config: Any) -> None:
    """An episode's actions do not depend on its place, its neighbours, or their having ended."""
    run = Run.new(cls, config).train(2)
    for explore in (False, True):

        def play(probe: Probe, explore: bool = explore) -> Tensor:
            return torch.stack(rollout(run, probe, explore=explore)[0])

        together = play(Probe())
        cases = {
            "with the order of the episodes": (play(Probe((2, 0, 3, 1))), [2, 0, 3, 1]),
            "when it is alone": (play(Probe((2,))), [2]),
            "with other episodes beside it": (play(Probe((0, 7, 2, 8)))[:, :, [0, 2]], [0, 2]),
            "when others have ended": (play(Probe(ended=(1, 3)))[:, :, [0, 2]], [0, 2]),
        }
        for when, (found, episodes) in cases.items():
            wanted = {"an episode's action": together[:, :, episodes]}
            require_same({"an episode's action": found}, wanted, when, TOLERANCE)


@_check
def check_learns(cls: type[Agent], config: Any) -> None:
    """Trained on the tiny task, the policy gains at least half of what there is to gain.

    The mean over the seeds must pass the middle between the data's mean return and the best one.
    An agent that asks for no actions, such as a random policy, is not expected to learn.
    """
    needs = needs_of(cls, config, cls.__name__)
    if "actions" not in needs.fields and not needs.dataset:
        return
    run = Run.new(cls, config, updates=LEARNING_UPDATES, dtype="float32").train(LEARNING_UPDATES)
    reached = float(TASK.play(run.agent, run.spec, run.seeds, 50).mean())
    data, best = run.spec.statistics["return_mean"], float(TASK.length)
    require(
        reached >= (data + best) / 2,
        f"after {LEARNING_UPDATES} updates the policy returns {reached:.2f} on the tiny task, "
        f"where the data's mean is {data:.2f}, the best {best:.2f} and half way is asked for",
    )


# The command line ----------------------------------------------------------------------------


def find(targets: Sequence[str], plugins: Sequence[str]) -> dict[str, type[Agent]]:
    """The agents to check by name: names, ``module:Class``, or all of the plugins' agents.

    Raises:
        UsageError: unknown names, or nothing asked for.
    """
    registry = Registry(plugins)
    if not targets:
        targets = [n for n, source in registry.sources.items() if source.startswith("plugin ")]
    if not targets:
        raise UsageError(
            f"name an agent ({', '.join(registry.names())}), module:Class, or --plugin FILE"
        )
    found: dict[str, type[Agent]] = {}
    for target in targets:
        found[target] = (
            load_target(target, "command line") if ":" in target else registry.get(target)
        )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks agents and prints a line per check.

    Returns:
        0 if all passed, 1 if a check failed, 2 for wrong input.
    """
    parser = argparse.ArgumentParser(
        "python -m baselines.check", description="Checks agents against the contract."
    )
    parser.add_argument("agents", nargs="*", metavar="AGENT", help="a name, or module:Class")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE", help="a plugin file; repeatable"
    )
    parser.add_argument(
        "--space", choices=list(TASKS), default="box", help="the tiny task's spaces"
    )
    options = parser.parse_args(arguments)
    try:
        agents = find(options.agents, options.plugin)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    failed = sum(_run_checks(name, cls, options.space) for name, cls in agents.items())
    plural = "s" * (failed != 1)
    print(f"{failed} check{plural} failed" if failed else "all checks passed")
    return 1 if failed else 0


def _run_checks(name: str, cls: type[Agent], space: str) -> int:
    """Prints a line per check of an agent; returns how many failed."""
    print(name)
    failed: dict[str, str] = {}  # what was said, and by which check
    count = 0
    for check in checks():
        title = check.__name__.removeprefix("check_")
        started, message = time.perf_counter(), ""
        try:
            check(cls, space=space)
        except CheckError as error:
            message = str(error)
            count += 1
        seconds = time.perf_counter() - started
        first = failed.setdefault(message, title) if message else title
        said = f": {message}" if first == title else f": as {first} says"
        verdict = "FAIL" if message else "pass"
        print(f"  {verdict}  {title} ({seconds:.1f} s){said if message else ''}", flush=True)
        if message and check in (check_members, check_needs, check_metrics):
            print("  the other checks rest on this one; they are left out until it passes")
            break
    return count


if __name__ == "__main__":
    sys.exit(main())
