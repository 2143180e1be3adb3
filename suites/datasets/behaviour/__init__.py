"""Behaviour policies: the checkpoints that make the local datasets, run in numpy.

``<environment>/index.json`` lists the checkpoints of one training run (see
:mod:`suites.datasets.ppo`), which of them acts at which level and how noisily, and the learner's
curve. Each checkpoint is an ``.npz`` of plain arrays, weights in float16.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

INDEX_FILE = "index.json"
SHOWN = 10.0  # normalised observations are clipped here, in training too

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Policy:
    """A Gaussian policy: a tanh network of normalised observations gives the mean.

    Attributes:
        weights: matrices ``[in, out]``, first to last layer.
        biases: ``[out]`` each.
        log_std: ``[A]``, logarithm of the exploration noise the learner used.
        mean: ``[O]``, subtracted from observations.
        std: ``[O]``, divides them.
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    log_std: Array
    mean: Array
    std: Array

    def mean_action(self, observations: npt.NDArray[Any]) -> Array:
        """The Gaussian's mean ``[E, A]`` for observations ``[E, O]``; it may leave [-1, 1]."""
        hidden = np.asarray((observations - self.mean) / self.std, np.float32)
        hidden = np.clip(hidden, -SHOWN, SHOWN)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = np.tanh(hidden @ weight + bias)
        mean: Array = hidden @ self.weights[-1] + self.biases[-1]
        return mean

    def act(self, observations: npt.NDArray[Any], noise: Array | float = 0.0) -> Array:
        """Actions ``[E, A]`` in [-1, 1]; ``noise`` counts in exploration standard deviations."""
        action = self.mean_action(observations) + np.exp(self.log_std) * noise
        clipped: Array = np.clip(action, -1.0, 1.0, dtype=np.float32)
        return clipped

    def save(self, path: Path) -> None:
        """Writes the policy, its weights and noise rounded to float16."""
        arrays: dict[str, Any] = {"mean": self.mean, "std": self.std}
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            arrays[f"weight{number}"] = weight.astype(np.float16)
            arrays[f"bias{number}"] = bias.astype(np.float16)
        arrays["log_std"] = self.log_std.astype(np.float16)
        np.savez_compressed(path, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> Policy:
        """Reads what :meth:`save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name].astype(np.float32) for name in file.files}
        layers = sum(name.startswith("weight") for name in arrays)
        return cls(
            weights=tuple(arrays[f"weight{i}"] for i in range(layers)),
            biases=tuple(arrays[f"bias{i}"] for i in range(layers)),
            log_std=arrays["log_std"],
            mean=arrays["mean"],
            std=arrays["std"],
        )


def folder(environment: str) -> Path:
    """Where an environment's checkpoints are shipped; it need not exist."""
    return Path(str(files(__name__) / environment))


@cache
def index(environment: str) -> dict[str, Any] | None:
    """The index of an environment's checkpoints, None if none are shipped.

    Keys: ``env_id``; ``checkpoints``, a list of {name, file, sha256, steps, score, score_noisy} in
    the order of training; ``levels``, level -> {checkpoint, noise, score}; ``training``; ``curve``.
    """
    path = folder(environment) / INDEX_FILE
    if not path.exists():
        return None
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return content


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
