"""A baseline of your own that sees all data at once: filtered behaviour cloning (%BC).

    python -m suites.run core3 --plugin examples/whole_dataset_plugin.py --agents filtered_bc
    python -m baselines.check --plugin examples/whole_dataset_plugin.py

It clones the episodes with the highest returns that together hold a share of all transitions (Chen
et al. 2021, Decision Transformer, section 5), and is BC otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from baselines.bc import BC, BCConfig
from baselines.common import Noise
from baselines.contract import Batch, Metrics, Needs, Spec


@dataclass(frozen=True)
class FilteredBCConfig(BCConfig):
    """Settings; the comments are the documentation, with unit and source."""

    share: float = 0.1  # of the transitions, those of the best episodes; Chen et al. 2021, Table 4


class FilteredBC(BC):
    """Behaviour cloning of the best episodes."""

    Config: ClassVar = FilteredBCConfig

    @staticmethod
    def needs(config: FilteredBCConfig) -> Needs:
        return replace(BC.needs(config), dataset=True)

    def __init__(self, spec: Spec, config: FilteredBCConfig, seeds: Sequence[int]) -> None:
        super().__init__(spec, config, seeds)
        self.noise = Noise.for_seeds(seeds, "update", device=spec.device)
        self.parts["noise"] = self.noise
        if spec.dataset is None:  # a finished policy, which only acts
            return
        first = spec.dataset["timesteps"] == 0  # rows are ordered: episode after episode
        returns = spec.dataset["returns_to_go"][first][first.cumsum(0) - 1]  # of a row's episode
        kept = returns.sort(descending=True, stable=True).indices
        kept = kept[: max(1, round(config.share * len(kept)))]
        self.data = {field: spec.dataset[field][kept] for field in ("observations", "actions")}

    def update(self, batch: Batch, phase: str) -> Metrics:
        index = self.noise.integers(len(self.data["actions"]), batch["actions"].shape[1])
        return super().update({field: self.data[field][index] for field in batch}, phase)


AGENTS = {"filtered_bc": FilteredBC}
