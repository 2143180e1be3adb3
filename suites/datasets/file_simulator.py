"""The simulator that a user's file names, as far as the file's arrays must fit it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from suites import spaces
from suites.datasets.store import DatasetError

Floats = npt.NDArray[np.float32]


class Simulator:
    """What the environment that a file names shows and takes.

    Attributes:
        env_id: gymnasium's.
        horizon: the time limit in steps, or None.
        action_space: of one action.
        observation_keys: of a Dict of observations, in its order; [] if they are one array.
        observation_size: numbers in one observation, flat; in a day row, where it is a history.
        history: days of a history, 0 where observations are none.

    Raises:
        DatasetError: if it cannot be made, or its spaces are not supported.
    """

    def __init__(self, path: Path, env_id: str) -> None:
        import gymnasium

        from suites.envs import make_vector
        from suites.envs.mujoco import make_one

        try:
            env = make_vector(env_id, 1)
            one = make_one(env_id)
        except Exception as error:
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise DatasetError(
                f"{path}: env_id {env_id} cannot be made ({reason}); correct it, install what "
                "brings it, or leave it out"
            ) from None
        shown = one.observation_space
        self.env_id, self.horizon = env_id, env.horizon
        self.action_space = env.action_space
        self.observation_keys = list(shown) if isinstance(shown, gymnasium.spaces.Dict) else []
        space = env.observation_space
        self.history = int(getattr(env, "history", 0))
        if self.history and isinstance(space, gymnasium.spaces.Dict):
            width = space["static"].shape[0] + space["temporal"].shape[-1]  # type: ignore[index]
            space = gymnasium.spaces.Box(-np.inf, np.inf, (width,))
        env.close()
        one.close()
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            raise DatasetError(
                f"{path}: env_id {env_id} shows {space}, which is no vector; leave env_id out"
            )
        try:
            spaces.to_plain(self.action_space)
        except ValueError as error:
            raise DatasetError(f"{path}: env_id {env_id}: {error}; leave env_id out") from None
        self.observation_size = space.shape[0]


def limits(plain: Mapping[str, Any]) -> tuple[Floats, Floats]:
    """The smallest and largest actions of a space, flat."""
    if plain["kind"] == "Box":
        space: Any = spaces.from_plain(plain)
        return space.low.astype(np.float32).ravel(), space.high.astype(np.float32).ravel()
    start = np.atleast_1d(np.asarray(plain["start"], np.float32))
    count = np.atleast_1d(np.asarray(plain.get("nvec", plain.get("n")), np.float32))
    return start, start + count - 1
