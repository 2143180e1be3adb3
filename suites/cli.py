"""The command line of the suites: ``python -m suites.run SUITE``."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from baselines.config import UsageError
from results.record import PLAN_FILE, Plan, RecordError, read_plan, write_plan
from suites import console as show
from suites.estimate import Estimate, estimate
from suites.job import CHECKPOINT_SECONDS, State, read_state
from suites.launch import PATIENCE, Event, run_jobs
from suites.manifest import load_budgets, load_suite, shipped
from suites.plan import SuitePlan, choose_suite, command_line, make_plan, report_folder
from suites.resolve import Options

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
PIPE_WIDTH = 200  # columns
REFRESH_SECONDS = 60.0  # between two refreshes of the report while a run goes on


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    from suites.commands import VERBS

    result = argparse.ArgumentParser(
        prog="python -m suites.run",
        description="Compare offline-RL agents: plan a grid of task x agent x seed, make the data, "
        "train, evaluate, and write tables, figures and a report page. What is done is skipped.",
        epilog="verbs for finished runs (--help after a verb says more):\n"
        + "\n".join(f"  {verb:<10}{help_text}" for verb, (help_text, _) in VERBS.items()),
        formatter_class=_HelpFormatter,
    )
    add = result.add_argument
    add("suite", nargs="?", help="a suite's name, or the path of your own manifest (.yaml)")
    verbs = result.add_mutually_exclusive_group()
    verbs.add_argument(
        "--list", action="store_true", help="list suites, budgets, agents and sources"
    )
    verbs.add_argument(
        "--dry-run", action="store_true", help="print plan and estimate, run nothing"
    )
    verbs.add_argument("--status", action="store_true", help="print what is done, failed and to do")
    verbs.add_argument(
        "--report", action="store_true", help="only write the report of what is done"
    )
    verbs.add_argument("--retry", action="store_true", help="also run failed cells again")
    add("--budget", help="smoke, quick (default), standard, full, or one of your manifest's")
    add(
        "--agents",
        type=names,
        metavar="A,B",
        help="only these agents; all: the suite's and those it keeps for more",
    )
    add(
        "--tasks",
        type=names,
        metavar="T,U",
        help='only these tasks; patterns such as "hopper-*", or your own files of data (.npz, '
        ".h5), which need no suite",
    )
    add("--seeds", type=int, metavar="N", help="training seeds: N, from 0 or the budget's first on")
    add("--dataset-seeds", type=int, metavar="N", help="draws of every dataset (default: 1)")
    add(
        "--source",
        default="",
        help="where data comes from (default: file where --tasks are files, else local)",
    )
    add(
        "--data-dir",
        type=Path,
        metavar="PATH",
        help="a file or folder where source d4rl looks for its files first",
    )
    add("--download", action="store_true", help="fetch data that is not on this machine")
    add("--jobs", type=int, metavar="N", help="worker processes (default: one per core)")
    add("--device", default="auto", help="auto (default), cpu or cuda")
    add("--precision", default="float32", choices=("float32", "float64"), help="default: float32")
    add(
        "--stack",
        type=int,
        default=0,
        metavar="N",
        help="seeds trained together (default: 1 on a CPU, all on a GPU)",
    )
    add(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="AGENT.KEY=VALUE",
        help="an agent's setting; may be repeated",
    )
    add(
        "--plugin",
        dest="plugins",
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file with AGENTS; may be repeated",
    )
    add(
        "--checkpoint-seconds",
        type=float,
        default=CHECKPOINT_SECONDS,
        metavar="S",
        help="seconds between two checkpoints of a run, 0 for one after every update "
        f"(default: {CHECKPOINT_SECONDS:.0f})",
    )
    add("--keep-checkpoints", action="store_true", help="keep the last checkpoint of finished runs")
    add(
        "--allow-inexact-resume",
        action="store_true",
        help="continue checkpoints of another machine or version, and mark the records",
    )
    add(
        "--patience",
        type=float,
        default=PATIENCE,
        metavar="S",
        help=f"end a worker that is silent for so many seconds (default: {PATIENCE:.0f})",
    )
    add(
        "--out",
        type=Path,
        default=Path("results/runs"),
        help="output folder (default: results/runs)",
    )
    add(
        "--allow-missing",
        action="store_true",
        help="aggregate over an incomplete matrix, marked as such",
    )
    add(
        "--scores",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a CSV of scores made elsewhere (task, agent, seed, score), to stand beside ours in "
        "the report; may be repeated",
    )
    return result


class _HelpFormatter(argparse.HelpFormatter):
    """Wraps the description, and keeps the list of verbs as it is."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("verbs") else super()._fill_text(text, width, indent)


def names(text: str) -> list[str]:
    """Names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code (0 ok, 1 cells failed, 2 wrong input)."""
    from suites.commands import VERBS

    arguments = sys.argv[1:] if arguments is None else list(arguments)
    console = make_console()
    try:
        if arguments and arguments[0] in VERBS:
            return VERBS[arguments[0]][1](console, arguments[1:])
        return _main(parser().parse_args(arguments), arguments, console)
    except KeyboardInterrupt:
        console.print("interrupted")
        return INTERRUPTED
    except UsageError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {error}", markup=False)
        return USAGE


def make_console() -> Console:
    """Standard output; a file or a pipe is as wide as it takes."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def _main(chosen: argparse.Namespace, arguments: Sequence[str], console: Console) -> int:
    if chosen.list:
        return list_everything(console, chosen.plugins)
    _check_scores(chosen.scores)
    if chosen.status or chosen.report:
        return look(console, chosen)
    jobs = worker_count(chosen.jobs)
    options = Options(
        suite=chosen.suite or "",
        budget=chosen.budget,
        agents=chosen.agents,
        tasks=chosen.tasks,
        seeds=chosen.seeds,
        dataset_seeds=chosen.dataset_seeds,
        source=chosen.source,
        data_dir=chosen.data_dir,
        download=chosen.download and not chosen.dry_run,
        out=chosen.out,
        device=chosen.device,
        precision=chosen.precision,
        stack=chosen.stack,
        settings=tuple(chosen.settings),
        plugins=tuple(chosen.plugins),
        checkpoint_seconds=chosen.checkpoint_seconds,
        keep_checkpoints=chosen.keep_checkpoints,
        allow_inexact_resume=chosen.allow_inexact_resume,
    )
    plan = make_plan(options, command_line(arguments))
    show.print_plan(console, plan)
    conduct = Conduct(
        jobs,
        chosen.retry,
        chosen.dry_run,
        chosen.allow_missing,
        chosen.patience,
        tuple(chosen.scores),
    )
    return execute(console, plan, conduct)


def _check_scores(files: Sequence[Path]) -> None:
    """Says what is wrong with a file of scores now rather than after hours of training."""
    if files:
        from analysis.frame import ScoresError, read_csv

        try:
            for file in files:
                read_csv(file)
        except ScoresError as error:
            raise UsageError(f"--scores {error}") from None


def look(console: Console, chosen: argparse.Namespace) -> int:
    """``--status`` and ``--report`` of what was last planned; quick, since no agent is imported."""
    suite, source = choose_suite(chosen.suite or "", chosen.source, chosen.tasks)
    budget, _ = suite.get_budget(chosen.budget)
    folder = report_folder(chosen.out, suite.name, budget, source)
    try:
        plan = read_plan(folder / PLAN_FILE)
    except RecordError as error:
        raise UsageError(
            f"{error}; {suite.name} has not run at budget {budget} into {chosen.out}; run it (it "
            "finds what is finished there), or name another --budget"
        ) from None
    options = {"--agents": chosen.agents, "--seeds": chosen.seeds, "--set": chosen.settings}
    if unused := ", ".join(option for option, value in options.items() if value):
        show.tell(console, f"{unused}: without effect here; this is what was last planned")
    if chosen.report:
        return report(console, folder, chosen.out, chosen.allow_missing, chosen.scores)
    states = states_of(plan, chosen.out)
    show.print_title(console, plan.title, f"{plan.suite}, budget {plan.budget}")
    show.print_matrix(console, plan, states)
    return FAILED if "failed" in states.values() else OK


def worker_count(jobs: int | None) -> int:
    """``--jobs``, or the number of cores this process may use.

    Raises:
        UsageError: for fewer than one.
    """
    if jobs is None:
        return (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )
    if jobs < 1:
        raise UsageError(f"--jobs must be at least 1, not {jobs}")
    return jobs


def list_everything(console: Console, plugins: Sequence[str]) -> int:
    """Suites, budgets, agents and sources, a line each."""
    from baselines.registry import Registry
    from suites.datasets import SOURCES

    console.print("[bold]suites[/bold]")
    for name in shipped():
        suite = load_suite(name)
        more = f"; with --agents all {', '.join(suite.more)}" if suite.more else ""
        arms = [
            label if label.startswith(arm.agent) else f"{label} ({arm.agent})"
            for label, arm in suite.arms.items()
        ]
        count = f"{len(suite.tasks)} task{'s' * (len(suite.tasks) > 1)}"
        console.print(f"  {name:<21} {suite.title} ({count}; {', '.join(arms)}{more})")
    console.print("[bold]budgets[/bold]")
    for name, budget in load_budgets().items():
        console.print(f"  {name:<21} {budget.title}")
    console.print("[bold]agents[/bold]")
    registry = Registry(plugins)
    for name in registry.names():
        console.print(f"  {name:<21} {registry.sources[name]}")
    console.print("[bold]sources[/bold]")
    for name in SOURCES:
        console.print(f"  {name}")
    return OK


@dataclass(frozen=True)
class Conduct:
    """How to go about a plan; nothing of it changes a number.

    Attributes:
        workers: worker processes.
        retry: also run failed cells again.
        dry_run: stop after the estimate.
        allow_missing: aggregate over an incomplete matrix.
        patience: seconds without a sign of life after which a worker is ended.
        scores: CSV files of scores made elsewhere, for the report.
    """

    workers: int
    retry: bool = False
    dry_run: bool = False
    allow_missing: bool = False
    patience: float = PATIENCE
    scores: tuple[Path, ...] = ()


def execute(console: Console, plan: SuitePlan, conduct: Conduct) -> int:
    """Runs what is missing, refreshing the report as cells end."""
    todo = plan.jobs(conduct.retry)
    workers = min(conduct.workers, max(1, len(todo)))
    shares = estimate(todo, plan.source)
    seconds = {job.name: share.core_seconds for job, share in zip(todo, shares, strict=True)}
    if todo:
        show.print_estimate(console, sum(shares, Estimate()), workers, todo)
    if conduct.dry_run:
        return OK
    _prepare_folder(plan)
    if not plan.options.keep_checkpoints:
        plan.sweep()
    refresher = Refresher(plan, conduct.allow_missing, conduct.scores)
    complete = True
    if todo:
        console.print(
            f"results go to {plan.options.out}; the page grows at {plan.folder}/index.html"
        )
        with show.Monitor(console, todo, seconds, workers) as monitor:

            def listen(event: Event) -> None:
                monitor(event)
                if event.kind in ("done", "failed"):
                    refresher.refresh()

            try:
                with _stopped_by_sigterm():
                    run_jobs(todo, workers, listen, conduct.patience)
            except KeyboardInterrupt:
                refresher.stop()
                console.print("interrupted; what is finished is kept, and the same command goes on")
                return INTERRUPTED
        refresher.stop()
        show.print_ends(console, "failed", monitor.failed)
        show.print_ends(console, "interrupted", monitor.interrupted)
        complete = not (monitor.failed or monitor.interrupted)
    code = report(console, plan.folder, plan.options.out, conduct.allow_missing, conduct.scores)
    return code if complete else FAILED


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """A cluster's SIGTERM ends a run as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _prepare_folder(plan: SuitePlan) -> None:
    try:
        write_plan(plan.folder, plan.to_plan())
    except OSError as error:
        raise UsageError(
            f"--out {plan.options.out}: cannot write there ({error.strerror}); name another folder"
        ) from None


class Refresher:
    """Rewrites the report in a process of its own now and then, so that workers need not wait."""

    def __init__(self, plan: SuitePlan, allow_missing: bool, scores: Sequence[Path] = ()) -> None:
        self.command = [sys.executable, "-m", "analysis.report", str(plan.folder)]
        self.command += ["--out", str(plan.options.out)]
        self.command += ["--allow-missing"] if allow_missing else []
        self.command += [f"--scores={file}" for file in scores]
        self.process: subprocess.Popen[bytes] | None = None
        self.last = -REFRESH_SECONDS

    def refresh(self) -> None:
        """Starts a refresh unless one is under way or was a moment ago."""
        if self.process is not None and self.process.poll() is None:
            return
        if time.monotonic() - self.last < REFRESH_SECONDS:
            return
        self.last = time.monotonic()
        self.process = subprocess.Popen(
            self.command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: os.nice(5),
            start_new_session=True,
        )

    def stop(self) -> None:
        """Waits for a refresh under way, so that two never write at once."""
        if self.process is not None:
            self.process.wait()


def report(
    console: Console, folder: Path, out: Path, allow_missing: bool, scores: Sequence[Path] = ()
) -> int:
    """Writes the report of a plan, prints the table, and says how it ended."""
    from analysis.frame import ScoresError, add_foreign, collect
    from analysis.report import build
    from analysis.terminal import terminal
    from analysis.unsimulated import section

    plan = read_plan(folder / PLAN_FILE)
    try:
        page = build(folder, out, allow_missing=allow_missing, foreign=scores)
        results = collect(out, plan)
        runs, notes = add_foreign(plan, results.runs, scores)
    except ScoresError as error:
        raise UsageError(f"--scores {error}") from None
    except OSError as error:
        show.tell(
            console,
            f"the report in {folder} cannot be written ({error.strerror}); the results are kept; "
            "free some space or make the folder writable, then --report writes it",
            "red",
        )
        return FAILED
    console.print(terminal(plan, runs, section(results.finished)))
    for note in notes:
        show.tell(console, note)
    console.print(f"report: {page}")
    failed = list(states_of(plan, out).values()).count("failed")
    if failed:
        cells = f"{failed} cell{'s' * (failed > 1)}"
        console.print(
            f"{cells} failed; the report has the errors, and the same command with --retry runs "
            f"{'them' if failed > 1 else 'it'} again"
        )
    return FAILED if failed else OK


def states_of(plan: Plan, out: Path) -> dict[str, State]:
    """What has become of every cell of a plan, by path."""
    return {cell["path"]: read_state(out / cell["path"]) for cell in plan.cells}
