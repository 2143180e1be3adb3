"""Local recipes, one module for each domain of the catalogue: who acts, where, and for how long.

:mod:`suites.datasets.local` knows no domain: it asks the recipe of a task's domain, and keeps the
cache, the shards and the card.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from suites.catalog import Task
    from suites.datasets.store import Dataset

_MODULES = ("bedside", "locomotion", "maze2d", "players", "pointmass", "regions", "sepsis")
DOMAINS = {domain: f"suites.datasets.recipes.{domain}" for domain in _MODULES}


@dataclass(frozen=True)
class Segment:
    """A part of a dataset that one policy acts; its place among them is the policy's number.

    Attributes:
        policy: name of the policy, for example of a checkpoint.
        noise: exploration noise, in units that the recipe names.
        share: relative number of transitions.
        sha256: of the policy's checkpoint, None if it has none.
    """

    policy: str
    noise: float
    share: float
    sha256: str | None = None


@dataclass(frozen=True)
class Shard:
    """Rows [start, stop) of the table, made by one process at one go.

    Attributes:
        number: its place among the shards.
        segment: the segment whose rows these are; 0 where shards mix the policies.
        start: first row.
        stop: the row after the last.
    """

    number: int
    segment: int
    start: int
    stop: int


class Recipe(Protocol):
    """What a module of this package offers. ``shards`` and ``play`` alone import a simulator.

    It may also offer ``reset_seeds(data)``: what each episode was reset with, ``[E]``, where a
    simulator plays episodes again (:func:`suites.datasets.local.reset_seeds`).
    """

    PACKAGES: tuple[str, ...]  # those whose versions are part of a dataset's identity

    def missing(self, task: Task) -> str | None:
        """None, or one sentence, which names the task, that says why it cannot be made."""
        ...

    def default_size(self, task: Task) -> int:
        """Transitions of the whole dataset."""
        ...

    def describe(self, task: Task, size: int) -> dict[str, Any]:
        """All that is the recipe's own in a dataset's identity: plain data.

        ``segments`` are the policies, as :class:`Segment` in the form of dictionaries; a raised
        ``version`` says that the same words now give other bytes.
        """
        ...

    def shards(self, wanted: dict[str, Any]) -> list[Shard]:
        """The rows of a dataset of this identity, divided; no row is left out."""
        ...

    def play(self, wanted: dict[str, Any], shard: Shard) -> Dataset:
        """Plays the shard's rows; they depend on the identity and the shard's number alone."""
        ...

    def logged(self, data: Dataset) -> npt.NDArray[np.float64] | None:
        """``[E, 3]`` as :attr:`Dataset.logged`, None where the table's ends are the benchmark's."""
        ...


def get_recipe(domain: str) -> Recipe | None:
    """The recipe of a domain, None if there is none."""
    if domain not in DOMAINS:
        return None
    return cast(Recipe, importlib.import_module(DOMAINS[domain]))


def overlap(quality: str) -> float:
    """The overlap o in [0, 1] of a quality such as "overlap-25"."""
    return int(quality.removeprefix("overlap-")) / 100


def divide(edges: list[int], most: int, unit: int = 1) -> list[Shard]:
    """Even shards of at most ``most`` rows between the segments' ``edges`` (rows).

    Args:
        edges: first row of each segment, and the row after the last one's last.
        most: rows of a shard.
        unit: shards begin at multiples of it, as segments must; for example an episode's length.
    """
    shards: list[Shard] = []
    for segment, (start, stop) in enumerate(pairwise(edges)):
        begin, end = start // unit, math.ceil(stop / unit)
        pieces = math.ceil((end - begin) / (most // unit))
        cuts = unit * np.linspace(begin, end, pieces + 1).round().astype(int)
        for first, last in pairwise(np.minimum(cuts, stop).tolist()):
            shards.append(Shard(len(shards), segment, first, last))
    return shards
