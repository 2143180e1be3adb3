"""Who may be compared with whom, and what the tables print."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from analysis import stats, tables
from analysis.comparison import (
    ALL_TASKS,
    IncompleteMatrixError,
    Pair,
    agents,
    aggregate_rows,
    compare,
    pairs,
    profiles,
)
from analysis.frame import add_foreign, load
from analysis.stats import AGGREGATES, exact_p_value, holm
from analysis.terminal import terminal
from results.record import PLAN_FILE, Plan, read_plan

Make = Callable[..., Path]


def suite(make: Make, out: Path, **options: Any) -> tuple[Plan, pd.DataFrame]:
    plan = read_plan(make(out, **options) / PLAN_FILE)
    return plan, load(out, plan)


def test_yardsticks_come_first(make: Make, tmp_path: Path) -> None:
    plan, runs = suite(make, tmp_path, agents=("iql", "bc", "behaviour", "random"))
    assert [a.label for a in agents(plan, runs)] == ["random", "behaviour", "bc", "iql"]


def test_a_full_matrix_is_compared(make: Make, tmp_path: Path) -> None:
    plan, runs = suite(make, tmp_path)
    comparison = compare(plan, runs)
    assert list(comparison.scores) == ["bc", "td3_bc", "iql"]
    assert comparison.tasks == [task["id"] for task in plan.tasks]
    of_bc = runs[(runs["agent"] == "bc") & (runs["task"] == comparison.tasks[1])]
    np.testing.assert_array_equal(comparison.scores["bc"][:, 1], of_bc["score"])
    assert list(comparison.groups) == [ALL_TASKS, "medium", "medium-replay"]
    assert len(aggregate_rows(comparison)) == 9
    assert len(pairs(comparison)) == 3
    taus, found = profiles(comparison)
    assert found["bc"].value.shape == taus.shape


def test_an_incomplete_matrix_is_refused_by_name(make: Make, tmp_path: Path) -> None:
    plan, runs = suite(
        make,
        tmp_path,
        absent=[("hopper-medium", "iql", 1)],
        failed=[("walker2d-medium", "td3_bc", s) for s in range(3)],
    )
    with pytest.raises(IncompleteMatrixError) as caught:
        compare(plan, runs)
    assert "iql has 2/3 seeds on hopper-medium" in str(caught.value)
    assert "td3_bc has 0/3 seeds on walker2d-medium" in str(caught.value)
    assert "--allow-missing" in str(caught.value)


def test_many_gaps_are_counted(make: Make, tmp_path: Path) -> None:
    absent = [
        (f"{e}-{q}", a, 0)
        for e in ("hopper", "walker2d")
        for q in ("medium", "medium-replay")
        for a in ("bc", "iql")
    ]
    plan, runs = suite(make, tmp_path, absent=absent)
    with pytest.raises(IncompleteMatrixError, match="and 3 more gaps"):
        compare(plan, runs)


def test_allow_missing_keeps_tasks_at_equal_weight(make: Make, tmp_path: Path) -> None:
    plan, runs = suite(
        make,
        tmp_path,
        absent=[("hopper-medium", "iql", 0)] + [("walker2d-medium", "td3_bc", s) for s in range(3)],
    )
    comparison = compare(plan, runs, allow_missing=True)
    assert comparison.tasks == ["hopper-medium", "hopper-medium-replay", "walker2d-medium-replay"]
    assert {k: v.shape for k, v in comparison.scores.items()} == {
        "bc": (3, 3),
        "td3_bc": (3, 3),
        "iql": (2, 3),
    }
    assert any("walker2d-medium lacks runs" in note for note in comparison.notes)
    assert any("incomplete" in note for note in comparison.notes)


def test_allow_missing_leaves_out_agents_that_have_not_begun(make: Make, tmp_path: Path) -> None:
    absent = [
        (f"{e}-{q}", "iql", s)
        for e in ("hopper", "walker2d")
        for q in ("medium", "medium-replay")
        for s in range(3)
    ]
    plan, runs = suite(make, tmp_path, absent=absent)
    comparison = compare(plan, runs, allow_missing=True)
    assert list(comparison.scores) == ["bc", "td3_bc"]
    assert any("iql has no finished run" in note for note in comparison.notes)


def test_allow_missing_cannot_make_something_of_nothing(make: Make, tmp_path: Path) -> None:
    plan, runs = suite(make, tmp_path)
    with pytest.raises(IncompleteMatrixError, match="no task has a run"):
        compare(plan, runs.iloc[:0], allow_missing=True)


def test_shrunk_agents_and_missing_tasks_stay_out_and_are_named(make: Make, tmp_path: Path) -> None:
    plan, runs = suite(make, tmp_path, shrunk=("iql",), missing=("hopper-medium",))
    comparison = compare(plan, runs)
    assert "iql" not in comparison.scores
    assert "hopper-medium" not in comparison.tasks
    assert comparison.notes == [
        "Without data and left out: hopper-medium.",
        "Shrunk by the budget and left out: iql.",
    ]
    markdown = tables.task_markdown(tables.task_table(plan, runs))
    assert "iql*" in markdown
    assert "no data" in markdown


def test_only_shrunk_agents_cannot_be_aggregated(make: Make, tmp_path: Path) -> None:
    plan, runs = suite(make, tmp_path, agents=("random", "iql"), shrunk=("iql",))
    with pytest.raises(IncompleteMatrixError, match="no agents at an unshrunk budget"):
        compare(plan, runs)


def test_foreign_agents_join_where_they_cover_every_task(make: Make, tmp_path: Path) -> None:
    plan, runs = suite(make, tmp_path)
    path = tmp_path / "other.csv"
    lines = ["task,agent,seed,score"]
    lines += [f"{task['id']},whole,{s},{50 + s}" for task in plan.tasks for s in range(4)]
    lines += [f"{plan.tasks[0]['id']},part,0,50"]
    path.write_text("\n".join(lines))
    joined, _ = add_foreign(plan, runs, [path])
    comparison = compare(plan, joined)
    assert comparison.scores["whole"].shape == (4, 4)
    assert "part" not in comparison.scores
    assert any(note.startswith("part (foreign) lacks") for note in comparison.notes)
    assert "whole†" in tables.task_markdown(tables.task_table(plan, joined))


@pytest.mark.parametrize(("seeds", "claims"), [(4, False), (5, True)])
def test_nothing_is_bold_or_better_under_five_runs(
    make: Make, tmp_path: Path, seeds: int, claims: bool
) -> None:
    plan, runs = suite(make, tmp_path, seeds=seeds)
    markdown = tables.task_markdown(tables.task_table(plan, runs))
    assert ("**" in markdown) == claims
    verdicts = [pair.verdict for pair in pairs(compare(plan, runs))]
    assert any("better" in verdict for verdict in verdicts) == claims


def test_p_values_are_corrected_over_all_pairs(make: Make, tmp_path: Path) -> None:
    comparison = compare(*suite(make, tmp_path, seeds=5))
    found = pairs(comparison)
    raw = [exact_p_value(comparison.scores[pair.x], comparison.scores[pair.y]) for pair in found]
    assert [pair.p for pair in found] == raw
    np.testing.assert_allclose([pair.p_holm for pair in found], holm(raw))
    assert any(pair.p_holm > pair.p for pair in found)


def drawn_again(plan: Plan, runs: pd.DataFrame, times: int) -> tuple[Plan, pd.DataFrame]:
    """The suite on several draws of the data, each of which shifts every score on it by 10."""
    copies = [runs.assign(draw=i, score=runs["score"] + 10.0 * i) for i in range(times)]
    cells = [cell | {"draw": i} for i in range(times) for cell in plan.cells]
    # Shuffled, because nothing promises an order.
    return replace(plan, cells=cells), pd.concat(copies).sample(frac=1.0, random_state=0)


def test_runs_are_nested_in_draws_of_the_data(make: Make, tmp_path: Path) -> None:
    plan, runs = suite(make, tmp_path)
    once = compare(plan, runs)
    comparison = compare(*drawn_again(plan, runs, 3))
    for label, scores in comparison.scores.items():
        np.testing.assert_array_equal(comparison.draws[label], np.repeat([0, 1, 2], 3))
        expected = np.concatenate([once.scores[label] + 10.0 * i for i in range(3)])
        np.testing.assert_array_equal(scores, expected)
    assert any("nested in 3 draws of the data" in note for note in comparison.notes)
    assert not any("draws" in note for note in once.notes)
    estimates = [row.estimate for row in aggregate_rows(comparison)]
    assert {(each.runs, each.units) for each in estimates} == {(9, 3)}
    _, found = profiles(comparison)
    assert found["bc"].units == 3
    flat = aggregate_rows(replace(comparison, draws={}))
    ours, theirs = estimates[0], flat[0].estimate
    assert np.all(ours.high - ours.low > theirs.high - theirs.low)


def test_draws_are_what_is_compared(make: Make, tmp_path: Path) -> None:
    """p-values are of the means over draws, and three of these are too few for a verdict."""
    comparison = compare(*drawn_again(*suite(make, tmp_path), 3))
    means = {label: scores.reshape(3, 3, -1).mean(1) for label, scores in comparison.scores.items()}
    for pair in pairs(comparison):
        assert pair.p == exact_p_value(means[pair.x], means[pair.y])
        assert pair.verdict == "no verdict under 5 draws"


def test_gaps_are_counted_over_all_draws(make: Make, tmp_path: Path) -> None:
    plan, runs = drawn_again(*suite(make, tmp_path), 3)
    gone = (runs["agent"] == "iql") & (runs["draw"] == 1) & (runs["task"] == "hopper-medium")
    with pytest.raises(IncompleteMatrixError, match="iql has 6/9 runs on hopper-medium"):
        compare(plan, runs[~gone])
    comparison = compare(plan, runs[~gone], allow_missing=True)
    np.testing.assert_array_equal(comparison.draws["iql"], [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(comparison.draws["bc"], np.repeat([0, 1, 2], 3))
    one_seed = gone & (runs["seed"] == 0)
    comparison = compare(plan, runs[~one_seed], allow_missing=True)
    np.testing.assert_array_equal(comparison.draws["iql"], [0, 0, 1, 1, 2, 2])


def test_agents_of_one_draw_are_named_beside_those_of_several(make: Make, tmp_path: Path) -> None:
    plan, runs = drawn_again(*suite(make, tmp_path), 2)
    path = tmp_path / "other.csv"
    lines = [f"{task['id']},whole,{s},{50 + s}" for task in plan.tasks for s in range(4)]
    path.write_text("\n".join(["task,agent,seed,score", *lines]))
    joined, _ = add_foreign(plan, runs, [path])
    comparison = compare(plan, joined.assign(draw=joined["draw"].fillna(0)))
    assert "Of one draw of the data, or of unknown ones: whole." in comparison.notes
    assert len(pairs(comparison)) == 6


def test_bold_is_the_highest_and_its_equals(make: Make, tmp_path: Path) -> None:
    plan, runs = suite(make, tmp_path, seeds=5)
    row = runs["task"] == "hopper-medium"
    for agent, base in (("bc", 10.0), ("td3_bc", 50.0), ("iql", 50.5)):
        mine = row & (runs["agent"] == agent)
        runs.loc[mine, "score"] = base + np.arange(5)
    cells = tables.task_table(plan, runs).cells
    bold = {agent for (task, agent), c in cells.items() if task == "hopper-medium" and c.bold}
    assert bold == {"td3_bc", "iql"}


def test_a_missing_cell_prints_how_far_it_got(make: Make, tmp_path: Path) -> None:
    plan, runs = suite(make, tmp_path, absent=[("hopper-medium", "iql", 1)])
    assert tables.task_table(plan, runs).cells["hopper-medium", "iql"].text == "2/3 seeds"


def test_cells_print_mean_spread_and_runs(make: Make, tmp_path: Path) -> None:
    plan, runs = suite(make, tmp_path, seeds=5)
    runs.loc[(runs["agent"] == "bc"), "score"] = np.tile([1.0, 2.0, 3.0, 4.0, 5.0], 4)
    cells = tables.task_table(plan, runs).cells
    assert cells["hopper-medium", "bc"].text == "3.0 ± 1.6 (5)"
    assert cells["hopper-medium", "random"].text == "0.4 (1)"


def test_local_returns_are_compared_with_their_data(make: Make, tmp_path: Path) -> None:
    plan, runs = suite(make, tmp_path, qualities=("medium", "expert"))
    cells = tables.task_table(plan, runs).cells
    assert cells["hopper-medium", "behaviour"].percent == "100 / 46 %"
    assert cells["hopper-medium", "random"].percent == ""  # a negative return has no share
    other, runs = suite(make, tmp_path / "other", source="d4rl")
    assert not tables.task_table(other, runs).has_percents


def test_csv_files_are_tidy(make: Make, tmp_path: Path) -> None:
    plan, runs = suite(make, tmp_path)
    table = list(csv.DictReader(io.StringIO(tables.task_csv(tables.task_table(plan, runs)))))
    assert len(table) == 4 * 5
    assert table[0]["score_std"] == ""  # one run has no spread
    comparison = compare(plan, runs)
    rows = list(csv.DictReader(io.StringIO(tables.aggregate_csv(aggregate_rows(comparison)))))
    assert len(rows) == 9 * len(AGGREGATES)
    compared = pairs(comparison)
    rows = list(csv.DictReader(io.StringIO(tables.pair_csv(compared))))
    assert float(rows[0]["p_holm"]) == pytest.approx(compared[0].p_holm, rel=1e-5)


def test_the_table_says_what_100_is(make: Make, tmp_path: Path) -> None:
    plan, runs = suite(make, tmp_path)
    assert "100 = expert:" in tables.task_table(plan, runs).notes[0]
    plan = replace(plan, tasks=[{**plan.tasks[0], "expert": False}, *plan.tasks[1:]])
    assert "100 = the reference of each environment" in tables.task_table(plan, runs).notes[0]


def test_markdown_survives_hostile_names(make: Make, tmp_path: Path) -> None:
    plan, runs = suite(make, tmp_path, agents=("bc", "a|b<script>\n"))
    lines = tables.task_markdown(tables.task_table(plan, runs)).splitlines()
    assert lines[0] == "| task | bc | a\\|b&lt;script> |"
    assert len({line.replace("\\|", "").count("|") for line in lines[:6]}) == 1


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_terminal_table_fits_its_window(make: Make, tmp_path: Path, width: int) -> None:
    plan, runs = suite(make, tmp_path, tuned=("iql",), missing=("hopper-medium",))
    plan = replace(plan, caveats=["Read with care."])
    stream = io.StringIO()
    Console(file=stream, width=width).print(terminal(plan, runs))
    text = stream.getvalue()
    assert max(map(len, text.splitlines())) <= width
    for expected in ("walker2d-medium", "td3_bc", "no data", "Read with care.", "iql (4 tried)"):
        assert expected in " ".join(text.split())
    cell = tables.task_table(plan, runs).cells["walker2d-medium", "td3_bc"]
    assert cell.text in text


def test_without_overlap_there_is_no_interval() -> None:
    """Every resample says the same, which is no reason to be sure."""
    x, y = np.array([[60.0, 20.0], [61.0, 21.0], [62.0, 22.0]]), np.full((3, 2), 40.0)
    found = stats.estimate_improvement(x, y, rng=np.random.default_rng(0))
    assert found.low == found.value == found.high == 0.5
    pair = Pair("x", "y", 2, found, 1.0, 1.0)
    assert tables.pair_text(pair) == "0.50"
    assert tables.pair_coverage(pair) == "no interval"
    near = stats.estimate_improvement(x, y + 21.0, rng=np.random.default_rng(0))
    pair = Pair("x", "y", 2, near, 1.0, 1.0)
    assert tables.pair_text(pair).endswith("]")
    assert tables.pair_coverage(pair) == stats.coverage(3, 2, "improvement")
