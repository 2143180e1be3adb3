"""Where only the other policy's action is good, in a region it never visited."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from baselines.common import Noise
from baselines.contract import Phase, Spec
from baselines.registry import Registry

SEEDS, ROWS, UPDATES = (0, 1, 2), 2000, 200
# A perfect clone is 1 off in region B, where the other policy's action is right, and earns 1/3.
CLONE, OPTIMUM = 1 / 3, 1.0
THRESHOLD = 0.7
SMALL: dict[str, Any] = {"hidden": (32, 32), "batch_size": 64}
TD3: dict[str, Any] = {**SMALL, "actor_lr": 3e-3, "critic_lr": 3e-3, "alpha": 1.0}
FASTQ: dict[str, Any] = {
    **TD3,
    "expert_lr": 3e-3,
    "expert_hidden": (32,),
    "classifier_hidden": (16,),
    "discounts": (0.9,),
    "decomposition": 0.0,
}
WHOLE: dict[str, Any] = {"adversary": 1.0, "exploration": (0.5, 0.5)}
OFF: dict[str, Any] = {"adversary": 0.0, "exploration": (0.0, 0.0)}


def best(context: Any) -> Any:
    return 0.5 + 0.3 * context


def earned(name: str, **settings: Any) -> float:
    """The reward in the worse of two regions, its mean over seeds.

    Policy 0 acts rightly and only in region A, policy 1 one unit off and only in B; one step ends
    an episode. The reward falls linearly with the distance, so nothing is gained by averaging.
    """
    rng = np.random.default_rng(0)
    context, region = rng.uniform(-1, 1, ROWS), rng.choice([-1, 1], ROWS)
    policy = (region > 0).astype(int)
    actions = best(context) - policy + 0.1 * rng.normal(size=ROWS)
    rewards = 1 - np.abs(actions - best(context)) / 1.5
    states = np.stack([region, context], 1)
    table = {
        "observations": states,
        "actions": actions.clip(-1, 1)[:, None],
        "rewards": rewards,
        "next_observations": states,
        "terminations": np.ones(ROWS),
    }
    tensors = {name: torch.from_numpy(value).float() for name, value in table.items()}
    tensors["policy_groups"] = torch.from_numpy(policy)

    cls: Any = Registry().get(name)
    config = cls.Config(**settings)
    needs = cls.needs(config)
    spec = Spec(
        spaces.Box(-np.inf, np.inf, (2,)),
        spaces.Box(-1, 1, (1,)),
        (Phase("offline", UPDATES),),
        policies=2,
        policy_groups=2,
    )
    agent = cls(spec, config, SEEDS)
    noise = Noise.for_seeds(SEEDS, "batch")
    for _ in range(UPDATES):
        index = noise.integers(ROWS, needs.batch_size)
        agent.update({field: tensors[field][index] for field in needs.fields}, "offline")

    asked = np.linspace(-1, 1, 21)
    worst = np.inf
    for side in (-1, 1):
        states = np.stack([np.full(21, side), asked], 1)
        step: Any = {"observations": torch.from_numpy(states).float().expand(len(SEEDS), -1, -1)}
        acted = agent.act(step)[0].squeeze(-1).numpy()
        worst = min(worst, float((1 - np.abs(acted - best(asked)) / 1.5).mean()))
    return worst


def test_balancing_and_exploration_find_the_action_of_the_other_policy() -> None:
    found = {
        "fastq": earned("fastq", **FASTQ, **WHOLE),
        "without": earned("fastq", **FASTQ, **OFF),
        "td3_bc": earned("td3_bc", **TD3),
        "bc": earned("bc", **SMALL, lr=3e-3),
    }
    print(f"{found}; clone {CLONE:.2f}, threshold {THRESHOLD:.2f}, optimum {OPTIMUM:.2f}")
    assert found["fastq"] > THRESHOLD
    assert abs(found["bc"] - CLONE) < 0.05
    assert max(found["without"], found["td3_bc"]) < THRESHOLD
