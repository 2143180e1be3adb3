"""A user's own logs through the whole pipeline, with and without a simulator."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_data import logs, save

from analysis.frame import Run, collect
from analysis.unsimulated import section
from baselines.config import UsageError
from results.record import PLAN_FILE, Record, read_plan
from suites import load_policy, load_results
from suites.cli import main, parser
from suites.plan import make_plan
from suites.resolve import Options
from suites.train import open_dataset, train

SUITE = """
title: own
tasks: [{tasks}]
agents: [{agents}]
budget: tiny
budgets:
  tiny: {{updates: 6, seeds: 2, evaluations: 2, evaluation_episodes: 2, final_episodes: 3}}
"""

MODAL = """
from collections.abc import Mapping
from dataclasses import dataclass
import torch
from baselines.contract import Needs


@dataclass(frozen=True)
class Config:
    pass


class Modal:
    "Always chooses the action that was logged most often."

    Config, version = Config, 1

    @staticmethod
    def needs(config):
        return Needs(("actions",), batch_size=64)

    def __init__(self, spec, config, seeds):
        self.counts = torch.zeros(len(seeds), int(spec.action_space.n))

    def update(self, batch, phase):
        assert batch["actions"].dtype == torch.int64 and batch["actions"].dim() == 2
        for row, actions in zip(self.counts, batch["actions"], strict=True):
            row += torch.bincount(actions, minlength=len(row))
        return {"most": self.counts.max(1).values}

    def act(self, step, memory=None, *, explore=False):
        return self.counts.argmax(1)[:, None].expand(step["active"].shape).clone(), None

    def state_dict(self):
        return {"counts": self.counts.clone()}

    def load_state_dict(self, state):
        self.counts = state["counts"].clone()


AGENTS = {"modal": Modal}
"""


def write_suite(folder: Path, tasks: list[Path], agents: str = "bc") -> Path:
    path = folder / "own.yaml"
    path.write_text(SUITE.format(tasks=", ".join(map(str, tasks)), agents=agents))
    return path


def hopper_logs(**changes: Any) -> dict[str, Any]:
    seen = np.random.default_rng(0).standard_normal((20, 11))
    actions = np.random.default_rng(1).uniform(-1, 1, (20, 3))
    return logs(
        observations=seen, next_observations=seen, actions=actions, env_id="Hopper-v5", **changes
    )


@pytest.fixture(scope="module")
def ran(
    tmp_path_factory: pytest.TempPathFactory,
    data_cache: Path,
    hasten: Callable[[pytest.MonkeyPatch], None],
) -> Path:
    """Logs without a simulator, and with one whose returns have no scale, trained with bc."""
    folder = tmp_path_factory.mktemp("own")
    tasks = [save(folder / "plant.npz", logs(30)), save(folder / "robot.h5", hopper_logs())]
    suite = write_suite(folder, tasks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTQ_BENCH_CACHE", str(data_cache))
        hasten(patch)
        assert main([str(suite), "--out", str(folder / "runs"), "--jobs", "2"]) == 0
    return folder


def finished(folder: Path) -> list[Run]:
    return collect(folder / "runs").finished


def records(folder: Path) -> dict[tuple[str, str, int], Record]:
    return {(run.task, run.agent, run.seed): run.record for run in finished(folder)}


def test_without_a_simulator_there_are_losses_and_no_returns(ran: Path) -> None:
    found = records(ran)
    assert ("plant", "random", 0) not in found
    record = found["plant", "bc", 1]
    assert record.task["env_id"] is None
    assert record.final.keys() == {"action_error", "held_out_episodes", "held_out_steps"}
    assert (record.final["held_out_episodes"], record.final["held_out_steps"]) == (3, 15)
    assert [point["update"] for point in record.curve] == [3, 6]
    assert all(
        point.keys() == {"update", "phase", "env_steps", "metrics"} for point in record.curve
    )
    assert math.isfinite(record.curve[-1]["metrics"]["bc_loss"])
    behaviour = found["plant", "behaviour", 0]
    assert "score" not in behaviour.final
    assert behaviour.final["return_mean"] == pytest.approx(
        logs(30)["rewards"].reshape(30, 5).sum(1).mean(), abs=1e-5
    )


def test_without_a_scale_there_are_returns_and_no_scores(ran: Path) -> None:
    record = records(ran)["robot", "bc", 0]
    assert record.task["env_id"] == "Hopper-v5"
    assert record.final.keys() == {"return_mean", "return_std", "length_mean"}
    assert len(record.curve) == 2
    assert "score" not in record.curve[0]


def test_the_action_error_is_that_of_the_policy_on_held_out_rows(ran: Path) -> None:
    from suites.datasets import file, store

    record = records(ran)["plant", "bc", 0]
    _, held_out = store.load(file.ensure(record.task["key"])).split()
    assert held_out is not None
    policy = load_policy(next(run.folder for run in finished(ran) if run.record == record))
    chosen = policy.act(held_out.column("observations"))
    error = np.sqrt(np.mean((chosen - held_out.column("actions")) ** 2))  # the box is [-1, 1]
    assert record.final["action_error"] == pytest.approx(error, rel=1e-5)


def test_tables_say_what_there_is(ran: Path) -> None:
    folder = ran / "runs" / "reports" / "own-tiny-file"
    table = (folder / "table.md").read_text()
    assert "| plant | - | return" in table
    assert "no returns (2) |" in table
    assert "No simulator: no returns. plant:" in table
    assert "Returns as they are, not scores: robot." in table
    assert "| plant | bc | 2 |" in table.partition("## Without a simulator")[2]
    assert "bc_loss" in table
    assert "No off-policy estimate applies" in table
    aggregates = (folder / "aggregates.md").read_text()
    assert "this plan has no tasks with data and scores" in aggregates
    page = (folder / "index.html").read_text()
    assert "Without a simulator" in page
    assert "nan" not in page.partition("<main>")[2].partition("</main>")[0].lower().split(">")
    plan = read_plan(folder / PLAN_FILE)
    runs = collect(ran / "runs", plan).runs
    assert runs["score"].isna().all()
    assert load_results(ran / "runs")["score"].isna().all()


def test_aggregates_leave_unscored_tasks_out_with_a_sentence(ran: Path) -> None:
    from dataclasses import replace

    from analysis.comparison import compare

    plan = read_plan(ran / "runs" / "reports" / "own-tiny-file" / PLAN_FILE)
    runs = collect(ran / "runs", plan).runs
    task = {**plan.tasks[0], "id": "hopper-medium", "simulator": True, "scored": True}
    scored = runs[(runs["task"] == "plant") & (runs["agent"] == "bc")].assign(
        task="hopper-medium", score=[50.0, 60.0]
    )
    wider = replace(plan, tasks=[*plan.tasks, task])
    comparison = compare(wider, scored._append(runs))
    assert comparison.tasks == ["hopper-medium"]
    assert comparison.scores["bc"].tolist() == [[50.0], [60.0]]
    said = " ".join(comparison.notes)
    assert "Without a simulator, so without returns, and left out: plant." in said
    assert "Without a scale of returns and left out: robot." in said


def test_verbs_on_unscored_runs(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = {(run.task, run.agent): str(run.folder) for run in finished(ran) if run.seed == 0}
    plant, robot = folders["plant", "bc"], folders["robot", "bc"]
    assert main(["evaluate", plant]) == 2
    assert "the task has no simulator, so no episodes can be played" in capsys.readouterr().err
    assert main(["evaluate", plant, "--same-episodes"]) == 2
    assert "the task has no simulator, so no episodes can be played" in capsys.readouterr().err
    to = ran / "episodes.json"
    assert main(["evaluate", robot, "--episodes", "2", "--to", str(to)]) == 0
    assert [episode["score"] for episode in json.loads(to.read_text())["episodes"]] == [None] * 2
    assert main([str(ran / "own.yaml"), "--out", str(ran / "runs"), "--status"]) == 0
    assert "plant: no simulator" in capsys.readouterr().out
    runs = str(ran / "runs")
    assert main(["compare", runs, runs]) == 2
    assert "no run finished in both" in capsys.readouterr().err


def test_integer_actions_with_logged_probabilities_give_an_estimate(
    tmp_path: Path,
) -> None:
    """A policy that always chooses 0, on logs that chose 0 with probability 0.8 at every step."""
    rng = np.random.default_rng(0)
    actions = (rng.random(100) > 0.8).astype(int)
    data = logs(
        50,
        2,
        actions=actions,
        rewards=1.0 - actions,
        action_log_probs=np.log(np.where(actions == 0, 0.8, 0.2)),
        terminations=np.arange(100) % 2 == 1,
        truncations=np.zeros(100),
    )
    suite = write_suite(tmp_path, [save(tmp_path / "shop.npz", data)], "modal")
    plugin = tmp_path / "modal.py"
    plugin.write_text(MODAL)
    runs = tmp_path / "runs"
    made = make_plan(Options(str(suite), out=runs, seeds=1, plugins=[str(plugin)], device="cpu"))
    assert "modal" in [row.label for row in made.rows]
    assert "bc" in [row.label for row in made.rows]  # it clones integers too
    (job,) = (job for job in made.jobs() if job.agent["label"] == "modal")
    train(job, lambda *_: None, lambda _: None)
    (run,) = collect(runs).finished
    final = run.record.final  # of every episode of its own 2, but for the softening
    assert final["ope_return"] == pytest.approx(2.0, abs=0.05)
    assert 0 < run.record.final["ope_effective_episodes"] <= 5
    found = section([run])
    assert found is not None
    assert found.heads == [
        *("action error", "estimated return", "effective episodes", "interval", "losses")
    ]
    assert float(found.rows[0][3][1][0]) == pytest.approx(2.0, abs=0.05)


def plan_of(folder: Path, data: dict[str, Any], **options: Any) -> Any:
    path = save(folder / "logs.npz", data)
    return make_plan(Options("", tasks=[str(path)], out=folder / "runs", device="cpu", **options))


def test_a_file_needs_no_suite(tmp_path: Path) -> None:
    made = plan_of(tmp_path, logs(), budget="smoke")
    assert (made.suite.name, made.options.source) == ("logs", "file")
    assert [row.label for row in made.rows if not row.reference] == ["bc", "td3_bc", "iql"]
    assert {cell.task for cell in made.cells} == {"logs"}
    assert any("taken to lie in [-1, 1]" in warning for warning in made.warnings)
    job = made.jobs()[0]
    assert json.loads(json.dumps(job.task))["spaces"]["action"]["shape"] == [2]
    twice = [str(tmp_path / "logs.npz"), str(tmp_path / "other" / "logs.npz")]
    (tmp_path / "other").mkdir()
    save(Path(twice[1]), logs())
    with pytest.raises(UsageError, match='would both be called "logs"; rename one'):
        make_plan(Options("", tasks=twice))
    with pytest.raises(UsageError, match="name a suite"):
        make_plan(Options(""))
    with pytest.raises(UsageError, match=r"logs.npz is data, not a suite; give it as --tasks"):
        make_plan(Options(str(tmp_path / "logs.npz")))
    core = make_plan(Options("core3", source="file"))
    assert all("name yours" in task["missing"] for task in core.tasks)


def test_the_docs_page_makes_a_file_that_can_be_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "own-data.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    command = re.findall(r"^python -m suites.run (.*)$", page, re.M)[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "own-data.md", "exec"), {})
    chosen = parser().parse_args(command.split())
    made = make_plan(Options("", tasks=chosen.tasks, agents=chosen.agents, device="cpu"))
    assert [task["missing"] for task in made.tasks] == [None]
    assert len(made.jobs()) == 1 + 3 * 3


def test_a_suite_s_agents_on_own_data(tmp_path: Path) -> None:
    path = save(tmp_path / "logs.npz", logs())
    made = make_plan(Options("core3", tasks=[str(path)], out=tmp_path / "runs", device="cpu"))
    assert [task["id"] for task in made.tasks] == ["logs"]
    assert made.options.source == "file"


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        (
            {"actions": np.arange(20) % 4},
            {"agents": ["iql"]},
            r'agent "iql" on logs: this agent needs a bounded .* Discrete\(4\); choose others',
        ),
        (
            {"actions": np.stack([np.arange(20) % 4] * 2, 1)},
            {},
            r'agent "td3_bc" on logs: .* not MultiDiscrete\(\[4 4\]\)',
        ),
        ({}, {"dataset_seeds": 2}, "logs.npz: recorded data has one draw"),
        ({"rewards": None}, {}, "logs.npz: rewards is missing"),
    ],
)
def test_what_cannot_be_trained_is_refused_while_planning(
    tmp_path: Path, changes: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        plan_of(tmp_path, logs(**changes), **options)


def test_a_file_that_changes_after_planning_is_not_trained_on(tmp_path: Path) -> None:
    from suites.datasets.store import DatasetError

    job = plan_of(tmp_path, logs(), budget="smoke").jobs()[0]
    assert open_dataset(job).card["id"] == job.cell["dataset"]["id"]
    save(tmp_path / "logs.npz", logs(rewards=np.ones(20)))
    with pytest.raises(DatasetError, match="logs has changed since this was planned"):
        open_dataset(job)
