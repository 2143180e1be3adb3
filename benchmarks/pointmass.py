"""The choice of settings and the verdicts of ``docs/pointmass.md``, from the runs of its suites.

``python benchmarks/pointmass.py choose REPORT`` names, from the report folder of
``pointmass_tuning``, the configuration of each agent with the largest mean area. ``... verdicts
REPORT...`` prints the verdict on every hypothesis that the runs of the given report folders (of
``pointmass``, ``pointmass_mixers``, ``pointmass_noise`` and ``pointmass_coupled``) answer. It was
written before any of these was run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis.efficiency import Cell, by_size, find, growth, mean_area
from analysis.frame import collect
from analysis.stats import Estimate, estimate_improvement
from results.record import PLAN_FILE, read_plan

SEEDS = 10  # at least
METHOD, BASELINES = "ad_dqn", ("dqn", "decqn")
SIMPLE, COMPLEX = ("average", "linear", "two_layer"), "relu"
REAL = "_real"  # ends the labels of mixers without augmentation
NOISES = ("noise_0", "noise_0.1", "noise_0.3", "noise_1", "noise_3")
WITHOUT = "no_model"
APART, COUPLED = "pointmass-17", "pointmass-17-coupled"


def cells_of(folder: Path) -> list[Cell]:
    """Areas of all finished runs of a report folder."""
    plan = read_plan(folder / PLAN_FILE)
    return find(collect(folder.resolve().parents[1], plan).finished)


def choose(cells: Sequence[Cell], names: Mapping[str, str]) -> Iterator[str]:
    """A line for each configuration, and one for the best of each agent.

    Args:
        cells: of one task.
        names: agents by label.
    """
    best: dict[str, Cell] = {}
    for cell in cells:
        found = mean_area(cell)
        yield f"{cell.agent}: {_numbers(found, 1)} over {len(cell.areas)} seeds"
        leader = best.setdefault(names[cell.agent], cell)
        if cell.areas.mean() > leader.areas.mean():
            best[names[cell.agent]] = cell
    for name, cell in best.items():
        yield f"chosen for {name}: {cell.agent}"


def above(ours: Cell, theirs: Cell) -> Estimate:
    """The probability that an area of ours lies above one of theirs.

    Raises:
        ValueError: if one of them has fewer runs than the hypotheses ask for.
    """
    for cell in (ours, theirs):
        if len(cell.areas) < SEEDS:
            raise ValueError(
                f"{cell.agent} on {cell.task}: {len(cell.areas)} runs; the hypotheses ask for "
                f"{SEEDS}"
            )
    areas = ours.areas[:, None], theirs.areas[:, None]
    return estimate_improvement(*areas, rng=np.random.default_rng(0))


def verdicts(cells: Sequence[Cell]) -> Iterator[str]:
    """One line for each question that these cells answer."""
    sizes = by_size(cells)
    if {METHOD, *BASELINES} <= set(sizes):
        yield from _sizes(sizes)
    labels = {cell.agent: cell for cell in cells}
    if COMPLEX in labels:
        yield from _mixers(labels)
    if WITHOUT in labels:
        yield from _noise(labels)
    yield from _coupling({(cell.task, cell.agent): cell for cell in cells})


def _sizes(sizes: Mapping[str, Sequence[Cell]]) -> Iterator[str]:
    for theirs in BASELINES:
        for ours, cell in zip(sizes[METHOD], sizes[theirs], strict=True):
            found = above(ours, cell)
            yield _line("H1", f"P({METHOD} > {theirs}), {cell.task}", found, found.low > 0.5)
    for theirs in BASELINES:
        grown = growth(sizes[METHOD], sizes[theirs])
        yield _line("H2", f"growth of {METHOD} / {theirs}", grown, grown.low > 1.0)


def _mixers(labels: Mapping[str, Cell]) -> Iterator[str]:
    for mixer in SIMPLE:
        found = above(labels[mixer], labels[COMPLEX])
        yield _line("H3", f"P({mixer} > {COMPLEX})", found, found.low > 0.5)
    for mixer in (*SIMPLE, COMPLEX):
        found = above(labels[mixer], labels[mixer + REAL])
        yield _line("H4", f"P({mixer} > {mixer}{REAL})", found, found.low > 0.5)


def _noise(labels: Mapping[str, Cell]) -> Iterator[str]:
    found = above(labels[NOISES[0]], labels[NOISES[-1]])
    yield _line("H5", f"P({NOISES[0]} > {NOISES[-1]})", found, found.low > 0.5)
    for noise in NOISES:
        found = above(labels[noise], labels[WITHOUT])
        yield f"H5 P({noise} > {WITHOUT}): {_numbers(found)}  {_placed(found)}"


def _coupling(cells: Mapping[tuple[str, str], Cell]) -> Iterator[str]:
    if (COUPLED, METHOD) not in cells:
        return
    for theirs in BASELINES:
        found = above(cells[COUPLED, METHOD], cells[COUPLED, theirs])
        yield f"H6 P({METHOD} > {theirs}), {COUPLED}: {_numbers(found)}  {_placed(found)}"
        ours, others = ([cells[task, a] for task in (APART, COUPLED)] for a in (METHOD, theirs))
        grown = growth(ours, others)
        yield _line("H6", f"{METHOD} / {theirs}, coupled over apart", grown, grown.high < 1.0)


def _placed(found: Estimate) -> str:
    return "ahead" if found.low > 0.5 else "behind" if found.high < 0.5 else "not separated"


def _line(name: str, what: str, found: Estimate, holds: object) -> str:
    return f"{name} {what}: {_numbers(found)}  {'holds' if holds else 'fails'}"


def _numbers(found: Estimate, digits: int = 2) -> str:
    return f"{found.value:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def main(verb: str, *folders: str) -> None:
    if verb not in ("choose", "verdicts") or not folders:
        raise SystemExit("name a verb, choose or verdicts, and the report folders")
    cells = [cell for folder in folders for cell in cells_of(Path(folder))]
    if verb == "choose":
        plan = read_plan(Path(folders[0]) / PLAN_FILE)
        names = {str(agent["label"]): str(agent["name"]) for agent in plan.agents}
        lines = choose(cells, names)
    else:
        lines = verdicts(cells)
    for line in lines:
        print(line)


if __name__ == "__main__":
    try:
        main(*(sys.argv[1:] or [""]))
    except ValueError as error:  # of records, too
        raise SystemExit(str(error)) from None
