"""Settings of FAST-Q, and the named sets of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from baselines.config import UsageError, check_ranges


@dataclass(frozen=True)
class FastQConfig:
    """The row of ``mujoco_all``, preset ``paper_mujoco``. "Ours": the paper leaves it open."""

    balance: Literal["learned", "frozen", "none"] = "learned"  # BR; frozen: as in the authors' code
    adversary: float = 0.1  # lambda of the gradient reversal; authors' code
    balance_width: int = 0  # units of z; 0 for twice those of h, as in the authors' Gym code
    classifier_hidden: tuple[int, ...] = (128, 64)  # units per layer; authors' Gym code
    experts: Literal["separate", "shared", "none"] = "none"  # whose view h is; none: h = s
    expert_hidden: tuple[int, ...] = (128, 128)  # units per layer of each expert; ours
    expert_lr: float = 3e-4  # Adam; authors' players code
    exploration: tuple[float, float] = (0.1, 0.5)  # epsilon, from first to last update; paper
    decomposition: float = 1 / 3  # weight of L_dec against L_TD; 0.25 : 0.75, authors' code
    costs: tuple[str, ...] = ("control", "penalty", "cost")  # reward parts left to the overflow
    discounts: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9, 0.99)  # gamma per step, by stage
    acting: str = "mean"  # over views of s: mean, classifier, q_argmax, fixed:<k>; ours
    alpha: float = 2.5  # weight of Q against behaviour cloning; TD3+BC, section 5
    tau: float = 0.005  # Polyak rate of the targets, per policy update
    policy_noise: float = 0.2  # std of target smoothing, in units of half the action range
    noise_clip: float = 0.5  # its clip, same units
    policy_delay: int = 2  # critic updates per policy and target update
    exploration_noise: float = 0.1  # std when exploring online, same units
    hidden: tuple[int, ...] = (256, 256)  # units per layer, actor and critics
    actor_lr: float = 3e-4  # Adam
    critic_lr: float = 3e-4  # Adam; also of BR and classifier
    batch_size: int = 256  # transitions per update
    standardize: bool = True  # observations to mean 0, std 1 (+ 1e-3); TD3+BC, section 5

    def __post_init__(self) -> None:
        check_ranges(
            self,
            adversary=(0, math.inf),
            balance_width=(0, math.inf),
            expert_lr=(0, math.inf),
            decomposition=(0, math.inf),
            alpha=(0, math.inf),
            tau=(0, 1),
            policy_noise=(0, math.inf),
            noise_clip=(0, math.inf),
            policy_delay=(1, math.inf),
            exploration_noise=(0, math.inf),
            actor_lr=(0, math.inf),
            critic_lr=(0, math.inf),
            batch_size=(1, math.inf),
            exploration=(0, 1),
            discounts=(0, 1),
            classifier_hidden=(1, math.inf),
            expert_hidden=(1, math.inf),
            hidden=(1, math.inf),
        )
        if not self.discounts:
            raise UsageError("discounts must be one number from 0 to 1 at least")
        if list(self.discounts) != sorted(set(self.discounts)):
            raise UsageError(f"discounts must rise, not {list(self.discounts)}")
        if self.acting not in ("mean", "classifier", "q_argmax") and not (
            self.acting.startswith("fixed:") and self.acting.removeprefix("fixed:").isdigit()
        ):
            raise UsageError(
                f'acting must be mean, classifier, q_argmax or fixed:<k>, not "{self.acting}"'
            )
        if self.balance != "learned" and self.adversary:
            raise UsageError(f"balance {self.balance} has nothing to reverse; set adversary to 0")
        if self.acting == "classifier" and not self.adversary:
            raise UsageError("acting by classifier needs one; set adversary above 0")

    @property
    def explores(self) -> bool:
        """Whether the actor learns from counterfactual actions."""
        return max(self.exploration) > 0

    @property
    def views(self) -> bool:
        """Whether h is an expert's view of the state."""
        return self.experts != "none"


_PLAIN: Mapping[str, Any] = {
    "adversary": 0.0,
    "exploration": (0.0, 0.0),
    "decomposition": 0.0,
    "discounts": (0.99,),
}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    # The paper's discounts and an expert's view of the state for every logging policy.
    "paper": {"experts": "separate", "discounts": (0.1, 0.3, 0.5, 0.7)},
    # States as they are, and discounts with which one can walk.
    "paper_mujoco": {},
    # For data that does not say who logged it.
    "single_policy": {"adversary": 0.0, "exploration": (0.0, 0.0)},
    # What the authors' public Gym code computes: TD3+BC on a random layer that is never trained.
    "authors_code": {**_PLAIN, "balance": "frozen"},
    # All parts off: our td3_bc, to the last digits.
    "td3_bc": {**_PLAIN, "balance": "none"},
    "check": {
        "experts": "separate",
        "hidden": (32, 32),
        "expert_hidden": (32,),
        "classifier_hidden": (16,),
        "discounts": (0.1, 0.5, 0.9),
        "actor_lr": 3e-3,
        "critic_lr": 3e-3,
        "expert_lr": 3e-3,
    },
}
