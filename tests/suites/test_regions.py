"""The confounded problem: its equations, its optimum, and the data of its two policies."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from gymnasium.utils.env_checker import check_env

from results.record import normalized_score
from suites.catalog import reference
from suites.datasets import describe, local, store
from suites.datasets.groups import policy_groups
from suites.datasets.play import play
from suites.datasets.recipes import regions as recipe
from suites.datasets.store import Dataset
from suites.datasets.verify import verify
from suites.envs import make_vector, regions
from suites.envs.mujoco import REGIONS, make_one
from suites.plan import make_plan
from suites.resolve import Options

OVERLAP = Path(__file__).parents[2] / "benchmarks" / "overlap.py"
PARTS = [f"fastq_{name}" for name in ("no_adversary", "no_exploration", "neither")]
TASKS = [f"regions-overlap-{percent}" for percent in (0, 25, 50, 100)]


def expected_return(loss: float, region_b: float = 0.5) -> float:
    """The expected return of a policy with E l = ``loss``; ``region_b`` is the share of B."""
    return regions.HORIZON * (1.0 + regions.BONUS * region_b) - regions.PAID * loss


def made(task: str, size: int = 20_000, seed: int = 0) -> Dataset:
    return store.load(local.ensure(task, size, seed), verify=True)


def test_gymnasium_accepts_it() -> None:
    env = make_one(REGIONS)
    check_env(env.unwrapped)
    assert env.spec is not None
    assert env.spec.max_episode_steps == regions.HORIZON == 20


def test_the_equations_one_by_one() -> None:
    env = make_one(REGIONS)
    observation, _ = env.reset(seed=3)
    assert observation[5] == 0.0
    generator = np.random.default_rng(0)
    for t in range(20):
        u, v, m = observation[0], observation[1:5], observation[5]
        action = generator.uniform(-1.5, 1.5, 2)
        best = 0.5 + 0.4 * np.tanh(regions.F @ v)
        loss = np.linalg.norm(np.clip(action, -1, 1) - best) / (2 * np.sqrt(2))
        tired = 0.5 * m + 0.5 * loss
        observation, reward, terminated, truncated, info = env.step(action)
        assert observation[5] == pytest.approx(tired, abs=1e-12)
        assert reward == pytest.approx(1 + regions.BONUS * (u > 0) - tired, abs=1e-12)
        assert info["reward_base"] + info["reward_penalty"] == reward
        assert observation[0] == u
        assert not terminated
        assert truncated == (t == 19)


def test_it_shows_itself() -> None:
    env = make_one(REGIONS).unwrapped
    env.reset(seed=0)
    before = env.render()
    env.step(np.array([-1.0, 1.0]))
    after = env.render()
    assert after.shape == before.shape == (200, 200, 3)
    assert after[5, 5].tolist() == [0, 0, 0]  # the upper left corner
    assert before[5, 5].tolist() != [0, 0, 0]


def test_the_context_is_stationary_and_episodes_differ_in_region() -> None:
    env = make_vector(REGIONS, 2000)
    first = np.stack([env.reset(slot, slot) for slot in range(2000)])
    assert 0.2 <= np.abs(first[:, 0]).min() < 0.21
    assert 0.99 < np.abs(first[:, 0]).max() <= 1.0
    assert (first[:, 0] > 0).mean() == pytest.approx(0.5, abs=0.03)
    shown = [first]
    for _ in range(20):
        shown.append(env.step(np.zeros((2000, 2))).observations)
    contexts = np.stack(shown)[:, :, 1:5]
    np.testing.assert_allclose(contexts.std(axis=(1, 2)), 1.0, atol=0.03)
    assert np.abs(contexts).max() == 3.0
    lagged = np.mean(contexts[1:] * contexts[:-1])
    assert lagged == pytest.approx(0.8, abs=0.01)


def test_the_vectorised_equals_gymnasiums() -> None:
    """To the last bit, in the middle of neighbours that are busy, and with waiting slots."""
    vector, env = make_vector(REGIONS, 3), make_one(REGIONS)
    assert isinstance(vector, regions.VectorRegions)
    assert (vector.observation_space, vector.action_space) == (
        env.observation_space,
        env.action_space,
    )
    generator = np.random.default_rng(0)
    for neighbour in (0, 2):
        vector.reset(neighbour, seed=neighbour)
    for episode in range(3):
        expected, _ = env.reset(seed=2**32 + episode)
        np.testing.assert_array_equal(vector.reset(1, seed=2**32 + episode), expected)
        for t in range(20):
            actions = generator.uniform(-1.2, 1.2, (3, 2)).astype(np.float32)
            step = vector.step(actions, np.array([t % 3 > 0, True, False]))
            expected, reward, terminated, truncated, info = env.step(actions[1])
            np.testing.assert_array_equal(step.observations[1], expected)
            assert step.rewards[1] == reward
            assert step.parts[1].tolist() == [info["reward_base"], info["reward_penalty"]]
            assert (step.terminations[1], step.truncations[1]) == (terminated, truncated)
            assert step.rewards[2] == 0.0
            assert not step.parts[2].any()


def test_an_episode_can_begin_where_an_observation_was_seen() -> None:
    vector = make_vector(REGIONS, 2)
    assert isinstance(vector, regions.VectorRegions)
    seen = np.array([0.5, 0.1, -0.2, 0.3, -0.4, 0.25])
    for slot in (0, 1):
        np.testing.assert_array_equal(vector.set_state(slot, seen), seen)
    best = regions.best_action(seen[1:5])
    step = vector.step(np.stack((best, best - 0.5)))
    np.testing.assert_array_equal(step.observations[0, :5], step.observations[1, :5])
    assert step.observations[0, 5] == pytest.approx(0.125)
    assert step.observations[1, 5] > step.observations[0, 5]
    assert not np.array_equal(step.observations[0, 1:5], seen[1:5])
    shown = np.stack((seen, np.array([0.5, 3.0, 0, 0, 0, 0])))
    assert vector.restorable(shown).tolist() == [True, False]


def returns_of(act: str, episodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns ``[E]`` of a policy, and which episodes were in region B."""
    env = make_vector(REGIONS, episodes)
    observations = np.stack([env.reset(slot, slot) for slot in range(episodes)])
    in_b, returns = observations[:, 0] > 0, np.zeros(episodes)
    generator = np.random.default_rng(0)
    for _ in range(20):
        v = observations[:, 1:5]
        noise = 0.1 * generator.standard_normal((episodes, 2))
        actions = {
            "oracle": lambda v, n: regions.best_action(v),
            "best": lambda v, n: regions.best_action(v) + n,
            "other": lambda v, n: regions.other_action(v) + n,
            "random": lambda v, n: generator.uniform(-1, 1, n.shape),
        }[act](v, noise)
        step = env.step(actions)
        observations, returns = step.observations, returns + step.rewards
    assert step.truncations.all()
    return returns, in_b


def test_the_optimum_is_attained_in_both_regions() -> None:
    returns, in_b = returns_of("oracle", 100)
    np.testing.assert_allclose(returns, 20 * (1 + regions.BONUS * in_b), atol=1e-9)
    assert reference("regions")[1] == pytest.approx(20 * (1 + regions.BONUS / 2), abs=1e-4)


def test_the_scale_of_scores() -> None:
    low, high, source = reference("regions")
    assert "regions.py" in source
    assert low == pytest.approx(expected_return(regions.LOSS_RANDOM), abs=1e-4)
    assert high == pytest.approx(expected_return(0.0), abs=1e-4)
    returns, in_b = returns_of("random", 2000)
    balanced = (returns[in_b].mean() + returns[~in_b].mean()) / 2
    assert normalized_score(balanced, low, high) == pytest.approx(0.0, abs=0.5)


def test_the_documented_expectations_are_right() -> None:
    losses, errors = regions.measure_losses(300_000, seed=7)
    documented = [regions.LOSS_BEST, regions.LOSS_OTHER, regions.LOSS_RANDOM]
    assert (errors < 4e-4).all()
    assert (np.abs(losses - documented) < 4 * errors).all()


def test_returns_do_not_tell_which_policy_is_better() -> None:
    in_a = expected_return(regions.LOSS_BEST, region_b=0.0)
    in_b = expected_return(regions.LOSS_OTHER, region_b=1.0)
    assert in_a == pytest.approx(in_b, abs=1e-12)
    best, where = returns_of("best", 1000)
    other, _ = returns_of("other", 1000)
    assert best[~where].mean() == pytest.approx(in_a, abs=0.02)
    assert other[where].mean() == pytest.approx(in_b, abs=0.1)


@pytest.mark.parametrize("task", TASKS)
def test_the_dial_assigns_the_policies(task: str) -> None:
    data = made(task)
    share = recipe.overlap(task.removeprefix("regions-"))
    starts = data.episode_starts
    assert len(starts) == 1000
    in_b, policy = data.column("observations")[starts, 0] > 0, data.column("policy_ids")[starts]
    tolerance = 4 * np.sqrt(0.25 / 450) if share else 0.0
    assert (policy[in_b] == 1).mean() == pytest.approx(1 - share / 2, abs=tolerance)
    assert (policy[~in_b] == 0).mean() == pytest.approx(1 - share / 2, abs=tolerance)
    assert in_b.mean() == pytest.approx(0.5, abs=0.07)
    # Mixed as they were assigned, a policy for a whole episode.
    assert 300 < np.abs(np.diff(policy)).sum() < 700
    np.testing.assert_array_equal(np.repeat(policy, 20), data.column("policy_ids"))


def test_rows_are_what_the_policies_do() -> None:
    data = made("regions-overlap-50")
    v = np.asarray(data.column("observations")[:, 1:5], np.float64)
    ids = data.column("policy_ids")
    means = np.where((ids == 0)[:, None], regions.best_action(v), regions.other_action(v))
    noise = data.column("actions") - means
    inside = np.abs(data.column("actions")).max(axis=1) < 1
    assert noise[inside].std() == pytest.approx(0.1, abs=0.002)
    assert np.abs(data.column("actions")).max() <= 1.0
    parts = data.column("reward_parts")
    np.testing.assert_array_equal(parts[:, 0] + parts[:, 1], data.column("rewards"))
    assert not data.column("terminations").any()


def test_the_card_measures_policies_that_are_mixed() -> None:
    data = made("regions-overlap-0")
    returns, _ = data.episodes()
    owners = data.column("policy_ids")[::20]
    for policy in data.card["policies"]:
        own = returns[owners == policy["id"]]
        assert policy["episodes"] == len(own)
        assert policy["return_mean"] == pytest.approx(own.mean())
        assert policy["return_mean"] == pytest.approx(19.163, abs=0.4)
        assert policy["share"] == pytest.approx(len(own) / 1000)
    assert sorted(policy_groups(data.card)) == [0, 1]
    assert data.card["score_mean"] == pytest.approx(21.8, abs=6)


def test_a_dataset_is_a_function_of_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = made("regions-overlap-25", 3000).card
    assert one["sha256"] != made("regions-overlap-25", 3000, seed=1).card["sha256"]
    assert one["sha256"] != made("regions-overlap-50", 3000).card["sha256"]
    monkeypatch.setenv("FASTQ_BENCH_CACHE", str(tmp_path / "other"))
    assert made("regions-overlap-25", 3000).card["sha256"] == one["sha256"]


def test_many_shards_cut_no_episode() -> None:
    wanted = local.identity("regions-overlap-25", 150_007)
    cuts = [shard.stop for shard in recipe.shards(wanted)]
    assert cuts[-1] == 150_007
    assert len(cuts) > 3
    assert all(cut % 20 == 0 for cut in cuts[:-1])


def test_describe_and_verify() -> None:
    data = made("regions-overlap-25", 4000)
    assert not verify(data).faults
    text = describe.describe(data)
    assert "200 complete episodes" in text
    assert text.splitlines()[0].endswith("seed 0")
    mixed_up = data.table.copy()
    mixed_up[:, slice(*data.card["columns"]["actions"])] *= -1
    assert any("reward" in fault for fault in verify(Dataset(None, data.card, mixed_up)).faults)


def test_playing_needs_no_particular_number_of_slots() -> None:
    def actor(env: object) -> recipe._Assigned:
        return recipe._Assigned(env, 0.5, 0.1)  # type: ignore[arg-type]

    short = play(REGIONS, actor, rows=100, entropy=(1,)).table
    long = play(REGIONS, actor, rows=1000, entropy=(1,)).table
    np.testing.assert_array_equal(short, long[:100])


def runs(shift: dict[tuple[str, str], float]) -> pd.DataFrame:
    """Made-up scores: 5 draws, 10 seeds, by task and agent around 50 + shift."""
    generator = np.random.default_rng(0)
    return pd.DataFrame(
        [
            (task, agent, draw, seed, 50 + shift.get((task, agent), 0) + generator.normal())
            for task in ("regions-overlap-0", "regions-overlap-100")
            for agent in ("td3_bc", "fastq", *PARTS)
            for draw in range(5)
            for seed in range(10)
        ],
        columns=["task", "agent", "draw", "seed", "score"],
    )


def test_verdicts_on_the_hypotheses() -> None:
    apart, together = "regions-overlap-0", "regions-overlap-100"
    verdicts = runpy.run_path(str(OVERLAP))["verdicts"]
    h1, h2, *h3 = verdicts(
        runs({(apart, "fastq"): 5, (apart, "fastq_no_adversary"): 5, (together, "fastq"): 1})
    )
    assert h1.startswith("H1 P(fastq > td3_bc)")
    assert h1.endswith("holds")
    assert h2.endswith("holds")
    assert h3[0].endswith("keeps the advantage")
    assert h3[1].endswith("not separated")
    assert h3[2].endswith("shows no advantage")
    assert h3[3].endswith("what it lacks matters")

    h1, h2, *_ = verdicts(runs({(apart, "fastq"): -5, (together, "fastq"): 7}))
    assert h1.endswith("fails")
    assert h2.endswith("fails")
    few = runs({})
    with pytest.raises(ValueError, match="4 draws of the data with"):
        list(verdicts(few[few["draw"] < 4]))


def test_the_suite_is_what_its_page_says(tmp_path: Path) -> None:
    plan = make_plan(Options("fastq_overlap", out=tmp_path))
    assert [task["id"] for task in plan.tasks] == TASKS
    budget = plan.budget
    assert (budget.updates, budget.seeds, budget.dataset_seeds) == (5000, 10, 5)
    rows = {row.label: row.config for row in plan.rows if not row.reference}
    assert list(rows) == ["bc", "td3_bc", "fastq", *PARTS]
    for config in rows.values():
        assert (config["hidden"], config["batch_size"]) == ([64, 64], 256)
    assert rows["td3_bc"]["discount"] == rows["fastq"]["discounts"][-1] == 0.99
    whole = rows["fastq"]
    assert whole["adversary"] > 0
    assert max(whole["exploration"]) > 0
    off: dict[str, dict[str, object]] = {
        "fastq_no_adversary": {"adversary": 0.0},
        "fastq_no_exploration": {"exploration": [0.0, 0.0]},
        "fastq_neither": {"adversary": 0.0, "exploration": [0.0, 0.0]},
    }
    for label, changes in off.items():
        assert rows[label] == {**whole, **changes}
