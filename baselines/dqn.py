"""Deep Q-learning on joint actions (DQN; Mnih et al. 2015, doi 10.1038/nature14236).

One output per joint action a = (a_1, ..., a_K), as if there were no factors:

    Q(s, a) = net(s)[number of a],    argmax_a Q(s, a) over all of them

Targets, loss and exploration are in :mod:`baselines.q_learning`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from baselines.common import Parameters
from baselines.config import UsageError
from baselines.q_learning import QLearner, QLearningConfig

LARGEST = 100_000  # joint actions; a last layer beyond that is no test of anything


@dataclass(frozen=True)
class DQNConfig(QLearningConfig):
    """The family's settings."""


class DQN(QLearner):
    """DQN."""

    Config: ClassVar = DQNConfig
    version: ClassVar[int] = 1

    def outputs(self) -> int:
        if self.factors.joint > LARGEST:
            raise UsageError(
                f"dqn has an output for each of the {self.factors.joint} joint actions, more than "
                f"{LARGEST}; choose fewer bins, or decqn or ad_dqn"
            )
        return self.factors.joint

    def joined(self, critic: Parameters, outputs: Tensor, indices: Tensor) -> Tensor:
        """The joint action's own output ``[S, B]``."""
        return outputs.gather(-1, self.factors.joint_index(indices).unsqueeze(-1)).squeeze(-1)

    def best(self, critic: Parameters, outputs: Tensor) -> Tensor:
        """The best of all joint actions, ``[S, B, K]``."""
        return self.factors.from_joint(outputs.argmax(-1))
