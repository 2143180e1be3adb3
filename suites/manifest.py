"""Reading suites and budgets: data in, validated objects or one clear sentence out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml

from baselines.config import UsageError, build, check_label, check_name, did_you_mean
from baselines.contract import Phase
from suites.catalog import TASKS
from suites.datasets import DATA_SUFFIXES, has_own_tasks, task_label
from suites.studies import STUDIES

USUAL = ("bc", "td3_bc", "iql")  # the agents of a command line that names neither suite nor agents


@dataclass(frozen=True)
class Adjustment:
    """What a budget changes for one agent; None keeps the budget's number."""

    updates: int | None = None  # gradient updates per seed
    evaluation_episodes: int | None = None  # episodes of each evaluation during training
    config: dict[str, Any] = field(default_factory=dict)  # agent settings
    shrunk: bool = False  # True leaves the agent out of aggregates


@dataclass(frozen=True)
class Budget:
    """How much compute a suite may spend; see ``suites/budgets.yaml`` for the fields' meaning."""

    updates: int
    seeds: int
    evaluations: int
    evaluation_episodes: int
    final_episodes: int
    title: str = ""
    transitions: int | None = None
    dataset_seeds: int = 1
    first_seed: int = 0
    meaningless: bool = False
    caveats: list[str] = field(default_factory=list)
    agents: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        positive = ("updates", "seeds", "dataset_seeds", "evaluation_episodes", "final_episodes")
        for name in positive:
            if getattr(self, name) < 1:
                raise UsageError(f"a budget's {name} must be at least 1, not {getattr(self, name)}")
        if self.first_seed < 0:
            raise UsageError(f"a budget's first_seed must be at least 0, not {self.first_seed}")
        if self.evaluations < 0 or self.evaluations > self.updates:
            raise UsageError(
                f"a budget's evaluations must lie between 0 and its updates, not {self.evaluations}"
            )
        if self.transitions is not None and self.transitions < 1000:
            raise UsageError(
                f"a budget's transitions must be at least 1000 or null, not {self.transitions}"
            )

    def adjustment(self, agent: str) -> Adjustment:
        """What this budget changes for an agent (by its registered name)."""
        return build(Adjustment, self.agents.get(agent, {}), f"budget: agents.{agent}")


@dataclass(frozen=True)
class Arm:
    """One row of a comparison: an agent with settings, under a label of its own."""

    agent: str  # registered name
    preset: str | None = None  # named settings the agent ships
    config: dict[str, Any] = field(default_factory=dict)  # settings on top
    phases: list[dict[str, Any]] | None = None  # training phases; None for one offline phase
    track: Literal["fixed", "tuned"] = "fixed"  # "tuned": anything was chosen per dataset
    configs_tried: int = 1  # how many configs were tried to arrive at this one


ARM_KEYS = tuple(f.name for f in fields(Arm))


@dataclass(frozen=True)
class Suite:
    """A suite as its manifest says."""

    name: str
    title: str
    tasks: tuple[str, ...]
    arms: dict[str, Arm]
    budget: str
    budgets: dict[str, Budget]
    where: str
    studies: tuple[str, ...] = ()  # run on every cell once it is trained
    more: dict[str, Arm] = field(default_factory=dict)  # only by their names or "all"
    redefined: frozenset[str] = frozenset()  # budgets of a usual name and other numbers

    def get_budget(self, name: str | None) -> tuple[str, Budget]:
        """A budget by name, the suite's default for None.

        Raises:
            UsageError: unknown name.
        """
        chosen = check_name(name or self.budget, self.budgets, "budget")
        return chosen, self.budgets[chosen]


@dataclass(frozen=True)
class _Manifest:
    tasks: list[str]
    agents: Any
    more: Any = None
    title: str = ""
    budget: str = "quick"
    budgets: dict[str, dict[str, Any]] = field(default_factory=dict)
    studies: list[str] = field(default_factory=list)


def shipped() -> dict[str, Path]:
    """The suites that come with the package, by name."""
    folder = Path(str(files("suites") / "manifests"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_suite(name_or_path: str, source: str = "") -> Suite:
    """Reads a suite by its name, or a manifest file by its path.

    Args:
        name_or_path: which one.
        source: the source asked for. One that has tasks of its own will judge the tasks' names;
            otherwise they must stand in the catalogue, or name files of data.

    Raises:
        UsageError: one sentence naming the file, the key and the remedy.
    """
    path = Path(name_or_path)
    if path.suffix.lower() in DATA_SUFFIXES:
        raise UsageError(f"{path} is data, not a suite; give it as --tasks {path}")
    if path.suffix not in (".yaml", ".yml") and "/" not in name_or_path:
        path = shipped()[check_name(name_or_path, shipped(), "suite")]
        where = path.name
    else:
        where = str(path)
        theirs = shipped().get(path.stem)
        if theirs is not None and path.resolve() != theirs.resolve():
            raise UsageError(
                f"{where}: a suite called {path.stem} comes with the package, and both would have "
                "one report; rename the file"
            )
    content = _read_yaml(path, where)
    manifest = build(_Manifest, content, where)
    if not manifest.tasks:
        raise UsageError(f"{where}: tasks is empty; name at least one task")
    for i, task in enumerate(manifest.tasks):
        own = Path(task).suffix.lower() in DATA_SUFFIXES or (source and has_own_tasks(source))
        if not own:
            check_name(task, TASKS, "task", f"{where}: tasks[{i}]")
        if task in manifest.tasks[:i]:
            raise UsageError(f'{where}: tasks[{i}]: "{task}" stands there twice; remove one')
    for i, study in enumerate(manifest.studies):
        check_name(study, STUDIES, "study", f"{where}: studies[{i}]")
        if study in manifest.studies[:i]:
            raise UsageError(f'{where}: studies[{i}]: "{study}" stands there twice; remove one')
    arms = read_arms(manifest.agents, where)
    more = {} if manifest.more is None else read_arms(manifest.more, where, "more")
    for label in more:
        if label in arms:
            raise UsageError(f"{where}: more.{label} stands among the agents already; remove one")
    usual = load_budgets()
    given = {k: build(Budget, v, f"{where}: budgets.{k}") for k, v in manifest.budgets.items()}
    budgets = usual | given
    check_name(manifest.budget, budgets, "budget", f"{where}: budget")
    return Suite(
        name=path.stem,
        title=manifest.title or path.stem,
        tasks=tuple(manifest.tasks),
        arms=arms,
        budget=manifest.budget,
        budgets=budgets,
        where=where,
        studies=tuple(manifest.studies),
        more=more,
        redefined=frozenset(
            key for key, budget in given.items() if usual.get(key, budget) != budget
        ),
    )


def suite_of(tasks: Sequence[str]) -> Suite:
    """The suite of a command line that names tasks and no suite: :data:`USUAL` on these."""
    labels = [
        task_label(Path(task).stem if Path(task).suffix.lower() in DATA_SUFFIXES else task)
        for task in tasks
    ]
    more = f"-and-{len(tasks) - 1}-more" if len(tasks) > 1 else ""
    return Suite(
        name=labels[0] + more,
        title=", ".join(labels),
        tasks=tuple(TASKS),
        arms=read_arms(list(USUAL), "--agents"),
        budget="quick",
        budgets=load_budgets(),
        where="--agents",
    )


def read_arms(agents: Any, where: str, key: str = "agents") -> dict[str, Arm]:
    """Agents as a list of names, or as label -> {agent, preset, config, ...} (null: that name).

    Args:
        agents: these.
        where: the file, for messages.
        key: under which they stand there.

    Raises:
        UsageError: wrong shape, unknown key, wrong type.
    """
    if isinstance(agents, list):
        for i, name in enumerate(agents):
            if not isinstance(name, str):
                raise UsageError(f"{where}: {key}[{i}] must be a name, not {name!r}")
            if name in agents[:i]:
                raise UsageError(f'{where}: {key}[{i}]: "{name}" stands there twice; remove one')
        agents = dict.fromkeys(agents)
    if not isinstance(agents, Mapping) or not agents:
        raise UsageError(
            f"{where}: {key} must be a list of names or a mapping of labels, not {agents!r}"
        )
    arms = {}
    for label, settings in agents.items():
        place = f"{where}: {key}.{label}"
        check_label(label, place)
        settings = {} if settings is None else settings
        if isinstance(settings, Mapping):
            settings = {"agent": label, **settings}
            if strange := next((k for k in settings if k not in ARM_KEYS), None):
                raise UsageError(
                    f'{place}: unknown key "{strange}"{did_you_mean(strange, ARM_KEYS)}; '
                    'the agent\'s own settings stand under "config"'
                )
        arm = build(Arm, settings, place)
        read_phases(arm.phases, 1, place)
        arms[label] = arm
    return arms


def read_phases(phases: list[dict[str, Any]] | None, updates: int, where: str) -> tuple[Phase, ...]:
    """Training phases from a manifest; their ``updates`` are shares of the budget's updates.

    Raises:
        UsageError: wrong key or type, or a phase this version cannot run.
    """
    if phases is None:
        return (Phase("offline", updates),)
    result = []
    for i, settings in enumerate(phases):
        place = f"{where}: phases[{i}]"
        share = settings.get("updates", 1.0) if isinstance(settings, Mapping) else None
        if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share <= 1:
            raise UsageError(f"{place}: updates is a share of the budget in (0, 1], not {share!r}")
        phase = build(Phase, {**settings, "updates": max(1, round(share * updates))}, place)
        _check_phase(phase, place)
        result.append(phase)
    _check_together([phase for phase in result if phase.source != "dataset"], where)
    return tuple(result)


def _check_phase(phase: Phase, where: str) -> None:
    """Refuses numbers of a phase that make no sense, alone or together.

    Raises:
        UsageError: naming the phase, the number and the remedy.
    """
    where = f'{where}, phase "{phase.name}"'
    rate, warmup = phase.env_steps_per_update, phase.warmup_env_steps
    if not 0 <= rate < float("inf"):
        raise UsageError(f"{where}: env_steps_per_update must be at least 0, not {rate:g}")
    if warmup < 0:
        raise UsageError(f"{where}: warmup_env_steps must be at least 0, not {warmup}")
    if phase.replay_size < 1:
        raise UsageError(f"{where}: replay_size must be at least 1, not {phase.replay_size}")
    if phase.source == "dataset" and (rate or warmup):
        raise UsageError(
            f"{where}: its environment steps would never be learnt from; set source to "
            '"replay" or "dataset+replay", or take them out'
        )
    if phase.source != "dataset" and not (rate or warmup):
        raise UsageError(
            f'{where}: source "{phase.source}" without environment steps; set '
            'env_steps_per_update, or source to "dataset"'
        )


def _check_together(online: Sequence[Phase], where: str) -> None:
    """Refuses phases that collect and do not fit together.

    Raises:
        UsageError: naming the phase, the number and the remedy.
    """
    for i, phase in enumerate(online):
        if phase.source == "replay" and not i and not phase.warmup_env_steps:
            raise UsageError(
                f'{where}, phase "{phase.name}": there is nothing to sample from at the first '
                "update; set warmup_env_steps"
            )
        if phase.replay_size != online[0].replay_size:
            raise UsageError(
                f'{where}, phase "{phase.name}": replay_size {phase.replay_size} is not '
                f"{online[0].replay_size} as before; there is one replay, so make them equal"
            )


def load_budgets() -> dict[str, Budget]:
    """The budgets that come with the package, by name."""
    path = Path(str(files("suites") / "budgets.yaml"))
    content = _read_yaml(path, path.name)
    return {name: build(Budget, value, f"{path.name}: {name}") for name, value in content.items()}


def _read_yaml(path: Path, where: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UsageError(f"suite file {where} is not there") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"suite file {where} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise UsageError(f"{where}{line}: {problem}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{where}: a suite is a mapping with the keys tasks and agents")
    return content
