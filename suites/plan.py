"""From a suite to cells: what is to be trained, where it will lie, and what is already there."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from baselines.config import UsageError, check_name
from baselines.registry import Registry
from results.record import RECORD_FILE, Plan, Record, RecordError, read_record, scan, to_json
from suites.catalog import D4RL
from suites.datasets import Source, choose_source, get_source
from suites.fetch import fetch_all
from suites.job import Job, State, read_state, remove_checkpoints, unfinished_stacks
from suites.manifest import Budget, Suite, load_suite, shipped, suite_of
from suites.matching import match_needs, match_online, match_spaces
from suites.resolve import (
    BEHAVIOUR,
    CLONING,
    PLANNING,
    REFERENCES,
    Options,
    Row,
    choose_arms,
    choose_device,
    choose_tasks,
    describe_task,
    names_agents,
    read_settings,
    reference_row,
    resolve_row,
    task_names,
)
from suites.studies import STUDIES


@dataclass(frozen=True)
class Cell:
    """One seed of one agent on one draw of a task's data."""

    task: str
    label: str
    seed: int
    draw: int
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

    @property
    def remarks(self) -> list[str]:
        """What no label shows: settings given by hand, and who does not learn from the data."""
        settings = ", ".join(self.options.settings)
        said = [f"Settings given with --set: {settings}."] if settings else []
        if self.budget_name in self.suite.redefined:
            said.append(f"Budget {self.budget_name} is this suite's own, not the usual one.")
        online = ", ".join(row.label for row in self.rows if row.from_nothing)
        if online:
            said.append(f"Learning online from nothing, not from the data: {online}.")
            if any(cell.draw for cell in self.cells):
                said.append(f"Trained once, not on every draw of the data: {online}.")
        return said

    def to_plan(self) -> Plan:
        """What the report needs to know."""
        return Plan(
            suite=self.suite.name,
            title=self.suite.title,
            budget=self.budget_name,
            source=self.options.source,
            seeds=sorted({seed for row in self.rows if not row.reference for seed in row.seeds}),
            tasks=[
                {
                    **{k: task[k] for k in ("id", "title", "environment", "quality", "missing")},
                    "simulator": task["env_id"] is not None or task["missing"] is not None,
                    "scored": task["reference_min"] is not None,
                    "expert": str(task["reference_source"] or D4RL).startswith(D4RL),
                }
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
                {"task": c.task, "agent": c.label, "seed": c.seed, "draw": c.draw, "path": c.path}
                for c in self.cells
            ],
            stale=self.stale,
            caveats=[*self._budget_caveats(), *self.remarks, *self.warnings],
            watermark="meaningless numbers" if self.budget.meaningless else "",
            meaningless=self.budget.meaningless,
            command=self.command,
        )

    def _budget_caveats(self) -> Sequence[str]:
        caveats = self.budget.caveats
        if self.budget.meaningless and not caveats:
            name = self.budget_name
            return [f"Budget {name} shows that everything runs; its numbers are meaningless."]
        return caveats

    def jobs(self, retry: bool = False) -> list[Job]:
        """What is left to do, all agents of a task before the next task.

        Args:
            retry: also run again the cells that failed.
        """
        wanted: tuple[State, ...] = ("todo", "interrupted")
        if retry:
            wanted = (*wanted, "failed")
        return [
            job
            for task in self.tasks
            for draw in range(len(task["datasets"]))
            for job in self._jobs_on(task, draw, wanted)
        ]

    def _jobs_on(self, task: dict[str, Any], draw: int, wanted: Container[State]) -> Iterator[Job]:
        # Two labels of one config share their cells, which are trained once.
        here = {c.path: c for c in reversed(self.cells) if c.task == task["id"] and c.draw == draw}
        open_cells = [c for c in reversed(here.values()) if c.state in wanted]
        if not open_cells:
            return
        behaviour = [c for c in open_cells if c.label == BEHAVIOUR]
        yield self._job("data", task, draw, self._row(BEHAVIOUR), behaviour)
        for row in self.rows:
            if row.label != BEHAVIOUR:
                mine = [c for c in here.values() if c.label == row.label]
                for stack in self._stacks(mine, [c for c in open_cells if c in mine]):
                    yield self._job("train", task, draw, row, stack)

    def sweep(self) -> None:
        """Removes checkpoints of finished runs that were interrupted while tidying up."""
        done = {
            (cell.path.rpartition("-seed")[0], cell.seed): cell
            for cell in self.cells
            if cell.state == "done"
        }
        for (row, _), cell in done.items():
            folder = self.options.out / cell.path
            stacks = unfinished_stacks(folder)
            if stacks and all((row, seed) in done for seeds in stacks for seed in seeds):
                remove_checkpoints(folder)

    def _stacks(self, cells: list[Cell], open_cells: list[Cell]) -> Iterator[list[Cell]]:
        """Stacks that fill the open ones of a row's cells; those that were begun before come first.

        A stack whose first records are written already goes on as a whole.
        """
        by_seed = {cell.seed: cell for cell in cells}
        left = {cell.seed: cell for cell in open_cells}
        begun = {
            tuple(seeds)
            for cell in cells
            for seeds in unfinished_stacks(self.options.out / cell.path)
        }
        for seeds in sorted(begun, key=lambda seeds: (-len(seeds), seeds)):
            if by_seed.keys() >= set(seeds) and left.keys() & set(seeds):
                yield [by_seed[seed] for seed in seeds]
                left = {seed: cell for seed, cell in left.items() if seed not in seeds}
        rest = [left[seed] for seed in sorted(left)]
        size = self.options.stack or (1 if self.device == "cpu" else max(1, len(rest)))
        for i in range(0, len(rest), size):
            yield rest[i : i + size]

    def _row(self, label: str) -> Row:
        return next(row for row in self.rows if row.label == label)

    def _job(
        self,
        kind: Literal["data", "train"],
        task: dict[str, Any],
        draw: int,
        row: Row,
        cells: list[Cell],
    ) -> Job:
        seeds = [c.seed for c in cells]
        numbers = ", ".join(map(str, seeds))
        where = task["id"] if draw == 0 else f"{task['id']} (draw {draw})"
        name = f"data of {where}" if kind == "data" else f"{row.label} on {where}, seed {numbers}"
        return Job(
            kind=kind,
            name=name,
            out=str(self.options.out),
            task={key: value for key, value in task.items() if key not in PLANNING},
            data={"size": self.budget.transitions, "seed": draw},
            cell=identity_of(task, draw, row, self.options),
            agent=row.describe(),
            phases=[asdict(phase) for phase in row.phases],
            budget=row.budget,
            seeds=seeds or [0],
            paths=[c.path for c in cells],
            plugins=[str(Path(p).resolve()) for p in self.options.plugins],
            studies=list(row.studies),
            device=self.device if kind == "train" and not row.reference else "cpu",
            precision=self.options.precision,
            checkpoint_seconds=self.options.checkpoint_seconds,
            keep_checkpoints=self.options.keep_checkpoints,
            allow_inexact_resume=self.options.allow_inexact_resume,
        )


def report_folder(out: Path, suite: str, budget: str, source: str) -> Path:
    """Where a suite's plan and report lie at a budget."""
    return out / "reports" / f"{suite}-{budget}-{source}"


def choose_suite(suite: str, source: str, tasks: Sequence[str] | None) -> tuple[Suite, str]:
    """The suite and the name of the source that a command line means; reads no data.

    Raises:
        UsageError: unknown name, an invalid manifest, or neither suite nor tasks.
    """
    if not suite and not tasks:
        raise UsageError("name a suite, for example core3; --list shows them")
    found = load_suite(suite, source) if suite else suite_of(tasks or ())
    # The tasks asked for come before those of the suite, which they replace.
    return found, choose_source(source, tasks or (found.tasks if suite else ()))


def make_plan(options: Options, command: str = "") -> SuitePlan:
    """Resolves every name and number of a suite before any compute.

    Raises:
        UsageError: one sentence naming what is wrong and the remedy.
    """
    suite, source_name = choose_suite(options.suite, options.source, options.tasks)
    options = replace(options, source=source_name)
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
    draws = budget.dataset_seeds if options.dataset_seeds is None else options.dataset_seeds
    if draws < 1:
        raise UsageError(f"--dataset-seeds must be at least 1, not {draws}")
    if options.checkpoint_seconds < 0:
        raise UsageError(
            f"--checkpoint-seconds must be at least 0, not {options.checkpoint_seconds}"
        )
    if options.stack < 0:
        raise UsageError(f"--stack must be at least 0, not {options.stack}")
    rows = [reference_row(name, budget_name, budget, registry) for name in REFERENCES]
    for label, arm in arms.items():
        rows.append(
            resolve_row(
                label, arm, settings.get(label, {}), registry, budget_name, budget, count, suite
            )
        )
    names = task_names(options, suite)
    if options.data_dir is not None and options.data_dir.is_file() and len(names) > 1:
        raise UsageError(
            f"--data-dir {options.data_dir} is one file for {len(names)} tasks; name its task with "
            "--tasks, or give a folder"
        )
    if options.download:
        fetch_all(source, options.source, names, options.data_dir)
    tasks = [
        describe_task(task, source, options, budget, draws)
        for task in choose_tasks(options, suite, source)
    ]
    named = names_agents(options)
    asked = [
        label
        for label in arms
        if label != CLONING or label in (suite.arms if named is None else named)
    ]
    rows, unfit = match_spaces(rows, tasks, asked)
    # A shipped suite serves all sources, though not all of them tell what every agent needs.
    own = suite.name not in shipped()
    strict = arms if named is not None or own else ()
    rows, lacking = match_needs(rows, tasks, options.source, strict)
    rows, offline_only = match_online(rows, tasks, options.source, strict)
    lacking += offline_only
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
        for draw in range(len(task["datasets"])):
            for row in rows:
                plan.cells.extend(_cells(task, draw, row, options))
    plan.stale = find_stale(plan)
    plan.warnings = unfit + lacking + [note for task in tasks for note in task["notes"]]
    plan.warnings += [warning for row in rows if row.code for warning in edited_plugin(plan, row)]
    plan.warnings += damaged(plan)
    return plan


def identity_of(task: Mapping[str, Any], draw: int, row: Row, options: Options) -> dict[str, Any]:
    """All that a cell's numbers depend on, its seed apart."""
    numbers = {k: v for k, v in row.budget.items() if k not in ("name", "shrunk", "meaningless")}
    studies = {name: STUDIES[name].version for name in row.studies}
    return {
        **({"studies": studies} if studies else {}),
        "task": {key: task[key] for key in ("id", "version", "env_id")},
        "agent": {"name": row.arm.agent, "version": row.version, "config": row.config},
        "phases": [asdict(phase) for phase in row.phases],
        "budget": numbers,
        "source": options.source,
        "dataset": {"id": task["datasets"][draw], "seed": draw},
        "precision": options.precision,
    }


def recorded_identity(record: Record) -> dict[str, Any]:
    """The same of a finished cell."""
    return {key: value for key, value in record.cell.items() if key != "seed"}


def cell_path(identity: Mapping[str, Any], seed: int) -> str:
    """A cell's folder below the output folder: a pure function of its identity and seed."""
    digest = hashlib.sha256(to_json(identity)).hexdigest()[:16]
    parts = (identity["source"], identity["task"]["id"], identity["agent"]["name"])
    return "/".join(("cells", *parts, f"{digest}-seed{seed}"))


def _cells(task: Mapping[str, Any], draw: int, row: Row, options: Options) -> Iterator[Cell]:
    if row.reference and row.cls is not None and task["env_id"] is None:
        return  # a reference does nothing but play episodes
    if row.from_nothing and draw:
        return  # it would be the same run again
    identity = identity_of(task, draw, row, options)
    for seed in row.seeds:
        path = cell_path(identity, seed)
        state = read_state(options.out / path)
        yield Cell(task["id"], row.label, seed, draw, path, identity, state)


def find_stale(plan: SuitePlan) -> list[dict[str, str]]:
    """Records of this plan's cells that another code or dataset version made."""
    paths = {cell.path for cell in plan.cells}
    current = {_timeless(cell.identity, cell.seed): cell.identity for cell in plan.cells}
    stale = []
    for folder, record in scan(plan.options.out):
        path = folder.relative_to(plan.options.out).as_posix()
        if path in paths or isinstance(record, RecordError):
            continue
        key = _timeless(recorded_identity(record), record.seed)
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


def damaged(plan: SuitePlan) -> Iterator[str]:
    """Warns of records that are there and cannot be read; their cells are made again."""
    for cell in plan.cells:
        folder = plan.options.out / cell.path
        if cell.state == "todo" and (folder / RECORD_FILE).exists():
            yield f"{folder / RECORD_FILE} cannot be read and will be made again"


def _timeless(identity: Mapping[str, Any], seed: int) -> str:
    """The identity without what changes when code or data get a new version."""
    return json.dumps(
        {
            **identity,
            "task": identity["task"]["id"],
            "agent": {k: v for k, v in identity["agent"].items() if k != "version"},
            "dataset": identity["dataset"].get("seed", 0),
            "studies": sorted(identity.get("studies", ())),
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
    if found.get("studies") != now.get("studies"):
        reasons.append(f"studies {found.get('studies')}, now {now.get('studies')}")
    if found["task"] != now["task"]:
        reasons.append(f"task {found['task']}, now {now['task']}")
    return "; ".join(reasons)


def command_line(arguments: Sequence[str]) -> str:
    """The command as a person would type it."""
    return shlex.join(["python", "-m", "suites.run", *arguments])
