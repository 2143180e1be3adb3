"""From a suite to cells: what is to be trained, where it will lie, and what is already there."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from baselines.config import UsageError, check_name
from baselines.registry import Registry
from results.record import Plan, Record, RecordError, read_record, scan, to_json
from suites.datasets import Source, get_source
from suites.job import Job
from suites.manifest import Budget, Suite, load_suite
from suites.resolve import (
    BEHAVIOUR,
    REFERENCES,
    Options,
    Row,
    choose_arms,
    choose_device,
    choose_tasks,
    describe_task,
    match_needs,
    read_settings,
    reference_row,
    resolve_row,
)

State = Literal["done", "failed", "todo"]


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
    warnings: list[str] = field(default_factory=list)
    command: str = ""

    @property
    def folder(self) -> Path:
        """The report folder of this plan."""
        options = self.options
        return report_folder(options.out, self.suite.name, self.budget_name, options.source)

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
            caveats=[*self.budget.caveats, *self.warnings],
            watermark="meaningless numbers" if self.budget.meaningless else "",
            meaningless=self.budget.meaningless,
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


def report_folder(out: Path, suite: str, budget: str, source: str) -> Path:
    """Where a suite's plan and report lie at a budget."""
    return out / "reports" / f"{suite}-{budget}-{source}"


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
    rows = [reference_row(name, budget_name, budget, registry) for name in REFERENCES]
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
    plan.warnings = [warning for row in rows if row.code for warning in edited_plugin(plan, row)]
    return plan


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
    current = {_timeless(cell.identity, cell.seed): cell.identity for cell in plan.cells}
    stale = []
    for folder, record in scan(plan.options.out):
        path = folder.relative_to(plan.options.out).as_posix()
        if path in paths or isinstance(record, RecordError):
            continue
        identity = {key: value for key, value in record.cell.items() if key != "seed"}
        key = _timeless(identity, record.seed)
        if key in current:
            stale.append({"path": path, "why": _difference(record, current[key])})
    return stale


def edited_plugin(plan: SuitePlan, row: Row) -> Iterator[str]:
    """Warns of results that an earlier text of a plugin made, which its version does not tell."""
    done = [cell for cell in plan.cells if cell.label == row.label and cell.state == "done"]
    made = [read_record(plan.options.out / cell.path).agent.get("code") for cell in done]
    old = sum(code != row.code for code in made)
    if old:
        runs = f"{old} finished run{'s' if old > 1 else ''}"
        yield (
            f'{runs} of "{row.label}" came from another text of its plugin file; '
            f"raise its version (now {row.version}) if its results change"
        )


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
