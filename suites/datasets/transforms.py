"""The one transform between stored data and what agents see, for batches and for acting alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from baselines.contract import Needs
from suites.datasets.store import Dataset

RETURN_RANGE = 1000.0  # scaled rewards span this between the worst and the best return of the data


@dataclass(frozen=True)
class Transform:
    """Observations become (o - shift) * scale per feature, rewards r * reward_scale.

    Attributes:
        shift: ``[O]`` float64.
        scale: ``[O]`` float64.
        reward_scale: a factor.
    """

    shift: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    reward_scale: float

    @classmethod
    def fit(cls, dataset: Dataset, needs: Needs) -> Transform:
        """What ``needs`` asks for, from the statistics of the whole dataset.

        "return_range" divides by the difference of the data's best and worst episode return and
        multiplies by 1000 (Kostrikov et al. 2022, appendix B and the authors' code).
        """
        observations = dataset.column("observations")
        size = observations.shape[1]
        shift, scale, reward_scale = np.zeros(size), np.ones(size), 1.0
        if needs.observations == "standardized":
            shift = observations.mean(0, dtype=np.float64)
            scale = 1.0 / (observations.std(0, dtype=np.float64) + needs.epsilon)
        if needs.rewards == "return_range":
            spread = dataset.card["return_best"] - dataset.card["return_worst"]
            reward_scale = RETURN_RANGE / max(spread, 1e-6)
        return cls(shift, scale, reward_scale)

    def columns(self, dataset: Dataset) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The same as one (shift, scale) pair over all columns of the table, each ``[D]``."""
        width = dataset.table.shape[1]
        shift, scale = np.zeros(width), np.ones(width)
        for field, (start, stop) in dataset.card["columns"].items():
            if field in ("observations", "next_observations"):
                shift[start:stop], scale[start:stop] = self.shift, self.scale
            elif field in ("rewards", "reward_parts"):
                scale[start:stop] = self.reward_scale
        return shift, scale

    def observations(self, observations: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Raw observations ``[..., O]`` as the agent sees them."""
        return np.asarray((observations - self.shift) * self.scale)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, to be stored beside a policy."""
        return {
            "shift": self.shift.tolist(),
            "scale": self.scale.tolist(),
            "reward_scale": self.reward_scale,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Transform:
        """The inverse of ``to_dict``."""
        return cls(
            np.asarray(values["shift"], np.float64),
            np.asarray(values["scale"], np.float64),
            float(values["reward_scale"]),
        )
