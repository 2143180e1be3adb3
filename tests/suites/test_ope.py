"""Off-policy estimates against sums written out, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest

from suites.ope import estimate_return


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
