"""What cutting boxes of actions into bins cost, for agents that do: a remark under the table."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from analysis.frame import Run


def binning_notes(runs: Iterable[Run]) -> list[str]:
    """A sentence for each agent and number of bins, with the rounding of the data by task.

    Agents that cut boxes report metrics ``bins`` and ``binning_error`` (root-mean-square distance
    of logged actions to their bins, in half ranges); their mean over curves and seeds is told.
    """
    found: dict[tuple[str, int], dict[str, list[float]]] = {}
    for run in runs:
        for point in run.record.curve:
            metrics = point.get("metrics", {})
            if "bins" in metrics and "binning_error" in metrics:
                key = run.agent, int(metrics["bins"])
                found.setdefault(key, {}).setdefault(run.task, []).append(metrics["binning_error"])
    notes = []
    for (agent, bins), tasks in found.items():
        errors = ", ".join(f"{task} {np.mean(values):.2f}" for task, values in tasks.items())
        notes.append(
            f"{agent} cuts each dimension of the actions into {bins} bins; logged actions lie off "
            f"their bins by (root mean square, in half ranges): {errors}."
        )
    return notes
