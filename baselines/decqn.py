"""Decoupled Q-learning (DecQN; Seyde et al. 2023, arXiv 2210.12566).

A value per factor and choice; that of a joint action is their mean, so that the best one is found
factor by factor:

    Q(s, a) = 1/K sum_k Q_k(s, a_k),    argmax_a Q(s, a) = (argmax_a_k Q_k(s, a_k))_k

Targets, loss and exploration are in :mod:`baselines.q_learning`.
One step of reward, a uniform replay and Polyak targets here, so that DQN, DecQN and AD-DQN differ
by their ideas alone; the authors use three steps and priorities, and copy targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from baselines.common import Parameters
from baselines.q_learning import QLearner, QLearningConfig


@dataclass(frozen=True)
class DecQNConfig(QLearningConfig):
    """The family's settings."""


class DecQN(QLearner):
    """DecQN."""

    Config: ClassVar = DecQNConfig
    version: ClassVar[int] = 1

    def outputs(self) -> int:
        return self.factors.choices

    def joined(self, critic: Parameters, outputs: Tensor, indices: Tensor) -> Tensor:
        """The mean ``[S, B]`` of the factors' values."""
        return self.factors.chosen(outputs, indices).mean(-1)

    def best(self, critic: Parameters, outputs: Tensor) -> Tensor:
        """Each factor's best choice, ``[S, B, K]``."""
        return self.factors.split(outputs).argmax(-1)
