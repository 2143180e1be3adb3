"""The behaviour's probabilities: as they were logged, or estimated from other episodes.

The estimate is a classifier from observations to actions, one softmax per factor of the action on
one network of two layers. It is fitted on the training episodes by maximum likelihood, stopped on a
tenth of their rows, and asked about the held-out ones. It takes the behaviour to depend on the
observation alone and its factors to be chosen independently given that; where that is wrong,
so are the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch.nn.functional import cross_entropy

from suites.datasets.store import Dataset
from suites.ope.estimators import Floats, Settings

HIDDEN = 64
BATCH = 512
LR = 3e-3  # Adam
EPOCHS = 60  # at most
PATIENCE = 6  # epochs without a better likelihood on the rows to stop on
FIT_ROWS = 100_000  # of the training data at most
FLOOR = 1e-3  # least probability of a logged action, so that no weight is without bound


@dataclass(frozen=True)
class Behaviour:
    """Logarithms ``[N]`` of the logged actions' probabilities, and whether they are estimated."""

    log_probs: Floats
    estimated: bool


def behaviour_log_probs(
    data: Dataset,
    rows: npt.NDArray[np.int64],
    training: Dataset | None,
    space: spaces.Space[Any],
    settings: Settings,
) -> Behaviour | None:
    """How likely the logged actions in some rows were; None if nothing tells.

    Args:
        data: held-out episodes.
        rows: of them, ``[N]``.
        training: other episodes of the same behaviour, to estimate it from.
        space: of actions, Discrete or MultiDiscrete.
        settings: ``behaviour`` and ``seed``.
    """
    known = "action_log_probs" in data.fields
    if known and settings.behaviour != "estimated":
        return Behaviour(data.column("action_log_probs")[rows].astype(np.float64), False)
    if training is None or settings.behaviour == "logged":
        return None
    return Behaviour(_estimated(data, rows, training, space, settings.seed), True)


def _sizes(space: spaces.Space[Any]) -> tuple[list[int], npt.NDArray[np.int64]]:
    """Choices by factor, and the integer that the first of each is."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)], np.array([int(space.start)])
    assert isinstance(space, spaces.MultiDiscrete)
    return space.nvec.ravel().tolist(), np.asarray(space.start, np.int64).ravel()


def _estimated(
    data: Dataset,
    rows: npt.NDArray[np.int64],
    training: Dataset,
    space: spaces.Space[Any],
    seed: int,
) -> Floats:
    sizes, starts = _sizes(space)
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(training.table))[:FIT_ROWS]
    seen = np.asarray(training.column("observations")[chosen], np.float64)
    mean, spread = seen.mean(0), seen.std(0) + 1e-6

    def inputs(values: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(((values - mean) / spread).astype(np.float32))

    def choices(values: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.rint(values).astype(np.int64) - starts)

    x, y = inputs(seen), choices(training.column("actions")[chosen])
    generator = torch.Generator().manual_seed(seed)
    weights = [
        w.requires_grad_()
        for fan, out in ((x.shape[1], HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, sum(sizes)))
        for w in (torch.randn(fan, out, generator=generator) / fan**0.5, torch.zeros(out))
    ]

    def losses(inputs: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """-log b(a | s) by row."""
        hidden = (inputs @ weights[0] + weights[1]).relu()
        hidden = (hidden @ weights[2] + weights[3]).relu()
        logits = (hidden @ weights[4] + weights[5]).split(sizes, 1)  # type: ignore[no-untyped-call]
        parts = [
            cross_entropy(logit, actions[:, k], reduction="none") for k, logit in enumerate(logits)
        ]
        return torch.stack(parts).sum(0)

    optimizer = torch.optim.Adam(weights, LR)
    stop = max(1, len(x) // 10)
    best, kept, since = np.inf, [w.detach().clone() for w in weights], 0
    for _ in range(EPOCHS):
        order = stop + torch.randperm(len(x) - stop, generator=generator)
        for batch in order.split(BATCH):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            losses(x[batch], y[batch]).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            loss = float(losses(x[:stop], y[:stop]).mean())
        since += 1
        if loss < best:
            best, kept, since = loss, [w.detach().clone() for w in weights], 0
        if since >= PATIENCE:
            break
    with torch.no_grad():
        for weight, value in zip(weights, kept, strict=True):
            weight.copy_(value)
        held = losses(
            inputs(data.column("observations")[rows]), choices(data.column("actions")[rows])
        )
    return np.maximum(-held.numpy().astype(np.float64), np.log(FLOOR))
