"""What others printed: scores on D4RL's own datasets, and changes of measures on a platform.

Scores, from ``results/published/d4rl_scores.csv``, stand beside ours only where the data is D4RL's,
in the version they were measured on: a score on other data of the same name answers another
question. Measures, from ``results/published/fastq_measures.csv``, were taken on a platform that
nobody else has: they stand below ours as what was claimed elsewhere, and are compared with nothing.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from results.record import Plan

SOURCE = "d4rl"  # the only source of data that published scores may stand beside
MARK = "‡"


@dataclass(frozen=True)
class PublishedScore:
    """One agent on one task, as somebody printed it.

    Attributes:
        score: mean, on D4RL's scale.
        std: spread over seeds, NaN where none is printed.
    """

    score: float
    std: float

    @property
    def text(self) -> str:
        """``66.3 ± 4.1``, as for our own scores."""
        return f"{self.score:z.1f}" + ("" if math.isnan(self.std) else f" ± {self.std:.1f}")


@dataclass(frozen=True)
class PublishedColumn:
    """The scores of one agent from one source.

    Attributes:
        agent: name in the registry.
        number: of the source, as printed beside the agent.
        source: who printed the scores, and where.
        details: dataset version, seeds, spread and protocol in words.
        scores: by task id.
    """

    agent: str
    number: int
    source: str
    details: str
    scores: dict[str, PublishedScore]

    @property
    def heading(self) -> str:
        """``td3_bc ‡2``: the agent with the number of its source."""
        return f"{self.agent} {MARK}{self.number}"

    @property
    def note(self) -> str:
        """The sentence beneath the table."""
        return f"{self.heading}: {self.source}; {self.details}."

    def text(self, task: str) -> str:
        """The score on a task, ``-`` where there is none."""
        return self.scores[task].text if task in self.scores else "-"


@dataclass(frozen=True)
class PublishedMeasures:
    """Changes of measures in per cent, from one source.

    Attributes:
        agent: name in the registry.
        changes: by measure.
        note: where they come from and what they are changes against.
    """

    agent: str
    changes: dict[str, float]
    note: str

    @property
    def heading(self) -> str:
        """``fastq ‡``."""
        return f"{self.agent} {MARK}"


@cache
def _rows(name: str = "d4rl_scores.csv") -> tuple[dict[str, str], ...]:
    text = (files("results") / "published" / name).read_text("utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def published_measures(domain: str) -> list[PublishedMeasures]:
    """What was published of a domain's measures, one entry for each agent and source."""
    found: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in _rows("fastq_measures.csv"):
        if row["domain"] == domain:
            found.setdefault((row["agent"], row["source"]), []).append(row)
    return [
        PublishedMeasures(
            agent,
            {row["measure"]: float(row["change_percent"]) for row in rows},
            f"{agent} {MARK}: {source}, read from {rows[0]['read_from']}; {rows[0]['protocol']}, "
            f"against {rows[0]['against']}. Published on another platform against other methods: "
            "none of these numbers can be compared with ours.",
        )
        for (agent, source), rows in found.items()
    ]


def published(plan: Plan, versions: Mapping[str, str]) -> tuple[list[PublishedColumn], list[str]]:
    """What was published on the plan's tasks: the plan's own agents first, then all others.

    Args:
        plan: what was planned; an empty answer unless its data is D4RL's.
        versions: dataset version by task, for example "v2", where it is known. A score measured on
            another version of a task's dataset is left out.

    Returns:
        The columns, and a sentence if scores were left out for the version of the data.
    """
    if plan.source != SOURCE:
        return [], []
    tasks = {str(task["id"]) for task in plan.tasks}
    ours = list(dict.fromkeys(str(agent["name"]) for agent in plan.agents))
    columns: dict[tuple[str, str], list[dict[str, str]]] = {}
    others: dict[str, None] = {}
    for row in _rows():
        if row["task"] not in tasks:
            continue
        if versions.get(row["task"], row["dataset_version"]) == row["dataset_version"]:
            columns.setdefault((row["agent"], row["source"]), []).append(row)
        else:
            others[row["task"]] = None
    notes = [
        f"No published scores on {', '.join(others)}: they are on another version of the data."
    ]
    rank = {agent: i for i, agent in enumerate(ours)}
    order = sorted(columns, key=lambda key: (rank.get(key[0], len(rank)), *key))
    numbers: dict[str, int] = {}
    found = [
        PublishedColumn(
            agent=agent,
            number=numbers.setdefault(source, len(numbers) + 1),
            source=source,
            details=_details(columns[agent, source]),
            scores={
                row["task"]: PublishedScore(float(row["score"]), float(row["std"] or "nan"))
                for row in columns[agent, source]
            },
        )
        for agent, source in order
    ]
    return found, notes if others else []


def _details(rows: list[dict[str, str]]) -> str:
    """The rest of a source's line: one source measures an agent alike, data versions apart."""
    row, versions = rows[0], sorted({row["dataset_version"] for row in rows})
    seeds = f"{row['seeds']} seeds" if row["seeds"] else "seeds not printed"
    spread = f"± {row['spread']}" if row["spread"] else "no spread printed"
    found = [f"{' and '.join(versions)} data", row["protocol"], seeds, spread]
    return "; ".join(found + ([row["note"]] if row["note"] else []))
