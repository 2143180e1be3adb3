"""From a suite to cells: what is to be trained, where it will lie, and what is already there."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from baselines.config import UsageError, check_name
from baselines.contract import Phase
from baselines.registry import Registry, make_config, needs_of
from results.record import Plan, Record, RecordError, read_record, scan, to_json
from suites.catalog import TASKS, reference
from suites.datasets import Source, get_source
from suites.job import Job
from suites.manifest import Arm, Budget, Suite, load_suite, read_phases

BEHAVIOUR = "behaviour"
REFERENCES = ("random", BEHAVIOUR)
CLONING = "bc"  # every table shows it beside random and behaviour
BEHAVIOUR_VERSION = 1
State = Literal["done", "failed", "todo"]


@dataclass(frozen=True)
class Options:
    """What a person may choose on the command line or from Python; None takes the suite's default.

    Attributes:
        suite: name, or path of a manifest.
        budget: name of a budget.
        agents: labels of the suite or names of registered agents; None for all of the suite's.
        tasks: task names or patterns ("hopper-*"); None for all.
        seeds: number of training seeds.
        source: where data comes from.
        out: output folder.
        device: "auto", "cpu" or "cuda".
        precision: "float32" or "float64".
        stack: seeds trained together; 0 for one on a CPU and all on a GPU.
        settings: "agent.key=value" overrides.
        plugins: plugin files.
    """

    suite: str
    budget: str | None = None
    agents: Sequence[str] | None = None
    tasks: Sequence[str] | None = None
    seeds: int | None = None
    source: str = "local"
    out: Path = Path("results/runs")
    device: str = "auto"
    precision: Literal["float32", "float64"] = "float32"
    stack: int = 0
    settings: Sequence[str] = ()
    plugins: Sequence[str] = ()


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
        }


@dataclass(frozen=True)
class Cell:
    """One seed of one agent on one task."""

    task: str
    label: str
    seed: int
    path: str
    identity: dict[str, Any]
    state: State


@dataclass
class SuitePlan:
    """A resolved suite: tasks, rows, cells, and the jobs that fill what is missing."""

    options: Options
    suite: Suite
    budget_name: str
    budget: Budget
    source: Source
    tasks: list[dict[str, Any]]
    rows: list[Row]
    cells: list[Cell]
    device: str
    stale: list[dict[str, str]] = field(default_factory=list)
    command: str = ""

    @property
    def folder(self) -> Path:
        """The report folder of this plan."""
        name = f"{self.suite.name}-{self.budget_name}-{self.options.source}"
        return self.options.out / "reports" / name

    def with_states(self, states: Mapping[str, State]) -> None:
        """Takes over what has become of cells, by path."""
        self.cells = [replace(c, state=states.get(c.path, c.state)) for c in self.cells]

    def to_plan(self) -> Plan:
        """What the report needs to know."""
        return Plan(
            suite=self.suite.name,
            title=self.suite.title,
            budget=self.budget_name,
            source=self.options.source,
            seeds=sorted({seed for row in self.rows if not row.reference for seed in row.seeds}),
            tasks=[
                {key: task[key] for key in ("id", "title", "environment", "quality", "missing")}
                for task in self.tasks
            ],
            agents=[
                {
                    **{
                        k: row.describe()[k]
                        for k in ("label", "name", "reference", "track", "configs_tried")
                    },
                    "shrunk": row.budget["shrunk"],
                }
                for row in self.rows
            ],
            cells=[
                {"task": c.task, "agent": c.label, "seed": c.seed, "path": c.path}
                for c in self.cells
            ],
            stale=self.stale,
            caveats=list(self.budget.caveats),
            watermark="smoke: meaningless numbers" if self.budget.meaningless else "",
            command=self.command,
        )

    def jobs(self, retry: bool = False) -> list[Job]:
        """What is left to do, all agents of a task before the next task.

        Args:
            retry: also run again the cells that failed.
        """
        wanted = ("todo", "failed") if retry else ("todo",)
        result = []
        for task in self.tasks:
            # Two labels of one config share their cells, which are trained once.
            here = {c.path: c for c in reversed(self.cells) if c.task == task["id"]}
            open_cells = [c for c in reversed(here.values()) if c.state in wanted]
            if not open_cells:
                continue
            behaviour = [c for c in open_cells if c.label == BEHAVIOUR]
            result.append(self._job("data", task, self._row(BEHAVIOUR), behaviour))
            for row in self.rows:
                cells = [c for c in open_cells if c.label == row.label and row.label != BEHAVIOUR]
                size = self.options.stack or (1 if self.device == "cpu" else max(1, len(cells)))
                for i in range(0, len(cells), size):
                    result.append(self._job("train", task, row, cells[i : i + size]))
        return result

    def _row(self, label: str) -> Row:
        return next(row for row in self.rows if row.label == label)

    def _job(
        self, kind: Literal["data", "train"], task: dict[str, Any], row: Row, cells: list[Cell]
    ) -> Job:
        seeds = [c.seed for c in cells]
        numbers = ", ".join(map(str, seeds))
        name = (
            f"data of {task['id']}"
            if kind == "data"
            else f"{row.label} on {task['id']}, seed {numbers}"
        )
        return Job(
            kind=kind,
            name=name,
            out=str(self.options.out),
            task={key: value for key, value in task.items() if key not in ("missing", "dataset")},
            data={"size": self.budget.transitions, "seed": 0},
            cell=identity_of(task, row, self.options),
            agent=row.describe(),
            phases=[asdict(phase) for phase in row.phases],
            budget=row.budget,
            seeds=seeds or [0],
            paths=[c.path for c in cells],
            plugins=[str(Path(p).resolve()) for p in self.options.plugins],
            device=self.device if kind == "train" and not row.reference else "cpu",
            precision=self.options.precision,
        )


def make_plan(options: Options, command: str = "") -> SuitePlan:
    """Resolves every name and number of a suite before any compute.

    Raises:
        UsageError: one sentence naming what is wrong and the remedy.
    """
    suite = load_suite(options.suite)
    budget_name, budget = suite.get_budget(options.budget)
    source = get_source(options.source)
    registry = Registry(options.plugins)
    for name in budget.agents:
        check_name(name, registry.names(), "agent", f"budget {budget_name}: agents")
    arms = choose_arms(options, suite, registry)
    settings = read_settings(options.settings, arms)
    count = budget.seeds if options.seeds is None else options.seeds
    if count < 1:
        raise UsageError(f"--seeds must be at least 1, not {count}")
    if options.stack < 0:
        raise UsageError(f"--stack must be at least 0, not {options.stack}")
    rows = [_reference_row(name, budget_name, budget, registry) for name in REFERENCES]
    for label, arm in arms.items():
        rows.append(
            resolve_row(
                label, arm, settings.get(label, {}), registry, budget_name, budget, count, suite
            )
        )
    tasks = [describe_task(task, source, options, budget) for task in choose_tasks(options, suite)]
    match_needs(rows, source, options.source)
    plan = SuitePlan(
        options=options,
        suite=suite,
        budget_name=budget_name,
        budget=budget,
        source=source,
        tasks=tasks,
        rows=rows,
        cells=[],
        device=choose_device(options.device),
        command=command,
    )
    for task in tasks:
        if task["missing"] is None:
            for row in rows:
                plan.cells.extend(_cells(task, row, options))
    plan.stale = find_stale(plan)
    return plan


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
    )


def _reference_row(name: str, budget_name: str, budget: Budget, registry: Registry) -> Row:
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


def describe_task(task_id: str, source: Source, options: Options, budget: Budget) -> dict[str, Any]:
    """The record's ``task`` block, plus ``missing`` and the dataset's identity."""
    task = TASKS[task_id]
    low, high, published = reference(task.environment)
    missing = source.missing(task_id)
    identity = {} if missing else source.identity(task_id, budget.transitions)
    return {
        "id": task.id,
        "title": task.title,
        "environment": task.environment,
        "quality": task.quality,
        "version": task.version,
        "env_id": identity.get("env_id"),
        "source": options.source,
        "reference_min": low,
        "reference_max": high,
        "reference_source": published,
        "missing": missing,
        "dataset": identity.get("id"),
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
            if field_name not in (*source.FIELDS, "returns_to_go", "timesteps", "mask"):
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


def identity_of(task: Mapping[str, Any], row: Row, options: Options) -> dict[str, Any]:
    """All that a cell's numbers depend on, its seed apart."""
    numbers = {k: v for k, v in row.budget.items() if k not in ("name", "shrunk", "meaningless")}
    return {
        "task": {key: task[key] for key in ("id", "version", "env_id")},
        "agent": {"name": row.arm.agent, "version": row.version, "config": row.config},
        "phases": [asdict(phase) for phase in row.phases],
        "budget": numbers,
        "source": options.source,
        "dataset": {"id": task["dataset"]},
        "precision": options.precision,
    }


def cell_path(identity: Mapping[str, Any], seed: int) -> str:
    """A cell's folder below the output folder: a pure function of its identity and seed."""
    digest = hashlib.sha256(to_json(identity)).hexdigest()[:16]
    parts = (identity["source"], identity["task"]["id"], identity["agent"]["name"])
    return "/".join(("cells", *parts, f"{digest}-seed{seed}"))


def _cells(task: Mapping[str, Any], row: Row, options: Options) -> Iterator[Cell]:
    identity = identity_of(task, row, options)
    for seed in row.seeds:
        path = cell_path(identity, seed)
        yield Cell(task["id"], row.label, seed, path, identity, read_state(options.out / path))


def read_state(folder: Path) -> State:
    """What has become of a cell; a record that cannot be read counts as not there."""
    try:
        return "done" if read_record(folder).status == "done" else "failed"
    except RecordError:
        return "todo"


def find_stale(plan: SuitePlan) -> list[dict[str, str]]:
    """Records of this plan's cells that another code or dataset version made."""
    paths = {cell.path for cell in plan.cells}
    wanted = {_timeless(cell.identity, cell.seed) for cell in plan.cells}
    current = {_timeless(cell.identity, cell.seed): cell.identity for cell in plan.cells}
    stale = []
    for folder, record in scan(plan.options.out):
        path = folder.relative_to(plan.options.out).as_posix()
        if path in paths or isinstance(record, RecordError):
            continue
        identity = {key: value for key, value in record.cell.items() if key != "seed"}
        key = _timeless(identity, record.seed)
        if key in wanted:
            stale.append({"path": path, "why": _difference(record, current[key])})
    return stale


def _timeless(identity: Mapping[str, Any], seed: int) -> str:
    """The identity without what changes when code or data get a new version."""
    return json.dumps(
        {
            **identity,
            "task": identity["task"]["id"],
            "agent": {k: v for k, v in identity["agent"].items() if k != "version"},
            "dataset": None,
            "seed": seed,
        },
        sort_keys=True,
    )


def _difference(record: Record, current: Mapping[str, Any]) -> str:
    found, now = record.cell, current
    reasons = []
    if found["agent"]["version"] != now["agent"]["version"]:
        reasons.append(f"agent version {found['agent']['version']}, now {now['agent']['version']}")
    if found["dataset"] != now["dataset"]:
        reasons.append(f"dataset {found['dataset']['id'][:12]}, now {now['dataset']['id'][:12]}")
    if found["task"] != now["task"]:
        reasons.append(f"task {found['task']}, now {now['task']}")
    return "; ".join(reasons)


def command_line(arguments: Sequence[str]) -> str:
    """The command as a person would type it."""
    return shlex.join(["python", "-m", "suites.run", *arguments])
