"""``python -m suites.datasets list | describe | generate | verify | fetch | export | mimic``.

``list`` shows all tasks; ``describe TASK`` prints and draws what a dataset looks like; ``generate
TASK...`` (or ``all``) makes datasets ahead of time; ``verify TASK`` replays stored transitions in
the simulator. ``describe`` and ``verify`` also take a dataset's folder, and make a task's data
first if it is not in the cache. ``fetch SOURCE TASK...`` downloads recorded datasets, ``export
TASK`` writes one for other people's tools, and ``mimic EXTRACT.csv`` makes a file to train on of
your own table of intensive-care stays.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from baselines.config import UsageError
from results.record import normalized_score
from suites.catalog import TASKS, reference
from suites.datasets import get_source, local, store, task_key, task_label
from suites.datasets.store import CARD_FILE, Dataset, DatasetError

FAULTY, USAGE = 1, 2  # exit codes
PIPE_WIDTH = 120  # columns
QUIET_SECONDS = 10.0  # between lines of progress where there is no terminal


def parser() -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(
        prog="python -m suites.datasets", description="The local datasets."
    )
    verbs = whole.add_subparsers(dest="verb", required=True)
    texts = {
        "list": "all tasks, and what is known of those in the cache",
        "describe": "returns, lengths, policies and coverage, in words and as a picture",
        "generate": "make datasets now instead of on their first use",
        "verify": "replay stored transitions in the simulator",
        "fetch": "download datasets of source d4rl or minari that are not on this machine",
        "export": "write a dataset as a D4RL file or a Minari dataset",
        "mimic": "make a file to train on of your own table of intensive-care stays",
    }
    made = {name: verbs.add_parser(name, help=text) for name, text in texts.items()}
    made["describe"].add_argument("data", metavar="TASK|FOLDER")
    made["describe"].add_argument("--picture", type=Path, help="default: TASK.png here")
    made["verify"].add_argument("data", nargs="+", metavar="TASK|FOLDER")
    made["generate"].add_argument("data", nargs="+", metavar="TASK", help='or "all"')
    fetching, exporting = made.pop("fetch"), made["export"]
    binning = made.pop("mimic")
    binning.add_argument("data", type=Path, metavar="EXTRACT.csv")
    binning.add_argument("--bins", type=int, default=5, help="levels of each treatment (5)")
    binning.add_argument("--to", type=Path, required=True, help="a file, .npz")
    binning.add_argument(
        "--column", action="append", default=[], metavar="ROLE=NAME",
        help="your name of a column: stay, step, iv_fluid, vasopressor, reward, survived",
    )  # fmt: skip
    fetching.add_argument("source", metavar="SOURCE", help="d4rl or minari")
    fetching.add_argument("data", nargs="+", metavar="TASK", help='or "all" of source d4rl')
    exporting.add_argument("data", metavar="TASK|FOLDER")
    exporting.add_argument("--format", required=True, choices=("d4rl", "minari"))
    exporting.add_argument(
        "--to", type=Path, required=True, help="a file or folder (d4rl), Minari's folder (minari)"
    )
    for name in ("describe", "verify", "export"):
        made[name].add_argument("--source", default="local", help="of the task (default: local)")
        made[name].add_argument("--data-dir", type=Path, help="where source d4rl looks first")
    for name, sub in made.items():
        sub.add_argument("--size", type=int, help="transitions; D4RL's number by default")
        sub.add_argument("--seed", type=int, default=0, help="another seed is another draw")
        if name != "list":
            sub.add_argument("--jobs", type=int, default=1, help="processes that make data")
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code (0 ok, 1 a dataset is wrong, 2 wrong input)."""
    chosen = parser().parse_args(arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    verbs = {"list": _list, "describe": _describe, "generate": _generate, "verify": _verify}
    verbs |= {"fetch": _fetch, "export": _export, "mimic": _mimic}
    try:
        return verbs[chosen.verb](chosen, console)
    except (DatasetError, UsageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE


def _list(chosen: argparse.Namespace, console: Console) -> int:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("task", no_wrap=True)
    for column in ("transitions", "MB", "episodes", "mean", "best", "policies", "made in"):
        table.add_column(column, justify="right", no_wrap=True)
    notes = []
    for task in local.tasks():
        if (why := local.missing(task)) is not None:
            notes.append(f"missing: {why}")
            table.add_row(task, *["-"] * 6, "missing")
            continue
        size = chosen.size or local.default_size(task)
        try:
            data = store.load(local.folder(task, chosen.size, chosen.seed))
        except DatasetError:
            table.add_row(task, f"{size:,}", *["-"] * 5, "not made")
            continue
        table.add_row(task, *_facts(data))
    console.print(table)
    notes.insert(0, "mean and best: scores of complete episodes, 0 for random and 100 for expert")
    print("\n".join([*notes, f"cache: {local.cache_root()}"]))
    return 0


def _facts(data: Dataset) -> list[str]:
    card = data.card
    minimum, maximum, _ = reference(TASKS[card["task"]].environment)
    best = float(normalized_score(card["return_best"], minimum, maximum))
    seconds = card.get("seconds")
    return [
        f"{card['transitions']:,}",
        f"{data.table.nbytes / 1e6:,.0f}",
        f"{card['episodes']:,}",
        f"{card['score_mean']:.1f}",
        f"{best:.1f}",
        str(len(card["policies"])),
        "-" if seconds is None else f"{seconds:.0f} s x {card['jobs']}",
    ]


def _describe(chosen: argparse.Namespace, console: Console) -> int:
    from suites.datasets import describe

    data = _data(chosen.data, chosen, console)
    print(describe.describe(data))
    picture = chosen.picture or Path(f"{task_label(data.card['task'])}.png")
    try:
        describe.draw(data, picture)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{picture}: cannot be drawn there ({error}); try --picture") from None
    print(f"\npicture: {picture}")
    return 0


def _generate(chosen: argparse.Namespace, console: Console) -> int:
    tasks = list(chosen.data)
    if tasks == ["all"]:
        tasks = [task for task in local.tasks() if local.missing(task) is None]
    for task in tasks:  # every name is looked at before the first minutes are spent
        local.identity(task, chosen.size, chosen.seed)
    for task in tasks:
        folder = _ensure(task, chosen, console)
        print(f"{task}: {folder}")
    return 0


def _verify(chosen: argparse.Namespace, console: Console) -> int:
    from suites.datasets.verify import QUANTILES, verify

    faulty = False
    for name in chosen.data:
        data = _data(name, chosen, console)
        verdict = verify(data)
        faulty = faulty or bool(verdict.faults)
        print(
            f"{name}: {len(data.table):,} transitions declared {verdict.env_id}; "
            f"{verdict.replayed:,} replayed; {verdict.hidden:.1%} cannot be, a number is clipped"
        )
        if verdict.errors:
            print(f"  {'absolute error':<36}" + "".join(f"{q:>9.0%}" for q in QUANTILES))
        for what, errors in verdict.errors.items():
            print(f"  {what:<36}" + "".join(f"{error:>9.1e}" for error in errors))
        for fault in verdict.faults:
            print(f"  WRONG  {fault}")
        if verdict.fits:
            print(f"  the transitions are those of {' or '.join(verdict.fits)}")
        if not verdict.faults:
            print("  ok")
    return FAULTY if faulty else 0


def _fetch(chosen: argparse.Namespace, console: Console) -> int:
    from suites.fetch import fetch_all

    source = get_source(chosen.source)
    tasks = list(chosen.data)
    if tasks == ["all"] and hasattr(source, "tasks"):
        tasks = list(source.tasks())
    for task, place in zip(tasks, fetch_all(source, chosen.source, tasks), strict=True):
        print(f"{task}: {place}")
    return 0


def _export(chosen: argparse.Namespace, console: Console) -> int:
    from suites.datasets.export import export

    data = _data(chosen.data, chosen, console)
    print(f"{chosen.data}: {export(data, chosen.format, chosen.to)}")
    return 0


def _mimic(chosen: argparse.Namespace, console: Console) -> int:
    from suites.datasets import mimic

    extract = mimic.convert(chosen.data, chosen.bins, mimic.read_names(chosen.column))
    mimic.save(extract, chosen.to)
    print(f"{mimic.describe(extract)}\n{chosen.to}")
    return 0


def _data(name: str, chosen: argparse.Namespace, console: Console) -> Dataset:
    """A dataset by its folder, or by its task."""
    if (Path(name) / CARD_FILE).exists():
        return store.load(Path(name), verify=True)
    if chosen.source == "local":
        return store.load(_ensure(name, chosen, console))
    source = get_source(chosen.source)
    key = task_key(source, name, chosen.data_dir)
    return store.load(source.ensure(key, chosen.size, chosen.seed))


def _ensure(task: str, chosen: argparse.Namespace, console: Console) -> Path:
    """The task's folder, made with a bar in a terminal and with lines elsewhere."""
    options: dict[str, Any] = {"size": chosen.size, "seed": chosen.seed, "jobs": chosen.jobs}
    if not console.is_terminal:
        spoken = time.monotonic()

        def say(done: int, total: int) -> None:
            nonlocal spoken
            if time.monotonic() - spoken > QUIET_SECONDS:
                spoken = time.monotonic()
                print(f"{task}: {done:,} of {total:,} transitions", file=sys.stderr)

        return local.ensure(task, progress=say, **options)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bars:
        bar = bars.add_task(task, total=None)
        return local.ensure(
            task,
            progress=lambda done, total: bars.update(bar, completed=done, total=total),
            **options,
        )


if __name__ == "__main__":
    raise SystemExit(main())
