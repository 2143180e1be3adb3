"""What the suites know about tasks without running anything."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Task:
    """An environment and a quality of logged data.

    Attributes:
        id: "<environment>-<quality>".
        environment: for example "hopper"; aggregates of one suite never mix reference scales.
        quality: for example "medium-replay"; tables are also pooled by it.
        version: raised when the task means something else; part of a cell's identity.
    """

    id: str
    environment: str
    quality: str
    version: int = 1

    @property
    def title(self) -> str:
        """The name for people."""
        return f"{ENVIRONMENTS[self.environment]} {self.quality}"


ENVIRONMENTS = {"halfcheetah": "HalfCheetah", "hopper": "Hopper", "walker2d": "Walker2d"}
QUALITIES = ("random", "medium", "medium-replay", "medium-expert", "expert")
TASKS = {
    f"{environment}-{quality}": Task(f"{environment}-{quality}", environment, quality)
    for environment in ENVIRONMENTS
    for quality in QUALITIES
}


@cache
def _references() -> dict[str, tuple[float, float, str]]:
    text = (files("results") / "published" / "d4rl_reference_scores.csv").read_text("utf-8")
    return {
        row["environment"]: (
            float(row["reference_min"]),
            float(row["reference_max"]),
            row["source"],
        )
        for row in csv.DictReader(text.splitlines())
    }


def reference(environment: str) -> tuple[float, float, str]:
    """Returns that score 0 and 100 in an environment (raw units), and where they are published.

    Raises:
        ValueError: if there are none for it.
    """
    try:
        return _references()[environment]
    except KeyError:
        known = ", ".join(sorted(_references()))
        raise ValueError(f"{environment}: no reference returns; known are {known}") from None
