"""Decision Transformer (DT): offline RL as conditional sequence modelling (Chen et al. 2021).

A causal transformer reads the last K steps as tokens R_1 s_1 a_1 ... R_K s_K, where R_t is the
return still to come, and is trained to continue them with the logged actions:

    L(theta) = E_windows mean_t |pi_theta(R_1, s_1, a_1, ..., R_t, s_t) - a_t|^2

To act it is given a return to aim at, from which the rewards received are subtracted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from baselines.common import Adam, Noise, Stateful
from baselines.config import check_ranges
from baselines.contract import Batch, Memory, Metrics, Needs, Spec, Step
from baselines.nets import ActionBox
from baselines.transformer import (
    WINDOW,
    ReturnUnits,
    TrajectoryTransformer,
    candidate_windows,
    check_network,
    masked_mean,
    recall,
    remember,
    training_window,
)


@dataclass(frozen=True)
class DTConfig:
    """Settings of the authors' ``gym/experiment.py``, which are Table 9 but for the warm-up."""

    context: int = 20  # K steps of a window
    width: int = 128  # features of a token
    layers: int = 3  # blocks
    heads: int = 1  # of attention
    dropout: float = 0.1  # rate: embeddings, attention weights, both parts of a block
    lr: float = 1e-4  # AdamW
    weight_decay: float = 1e-4  # decoupled, all weights
    warmup_updates: int = 10_000  # lr grows linearly over these
    max_norm: float = 0.25  # of the gradient, per seed
    batch_size: int = 64  # windows per update
    return_scale: float | None = 1000.0  # raw return per unit of input; null: the data's largest
    target: float = 1.0  # return to aim at, as a fraction of the data's best; ours
    target_return: float | None = None  # the same in raw units; replaces target
    timesteps: int = 1000  # rows of the table of times where the task has no time limit
    standardize: bool = True  # observations to mean 0, std 1 (+ 1e-6)

    def __post_init__(self) -> None:
        check_network(self)
        check_ranges(self, warmup_updates=(0, math.inf))


class DT(Stateful):
    """Decision Transformer."""

    Config: ClassVar = DTConfig
    version: ClassVar[int] = 1
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"warmup_updates": 100_000},
        "authors_code": {"warmup_updates": 10_000},
        "corl": {"batch_size": 4096, "lr": 8e-4},
        "check": {
            "context": 3,
            "width": 16,
            "layers": 1,
            "heads": 2,
            "lr": 5e-3,
            "warmup_updates": 5,
            "max_norm": 1.0,
            "return_scale": 5.0,
        },
    }

    @staticmethod
    def needs(config: DTConfig) -> Needs:
        return Needs(
            WINDOW,
            batch_size=config.batch_size,
            window=config.context,
            observations="standardized" if config.standardize else "raw",
            epsilon=1e-6,
        )

    def __init__(self, spec: Spec, config: DTConfig, seeds: Sequence[int]) -> None:
        self.config, self.box = config, ActionBox.of(spec.action_space)
        self.net = TrajectoryTransformer.build(spec, config)
        units = ReturnUnits.of(spec, config.return_scale)
        self.scale = units.scale
        raw = None if config.target_return is None else (config.target_return,)
        self.targets = units.targets((config.target,), raw)
        dtype = spec.torch_dtype()
        self.noise = Noise.for_seeds(seeds, "update", device=spec.device, dtype=dtype)
        self.actor = self.net.init(Noise.for_seeds(seeds, "init", device=spec.device, dtype=dtype))
        self.optimizer = Adam(
            self.actor,
            config.lr,
            max_norm=config.max_norm,
            weight_decay=config.weight_decay,
            warmup_steps=config.warmup_updates,
        )
        self.parts = {"actor": self.actor, "optimizer": self.optimizer, "noise": self.noise}

    def losses(self, batch: Batch, masks: dict[str, Tensor] | None) -> Tensor:
        """L ``[S]``: the mean squared error over real steps and action dimensions."""
        actions = self.box.unscale(batch["actions"])
        window = training_window(batch, actions, self.scale)
        errors = (self.net.actions(self.actor, window, masks) - actions).square().mean(-1)
        return masked_mean(errors, batch["mask"])

    def update(self, batch: Batch, phase: str) -> Metrics:
        masks = self.net.dropout_masks(self.noise, *batch["mask"].shape[1:])
        losses = self.losses(batch, masks)
        self.optimizer.step(losses)
        self.updates += 1
        return {"action_loss": losses.detach()}

    def act(
        self, step: Step, memory: Memory | None = None, *, explore: bool = False
    ) -> tuple[Tensor, Memory | None]:
        memory = recall(memory, step, self.config.context, self.box.size)
        targets = step["observations"].new_tensor(self.targets)
        window = candidate_windows(memory, targets, self.scale)
        unit = self.net.actions(self.actor, window, last=True).detach()[:, :, 0]
        return self.box.scale(unit), remember(memory, unit)
