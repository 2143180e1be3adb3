"""Hooks of mkdocs: the README is the site's first page, and links may lead out of ``docs/``.

Pages are written to be read in the repository, where they link to code, figures and results. What
is linked comes along under ``repository/``, and the links are turned to it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"(\]\()(?!\w+:|#)([^)#\s]+)")


def _place(path: PurePosixPath) -> str:
    """Where a file of the repository is in the site."""
    if path == PurePosixPath("README.md"):
        return "index.md"
    if path.parts[0] == "docs":
        return PurePosixPath(*path.parts[1:]).as_posix()
    return f"repository/{path}"


def _origin(place: str) -> PurePosixPath:
    """Where a page of the site is in the repository."""
    if place == "index.md":
        return PurePosixPath("README.md")
    if place.startswith("repository/"):
        return PurePosixPath(place.removeprefix("repository/"))
    return PurePosixPath("docs", place)


def _targets(markdown: str, origin: PurePosixPath) -> list[PurePosixPath]:
    """What a page links to, relative to the repository."""
    links = (link for _, link in _LINK.findall(markdown))
    return [PurePosixPath(os.path.normpath(origin.parent / link)) for link in links]


def on_files(files: Files, config: Any) -> Files:
    """Adds the README and all that pages link to."""
    waiting = [PurePosixPath("README.md"), *(_origin(f.src_uri) for f in files)]
    seen: set[PurePosixPath] = set()
    while waiting:
        path = waiting.pop()
        if path in seen or not (ROOT / path).is_file():
            continue  # what is not there is told by mkdocs
        seen.add(path)
        if files.get_file_from_path(_place(path)) is None:
            files.append(File.generated(config, _place(path), abs_src_path=str(ROOT / path)))
        if path.suffix == ".md":
            waiting += _targets((ROOT / path).read_text(), path)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links in the repository to links in the site."""
    place = page.file.src_uri
    origin = _origin(place)

    def turned(match: re.Match[str]) -> str:
        target = _place(PurePosixPath(os.path.normpath(origin.parent / match[2])))
        return match[1] + os.path.relpath(target, PurePosixPath(place).parent)

    return _LINK.sub(turned, markdown)
