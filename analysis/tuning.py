"""Expected online performance: what trying k configs per task buys.

Choosing a config needs evaluations in the environment, which offline methods claim to do without.
Kurenkov & Kolesnikov (2022), "Showing Your Offline Reinforcement Learning Work: Online Evaluation
Budget Matters", therefore report the score as a function of the number of configs that may be
evaluated online: the expected score of the best of k.

Here the best of k is chosen task by task, by the mean over all seeds but one, and *scored on the
seed left out*, averaged over seeds. A score that took part in the choice would be flattered by the
luck that got it chosen; a run left out is worth what another run of that config is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.comparison import scored_tasks, scores_by_cell
from analysis.stats import CONFIDENCE, Estimate, FloatArray, student_quantile
from results.record import Plan

if TYPE_CHECKING:
    import pandas as pd

FEWEST_CONFIGS = 3  # that allow an interval


@dataclass(frozen=True)
class TunedCurve:
    """One agent's score by the number of configs tried on each task.

    Attributes:
        agent: its registered name.
        labels: the plan's labels of its m configs.
        tasks: the tasks averaged over.
        runs: seeds per config and task.
        estimate: for k = 1..m, ``[m]``; its units are the configs.
    """

    agent: str
    labels: list[str]
    tasks: list[str]
    runs: int
    estimate: Estimate


def tuned_curves(plan: Plan, runs: pd.DataFrame) -> tuple[list[TunedCurve], list[str]]:
    """Expected online performance of every agent with several configs in the tuned track.

    Configs of an agent are the plan's labels with its name and the track "tuned". A config lacking
    runs would change what is chosen from, so an agent with gaps gets a sentence and no curve.

    Returns:
        The curves in the plan's order, and sentences on what is missing or flattered.
    """
    cells = scores_by_cell(runs)
    tasks = scored_tasks(plan)
    labels: dict[str, list[str]] = {}
    for agent in plan.agents:
        if agent.get("track") == "tuned" and not agent["reference"]:
            labels.setdefault(str(agent["name"]), []).append(str(agent["label"]))
    curves, notes = [], []
    for name, configs in labels.items():
        if len(configs) < 2 or not tasks:
            continue
        found = [[list(cells.get((task, c), {}).values()) for task in tasks] for c in configs]
        counts = [len(values) for row in found for values in row]
        if min(counts) < max(*counts, len(plan.seeds)):
            lacking = [c for c, row in zip(configs, found, strict=True) if min(map(len, row)) == 0]
            partly = f"; without any run on some task: {', '.join(lacking)}" if lacking else ""
            notes.append(
                f"No expected online performance of {name}: {sum(counts)} of "
                f"{len(counts) * max(*counts, len(plan.seeds))} runs are there{partly}."
            )
            continue
        scores = np.array(found).transpose(0, 2, 1)
        curves.append(
            TunedCurve(
                agent=name,
                labels=configs,
                tasks=tasks,
                runs=scores.shape[1],
                estimate=estimate_curve(scores),
            )
        )
        if scores.shape[1] == 1:
            notes.append(
                f"{name} has one run per config: the run that is chosen is also scored, which "
                "flatters it the more, the more configs are tried."
            )
    return curves, notes


def expected_online_performance(scores: FloatArray) -> FloatArray:
    """Expected score of the chosen one of k configs, drawn without replacement, for k = 1..m.

    Exact: of the subsets of size k, a config is the highest in as many as there are ways to take
    the other k - 1 from those below it. Configs that are level share the choice.

    Args:
        scores: ``[m, n, T]``, m configs with n runs on each of T tasks. With one run per config it
            both chooses and scores.

    Returns:
        ``[m]``, averaged over runs left out and tasks.
    """
    chosen_by = _mean_of_others(scores)
    below = (chosen_by < chosen_by[:, None]).sum(axis=1)
    upto = (chosen_by <= chosen_by[:, None]).sum(axis=1)
    ways = _subsets(len(scores))
    weights = (ways[upto] - ways[below]) / (upto - below)[..., None]
    return np.asarray((weights * scores[..., None]).sum(axis=0).mean(axis=(0, 1)))


def _subsets(configs: int) -> FloatArray:
    """Share of the subsets of size k that lie within the lowest r, ``[r = 0..m, k - 1]``."""
    sizes = range(1, configs + 1)
    return np.array(
        [[math.comb(r, k) / math.comb(configs, k) for k in sizes] for r in range(configs + 1)]
    )


def _mean_of_others(scores: FloatArray) -> FloatArray:
    """For each run the mean over the other runs of its config and task, ``[m, n, T]``."""
    runs = scores.shape[1]
    if runs == 1:
        return scores
    others = [np.delete(scores, run, axis=1).mean(axis=1) for run in range(runs)]
    return np.stack(others, axis=1)


def estimate_curve(scores: FloatArray) -> Estimate:
    """The curve with intervals from a jackknife over configs, each with its runs on all tasks.

    The unit is the outermost thing that was repeated, as everywhere: what a config scores contains
    the luck of its seeds. A bootstrap would draw configs twice, among which there is nothing to
    choose, and falls short at the best of many; the jackknife's variance errs on the wide side
    (Efron & Stein 1981). Leaving one out of m says nothing of k = m, which is given the standard
    error of k = m - 1.

    Args:
        scores: ``[m, n, T]``; see :func:`expected_online_performance`.

    Returns:
        Value and interval for k = 1..m, ``[m]``; NaN ends below ``FEWEST_CONFIGS`` configs.

    Raises:
        ValueError: if the scores are not finite or not of this shape.
    """
    if scores.ndim != 3 or not scores.size or not np.isfinite(scores).all():
        raise ValueError(
            f"scores of shape {scores.shape} are not a full [configs, runs, tasks] array of "
            "finite numbers; leave out the configs that have gaps"
        )
    value = expected_online_performance(scores)
    configs, runs, _ = scores.shape
    half = np.full_like(value, np.nan)
    if configs >= FEWEST_CONFIGS:
        without = np.array(
            [expected_online_performance(np.delete(scores, i, axis=0)) for i in range(configs)]
        )
        error = np.sqrt((configs - 1) * without.var(axis=0))
        half = student_quantile(configs - 1, CONFIDENCE) * np.append(error, error[-1])
    return Estimate(value, value - half, value + half, runs, configs)
