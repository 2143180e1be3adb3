"""What a dataset looks like: its returns, lengths, policies and coverage, in words and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from results.record import normalized_score
from suites.catalog import TASKS, reference
from suites.datasets.groups import policy_groups
from suites.datasets.store import Dataset

ON_THE_BOUND = 0.999  # of the action space, counted as on its bound
SAMPLED = 100_000  # rows, evenly spaced, that the statistics of coverage are taken from
BINS = 20
WIDTH = 40  # characters of the longest bar
QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Coverage:
    """How much of its space the data visits.

    Attributes:
        observation_std: ``[O]``, of each number.
        observation_dimensions: effective dimensions of the standardised observations, out of O.
        action_std: ``[A]``, of each action; uniform actions have 0.58.
        action_dimensions: effective dimensions of the actions, out of A.
        on_bound: ``[A]``, share of each action on the bound of the action space.
        choices: ``[A]``, number of different choices of each action; empty if they are no integers.
    """

    observation_std: Floats
    observation_dimensions: float
    action_std: Floats
    action_dimensions: float
    on_bound: Floats
    choices: npt.NDArray[np.int64]


def coverage(data: Dataset) -> Coverage:
    """Coverage, from evenly spaced rows."""
    rows = np.linspace(0, len(data.table) - 1, min(SAMPLED, len(data.table))).astype(int)
    observations, actions = (
        np.asarray(data.column(name)[rows], np.float64) for name in ("observations", "actions")
    )
    spread = observations.std(0)
    whole = actions.T if (actions == actions.round()).all() else ()
    return Coverage(
        observation_std=spread,
        observation_dimensions=effective_dimensions(observations / np.maximum(spread, 1e-12)),
        action_std=actions.std(0),
        action_dimensions=effective_dimensions(actions),
        on_bound=(np.abs(actions) >= ON_THE_BOUND).mean(0),
        choices=np.array([len(np.unique(column)) for column in whole], np.int64),
    )


def effective_dimensions(values: Floats) -> float:
    """The participation ratio (sum v)^2 / sum v^2 of the variances v along principal axes.

    Args:
        values: ``[N, D]``.

    Returns:
        D if all directions vary alike, 1 if all lies on a line, 0 if nothing varies.
    """
    variances = np.linalg.eigvalsh(np.atleast_2d(np.cov(values, rowvar=False)))
    squares = float(np.square(variances).sum())
    return float(variances.sum() ** 2 / squares) if squares > 0 else 0.0


def histogram(values: npt.NDArray[Any], unit: str) -> list[str]:
    """A text histogram, a line per bin: its lower edge, a bar, and how many."""
    counts, edges = np.histogram(values, BINS)
    lines = [f"{'from':>10}  {unit}"]
    for count, edge in zip(counts, edges[:-1], strict=True):
        bar = "█" * int(np.ceil(WIDTH * count / max(counts.max(), 1)))
        lines.append(f"{edge:10.0f}  {bar} {count if count else ''}".rstrip())
    return lines


def describe(data: Dataset) -> str:
    """The whole description as text."""
    card = data.card
    returns, lengths = data.episodes()
    scores = _scores(card, returns)
    shown = []
    if scores is not None:
        shown = [_row("score", [f"{v:.1f}" for v in np.quantile(scores, QUANTILES)], scores.mean())]
    lines = [
        f"{card['task']} ({card['env_id']}), seed {card.get('seed', 0)}"
        + (f", MuJoCo {card['mujoco']}" if "mujoco" in card else ""),
        f"{len(data.table):,} transitions of {data.table.shape[1]} numbers, "
        f"{data.table.nbytes / 1e6:,.0f} MB, sha256 {card.get('sha256', '')[:16]}",
        f"{len(returns):,} complete episodes",
        "",
        _row("", [f"{q:.0%}" for q in QUANTILES], "mean"),
        _row("return", [f"{v:.0f}" for v in np.quantile(returns, QUANTILES)], returns.mean()),
        *shown,
        _row("length", [f"{v:.0f}" for v in np.quantile(lengths, QUANTILES)], lengths.mean()),
        "",
        *histogram(returns, "return of an episode"),
        "",
        *histogram(lengths, "steps of an episode"),
        "",
        *_policy_lines(card),
        "",
        *_coverage_lines(coverage(data)),
    ]
    return "\n".join(lines)


def _scores(card: dict[str, Any], returns: Floats) -> Floats | None:
    """Returns on D4RL's scale; None for tasks that the catalogue does not have."""
    if card["task"] not in TASKS:
        return None
    minimum, maximum, _ = reference(TASKS[card["task"]].environment)
    return np.asarray(normalized_score(returns, minimum, maximum))


def _row(name: str, cells: list[str], last: float | str) -> str:
    end = last if isinstance(last, str) else f"{last:.1f}"
    return f"{name:<8}" + "".join(f"{cell:>8}" for cell in [*cells, end])


def _policy_lines(card: dict[str, Any]) -> list[str]:
    if not card.get("policies"):
        return ["which policies acted is not known"]
    lines = [
        f"{'policy':<16}{'noise':>6}{'share':>8}{'episodes':>10}{'return':>8}{'score':>7}  group"
    ]
    for policy, group in zip(card["policies"], policy_groups(card).tolist(), strict=True):
        mean = policy["return_mean"]
        shown = ("-", "-")
        if mean is not None:
            score = _scores(card, np.array(mean))
            shown = (f"{mean:.0f}", "-" if score is None else f"{float(score):.1f}")
        noise = "-" if policy.get("noise") is None else f"{policy['noise']:.2f}"
        lines.append(
            f"{policy['name']:<16}{noise:>6}{policy['share']:>8.1%}"
            f"{policy['episodes']:>10,}{shown[0]:>8}{shown[1]:>7}  {group}"
        )
    return lines


def _coverage_lines(found: Coverage) -> list[str]:
    def numbers(values: Floats) -> str:
        return " ".join(f"{value:.2f}" for value in values)

    last = f"share of the actions on the bound: {numbers(found.on_bound)}"
    if len(found.choices):
        last = f"different choices of the actions: {' '.join(map(str, found.choices))}"
    return [
        f"effective dimensions: {found.observation_dimensions:.1f} of "
        f"{len(found.observation_std)} of the observations, "
        f"{found.action_dimensions:.1f} of {len(found.action_std)} of the actions",
        f"standard deviation of the observations: {numbers(found.observation_std)}",
        f"standard deviation of the actions: {numbers(found.action_std)}",
        last,
    ]


def draw(data: Dataset, path: Path) -> None:
    """Draws returns, lengths, policies and actions into a picture file."""
    from matplotlib.figure import Figure

    card = data.card
    returns, lengths = data.episodes()
    figure = Figure(figsize=(10, 7), layout="constrained")
    figure.suptitle(f"{card['task']}, seed {card.get('seed', 0)}: {len(data.table):,} transitions")
    axes = figure.subplots(2, 2)

    owners = np.zeros(len(returns), np.int64)
    if card.get("policies"):
        owners = policy_groups(card)[data.column("policy_ids")[data.last_rows()].astype(int)]
    groups = range(int(owners.max()) + 1)
    scored = _scores(card, returns)
    scores, unit = (returns, "return") if scored is None else (scored, "score")
    axes[0, 0].hist(
        [scores[owners == group] for group in groups],
        bins=40,
        stacked=True,
        label=[f"policy group {group}" for group in groups],
    )
    meaning = "" if scored is None else " (0 random, 100 expert)"
    axes[0, 0].set(xlabel=f"{unit} of an episode{meaning}", ylabel="episodes")
    axes[0, 0].legend()
    axes[0, 1].hist([lengths[owners == group] for group in groups], bins=40, stacked=True)
    axes[0, 1].set(xlabel="steps of an episode", ylabel="episodes")

    policies = card.get("policies", ())
    known = [policy for policy in policies if policy["return_mean"] is not None]
    means = np.array([policy["return_mean"] for policy in known])
    scaled = _scores(card, means)
    axes[1, 0].bar([policy["id"] for policy in known], means if scaled is None else scaled)
    shares = axes[1, 0].twinx()
    shares.plot(
        [policy["id"] for policy in policies],
        [policy["share"] for policy in policies],
        "o",
        color="black",
        markersize=3,
    )
    shares.set(ylabel="share of the transitions (dots)", ylim=(0, None))
    axes[1, 0].set(xlabel="policy, by its number", ylabel=f"mean {unit} (bars)")

    actions = data.column("actions")[:: max(1, len(data.table) // SAMPLED)]
    axes[1, 1].violinplot(list(np.asarray(actions, np.float64).T), showmedians=True)
    axes[1, 1].set_xticks(range(1, actions.shape[1] + 1))
    axes[1, 1].set(xlabel="action", ylabel="value")
    if np.abs(actions).max() <= 1:
        axes[1, 1].set_ylim(-1.05, 1.05)
    figure.savefig(path, dpi=100)
