"""Statistics: rliable's values, known answers, invariants."""

from __future__ import annotations

import warnings
from types import ModuleType

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from analysis import stats


def matrices(max_runs: int = 6, max_tasks: int = 5) -> st.SearchStrategy[np.ndarray]:
    """Score matrices with ties, since the scores are whole numbers."""
    shape = st.tuples(st.integers(1, max_runs), st.integers(1, max_tasks))
    return arrays(np.float64, shape, elements=st.integers(-20, 130).map(float))


@pytest.fixture(scope="module")
def rliable() -> tuple[ModuleType, ModuleType]:
    """The reference implementation; its dependencies warn while they are imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from rliable import library, metrics
    return library, metrics


def scores(seed: int, runs: int = 5, tasks: int = 9, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.linspace(10, 110, tasks) + shift + rng.normal(0, 6, (runs, tasks))


@pytest.mark.parametrize(("runs", "tasks"), [(1, 1), (3, 3), (3, 15), (5, 9), (10, 7)])
def test_aggregates_are_those_of_rliable(
    rliable: tuple[ModuleType, ModuleType], runs: int, tasks: int
) -> None:
    _, metrics = rliable
    matrix = scores(0, runs, tasks)
    expected = [
        metrics.aggregate_iqm(matrix),
        metrics.aggregate_median(matrix),
        metrics.aggregate_mean(matrix),
        metrics.aggregate_optimality_gap(matrix, 100.0),
    ]
    np.testing.assert_allclose(stats.aggregates(matrix), expected, rtol=0, atol=1e-10)


@given(x=matrices(), data=st.data())
def test_probability_of_improvement_is_that_of_rliable(x: np.ndarray, data: st.DataObject) -> None:
    runs = data.draw(st.integers(1, 6))
    whole = st.integers(-20, 130).map(float)
    y = data.draw(arrays(np.float64, (runs, x.shape[1]), elements=whole))
    # rliable calls scipy's Mann-Whitney U task by task; so does this.
    u = [scipy.stats.mannwhitneyu(a, b).statistic for a, b in zip(x.T, y.T, strict=True)]
    expected = np.mean(u) / (len(x) * runs)
    assert stats.probability_of_improvement(x, y) == pytest.approx(expected, abs=1e-10)
    assert stats.probability_of_improvement(y, x) == pytest.approx(1 - expected, abs=1e-10)


def test_probability_and_profile_against_rliable(rliable: tuple[ModuleType, ModuleType]) -> None:
    library, metrics = rliable
    x, y, taus = scores(1), scores(2, runs=3, shift=-4), np.linspace(0, 120, 25)
    assert stats.probability_of_improvement(x, y) == pytest.approx(
        metrics.probability_of_improvement(x, y), abs=1e-10
    )
    expected = library.score_distributions(x, taus)
    np.testing.assert_allclose(stats.performance_profile(x, taus), expected, atol=1e-10)


def test_intervals_agree_with_rliable(rliable: tuple[ModuleType, ModuleType]) -> None:
    """Within Monte-Carlo error: 0.1 of the interval's width at 1000 resamples."""
    library, metrics = rliable
    x, y = scores(3), scores(4, shift=-4)
    np.random.seed(0)  # noqa: NPY002  rliable draws from the global state
    _, theirs = library.get_interval_estimates(
        {"iqm": x, "pair": [x, y]},
        lambda *m: np.array(
            [metrics.aggregate_iqm(m[0]) if len(m) == 1 else metrics.probability_of_improvement(*m)]
        ),
        reps=1000,
    )
    rng = np.random.default_rng(0)
    iqm = stats.estimate(stats.iqm, x, rng=rng)
    pair = stats.estimate(stats.probability_of_improvement, x, y, rng=rng)
    for ours, reference in ((iqm, theirs["iqm"]), (pair, theirs["pair"])):
        width = float(reference[1, 0] - reference[0, 0])
        assert ours.low == pytest.approx(reference[0, 0], abs=0.1 * width)
        assert ours.high == pytest.approx(reference[1, 0], abs=0.1 * width)


@given(matrix=matrices(), shift=st.integers(-50, 50))
def test_aggregates_move_with_the_scores(matrix: np.ndarray, shift: int) -> None:
    for statistic in (stats.iqm, stats.median, stats.mean):
        assert statistic(matrix + shift) == pytest.approx(statistic(matrix) + shift)
        assert matrix.min() - 1e-9 <= statistic(matrix) <= matrix.max() + 1e-9
    assert stats.optimality_gap(matrix, threshold=matrix.max()) >= -1e-9


@given(matrix=matrices())
def test_a_stack_of_matrices_gives_a_stack_of_statistics(matrix: np.ndarray) -> None:
    stack = np.stack([matrix, matrix[::-1] + 3.0])
    expected = [stats.aggregates(stack[0]), stats.aggregates(stack[1])]
    np.testing.assert_allclose(stats.aggregates(stack), expected)


def test_only_runs_within_a_task_are_resampled() -> None:
    """Tasks without spread leave nothing to resample, however far apart they are."""
    matrix = np.tile([0.0, 50.0, 100.0], (5, 1))
    found = stats.estimate(stats.aggregates, matrix, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(found.low, found.value)
    np.testing.assert_array_equal(found.high, found.value)


def test_the_bootstrap_follows_its_generator_alone() -> None:
    def low(seed: int) -> float:
        return float(stats.estimate(stats.iqm, scores(5), rng=np.random.default_rng(seed)).low)

    assert low(1) == low(1) != low(2)


def test_large_samples_are_resampled_in_small_pieces() -> None:
    """A hundred runs against a hundred would need 10 GB in one piece."""
    found = stats.estimate(
        stats.probability_of_improvement,
        scores(6, 100, 9),
        scores(7, 100, 9),
        rng=np.random.default_rng(0),
        repetitions=50,
    )
    assert found.low < found.value < found.high


def test_one_run_has_no_interval() -> None:
    found = stats.estimate(stats.iqm, scores(0, runs=1), rng=np.random.default_rng(0))
    assert np.isfinite(found.value)
    assert np.isnan(found.low)
    assert np.isnan(found.high)
    assert stats.coverage(found.runs) == "no interval"


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.zeros(3), np.array([[1.0, np.nan]])])
def test_gaps_in_a_matrix_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="full \\[runs, tasks\\] matrix"):
        stats.estimate(stats.iqm, bad, rng=np.random.default_rng(0))


def test_an_interval_covers_less_than_it_says() -> None:
    """Three runs: about 87 % where all tasks spread alike."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        found = stats.estimate(stats.mean, rng.normal(size=(3, 9)), rng=rng, repetitions=500)
        hits += bool(found.low <= 0.0 <= found.high)
    assert 0.82 < hits / 400 < 0.92
    assert stats.coverage(3) == "82-87 %"


@pytest.mark.parametrize("of", ["aggregate", "improvement"])
def test_coverage_knows_every_number_of_runs(of: str) -> None:
    assert all(stats.coverage(runs, of).endswith("%") for runs in range(2, 60))


@given(x=arrays(np.float64, st.tuples(st.integers(1, 5), st.just(1)), elements=st.floats(0, 1)))
def test_exact_test_on_one_task_is_that_of_scipy(x: np.ndarray) -> None:
    y = np.linspace(0.1234, 0.9876, 4)[:, None]
    if len(np.unique([*x[:, 0], *y[:, 0]])) < len(x) + len(y):
        return  # scipy's exact method knows no ties
    expected = scipy.stats.mannwhitneyu(x[:, 0], y[:, 0], method="exact").pvalue
    assert stats.exact_p_value(x, y) == pytest.approx(expected, abs=1e-12)


def test_exact_test_over_tasks_and_ties_is_the_permutation_test() -> None:
    """Every way to relabel the runs within tasks, counted one by one."""
    x = np.array([[1.0, 5.0], [2.0, 5.0], [2.0, 9.0]])
    y = np.array([[2.0, 4.0], [0.0, 5.0]])

    def relabelled(task: int) -> np.ndarray:
        both = np.concatenate([x[:, task], y[:, task]])
        ranks = scipy.stats.rankdata(both)
        pick = [[i, j, k] for i in range(5) for j in range(i) for k in range(j)]
        return ranks[pick].sum(axis=1)

    sums = np.add.outer(relabelled(0), relabelled(1)).ravel()
    ranks = [scipy.stats.rankdata(np.concatenate([x[:, t], y[:, t]]))[:3].sum() for t in (0, 1)]
    distance = abs(sum(ranks) - sums.mean())
    expected = np.mean(np.abs(sums - sums.mean()) >= distance - 1e-9)
    assert stats.exact_p_value(x, y) == pytest.approx(expected, abs=1e-12)


@given(x=matrices(4, 3), y=matrices(4, 3))
def test_exact_test_is_symmetric(x: np.ndarray, y: np.ndarray) -> None:
    tasks = min(x.shape[1], y.shape[1])
    x, y = x[:, :tasks], y[:, :tasks]
    p = stats.exact_p_value(x, y)
    assert 0 < p <= 1
    assert stats.exact_p_value(y, x) == pytest.approx(p, abs=1e-12)
    assert stats.exact_p_value(x, x) == pytest.approx(1.0)


def test_holm_known_values() -> None:
    """The worked example of Holm's procedure: 0.005 * 4, 0.01 * 3, 0.03 * 2, then monotone."""
    np.testing.assert_allclose(stats.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(stats.holm([0.6, 0.7]), [1.0, 1.0])
    assert stats.holm([]).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_the_raw_and_the_bonferroni_values(p: list[float]) -> None:
    adjusted = stats.holm(p)
    assert np.all(adjusted >= p)
    assert np.all(adjusted <= np.minimum(1.0, np.array(p) * len(p)) + 1e-12)
    assert np.all(np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0)
