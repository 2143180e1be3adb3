"""A user's own logs as a data source: ``--tasks data.npz`` (or .h5), no manifest needed.

A file is checked while planning and converted once, into the cache. What is converted goes by the
file's sha256, so a file that has changed is another dataset, never the old one. Where a file names
no simulator, a tenth of its episodes is held out from training, to judge policies by.

The layout is told in ``docs/own-data.md``. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from results.record import normalized_score
from suites.datasets import DATA_SUFFIXES, OwnTask, store, task_label
from suites.datasets.file_layout import Content, check
from suites.datasets.file_read import read
from suites.datasets.local import cache_root
from suites.datasets.store import DatasetError

VERSION = 2  # of the conversion; raised whenever the same file would give other bytes
FIELDS = store.REQUIRED  # of every transition, whatever the file
HELD_OUT = 10  # of so many episodes one is held out where there is no simulator
QUALITY = "logged"


def own_task(name: str) -> OwnTask | None:
    """A file as a task; all of it is read and checked, unless it was before.

    Raises:
        DatasetError: what is wrong with the file, in one sentence.
    """
    path = Path(name).expanduser()
    if path.suffix.lower() not in DATA_SUFFIXES and not path.is_file():
        return None
    facts = _facts(path.resolve(), _stamp(path))
    label = task_label(path.stem)
    return OwnTask(
        id=label,
        key=str(path.resolve()),
        title=facts["title"] or path.stem,
        environment=label,
        quality=QUALITY,
        reference=facts["reference"] and (*facts["reference"], f"{path.name} itself"),
        spaces=facts["spaces"],
        horizon=facts["horizon"],
        fields=tuple(facts["fields"]),
        notes=tuple(facts["notes"]),
    )


def missing(task: str) -> str | None:
    """None for a file; of the catalogue's tasks this source has no data."""
    if Path(task).is_absolute():
        return None
    return "the source file has no data of its own; name yours, as in --tasks data.npz"


def default_size(task: str) -> int:
    """Transitions in the file."""
    return int(_facts(Path(task), _stamp(Path(task)))["rows"])


def identity(task: str, size: int | None = None, seed: int = 0) -> dict[str, Any]:
    """What the dataset's bytes depend on, and ``id``, a digest of it.

    Raises:
        DatasetError: if the file is gone or wrong, or another draw of it is asked for.
    """
    path = Path(task)
    if seed:
        raise DatasetError(
            f"{path.name}: recorded data has one draw; leave --dataset-seeds out or set it to 1"
        )
    stamp = _stamp(path)
    facts = _facts(path, stamp)
    content = {
        "source": "file",
        "version": VERSION,
        "file_sha256": _sha256(path, stamp),
        "size": min(size or facts["rows"], facts["rows"]),
        "env_id": facts["env_id"],
    }
    return store.identified(content)


def folder(task: str, size: int | None = None, seed: int = 0) -> Path:
    """Where the converted file lies in the cache; it need not exist."""
    wanted = identity(task, size, seed)
    return cache_root() / "file" / task_label(Path(task).stem) / str(wanted["id"])[:16]


def is_cached(task: str, size: int | None = None, seed: int = 0) -> bool:
    """Whether the file has been converted; the bytes are checked only by :func:`ensure`."""
    return store.is_stored(folder(task, size, seed))


def ensure(
    task: str,
    size: int | None = None,
    seed: int = 0,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """The folder of the converted file, which is converted first if it is not in the cache.

    Args:
        task: the file's path.
        size: so many of its first rows at most; an episode cut there is truncated there.
        seed: 0.
        jobs: of no account.
        progress: called with (transitions converted, transitions in all).

    Raises:
        DatasetError: if the file is gone or wrong; the message says how.
    """
    path, wanted = Path(task), identity(task, size, seed)
    place = folder(task, size, seed)

    def make() -> None:
        data = convert(check(path, read(path)), wanted["size"])
        if identity(task, size, seed) != wanted:
            raise DatasetError(f"{path} changed while it was read; run the command again")
        card = {**wanted, "task": task_label(path.stem), "file": path.name}
        store.write(place, data.fields, {**data.card, **card})
        if progress is not None:
            progress(len(data.fields["rewards"]), len(data.fields["rewards"]))

    return store.make_once(place, make)


class Converted:
    """Fields and card of a dataset, before it is written.

    Attributes:
        fields: ``[N, ...]`` by name; rows held out come last.
        card: all but size, columns, sha256 and what the file's identity says.
    """

    def __init__(self, fields: dict[str, npt.NDArray[Any]], card: dict[str, Any]) -> None:
        self.fields, self.card = fields, card


def convert(content: Content, size: int | None = None) -> Converted:
    """A file's content as a dataset.

    Args:
        content: checked.
        size: so many of the first rows at most.
    """
    fields: dict[str, npt.NDArray[Any]] = dict(content.fields)
    if size is not None and size < len(fields["rewards"]):
        fields = {name: values[:size].copy() for name, values in fields.items()}
        if not fields["terminations"][-1]:
            fields["truncations"][-1] = 1.0
    ends = np.flatnonzero((fields["terminations"] > 0) | (fields["truncations"] > 0)) + 1
    returns, lengths = store.episodes(
        fields["rewards"], fields["terminations"], fields["truncations"], None
    )
    held_out = 0
    if content.env_id is None and len(ends) > 1:
        order, held_out = _held_out_last(ends)
        fields = {name: values[order] for name, values in fields.items()}
    history = {"history": content.history, "static": content.parts[0][1]}
    card = {
        **(history if content.history else {}),
        "env_id": content.env_id,
        "horizon": content.horizon,
        "every_episode": True,  # whoever logged them knows best where they end
        "observation_shape": [fields["observations"].shape[1]],
        "action_shape": [fields["actions"].shape[1]],
        "observation_parts": [[name, width] for name, width in content.parts if name],
        "reward_parts": content.reward_parts,
        "policies": _policies(fields),
        "notes": content.notes,
        "held_out_transitions": held_out,
        **store.measure(returns, lengths),
    }
    if content.reference is not None:
        card["score_mean"] = float(normalized_score(returns.mean(), *content.reference))
    return Converted(fields, card)


def plain_spaces(content: Content) -> dict[str, Any]:
    """Spaces of observations and actions as plain JSON."""
    from gymnasium.spaces import Box

    from suites.spaces import histories, to_plain

    shown: Any = Box(-np.inf, np.inf, (content.fields["observations"].shape[1],))
    if content.history:
        shown = histories(shown, content.parts[0][1], content.history)
    return {"observation": to_plain(shown), "action": content.action_space}


def held_out_episodes(episodes: int) -> npt.NDArray[np.bool_]:
    """Which episodes of a file are held out, ``[episodes]``: a tenth of them, at least one."""
    chosen = np.zeros(episodes, bool)
    count = max(1, episodes // HELD_OUT)
    chosen[np.random.default_rng(0).permutation(episodes)[:count]] = True
    return chosen


def _held_out_last(ends: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], int]:
    """An order of rows with a random tenth of the episodes last, and how many rows these have."""
    starts = np.concatenate(([0], ends[:-1]))
    rows = np.repeat(held_out_episodes(len(ends)), ends - starts)
    return np.argsort(rows, kind="stable"), int(rows.sum())


def _policies(fields: dict[str, npt.NDArray[Any]]) -> list[dict[str, Any]]:
    """What is measured of every logging policy: its share, and the episodes it ended."""
    if "policy_ids" not in fields:
        return []
    ids = fields["policy_ids"].astype(np.int64)
    ends = np.flatnonzero((fields["terminations"] > 0) | (fields["truncations"] > 0)) + 1
    starts = np.concatenate(([0], ends[:-1])) if len(ends) else ends
    totals = np.add.reduceat(fields["rewards"], starts, dtype=np.float64)
    last = ids[ends - 1]
    policies = []
    for i in range(int(ids.max()) + 1):
        own = totals[last == i]
        policies.append(
            {
                "id": i,
                "name": f"policy {i}",
                "share": float((ids == i).mean()),
                "episodes": len(own),
                "return_mean": float(own.mean()) if len(own) else None,
            }
        )
    return policies


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of the last change, which tell a file from what it was a moment ago."""
    try:
        found = path.stat()
    except OSError as error:
        raise DatasetError(
            f"{path}: {error.strerror}; give the path of your data (.npz or .h5)"
        ) from None
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=64)
def _sha256(path: Path, stamp: tuple[int, int]) -> str:
    return store.file_sha256(path)


@lru_cache(maxsize=64)
def _facts(path: Path, stamp: tuple[int, int]) -> dict[str, Any]:
    """What planning needs to know of a file."""
    content = check(path, read(path))
    fields = list(content.fields)
    return {
        "rows": len(content.fields["rewards"]),
        "env_id": content.env_id,
        "horizon": content.horizon,
        "spaces": plain_spaces(content),
        "fields": fields + ["policy_groups"] * ("policy_ids" in fields),
        "reference": content.reference,
        "title": content.title,
        "notes": content.notes,
    }
