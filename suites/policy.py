"""A trained policy of one seed, read from a finished cell: it acts, and it plays episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from baselines.common import Noise
from baselines.config import UsageError
from baselines.contract import Agent, Memory, Phase, Spec, Step
from baselines.registry import Registry, make_config
from results.record import POLICY_FILE, Episodes, Record, normalized_score
from suites.datasets.history import History
from suites.datasets.transforms import Transform
from suites.evaluate import Evaluator, clip_to
from suites.film import Film
from suites.online import TRAINING_RESET_SEED
from suites.spaces import facts_of

# Episode e of the block S is reset with this + S * BLOCK + e: above the seeds of the evaluations
# during and after training (suites/evaluate.py), below those of collecting and of local data.
FRESH_RESET_SEED = 30_000_000
BLOCK = 1_000_000
BLOCKS = (TRAINING_RESET_SEED - FRESH_RESET_SEED) // BLOCK


@dataclass(frozen=True)
class Played:
    """Episodes a policy has played, ``[E]`` each.

    Attributes:
        returns: raw sums of rewards.
        scores: the same on D4RL's scale, NaN where the task has none.
        lengths: in steps.
        reset_seeds: each episode's.
    """

    returns: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    lengths: npt.NDArray[np.int64]
    reset_seeds: npt.NDArray[np.int64]

    def equals(self, recorded: Episodes) -> bool:
        """Whether these are a record's final episodes, to the last bit."""
        pairs = ((getattr(self, n), getattr(recorded, n)) for n in ("returns", "lengths"))
        return all(np.array_equal(mine, theirs) for mine, theirs in pairs)


class Policy:
    """A trained policy of one seed, ready to act on raw observations.

    Of a stack that was trained together, the whole is loaded, because only the agent knows how its
    state divides; :class:`OneSeed` shows the one seed.

    Attributes:
        task: the record's task block.
        agent: the record's agent block.
        seed: the training seed.
        observation_space: of one raw observation.
        action_space: of one action.
        spec: what the agent knew of its task.
        transform: from raw observations to those the agent sees.
    """

    def __init__(self, saved: Mapping[str, Any], plugins: Sequence[str | Path] = ()) -> None:
        self.task, self.agent = saved["task"], saved["agent"]
        seeds, index = saved["seeds"], saved["index"]
        self.seed = seeds[index]
        self.transform = Transform.from_dict(saved["transform"])
        self.spec = Spec(
            **facts_of(self.task),
            phases=tuple(Phase(**phase) for phase in saved["phases"]),
            reward_parts=tuple(saved["reward_parts"]),
            policies=saved["policies"],
            policy_groups=saved.get("policy_groups", 0),  # older policies lack it
            statistics=saved["statistics"],
            dtype=saved["precision"],
        )
        self.observation_space = self.spec.observation_space
        self.action_space = self.spec.action_space
        cls = Registry(plugins or saved["plugins"]).get(self.agent["name"])
        config = make_config(cls, self.agent["config"], f'agent "{self.agent["label"]}"')
        agent = cls(self.spec, config, seeds)
        agent.load_state_dict(saved["state"])
        self.actor = agent if len(seeds) == 1 else cast(Agent, OneSeed(agent, index, len(seeds)))
        self._begun = 0
        self.reset()

    def __str__(self) -> str:
        return f"{self.agent['label']} on {self.task['id']}, seed {self.seed}"

    def reset(self) -> None:
        """Begins new episodes: forgets what a policy with memory remembers."""
        self._memory: Memory | None = None
        self._noise: Noise | None = None
        self._count = 0
        self._begun += 1

    def act(
        self,
        observations: npt.ArrayLike | Mapping[str, npt.ArrayLike],
        rewards: npt.ArrayLike | None = None,
    ) -> npt.NDArray[Any]:
        """Actions ``[E, *action]`` for raw observations ``[E, *observation]`` of E episodes.

        One observation ``[*observation]`` gives one action ``[*action]``. Call :meth:`reset` when
        new episodes begin; a policy without memory does not mind if you forget.

        Args:
            observations: as the environment gives them; where they are histories, a dict of
                "static" ``[E, static]`` and "temporal" ``[E, days, features]``, of which days that
                are all zeros, before the first that is not, are taken as before the episode.
            rewards: ``[E]`` of the previous step, raw; needed only by return-conditioned policies.

        Raises:
            UsageError: if the observations have another shape than the task's, or their number
                changes in the midst of what a policy remembers.
        """
        batch, single = self._seen(observations)
        if self._memory is not None and len(batch) != self._count:
            raise UsageError(
                f"{len(batch)} observations after {self._count}, which {self.agent['label']} "
                "remembers; call reset() where episodes begin"
            )
        first = len(batch) != self._count
        if self._noise is None or first:
            self._count = len(batch)
            self._noise = Noise.for_episodes(
                [self.seed], "policy", self._begun, range(self._count), dtype=self.dtype
            )
        earned = np.zeros(len(batch)) if rewards is None else np.reshape(rewards, len(batch))
        step: Step = {
            "observations": self._tensor(batch),
            "rewards": self._tensor(earned * self.transform.reward_scale),
            "first": torch.full((1, len(batch)), first),
            "active": torch.ones(1, len(batch), dtype=torch.bool),
            "noise": self._noise,
        }
        with torch.no_grad():
            actions, self._memory = self.actor.act(step, self._memory)
        chosen = clip_to(self.action_space, actions[0].numpy())
        return np.asarray(chosen[0] if single else chosen)

    def _seen(
        self, observations: npt.ArrayLike | Mapping[str, npt.ArrayLike]
    ) -> tuple[npt.NDArray[np.float64], bool]:
        """Raw observations as the agent sees them ``[E, O]``, and whether they were but one."""
        history = History.of(self.observation_space)
        if history is None:
            batch, single = self._batch("observations", observations, self.observation_space.shape)
            return self.transform.observations(batch), single
        if not isinstance(observations, Mapping) or set(observations) != {"static", "temporal"}:
            raise UsageError(
                f"observations of {self.task['id']} are a dict of static and temporal; give what "
                "the environment shows"
            )
        parts = {}
        for key, space in self.observation_space.items():  # type: ignore[attr-defined]
            batch, single = self._batch(f'observations["{key}"]', observations[key], space.shape)
            parts[key] = torch.from_numpy(batch.astype(np.float64))
        sizes = [len(part) for part in parts.values()]
        if len(set(sizes)) > 1:
            raise UsageError(f"static is of {sizes[0]} episodes and temporal of {sizes[1]}")
        moments = (torch.from_numpy(v) for v in (self.transform.shift, self.transform.scale))
        return history.seen(parts["static"], parts["temporal"], *moments).numpy(), single

    def _batch(
        self, name: str, values: Any, shape: tuple[int, ...] | None
    ) -> tuple[npt.NDArray[Any], bool]:
        """Values ``[E, *shape]``, and whether they were one of ``shape``."""
        array, shape = np.asarray(values), shape or ()
        single = array.shape == shape
        batch = array[None] if single else array
        if batch.shape[1:] != shape:
            raise UsageError(
                f"{name} of shape {array.shape}; those of {self.task['id']} are "
                f"{shape}, or {('E', *shape)} for E episodes side by side".replace("'", "")
            )
        return batch, single

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and of what the agent sees."""
        return self.spec.torch_dtype()

    def _tensor(self, values: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(values).to(self.dtype)[None]

    def evaluate(
        self, episodes: int = 10, seed: int = 0, video: str | Path | None = None
    ) -> Played:
        """Plays fresh episodes, whose reset seeds no training, evaluation or dataset has used.

        Args:
            episodes: how many, side by side.
            seed: which block of fresh episodes, from 0; the same numbers give the same episodes.
            video: a file (.mp4 or .gif) for the first episode.

        Raises:
            UsageError: if a number is out of range, or the video cannot be made.
            suites.evaluate.PolicyError: if the agent acts against the contract.
        """
        if not 1 <= episodes <= BLOCK:
            raise UsageError(f"episodes must be between 1 and {BLOCK:,}, not {episodes}")
        if not 0 <= seed < BLOCKS:
            raise UsageError(f"the seed must be between 0 and {BLOCKS - 1:,}, not {seed}")
        first = FRESH_RESET_SEED + seed * BLOCK
        # The reset seed also numbers the evaluation, so that noise is fresh as well.
        return self._play(episodes, first, first, video)

    def replay(self, record: Record, recorded: Episodes, video: str | Path | None = None) -> Played:
        """Plays a record's final episodes again: the same starts, the same noise.

        On the machine and device that made the record, the result equals it to the last bit.

        Args:
            record: of the cell that the policy was saved in.
            recorded: the episodes beside it.
            video: as in :meth:`evaluate`.

        Raises:
            UsageError: if the task has no simulator, or the video cannot be made.
        """
        self._simulator()
        first = int(recorded.reset_seeds[0])
        return self._play(len(recorded.returns), first, len(record.curve), video)

    def _simulator(self) -> str:
        if self.task["env_id"] is None:
            raise UsageError(
                f"{self}: the task has no simulator, so no episodes can be played; name one as "
                '"env_id" in the data, or use the policy through load_policy and export'
            )
        return str(self.task["env_id"])

    def _play(self, episodes: int, first: int, number: int, video: str | Path | None) -> Played:
        env_id = self._simulator()
        film = None if video is None else Film(Path(video), env_id)
        evaluator = Evaluator(env_id, self.spec, [self.seed], self.transform, episodes, first)
        try:
            if film is not None:
                evaluator.env = film.watching(evaluator.env)
            result = evaluator.run(self.actor, number)
            if film is not None:
                film.finish()
        finally:
            evaluator.close()
        returns = result.returns[0]
        low, high = self.task["reference_min"], self.task["reference_max"]
        scores = np.full(len(returns), np.nan)
        if low is not None:
            scores = normalized_score(returns, low, high)
        return Played(returns, scores, result.lengths[0], result.reset_seeds)


class OneSeed:
    """One seed of a stack, as an agent of one seed that can only act.

    The whole stack acts on what the one seed sees, because seeds do not influence one another: so
    every number is computed as it was in training.
    """

    def __init__(self, agent: Agent, index: int, seeds: int) -> None:
        self.agent, self.index, self.seeds = agent, index, seeds

    def act(
        self, step: Step, memory: Memory | None = None, *, explore: bool = False
    ) -> tuple[torch.Tensor, Memory | None]:
        """As :meth:`baselines.contract.Agent.act`, with S = 1; memory keeps the stack's shape."""

        def widen(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.expand(self.seeds, *tensor.shape[1:]).contiguous()

        wide: Step = {
            "observations": widen(step["observations"]),
            "rewards": widen(step["rewards"]),
            "first": widen(step["first"]),
            "active": widen(step["active"]),
            "noise": SharedNoise(step["noise"], self.seeds),
        }
        actions, memory = self.agent.act(wide, memory, explore=explore)
        return actions[self.index : self.index + 1], memory


class SharedNoise(Noise):
    """The noise of one seed, handed to every seed of a stack."""

    def __init__(self, one: Noise, seeds: int) -> None:
        super().__init__([], [seeds, *one.lead[1:]], device=one.device, dtype=one.dtype)
        self.one = one

    def _draw(self, shape: Sequence[int], fill: Any) -> torch.Tensor:
        return self.one._draw(shape, fill).expand(*self.lead, *shape).clone()

    def integers(self, high: int, *shape: int) -> torch.Tensor:
        """Uniform int64 in ``[0, high)``, ``[*lead, *shape]``."""
        return self.one.integers(high, *shape).expand(*self.lead, *shape).clone()


def read_policy(path: Path, plugins: Sequence[str | Path] = ()) -> Policy:
    """Reads ``policy.pt``, or the one in a finished cell's folder.

    Raises:
        UsageError: if there is none, or it cannot be read.
    """
    file = path / POLICY_FILE if path.is_dir() else path
    if not file.is_file():
        raise UsageError(
            f"{file} is not there; give the folder of a run that has trained here, as the column "
            '"path" of load_results names it below the output folder (references, failed and '
            "imported runs have no policy)"
        )
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UsageError(f"{file} cannot be read as a policy ({type(error).__name__})") from None
    try:
        return Policy(saved, plugins)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"{file} does not fit the agent as it is now ({type(error).__name__}: {error}); "
            "load it with the version of the suite and of the plugin that saved it"
        ) from error
