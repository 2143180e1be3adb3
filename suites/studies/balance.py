"""Balance: can a representation still tell which logging policy acted?

Three views of the same states are compared: the observations (what balancing could remove), and the
agent's representation before and after balancing. For each,

- a fresh classifier of two hidden layers is trained on the frozen view until it stops improving on
  episodes it has not seen, and judged on yet others: balanced accuracy, its interval from a
  bootstrap over episodes. Rows of an episode never stand on two sides;
- the sliced Wasserstein distance between the groups of policies is measured on standardised
  dimensions, with the distance between halves of one group's episodes as its floor;
- t-SNE places some states in the plane, for a picture and not for a claim.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from baselines.common import Adam, Noise, copy_parameters
from baselines.nets import MLP
from suites.studies.context import Context, DoesNotApply, Floats, Ints, Outcome, StudyError
from suites.studies.measures import CONFIDENCE

VIEWS = ("raw", "before", "after")
ROWS = 9000  # of all groups together
FEWEST_EPISODES = 8  # of every group: two to be judged on, two to stop on, four to learn from
SHARES = (0.5, 0.2)  # of a group's episodes to learn from and to stop on; the rest judges
HIDDEN = (128, 128)
LEARNING_RATE = 1e-3
BATCH = 256
EPOCHS, PATIENCE = 60, 8  # most epochs, and how many without improvement end it
REPETITIONS = 1000  # of the bootstrap
MARGIN = 0.05  # balanced accuracy of the observations above chance that is worth balancing
PROJECTIONS, PER_SIDE, HALVINGS = 128, 1500, 4
PICTURED = 900  # states in the t-SNE picture


@dataclass(frozen=True)
class Sample:
    """States of one seed's study, by group and episode.

    Attributes:
        rows: of the data, ``[N]``.
        groups: who acted, ``[N]``.
        episodes: number of the episode, ``[N]``.
        sides: 0 to learn from, 1 to stop on, 2 to judge, ``[N]``; a function of the episode.
        count: groups.
    """

    rows: Ints
    groups: Ints
    episodes: Ints
    sides: Ints
    count: int

    def halves(self, group: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """Positions of a group's states in two random halves of its episodes."""
        mine = np.flatnonzero(self.groups == group)
        episodes = rng.permutation(np.unique(self.episodes[mine]))
        first = np.isin(self.episodes[mine], episodes[: len(episodes) // 2])
        return mine[first], mine[~first]


def run(context: Context) -> list[Outcome]:
    """Accuracy, distance and picture of every view, for every seed; see above."""
    samples = [draw(context, context.rng("balance", i)) for i in range(len(context.seeds))]
    rows = np.stack([sample.rows for sample in samples])
    observations = context.seen(rows)
    groups = context.tensor(np.stack([sample.groups for sample in samples]))
    views = context.ask("represent", observations, groups)
    missing = [name for name in ("before", "after") if name not in views]
    if missing or any(views[name].ndim != 3 for name in ("before", "after")):
        raise StudyError('represent returns "before" and "after", each [S, B, features]')
    views = {"raw": observations.double().cpu().numpy(), **views}
    return [
        _seed(context, i, sample, {name: standardised(views[name][i]) for name in VIEWS})
        for i, sample in enumerate(samples)
    ]


def _seed(context: Context, i: int, sample: Sample, views: dict[str, Floats]) -> Outcome:
    seed, listen = context.seeds[i], context.listen
    found: dict[str, dict[str, Any]] = {}
    for name, view in views.items():
        twin = next((other for other in found if np.array_equal(view, views[other])), None)
        if twin is not None:  # no balancing layer, or nothing before it
            found[name] = found[twin]
            continue
        predicted = classify(view, sample, seed, listen)
        accuracy = balanced_accuracy(predicted, sample, context.rng("balance judge", i))
        distance = distances(view, sample, context.rng("balance distance", i))
        found[name] = {"accuracy": accuracy, "distance": distance}
        listen()
    chance = 1.0 / sample.count
    numbers = {
        "groups": sample.count,
        "chance": chance,
        "nothing_to_balance": bool(found["raw"]["accuracy"]["value"] < chance + MARGIN),
        "episodes": len(np.unique(sample.episodes)),
        "states": len(sample.rows),
        "views": found,
    }
    shown = pictured(sample, context.rng("balance picture", i))
    arrays: dict[str, Any] = {"groups": sample.groups[shown], "rows": sample.rows[shown]}
    for name in ("before", "after"):
        arrays[name] = picture(views[name][shown], seed)
        listen()
    return Outcome(numbers, arrays)


def draw(context: Context, rng: np.random.Generator) -> Sample:
    """Equally many states of every group, and a side for every episode.

    Raises:
        DoesNotApply: if there is one group only, or one of them has too few episodes.
    """
    starts = context.dataset.episode_starts
    lengths = np.diff(np.append(starts, len(context.dataset.table)))
    episodes = np.repeat(np.arange(len(starts)), lengths)
    groups = context.groups_of(np.arange(len(episodes)))
    count = int(groups.max()) + 1
    if count < 2:
        raise DoesNotApply("all of the data is of one group of policies")
    sides = np.zeros(len(starts), np.int64)
    for group in range(count):
        # An episode during which the policy changed counts where it began.
        mine = rng.permutation(np.flatnonzero(groups[starts] == group))
        if len(mine) < FEWEST_EPISODES:
            raise DoesNotApply(
                f"group {group} of the policies has {len(mine)} episodes; holding episodes out "
                f"takes {FEWEST_EPISODES}"
            )
        learn, stop = (max(2, round(share * len(mine))) for share in SHARES)
        sides[mine[learn : learn + stop]] = 1
        sides[mine[learn + stop :]] = 2
    per_group = min(ROWS // count, *np.bincount(groups, minlength=count).tolist())
    rows = np.concatenate(
        [
            np.sort(rng.choice(np.flatnonzero(groups == group), per_group, replace=False))
            for group in range(count)
        ]
    )
    return Sample(rows, groups[rows], episodes[rows], sides[episodes[rows]], count)


def standardised(view: Floats) -> Floats:
    """Every dimension ``[N, D]`` to mean 0 and standard deviation 1; constant ones to 0."""
    spread = view.std(axis=0)
    constant = spread < 1e-8 * (1.0 + np.abs(view).max(axis=0))
    return np.asarray(np.where(constant, 0.0, (view - view.mean(axis=0)) / (spread + constant)))


def classify(view: Floats, sample: Sample, seed: int, listen: Any = lambda: None) -> Ints:
    """Trains a fresh classifier on the learning side; its guesses for all states, ``[N]``.

    The loss weighs classes alike, however many states each has. Training stops when the loss on the
    stopping side has not improved for ``PATIENCE`` epochs, and the best weights are kept.
    """
    noise = Noise.for_seeds([seed], "study classifier")
    net = MLP((view.shape[1], *HIDDEN, sample.count))
    parameters = net.init(noise)
    optimizer = Adam(parameters, LEARNING_RATE)
    inputs, labels = torch.from_numpy(view).float(), torch.from_numpy(sample.groups)
    learn, stop = (torch.from_numpy(np.flatnonzero(sample.sides == side)) for side in (0, 1))

    def loss(at: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        logits = net(parameters, inputs[at].unsqueeze(0))[0]
        return torch.nn.functional.cross_entropy(logits, labels[at], weight=weights)

    learn_weights, stop_weights = (_class_weights(labels[at], sample.count) for at in (learn, stop))
    best, kept, since = np.inf, copy_parameters(parameters), 0
    for _ in range(EPOCHS):
        order = learn[noise.uniform(len(learn))[0].argsort()]
        for start in range(0, len(order), BATCH):
            optimizer.step(loss(order[start : start + BATCH], learn_weights).unsqueeze(0))
        listen()
        with torch.no_grad():
            now = float(loss(stop, stop_weights))
        since += 1
        if now < best:
            best, kept, since = now, copy_parameters(parameters), 0
        if since == PATIENCE:
            break
    with torch.no_grad():
        return np.asarray(net(kept, inputs.unsqueeze(0))[0].argmax(1).numpy())


def _class_weights(labels: torch.Tensor, count: int) -> torch.Tensor:
    sizes = torch.bincount(labels, minlength=count).clamp(min=1)
    return len(labels) / (count * sizes).float()


def balanced_accuracy(predicted: Ints, sample: Sample, rng: np.random.Generator) -> dict[str, Any]:
    """Mean over groups of the share recognised on the judging side, interval over episodes.

    Episodes are resampled within the group they belong to, so that no group goes missing.
    """
    judged = sample.sides == 2
    groups, episodes = sample.groups[judged], sample.episodes[judged]
    right = (predicted[judged] == groups).astype(float)
    value, resampled = 0.0, np.zeros(REPETITIONS)
    for group in range(sample.count):
        mine = groups == group
        _, place = np.unique(episodes[mine], return_inverse=True)
        sizes, hits = np.bincount(place), np.bincount(place, right[mine])
        value += hits.sum() / sizes.sum() / sample.count
        drawn = rng.integers(len(sizes), size=(REPETITIONS, len(sizes)))
        resampled += hits[drawn].sum(axis=1) / sizes[drawn].sum(axis=1) / sample.count
    tail = (1.0 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1.0 - tail])
    return {
        "value": value,
        "low": float(low),
        "high": float(high),
        "episodes": len(np.unique(episodes)),
    }


def distances(view: Floats, sample: Sample, rng: np.random.Generator) -> dict[str, float]:
    """Sliced Wasserstein-1 distance between groups, and between halves of one group.

    Both compare equally many states of equally many episodes, half of a group's on either side, so
    that what is left of the first when all is balanced is the second. Means over pairs of groups,
    over ``HALVINGS`` random halvings and over ``PROJECTIONS`` random directions.
    """
    directions = rng.standard_normal((view.shape[1], PROJECTIONS))
    projected = view @ (directions / np.linalg.norm(directions, axis=0))
    between, floor = [], []
    for _ in range(HALVINGS):
        halves = [sample.halves(group, rng) for group in range(sample.count)]
        size = min(PER_SIDE, *(len(half) for pair in halves for half in pair))
        # Sorted once: the distance of two samples of one size is the mean gap of their ranks.
        sides = [
            [np.sort(projected[rng.choice(half, size, replace=False)], axis=0) for half in pair]
            for pair in halves
        ]
        floor += [_gap(*pair) for pair in sides]
        between += [_gap(a[0], b[1]) for a, b in combinations(sides, 2)]
    return {"between": float(np.mean(between)), "floor": float(np.mean(floor))}


def _gap(one: Floats, other: Floats) -> float:
    return float(np.abs(one - other).mean())


def pictured(sample: Sample, rng: np.random.Generator) -> Ints:
    """Positions of the states in the picture: equally many of every group, in random order."""

    def chosen() -> Iterator[Sequence[int]]:
        for group in range(sample.count):
            mine = np.flatnonzero(sample.groups == group)
            size = min(PICTURED // sample.count, len(mine))
            yield rng.choice(mine, size, replace=False).tolist()

    return rng.permutation(np.concatenate(list(chosen())))


def picture(view: Floats, seed: int) -> npt.NDArray[np.float32]:
    """t-SNE (van der Maaten & Hinton 2008) of states ``[N, D]`` in the plane, ``[N, 2]``."""
    from sklearn.manifold import TSNE

    if not view.any():  # a constant representation, standardised: all states are one
        return np.zeros((len(view), 2), np.float32)
    perplexity = min(30.0, (len(view) - 1) / 3)
    init = "pca" if view.shape[1] > 1 else "random"
    flat = TSNE(perplexity=perplexity, init=init, random_state=seed, n_jobs=1).fit_transform(view)
    return np.asarray(flat, np.float32)
