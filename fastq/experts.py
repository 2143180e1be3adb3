"""Policy experts PE: what each logging policy would do, and the features it sees a state by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from gymnasium import spaces
from torch import Tensor

from baselines.common import Noise, Parameters
from baselines.encoders import Encoder, HistoryEncoder, encoder
from baselines.nets import MLP
from fastq.balancing import class_shares


@dataclass(frozen=True)
class PolicyExperts:
    """P experts (s) -> features -> action.

    Attributes:
        count: P, logging policies.
        encoder: of s where it is a history: an LSTM, as many of them as trunks.
        trunk: s, or what its encoder makes of it, -> features; P of them or one that all share.
        head: features -> action, P of them.
    """

    count: int
    encoder: Encoder
    trunk: MLP
    head: MLP

    @classmethod
    def build(
        cls,
        count: int,
        space: spaces.Space[Any],
        action: int,
        hidden: tuple[int, ...],
        kind: Literal["separate", "shared"],
    ) -> PolicyExperts:
        """``kind``: a trunk per policy (paper), or one with P heads (authors' players code)."""
        copies = count if kind == "separate" else None
        seen = encoder(space, copies)
        trunk = MLP((seen.size, *hidden), copies=copies)
        return cls(count, seen, trunk, MLP((hidden[-1], action), copies=count))

    def init(self, noise: Noise) -> Parameters:
        """Draws parameters; names begin with "trunk.", "head." or "encoder."."""
        parts = {"trunk": self.trunk.init(noise), "head": self.head.init(noise)}
        named = {f"{part}.{n}": v for part, values in parts.items() for n, v in values.items()}
        return {**named, **self.encoder.init(noise)}

    def features(self, parameters: Parameters, observations: Tensor) -> Tensor:
        """h_k(s) of every expert, ``[S, P, B, H]``."""
        seen = self.encoder(parameters, observations)
        hidden = self.trunk(_section(parameters, "trunk."), seen).relu()
        return hidden if self.trunk.copies else hidden.unsqueeze(1).expand(-1, self.count, -1, -1)

    def own(self, parameters: Parameters, observations: Tensor, groups: Tensor) -> Tensor:
        """h_k(s) of each sample's own expert k alone, ``[S, B, H]``.

        Where every expert has an LSTM, none is shown the others' samples: it costs most of it.
        """
        if not isinstance(self.encoder, HistoryEncoder) or self.encoder.copies is None:
            return pick(self.features(parameters, observations), groups)
        alone = replace(
            self,
            encoder=replace(self.encoder, copies=None),
            trunk=replace(self.trunk, copies=None),
            count=1,
        )
        rows = []
        for seed in range(len(groups)):
            order = groups[seed].argsort(stable=True)
            counts = groups[seed].bincount(minlength=self.count).tolist()
            pieces = []
            for k, mine in enumerate(order.split(counts)):  # type: ignore[no-untyped-call]
                if len(mine):
                    one = {name: value[seed : seed + 1, k] for name, value in parameters.items()}
                    pieces.append(alone.features(one, observations[seed : seed + 1, mine])[0, 0])
            rows.append(torch.cat(pieces)[order.argsort()])
        return torch.stack(rows)

    def actions(self, parameters: Parameters, features: Tensor) -> Tensor:
        """Actions in [-1, 1], ``[S, P, B, A]``, from the experts' own features."""
        return self.head(_section(parameters, "head."), features).tanh()

    def losses(
        self, parameters: Parameters, observations: Tensor, actions: Tensor, groups: Tensor
    ) -> Tensor:
        """Each expert's squared error on its own policy's samples, the mean over policies ``[S]``.

        Args:
            parameters: from :meth:`init`.
            observations: ``[S, B, O]``.
            actions: in [-1, 1], ``[S, B, A]``.
            groups: which policy acted, ``[S, B]``.
        """
        hidden = self.own(parameters, observations, groups).unsqueeze(1)
        guesses = self.actions(parameters, hidden.expand(-1, self.count, -1, -1))
        errors = (pick(guesses, groups) - actions).square().mean(-1)
        return (errors * class_shares(groups, self.count, errors.dtype)).sum(1)


def pick(each: Tensor, groups: Tensor) -> Tensor:
    """The entry of each sample's own policy: ``[S, P, B, F]`` and ``[S, B]`` -> ``[S, B, F]``."""
    index = groups[:, None, :, None].expand(-1, 1, -1, each.shape[-1])
    return each.gather(1, index).squeeze(1)


def _section(parameters: Parameters, prefix: str) -> Parameters:
    return {
        name.removeprefix(prefix): value
        for name, value in parameters.items()
        if name.startswith(prefix)
    }
