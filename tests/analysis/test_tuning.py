"""Expected online performance: exact weights, honest choice, what counts as a config."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from analysis import plots, plots_tuned
from analysis.comparison import agents
from analysis.tuning import estimate_curve, expected_online_performance, tuned_curves
from results.record import Plan


def by_enumeration(scores: np.ndarray) -> np.ndarray:
    """Every subset of every size, every run left out, every task, one by one."""
    configs, runs, tasks = scores.shape
    curve = []
    for k in range(1, configs + 1):
        found = []
        for task, out in itertools.product(range(tasks), range(runs)):
            others = [run for run in range(runs) if run != out] or [out]
            means = scores[:, others, task].sum(axis=1)  # sums of whole numbers tie exactly
            for subset in map(list, itertools.combinations(range(configs), k)):
                best = [config for config in subset if means[config] == means[subset].max()]
                found.append(scores[best, out, task].mean())
        curve.append(np.mean(found))
    return np.array(curve)


def tried(max_configs: int = 5, min_runs: int = 1) -> st.SearchStrategy[np.ndarray]:
    """Scores ``[m, n, T]`` with ties; one, two or four others, so that means tie as sums do."""
    shape = st.tuples(
        st.integers(1, max_configs),
        st.sampled_from([n for n in (1, 2, 3, 5) if n >= min_runs]),
        st.integers(1, 3),
    )
    return shape.flatmap(lambda s: arrays(np.float64, s, elements=st.integers(0, 6).map(float)))


@given(scores=tried())
def test_the_weights_are_those_of_enumeration(scores: np.ndarray) -> None:
    np.testing.assert_allclose(expected_online_performance(scores), by_enumeration(scores))


@given(scores=tried(), shift=st.integers(-50, 50), scale=st.sampled_from([0.5, 2.0]))
def test_the_curve_moves_with_the_scores(scores: np.ndarray, shift: int, scale: float) -> None:
    curve = expected_online_performance(scores)
    moved = expected_online_performance(scale * scores + shift)
    np.testing.assert_allclose(moved, scale * curve + shift, atol=1e-9)
    assert curve[0] == pytest.approx(scores.mean())
    assert np.all(curve <= scores.max(axis=(0, 1)).mean() + 1e-9)


@given(scores=tried(), data=st.data())
def test_the_order_of_configs_does_not_matter(scores: np.ndarray, data: st.DataObject) -> None:
    shuffled = scores[data.draw(st.permutations(range(len(scores))))]
    np.testing.assert_allclose(
        expected_online_performance(shuffled), expected_online_performance(scores)
    )


def test_trying_more_never_hurts_where_runs_agree() -> None:
    scores = np.repeat(np.random.default_rng(0).normal(size=(6, 1, 4)), 3, axis=1)
    assert np.all(np.diff(expected_online_performance(scores)) > 0)


def test_luck_does_not_flatter() -> None:
    """Configs that are all alike: nothing can be gained by choosing among them."""
    scores = np.random.default_rng(0).normal(size=(12, 4, 3000))
    honest = expected_online_performance(scores)
    np.testing.assert_allclose(honest, 0.0, atol=0.1)
    same = expected_online_performance(scores.mean(axis=1, keepdims=True))
    assert same[-1] > 0.7


@given(scores=tried(min_runs=2))
def test_intervals_hold_the_value_from_three_configs_on(scores: np.ndarray) -> None:
    found = estimate_curve(scores)
    np.testing.assert_array_equal(found.value, expected_online_performance(scores))
    if len(scores) < 3:
        assert np.isnan(found.low).all()
        assert np.isnan(found.high).all()
    else:
        assert np.all((found.low <= found.value) & (found.value <= found.high))
    assert (found.runs, found.units) == (scores.shape[1], len(scores))


def test_one_config_tried_is_students_interval_over_configs() -> None:
    """At k = 1 the curve is a mean over configs, each with the luck of its seeds."""
    scores = np.random.default_rng(0).normal(size=(6, 5, 4))
    found, means = estimate_curve(scores), scores.mean(axis=(1, 2))
    expected = scipy.stats.t.interval(0.95, 5, means.mean(), scipy.stats.sem(means))
    np.testing.assert_allclose([found.low[0], found.high[0]], expected)


def test_gaps_are_refused() -> None:
    with pytest.raises(ValueError, match="full \\[configs, runs, tasks\\] array"):
        estimate_curve(np.full((3, 2, 1), np.nan))


TASKS = ("hopper-medium", "walker2d-medium")


def tuned_suite(configs: int = 4, seeds: int = 3) -> tuple[Plan, pd.DataFrame]:
    """A plan with several configs of one agent, one of another, and a fixed one of the first."""
    rows = {f"new-{i}": ("new", "tuned") for i in range(configs)}
    rows |= {"old": ("old", "tuned"), "new": ("new", "fixed")}
    plan = Plan(
        suite="tuned", title="Tuned", budget="quick", source="local", seeds=list(range(seeds)),
        tasks=[
            {"id": task, "environment": task, "quality": "medium", "missing": None}
            for task in TASKS
        ],
        agents=[
            {"label": label, "name": name, "reference": False, "shrunk": False, "track": track}
            for label, (name, track) in rows.items()
        ],
        cells=[
            {"task": task, "agent": label, "seed": seed, "path": ""}
            for task in TASKS for label in rows for seed in range(seeds)
        ],
    )  # fmt: skip
    runs = pd.DataFrame(plan.cells).drop(columns="path").assign(foreign=False)
    runs["score"] = np.random.default_rng(0).normal(50.0, 10.0, len(runs))
    return plan, runs


def test_labels_of_one_name_in_the_tuned_track_are_configs() -> None:
    plan, runs = tuned_suite()
    (curve,), notes = tuned_curves(plan, runs)
    assert (curve.agent, curve.runs, curve.tasks) == ("new", 3, list(TASKS))
    assert curve.labels == [f"new-{i}" for i in range(4)]
    assert notes == []
    scores = np.array(
        [
            [runs[(runs["agent"] == label) & (runs["task"] == task)]["score"] for task in TASKS]
            for label in curve.labels
        ]
    )
    np.testing.assert_allclose(curve.estimate.value, by_enumeration(scores.transpose(0, 2, 1)))


def test_a_config_with_gaps_gives_a_sentence_instead_of_a_curve() -> None:
    plan, runs = tuned_suite()
    gone = (runs["agent"] == "new-1") & (runs["task"] == TASKS[0])
    curves, (note,) = tuned_curves(plan, runs[~gone])
    assert curves == []
    assert "21 of 24 runs" in note
    assert "new-1" in note
    assert tuned_curves(plan, runs.iloc[:0])[0] == []


def test_tasks_without_data_are_left_out() -> None:
    plan, runs = tuned_suite()
    tasks = [task | {"missing": "no data" if i else None} for i, task in enumerate(plan.tasks)]
    (curve,), _ = tuned_curves(replace(plan, tasks=tasks), runs[runs["task"] == TASKS[0]])
    assert curve.tasks == [TASKS[0]]


def test_one_run_per_config_says_that_it_flatters() -> None:
    (curve,), (note,) = tuned_curves(*tuned_suite(seeds=1))
    assert curve.runs == 1
    assert "flatters" in note


def test_one_config_has_no_curve() -> None:
    assert tuned_curves(*tuned_suite(configs=1)) == ([], [])


@pytest.mark.parametrize("configs", [2, 4])
def test_the_figure_draws_every_agent(configs: int) -> None:
    plan, runs = tuned_suite(configs)
    curves, _ = tuned_curves(plan, runs)
    other = replace(curves[0], agent="old", labels=["old", *curves[0].labels[1:]])
    look = plots.looks(agents(plan, runs))
    drawing = plots.draw(plots_tuned.expected_performance([curves[0], other], look), "tuned")
    assert f"new ({configs} configs of 3 runs)" in drawing.svg.decode()
    assert look["old"].colour in drawing.svg.decode()
