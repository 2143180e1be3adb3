"""Minutes of real training: agents on full recipes reach what they should. ``tox -e slow``."""

from __future__ import annotations

from pathlib import Path

import pytest

from suites import load_results
from suites.cli import main

SUITE = """
title: learning
tasks: [halfcheetah-medium, hopper-medium-replay]
agents: [bc, td3_bc]
budget: learning
budgets:
  learning: {updates: 4000, seeds: 2, evaluations: 1, evaluation_episodes: 1, final_episodes: 10,
             transitions: 200_000}
"""


@pytest.mark.slow
def test_agents_learn_on_real_data(tmp_path: Path) -> None:
    (tmp_path / "learning.yaml").write_text(SUITE)
    out = tmp_path / "runs"
    assert main([str(tmp_path / "learning.yaml"), "--out", str(out)]) == 0
    scores = load_results(out).groupby(["task", "agent"])["score"].mean()
    # One noisy policy made this data, and its mean action does a little better than it did.
    behaviour, cloned = scores["halfcheetah-medium"][["behaviour", "bc"]]
    assert behaviour - 2 < cloned < behaviour + 8
    # Many policies made this one, most of them bad, and values tell which to follow.
    behaviour, learned = scores["hopper-medium-replay"][["behaviour", "td3_bc"]]
    assert learned > behaviour + 5
    for task in scores.index.get_level_values(0).unique():
        assert scores[task]["random"] < scores[task]["behaviour"]
