"""Records as tables, and foreign scores."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from analysis.frame import (
    CURVE_COLUMNS,
    EPISODE_COLUMNS,
    RUN_COLUMNS,
    ScoresError,
    add_foreign,
    collect,
    load,
    load_curves,
    load_episodes,
    read_csv,
)
from results.record import PLAN_FILE, RECORD_FILE, read_plan

Make = Callable[..., Path]


def test_one_row_per_finished_run(make: Make, tmp_path: Path) -> None:
    plan = read_plan(make(tmp_path, failed=[("hopper-medium", "iql", 1)]) / PLAN_FILE)
    runs = load(tmp_path, plan)
    assert tuple(runs.columns) == RUN_COLUMNS
    assert len(runs) == len(plan.cells) - 1
    assert not runs.duplicated(["task", "agent", "seed"]).any()
    assert set(runs.loc[runs["reference"], "agent"]) == {"random", "behaviour"}
    # Without a plan the same records are found.
    by_path = load(tmp_path).set_index("path")["score"]
    np.testing.assert_array_equal(by_path.loc[runs["path"]], runs["score"])


def test_a_row_says_where_its_numbers_come_from(make: Make, tmp_path: Path) -> None:
    plan = read_plan(make(tmp_path) / PLAN_FILE)
    runs = load(tmp_path, plan)
    assert set(runs["commit"]) == {"c0ffee0"}
    assert set(runs["machine"]) == {"a CPU"}
    assert (runs["dataset"] == runs["task"] + "-v2").all()
    assert set(runs.loc[~runs["reference"], "updates"]) == {20_000}

    file = tmp_path / plan.cells[0]["path"] / RECORD_FILE
    record = json.loads(file.read_bytes())
    for versions, commit, machine in (
        ({"git_commit": "c0ffee0", "git_dirty": True, "cpu": "a CPU"}, "c0ffee0+", "a CPU"),
        ({"git_commit": None, "git_dirty": None, "cpu": "a CPU", "gpu": "a GPU"}, "", "a GPU"),
        ({}, "", ""),
    ):
        file.write_text(json.dumps(record | {"versions": versions}))
        row = load(tmp_path, plan).iloc[0]
        assert (row["commit"], row["machine"]) == (commit, machine)


def test_one_row_per_point_of_a_curve(make: Make, tmp_path: Path) -> None:
    plan = read_plan(make(tmp_path, points=7) / PLAN_FILE)
    curves = load_curves(tmp_path, plan)
    assert tuple(curves.columns) == CURVE_COLUMNS
    assert set(curves.groupby(["task", "agent", "seed"]).size()) == {7}


def test_one_row_per_final_episode(make: Make, tmp_path: Path) -> None:
    plan = read_plan(make(tmp_path, episodes=6) / PLAN_FILE)
    (tmp_path / plan.cells[0]["path"] / "episodes.npz").write_bytes(b"damaged")
    episodes = load_episodes(tmp_path, plan)
    assert tuple(episodes.columns) == EPISODE_COLUMNS
    assert len(episodes) == 6 * (len(plan.cells) - 1)
    assert episodes["reset_seed"].unique().tolist() == list(range(20_000_000, 20_000_006))
    first = episodes[episodes["episode"] == 0].set_index(["task", "agent", "seed"])["return"]
    for cell in plan.cells[1:]:
        with np.load(tmp_path / cell["path"] / "episodes.npz") as kept:
            assert first[cell["task"], cell["agent"], cell["seed"]] == kept["returns"][0]


def test_the_draw_is_the_datasets_seed(make: Make, tmp_path: Path) -> None:
    plan = read_plan(make(tmp_path, changes={"dataset": {"seed": 3}}) / PLAN_FILE)
    for frame in (load(tmp_path, plan), load_curves(tmp_path, plan), load_episodes(tmp_path)):
        assert (frame["draw"] == 3).all()
    make(tmp_path / "recorded")  # a dataset without a seed
    assert (load(tmp_path / "recorded")["draw"] == 0).all()


def test_failures_and_unreadable_records_are_reported(make: Make, tmp_path: Path) -> None:
    plan = read_plan(make(tmp_path, failed=[("hopper-medium", "iql", 1)]) / PLAN_FILE)
    broken = tmp_path / plan.cells[0]["path"] / "record.json"
    broken.write_text("{")
    results = collect(tmp_path, plan)
    assert [(f.task, f.agent, f.seed, f.error["type"]) for f in results.failures] == [
        ("hopper-medium", "iql", 1, "FloatingPointError")
    ]
    assert len(results.unreadable) == 1
    assert str(broken) in results.unreadable[0]


def test_an_empty_folder_gives_empty_tables(tmp_path: Path) -> None:
    assert load(tmp_path).empty
    assert load_curves(tmp_path).empty


def test_the_expert_yardstick_may_lie_outside_the_plan(make: Make, tmp_path: Path) -> None:
    make(tmp_path, qualities=("expert",), agents=("behaviour",))
    plan = read_plan(make(tmp_path, environments=("hopper", "ant")) / PLAN_FILE)
    runs = load(tmp_path, plan).set_index("environment")
    expert = -20.3 + 0.95 * (3234.3 + 20.3)
    np.testing.assert_allclose(runs.loc["hopper", "expert_return_mean"], expert)
    assert runs.loc["ant", "expert_return_mean"].isna().all()


def test_foreign_scores_are_read_and_joined(make: Make, tmp_path: Path) -> None:
    plan = read_plan(make(tmp_path) / PLAN_FILE)
    runs = load(tmp_path, plan)
    path = tmp_path / "other.csv"
    path.write_text(
        "task,agent,seed,score,note\nhopper-medium,theirs,0,50.5,x\nantmaze,theirs,0,9,x\n"
    )
    joined, notes = add_foreign(plan, runs, [path])
    assert len(joined) == len(runs) + 1
    last = joined.iloc[-1]
    assert (last["agent"], last["score"], last["environment"]) == ("theirs", 50.5, "hopper")
    assert last["foreign"]
    assert "antmaze" in notes[0]

    path.write_text("task,agent,seed,score\nhopper-medum,theirs,0,50.5\n")
    with pytest.raises(ScoresError, match="all its scores are on hopper-medum, which"):
        add_foreign(plan, runs, [path])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("task,agent,score\na,b,1\n", "no column seed"),
        ("", "no column task, agent, seed, score"),
        ("task,agent,seed,score\n", "no scores"),
        ("task,agent,seed,score\na,b,0,1\na,b,0,2\n", "line 3: a second score of b on a"),
        ("task,agent,seed,score\na,b,zero,1\n", "line 2: seed 'zero' is not a whole number"),
        ("task,agent,seed,score\na,b,0,nan\n", "line 2: score 'nan' is not a finite number"),
        ("task,agent,seed,score\na,b,0\n", "line 2: score '' is not a finite number"),
        ("task,agent,seed,score\n,b,0,1\n", "line 2: the task is empty"),
        ("task,agent,seed,score\na,\xff,0,1\n", "not a readable CSV file in UTF-8"),
    ],
)
def test_bad_foreign_scores_get_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "scores.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ScoresError) as caught:
        read_csv(path)
    assert sentence in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_of_scores_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScoresError, match=r"absent\.csv: no such file"):
        read_csv(tmp_path / "absent.csv")


def test_a_foreign_agent_needs_a_name_of_its_own(make: Make, tmp_path: Path) -> None:
    plan = read_plan(make(tmp_path) / PLAN_FILE)
    path = tmp_path / "other.csv"
    path.write_text("task,agent,seed,score\nhopper-medium,iql,0,50\n")
    with pytest.raises(ScoresError, match="agents of its own called iql"):
        add_foreign(plan, load(tmp_path, plan), [path])


def test_import_is_light() -> None:
    """Importing the package loads neither pandas nor matplotlib, and nothing ever loads torch."""
    code = (
        "import json, sys, analysis.report, analysis.plots\n"
        "print(json.dumps([m for m in ('pandas', 'matplotlib', 'torch') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
