"""Failure signatures: what an agent finds wrong in its own metrics while it trains.

An agent may have a static method ``diagnose(curve)``, which knows how its kind of training fails
and names it. The training loop asks at every evaluation and at the end, tells people of what is
new, and keeps it in the record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Finding = dict[str, Any]  # name, update, text
_KINDS = {"name": str, "update": int, "text": str}


def new_findings(
    agent: Any, curve: list[dict[str, Any]], known: Sequence[Finding]
) -> list[Finding]:
    """What the agent says of one seed's curve and has not said before; once per name.

    Args:
        agent: any agent; without ``diagnose`` it finds nothing.
        curve: list of {update, metrics {name: number}}.
        known: what it found before.

    Raises:
        ValueError: if a finding is not {name, update, text}.
    """
    diagnose = getattr(agent, "diagnose", None)
    if diagnose is None or not curve:
        return []
    found: list[Finding] = []
    named = {finding["name"] for finding in known}
    for finding in diagnose(curve):
        if not isinstance(finding, Mapping) or any(
            not isinstance(finding.get(key), kind) for key, kind in _KINDS.items()
        ):
            raise ValueError(
                f"diagnose returned {finding!r}; a finding is {{name, update, text}}: two texts "
                "and a number of updates"
            )
        if finding["name"] not in named:
            named.add(finding["name"])
            found.append({key: finding[key] for key in _KINDS})
    return found
