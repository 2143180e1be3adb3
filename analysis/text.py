"""Numbers, CSV and Markdown as every output of the analysis writes them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def interval(value: float, low: float, high: float, digits: int = 1) -> str:
    """``71.2 [69.9, 72.4]``, without brackets where there is no interval."""
    bounds = "" if math.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{value:.{digits}f}{bounds}"


def slug(name: str) -> str:
    """A name as a part of a file's name."""
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())


def p_value(p: float) -> str:
    """Three digits are as many as a p-value is worth."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def csv_text(header: str, rows: Iterable[Sequence[Any]]) -> str:
    """CSV with six significant digits; NaN becomes an empty field. Column names have no blanks."""

    def plain(item: Any) -> Any:
        if isinstance(item, (float, np.floating, np.ndarray)):
            return "" if math.isnan(item) else f"{float(item):.6g}"
        return item

    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header.split())
    writer.writerows([plain(item) for item in row] for row in rows)
    return stream.getvalue()


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, its first column to the left and the others to the right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)


def _escaped(text: str) -> str:
    """A name must neither end a Markdown cell nor start an HTML element."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def bullets(sentences: Iterable[str]) -> str:
    """A list of sentences."""
    return "\n".join(f"- {_escaped(sentence)}" for sentence in sentences)
