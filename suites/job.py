"""What passes between the planner and the workers: self-contained jobs, as plain JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Job:
    """One dataset to have ready, or one stack of cells to train.

    Attributes:
        kind: "data" (make the dataset, write the behaviour record) or "train".
        name: for people, for example "td3_bc on hopper-medium, seed 0".
        out: output folder.
        task: id, title, environment, quality, env_id, version, source, reference_min,
            reference_max, reference_source.
        data: size and seed to ask the source for.
        cell: the identity shared by the stack's cells, without the seed.
        agent: label, name, version, config, preset, track, configs_tried, reference.
        phases: training phases as plain dicts.
        budget: name, shrunk, meaningless and the numbers.
        seeds: the stack's seeds, in order.
        paths: the cells' folders, relative to ``out``, in the same order.
        plugins: plugin files to load first.
        device: torch device.
        precision: "float32" or "float64".
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
    device: str = "cpu"
    precision: Literal["float32", "float64"] = "float32"

    @property
    def updates(self) -> int:
        """Gradient updates per seed."""
        return sum(int(phase["updates"]) for phase in self.phases)
