"""Statistics: rliable's values, known answers, invariants."""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any, Literal

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
    x, y = scores(3, tasks=3), scores(4, tasks=3, shift=-4)
    np.random.seed(0)  # noqa: NPY002  rliable draws from the global state
    _, theirs = library.get_interval_estimates(
        {"iqm": x, "pair": [x, y]},
        lambda *m: np.array(
            [metrics.aggregate_iqm(m[0]) if len(m) == 1 else metrics.probability_of_improvement(*m)]
        ),
        reps=1000,
    )
    rng = np.random.default_rng(0)
    iqm = stats.estimate(stats.iqm, x, rng=rng, method="percentile")
    pair = stats.estimate(stats.probability_of_improvement, x, y, rng=rng, method="percentile")
    for ours, reference in ((iqm, theirs["iqm"]), (pair, theirs["pair"])):
        width = float(reference[1, 0] - reference[0, 0])
        assert ours.low == pytest.approx(reference[0, 0], abs=0.1 * width)
        assert ours.high == pytest.approx(reference[1, 0], abs=0.1 * width)


@given(matrix=matrices(), shift=st.integers(-50, 50), scale=st.sampled_from([0.25, 1.0, 3.0]))
def test_aggregates_move_with_the_scores(matrix: np.ndarray, shift: int, scale: float) -> None:
    for statistic in (stats.iqm, stats.median, stats.mean):
        moved = statistic(scale * matrix + shift)
        assert moved == pytest.approx(scale * statistic(matrix) + shift)
        assert matrix.min() - 1e-9 <= statistic(matrix) <= matrix.max() + 1e-9
    # The gap's threshold moves along.
    gap = stats.optimality_gap(scale * matrix + shift, threshold=scale * 100.0 + shift)
    assert gap == pytest.approx(scale * stats.optimality_gap(matrix), abs=1e-9)


@given(matrix=matrices(), data=st.data())
def test_the_order_of_runs_and_tasks_does_not_matter(
    matrix: np.ndarray, data: st.DataObject
) -> None:
    order = st.permutations(range(len(matrix)))
    shuffled = np.stack([matrix[data.draw(order), t] for t in range(matrix.shape[1])], axis=1)
    shuffled = shuffled[:, data.draw(st.permutations(range(matrix.shape[1])))]
    np.testing.assert_allclose(stats.aggregates(shuffled), stats.aggregates(matrix), atol=1e-9)
    taus = np.linspace(-20, 130, 7)
    np.testing.assert_allclose(
        stats.performance_profile(shuffled, taus), stats.performance_profile(matrix, taus)
    )


@given(matrix=matrices(), data=st.data())
def test_a_better_run_never_lowers_a_measure(matrix: np.ndarray, data: st.DataObject) -> None:
    gains = arrays(np.float64, matrix.shape, elements=st.integers(0, 40).map(float))
    better = matrix + data.draw(gains)
    change = stats.aggregates(better) - stats.aggregates(matrix)
    change *= [-1.0 if name == "Optimality gap" else 1.0 for name in stats.AGGREGATES]
    assert np.all(change >= -1e-9)
    probability = stats.probability_of_improvement
    assert probability(better, matrix) >= 0.5 - 1e-12
    taus = np.linspace(-20, 130, 7)
    gained = stats.performance_profile(better, taus) - stats.performance_profile(matrix, taus)
    assert np.all(gained >= 0)


@given(x=matrices(), seed=st.integers(0, 99))
def test_calibrated_intervals_hold_the_value_and_stay_in_range(x: np.ndarray, seed: int) -> None:
    def found() -> list[stats.Estimate]:
        how: dict[str, Any] = {"repetitions": 50}
        return [
            stats.estimate_aggregates(x, rng=np.random.default_rng(seed), **how),
            stats.estimate_improvement(x, x[::-1] + 7, rng=np.random.default_rng(seed), **how),
            stats.estimate_profile(x, np.array([50.0]), rng=np.random.default_rng(seed), **how),
        ]

    for one, again in zip(found(), found(), strict=True):
        np.testing.assert_array_equal(one.low, again.low)
        np.testing.assert_array_equal(one.high, again.high)
        if len(x) < 3:
            assert np.isnan(one.low).all()
        else:
            assert np.all((one.low <= one.value) & (one.value <= one.high))
    aggregate, pair, profile = found()
    if len(x) >= 3:
        assert aggregate.low[list(stats.AGGREGATES).index("Optimality gap")] >= 0
        for share in (pair, profile):
            assert np.all((share.low >= 0) & (share.high <= 1))


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


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 36, 285])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_the_widening_is_students_over_the_normal_quantile(freedom: int, confidence: float) -> None:
    tail = 0.5 + confidence / 2
    expected = scipy.stats.t.ppf(tail, freedom) / scipy.stats.norm.ppf(tail)
    units = freedom + 1
    assert stats.widening(units, 1, confidence) == pytest.approx(
        expected * np.sqrt(units / (units - 1)), rel=1e-9
    )


def test_the_calibrated_interval_is_the_percentile_interval_widened() -> None:
    x = scores(5)
    plain, wide = (
        stats.estimate(stats.mean, x, rng=np.random.default_rng(0), method=method)
        for method in ("percentile", "calibrated")
    )
    assert wide.value - wide.low == pytest.approx(stats.widening(5) * (plain.value - plain.low))
    assert wide.high - wide.value == pytest.approx(stats.widening(5) * (plain.high - plain.value))
    more = stats.widening(5, sharing=9)
    assert 1 < more < stats.widening(5) < stats.widening(3)


def test_a_widened_interval_of_a_mean_is_students() -> None:
    """One task: the textbook interval, up to the bootstrap's error and its lighter tails."""
    x = np.random.default_rng(1).normal(size=(30, 1))
    found = stats.estimate(stats.mean, x, rng=np.random.default_rng(0))
    half = scipy.stats.t.ppf(0.975, 29) * x.std(ddof=1) / np.sqrt(30)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.05)


def test_draws_are_resampled_whole() -> None:
    """Runs that differ within a draw but not between draws leave nothing to resample."""
    x = np.tile([[1.0], [5.0], [9.0]], (4, 2))
    draws = np.repeat(np.arange(4), 3)
    found = stats.estimate(stats.mean, x, rng=np.random.default_rng(0), draws=[draws])
    assert found.low == found.value == found.high
    assert (found.runs, found.units) == (12, 4)
    flat = stats.estimate(stats.mean, x, rng=np.random.default_rng(0))
    assert flat.low < flat.value < flat.high
    assert (flat.runs, flat.units) == (12, 12)


def test_one_draw_is_no_draw() -> None:
    x = scores(5)
    one, none = (
        stats.estimate_aggregates(x, draws, rng=np.random.default_rng(0))
        for draws in (np.full(5, 7), None)
    )
    np.testing.assert_array_equal(one.low, none.low)
    assert one.units == none.units == 5
    np.testing.assert_array_equal(stats.unit_means(x, np.full(5, 7)), x)


def test_draws_may_come_in_any_order() -> None:
    x, draws = scores(5, runs=6), np.array([2, 0, 1, 0, 1, 2])
    means = stats.unit_means(x, draws)
    np.testing.assert_allclose(means, [x[[1, 3]].mean(0), x[[2, 4]].mean(0), x[[0, 5]].mean(0)])


@pytest.mark.parametrize("draws", [[0, 0, 0, 1, 1], [0, 0, 1, 1]])
def test_draws_of_unequal_size_are_refused(draws: list[int]) -> None:
    with pytest.raises(ValueError, match="every draw of the data needs the same number of runs"):
        stats.estimate(stats.mean, scores(5), rng=np.random.default_rng(0), draws=[np.array(draws)])


@pytest.mark.parametrize(("draws", "low", "high"), [(False, 0.5, 0.9), (True, 0.93, 1.0)])
def test_ignoring_draws_covers_too_little(draws: bool, low: float, high: float) -> None:
    """Five draws of three runs each, draws spread as much as runs."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 3)
    hits = 0
    for _ in range(150):
        shift = np.repeat(rng.normal(size=(5, 9)), 3, axis=0)
        found = stats.estimate(
            stats.mean,
            shift + rng.normal(size=(15, 9)),
            rng=rng,
            repetitions=300,
            draws=[labels if draws else None],
        )
        hits += bool(found.low <= 0.0 <= found.high)
    assert low < hits / 150 <= high


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


@pytest.mark.parametrize(("method", "runs"), [("calibrated", 2), ("percentile", 1)])
def test_too_few_runs_have_no_interval(method: stats.Method, runs: int) -> None:
    rng = np.random.default_rng(0)
    found = stats.estimate(stats.iqm, scores(0, runs=runs), rng=rng, method=method)
    assert np.isfinite(found.value)
    assert np.isnan(found.low)
    assert np.isnan(found.high)
    assert stats.coverage(found.units, 9, method=method) == "no interval"
    enough = stats.estimate(stats.iqm, scores(0, runs=runs + 1), rng=rng, method=method)
    assert np.isfinite(enough.low)
    assert stats.coverage(runs + 1, 9, method=method).endswith(" %")


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.zeros(3), np.array([[1.0, np.nan]])])
def test_gaps_in_a_matrix_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="full \\[runs, tasks\\] matrix"):
        stats.estimate(stats.iqm, bad, rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("method", "low", "high"), [("percentile", 0.80, 0.93), ("calibrated", 0.94, 1.0)]
)
def test_five_runs_cover_what_they_say(method: stats.Method, low: float, high: float) -> None:
    """Nine tasks that spread as unequally as those of D4RL."""
    rng = np.random.default_rng(0)
    spread = np.array([0.3, 4.2, 2.1, 0.5, 18.8, 5.5, 4.3, 9.4, 0.5])
    hits = 0
    for _ in range(300):
        matrix = spread * rng.normal(size=(5, 9))
        found = stats.estimate(stats.mean, matrix, rng=rng, repetitions=300, method=method)
        hits += bool(found.low <= 0.0 <= found.high)
    assert low < hits / 300 <= high


@pytest.mark.parametrize("method", ["calibrated", "percentile"])
@pytest.mark.parametrize("of", ["aggregate", "improvement"])
def test_coverage_knows_every_number_of_runs(
    of: Literal["aggregate", "improvement"], method: stats.Method
) -> None:
    for tasks in (1, 2, 3, 8, 9, 15):
        found = [stats.coverage(runs, tasks, of, method) for runs in range(3, 60)]
        assert all(text.endswith(" %") for text in found)


def test_coverage_of_five_runs() -> None:
    """What the report promises, from the simulated table."""
    assert int(stats.coverage(5, 9).split("-")[0]) >= 94
    assert int(stats.coverage(5, 9, method="percentile").split("-")[0]) < 90
    assert stats.coverage(5, 3) == stats.coverage(5, 8) != stats.coverage(5, 9)
    lowest = [int(stats.coverage(5, tasks).split("-")[0]) for tasks in (1, 3, 9)]
    assert lowest == sorted(lowest)  # fewer tasks, more rests on a single one


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
