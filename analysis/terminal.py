"""The task table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.comparison import Agent
from analysis.studies import Section
from analysis.tables import TaskTable, heading, task_table
from results.record import Plan

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table


def terminal(plan: Plan, frame: pd.DataFrame, unsimulated: Section | None = None) -> RenderableType:
    """The task table for a terminal, folded into several where the window is narrow.

    Args:
        plan: what was planned.
        frame: the finished runs, from :func:`analysis.frame.load`.
        unsimulated: from :func:`analysis.unsimulated.section`.
    """
    return _Terminal(plan, task_table(plan, frame), unsimulated)


@dataclass(frozen=True)
class _Terminal:
    """A rich renderable that knows the window's width only when it is printed."""

    plan: Plan
    table: TaskTable
    unsimulated: Section | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        yield Text(self.plan.title, style="bold")
        for columns in self._folded(options.max_width):
            yield self._block(columns)
        for note in self.table.notes:
            yield Text(note, style="dim")
        if self.unsimulated is not None:
            yield from self._section(self.unsimulated)
        for task in self.table.tasks:
            if task["missing"]:
                yield Text(f"{task['id']}: {task['missing']}", style="yellow")
        for caveat in self.plan.caveats:
            yield Text(caveat, style="yellow")

    def _section(self, section: Section) -> Iterator[RenderableType]:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        yield Text(section.title, style="bold")
        block = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for head in ("task", "agent", "runs", *section.heads):
            block.add_column(head)
        for task, agent, runs, cells in section.rows:
            block.add_row(*map(Text, (task, agent, str(runs), *(text for text, _ in cells))))
        yield block
        for note in section.notes:
            yield Text(note, style="dim")

    def _texts(self, agent: Agent) -> list[str]:
        return [self.table.cells[str(task["id"]), agent.label].text for task in self.table.tasks]

    def _folded(self, width: int) -> list[list[Agent]]:
        """As many agents side by side as fit; at least one."""
        padding = 3
        first = max((len(str(task["id"])) for task in self.table.tasks), default=4) + padding
        blocks: list[list[Agent]] = [[]]
        used = first
        for agent in self.table.agents:
            needed = max(map(len, [heading(agent), *self._texts(agent)])) + padding
            if blocks[-1] and used + needed > width:
                blocks.append([])
                used = first
            blocks[-1].append(agent)
            used += needed
        return blocks

    def _block(self, columns: list[Agent]) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        block = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        block.add_column("task")
        for agent in columns:
            block.add_column(Text(heading(agent)), justify="right", no_wrap=True)
        for task in self.table.tasks:
            row = [Text(str(task["id"]), style="dim" if task["missing"] else "")]
            for agent in columns:
                cell = self.table.cells[str(task["id"]), agent.label]
                style = "bold" if cell.bold else "" if cell.complete else "yellow"
                text = "no data" if task["missing"] and not cell.runs else cell.text
                row.append(Text(text, style=style))
            block.add_row(*row)
        return block
