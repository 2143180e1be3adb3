"""The command line of modules that compute what policies are worth in a finite simulator."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from baselines.config import UsageError
from suites.catalog import reference


def main(
    arguments: Sequence[str],
    references: Callable[[], None],
    judge: Callable[[Any], tuple[float, str]],
) -> int:
    """Prints references, or the exact values of the policies in some folders; the exit code.

    Args:
        arguments: folders of runs; none for the references.
        references: prints what is known without any run.
        judge: the expected return of a :class:`suites.policy.Policy`, and what else to say of it.
    """
    from suites.policy import read_policy

    if not arguments:
        references()
    try:
        for folder in arguments:
            policy = read_policy(Path(folder))
            found, more = judge(policy)
            low, high, _ = reference(str(policy.task["environment"]))
            score = 100 * (found - low) / (high - low)
            print(f"{policy}: return {found:.6f}, score {score:.2f}{more}")
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
