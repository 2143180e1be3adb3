"""What the README promises is what CI runs, and the shipped files are as safe as they claim."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_ci_runs_the_readmes_test_command() -> None:
    commands = re.findall(
        r"^(?:python3 -m venv|\.venv/bin).*tox$", (ROOT / "README.md").read_text(), re.M
    )
    assert commands
    assert commands[0] in (ROOT / ".ci" / "run").read_text()


def test_no_pickle_and_no_code_from_data() -> None:
    for package in ("analysis", "baselines", "results", "suites"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text()
            assert "import pickle" not in text, path
            assert "allow_pickle=True" not in text, path
            assert "weights_only=False" not in text, path
            assert not re.search(r"yaml\.(load|unsafe_load|full_load)\(", text), path
            for call in re.findall(r"torch\.load\([^\n]*", text):
                assert "weights_only=True" in call, path


def test_constraints_pin_every_dependency() -> None:
    pinned = {
        re.split(r"[=<>]", line)[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("dependencies = [") : text.index("[tool.setuptools")]
    wanted = {
        re.split(r"[=<>\[]", name)[0].lower().replace("_", "-")
        for name in re.findall(r'^\s*"([^"]+)",', block, re.M)
    }
    assert wanted
    assert wanted <= pinned, wanted - pinned


def test_links_in_the_docs_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    assert len(pages) > 5
    for page in pages:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            if not target.startswith(("http://", "https://", "mailto:")):
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} -> {target}"
