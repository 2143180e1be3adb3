"""``python -m suites.run SUITE``: see ``suites/cli.py``."""

from __future__ import annotations

import sys

from suites import guard


def main() -> int:
    """Checks for hidden packages before it imports anything that would then fail."""
    guard.prefer_packages()  # once more: a mere folder "suites" has kept suites/__init__.py out
    wrong = guard.hidden()
    if wrong:
        print(f"error: {wrong}", file=sys.stderr)
        return 2
    doubt = guard.rivals()
    if doubt:
        print(f"warning: {doubt}", file=sys.stderr)

    from suites import cli

    return cli.main()


if __name__ == "__main__":
    raise SystemExit(main())
