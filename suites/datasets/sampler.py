"""Batches for stacked seeds: one gather of packed rows per update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from baselines.common import Noise
from baselines.contract import Batch, Needs, Spec
from suites.datasets.groups import policy_groups
from suites.datasets.history import Windows
from suites.datasets.store import SCALARS, Dataset
from suites.datasets.transforms import Transform
from suites.spaces import is_integer

if TYPE_CHECKING:
    from suites.online import Replay


class Sampler:
    """Draws transitions, or windows of them, uniformly with replacement, per seed.

    A window begins at a uniformly drawn transition (so an episode is drawn in proportion to its
    length), runs at most K steps, never crosses an episode's end, and is padded on the left with
    zeros, where ``mask`` is 0. Where observations are histories (:mod:`suites.datasets.history`),
    those of a transition are widened to the days up to it.

    Args:
        dataset: the packed table; left where it is on a CPU, copied to the device otherwise.
        needs: fields, batch size and window.
        transform: applied to every batch.
        seeds: training seeds; a seed's indices do not depend on the others.
        spec: device and floating-point type.
        replay: what was collected, for sources other than the dataset.
    """

    def __init__(
        self,
        dataset: Dataset,
        needs: Needs,
        transform: Transform,
        seeds: Sequence[int],
        spec: Spec,
        replay: Replay | None = None,
    ) -> None:
        self.replay = replay
        self.needs, self.seeds, self.dtype = needs, len(seeds), spec.torch_dtype()
        self.columns = {
            field: (start, stop)
            for field, (start, stop) in dataset.card["columns"].items()
            if field in needs.fields
        }
        if "policy_groups" in needs.fields:
            groups = policy_groups(dataset.card, needs.policy_groups)
            self.groups = torch.from_numpy(groups).to(spec.device)
            self.columns["policy_ids"] = tuple(dataset.card["columns"]["policy_ids"])
        self.integers = is_integer(spec.action_space)
        self.action_shape = spec.action_space.shape or ()
        self.table = torch.from_numpy(dataset.table).to(spec.device)
        shift, scale = transform.columns(dataset)
        self.identity = bool((shift == 0).all() and (scale == 1).all())
        self.shift = torch.tensor(shift, dtype=self.dtype, device=spec.device)
        self.scale = torch.tensor(scale, dtype=self.dtype, device=spec.device)
        self.noise = Noise.for_seeds(seeds, "batch", device=spec.device)
        self.windows = Windows.of(spec, dataset, transform, self.table)
        if needs.window is not None:
            self._index_episodes(dataset, transform, spec.device)

    def state_dict(self) -> dict[str, Any]:
        """Where the streams of indices stand."""
        return {"noise": self.noise.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from ``state_dict``."""
        self.noise.load_state_dict(state["noise"])

    def _index_episodes(self, dataset: Dataset, transform: Transform, device: str) -> None:
        starts = dataset.episode_starts
        ends = np.append(starts[1:], len(dataset.table))
        lengths = ends - starts
        begin = np.repeat(starts, lengths)
        # Summed per episode: one running sum over a million rewards would lose digits.
        rewards = dataset.column("rewards").astype(np.float64)
        reverse = np.concatenate(
            [np.cumsum(rewards[a:b][::-1])[::-1] for a, b in zip(starts, ends, strict=True)]
        )
        self.ends = torch.from_numpy(np.repeat(ends, lengths)).to(device)
        self.timesteps = torch.from_numpy(np.arange(len(begin)) - begin).to(device)
        self.returns_to_go = (
            torch.from_numpy(reverse * transform.reward_scale).to(self.dtype).to(device)
        )

    def sample(self, source: str = "dataset") -> Batch:
        """The next batch, fields ``[S, B, ...]`` or ``[S, B, K, ...]``.

        Args:
            source: as a phase's; of "dataset+replay", every transition of both is equally likely.
        """
        if source != "dataset":
            return self._collected(0 if source == "replay" else len(self.table))
        index = self.noise.integers(len(self.table), self.needs.batch_size)
        if self.needs.window is None:
            return self._rows(index)
        offsets = torch.arange(1 - self.needs.window, 1, device=index.device)
        last = torch.minimum(index + self.needs.window, self.ends[index]) - 1
        steps = last.unsqueeze(-1) + offsets
        real = steps >= index.unsqueeze(-1)
        steps = torch.where(real, steps, index.unsqueeze(-1))
        batch = self._rows(steps)
        for field in ("returns_to_go", "timesteps"):
            if field in self.needs.fields:
                batch[field] = getattr(self, field)[steps]
        for field, value in batch.items():
            batch[field] = value * real.reshape(*real.shape, *[1] * (value.dim() - 3)).to(
                value.dtype
            )
        if "mask" in self.needs.fields:
            batch["mask"] = real.to(self.dtype)
        return batch

    def everything(self) -> dict[str, Tensor]:
        """All transitions as one seed's batch has them, ``[N, ...]``; needs a window."""
        index = torch.arange(len(self.table), device=self.table.device)
        rows = {field: value[0] for field, value in self._rows(index.unsqueeze(0)).items()}
        return {**rows, "returns_to_go": self.returns_to_go, "timesteps": self.timesteps}

    def _collected(self, before: int) -> Batch:
        """A batch from each seed's replay, and from the dataset's first ``before`` rows."""
        assert self.replay is not None
        index = self.noise.integers(before + len(self.replay), self.needs.batch_size)
        positions = self.replay.positions((index - before).clamp(min=0)).flatten()
        rows = self.replay.flat.index_select(0, positions)
        if before:
            logged = (index < before).flatten().nonzero().squeeze(1)
            rows[logged] = self.table.index_select(0, index.flatten()[logged])
        return self._batch(rows, index)

    def _rows(self, index: Tensor) -> Batch:
        batch = self._batch(self.table.index_select(0, index.flatten()), index)
        if self.windows is not None:
            self.windows.widen(batch, index)
        return batch

    def _batch(self, rows: Tensor, index: Tensor) -> Batch:
        rows = rows.to(self.dtype)
        if not self.identity:
            rows = (rows - self.shift) * self.scale
        rows = rows.reshape(*index.shape, -1)
        batch = {
            field: rows[..., start] if field in SCALARS else rows[..., start:stop]
            for field, (start, stop) in self.columns.items()
        }
        if self.integers and "actions" in batch:
            actions = batch["actions"].long()
            batch["actions"] = actions.reshape(*index.shape, *self.action_shape)
        if "policy_ids" in batch:
            batch["policy_ids"] = batch["policy_ids"].long()
        if "policy_groups" in self.needs.fields:
            batch["policy_groups"] = self.groups[batch["policy_ids"]]
            if "policy_ids" not in self.needs.fields:
                del batch["policy_ids"]
        return batch


def whole(dataset: Dataset, needs: Needs, transform: Transform, spec: Spec) -> dict[str, Tensor]:
    """What an agent gets as ``Spec.dataset``; see there."""
    return Sampler(dataset, replace(needs, window=1), transform, (0,), spec).everything()
