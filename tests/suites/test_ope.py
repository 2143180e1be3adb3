"""Off-policy estimates against sums written out and against the truth, and what they refuse."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from baselines.config import UsageError
from baselines.contract import Spec
from suites.datasets import store
from suites.datasets.store import Dataset
from suites.datasets.transforms import Transform
from suites.ope import Settings, estimate, estimate_return, judge
from suites.ope.__main__ import main
from suites.ope.behaviour import behaviour_log_probs
from suites.ope.calibration import Result, calibrate, write
from suites.ope.estimators import soft_log_ratios


def test_weighted_importance_sampling_is_the_weighted_mean() -> None:
    found = estimate_return([1.0, 5.0, 2.0], np.log([0.5, 2.0, 1.0]))
    assert found.value == pytest.approx((0.5 * 1 + 2 * 5 + 1 * 2) / 3.5)
    assert found.effective_episodes == pytest.approx(3.5**2 / (0.25 + 4 + 1))
    assert found.episodes == 3


def test_the_behaviour_itself_has_the_data_s_mean_and_all_episodes() -> None:
    found = estimate_return([1.0, 5.0], [0.0, 0.0])
    assert (found.value, found.effective_episodes) == (3.0, 2.0)


def test_ratios_of_long_episodes_do_not_overflow() -> None:
    found = estimate_return([1.0, 5.0], [2000.0, 1000.0])
    assert (found.value, found.effective_episodes) == (1.0, 1.0)


def test_without_overlap_there_is_no_estimate() -> None:
    found = estimate_return([1.0, 5.0], [-np.inf, -np.inf])
    assert math.isnan(found.value)
    assert found.effective_episodes == 0
    one = estimate_return([1.0, 5.0], [-np.inf, 0.0])
    assert (one.value, one.effective_episodes) == (5.0, 1.0)


def test_an_estimate_approaches_the_truth() -> None:
    """Two actions per step, three steps, reward 1 for action 1; behaviour and target both known."""
    rng = np.random.default_rng(0)
    behaviour, target = 0.3, 0.6
    actions = rng.random((20_000, 3)) < behaviour
    chosen = np.where(actions, target / behaviour, (1 - target) / (1 - behaviour))
    found = estimate_return(actions.sum(1), np.log(chosen).sum(1))
    assert found.value == pytest.approx(3 * target, abs=0.05)
    assert 0.2 * 20_000 < found.effective_episodes < 20_000


@pytest.mark.parametrize(
    ("returns", "ratios", "words"),
    [
        ([1.0], [0.0, 0.0], "must both be"),
        ([1.0], [np.nan], "NaN"),
        ([1.0], [np.inf], "chance to act"),
    ],
)
def test_misuse(returns: list[float], ratios: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        estimate_return(returns, ratios)


def test_softening_needs_only_the_logged_action_s_probability() -> None:
    own, behaviour = np.array([True, False]), np.log([0.2, 0.5])
    found = np.exp(soft_log_ratios(own, behaviour, 0.01))
    np.testing.assert_allclose(found, [(0.99 + 0.01 * 0.2) / 0.2, 0.01])
    np.testing.assert_allclose(np.exp(soft_log_ratios(own, behaviour, 0.0)), [5.0, 0.0])


def test_clipping_and_per_decision_weights_by_hand() -> None:
    """Two episodes of two and one steps."""
    rewards, ratios, starts = [1.0, 2.0, 4.0], np.log([2.0, 3.0, 0.5]), [0, 2]
    plain = Settings(clip=math.inf, resamples=10)
    whole = estimate(rewards, ratios, starts, plain)
    assert whole.value == pytest.approx((6 * 3 + 0.5 * 4) / 6.5)
    assert whole.effective_episodes == pytest.approx(6.5**2 / (36 + 0.25))
    apart = estimate(rewards, ratios, starts, replace(plain, method="pdwis"))
    assert apart.value == pytest.approx((2 * 1 + 0.5 * 4) / 2.5 + (6 * 2 + 0.5 * 0) / 6.5)
    assert apart.effective_episodes == pytest.approx(whole.effective_episodes)
    cut = estimate(rewards, ratios, starts, Settings(clip=3.0, resamples=10))
    assert cut.value == pytest.approx((3 * 3 + 0.5 * 4) / 3.5)
    assert (cut.clipped, whole.clipped) == (0.5, 0.0)
    with pytest.raises(ValueError, match="must both be"):
        estimate(rewards, ratios[:2], starts)
    with pytest.raises(UsageError, match="soften must be from 0 to 1"):
        Settings(soften=2.0)


COIN, TARGET, STEPS = 0.5, 0.65, 3


def coins(rng: np.random.Generator, episodes: int) -> tuple[Any, Any, Any]:
    """Rewards, log ratios and starts: reward 1 for one of two actions, the target likes it more."""
    actions = rng.random(episodes * STEPS) < COIN
    ratios = np.log(np.where(actions, TARGET / COIN, (1 - TARGET) / (1 - COIN)))
    return actions.astype(float), ratios, np.arange(episodes) * STEPS


@pytest.mark.parametrize("method", ["wis", "pdwis"])
@pytest.mark.parametrize("interval", ["student", "bca", "percentile"])
def test_intervals_cover_what_they_say_where_overlap_is_good(method: Any, interval: Any) -> None:
    """300 logs of 100 episodes: a share of 95 % has a standard error of 1.3 %."""
    settings = Settings(method=method, interval=interval, resamples=200)
    rng = np.random.default_rng(0)
    found = [estimate(*coins(rng, 100), settings) for _ in range(300)]
    held = np.mean([e.low <= STEPS * TARGET <= e.high for e in found])
    assert 0.90 < held < 0.985
    mean = np.mean([e.value for e in found])
    assert mean == pytest.approx(STEPS * TARGET, abs=0.02)
    assert all(e.low < e.value < e.high for e in found)


def test_a_wider_level_a_fixed_seed_and_one_episode() -> None:
    drawn = coins(np.random.default_rng(1), 50)
    wide, narrow = (estimate(*drawn, Settings(level=level)) for level in (0.99, 0.8))
    assert wide.low < narrow.low < narrow.high < wide.high
    assert estimate(*drawn) == estimate(*drawn)
    lonely = estimate([1.0], [0.0], [0])
    assert (lonely.value, math.isnan(lonely.low)) == (1.0, True)
    alike = estimate([1.0, 1.0], [0.0, 0.0], [0, 1])
    assert (alike.value, math.isnan(alike.high)) == (1.0, True)


class Fixed:
    """Always the same choice of both treatments."""

    def __init__(self, choice: tuple[int, int], draws: bool = False) -> None:
        self.choice, self.draws = choice, draws

    def act(self, step: Any, memory: Any = None, *, explore: bool = False) -> Any:
        lead = step["observations"].shape[:2]
        if self.draws:
            return step["noise"].integers(2, 2), None
        return torch.tensor(self.choice).expand(*lead, 2), None


def two_treatments(episodes: int, known: bool = True) -> Dataset:
    """Episodes of two steps; by the one observation each treatment has chance 0.3 or 0.7."""
    rng = np.random.default_rng(0)
    rows = 2 * episodes
    seen = rng.integers(2, size=rows)
    chance = np.where(seen, 0.7, 0.3)[:, None]
    actions = (rng.random((rows, 2)) < chance).astype(int)
    likely = np.log(np.where(actions, chance, 1 - chance)).sum(1)
    last = np.arange(rows) % 2 == 1
    fields: dict[str, Any] = {
        "observations": seen[:, None],
        "actions": actions,
        "rewards": actions.sum(1),
        "next_observations": seen[:, None],
        "terminations": last,
        "truncations": np.zeros(rows),
    }
    fields |= {"action_log_probs": likely} if known else {}
    table, columns = store.pack(fields)
    return Dataset(None, {"columns": columns, "horizon": 2}, table)


SPEC = Spec(spaces.Box(0, 1, (1,)), spaces.MultiDiscrete([2, 2]))


def judged(data: Dataset, agent: Any, training: Dataset | None = None, **changes: Any) -> Any:
    transform = Transform(np.zeros(1), np.ones(1), 1.0)
    (found,) = judge(agent, SPEC, transform, data, [0], training, Settings(**changes))
    return found


def test_judging_by_logged_and_by_estimated_probabilities() -> None:
    """A policy that always treats earns 4; half of the steps like each treatment by 0.7."""
    data, training = two_treatments(1500), two_treatments(2000, known=False)
    known = judged(data, Fixed((1, 1)), soften=0.0)
    assert known["ope_return"] == 4.0
    assert known["ope_behaviour_estimated"] == 0.0
    soft = judged(data, Fixed((1, 1)))
    assert 3.9 < soft["ope_low"] < soft["ope_return"] < soft["ope_high"] < 4.0
    assert soft["held_out_episodes"] == 1500
    guess = Settings(behaviour="estimated")
    rows = np.arange(len(data.table))
    guessed = behaviour_log_probs(data, rows, training, SPEC.action_space, guess)
    assert guessed is not None and guessed.estimated
    logged = np.exp(data.column("action_log_probs"))
    np.testing.assert_allclose(np.exp(guessed.log_probs), logged, atol=0.06)
    assert judged(data, Fixed((1, 1)), training, behaviour="estimated")["ope_behaviour_estimated"]
    unlogged = two_treatments(300, known=False)
    assert "ope_return" not in judged(unlogged, Fixed((1, 1)))
    assert judged(unlogged, Fixed((1, 1)), training)["ope_behaviour_estimated"] == 1.0
    assert "ope_return" not in judged(data, Fixed((1, 1), draws=True))


def test_an_episode_that_the_table_s_end_cut_is_not_judged() -> None:
    data = two_treatments(300)
    cut = replace(data, table=data.table[:-1].copy())
    assert judged(cut, Fixed((1, 1)))["held_out_episodes"] == 299


def test_calibration_knows_the_truth_and_tells_it(tmp_path: Path) -> None:
    settings = Settings(resamples=60)
    results = {result.policy: result for result in calibrate(settings, logs=12, episodes=300)}
    assert list(results) == [
        *("behaviour", "20% best", "40% best", "60% best", "80% best", "best", "clinician")
    ]
    first, best = results["behaviour"], results["best"]
    assert first.effective_episodes == pytest.approx(300)
    assert abs(first.estimate - first.true) < 4 * first.estimate_std / math.sqrt(12)
    assert first.true < results["60% best"].true < best.true < best.true_unsoftened
    assert best.effective_episodes < 10
    assert best.coverage < 0.9  # few effective episodes, and the interval is too narrow
    paths = write(list(results.values()), settings, 300, tmp_path / "new")
    assert [path.name for path in paths] == [f"calibration.{end}" for end in ("csv", "png", "svg")]
    lines = paths[0].read_text().splitlines()
    assert lines[0].split(",") == list(Result.__dataclass_fields__)
    assert len(lines) == 8


def test_the_command_line_refuses_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, words in (
        (["judge", str(tmp_path)], "is not there; give the folder of a run"),
        (["calibrate", "--logs", "1"], "--logs must be at least 2"),
        (["calibrate", "--level", "1.5"], "level must be from 0 to 1"),
    ):
        assert main(arguments) == 2
        assert words in capsys.readouterr().err


def test_an_interval_stays_where_weighted_means_of_the_episodes_are() -> None:
    """One episode carries half of the weight, so that resampled errors reach far."""
    rng = np.random.default_rng(0)
    returns = rng.choice([-1.0, 1.0], 50)
    ratios = np.where(np.arange(50) == 7, 5.0, rng.normal(size=50))
    found = estimate_return(returns, ratios, Settings(clip=math.inf, resamples=200))
    assert found.low == -1.0 < found.value < found.high < 1.0
    assert found.value == pytest.approx(-0.551, abs=1e-3)
