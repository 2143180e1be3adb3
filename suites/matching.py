"""Which agents can be trained on which tasks: what they need against what there is."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

from baselines.config import UsageError
from baselines.contract import DERIVED_FIELDS, WINDOW_FIELDS, Needs, Spec
from baselines.registry import make_config, needs_of
from suites.catalog import ENVIRONMENTS
from suites.resolve import Row

REMEDY = 'give it phases whose source is "dataset"'


def match_needs(
    rows: Sequence[Row], tasks: Sequence[Mapping[str, Any]], name: str, asked: Container[str]
) -> tuple[list[Row], list[str]]:
    """Compares what agents need with the fields of the tasks' data.

    Args:
        rows: all of the plan's.
        tasks: as :func:`suites.resolve.describe_task` gives them.
        name: of the source.
        asked: labels that a person asked for; others are left out where the data lacks a field.

    Returns:
        The rows that remain, and a sentence about each that was left out.

    Raises:
        UsageError: naming agent, field and source.
    """
    kept, notes = list(rows), []
    for row in rows:
        if row.cls is None or (lack := _lack(row, tasks, name)) is None:
            continue
        if row.label in asked:
            raise UsageError(f'agent "{row.label}" {lack}')
        kept.remove(row)
        notes.append(f"{row.label} is left out: it {lack}")
    return kept, notes


def _lack(row: Row, tasks: Sequence[Mapping[str, Any]], name: str) -> str | None:
    """What a row needs and some task's data has not, as the end of a sentence."""
    needs = _needs(row)
    past = next((task["id"] for task in tasks if shows_history(task)), None)
    if needs.window is not None and past is not None:
        return (
            f"learns from windows of {needs.window} steps, and an observation of task {past} is "
            "a window already"
        )
    for field_name in needs.fields:
        for task in tasks:
            if field_name not in (*task["fields"], *WINDOW_FIELDS):
                who = f"task {task['id']}" if "key" in task else f'source "{name}"'
                logged = ' (groups are made of "policy_ids")' * (field_name == "policy_groups")
                return f'needs "{field_name}", which {who} does not have{logged}'
    return None


def shows_history(task: Mapping[str, Any]) -> bool:
    """Whether a task's observations are histories (:mod:`suites.datasets.history`)."""
    if task.get("spaces") is not None:
        return bool(task["spaces"]["observation"]["kind"] == "Dict")
    found = ENVIRONMENTS.get(task["environment"])
    return found is not None and found.history


def _needs(row: Row) -> Needs:
    config = make_config(row.cls, row.config, f"agents.{row.label}")
    return needs_of(row.cls, config, f'agent "{row.label}"')


def match_online(
    rows: Sequence[Row], tasks: Sequence[Mapping[str, Any]], name: str, asked: Container[str]
) -> tuple[list[Row], list[str]]:
    """Compares what agents with online phases need with what collecting can give.

    Args:
        rows: all of the plan's.
        tasks: as :func:`suites.resolve.describe_task` gives them.
        name: of the source.
        asked: labels that a person asked for; others are left out where a task does not serve them.

    Returns:
        The rows that remain, and a sentence about each that was left out.

    Raises:
        UsageError: naming agent, phase and remedy.
    """
    kept, notes = list(rows), []
    for row in rows:
        phase = next((phase for phase in row.phases if phase.source != "dataset"), None)
        if row.cls is None or phase is None:
            continue
        where = f'agent "{row.label}", phase "{phase.name}"'
        needs = _needs(row)
        if (problem := next(_never_online(needs, phase.replay_size), None)) is not None:
            raise UsageError(f"{where}: {problem}")
        if (problem := next(_nowhere_online(needs, tasks, name), None)) is None:
            continue
        if row.label in asked:
            raise UsageError(f"{where}: {problem}; leave the task out, or {REMEDY}")
        kept.remove(row)
        notes.append(f"{row.label} is left out: {problem}")
    return kept, notes


def _never_online(needs: Needs, replay_size: int) -> Iterator[str]:
    """What stands in the way on every task."""
    if needs.window is not None:
        yield f"it learns from windows of {needs.window} steps, which a replay has not; {REMEDY}"
    if needs.dataset:
        yield f"it asks for the whole dataset at once, which collecting does not extend; {REMEDY}"
    for field_name in needs.fields:
        if field_name in ("policy_ids", *DERIVED_FIELDS):
            yield f'it needs "{field_name}", which collected transitions do not have; {REMEDY}'
    if replay_size < needs.batch_size:
        yield (
            f"replay_size {replay_size} is less than its batch of {needs.batch_size}; raise "
            "replay_size"
        )


def _nowhere_online(needs: Needs, tasks: Sequence[Mapping[str, Any]], name: str) -> Iterator[str]:
    """What stands in the way on some tasks."""
    for task in tasks:
        if task["missing"] is not None:
            continue
        if task["env_id"] is None:
            yield f"task {task['id']} has no simulator to collect in"
        elif shows_history(task):
            yield (
                f"an observation of task {task['id']} is a history of days, of which a replay has "
                "no windows"
            )
        # Local data of an environment that knows no parts has the reward as the only one.
        elif "reward_parts" in needs.fields and name != "local":
            from suites.envs import make_vector

            env = make_vector(task["env_id"], 1)
            env.close()
            if not env.reward_parts:
                yield (
                    f'it needs "reward_parts", which the simulator of task {task["id"]} does not '
                    "tell"
                )


def match_spaces(
    rows: Sequence[Row], tasks: Sequence[Mapping[str, Any]], asked: Container[str]
) -> tuple[list[Row], list[str]]:
    """Tries every agent on spaces of which it may know nothing: of own tasks, and histories.

    Args:
        rows: all of the plan's.
        tasks: as :func:`suites.resolve.describe_task` gives them.
        asked: labels that a person asked for; others are left out where they do not fit.

    Returns:
        The rows that remain, and a sentence about each that was left out.

    Raises:
        UsageError: an agent's own sentence about the spaces, with the task and the remedy.
    """
    kept, notes = list(rows), []
    for row in rows:
        for task in tasks:
            own = task.get("spaces") is not None
            if row.cls is None or not (own or (shows_history(task) and task["env_id"])):
                continue
            try:
                _try_spaces(row, task)
            except UsageError as error:
                if row.label in asked:
                    raise UsageError(
                        f'agent "{row.label}" on {task["id"]}: {error}; choose others with --agents'
                    ) from None
                kept.remove(row)
                notes.append(f"{row.label} is left out: {error} ({task['id']})")
                break
            except Exception:  # its own fault, which a run records with its traceback
                break
    return kept, notes


def _try_spaces(row: Row, task: Mapping[str, Any]) -> None:
    from suites.spaces import facts_of

    known = task["fields"]
    # What a task says of itself is asked first: it needs no simulator.
    facts = facts_of({**task, "env_id": None} if task.get("spaces") else task)
    spec = Spec(
        **facts,
        phases=row.phases,
        reward_parts=("reward",) * ("reward_parts" in known),
        policies=int("policy_ids" in known),
        policy_groups=int("policy_groups" in known),
        statistics={
            **{"transitions": 1000, "episodes": 1, "reward_scale": 1.0},
            **{"return_mean": 0.5, "return_best": 1.0, "return_worst": 0.0},
        },
    )
    row.cls(spec, make_config(row.cls, row.config, f"agents.{row.label}"), [0])
