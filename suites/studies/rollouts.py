"""Monte-Carlo returns: from a given state, with a given first action, the policy goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from baselines.common import Noise
from baselines.contract import Agent, Memory, Step
from suites.datasets.history import History
from suites.evaluate import Evaluator, clip_to
from suites.studies.context import Context, DoesNotApply, Floats, Ints

NEGLIGIBLE = 0.01  # a rollout ends where the discount has fallen below this
SLOTS = 125  # simulators per seed side by side


class Rollouts(Evaluator):
    """S seeds x E rollouts in lockstep from given states, each with a given first action.

    Raises:
        DoesNotApply: if there is no simulator, or it cannot be put into a state.
    """

    def __init__(self, context: Context) -> None:
        env_id = context.job.task["env_id"]
        if env_id is None:
            raise DoesNotApply("the task has no simulator")
        if History.of(context.spec.observation_space) is not None:
            raise DoesNotApply("a day of a history does not tell the simulator's state")
        super().__init__(env_id, context.spec, context.seeds, context.transform, SLOTS, 0)
        if not hasattr(self.env, "set_state"):
            self.close()
            raise DoesNotApply(f"{env_id} cannot be put into the state of an observation")
        self.simulator: Any = self.env

    def choose_rows(self, context: Context, study: str, count: int) -> tuple[Ints, list[int]]:
        """Rows of the data that the simulator can be put into, drawn without replacement.

        Returns:
            Rows ``[S, count]``, and for every seed how many were passed over because their
            observation does not tell the state.

        Raises:
            DoesNotApply: if the data has fewer.
        """
        observations = context.dataset.column("observations")
        chosen, passed = [], []
        for i in range(len(context.seeds)):
            order = context.rng(study, i).permutation(len(observations))
            good = np.flatnonzero(self.simulator.restorable(observations[order]))
            if len(good) < count:
                raise DoesNotApply(
                    f"only {len(good)} of the data's states can be restored; it takes {count}"
                )
            chosen.append(order[good[:count]])
            passed.append(int(good[count - 1]) + 1 - count)
        return np.stack(chosen), passed

    @torch.no_grad()
    def first_actions(self, agent: Agent, observations: Floats) -> Floats:
        """The actions ``[S, N, A]`` that the policy takes where an episode begins in a state."""
        found = []
        for start in range(0, observations.shape[1], SLOTS):
            here = observations[:, start : start + SLOTS].reshape(-1, observations.shape[-1])
            count = len(here)
            actions, _ = agent.act(
                self._step(here, np.zeros(count), True, np.ones(count, bool), self._noise(start, 1))
            )
            found.append(self._actions(actions, np.ones(count, bool)))
        return np.concatenate([a.reshape(len(self.seeds), SLOTS, -1) for a in found], axis=1)

    def returns(
        self,
        agent: Agent,
        observations: Floats,
        actions: npt.NDArray[Any],
        discounts: Floats,
        listen: Callable[[], None],
    ) -> tuple[Floats, Floats]:
        """Discounted sums of raw rewards until the end, the time limit, or ``NEGLIGIBLE``.

        A policy's noise depends on the state's number alone, so all kinds of first action meet the
        same. A policy with memory begins its memory after the forced action.

        Args:
            agent: the policy that goes on.
            observations: raw, ``[S, N, O]``; N is a multiple of ``SLOTS``.
            actions: the first action, ``[S, N, A]``; clipped to the action space.
            discounts: ``[S]``.
            listen: called after every step.

        Returns:
            The returns and the rewards of the first step, ``[S, N]`` each.
        """
        results = []
        for start in range(0, observations.shape[1], SLOTS):
            piece = slice(start, start + SLOTS)
            here, forced = observations[:, piece], actions[:, piece]
            noise = self._noise(start)
            results.append(self._chunk(agent, here, forced, discounts, noise, listen))
        totals, firsts = zip(*results, strict=True)
        return np.concatenate(totals, axis=1), np.concatenate(firsts, axis=1)

    def _chunk(
        self,
        agent: Agent,
        observations: Floats,
        actions: npt.NDArray[Any],
        discounts: Floats,
        noise: Noise,
        listen: Callable[[], None],
    ) -> tuple[Floats, Floats]:
        flat = observations.reshape(-1, observations.shape[-1])
        for index, observation in enumerate(flat):
            self.simulator.set_state(index, observation)
        forced = clip_to(self.spec.action_space, actions.reshape(len(flat), -1))
        active = np.ones(len(flat), bool)
        discount = np.repeat(discounts, SLOTS)
        played = self.env.step(forced, active)
        total, first_rewards = played.rewards.copy(), played.rewards.copy()
        weight, first = np.ones(len(flat)), True
        memory: Memory | None = None
        while True:
            weight = weight * discount
            active = active & ~(played.terminations | played.truncations) & (weight >= NEGLIGIBLE)
            if not active.any():
                break
            step = self._step(played.observations, played.rewards, first, active, noise)
            with torch.no_grad():
                chosen, memory = agent.act(step, memory)
            played = self.env.step(self._actions(chosen, active), active)
            total += weight * played.rewards
            first = False
            listen()
        shape = (len(self.seeds), SLOTS)
        return total.reshape(shape), first_rewards.reshape(shape)

    def _step(
        self,
        observations: Floats,
        rewards: Floats,
        first: bool,
        active: npt.NDArray[np.bool_],
        noise: Noise,
    ) -> Step:
        return {
            "observations": self._tensor(self.transform.observations(observations)),
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
