"""Did a change move results? Two output folders side by side: terminal, one page, two CSV files.

``python -m suites.run compare A B``: A is the baseline, B the candidate.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.comparison import ALL_TASKS
from analysis.page import numbered, page_environment
from analysis.pairing import Change, CompareError, FolderComparison, Row, compare_folders
from analysis.stats import INTERVALS, MINIMUM_RUNS_FOR_CLAIMS
from analysis.text import csv_text, interval
from results.record import RecordError, write_atomically

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPE_WIDTH = 200  # columns
_SHOWN = 12  # lines of a list in the terminal; the page has all
NOTE = (
    f"B - A: mean difference of paired runs (same seed, same draw of the data), tasks weighing "
    f"alike. {INTERVALS} Here a run is a pair. Identical: every evaluation episode, also those "
    "during training, equal to the last bit. Under "
    f"{MINIMUM_RUNS_FOR_CLAIMS} pairs nothing is called higher or lower; with many rows a few are "
    "called so by chance, so read the pooled rows first."
)


def headline(found: FolderComparison) -> str:
    """What the comparison comes to, in a sentence or two."""
    total, same = len(found.pairs), found.identical
    if same == total:
        pairs = f"All {total} pairs of runs are" if total > 1 else "The one pair of runs is"
        text = f"{pairs} identical to the last bit."
    else:
        text = f"{same} of {total} pairs of runs are identical to the last bit."
        moved = [row for row in found.pooled if row.verdict.endswith(" in B")]
        text += "".join(
            f" {row.agent} is {row.verdict}: {difference_text(row)} over {row.tasks} "
            f"task{'s' * (row.tasks != 1)}."
            for row in moved
        )
        if not moved:
            text += " Over all tasks no agent is separated from its baseline."
    if found.unmatched:
        count = len(found.unmatched)
        text += f" {count} run{'s' * (count != 1)} finished in one folder only, or in none."
    return text


def difference_text(row: Row) -> str:
    """``+1.2 [0.3, 2.1]``; three digits after the point where less would print as nothing."""
    found = row.estimate
    value, low, high = float(found.value), float(found.low), float(found.high)
    digits = 1 if value == 0 or abs(value) >= 0.05 else 3
    return ("+" if value > 0 else "") + interval(value, low, high, digits)


def difference_csv(rows: Iterable[Row]) -> str:
    """One line per agent and task, and per agent over all tasks."""
    return csv_text(
        "source budget task agent tasks pairs identical score_a score_b difference low high "
        "core_seconds_ratio verdict",
        (
            (
                *(row.source, row.budget, row.task, row.agent, row.tasks, row.pairs),
                *(row.identical, row.mean_a, row.mean_b),
                *(row.estimate.value, row.estimate.low, row.estimate.high),
                *(row.time_ratio, row.verdict),
            )
            for row in rows
        ),
    )


def pair_csv(found: FolderComparison) -> str:
    """One line per pair of runs."""
    return csv_text(
        "source budget task agent seed draw score_a score_b difference identical path_a path_b",
        (
            (
                *(*pair.key, pair.score_a, pair.score_b, pair.difference),
                "yes" if pair.identical else "no",
                pair.a.folder.relative_to(found.a.out).as_posix(),
                pair.b.folder.relative_to(found.b.out).as_posix(),
            )
            for pair in found.pairs
        ),
    )


def write(found: FolderComparison, folder: Path) -> Path:
    """Writes ``index.html``, ``differences.csv`` and ``pairs.csv``; returns the page.

    Raises:
        CompareError: if the folder cannot be written.
    """
    keys = [pair.key for pair in found.pairs]
    qualities = {pair.key.task: str(pair.a.record.task["quality"]) for pair in found.pairs}
    page = (
        page_environment()
        .get_template("compare.html")
        .render(
            found=found,
            headline=headline(found),
            note=NOTE,
            all_tasks=ALL_TASKS,
            difference_text=difference_text,
            qualities=qualities,
            settings=list(dict.fromkeys((key.source, key.budget) for key in keys)),
            index={
                "task": numbered(qualities),
                "quality": numbered(qualities.values()),
                "agent": numbered(key.agent for key in keys),
            },
        )
    )
    texts = {
        "differences.csv": difference_csv(found.rows),
        "pairs.csv": pair_csv(found),
        "index.html": page,
    }
    try:
        for name, text in texts.items():
            write_atomically(folder / name, text.encode())
    except OSError as error:
        raise CompareError(
            f"{folder}: cannot write there ({error.strerror}); name another folder with --to"
        ) from None
    return folder / "index.html"


def print_comparison(console: Console, found: FolderComparison) -> None:
    """The comparison for a terminal: verdict first, then what differs, then the numbers."""
    from rich.text import Text

    console.print(Text(headline(found), style="bold"))
    for title, lines in (
        ("What is not the same", [_change_text(change) for change in found.changes]),
        ("Not in both", found.unmatched),
        ("Left aside", found.a.notes + found.b.notes),
    ):
        if lines:
            console.print(Text(f"\n{title}"))
            for line in lines[:_SHOWN]:
                console.print(Text(f"  {line}", style="dim"))
            if len(lines) > _SHOWN:
                console.print(Text(f"  and {len(lines) - _SHOWN} more on the page", style="dim"))
    console.print(_table(found.rows))
    console.print(Text(NOTE, style="dim"))


def _change_text(change: Change) -> str:
    pairs = f"{change.pairs} pair{'s' * (change.pairs != 1)}"
    return f"{change.what}: {change.a} -> {change.b} ({pairs}; {', '.join(change.agents)})"


def _table(rows: Sequence[Row]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    several = len({(row.source, row.budget) for row in rows}) > 1
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in (["data, budget"] if several else []) + ["agent", "task"]:
        table.add_column(name)
    for name in ("pairs", "identical", "A", "B", "B - A", "core time B/A"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in rows:
        pooled = row.task == ALL_TASKS
        names = [f"{row.source}, {row.budget}"] if several else []
        names += [row.agent, f"{row.task} ({row.tasks})" if pooled else row.task]
        texts = [
            str(row.pairs),
            str(row.identical),
            f"{row.mean_a:z.1f}",
            f"{row.mean_b:z.1f}",
            difference_text(row),
            "" if row.time_ratio != row.time_ratio else f"{row.time_ratio:.2f}",
            row.verdict,
        ]
        style = "bold" if pooled else ""
        table.add_row(*(Text(text, style=style) for text in [*names, *texts]))
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m suites.run compare",
        description="Compares two output folders run by run: did a change move results?",
    )
    parser.add_argument("a", type=Path, metavar="A", help="the baseline: an output folder")
    parser.add_argument("b", type=Path, metavar="B", help="the candidate: another one")
    parser.add_argument(
        "--to", type=Path, metavar="DIR",
        help="where page and CSV files go (default: comparisons/ in B, by the name of A)",
    )  # fmt: skip
    parser.add_argument(
        "--exit-code", action="store_true",
        help="end with 1 unless every run is in both folders, identical to the last bit",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        found = compare_folders(options.a, options.b)
        folder = options.to or found.b.out / "comparisons" / options.a.resolve().name
        page = write(found, folder)
    except (CompareError, RecordError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    from rich.console import Console

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    print_comparison(console, found)
    console.print(f"page: {page}", markup=False, soft_wrap=True)
    moved = found.unmatched or found.identical < len(found.pairs)
    return 1 if options.exit_code and moved else 0


if __name__ == "__main__":
    sys.exit(main())
