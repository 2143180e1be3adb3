"""Datasets of this suite for other people's tools: a D4RL file, or a Minari dataset.

Nothing is lost: what the other format has no place for lies in it under our name, and the sources
``d4rl`` and ``minari`` read all of it back.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from suites.catalog import TASKS, reference
from suites.datasets import d4rl_format, store
from suites.datasets.d4rl_format import MARK
from suites.datasets.minari_source import EPISODES, INFOS, need_minari
from suites.datasets.store import DatasetError

NAMESPACE = "fast-q-bench"  # of Minari datasets


def export(data: store.Dataset, form: str, to: Path) -> Path:
    """Writes a dataset in another format.

    Args:
        data: the dataset.
        form: "d4rl" or "minari".
        to: for "d4rl" the file, or a folder for it; for "minari" the folder of Minari's datasets,
            which ``$MINARI_DATASETS_PATH`` then names.

    Returns:
        The file, or the Minari dataset's own folder.

    Raises:
        DatasetError: if it cannot be written, or would not come back as it is.
    """
    if form == "minari":
        return _to_minari(data, to)
    if to.suffix.lower() not in (".hdf5", ".h5"):
        to = to / f"{_name(data)}.hdf5"
    d4rl_format.write(to, data)
    return to


def minari_id(data: store.Dataset) -> str:
    """What an exported dataset is called in Minari."""
    return f"{NAMESPACE}/{_name(data)}-v0"


def _scale(data: store.Dataset) -> dict[str, float]:
    """Minari's names for the returns that score 0 and 100."""
    task = TASKS.get(str(data.card.get("task")))
    if task is None:
        return {}
    low, high, _ = reference(task.environment)
    return {"ref_min_score": low, "ref_max_score": high}


def _name(data: store.Dataset) -> str:
    task = str(data.card.get("task") or data.card.get("id") or "data")
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", task).strip("-.")


def _to_minari(data: store.Dataset, to: Path) -> Path:
    need_minari(minari_id(data))
    from gymnasium import spaces
    from minari.dataset.minari_storage import MinariStorage

    place = (to / minari_id(data)).absolute()  # Minari joins its own relative paths wrongly
    if place.exists():
        raise DatasetError(f"{place}: is there already; remove it or name another folder")
    observation = spaces.Box(-np.inf, np.inf, (data.column("observations").shape[1],), np.float32)
    action = _action_space(data, data.card.get("env_id"))
    episodes = list(_stretches(data))
    _check_order(data, episodes)
    metadata: dict[str, Any] = {
        "dataset_id": minari_id(data),
        "minari_version": version("minari"),
        "algorithm_name": "the behaviour policies named in the card",
        "author": {"FAST-Q Bench"},
        "description": f"{_name(data)}, exported by FAST-Q Bench {version('fast-q-bench')}",
        MARK: json.dumps(data.card),
        **_scale(data),
    }
    if data.logged is not None:
        metadata[EPISODES] = data.logged.tolist()
    try:
        place.mkdir(parents=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it advises to name an environment
            storage = MinariStorage.new(place / "data", observation, action)
            storage.update_metadata(metadata)
            storage.update_episodes(_buffers(data, episodes))
    except OSError as error:
        raise DatasetError(
            f"{place}: cannot be written ({error.strerror or error}); name another folder"
        ) from None
    return place


def _action_space(data: store.Dataset, env_id: str | None) -> Any:
    from gymnasium import spaces

    if env_id is not None:
        from suites.envs import make_vector

        env = make_vector(env_id, 1)
        env.close()
        return env.action_space
    return spaces.Box(-np.inf, np.inf, (data.column("actions").shape[1],), np.float32)


def _stretches(data: store.Dataset) -> Iterator[tuple[int, int]]:
    """First row, and row after the last, of every episode; the last may be unfinished."""
    starts = data.episode_starts.tolist()
    yield from zip(starts, [*starts[1:], len(data.table)], strict=True)


def _check_order(data: store.Dataset, episodes: list[tuple[int, int]]) -> None:
    """Minari keeps one chain of observations per episode.

    Raises:
        DatasetError: if a next observation is not the next row's observation.
    """
    last = np.zeros(len(data.table), bool)
    last[[stop - 1 for _, stop in episodes]] = True
    inside = np.flatnonzero(~last)
    differs = (
        data.column("next_observations")[inside] != data.column("observations")[inside + 1]
    ).any(axis=1)
    if differs.any():
        row = int(inside[np.flatnonzero(differs)[0]])
        raise DatasetError(
            f"next_observations: row {row}'s is not the observation of row {row + 1}, and Minari "
            "has no place for both; export it with --format d4rl"
        )


def _buffers(data: store.Dataset, episodes: list[tuple[int, int]]) -> Iterator[Any]:
    from minari.data_collector import EpisodeBuffer

    ours = [name for name in data.fields if name not in store.REQUIRED]
    for number, (start, stop) in enumerate(episodes):
        rows = slice(start, stop)
        seen = data.column("observations")[rows]
        following = data.column("next_observations")[stop - 1 : stop]
        infos = {}
        if ours:
            # One more than steps, as Minari has it: the first is that of the reset.
            infos[INFOS] = {
                name: np.concatenate(
                    (data.column(name)[start : start + 1], data.column(name)[rows])
                )
                for name in ours
            }
        yield EpisodeBuffer(
            id=number,
            observations=np.concatenate((seen, following)),
            actions=data.column("actions")[rows],
            rewards=data.column("rewards")[rows],
            terminations=data.column("terminations")[rows] > 0,
            truncations=data.column("truncations")[rows] > 0,
            infos=infos,
        )
