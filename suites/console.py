"""What a person sees in the terminal: the plan, progress, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from results.record import Plan, RecordError, read_record
from suites.estimate import Estimate
from suites.job import Job, State
from suites.launch import Event
from suites.plan import SuitePlan
from suites.resolve import Row

QUIET_SECONDS = 30.0  # between lines about running jobs where there is no terminal


def duration(seconds: float) -> str:
    """Seconds for people: "45 s", "12 min", "3 h 20 min", "2 d 3 h"."""
    if seconds < 99.5:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def tell(console: Console, text: str, style: str | None = None) -> None:
    """A sentence as it is; breaking its lines is left to the terminal, so paths can be copied."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def print_title(console: Console, title: str, what: str) -> None:
    """A suite's title, and what it is in brackets behind."""
    console.print(Text.assemble((title, "bold"), f"  ({what})"))


def print_plan(console: Console, plan: SuitePlan) -> None:
    """The plan, a line per task."""
    rows = [row for row in plan.rows if not row.reference]
    seeds = max(len(row.seeds) for row in rows)
    print_title(console, plan.suite.title, plan.suite.name)
    console.print(
        f"budget {plan.budget_name}: {_updates(rows)}, {seeds} seed{'s' if seeds > 1 else ''}, "
        f"{plan.budget.final_episodes} final episodes; data {plan.options.source}; "
        f"device {plan.device}, {plan.options.precision}"
    )
    print_matrix(console, plan.to_plan(), {cell.path: cell.state for cell in plan.cells})
    shrunk = [row.label for row in rows if row.budget["shrunk"]]
    if shrunk:
        tell(console, f"smaller or shorter than published, so in no aggregate: {', '.join(shrunk)}")
    for remark in plan.remarks:
        tell(console, remark)
    for warning in plan.warnings:
        tell(console, f"warning: {warning}")


def _updates(rows: Sequence[Row]) -> str:
    """What most agents make, and the others by name: "20,000 updates (dt 2,000)"."""
    made = {row.label: sum(phase.updates for phase in row.phases) for row in rows}
    usual = max(made.values(), key=list(made.values()).count)
    others = [f"{label} {updates:,}" for label, updates in made.items() if updates != usual]
    return f"{usual:,} updates" + (f" ({', '.join(others)})" if others else "")


def print_matrix(console: Console, plan: Plan, states: Mapping[str, State]) -> None:
    """What is done, a line per task, and what is missing, failed or stale."""
    labels = [agent["label"] for agent in plan.agents]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("task", no_wrap=True)
    for label in labels:
        table.add_column(label, justify="right", overflow="fold")
    for task in plan.tasks:
        cells = [c for c in plan.cells if c["task"] == task["id"]]
        texts = []
        for label in labels:
            found = [states[c["path"]] for c in cells if c["agent"] == label]
            bad = [f"{found.count(s)} {s}" for s in ("failed", "interrupted") if s in found]
            note = f" ({', '.join(bad)})" if bad else ""
            texts.append(f"{found.count('done')}/{len(found)}{note}")
        table.add_row(task["id"], *(["missing"] * len(labels) if task["missing"] else texts))
    console.print(table)
    for task in plan.tasks:
        if task["missing"]:
            tell(console, f"missing: {task['id']}: {task['missing']}")
        elif not task.get("simulator", True):
            tell(console, f"{task['id']}: no simulator: trained and reported without returns")
    for stale in plan.stale:
        tell(console, f"stale, left alone: {stale['path']} ({stale['why']})")


def print_estimate(console: Console, estimate: Estimate, workers: int, jobs: list[Job]) -> None:
    """What is left to do and how long it may take."""
    cells = sum(len(job.paths) for job in jobs)
    made = sum(job.kind == "data" for job in jobs)
    datasets = f", {made} of them a dataset" if made else ""
    console.print(
        f"{cells} cell{'s' * (cells > 1)} to run "
        f"in {len(jobs)} job{'s' * (len(jobs) > 1)}{datasets}: "
        f"about [bold]{duration(estimate.wall_seconds(workers))}[/bold] with "
        f"{workers} worker{'s' if workers > 1 else ''} on this machine "
        f"(core time: data {duration(estimate.data)}, training {duration(estimate.training)}, "
        f"evaluation {duration(estimate.evaluation)})"
    )
    if estimate.unknown:
        names = ", ".join(estimate.unknown)
        console.print(f"not in the estimate, because a trial of them failed: {names}", markup=False)


class Monitor:
    """Follows a run: progress bars in a terminal, plain lines elsewhere."""

    def __init__(
        self, console: Console, jobs: list[Job], seconds: dict[str, float], workers: int
    ) -> None:
        self.console, self.total, self.workers = console, len(jobs), workers
        self.expected = seconds  # estimated core-seconds by job name
        self.finished = 0
        self.failed: list[tuple[Job, str]] = []
        self.interrupted: list[tuple[Job, str]] = []
        self.begun: dict[str, tuple[int, float]] = {}  # first progress of a job: done, seconds
        self.started = time.monotonic()
        self.spoken: dict[int, float] = {}
        self.running: dict[int, str] = {}
        self.left = sum(seconds.values())
        self.spent = 0.0  # estimated core-seconds of finished jobs
        self.measured = 0.0  # what they took
        self.bars: Progress | None = None
        self.slots: dict[int, TaskID] = {}
        if console.is_terminal:
            self.bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
                transient=True,
            )
            self.overall = self.bars.add_task("all jobs", total=self.total, note="")

    def __enter__(self) -> Monitor:
        if self.bars:
            self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars:
            self.bars.stop()

    def eta(self) -> str:
        """Time left, the estimate corrected by how the finished jobs went."""
        running = sum(self.expected[name] for name in self.running.values()) / 2
        pace = self.measured / self.spent if self.spent > 30 else 1.0
        return duration((self.left - running) * max(pace, 0.2) / self.workers)

    def __call__(self, event: Event) -> None:
        """Hears of an event from the engine."""
        if event.kind == "start":
            self._start(event)
        elif event.kind == "progress":
            self._progress(event)
        elif event.kind == "note":
            self._say(f"{event.job.name}: {event.values['text']}")
        elif event.kind == "busy":
            self.running.pop(event.slot, None)
            self._say(f"{event.job.name}: another run is at it; waiting for it to end")
        else:
            self._end(event)

    def _start(self, event: Event) -> None:
        self.running[event.slot] = event.job.name
        self.spoken[event.slot] = time.monotonic()
        if self.bars:
            if event.slot not in self.slots:
                self.slots[event.slot] = self.bars.add_task("", total=None, note="")
            self.bars.reset(
                self.slots[event.slot],
                total=None,
                description=event.job.name,
                note="",
                visible=True,
            )

    def _progress(self, event: Event) -> None:
        if self.running.get(event.slot) != event.job.name:
            self._start(event)  # another run had it, and has let go of it
        done, total, what = (event.values[key] for key in ("done", "total", "what"))
        first, since = self.begun.setdefault(event.job.name, (done, event.seconds))
        rate = (done - first) / (event.seconds - since) if event.seconds > since else 0.0
        note = f"{what}, {rate:,.0f}/s" if what in ("updates", "transitions") else what
        if self.bars:
            self.bars.update(self.slots[event.slot], completed=done, total=total, note=note)
            self.bars.update(self.overall, note=f"about {self.eta()} left")
        elif time.monotonic() - self.spoken[event.slot] > QUIET_SECONDS:
            self.spoken[event.slot] = time.monotonic()
            self.console.print(
                f"  ... {event.job.name}: {done:,}/{total:,} {note}; about {self.eta()} left"
            )

    def _end(self, event: Event) -> None:
        job = event.job
        self.finished += 1
        self.running.pop(event.slot, None)
        self.left -= self.expected[job.name]
        if event.kind == "done":
            self.spent += self.expected[job.name]
            self.measured += event.seconds
        counter = f"[{self.finished:>{len(str(self.total))}}/{self.total}]"
        if event.kind == "failed":
            message = f"{event.values['type']}: {event.values['message']}"
            self.failed.append((job, message))
            self._say(f"{counter} FAILED {job.name}: {message}", style="red")
        elif event.kind == "interrupted":
            self.interrupted.append((job, event.values["message"]))
            self._say(f"{counter} interrupted: {job.name}: {event.values['message']}", style="red")
        else:
            self._say(
                f"{counter} {job.name}: {outcome(job)} in {duration(event.seconds)}; "
                f"about {self.eta()} left"
            )
        if self.bars:
            self.bars.update(self.overall, completed=self.finished, note=f"about {self.eta()} left")
            self.bars.reset(self.slots[event.slot], visible=False)

    def _say(self, text: str, style: str | None = None) -> None:
        tell(self.console, text, style)


def outcome(job: Job) -> str:
    """A finished job's score, or its return where there is no scale, from its records."""
    from pathlib import Path

    finals = []
    for path in job.paths:
        try:
            finals.append(read_record(Path(job.out) / path).final)
        except RecordError:
            continue
    for key, what in (("score", "score"), ("return_mean", "return")):
        values = [final[key] for final in finals if key in final]
        if values:
            verb = f"behaviour {what}s" if job.kind == "data" else what
            return f"{verb} {', '.join(f'{value:z.1f}' for value in values)}"
    return "ready" if job.kind == "data" else "trained"


def print_ends(console: Console, what: str, ends: Iterable[tuple[Job, str]]) -> None:
    """The failed or interrupted jobs again, at the end, where they are seen."""
    for job, message in ends:
        tell(console, f"{what}: {job.name}: {message}", "red")
