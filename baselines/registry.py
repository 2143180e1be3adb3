"""Agents by name: built in, installed by entry point, or from a plugin file.

A plugin file, or the module an entry point names, is ordinary Python. A file says which agents it
brings in a module-level dict::

    AGENTS = {"my_agent": MyAgent}

A package says it in its ``pyproject.toml``::

    [project.entry-points."fastq_bench.agents"]
    my_agent = "my_package.my_module:MyAgent"
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

from baselines.config import UsageError, build, check_label, check_name
from baselines.contract import DERIVED_FIELDS, TRANSITION_FIELDS, WINDOW_FIELDS, Agent, Needs

ROOT = Path(__file__).resolve().parents[1]
GROUP = "fastq_bench.agents"
BUILT_IN = {
    "ad_bcq": "baselines.ad_bcq:ADBCQ",
    "ad_dqn": "baselines.ad_dqn:ADDQN",
    "bc": "baselines.bc:BC",
    "bcq": "baselines.bcq:BCQ",
    "cql": "baselines.cql:CQL",
    "decqn": "baselines.decqn:DecQN",
    "diffusion_ql": "baselines.diffusion_ql:DiffusionQL",
    "dqn": "baselines.dqn:DQN",
    "dt": "baselines.dt:DT",
    "factored_bcq": "baselines.factored_bcq:FactoredBCQ",
    "famo2o": "baselines.famo2o:FamO2O",
    "famo2o_cql": "baselines.famo2o_cql:FamO2OCQL",
    "iql": "baselines.iql:IQL",
    "qt": "baselines.qt:QT",
    "random": "baselines.random_policy:Random",
    "rebrac": "baselines.rebrac:ReBRAC",
    "td3_bc": "baselines.td3_bc:TD3BC",
}
MEMBERS = ("Config", "version", "needs", "update", "act", "state_dict", "load_state_dict")


class Registry:
    """Names of agents and where their classes are; a class is imported when asked for.

    Args:
        plugins: plugin files, loaded now, because only running one tells its agents' names.

    Raises:
        UsageError: if a plugin file is missing, fails, or two agents share a name.
    """

    def __init__(self, plugins: Sequence[str | Path] = ()) -> None:
        self.targets: dict[str, str | type[Any]] = dict(BUILT_IN)
        self.sources = dict.fromkeys(BUILT_IN, "built in")
        for point in entry_points(group=GROUP):
            distribution = point.dist.name if point.dist else "an installed package"
            self._add(point.name, f"{point.module}:{point.attr}", f"installed by {distribution}")
        for plugin in {Path(plugin).resolve(): plugin for plugin in plugins}.values():
            for name, cls in load_plugin(Path(plugin)).items():
                self._add(name, cls, f"plugin {plugin}")

    def _add(self, name: str, target: str | type[Any], source: str) -> None:
        check_label(name, source)
        if name in self.targets:
            raise UsageError(
                f'two agents are called "{name}": {self.sources[name]} and {source}; rename one'
            )
        self.targets[name], self.sources[name] = target, source

    def names(self) -> list[str]:
        """All known names, sorted."""
        return sorted(self.targets)

    def get(self, name: str, where: str = "") -> type[Agent]:
        """Imports and returns an agent's class, checked to have the contract's members.

        Raises:
            UsageError: unknown name, failing import, or a class that is no agent.
        """
        target = self.targets[check_name(name, self.targets, "agent", where)]
        cls = load_target(target, self.sources[name]) if isinstance(target, str) else target
        check_members(cls, f'agent "{name}" ({self.sources[name]})')
        return cls


def load_target(target: str, source: str) -> Any:
    """Imports ``module:Class``.

    Raises:
        UsageError: if it cannot be imported.
    """
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise UsageError(
            f"cannot import {target} ({source}): {type(error).__name__}: {error}"
        ) from error


def load_plugin(path: Path) -> dict[str, type[Any]]:
    """Runs a plugin file and returns its ``AGENTS``.

    Raises:
        UsageError: if the file is not there, does not run, or has no such dict.
    """
    if not path.is_file():
        raise UsageError(
            f"plugin file {path} is not there; give its path (--plugin, or plugins= in Python)"
        )
    # The same name in every process, so that what the plugin defines can be sent between them.
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    name = f"fastq_bench_plugin_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"plugin file {path} is not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UsageError(f"plugin file {path} fails: {type(error).__name__}: {error}") from error
    agents = getattr(module, "AGENTS", None)
    if not isinstance(agents, dict) or not agents:
        raise UsageError(f'plugin file {path} must define AGENTS = {{"name": AgentClass}}')
    return agents


def check_members(cls: Any, who: str) -> None:
    """Refuses a class that lacks a member of the contract.

    Raises:
        UsageError: naming what is missing.
    """
    if not isinstance(cls, type):
        raise UsageError(f"{who} must be a class, not {cls!r}; see baselines/contract.py")
    absent = [member for member in MEMBERS if not hasattr(cls, member)]
    if absent:
        raise UsageError(f"{who} lacks {', '.join(absent)}; see baselines/contract.py")
    agent = cast("type[Agent]", cls)
    if not is_dataclass(agent.Config):
        raise UsageError(f"{who}: Config must be a frozen dataclass whose fields have defaults")
    if not isinstance(agent.version, int) or isinstance(agent.version, bool):
        raise UsageError(f"{who}: version must be an integer, not {agent.version!r}")
    if (takes := list(inspect.signature(agent).parameters)) and takes[-1] == "seed":
        raise UsageError(
            f"{who}: __init__ takes one seed; wrap the class with baselines.single.stack, "
            f"AGENTS = {{...: stack({agent.__name__})}}"
        )


def fault_place(error: BaseException) -> str:
    """Where in somebody's plugin an exception came from: " (mine.py:40, in update)".

    The innermost line outside this product and outside installed libraries; "" if there is none.
    """
    ours = [ROOT / package for package in ("analysis", "baselines", "fastq", "results", "suites")]
    paths = sysconfig.get_paths()
    ours += [Path(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_file() and not any(path.is_relative_to(folder) for folder in ours):
            return f" ({path.name}:{frame.lineno}, in {frame.name})"
    return ""


def make_config(
    cls: type[Agent], settings: Mapping[str, Any], where: str, preset: str | None = None
) -> Any:
    """The agent's config: its defaults, then a preset of its ``presets``, then ``settings``.

    Raises:
        UsageError: unknown preset, unknown field, or wrong type.
    """
    base: Mapping[str, Any] = {}
    if preset is not None:
        presets = getattr(cls, "presets", {})
        base = presets[check_name(preset, presets, "preset", where)]
    return build(cls.Config, {**base, **settings}, where)


def needs_of(cls: type[Agent], config: Any, who: str) -> Needs:
    """The agent's needs, checked against the contract's field names.

    Raises:
        UsageError: naming an unknown field, or a window field without a window.
    """
    needs = cls.needs(config)
    known = TRANSITION_FIELDS + DERIVED_FIELDS + (WINDOW_FIELDS if needs.window else ())
    for field in needs.fields:
        if field in WINDOW_FIELDS and not needs.window:
            raise UsageError(f'{who} needs "{field}", which only windows have; set Needs.window')
        check_name(field, known, "field", f"{who}: needs")
    return needs
