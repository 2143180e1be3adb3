"""Spaces as plain JSON, for tasks whose spaces no simulator tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

Plain = dict[str, Any]


def box(low: npt.ArrayLike, high: npt.ArrayLike, dtype: str = "float32") -> Plain:
    """A box with bounds ``[*shape]``.

    An infinite bound is None, since JSON has no infinity, and bounds that are all alike are one.
    """
    shape = list(np.shape(low))
    bounds = {"low": _finite(low), "high": _finite(high)}
    return {"kind": "Box", "shape": shape, **bounds, "dtype": dtype}


def to_plain(space: spaces.Space[Any]) -> Plain:
    """A space as plain JSON; :func:`from_plain` makes it again.

    Raises:
        ValueError: if it is no Box, Discrete or MultiDiscrete, nor a Dict of these.
    """
    if isinstance(space, spaces.Dict):
        return {"kind": "Dict", "spaces": {key: to_plain(part) for key, part in space.items()}}
    if isinstance(space, spaces.Box):
        return box(space.low, space.high, str(space.dtype))
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"kind": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    raise ValueError(f"{space}: only Box, Discrete and MultiDiscrete are supported")


def histories(row: spaces.Box, static: int, days: int) -> spaces.Dict:
    """Observations that are the last days of an episode; see :mod:`suites.datasets.history`.

    They are float32, whatever rows are.

    Args:
        row: of a day row.
        static: numbers of a row that hold in all of an episode; its first.
        days: of a window.
    """

    def part(bounds: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        cast = bounds.astype(np.float32)  # gymnasium warns where it has to
        return cast[:static], np.tile(cast[static:], (days, 1))

    bounds = zip(("static", "temporal"), part(row.low), part(row.high), strict=True)
    return spaces.Dict({key: spaces.Box(low, high, dtype=np.float32) for key, low, high in bounds})


def from_plain(plain: Mapping[str, Any]) -> spaces.Space[Any]:
    """The space that plain JSON describes."""
    if plain["kind"] == "Dict":
        return spaces.Dict({key: from_plain(part) for key, part in plain["spaces"].items()})
    if plain["kind"] == "Discrete":
        return spaces.Discrete(plain["n"], start=plain["start"])
    if plain["kind"] == "MultiDiscrete":
        return spaces.MultiDiscrete(plain["nvec"], start=plain["start"])
    dtype: Any = np.dtype(plain["dtype"])
    low = np.array(plain["low"], float)  # None becomes NaN
    high = np.array(plain["high"], float)
    low, high = np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)
    shape = tuple(plain["shape"])
    return spaces.Box(
        np.broadcast_to(low, shape).astype(dtype),
        np.broadcast_to(high, shape).astype(dtype),
        dtype=dtype,
    )


def facts_of(task: Mapping[str, Any]) -> dict[str, Any]:
    """What a :class:`baselines.contract.Spec` says of the environment, by the Spec's names.

    From the simulator, or from the task itself, which then knows neither noop nor effects.

    Args:
        task: a record's task block.
    """
    if task["env_id"] is None:
        plain = task["spaces"]
        return {
            "observation_space": from_plain(plain["observation"]),
            "action_space": from_plain(plain["action"]),
            "horizon": task["horizon"],
            "noop": None,
            "effects": None,
        }
    from suites.envs import make_vector

    env = make_vector(task["env_id"], 1)
    env.close()
    names = ("observation_space", "action_space", "horizon", "noop", "effects")
    facts = {name: getattr(env, name, None) for name in names}
    row, days = env.observation_space, getattr(env, "history", 0)
    if days and isinstance(row, spaces.Box):  # the simulator shows day rows, agents see windows
        facts["observation_space"] = histories(row, env.static, days)  # type: ignore[attr-defined]
    return facts


def is_integer(space: spaces.Space[Any]) -> bool:
    """Whether actions of this space are integers."""
    return isinstance(space, spaces.Discrete | spaces.MultiDiscrete)


def _finite(bounds: npt.ArrayLike) -> Any:
    values = np.asarray(bounds)
    if values.size and (values == values.flat[0]).all():
        values = values.flat[0]
    plain = np.array(values.tolist(), object)
    plain[~np.isfinite(values)] = None
    return plain.tolist()
