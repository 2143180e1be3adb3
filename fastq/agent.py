"""FAST-Q: fast-track exploration with adversarially balanced state representations for
counterfactual action estimation in offline RL (arXiv 2504.21383).

TD3+BC on a representation z that hides which logging policy k a state comes from:

    h        = PE_k(s), or s itself (where it is a history: features of it)
    z        = BR(h),            y = r + gamma_t (1 - d) min_i Q'_i(z', clip(pi'(z') + noise))
    L_Q      = sum_i E (Q_i(z, a) - y)^2 + w_dec L_dec + CE(clf(GRL_lambda(z)), k)
    L_dec    = sum_i E mean_j (w_ij(z, a) Q_i(z, a) - c_j r_j)^2
    L_pi     = -alpha E Q_1(z~, pi(z~)) / E |Q_1| + E (pi(z~) - a~)^2

where (z~, a~) is (z, a), or with probability epsilon_t the view BR(PE_k'(s)) and the action of
another policy k'. The discount gamma_t rises in stages, epsilon_t along a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from baselines.common import Adam, Noise, Stateful, copy_parameters, frozen, polyak
from baselines.config import UsageError
from baselines.contract import Batch, Memory, Metrics, Needs, Spec, Step
from baselines.encoders import Encoder, HistoryEncoder, encoder
from baselines.nets import MLP, ActionBox
from fastq.balancing import Balancing, adversary_losses, balanced_accuracy
from fastq.config import PRESETS, FastQConfig
from fastq.critic import DecomposedQ, decomposition_losses, objective_weights
from fastq.diagnosis import diagnose
from fastq.experts import PolicyExperts, pick
from fastq.exploration import swap
from fastq.reversal import reverse
from fastq.schedules import DiscountStages, between
from fastq.watching import metric_names, watch

RAMP = 0.1  # share of the updates over which the reversal grows from 0
REPRESENT = 0.1  # share of the updates that pre-train the experts
WATCH = 10  # policy updates from one look at what is watched for people to the next
SMOOTH = 0.2  # rate of the moving averages among it, per look


class FastQ(Stateful):
    """FAST-Q."""

    Config: ClassVar = FastQConfig
    version: ClassVar[int] = 1
    presets: ClassVar = PRESETS
    diagnose = staticmethod(diagnose)

    @staticmethod
    def needs(config: FastQConfig) -> Needs:
        fields = ["observations", "actions", "rewards", "next_observations", "terminations"]
        if config.adversary or config.explores or config.views:
            fields.append("policy_groups")
        if config.decomposition:
            fields.append("reward_parts")
        return Needs(
            tuple(fields),
            batch_size=config.batch_size,
            observations="standardized" if config.standardize else "raw",
        )

    @staticmethod
    def phases(config: FastQConfig) -> list[dict[str, Any]]:
        """The phases of a manifest that names none: experts first, if there can be any."""
        if not (config.explores or config.views):
            return [{"name": "policy"}]
        return [
            {"name": "represent", "updates": REPRESENT},
            {"name": "policy", "updates": 1 - REPRESENT},
        ]

    def __init__(self, spec: Spec, config: FastQConfig, seeds: Sequence[int]) -> None:
        self.config, self.box = config, ActionBox.of(spec.action_space)
        action = self.box.size
        # An expert's view has an encoder of its own.
        self.encoder: Encoder | None = None if config.views else encoder(spec.observation_space)
        if config.balance == "frozen" and isinstance(self.encoder, HistoryEncoder):
            raise UsageError(
                "balance frozen lets no gradient through to the encoder of histories; set balance "
                "to learned or none"
            )
        # Without logged ids, or with one policy, there is nobody to balance against or to ask.
        grouped = "policy_groups" in self.needs(config).fields
        self.policies = max(1, spec.policy_groups) if grouped else 1
        several = self.policies > 1
        self.explores = config.explores and several
        self.learns_experts = self.explores or config.views
        self.judges = config.adversary > 0 and several
        if config.acting.startswith("fixed:") and int(config.acting[6:]) >= self.policies:
            raise UsageError(
                f"acting {config.acting}: the data has {self.policies} logging policies, counted "
                "from 0"
            )
        self.objectives = [
            i for i, name in enumerate(spec.reward_parts) if name not in config.costs
        ]
        self.objective_names = tuple(spec.reward_parts[i] for i in self.objectives)
        decomposes = len(self.objectives) if config.decomposition else 0
        improving = [p for p in spec.phases if not (self.learns_experts and p.name == "represent")]
        self.total = max(1, sum(phase.updates for phase in improving))  # the schedules' length

        view = config.expert_hidden[-1] if self.encoder is None else self.encoder.size
        width = view if config.balance == "none" else config.balance_width or 2 * view
        self.experts_net = PolicyExperts.build(
            self.policies,
            spec.observation_space,
            action,
            config.expert_hidden,
            "shared" if config.experts == "shared" else "separate",
        )
        self.balance_net = Balancing(view, width)
        self.classifier_net = MLP(
            (width, *config.classifier_hidden, self.policies), activation=torch.nn.functional.elu
        )
        self.actor_net = MLP((width, *config.hidden, action))
        self.critic_net = DecomposedQ.build(width, action, config.hidden, decomposes)

        dtype = spec.torch_dtype()
        init = Noise.for_seeds(seeds, "init", device=spec.device, dtype=dtype)
        self.noise = Noise.for_seeds(seeds, "update", device=spec.device, dtype=dtype)
        zeros = torch.zeros(len(seeds), device=spec.device, dtype=dtype)
        self.actor, self.critic = self.actor_net.init(init), self.critic_net.init(init)
        if self.encoder is not None:
            self.critic.update(self.encoder.init(init))
        self.experts = self.experts_net.init(init) if self.learns_experts else {}
        self.balance = {} if config.balance == "none" else self.balance_net.init(init)
        self.moments = self.balance_net.statistics(self.balance) if self.balance else {}
        self.classifier = self.classifier_net.init(init) if self.judges else {}
        self.actor_target = copy_parameters(self.actor)
        self.critic_target = copy_parameters(self.critic)
        learned = config.balance == "learned"
        self.balance_target = copy_parameters(self.balance) if learned else {}
        self.stages = DiscountStages(config.discounts, self.total, zeros)

        joint = {"critic": self.critic, "classifier": self.classifier}
        joint["balance"] = self.balance if learned else {}
        self.critic_optimizer = Adam(
            {f"{part}.{n}": v for part, values in joint.items() for n, v in values.items()},
            config.critic_lr,
        )
        self.actor_optimizer = Adam(self.actor, config.actor_lr)
        self.expert_optimizer = Adam(self.experts, config.expert_lr)
        self.columns = torch.tensor(self.objectives, dtype=torch.int64, device=spec.device)
        names = metric_names(decomposes > 0, self.judges, self.learns_experts, self.explores)
        self.seen = {name: zeros.clone() for name in names}
        self.parts = {
            "actor": self.actor,
            "critic": self.critic,
            "experts": self.experts,
            "balance": self.balance,
            "moments": self.moments,
            "classifier": self.classifier,
            "actor_target": self.actor_target,
            "critic_target": self.critic_target,
            "balance_target": self.balance_target,
            "actor_optimizer": self.actor_optimizer,
            "critic_optimizer": self.critic_optimizer,
            "expert_optimizer": self.expert_optimizer,
            "stages": self.stages.state,
            "seen": self.seen,
            "noise": self.noise,
        }

    # The representation ------------------------------------------------------------------------

    def groups(self, batch: Batch) -> Tensor | None:
        """Which logging policy acted, ``[S, B]``; None where that makes no difference."""
        return batch["policy_groups"] if self.policies > 1 else None

    @torch.no_grad()
    def experts_views(self, observations: Tensor) -> Tensor:
        """The state as every policy's expert sees it, ``[S, P, B, H]``."""
        return self.experts_net.features(self.experts, observations)

    def view(
        self,
        observations: Tensor,
        groups: Tensor | None,
        each: Tensor | None = None,
        *,
        target: bool = False,
    ) -> Tensor:
        """h ``[S, B, H]``: the state as policy ``groups``' expert sees it, or the state itself.

        Of ``each`` of :meth:`experts_views`, if they are there; where states are histories that no
        expert sees, by the encoder or its ``target``.
        """
        if self.encoder is not None:
            return self.encoder(self.critic_target if target else self.critic, observations)
        if groups is None:
            groups = torch.zeros(
                observations.shape[:2], dtype=torch.int64, device=observations.device
            )
        if each is not None:
            return pick(each, groups)
        with torch.no_grad():
            return self.experts_net.own(self.experts, observations, groups)

    def balanced(self, views: Tensor, *, training: bool = False, target: bool = False) -> Tensor:
        """z ``[S, B, Z]`` of h ``[S, B, H]``.

        Targets, actor and acting normalise by running moments; only what trains BR by the batch's.
        """
        if not self.balance:
            return views
        parameters = self.balance_target if target else self.balance
        return self.balance_net(parameters, self.moments, views, training)

    # The critic --------------------------------------------------------------------------------

    def policy(self, parameters: dict[str, Tensor], features: Tensor) -> Tensor:
        """Actions in [-1, 1], ``[S, B, A]``."""
        return self.actor_net(parameters, features).tanh()

    @torch.no_grad()
    def critic_targets(self, batch: Batch, features: Tensor, noise: Tensor) -> Tensor:
        """y ``[S, B]`` from z' ``[S, B, Z]`` and standard normal ``noise`` ``[S, B, A]``."""
        c = self.config
        smoothing = (noise * c.policy_noise).clamp(-c.noise_clip, c.noise_clip)
        next_actions = (self.policy(self.actor_target, features) + smoothing).clamp(-1, 1)
        next_values = self.critic_net.values(self.critic_target, features, next_actions)
        continues = self.stages.discounts.unsqueeze(1) * (1.0 - batch["terminations"])
        return batch["rewards"] + continues * next_values.amin(1)

    def objective_rewards(self, batch: Batch) -> Tensor:
        """c_j r_j ``[S, B, D]``: what the objectives add to the reward, nothing where they cost."""
        return batch["reward_parts"].index_select(-1, self.columns).clamp(min=0)

    def improve_critic(
        self, batch: Batch, actions: Tensor, each: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """One step on L_Q; returns the views h and features z of the states, without gradient.

        ``each`` are the states' :meth:`experts_views`, if they are there already.
        """
        groups, frozen_layer = self.groups(batch), self.config.balance == "frozen"
        views = self.view(batch["observations"], groups, each)
        next_views = self.view(batch["next_observations"], groups, target=True)
        with torch.set_grad_enabled(not frozen_layer):
            if frozen_layer:  # the pass of the authors' adversarial loss, which has no gradient
                self.balanced(views, training=True)
            features = self.balanced(views, training=True)
        with torch.no_grad():
            next_features = self.balanced(
                next_views, training=frozen_layer, target=not frozen_layer
            )
        targets = self.critic_targets(batch, next_features, self.noise.normal(*actions.shape[1:]))
        outputs = self.critic_net(self.critic, features, actions)
        values = outputs[..., 0]
        td_losses = (values - targets.unsqueeze(1)).square().mean(2).sum(1)
        losses = td_losses
        if self.critic_net.objectives:
            parts = self.objective_rewards(batch)
            decomposition = decomposition_losses(outputs, parts)
            losses = losses + self.config.decomposition * decomposition
            self.seen["decomposition_loss"] = decomposition.detach()
        if self.judges:
            weight = self.config.adversary * min(1.0, self.updates / (RAMP * self.total))
            logits = self.classifier_net(self.classifier, reverse(features, weight))
            surprise = adversary_losses(logits, batch["policy_groups"])
            # A plus: the reversal turns the sign for BR.
            losses = losses + surprise
            self.seen["classifier_loss"] = surprise.detach()
        self.critic_optimizer.step(losses)
        self.updates += 1
        self.stages.observe(td_losses.detach(), targets, self.updates)
        self.seen["critic_loss"], self.seen["td_loss"] = losses.detach(), td_losses.detach()
        self.seen["q_mean"] = values.detach().mean((1, 2))
        if self._looks():
            progress, stages = self.updates / self.total, self.stages
            decomposed = self.critic_net.objectives > 0
            watch(self.seen, batch["rewards"], outputs.detach(), stages, progress, decomposed)
            if self.judges:
                accuracy = balanced_accuracy(logits, batch["policy_groups"])
                self._smooth("policy_accuracy", accuracy)
        return views.detach(), features.detach()

    # The actor ---------------------------------------------------------------------------------

    @torch.no_grad()
    def explore(
        self, batch: Batch, views: Tensor, actions: Tensor, each: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Counterfactual exploration.

        Returns:
            The views h~ ``[S, B, H]`` and actions a~ ``[S, B, A]`` to learn from, and what every
            policy would do ``[S, P, B, A]``.
        """
        own, count = batch["policy_groups"], self.policies
        rate = between(self.config.exploration, self.updates / self.total)
        size = own.shape[1]
        coins, jumps = self.noise.uniform(size), self.noise.integers(count - 1, size)
        chosen = swap(own, coins, jumps, count, rate)
        each = self.experts_views(batch["observations"]) if each is None else each
        everyone = self.experts_net.actions(self.experts, each)
        factual = (chosen == own).unsqueeze(-1)
        actions = torch.where(factual, actions, pick(everyone, chosen))
        if self.config.views:
            views = pick(each, chosen)
        self.seen["exploration"] = torch.full_like(self.seen["exploration"], rate)
        return views, actions, everyone

    def actor_losses(self, features: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """L_pi and its behaviour-cloning term, each ``[S]``, and pi(z) ``[S, B, A]``."""
        chosen = self.policy(self.actor, features)
        values = self.critic_net.first(frozen(self.critic), features, chosen)
        weight = self.config.alpha / values.detach().abs().mean(1)
        cloning = (chosen - actions).square().mean((1, 2))
        return -weight * values.mean(1) + cloning, cloning, chosen.detach()

    def improve_actor(
        self,
        batch: Batch,
        views: Tensor,
        features: Tensor,
        actions: Tensor,
        each: Tensor | None = None,
    ) -> None:
        """One step on L_pi, and the targets after it, from h, z and ``each`` of the states."""
        c = self.config
        everyone = None
        if self.explores:
            views, actions, everyone = self.explore(batch, views, actions, each)
        if c.balance != "frozen":  # the authors' actor sees what their critic saw
            with torch.no_grad():
                features = self.balanced(views)
        actor_losses, cloning, chosen = self.actor_losses(features, actions)
        self.actor_optimizer.step(actor_losses)
        polyak(self.critic_target, self.critic, c.tau)
        polyak(self.actor_target, self.actor, c.tau)
        if self.balance_target:
            polyak(self.balance_target, self.balance, c.tau)
        self.seen["actor_loss"], self.seen["bc_loss"] = actor_losses.detach(), cloning.detach()
        if everyone is not None and self._looks():
            nearest = (everyone - chosen.unsqueeze(1)).square().sum(-1).argmin(1)
            shares = torch.nn.functional.one_hot(nearest, self.policies).to(chosen.dtype).mean(1)
            self._smooth("nearest_policy_share", shares.amax(1))

    # The contract ------------------------------------------------------------------------------

    def update(self, batch: Batch, phase: str) -> Metrics:
        actions = self.box.unscale(batch["actions"])
        # "represent" trains the experts, "policy" all the rest; any other phase both.
        if self.learns_experts and phase != "policy":
            groups = self.groups(batch)
            if groups is None:
                groups = torch.zeros_like(batch["rewards"], dtype=torch.int64)
            losses = self.experts_net.losses(self.experts, batch["observations"], actions, groups)
            self.expert_optimizer.step(losses)
            self.seen["expert_loss"] = losses.detach()
        if not self.learns_experts or phase != "represent":  # one policy needs no experts
            due = (self.updates + 1) % self.config.policy_delay == 0
            each = None
            if due and self.explores and self.config.views:  # then every expert is asked anyway
                each = self.experts_views(batch["observations"])
            views, features = self.improve_critic(batch, actions, each)
            if self.updates % self.config.policy_delay == 0:
                self.improve_actor(batch, views, features, actions, each)
        return dict(self.seen)

    @torch.no_grad()
    def act(
        self, step: Step, memory: Memory | None = None, *, explore: bool = False
    ) -> tuple[Tensor, Memory | None]:
        unit = self.policy(self.actor, self.features_to_act(step["observations"]))
        if explore:
            noise = step["noise"].normal(self.box.size)
            unit = unit + self.config.exploration_noise * noise
        return self.box.scale(unit), None

    def features_to_act(self, observations: Tensor) -> Tensor:
        """z ``[S, B, Z]`` where nobody says which policy's view to take."""
        if not self.config.views or self.policies == 1:
            return self.balanced(self.view(observations, None))
        each = self.experts_views(observations)
        # All views of all states as one batch, [S, P, B, Z].
        policies, size = each.shape[1:3]
        flat = self.balanced(each.flatten(1, 2))
        everyone = flat.reshape(len(flat), policies, size, -1)
        acting = self.config.acting
        if acting == "mean":
            return torch.mean(everyone, 1)
        if acting.startswith("fixed:"):
            return everyone.select(1, int(acting.removeprefix("fixed:")))
        if acting == "classifier":  # the view that looks most like its own policy's
            likeness = self.classifier_net(self.classifier, flat).log_softmax(-1)
            likeness = likeness.reshape(*everyone.shape[:3], policies)
            merit = likeness.diagonal(dim1=1, dim2=3).transpose(1, 2)  # [S, P, B]
        else:  # q_argmax: the view whose action promises most
            values = self.critic_net.values(self.critic, flat, self.policy(self.actor, flat))
            merit = values.amin(1).reshape(everyone.shape[:3])
        return pick(everyone, merit.argmax(1))

    # What studies ask --------------------------------------------------------------------------

    def discounts(self) -> Tensor:
        """gamma of every seed at present, ``[S]``."""
        return self.stages.discounts

    @torch.no_grad()
    def represent(self, observations: Tensor, groups: Tensor | None = None) -> dict[str, Tensor]:
        """The representation "before" and "after" balancing, ``[S, B, H]`` and ``[S, B, Z]``."""
        views = self.view(observations, groups if self.policies > 1 else None)
        return {"before": views, "after": self.balanced(views)}

    @torch.no_grad()
    def value(self, observations: Tensor, actions: Tensor, groups: Tensor | None = None) -> Tensor:
        """The smaller of both values ``[S, B]``, in units of the training reward."""
        features = self.represent(observations, groups)["after"]
        return self.critic_net.values(self.critic, features, self.box.unscale(actions)).amin(1)

    @torch.no_grad()
    def counterfactual_actions(self, observations: Tensor) -> Tensor:
        """What every logging policy would do, ``[S, B, P, A]``, by its expert.

        Raises:
            ValueError: if this configuration trains no experts.
        """
        if not self.learns_experts:
            raise ValueError("this configuration trains no policy experts")
        each = self.experts_views(observations)
        return self.box.scale(self.experts_net.actions(self.experts, each)).transpose(1, 2)

    @torch.no_grad()
    def decompose(
        self, observations: Tensor, actions: Tensor, groups: Tensor | None = None
    ) -> dict[str, Any]:
        """The first critic's weights ``[S, B, D + 1]``, overflow last, and the D parts' names.

        Raises:
            ValueError: if this configuration decomposes nothing.
        """
        if not self.critic_net.objectives:
            raise ValueError("this configuration does not decompose its values")
        features = self.represent(observations, groups)["after"]
        outputs = self.critic_net(self.critic, features, self.box.unscale(actions))
        return {"weights": objective_weights(outputs)[:, 0], "parts": self.objective_names}

    # What the failure signatures are read from --------------------------------------------------

    def _looks(self) -> bool:
        return self.updates % (WATCH * self.config.policy_delay) == 0

    def _smooth(self, name: str, value: Tensor) -> None:
        self.seen[name] = torch.lerp(self.seen[name], value, SMOOTH)
