"""Factored BCQ: BCQ whose values add up over the factors of the action (Tang et al. 2022).

arXiv 2305.01738. One network has an output for every choice of every factor, another their logits;
a joint action is a candidate if each of its choices is, so the best one is found factor by factor:

    Q(s, a)  = sum_k Q_k(s, a_k),     pi(a | s) = prod_k pi_k(a_k | s)
    A_k(s)   = {a_k : pi_k(a_k | s) >= threshold max pi_k(. | s)}
    a*_k     = argmax_{a_k in A_k(s')} Q_k(s', a_k)
    L_Q      = E huber(Q(s, a) - r - gamma (1 - d) Q'(s', a*))
    L_pi     = E [-log pi(a | s)] + logit_penalty E logits^2

Masks, targets and losses are in :mod:`baselines.constrained`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from baselines.common import Parameters
from baselines.constrained import BatchConstrained, ConstrainedConfig


@dataclass(frozen=True)
class FactoredBCQConfig(ConstrainedConfig):
    """The family's settings, which are those of Tang et al. 2022, too."""


class FactoredBCQ(BatchConstrained):
    """Batch-constrained Q-learning with a value and a mask per factor."""

    Config: ClassVar = FactoredBCQConfig
    version: ClassVar[int] = 1

    def joined(self, critic: Parameters, values: Tensor) -> Tensor:
        """The sum ``[S, B]`` of the factors' values."""
        return values.sum(-1)
