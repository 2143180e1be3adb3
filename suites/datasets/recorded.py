"""What sources of recorded data share: a log is converted once into a store in the cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from results.record import normalized_score, to_json, write_atomically
from suites.catalog import reference
from suites.datasets import download, store
from suites.datasets.d4rl_format import Log, log_of
from suites.datasets.local import cache_root
from suites.datasets.store import DatasetError

Progress = download.Progress

# What only the card of an exported dataset tells; all else is measured on its rows.
_TOLD = (
    *("reward_parts", "policies", "recipe", "horizon", "measure_names", "history", "static"),
    *("held_out_transitions", "every_episode"),
)


def facts_of(card: Mapping[str, Any]) -> dict[str, Any]:
    """What the new card of an exported dataset takes from its old one."""
    return {name: card[name] for name in _TOLD if name in card}


def fields_of(card: Mapping[str, Any]) -> tuple[str, ...]:
    """What every transition of an exported dataset has."""
    return (*card["columns"], *(("policy_groups",) if card.get("policies") else ()))


def place_of(identity: Mapping[str, Any]) -> Path:
    """Where a dataset lies in the cache; it need not exist."""
    name = str(identity["task"]).replace("/", "-")
    return cache_root() / str(identity["source"]) / name / str(identity["id"])[:16]


def sha256(path: Path) -> str:
    """A file's sha256, remembered as long as its size and time stay the same.

    Raises:
        DatasetError: if it was downloaded by this suite and is no longer what came.
    """
    status = path.stat()
    mark = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    memory = cache_root() / "hashes.json"
    known = remembered(memory).get(mark)
    if known is None:
        known = download.check(path)
        remember(memory, {mark: known})
    return str(known)


def remembered(path: Path) -> dict[str, Any]:
    """What was found out before; nothing, if the file is lost or damaged."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def remember(path: Path, found: Mapping[str, Any]) -> None:
    """Adds what can be found out again; if two write at once, one is forgotten."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, to_json({**remembered(path), **found}))


def check_draw(task: str, size: int | None, seed: int) -> None:
    """Recorded data exists once.

    Raises:
        DatasetError: for a second draw, or a size below 1.
    """
    if seed != 0:
        raise DatasetError(
            f"{task}: recorded data has one draw, and {seed + 1} are asked for; leave out "
            "--dataset-seeds"
        )
    if size is not None and size < 1:
        raise DatasetError(f"{task}: size is {size}; ask for at least one transition")


def ensure(identity: Mapping[str, Any], convert: Callable[[], tuple[Log, dict[str, Any]]]) -> Path:
    """The dataset's folder, converted first if it is not there or damaged.

    Args:
        identity: with "source", "task", "id" and the "transitions" asked for (None for all).
        convert: reads the log, and says what else the card should say: "horizon", and where they
            are known "environment" (of the catalogue) and those of :func:`facts_of`.

    Raises:
        DatasetError: if the log cannot be used.
    """
    task, place = str(identity["task"]), place_of(identity)

    def make() -> None:
        log, facts = convert()
        if identity["transitions"] is not None:
            log, facts = shortened(log, identity["transitions"], facts)
        card = {**identity, **facts, "seed": 0, **measure(task, log, facts)}
        card["observation_shape"] = list(log.fields["observations"].shape[1:])
        card["action_shape"] = list(log.fields["actions"].shape[1:])
        try:
            store.write(place, log.fields, card, None if log.whole else log.episodes)
        except DatasetError as error:
            raise DatasetError(f"{task}: {error}") from None

    return store.make_once(place, make)


def measure(task: str, log: Log, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a card says about returns, measured on the log's complete episodes.

    Raises:
        DatasetError: if no episode is complete.
    """
    returns, lengths = log.episodes[:, 0], log.episodes[:, 1]
    if not len(returns):
        rows = len(log.fields["rewards"])
        raise DatasetError(f"{task}: no episode ends within {rows} transitions; take more of them")
    found = store.measure(returns, lengths)
    if "environment" in facts:
        minimum, maximum, source = reference(facts["environment"])
        found["score_mean"] = float(normalized_score(returns.mean(), minimum, maximum))
        found["score_reference"] = source
    if "policies" in facts:
        ids = log.fields["policy_ids"]
        owners = ids[log.episodes[:, 2].astype(np.int64)]
        found["policies"] = [
            {
                **policy,
                "share": float(np.mean(ids == number)),
                "episodes": int((owners == number).sum()),
                "return_mean": float(returns[owners == number].mean())
                if (owners == number).any()
                else None,
            }
            for number, policy in enumerate(facts["policies"])
        ]
    return found


def shortened(log: Log, size: int, facts: dict[str, Any]) -> tuple[Log, dict[str, Any]]:
    """About ``size`` rows of whole episodes that lie evenly over the log; the last may be cut.

    The facts say how many of these rows are held out.
    """
    ends = (log.fields["terminations"] > 0) | (log.fields["truncations"] > 0)
    rows = len(ends)
    if size >= rows:
        return log, facts
    stops = np.unique(np.append(np.flatnonzero(ends) + 1, rows))
    starts = np.concatenate(([0], stops[:-1]))
    lengths = stops - starts
    wanted = max(1, round(len(stops) * size / rows))
    while True:
        chosen = np.unique(np.linspace(0, len(stops) - 1, wanted).round().astype(np.int64))
        if lengths[chosen].sum() >= size or len(chosen) == len(stops):
            break
        wanted += max(1, wanted // 20)
    index = np.concatenate([np.arange(starts[i], stops[i]) for i in chosen])[:size]
    fields = {name: values[index] for name, values in log.fields.items()}
    if not fields["terminations"][-1] > 0:
        fields["truncations"] = fields["truncations"].copy()
        fields["truncations"][-1] = 1
    if held_out := facts.get("held_out_transitions", 0):
        facts = {**facts, "held_out_transitions": int((index >= rows - held_out).sum())}
    if log.whole:
        return log_of(fields, facts["horizon"], log.card), facts
    # Of the log's episodes those whose last row is still there, and where it is now.
    where = {int(row): new for new, row in enumerate(index.tolist())}
    episodes = [
        (episode_return, length, where[int(last)])
        for episode_return, length, last in log.episodes.tolist()
        if int(last) in where
    ]
    episodes_left = np.array(episodes, np.float64).reshape(-1, 3)
    return replace(log, fields=fields, episodes=episodes_left), facts
