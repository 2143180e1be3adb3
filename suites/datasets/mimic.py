"""A user's own extract of MIMIC-III (or any table of stays) as a file that can be trained on.

``python -m suites.datasets mimic EXTRACT.csv --bins 5 --to FILE.npz``: a row per stay and step, the
amounts of intravenous fluid and vasopressor cut into n x n bins, all else that is numeric as the
observation. ``docs/sepsis.md`` tells the columns. No patient data comes with this package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from baselines.config import did_you_mean
from suites.datasets.file import held_out_episodes
from suites.datasets.store import DatasetError

if TYPE_CHECKING:
    import pandas as pd

STAY, STEP, IV, VASO = "stay", "step", "iv_fluid", "vasopressor"
REWARD, SURVIVED = "reward", "survived"  # one of them
ROLES = (STAY, STEP, IV, VASO, REWARD, SURVIVED)
SURVIVAL_REWARD = 100.0  # at the last step of a stay that ended alive; 0 for the others
FEWEST_BINS, MOST_BINS = 2, 20
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Extract:
    """A table of stays as arrays of ``docs/own-data.md``, and what was done to it.

    Attributes:
        arrays: to be saved.
        stays: how many.
        features: names of the observation's columns.
        edges: by treatment, the largest amount of each bin from 1 on but the last, ``[n - 2]``.
    """

    arrays: dict[str, npt.NDArray[Any]]
    stays: int
    features: list[str]
    edges: dict[str, Floats]


def convert(path: Path, bins: int, names: Mapping[str, str] | None = None) -> Extract:
    """Reads a table and cuts its treatments into bins.

    Args:
        path: CSV with a header.
        bins: n, levels of each treatment; 0 is none, the others hold equally many of the non-zero
            amounts of the stays to be trained on.
        names: the table's own names by ``ROLES``, where they differ.

    Raises:
        DatasetError: what is wrong, in one sentence with the remedy.
    """
    if not FEWEST_BINS <= bins <= MOST_BINS:
        raise DatasetError(f"--bins must be from {FEWEST_BINS} to {MOST_BINS}, not {bins}")
    columns = {role: role for role in ROLES} | dict(names or {})
    table = _Table(path, columns)
    frame = table.frame
    table.need((STAY, STEP, IV, VASO))
    outcome = table.outcome()
    features = [c for c in frame.columns if c not in columns.values()]
    if not features:
        raise DatasetError(f"{path}: has no feature columns; add what the agent is to see")
    seen = np.column_stack([table.numbers(name) for name in features])
    order, starts = table.stays()
    last = np.zeros(len(frame), bool)
    last[np.append(starts[1:], len(frame)) - 1] = True
    trained = np.repeat(~held_out_episodes(len(starts)), np.diff(np.append(starts, len(frame))))
    actions, edges = [], {}
    for role in (IV, VASO):
        amounts = table.amounts(role)[order]
        edges[role] = _edges(path, columns[role], amounts[trained], bins)
        actions.append(np.where(amounts > 0, 1 + np.searchsorted(edges[role], amounts), 0))
    arrays = {
        "observations": seen[order].astype(np.float32),
        "actions": np.stack(actions, 1),
        "action_high": np.array([bins - 1, bins - 1]),
        "rewards": table.rewards(outcome, order, starts, last),
        "terminations": last.astype(np.float32),
        "truncations": np.zeros(len(frame), np.float32),
        "name": np.array(path.stem[:100]),
        "metadata/features": np.array(features),
        **{f"metadata/{role}_edges": edges[role] for role in (IV, VASO)},
    }
    return Extract(arrays, len(starts), features, edges)


def save(extract: Extract, to: Path) -> None:
    """Writes the file, which ``python -m suites.run --tasks FILE`` takes.

    Raises:
        DatasetError: if it does not end in .npz or cannot be written.
    """
    if to.suffix.lower() != ".npz":
        raise DatasetError(f"{to}: give a name that ends in .npz")
    try:
        np.savez_compressed(to, **extract.arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise DatasetError(f"{to}: cannot be written ({error.strerror})") from None


def describe(extract: Extract) -> str:
    """What was made, in a few lines."""
    actions = extract.arrays["actions"]
    lines = [
        f"{len(actions):,} steps of {extract.stays:,} stays, {len(extract.features)} features",
        f"mean reward of a stay: {extract.arrays['rewards'].sum() / extract.stays:.3g}",
    ]
    for k, (role, edges) in enumerate(extract.edges.items()):
        counts = np.bincount(actions[:, k], minlength=len(edges) + 2)
        shown = ", ".join(f"{edge:.4g}" for edge in edges) or "none"
        lines.append(f"{role}: steps per bin {' '.join(map(str, counts))}; edges {shown}")
    return "\n".join(lines)


def read_names(settings: Sequence[str]) -> dict[str, str]:
    """ "role=column" pairs.

    Raises:
        DatasetError: if one is no such pair, or there is no such role.
    """
    names = {}
    for setting in settings:
        role, equals, column = setting.partition("=")
        if not equals or not column:
            raise DatasetError(f'--column takes role=column, not "{setting}"')
        if role not in ROLES:
            raise DatasetError(f"--column {setting}: the roles are {', '.join(ROLES)}")
        names[role] = column
    return names


def _edges(path: Path, name: str, amounts: Floats, bins: int) -> Floats:
    """Quantiles of the non-zero amounts: the largest of bins 1 to n - 2."""
    given = amounts[amounts > 0]
    if not len(given):
        raise DatasetError(
            f"{path}: {name} is 0 in all stays to be trained on; there is no treatment to learn"
        )
    shares = np.arange(1, bins - 1) / (bins - 1)
    edges = np.quantile(given, shares, method="inverted_cdf")
    filled = np.bincount(np.searchsorted(edges, given), minlength=bins - 1)
    if (filled == 0).any():
        raise DatasetError(
            f"{path}: {name} has too few different amounts ({len(np.unique(given))}) for "
            f"{bins - 1} bins of equally many; use fewer --bins"
        )
    return np.asarray(edges, np.float64)


class _Table:
    """The user's table, and the questions asked of it."""

    def __init__(self, path: Path, columns: Mapping[str, str]) -> None:
        import pandas as pd

        self.path, self.columns = path, columns
        try:
            self.frame: pd.DataFrame = pd.read_csv(path, low_memory=False)
        except OSError as error:
            raise DatasetError(
                f"{path}: {error.strerror or error}; give the path of your extract (CSV)"
            ) from None
        except (ValueError, pd.errors.ParserError) as error:
            reason = str(error).strip().splitlines()[0]
            raise DatasetError(
                f"{path}: not a table of comma-separated values ({reason})"
            ) from None
        if not len(self.frame):
            raise DatasetError(f"{path}: has a header and no rows")

    def need(self, roles: Sequence[str]) -> None:
        for role in roles:
            name = self.columns[role]
            if name not in self.frame:
                raise DatasetError(
                    f"{self.path}: column {name} is missing"
                    f"{did_you_mean(name, list(self.frame.columns))}; add it, or name yours with "
                    f"--column {role}=NAME"
                )

    def outcome(self) -> str:
        """Which of ``reward`` and ``survived`` the table has."""
        there = [role for role in (REWARD, SURVIVED) if self.columns[role] in self.frame]
        if len(there) != 1:
            what = "both" if there else "neither of"
            raise DatasetError(
                f"{self.path}: has {what} the columns {self.columns[REWARD]} and "
                f"{self.columns[SURVIVED]}; give one of them (--column names yours)"
            )
        return there[0]

    def row(self, bad: npt.NDArray[np.bool_]) -> str:
        """Where the first of some bad rows is: line of the file and stay."""
        first = int(np.argmax(bad))
        more = f" (and {int(bad.sum()) - 1:,} more)" if bad.sum() > 1 else ""
        return f"line {first + 2}, stay {self.frame[self.columns[STAY]].iloc[first]}{more}"

    def numbers(self, name: str) -> Floats:
        import pandas as pd

        self.need((STAY,))
        values = pd.to_numeric(self.frame[name], errors="coerce").to_numpy(np.float64)
        bad = ~np.isfinite(values)
        if bad.any():
            found = self.frame[name].iloc[int(np.argmax(bad))]
            shown = "empty" if pd.isna(found) else repr(found)
            raise DatasetError(
                f"{self.path}: {name} is {shown} in {self.row(bad)}; fill it in or leave those "
                "rows or that column out"
            )
        return np.asarray(values, np.float64)

    def amounts(self, role: str) -> Floats:
        name = self.columns[role]
        values = self.numbers(name)
        if (values < 0).any():
            raise DatasetError(
                f"{self.path}: {name} is {values.min():g} in {self.row(values < 0)}; an amount is "
                "0 or more"
            )
        return values

    def stays(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """An order of rows by stay (as they first appear) and step; first rows of the stays."""
        import pandas as pd

        names = self.frame[self.columns[STAY]]
        if names.isna().any():
            line = int(np.argmax(names.isna().to_numpy())) + 2
            raise DatasetError(f"{self.path}: line {line} has no {self.columns[STAY]}; fill it in")
        ids, steps = pd.factorize(names)[0], self.numbers(self.columns[STEP])
        twice = self.frame.assign(_id=ids, _step=steps).duplicated(["_id", "_step"]).to_numpy()
        if twice.any():
            raise DatasetError(
                f"{self.path}: {self.columns[STEP]} {steps[int(np.argmax(twice))]:g} occurs twice "
                f"({self.row(twice)}); a stay has one row per step"
            )
        order = np.lexsort((steps, ids))
        starts = np.flatnonzero(np.diff(ids[order], prepend=-1))
        if len(starts) < 2:
            raise DatasetError(f"{self.path}: has one stay; a tenth of them is held out, give more")
        return order.astype(np.int64), starts.astype(np.int64)

    def rewards(
        self,
        outcome: str,
        order: npt.NDArray[np.int64],
        starts: npt.NDArray[np.int64],
        last: npt.NDArray[np.bool_],
    ) -> Floats:
        """``[N]``, as logged, or the outcome's at the last step of every stay."""
        name = self.columns[outcome]
        values = self.numbers(name)
        if outcome == REWARD:
            return np.asarray(values[order], np.float64)
        wrong = ~np.isin(values, (0.0, 1.0))
        if wrong.any():
            raise DatasetError(
                f"{self.path}: {name} is {values[wrong][0]:g} in {self.row(wrong)}; it is 1 for a "
                "stay that ended alive, 0 for death"
            )
        values = values[order]
        firsts = np.repeat(values[starts], np.diff(np.append(starts, len(values))))
        if (values != firsts).any():
            place = np.zeros(len(values), bool)
            place[order[int(np.argmax(values != firsts))]] = True
            raise DatasetError(
                f"{self.path}: {name} changes within a stay ({self.row(place)}); it is one outcome "
                "per stay, the same in all its rows"
            )
        return np.asarray(np.where(last, SURVIVAL_REWARD * values, 0.0))
