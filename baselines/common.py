"""What algorithms share: seeded noise, gradient steps for stacked seeds, and target networks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def derive_seed(*key: int | str) -> int:
    """A 63-bit seed that is a pure function of the key; different keys give unrelated streams."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


class Noise:
    """Random numbers with a leading axis of independent sources, one generator each.

    Every draw has shape ``[*lead, *shape]``, and what a source draws does not depend on its
    neighbours: a seed sees the same numbers alone and in a stack, an episode the same numbers
    wherever it stands. Drawn outside any compiled step and handed to it as tensors.
    """

    def __init__(
        self,
        keys: Sequence[Sequence[int | str]],
        lead: Sequence[int],
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.lead, self.device, self.dtype = tuple(lead), device, dtype
        self.generators = [torch.Generator(device).manual_seed(derive_seed(*key)) for key in keys]

    @classmethod
    def for_seeds(
        cls, seeds: Sequence[int], stream: str, *, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Noise:
        """One source per training seed, ``[S]``; streams: init, batch, update, exploration."""
        return cls([(seed, stream) for seed in seeds], [len(seeds)], device=device, dtype=dtype)

    @classmethod
    def for_episodes(
        cls,
        seeds: Sequence[int],
        stream: str,
        number: int,
        episodes: Sequence[int],
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Noise:
        """One source per seed and episode, ``[S, E]``, for the ``number``-th evaluation."""
        keys = [(seed, stream, number, episode) for seed in seeds for episode in episodes]
        return cls(keys, [len(seeds), len(episodes)], device=device, dtype=dtype)

    def _draw(self, shape: Sequence[int], fill: Any) -> Tensor:
        out = torch.empty((len(self.generators), *shape), dtype=self.dtype, device=self.device)
        for row, generator in zip(out.unbind(0), self.generators, strict=True):
            fill(row, generator)
        return out.reshape(*self.lead, *shape)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers ``[*lead, *shape]``."""
        return self._draw(shape, lambda row, generator: row.normal_(generator=generator))

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), ``[*lead, *shape]``."""
        return self._draw(shape, lambda row, generator: row.uniform_(generator=generator))

    def integers(self, high: int, *shape: int) -> Tensor:
        """Uniform int64 in ``[0, high)``, ``[*lead, *shape]``."""
        rows = [
            torch.randint(high, shape, generator=generator, device=self.device)
            for generator in self.generators
        ]
        return torch.stack(rows).reshape(*self.lead, *shape)

    def state_dict(self) -> dict[str, Tensor]:
        """The generators' states, ``[sources, bytes]``."""
        return {"generators": torch.stack([generator.get_state() for generator in self.generators])}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continues from ``state_dict``."""
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.set_state(saved.cpu())


Parameters = dict[str, Tensor]


class Adam:
    """Adam over a flat dict of stacked parameters, differentiated only with respect to them.

    A loss is a sum over seeds of per-seed losses, so each seed's gradient is its own; Adam acts
    elementwise, so its step is too. ``max_norm`` clips the gradient norm per seed, never globally.

    Args:
        parameters: name -> leaf tensor with leading axis S; updated in place.
        lr: learning rate.
        max_norm: per-seed gradient-norm limit; None for no clipping.
        cosine_steps: if given, lr falls to 0 along a cosine over that many steps.
        weight_decay: decoupled weight decay (AdamW) where it is not 0.
    """

    def __init__(
        self,
        parameters: Parameters,
        lr: float,
        *,
        max_norm: float | None = None,
        cosine_steps: int | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        self.parameters, self.max_norm = list(parameters.values()), max_norm
        kind = torch.optim.AdamW if weight_decay else torch.optim.Adam
        self.optimizer = kind(self.parameters, lr=lr, weight_decay=weight_decay, fused=True)
        self.scheduler = (
            torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, cosine_steps)
            if cosine_steps
            else None
        )

    def step(self, losses: Tensor) -> None:
        """Descends the per-seed losses ``[S]`` by one step."""
        gradients = torch.autograd.grad(losses.sum(), self.parameters)
        if self.max_norm is not None:
            gradients = tuple(clip_per_seed(gradients, self.max_norm))
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """A copy of moments, step counts and schedule."""
        state = {"optimizer": copy_state(self.optimizer.state_dict())}
        if self.scheduler is not None:
            state["scheduler"] = copy_state(self.scheduler.state_dict())
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from ``state_dict``."""
        self.optimizer.load_state_dict(copy_state(state["optimizer"]))
        if self.scheduler is not None:
            self.scheduler.load_state_dict(copy_state(state["scheduler"]))


def clip_per_seed(gradients: Iterable[Tensor], max_norm: float) -> list[Tensor]:
    """Scales each seed's gradient so that its norm over all parameters is at most ``max_norm``."""
    gradients = list(gradients)
    squares = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0)
    scale = (max_norm / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    return [g * scale.reshape(-1, *[1] * (g.dim() - 1)) for g in gradients]


@torch.no_grad()
def polyak(targets: Parameters, online: Parameters, tau: float) -> None:
    """targets <- (1 - tau) targets + tau online, in place."""
    torch._foreach_lerp_(list(targets.values()), list(online.values()), tau)


def copy_parameters(parameters: Parameters) -> Parameters:
    """A detached copy that needs no gradient: the start of a target network."""
    return {name: value.detach().clone() for name, value in parameters.items()}


def copy_state(state: Any) -> Any:
    """A deep copy of a state in which no tensor is shared with the original."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {key: copy_state(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(copy_state(value) for value in state)
    return state


class Stateful:
    """``state_dict`` and ``load_state_dict`` for an agent that names its parts once.

    ``parts`` maps a name to a dict of tensors (restored in place), or to anything that has
    ``state_dict`` and ``load_state_dict`` itself (optimisers, noise). Counters go in ``updates``.
    """

    parts: dict[str, Any]
    updates: int = 0

    def state_dict(self) -> dict[str, Any]:
        """A copy of every part and of the number of updates made."""
        saved = {
            name: copy_state(part if isinstance(part, dict) else part.state_dict())
            for name, part in self.parts.items()
        }
        return {"updates": self.updates, **saved}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` returned."""
        self.updates = int(state["updates"])
        for name, part in self.parts.items():
            if not isinstance(part, dict):
                part.load_state_dict(state[name])
                continue
            with torch.no_grad():
                for key, value in part.items():
                    value.copy_(state[name][key])


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """|expectile - 1(u < 0)| u^2 for u = ``difference`` (Kostrikov et al. 2022, eq. 2)."""
    weight = torch.where(difference < 0, 1.0 - expectile, expectile)
    return weight * difference.square()
