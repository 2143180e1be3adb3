"""The verbs of the command line: what is done with finished runs."""

from __future__ import annotations

import argparse
import csv
import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from baselines.config import UsageError
from results.record import (
    RecordError,
    read_episodes,
    read_record,
    to_json,
    write_atomically,
)
from suites import cli
from suites.console import tell

if TYPE_CHECKING:
    import numpy.typing as npt

    from suites.policy import Played, Policy

Verb = Callable[[Console, Sequence[str]], int]
COLUMNS = ("episode", "reset_seed", "return", "score", "length")


def _parser(verb: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"python -m suites.run {verb}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_run(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help=text)
    parser.add_argument(
        "--plugin",
        dest="plugins",
        action="append",
        default=[],
        metavar="FILE",
        help="the agent's plugin file, if it has moved since the run; may be repeated",
    )


def evaluate(console: Console, arguments: Sequence[str]) -> int:
    """``evaluate RUN``: plays episodes of a saved policy.

    Returns:
        0; 1 if ``--same-episodes`` did not give the record's episodes to the last bit.
    """
    parser = _parser(
        "evaluate",
        "Play episodes of a finished run's policy. They are fresh: no training, evaluation or\n"
        "dataset has used their reset seeds. Nothing is written unless you ask for it.",
    )
    _add_run(parser, "folder of a finished cell, or the policy.pt in it")
    add = parser.add_argument
    add("--episodes", type=int, metavar="N", help="how many (default: 10)")
    add("--seed", type=int, metavar="S", help="which block of fresh episodes (default: 0)")
    add(
        "--same-episodes",
        action="store_true",
        help="play the record's own final episodes again, and compare (exit code 1 if they differ)",
    )
    add("--video", type=Path, metavar="FILE", help="film the first episode (.mp4 or .gif)")
    add("--to", type=Path, metavar="FILE", help="also write the episodes (.csv or .json)")
    chosen = parser.parse_args(arguments)
    if chosen.same_episodes and (chosen.episodes, chosen.seed) != (None, None):
        raise UsageError("--same-episodes plays the record's own; leave --episodes and --seed out")
    if chosen.to is not None:
        _check_suffix(chosen.to, ".csv", ".json")

    policy = _read_policy(chosen)
    from suites.evaluate import PolicyError

    recorded = None
    try:
        if chosen.same_episodes:
            folder = chosen.run if chosen.run.is_dir() else chosen.run.parent
            recorded = read_episodes(folder)
            played = policy.replay(read_record(folder), recorded, chosen.video)
        else:
            episodes = 10 if chosen.episodes is None else chosen.episodes
            played = policy.evaluate(episodes, chosen.seed or 0, chosen.video)
    except (RecordError, PolicyError) as error:
        raise UsageError(f"{policy}: {error}") from None
    _show(console, policy, played)
    if chosen.video is not None:
        console.print(f"video: {chosen.video} (episode 0)")
    if chosen.to is not None:
        _write(chosen.to, policy, played)
        console.print(f"written: {chosen.to}")
    if recorded is None:
        return cli.OK
    if played.equals(recorded):
        console.print("equal to the record's final episodes, to the last bit")
        return cli.OK
    difference = abs(played.returns - recorded.returns).max()
    console.print(
        f"not equal to the record's final episodes: returns differ by up to {difference:.6g}; "
        "another machine, device or version computes other last bits"
    )
    return cli.FAILED


def _show(console: Console, policy: Policy, played: Played) -> None:
    first, last = played.reset_seeds[0], played.reset_seeds[-1]
    console.print(
        f"[bold]{policy}[/bold]: {len(played.returns)} episodes, reset seeds {first:,} to {last:,}"
    )
    values = {"return": played.returns, "score": played.scores, "length": played.lengths}
    console.print(f"{'episode':>9}" + "".join(f"{name:>11}" for name in values))
    for i in range(len(played.returns)):
        row = "".join(f"{value[i]:>11.{_digits(name)}f}" for name, value in values.items())
        console.print(f"{i:>9}{row}")
    for name in ("mean", "std", "min", "max"):
        row = "".join(f"{_summary(v, name):>11.{max(1, _digits(k))}f}" for k, v in values.items())
        console.print(f"{name:>9}{row}")


def _summary(values: npt.NDArray[Any], name: str) -> float:
    """Mean, smallest, largest, or the sample standard deviation, of one episode 0."""
    if name == "std":
        return float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return float(getattr(values, name)())


def _digits(name: str) -> int:
    return 0 if name == "length" else 1


def _write(file: Path, policy: Policy, played: Played) -> None:
    values = (played.reset_seeds, played.returns, played.scores, played.lengths)
    rows = [(i, *row) for i, row in enumerate(zip(*(v.tolist() for v in values), strict=True))]
    if file.suffix.lower() == ".csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
        content = text.getvalue().encode()
    else:
        content = to_json(
            {
                "task": policy.task["id"],
                "agent": policy.agent["label"],
                "seed": policy.seed,
                "episodes": [
                    {k: None if v != v else v for k, v in zip(COLUMNS, row, strict=True)}
                    for row in rows
                ],
            }
        )
    with _writing(file):
        write_atomically(file, content)


def export(console: Console, arguments: Sequence[str]) -> int:
    """``export RUN FILE``: a policy for PyTorch alone, runs as a table, or their records."""
    parser = _parser(
        "export",
        "Export a finished run's policy as a torch.export program that needs only PyTorch (FILE\n"
        "ends in .pt2); finished runs as a tidy table, one row per run (.csv); or their records\n"
        "without policies, for import into another output folder (.zip).",
    )
    _add_run(parser, "folder of a finished cell; for .csv and .zip also of an output or a report")
    parser.add_argument("file", type=Path, metavar="FILE", help="ends in .pt2, .csv or .zip")
    parser.add_argument(
        "--episodes", action="store_true", help="one row per final episode instead (.csv)"
    )
    chosen = parser.parse_args(arguments)
    kind = _check_suffix(chosen.file, ".pt2", ".csv", ".zip")
    if chosen.episodes and kind != ".csv":
        raise UsageError("--episodes is for tables; name the file .csv")
    if kind == ".zip":
        from suites.archive import pack

        folders = _finished(chosen.run)
        with _writing(chosen.file):
            pack(folders, chosen.file)
        console.print(f"written: {chosen.file} ({len(folders):,} runs)")
        return cli.OK
    if kind == ".csv":
        from suites.api import load_episodes, load_results

        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            table = (load_episodes if chosen.episodes else load_results)(chosen.run)
        if table.empty:
            raise UsageError(f"{chosen.run} has no finished runs to export")
        for warning in told:
            tell(console, f"warning: {warning.message}")
        with _writing(chosen.file):
            write_atomically(chosen.file, table.to_csv(index=False).encode())
        console.print(f"written: {chosen.file} ({len(table):,} rows)")
        return cli.OK
    policy = _read_policy(chosen)
    from suites.export import export_policy

    with _writing(chosen.file):
        difference = export_policy(policy, chosen.file)
    console.print(
        f"written: {chosen.file}, {policy}; its actions equal the policy's within "
        f"{difference:.1e} of the largest"
    )
    return cli.OK


def _finished(where: Path) -> list[Path]:
    """Folders of the runs in an output, a report's or a cell's folder that ended well."""
    from analysis.frame import load
    from suites.api import locate

    out, plan = locate(where)
    paths = load(out, plan)["path"]
    if paths.empty:
        raise UsageError(f"{where} has no finished runs to export")
    return [out / path for path in paths]


def take_in(console: Console, arguments: Sequence[str]) -> int:
    """``import FILE``: finished runs out of an archive into an output folder."""
    parser = _parser(
        "import",
        "Take finished runs of another machine, written by export, into an output folder. Suites\n"
        "that plan these runs skip them and show them in their reports. What is there already\n"
        "stays as it is; policies are not in such a file.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="ends in .zip")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("results/runs"),
        help="output folder (default: %(default)s)",
    )
    chosen = parser.parse_args(arguments)
    from suites.archive import unpack

    taken = unpack(chosen.file, chosen.out)
    there = f"; {len(taken.present):,} were there already" if taken.present else ""
    console.print(f"taken into {chosen.out}: {len(taken.new):,} runs{there}")
    for line in taken.contents:
        tell(console, line)
    console.print("run their suite with the same budget and seeds: it finds them done and reports")
    return cli.OK


def compare(console: Console, arguments: Sequence[str]) -> int:
    """``compare A B``: two output folders side by side."""
    from analysis.compare import main

    return int(main(arguments))


def _read_policy(chosen: argparse.Namespace) -> Policy:
    try:
        from suites.policy import read_policy
    except Exception as error:
        renderer = os.environ.get("MUJOCO_GL")
        if renderer is None:
            raise
        raise UsageError(  # MuJoCo loads the renderer when it is imported
            f"MUJOCO_GL={renderer} does not work on this machine ({type(error).__name__}: {error});"
            " unset it, or install that renderer"
        ) from None
    return read_policy(chosen.run, chosen.plugins)


def _check_suffix(file: Path, *known: str) -> str:
    suffix = file.suffix.lower()
    if suffix not in known:
        raise UsageError(f"{file}: name the file {' or '.join(known)}")
    return suffix


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"{file} cannot be written ({error.strerror})") from None


VERBS: dict[str, tuple[str, Verb]] = {
    "evaluate": ("RUN: play fresh episodes of a run's policy, and film one", evaluate),
    "export": (
        "RUN FILE: a policy for PyTorch alone (.pt2); runs as a table (.csv) or to import (.zip)",
        export,
    ),
    "import": ("FILE: take in finished runs that export wrote on another machine", take_in),
    "compare": ("A B: two output folders side by side", compare),
}
