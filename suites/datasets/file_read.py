"""NPZ and HDF5 files as named arrays, whatever their bytes are: arrays, or one sentence.

Nothing in a file is executed: no pickles, no links to other files. A file says what it is by its
first bytes, not by its name.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from suites.datasets.store import DatasetError

Arrays = dict[str, npt.NDArray[Any]]

NPZ_MAGIC = b"PK"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
NPY_MAGIC = b"\x93NUMPY"
PATIENCE = 30.0  # seconds for the texts of an HDF5 file
MOST_TEXTS = 10_000
SEPARATE = "save plain numbers, each array under its own name"


def read(path: Path) -> Arrays:
    """Every array of a file by its name; groups are written "group/name".

    Raises:
        DatasetError: one sentence that names the file, the array and the remedy.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(8)
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file; give the path of your data") from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from None
    if start.startswith(NPZ_MAGIC):
        return _guarded(path, "NPZ", _read_npz)
    if start == HDF5_MAGIC:
        return _guarded(path, "HDF5", _read_hdf5)
    if start.startswith(NPY_MAGIC):
        raise DatasetError(f"{path}: is a single array (NPY); save all with numpy.savez as an NPZ")
    if not start:
        raise DatasetError(f"{path}: is empty; save your data again")
    raise DatasetError(
        f"{path}: is neither NPZ nor HDF5; save your arrays with numpy.savez or h5py (pickles and "
        "other formats are not read)"
    )


def _guarded(path: Path, kind: str, reader: Any) -> Arrays:
    try:
        arrays: Arrays = reader(path)
    except DatasetError:
        raise
    except Exception as error:  # damaged bytes can raise anything in the libraries that read them
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise DatasetError(
            f"{path}: cannot be read as {kind}, it is damaged or incomplete ({reason}); save or "
            "copy it again"
        ) from None
    if not arrays:
        raise DatasetError(f"{path}: holds no arrays; see docs/own-data.md for their names")
    return arrays


def _read_npz(path: Path) -> Arrays:
    arrays: Arrays = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name == member.filename:
                raise DatasetError(
                    f"{path}: holds {name}, which is no array; save with numpy.savez"
                )
            _check_name(path, name)
            if name in arrays:
                raise DatasetError(f"{path}: holds {name} twice; save the file again")
            _check_memory(path, name, member.file_size)
            with archive.open(member) as stream:
                try:
                    arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
                except ValueError as error:
                    if "allow_pickle" in str(error):
                        raise _no_objects(path, name) from None
                    raise
                if stream.read(1):  # to the end, where the checksum is compared
                    raise DatasetError(f"{path}: {name} holds more than its shape says; save again")
            _check_dtype(path, name, arrays[name].dtype)
    return arrays


def _read_hdf5(path: Path) -> Arrays:
    import h5py

    arrays: Arrays = {}

    def visit(group: Any, prefix: str) -> None:
        for key in group:
            name = prefix + key
            _check_name(path, name)
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise DatasetError(
                    f"{path}: {name} is a link to another place; copy its data into the file"
                )
            item = group[key]
            if isinstance(item, h5py.Group):
                visit(item, f"{name}/")
            elif isinstance(item, h5py.Dataset):
                arrays[name] = _read_dataset(path, name, item)
            else:
                raise DatasetError(f"{path}: {name} is no array; {SEPARATE}")

    with h5py.File(path, "r") as file:
        visit(file, "")
    return arrays


def _read_dataset(path: Path, name: str, item: Any) -> npt.NDArray[Any]:
    import h5py

    if item.is_virtual or item.external:
        raise DatasetError(f"{path}: {name} lies in another file; copy its data into this one")
    if item.shape is None:
        raise DatasetError(f"{path}: {name} is empty; leave it out or fill it")
    if h5py.check_string_dtype(item.dtype) is not None:
        return _read_texts(path, name)
    _check_dtype(path, name, item.dtype)
    _check_memory(path, name, item.nbytes)
    return np.asarray(item[()])


def _read_texts(path: Path, name: str) -> npt.NDArray[Any]:
    """Texts of an HDF5 file, read by another process.

    The library follows the chain of blocks in which it keeps texts, and in a damaged file it may
    follow it for ever.
    """
    command = [sys.executable, "-m", "suites.datasets.file_read", str(path), name]
    try:
        found = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True)
        return np.array(json.loads(found.stdout), dtype=np.str_)
    except (subprocess.SubprocessError, ValueError):
        raise DatasetError(
            f"{path}: {name} cannot be read as text, it is damaged; save the file again"
        ) from None


def _main(path: str, name: str) -> None:
    import h5py

    with h5py.File(path, "r") as file:
        item = file[name]
        if item.size > MOST_TEXTS:
            raise ValueError(f"{item.size} texts")
        print(json.dumps(np.asarray(item.asstr()[()]).tolist()))


def _check_name(path: Path, name: str) -> None:
    if not name.isprintable():
        raise DatasetError(f"{path}: {name!r} is no name of an array; save the file again")


def _check_dtype(path: Path, name: str, dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        raise _no_objects(path, name)
    if dtype.names is not None or dtype.kind not in "biufcUS":
        raise DatasetError(f"{path}: {name} has dtype {dtype}; {SEPARATE}")


def _no_objects(path: Path, name: str) -> DatasetError:
    return DatasetError(
        f"{path}: {name} holds Python objects (dtype object), which could only be unpickled, and "
        f"nothing is unpickled here; {SEPARATE}"
    )


def _check_memory(path: Path, name: str, needed: int) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise DatasetError(
            f"{path}: {name} takes {needed / 2**30:,.0f} GiB and this machine has "
            f"{memory / 2**30:,.0f}; split the file"
        )


if __name__ == "__main__":
    _main(*sys.argv[1:])
