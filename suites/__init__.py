"""Suites of offline-RL comparisons: plan, train, evaluate, record.

From Python::

    from suites import load_policy, load_results, run

    run("core3", budget="smoke", agents=["bc", "td3_bc"])
    scores = load_results()                      # a tidy DataFrame, one row per run
    policy = load_policy("results/runs/cells/local/hopper-medium/td3_bc/...-seed0")
    actions = policy.act(observations)           # raw observations [E, ...] in, actions out
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from suites.api import load_policy, load_results, run

__all__ = ["load_policy", "load_results", "run"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from suites import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
