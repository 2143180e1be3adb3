"""Every run in full for the report page: episodes, curve, settings, versions, how it ended.

One page holds hundreds of runs, so what many of them share (versions, configuration, reset seeds)
is written once and referred to by its number, and numbers keep six digits. A browser reads all of
it when the first run is opened, not before.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from analysis.frame import Run
from results.record import Episodes

_DIGITS = 6
_MOST_EPISODES = 1000  # on the page: only the behaviour's, which are those of the data, are more


def run_id(run: Run, out: Path) -> str:
    """The run's place on the page: the same whenever the report is built again."""
    path = run.folder.relative_to(out).as_posix()
    return "run-" + hashlib.sha256(path.encode()).hexdigest()[:10]


def run_details(found: Iterable[tuple[Run, Episodes | None]], out: Path) -> str:
    """JSON for the page's script, safe inside a ``<script>`` element.

    Args:
        found: runs with their evaluation episodes, if they were kept.
        out: the output folder, which paths are relative to.

    Returns:
        ``{"shared": [...], "runs": {run_id: {...}}}``. The fields ``settings``, ``versions``,
        ``dataset`` and ``reset_seeds`` are indices into ``shared``.
    """
    shared: dict[str, int] = {}

    def share(value: Any) -> int:
        return shared.setdefault(_json(value), len(shared))

    runs = []
    for run, episodes in found:
        record = run.record
        entry: dict[str, Any] = {
            "path": run.folder.relative_to(out).as_posix(),
            "final": _rounded(record.final),
            "timing": _rounded(record.timing),
            "stack": record.stack,
            "resumes": record.resumes,
            "warnings": record.warnings,
            "settings": share(settings(run)),
            "versions": share(record.versions),
            "dataset": share(_scalars(record.dataset)),
            "curve": _columns(record.curve),
        }
        if run.failed:
            entry["error"] = run.error
        if episodes is not None:
            entry["episodes"] = len(episodes.returns)
            entry["returns"] = _rounded(episodes.returns[:_MOST_EPISODES].tolist())
            entry["lengths"] = episodes.lengths[:_MOST_EPISODES].tolist()
            entry["reset_seeds"] = share(episodes.reset_seeds[:_MOST_EPISODES].tolist())
        runs.append(f"{_json(run_id(run, out))}:{_json(entry)}")
    text = f'{{"shared":[{",".join(shared)}],"runs":{{{",".join(runs)}}}}}'
    # A name must neither end the element nor start a comment in it.
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def settings(run: Run) -> dict[str, Any]:
    """What the run was told to do, apart from its task and seed."""
    record = run.record
    return {
        "agent": record.agent["name"],
        "version": record.agent["version"],
        "preset": record.agent.get("preset"),
        "track": record.agent.get("track"),
        "configs_tried": record.agent.get("configs_tried"),
        "config": record.agent.get("config"),
        "budget": record.budget,
        "phases": record.phases,
    }


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested blocks as pairs of a name, its parts apart by blanks, and a text."""
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            found += flat(value, f"{prefix}{key} ")
        else:
            found.append((prefix + key, "none" if value is None else str(value)))
    return found


def provenance(runs: Iterable[Run]) -> dict[str, Any]:
    """Where the numbers come from.

    Returns:
        ``datasets``: cards by (task, draw); ``versions``: values with their number of runs, by
        name; ``configs``: the distinct settings of every agent, each with its tasks.
    """
    datasets: dict[tuple[str, int], dict[str, Any]] = {}
    counts: dict[str, Counter[str]] = {}
    configs: dict[str, dict[str, dict[str, Any]]] = {}
    for run in runs:
        datasets[run.task, run.draw] = run.record.dataset
        for key, value in flat(run.record.versions):
            counts.setdefault(key, Counter())[value] += 1
        if run.record.agent.get("reference"):
            continue
        text = json.dumps(settings(run), indent=2)
        entry = configs.setdefault(run.agent, {}).setdefault(text, {"text": text, "tasks": []})
        if run.task not in entry["tasks"]:
            entry["tasks"].append(run.task)
    return {
        "datasets": datasets,
        "versions": {key: dict(sorted(found.items())) for key, found in sorted(counts.items())},
        "configs": {label: list(found.values()) for label, found in configs.items()},
    }


def _columns(curve: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The curve by column; training metrics stay in the record unless there is nothing else."""
    names = ["update", "score", "return_mean", "return_std"]
    names = [name for name in names if any(name in point for point in curve)]
    if curve and names == ["update"]:
        metrics = [{"update": point["update"], **point.get("metrics", {})} for point in curve]
        names = list(dict.fromkeys(name for point in metrics for name in point))
        return {name: _rounded([point.get(name) for point in metrics]) for name in names}
    names += ["env_steps"] if any(point.get("env_steps") for point in curve) else []
    names += ["phase"] if len({point.get("phase") for point in curve}) > 1 else []
    return {name: _rounded([point.get(name) for point in curve]) for name in names}


def _scalars(values: Mapping[str, Any]) -> dict[str, Any]:
    """A dataset's card without its lists and nested blocks."""
    return {key: value for key, value in values.items() if not isinstance(value, (list, dict))}


def _rounded(value: Any) -> Any:
    """Numbers to the digits a page shows; what is not finite becomes null, as JSON wants it."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return value


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
