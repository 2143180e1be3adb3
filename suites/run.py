"""``python -m suites.run SUITE``: see ``suites/cli.py``."""

from suites.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
