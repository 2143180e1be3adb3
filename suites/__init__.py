"""Suites of offline-RL comparisons: plan, train, evaluate, record.

From Python::

    from suites import load_policy, load_results, run

    run("core3", budget="smoke", agents=["bc", "td3_bc"])
    scores = load_results()                      # a tidy DataFrame, one row per run
    policy = load_policy("results/runs/cells/local/hopper-medium/td3_bc/...-seed0")
    actions = policy.act(observations)           # raw observations [E, ...] in, actions out
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from suites import guard

if TYPE_CHECKING:
    from suites.api import load_episodes, load_policy, load_results, run

__all__ = ["load_episodes", "load_policy", "load_results", "run"]

guard.prefer_packages()


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    wrong = guard.hidden()
    if wrong:
        raise ImportError(wrong)
    doubt = guard.rivals()
    if doubt:
        warnings.warn(doubt, stacklevel=2)
    from suites import api

    value = globals()[name] = getattr(api, name)
    return value
