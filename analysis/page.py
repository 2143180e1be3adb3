"""What every page of the analysis is made with: one file, nothing fetched, names are only text."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def page_environment() -> Environment:
    """Templates that escape what they print and fail on what they do not know."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value, digits=1: (
        "" if value is None or value != value else f"{value:,.{digits}f}"
    )
    return environment


def numbered(names: Iterable[str]) -> dict[str, int]:
    """Numbers for the filters, which need not care about the letters in a name."""
    return {name: i for i, name in enumerate(dict.fromkeys(names))}
