"""The algorithms as they are commonly written: ``nn.Module``, ``loss.backward()``, ``torch.optim``.

What :mod:`agents` sets beside ours, at the published sizes and on hopper's spaces.
"""

from __future__ import annotations

import copy
import itertools

import numpy as np
import torch
from torch import Tensor, nn

from baselines.contract import Batch

OBSERVATION, ACTION, HIDDEN, BATCH = 11, 3, 256, 256  # hopper, the published networks
HORIZON = 1000  # hopper, too


def mlp(*sizes: int, between: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers with rectifiers, or others, between them."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), between()]
    return nn.Sequential(*layers[:-1])


def follow(target: nn.Module, online: nn.Module, tau: float) -> None:
    """Polyak averaging, parameter by parameter."""
    for slow, fast in zip(target.parameters(), online.parameters(), strict=True):
        slow.data.copy_((1 - tau) * slow.data + tau * fast.data)


class Plain:
    """One seed: a policy, two critics and their targets."""

    def __init__(self) -> None:
        self.actor = nn.Sequential(*mlp(OBSERVATION, HIDDEN, HIDDEN, ACTION), nn.Tanh())
        self.q1 = mlp(OBSERVATION + ACTION, HIDDEN, HIDDEN, 1)
        self.q2 = mlp(OBSERVATION + ACTION, HIDDEN, HIDDEN, 1)
        self.actor_target, self.q1_target, self.q2_target = map(
            copy.deepcopy, (self.actor, self.q1, self.q2)
        )
        critics = [*self.q1.parameters(), *self.q2.parameters()]
        self.actor_adam = torch.optim.Adam(self.actor.parameters(), lr=3e-4)
        self.critic_adam = torch.optim.Adam(critics, lr=3e-4)
        self.updates = 0

    @staticmethod
    def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def critic_loss(self, batch: Batch, target: Tensor) -> Tensor:
        joined = torch.cat([batch["observations"], batch["actions"]], 1)
        mse = nn.functional.mse_loss
        return mse(self.q1(joined).squeeze(1), target) + mse(self.q2(joined).squeeze(1), target)

    def smallest_target(self, observations: Tensor, actions: Tensor) -> Tensor:
        joined = torch.cat([observations, actions], 1)
        return torch.min(self.q1_target(joined), self.q2_target(joined)).squeeze(1)


class PlainTD3BC(Plain):
    """TD3+BC as in most repositories."""

    def update(self, batch: Batch) -> None:
        with torch.no_grad():
            noise = (torch.randn_like(batch["actions"]) * 0.2).clamp(-0.5, 0.5)
            following = (self.actor_target(batch["next_observations"]) + noise).clamp(-1, 1)
            values = self.smallest_target(batch["next_observations"], following)
            target = batch["rewards"] + 0.99 * (1 - batch["terminations"]) * values
        self.descend(self.critic_adam, self.critic_loss(batch, target))
        self.updates += 1
        if self.updates % 2:
            return
        chosen = self.actor(batch["observations"])
        q = self.q1(torch.cat([batch["observations"], chosen], 1))
        loss = -2.5 / q.abs().mean().detach() * q.mean()
        self.descend(self.actor_adam, loss + nn.functional.mse_loss(chosen, batch["actions"]))
        for target_net, online in (
            (self.q1_target, self.q1),
            (self.q2_target, self.q2),
            (self.actor_target, self.actor),
        ):
            follow(target_net, online, 0.005)


class PlainIQL(Plain):
    """IQL as in most repositories."""

    def __init__(self) -> None:
        super().__init__()
        self.value = mlp(OBSERVATION, HIDDEN, HIDDEN, 1)
        self.log_std = nn.Parameter(torch.zeros(ACTION))
        self.value_adam = torch.optim.Adam(self.value.parameters(), lr=3e-4)
        self.actor_adam = torch.optim.Adam([*self.actor.parameters(), self.log_std], lr=3e-4)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.actor_adam, 1_000_000)

    def update(self, batch: Batch) -> None:
        with torch.no_grad():
            smallest = self.smallest_target(batch["observations"], batch["actions"])
            following = self.value(batch["next_observations"]).squeeze(1)
        advantage = smallest - self.value(batch["observations"]).squeeze(1)
        weight = torch.abs(0.7 - (advantage < 0).float())
        self.descend(self.value_adam, (weight * advantage**2).mean())

        target = batch["rewards"] + 0.99 * (1 - batch["terminations"]) * following
        self.descend(self.critic_adam, self.critic_loss(batch, target))
        follow(self.q1_target, self.q1, 0.005)
        follow(self.q2_target, self.q2, 0.005)

        importance = torch.exp(3.0 * advantage.detach()).clamp(max=100.0)
        spread = self.log_std.clamp(-5, 2).exp()
        policy = torch.distributions.Normal(self.actor(batch["observations"]), spread)
        log_prob = policy.log_prob(batch["actions"]).sum(1)
        self.descend(self.actor_adam, -(importance * log_prob).mean())
        self.schedule.step()


class PlainCQL(Plain):
    """CQL as in most repositories: every state is repeated for each of its sampled actions."""

    SAMPLES = 10

    def __init__(self) -> None:
        super().__init__()
        self.policy = mlp(OBSERVATION, HIDDEN, HIDDEN, 2 * ACTION)
        self.log_alpha = nn.Parameter(torch.zeros(()))
        self.policy_adam = torch.optim.Adam(self.policy.parameters(), lr=3e-4)
        self.alpha_adam = torch.optim.Adam([self.log_alpha], lr=3e-4)

    def sample(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.policy(observations).chunk(2, -1)
        normal = torch.distributions.Normal(mean, (log_std - 1).clamp(-20, 2).exp())
        raw = normal.rsample()
        slope = 2 * (np.log(2) - raw - nn.functional.softplus(-2 * raw))
        return raw.tanh(), (normal.log_prob(raw) - slope).sum(-1)

    def update(self, batch: Batch) -> None:
        states, actions, following = (
            batch[n] for n in ("observations", "actions", "next_observations")
        )
        chosen, log_prob = self.sample(states)
        alpha_loss = -(self.log_alpha * (log_prob.detach() - ACTION)).mean()
        joined = torch.cat([states, chosen], 1)
        smallest = torch.min(self.q1(joined), self.q2(joined)).squeeze(1)
        policy_loss = (self.log_alpha.exp().detach() * log_prob - smallest).mean()

        with torch.no_grad():
            values = self.smallest_target(following, self.sample(following)[0])
            target = batch["rewards"] + 0.99 * (1 - batch["terminations"]) * values
        repeated = states.repeat_interleave(self.SAMPLES, 0)
        uniform = torch.rand(len(repeated), ACTION) * 2 - 1
        now = self.sample(repeated)
        then = self.sample(following.repeat_interleave(self.SAMPLES, 0))
        loss = self.critic_loss(batch, target)
        for q in (self.q1, self.q2):
            columns = []
            for sampled, density in ((uniform, ACTION * np.log(0.5)), now, then):
                worth = q(torch.cat([repeated, sampled.detach()], 1)).squeeze(1)
                density = density.detach() if isinstance(density, Tensor) else density
                columns.append((worth - density).reshape(len(states), -1))
            logged = q(torch.cat([states, actions], 1)).squeeze(1)
            loss = loss + 5 * (torch.cat(columns, 1).logsumexp(1) - logged).mean()
        self.descend(self.alpha_adam, alpha_loss)
        self.descend(self.policy_adam, policy_loss)
        self.descend(self.critic_adam, loss)
        follow(self.q1_target, self.q1, 0.005)
        follow(self.q2_target, self.q2, 0.005)


class PlainDiffusionQL:
    """Diffusion-QL as in most repositories."""

    STEPS, FEATURES = 5, 16

    def __init__(self) -> None:
        wide = (HIDDEN, HIDDEN, HIDDEN)
        self.actor = nn.ModuleDict(
            {
                "time": mlp(self.FEATURES, 2 * self.FEATURES, self.FEATURES, between=nn.Mish),
                "noise": mlp(OBSERVATION + ACTION + self.FEATURES, *wide, ACTION, between=nn.Mish),
            }
        )
        self.critics = nn.ModuleList(
            mlp(OBSERVATION + ACTION, *wide, 1, between=nn.Mish) for _ in range(2)
        )
        self.actor_ema, self.critics_target = map(copy.deepcopy, (self.actor, self.critics))
        self.actor_adam = torch.optim.Adam(self.actor.parameters(), lr=3e-4)
        self.critic_adam = torch.optim.Adam(self.critics.parameters(), lr=3e-4)
        t = torch.arange(1, self.STEPS + 1)
        self.alphas = torch.exp(-0.1 / self.STEPS - 4.95 * (2 * t - 1) / self.STEPS**2)
        self.kept = self.alphas.cumprod(0)
        self.before = torch.cat([torch.ones(1), self.kept[:-1]])
        self.updates = 0

    def predict(self, actor: nn.ModuleDict, noisy: Tensor, k: Tensor, states: Tensor) -> Tensor:
        half = self.FEATURES // 2
        angles = k[:, None] * torch.exp(torch.arange(half) * -(np.log(10_000) / (half - 1)))
        times = actor["time"](torch.cat([angles.sin(), angles.cos()], 1))
        return actor["noise"](torch.cat([noisy, times, states], 1))

    def sample(self, actor: nn.ModuleDict, states: Tensor) -> Tensor:
        noisy = torch.randn(len(states), ACTION)
        for step in reversed(range(self.STEPS)):
            k = torch.full((len(states),), step)
            alpha, kept, before = (x[k][:, None] for x in (self.alphas, self.kept, self.before))
            predicted = self.predict(actor, noisy, k, states)
            start = ((noisy - (1 - kept).sqrt() * predicted) / kept.sqrt()).clamp(-1, 1)
            mean = before.sqrt() * (1 - alpha) / (1 - kept) * start
            mean = mean + alpha.sqrt() * (1 - before) / (1 - kept) * noisy
            deviation = ((1 - alpha) * (1 - before) / (1 - kept)).sqrt()
            noisy = mean + deviation * torch.randn_like(noisy)
        return noisy.clamp(-1, 1)

    @staticmethod
    def values(critics: nn.ModuleList, states: Tensor, actions: Tensor) -> list[Tensor]:
        joined = torch.cat([states, actions], 1)
        return [critic(joined).squeeze(1) for critic in critics]

    def update(self, batch: Batch) -> None:
        mse, clip = nn.functional.mse_loss, nn.utils.clip_grad_norm_
        states, actions, following = (
            batch[n] for n in ("observations", "actions", "next_observations")
        )
        with torch.no_grad():
            next_actions = self.sample(self.actor_ema, following)
            smallest = torch.min(*self.values(self.critics_target, following, next_actions))
            target = batch["rewards"] + 0.99 * (1 - batch["terminations"]) * smallest
        self.critic_adam.zero_grad()
        sum(mse(q, target) for q in self.values(self.critics, states, actions)).backward()
        clip(self.critics.parameters(), 5.0)
        self.critic_adam.step()

        k, noise = torch.randint(self.STEPS, (len(states),)), torch.randn_like(actions)
        kept = self.kept[k][:, None]
        noisy = kept.sqrt() * actions + (1 - kept).sqrt() * noise
        cloning = mse(self.predict(self.actor, noisy, k, states), noise)
        both = self.values(self.critics, states, self.sample(self.actor, states))
        i = np.random.default_rng(self.updates).integers(2)
        loss = cloning - both[i].mean() / both[1 - i].abs().mean().detach()
        self.actor_adam.zero_grad()
        loss.backward()
        clip(self.actor.parameters(), 5.0)
        self.actor_adam.step()
        if self.updates % 5 == 0:
            follow(self.actor_ema, self.actor, 0.005)
        follow(self.critics_target, self.critics, 0.005)
        self.updates += 1


class PlainBlock(nn.Module):
    """A block of GPT-2 with a rectifier: causal attention and a layer of four times the width."""

    def __init__(self, width: int, heads: int, tokens: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.norm, self.inner_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inputs, self.attended = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.register_buffer("causal", torch.ones(tokens, tokens, dtype=torch.bool).tril())

    def forward(self, tokens: Tensor, real: Tensor) -> Tensor:
        count, length, width = tokens.shape
        parts = self.inputs(self.norm(tokens)).chunk(3, -1)
        q, k, v = (x.view(count, length, self.heads, -1).transpose(1, 2) for x in parts)
        scores = q @ k.transpose(2, 3) / (width // self.heads) ** 0.5
        seen = self.causal & real[:, None, None].bool()
        weights = self.dropout(scores.masked_fill(~seen, torch.finfo(scores.dtype).min).softmax(-1))
        attended = (weights @ v).transpose(1, 2).reshape(count, length, width)
        tokens = tokens + self.dropout(self.attended(attended))
        return tokens + self.dropout(self.outer(torch.relu(self.inner(self.inner_norm(tokens)))))


class PlainTransformer(nn.Module):
    """Decision Transformer's network: actions from returns-to-go, observations and actions."""

    def __init__(self, width: int = 256, layers: int = 4, heads: int = 4, steps: int = 20) -> None:
        super().__init__()
        self.time, self.embed_return = nn.Embedding(HORIZON, width), nn.Linear(1, width)
        self.embed_state, self.embed_action = (
            nn.Linear(OBSERVATION, width),
            nn.Linear(ACTION, width),
        )
        self.norm, self.last_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(0.1)
        blocks = [PlainBlock(width, heads, 3 * steps, 0.1) for _ in range(layers)]
        self.blocks, self.act = nn.ModuleList(blocks), nn.Linear(width, ACTION)

    def forward(self, batch: Batch) -> Tensor:
        """Actions ``[B, K, A]``."""
        time = self.time(batch["timesteps"])
        returns = self.embed_return(batch["returns_to_go"].unsqueeze(-1) / 1000) + time
        states = self.embed_state(batch["observations"]) + time
        actions = self.embed_action(batch["actions"]) + time
        tokens = torch.stack([returns, states, actions], 2).flatten(1, 2)
        tokens, real = self.dropout(self.norm(tokens)), batch["mask"].repeat_interleave(3, 1)
        for block in self.blocks:
            tokens = block(tokens, real)
        return self.act(self.last_norm(tokens)[:, 1::3]).tanh()


class PlainQT:
    """QT as its authors wrote it, with the argmax and the one loss on actions of its paper."""

    def __init__(self) -> None:
        wide = (HIDDEN, HIDDEN, HIDDEN)
        self.actor = PlainTransformer()
        self.critics = nn.ModuleList(
            mlp(OBSERVATION + ACTION, *wide, 1, between=nn.Mish) for _ in range(2)
        )
        self.actor_ema, self.critics_target = map(copy.deepcopy, (self.actor, self.critics))
        self.actor_ema.eval()
        self.actor_adam = torch.optim.Adam(self.actor.parameters(), lr=3e-4, weight_decay=1e-4)
        self.critic_adam = torch.optim.Adam(self.critics.parameters(), lr=3e-4)
        self.updates = 0

    def update(self, batch: Batch) -> None:
        clip, states, actions = (
            nn.utils.clip_grad_norm_,
            batch["observations"],
            batch["actions"],
        )
        with torch.no_grad():
            next_actions = self.actor_ema(batch)
            joined = torch.cat([states, next_actions], -1)
            smallest = torch.min(*(critic(joined)[:, -1:, 0] for critic in self.critics_target))
            ended = batch["terminations"][:, -1:]
            targets = (1 - ended) * smallest + ended * batch["rewards"][:, -1:]
            columns = [targets]
            for step in reversed(range(states.shape[1] - 1)):
                columns.append(batch["rewards"][:, step : step + 1] + 0.99 * columns[-1])
            targets = torch.cat(columns[::-1], 1)
            known = batch["mask"].clone()
            known[:, -1:] *= ended
        joined = torch.cat([states, actions], -1)
        losses = [
            ((critic(joined).squeeze(-1) - targets) ** 2)[known > 0].mean()
            for critic in self.critics
        ]
        self.critic_adam.zero_grad()
        sum(losses).backward()
        clip(self.critics.parameters(), 9.0)
        self.critic_adam.step()

        real = batch["mask"] > 0
        chosen = self.actor(batch)
        cloning = ((chosen - actions) ** 2)[real].mean()
        joined = torch.cat([states, chosen], -1)[real]
        both = [critic(joined) for critic in self.critics]
        i = np.random.default_rng(self.updates).integers(2)
        loss = cloning - both[i].mean() / both[1 - i].abs().mean().detach()
        self.actor_adam.zero_grad()
        loss.backward()
        clip(self.actor.parameters(), 9.0)
        self.actor_adam.step()
        if self.updates % 5 == 0:
            follow(self.actor_ema, self.actor, 0.005)
        follow(self.critics_target, self.critics, 0.005)
        self.updates += 1
