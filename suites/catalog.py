"""What the suites know about tasks without running anything."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Environment:
    """What tasks of one simulator have in common.

    Attributes:
        title: the name for people.
        domain: the family, for example "locomotion"; it chooses the local recipe.
        env_ids: gymnasium's id by data source; what a source lacks it has no data for.
            "{quality}" in it stands for the task's.
        qualities: of the logged data.
        plain: the quality that task ids and titles leave out.
        joint_actions: size of the action space, where efficiency is shown by it.
        history: whether agents see the last days of an episode; see suites/datasets/history.py.
    """

    title: str
    domain: str
    env_ids: Mapping[str, str]
    qualities: tuple[str, ...]
    plain: str | None = None
    joint_actions: int | None = None
    history: bool = False


@dataclass(frozen=True)
class Task:
    """An environment and a quality of logged data.

    Attributes:
        id: "<environment>-<quality>", or "<environment>" for its plain quality.
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
        environment = ENVIRONMENTS[self.environment]
        shown = self.quality != environment.plain
        return f"{environment.title} {self.quality}" if shown else environment.title

    @property
    def domain(self) -> str:
        """The environment's family."""
        return ENVIRONMENTS[self.environment].domain

    def env_id(self, source: str) -> str | None:
        """The gymnasium environment that goes with a source's data, None if it has none."""
        found = ENVIRONMENTS[self.environment].env_ids.get(source)
        return None if found is None else found.format(quality=self.quality)


D4RL = "Farama-Foundation/D4RL"  # how the sources of its reference returns begin
NAMESPACE = "fastq_bench/"  # of environments that are registered in suites/envs/registered.py
# Settings of the point masses (docs/pointmass.md): levels of either force, and how these interact.
POINT_MASSES: Mapping[str, Mapping[str, float]] = {
    "pointmass-9": {"levels": 9},
    "pointmass-17": {"levels": 17},
    "pointmass-33": {"levels": 33},
    "pointmass-17-coupled": {"levels": 17, "coupling": 1.0},
}

# Platforms of synthetic players, each with constants of its own (docs/players.md).
PLAYERS: Mapping[str, int] = {f"players-{platform}": platform for platform in range(5)}


def _environments() -> Iterator[tuple[str, Environment]]:
    qualities: tuple[str, ...]
    qualities = ("random", "medium", "medium-replay", "medium-expert", "expert")
    for title in ("HalfCheetah", "Hopper", "Walker2d"):
        # D4RL's v2 files were made with dynamics that are those of -v4.
        env_ids = {"local": f"{title}-v5", "d4rl": f"{title}-v4"}
        yield title.lower(), Environment(title, "locomotion", env_ids, qualities)
    for maze in ("umaze", "medium", "large"):
        env_ids = dict.fromkeys(("local", "d4rl"), f"{NAMESPACE}maze2d-{maze}-v1")
        found = Environment(f"Maze2d {maze}", "maze2d", env_ids, ("waypoints",), plain="waypoints")
        yield f"maze2d-{maze}", found
    for maze in ("umaze", "medium", "large"):
        # Logged on the way from one corner to the other, between few places, between any two.
        qualities = ("fixed", "diverse") if maze == "umaze" else ("play", "diverse")
        env_ids = {"d4rl": f"{NAMESPACE}antmaze-{maze}-v2"}
        found = Environment(f"AntMaze {maze}", "antmaze", env_ids, qualities, plain="fixed")
        yield f"antmaze-{maze}", found
    for hand in ("pen", "hammer", "door", "relocate"):
        env_ids = {"d4rl": f"{NAMESPACE}{hand}-v1"}
        qualities = ("human", "cloned", "expert")
        yield hand, Environment(f"Adroit {hand}", "adroit", env_ids, qualities)
    env_ids = {"d4rl": NAMESPACE + "kitchen-{quality}-v0"}
    qualities = ("complete", "partial", "mixed")
    yield "kitchen", Environment("Kitchen", "kitchen", env_ids, qualities)
    # How much the regions of the two logging policies overlap, in percent (docs/fastq-overlap.md).
    env_ids = {"local": NAMESPACE + "Regions-v0"}
    qualities = ("overlap-0", "overlap-25", "overlap-50", "overlap-100")
    yield "regions", Environment("Regions", "regions", env_ids, qualities)
    # Without crises; with crises that observations do not show, or show (docs/sepsis.md).
    for name, title, qualities in (
        ("sepsis", "Sepsis", ("clinician", "clinician-small")),
        ("sepsis-hidden", "Sepsis, crises hidden", ("confounded", "unconfounded")),
        ("sepsis-shown", "Sepsis, crises shown", ("confounded",)),
    ):
        env_ids = {"local": f"{NAMESPACE}{name}-v0"}
        yield name, Environment(title, "sepsis", env_ids, qualities)
    # What the doctor saw is in the observation or not (docs/confounder.md).
    for name, title, qualities in (
        ("bedside-hidden", "Bedside, day hidden", ("confounded", "unconfounded")),
        ("bedside-shown", "Bedside, day shown", ("confounded",)),
    ):
        env_ids = {"local": f"{NAMESPACE}{name}-v0"}
        yield name, Environment(title, "bedside", env_ids, qualities)
    for name, settings in POINT_MASSES.items():
        env_ids, levels = {"local": f"{NAMESPACE}{name}-v0"}, int(settings["levels"])
        title = f"Point mass {levels}x{levels}" + ", coupled" * ("coupling" in settings)
        found = Environment(title, "pointmass", env_ids, ("random",), "random", levels**2)
        yield name, found
    # How much the players of the three logging policies overlap, in percent.
    qualities = ("overlap-0", "overlap-25", "overlap-50", "overlap-100")
    for name, platform in PLAYERS.items():
        env_ids = {"local": f"{NAMESPACE}{name}-v0"}
        yield name, Environment(f"Players {platform}", "players", env_ids, qualities, history=True)


def _tasks() -> Iterator[Task]:
    for name, environment in ENVIRONMENTS.items():
        for quality in environment.qualities:
            task = name if quality == environment.plain else f"{name}-{quality}"
            yield Task(task, name, quality)


ENVIRONMENTS = dict(_environments())
TASKS = {task.id: task for task in _tasks()}


@cache
def _references() -> dict[str, tuple[float, float, str]]:
    folder = files("results") / "published"
    return {
        row["environment"]: (
            float(row["reference_min"]),
            float(row["reference_max"]),
            row["source"],
        )
        for name in ("d4rl_reference_scores.csv", "own_reference_scores.csv")
        for row in csv.DictReader((folder / name).read_text("utf-8").splitlines())
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
