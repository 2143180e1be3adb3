"""The one evaluator: all seeds and episodes of a policy in lockstep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces

from baselines.common import Noise
from baselines.contract import Agent, Memory, Spec, Step
from suites.datasets.history import viewing
from suites.datasets.transforms import Transform
from suites.envs import make_vector
from suites.envs.mujoco import measure_names
from suites.spaces import is_integer

# Reset seeds are the same for every agent and training seed, and below those of fresh episodes
# (suites/policy.py), of collecting (suites/online.py) and of local data (suites/datasets/play.py).
CURVE_RESET_SEED = 10_000_000
FINAL_RESET_SEED = 20_000_000


class PolicyError(RuntimeError):
    """An agent acted against the contract; the message says how."""


@dataclass(frozen=True)
class Evaluation:
    """Raw returns and lengths ``[S, E]``, and the episodes' reset seeds ``[E]``.

    ``successes`` ``[S, E]`` are 1 for episodes in which the environment reported success, 0 for
    others, and NaN where the environment knows no success. ``measures`` ``[S, E, M]`` are sums over
    the episode of what the environment measures beside the reward, in the order of its names.
    """

    returns: npt.NDArray[np.float64]
    lengths: npt.NDArray[np.int64]
    reset_seeds: npt.NDArray[np.int64]
    successes: npt.NDArray[np.float64]
    measures: npt.NDArray[np.float64]

    def success_rate(self, i: int) -> dict[str, float]:
        """The i-th seed's share of successes, for its record; empty where there is no success."""
        found = self.successes[i]
        return {"success_rate": float(found.mean())} if np.isfinite(found).any() else {}

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """The same for a checkpoint."""
        return {name: torch.from_numpy(value) for name, value in vars(self).items()}

    @classmethod
    def from_tensors(cls, saved: Mapping[str, torch.Tensor]) -> Evaluation:
        """What ``to_tensors`` was made of."""
        found = {name: value.numpy() for name, value in saved.items()}
        # A checkpoint may be older than measures.
        return cls(**{"measures": np.zeros((*found["returns"].shape, 0)), **found})


class NoSimulator:
    """Stands where an :class:`Evaluator` would for tasks that have no simulator: no episodes."""

    measures: tuple[str, ...] = ()

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = len(seeds)

    def run(
        self, agent: Agent, number: int, listen: Callable[[], None] | None = None
    ) -> Evaluation:
        """As :meth:`Evaluator.run`, with E = 0."""
        none = np.zeros((self.seeds, 0))
        unmeasured = np.zeros((self.seeds, 0, 0))
        return Evaluation(none, none.astype(np.int64), np.zeros(0, np.int64), none, unmeasured)

    def close(self) -> None:
        """Nothing to free."""


class Evaluator:
    """Runs S seeds x E episodes of one environment side by side.

    Every seed sees the same E starts. A finished episode stays, marked inactive, until all have
    ended; nothing is reset in between. The agent's noise depends only on the training seed, the
    evaluation's number and the episode.

    Args:
        env_id: a gymnasium id.
        spec: spaces, device and floating-point type.
        seeds: training seeds.
        transform: of observations and rewards, as in training.
        episodes: E.
        first_reset_seed: episode e is reset with this + e.

    Attributes:
        measures: names of what the environment measures beside the reward, M of them.
    """

    def __init__(
        self,
        env_id: str,
        spec: Spec,
        seeds: Sequence[int],
        transform: Transform,
        episodes: int,
        first_reset_seed: int,
    ) -> None:
        self.spec, self.seeds, self.transform, self.episodes = (
            spec,
            tuple(seeds),
            transform,
            episodes,
        )
        self.reset_seeds = first_reset_seed + np.arange(episodes)
        self.env = make_vector(env_id, len(self.seeds) * episodes)
        self.measures = measure_names(self.env)

    def run(
        self, agent: Agent, number: int, listen: Callable[[], None] | None = None
    ) -> Evaluation:
        """Plays all episodes to their end.

        Args:
            agent: the policy.
            number: which evaluation this is; chooses the noise of stochastic policies.
            listen: called after every step.

        Raises:
            PolicyError: if the agent returns actions of a wrong shape or that are not finite.
        """
        env, seeds, episodes = self.env, len(self.seeds), self.episodes
        count = seeds * episodes
        observations = np.stack(
            [env.reset(i, int(self.reset_seeds[i % episodes])) for i in range(count)]
        )
        noise = Noise.for_episodes(
            self.seeds,
            "evaluation",
            number,
            range(episodes),
            device=self.spec.device,
            dtype=self.spec.torch_dtype(),
        )
        rewards = np.zeros(count)
        returns, lengths = np.zeros(count), np.zeros(count, np.int64)
        successes = np.full(count, np.nan)
        measures = np.zeros((count, len(self.measures)))
        first, active = np.ones(count, bool), np.ones(count, bool)
        memory: Memory | None = None
        view = viewing(self.spec.observation_space, count)
        while active.any():
            step: Step = {
                "observations": self._tensor(
                    view(self.transform.observations(observations), first)
                ),
                "rewards": self._tensor(rewards * self.transform.reward_scale),
                "first": self._tensor(first),
                "active": self._tensor(active),
                "noise": noise,
            }
            with torch.no_grad():
                actions, memory = agent.act(step, memory)
            played = env.step(self._actions(actions, active), active)
            observations, rewards = played.observations, played.rewards
            returns += rewards
            lengths += active
            if played.successes is not None:
                successes = np.fmax(successes, played.successes)
            if played.measures is not None:
                measures += played.measures
            active = active & ~(played.terminations | played.truncations)
            first[:] = False
            if listen is not None:
                listen()
        return Evaluation(
            returns.reshape(seeds, episodes),
            lengths.reshape(seeds, episodes),
            self.reset_seeds,
            successes.reshape(seeds, episodes),
            measures.reshape(seeds, episodes, len(self.measures)),
        )

    def _tensor(self, values: npt.NDArray[np.generic]) -> torch.Tensor:
        return as_tensor(values, (len(self.seeds), self.episodes), self.spec)

    def _actions(
        self, actions: torch.Tensor, active: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.generic]:
        space, lead = self.spec.action_space, (len(self.seeds), self.episodes)
        return clip_to(space, check_actions(actions, space, lead, active))

    def close(self) -> None:
        """Frees the simulators."""
        self.env.close()


def as_tensor(values: npt.NDArray[np.generic], lead: tuple[int, int], spec: Spec) -> torch.Tensor:
    """A copy of ``[S * E, ...]`` as the tensor ``[S, E, ...]`` that an agent sees."""
    tensor = torch.from_numpy(values).reshape(*lead, *values.shape[1:])
    dtype = spec.torch_dtype() if tensor.is_floating_point() else tensor.dtype
    return tensor.to(spec.device, dtype, copy=True)


def check_actions(
    actions: torch.Tensor,
    space: spaces.Space[Any],
    lead: tuple[int, int],
    active: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[Any]:
    """What an agent's ``act`` returned, ``[S * E, *action]``, if it is as the contract says.

    Args:
        actions: should be ``[S, E, *action]``.
        space: of one action.
        lead: S and E.
        active: ``[S * E]``, the episodes that still go on, all by default; of the others anything
            is taken.

    Raises:
        PolicyError: saying what is wrong.
    """
    expected = (*lead, *(space.shape or ()))
    if not isinstance(actions, torch.Tensor) or tuple(actions.shape) != expected:
        shape = (
            tuple(actions.shape) if isinstance(actions, torch.Tensor) else type(actions).__name__
        )
        raise PolicyError(
            f"act returned actions of shape {shape}; the contract asks for {expected}"
        )
    flat = actions.detach().cpu().numpy().reshape(-1, *expected[2:])
    used = flat if active is None else flat[active]
    if not np.isfinite(used).all():
        raise PolicyError("act returned actions that are not finite (NaN or infinity)")
    if is_integer(space) and not all(space.contains(action) for action in used):
        raise PolicyError(f"act returned actions that are not in {space}")
    return flat


def clip_to(space: spaces.Space[Any], actions: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The actions ``[..., *action]`` that will be executed: clipped to a box, in its dtype."""
    if not isinstance(space, spaces.Box):
        return actions
    clipped: npt.NDArray[Any] = np.clip(actions, space.low, space.high)
    return clipped.astype(space.dtype, copy=False)
