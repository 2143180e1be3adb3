"""The whole pipeline on real data and simulators, agents that break, and workers that die."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from baselines.config import UsageError
from results.record import Record, normalized_score, read_episodes, read_record, scan
from suites import load_policy, load_results
from suites.cli import main

pytestmark = pytest.mark.usefixtures("hastened")  # all but ``finished``, which is the real thing

FAULTS = """
import os
from baselines.bc import BC


class Raises(BC):
    def update(self, batch, phase):
        if self.updates == 3:
            raise RuntimeError("broke on purpose")
        return super().update(batch, phase)


class NotFinite(BC):
    def update(self, batch, phase):
        return {"loss": super().update(batch, phase)["bc_loss"] * float("nan")}


class Scalar(BC):
    def update(self, batch, phase):
        return {"loss": super().update(batch, phase)["bc_loss"].mean()}


class WrongShape(BC):
    def act(self, step, memory=None, *, explore=False):
        return super().act(step)[0][..., :1], None


class Dies(BC):
    def update(self, batch, phase):
        os.abort()


class Chatty(BC):
    def update(self, batch, phase):
        print("this must not disturb anything", flush=True)
        return super().update(batch, phase)


AGENTS = {"raises": Raises, "not_finite": NotFinite, "scalar": Scalar, "wrong_shape": WrongShape,
          "dies": Dies, "chatty": Chatty}
"""


def records(out: Path) -> list[tuple[Path, Record]]:
    found = list(scan(out))
    assert all(isinstance(record, Record) for _, record in found)
    return [(path, record) for path, record in found if isinstance(record, Record)]


def test_records_hold_every_episode_and_where_it_came_from(finished: Path) -> None:
    found = records(finished / "runs")
    assert len(found) == 2 * (2 + 3 * 2)
    for path, record in found:
        episodes = read_episodes(path)
        low, high = record.task["reference_min"], record.task["reference_max"]
        assert record.final["return_mean"] == pytest.approx(episodes.returns.mean())
        assert record.final["score"] == pytest.approx(
            normalized_score(episodes.returns.mean(), low, high)
        )
        assert record.cell["dataset"]["id"] == record.dataset["id"]
        assert len(record.dataset["sha256"]) == 64
        assert record.versions["torch"]
        assert record.versions["mujoco"]
        if record.agent["reference"]:
            continue
        assert len(episodes.returns) == 3
        assert len(set(episodes.reset_seeds.tolist())) == 3
        assert episodes.curve_updates.tolist() == [3, 6]
        assert [point["update"] for point in record.curve] == [3, 6]
        assert episodes.curve_returns.shape == (2, 2)
        assert record.timing["training_s"] > 0
        assert record.stack == [record.seed]
    seeds = [
        r for _, r in found if r.agent["label"] == "td3_bc" and r.task["id"] == "hopper-random"
    ]
    assert seeds[0].final["return_mean"] != seeds[1].final["return_mean"]


def test_behaviour_is_the_data(finished: Path) -> None:
    (path, record), *_ = [
        (p, r) for p, r in records(finished / "runs") if r.agent["label"] == "behaviour"
    ]
    assert read_episodes(path).returns.mean() == pytest.approx(record.dataset["return_mean"])
    assert len(read_episodes(path).returns) == record.dataset["episodes"]


def test_the_report_is_there(finished: Path) -> None:
    (folder,) = (finished / "runs" / "reports").iterdir()
    assert folder.name == "tiny-tiny-local"
    assert "td3_bc" in (folder / "index.html").read_text()
    assert "td3_bc" in (folder / "table.md").read_text()


def test_what_is_done_is_skipped(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(finished / "tiny.yaml"), "--out", str(finished / "runs")]
    before = {
        path: (path / "record.json").stat().st_mtime_ns for path, _ in records(finished / "runs")
    }
    assert main(command) == 0
    assert "cells to run" not in capsys.readouterr().out
    after = {
        path: (path / "record.json").stat().st_mtime_ns for path, _ in records(finished / "runs")
    }
    assert after == before
    assert main([*command, "--status", "--agents", "bc", "--set", "bc.lr=1"]) == 0
    shown = capsys.readouterr().out
    assert "--agents, --set: without effect here; this is what was last planned" in shown
    assert "td3_bc" in shown
    assert main([*command, "--status"]) == 0
    assert "2/2" in capsys.readouterr().out


def test_a_cell_is_the_same_whenever_and_in_whatever_company_it_runs(
    finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "again"
    command = [str(finished / "tiny.yaml"), "--out", str(out), "--tasks", "hopper-random"]
    assert main([*command, "--agents", "td3_bc", "--jobs", "1"]) == 0
    for path, record in records(out):
        first = read_episodes(finished / "runs" / path.relative_to(out))
        again = read_episodes(path)
        np.testing.assert_array_equal(again.returns, first.returns, err_msg=record.agent["label"])
        np.testing.assert_array_equal(again.curve_returns, first.curve_returns)


def test_a_stack_writes_a_record_per_seed(finished: Path, tmp_path: Path) -> None:
    command = [str(finished / "tiny.yaml"), "--out", str(tmp_path), "--tasks", "hopper-random"]
    assert main([*command, "--agents", "iql", "--stack", "2", "--precision", "float64"]) == 0
    assert main([*command, "--agents", "iql", "--precision", "float64", "--seeds", "3"]) == 0
    found = {r.seed: (p, r) for p, r in records(tmp_path) if r.agent["label"] == "iql"}
    assert {seed: record.stack for seed, (_, record) in found.items()} == {
        0: [0, 1],
        1: [0, 1],
        2: [2],
    }
    alone = tmp_path / "alone"
    command[2] = str(alone)
    assert main([*command, "--agents", "iql", "--precision", "float64", "--seeds", "1"]) == 0
    for path, record in records(alone):
        if record.agent["label"] == "iql":
            np.testing.assert_allclose(
                read_episodes(path).returns, read_episodes(found[0][0]).returns, rtol=1e-6
            )


def test_broken_plugins_fail_their_own_cells_only(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = tmp_path / "faults.py"
    plugin.write_text(FAULTS)
    out = tmp_path / "runs"
    command = [str(finished / "tiny.yaml"), "--out", str(out), "--tasks", "hopper-random"]
    command += ["--plugin", str(plugin), "--seeds", "1", "--jobs", "2"]
    command += ["--keep-checkpoints", "--checkpoint-seconds", "0"]
    assert main(command) == 1
    by_label = {record.agent["label"]: record for _, record in records(out)}
    expected = {
        "raises": "broke on purpose",
        "not_finite": 'metric "loss" is not finite',
        "scalar": 'metric "loss" has shape ()',
        "wrong_shape": "actions of shape (1, 2, 1)",
        "dies": "died of signal 6 (SIGABRT)",
    }
    for label, words in expected.items():
        record = by_label[label]
        assert record.status == "failed"
        assert record.error is not None
        assert words in record.error["message"]
        if label == "raises":
            assert "RuntimeError: broke on purpose" in record.error["traceback"]
            assert "faults.py" in record.error["traceback"]
    for label in ("random", "behaviour", "bc", "td3_bc", "iql", "chatty"):
        assert by_label[label].status == "done", label
    shown = capsys.readouterr().out
    assert shown.count("FAILED") == len(expected)
    assert f"{len(expected)} cells failed" in shown

    assert main(command) == 1  # failed cells are skipped, not repeated ...
    assert "FAILED" not in capsys.readouterr().out
    plugin.write_text(FAULTS.replace("if self.updates == 3:", "if False:"))
    assert main([*command, "--retry"]) == 1  # ... until one asks
    assert capsys.readouterr().out.count("FAILED") == len(expected) - 1
    mended = {r.agent["label"]: r for _, r in records(out)}["raises"]
    assert mended.status == "done"
    assert not mended.resumes  # it began anew
    main([*command, "--dry-run"])
    assert '1 finished run of "chatty" came from another text' in capsys.readouterr().out


def test_interrupting_keeps_what_is_finished(finished: Path, tmp_path: Path) -> None:
    import os
    import signal
    import time

    out = tmp_path / "runs"
    text = (finished / "tiny.yaml").read_text().replace("updates: 6", "updates: 200000")
    (tmp_path / "long.yaml").write_text(text)
    command = [sys.executable, "-m", "suites.run", str(tmp_path / "long.yaml"), "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--jobs", "1", "--tasks", "hopper-random", "--agents", "bc"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        # A test run in the background of a shell ignores SIGINT, and its children would, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if len(list(out.glob("cells/*/*/*/*/record.json"))) == 2:  # the two references
            break
        time.sleep(0.1)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    shown, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted; what is finished is kept" in shown
    assert len(records(out)) == 2


def test_results_as_a_frame(finished: Path) -> None:
    frame = load_results(finished / "runs")
    assert len(frame) == 16
    assert {"task", "agent", "seed", "score", "return_mean"} <= set(frame.columns)
    with pytest.warns(UserWarning, match="holds no finished runs; give an output folder"):
        assert load_results(finished / "runs" / "reports").empty


def test_settings_given_by_hand_are_told_wherever_numbers_are(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], hastened: None
) -> None:
    command = [str(finished / "tiny.yaml"), "--out", str(tmp_path), "--tasks", "hopper-random"]
    command += ["--agents", "td3_bc", "--seeds", "1"]
    assert main(command) == 0
    assert "--set" not in capsys.readouterr().out
    load_results(tmp_path)
    assert main([*command, "--set", "td3_bc.alpha=1.0"]) == 0
    told = "Settings given with --set: td3_bc.alpha=1.0."
    shown = capsys.readouterr().out
    assert shown.count(told) == 2  # under the plan and under the table
    (report,) = (tmp_path / "reports").iterdir()
    for name in ("table.md", "aggregates.md", "index.html"):
        assert told in (report / name).read_text(), name

    # Both are there under one label; the report's runs are those of its plan.
    with pytest.warns(UserWarning, match="several runs of one task, budget and seed of td3_bc"):
        runs = load_results(tmp_path)
    both = runs[runs["agent"] == "td3_bc"]
    assert sorted(json.loads(config)["alpha"] for config in both["config"]) == [1.0, 2.5]
    (one,) = load_results(report).query("agent == 'td3_bc'")["config"]
    assert json.loads(one)["alpha"] == 1.0
    assert main(["export", str(tmp_path), str(tmp_path / "runs.csv")]) == 0
    assert "warning: " in capsys.readouterr().out


def test_the_plan_says_what_is_cut(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], hastened: None
) -> None:
    command = ["core3", "--out", str(tmp_path), "--dry-run", "--agents", "td3_bc,iql,cql,dt"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "20,000 updates (cql 5,000, dt 2,000), 3 seeds" in shown
    assert "in no aggregate: cql, dt\n" in shown


def test_a_policy_acts_as_it_did_in_evaluation(finished: Path) -> None:
    for path, record in records(finished / "runs"):
        if record.agent["label"] != "td3_bc":
            continue
        policy = load_policy(path)
        env = gymnasium.make(record.task["env_id"])
        episodes = read_episodes(path)
        for i, seed in enumerate(episodes.reset_seeds.tolist()):
            observation, _ = env.reset(seed=seed)
            policy.reset()
            total, over = 0.0, False
            while not over:
                observation, reward, terminated, truncated, _ = env.step(policy.act(observation))
                total += float(reward)
                over = terminated or truncated
            assert total == pytest.approx(episodes.returns[i], rel=1e-3)
        env.close()


def test_policies_that_cannot_be_read(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not there"):
        load_policy(tmp_path)
    (tmp_path / "policy.pt").write_bytes(b"no policy")
    with pytest.raises(UsageError, match="cannot be read as a policy"):
        load_policy(tmp_path)
    path, _ = next((p, r) for p, r in records(finished / "runs") if r.agent["label"] == "bc")
    shutil.copy(path / "policy.pt", tmp_path / "policy.pt")
    assert load_policy(tmp_path).act(np.zeros((4, 11))).shape == (4, 3)
    assert read_record(path).status == "done"


def test_run_from_python(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from suites import run

    out = finished / "runs"
    assert run(str(finished / "tiny.yaml"), out=out, tasks=["hopper-random"]) == 0
    assert "hopper-random" in capsys.readouterr().out
    text = {"tasks": "hopper-random", "agents": "bc,iql", "settings": "bc.lr=0.0003", "seeds": "2"}
    assert run(str(finished / "tiny.yaml"), out=out, **text) == 0  # as on the command line
    assert run(str(finished / "tiny.yaml"), out=out) == 0  # the report is whole again
    with pytest.raises(UsageError, match='run: seeds must be int, not "many"'):
        run(str(finished / "tiny.yaml"), out=out, seeds="many")
    with pytest.raises(UsageError, match='mean "budget"'):
        run("core3", budgte="smoke")


def test_an_installed_package_brings_its_agent(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    (site / "their_agents-1.0.dist-info").mkdir(parents=True)
    (site / "their_agents-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: their-agents\nVersion: 1.0\n"
    )
    (site / "their_agents-1.0.dist-info" / "entry_points.txt").write_text(
        "[fastq_bench.agents]\ntheirs = their_agents.theirs:Theirs\n"
    )
    (site / "their_agents").mkdir()
    (site / "their_agents" / "__init__.py").touch()
    (site / "their_agents" / "theirs.py").write_text(
        "from baselines.bc import BC\n\n\nclass Theirs(BC):\n    version = 3\n"
    )
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))  # for the workers
    command = [str(finished / "tiny.yaml"), "--out", str(tmp_path / "runs")]
    assert main([*command, "--tasks", "hopper-random", "--agents", "theirs", "--seeds", "1"]) == 0
    (theirs,) = [r for _, r in records(tmp_path / "runs") if r.agent["label"] == "theirs"]
    assert theirs.status == "done"
    assert theirs.agent["version"] == 3


def test_data_that_cannot_be_made_is_said_and_tried_again_next_time(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    data_cache: Path,
) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    monkeypatch.setenv("FASTQ_BENCH_CACHE", str(tmp_path / "cache"))
    command = [str(finished / "tiny.yaml"), "--out", str(tmp_path / "runs")]
    command += ["--tasks", "hopper-random", "--agents", "bc", "--seeds", "1"]
    assert main(command) == 1
    assert "failed: data of hopper-random" in capsys.readouterr().out
    assert not records(tmp_path / "runs")
    monkeypatch.setenv("FASTQ_BENCH_CACHE", str(data_cache))
    assert main(command) == 0
    assert len(records(tmp_path / "runs")) == 3


def test_the_how_tos_plugins_run_beside_the_others(finished: Path, tmp_path: Path) -> None:
    examples, agents = Path(__file__).parents[2] / "examples", ("awr", "dropout_bc", "filtered_bc")
    command = [str(finished / "tiny.yaml"), "--out", str(tmp_path), "--tasks", "hopper-random"]
    for name in ("stacked_plugin.py", "single_seed_plugin.py", "whole_dataset_plugin.py"):
        command += ["--plugin", str(examples / name)]
    assert main([*command, "--agents", ",".join(agents), "--stack", "2"]) == 0
    by_label = {r.agent["label"]: (p, r) for p, r in records(tmp_path)}
    assert set(by_label) == {"random", "behaviour", "bc", *agents}
    for label in agents:
        path, record = by_label[label]
        assert record.status == "done"
        assert record.stack == [0, 1]
        assert load_policy(path).act(np.zeros(11)).shape == (3,)
