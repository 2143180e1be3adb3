"""Two visits with a hidden cause: exact values, what the logs hold, and what they must teach."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from suites.catalog import reference
from suites.datasets import local, store
from suites.datasets.recipes.bedside import DRUG_A, DRUG_B
from suites.datasets.store import Dataset, DatasetError
from suites.datasets.verify import verify
from suites.envs import bedside, make_vector
from suites.envs import bedside_values as values
from suites.envs.bedside_values import LOGS, Logs
from suites.envs.mujoco import BEDSIDE_HIDDEN, BEDSIDE_SHOWN, make_one
from suites.plan import make_plan
from suites.resolve import Options

IDS = (BEDSIDE_HIDDEN, BEDSIDE_SHOWN)
LEARNERS = ("bcq", "factored_bcq", "ad_bcq")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTQ_BENCH_CACHE", str(tmp_path))


def some_policy(seed: int = 0) -> np.ndarray:
    """A random table that looks at all there is."""
    table = np.random.default_rng(seed).random((*values.SHAPE, 9)) ** 3
    return table / table.sum(-1, keepdims=True)


def score(policy: np.ndarray) -> float:
    low, high, _ = reference("bedside-hidden")
    return 100 * (values.value(policy) - low) / (high - low)


@pytest.mark.parametrize("env_id", IDS)
def test_gymnasium_accepts_it(env_id: str) -> None:
    env = make_one(env_id)
    check_env(env.unwrapped)
    assert env.spec is not None and env.spec.max_episode_steps == 2
    assert env.unwrapped.noop == (0, 0)
    assert env.unwrapped.render().shape == (60, 200, 3)
    assert values.shows_day(env_id) == (env_id == BEDSIDE_SHOWN)


@pytest.mark.parametrize("env_id", IDS)
def test_the_vectorised_equals_gymnasiums(env_id: str) -> None:
    vector, env = make_vector(env_id, 3), make_one(env_id)
    assert isinstance(vector, bedside.VectorBedside)
    assert vector.observation_space == env.observation_space
    generator = np.random.default_rng(0)
    for episode in range(20):
        expected, _ = env.reset(seed=2**32 + episode)
        np.testing.assert_array_equal(vector.reset(1, seed=2**32 + episode), expected)
        vector.reset(0, seed=episode)
        for visit in range(2):
            actions = generator.integers(3, size=(3, 2))
            step = vector.step(actions, np.array([visit == 1, True, False]))
            expected, reward, terminated, truncated, _ = env.step(actions[1])
            np.testing.assert_array_equal(step.observations[1], expected)
            assert env.observation_space.contains(expected)
            assert step.rewards[1] == reward and step.rewards[2] == 0.0
            assert (step.terminations[1], step.truncations[1]) == (terminated, truncated)
            assert terminated == (visit == 1) and not step.terminations[[0, 2]].any()


def test_values_are_those_of_every_course_there_is_and_those_that_are_played() -> None:
    """Against the sum over all days and doses, from the rule as the page states it; and a play."""
    policy = some_policy()
    total = 0.0
    for x, *days in product(range(3), range(2), range(2)):
        for (a, b), (c, d) in product(product(range(3), repeat=2), repeat=2):
            chance = policy[days[0], 0, x, 8, 3 * a + b] / 12
            points = a - abs(b - x) + 6 - 12 * days[0]
            chance *= policy[days[1], 1, x, points + 8, 3 * c + d]
            total += chance * (points + c - abs(d - x) + 6 - 12 * days[1]) / 10
    assert values.value(policy) == pytest.approx(total, abs=1e-12)

    env = make_vector(BEDSIDE_SHOWN, 20_000)
    rng = np.random.default_rng(1)
    seen = np.stack([env.reset(i, seed=i) for i in range(env.count)])
    doses, off = np.zeros((2, env.count))
    for visit in range(2):
        x, health = seen[:, :3].argmax(1), np.rint(10 * seen[:, 3]).astype(int)
        rows = policy[seen[:, 5].astype(int), visit, x, health + 8]
        chosen = (np.cumsum(rows, 1)[:, :-1] <= rng.random((env.count, 1))).sum(1)
        doses, off = doses + chosen // 3, off + abs(chosen % 3 - x)
        step = env.step(np.stack((chosen // 3, chosen % 3), 1))
        seen = step.observations
    error = step.rewards.std() / np.sqrt(env.count)
    assert abs(step.rewards.mean() - total) < 4 * error
    assert values.given(policy) == pytest.approx((doses.mean() / 2, off.mean() / 2), abs=0.02)


def test_reference_scores_are_exact() -> None:
    # No pair of doses gives more than 2 points, and these always do.
    assert bedside.GAIN.max() == 2 and values.value(values.constant(2)) == pytest.approx(0.4)
    for name in ("bedside-hidden", "bedside-shown"):
        low, high, source = reference(name)
        assert low == pytest.approx(values.value(values.uniform()), abs=1e-6)
        assert high == pytest.approx(0.4, abs=1e-6)
        assert "python -m suites.envs.bedside_values" in source
    assert score(values.constant(0)) == pytest.approx(-5.9, abs=0.05)
    assert score(values.constant(1)) == pytest.approx(47.1, abs=0.05)


def test_no_default_mask_bites() -> None:
    for logs in LOGS.values():
        assert logs.rarest() > 1.3 * 0.3
        chances = logs.seen()[0] @ values.CHOICES
        for drug in (chances[:, :3], chances[:, 3:]):
            assert (drug.min(1) / drug.max(1) >= logs.rarest()).all()


def test_both_doctors_give_as_much_and_only_one_of_them_misleads() -> None:
    confounded, unconfounded = Logs("confounded"), Logs("unconfounded")
    np.testing.assert_allclose(confounded.seen()[0], unconfounded.seen()[0], atol=1e-15)
    assert values.value(confounded.logging_policy()) == pytest.approx(
        values.value(unconfounded.logging_policy())
    )
    # By hand: 1 / 10 a dose, and 1.2 times how much rarer good days are.
    good, bad = DRUG_A
    rarer = good[2] / (good[2] + bad[2]) - good[0] / (good[0] + bad[0])
    np.testing.assert_allclose(confounded.believed()[0, 2], 0.2 + 1.2 * rarer)
    np.testing.assert_allclose(confounded.believed(), [[0, -0.0862, -0.1724]], atol=1e-4)
    for logs in (unconfounded, Logs("confounded", shown=True)):
        np.testing.assert_allclose(logs.believed(), [[0, 0.1, 0.2]] * len(logs.believed()))


@pytest.mark.parametrize("learner", LEARNERS)
def test_what_unlimited_logs_teach(learner: values.Learner) -> None:
    """The study's premise, exactly: who takes drug A for what it seems, leaves it away."""
    taught = {task: logs.learned(learner) for task, logs in LOGS.items()}
    assert values.given(taught["bedside-hidden-confounded"]) == pytest.approx((0, 0))
    assert score(taught["bedside-hidden-confounded"]) == pytest.approx(-5.9, abs=0.05)
    for task in ("bedside-hidden-unconfounded", "bedside-shown-confounded"):
        assert values.given(taught[task]) == pytest.approx((2, 0))
        assert score(taught[task]) == pytest.approx(100, abs=0.01)
    for logs in LOGS.values():
        assert values.given(logs.cloned()) == pytest.approx((1, 2 / 3))
        assert score(logs.cloned()) == pytest.approx(11.8, abs=0.05)


@pytest.mark.parametrize("learner", ["factored_bcq", "ad_bcq"])
def test_tables_are_where_the_agents_losses_are_least(learner: values.Learner) -> None:
    rng = np.random.default_rng(0)
    y, y_alone, share = rng.random(9), rng.random((2, 3)), rng.dirichlet(np.ones(9))
    q, own = Logs("confounded")._fit(learner, y[None, None], y_alone[None, None], share[None])

    def loss(own: np.ndarray) -> float:
        total = 0.0
        for (a, b), goal, chance in zip(product(range(3), repeat=2), y, share, strict=True):
            joined = own[0, a] + own[1, b]
            if learner == "factored_bcq":
                total += chance * (joined - goal) ** 2
                continue
            alone = [(own[0, a] - y_alone[0, a]) ** 2, (own[1, b] - y_alone[1, b]) ** 2]
            total += chance * ((joined / 2 - goal) ** 2 + np.mean(alone))
        return total

    found = own[0, 0]
    joined = (found[0][:, None] + found[1]).ravel() / (2 if learner == "ad_bcq" else 1)
    np.testing.assert_allclose(q[0, 0], joined)
    assert all(loss(found) < loss(found + rng.normal(0, 1e-3, (2, 3))) for _ in range(100))


def made(task: str) -> Dataset:
    return store.load(local.ensure(task, 40_000), verify=True)


def test_logs_hold_what_the_page_says() -> None:
    found = {}
    for task, logs in LOGS.items():
        data = made(task)
        seen, actions = data.column("observations"), data.column("actions").astype(int)
        assert seen.shape[1] == 5 + logs.shown
        assert (data.column("terminations") > 0).sum() == 20_000
        assert data.split()[1] is None
        counts = [np.bincount(drug, minlength=3) / len(actions) for drug in actions.T]
        np.testing.assert_allclose(counts[0], np.mean(DRUG_A, 0), atol=0.01)
        np.testing.assert_allclose(counts[1], DRUG_B, atol=0.01)
        change = data.column("next_observations")[:, 3] - seen[:, 3]
        gain = change - bedside.GAIN[seen[:, :3].argmax(1), *actions.T] / 10
        np.testing.assert_allclose(np.abs(gain), 0.6, atol=1e-6)
        if logs.shown:
            np.testing.assert_array_equal(gain < 0, seen[:, 5] > 0)
        # What drug A seems to do, by least squares on what is seen, within four standard errors.
        day = seen[:, 5] - 0.5 if logs.shown else np.zeros(len(seen))
        x = np.column_stack((np.eye(3)[actions[:, 0]], day))
        fitted = np.linalg.lstsq(x, change, rcond=None)[0]
        found[task] = fitted[2] - fitted[0]
        error = (change - x @ fitted).std() * np.sqrt(2 / (0.29 * len(actions)))
        assert abs(found[task] - logs.believed()[0, 2]) < 4 * error, task
    assert found["bedside-hidden-confounded"] < -0.1 < 0.1 < found["bedside-hidden-unconfounded"]
    with pytest.raises(DatasetError, match="can be replayed in"):
        verify(data)


def test_a_policys_table_is_what_it_does() -> None:
    def act(seen: np.ndarray) -> np.ndarray:
        """Drug A by the day, drug B right at the second visit."""
        right = np.where(seen[:, 4] == 1, seen[:, :3].argmax(1), 0)
        return np.stack((2 * seen[:, 5], right), 1)

    assert values.given(values.table(act, shown=True)) == pytest.approx((1, 0.5))


def test_the_suite_is_what_its_page_says(tmp_path: Path) -> None:
    plan = make_plan(Options("confounded", out=tmp_path))
    assert [task["id"] for task in plan.tasks] == list(LOGS)
    assert [task["missing"] for task in plan.tasks] == [None] * 3
    rows = {row.label: row.config for row in plan.rows if not row.reference}
    assert sorted(rows) == ["ad_bcq", "bc", "bcq", "factored_bcq"]
    assert {config.get("threshold", 0.3) for config in rows.values()} == {0.3}
    assert {tuple(config["hidden"]) for config in rows.values()} == {(64, 64)}
    study = make_plan(Options("confounded", budget="study", out=tmp_path)).budget
    assert (study.updates, study.seeds) == (1500, 10)
    assert make_plan(Options("confounded", budget="smoke", out=tmp_path)).budget.meaningless
