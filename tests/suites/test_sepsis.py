"""The simulated sepsis ward: its documented probabilities, its exact values, and its logs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from suites.catalog import reference
from suites.datasets import local, store
from suites.datasets.recipes import sepsis as recipe
from suites.datasets.store import Dataset, DatasetError
from suites.datasets.verify import verify
from suites.envs import make_vector, sepsis
from suites.envs import sepsis_values as values
from suites.envs.mujoco import SEPSIS, SEPSIS_HIDDEN, SEPSIS_SHOWN, make_one
from suites.envs.sepsis_values import Ward
from suites.ope.calibration import draw_logs
from suites.plan import make_plan
from suites.resolve import Options

IDS = (SEPSIS, SEPSIS_HIDDEN, SEPSIS_SHOWN)


def unobserve(
    observations: sepsis.Floats,
) -> tuple[sepsis.Ints, sepsis.Ints, sepsis.Ints, sepsis.Ints]:
    """Diabetes, vitals, treatments and crisis ``[N]`` that observations ``[N, 17 or 18]`` show.

    The crisis is 0 where it is not shown.
    """
    seen = np.asarray(observations)
    edges = np.cumsum((0, *sepsis.LEVELS))
    vitals = np.zeros(len(seen), np.int64)
    for k, count in enumerate(sepsis.LEVELS):
        vitals = vitals * count + seen[:, edges[k] : edges[k + 1]].argmax(1)
    diabetes = np.rint(seen[:, edges[-1]]).astype(np.int64)
    treatments = sepsis.treatment_index(np.rint(seen[:, edges[-1] + 1 : sepsis.SHOWN]))
    crisis = seen[:, sepsis.SHOWN] if seen.shape[1] > sepsis.SHOWN else np.zeros(len(seen))
    return diabetes, vitals, treatments, np.rint(crisis).astype(np.int64)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTQ_BENCH_CACHE", str(tmp_path))


def vitals(heart: int, pressure: int, oxygen: int, glucose: int) -> int:
    """The number of a combination."""
    found = ((heart, pressure, oxygen, glucose) == sepsis.VITAL_LEVELS).all(1)
    return int(np.flatnonzero(found)[0])


def chances(vital: int, moved: np.ndarray) -> list[float]:
    """P(level of one vital) from P(vitals) ``[90]``."""
    return [
        float(moved[sepsis.VITAL_LEVELS[:, vital] == level].sum())
        for level in range(sepsis.LEVELS[vital])
    ]


@pytest.mark.parametrize("crises", [False, True])
def test_rows_of_the_transition_matrix_sum_to_one(crises: bool) -> None:
    moved = sepsis.transitions(crises)
    assert moved.shape == (1 + crises, 2, 90, 8, 8, 90)
    assert moved.min() >= 0
    np.testing.assert_allclose(moved.sum(-1), 1.0, atol=1e-12)
    assert sepsis.start().sum() == pytest.approx(1.0)


# What docs/sepsis.md says: vital, its level before, diabetes, treatments before and now
# (antibiotics, vasopressors, ventilation), probabilities of its levels after.
DOCUMENTED = [
    (0, 2, 0, "000", "100", (0.0, 0.5, 0.5)),
    (0, 1, 0, "100", "000", (0.0, 0.9, 0.1)),
    (0, 1, 0, "000", "000", (0.1, 0.8, 0.1)),
    (0, 2, 0, "000", "011", (0.0, 0.1, 0.9)),
    (1, 2, 0, "000", "100", (0.0, 0.5, 0.5)),
    (1, 1, 0, "100", "000", (0.0, 0.9, 0.1)),
    (1, 0, 0, "000", "010", (0.3, 0.7, 0.0)),
    (1, 1, 0, "000", "010", (0.0, 0.3, 0.7)),
    (1, 0, 1, "000", "010", (0.1, 0.5, 0.4)),
    (1, 1, 1, "000", "010", (0.0, 0.1, 0.9)),
    (1, 1, 0, "010", "000", (0.1, 0.9, 0.0)),
    (1, 2, 1, "010", "000", (0.0, 0.05, 0.95)),
    (1, 2, 0, "000", "110", (0.0, 0.15, 0.85)),  # antibiotics to normal, and up again
    (1, 0, 0, "000", "001", (0.9, 0.1, 0.0)),
    (2, 0, 0, "000", "001", (0.3, 0.7)),
    (2, 1, 0, "001", "000", (0.1, 0.9)),
    (2, 0, 0, "000", "000", (0.9, 0.1)),
    (3, 2, 0, "000", "000", (0.0, 0.1, 0.8, 0.1, 0.0)),
    (3, 2, 1, "000", "000", (0.0, 0.3, 0.4, 0.3, 0.0)),
    (3, 4, 1, "000", "000", (0.0, 0.0, 0.0, 0.3, 0.7)),
    (3, 2, 1, "000", "010", (0.0, 0.0, 0.5, 0.5, 0.0)),
    (3, 2, 0, "000", "010", (0.0, 0.0, 1.0, 0.0, 0.0)),
]


@pytest.mark.parametrize(("vital", "level", "diabetes", "before", "now", "expected"), DOCUMENTED)
def test_documented_probabilities(
    vital: int, level: int, diabetes: int, before: str, now: str, expected: tuple[float, ...]
) -> None:
    levels = list(sepsis.NORMAL)
    levels[vital] = level
    row = sepsis.transitions()[0, diabetes, vitals(*levels), int(before, 2), int(now, 2)]
    np.testing.assert_allclose(chances(vital, row), expected, atol=1e-12)


def test_a_crisis_worsens_what_is_normal_whatever_the_treatment() -> None:
    calm, crisis = sepsis.transitions(True)[:, 0, vitals(1, 1, 1, 2), 0, 7]
    for vital, worse in enumerate((2, 0, 0, 3)):
        before, after = chances(vital, calm), chances(vital, crisis)
        normal = sepsis.NORMAL[vital]
        assert after[normal] == pytest.approx(0.8 * before[normal])
        assert after[worse] == pytest.approx(before[worse] + 0.2 * before[normal])


def test_ends_and_rewards() -> None:
    healthy, sick = vitals(1, 1, 1, 2), vitals(0, 2, 0, 2)
    assert (sepsis.REWARDS[healthy, 0], sepsis.ENDS[healthy, 0]) == (1.0, True)
    assert (sepsis.REWARDS[healthy, 1:] == 0).all() and not sepsis.ENDS[healthy, 1:].any()
    assert (sepsis.REWARDS[sick] == -1.0).all() and sepsis.ENDS[sick].all()
    two = vitals(0, 2, 1, 2)
    assert not sepsis.REWARDS[two].any() and not sepsis.ENDS[two].any()


@pytest.mark.parametrize("env_id", IDS)
def test_gymnasium_accepts_it_and_observations_tell_the_state(env_id: str) -> None:
    env = make_one(env_id)
    check_env(env.unwrapped)
    assert env.spec is not None and env.spec.max_episode_steps == 20
    assert env.unwrapped.noop == (0, 0, 0)
    shape = (2, 2, 90, 8)
    crisis, diabetes, numbers, treatments = (part.ravel() for part in np.indices(shape))
    shown = sepsis.observe(diabetes, numbers, treatments, crisis)
    for given, read in zip((diabetes, numbers, treatments, crisis), unobserve(shown), strict=True):
        np.testing.assert_array_equal(given, read)
    assert env.observation_space.contains(shown[0, : 17 + (env_id == SEPSIS_SHOWN)])
    assert env.unwrapped.render().shape == (120, 240, 3)


@pytest.mark.parametrize("env_id", IDS)
def test_the_vectorised_equals_gymnasiums(env_id: str) -> None:
    vector, env = make_vector(env_id, 3), make_one(env_id)
    assert isinstance(vector, sepsis.VectorSepsis)
    assert vector.observation_space == env.observation_space
    generator = np.random.default_rng(0)
    for neighbour in (0, 2):
        vector.reset(neighbour, seed=neighbour)
    lengths = []
    for episode in range(12):
        expected, _ = env.reset(seed=2**32 + episode)
        np.testing.assert_array_equal(vector.reset(1, seed=2**32 + episode), expected)
        ended, steps = False, 0
        while not ended:
            actions = generator.integers(2, size=(3, 3))
            step = vector.step(actions, np.array([steps % 3 > 0 and steps < 15, True, False]))
            expected, reward, terminated, truncated, _ = env.step(actions[1])
            np.testing.assert_array_equal(step.observations[1], expected)
            assert step.rewards[1] == reward
            assert (step.terminations[1], step.truncations[1]) == (terminated, truncated)
            assert step.rewards[2] == 0.0
            ended, steps = terminated or truncated, steps + 1
        vector.reset(0, seed=episode)
        lengths.append(steps)
    assert min(lengths) < max(lengths)


def test_simulated_frequencies_are_those_of_the_matrix() -> None:
    """Many patients in one state, with and without a crisis."""
    count = 40_000
    patients = sepsis.Patients(count, crises=True)
    rng = np.random.default_rng(0)
    everyone = np.arange(count)
    patients.begin(everyone, rng.random((count, 2)))
    assert patients.crisis.mean() == pytest.approx(0.3, abs=0.01)
    first = np.bincount(patients.diabetes * 90 + patients.vitals, minlength=180) / count
    np.testing.assert_allclose(first.reshape(2, 90), sepsis.start(), atol=0.006)
    state = vitals(2, 0, 0, 3)
    patients.vitals[:], patients.treatments[:], patients.diabetes[:] = state, 2, 1
    crisis = patients.crisis.copy()
    patients.step(everyone, np.full(count, 5), rng.random((count, 2)))
    for on in (0, 1):
        seen = np.bincount(patients.vitals[crisis == on], minlength=90) / (crisis == on).sum()
        np.testing.assert_allclose(seen, sepsis.transitions(True)[on, 1, state, 2, 5], atol=0.015)


def test_values_are_those_that_are_played() -> None:
    for ward in (Ward(), Ward(True), Ward(True, True)):
        policy = values.softened(values.all_in_a_crisis(ward), 0.1)
        policy = 0.5 * policy + 0.5 * ward.learned(discount=0.9)[1]
        logs = draw_logs(ward, policy, 20_000, np.random.default_rng(1))
        returns = np.add.reduceat(logs.rewards, logs.starts)
        error = returns.std() / np.sqrt(len(returns))
        assert abs(returns.mean() - ward.value(policy)) < 4 * error


def test_no_policy_is_better_than_the_optimum_and_the_optimum_has_its_value() -> None:
    ward = Ward()
    best, policy = ward.optimal()
    assert ward.value(policy) == pytest.approx(best, abs=1e-12)
    clockless = ward.value(ward.learned(discount=0.95)[1])
    assert ward.value(values.clinician(ward)) < clockless < best
    shown, hidden = Ward(True, True).optimal()[0], Ward(True).optimal()
    assert hidden[0] < shown
    assert np.array_equal(hidden[1][:, 0], hidden[1][:, 1])  # it does not look at the crisis
    assert Ward(True).value(hidden[1]) == pytest.approx(hidden[0], abs=1e-12)


def test_reference_scores_are_those_of_the_simulator() -> None:
    for env_id in IDS:
        ward = values.ward_of(env_id)
        low, high, source = reference(env_id.removeprefix("fastq_bench/").removesuffix("-v0"))
        assert low == pytest.approx(ward.value(values.uniform(ward)), abs=1e-6)
        assert high == pytest.approx(ward.optimal()[0], abs=1e-6)
        assert "python -m suites.envs.sepsis_values" in source


def test_what_logs_with_a_hidden_cause_must_teach() -> None:
    """The study's premise: a perfect learner is led astray, but not by the same logs seen whole."""
    hidden, shown = Ward(True), Ward(True, True)
    confounded = values.logging_policy(hidden, "confounded")
    unconfounded = values.logging_policy(hidden, "unconfounded")
    np.testing.assert_allclose(hidden.mean(confounded), hidden.mean(unconfounded))
    low, high = hidden.value(values.uniform(hidden)), hidden.optimal()[0]

    def score(value: float) -> float:
        return 100 * (value - low) / (high - low)

    misled = score(hidden.value(hidden.learned(confounded, 0.95)[1]))
    right = score(hidden.value(hidden.learned(unconfounded, 0.95)[1]))
    assert misled < 70 < 97 < right
    assert score(shown.value(shown.learned(discount=0.95)[1])) > 97


def made(task: str, size: int = 6000) -> Dataset:
    return store.load(local.ensure(task, size), verify=True)


def states_of(data: Dataset) -> Iterator[np.ndarray]:
    diabetes, numbers, treatments, crisis = unobserve(data.column("observations"))
    yield from (crisis, diabetes, numbers, treatments)


def test_logs_hold_what_their_policy_did_and_how_likely_it_was() -> None:
    data = made("sepsis-clinician")
    policy = values.logging_policy(Ward(), "clinician")
    actions = sepsis.treatment_index(data.column("actions"))
    rows = policy[(*states_of(data), actions)]
    np.testing.assert_allclose(data.column("action_log_probs"), np.log(rows), atol=1e-6)
    assert rows.min() == pytest.approx(recipe.FLIPS**3)
    following = unobserve(data.column("next_observations"))
    np.testing.assert_array_equal(following[2], actions)
    np.testing.assert_array_equal(data.column("rewards"), sepsis.REWARDS[following[1], actions])
    np.testing.assert_array_equal(
        data.column("terminations") > 0, sepsis.ENDS[following[1], actions]
    )
    with pytest.raises(DatasetError, match="can be replayed in"):
        verify(data)


def test_hidden_crises_are_in_the_probabilities_and_not_in_the_observations() -> None:
    confounded, blind = made("sepsis-hidden-confounded"), made("sepsis-hidden-unconfounded")
    shown = made("sepsis-shown-confounded")
    assert confounded.column("observations").shape[1] == 17
    assert shown.column("observations").shape[1] == 18
    policy = values.logging_policy(Ward(True, True), "confounded")
    rows = policy[(*states_of(shown), sepsis.treatment_index(shown.column("actions")))]
    np.testing.assert_allclose(shown.column("action_log_probs"), np.log(rows), atol=1e-6)
    crisis = shown.column("observations")[:, 17] > 0
    treated = shown.column("actions").sum(1) >= 2
    assert treated[crisis].mean() > 0.9 > 0.1 > treated[~crisis].mean()
    treated = blind.column("actions").sum(1) >= 2
    assert treated.mean() == pytest.approx(0.3, abs=0.04)


def test_a_share_of_the_episodes_is_held_out() -> None:
    data = made("sepsis-clinician")
    training, held_out = data.split()
    assert held_out is not None
    starts = data.episode_starts
    assert len(training.table) in starts
    assert len(held_out.episode_starts) == round(0.2 * len(starts))
    small, other = made("sepsis-clinician-small").split()
    assert other is not None and len(small.table) < len(other.table)
    assert made("regions-overlap-0", 2000).split()[1] is None


@pytest.mark.parametrize(
    ("suite", "tasks", "arms"),
    [
        (
            "sepsis",
            ["sepsis-clinician", "sepsis-clinician-small"],
            ["bc", "bcq", "factored_bcq", "ad_bcq"],
        ),
        (
            "sepsis_confounded",
            [
                "sepsis-hidden-confounded",
                "sepsis-hidden-unconfounded",
                "sepsis-shown-confounded",
            ],
            ["bc", "bcq", "ad_bcq"],
        ),
    ],
)
def test_the_suites_are_what_their_page_says(
    suite: str, tasks: list[str], arms: list[str], tmp_path: Path
) -> None:
    plan = make_plan(Options(suite, out=tmp_path))
    assert [task["id"] for task in plan.tasks] == tasks
    assert [task["missing"] for task in plan.tasks] == [None] * len(tasks)
    rows = {row.label: row.config for row in plan.rows if not row.reference}
    assert sorted(rows) == sorted(arms)
    shared = ("hidden", "lr", "batch_size")
    assert len({str([config[name] for name in shared]) for config in rows.values()}) == 1
    masks = {config["threshold"] for name, config in rows.items() if name != "bc"}
    assert len(masks) == 1
    assert (plan.budget.updates, plan.budget.seeds) == (3000, 5)
    study = make_plan(Options(suite, budget="study", out=tmp_path)).budget
    assert (study.updates, study.seeds) == (10_000, 10)
    assert make_plan(Options(suite, budget="smoke", out=tmp_path)).budget.meaningless
