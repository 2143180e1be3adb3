"""Local datasets: D4RL's recipes, played by shipped behaviour policies on the user's machine.

A dataset is a pure function of its :func:`identity`. It is made on first use and kept in the cache
folder. The work is divided into *shards*, runs of rows played by one policy; every episode of a
shard has its own reset seed and its own noise, so the bytes do not depend on the number of
processes.

The recipes are those of D4RL (Fu et al. 2020, arXiv:2004.07219) with other policies; what differs
is told in ``docs/local-data.md``. Nothing here imports torch.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from results.record import normalized_score
from suites import catalog
from suites.catalog import reference
from suites.datasets import behaviour, store
from suites.datasets.behaviour import Policy
from suites.datasets.store import DatasetError

if TYPE_CHECKING:
    from suites.envs import VectorEnv

RECIPE_VERSION = 1  # raised whenever the same identity would give other bytes
ENVIRONMENTS = {name: f"{title}-v5" for name, title in catalog.ENVIRONMENTS.items()}
FIELDS = (*store.REQUIRED, "policy_ids", "policy_groups", "reward_parts")  # of every transition
# A policy that scores less is not called an expert.
EXPERT_SCORE = {"halfcheetah": 75.0, "hopper": 95.0, "walker2d": 95.0}

# D4RL's number of transitions: v2 files, its wiki's "Tasks" table; medium-replay to the next 1000.
_SIZES = {"medium-expert": 2_000_000}
_REPLAY_SIZES = {"halfcheetah": 202_000, "hopper": 402_000, "walker2d": 302_000}
_SHARD = 50_000  # transitions at most
_FEWEST_STEPS = 2_000  # of each policy in medium-replay: two episodes of the time limit
_SLOTS = 32  # environments stepped together at most
# Data collection resets with seeds from here on; smaller ones are left to training and evaluation.
_FIRST_RESET_SEED = 2**32

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Segment:
    """A part of a dataset that one policy acts.

    Attributes:
        policy: name of the checkpoint, or "random" for uniform actions.
        noise: exploration noise in units of the checkpoint's own standard deviation.
        share: relative number of transitions.
    """

    policy: str
    noise: float
    share: float


@dataclass(frozen=True)
class Shard:
    """Rows [start, stop) of the table, played by the policy ``policy_id`` of the recipe."""

    number: int
    policy_id: int
    start: int
    stop: int


def tasks() -> tuple[str, ...]:
    """All task ids, those included whose data cannot be made (see :func:`missing`)."""
    return tuple(catalog.TASKS)


def missing(task: str) -> str | None:
    """None, or one sentence that says why this task's data cannot be made.

    Raises:
        DatasetError: if there is no such task.
    """
    environment, quality = _split(task)
    if quality == "random":
        return None
    index = behaviour.index(environment)
    if index is None:
        return (
            f"{task}: no behaviour policies are shipped for {environment}; train some with "
            f"python -m suites.datasets.ppo train {environment}"
        )
    best, least = index["levels"]["expert"]["score"], EXPERT_SCORE[environment]
    if "expert" in quality and best < least:
        return (
            f"{task}: the best shipped policy, best-{best:.0f}, is no expert; an expert scores at "
            f"least {least:.0f}"
        )
    return None


def default_size(task: str) -> int:
    """D4RL's number of transitions for this task."""
    environment, quality = _split(task)
    if quality == "medium-replay":
        return _REPLAY_SIZES[environment]
    return _SIZES.get(quality, 1_000_000)


def identity(task: str, size: int | None = None, seed: int = 0) -> dict[str, Any]:
    """Everything a dataset's bytes depend on, and ``id``, a digest of all the rest.

    Equal bytes are promised on one machine; another processor may round differently, and walking
    robots amplify the last bit.

    Raises:
        DatasetError: if there is no such task, its data cannot be made, or a number is too small.
    """
    environment, quality = _split(task)
    size = default_size(task) if size is None else size
    if size < 1:
        raise DatasetError(f"{task}: size is {size}; ask for at least one transition")
    if seed < 0:
        raise DatasetError(f"{task}: seed is {seed}; it cannot be negative")
    if (why := missing(task)) is not None:
        raise DatasetError(why)
    segments = [
        {
            "policy": segment.policy,
            "sha256": _checkpoint(environment, segment.policy).get("sha256"),
            "noise": segment.noise,
            "share": segment.share,
        }
        for segment in _recipe(environment, quality, size)
    ]
    content = {
        "source": "local",
        "task": task,
        "env_id": ENVIRONMENTS[environment],
        "recipe": {
            "version": RECIPE_VERSION,
            "segments": segments,
            "shard": _SHARD,
            "slots": _SLOTS,
        },
        "seed": seed,
        "transitions": size,
        "mujoco": version("mujoco"),
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return {**content, "id": digest}


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
    try:
        store.load(folder(task, size, seed))
    except DatasetError:
        return False
    return True


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
        size: transitions, D4RL's number by default.
        seed: the dataset's seed.
        jobs: processes that make it.
        progress: called with (transitions made, transitions in all).

    Raises:
        DatasetError: if the data cannot be made; the message says why.
    """
    from filelock import FileLock

    if jobs < 1:
        raise DatasetError(f"{task}: jobs is {jobs}; ask for at least one process")
    place = folder(task, size, seed)
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_name(f"{place.name}.lock")):
        try:
            store.load(place, verify=True)
        except DatasetError:
            for abandoned in place.parent.glob(f".{place.name}.*"):
                shutil.rmtree(abandoned, ignore_errors=True)
            wanted = identity(task, size, seed)
            _make(wanted, place, jobs, progress or (lambda done, total: None))
    return place


def _split(task: str) -> tuple[str, str]:
    environment, _, quality = task.partition("-")
    if task in catalog.TASKS:
        return environment, quality
    near = difflib.get_close_matches(task, tasks(), 1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(tasks())}"
    raise DatasetError(f"{task}: no such local dataset; {hint}")


def _checkpoint(environment: str, name: str) -> dict[str, Any]:
    index = behaviour.index(environment)
    checkpoints = index["checkpoints"] if index else []
    return next((entry for entry in checkpoints if entry["name"] == name), {})


def _recipe(environment: str, quality: str, size: int) -> list[Segment]:
    """The policies of a dataset of ``size`` transitions in the order in which they act."""
    index = behaviour.index(environment)
    if quality == "random" or index is None:
        return [Segment("random", 1.0, 1.0)]

    def level(name: str) -> Segment:
        return Segment(index["levels"][name]["checkpoint"], index["levels"][name]["noise"], 1.0)

    if quality == "medium-replay":
        # Each policy acts for as many steps as the learner took until it kept the next one.
        steps = {entry["name"]: entry["steps"] for entry in index["checkpoints"]}
        last = steps[level("medium").policy]
        kept = [name for name in steps if steps[name] <= last]
        # A small dataset takes fewer of them, evenly spaced, so that each finishes episodes.
        count = min(len(kept), 1 + max(1, size // _FEWEST_STEPS))
        kept = [kept[i] for i in np.linspace(0, len(kept) - 1, count).round().astype(int)]
        spans = np.diff([steps[name] for name in kept])
        return [Segment(name, 1.0, float(span)) for name, span in zip(kept, spans, strict=False)]
    parts = {"medium": ("medium",), "expert": ("expert",), "medium-expert": ("medium", "expert")}
    return [level(name) for name in parts[quality]]


def _shards(wanted: dict[str, Any]) -> list[Shard]:
    """Divides the rows among the policies by their shares, and each one's into even shards."""
    share = np.cumsum([segment["share"] for segment in wanted["recipe"]["segments"]])
    edges = [0, *np.round(wanted["transitions"] * share / share[-1]).astype(int).tolist()]
    shards: list[Shard] = []
    for policy_id, (start, stop) in enumerate(pairwise(edges)):
        pieces = math.ceil((stop - start) / _SHARD)
        cuts = np.linspace(start, stop, pieces + 1).round().astype(int).tolist()
        for first, last in pairwise(cuts):
            shards.append(Shard(len(shards), policy_id, first, last))
    return shards


def _make(wanted: dict[str, Any], place: Path, jobs: int, progress: Progress) -> None:
    from suites.envs import make_vector

    began = time.monotonic()
    env = make_vector(wanted["env_id"], 1)
    columns = _columns(env)
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
            "reward_parts": list(env.reward_parts),
            "horizon": env.horizon,
            "versions": {name: version(name) for name in ("mujoco", "gymnasium", "numpy")},
            "seconds": round(time.monotonic() - began, 1),
            "jobs": jobs,
        }
        store.seal(temporary, place, card | _measure(store.Dataset(None, card, table)))


def _columns(env: VectorEnv) -> dict[str, list[int]]:
    observation = math.prod(env.observation_space.shape or ())
    action = math.prod(env.action_space.shape or ())
    return store.layout(
        {
            "observations": observation,
            "actions": action,
            "rewards": 1,
            "next_observations": observation,
            "terminations": 1,
            "truncations": 1,
            "policy_ids": 1,
            "reward_parts": len(env.reward_parts),
        }
    )


def _play_all(wanted: dict[str, Any], table: Path, jobs: int) -> Iterator[int]:
    """Plays every shard into the table's file; yields the rows of each as it is done."""
    shards = _shards(wanted)
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
    segment = wanted["recipe"]["segments"][shard.policy_id]
    environment, _ = _split(wanted["task"])
    policy = None
    if segment["policy"] != "random":
        file = _checkpoint(environment, segment["policy"])["file"]
        policy = Policy.load(behaviour.folder(environment) / file)
    table = np.load(path, mmap_mode="r+")
    played = play(
        wanted["env_id"],
        policy,
        noise=segment["noise"],
        rows=shard.stop - shard.start,
        entropy=(wanted["seed"], task_entropy(wanted["task"]), shard.number),
        policy_id=shard.policy_id,
    )
    table[shard.start : shard.stop] = played.table
    table.flush()
    return len(played.table)


def task_entropy(task: str) -> int:
    """A number for each task, so that tasks share no episodes."""
    return int.from_bytes(hashlib.sha256(task.encode()).digest()[:8])


def play(
    env_id: str,
    policy: Policy | None,
    *,
    noise: float,
    rows: int,
    entropy: tuple[int, ...],
    policy_id: int = 0,
) -> store.Dataset:
    """Plays whole episodes, in the order they began, until they fill ``rows`` rows.

    The last episode is cut to fit (its last row is a truncation). Episodes are numbered as they
    begin, and nothing in the result depends on which of them ended sooner, so short episodes are
    not preferred.

    Args:
        env_id: an environment whose reward parts are known.
        policy: who acts; None for uniformly random actions.
        noise: in units of the policy's own standard deviation.
        rows: transitions wanted.
        entropy: non-negative numbers from which, with the episode's number, its seeds are derived.
        policy_id: written into the rows.

    Returns:
        A dataset in memory. The reward is the float32 sum of the float32 parts, in their order:
        within float32's precision of the environment's float64 reward.
    """
    from suites.envs import make_vector

    vector = make_vector(env_id, 1)
    horizon = vector.horizon
    assert horizon is not None
    vector.close()
    # As many slots as let full-length episodes fill the rows in whole waves: few steps are wasted.
    waves = math.ceil(rows / (_SLOTS * horizon))
    slots = math.ceil(rows / (horizon * waves))
    vector = make_vector(env_id, slots)
    columns = _columns(vector)
    width = columns["reward_parts"][1]
    actions_wide = columns["actions"][1] - columns["actions"][0]

    def put(target: store.Table, field: str, values: npt.NDArray[Any]) -> None:
        start, stop = columns[field]
        target[:, start:stop] = values if values.ndim == 2 else values[:, None]

    running = np.full(slots, -1)  # number of the episode in each slot, -1 if the slot is free
    observations = np.zeros((slots, *(vector.observation_space.shape or ())))
    draws = np.zeros((slots, horizon, actions_wide), np.float32)
    buffers = np.zeros((slots, horizon, width), np.float32)
    row = np.zeros((slots, width), np.float32)
    put(row, "policy_ids", np.full(slots, policy_id))
    finished: dict[int, store.Table] = {}
    lengths = np.zeros(rows + slots, np.int64)  # by episode: rows so far
    begun, played = 0, 0  # episodes; rows of all of them

    while True:
        if played < rows:
            free = np.flatnonzero(running < 0).tolist()
            if free:
                # No more episodes than are likely needed: one begun too many is work thrown away.
                # The numbers of a table do not depend on this, nor on the slots.
                expected = min(horizon, played / max(1, len(finished)))
                coming = expected - lengths[running[running >= 0]]
                due = rows - played - float(np.maximum(coming, 0).sum())
            for slot in free:
                if due <= 0:
                    break
                due -= expected
                generator = np.random.default_rng(np.random.SeedSequence([*entropy, begun]))
                reset_seed = _FIRST_RESET_SEED + int(generator.integers(2**31))
                observations[slot] = vector.reset(slot, reset_seed)
                if policy is None:
                    draws[slot] = generator.uniform(-1.0, 1.0, draws[slot].shape)
                else:
                    draws[slot] = noise * generator.standard_normal(draws[slot].shape, np.float32)
                running[slot] = begun
                begun += 1
            active = running >= 0
        else:
            # Earlier episodes can only grow: whoever begins after the last row, or has reached it,
            # need not go on.
            last = int(np.searchsorted(np.cumsum(lengths[:begun]), rows))
            active = (running >= 0) & (running < last)
            if not active.any():
                break
        episode_step = np.where(active, lengths[running], 0)
        raw = draws[np.arange(slots), episode_step]
        actions = raw if policy is None else policy.act(observations, raw)
        step = vector.step(actions, active)

        parts = step.parts.astype(np.float32)
        put(row, "observations", observations)
        put(row, "actions", actions)
        put(row, "rewards", np.add.accumulate(parts, axis=1)[:, -1])
        put(row, "next_observations", step.observations)
        put(row, "terminations", step.terminations)
        put(row, "truncations", step.truncations)
        put(row, "reward_parts", parts)
        stepped = np.flatnonzero(active)
        buffers[stepped, episode_step[stepped]] = row[stepped]
        observations = step.observations
        lengths[running[stepped]] += 1
        played += len(stepped)
        for slot in np.flatnonzero(step.terminations | step.truncations).tolist():
            episode = int(running[slot])
            finished[episode] = buffers[slot, : lengths[episode]].copy()
            running[slot] = -1
    vector.close()

    for slot in np.flatnonzero(running >= 0).tolist():
        finished[int(running[slot])] = buffers[slot, : lengths[running[slot]]]
    table = np.concatenate([finished[episode] for episode in range(last + 1)])[:rows]
    if not table[-1, columns["terminations"][0]]:
        table[-1, columns["truncations"][0]] = 1.0
    return store.Dataset(None, {"columns": columns, "horizon": horizon}, table)


def _measure(data: store.Dataset) -> dict[str, Any]:
    """What the card says about returns: measured on complete episodes, never assumed."""
    returns, lengths = data.episodes()
    ids = data.column("policy_ids")
    policies = []
    for policy_id, segment in enumerate(data.card["recipe"]["segments"]):
        start, stop = np.searchsorted(ids, [policy_id, policy_id + 1]).tolist()
        own, _ = data.episodes(start, stop)
        policies.append(
            {
                "id": policy_id,
                "name": segment["policy"],
                "checkpoint": segment["sha256"],
                "noise": segment["noise"],
                "share": (stop - start) / len(ids),
                "episodes": len(own),
                "return_mean": float(own.mean()) if len(own) else None,
            }
        )
    minimum, maximum, source = reference(_split(data.card["task"])[0])
    if not len(returns):
        raise DatasetError(
            f"{data.card['task']}: no episode ends within {len(ids)} transitions; ask for more"
        )
    return {
        "episodes": len(returns),
        "policies": policies,
        "score_reference": source,
        "return_mean": float(returns.mean()),
        "return_std": float(returns.std()),
        "return_best": float(returns.max()),
        "return_worst": float(returns.min()),
        "return_deciles": np.quantile(returns, np.linspace(0, 1, 11)).tolist(),
        "length_mean": float(lengths.mean()),
        "score_mean": float(normalized_score(returns.mean(), minimum, maximum)),
    }
