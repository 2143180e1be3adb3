"""D4RL's adroit and kitchen: gymnasium-robotics' environments, with what D4RL's benchmark defines.

Observations, rewards, ends of episodes and time limits are those of D4RL (Fu et al. 2020,
arXiv:2004.07219; Farama-Foundation/D4RL@89141a6, ``d4rl/hand_manipulation_suite``,
``d4rl/kitchen``), so that its datasets mean the same here. The robots' models and the physics are
gymnasium-robotics' own; what differs is told in ``docs/d4rl-data.md``.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

Observation = npt.NDArray[np.float64]
Transition = tuple[Observation, float, bool, bool, dict[str, Any]]

HANDS = {
    "pen": "AdroitHandPen-v1",
    "hammer": "AdroitHandHammer-v1",
    "door": "AdroitHandDoor-v1",
    "relocate": "AdroitHandRelocate-v1",
}
_LAPS = {"pen": 20}  # an episode succeeds if the goal holds on more steps than these
_MOST_LAPS = 25
DROPPED = 0.075  # a pen that is lower was dropped

# What D4RL's two kitchens ask for; all 30 positions are part of the observation's goal.
KITCHEN_TASKS = {
    "complete": ("microwave", "kettle", "light switch", "slide cabinet"),
    "partial": ("microwave", "kettle", "light switch", "slide cabinet"),
    "mixed": ("microwave", "kettle", "bottom burner", "light switch"),
}
_ROBOT, _POSITIONS, _STATE = 9, 30, 18  # joints; all positions; joints' positions and velocities


def register_robotics() -> None:
    """Makes gymnasium-robotics' ids known to gymnasium, if it is installed."""
    if importlib.util.find_spec("gymnasium_robotics") is not None:
        # It prints that its adroit rewards are not D4RL's; ours are, see Adroit.
        with contextlib.redirect_stderr(io.StringIO()):
            gymnasium.register_envs(importlib.import_module("gymnasium_robotics"))


class Adroit(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A hand of gymnasium-robotics with D4RL's reward, end of an episode and success.

    gymnasium-robotics pays for the distance between palm and object in hammer, door and relocate
    (version 1.4.2, ``envs/adroit_hand``) where D4RL charges for it, and lets a dropped pen lie
    where D4RL ends the episode.

    Args:
        hand: "pen", "hammer", "door" or "relocate".
        render_mode: as the environment takes it.
    """

    def __init__(self, hand: str, render_mode: str | None = None) -> None:
        self.hand = hand
        register_robotics()
        inner = gymnasium.make(HANDS[hand], render_mode=render_mode, disable_env_checker=True)
        super().__init__(inner.unwrapped)  # without its time limit: D4RL's is another
        self._base: Any = inner.unwrapped
        self._held = 0  # steps of this episode on which the goal held

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Observation, Any]:
        """Begins an episode."""
        self._held = 0
        observation, _ = self.env.reset(seed=seed, options=options)
        return observation, {"success": False}

    def step(self, action: Any) -> Transition:
        """Moves the hand; ``info["success"]`` says whether the episode counts as a success yet."""
        observation, reward, _, _, info = self.env.step(action)
        self._held += bool(info["success"])
        success = self._held > _LAPS.get(self.hand, _MOST_LAPS)
        correction, dropped = 0.0, False
        base = self._base
        if self.hand == "pen":
            dropped = bool(base.data.xpos[base.obj_body_id][2] < DROPPED)
        else:
            if self.hand == "door":
                palm, thing = base.grasp_site_id, base.data.site_xpos[base.handle_site_id]
            else:
                palm, thing = base.S_grasp_site_id, base.data.xpos[base.obj_body_id]
            correction = -0.2 * float(np.linalg.norm(base.data.site_xpos[palm] - thing))
        return observation, float(reward) + correction, dropped, False, {"success": success}


class Kitchen(gymnasium.Wrapper[Any, Any, Any, Any]):
    """gymnasium-robotics' Franka kitchen as D4RL shows it: 60 numbers, 1 for each task done.

    The observation is [9 joints, 21 positions of the kitchen's things, 30 of the goal], without
    velocities; the goal is 0 where nothing is asked for. An episode ends when all four tasks are
    done, so its return is their number.

    Args:
        kind: a key of ``KITCHEN_TASKS``.
        render_mode: as the environment takes it.
    """

    def __init__(self, kind: str, render_mode: str | None = None) -> None:
        register_robotics()
        from gymnasium_robotics.envs.franka_kitchen import kitchen_env

        tasks = KITCHEN_TASKS[kind]
        inner = gymnasium.make(
            "FrankaKitchen-v1",
            tasks_to_complete=list(tasks),
            render_mode=render_mode,
            disable_env_checker=True,
        )
        super().__init__(inner.unwrapped)
        self._goal = np.zeros(_POSITIONS)
        for task in tasks:
            self._goal[kitchen_env.OBS_ELEMENT_INDICES[task]] = kitchen_env.OBS_ELEMENT_GOALS[task]
        self.observation_space = spaces.Box(-np.inf, np.inf, (2 * _POSITIONS,), np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (_ROBOT,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Observation, Any]:
        """Begins an episode."""
        shown, _ = self.env.reset(seed=seed, options=options)
        return self._show(shown), {"success": False}

    def step(self, action: Any) -> Transition:
        """Moves the arm; ``info["success"]`` says whether all tasks are done."""
        shown, reward, terminated, _, _ = self.env.step(action)
        return self._show(shown), float(reward), terminated, False, {"success": terminated}

    def _show(self, shown: dict[str, Any]) -> Observation:
        state = shown["observation"]
        things = state[_STATE : _STATE + _POSITIONS - _ROBOT]
        return np.concatenate((state[:_ROBOT], things, self._goal))
