"""Killed runs go on from their checkpoints, and the result is the same to the last bit."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from results.record import EPISODES_FILE, read_episodes, read_record
from suites.job import Job, unfinished_stacks
from suites.plan import SuitePlan, make_plan
from suites.resolve import Options
from suites.train import prepare

HERE = Path(__file__).parent
MANIFEST = """
tasks: [hopper-random]
agents:
  bc:
  td3_bc: {config: {hidden: [32, 32], batch_size: 32}}
  window:
  two_phase:
    config: {hidden: [32, 32], batch_size: 32}
    phases: [{name: represent, updates: 0.5}, {name: policy, updates: 0.5}]
budget: tiny
budgets:
  tiny: {updates: 10, seeds: 2, evaluations: 2, evaluation_episodes: 2, final_episodes: 3,
         transitions: 1000}
"""
# What can happen to a run, and how many times an uninterrupted one of the above meets it at least.
KINDS = {
    "update": 10,
    "checkpoint": 10,
    "half written": 10,
    "sync": 20,
    "before rename": 19,
    "after rename": 19,
    "evaluation": 2,
    "step": 30,
    "record": 1,
    "removal": 1,
}
# The moments that everyone asks for, by name; the seeded ones come on top.
NAMED = {
    "before the first checkpoint": ("update", 1),
    "inside the first checkpoint's write": ("half written", 1),
    "between a checkpoint's two renames": ("after rename", 2),
    "before the second evaluation": ("evaluation", 2),
    "between phases": ("update", 6),
    "before the last update": ("update", 10),
    "before the policy's rename": ("before rename", -3),
    "between policy and episodes": ("after rename", -3),
    "between episodes and record": ("after rename", -2),
    "before the record's rename": ("before rename", -1),
    "between the record and the checkpoint's removal": ("removal", 1),
}


class Victim:
    """The process of ``victim.py``."""

    def __init__(self, data_cache: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "victim.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=HERE.parents[1],
            env={**environment(), "FASTQ_BENCH_CACHE": str(data_cache)},
        )

    def train(self, job: Job, kill: tuple[str, int] | None = None) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"job": asdict(job), "kill": kill}) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def victim(data_cache: Path) -> Iterator[Victim]:
    # It outlives a test, and so the cache of a test's environment must not be left to chance.
    process = Victim(data_cache)
    yield process
    process.close()


def plan_of(folder: Path, label: str, stack: int, out: Path) -> SuitePlan:
    """The plan of one agent, by the manifest in a folder."""
    options = Options(
        str(folder / "tiny.yaml"),
        out=out,
        agents=[label],
        stack=stack,
        plugins=[str(HERE / "resume_agents.py")],
        checkpoint_seconds=0,
    )
    return make_plan(options)


def make_job(folder: Path, label: str, stack: int) -> Job:
    """The first training job of an agent, with its data ready."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.yaml").write_text(MANIFEST)
    data, *jobs = plan_of(folder, label, stack, folder / "runs").jobs()
    prepare(data, lambda *_: None)
    return next(job for job in jobs if job.agent["label"] == label)


def digest(folder: Path) -> str:
    """sha256 of what a run is: weights, optimisers, generators, curve, and every episode."""
    found = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found.update(str((value.dtype, tuple(value.shape))).encode())
            found.update(value.contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key in sorted(value):
                found.update(str(key).encode())
                add(value[key])
        elif isinstance(value, list | tuple):
            for item in value:
                add(item)
        else:
            found.update(repr(value).encode())

    add(torch.load(folder / "policy.pt", weights_only=True)["state"])
    record = read_record(folder)
    add(record.curve)
    add(record.final)
    with np.load(folder / EPISODES_FILE, allow_pickle=False) as arrays:
        for name in sorted(arrays):
            add(torch.from_numpy(arrays[name]))
    return found.hexdigest()


def digests(job: Job) -> list[str]:
    return [digest(Path(job.out) / path) for path in job.paths]


def seeded_moments(label: str, count: int) -> list[tuple[str, int]]:
    rng = np.random.default_rng(int.from_bytes(label.encode(), "little") % 2**32)
    kinds = list(KINDS)
    chosen = [kinds[rng.integers(len(kinds))] for _ in range(count)]
    return [(kind, int(rng.integers(1, KINDS[kind] + 1))) for kind in chosen]


@pytest.mark.parametrize(("label", "stack"), [("td3_bc", 1), ("window", 2), ("two_phase", 1)])
def test_a_killed_run_goes_on_to_the_same_bits(
    label: str, stack: int, victim: Victim, tmp_path: Path
) -> None:
    job = make_job(tmp_path / "whole", label, stack)
    whole = victim.train(job)
    assert whole["code"] == 0
    assert whole["met"]["checkpoint"] == job.updates
    expected = digests(job)
    assert len(set(expected)) == stack

    moments: Sequence[tuple[str, tuple[str, int]]] = [
        *NAMED.items(),
        *((f"seeded: {kind} {n}", (kind, n)) for kind, n in seeded_moments(label, 8)),
    ]
    for i, (name, (kind, n)) in enumerate(moments):
        total = whole["met"][kind]
        moment = (kind, n if n > 0 else total + 1 + n)
        killed = replace(job, out=str(tmp_path / str(i)))
        assert victim.train(killed, moment)["code"] == -9, name
        again = victim.train(killed)
        assert again["code"] == 0, name
        assert digests(killed) == expected, name
        if kind == "update":  # it did not begin again
            assert again["met"]["update"] == job.updates + 1 - moment[1], name
        plan_of(tmp_path / "whole", label, stack, Path(killed.out)).sweep()
        assert not list((tmp_path / str(i)).rglob("checkpoint*")), name
        assert not list((tmp_path / str(i)).rglob(".*.*.*")), name


def test_a_run_killed_again_and_again_arrives(victim: Victim, tmp_path: Path) -> None:
    """Dies at every second update, and between the records of its stack."""
    job = make_job(tmp_path / "whole", "window", 2)
    assert victim.train(job)["code"] == 0
    killed = replace(job, out=str(tmp_path / "killed"))
    for update in range(2, job.updates, 2):
        assert victim.train(killed, ("update", 3))["code"] == -9, update
    assert victim.train(killed, ("record", 2))["code"] == -9
    # The planner sees that the second seed belongs to a stack that was begun.
    plan = plan_of(tmp_path / "whole", "window", 1, Path(killed.out))
    states = {cell.seed: cell.state for cell in plan.cells if cell.label == "window"}
    assert states == {0: "done", 1: "todo"}
    (again,) = [j for j in plan.jobs() if j.agent["label"] == "window"]
    assert again.seeds == [0, 1]
    assert victim.train(again)["code"] == 0
    assert digests(killed) == digests(job)
    record = read_record(Path(killed.out) / killed.paths[1])
    assert [resume["update"] for resume in record.resumes] == [2, 4, 6, 8, 10]
    assert all(resume["exact"] for resume in record.resumes)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(victim: Victim, tmp_path: Path) -> None:
    job = make_job(tmp_path / "whole", "td3_bc", 1)
    assert victim.train(job)["code"] == 0
    for damaged, word in ((["checkpoint-0.pt"], "update 5"), (["checkpoint-0.pt", "old"], "")):
        killed = replace(job, out=str(tmp_path / f"killed{len(damaged)}"))
        assert victim.train(killed, ("update", 7))["code"] == -9
        folder = Path(killed.out) / killed.paths[0]
        assert unfinished_stacks(folder) == [[0]]
        for file in folder.glob("checkpoint*"):
            if file.name in damaged or "old" in damaged:
                file.write_bytes(file.read_bytes()[:-100])
        again = victim.train(killed)
        assert again["code"] == 0
        assert "checkpoint-0.pt is damaged" in again["notes"][0]
        assert again["notes"][-1].endswith(word or "was passed over")
        assert digests(killed) == digests(job)


def test_other_circumstances_are_refused_unless_allowed(victim: Victim, tmp_path: Path) -> None:
    job = make_job(tmp_path, "td3_bc", 1)
    assert victim.train(job, ("update", 7))["code"] == -9
    other = replace(job, agent={**job.agent, "code": "another text"})
    assert victim.train(other)["code"] == 1
    folder = Path(job.out) / job.paths[0]
    assert unfinished_stacks(folder) == [[0]]
    assert (
        victim.train(replace(other, allow_inexact_resume=True, keep_checkpoints=True))["code"] == 0
    )
    (resume,) = read_record(folder).resumes
    assert resume["update"] == 6
    assert not resume["exact"]
    assert "plugin code was None, is another text" in resume["notes"][0]
    assert unfinished_stacks(folder) == [[0]]
    assert len(read_episodes(folder).returns) == 3
