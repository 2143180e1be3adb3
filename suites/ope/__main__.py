"""``python -m suites.ope judge | calibrate``: off-policy estimates of trained policies.

``judge FOLDER...`` estimates the return of trained policies from the held-out episodes of their
data, with settings of your choice. ``calibrate`` checks estimates and intervals where the truth is
known, and draws it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from baselines.config import UsageError
from results.record import RecordError, read_record
from suites.datasets import get_source, store
from suites.datasets.store import Dataset, DatasetError
from suites.ope.estimators import Settings

QUIET_SECONDS = 10.0  # between lines of progress


def parser() -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(
        prog="python -m suites.ope", description="Off-policy estimates, and how right they are."
    )
    verbs = whole.add_subparsers(dest="verb", required=True)
    judging = verbs.add_parser("judge", help="what held-out episodes say of trained policies")
    judging.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="of a run")
    judging.add_argument("--behaviour", choices=("auto", "logged", "estimated"))
    checking = verbs.add_parser("calibrate", help="estimates against the truth, over many logs")
    checking.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER", help="runs of sepsis tasks, judged too"
    )
    checking.add_argument("--logs", type=int, default=200, help="drawn independently (200)")
    checking.add_argument("--episodes", type=int, default=1000, help="of each (1000)")
    checking.add_argument("--to", type=Path, default=Path("calibration"), help="folder")
    for verb in (judging, checking):
        verb.add_argument("--method", choices=("wis", "pdwis"))
        verb.add_argument("--interval", choices=("student", "bca", "percentile"))
        verb.add_argument("--soften", type=float, help="towards the behaviour (0.01)")
        verb.add_argument("--clip", type=float, help="largest weight (1000; inf for none)")
        verb.add_argument("--level", type=float, help="nominal coverage (0.95)")
        verb.add_argument("--resamples", type=int, help="of the bootstrap (2000)")
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code (0 ok, 2 wrong input)."""
    chosen = parser().parse_args(arguments)
    given = {
        field.name: value
        for field in fields(Settings)
        if (value := getattr(chosen, field.name, None)) is not None
    }
    try:
        settings = Settings(**given)
        return _judge(chosen, settings) if chosen.verb == "judge" else _calibrate(chosen, settings)
    except (UsageError, DatasetError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _judge(chosen: argparse.Namespace, settings: Settings) -> int:
    from suites.ope.judging import judge
    from suites.policy import read_policy

    for folder in chosen.folders:
        policy = read_policy(folder)
        training, held_out = _dataset_of(folder).split()
        if held_out is None:
            raise UsageError(
                f"{policy}: its data holds no episodes out; that is done for tasks without a "
                "simulator and for the sepsis tasks"
            )
        (found,) = judge(
            policy.actor, policy.spec, policy.transform, held_out, [policy.seed], training, settings
        )
        print(f"{policy}")
        for name, value in found.items():
            print(f"  {name:<24} {value:.6g}")
        if "ope_effective_episodes" not in found:
            print("  no estimate: it takes integer actions, known or estimated probabilities, and")
            print("  a policy that always chooses one action")
    return 0


def _dataset_of(folder: Path) -> Dataset:
    """The data that a run was trained on, made again if it is not in the cache."""
    try:
        record = read_record(folder)
    except RecordError as error:
        raise UsageError(str(error)) from None
    task, source = record.task, get_source(record.task["source"])
    key, seed = task.get("key", task["id"]), int(record.dataset.get("seed", 0))
    data = store.load(source.ensure(key, record.budget["transitions"], seed))
    if data.card["id"] != record.dataset["id"]:
        raise UsageError(f"{folder}: the data of {task['id']} has changed since; train again")
    return data


def _calibrate(chosen: argparse.Namespace, settings: Settings) -> int:
    from analysis.calibration import table
    from suites.ope.calibration import calibrate, write

    for name in ("logs", "episodes"):
        if getattr(chosen, name) < 2:
            raise UsageError(f"--{name} must be at least 2, not {getattr(chosen, name)}")
    spoken = time.monotonic()

    def say(done: int, total: int) -> None:
        nonlocal spoken
        if time.monotonic() - spoken > QUIET_SECONDS:
            spoken = time.monotonic()
            print(f"{done} of {total} logs", file=sys.stderr)

    results = calibrate(settings, chosen.logs, chosen.episodes, chosen.folders, say)
    print(table([vars(result) for result in results]))
    for path in write(results, settings, chosen.episodes, chosen.to):
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
