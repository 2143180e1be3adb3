"""A family of policies told apart by a coefficient, and the model that chooses one for each state.

What both sides of FamO2O share (Wang et al. 2023, arXiv 2310.17966): the coefficient beta lies in
[low, high]; the one policy of the family sees it as a code of sines and cosines beside the state;
the balance model is a tanh-squashed Gaussian of one dimension, stretched to the range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from baselines.common import Noise, Parameters
from baselines.config import UsageError, check_ranges
from baselines.contract import Phase, Step
from baselines.sampled import SquashedPolicy

Choice = Literal["adaptive", "fixed", "random"]


@dataclass(frozen=True)
class FamilyConfig:
    """The settings of a family that both sides have."""

    coefficient: Choice = "adaptive"  # who chooses beta: the balance model, nobody, or chance
    coefficient_range: tuple[float, float] = (1.0, 5.0)  # low, high; authors' family_learner.py
    fixed_coefficient: float | None = None  # of "fixed"; None: the middle of the range
    code_size: int = 6  # d, numbers in a coefficient's code, even; authors' family_utils.py
    code_base: float = 1e4  # n of the code; same

    def __post_init__(self) -> None:
        low, high = self.coefficient_range
        if not 0 <= low < high < math.inf:
            raise UsageError(
                f"coefficient_range must be two rising numbers, 0 or more, not {low:g} and {high:g}"
            )
        if not low <= self.fixed <= high:
            raise UsageError(
                f"fixed_coefficient must be in coefficient_range, from {low:g} to {high:g}, "
                f"not {self.fixed:g}"
            )
        if self.code_size < 2 or self.code_size % 2:
            raise UsageError(f"code_size must be even and at least 2, not {self.code_size}")
        check_ranges(self, code_base=(1, math.inf))

    @property
    def fixed(self) -> float:
        """The coefficient that nobody chooses."""
        if self.fixed_coefficient is not None:
            return self.fixed_coefficient
        return sum(self.coefficient_range) / 2.0


@dataclass(frozen=True)
class Family:
    """The coefficients of a family of policies, and balance(s), which chooses among them.

    Attributes:
        config: range, code, and who chooses.
        model: of x in (-1, 1), where -1 stands for the smallest coefficient and 1 for the largest.
    """

    config: FamilyConfig
    model: SquashedPolicy

    @property
    def adaptive(self) -> bool:
        """Whether it is the balance model that chooses."""
        return self.config.coefficient == "adaptive"

    def init(self, noise: Noise) -> Parameters:
        """Draws the balance model's parameters."""
        return self.model.init(noise)

    def stretch(self, x: Tensor) -> Tensor:
        """(-1, 1) -> the range of coefficients."""
        low, high = self.config.coefficient_range
        return low + (x + 1.0) / 2.0 * (high - low)

    def sample(
        self, parameters: Parameters, observations: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """beta ``[S, B, 1]`` and its log-density ``[S, B]``, from normal ``noise [S, B, 1]``."""
        x, density = self.model(parameters, observations).sample(noise)
        low, high = self.config.coefficient_range
        return self.stretch(x), density - math.log((high - low) / 2.0)

    def mean(self, parameters: Parameters, observations: Tensor) -> Tensor:
        """The coefficient at the Gaussian's mean, ``[S, B, 1]``."""
        return self.stretch(self.model(parameters, observations).mean.tanh())

    @torch.no_grad()
    def choose(
        self,
        parameters: Parameters,
        observations: Tensor,
        uniform: Tensor | None,
        normal: Tensor | None = None,
        *,
        whole: bool = False,
    ) -> Tensor:
        """beta ``[S, B, 1]``, a constant.

        Args:
            parameters: the balance model's.
            observations: ``[S, B, observation]``.
            uniform: numbers in [0, 1), ``[S, B, 1]``; needed only where chance chooses.
            normal: standard normal, ``[S, B, 1]``, for a sample of the model; None: its mean.
            whole: chance chooses in the model's place, so that all of the family is learned.
        """
        choice, (low, high) = self.config.coefficient, self.config.coefficient_range
        if choice == "fixed":
            return torch.full_like(observations[..., :1], self.config.fixed)
        if choice == "random" or whole:
            assert uniform is not None
            return low + uniform * (high - low)
        if normal is None:
            return self.mean(parameters, observations)
        return self.sample(parameters, observations, normal)[0]

    def choose_to_act(self, parameters: Parameters, step: Step) -> Tensor:
        """beta ``[S, E, 1]`` of a step: the model's mean, or chance by the step's noise."""
        chance = self.config.coefficient == "random"
        uniform = step["noise"].uniform(1) if chance else None
        return self.choose(parameters, step["observations"], uniform)

    def encode(self, coefficients: Tensor) -> Tensor:
        """Code ``[..., d]`` of beta ``[..., 1]``: sin and cos of beta / n^(2 i / d), i < d / 2."""
        powers = torch.arange(
            self.config.code_size // 2, device=coefficients.device, dtype=coefficients.dtype
        )
        angles = coefficients / self.config.code_base ** (2.0 * powers / self.config.code_size)
        return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)

    def inputs(self, observations: Tensor, coefficients: Tensor) -> Tensor:
        """What the policy of the family sees: ``[S, B, observation + d]``."""
        return torch.cat([observations, self.encode(coefficients)], -1)

    @torch.no_grad()
    def shown(self, parameters: Parameters, observations: Tensor) -> dict[str, Any]:
        """The model's choices ``[S, B]`` and their range; for studies.

        Raises:
            ValueError: if it is not the model that chooses.
        """
        if not self.adaptive:
            kind = self.config.coefficient
            raise ValueError(f"no coefficient is chosen by the state: it is {kind}")
        low, high = self.config.coefficient_range
        chosen = self.mean(parameters, observations).squeeze(-1)
        return {"coefficients": chosen, "low": low, "high": high}


def online_phases(phases: tuple[Phase, ...]) -> frozenset[str]:
    """Names of the phases in which the agent itself collects."""
    return frozenset(phase.name for phase in phases if phase.source != "dataset")
