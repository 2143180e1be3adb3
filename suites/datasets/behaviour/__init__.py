"""Behaviour policies: the checkpoints that make the local datasets, run in numpy.

``<environment>/index.json`` lists the checkpoints of one training run, which of them acts at which
level and how noisily, and the learner's curve (see :mod:`suites.datasets.shipping`). Each
checkpoint is an ``.npz`` of plain arrays, weights in float16.
"""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

INDEX_FILE = "index.json"
SHOWN = 10.0  # normalised observations are clipped here, in training too
# From 2**18 multiplications on, OpenBLAS, which numpy's wheels bring, divides a product among
# threads; pieces of another shape are rounded differently.
ONE_THREAD = 2**17
LOG_STD = (-20.0, 2.0)  # of a squashed Gaussian, as in SAC (Haarnoja et al. 2018, arXiv:1801.01290)

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Policy(ABC):
    """A policy made of dense layers; its exploration noise is counted in its own deviations.

    Attributes:
        weights: matrices ``[in, out]``, first to last layer.
        biases: ``[out]`` each.
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    kind: ClassVar[str]

    @abstractmethod
    def act(self, observations: npt.NDArray[Any], noise: Array | float = 0.0) -> Array:
        """Actions ``[E, A]`` in [-1, 1]; ``noise`` counts in exploration standard deviations."""

    def save(self, path: Path) -> None:
        """Writes plain arrays, rounded to float16 but for the statistics of observations."""
        arrays: dict[str, Any] = {"kind": np.array(self.kind)}
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            arrays[f"weight{number}"] = weight.astype(np.float16)
            arrays[f"bias{number}"] = bias.astype(np.float16)
        for field in dataclasses.fields(self)[2:]:
            value = getattr(self, field.name)
            arrays[field.name] = value.astype(np.float16) if field.name == "log_std" else value
        np.savez_compressed(path, allow_pickle=False, **arrays)

    @staticmethod
    def load(path: Path) -> Policy:
        """Reads what :meth:`save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            kind = str(file["kind"]) if "kind" in file else GaussianPolicy.kind
            arrays = {name: file[name].astype(np.float32) for name in file.files if name != "kind"}
        layers = sum(name.startswith("weight") for name in arrays)
        weights, biases = (
            tuple(arrays.pop(f"{part}{layer}") for layer in range(layers))
            for part in ("weight", "bias")
        )
        return KINDS[kind](weights, biases, **arrays)


@dataclass(frozen=True)
class GaussianPolicy(Policy):
    """A Gaussian clipped to the box: a tanh network of normalised observations gives the mean.

    Attributes:
        log_std: ``[A]``, logarithm of the exploration noise the learner used.
        mean: ``[O]``, subtracted from observations.
        std: ``[O]``, divides them.
    """

    log_std: Array
    mean: Array
    std: Array
    kind = "gaussian"

    def mean_action(self, observations: npt.NDArray[Any]) -> Array:
        """The Gaussian's mean ``[E, A]`` for observations ``[E, O]``; it may leave [-1, 1]."""
        hidden = np.asarray((observations - self.mean) / self.std, np.float32)
        hidden = np.clip(hidden, -SHOWN, SHOWN)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = np.tanh(_product(hidden, weight) + bias)
        mean: Array = _product(hidden, self.weights[-1]) + self.biases[-1]
        return mean

    def act(self, observations: npt.NDArray[Any], noise: Array | float = 0.0) -> Array:
        """See :meth:`Policy.act`."""
        action = self.mean_action(observations) + np.exp(self.log_std) * noise
        clipped: Array = np.clip(action, -1.0, 1.0, dtype=np.float32)
        return clipped


@dataclass(frozen=True)
class SquashedPolicy(Policy):
    """tanh of a Gaussian whose mean and deviation a rectifier network gives, as in SAC.

    The last layer's outputs are the means, then the logarithms of the deviations.
    """

    kind = "squashed"

    def act(self, observations: npt.NDArray[Any], noise: Array | float = 0.0) -> Array:
        """See :meth:`Policy.act`; the noise is added before the tanh."""
        hidden = np.asarray(observations, np.float32)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = np.maximum(_product(hidden, weight) + bias, 0.0)
        outputs = _product(hidden, self.weights[-1]) + self.biases[-1]
        mean, log_std = np.split(outputs, 2, axis=-1)
        action: Array = np.tanh(mean + np.exp(np.clip(log_std, *LOG_STD)) * noise)
        return action


def _product(inputs: Array, weight: Array) -> Array:
    """``inputs @ weight``, the same bits whatever number of threads numpy may use."""
    columns = max(1, ONE_THREAD // inputs.size)
    if columns >= weight.shape[1]:
        return inputs @ weight
    cuts = range(0, weight.shape[1], columns)
    return np.concatenate([inputs @ weight[:, cut : cut + columns] for cut in cuts], axis=1)


KINDS: dict[str, type[Policy]] = {cls.kind: cls for cls in (GaussianPolicy, SquashedPolicy)}


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
