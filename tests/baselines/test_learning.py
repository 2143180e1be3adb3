"""Each agent's own idea at work: tasks on which cloning provably fails and the idea does not.

Two steps. First a context s is seen and an action a taken; then the distance x = |a - u*(s)| is
seen, and the reward 1 - x^2 comes, whatever is done. So only values that travel back one step,
through the bootstrap, tell good actions from bad. Three quarters of the logged actions sit at the
wrong end of the interval; the least-squares clone acts at their mean, whose return is known.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from learning import train

EPISODES, WRONG, FAR = 2000, 0.75, 0.8  # logged episodes, share of wrong actions, |u*|
SIZE: dict[str, Any] = {"hidden": (64, 64), "batch_size": 128}

# The clone acts at (1 - 2 WRONG) u*, so at distance x = 2 WRONG FAR.
CLONE = 1 - (2 * WRONG * FAR) ** 2
BEST = 1.0
THRESHOLD = (CLONE + BEST) / 2


def best_action(context: np.ndarray) -> np.ndarray:
    return FAR * np.sign(context)


def dataset() -> dict[str, np.ndarray]:
    """Both steps of all episodes, ``[episodes, 2, ...]``; observations are (s, second step?, x)."""
    rng = np.random.default_rng(0)
    context = rng.uniform(-1, 1, EPISODES)
    wrong = rng.random(EPISODES) < WRONG
    action = best_action(context) * np.where(wrong, -1, 1) + 0.05 * rng.normal(size=EPISODES)
    action = action.clip(-1, 1)
    distance = np.abs(action - best_action(context))
    zeros, ones = np.zeros(EPISODES), np.ones(EPISODES)
    first = np.stack([context, zeros, zeros], 1)
    second = np.stack([zeros, ones, distance], 1)
    return {
        "observations": np.stack([first, second], 1),
        "actions": np.stack([action, rng.uniform(-1, 1, EPISODES)], 1)[..., None],
        "rewards": np.stack([zeros, 1 - distance**2], 1),
        "next_observations": np.stack([second, np.zeros_like(second)], 1),
        "terminations": np.stack([zeros, ones], 1),
    }


def earned(name: str, **settings: Any) -> float:
    """The mean return of the trained policies over contexts and seeds."""
    context = np.linspace(-1, 1, 50)  # an even number: 0 itself has no best action
    asked = np.stack([context, 0 * context, 0 * context], 1)
    actions = train(name, dataset(), asked, 250, **{**SIZE, **settings})
    return float((1 - (actions - best_action(context)) ** 2).mean())


TD3BC = {"actor_lr": 1e-3, "critic_lr": 1e-3, "tau": 0.02}
IQL = {"lr": 1e-3, "tau": 0.02}


@pytest.mark.parametrize(
    ("name", "settings", "idea"),
    [
        # Their ideas: the value of the policy's own action; weights by advantage.
        ("td3_bc", TD3BC, {"alpha": 0.0}),
        ("iql", IQL, {"temperature": 0.0}),
    ],
)
def test_the_idea_passes_where_cloning_cannot(
    name: str, settings: dict[str, Any], idea: dict[str, Any]
) -> None:
    with_it = earned(name, **settings)
    print(f"{name}: {with_it:.2f}; threshold {THRESHOLD:.2f}")
    assert with_it > THRESHOLD
    for off in (idea, {"discount": 0.0}):  # and both: values come back through the bootstrap
        without = earned(name, **{**settings, **off})
        print(f"with {off}: {without:.2f}")
        assert without < THRESHOLD


def test_cloning_ends_where_it_provably_must() -> None:
    returned = earned("bc", lr=1e-3)
    print(f"bc: {returned:.2f}; least-squares clone {CLONE:.2f}; threshold {THRESHOLD:.2f}")
    assert returned == pytest.approx(CLONE, abs=0.25)
    assert returned < THRESHOLD
