"""The one schema of results: run records and report plans, with their readers and writers.

Standard library and numpy only, so that reading results never needs torch.

Layout of an output folder (``results/runs`` by default)::

    cells/<source>/<task>/<agent>/<digest>-seed<seed>/record.json    one finished or failed run
                                                      episodes.npz   every evaluation episode
                                                      policy.pt      the final policy
                                                      study-*.npz    arrays of its studies
    reports/<suite>-<budget>-<source>/plan.json                      what a suite run set out to do
                                      index.html, table.md, ...      what the analysis made of it
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

SCHEMA = 1
RECORD_FILE = "record.json"
EPISODES_FILE = "episodes.npz"
POLICY_FILE = "policy.pt"
_OPTIONAL = {"optional": True}  # a field that a file of this schema need not have
TEMPORARY = ".*.*.*"  # a file that is being written, or was when its writer died
PLAN_FILE = "plan.json"


class RecordError(ValueError):
    """A record or plan that cannot be read; the message names the file and the remedy."""


@dataclass(frozen=True)
class Episodes:
    """Evaluation episodes of one run. Returns are raw sums of rewards, lengths are in steps.

    Attributes:
        returns: ``[E]`` final evaluation of the last policy.
        lengths: ``[E]`` steps.
        reset_seeds: ``[E]`` seed each episode was reset with (-1 where there was no reset).
        curve_updates: ``[V]`` gradient updates made before each evaluation during training.
        curve_returns: ``[V, E']`` returns of those evaluations.
        curve_lengths: ``[V, E']`` their lengths.
        measures: by name ``[E]``, what the environment measured in the final episodes beside the
            reward; in the file ``measure_<name>``. Most environments measure nothing.
    """

    returns: npt.NDArray[np.float64]
    lengths: npt.NDArray[np.int64]
    reset_seeds: npt.NDArray[np.int64]
    curve_updates: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    curve_returns: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    curve_lengths: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    measures: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Every array by its name in the file."""
        named = {_MEASURE + name: values for name, values in self.measures.items()}
        return {name: getattr(self, name) for name in _ARRAYS} | named


_MEASURE = "measure_"  # begins the name of an array of a measure
_ARRAYS = tuple(f.name for f in fields(Episodes) if f.name != "measures")


@dataclass(frozen=True)
class Record:
    """One cell's outcome. All blocks are plain JSON.

    Attributes:
        status: "done", or "failed" with ``error`` filled in.
        cell: what the cell is: the identity its path is made of. Keys: task {id, version, env_id},
            agent {name, version, config}, phases, seed, budget {name-free numbers}, source,
            dataset {id, seed}, precision, and studies {name: version} where there are any.
        task: id, title, environment, quality, version, env_id, source, reference_min,
            reference_max, reference_source (score = 100 (return - min) / (max - min)); where
            actions are factored joint_actions, and of tasks that no catalogue has key, spaces and
            horizon.
        agent: label (name in the suite), name, version, config, preset, track ("fixed" or "tuned"),
            configs_tried, reference (True for random and behaviour), code (sha256 of the plugin
            file that brought it, None for others).
        seed: training seed.
        stack: seeds trained together with this one, in order.
        budget: name, shrunk (True if this agent's size or steps are below its published ones and
            it is compared only with its like), meaningless (True for smoke), and the numbers.
        phases: list of phases as trained.
        dataset: id, sha256, transitions, episodes, return_mean, return_std, score_mean, and more
            of the dataset's card.
        versions: python, torch, numpy, mujoco, gymnasium, platform, cpu, gpu, git commit and dirty.
        timing: data_s, training_s, collection_s (acting in online phases; older records lack it),
            evaluation_s, studies_s, total_s, core_seconds (processor time, this seed's share of its
            stack), updates_per_s, peak_memory_mib.
        curve: list of {update (counted through all phases), phase (that the update was made in),
            env_steps (collected by this seed so far, 0 while all is offline), return_mean,
            return_std, score, metrics {..}}.
        final: return_mean, return_std, length_mean, score, last10_score, success_rate, and
            measures {name: mean over episodes} where the environment has any; without a
            simulator none of these. Where episodes were held out: action_error,
            held_out_episodes, held_out_steps, and where they can be estimated ope_return,
            ope_low, ope_high, ope_effective_episodes, ope_clipped, ope_behaviour_estimated
            (:func:`suites.ope.judging.judge`).
        error: type, message, traceback; None if done.
        resumes: the interruptions this run survived: list of {update, exact, notes}; where
            ``exact`` is False, it went on under other circumstances, and an uninterrupted run would
            have given other numbers.
        studies: what was studied once training was over, by name: ``applies``, and numbers or, if
            it does not, ``why``; arrays are beside the record (:func:`read_study`).
        warnings: the failure signatures that the agent found in its own metrics while training:
            list of {name, update, text}.
    """

    status: Literal["done", "failed"]
    cell: dict[str, Any]
    task: dict[str, Any]
    agent: dict[str, Any]
    seed: int
    stack: list[int]
    budget: dict[str, Any]
    phases: list[dict[str, Any]]
    dataset: dict[str, Any]
    versions: dict[str, Any]
    timing: dict[str, float]
    curve: list[dict[str, Any]] = field(default_factory=list)
    final: dict[str, Any] = field(default_factory=dict)
    error: dict[str, str] | None = None
    resumes: list[dict[str, Any]] = field(default_factory=list, metadata=_OPTIONAL)
    studies: dict[str, dict[str, Any]] = field(default_factory=dict, metadata=_OPTIONAL)
    warnings: list[dict[str, Any]] = field(default_factory=list, metadata=_OPTIONAL)
    schema: int = SCHEMA


@dataclass(frozen=True)
class Plan:
    """What a suite run set out to do; the report is a function of this and of the records.

    Attributes:
        suite: the suite's name.
        title: one line for people.
        budget: the budget's name.
        source: where the data comes from.
        seeds: training seeds of every comparison agent.
        tasks: list of {id, title, environment, quality, missing}: ``missing`` is None, or the
            sentence that says why this task's data is not there. Where ``simulator`` is False there
            are no returns, where ``scored`` is False no scores, where ``expert`` is False a score
            of 100 is not D4RL's expert (all are True where absent).
        agents: list of {label, name, reference, shrunk, track, configs_tried}, in table order.
        cells: list of {task, agent (label), seed, draw (dataset seed), path (relative to the output
            folder)}.
        stale: list of {path, why}: records of these cells made by another code or dataset version.
        caveats: sentences the report prints under every table.
        watermark: printed across figures ("" if none).
        meaningless: True for a budget whose numbers only show that everything runs.
        command: the command line that made this plan.
    """

    suite: str
    title: str
    budget: str
    source: str
    seeds: list[int]
    tasks: list[dict[str, Any]]
    agents: list[dict[str, Any]]
    cells: list[dict[str, Any]]
    stale: list[dict[str, str]] = field(default_factory=list)
    caveats: list[str] = field(default_factory=list)
    watermark: str = ""
    meaningless: bool = False
    command: str = ""
    schema: int = SCHEMA


def normalized_score(returns: Any, reference_min: float, reference_max: float) -> Any:
    """D4RL's scale: 0 is the random policy's return, 100 the expert's (Fu et al. 2020, eq. 1)."""
    return 100.0 * (returns - reference_min) / (reference_max - reference_min)


def write_atomically(path: Path, content: bytes | memoryview, keep: Path | None = None) -> None:
    """Writes a file so that a reader sees the old content or the new, never a part.

    Args:
        path: the file.
        content: all of it.
        keep: where the old content goes; None forgets it. Between the two renames only ``keep`` is
            there, so a reader tries it second.

    Raises:
        OSError: if the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o644)
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Makes a rename outlast a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def to_json(value: Any) -> bytes:
    """JSON with sorted keys; numpy scalars become numbers, NaN and infinity are refused."""

    def plain(item: Any) -> Any:
        if isinstance(item, np.generic):
            return item.item()
        if isinstance(item, np.ndarray):
            return item.tolist()
        raise TypeError(f"{type(item).__name__} is not JSON")

    return json.dumps(value, indent=1, sort_keys=True, default=plain, allow_nan=False).encode()


def write_record(folder: Path, record: Record, episodes: Episodes | None = None) -> None:
    """Writes a record; ``record.json`` comes last, so a folder that has one is complete."""
    if episodes is not None:
        write_atomically(folder / EPISODES_FILE, _packed(episodes.arrays()))
    write_atomically(folder / RECORD_FILE, to_json(asdict(record)))


def study_file(name: str) -> str:
    """The file that keeps a study's arrays."""
    return f"study-{name}.npz"


def write_study(folder: Path, name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Writes a study's arrays beside the record."""
    write_atomically(folder / study_file(name), _packed(arrays))


def read_study(folder: Path, name: str) -> dict[str, npt.NDArray[Any]]:
    """Reads a study's arrays.

    Raises:
        RecordError: if the file is missing or damaged.
    """
    path = folder / study_file(name)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        raise RecordError(f"{path}: damaged; delete its folder and run the suite again") from None


def _packed(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]
    return buffer.getvalue()


def _read(path: Path, cls: type[Any], what: str) -> Any:
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise RecordError(f"{path}: no such {what}") from None
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror})") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise RecordError(
            f"{path}: not a readable {what}; delete it and run the suite again"
        ) from None
    names = {f.name for f in fields(cls)}
    optional = {f.name for f in fields(cls) if f.metadata == _OPTIONAL}
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else None
        raise RecordError(
            f"{path}: this {what} has schema {found}, this version reads schema {SCHEMA}"
        )
    if not names - optional <= set(content) <= names:
        wrong = sorted((names - optional - set(content)) | (set(content) - names))
        raise RecordError(
            f"{path}: not a {what} of schema {SCHEMA} (differs in {', '.join(wrong)})"
        )
    return cls(**content)


def read_record(folder: Path) -> Record:
    """Reads one record.

    Raises:
        RecordError: if it is missing, damaged, or of another schema.
    """
    record: Record = _read(folder / RECORD_FILE, Record, "record")
    return record


def read_episodes(folder: Path) -> Episodes:
    """Reads the evaluation episodes beside a record.

    Raises:
        RecordError: if the file is missing or damaged.
    """
    path = folder / EPISODES_FILE
    try:
        with np.load(path, allow_pickle=False) as arrays:
            measures = {
                name.removeprefix(_MEASURE): arrays[name]
                for name in arrays.files
                if name.startswith(_MEASURE)
            }
            return Episodes(**{name: arrays[name] for name in _ARRAYS}, measures=measures)
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file") from None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        raise RecordError(f"{path}: damaged; delete its folder and run the suite again") from None


def scan(out: Path) -> Iterator[tuple[Path, Record | RecordError]]:
    """All records below an output folder; what cannot be read is yielded as its error."""
    for path in sorted((out / "cells").glob(f"*/*/*/*/{RECORD_FILE}")):
        try:
            yield path.parent, read_record(path.parent)
        except RecordError as error:
            yield path.parent, error


def write_plan(folder: Path, plan: Plan) -> None:
    """Writes ``plan.json`` into a report folder."""
    write_atomically(folder / PLAN_FILE, to_json(asdict(plan)))


def read_plan(path: Path) -> Plan:
    """Reads a plan.

    Raises:
        RecordError: if it is missing, damaged, or of another schema.
    """
    plan: Plan = _read(path, Plan, "plan")
    return plan


def cell_folder(out: Path, cell: Mapping[str, Any]) -> Path:
    """The folder of a plan's cell."""
    return out / str(cell["path"])
