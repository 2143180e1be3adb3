"""Online phases: acting to collect, the replay of what was collected, and resuming both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from baselines.common import Noise, copy_state, derive_seed
from baselines.contract import Agent, Memory, Needs, Spec, Step
from suites.checkpoint import ResumeError
from suites.datasets.store import Dataset, DatasetError
from suites.datasets.transforms import Transform
from suites.envs import make_vector
from suites.evaluate import as_tensor, check_actions, clip_to
from suites.job import env_steps_due, is_online

# Episodes of training are reset with seeds from here to 2^32: above all evaluations' seeds
# (suites/evaluate.py, suites/policy.py), below those that local data is played with.
TRAINING_RESET_SEED = 2**31


def reset_seed(seed: int, episode: int) -> int:
    """What the ``episode``-th collected episode of a training seed is reset with."""
    return TRAINING_RESET_SEED + derive_seed(seed, "reset", episode) % 2**31


class Replay:
    """The last ``capacity`` transitions of every seed, as packed rows ``[S, capacity, D]``.

    The rows have the columns of the dataset, so that a batch may be gathered from both.
    """

    def __init__(self, seeds: int, width: int, capacity: int, device: str = "cpu") -> None:
        self.capacity = capacity
        self.table = torch.empty(seeds, capacity, width, device=device)  # touched when written
        self.flat = self.table.view(seeds * capacity, width)
        self.starts = capacity * torch.arange(seeds, device=device).unsqueeze(1)
        self.added = 0  # rows per seed, those that were overwritten included

    def __len__(self) -> int:
        """Rows per seed."""
        return min(self.added, self.capacity)

    def add(self, rows: Tensor) -> None:
        """Appends a row ``[S, D]`` for every seed, in place of the oldest if there is no room."""
        self.table[:, self.added % self.capacity] = rows
        self.added += 1

    def positions(self, index: Tensor) -> Tensor:
        """Rows of ``flat`` for indices ``[S, B]`` of each seed's own rows."""
        return index + self.starts

    def state_dict(self) -> dict[str, Any]:
        """What is filled, and how often."""
        return {"added": self.added, "rows": self.table[:, : len(self)].clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` returned."""
        self.added = int(state["added"])
        self.table[:, : len(self)] = state["rows"].to(self.table.device)


class Collector:
    """Acts in one environment per seed, without end, and keeps what happens in a :class:`Replay`.

    Nothing that a seed collects depends on the other seeds of its stack.

    Args:
        env_id: a gymnasium id.
        spec: spaces, phases, device and floating-point type.
        seeds: training seeds.
        transform: of observations and rewards, as in training.
        dataset: whose columns the replay has.
        needs: the agent's.

    Raises:
        DatasetError: if the agent needs parts of the reward that the environment does not tell.
    """

    def __init__(
        self,
        env_id: str,
        spec: Spec,
        seeds: Sequence[int],
        transform: Transform,
        dataset: Dataset,
        needs: Needs,
    ) -> None:
        self.spec, self.seeds, self.transform = spec, tuple(seeds), transform
        self.env: Any = make_vector(env_id, len(seeds))
        width, columns = dataset.table.shape[1], dataset.card["columns"]
        collected = env_steps_due(spec.phases, sum(phase.updates for phase in spec.phases))
        capacity = next(phase.replay_size for phase in spec.phases if is_online(phase))
        self.replay = Replay(len(seeds), width, min(capacity, collected), spec.device)
        self.row = np.zeros((len(seeds), width), np.float32)
        self.put = {field: self.row[:, start:stop] for field, (start, stop) in columns.items()}
        self.known_parts = self._match_parts(dataset.card.get("reward_parts", ()), needs)
        self.steps = 0  # per seed
        self.noise = Noise(
            [(seed, "exploration") for seed in seeds],
            (len(seeds), 1),
            device=spec.device,
            dtype=spec.torch_dtype(),
        )
        self.memory: Memory | None = None
        self.rewards = np.zeros(len(seeds))
        self.first = np.ones(len(seeds), bool)
        self.active = self._tensor(self.first)  # an episode that ends gives way to the next
        self.episodes = [0] * len(seeds)  # number of each seed's present episode
        self.played: list[list[npt.NDArray[Any]]] = [[] for _ in seeds]  # its actions
        self.restorable = hasattr(self.env, "save")
        self.observations = np.stack([self._reset(i) for i in range(len(seeds))])

    def _match_parts(self, names: Sequence[str], needs: Needs) -> str:
        """Whether "all" parts of the data's rewards are told by the environment, "one" or "none".

        Data of an environment that tells no parts has the reward itself as the only one.
        """
        if names and tuple(names) == tuple(self.env.reward_parts):
            return "all"
        if list(names) == ["reward"]:
            return "one"
        if "reward_parts" in needs.fields:
            told = ", ".join(self.env.reward_parts) or "none"
            raise DatasetError(
                f"the data's parts of the reward ({', '.join(names)}) are not those that "
                f"{self.env.env_id} tells ({told}), so nothing can be collected for this agent"
            )
        return "none"

    def _reset(self, i: int) -> npt.NDArray[np.float64]:
        self.played[i].clear()
        found: npt.NDArray[np.float64] = self.env.reset(
            i, reset_seed(self.seeds[i], self.episodes[i])
        )
        return found

    def step(self, actor: Agent) -> None:
        """Makes one step for every seed and stores the transitions."""
        lead = (len(self.seeds), 1)
        step: Step = {
            "observations": self._tensor(self.transform.observations(self.observations)),
            "rewards": self._tensor(self.rewards * self.transform.reward_scale),
            "first": self._tensor(self.first),
            "active": self.active,
            "noise": self.noise,
        }
        with torch.no_grad():
            chosen, self.memory = actor.act(step, self.memory, explore=True)
        space = self.spec.action_space
        actions = clip_to(space, check_actions(chosen, space, lead))
        made = self.env.step(actions)
        self._store(actions, made)
        if not self.restorable:
            for played, action in zip(self.played, actions, strict=True):
                played.append(np.array(action))
        self.steps += 1
        self.observations, self.rewards = made.observations, made.rewards
        self.first = made.terminations | made.truncations
        if self.first.any():
            self.observations = self.observations.copy()
            self.rewards = np.where(self.first, 0.0, self.rewards)
            for i in np.flatnonzero(self.first).tolist():
                self.episodes[i] += 1
                self.observations[i] = self._reset(i)

    def _store(self, actions: npt.NDArray[Any], made: Any) -> None:
        put, rows = self.put, len(self.seeds)
        put["observations"][:] = self.observations.reshape(rows, -1)
        put["actions"][:] = actions.reshape(rows, -1)
        put["rewards"][:, 0] = made.rewards
        put["next_observations"][:] = made.observations.reshape(rows, -1)
        put["terminations"][:, 0] = made.terminations
        put["truncations"][:, 0] = made.truncations
        if self.known_parts == "all":
            put["reward_parts"][:] = made.parts
        elif self.known_parts == "one":
            put["reward_parts"][:, 0] = made.rewards
        self.replay.add(torch.from_numpy(self.row))

    def _tensor(self, values: npt.NDArray[np.generic]) -> Tensor:
        return as_tensor(values, (len(self.seeds), 1), self.spec)

    def state_dict(self) -> dict[str, Any]:
        """Where collecting stands, simulators included."""
        if self.restorable:
            simulators = [self.env.save(i) for i in range(len(self.seeds))]
        else:
            space = self.spec.action_space
            simulators = [
                np.array(actions, space.dtype).reshape(-1, *(space.shape or ()))
                for actions in self.played
            ]
        return {
            "replay": self.replay.state_dict(),
            "noise": self.noise.state_dict(),
            "memory": copy_state(self.memory),
            "steps": self.steps,
            "episodes": list(self.episodes),
            "observations": torch.from_numpy(self.observations.copy()),
            "rewards": torch.from_numpy(self.rewards.copy()),
            "first": torch.from_numpy(self.first.copy()),
            "simulators": [torch.from_numpy(saved) for saved in simulators],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to where ``state_dict`` was taken.

        Raises:
            ResumeError: if an environment whose state cannot be saved does not repeat itself.
        """
        self.replay.load_state_dict(state["replay"])
        self.noise.load_state_dict(state["noise"])
        self.memory = copy_state(state["memory"])
        if self.memory is not None:
            self.memory = {k: v.to(self.spec.device) for k, v in self.memory.items()}
        self.steps, self.episodes = int(state["steps"]), list(state["episodes"])
        self.observations = state["observations"].numpy().copy()
        self.rewards = state["rewards"].numpy().copy()
        self.first = state["first"].numpy().copy()
        simulators = [saved.numpy() for saved in state["simulators"]]
        if self.restorable:
            for i, saved in enumerate(simulators):
                self.env.load(i, saved)
        else:
            self._repeat(simulators)

    def _repeat(self, actions: Sequence[npt.NDArray[Any]]) -> None:
        """Plays the seeds' present episodes again, up to where they stood."""
        shown = np.stack([self._reset(i) for i in range(len(self.seeds))])
        lengths = np.array([len(played) for played in actions])
        padded = np.zeros((lengths.max(), len(actions), *actions[0].shape[1:]), actions[0].dtype)
        for i, played in enumerate(actions):
            padded[: len(played), i] = played
        for t in range(len(padded)):
            active = t < lengths
            made = self.env.step(padded[t], active)
            shown[active] = made.observations[active]
        if not np.array_equal(shown, self.observations):
            raise ResumeError(
                f"{self.env.env_id} does not repeat an episode from its reset seed and actions, so "
                "training cannot go on bit for bit in the middle of an online phase; delete the "
                "checkpoint to start over"
            )
        self.played = [list(played) for played in actions]

    def close(self) -> None:
        """Frees the simulators."""
        self.env.close()
