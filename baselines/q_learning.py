"""Deep Q-learning on factored actions: what DQN, DecQN and AD-DQN have in common.

They differ in the outputs of the net and in how these make the value Q(s, a) of a joint action; the
rest is here. With primes for targets, H the Huber loss, d = 1 where the environment ended, on
batches of a replay:

    a*  = argmax_a Q(s', a)                double Q-learning (van Hasselt et al. 2016), or of Q'
    y   = r + gamma (1 - d) Q'(s', a*)
    L   = E H(Q(s, a) - y)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from baselines.common import Adam, Noise, Parameters, Stateful, copy_parameters, polyak
from baselines.config import check_ranges
from baselines.contract import Batch, Memory, Metrics, Needs, Spec, Step
from baselines.factored import Factors, epsilon_greedy
from baselines.nets import MLP, observation_size


@dataclass(frozen=True)
class QLearningConfig:
    """Settings of all three, so that they can be tuned alike."""

    bins: int = 5  # odd, values per dimension of a box of actions; ours
    discount: float = 0.99  # gamma per step; Mnih et al. 2015, extended data table 1
    double: bool = True  # the online values choose the next action; van Hasselt et al. 2016
    tau: float = 0.005  # Polyak rate of the targets, per update; ours
    huber: float = 1.0  # where the loss turns from squared to absolute; Seyde et al. 2023
    epsilon_start: float = 1.0  # share of uniform actions at first; Mnih et al. 2015
    epsilon_end: float = 0.05  # and at last; ours
    epsilon_share: float = 0.1  # of the run's updates until then, linearly; ours
    hidden: tuple[int, ...] = (256, 256)  # units per layer; ours
    lr: float = 3e-4  # Adam; ours
    max_norm: float = 40.0  # limit of the gradient's norm; Seyde et al. 2023, their code
    batch_size: int = 256  # transitions per update; Seyde et al. 2023, their code

    def __post_init__(self) -> None:
        check_ranges(
            self,
            bins=(3, math.inf),
            discount=(0, 1),
            tau=(0, 1),
            huber=(1e-6, math.inf),
            epsilon_start=(0, 1),
            epsilon_end=(0, 1),
            epsilon_share=(0, 1),
            lr=(0, math.inf),
            max_norm=(0, math.inf),
            batch_size=(1, math.inf),
            hidden=(1, math.inf),
        )


class QLearner(Stateful):
    """An agent but for its values."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "check": {"hidden": (32, 32), "lr": 3e-3, "batch_size": 64}
    }

    @staticmethod
    def needs(config: QLearningConfig) -> Needs:
        return Needs(
            ("observations", "actions", "rewards", "next_observations", "terminations"),
            batch_size=config.batch_size,
        )

    @staticmethod
    def phases(config: QLearningConfig) -> list[dict[str, Any]]:
        """Online from nothing: an update per step, from what was collected."""
        return [
            {
                "name": "online",
                "updates": 1.0,
                "source": "replay",
                "env_steps_per_update": 1,
                "warmup_env_steps": 1000,
                "replay_size": 1_000_000,
            }
        ]

    def __init__(self, spec: Spec, config: Any, seeds: Sequence[int]) -> None:
        self.config, self.spec = config, spec
        self.factors = Factors.of_spec(spec, config.bins)
        observation = observation_size(spec.observation_space)
        self.net = MLP((observation, *config.hidden, self.outputs()))
        self.total = sum(phase.updates for phase in spec.phases)

        dtype = spec.torch_dtype()
        init = Noise.for_seeds(seeds, "init", device=spec.device, dtype=dtype)
        self.noise = Noise.for_seeds(seeds, "update", device=spec.device, dtype=dtype)
        self.critic = self.first_weights(init)
        self.critic_target = copy_parameters(self.critic)
        self.optimizer = Adam(self.critic, config.lr, max_norm=config.max_norm)
        self.parts = {
            "critic": self.critic,
            "critic_target": self.critic_target,
            "optimizer": self.optimizer,
            "noise": self.noise,
        }

    # What an agent adds: which values there are, and how they make one --------------------------

    def outputs(self) -> int:
        """The net's outputs."""
        raise NotImplementedError

    def first_weights(self, init: Noise) -> Parameters:
        """The critic's weights at the start."""
        return self.net.init(init)

    def joined(self, critic: Parameters, outputs: Tensor, indices: Tensor) -> Tensor:
        """Q(s, a) ``[S, B]`` of choices ``[S, B, K]``, from the net's outputs at s."""
        raise NotImplementedError

    def best(self, critic: Parameters, outputs: Tensor) -> Tensor:
        """argmax_a Q(s, a), as choices ``[S, B, K]``."""
        raise NotImplementedError

    # Deep Q-learning -------------------------------------------------------------------

    @torch.no_grad()
    def targets(self, batch: Batch) -> Tensor:
        """y ``[S, B]``."""
        following = self.net(self.critic_target, batch["next_observations"])
        if self.config.double:
            online = self.net(self.critic, batch["next_observations"])
            chosen = self.best(self.critic, online)
        else:
            chosen = self.best(self.critic_target, following)
        next_values = self.joined(self.critic_target, following, chosen)
        continues = 1.0 - batch["terminations"]
        targets: Tensor = batch["rewards"] + self.config.discount * continues * next_values
        return targets

    def huber(self, values: Tensor, targets: Tensor) -> Tensor:
        """H of every difference."""
        loss: Tensor = huber_loss(values, targets, reduction="none", delta=self.config.huber)
        return loss

    def losses(self, batch: Batch, indices: Tensor, outputs: Tensor) -> tuple[Tensor, Metrics]:
        """L ``[S]`` and what else there is to report, from the net's outputs at s."""
        values = self.joined(self.critic, outputs, indices)
        losses = self.huber(values, self.targets(batch)).mean(1)
        return losses, {"td_loss": losses.detach(), "q_mean": values.detach().mean(1)}

    def update(self, batch: Batch, phase: str) -> Metrics:
        indices = self.factors.encode(batch["actions"])
        outputs = self.net(self.critic, batch["observations"])
        losses, metrics = self.losses(batch, indices, outputs)
        self.optimizer.step(losses)
        polyak(self.critic_target, self.critic, self.config.tau)
        self.updates += 1
        return {**metrics, "epsilon": torch.full_like(metrics["q_mean"], self.epsilon())}

    def epsilon(self) -> float:
        """The share of uniform actions when exploring; falls with the number of updates."""
        c, until = self.config, self.config.epsilon_share * self.total
        left = max(0.0, 1.0 - self.updates / until) if until else 0.0
        return float(c.epsilon_end + (c.epsilon_start - c.epsilon_end) * left)

    def act(
        self, step: Step, memory: Memory | None = None, *, explore: bool = False
    ) -> tuple[Tensor, Memory | None]:
        with torch.no_grad():
            indices = self.best(self.critic, self.net(self.critic, step["observations"]))
        if explore:
            indices = epsilon_greedy(step["noise"], indices, self.factors.sizes, self.epsilon())
        return self.factors.decode(indices), None

    # For studies ---------------------------------------------------------------------------------

    @torch.no_grad()
    def value(self, observations: Tensor, actions: Tensor, groups: Tensor | None = None) -> Tensor:
        """Predicted Q ``[S, B]`` of actions in the space."""
        indices = self.factors.encode(actions)
        return self.joined(self.critic, self.net(self.critic, observations), indices)

    def discounts(self) -> Tensor:
        """The discount of :meth:`value`, ``[S]``."""
        bias = self.critic["bias0"]
        return bias.new_full((len(bias),), self.config.discount)
