"""The ideas of DQN, DecQN and AD-DQN at work, on actions of three factors that clash in the data.

Two steps, as in ``test_learning``. First a context s is seen and an action taken: each factor moves
a number of its own by one of five choices, the middle one by nothing. Then the three moves u_k are
seen, turned by the sign of s, and their reward comes, whatever is done:

    r = (number of k with u_k = 1) (1 - 2.5 [some u_k = -2])

so moves of 1 are good, and moves of -2 harmless but for spoiling good ones. Of 125 joint actions
the best, all moves 1, returns 3. The data never make two good moves at once, and spoil most.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from learning import train

FACTORS, CHOICES, EPISODES = 3, 5, 2000
UPDATES = 250
SPOILT, GOOD, BAD = 0.5, 0.1, 0.4  # shares of the data: both moves, the good one, the bad one
SIZE: dict[str, Any] = {"hidden": (32, 32), "batch_size": 64, "lr": 3e-3, "tau": 0.05}

# No logged action returns more than one good move alone. A value that is a sum over factors is
# fitted by least squares to b + t = -1.5 (both), b = 1 (good), t = 0 (bad) in these shares: b < 0.
LOGGED = 1.0
B, T = np.linalg.solve(
    [[SPOILT + GOOD, SPOILT], [SPOILT, SPOILT + BAD]], [-1.5 * SPOILT + GOOD, -1.5 * SPOILT]
)
BEST = float(FACTORS)
THRESHOLD = (LOGGED + BEST) / 2


def reward(moves: np.ndarray) -> np.ndarray:
    spoilt = (moves == -2).any(-1)
    return (moves == 1).sum(-1) * (1 - 2.5 * spoilt)


def dataset() -> dict[str, np.ndarray]:
    """Both steps of all episodes; observations are (s, second step?, the three moves)."""
    rng = np.random.default_rng(0)
    context = rng.uniform(0.3, 1, EPISODES) * rng.choice([-1, 1], EPISODES)
    kind = rng.choice(3, EPISODES, p=[SPOILT, GOOD, BAD])
    order = rng.permuted(np.tile(np.arange(FACTORS), (EPISODES, 1)), axis=1)
    moves, rows = np.zeros((EPISODES, FACTORS)), np.arange(EPISODES)
    moves[rows[kind != 2], order[kind != 2, 0]] = 1
    moves[rows[kind != 1], order[kind != 1, 1]] = -2
    action = np.sign(context)[:, None] * moves + 2
    zeros, ones = np.zeros(EPISODES), np.ones(EPISODES)
    first = np.column_stack([context, zeros, np.zeros((EPISODES, FACTORS))])
    second = np.column_stack([zeros, ones, moves])
    return {
        "observations": np.stack([first, second], 1),
        "actions": np.stack([action, rng.integers(0, CHOICES, action.shape)], 1),
        "rewards": np.stack([zeros, reward(moves)], 1),
        "next_observations": np.stack([second, np.zeros_like(second)], 1),
        "terminations": np.stack([zeros, ones], 1),
    }


@functools.cache
def earned(name: str, **settings: Any) -> float:
    """The mean return of the trained policies over contexts and seeds."""
    context = np.concatenate([np.linspace(-1, -0.3, 25), np.linspace(0.3, 1, 25)])
    asked = np.column_stack([context, np.zeros((50, 1 + FACTORS))])
    task = {
        "action_space": spaces.MultiDiscrete([CHOICES] * FACTORS),
        "noop": (CHOICES // 2,) * FACTORS,
        "effects": tuple((2 + k,) for k in range(FACTORS)),
    }
    actions = train(name, dataset(), asked, UPDATES, task, **{**SIZE, **settings})
    return float(reward(np.sign(context)[:, None] * (actions - 2)).mean())


def test_the_data_are_what_the_thresholds_say() -> None:
    moves = dataset()["next_observations"][:, 0, 2:]
    assert reward(moves).max() == LOGGED
    assert ((moves == 1).sum(1) <= 1).all()
    assert B < 0 and B < T


ADDQN: dict[str, Any] = {"model_hidden": (32, 32), "model_lr": 1e-2, "projected_weight": 20.0}


@pytest.mark.parametrize(
    ("name", "settings"), [("dqn", {}), ("decqn", {}), ("ad_dqn", {**ADDQN, "augmentation": False})]
)
def test_what_only_sees_joint_returns_cannot_pass(name: str, settings: dict[str, Any]) -> None:
    returned = earned(name, **settings)
    print(f"{name}: {returned:.2f}; best logged {LOGGED}; threshold {THRESHOLD}; best {BEST}")
    assert returned < THRESHOLD


@pytest.mark.parametrize("synthetic", ["effects", "intervention"])
def test_interventions_pass(synthetic: str) -> None:
    returned = earned("ad_dqn", **ADDQN, synthetic=synthetic)
    print(f"ad_dqn, {synthetic}: {returned:.2f}; threshold {THRESHOLD}; best {BEST}")
    assert returned > THRESHOLD
