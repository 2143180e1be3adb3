"""What is measured while training, for people and for the failure signatures."""

from __future__ import annotations

import torch
from torch import Tensor

from fastq.critic import objective_weights
from fastq.schedules import DiscountStages


def metric_names(decomposes: bool, judges: bool, learns_experts: bool, explores: bool) -> list[str]:
    """Names of the metrics of an agent that has these parts."""
    names = ["critic_loss", "td_loss", "q_mean", "q_excess", "reward_bound", "discount"]
    names += ["discounts_forced", "progress", "actor_loss", "bc_loss"]
    if decomposes:
        names += ["decomposition_loss", "q_negative", "weight_saturation", "overflow_weight"]
    if judges:
        names += ["classifier_loss", "policy_accuracy"]
    if learns_experts:
        names.append("expert_loss")
    if explores:
        names += ["exploration", "nearest_policy_share"]
    return names


def watch(
    seen: dict[str, Tensor],
    rewards: Tensor,
    outputs: Tensor,
    stages: DiscountStages,
    progress: float,
    decomposes: bool,
) -> None:
    """Measures what costs too much to be measured at every update.

    Args:
        seen: metrics ``[S]``, of which some are replaced.
        rewards: of a batch, ``[S, B]``.
        outputs: of the critic there, ``[S, 2, B, 1]`` or ``[S, 2, B, D + 2]``.
        stages: of the discount.
        progress: share of the training done.
        decomposes: whether the critic has weights.
    """
    values = outputs[..., 0]
    seen["progress"] = torch.full_like(seen["progress"], progress)
    seen["discount"] = stages.discounts
    state = stages.state
    seen["discounts_forced"] = state["forced"] / state["stage"].clamp(min=1)  # share
    seen["reward_bound"] = torch.maximum(seen["reward_bound"], rewards.abs().amax(1))
    # Of the largest value there can be, max |r| / (1 - gamma).
    bound = seen["reward_bound"] / (1.0 - stages.discounts).clamp(min=1e-3)
    seen["q_excess"] = values.abs().mean((1, 2)) / bound.clamp(min=1e-8)
    if decomposes:
        shares = objective_weights(outputs)
        seen["q_negative"] = (values < 0).to(values.dtype).mean((1, 2))
        seen["weight_saturation"] = (shares.amax(-1) > 0.999).to(values.dtype).mean((1, 2))
        seen["overflow_weight"] = shares[..., -1].mean((1, 2))
