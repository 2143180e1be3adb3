"""What held-out episodes say of a policy, with a simulator or without.

Nothing here is a return that was earned.

* the *action error*, how far the policy's actions are from the logged ones: root mean square in
  units of half the width of the action box, or for integer actions the fraction that differs. It
  says how well behaviour was cloned, not how good the policy is.
* for integer actions: an off-policy estimate of the return with its interval and the effective
  number of episodes behind it (:mod:`suites.ope.estimators`), by the logged probabilities of the
  actions, or by estimated ones where they were not logged. It needs the policy's own
  probabilities. The agent contract has none, so this is done for policies that always choose one
  action.

A deterministic policy in a box of actions has no density, so there no importance weights exist.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from baselines.common import Noise
from baselines.contract import Agent, Memory, Spec, Step
from suites.datasets.history import viewing
from suites.datasets.store import Dataset
from suites.datasets.transforms import Transform
from suites.evaluate import check_actions
from suites.ope.behaviour import behaviour_log_probs
from suites.ope.estimators import Settings, estimate, soft_log_ratios
from suites.spaces import is_integer

EPISODES = 64  # judged at most, by their action error alone
ESTIMATE_EPISODES = 4000  # where an estimate applies
ROWS = 128_000  # of all of these at most, but for the first 64
STEPS = 2000  # of each at most

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def judge(
    agent: Agent,
    spec: Spec,
    transform: Transform,
    held_out: Dataset,
    seeds: Sequence[int],
    training: Dataset | None = None,
    settings: Settings | None = None,
) -> list[dict[str, float]]:
    """What held-out episodes say of every seed's policy.

    The policy is asked for its action at every logged observation in turn, as if it had acted so
    far; one that remembers its own earlier actions remembers those.

    Args:
        agent: the policies.
        spec: spaces, device and floating-point type.
        transform: of observations and rewards, as in training.
        held_out: whole episodes that training did not see; the last one may be unfinished.
        seeds: training seeds, S.
        training: what the behaviour is estimated from where its probabilities were not logged;
            None for no estimate there.
        settings: of the estimate; None for the defaults.

    Returns:
        By seed: ``action_error``, ``held_out_episodes``, ``held_out_steps``, and where it can be
        estimated ``ope_return`` (absent where no episode carries weight) with its interval
        ``ope_low`` and ``ope_high`` (absent where there is none), ``ope_effective_episodes``,
        ``ope_clipped`` (share of weights that were cut), and ``ope_behaviour_estimated`` (1 or 0).

    Raises:
        PolicyError: if the agent acts against the contract.
    """
    settings = settings or Settings()
    estimated = is_integer(spec.action_space)
    starts, lengths = _episodes(held_out, estimated)
    rows = np.concatenate([np.arange(a, a + n) for a, n in zip(starts, lengths, strict=True)])
    chosen = _act(agent, spec, transform, held_out, seeds, starts, lengths, number=0)
    logged = held_out.column("actions")[rows].astype(np.float64)
    found = [
        {
            "action_error": _error(spec, actions, logged),
            "held_out_episodes": float(len(lengths)),
            "held_out_steps": float(lengths.sum()),
        }
        for actions in chosen
    ]
    if not estimated:
        return found
    behaviour = behaviour_log_probs(held_out, rows, training, spec.action_space, settings)
    if behaviour is None:
        return found
    again = _act(agent, spec, transform, held_out, seeds, starts, lengths, number=1)
    rewards = held_out.column("rewards")[rows].astype(np.float64)
    for i, result in enumerate(found):
        if not np.array_equal(chosen[i], again[i]):
            continue  # it draws its actions, and nobody knows how likely they were
        own = (chosen[i] == logged).all(1)
        ratios = soft_log_ratios(own, behaviour.log_probs, settings.soften)
        made = estimate(rewards, ratios, np.cumsum(lengths) - lengths, settings)
        result["ope_effective_episodes"] = made.effective_episodes
        result["ope_clipped"] = made.clipped
        result["ope_behaviour_estimated"] = float(behaviour.estimated)
        ends = {"ope_return": made.value, "ope_low": made.low, "ope_high": made.high}
        result |= {name: value for name, value in ends.items() if np.isfinite(value)}
    return found


def _episodes(held_out: Dataset, estimated: bool) -> tuple[Ints, Ints]:
    """First rows and lengths of the episodes to be judged.

    An estimate needs whole episodes: the last, if the table's end cut it, is left out.
    """
    starts = held_out.episode_starts
    lengths = np.diff(np.append(starts, len(held_out.table)))
    if not estimated:
        return starts[:EPISODES], np.minimum(lengths, STEPS)[:EPISODES]
    ended = held_out.column("terminations")[-1] > 0
    horizon = held_out.card.get("horizon")
    if len(starts) > 1 and not ended and horizon and lengths[-1] < horizon:
        starts, lengths = starts[:-1], lengths[:-1]
    lengths = np.minimum(lengths, STEPS)
    count = int(np.searchsorted(np.cumsum(lengths), ROWS, side="right"))
    count = max(min(count, ESTIMATE_EPISODES), min(EPISODES, len(starts)))
    return starts[:count], lengths[:count]


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
    view = viewing(spec.observation_space, count)

    def stack(values: npt.NDArray[np.generic]) -> torch.Tensor:
        tensor = torch.from_numpy(values).to(spec.device)
        tensor = tensor.to(dtype) if tensor.is_floating_point() else tensor
        return tensor.expand(len(seeds), *tensor.shape).contiguous()

    for t in range(int(lengths.max())):
        rows = starts + np.minimum(t, lengths - 1)
        active = t < lengths
        earned = rewards[np.maximum(rows - 1, 0)] * transform.reward_scale * (t > 0)
        step: Step = {
            "observations": stack(
                view(transform.observations(observations[rows]), np.full(count, t == 0))
            ),
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
