"""Agents whose representations, values and weights are known, for the tests of studies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from baselines.bc import BC
from baselines.contract import Batch, Metrics, Spec


class Known(BC):
    """Clones behaviour, and answers every question of every study."""

    def __init__(self, spec: Spec, config: Any, seeds: Sequence[int]) -> None:
        super().__init__(spec, config, seeds)
        self.seeds, self.groups = len(seeds), spec.policy_groups
        self.parts_known = spec.reward_parts[:1]

    def represent(self, observations: Tensor, groups: Tensor | None) -> dict[str, Tensor]:
        """Before: who acted, in the open. After: a constant."""
        assert groups is not None
        open_book = torch.nn.functional.one_hot(groups, self.groups).to(observations.dtype)
        return {"before": open_book, "after": torch.ones_like(observations[..., :2])}

    def value(self, observations: Tensor, actions: Tensor, groups: Tensor | None) -> Tensor:
        return 7.0 - actions.square().sum(-1)

    def discounts(self) -> Tensor:
        return torch.full((self.seeds,), 0.5)

    def counterfactual_actions(self, observations: Tensor) -> Tensor:
        return torch.zeros(*observations.shape[:2], self.groups, self.box.size)

    def decompose(
        self, observations: Tensor, actions: Tensor, groups: Tensor | None
    ) -> dict[str, Any]:
        share = torch.full_like(observations[..., :1], 0.25)
        return {"weights": torch.cat([share, 1 - share], -1), "parts": self.parts_known}

    def coefficients(self, observations: Tensor) -> dict[str, Any]:
        chosen = observations[..., 0].sigmoid()
        return {"coefficients": chosen, "low": 0.0, "high": 1.0}

    @staticmethod
    def diagnose(curve: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Finds one thing at the second point, and again at every later one."""
        return [
            {"name": "gamma_stalled", "update": point["update"], "text": "it did not rise"}
            for point in curve[1:]
        ]


class Broken(Known):
    """Its values have lost a dimension."""

    def value(self, observations: Tensor, actions: Tensor, groups: Tensor | None) -> Tensor:
        return actions.sum()


class Silent(BC):
    """Knows nothing, and cannot even say what goes wrong."""

    def update(self, batch: Batch, phase: str) -> Metrics:
        return super().update(batch, phase)

    @staticmethod
    def diagnose(curve: list[dict[str, Any]]) -> list[Any]:
        return ["everything"]


AGENTS: dict[str, Any] = {"known": Known, "broken": Broken, "silent": Silent}
