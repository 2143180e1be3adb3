"""One agent against another, runs nested in draws and platforms: what the intervals are worth.

``python benchmarks/relative.py`` prints how often nominal 95 % intervals of a change in per cent,
and of a difference, hold the truth, and how wide they are. Numbers are about 10; platforms spread
10 %, draws of the data and runs 3 %, and so does what the one gains over the other, by platform and
by draw where there are several.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis.measures import change
from analysis.overlap import difference
from analysis.relative import Numbers, against

LEVEL, PLATFORMS, SPREAD, GAIN = 10.0, 1.0, 0.3, 1.1
Shape = tuple[int, int, int]  # platforms, draws of each, runs of each


def both(shape: Shape, rng: np.random.Generator) -> tuple[Numbers, Numbers]:
    """Numbers of an agent that is ahead by 10 % on average, and of the other."""
    platforms, draws, _ = shape
    # What all share is part of the question, not of its luck, where there is only one of it.
    level = LEVEL + PLATFORMS * (platforms > 1) * rng.standard_normal((platforms, 1, 1))
    luck = SPREAD * (draws > 1) * rng.standard_normal((platforms, draws, 1))
    gain = GAIN + SPREAD / LEVEL * (
        (platforms > 1) * rng.standard_normal((platforms, 1, 1))
        + (draws > 1) * rng.standard_normal((platforms, draws, 1))
    )
    noise = SPREAD * rng.standard_normal((2, *shape))
    made = [(level + luck) * gain + noise[0], level + luck + noise[1]]
    ours, theirs = (
        {str(p): dict(enumerate(of_draws.tolist())) for p, of_draws in enumerate(values)}
        for values in made
    )
    return ours, theirs


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=400, help="simulated suites per row")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    print("platforms x draws x runs: change, its coverage and width; the same of the difference")
    for shape in ((5, 1, 1), (5, 1, 5), (5, 3, 1), (3, 1, 5), (10, 1, 2), (1, 5, 1), (1, 5, 3),
                  (1, 1, 5), (1, 1, 10)):  # fmt: skip
        cells = ""
        for compared, truth in ((change, 100.0 * (GAIN - 1.0)), (difference, LEVEL * (GAIN - 1.0))):
            found = np.array(
                [against(*both(shape, rng), compared).bounds for _ in range(options.experiments)]
            )
            held = np.mean((found[:, 1] <= truth) & (truth <= found[:, 2]))
            width = np.mean(found[:, 2] - found[:, 1])
            cells += f"{found[:, 0].mean():8.2f}{100 * held:7.1f} %{width:7.2f}"
        print(f"{shape[0]:3d} x {shape[1]} x {shape[2]:<3d}{cells}", flush=True)


if __name__ == "__main__":
    main()
