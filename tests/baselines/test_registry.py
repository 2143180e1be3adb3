"""Agents by name: what is found, and what is said when it is not."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from baselines import registry
from baselines.bc import BC
from baselines.config import UsageError
from baselines.contract import Needs
from baselines.registry import GROUP, Registry, load_plugin, make_config, needs_of

PLUGIN = "from baselines.bc import BC\nclass Mine(BC):\n    pass\nAGENTS = {'mine': Mine}\n"


def entry_point(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [importlib.metadata.EntryPoint(name, value, GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == GROUP else [])


def test_built_in_agents_are_found() -> None:
    known = Registry()
    assert {"bc", "td3_bc", "iql", "random"} <= set(known.names())
    for name in registry.BUILT_IN:
        assert known.get(name).version >= 1


def test_typos_get_a_suggestion() -> None:
    with pytest.raises(UsageError, match=r'^unknown agent "td3bc" \(did you mean "td3_bc"\?\)$'):
        Registry().get("td3bc")
    with pytest.raises(UsageError, match=r"^suite\.yaml: unknown agent"):
        Registry().get("nothing", "suite.yaml")


def test_a_plugin_file_brings_agents(tmp_path: Path) -> None:
    file = tmp_path / "plugin.py"
    file.write_text(PLUGIN)
    known = Registry([file])
    assert issubclass(known.get("mine"), BC)
    assert known.sources["mine"] == f"plugin {file}"
    assert "mine" in Registry([file, str(file)]).names()  # given twice


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is not there"),
        ("1 / 0", "fails: ZeroDivisionError: division by zero"),
        ("def broken(:", "fails: SyntaxError"),
        ("x = 1", "must define AGENTS"),
        ("AGENTS = {}", "must define AGENTS"),
        ("AGENTS = ['bc']", "must define AGENTS"),
        ("AGENTS = {'../../evil': int}", "a label is made of letters, digits"),
        ("AGENTS = {'a,b': int}", "a label is made of letters, digits"),
        (PLUGIN.replace("'mine'", "'bc'"), 'two agents are called "bc": built in and plugin'),
    ],
)
def test_bad_plugins_are_explained(text: str | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "plugin.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError, match=message):
        Registry([file])


def test_a_plugin_must_be_python(tmp_path: Path) -> None:
    file = tmp_path / "plugin.txt"
    file.write_text(PLUGIN)
    with pytest.raises(UsageError, match=r"must end in \.py"):
        load_plugin(file)


def test_two_plugins_may_not_share_a_name(tmp_path: Path) -> None:
    files = [tmp_path / "a.py", tmp_path / "b.py"]
    for file in files:
        file.write_text(PLUGIN)
    with pytest.raises(UsageError, match=r'called "mine": plugin .*a\.py and plugin .*b\.py'):
        Registry(files)


def test_entry_points_are_found_and_imported_when_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry_point("theirs", "baselines.bc:BC [extra]", monkeypatch)
    known = Registry()
    assert known.targets["theirs"] == "baselines.bc:BC"
    assert known.get("theirs") is BC


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_module:Agent", "cannot import no_such_module:Agent .*ModuleNotFoundError"),
        ("baselines.bc:Agent", "cannot import baselines.bc:Agent .*AttributeError"),
        ("baselines.bc:BCConfig", r'agent "theirs" .* lacks Config, version, needs, update'),
        ("baselines.registry:GROUP", 'agent "theirs" .* must be a class'),
    ],
)
def test_bad_entry_points_are_explained(
    value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry_point("theirs", value, monkeypatch)
    known = Registry()  # listing works, though the agent does not
    assert "theirs" in known.names()
    with pytest.raises(UsageError, match=message):
        known.get("theirs")


def test_an_entry_point_may_not_take_a_built_in_name(monkeypatch: pytest.MonkeyPatch) -> None:
    entry_point("iql", "their.module:IQL", monkeypatch)
    with pytest.raises(UsageError, match=r'two agents are called "iql": built in and installed by'):
        Registry()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"Config": int}, "Config must be a frozen dataclass"),
        ({"version": "1"}, "version must be an integer, not '1'"),
        ({"version": True}, "version must be an integer, not True"),
    ],
)
def test_malformed_agents_are_explained(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        registry.check_members(type("Agent", (BC,), attributes), "agent")


def test_needs_are_checked() -> None:
    def agent(needs: Needs) -> Any:
        return type("Agent", (BC,), {"needs": staticmethod(lambda config: needs)})

    with pytest.raises(UsageError, match=r'unknown field "action" \(did you mean "actions"\?\)'):
        needs_of(agent(Needs(("action",))), None, "agent")
    with pytest.raises(
        UsageError, match=r'needs "mask", which only windows have; set Needs\.window'
    ):
        needs_of(agent(Needs(("mask",))), None, "agent")
    assert needs_of(agent(Needs(("mask",), window=3)), None, "agent").window == 3


def test_presets_come_before_settings() -> None:
    @dataclass(frozen=True)
    class Settings:
        lr: float = 1.0
        layers: int = 2

    class Preset(BC):
        Config: ClassVar = Settings
        presets: ClassVar = {"paper": {"lr": 2.0, "layers": 3}}

    config = make_config(Preset, {"layers": 4}, "here", "paper")
    assert (config.lr, config.layers) == (2.0, 4)
    assert make_config(Preset, {}, "here").lr == 1.0
    with pytest.raises(UsageError, match=r'here: unknown preset "papr" \(did you mean "paper"\?\)'):
        make_config(Preset, {}, "here", "papr")


def test_listing_needs_no_torch() -> None:
    code = (
        "import sys; from baselines.registry import Registry; Registry().names();"
        "sys.exit('torch' in sys.modules or 'gymnasium' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
