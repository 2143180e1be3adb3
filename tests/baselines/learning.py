"""Training on made-up episodes, for the tests of an agent's own idea."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from oracles import Array

from baselines.common import Noise
from baselines.contract import Phase, Spec
from baselines.registry import Registry

SEEDS = (0, 1, 2)


def train(
    name: str,
    episodes: dict[str, Array],
    asked: Array,
    updates: int,
    task: dict[str, Any] | None = None,
    **settings: Any,
) -> Array:
    """What policies of three seeds do, once trained.

    Args:
        name: the agent's.
        episodes: fields ``[episodes, steps, ...]``; actions of one dimension in [-1, 1], if
            ``task`` says nothing else.
        asked: observations ``[n, features]`` to act on.
        updates: how many.
        task: what else the agent is told of it, as :class:`Spec` names it.
        settings: of the agent.

    Returns:
        ``[S, n]``, or ``[S, n, K]`` where actions have several dimensions.
    """
    cls: Any = Registry().get(name)
    config = cls.Config(**settings)
    needs = cls.needs(config)
    spec = Spec(
        spaces.Box(-np.inf, np.inf, asked.shape[1:]),
        **{"action_space": spaces.Box(-1, 1, (1,)), **(task or {})},
        phases=(Phase("offline", updates),),
    )
    agent = cls(spec, config, SEEDS)
    count, steps = episodes["rewards"].shape
    table = {k: torch.from_numpy(v).float().flatten(0, 1) for k, v in episodes.items()}
    table["mask"] = torch.ones(count * steps)
    noise = Noise.for_seeds(SEEDS, "batch")
    for _ in range(updates):
        index, real = noise.integers(count * steps, needs.batch_size), torch.ones(())
        if needs.window is not None:  # begins at the index, ends with its episode, padded left
            last = torch.minimum(index % steps + needs.window, torch.tensor(steps)) - 1
            begin = index.unsqueeze(-1)
            index = (index - index % steps + last).unsqueeze(-1) + torch.arange(1 - needs.window, 1)
            real = (index >= begin).float()
            index = torch.maximum(index, begin)
        batch = {field: table[field][index] for field in needs.fields}
        if needs.window is not None:
            batch = {
                k: v * real.reshape(*real.shape, *[1] * (v.dim() - 3)) for k, v in batch.items()
            }
        agent.update(batch, "offline")
    step: Any = {"observations": torch.from_numpy(asked).float().expand(len(SEEDS), -1, -1)}
    actions: Array = agent.act(step)[0].squeeze(-1).numpy()
    return actions
