"""Environments of this suite's own, under gymnasium ids that begin with ``fastq_bench/``.

Importing this registers them with gymnasium; building one of adroit or kitchen needs
gymnasium-robotics.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import gymnasium

from suites.catalog import NAMESPACE, PLAYERS, POINT_MASSES
from suites.datasets.recipes import bedside, players, pointmass, regions, sepsis
from suites.envs.manipulation import HANDS, KITCHEN_TASKS, register_robotics
from suites.envs.mazes import ANT_MAZES, POINT_MAZES

# Time limits in steps (Farama-Foundation/D4RL@89141a6, the registrations of each domain).
_POINT_STEPS = {"umaze": 300, "medium": 600, "large": 800}
_ANT_STEPS = {"umaze": 700}
_HAND_STEPS = {"pen": 100}


def _register(name: str, where: str, steps: int, **settings: Any) -> None:
    gymnasium.register(
        NAMESPACE + name,
        f"suites.envs.{where}",
        max_episode_steps=steps,
        order_enforce=False,
        disable_env_checker=True,
        kwargs=settings,
    )


for _maze in POINT_MAZES:
    _register(f"maze2d-{_maze}-v1", "mazes:Maze2d", _POINT_STEPS[_maze], maze=_maze)
for _maze in ANT_MAZES:
    _register(f"antmaze-{_maze}-v2", "mazes:AntMaze", _ANT_STEPS.get(_maze, 1000), maze=_maze)
for _hand in HANDS:
    _register(f"{_hand}-v1", "manipulation:Adroit", _HAND_STEPS.get(_hand, 200), hand=_hand)
for _kind in KITCHEN_TASKS:
    _register(f"kitchen-{_kind}-v0", "manipulation:Kitchen", 280, kind=_kind)
_register("Regions-v0", "regions:Regions", regions.STEPS)
_register("sepsis-v0", "sepsis:Sepsis", sepsis.STEPS)
_register("sepsis-hidden-v0", "sepsis:Sepsis", sepsis.STEPS, crises=True)
_register("sepsis-shown-v0", "sepsis:Sepsis", sepsis.STEPS, crises=True, show_crisis=True)
_register("bedside-hidden-v0", "bedside:Bedside", bedside.STEPS)
_register("bedside-shown-v0", "bedside:Bedside", bedside.STEPS, show_day=True)
for _name, _settings in POINT_MASSES.items():
    _register(f"{_name}-v0", "pointmass:PointMass", pointmass.STEPS, **_settings)
for _name, _platform in PLAYERS.items():
    _register(f"{_name}-v0", "players:Players", players.STEPS, platform=_platform)


def make_known(env_id: str) -> None:
    """Registers what is needed for gymnasium to make an environment, if it does not know it yet."""
    if env_id not in gymnasium.registry:
        register_robotics()


def with_settings(env_id: str, settings: Mapping[str, Any]) -> str:
    """One name for an environment and keyword arguments that differ from its registered ones."""
    return f"{env_id}?{json.dumps(settings, sort_keys=True)}" if settings else env_id


def make(env_id: str, **more: Any) -> gymnasium.Env[Any, Any]:
    """``gymnasium.make`` of an id, or of a name that :func:`with_settings` made.

    Args:
        env_id: the name.
        **more: further keyword arguments.
    """
    name, _, settings = env_id.partition("?")
    make_known(name)
    return gymnasium.make(name, **(json.loads(settings) if settings else {}), **more)
