"""What the tests of window agents share: the transformer in numpy, windows, and acting by hand.

The numpy transformer never sees padding: it runs on the real steps of a window alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from oracles import HIGH, LOW, OBSERVATION, SEEDS, Array, Weights, make_spec
from tape import Var, as_var, join, stack

from baselines.common import Noise
from baselines.contract import Batch, Phase, Spec
from baselines.transformer import TrajectoryTransformer

WINDOWS, STEPS, ROWS = 12, 3, 5  # per batch; K; rows of the table of times
Parameters = dict[str, Var]


def make_windows(number: int) -> Batch:
    """Windows of 1, 2 and 3 steps that end by termination, truncation and not at all.

    What stands in the padding is not zero, and times go beyond the table.
    """
    rng = np.random.default_rng(number)
    shape = (len(SEEDS), WINDOWS, STEPS)
    lengths = np.arange(WINDOWS) % STEPS + 1
    mask = np.arange(STEPS) >= STEPS - lengths[:, None]
    ended = np.arange(WINDOWS) // STEPS % 3
    last = np.arange(STEPS) == STEPS - 1
    begin = rng.integers(0, ROWS, (*shape[:2], 1))
    arrays = {
        "observations": rng.normal(size=(*shape, OBSERVATION)),
        "actions": rng.uniform(LOW, HIGH, (*shape, 2)),
        "rewards": rng.normal(size=shape),
        "returns_to_go": 3 * rng.normal(size=shape),
        "timesteps": begin + np.arange(STEPS),
        "mask": np.broadcast_to(mask, shape).astype(float),
        "terminations": np.broadcast_to((ended == 0)[:, None] & last, shape).astype(float),
        "truncations": np.broadcast_to((ended == 1)[:, None] & last, shape).astype(float),
    }
    return {name: torch.from_numpy(value.copy()) for name, value in arrays.items()}


def window_spec(best: float, reward_scale: float, **statistics: float) -> Spec:
    """The specification of :func:`make_windows`; the data's returns are known, in raw units."""
    known = {"return_best": best, "return_worst": -6.0, "reward_scale": reward_scale}
    return replace(make_spec(), horizon=ROWS, statistics={**known, **statistics})


def dropout_draws(net: TrajectoryTransformer, noise: Noise, width: int = WINDOWS) -> list[Any]:
    """One update's dropout factors, in the order in which they are drawn."""
    masks = net.dropout_masks(noise, width, STEPS)
    return [] if masks is None else list(masks.values())


def named_masks(layers: int, draws: tuple[Array, ...]) -> dict[str, Array] | None:
    """Those factors by name, of one seed."""
    names = ["embedding"]
    for i in range(layers):
        names += [f"weights{i}", f"attended{i}", f"outer{i}"]
    return dict(zip(names, draws, strict=True)) if draws else None


def affine(p: Parameters, name: str, x: Var) -> Var:
    return x @ p[f"weight_{name}"] + p[f"bias_{name}"]


def norm(p: Parameters, name: str, x: Var) -> Var:
    centred = x - x.mean(-1)
    scaled = centred * ((centred * centred).mean(-1) + 1e-5).power(-0.5)
    return scaled * p[f"weight_{name}"] + p[f"bias_{name}"]


def dropped(x: Var, masks: dict[str, Array] | None, name: str, tokens: int, rows: slice) -> Var:
    """``x [B, (H), N, features]`` times its factors, which know the real tokens as the last ones.

    ``rows``: the windows. Factors that are there for the tokens of observations alone are 1 at all
    others.
    """
    if masks is None:
        return x
    mask = masks[name][rows]
    if name.startswith("weights"):
        mask = mask[..., -x.shape[-1] :]
    if mask.shape[-2] == STEPS:
        whole = np.ones(x.shape)
        steps = (tokens + 1) // 3
        whole[..., 1::3, :] = mask[..., -steps:, :]
        return x * whole
    return x * mask[..., -tokens:, :]


def transform(
    p: Parameters, layers: int, heads: int, window: dict[str, Array], masks: Any, rows: Any
) -> Var:
    """Normalised outputs ``[B, 3 K - 1, width]`` of windows without padding."""
    time = p["time"][np.minimum(window["timesteps"], p["time"].shape[0] - 1)]
    returns = affine(p, "return", as_var(window["returns_to_go"][..., None]))
    states = affine(p, "state", as_var(window["observations"]))
    actions = affine(p, "action", as_var(window["unit"]))
    count, steps = window["mask"].shape
    tokens = 3 * steps - 1
    x = stack([returns + time, states + time, actions + time], 2).reshape(count, 3 * steps, -1)
    x = norm(p, "embedding_norm", x)[:, :tokens]
    x = dropped(x, masks, "embedding", tokens, rows)
    width = x.shape[-1]
    size = width // heads
    future = np.triu(np.ones((tokens, tokens)), 1)
    for i in range(layers):
        normed = norm(p, f"norm{i}", x)
        mixed = join([affine(p, f"query{i}", normed), affine(p, f"key_value{i}", normed)])
        q, k, v = (
            mixed[..., j * width : (j + 1) * width].reshape(count, tokens, heads, size).swap(1, 2)
            for j in range(3)
        )
        scores = q @ k.swap(2, 3) * size**-0.5
        raw = (scores - scores.value.max(-1, keepdims=True)).exp() * (1 - future)
        weights = dropped(raw / raw.sum(-1), masks, f"weights{i}", tokens, rows)
        attended = affine(p, f"attended{i}", (weights @ v).swap(1, 2).reshape(count, tokens, width))
        x = x + dropped(attended, masks, f"attended{i}", tokens, rows)
        inner = affine(p, f"inner{i}", norm(p, f"inner_norm{i}", x)).relu()
        x = x + dropped(affine(p, f"outer{i}", inner), masks, f"outer{i}", tokens, rows)
    return norm(p, "final_norm", x)


def by_length(batch: dict[str, Array]) -> list[tuple[Array, dict[str, Array]]]:
    """Windows of the same length without their padding, and which they are."""
    lengths = batch["mask"].sum(1).astype(int)
    groups = []
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        groups.append((rows, {k: v[rows][:, -length:] for k, v in batch.items()}))
    return groups


def as_vars(weights: Weights) -> Parameters:
    return {name: Var(value) for name, value in weights.items()}


def decided(p: Parameters, hidden: Var) -> Var:
    """Actions from the tokens of observations."""
    return affine(p, "act", hidden[:, 1::3]).tanh()


def clip(found: Weights, max_norm: float) -> Weights:
    """One seed's gradient, its norm at most ``max_norm``."""
    size = np.sqrt(sum((g**2).sum() for g in found.values()))
    return {name: g * min(1.0, max_norm / (size + 1e-6)) for name, g in found.items()}


def unit_of(actions: Array) -> Array:
    return 2 * (actions - LOW) / (HIGH - LOW) - 1


def windows_of(
    observations: Array, rewards: Array, first: Array, taken: Array, t: int, episode: int
) -> dict[str, Array]:
    """What a policy may know of an episode at step t, without padding: ``[1, L, ...]``.

    ``received`` is the sum of rewards since the episode began; the action of step t is 0.
    """
    begin = max(i for i in range(t + 1) if first[i, episode])
    steps = np.arange(max(begin, t - STEPS + 1), t + 1)
    actions = np.append(unit_of(taken[steps[:-1], episode]), np.zeros((1, 2)), 0)
    received = [rewards[begin + 1 : i + 1, episode].sum() for i in steps]
    return {
        "observations": observations[steps, episode][None],
        "unit": actions[None],
        "received": np.array([received]),
        "timesteps": (steps - begin)[None],
        "mask": np.ones((1, len(steps))),
    }


def histories(seed: int, steps: int, episodes: int, begins: set[tuple[int, int]]) -> Any:
    """Made-up observations and rewards ``[T, E, ...]`` and where episodes begin ``[T, E]``."""
    rng = np.random.default_rng(seed)
    first = np.array([[t == 0 or (t, e) in begins for e in range(episodes)] for t in range(steps)])
    rewards = rng.normal(size=(steps, episodes))
    return rng.normal(size=(steps, episodes, OBSERVATION)), rewards, first


def play(agent: Any, observations: Array, rewards: Array, first: Array) -> Array:
    """The agent's actions ``[S, T, E, A]``; every seed sees the same."""
    taken, memory = [], None
    noise = Noise.for_episodes(SEEDS, "evaluation", 0, range(first.shape[1]), dtype=torch.float64)
    for t in range(len(first)):
        step = {
            "observations": torch.from_numpy(np.stack([observations[t]] * len(SEEDS))),
            "rewards": torch.from_numpy(np.stack([rewards[t]] * len(SEEDS))),
            "first": torch.from_numpy(np.stack([first[t]] * len(SEEDS))),
            "active": torch.ones(len(SEEDS), first.shape[1], dtype=torch.bool),
            "noise": noise,
        }
        actions, memory = agent.act(step, memory)
        taken.append(actions.numpy())
    return np.stack(taken, 1)


# Two steps: a context is seen and an action taken; then what comes of it is seen, and the reward
# comes whatever is done. Three quarters of the logged actions sit at the wrong end.
EPISODES, WRONG, FAR = 2000, 0.75, 0.8  # logged episodes, share of wrong actions, |u*|


def best_action(context: Array) -> Array:
    return FAR * np.sign(context)


def two_steps(reward: Callable[[Array, Array], Array]) -> dict[str, Array]:
    """Logged windows of both steps ``[N, 2, ...]``.

    Args:
        reward: distances from the best action and uniform numbers -> rewards ``[N]``.
    """
    rng = np.random.default_rng(0)
    context = rng.uniform(-1, 1, EPISODES)
    wrong = rng.random(EPISODES) < WRONG
    action = best_action(context) * np.where(wrong, -1, 1) + 0.05 * rng.normal(size=EPISODES)
    action = action.clip(-1, 1)
    distance = np.abs(action - best_action(context))
    earned = reward(distance, rng.random(EPISODES))
    zeros, ones = np.zeros(EPISODES), np.ones(EPISODES)
    first = np.stack([context, zeros, zeros], 1)
    second = np.stack([zeros, ones, distance], 1)
    return {
        "observations": np.stack([first, second], 1),
        "actions": np.stack([action, rng.uniform(-1, 1, EPISODES)], 1)[..., None],
        "rewards": np.stack([zeros, earned], 1),
        "returns_to_go": np.stack([earned, earned], 1),
        "timesteps": np.stack([zeros, ones], 1).astype(int),
        "terminations": np.stack([zeros, ones], 1),
    }


def distances(cls: Any, config: Any, data: dict[str, Array], updates: int) -> Array:
    """How far from the best action three trained policies act, ``[S, contexts]``.

    Half of the windows begin at the second step: they are padded.
    """
    seeds = (0, 1, 2)
    returns = data["returns_to_go"][:, 0]
    spec = Spec(
        spaces.Box(-np.inf, np.inf, (3,)),
        spaces.Box(-1, 1, (1,)),
        (Phase("offline", updates),),
        horizon=2,
        statistics={"return_best": returns.max(), "return_worst": returns.min()},
    )
    agent = cls(spec, config, seeds)
    table = {k: torch.from_numpy(v) for k, v in data.items()}
    table = {k: v.float() if v.is_floating_point() else v for k, v in table.items()}
    noise = Noise.for_seeds(seeds, "batch")
    mask = torch.ones(len(seeds), config.batch_size, 2)
    mask[:, : config.batch_size // 2, 0] = 0
    for _ in range(updates):
        index = noise.integers(EPISODES, config.batch_size)
        agent.update({**{k: v[index] for k, v in table.items()}, "mask": mask}, "offline")
    context = np.linspace(-1, 1, 50)  # an even number: 0 itself has no best action
    observations = np.stack([context, 0 * context, 0 * context], 1)
    shape = (len(seeds), len(context))
    step: Any = {
        "observations": torch.from_numpy(observations).float().expand(len(seeds), -1, -1),
        "rewards": torch.zeros(shape),
        "first": torch.ones(shape, dtype=torch.bool),
        "active": torch.ones(shape, dtype=torch.bool),
        "noise": Noise.for_episodes(seeds, "evaluation", 0, range(len(context))),
    }
    actions = agent.act(step)[0].squeeze(-1).numpy()
    return np.abs(actions - best_action(context))
