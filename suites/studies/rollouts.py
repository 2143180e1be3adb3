"""Monte-Carlo returns: from a logged state, with a given first action, the policy goes on."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from baselines.common import Noise
from baselines.contract import Memory, Step
from suites.datasets import local
from suites.datasets.history import viewing
from suites.evaluate import Evaluator, clip_to
from suites.studies.context import Context, DoesNotApply, Floats, Ints

NEGLIGIBLE = 0.01  # a rollout ends where the discount has fallen below this
SLOTS = 125  # simulators per seed side by side


class _Places(Protocol):
    """How simulators are put where rows of the data stood."""

    def possible(self, rows: Ints) -> npt.NDArray[np.bool_]:
        """Which of some rows ``[N]`` simulators can be put into."""
        ...

    def take(self, rows: Ints) -> None:
        """Puts the first N simulators into the states of rows ``[N]``."""
        ...


class _ByState:
    """By the state that an observation tells."""

    def __init__(self, env: Any, context: Context) -> None:
        self.env, self.observations = env, context.dataset.column("observations")

    def possible(self, rows: Ints) -> npt.NDArray[np.bool_]:
        found: npt.NDArray[np.bool_] = self.env.restorable(self.observations[rows])
        return found

    def take(self, rows: Ints) -> None:
        for slot, row in enumerate(rows):
            self.env.set_state(slot, np.asarray(self.observations[row], np.float64))


class _ByReplay:
    """By playing episodes again from their reset, with the actions that were logged."""

    def __init__(self, env: Any, context: Context, seeds: Ints) -> None:
        self.env, self.seeds = env, seeds
        self.actions = context.dataset.column("actions")
        self.starts = context.dataset.episode_starts

    def possible(self, rows: Ints) -> npt.NDArray[np.bool_]:
        return np.ones(len(rows), bool)

    def take(self, rows: Ints) -> None:
        episodes = np.searchsorted(self.starts, rows, side="right") - 1
        days = rows - self.starts[episodes]
        actions = np.zeros((len(rows), days.max(initial=0), *self.actions.shape[1:]), np.float32)
        for i, (row, count) in enumerate(zip(rows, days, strict=True)):
            actions[i, :count] = self.actions[row - count : row]
        self.env.replay(self.seeds[episodes], actions, days)


class Rollouts(Evaluator):
    """S seeds x E rollouts in lockstep from states of the data, each with a given first action.

    Raises:
        DoesNotApply: if there is no simulator, or it cannot be put into the data's states.
    """

    def __init__(self, context: Context) -> None:
        env_id = context.job.task["env_id"]
        if env_id is None:
            raise DoesNotApply("the task has no simulator")
        super().__init__(env_id, context.spec, context.seeds, context.transform, SLOTS, 0)
        self.context = context
        try:
            self.places = self._find_places()
        except DoesNotApply:
            self.close()
            raise

    def _find_places(self) -> _Places:
        if hasattr(self.env, "set_state"):
            return _ByState(self.env, self.context)
        if not hasattr(self.env, "replay"):
            raise DoesNotApply(f"{self.env.env_id} cannot be put into the state of an observation")
        seeds = local.reset_seeds(self.context.dataset)
        if seeds is None:
            raise DoesNotApply("the data does not tell its resets, so it cannot be played again")
        return _ByReplay(self.env, self.context, seeds)

    def choose_rows(self, study: str, count: int) -> tuple[Ints, list[int]]:
        """Rows of the data that the simulator can be put into, drawn without replacement.

        Returns:
            Rows ``[S, count]``, and for every seed how many were passed over because their
            observation does not tell the state.

        Raises:
            DoesNotApply: if the data has fewer.
        """
        chosen, passed = [], []
        for i in range(len(self.seeds)):
            rng = self.context.rng(study, i)
            order = rng.permutation(len(self.context.dataset.table))
            good = np.flatnonzero(self.places.possible(order))
            if len(good) < count:
                raise DoesNotApply(
                    f"only {len(good)} of the data's states can be restored; it takes {count}"
                )
            chosen.append(order[good[:count]])
            passed.append(int(good[count - 1]) + 1 - count)
        return np.stack(chosen), passed

    @torch.no_grad()
    def first_actions(self, rows: Ints) -> Floats:
        """The actions ``[S, N, A]`` that the policy takes where an episode begins in a row."""
        found = []
        for start in range(0, rows.shape[1], SLOTS):
            here = self._seen(rows[:, start : start + SLOTS])
            count = len(here)
            actions, _ = self.context.agent.act(
                self._step(here, np.zeros(count), True, np.ones(count, bool), self._noise(start, 1))
            )
            found.append(self._actions(actions, np.ones(count, bool)))
        return np.concatenate([a.reshape(len(self.seeds), SLOTS, -1) for a in found], axis=1)

    def returns(
        self, rows: Ints, actions: npt.NDArray[Any], discounts: Floats
    ) -> tuple[Floats, Floats]:
        """Discounted sums of raw rewards until the end, the time limit, or ``NEGLIGIBLE``.

        A policy's noise depends on the state's number alone, so all kinds of first action meet the
        same. A policy with memory begins its memory after the forced action.

        Args:
            rows: of the data, ``[S, N]``; N is a multiple of ``SLOTS``.
            actions: the first action, ``[S, N, A]``; clipped to the action space.
            discounts: ``[S]``.

        Returns:
            The returns and the rewards of the first step, ``[S, N]`` each.
        """
        results = []
        for start in range(0, rows.shape[1], SLOTS):
            piece = slice(start, start + SLOTS)
            noise = self._noise(start)
            results.append(self._chunk(rows[:, piece], actions[:, piece], discounts, noise))
        totals, firsts = zip(*results, strict=True)
        return np.concatenate(totals, axis=1), np.concatenate(firsts, axis=1)

    def _chunk(
        self, rows: Ints, actions: npt.NDArray[Any], discounts: Floats, noise: Noise
    ) -> tuple[Floats, Floats]:
        count = rows.size
        self.places.take(rows.ravel())
        view = viewing(self.spec.observation_space, count, self._seen(rows))
        forced = clip_to(self.spec.action_space, actions.reshape(count, -1))
        active = np.ones(count, bool)
        discount = np.repeat(discounts, SLOTS)
        played = self.env.step(forced, active)
        total, first_rewards = played.rewards.copy(), played.rewards.copy()
        weight, first = np.ones(count), True
        memory: Memory | None = None
        while True:
            weight = weight * discount
            active = active & ~(played.terminations | played.truncations) & (weight >= NEGLIGIBLE)
            if not active.any():
                break
            # No episode begins here: a history goes on, whatever the policy's memory does.
            shown = view(self.transform.observations(played.observations), np.zeros(count, bool))
            step = self._step(shown, played.rewards, first, active, noise)
            with torch.no_grad():
                chosen, memory = self.context.agent.act(step, memory)
            played = self.env.step(self._actions(chosen, active), active)
            total += weight * played.rewards
            first = False
            self.context.listen()
        shape = (len(self.seeds), SLOTS)
        return total.reshape(shape), first_rewards.reshape(shape)

    def _seen(self, rows: Ints) -> Floats:
        """What the agent saw in rows ``[S, B]``, ``[S * B, O]``."""
        return self.context.seen(rows).flatten(0, 1).double().cpu().numpy()

    def _step(
        self,
        shown: Floats,
        rewards: Floats,
        first: bool,
        active: npt.NDArray[np.bool_],
        noise: Noise,
    ) -> Step:
        return {
            "observations": self._tensor(shown),
            "rewards": self._tensor(rewards * self.transform.reward_scale),
            "first": self._tensor(np.full(len(active), first)),
            "active": self._tensor(active),
            "noise": noise,
        }

    def _noise(self, start: int, number: int = 0) -> Noise:
        return Noise.for_episodes(
            self.seeds,
            "study",
            number,
            range(start, start + SLOTS),
            device=self.spec.device,
            dtype=self.spec.torch_dtype(),
        )
