"""Mutants of agents that are built on a brick of their own."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

from oracles import Edit, full_name, rebuild

# Each after what it imports.
FAMILY = ("factored", "factor_model", "q_learning", "dqn", "decqn", "ad_dqn")
CONSTRAINED = ("constrained", "bcq", "factored_bcq", "factor_model", "ad_bcq")


def load_family(
    module: str, edits: Sequence[Edit] = (), family: Sequence[str] = FAMILY
) -> dict[str, Any]:
    """Every name of the family's modules, from copies in which one of them is a mutant.

    Args:
        module: which; it and those after it are rebuilt, so that they see the mutant.
        edits: texts to replace in it.
        family: its modules.
    """
    later = family[family.index(module) :]
    kept = {full_name(name): importlib.import_module(full_name(name)) for name in family}
    names: dict[str, Any] = {}
    try:
        for name in family:
            if name in later:
                copy = rebuild(name, edits if name == module else ())
                sys.modules[full_name(name)] = copy
            names |= vars(sys.modules[full_name(name)])
    finally:
        sys.modules.update(kept)
    return names
