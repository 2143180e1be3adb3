"""The suite's packages have common names; this sees to it that Python finds the right ones.

Standard library only, since it runs before anything that another package could hide.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("analysis", "baselines", "fastq", "results", "suites")
OURS = "fast-q-bench"
ROOT = Path(__file__).resolve().parents[1]
# A line of top_level.txt ("baselines") or of RECORD ("baselines/__init__.py,sha256=..,12").
_PROVIDES = re.compile(rf"^({'|'.join(PACKAGES)})(?:/|\.py\b|\s*$)", re.M)


def prefer_packages() -> None:
    """Makes the suite's packages win over mere folders of their names.

    To Python, a folder without ``__init__.py``, such as the ``results`` that runs are written to,
    is a package too, and one in the current folder comes before what an editable installation
    provides. A real package anywhere on the path comes before both, so the suite's goes there.
    """
    folders = [name for name in PACKAGES if _is_folder(_spec(name))]
    if folders:
        sys.path.append(str(ROOT))
    for name in folders:
        if sys.modules.pop(name, None) is not None:
            importlib.import_module(name)


def hidden() -> str:
    """One sentence if Python finds another package in place of one of the suite's, else ""."""
    for name in PACKAGES:
        spec = _spec(name)
        if spec is None or not spec.origin:
            return f'the package "{name}" is not in {ROOT}; install this suite again'
        place = Path(spec.origin).resolve()
        if place.parent != ROOT / name:
            return _describe(name, place.parent if place.name == "__init__.py" else place)
    return ""


def _describe(name: str, place: Path) -> str:
    owners = ", ".join(sorted(rival for rival, provided in _rivals() if provided == name))
    origin = f" (installed by {owners})" if owners else ""
    if place.parent == Path.cwd():
        remedy = "start from another folder, or set PYTHONSAFEPATH=1"
    else:
        remedy = f"take {place.parent} off Python's path, or give this suite its own environment"
    return f'{place}{origin} hides this suite\'s package "{name}" in {ROOT}; {remedy}'


def rivals() -> str:
    """One sentence if another installed distribution provides a package of these names, else ""."""
    found = sorted(set(_rivals()))
    if not found:
        return ""
    who = " and ".join(f'{rival} (package "{name}")' for rival, name in found)
    return (
        f"{who} also provides a package that this suite has; Python uses the one in {ROOT} here, "
        "and other programs may find the wrong one: give this suite its own environment"
    )


def _rivals() -> Iterator[tuple[str, str]]:
    for distribution in distributions():
        # Reading text beats importlib.metadata.packages_distributions, which takes ten times as
        # long because it parses every line of every RECORD.
        text = distribution.read_text("top_level.txt") or distribution.read_text("RECORD") or ""
        names = set(_PROVIDES.findall(text))
        if names and _normalized(str(distribution.name)) != OURS:
            yield from ((f"{distribution.name} {distribution.version}", name) for name in names)


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _spec(name: str) -> ModuleSpec | None:
    try:
        return find_spec(name)
    except ValueError:  # already imported, in an unusual way
        return None


def _is_folder(spec: ModuleSpec | None) -> bool:
    return spec is not None and not spec.origin and spec.submodule_search_locations is not None
