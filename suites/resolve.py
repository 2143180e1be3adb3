"""Resolving what a person asked for: names into agents, tasks and numbers, before any compute."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from baselines.config import UsageError, check_name, did_you_mean
from baselines.contract import Phase
from baselines.registry import Registry, make_config
from results.record import to_json
from suites.catalog import ENVIRONMENTS, TASKS, Task, reference
from suites.datasets import DATA_SUFFIXES, OwnTask, Source, own_task, task_fields, task_key
from suites.datasets.store import DatasetError
from suites.job import CHECKPOINT_SECONDS
from suites.manifest import Arm, Budget, Suite, read_phases

BEHAVIOUR = "behaviour"
REFERENCES = ("random", BEHAVIOUR)
ALL = "all"  # of --agents
CLONING = "bc"  # every table shows it beside random and behaviour
BEHAVIOUR_VERSION = 1
# Of a task's description; no part of jobs and records.
PLANNING = ("missing", "datasets", "fields", "notes")


@dataclass(frozen=True)
class Options:
    """What a person may choose on the command line or from Python; None takes the suite's default.

    Attributes:
        suite: name, or path of a manifest; "" for the usual agents on ``tasks``.
        budget: name of a budget.
        agents: labels of the suite or names of registered agents; None for the suite's, ("all",)
            for those of its ``more`` as well.
        tasks: task names or patterns ("hopper-*"), or what the source has of its own, such as
            files; None for all.
        seeds: number of training seeds.
        dataset_seeds: number of draws of every dataset, each with its own dataset seed.
        source: where data comes from; "" for "file" if the tasks are files, else "local".
        data_dir: a file or folder in which the source looks for its data first.
        download: fetch data that is not on this machine; without it nothing uses the network.
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
    source: str = ""
    data_dir: Path | None = None
    download: bool = False
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
    studies: tuple[str, ...] = ()  # run on every cell once it is trained

    @property
    def from_nothing(self) -> bool:
        """Whether it learns from what it collects alone, and from no data."""
        return bool(self.phases) and all(phase.source == "replay" for phase in self.phases)

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


def names_agents(options: Options) -> Sequence[str] | None:
    """The agents that were asked for one by one; None where a suite's own were, or all."""
    return None if options.agents is None or list(options.agents) == [ALL] else options.agents


def choose_arms(options: Options, suite: Suite, registry: Registry) -> dict[str, Arm]:
    """The suite's arms, or those asked for; plugins' agents and behaviour cloning are added."""
    named = names_agents(options)
    if named is not None:
        hosted = suite.arms | suite.more
        known = sorted({*hosted, *registry.names()} - set(REFERENCES))
        arms = {}
        for label in named:
            check_name(label, known, "agent", "--agents")
            arms[label] = hosted.get(label, Arm(label))
    else:
        arms = dict(suite.arms) if options.agents is None else suite.arms | suite.more
        for name, origin in registry.sources.items():
            if origin.startswith("plugin "):
                arms.setdefault(name, Arm(name))
    if CLONING not in arms:
        arms = {CLONING: suite.arms.get(CLONING, Arm(CLONING)), **arms}
    for label, arm in arms.items():
        check_name(arm.agent, registry.names(), "agent", f"{suite.where}: agents.{label}")
        if label != arm.agent and label in registry.names() and label not in REFERENCES:
            raise UsageError(
                f'{suite.where}: agents.{label}: "{label}" is the name of another agent than '
                f"{arm.agent}; choose another label"
            )
        if label in REFERENCES or arm.agent in REFERENCES:
            raise UsageError(
                f'{suite.where}: agents.{label}: "{label}" is a reference row of every table; '
                "take it out of the agents"
            )
    return arms


def choose_tasks(options: Options, suite: Suite, source: Source) -> list[Task | OwnTask]:
    """The suite's tasks, or those that match ``--tasks``, which may also name the source's own.

    Raises:
        UsageError: unknown name, data that cannot be used, or two tasks of one id.
    """
    names = task_names(options, suite)
    where = f"--tasks (suite {suite.name})"
    chosen = [_find_task(name, suite, source, where) for name in names]
    by_id: dict[str, str] = {}
    for task, name in zip(chosen, names, strict=True):
        if task.id in by_id:
            raise UsageError(
                f'{by_id[task.id]} and {name} would both be called "{task.id}"; rename one'
            )
        by_id[task.id] = name
    return chosen


def task_names(options: Options, suite: Suite) -> list[str]:
    """The suite's tasks, or those that match ``--tasks``; a name that matches none is kept."""
    if options.tasks is None:
        return list(suite.tasks)
    names: list[str] = []
    for pattern in options.tasks:
        matches = fnmatch.filter(suite.tasks, pattern) or [pattern]
        names += [task for task in matches if task not in names]
    return names


def _find_task(name: str, suite: Suite, source: Source, where: str) -> Task | OwnTask:
    try:
        found = own_task(source, name)
    except DatasetError as error:
        raise UsageError(str(error)) from None
    if found is not None:
        return found
    known = [task for task in suite.tasks if task in TASKS]
    if name in TASKS and name not in known:
        raise UsageError(
            f"{where}: {name} is not in this suite ({', '.join(known)}); give a suite that has "
            "it, or none: --tasks alone takes any task"
        )
    if name not in TASKS and (suffix := Path(name).suffix):
        if suffix.lower() in DATA_SUFFIXES:
            raise UsageError(f"{where}: {name} is a file of data; leave --source out")
        files = f"{', '.join(DATA_SUFFIXES[:-1])} or {DATA_SUFFIXES[-1]}"
        raise UsageError(f"{where}: {name}: files of data end in {files}, not {suffix}")
    plain = re.sub(r"-v\d+$", "", name.lower())
    if plain != name and plain in TASKS:
        raise UsageError(f'{where}: unknown task "{name}"; it is called {plain} here')
    return TASKS[check_name(name, known, "task", where)]


def read_settings(settings: Sequence[str], arms: Mapping[str, Arm]) -> dict[str, dict[str, Any]]:
    """ "agent.key=value" overrides, by label."""
    result: dict[str, dict[str, Any]] = {}
    for setting in settings:
        left, equals, text = setting.partition("=")
        label, dot, key = left.strip().rpartition(".")
        if not equals or not dot:
            raise UsageError(f'--set takes agent.key=value, not "{setting}"')
        if label not in arms:
            hint = did_you_mean(label, arms)
            raise UsageError(f'--set {setting}: no agent of this run is called "{label}"{hint}')
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
    own = {**adjustment.config, **arm.config}
    config = make_config(cls, own, where, arm.preset)
    if settings:  # what is wrong from here on is theirs
        config = make_config(cls, {**own, **settings}, f"--set {label}", arm.preset)
    updates = adjustment.updates or budget.updates
    return Row(
        label=label,
        arm=arm,
        config=_plain(config),
        version=cls.version,
        phases=read_phases(arm.phases or default_phases(cls, config), updates, where),
        budget=_numbers(
            budget_name,
            budget,
            shrunk=adjustment.shrunk,
            updates=updates,
            evaluation_episodes=adjustment.evaluation_episodes or budget.evaluation_episodes,
        ),
        seeds=tuple(range(budget.first_seed, budget.first_seed + seeds)),
        cls=cls,
        code=_plugin_digest(registry.sources[arm.agent]),
        studies=suite.studies,
    )


def default_phases(cls: type[Any], config: Any) -> list[dict[str, Any]] | None:
    """The phases an agent of this config trains through where a manifest names none."""
    chosen = getattr(cls, "phases", None)
    return None if chosen is None else chosen(config)


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
    task: Task | OwnTask, source: Source, options: Options, budget: Budget, draws: int
) -> dict[str, Any]:
    """The record's ``task`` block, plus :data:`PLANNING`: what only the planner needs.

    Of a source's own tasks it also has ``key``, ``spaces`` and ``horizon``, so that a job says all
    that a worker must know of a task which no catalogue has. ``missing`` is a sentence or None,
    ``datasets`` are identities by draw, ``fields`` are those of every transition, ``notes`` are
    sentences for people.

    Raises:
        UsageError: if the data asked for cannot be had, such as a second draw of recorded data.
    """
    facts: dict[str, Any] = {}
    key, fields, notes, scale = task.id, None, [], None
    if isinstance(task, OwnTask):
        key, fields, scale = task.key, task.fields, task.reference
        notes = [f"{task.id}: {note}" for note in task.notes]
        facts = {"key": key, "spaces": task.spaces, "horizon": task.horizon}
    else:
        scale = reference(task.environment)
        if (key := task_key(source, task.id, options.data_dir)) != task.id:
            facts = {"key": key}
        if size := ENVIRONMENTS[task.environment].joint_actions:
            facts["joint_actions"] = size
    low, high, published = scale or (None, None, None)
    missing = source.missing(key)
    if missing is not None:
        # It always stands beside the task's name.
        missing = missing.removeprefix(f"{key}: ").removeprefix(f"{task.id}: ")
    count = 0 if missing else draws
    try:
        identities = [source.identity(key, budget.transitions, draw) for draw in range(count)]
    except DatasetError as error:
        raise UsageError(str(error)) from None
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
        **facts,
        "missing": missing,
        "datasets": [identity["id"] for identity in identities],
        "fields": fields or task_fields(source, key),
        "notes": notes,
    }


def choose_device(name: str) -> str:
    """Resolves "auto" to a GPU if PyTorch sees one.

    Raises:
        UsageError: unknown name, or no such device.
    """
    if name == "gpu":  # which looks like cpu to a search for what was meant
        raise UsageError('--device: unknown device "gpu" (did you mean "cuda"?)')
    check_name(name.partition(":")[0], ("auto", "cpu", "cuda"), "device", "--device")
    if name == "cpu":
        return name
    import torch

    if torch.cuda.is_available():
        return "cuda" if name == "auto" else name
    if name == "auto":
        return "cpu"
    raise UsageError(f"--device {name}: PyTorch sees no GPU here; use --device cpu")
