"""The writer of synthetic suites as a fixture, and a way to the modules that make them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # for `synthetic.py` and `studied.py`

from synthetic import write_suite


@pytest.fixture(scope="session")
def make() -> Callable[..., Path]:
    """The writer of synthetic suites."""
    return write_suite
