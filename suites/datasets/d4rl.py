"""D4RL's own files (Fu et al. 2020, arXiv:2004.07219): the source ``d4rl``.

A file is looked for where the user says, in D4RL's own folder and in this suite's cache, in this
order; it is downloaded only if asked for. It is converted once into a store in the cache. Nothing
here imports torch, and only reading a file imports h5py.
"""

from __future__ import annotations

import csv
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from baselines.config import check_name
from suites.catalog import TASKS, Task
from suites.datasets import d4rl_format, download, recorded, store
from suites.datasets.d4rl_format import Log
from suites.datasets.local import cache_root
from suites.datasets.store import DatasetError
from suites.datasets.verify import unsummed

CONVERSION = 1  # raised whenever the same file would give other rows
SECONDS_PER_TRANSITION = 6e-6  # of conversion; a million HalfCheetah rows took 5.5 s
FIELDS: tuple[str, ...] = store.REQUIRED  # of every transition; see also fields()
AT = "@"  # in a task's key, before the place that the user named
_MIXED = "medium-expert"  # the quality whose files are two others' one after the other
_CONTROL_COST = {"halfcheetah": 0.1, "hopper": 1e-3, "walker2d": 1e-3}  # gymnasium's -v4 defaults
_SURVIVE = {"hopper": 1.0, "walker2d": 1.0}
_ROBOTICS = ("adroit", "kitchen")  # domains that gymnasium-robotics simulates

Progress = download.Progress


@dataclass(frozen=True)
class Published:
    """One of D4RL's files.

    Attributes:
        task: this suite's name of it.
        version: of the dataset, for example "v2".
        url: where its authors put it.
    """

    task: str
    version: str
    url: str

    @property
    def name(self) -> str:
        """The file's name, which D4RL's own folder uses too."""
        return self.url.rpartition("/")[2]


@cache
def published() -> dict[str, Published]:
    """D4RL's files by task, from ``d4rl_files.csv``."""
    text = (files("suites.datasets") / "d4rl_files.csv").read_text("utf-8")
    rows = csv.DictReader(text.splitlines())
    return {r["task"]: Published(r["task"], r["dataset_version"], r["url"]) for r in rows}


def tasks() -> tuple[str, ...]:
    """All task ids."""
    return tuple(published())


def key(task: str, place: Path | None) -> str:
    """What the other functions take for a task whose file the user names (a file or a folder)."""
    return task if place is None else f"{task}{AT}{place.expanduser().resolve()}"


def fetch(task: str, progress: Progress | None = None) -> Path:
    """The task's file, downloaded if it is in none of the places.

    Raises:
        DatasetError: if it cannot be had.
    """
    found = find(task)
    if found is not None:
        return found
    wanted, _ = _split(task)
    entry = published()[wanted.id]
    target = _downloads() / entry.name
    download.download(
        entry.url,
        target,
        progress=progress,
        remedy=f"get {entry.name} another way and name its place with --data-dir",
    )
    return target


def find(task: str) -> Path | None:
    """The task's file: where the user says, in D4RL's folder, or in the cache; None if nowhere."""
    wanted, place = _split(task)
    if place is not None and place.is_file():
        return place
    entry = published()[wanted.id]
    names = (entry.name, f"{wanted.id}-{entry.version}.hdf5")
    return next(
        (path for folder in _folders(place) for name in names if (path := folder / name).is_file()),
        None,
    )


def missing(task: str) -> str | None:
    """None, or one sentence that says why this task's data is not to be had."""
    wanted, place = _split(task)
    if wanted.domain in _ROBOTICS and importlib.util.find_spec("gymnasium_robotics") is None:
        return f"{wanted.id}: needs gymnasium-robotics; pip install -e '.[robotics]'"
    if place is not None and not place.exists():
        return f"{wanted.id}: --data-dir {place} is not there; name a file or a folder"
    if find(task) is not None:
        return None
    where = ", ".join(str(folder) for folder in _folders(place))
    return (
        f"{wanted.id}: {published()[wanted.id].name} is not in {where}; name its place with "
        "--data-dir, or add --download"
    )


def default_size(task: str) -> int:
    """Rows of the task's file; a million where it is not here."""
    path = find(task)
    return 1_000_000 if path is None else d4rl_format.rows_of(path)


def fields(task: str) -> tuple[str, ...]:
    """What every transition of this task has."""
    wanted, _ = _split(task)
    path = find(task)
    if path is None:
        return FIELDS
    if (card := d4rl_format.card_of(path)) is not None:
        return recorded.fields_of(card)
    parts = ("reward_parts",) if wanted.domain == "locomotion" else ()
    ids = ("policy_ids", "policy_groups") if _split_row(task, path) is not None else ()
    return (*FIELDS, *ids, *parts)


def identity(task: str, size: int | None = None, seed: int = 0) -> dict[str, Any]:
    """The file's sha256 and all else that the converted dataset depends on, and a digest "id".

    Raises:
        DatasetError: if the file is not here or no such file, or another draw is asked for.
    """
    wanted, _ = _split(task)
    recorded.check_draw(wanted.id, size, seed)
    path = find(task)
    if path is None:
        raise DatasetError(str(missing(task)))
    if size is not None and size >= d4rl_format.rows_of(path):
        size = None
    card = d4rl_format.card_of(path)
    return store.identified(
        {
            "source": "d4rl",
            "task": wanted.id,
            "env_id": wanted.env_id("d4rl") if card is None else card["env_id"],
            "dataset_version": published()[wanted.id].version if card is None else "exported",
            "file_sha256": recorded.sha256(path),
            "conversion": CONVERSION,
            "policies_split": None if card is not None else _split_row(task, path),
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
    progress: Progress | None = None,
) -> Path:
    """The folder of the converted dataset, which is made first if it is not there.

    Args:
        task: an id of :func:`tasks`, or its :func:`key`.
        size: transitions at most; all by default.
        seed: 0.
        jobs: not used; conversion is one process's work.
        progress: called with (transitions converted, transitions in all).

    Raises:
        DatasetError: one sentence, if the file cannot be used.
    """
    wanted = identity(task, size, seed)
    folder = recorded.ensure(wanted, lambda: _convert(task, wanted))
    if progress is not None:
        rows = len(store.load(folder).table)
        progress(rows, rows)
    return folder


def _convert(task: str, wanted: dict[str, Any]) -> tuple[Log, dict[str, Any]]:
    from suites.envs import make_vector

    found, _ = _split(task)
    path = find(task)
    assert path is not None  # identity() would have said so
    env = make_vector(wanted["env_id"], 1)
    env.close()
    log = d4rl_format.read(path, env.horizon)
    for name, space in (("observations", env.observation_space), ("actions", env.action_space)):
        if log.fields[name].shape[1:] != space.shape:
            raise DatasetError(
                f"{path}: {name}: {log.fields[name].shape[1]} numbers where {found.id} has "
                f"{(space.shape or (0,))[0]}; name the file of this task with --data-dir"
            )
    facts: dict[str, Any] = {
        "file": path.name,
        "url": published()[found.id].url,
        "environment": found.environment,
        "horizon": env.horizon,
        "reward_parts": [],
    }
    if log.card is not None:
        return log, {**facts, "url": "", **recorded.facts_of(log.card)}
    if wanted["policies_split"] is not None:
        first, second, row = wanted["policies_split"]
        ids = (np.arange(len(log.fields["rewards"])) >= _kept_before(path, row, env.horizon)) * 1.0
        log.fields["policy_ids"] = ids
        facts["policies"] = [
            {"id": number, "name": name, "checkpoint": None, "noise": None}
            for number, name in enumerate((first, second))
        ]
    if (parts := _reward_parts(found, log)) is not None:
        names, values = parts
        log.fields["reward_parts"] = values
        facts["reward_parts"] = names
    return log, facts


def _kept_before(path: Path, row: int, limit: int | None) -> int:
    """How many of the file's first ``row`` rows are kept."""
    with d4rl_format.opened(path) as file:
        terminals = np.asarray(file["terminals"][:row]).reshape(-1) > 0
        if "timeouts" in file:
            return int(np.sum(np.asarray(file["timeouts"][:row]).reshape(-1) == 0))
    return int(np.sum(~d4rl_format.counted_timeouts(terminals, limit)))


def _reward_parts(task: Task, log: Log) -> tuple[list[str], np.ndarray[Any, Any]] | None:
    """The reward's additive parts ``[N, C]`` by gymnasium's -v4 formulas, where they are known.

    control = -c |a|^2, survive = 1 on every step, forward = the rest.
    """
    if task.environment not in _CONTROL_COST:
        return None
    rewards = log.fields["rewards"].astype(np.float64)
    actions = log.fields["actions"].astype(np.float64)
    control = -_CONTROL_COST[task.environment] * np.square(actions).sum(axis=1)
    survive = np.full(len(rewards), _SURVIVE.get(task.environment, 0.0))
    columns = {"forward": rewards - survive - control, "survive": survive, "control": control}
    if task.environment not in _SURVIVE:
        del columns["survive"]
    values = np.stack(list(columns.values()), axis=1).astype(np.float32)
    # In float32, as they are stored and summed; the rest takes up what rounding leaves.
    for _ in range(3):
        values[:, 0] += log.fields["rewards"] - np.add.accumulate(values, axis=1)[:, -1]
    return (list(columns), values) if not unsummed(values, log.fields["rewards"]).any() else None


def _split_row(task: str, path: Path) -> tuple[str, str, int] | None:
    """Where the rows of one policy end and the other's begin, if that is proved.

    A medium-expert file is the medium and the expert file one after the other. Where both lie in
    one of the places too, their rows are compared; what was found is kept in the cache.

    Returns:
        (first policy, second policy, first row of the second), or None.
    """
    wanted, place = _split(task)
    if wanted.quality != _MIXED or d4rl_format.card_of(path) is not None:
        return None
    digest = recorded.sha256(path)
    proofs = cache_root() / "d4rl" / "policies.json"
    known = recorded.remembered(proofs)
    if digest in known:
        first, second, row = known[digest]
        return str(first), str(second), int(row)
    parts = {
        name: find(key(f"{wanted.environment}-{name}", None if _is_file(place) else place))
        for name in ("medium", "expert")
    }
    if None in parts.values():
        return None
    for first, second in (("medium", "expert"), ("expert", "medium")):
        row = d4rl_format.joined_at(path, parts[first], parts[second])  # type: ignore[arg-type]
        if row is not None:
            recorded.remember(proofs, {digest: [first, second, row]})
            return first, second, row
    return None


def _is_file(place: Path | None) -> bool:
    return place is not None and place.is_file()


def _split(task: str) -> tuple[Task, Path | None]:
    """The task and the place of a key."""
    name, _, place = task.partition(AT)
    check_name(name, tasks(), "task", "source d4rl")
    return TASKS[name], Path(place) if place else None


def _folders(place: Path | None) -> Iterator[Path]:
    if place is not None:
        yield place
    own = os.environ.get("D4RL_DATASET_DIR")
    yield Path(own).expanduser() if own else Path.home() / ".d4rl" / "datasets"
    yield _downloads()


def _downloads() -> Path:
    return cache_root() / "d4rl" / "files"
