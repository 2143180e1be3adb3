"""The house rules that no reviewer should have to check: who imports whom, and what stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"analysis", "baselines", "results", "suites", "fastq"}
ALLOWED = {
    "results": set(),
    "baselines": set(),
    "fastq": {"baselines"},
    "suites": {"baselines", "results", "analysis"},  # analysis only to write a run's report
    "analysis": {"results"},
}
ALGORITHMS = {
    path.stem
    for path in (ROOT / "baselines").glob("*.py")
    if "Config: ClassVar" in path.read_text()
} - {"contract", "single", "check", "registry"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py")) if (ROOT / package).is_dir() else []


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_imports_go_one_way(package: str) -> None:
    for path in sources(package):
        foreign = {name.split(".")[0] for name in imports(path)} & PACKAGES - {package}
        assert foreign <= ALLOWED[package], f"{path.relative_to(ROOT)} imports {foreign}"


def test_analysis_reads_results_through_the_record_only() -> None:
    for path in sources("analysis"):
        seen = {n for n in imports(path) if n.split(".")[0] == "results"}
        assert all(name.startswith("results.record") for name in seen), path


def test_suites_and_plugins_name_no_algorithm() -> None:
    assert {"bc", "td3_bc", "iql"} <= ALGORITHMS
    for path in [*sources("suites"), *sources("fastq")]:
        named = {name.split(".")[1] for name in imports(path) if name.startswith("baselines.")}
        assert not named & ALGORITHMS, path


def test_algorithms_do_not_import_each_other_and_stay_short() -> None:
    for name in ALGORITHMS:
        path = ROOT / "baselines" / f"{name}.py"
        others = {n.split(".")[1] for n in imports(path) if n.startswith("baselines.")}
        assert not others & ALGORITHMS, path
        assert len(path.read_text().splitlines()) < 250, path


@pytest.mark.parametrize(
    "code",
    [
        "import analysis.frame, analysis.tables, analysis.stats, analysis.report",
        "from suites.cli import main; main(['--list'])",
        "from suites.cli import main; main(['core3', '--status'])",
        "import results.record, suites.plan, suites.launch, baselines.contract, baselines.registry",
        "import suites.datasets.local",
    ],
)
def test_listing_planning_and_reporting_need_no_torch(code: str) -> None:
    check = f"{code}\nimport sys\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT, capture_output=True)
