"""A user's own arrays as numbers and texts: of the right kind, whole, finite, or one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from suites.datasets.file_read import SEPARATE, Arrays
from suites.datasets.store import DatasetError

LARGEST_INTEGER = 2**24  # that float32 holds exactly

Floats = npt.NDArray[np.float32]


class Values:
    """The arrays of one file, each read as what it is asked for.

    All methods raise :class:`DatasetError`, which names the file, the array and the remedy.

    Attributes:
        rows: transitions, once they are known.
    """

    def __init__(self, path: Path, arrays: Arrays) -> None:
        self.path, self.arrays = path, arrays
        self.rows = 0

    def wrong(self, text: str) -> DatasetError:
        return DatasetError(f"{self.path}: {text}")

    def names_of(self, top: str) -> list[str]:
        """The arrays of a field: its own, or those of a dict, by key."""
        parts = sorted(name for name in self.arrays if name.startswith(f"{top}/"))
        if parts and top in self.arrays:
            raise self.wrong(f"{top} and {parts[0]} are both there; keep one")
        return parts or [top] * (top in self.arrays)

    def shaped(self, name: str) -> npt.NDArray[Any]:
        array = self.arrays[name]
        if not array.ndim:
            raise self.wrong(f"{name} is a single value; give it one row per transition")
        return array

    def numbers(self, name: str, kinds: str = "biuf") -> npt.NDArray[Any]:
        """An array of the right kind of dtype, without NaN and infinity, as it is."""
        array = self.arrays[name]
        if array.dtype.kind not in kinds:
            wanted = "real numbers" if "f" in kinds else "whole numbers of an integer dtype"
            raise self.wrong(f"{name} has dtype {array.dtype}; it must hold {wanted}; {SEPARATE}")
        if array.dtype.kind == "f":
            bad = ~(np.abs(array) <= np.finfo(np.float32).max)
            if bad.any():
                value = array[bad].flat[0]
                what = value if not np.isfinite(value) else f"{value:.3g}, too large for float32,"
                raise self.wrong(
                    f"{self.at(name, bad)} is {what}{others(bad)}; "
                    "remove or repair those transitions"
                )
        return array

    def at(self, name: str, bad: npt.NDArray[np.bool_]) -> str:
        """The first place where something is wrong: "actions[17, 2]"."""
        index = np.unravel_index(int(np.argmax(bad)), bad.shape)
        return f"{name}[{', '.join(str(int(i)) for i in index)}]" if index else name

    def column(self, name: str) -> Floats:
        """One number per row; ``[N, 1]`` will do."""
        array = self.numbers(name)
        if array.size != self.rows:
            raise self.wrong(f"{name} has shape {array.shape}; give it one number per transition")
        return array.reshape(self.rows).astype(np.float32)

    def matrix(self, name: str) -> Floats:
        """``[N, ...]`` as ``[N, width]``."""
        matrix = self.numbers(name).reshape(self.rows, -1).astype(np.float32)
        if not matrix.shape[1]:
            raise self.wrong(f"{name} has shape {self.arrays[name].shape}; its rows hold nothing")
        return matrix

    def flags(self, name: str) -> Floats:
        flags = self.column(name)
        bad = (flags != 0) & (flags != 1)
        if bad.any():
            raise self.wrong(
                f"{self.at(name, bad)} is {flags[bad][0]:g}; flags are 0 or 1, one per transition"
            )
        return flags

    def whole(self, name: str) -> npt.NDArray[np.int64]:
        array = self.numbers(name).astype(np.float64)
        bad = array != np.floor(array)
        if bad.any():
            raise self.wrong(f"{self.at(name, bad)} is {array[bad][0]:g}; it must be whole")
        if array.size and np.abs(array).max() >= LARGEST_INTEGER:
            raise self.wrong(f"{name} holds numbers of {LARGEST_INTEGER:,} or more; number from 0")
        return array.astype(np.int64)

    def scalar(self, name: str) -> float:
        array = self.numbers(name)
        if array.size != 1:
            raise self.wrong(f"{name} has shape {array.shape}; it must be one number")
        return float(array.reshape(()))

    def text(self, name: str) -> str:
        if name not in self.arrays:
            return ""
        array = self.arrays[name]
        if array.dtype.kind not in "US" or array.size != 1:
            raise self.wrong(f"{name} has dtype {array.dtype}, shape {array.shape}; give one text")
        return self.texts(name)[0]

    def texts(self, name: str) -> list[str]:
        array = self.arrays[name]
        if array.dtype.kind not in "US":
            raise self.wrong(f"{name} has dtype {array.dtype}; it must hold texts")
        try:
            plain = [t.decode() if isinstance(t, bytes) else str(t) for t in array.ravel().tolist()]
        except UnicodeDecodeError:
            raise self.wrong(f"{name} is not UTF-8; save it as text") from None
        for item in plain:
            if not item.strip() or not item.isprintable() or len(item) > 100:
                raise self.wrong(f"{name} holds {item[:40]!r}; give 1 to 100 printable characters")
        return plain

    def count(self, name: str, unit: str) -> int:
        number = self.scalar(name)
        if number != int(number) or number < 1:
            raise self.wrong(f"{name} is {number:g}; it is a whole number of {unit}, from 1 on")
        return int(number)


def others(bad: npt.NDArray[np.bool_]) -> str:
    """How many places beside the first are wrong, " (and 3 more)"."""
    return f" (and {int(bad.sum()) - 1:,} more)" if bad.sum() > 1 else ""
