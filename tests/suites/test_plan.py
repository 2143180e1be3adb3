"""Cells: identities, paths, what is skipped, and what counts as stale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from own_data import logs, save

from baselines import bc
from baselines.config import UsageError
from suites.launch import record_failure
from suites.plan import SuitePlan, cell_path, make_plan
from suites.resolve import Options


def plan(manifest: Path, **options: Any) -> SuitePlan:
    return make_plan(Options(str(manifest), out=manifest.parent / "runs", device="cpu", **options))


def paths(made: SuitePlan, label: str) -> set[str]:
    return {cell.path for cell in made.cells if cell.label == label}


def test_grid(manifest: Path) -> None:
    made = plan(manifest)
    assert [row.label for row in made.rows] == ["random", "behaviour", "bc", "td3_bc", "iql"]
    assert len(made.cells) == 2 * (2 + 3 * 2)
    assert len({cell.path for cell in made.cells}) == len(made.cells)
    assert [job.kind for job in made.jobs()].count("data") == 2
    tasks = [job.task["id"] for job in made.jobs()]
    assert tasks == sorted(tasks, key=["hopper-random", "walker2d-random"].index)


def test_paths_depend_on_what_numbers_depend_on_and_nothing_else(
    manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = paths(plan(manifest), "td3_bc")
    assert paths(plan(manifest), "td3_bc") == here
    assert paths(plan(manifest, stack=2, plugins=()), "td3_bc") == here
    assert paths(plan(manifest, seeds=3), "td3_bc") > here
    assert not paths(plan(manifest, settings=["td3_bc.alpha=1.0"]), "td3_bc") & here
    assert paths(plan(manifest, settings=["td3_bc.alpha=2.5"]), "td3_bc") == here
    assert paths(plan(manifest, settings=["iql.expectile=0.8"]), "td3_bc") == here
    assert not paths(plan(manifest, precision="float64"), "td3_bc") & here
    assert not paths(plan(manifest, budget="smoke"), "td3_bc") & here
    before = paths(plan(manifest), "bc")
    monkeypatch.setattr(bc.BC, "version", 99)
    assert not paths(plan(manifest), "bc") & before


def test_two_labels_of_one_config_share_their_cells(manifest: Path) -> None:
    manifest.write_text(
        manifest.read_text().replace("[bc, td3_bc, iql]", "{bc: , twin: {agent: bc}}")
    )
    made = plan(manifest)
    assert paths(made, "bc") == paths(made, "twin")
    trained = [path for job in made.jobs() if job.kind == "train" for path in job.paths]
    assert len(trained) == len(set(trained))


def test_stacks(manifest: Path) -> None:
    def stacks(**options: Any) -> list[list[int]]:
        jobs = plan(manifest, tasks=["hopper-random"], agents=["bc"], **options).jobs()
        return [job.seeds for job in jobs if job.agent["label"] == "bc"]

    assert stacks(seeds=3) == [[0], [1], [2]]
    assert stacks(seeds=3, stack=2) == [[0, 1], [2]]
    assert stacks(seeds=3, stack=9) == [[0, 1, 2]]


def test_draws_of_the_data_are_cells_of_their_own(manifest: Path) -> None:
    one = plan(manifest, tasks=["hopper-random"], agents=["bc"])
    made = plan(manifest, tasks=["hopper-random"], agents=["bc"], dataset_seeds=3)
    assert paths(made, "bc") > paths(one, "bc")
    assert len(paths(made, "bc")) == 3 * 2
    assert len({cell.identity["dataset"]["id"] for cell in made.cells}) == 3
    jobs = made.jobs()
    assert [job.dataset for job in jobs if job.kind == "data"] == [
        ("hopper-random", draw) for draw in range(3)
    ]
    assert len({job.name for job in jobs}) == len(jobs)
    assert {cell["draw"] for cell in made.to_plan().cells} == {0, 1, 2}
    first = next(job for job in jobs if job.agent["label"] == "bc")
    record_failure(first, {"type": "E", "message": "m", "traceback": "t"}, 1.0)
    assert not plan(manifest, tasks=["hopper-random"], agents=["bc"], dataset_seeds=2).stale
    with pytest.raises(UsageError, match="--dataset-seeds must be at least 1, not 0"):
        plan(manifest, dataset_seeds=0)


def test_who_learns_from_no_data_learns_once(manifest: Path) -> None:
    manifest.write_text(manifest.read_text().replace("[bc, td3_bc, iql]", "[dqn, bc]"))
    made = plan(manifest, tasks=["hopper-random"], dataset_seeds=3)
    assert len(paths(made, "dqn")) == 2
    assert len(paths(made, "bc")) == 3 * 2
    assert made.remarks[-1] == "Trained once, not on every draw of the data: dqn."


def test_behaviour_cloning_is_always_there(manifest: Path) -> None:
    assert [row.label for row in plan(manifest, agents=["iql"]).rows][-2:] == ["bc", "iql"]


def test_missing_data_is_said_and_not_planned(
    manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from suites.datasets import local

    monkeypatch.setattr(
        local, "missing", lambda task: "no such data" if task == "walker2d-random" else None
    )
    made = plan(manifest)
    assert {cell.task for cell in made.cells} == {"hopper-random"}
    assert [task["missing"] for task in made.to_plan().tasks] == [None, "no such data"]


def test_done_failed_and_stale(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(manifest, tasks=["hopper-random"], agents=["bc"])
    jobs = [job for job in made.jobs() if job.agent["label"] == "bc"]
    error = {"type": "ValueError", "message": "no", "traceback": "..."}
    record_failure(jobs[0], error, 1.0)

    again = plan(manifest, tasks=["hopper-random"], agents=["bc"])
    states = {cell.seed: cell.state for cell in again.cells if cell.label == "bc"}
    assert states == {0: "failed", 1: "todo"}
    assert [job.seeds for job in again.jobs() if job.agent["label"] == "bc"] == [[1]]
    retried = again.jobs(retry=True)
    assert [job.seeds for job in retried if job.agent["label"] == "bc"] == [[0], [1]]

    monkeypatch.setattr(bc.BC, "version", 7)
    newer = plan(manifest, tasks=["hopper-random"], agents=["bc"])
    assert [cell.state for cell in newer.cells if cell.label == "bc"] == ["todo", "todo"]
    (stale,) = newer.stale
    assert stale["path"] == jobs[0].paths[0]
    assert "agent version 1, now 7" in stale["why"]
    assert (newer.options.out / stale["path"]).is_dir()


def test_a_damaged_record_counts_as_not_there(manifest: Path) -> None:
    made = plan(manifest, tasks=["hopper-random"], agents=["bc"])
    job = next(job for job in made.jobs() if job.agent["label"] == "bc")
    record_failure(job, {"type": "E", "message": "m", "traceback": "t"}, 1.0)
    record = made.options.out / job.paths[0] / "record.json"
    record.write_bytes(record.read_bytes()[:100])
    again = plan(manifest, tasks=["hopper-random"], agents=["bc"])
    assert {cell.state for cell in again.cells if cell.label == "bc"} == {"todo"}


def test_needs_are_matched_while_planning(manifest: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "wants.py"
    plugin.write_text(
        "from baselines.bc import BC\nfrom baselines.contract import Needs\n"
        "class Wants(BC):\n"
        "    @staticmethod\n"
        "    def needs(config):\n"
        "        return Needs(('observations', 'reward_partz'))\n"
        "AGENTS = {'wants': Wants}\n"
    )
    with pytest.raises(UsageError, match=r'reward_partz.*mean "reward_parts"'):
        plan(manifest, plugins=[str(plugin)])


def test_what_the_source_lacks_is_refused(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from suites.datasets import local

    monkeypatch.setattr(local, "FIELDS", ("observations", "actions"))
    with pytest.raises(UsageError, match='agent "td3_bc" needs "rewards", which source "local"'):
        plan(manifest)


def test_paths_are_pure_functions(manifest: Path) -> None:
    cell = next(cell for cell in plan(manifest).cells if cell.label == "iql")
    copied = json.loads(json.dumps(cell.identity))
    assert cell_path(copied, cell.seed) == cell.path


def test_an_agent_trains_through_its_own_phases(manifest: Path) -> None:
    manifest.write_text(
        "tasks: [hopper-random]\n"
        "agents: {fastq: , plain: {agent: fastq, preset: td3_bc},"
        " told: {agent: fastq, phases: [{name: policy}]}}\n"
    )
    rows = {row.label: row for row in plan(manifest, budget="quick").rows}
    phases = {label: [(p.name, p.updates) for p in rows[label].phases] for label in rows}
    assert phases["fastq"] == [("represent", 2000), ("policy", 18_000)]
    assert phases["plain"] == phases["told"] == [("policy", 20_000)]
    assert phases["bc"] == [("offline", 20_000)]


def test_a_shipped_suite_leaves_out_who_cannot_be_served(tmp_path: Path) -> None:
    """Its agents are for all sources; what one asks for by name is refused instead."""
    data = save(tmp_path / "mine.npz", logs())  # does not say who acted
    options = {"tasks": [str(data)], "source": "file", "out": tmp_path / "runs", "device": "cpu"}
    made = make_plan(Options("core3", **options))
    served = ["bc", "td3_bc", "iql", "cql", "qt", "ad_rl", "famo2o"]
    assert [row.label for row in made.rows][2:] == served
    assert any(
        w.startswith('fastq is left out: it needs "policy_groups", which task mine')
        for w in made.warnings
    )
    with pytest.raises(UsageError, match='agent "fastq" needs "policy_groups"'):
        make_plan(Options("core3", agents=["fastq"], **options))


def test_a_plan_says_where_100_is_no_expert(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("tasks: [hopper-medium, players-0-overlap-25]\nagents: [bc]")
    made = make_plan(Options(str(path), out=tmp_path / "runs", device="cpu")).to_plan()
    assert [task["expert"] for task in made.tasks] == [True, False]


def test_a_plan_says_who_does_not_learn_from_the_data(manifest: Path) -> None:
    text = manifest.read_text()
    assert not plan(manifest).remarks
    phases = (
        "[{name: offline, updates: 0.5}, {name: online, updates: 0.5, "
        "source: dataset+replay, env_steps_per_update: 1}]"
    )
    both = f"{{dqn: , decqn: , both: {{agent: td3_bc, phases: {phases}}}}}"
    manifest.write_text(text.replace("[bc, td3_bc, iql]", both))
    told = "Learning online from nothing, not from the data: dqn, decqn."
    assert plan(manifest).remarks == [told]
    assert told in plan(manifest).to_plan().caveats
