"""The study of coefficients on agents and data of which the answer is known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from baselines.contract import Needs, Spec
from suites.datasets import store
from suites.datasets.transforms import Transform
from suites.studies import coefficients
from suites.studies.context import Context, run_study

LOW, HIGH = 1.0, 5.0


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coefficients, "RESAMPLES", 100)


class Chooser:
    """Chooses by the observation, which is the quality of the state."""

    def __init__(self, sign: float = 1.0) -> None:
        self.sign = sign

    def coefficients(self, observations: torch.Tensor) -> dict[str, Any]:
        share = torch.sigmoid(8 * (self.sign * observations[..., 0] - 0.5 * self.sign))
        return {"coefficients": LOW + share * (HIGH - LOW), "low": LOW, "high": HIGH}


class Undecided:
    def coefficients(self, observations: torch.Tensor) -> dict[str, Any]:
        raise ValueError("no coefficient is chosen by the state: it is fixed")


def make_data(episodes: int = 40, length: int = 20, terminated: bool = True) -> store.Dataset:
    """Episode k earns k / episodes at every step; its observations say so."""
    quality = np.repeat(np.arange(episodes) / episodes, length)
    last = np.tile(np.arange(length) == length - 1, episodes).astype(float)
    columns = {
        "observations": quality[:, None],
        "actions": np.zeros((len(quality), 1)),
        "rewards": quality,
        "next_observations": quality[:, None],
        "terminations": last * terminated,
        "truncations": last * (not terminated),
    }
    table, places = store.pack(columns)
    card = {"id": "made-up", "columns": places, "return_best": 1.0, "return_worst": 0.0}
    return store.Dataset(None, card, table)


def make_context(agent: Any, data: store.Dataset) -> Context:
    box = spaces.Box(-1, 1, (1,))
    return Context(
        agent=agent,
        spec=Spec(box, box),
        job=SimpleNamespace(seeds=[0, 1]),  # type: ignore[arg-type]
        dataset=data,
        transform=Transform.fit(data, Needs(("observations",))),
        policy_groups=None,
        curves=[[], []],
        listen=lambda: None,
    )


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_correlation_is_the_agents(sign: float) -> None:
    found = run_study("coefficients", make_context(Chooser(sign), make_data()))
    assert len(found) == 2
    numbers = found[0].numbers
    assert numbers["applies"]
    assert numbers["states"] == 800 and numbers["episodes"] == 40
    correlation = numbers["rank_correlation"]
    assert correlation["value"] * sign > 0.6
    assert correlation["low"] <= correlation["value"] <= correlation["high"]
    assert (numbers["low"], numbers["high"]) == (LOW, HIGH)
    by_quality = [numbers["by_quality"][str(k + 1)] for k in range(10)]
    assert (by_quality[-1] - by_quality[0]) * sign > 2
    expected = 1 / (1 + np.exp(-8 * (np.arange(40) / 40 - 0.5)))
    assert numbers["at_low"] == pytest.approx((expected <= 0.05).mean(), abs=0.03)
    assert found[0].arrays["quality"].shape == found[0].arrays["coefficients"].shape == (800,)


def test_episodes_are_what_is_independent() -> None:
    """States of an episode are alike: a few long episodes say less than many short ones."""
    rng = np.random.default_rng(0)
    marks = rng.standard_normal((2, 10)).repeat(80, 1)
    chosen, returned = marks + 1e-3 * rng.standard_normal(marks.shape)
    widths = []
    for episodes in (np.arange(10).repeat(80), np.arange(800)):
        found = coefficients.summarise(
            chosen, returned, episodes, (-9.0, 9.0), np.random.default_rng(1)
        )
        ends = found.numbers["rank_correlation"]
        widths.append(ends["high"] - ends["low"])
    assert widths[0] > 3 * widths[1]


def test_quality_is_the_discounted_logged_return() -> None:
    returned, episodes, whole = coefficients.returns_ahead(make_context(None, make_data(3, 4)))
    gamma = coefficients.DISCOUNT
    np.testing.assert_allclose(
        returned[4:8] * 3, [sum(gamma**j for j in range(n)) for n in (4, 3, 2, 1)]
    )
    assert episodes.tolist() == np.repeat([0, 1, 2], 4).tolist()
    assert whole.all()


def test_states_whose_return_was_cut_off_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_data(terminated=False)
    why = run_study("coefficients", make_context(Chooser(), data))[0].numbers["why"]
    assert why == "the data has no episode with 300 steps left or a termination"
    monkeypatch.setattr(coefficients, "AHEAD", 15)
    _, _, whole = coefficients.returns_ahead(make_context(None, data))
    assert whole.reshape(40, 20)[0].tolist() == [True] * 6 + [False] * 14


def test_who_chooses_nothing_is_no_case() -> None:
    data = make_data()
    for agent, why in (
        (object(), 'the agent has no method "coefficients"'),
        (Undecided(), "no coefficient is chosen by the state: it is fixed"),
    ):
        numbers = run_study("coefficients", make_context(agent, data))[0].numbers
        assert numbers == {"applies": False, "why": why}
