"""What algorithms share: seeded noise, gradient steps for stacked seeds, and target networks."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw


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
        cls,
        seeds: Sequence[int],
        stream: str,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
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
        return out.reshape((*self.lead, *shape))

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
        return torch.stack(rows).reshape((*self.lead, *shape))

    def dropout(self, rate: float, *shape: int) -> Tensor:
        """Factors for a layer's outputs: 0 with probability ``rate``, else 1 / (1 - rate).

        Four to a 64-bit number, three times as fast as one by one; the rate is rounded to 2^-16.
        """
        count, dropped = math.prod(shape), round(rate * 2**16)
        words = torch.empty(
            (len(self.generators), -(-count // 4)), dtype=torch.int64, device=self.device
        )
        for row, generator in zip(words.unbind(0), self.generators, strict=True):
            row.random_(-(2**63), None, generator=generator)
        kept = words.view(torch.int16)[:, :count] >= dropped - 2**15
        factors = kept.to(self.dtype).div_(1.0 - dropped / 2**16)
        return factors.reshape((*self.lead, *shape))

    def state_dict(self) -> dict[str, Tensor]:
        """The generators' states, ``[sources, bytes]``."""
        return {"generators": torch.stack([generator.get_state() for generator in self.generators])}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continues from ``state_dict``."""
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.set_state(saved.cpu().clone())  # set_state misreads a row of a larger tensor


Parameters = dict[str, Tensor]


class Stateful:
    """``state_dict`` and ``load_state_dict`` for an object that names its parts once.

    ``parts`` maps a name to a dict of tensors (restored in place), or to anything that has
    ``state_dict`` and ``load_state_dict`` itself (optimisers, noise). ``updates`` counts steps.
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
        """Restores what ``state_dict`` returned.

        Raises:
            ValueError: if a part is missing or a tensor has another shape, as when the state was
                saved with other seeds or another configuration.
        """
        absent = [name for name in ("updates", *self.parts) if name not in state]
        if absent:
            raise ValueError(f"the saved state lacks {', '.join(absent)}; it is another agent's")
        for name, part in self.parts.items():
            if isinstance(part, dict):
                _restore(name, part, state[name])
            else:
                part.load_state_dict(state[name])
        self.updates = int(state["updates"])


@torch.no_grad()
def _restore(name: str, part: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    shapes, saved_shapes = ({k: tuple(v.shape) for k, v in d.items()} for d in (part, saved))
    if shapes != saved_shapes:
        raise ValueError(
            f'the saved "{name}" has shapes {saved_shapes} where this agent has {shapes}; '
            "build it with the same seeds and configuration"
        )
    for key, value in part.items():
        value.copy_(saved[key])


class Adam(Stateful):
    """Adam over a flat dict of stacked parameters, differentiated only with respect to them.

    A loss is a sum over seeds of per-seed losses, so each seed's gradient is its own; Adam acts
    elementwise, so its step is too. ``max_norm`` clips the gradient norm per seed, never globally.

    Args:
        parameters: name -> leaf tensor with leading axis S; updated in place.
        lr: learning rate.
        max_norm: per-seed gradient-norm limit; None for no clipping.
        cosine_steps: if given, lr falls to 0 along a cosine over that many steps and stays there.
        weight_decay: decoupled weight decay (AdamW) where it is not 0.
        l2: L2 penalty: ``l2`` times the weights is added to the (clipped) gradients.
        warmup_steps: lr grows linearly from lr / warmup_steps over that many steps.
    """

    def __init__(
        self,
        parameters: Parameters,
        lr: float,
        *,
        max_norm: float | None = None,
        cosine_steps: int | None = None,
        weight_decay: float = 0.0,
        l2: float = 0.0,
        warmup_steps: int = 0,
    ) -> None:
        self.parameters, self.lr, self.max_norm = list(parameters.values()), lr, max_norm
        self.cosine_steps, self.weight_decay = cosine_steps, weight_decay
        self.l2, self.warmup_steps = l2, warmup_steps
        self.means = {name: torch.zeros_like(value) for name, value in parameters.items()}
        self.squares = {name: torch.zeros_like(value) for name, value in parameters.items()}
        self.steps = {
            name: torch.zeros((), dtype=torch.float32, device=value.device)
            for name, value in parameters.items()
        }
        self.parts = {"means": self.means, "squares": self.squares, "steps": self.steps}

    @property
    def current_lr(self) -> float:
        """The learning rate of the next step."""
        if self.updates < self.warmup_steps:
            return self.lr * (self.updates + 1) / self.warmup_steps
        if self.cosine_steps is None:
            return self.lr
        progress = min(self.updates / self.cosine_steps, 1.0)
        return 0.5 * self.lr * (1.0 + math.cos(math.pi * progress))

    def step(self, losses: Tensor) -> None:
        """Descends the per-seed losses ``[S]`` by one step."""
        gradients = list(torch.autograd.grad(losses.sum(), self.parameters))
        if self.max_norm is not None:
            gradients = clip_per_seed(gradients, self.max_norm)
        # The functional form: torch.optim.Adam adds 0.1 ms of bookkeeping to every call. AdamW
        # without decay is Adam.
        with torch.no_grad():
            if self.l2:
                torch._foreach_add_(gradients, self.parameters, alpha=self.l2)
            adamw(
                self.parameters,
                gradients,
                list(self.means.values()),
                list(self.squares.values()),
                [],
                list(self.steps.values()),
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=self.current_lr,
                weight_decay=self.weight_decay,
                eps=1e-8,
                maximize=False,
            )
        self.updates += 1


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


def frozen(parameters: Parameters) -> Parameters:
    """The same weights, through which gradients pass but into which none flow."""
    return {name: value.detach() for name, value in parameters.items()}


def copy_state(state: Any) -> Any:
    """A deep copy of a state in which no tensor is shared with the original."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {key: copy_state(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(copy_state(value) for value in state)
    return state


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """|expectile - 1(u < 0)| u^2 for u = ``difference`` (Kostrikov et al. 2022, section 4.1)."""
    # Of two plain numbers torch.where would make float32, whatever the type of u.
    weight = torch.full_like(difference, expectile).masked_fill_(difference < 0, 1.0 - expectile)
    return weight * difference.square()
