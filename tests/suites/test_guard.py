"""Packages of our names, in all the places where Python may find them; in processes of their own.

Most run without site-packages (-S), so that every kind of installation is tested the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What setuptools' editable installation does: a finder behind the path's own.
EDITABLE = f"""
import sys
from importlib.machinery import PathFinder
from importlib.util import spec_from_file_location

class Editable:
    @staticmethod
    def find_spec(name, path=None, target=None):
        parent, _, child = name.rpartition(".")
        if name in ("analysis", "baselines", "results", "suites"):
            return spec_from_file_location(name, f"{ROOT}/{{name}}/__init__.py")
        if parent in ("analysis", "baselines", "results", "suites"):
            return PathFinder.find_spec(name, [f"{ROOT}/{{parent}}"])

sys.meta_path.append(Editable)
"""


def run(code: str, cwd: Path, *path: Path) -> subprocess.CompletedProcess[str]:
    """Runs code in a folder, with that folder and then ``path`` first on Python's path."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def distribution(site: Path, name: str, package: str, listed_in: str) -> None:
    """Something like an installed distribution with one package."""
    (site / package).mkdir(parents=True)
    (site / package / "__init__.py").touch()
    info = site / f"{name}-0.1.6.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.6\n")
    line = {"top_level.txt": package, "RECORD": f"{package}/__init__.py,sha256=x,0"}[listed_in]
    (info / listed_in).write_text(f"{name}-0.1.6.dist-info/METADATA,,\n{line}\n")


@pytest.mark.parametrize("before", ["", "import {name}"])
@pytest.mark.parametrize("name", ["results", "suites", "analysis"])
def test_a_folder_of_runs_is_no_obstacle(name: str, before: str, tmp_path: Path) -> None:
    """The default output folder, ./results/runs, is a package to Python, and comes first."""
    (tmp_path / name / "runs").mkdir(parents=True)
    ours = f"import {name}; assert {name}.__file__ == '{ROOT / name / '__init__.py'}'"
    lines = [
        EDITABLE,
        before.format(name=name),
        "import suites.guard as g; g.prefer_packages(); assert not g.hidden(), g.hidden()",
    ]
    done = run("\n".join([*lines, ours]), tmp_path)
    assert done.returncode == 0, done.stderr
    unguarded = run(f"{EDITABLE}\n{ours}", tmp_path)
    assert "AssertionError" in unguarded.stderr


def test_the_suite_starts_where_its_results_lie(tmp_path: Path) -> None:
    """With this installation, whichever kind it is."""
    (tmp_path / "results" / "runs").mkdir(parents=True)
    code = "from suites.catalog import reference; print(reference('hopper'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "suites.run", "core3", "--status"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "core3 has not run at budget quick" in " ".join(done.stderr.split())


@pytest.mark.parametrize("place", ["baselines/__init__.py", "results.py"])
def test_what_hides_a_package_stops_the_suite_with_a_sentence(place: str, tmp_path: Path) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).touch()
    name = place.split("/")[0]
    done = run("import runpy; runpy.run_module('suites.run', run_name='__main__')", tmp_path, ROOT)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / name} hides this suite's package")
    assert f"in {ROOT}; start from another folder, or set PYTHONSAFEPATH=1" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = run("from suites import load_results", tmp_path, ROOT)
    assert f"ImportError: {tmp_path / name} hides this suite's package" in done.stderr
    safe = run(
        "import sys; sys.path.remove(''); import suites; assert not suites.guard.hidden()",
        tmp_path,
        ROOT,
    )
    assert safe.returncode == 0, safe.stderr


@pytest.mark.parametrize("listed_in", ["top_level.txt", "RECORD"])
def test_another_distribution_is_named(listed_in: str, tmp_path: Path) -> None:
    site, here = tmp_path / "site", tmp_path / "here"
    here.mkdir()
    distribution(site, "Baselines.Zoo", "baselines", listed_in)
    (site / "unrelated-1.0.dist-info").mkdir()  # broken: no metadata at all
    code = "import suites.guard as g; print(g.hidden()); print(g.rivals())"

    ours_first = run(code, here, ROOT, site)
    hidden, rivals = ours_first.stdout.splitlines()
    assert not hidden
    assert rivals.startswith('Baselines.Zoo 0.1.6 (package "baselines") also provides')
    assert f"Python uses the one in {ROOT}" in rivals
    assert "own environment" in rivals
    warned = run("from suites import load_results", here, ROOT, site)
    assert "UserWarning: Baselines.Zoo 0.1.6" in warned.stderr

    theirs_first = run(code, here, site, ROOT)
    (hidden, _) = theirs_first.stdout.splitlines()
    assert hidden.startswith(
        f"{site / 'baselines'} (installed by Baselines.Zoo 0.1.6) hides this suite's package"
    )
    assert f"take {site} off Python's path" in hidden


def test_our_own_distribution_is_no_rival(tmp_path: Path) -> None:
    for name, package in (("fast-q-bench", "baselines"), ("Fast_Q.Bench", "results")):
        distribution(tmp_path / "site" / name, name, package, "top_level.txt")
    distribution(tmp_path / "other", "harmless", "resultset", "RECORD")
    path = [*(tmp_path / "site").iterdir(), tmp_path / "other"]
    done = run("import suites.guard as g; print(repr(g.rivals()))", ROOT, *path)
    assert done.stdout.strip() == "''"
