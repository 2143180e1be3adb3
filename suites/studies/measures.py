"""Numbers that several studies report: means with intervals, rank correlation, agreement."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
CONFIDENCE = 0.95


def mean_interval(values: Floats) -> dict[str, float]:
    """Mean with Student's interval; NaN ends for a single value, ``[n]`` independent values."""
    from scipy.stats import t

    count = len(values)
    centre = float(values.mean()) if count else np.nan
    if count < 2:
        return {"mean": centre, "low": np.nan, "high": np.nan}
    half = float(t.ppf(0.5 + CONFIDENCE / 2, count - 1) * values.std(ddof=1) / np.sqrt(count))
    return {"mean": centre, "low": centre - half, "high": centre + half}


def correlation(x: Floats, y: Floats) -> float:
    """Pearson's; NaN where one of them does not vary."""
    x, y = x - x.mean(), y - y.mean()
    size = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / size) if size > 0 else np.nan


def rank_correlation(x: Floats, y: Floats) -> float:
    """Spearman's, ties sharing their ranks; NaN where one of them does not vary."""
    from scipy.stats import rankdata

    return correlation(rankdata(x), rankdata(y))


def agreement(predicted: Floats, returned: Floats, units: Floats | None = None) -> dict[str, Any]:
    """How predicted values ``[n]`` compare with measured ones: bias, spread, order.

    Args:
        predicted: values.
        returned: their truth.
        units: the errors of what is independent, if pairs are not: the mean error of each state
            that several pairs share.
    """
    return {
        "pairs": len(predicted),
        "predicted": float(predicted.mean()) if len(predicted) else np.nan,
        "returned": float(returned.mean()) if len(returned) else np.nan,
        "returned_std": float(returned.std()) if len(returned) else np.nan,
        "bias": mean_interval(predicted - returned if units is None else units),
        "rank_correlation": rank_correlation(predicted, returned) if len(predicted) > 1 else np.nan,
    }
