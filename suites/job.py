"""What passes between the planner and the workers: self-contained jobs, as plain JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from baselines.contract import Phase
from results.record import RecordError, read_record

State = Literal["done", "failed", "interrupted", "todo"]
# Ends that say nothing against the agent: the next run goes on from the last checkpoint.
INTERRUPTIONS = ("WorkerKilled", "WorkerSilent", "MemoryError", "OutOfMemoryError")
CHECKPOINT_PREFIX = "checkpoint-"
CHECKPOINT_SECONDS = 60.0


class BusyError(RuntimeError):
    """Another run is working on one of the cells."""


@dataclass(frozen=True)
class Job:
    """One dataset to have ready, or one stack of cells to train.

    Attributes:
        kind: "data" (make the dataset, write the behaviour record) or "train".
        name: for people, for example "td3_bc on hopper-medium, seed 0".
        out: output folder.
        task: id, title, environment, quality, env_id, version, source, reference_min,
            reference_max, reference_source (None where returns have no scale); of tasks that no
            catalogue has also key, spaces and horizon.
        data: size and seed to ask the source for.
        cell: the identity shared by the stack's cells, without the seed.
        agent: label, name, version, config, preset, track, configs_tried, reference, code.
        phases: training phases as plain dicts.
        budget: name, shrunk, meaningless and the numbers.
        seeds: the stack's seeds, in order.
        paths: the cells' folders, relative to ``out``, in the same order.
        plugins: plugin files to load first.
        studies: what to study once training is over, by name.
        device: torch device.
        precision: "float32" or "float64".
        checkpoint_seconds: between two checkpoints of a training job; 0 for one after every update.
        keep_checkpoints: leave them when the record is final.
        allow_inexact_resume: continue a checkpoint of another machine or version.
    """

    kind: Literal["data", "train"]
    name: str
    out: str
    task: dict[str, Any]
    data: dict[str, Any]
    cell: dict[str, Any]
    agent: dict[str, Any]
    phases: list[dict[str, Any]]
    budget: dict[str, Any]
    seeds: list[int]
    paths: list[str]
    plugins: list[str] = field(default_factory=list)
    studies: list[str] = field(default_factory=list)
    device: str = "cpu"
    precision: Literal["float32", "float64"] = "float32"
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    keep_checkpoints: bool = False
    allow_inexact_resume: bool = False

    @property
    def dataset(self) -> tuple[str, int]:
        """Which draw of which task's data it needs: (task, dataset seed)."""
        return self.task["id"], self.data["seed"]

    @property
    def key(self) -> str:
        """What the source calls the task."""
        return str(self.task.get("key", self.task["id"]))

    @property
    def updates(self) -> int:
        """Gradient updates per seed."""
        return sum(int(phase["updates"]) for phase in self.phases)

    @property
    def stages(self) -> tuple[Phase, ...]:
        """The phases themselves."""
        return tuple(Phase(**phase) for phase in self.phases)

    @property
    def env_steps(self) -> int:
        """Environment steps per seed that training collects."""
        return env_steps_due(self.stages, self.updates)

    @property
    def milestones(self) -> set[int]:
        """The numbers of the updates after which the policy is evaluated.

        Evenly spaced, the last after the last update; where a phase is online also after the last
        update of every phase, so that what each brought can be told.
        """
        total, count = self.updates, self.budget["evaluations"]
        found = {round(total * (i + 1) / count) for i in range(count)}
        if any(is_online(phase) for phase in self.stages):
            found |= set(accumulate(phase.updates for phase in self.stages))
        if self.task["env_id"] is None:
            found.add(total)  # the last losses are all that such a run has to show
        return found


def is_online(phase: Phase) -> bool:
    """Whether a phase may collect."""
    return phase.source != "dataset"


def env_steps_due(phases: Sequence[Phase], update: int) -> int:
    """Environment steps per seed that are collected before the ``update``-th update, from 1.

    The rate of a phase need not be whole: of 0.5 every second update is preceded by a step.
    """
    steps, left = 0, update
    for phase in phases:
        made = min(left, phase.updates)
        # Products such as 0.1 x 30 may lie a rounding error below the whole number.
        steps += phase.warmup_env_steps + math.floor(phase.env_steps_per_update * made + 1e-9)
        left -= made
        if not left:
            break
    return steps


def checkpoint_name(seeds: Iterable[int]) -> str:
    """The file that keeps an unfinished stack, in the folder of its first cell."""
    return f"{CHECKPOINT_PREFIX}{'+'.join(map(str, seeds))}.pt"


def unfinished_stacks(folder: Path) -> list[list[int]]:
    """The seeds of every stack whose checkpoint lies in a cell's folder."""
    names = {path.name.split(".")[0] for path in folder.glob(f"{CHECKPOINT_PREFIX}*.pt")}
    return sorted(
        [int(seed) for seed in name.removeprefix(CHECKPOINT_PREFIX).split("+")] for name in names
    )


def remove_checkpoints(folder: Path) -> None:
    """Removes all checkpoints in a cell's folder."""
    for path in folder.glob(f"{CHECKPOINT_PREFIX}*.pt"):
        path.unlink(missing_ok=True)


def read_state(folder: Path) -> State:
    """What has become of a cell; a record that cannot be read counts as not there."""
    try:
        record = read_record(folder)
    except RecordError:
        return "todo"
    if record.status == "done":
        return "done"
    interrupted = record.error is not None and record.error["type"] in INTERRUPTIONS
    return "interrupted" if interrupted else "failed"
