"""Resolving what a person asked for: names into agents, tasks and numbers, before any compute."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from baselines.config import UsageError, check_name
from baselines.contract import WINDOW_FIELDS, Phase
from baselines.registry import Registry, make_config, needs_of
from results.record import to_json
from suites.catalog import TASKS, reference
from suites.datasets import Source
from suites.job import CHECKPOINT_SECONDS
from suites.manifest import Arm, Budget, Suite, read_phases

BEHAVIOUR = "behaviour"
REFERENCES = ("random", BEHAVIOUR)
CLONING = "bc"  # every table shows it beside random and behaviour
BEHAVIOUR_VERSION = 1


@dataclass(frozen=True)
class Options:
    """What a person may choose on the command line or from Python; None takes the suite's default.

    Attributes:
        suite: name, or path of a manifest.
        budget: name of a budget.
        agents: labels of the suite or names of registered agents; None for all of the suite's.
        tasks: task names or patterns ("hopper-*"); None for all.
        seeds: number of training seeds.
        dataset_seeds: number of draws of every dataset, each with its own dataset seed.
        source: where data comes from.
        out: output folder.
        device: "auto", "cpu" or "cuda".
        precision: "float32" or "float64".
        stack: seeds trained together; 0 for one on a CPU and all on a GPU.
        settings: "agent.key=value" overrides.
        plugins: plugin files.
        checkpoint_seconds: between two checkpoints of a run; 0 for one after every update.
        keep_checkpoints: leave the last checkpoint when a record is final.
        allow_inexact_resume: continue checkpoints of another machine or version.
    """

    suite: str
    budget: str | None = None
    agents: Sequence[str] | None = None
    tasks: Sequence[str] | None = None
    seeds: int | None = None
    dataset_seeds: int | None = None
    source: str = "local"
    out: Path = Path("results/runs")
    device: str = "auto"
    precision: Literal["float32", "float64"] = "float32"
    stack: int = 0
    settings: Sequence[str] = ()
    plugins: Sequence[str] = ()
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    keep_checkpoints: bool = False
    allow_inexact_resume: bool = False


@dataclass(frozen=True)
class Row:
    """One arm with everything resolved: what its cells have in common."""

    label: str
    arm: Arm
    config: dict[str, Any]
    version: int
    phases: tuple[Phase, ...]
    budget: dict[str, Any]
    seeds: tuple[int, ...]
    reference: bool = False
    cls: Any = None  # the agent's class; None for behaviour
    code: str | None = None  # sha256 of the plugin file that brought the agent

    def describe(self) -> dict[str, Any]:
        """The record's ``agent`` block."""
        return {
            "label": self.label,
            "name": self.arm.agent,
            "version": self.version,
            "config": self.config,
            "preset": self.arm.preset,
            "track": self.arm.track,
            "configs_tried": self.arm.configs_tried,
            "reference": self.reference,
            "code": self.code,
        }


def choose_arms(options: Options, suite: Suite, registry: Registry) -> dict[str, Arm]:
    """The suite's arms, or those asked for; plugins' agents and behaviour cloning are added."""
    if options.agents is None:
        arms = dict(suite.arms)
        for name, origin in registry.sources.items():
            if origin.startswith("plugin "):
                arms.setdefault(name, Arm(name))
    else:
        known = sorted({*suite.arms, *registry.names()} - set(REFERENCES))
        arms = {}
        for label in options.agents:
            check_name(label, known, "agent", "--agents")
            arms[label] = suite.arms.get(label, Arm(label))
    if CLONING not in arms:
        arms = {CLONING: suite.arms.get(CLONING, Arm(CLONING)), **arms}
    for label, arm in arms.items():
        check_name(arm.agent, registry.names(), "agent", f"{suite.where}: agents.{label}")
        if label in REFERENCES or arm.agent in REFERENCES:
            raise UsageError(
                f'{suite.where}: agents.{label}: "{label}" is a reference row of every table; '
                "take it out of the agents"
            )
    return arms


def choose_tasks(options: Options, suite: Suite) -> list[str]:
    """The suite's tasks, or those that match a pattern of ``--tasks``."""
    if options.tasks is None:
        return list(suite.tasks)
    chosen: list[str] = []
    for pattern in options.tasks:
        matches = fnmatch.filter(suite.tasks, pattern)
        if not matches:
            check_name(pattern, suite.tasks, "task", f"--tasks (suite {suite.name})")
        chosen += [task for task in matches if task not in chosen]
    return chosen


def read_settings(settings: Sequence[str], arms: Mapping[str, Arm]) -> dict[str, dict[str, Any]]:
    """ "agent.key=value" overrides, by label."""
    result: dict[str, dict[str, Any]] = {}
    for setting in settings:
        left, equals, text = setting.partition("=")
        label, dot, key = left.strip().rpartition(".")
        if not equals or not dot:
            raise UsageError(f'--set takes agent.key=value, not "{setting}"')
        check_name(label, arms, "agent", f"--set {setting}")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UsageError(f"--set {setting}: the value is not YAML") from None
        result.setdefault(label, {})[key] = value
    return result


def resolve_row(
    label: str,
    arm: Arm,
    settings: Mapping[str, Any],
    registry: Registry,
    budget_name: str,
    budget: Budget,
    seeds: int,
    suite: Suite,
) -> Row:
    """An arm's class, config, phases and budget: defaults < preset < budget < manifest < --set."""
    where = f"{suite.where}: agents.{label}"
    cls = registry.get(arm.agent, where)
    adjustment = budget.adjustment(arm.agent)
    config = make_config(cls, {**adjustment.config, **arm.config, **settings}, where, arm.preset)
    updates = adjustment.updates or budget.updates
    return Row(
        label=label,
        arm=arm,
        config=_plain(config),
        version=cls.version,
        phases=read_phases(arm.phases, updates, where),
        budget=_numbers(
            budget_name,
            budget,
            shrunk=adjustment.shrunk,
            updates=updates,
            evaluation_episodes=adjustment.evaluation_episodes or budget.evaluation_episodes,
        ),
        seeds=tuple(range(seeds)),
        cls=cls,
        code=_plugin_digest(registry.sources[arm.agent]),
    )


def _plugin_digest(origin: str) -> str | None:
    prefix = "plugin "
    if not origin.startswith(prefix):
        return None
    return hashlib.sha256(Path(origin.removeprefix(prefix)).read_bytes()).hexdigest()


def reference_row(name: str, budget_name: str, budget: Budget, registry: Registry) -> Row:
    """A reference's row: no training, one seed, the budget's final episodes."""
    cls = None if name == BEHAVIOUR else registry.get(name)
    numbers = _numbers(budget_name, budget, shrunk=False, updates=0, evaluations=0)
    return Row(
        label=name,
        arm=Arm(name),
        config={} if cls is None else _plain(make_config(cls, {}, name)),
        version=BEHAVIOUR_VERSION if cls is None else cls.version,
        phases=(Phase("offline", 0),),
        budget=numbers,
        seeds=(0,),
        reference=True,
        cls=cls,
    )


def _numbers(name: str, budget: Budget, **changes: Any) -> dict[str, Any]:
    block = {
        "name": name,
        "meaningless": budget.meaningless,
        "updates": budget.updates,
        "evaluations": budget.evaluations,
        "evaluation_episodes": budget.evaluation_episodes,
        "final_episodes": budget.final_episodes,
        "transitions": budget.transitions,
    }
    return {**block, **changes}


def _plain(config: Any) -> dict[str, Any]:
    """A config as JSON would give it back, so that identities do not depend on tuple or list."""
    plain: dict[str, Any] = json.loads(to_json(asdict(config)))
    return plain


def describe_task(
    task_id: str, source: Source, options: Options, budget: Budget, draws: int
) -> dict[str, Any]:
    """The record's ``task`` block, plus ``missing`` and the ``datasets``' identities by draw."""
    task = TASKS[task_id]
    low, high, published = reference(task.environment)
    missing = source.missing(task_id)
    if missing is not None:
        missing = missing.removeprefix(f"{task_id}: ")  # it always stands beside the task's name
    count = 0 if missing else draws
    identities = [source.identity(task_id, budget.transitions, draw) for draw in range(count)]
    return {
        "id": task.id,
        "title": task.title,
        "environment": task.environment,
        "quality": task.quality,
        "version": task.version,
        "env_id": identities[0]["env_id"] if identities else None,
        "source": options.source,
        "reference_min": low,
        "reference_max": high,
        "reference_source": published,
        "missing": missing,
        "datasets": [identity["id"] for identity in identities],
    }


def match_needs(rows: Sequence[Row], source: Source, name: str) -> None:
    """Refuses an agent whose needs the source's data cannot meet.

    Raises:
        UsageError: naming agent, field and source.
    """
    for row in rows:
        if row.cls is None:
            continue
        config = make_config(row.cls, row.config, f"agents.{row.label}")
        needs = needs_of(row.cls, config, f'agent "{row.label}"')
        for field_name in needs.fields:
            if field_name not in (*source.FIELDS, *WINDOW_FIELDS):
                raise UsageError(
                    f'agent "{row.label}" needs "{field_name}", which source "{name}" does not have'
                )


def choose_device(name: str) -> str:
    """Resolves "auto" to a GPU if PyTorch sees one.

    Raises:
        UsageError: unknown name, or no such device.
    """
    check_name(name.partition(":")[0], ("auto", "cpu", "cuda"), "device", "--device")
    if name == "cpu":
        return name
    import torch

    if torch.cuda.is_available():
        return "cuda" if name == "auto" else name
    if name == "auto":
        return "cpu"
    raise UsageError(f"--device {name}: PyTorch sees no GPU here; use --device cpu")
