"""Made-up logs in the layout of docs/own-data.md, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def logs(episodes: int = 4, length: int = 5, **changes: Any) -> dict[str, Any]:
    """Valid arrays; a change replaces one, None takes it out, names may hold "/" through a dict."""
    rng = np.random.default_rng(0)
    rows = episodes * length
    last = np.arange(rows) % length == length - 1
    arrays: dict[str, Any] = {
        "observations": rng.standard_normal((rows, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "rewards": rng.standard_normal(rows),
        "next_observations": rng.standard_normal((rows, 3)).astype(np.float32),
        "terminations": last & (np.arange(rows) < length),  # of the first episode alone
        "truncations": last & (np.arange(rows) >= length),
    }
    going_on = np.flatnonzero(~last)
    arrays["next_observations"][going_on] = arrays["observations"][going_on + 1]
    arrays.update(changes)
    return {name: value for name, value in arrays.items() if value is not None}


def save(path: Path, arrays: dict[str, Any]) -> Path:
    """Writes NPZ or HDF5, by the path's suffix."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)
        return path
    import h5py

    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            file[name] = value
    return path
