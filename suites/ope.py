"""What logged data alone can say of a policy, where no simulator can.

Nothing here is a return that was earned. On held-out episodes:

* the *action error*, how far the policy's actions are from the logged ones: root mean square in
  units of half the width of the action box, or for integer actions the fraction that differs. It
  says how well behaviour was cloned, not how good the policy is.
* for integer actions whose probabilities were logged: the return that weighted importance sampling
  (Precup, Sutton & Singh 2000) gives the policy, with the effective number of episodes (Kong 1992)
  behind it. It needs the policy's own probabilities. The agent contract has none, so this is done
  for policies that always choose one action; others go through :func:`estimate_return`.

A deterministic policy in a box of actions has no density, so there no importance weights exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from baselines.common import Noise
from baselines.contract import Agent, Memory, Spec, Step
from suites.datasets.store import Dataset
from suites.datasets.transforms import Transform
from suites.evaluate import check_actions
from suites.spaces import is_integer

EPISODES = 64  # judged at most
STEPS = 2000  # of each at most

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """An off-policy estimate of a policy's return.

    Attributes:
        value: raw return per episode; NaN where no logged episode could be the policy's.
        effective_episodes: (sum of weights)^2 / (sum of squared weights): as many episodes of the
            policy's own would carry as much information. Below a few, the value says nothing.
        episodes: logged episodes behind it.
    """

    value: float
    effective_episodes: float
    episodes: int


def estimate_return(returns: npt.ArrayLike, log_ratios: npt.ArrayLike) -> Estimate:
    """Weighted importance sampling over whole episodes.

    Args:
        returns: ``[E]`` of logged episodes.
        log_ratios: ``[E]``, the sum over an episode of log pi(a | s) - log b(a | s), for the judged
            policy pi and the behaviour policy b; -inf where pi would never have acted so.

    Raises:
        ValueError: if the shapes differ, or a ratio is NaN or +inf.
    """
    values, ratios = np.asarray(returns, np.float64), np.asarray(log_ratios, np.float64)
    if values.shape != ratios.shape or values.ndim != 1:
        raise ValueError(f"returns {values.shape} and log_ratios {ratios.shape} must both be [E]")
    if np.isnan(ratios).any() or (ratios == np.inf).any():
        raise ValueError(
            "a log ratio is NaN or +inf; behaviour must have a chance to act as it did"
        )
    largest = ratios.max(initial=-np.inf)
    if largest == -np.inf:
        return Estimate(np.nan, 0.0, len(values))
    weights = np.exp(ratios - largest)  # the factor cancels
    effective = weights.sum() ** 2 / np.square(weights).sum()
    return Estimate(float(weights @ values / weights.sum()), float(effective), len(values))


def judge(
    agent: Agent, spec: Spec, transform: Transform, held_out: Dataset, seeds: Sequence[int]
) -> list[dict[str, float]]:
    """What held-out episodes say of every seed's policy.

    The policy is asked for its action at every logged observation in turn, as if it had acted so
    far; one that remembers its own earlier actions remembers those.

    Args:
        agent: the policies.
        spec: spaces, device and floating-point type.
        transform: of observations and rewards, as in training.
        held_out: whole episodes that training did not see.
        seeds: training seeds, S.

    Returns:
        By seed: ``action_error``, ``held_out_episodes``, ``held_out_steps``, and where it can be
        estimated ``ope_return`` (absent where no episode carries weight) with
        ``ope_effective_episodes``.

    Raises:
        PolicyError: if the agent acts against the contract.
    """
    starts = held_out.episode_starts
    lengths = np.minimum(np.diff(np.append(starts, len(held_out.table))), STEPS)[:EPISODES]
    starts = starts[: len(lengths)]
    chosen = _act(agent, spec, transform, held_out, seeds, starts, lengths, number=0)
    logged = np.concatenate(
        [held_out.column("actions")[a : a + n] for a, n in zip(starts, lengths, strict=True)]
    ).astype(np.float64)
    found = [
        {
            "action_error": _error(spec, actions, logged),
            "held_out_episodes": float(len(lengths)),
            "held_out_steps": float(lengths.sum()),
        }
        for actions in chosen
    ]
    if not is_integer(spec.action_space) or "action_log_probs" not in held_out.fields:
        return found
    again = _act(agent, spec, transform, held_out, seeds, starts, lengths, number=1)
    rows = np.concatenate([np.arange(a, a + n) for a, n in zip(starts, lengths, strict=True)])
    firsts = np.cumsum(lengths) - lengths
    returns = np.add.reduceat(held_out.column("rewards")[rows].astype(np.float64), firsts)
    behaviour = held_out.column("action_log_probs")[rows].astype(np.float64)
    for i, result in enumerate(found):
        if not np.array_equal(chosen[i], again[i]):
            continue  # it draws its actions, and nobody knows how likely they were
        own = np.where((chosen[i] == logged).all(1), 0.0, -np.inf)
        estimate = estimate_return(returns, np.add.reduceat(own - behaviour, firsts))
        result["ope_effective_episodes"] = estimate.effective_episodes
        if np.isfinite(estimate.value):
            result["ope_return"] = estimate.value
    return found


def _error(spec: Spec, chosen: Floats, logged: Floats) -> float:
    """See the module: over rows ``[N, A]``."""
    space = spec.action_space
    if is_integer(space):
        return float((chosen != logged).any(1).mean())
    half = (np.ravel(space.high).astype(np.float64) - np.ravel(space.low)) / 2  # type: ignore[attr-defined]
    return float(np.sqrt(np.mean(np.square((chosen - logged) / half))))


def _act(
    agent: Agent,
    spec: Spec,
    transform: Transform,
    data: Dataset,
    seeds: Sequence[int],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    number: int,
) -> list[Floats]:
    """Every seed's actions ``[N, A]``, episode after episode, all episodes side by side."""
    count, dtype = len(starts), spec.torch_dtype()
    noise = Noise.for_episodes(
        seeds, "held out", number, range(count), device=spec.device, dtype=dtype
    )
    observations, rewards = data.column("observations"), data.column("rewards")
    width = data.column("actions").shape[1]
    made = [[np.zeros((n, width)) for n in lengths] for _ in seeds]
    memory: Memory | None = None

    def stack(values: npt.NDArray[np.generic]) -> torch.Tensor:
        tensor = torch.from_numpy(values).to(spec.device)
        tensor = tensor.to(dtype) if tensor.is_floating_point() else tensor
        return tensor.expand(len(seeds), *tensor.shape).contiguous()

    for t in range(int(lengths.max())):
        rows = starts + np.minimum(t, lengths - 1)
        active = t < lengths
        earned = rewards[np.maximum(rows - 1, 0)] * transform.reward_scale * (t > 0)
        step: Step = {
            "observations": stack(transform.observations(observations[rows])),
            "rewards": stack(earned.astype(np.float64)),
            "first": stack(np.full(count, t == 0)),
            "active": stack(active),
            "noise": noise,
        }
        with torch.no_grad():
            actions, memory = agent.act(step, memory)
        playing = np.tile(active, len(seeds))
        flat = check_actions(actions, spec.action_space, (len(seeds), count), playing)
        flat = flat.astype(np.float64).reshape(len(seeds), count, width)
        for e in np.flatnonzero(active).tolist():
            for s in range(len(seeds)):
                made[s][e][t] = flat[s, e]
    return [np.concatenate(episodes) for episodes in made]
