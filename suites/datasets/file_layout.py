"""What a user's own arrays must be, and the fields of a dataset that they become.

The layout is told in ``docs/own-data.md``. Every check is made before any compute, and every
message names the file, the array, the index and the remedy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from baselines.config import did_you_mean
from suites import spaces
from suites.datasets.file_read import Arrays
from suites.datasets.file_simulator import Simulator, limits
from suites.datasets.file_values import LARGEST_INTEGER, Floats, Values, others

ENDS = ("truncations", "timeouts", "episode_ends")  # one of them says where episodes are cut
PER_ROW = (
    *("observations", "actions", "rewards", "terminations", *ENDS),
    *("next_observations", "policy_ids", "reward_parts", "action_log_probs"),
)
FACTS = (
    *("reward_part_names", "action_low", "action_high", "env_id", "horizon", "name"),
    *("reference_min", "reference_max", "history"),
)
IGNORED = ("infos/", "metadata/")  # what other tools put beside the transitions
PARTS_TOLERANCE = 1e-4  # of the sum of the parts' sizes, since float32 rounds each of them
ENV_ID = re.compile(r"([\w.-]+/)?[\w.-]+-v\d+")  # a module's name before it would run that module


@dataclass(frozen=True)
class Content:
    """A user's data, checked.

    Attributes:
        fields: ``[N, ...]`` float32 by field of the store, rows in the file's order.
        parts: of the observations: (name, width) in the order in which they lie side by side; one
            part "" for observations that are one array.
        action_space: as plain JSON.
        reward_parts: names.
        env_id: gymnasium's, or None.
        horizon: the time limit that the file tells, or None.
        reference: returns that score 0 and 100, or None.
        title: a name for people, or "".
        history: days of the windows that agents see, where a row is a day; 0 where it is not.
        notes: sentences on what was not as it should be and was mended.
    """

    fields: dict[str, Floats]
    parts: list[tuple[str, int]]
    action_space: spaces.Plain
    reward_parts: list[str] = field(default_factory=list)
    env_id: str | None = None
    horizon: int | None = None
    reference: tuple[float, float] | None = None
    title: str = ""
    history: int = 0
    notes: list[str] = field(default_factory=list)


def check(path: Path, arrays: Arrays) -> Content:
    """A file's arrays as the fields of a dataset.

    Raises:
        DatasetError: one sentence that names the file, the array, the index and the remedy.
    """
    return _Check(path, arrays).content()


class _Check(Values):
    """The arrays of one file on their way to a dataset's fields; a method per question."""

    def __init__(self, path: Path, arrays: Arrays) -> None:
        super().__init__(path, arrays)
        self.notes: list[str] = []
        self.env: Any = None  # the simulator's spaces, if the file names one

    def content(self) -> Content:
        self.check_names()
        env_id = self.env_id()
        rewards = self.column("rewards")
        terminations, truncations = self.ends()
        observations, parts = self.observations("observations")
        fields = {
            "observations": observations,
            "actions": self.matrix("actions"),
            "rewards": rewards,
            "next_observations": self.next_observations(
                observations, parts, terminations, truncations
            ),
            "terminations": terminations,
            "truncations": truncations,
        }
        action_space = self.action_space(fields["actions"])
        self.note_gaps(fields)
        self.note_short_episodes(fields)
        names = self.add_reward_parts(fields)
        self.add_policy_ids(fields)
        self.add_log_probs(fields, action_space)
        fields = self.without_successor(fields)
        return Content(
            fields=fields,
            parts=parts,
            action_space=action_space,
            reward_parts=names,
            env_id=env_id,
            horizon=self.horizon(),
            reference=self.reference(),
            title=self.text("name"),
            history=self.history(parts),
            notes=self.notes,
        )

    # Names and shapes ------------------------------------------------------------------------

    def check_names(self) -> None:
        known = (*PER_ROW, *FACTS)
        for name in self.arrays:
            top = name.partition("/")[0]
            if name.startswith(IGNORED):
                continue
            nested = "/" in name and top in ("observations", "next_observations")
            if name not in known and not nested:
                raise self.wrong(
                    f"{name} is no array of the layout{did_you_mean(name, known)}; rename it, or "
                    'put it under "infos/", which is ignored'
                )
        ignored = [name for name in self.arrays if name.startswith(IGNORED)]
        if ignored:
            self.notes.append(f"ignored: {', '.join(sorted(ignored))}")
        for top in ("observations", "actions", "rewards", "terminations"):
            if not self.names_of(top):
                raise self.wrong(
                    f"{top} is missing; add it (there are {', '.join(sorted(self.arrays))})"
                )
        given = [name for name in ENDS if name in self.arrays]
        if len(given) != 1:
            found = f"{' and '.join(given)} are both there" if given else "truncations is missing"
            raise self.wrong(
                f"{found}; say by exactly one of {', '.join(ENDS)} where episodes end other than "
                "by termination (zeros, if they never do)"
            )
        self.rows = len(self.shaped(self.names_of("observations")[0]))
        if not self.rows:
            raise self.wrong("observations is empty; save at least one episode")
        for name in sorted(self.arrays):
            if name in PER_ROW or ("/" in name and not name.startswith(IGNORED)):
                rows = len(self.shaped(name))
                if rows != self.rows:
                    raise self.wrong(
                        f"{name} has {rows:,} rows and {self.names_of('observations')[0]} has "
                        f"{self.rows:,}; give every array one row per transition"
                    )

    # Fields ----------------------------------------------------------------------------------

    def ends(self) -> tuple[Floats, Floats]:
        """Terminations and truncations; the last row ends an episode, one way or another."""
        terminations = self.flags("terminations")
        (name,) = (name for name in ENDS if name in self.arrays)
        truncations = self.flags(name)
        if name == "episode_ends":
            bad = (terminations > 0) & (truncations == 0)
            if bad.any():
                raise self.wrong(
                    f"{self.at(name, bad)} is 0 where terminations is 1; an episode ends where it "
                    "terminates"
                )
            truncations = truncations * (1 - terminations)
        if not terminations[-1] and not truncations[-1]:
            truncations[-1] = 1.0
            whole = terminations.sum() + truncations.sum() == 1
            self.notes.append(
                f"no row ends an episode: all {self.rows:,} are taken as one, truncated at the "
                f"last; mark the ends of others in {name}"
                if whole
                else f"the last row, {self.rows - 1:,}, ends no episode; taken as truncated there"
            )
        both = int(((terminations > 0) & (truncations > 0)).sum())
        if both:
            self.notes.append(f"{both:,} rows both terminate and truncate; termination counts")
        return terminations, truncations

    def observations(self, top: str) -> tuple[Floats, list[tuple[str, int]]]:
        """A field of observations as ``[N, O]``, and its parts in their order.

        A dict lies side by side in the order of its keys: alphabetical, or the simulator's own.
        """
        names = self.names_of(top)
        if self.env is not None and names[0] != top:
            shown = [f"{top}/{key}" for key in self.env.observation_keys]
            if sorted(shown) != names:
                raise self.wrong(
                    f"{top} has the keys {', '.join(n.partition('/')[2] for n in names)} and "
                    f"{self.env.env_id} shows {', '.join(self.env.observation_keys) or 'one array'}"
                    "; give the same"
                )
            names = shown
        matrices = [self.matrix(name) for name in names]
        parts = [
            (name.partition("/")[2], matrix.shape[1])
            for name, matrix in zip(names, matrices, strict=True)
        ]
        whole = np.concatenate(matrices, axis=1) if len(matrices) > 1 else matrices[0]
        if self.env is not None and whole.shape[1] != self.env.observation_size:
            raise self.wrong(
                f"{top} has {whole.shape[1]} numbers per row and {self.env.env_id} shows "
                f"{self.env.observation_size}; correct env_id, or leave it out"
            )
        return whole, parts

    def next_observations(
        self, observations: Floats, parts: list[tuple[str, int]], terminated: Floats, cut: Floats
    ) -> Floats:
        """The logged ones, or the next row's; a terminated row shows its own, which nobody uses."""
        if self.names_of("next_observations"):
            found, found_parts = self.observations("next_observations")
            if found_parts != parts:
                raise self.wrong(
                    f"next_observations are {_parts(found_parts)} and observations are "
                    f"{_parts(parts)}; they must be alike"
                )
            return found
        derived = np.concatenate((observations[1:], observations[-1:]))
        ended = (terminated > 0) | (cut > 0)
        derived[ended] = observations[ended]
        return derived

    def note_gaps(self, fields: dict[str, Floats]) -> None:
        """Says where logged next observations show that an episode's end is missing."""
        ended = (fields["terminations"] > 0) | (fields["truncations"] > 0)
        inside = np.flatnonzero(~ended[:-1])
        follows = np.isclose(
            fields["next_observations"][inside], fields["observations"][inside + 1], 1e-3, 1e-4
        )
        gaps = inside[~follows.all(1)]
        if len(gaps):
            self.notes.append(
                f"{len(gaps):,} rows that end no episode (the first: {gaps[0]:,}) have next "
                "observations other than the next row's observations; mark the ends of episodes, "
                "and keep rows in the order of time"
            )

    def note_short_episodes(self, fields: dict[str, Floats]) -> None:
        """Says how many episodes were cut before the limit that evaluation plays to."""
        horizon, terminated = self.horizon(), fields["terminations"] > 0
        if self.env is None or horizon is None:
            return
        stops = np.flatnonzero(terminated | (fields["truncations"] > 0)) + 1
        short = ~terminated[stops - 1] & (np.diff(stops, prepend=0) < horizon)
        if short.any():
            self.notes.append(
                f"{int(short.sum()):,} of {len(stops):,} episodes were cut before the "
                f"environment's limit of {horizon:,} steps; the behaviour's mean return has them "
                "as they are"
            )

    def without_successor(self, fields: dict[str, Floats]) -> dict[str, Floats]:
        """Leaves out truncated rows whose next observation was not logged.

        The row before, if it is of the same episode, becomes the truncated one.
        """
        if self.names_of("next_observations"):
            return fields
        terminated, cut = fields["terminations"] > 0, fields["truncations"] > 0
        lost = cut & ~terminated
        if not lost.any():
            return fields
        before = np.flatnonzero(lost) - 1
        before = before[(before >= 0) & ~(terminated | cut)[before]]
        fields["truncations"][before] = 1.0
        kept = {name: values[~lost] for name, values in fields.items()}
        if not len(kept["rewards"]):
            raise self.wrong(
                "no transition is left, since every row is truncated and none has a next "
                "observation; add next_observations"
            )
        self.notes.append(
            f"without next_observations, {int(lost.sum()):,} truncated rows have no successor and "
            "are left out; the rows before them end their episodes"
        )
        return kept

    def action_space(self, actions: Floats) -> spaces.Plain:
        """Checks actions against the space that bounds, simulator or the actions themselves tell.

        Floating-point actions make a Box, integers a Discrete or MultiDiscrete space.
        """
        raw = self.arrays["actions"]
        if self.env is not None:
            return self.simulated_actions(actions, raw)
        low, high = (self.bounds(name, actions.shape[1]) for name in ("action_low", "action_high"))
        if raw.dtype.kind != "f":
            return self.integer_actions(actions, raw, low, high)
        if (low is None) != (high is None):
            raise self.wrong("action_low and action_high go together; give both or neither")
        if low is None or high is None:
            low, high = actions.min(0), actions.max(0)
            if low.min() >= -1 and high.max() <= 1:
                low, high = -np.ones_like(low), np.ones_like(high)
            flat = low == high  # a width to divide by
            low, high = np.where(flat, low - 1, low), np.where(flat, high + 1, high)
            self.notes.append(
                "without action_low and action_high, actions are taken to lie in "
                + _interval(low, high)
            )
        bad = low >= high
        if bad.any():
            raise self.wrong(
                f"{self.at('action_low', bad)} is {low[bad][0]:g}, not below action_high, "
                f"{high[bad][0]:g}; correct them"
            )
        self.check_inside(actions, low, high, "action_low", "action_high")
        return spaces.box(low, high)

    def bounds(self, name: str, width: int) -> Floats | None:
        if name not in self.arrays:
            return None
        bounds = self.numbers(name).astype(np.float32).ravel()
        if bounds.size not in (1, width):
            raise self.wrong(f"{name} has {bounds.size} values and actions have {width}; give each")
        return np.broadcast_to(bounds, (width,)).copy()

    def check_inside(
        self, actions: Floats, low: Floats, high: Floats, low_name: str, high_name: str
    ) -> None:
        for bad, bound, name, how in (
            (actions < low, low, low_name, "below"),
            (actions > high, high, high_name, "above"),
        ):
            if bad.any():
                row, column = (int(i) for i in np.argwhere(bad)[0])
                raise self.wrong(
                    f"actions[{row}, {column}] is {actions[row, column]:.9g}, {how} {name}, "
                    f"{bound[column]:.9g}{others(bad)}; clip the actions as "
                    "they were executed, or widen the bounds"
                )

    def integer_actions(
        self, actions: Floats, raw: npt.NDArray[Any], low: Floats | None, high: Floats | None
    ) -> spaces.Plain:
        self.whole("actions")
        if low is not None and low.any():
            raise self.wrong("action_low of integer actions is 0; number the actions from 0")
        largest = actions.max(0) if high is None else high
        if (largest != np.floor(largest)).any() or largest.max() >= LARGEST_INTEGER:
            raise self.wrong("action_high of integer actions is the largest integer; correct it")
        self.check_inside(actions, np.zeros_like(largest), largest, "0", "action_high")
        counts = (largest + 1).astype(int).tolist()
        if high is None:
            self.notes.append(f"without action_high, there are {_listed(counts)} actions")
        if raw.ndim == 1 or raw.shape[1:] == (1,):
            return {"kind": "Discrete", "n": counts[0], "start": 0}
        return {"kind": "MultiDiscrete", "nvec": counts, "start": [0] * len(counts)}

    def simulated_actions(self, actions: Floats, raw: npt.NDArray[Any]) -> spaces.Plain:
        space = self.env.action_space
        plain, name = spaces.to_plain(space), self.env.env_id
        width = int(np.prod(space.shape, dtype=int))
        if actions.shape[1] != width or spaces.is_integer(space) != (raw.dtype.kind != "f"):
            raise self.wrong(
                f"actions have dtype {raw.dtype} and {actions.shape[1]} numbers per row and {name} "
                f"takes {space}; correct env_id, or leave it out"
            )
        for given in ("action_low", "action_high"):
            bounds = self.bounds(given, width)
            limit = limits(plain)[given == "action_high"]
            if bounds is not None and not np.allclose(bounds, limit):
                raise self.wrong(f"{given} is {bounds} and that of {name} {limit}; leave it out")
        low, high = limits(plain)
        self.check_inside(actions, low, high, f"the least that {name} takes", f"what {name} takes")
        if spaces.is_integer(space):
            self.whole("actions")
        return plain

    def add_reward_parts(self, fields: dict[str, Floats]) -> list[str]:
        """Adds the parts of the reward ``[N, C]``, which sum to it; returns their names."""
        if "reward_parts" not in self.arrays:
            if "reward_part_names" in self.arrays:
                raise self.wrong("reward_part_names is there without reward_parts; add them")
            return []
        parts = self.matrix("reward_parts")
        total = parts.sum(1, dtype=np.float64)
        size = np.abs(parts).sum(1, dtype=np.float64)
        bad = np.abs(total - fields["rewards"]) > PARTS_TOLERANCE * (1 + size)
        if bad.any():
            row = int(np.argmax(bad))
            raise self.wrong(
                f"reward_parts[{row}] sum to {total[row]:.6g} and rewards[{row}] is "
                f"{fields['rewards'][row]:.6g} (and {int(bad.sum()) - 1:,} more rows); give parts "
                "that sum to the reward"
            )
        fields["reward_parts"] = parts
        if "reward_part_names" not in self.arrays:
            return [f"part {i}" for i in range(parts.shape[1])]
        names = self.texts("reward_part_names")
        if len(names) != parts.shape[1] or len(set(names)) != len(names):
            raise self.wrong(
                f"reward_part_names has {len(set(names))} names and reward_parts has "
                f"{parts.shape[1]} columns; give each its own"
            )
        return names

    def add_policy_ids(self, fields: dict[str, Floats]) -> None:
        if "policy_ids" not in self.arrays:
            return
        ids = self.whole("policy_ids")
        if ids.size != self.rows:
            raise self.wrong(f"policy_ids has shape {ids.shape}; give one number per transition")
        if (ids < 0).any():
            raise self.wrong(f"{self.at('policy_ids', ids < 0)} is {ids.min()}; number from 0")
        unused = np.setdiff1d(np.arange(min(ids.max() + 1, self.rows + 1)), ids)
        if unused.size:
            raise self.wrong(
                f"policy_ids go up to {ids.max()} and {unused[0]} does not occur; number the "
                "policies from 0 without gaps"
            )
        fields["policy_ids"] = ids.reshape(self.rows).astype(np.float32)

    def add_log_probs(self, fields: dict[str, Floats], action_space: Mapping[str, Any]) -> None:
        if "action_log_probs" not in self.arrays:
            return
        found = self.column("action_log_probs")
        bad = found > 1e-6
        if action_space["kind"] != "Box" and bad.any():
            raise self.wrong(
                f"{self.at('action_log_probs', bad)} is {found[bad][0]:g}; the logarithm of a "
                "probability is at most 0"
            )
        fields["action_log_probs"] = found

    # Facts -----------------------------------------------------------------------------------

    def env_id(self) -> str | None:
        name = self.text("env_id")
        if not name:
            return None
        if not ENV_ID.fullmatch(name):
            raise self.wrong(f'env_id is {name!r}; give a gymnasium id such as "Hopper-v5"')
        self.env = Simulator(self.path, name)
        return name

    def horizon(self) -> int | None:
        if "horizon" not in self.arrays:
            return None if self.env is None else self.env.horizon
        horizon = self.count("horizon", "steps")
        if self.env is not None and self.env.horizon != horizon:
            raise self.wrong(
                f"horizon is {horizon} and that of {self.env.env_id} is {self.env.horizon}; "
                "leave it out"
            )
        return horizon

    def history(self, parts: list[tuple[str, int]]) -> int:
        """Days of a window, if rows are days; observations then are static and temporal."""
        shown = 0 if self.env is None else self.env.history
        if "history" not in self.arrays:
            if shown:
                raise self.wrong(
                    f"{self.env.env_id} shows histories of {shown} days; add history, {shown}"
                )
            return 0
        days = self.count("history", "days")
        if self.env is not None and shown != days:
            raise self.wrong(
                f"history is {days} and {self.env.env_id} shows "
                f"{f'{shown} days' if shown else 'no histories'}; correct it, or leave env_id out"
            )
        if [name for name, _ in parts] != ["static", "temporal"]:
            raise self.wrong(
                f"history is there and observations are {_parts(parts)}; give "
                "observations/static and observations/temporal, with a row per day"
            )
        shape = self.arrays["observations/temporal"].shape
        if len(shape) > 2:
            raise self.wrong(
                f"observations/temporal has shape {shape}; give each day's own numbers, "
                "[N, features], of which windows are made"
            )
        return days

    def reference(self) -> tuple[float, float] | None:
        given = [name for name in ("reference_min", "reference_max") if name in self.arrays]
        if not given:
            return None
        if len(given) == 1:
            raise self.wrong(f"{given[0]} is there without the other; give both or neither")
        low, high = self.scalar("reference_min"), self.scalar("reference_max")
        if low >= high:
            raise self.wrong(f"reference_min is {low:g}, not below reference_max, {high:g}")
        return low, high


def _parts(parts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} [N, {width}]" if name else f"[N, {width}]" for name, width in parts)


def _interval(low: Floats, high: Floats) -> str:
    if (low == low[0]).all() and (high == high[0]).all():
        return f"[{low[0]:.4g}, {high[0]:.4g}]"
    return "[" + ", ".join(f"{a:.4g} to {b:.4g}" for a, b in zip(low, high, strict=True)) + "]"


def _listed(counts: Iterable[int]) -> str:
    return " x ".join(map(str, counts))
