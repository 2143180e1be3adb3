"""The on-disk form of a dataset: a folder with ``card.json`` and ``transitions.npy``.

``transitions.npy`` is ONE packed float32 table ``[N, D]``, a row per transition. It is mapped, not
read, so that several worker processes share one copy in the page cache, and a batch is one gather
of rows. The card's ``columns`` say which columns ``[start, stop)`` hold which field.

Rows are in the order of time. An episode ends where ``terminations`` or ``truncations`` is 1, and
at the end of the table.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from results.record import to_json, write_atomically

CARD_FILE = "card.json"
TABLE_FILE = "transitions.npy"
EPISODES_FILE = "episodes.npy"  # only where the table lacks rows that the log had
SCALARS = frozenset(  # shown as [N]
    {"rewards", "terminations", "truncations", "policy_ids", "action_log_probs"}
)
REQUIRED = (
    "observations",
    "actions",
    "rewards",
    "next_observations",
    "terminations",
    "truncations",
)

Table = npt.NDArray[np.float32]


class DatasetError(ValueError):
    """A dataset that cannot be made or read; the message names the file and the remedy."""


@dataclass(frozen=True)
class Dataset:
    """A table of transitions and the card that describes it.

    Attributes:
        folder: where it lies on disk, None if it was made in memory.
        card: what it is and where it comes from; ``columns`` maps a field to [start, stop].
        table: ``[N, D]`` float32.
    """

    folder: Path | None
    card: dict[str, Any]
    table: Table

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields, in the order of their columns."""
        columns = self.card["columns"]
        return tuple(sorted(columns, key=columns.__getitem__))

    def column(self, field: str) -> Table:
        """One field as a view: ``[N]`` for scalars, otherwise ``[N, width]``.

        Raises:
            DatasetError: if the dataset has no such field.
        """
        if field not in self.card["columns"]:
            known = ", ".join(self.fields)
            name = self.card.get("id", "")
            raise DatasetError(f"dataset {name}: no field {field}; it has {known}")
        start, stop = self.card["columns"][field]
        return self.table[:, start] if field in SCALARS else self.table[:, start:stop]

    def split(self) -> tuple[Dataset, Dataset | None]:
        """The rows to train on and those held out, of which the card says how many come last."""
        held_out = self.card.get("held_out_transitions", 0)
        if not held_out:
            return self, None
        return replace(self, table=self.table[:-held_out]), replace(
            self, table=self.table[-held_out:]
        )

    @cached_property
    def logged(self) -> npt.NDArray[np.float64] | None:
        """``[E, 3]`` return, length and last row of each episode, as the log had them.

        None unless the log had rows that the table lacks.

        Raises:
            DatasetError: if the file is damaged.
        """
        if self.folder is None or not (self.folder / EPISODES_FILE).exists():
            return None
        try:
            found = np.load(self.folder / EPISODES_FILE, allow_pickle=False)
            return np.asarray(found, np.float64).reshape(-1, 3)
        except (OSError, ValueError, EOFError):
            raise DatasetError(
                f"{self.folder / EPISODES_FILE}: damaged; delete the folder and make it again"
            ) from None

    @cached_property
    def episode_starts(self) -> npt.NDArray[np.int64]:
        """Index of every episode's first row, the last, unfinished one included."""
        ends = (self.column("terminations") > 0) | (self.column("truncations") > 0)
        starts = np.flatnonzero(ends) + 1
        return np.concatenate(([0], starts[starts < len(ends)])).astype(np.int64)

    def episodes(
        self, start: int = 0, stop: int | None = None
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Returns and lengths of the complete episodes in rows [start, stop); see below.

        Of the whole dataset they are those of the log, where rows of it were left out.
        """
        if self.logged is not None and start == 0 and stop is None:
            return self.logged[:, 0], self.logged[:, 1].astype(np.int64)
        names = ("rewards", "terminations", "truncations")
        rewards, terminations, truncations = (self.column(name)[start:stop] for name in names)
        return episodes(rewards, terminations, truncations, self._limit)

    def episode_measures(self) -> dict[str, npt.NDArray[np.float64]]:
        """By name ``[E]``: what the simulator measured in the episodes of :meth:`episodes`.

        Beside the reward; most simulators measure nothing.
        """
        names = self.card.get("measure_names", ())
        if not names:
            return {}
        _, lengths = self.episodes()
        steps = np.cumsum(self.column("measures"), axis=0, dtype=np.float64)
        until = np.concatenate((np.zeros((1, len(names))), steps))
        stops = self.last_rows() + 1
        return dict(zip(names, (until[stops] - until[stops - lengths]).T, strict=True))

    def last_rows(self) -> npt.NDArray[np.int64]:
        """The last row of every complete episode, in the order of :meth:`episodes`."""
        if self.logged is not None:
            return self.logged[:, 2].astype(np.int64)
        terminations, truncations = self.column("terminations"), self.column("truncations")
        _, stops, complete = _bounds(terminations, truncations, self._limit)
        return stops[complete] - 1

    @property
    def _limit(self) -> int | None:
        """How long an episode that did not terminate must be to count; None for any length."""
        return None if self.card.get("every_episode") else self.card.get("horizon")


def layout(widths: Mapping[str, int]) -> dict[str, list[int]]:
    """The card's ``columns`` for fields of these widths, in the mapping's order."""
    columns, start = {}, 0
    for field, width in widths.items():
        columns[field] = [start, start + width]
        start += width
    return columns


def pack(fields: Mapping[str, npt.NDArray[Any]]) -> tuple[Table, dict[str, list[int]]]:
    """Packs fields ``[N, ...]`` into one float32 table; returns it and its ``columns``.

    Raises:
        DatasetError: if fields differ in length, one is missing, or a value is not finite.
    """
    absent = [name for name in REQUIRED if name not in fields]
    if absent:
        given = ", ".join(fields)
        raise DatasetError(f"a dataset needs the field {absent[0]}; it was given {given}")
    rows = len(fields["observations"])
    flat = {}
    for name, values in fields.items():
        if len(values) != rows:
            raise DatasetError(
                f"{name} has {len(values)} rows and observations have {rows}; give equally many"
            )
        flat[name] = np.asarray(values, np.float32).reshape(rows, -1)
        if not np.isfinite(flat[name]).all():
            raise DatasetError(f"{name} holds NaN or infinity; remove those transitions")
    columns = layout({name: values.shape[1] for name, values in flat.items()})
    return np.concatenate(list(flat.values()), axis=1, dtype=np.float32), columns


@contextmanager
def draft(folder: Path, rows: int, width: int) -> Iterator[Path]:
    """A temporary folder beside ``folder`` holding an empty table, removed unless it was sealed.

    Yields:
        The folder; its ``transitions.npy`` is ``[rows, width]`` and open to any number of writers.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        np.lib.format.open_memmap(temporary / TABLE_FILE, "w+", np.float32, (rows, width)).flush()
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def seal(temporary: Path, folder: Path, card: Mapping[str, Any]) -> Dataset:
    """Completes a draft: adds size and sha256 to the card, and moves it to ``folder``."""
    path = temporary / TABLE_FILE
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())
    rows = len(np.load(path, mmap_mode="r"))
    complete = {**card, "transitions": rows, "sha256": file_sha256(path)}
    write_atomically(temporary / CARD_FILE, to_json(complete))
    temporary.chmod(0o755)
    if folder.exists():
        shutil.rmtree(folder)
    temporary.rename(folder)
    return load(folder)


def write(
    folder: Path,
    fields: Mapping[str, npt.NDArray[Any]],
    card: Mapping[str, Any],
    logged: npt.NDArray[np.float64] | None = None,
) -> Dataset:
    """Writes a dataset; a reader sees all of it or nothing. An older one there is replaced.

    Args:
        folder: the dataset's own folder.
        fields: ``[N, ...]`` arrays by field name, at least those in ``REQUIRED``.
        card: everything but ``columns``, ``transitions`` and ``sha256``, which are added.
        logged: the log's episodes, if it had rows that ``fields`` lack; see :attr:`Dataset.logged`.

    Raises:
        DatasetError: if the fields do not fit together.
    """
    table, columns = pack(fields)
    with draft(folder, *table.shape) as temporary:
        target = np.load(temporary / TABLE_FILE, mmap_mode="r+")
        target[:] = table
        target.flush()
        if logged is not None:
            np.save(temporary / EPISODES_FILE, logged)
        return seal(temporary, folder, {**card, "columns": columns})


def identified(content: Mapping[str, Any]) -> dict[str, Any]:
    """An identity, all that a dataset's bytes depend on, with its digest "id"."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return {**content, "id": digest}


def measure(
    returns: npt.NDArray[np.float64], lengths: npt.NDArray[np.int64 | np.float64]
) -> dict[str, Any]:
    """What every card says of the returns (raw units) and lengths (steps) of complete episodes."""
    return {
        "episodes": len(returns),
        "return_mean": float(returns.mean()),
        "return_std": float(returns.std()),
        "return_best": float(returns.max()),
        "return_worst": float(returns.min()),
        "return_deciles": np.quantile(returns, np.linspace(0, 1, 11)).tolist(),
        "length_mean": float(lengths.mean()),
    }


def is_stored(folder: Path) -> bool:
    """Whether a dataset lies there; its bytes are not checked."""
    try:
        load(folder)
    except DatasetError:
        return False
    return True


def make_once(folder: Path, make: Callable[[], object]) -> Path:
    """A dataset's folder, made first if it is not there or damaged; by one process at a time.

    Args:
        folder: the dataset's own.
        make: writes the dataset there.

    Raises:
        DatasetError: if nothing can be written there.
    """
    from filelock import FileLock

    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise DatasetError(
            f"{folder.parent} cannot be written ({error.strerror or error}); name another place "
            "for datasets with the environment variable FASTQ_BENCH_CACHE"
        ) from None
    try:
        load(folder, verify=True)
    except DatasetError:
        for abandoned in folder.parent.glob(f".{folder.name}.*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        make()
    finally:
        lock.release()
    return folder


def load(folder: Path, verify: bool = False) -> Dataset:
    """Opens a dataset without reading its table.

    Args:
        folder: the dataset's folder.
        verify: also compare the table with the card's sha256, which reads all of it.

    Raises:
        DatasetError: if it is missing, incomplete or damaged.
    """
    card_path, table_path = folder / CARD_FILE, folder / TABLE_FILE
    try:
        card = json.loads(card_path.read_bytes())
        rows, columns, sha256 = card["transitions"], card["columns"], card["sha256"]
        width = max(stop for _, stop in columns.values())
    except (FileNotFoundError, NotADirectoryError):
        raise DatasetError(f"{card_path}: no such file; make the dataset again") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DatasetError(
            f"{card_path}: not a dataset's card; delete the folder and make it again"
        ) from None
    try:
        table = np.load(table_path, mmap_mode="c", allow_pickle=False)  # torch wants it writable
    except FileNotFoundError:
        raise DatasetError(f"{table_path}: no such file; make the dataset again") from None
    except (OSError, ValueError, EOFError):
        raise DatasetError(f"{table_path}: damaged; delete the folder and make it again") from None
    if table.shape != (rows, width) or table.dtype != np.float32:
        raise DatasetError(
            f"{table_path}: holds {table.dtype} {table.shape} where the card says float32 "
            f"{(rows, width)}; delete the folder and make it again"
        )
    if verify and file_sha256(table_path) != sha256:
        raise DatasetError(
            f"{table_path}: differs from its sha256; delete the folder and make it again"
        )
    return Dataset(folder, card, table)


def episodes(
    rewards: Table, terminations: Table, truncations: Table, horizon: int | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Returns (raw units) and lengths (steps) of the complete episodes; columns are ``[N]``.

    An episode is complete if the environment ended it or it reached the time limit ``horizon``; one
    that the end of a table or of a collection run cut is not. Without a time limit every truncation
    counts.
    """
    starts, stops, complete = _bounds(terminations, truncations, horizon)
    if not starts.size:
        return np.zeros(0), np.zeros(0, np.int64)
    returns = np.add.reduceat(rewards[: stops[-1]], starts, dtype=np.float64)
    return returns[complete], (stops - starts)[complete]


def _bounds(
    terminations: Table, truncations: Table, horizon: int | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """First row and the row after the last of every ended episode, and whether it is complete."""
    stops = np.flatnonzero((terminations > 0) | (truncations > 0)) + 1
    starts = np.concatenate(([0], stops[:-1])) if stops.size else stops
    complete = (terminations[stops - 1] > 0) | (stops - starts >= (horizon or 1))
    return starts, stops, complete


def file_sha256(path: Path) -> str:
    """The digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
