"""Local datasets: made on the user's machine by the recipe of the task's domain.

A dataset is a pure function of its :func:`identity`. It is made on first use and kept in the cache
folder. The work is divided into *shards*, runs of rows that one process makes; every episode of a
shard has its own reset seed and its own noise, so the bytes do not depend on the number of
processes.

Who acts, and where, is the matter of :mod:`suites.datasets.recipes`. Nothing here imports torch.
"""

from __future__ import annotations

import difflib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from results.record import normalized_score
from suites import catalog
from suites.catalog import Task, reference
from suites.datasets import store
from suites.datasets.play import columns_of, part_names
from suites.datasets.recipes import Recipe, Shard, get_recipe
from suites.datasets.store import DatasetError

FIELDS = (*store.REQUIRED, "policy_ids", "policy_groups", "reward_parts")  # of every transition

Progress = Callable[[int, int], None]


def tasks() -> tuple[str, ...]:
    """The ids of all tasks with a recipe, those included that lack a file (:func:`missing`)."""
    return tuple(name for name, task in catalog.TASKS.items() if _recipe(task) is not None)


def missing(task: str) -> str | None:
    """None, or one sentence that says why this task's data cannot be made.

    Raises:
        DatasetError: if there is no such task.
    """
    found = _find(task)
    recipe = _recipe(found)
    if recipe is None:
        return f"{task}: there is no local recipe; give another source, such as --source d4rl"
    return recipe.missing(found)


def default_size(task: str) -> int:
    """Transitions of the whole dataset: D4RL's number, or what the recipe's documentation says.

    Raises:
        DatasetError: if there is no such task, or it has no recipe.
    """
    found = _find(task)
    return _recipe_of(found).default_size(found)


def identity(task: str, size: int | None = None, seed: int = 0) -> dict[str, Any]:
    """Everything a dataset's bytes depend on, and ``id``, a digest of all the rest.

    Equal bytes are promised on one machine; another processor may round differently, and walking
    robots amplify the last bit.

    Raises:
        DatasetError: if there is no such task, its data cannot be made, or a number is too small.
    """
    found = _find(task)
    if (why := missing(task)) is not None:
        raise DatasetError(why)
    recipe = _recipe_of(found)
    size = recipe.default_size(found) if size is None else size
    if size < 1:
        raise DatasetError(f"{task}: size is {size}; ask for at least one transition")
    if seed < 0:
        raise DatasetError(f"{task}: seed is {seed}; it cannot be negative")
    content = {
        "source": "local",
        "task": task,
        "env_id": found.env_id("local"),
        "recipe": recipe.describe(found, size),
        "seed": seed,
        "transitions": size,
        **{name: version(name) for name in recipe.PACKAGES},
    }
    return store.identified(content)


def cache_root() -> Path:
    """``$FASTQ_BENCH_CACHE``, or ``fastq-bench`` in the user's cache folder."""
    if chosen := os.environ.get("FASTQ_BENCH_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "fastq-bench"


def folder(task: str, size: int | None = None, seed: int = 0) -> Path:
    """Where the dataset lies in the cache; it need not exist."""
    wanted = identity(task, size, seed)
    return cache_root() / "local" / task / str(wanted["id"])[:16]


def is_cached(task: str, size: int | None = None, seed: int = 0) -> bool:
    """Whether the dataset lies in the cache; its bytes are checked only by :func:`ensure`."""
    return store.is_stored(folder(task, size, seed))


def ensure(
    task: str,
    size: int | None = None,
    seed: int = 0,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Path:
    """The folder of a dataset, which is made first if it is not in the cache or damaged there.

    Args:
        task: one of :func:`tasks`.
        size: transitions, by default those of :func:`default_size`.
        seed: the dataset's seed.
        jobs: processes that make it.
        progress: called with (transitions made, transitions in all).

    Raises:
        DatasetError: if the data cannot be made; the message says why.
    """
    if jobs < 1:
        raise DatasetError(f"{task}: jobs is {jobs}; ask for at least one process")
    wanted, place = identity(task, size, seed), folder(task, size, seed)
    tell = progress or (lambda done, total: None)
    return store.make_once(place, lambda: _make(wanted, place, jobs, tell))


def reset_seeds(data: store.Dataset) -> npt.NDArray[np.int64] | None:
    """What each episode of a local dataset was reset with, ``[E]``, in order of ``episode_starts``.

    None where they are not known: the data is not local, or its recipe does not tell them.
    """
    if data.card.get("source") != "local":
        return None
    tell = getattr(_recipe_of(_find(data.card["task"])), "reset_seeds", None)
    return None if tell is None else tell(data)


def _find(task: str) -> Task:
    if task in catalog.TASKS:
        return catalog.TASKS[task]
    near = difflib.get_close_matches(task, tasks(), 1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(tasks())}"
    raise DatasetError(f"{task}: no such local dataset; {hint}")


def _recipe(task: Task) -> Recipe | None:
    return get_recipe(task.domain) if task.env_id("local") is not None else None


def _recipe_of(task: Task) -> Recipe:
    """The recipe of a task that must have one."""
    recipe = _recipe(task)
    if recipe is None:
        raise DatasetError(str(missing(task.id)))
    return recipe


def _make(wanted: dict[str, Any], place: Path, jobs: int, progress: Progress) -> None:
    from suites.envs import make_vector
    from suites.envs.mujoco import measure_names

    began = time.monotonic()
    env = make_vector(wanted["env_id"], 1)
    columns = columns_of(env, wanted["recipe"].get("action_log_probs", False))
    env.close()

    rows = wanted["transitions"]
    with store.draft(place, rows, max(stop for _, stop in columns.values())) as temporary:
        done = 0
        for made in _play_all(wanted, temporary / store.TABLE_FILE, jobs):
            done += made
            progress(done, rows)
        table = np.load(temporary / store.TABLE_FILE, mmap_mode="r")
        card = {
            **wanted,
            "columns": columns,
            "observation_shape": list(env.observation_space.shape or ()),
            "action_shape": list(env.action_space.shape or ()),
            "reward_parts": list(part_names(env)),
            "horizon": env.horizon,
            # Of how many rows an observation is made, where that is more than one.
            **{name: getattr(env, name) for name in ("history", "static") if hasattr(env, name)},
            **({"measure_names": list(names)} if (names := measure_names(env)) else {}),
            "versions": {name: version(name) for name in ("mujoco", "gymnasium", "numpy")},
            "seconds": round(time.monotonic() - began, 1),
            "jobs": jobs,
        }
        data = store.Dataset(temporary, card, table)
        logged = _recipe_of(_find(wanted["task"])).logged(data)
        if logged is not None:
            np.save(temporary / store.EPISODES_FILE, logged)
        store.seal(temporary, place, card | _measure(data))


def _play_all(wanted: dict[str, Any], table: Path, jobs: int) -> Iterator[int]:
    """Plays every shard into the table's file; yields the rows of each as it is done."""
    shards = _recipe_of(_find(wanted["task"])).shards(wanted)
    if jobs == 1:
        for shard in shards:
            yield _play_into(table, wanted, shard)
        return
    # Spawned, not forked: the caller may have threads, and torch, in its process.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(shards)), mp_context=context) as pool:
        for future in as_completed([pool.submit(_play_into, table, wanted, s) for s in shards]):
            yield future.result()


def _play_into(path: Path, wanted: dict[str, Any], shard: Shard) -> int:
    played = _recipe_of(_find(wanted["task"])).play(wanted, shard)
    table = np.load(path, mmap_mode="r+")
    table[shard.start : shard.stop] = played.table
    table.flush()
    return len(played.table)


def _measure(data: store.Dataset) -> dict[str, Any]:
    """What the card says about returns: measured on complete episodes, never assumed."""
    returns, lengths = data.episodes()
    ids = data.column("policy_ids")
    owners = ids[data.last_rows()]  # one policy acts a whole episode
    policies = []
    for policy_id, segment in enumerate(data.card["recipe"]["segments"]):
        own = returns[owners == policy_id]
        policies.append(
            {
                "id": policy_id,
                "name": segment["policy"],
                "checkpoint": segment["sha256"],
                "noise": segment["noise"],
                "share": int((ids == policy_id).sum()) / len(ids),
                "episodes": len(own),
                "return_mean": float(own.mean()) if len(own) else None,
            }
        )
    measures = {name: float(np.mean(v)) for name, v in data.episode_measures().items()}
    minimum, maximum, source = reference(_find(data.card["task"]).environment)
    if not len(returns):
        raise DatasetError(
            f"{data.card['task']}: no episode ends within {len(ids)} transitions; ask for more"
        )
    return {
        **store.measure(returns, lengths),
        **({"measures": measures} if measures else {}),
        **_held_out(data),
        "policies": policies,
        "score_reference": source,
        "score_mean": float(normalized_score(returns.mean(), minimum, maximum)),
    }


def _held_out(data: store.Dataset) -> dict[str, int]:
    """How many rows, the last ones, are no part of training: whole episodes, the recipe's share."""
    share = data.card["recipe"].get("held_out", 0.0)
    starts = data.episode_starts
    count = min(round(share * len(starts)), len(starts) - 1)
    return {"held_out_transitions": len(data.table) - int(starts[-count])} if count else {}
