"""Studies: evidence that is gathered once training is over, beside scores.

A suite's manifest names the studies that its cells are to have. Each lives in a module of its own,
imported when it runs, with one function ``run(context)``; see :mod:`suites.studies.context`. The
table here is all that planning needs to know.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Study:
    """What is known of a study without importing it.

    Attributes:
        module: where its ``run`` is.
        version: raised whenever its numbers change; part of the identity of cells that have it.
        methods: the optional methods of an agent that it calls; it applies to agents with all.
        seconds: core-seconds per seed on an ordinary core, roughly, for estimates.
    """

    module: str
    version: int
    methods: tuple[str, ...]
    seconds: float


STUDIES = {
    "balance": Study("suites.studies.balance", 1, ("represent",), 20.0),
    "exploration": Study("suites.studies.exploration", 1, ("value", "discounts"), 30.0),
    "decomposition": Study(
        "suites.studies.decomposition", 1, ("decompose", "value", "discounts"), 25.0
    ),
    "coefficients": Study("suites.studies.coefficients", 1, ("coefficients",), 2.0),
}
