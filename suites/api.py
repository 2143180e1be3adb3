"""The suites from Python; ``from suites import run, load_results, load_policy``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from baselines.config import UsageError
from results.record import POLICY_FILE

if TYPE_CHECKING:
    import pandas as pd


def run(
    suite: str,
    *,
    jobs: int | None = None,
    retry: bool = False,
    allow_missing: bool = False,
    **options: Any,
) -> int:
    """Plans and runs a suite as the command line does; what is done is skipped.

    Args:
        suite: name, or path of a manifest.
        jobs: worker processes; one per core by default.
        retry: also run failed cells again.
        allow_missing: aggregate over an incomplete matrix.
        **options: the other fields of :class:`suites.resolve.Options`, for example ``budget``,
            ``agents``, ``tasks``, ``seeds``, ``out``.

    Returns:
        The command line's exit code: 0 if all is well, 1 if cells failed.

    Raises:
        UsageError: one sentence about what is wrong with the input.
    """
    from dataclasses import fields

    from baselines.config import check_name
    from suites import console
    from suites.cli import execute, make_console, worker_count
    from suites.plan import make_plan
    from suites.resolve import Options

    for name in options:
        check_name(name, [f.name for f in fields(Options)], "option", "run")
    if "out" in options:
        options["out"] = Path(options["out"])
    plan = make_plan(Options(suite=suite, **options))
    screen = make_console()
    console.print_plan(screen, plan)
    return execute(screen, plan, worker_count(jobs), retry, False, allow_missing)


def load_results(out: str | Path = "results/runs") -> pd.DataFrame:
    """All finished runs below an output folder, one row each.

    Returns:
        A tidy DataFrame; see :func:`analysis.frame.load` for its columns.
    """
    from analysis.frame import load

    return load(Path(out))


class Policy:
    """A trained policy of one seed, ready to act on raw observations.

    Attributes:
        task: the record's task block.
        agent: the record's agent block.
        action_space: of one action.
    """

    def __init__(self, saved: dict[str, Any]) -> None:
        from baselines.contract import Phase, Spec
        from baselines.registry import Registry, make_config
        from suites.datasets.transforms import Transform
        from suites.envs import make_vector

        self.task, self.agent = saved["task"], saved["agent"]
        self._index, self._seeds = saved["index"], saved["seeds"]
        self._transform = Transform.from_dict(saved["transform"])
        env = make_vector(self.task["env_id"], 1)
        self.action_space = env.action_space
        self._spec = Spec(
            env.observation_space,
            env.action_space,
            phases=tuple(Phase(**phase) for phase in saved["phases"]),
            horizon=env.horizon,
            reward_parts=tuple(saved["reward_parts"]),
            policies=saved["policies"],
            statistics=saved["statistics"],
            dtype=saved["precision"],
        )
        env.close()
        cls = Registry(saved["plugins"]).get(self.agent["name"])
        config = make_config(cls, self.agent["config"], f'agent "{self.agent["label"]}"')
        self._agent = cls(self._spec, config, self._seeds)
        self._agent.load_state_dict(saved["state"])
        self._number = 0
        self.reset()

    def reset(self) -> None:
        """Begins new episodes: forgets what a policy with memory remembers."""
        self._memory: Any = None
        self._noise: Any = None
        self._number += 1

    def act(
        self, observations: npt.NDArray[Any], rewards: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]:
        """Actions ``[E, *action]`` for raw observations ``[E, *observation]`` of E episodes.

        One observation ``[*observation]`` gives one action ``[*action]``. Call :meth:`reset` when
        new episodes begin.

        Args:
            observations: as the environment gives them.
            rewards: ``[E]`` of the previous step, raw; needed only by return-conditioned policies.
        """
        import torch

        from baselines.common import Noise
        from suites.evaluate import clip_to

        observations = np.asarray(observations)
        single = observations.ndim == len(self._spec.observation_space.shape or ())
        batch = observations[None] if single else observations
        count, seeds = len(batch), len(self._seeds)
        first = self._noise is None
        dtype = self._spec.torch_dtype()
        if first:
            self._noise = Noise.for_episodes(
                self._seeds, "policy", self._number, range(count), dtype=dtype
            )
        earned = np.zeros(count) if rewards is None else np.asarray(rewards).reshape(count)

        def stacked(values: npt.NDArray[Any]) -> torch.Tensor:
            tensor = torch.from_numpy(np.asarray(values)).to(dtype)
            return tensor.expand(seeds, *tensor.shape).clone()

        with torch.no_grad():
            actions, self._memory = self._agent.act(
                {
                    "observations": stacked(self._transform.observations(batch)),
                    "rewards": stacked(earned * self._transform.reward_scale),
                    "first": torch.full((seeds, count), first),
                    "active": torch.ones(seeds, count, dtype=torch.bool),
                    "noise": self._noise,
                },
                self._memory,
            )
        chosen = clip_to(self.action_space, actions[self._index].numpy())
        return np.asarray(chosen[0] if single else chosen)


def load_policy(path: str | Path) -> Policy:
    """The policy of a finished cell.

    Args:
        path: the cell's folder, or the ``policy.pt`` in it.

    Raises:
        UsageError: if there is none, or it cannot be read.
    """
    import torch

    file = Path(path)
    file = file / POLICY_FILE if file.is_dir() else file
    if not file.is_file():
        raise UsageError(f"{file} is not there; give the folder of a finished cell")
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UsageError(f"{file} cannot be read as a policy ({type(error).__name__})") from None
    return Policy(saved)
