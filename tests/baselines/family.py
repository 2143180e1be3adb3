"""Mutants of the agents for factored actions, which are built on one another."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

from oracles import Edit, full_name, rebuild

FAMILY = ("factored", "factor_model", "q_learning", "dqn", "decqn", "ad_dqn")


def load_family(module: str = "factored", edits: Sequence[Edit] = ()) -> dict[str, Any]:
    """Every name of the family's modules, from copies in which one of them is a mutant.

    Args:
        module: which; it and those after it are rebuilt, so that they see the mutant.
        edits: texts to replace in it.
    """
    later = FAMILY[FAMILY.index(module) :]
    kept = {full_name(name): importlib.import_module(full_name(name)) for name in FAMILY}
    names: dict[str, Any] = {}
    try:
        for name in FAMILY:
            if name in later:
                copy = rebuild(name, edits if name == module else ())
                sys.modules[full_name(name)] = copy
            names |= vars(sys.modules[full_name(name)])
    finally:
        sys.modules.update(kept)
    return names
