"""Minari's datasets (minari.farama.org): the source ``minari``.

A task is called by the dataset's own id, for example ``mujoco/hopper/medium-v0``. Datasets lie in
Minari's folder (``$MINARI_DATASETS_PATH``, or ``~/.minari/datasets``) and are downloaded only if
asked for. One is converted once into a store in the cache. Nothing here imports torch, and only
looking at a dataset imports minari.

Of a dataset's environment only the id and plain settings are taken, never code that it names.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import json
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from suites import spaces
from suites.catalog import TASKS
from suites.datasets import OwnTask, recorded, store, task_label
from suites.datasets.d4rl_format import MARK, Log, log_of
from suites.datasets.store import DatasetError

CONVERSION = 2  # raised whenever the same dataset would give other rows
FIELDS: tuple[str, ...] = store.REQUIRED
EPISODES = f"{MARK}_episodes"  # metadata of our own: episodes of a log that had more rows
INFOS = MARK  # the group of an episode's infos that holds our other fields
_ID = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*-v\d+")
_PLAIN = (bool, int, float, str, list, dict, type(None))

Array = npt.NDArray[Any]


def own_task(name: str) -> OwnTask | None:
    """The task of a Minari dataset; None for tasks of the catalogue.

    Raises:
        DatasetError: if the name is no dataset's id, or the dataset cannot be used.
    """
    if name in TASKS:
        return None
    _check_id(name)
    group, _, quality = name.rpartition("/")
    facts: dict[str, Any] = {"environment": task_label(group or name), "quality": quality}
    notes: tuple[str, ...] = ()
    if missing(name) is None:
        metadata = _metadata(name)
        observation, action = _spaces(name, metadata)
        env_id, why = _environment(name, metadata)
        facts |= {
            "spaces": {
                "observation": spaces.to_plain(flat_space(observation)),
                "action": spaces.to_plain(action),
            },
            "reference": _reference(name, metadata),
            "fields": _fields(metadata),
        }
        if env_id is None:
            notes = (f"{why}; it is trained without a simulator, so there are no returns",)
    return OwnTask(id=task_label(name), key=name, title=name, notes=notes, **facts)


def fetch(task: str, progress: recorded.Progress | None = None) -> Path:
    """The dataset's folder, downloaded by Minari if it is not on this machine.

    Raises:
        DatasetError: if it cannot be had.
    """
    _check_id(task)
    need_minari(task)
    if not _data_path(task).exists():
        import minari

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                minari.download_dataset(task)
        except Exception as error:  # whatever its network libraries raise
            text = " ".join(str(error).split()) or type(error).__name__
            raise DatasetError(
                f"{task}: Minari cannot download it ({text}); check the name and the connection, "
                f"or put the dataset into {_root()}"
            ) from None
    return _data_path(task).parent


def missing(task: str) -> str | None:
    """None, or one sentence that says why this task's data is not to be had."""
    if task in TASKS:
        return (
            f"{task}: source minari takes Minari's own names, for example "
            "--tasks mujoco/hopper/medium-v0"
        )
    if importlib.util.find_spec("minari") is None:
        return f"{task}: needs minari; pip install -e '.[minari]'"
    if not _data_path(task).exists():
        return f"{task}: not in Minari's folder {_root()}; add --download, or copy it there"
    return None


def default_size(task: str) -> int:
    """Steps of the dataset."""
    return int(_metadata(task).get("total_steps", 0))


def identity(task: str, size: int | None = None, seed: int = 0) -> dict[str, Any]:
    """The data's sha256 and all else that the converted dataset depends on, and a digest "id".

    Raises:
        DatasetError: if the dataset is not here or cannot be used, or another draw is asked for.
    """
    recorded.check_draw(task, size, seed)
    if (why := missing(task)) is not None:
        raise DatasetError(why)
    metadata = _metadata(task)
    if size is not None and size >= default_size(task):
        size = None
    env_id, _ = _environment(task, metadata)
    files = sorted(path for path in _data_path(task).rglob("*") if path.is_file())
    return store.identified(
        {
            "source": "minari",
            "task": task,
            "env_id": env_id,
            "files": {path.name: recorded.sha256(path) for path in files},
            "conversion": CONVERSION,
            "transitions": size,
        }
    )


def is_cached(task: str, size: int | None = None, seed: int = 0) -> bool:
    """Whether the converted dataset lies in the cache."""
    try:
        return store.is_stored(recorded.place_of(identity(task, size, seed)))
    except DatasetError:
        return False


def ensure(
    task: str,
    size: int | None = None,
    seed: int = 0,
    jobs: int = 1,
    progress: recorded.Progress | None = None,
) -> Path:
    """The folder of the converted dataset, which is made first if it is not there.

    Args:
        task: the dataset's id.
        size: transitions at most; all by default.
        seed: 0.
        jobs: not used; conversion is one process's work.
        progress: called with (transitions converted, transitions in all).

    Raises:
        DatasetError: one sentence, if the dataset cannot be used.
    """
    wanted = identity(task, size, seed)
    return recorded.ensure(wanted, lambda: _convert(task, wanted["env_id"], progress))


def flat_space(space: Any) -> Any:
    """The box of an observation as the suite sees it: a Dict becomes one vector."""
    from gymnasium import spaces as gym_spaces

    return gym_spaces.flatten_space(space) if isinstance(space, gym_spaces.Dict) else space


def _check_id(name: str) -> None:
    if not _ID.fullmatch(name) or ".." in name:
        raise DatasetError(
            f"{name}: not a Minari dataset's id; one looks like mujoco/hopper/medium-v0"
        )


def _convert(
    task: str, env_id: str | None, progress: recorded.Progress | None
) -> tuple[Log, dict[str, Any]]:
    metadata = _metadata(task)
    observation, action = _spaces(task, metadata)
    horizon = None
    if env_id is not None:
        from suites.envs import make_vector

        env = make_vector(env_id, 1)
        env.close()
        horizon = env.horizon
        for what, mine, theirs in (
            ("observations", flat_space(observation), env.observation_space),
            ("actions", action, env.action_space),
        ):
            if mine.shape != theirs.shape:
                raise DatasetError(
                    f"{task}: {what} have shape {mine.shape}, and those of {env_id} {theirs.shape};"
                    " install the version of the environment that the dataset was made with"
                )
    card = _card(task, metadata)
    names = [f for f in (card or {}).get("columns", {}) if f not in FIELDS]
    columns: dict[str, list[Array]] = {name: [] for name in (*FIELDS, *names)}
    total, done = int(metadata.get("total_steps", 0)), 0
    for number, episode in enumerate(_episodes(task)):
        rows = _rows(task, number, episode, observation, names)
        for name, values in rows.items():
            columns[name].append(values)
        done += len(rows["rewards"])
        if progress is not None:
            progress(done, max(total, done))
    if not columns["rewards"]:
        raise DatasetError(f"{task}: no episodes; download it again")
    # Between two episodes there is always an end; the last may have been cut.
    for terminations, truncations in zip(
        columns["terminations"][:-1], columns["truncations"][:-1], strict=True
    ):
        if not (terminations[-1] or truncations[-1]):
            truncations[-1] = True
    fields = {name: np.concatenate(values) for name, values in columns.items()}
    facts: dict[str, Any] = {"horizon": horizon, "reward_parts": []}
    if card is not None:
        facts |= recorded.facts_of(card)
    logged = metadata.get(EPISODES)
    if logged is not None:
        return Log(fields, np.array(logged, np.float64).reshape(-1, 3), card, whole=False), facts
    return log_of(fields, facts["horizon"], card), facts


def _rows(task: str, number: int, episode: Any, observation: Any, names: list[str]) -> Any:
    """An episode as rows by field; T + 1 observations become pairs of one and the next."""
    rewards = np.asarray(episode["rewards"], np.float64)
    seen = _flatten(observation, episode["observations"])
    if len(seen) != len(rewards) + 1 or not len(rewards):
        raise DatasetError(
            f"{task}: episode {number}: {len(seen)} observations for {len(rewards)} steps; there "
            "must be one more than steps; download it again"
        )
    rows = {
        "observations": seen[:-1],
        "actions": np.asarray(episode["actions"]).reshape(len(rewards), -1),
        "rewards": rewards,
        "next_observations": seen[1:],
        "terminations": np.asarray(episode["terminations"], bool),
        "truncations": np.asarray(episode["truncations"], bool).copy(),
    }
    infos = (episode.get("infos") or {}).get(INFOS, {}) if names else {}
    for name in names:
        if name not in infos:
            raise DatasetError(
                f"{task}: episode {number}: no infos/{INFOS}/{name}; export it again"
            )
        rows[name] = np.asarray(infos[name])[1:]  # the first is that of the reset
    for name, values in rows.items():
        if len(values) != len(rewards):
            raise DatasetError(
                f"{task}: episode {number}: {name}: {len(values)} rows for {len(rewards)} steps; "
                "download it again"
            )
    return rows


def _flatten(space: Any, values: Any) -> Array:
    """Observations ``[T + 1, ...]`` as the suite sees them, after ``gymnasium.spaces.flatten``."""
    if hasattr(space, "spaces"):
        parts = [_flatten(space.spaces[key], values[key]) for key in space.spaces]
        return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
    return np.asarray(values)


def _episodes(task: str) -> Iterator[Any]:
    need_minari(task)
    from minari.dataset.minari_storage import MinariStorage

    try:
        storage = MinariStorage.read(_data_path(task))
        yield from storage.get_episodes(range(storage.total_episodes))
    except DatasetError:
        raise
    except Exception as error:  # a damaged file shows itself in many ways
        text = " ".join(str(error).split()) or type(error).__name__
        raise DatasetError(
            f"{task}: {_data_path(task)} cannot be read ({text}); delete it and download it again"
        ) from None


def _metadata(task: str) -> dict[str, Any]:
    path = _data_path(task) / "metadata.json"
    try:
        content = json.loads(path.read_bytes())
    except OSError:
        raise DatasetError(f"{path}: no such file; download {task} again") from None
    except ValueError:
        content = None
    # Without the spaces Minari would build the environment that the file describes.
    needed = ("observation_space", "action_space", "data_format")
    if not isinstance(content, dict) or any(not isinstance(content.get(k), str) for k in needed):
        raise DatasetError(
            f"{path}: not a Minari dataset's metadata, or without {', '.join(needed)}; download "
            f"{task} again"
        )
    return content


def _spaces(task: str, metadata: dict[str, Any]) -> tuple[Any, Any]:
    """Observation and action space.

    Raises:
        DatasetError: if they are not supported.
    """
    need_minari(task)
    from gymnasium import spaces as gym_spaces
    from minari.serialization import deserialize_space

    try:
        observation = deserialize_space(metadata["observation_space"])
        action = deserialize_space(metadata["action_space"])
    except Exception:
        raise DatasetError(
            f"{task}: its spaces cannot be read; install a newer minari, or download it again"
        ) from None

    def boxes(space: Any) -> bool:
        if isinstance(space, gym_spaces.Dict):
            return all(boxes(part) for part in space.spaces.values())
        return isinstance(space, gym_spaces.Box)

    if not boxes(observation):
        raise DatasetError(
            f"{task}: observations are a {type(observation).__name__}; only Box, and Dict of Box, "
            "are supported"
        )
    supported = (gym_spaces.Box, gym_spaces.Discrete, gym_spaces.MultiDiscrete)
    if not isinstance(action, supported):
        raise DatasetError(
            f"{task}: actions are a {type(action).__name__}; only Box, Discrete and MultiDiscrete "
            "are supported"
        )
    return observation, action


def _environment(task: str, metadata: dict[str, Any]) -> tuple[str | None, str]:
    """The environment to evaluate in, with its settings; or None, and why there is none."""
    card = _card(task, metadata)
    if card is not None:
        return card["env_id"], "its card names no environment"
    text = metadata.get("eval_env_spec") or metadata.get("env_spec")
    try:
        spec = json.loads(text) if text else {}
        name, settings = str(spec["id"]), dict(spec.get("kwargs") or {})
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, "the dataset names no environment"
    import gymnasium

    from suites.envs.registered import make_known, with_settings

    make_known(name)
    if name not in gymnasium.registry:
        return None, f"its environment {name} is not installed"
    if not all(isinstance(value, _PLAIN) for value in settings.values()):
        return None, f"the settings of its environment {name} are not plain"
    registered = gymnasium.registry[name].kwargs
    changed = {k: v for k, v in settings.items() if k not in registered or registered[k] != v}
    return with_settings(name, changed), ""


def _reference(task: str, metadata: dict[str, Any]) -> tuple[float, float, str] | None:
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    if not isinstance(low, int | float) or not isinstance(high, int | float) or low == high:
        return None
    return float(low), float(high), f"metadata of the Minari dataset {task}"


def _card(task: str, metadata: dict[str, Any]) -> dict[str, Any] | None:
    """The card of a dataset that this suite exported."""
    if MARK not in metadata:
        return None
    try:
        card = json.loads(metadata[MARK])
        return {**card, "env_id": card["env_id"], "columns": dict(card["columns"])}
    except (ValueError, TypeError, KeyError):
        raise DatasetError(
            f"{task}: {MARK} in its metadata is not a card; export it again"
        ) from None


def _fields(metadata: dict[str, Any]) -> tuple[str, ...]:
    card = _card("", metadata)
    return FIELDS if card is None else recorded.fields_of(card)


def _root() -> Path:
    chosen = os.environ.get("MINARI_DATASETS_PATH")
    return Path(chosen).expanduser() if chosen else Path.home() / ".minari" / "datasets"


def _data_path(task: str) -> Path:
    return _root() / task / "data"


def need_minari(task: str) -> None:
    """Imports minari, whose notices about itself are not for the user of this suite.

    Raises:
        DatasetError: if it is not installed.
    """
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            importlib.import_module("minari")
    except ImportError:
        raise DatasetError(f"{task}: needs minari; pip install -e '.[minari]'") from None
