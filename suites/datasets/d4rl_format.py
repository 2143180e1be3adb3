"""D4RL's HDF5 layout: one array per field, rows in the order of time.

``observations``, ``actions``, ``rewards``, ``terminals`` and mostly ``timeouts`` lie at the top;
``next_observations``, ``infos/...`` and ``metadata/...`` may be there. Files that this suite wrote
say so in an attribute, and hold every field of ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from suites.datasets import store
from suites.datasets.store import DatasetError

MARK = "fast_q_bench"  # the attribute with the card of a dataset that this suite wrote
MOST_BYTES = 64 * 2**30  # of one array; a damaged file may claim any size
_NAMES = {"terminations": "terminals", "truncations": "timeouts"}  # ours -> D4RL's
_INFOS = "infos/"  # where fields lie that D4RL does not know
_EPISODES = "metadata/episodes"  # ours: returns, lengths and last rows, where rows were left out
_REMEDY = "download it again or name another with --data-dir"

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Log:
    """Transitions as a store takes them, and what the log tells of its episodes.

    Attributes:
        fields: ``[N, ...]`` by our names.
        episodes: ``[E, 3]`` return, length and last row of each complete episode, measured before
            rows were left out.
        card: the card of a dataset that this suite wrote, None for others.
        whole: whether ``fields`` have all rows that ``episodes`` were measured on.
    """

    fields: dict[str, Array]
    episodes: npt.NDArray[np.float64]
    card: dict[str, Any] | None = None
    whole: bool = True


def rows_of(path: Path) -> int:
    """The number of rows, without reading them.

    Raises:
        DatasetError: if it is no such file.
    """
    with opened(path) as file:
        return len(_dataset(file, path, "rewards"))


def card_of(path: Path) -> dict[str, Any] | None:
    """The card of a dataset that this suite wrote, None for other files.

    Raises:
        DatasetError: if it is no HDF5 file, or the card is damaged.
    """
    with opened(path) as file:
        text = file.attrs.get(MARK)
    if text is None:
        return None
    try:
        card = json.loads(text)
        return {**card, "env_id": card["env_id"], "columns": dict(card["columns"])}
    except (ValueError, TypeError, KeyError):
        raise DatasetError(f"{path}: attribute {MARK}: not a dataset's card; {_REMEDY}") from None


def read(path: Path, limit: int | None) -> Log:
    """Reads a file as D4RL's ``qlearning_dataset`` does (Farama-Foundation/D4RL@89141a6).

    A row on which a time limit struck is left out, since its next observation is not recorded by
    all files, and so is the last row; neither is ever a termination. The row before it ends its
    episode as a truncation. Where the file has next observations they are used; elsewhere the next
    row's observation is the next one. A file without ``timeouts`` is cut by counting steps, the way
    D4RL counts them.

    Files that this suite wrote are read as they were written, every row of them.

    Args:
        path: the file.
        limit: the time limit in steps, for files without ``timeouts``.

    Raises:
        DatasetError: one sentence naming file, array and remedy.
    """
    card = card_of(path)
    with opened(path) as file:
        if card is not None:
            return _read_ours(file, path, card)
        rewards = _read(file, path, "rewards", None, 1)
        rows = len(rewards)
        observations = _read(file, path, "observations", rows, 2)
        actions = _read(file, path, "actions", rows, 2)
        terminals = _read(file, path, "terminals", rows, 1) > 0
        timeouts = None
        if "timeouts" in file:
            timeouts = _read(file, path, "timeouts", rows, 1) > 0
        following = None
        if "next_observations" in file:
            following = _read(file, path, "next_observations", rows, 2)
            if following.shape != observations.shape:
                raise DatasetError(
                    f"{path}: next_observations: shape {following.shape}, and observations have "
                    f"{observations.shape}; {_REMEDY}"
                )
    if rows < 2:
        raise DatasetError(f"{path}: rewards: {rows} rows; there must be two at least; {_REMEDY}")
    if timeouts is None:
        timeouts = counted_timeouts(terminals, limit)

    left_out = timeouts.copy()
    left_out[-1] = True
    kept = ~left_out
    if not kept.any():
        raise DatasetError(f"{path}: timeouts: every episode ends after one step; {_REMEDY}")
    truncations = np.zeros(rows, bool)
    before = np.flatnonzero(left_out[1:])  # the rows before those that are left out
    truncations[before] = kept[before] & ~terminals[before]
    if following is None:
        following = np.concatenate((observations[1:], observations[-1:]))
    fields = {
        "observations": observations[kept],
        "actions": actions[kept],
        "rewards": rewards[kept],
        "next_observations": following[kept],
        "terminations": terminals[kept],
        "truncations": truncations[kept],
    }
    stops = np.flatnonzero(terminals | timeouts) + 1
    return Log(fields, _episodes(rewards, stops, np.cumsum(kept)), whole=False)


def joined_at(path: Path, first: Path, second: Path) -> int | None:
    """The row at which a file that is two others one after the other goes over to the second.

    Args:
        path: the file that may be joined.
        first: the file that it may begin with.
        second: the file that it may go on with.

    Returns:
        None if it is not those two, number by number.

    Raises:
        DatasetError: if one is no such file.
    """
    names = ("observations", "actions", "rewards", "terminals")
    with opened(path) as whole, opened(first) as head, opened(second) as tail:
        row = len(_dataset(head, first, "rewards"))
        if row + len(_dataset(tail, second, "rewards")) != len(_dataset(whole, path, "rewards")):
            return None
        for name in names:
            there = _dataset(whole, path, name)
            for part, source, rows in (
                (head, first, slice(0, row)),
                (tail, second, slice(row, None)),
            ):
                if not np.array_equal(there[rows], _dataset(part, source, name)[()]):
                    return None
    return row


def counted_timeouts(terminals: npt.NDArray[np.bool_], limit: int | None) -> npt.NDArray[np.bool_]:
    """Where D4RL counts the time limit as reached, ``[N]``, in files that do not record it.

    Its count begins at 0 after a time limit and at 1 after a termination.
    """
    reached = np.zeros(len(terminals), bool)
    if limit is None:
        return reached
    steps = 0
    for row, terminal in enumerate(terminals.tolist()):
        if steps == limit - 1:
            reached[row] = True
            steps = 0
        else:
            steps = 1 if terminal else steps + 1
    return reached


def write(path: Path, data: store.Dataset) -> None:
    """Writes a dataset so that D4RL's users can read it, and :func:`read` gives back every row.

    Args:
        path: the file, which must not exist.
        data: the dataset.

    Raises:
        DatasetError: if the file cannot be written.
    """
    import h5py

    if path.exists():
        raise DatasetError(f"{path}: is there already; remove it or name another file")
    part = path.with_name(f".{path.name}.part")
    flags = ("terminations", "truncations")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(part, "w") as file:
            for field in data.fields:
                values = data.column(field)
                name = _NAMES.get(field, field if field in store.REQUIRED else _INFOS + field)
                stored = values > 0 if field in flags else values
                file.create_dataset(name, data=stored, compression="gzip", compression_opts=4)
            if data.logged is not None:
                file.create_dataset(_EPISODES, data=data.logged)
            file.attrs[MARK] = json.dumps(data.card)
        part.replace(path)
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be written ({error.strerror or error}); name another place"
        ) from None
    finally:
        part.unlink(missing_ok=True)


def _read_ours(file: Any, path: Path, card: dict[str, Any]) -> Log:
    fields: dict[str, Array] = {}
    rows = None
    for field in sorted(card["columns"], key=lambda name: card["columns"][name][0]):
        name = _NAMES.get(field, field if field in store.REQUIRED else _INFOS + field)
        fields[field] = _read(file, path, name, rows, 1 if field in store.SCALARS else 2)
        rows = len(fields[field])
    absent = [name for name in store.REQUIRED if name not in fields]
    if absent:
        raise DatasetError(f"{path}: the card knows no {absent[0]}; {_REMEDY}")
    if _EPISODES in file:
        episodes = _read(file, path, _EPISODES, None, 2, np.float64).reshape(-1, 3)
        return Log(fields, episodes, card, whole=False)
    return log_of(fields, card.get("horizon"), card)


def log_of(
    fields: Mapping[str, Array], horizon: int | None, card: dict[str, Any] | None = None
) -> Log:
    """A log whose rows are all there; its episodes are found as a dataset finds them."""
    table, columns = store.pack(fields)
    data = store.Dataset(None, {"columns": columns, "horizon": horizon}, table)
    return Log(dict(fields), np.stack((*data.episodes(), data.last_rows()), axis=1), card)


def _episodes(rewards: Array, stops: Array, kept: Array) -> npt.NDArray[np.float64]:
    """``[E, 3]`` return, length and last kept row of the episodes that end before ``stops``.

    Args:
        rewards: ``[N]`` of all rows.
        stops: ``[E]`` the row after each episode's last.
        kept: ``[N]`` the number of kept rows up to and with each row.
    """
    if not len(stops):
        return np.zeros((0, 3))
    starts = np.concatenate(([0], stops[:-1]))
    returns = np.add.reduceat(rewards[: stops[-1]], starts, dtype=np.float64)
    last = np.maximum(kept[stops - 1] - 1, 0)
    return np.stack((returns, stops - starts, last), axis=1).astype(np.float64)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An HDF5 file for reading.

    Raises:
        DatasetError: if it is none, or if it shows to be damaged while it is read.
    """
    import h5py

    try:
        file = h5py.File(path, "r")
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file; {_REMEDY}") from None
    except OSError:
        raise DatasetError(f"{path}: not an HDF5 file, or only a part of one; {_REMEDY}") from None
    with file:
        try:
            yield file
        except DatasetError:
            raise
        except (OSError, RuntimeError, LookupError, ValueError, TypeError, MemoryError):
            # What h5py raises depends on which byte is wrong.
            raise DatasetError(f"{path}: damaged, it cannot be read; {_REMEDY}") from None


def _dataset(file: Any, path: Path, name: str) -> Any:
    import h5py

    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        there = ", ".join(sorted(str(key) for key in file)[:12]) or "nothing"
        raise DatasetError(f"{path}: {name}: no such array; the file has {there}; {_REMEDY}")
    if found.dtype.kind not in "fiub":
        raise DatasetError(f"{path}: {name}: holds {found.dtype}, not numbers; {_REMEDY}")
    if found.shape is None or not found.shape:
        raise DatasetError(f"{path}: {name}: a single value, not one per row; {_REMEDY}")
    return found


def _read(
    file: Any, path: Path, name: str, rows: int | None, rank: int, dtype: Any = np.float32
) -> Array:
    """An array ``[N]`` or ``[N, D]``, finite, by default in the precision a store keeps."""
    found = _dataset(file, path, name)
    shape = tuple(found.shape)
    if rank == 1 and len(shape) == 2 and shape[1] == 1:
        pass  # D4RL takes a column for a vector, too
    elif len(shape) != rank:
        wanted = "one number" if rank == 1 else "one row of numbers"
        raise DatasetError(
            f"{path}: {name}: shape {shape}; there must be {wanted} per transition; {_REMEDY}"
        )
    if rows is not None and shape[0] != rows:
        raise DatasetError(
            f"{path}: {name}: {shape[0]} rows, and the others have {rows}; {_REMEDY}"
        )
    if found.nbytes > MOST_BYTES:
        raise DatasetError(f"{path}: {name}: claims {found.nbytes:,} bytes; {_REMEDY}")
    try:
        values = np.asarray(found[()])
    except (OSError, RuntimeError, ValueError, MemoryError):
        raise DatasetError(
            f"{path}: {name}: cannot be read, the file is damaged; {_REMEDY}"
        ) from None
    with np.errstate(over="ignore"):
        values = values.astype(dtype, copy=False).reshape(shape[0], *shape[1:rank])
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).reshape(shape[0], -1).all(axis=1))[0])
        raise DatasetError(
            f"{path}: {name}: row {row} is NaN, infinite or beyond float32; {_REMEDY}"
        )
    return values
