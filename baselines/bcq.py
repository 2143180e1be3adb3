"""Discrete-action BCQ over joint actions (Fujimoto et al. 2019, arXiv 1910.01708).

A behaviour network says how likely the data's policy is to take each action. What is much less
likely than its favourite is no candidate, neither when acting nor in the target:

    A(s) = {a : pi(a | s) >= threshold max_a' pi(a' | s)}
    a*   = argmax_{a in A(s')} Q(s', a)                                   eq. 14
    L_Q  = E huber(Q(s, a) - r - gamma (1 - d) Q'(s', a*))
    L_pi = E [-log pi(a | s)] + logit_penalty E logits^2

An action of several factors is one of the product of their choices; a box is cut into bins. So
there is one head that chooses among all joint actions; the rest is in :mod:`baselines.constrained`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from baselines.common import Parameters
from baselines.config import UsageError
from baselines.constrained import BatchConstrained, ConstrainedConfig
from baselines.factored import Factors

LARGEST = 10_000  # joint actions; the published networks then have three million weights


@dataclass(frozen=True)
class BCQConfig(ConstrainedConfig):
    """The family's settings."""

    bins: int = 3  # values per dimension of a box, odd; ours: the outputs grow with bins^K


class BCQ(BatchConstrained):
    """Batch-constrained Q-learning over joint actions."""

    Config: ClassVar = BCQConfig
    version: ClassVar[int] = 1

    def outputs(self) -> Factors:
        """One head of all joint actions."""
        if self.factors.joint > LARGEST:
            raise UsageError(
                f"bcq would need an output for each of {self.factors.joint:,} joint actions, more "
                f"than {LARGEST:,}; take factored_bcq or ad_bcq, or fewer bins"
            )
        return Factors((self.factors.joint,), noop=(0,), starts=(0,))

    def encode(self, actions: Tensor) -> Tensor:
        """The joint action's number ``[..., 1]``."""
        return self.factors.joint_index(self.factors.encode(actions)).unsqueeze(-1)

    def factored(self, choices: Tensor) -> Tensor:
        """What that number stands for, by factor."""
        return self.factors.from_joint(choices.squeeze(-1))

    def joined(self, critic: Parameters, values: Tensor) -> Tensor:
        """The joint action's own value ``[S, B]``."""
        return values.squeeze(-1)
