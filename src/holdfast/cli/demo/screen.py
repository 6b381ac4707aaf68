"""What the demo shows: its course on standard error, the result on standard output.

On a terminal the course has live bars below its events; anywhere else it is plain lines, with one of progress every few
seconds. `NO_COLOR`, a narrow terminal and one without Unicode are respected.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from holdfast.cli.demo.app import STEPS

PLAIN_SECONDS: Final = 2.0
FINDINGS_MAX: Final = 5


class Screen:
    """The course of the demo. Used as a context manager, within a running event loop.

    Args:
        console: where the course goes.
        orders: orders in the book.
    """

    def __init__(self, console: Console, *, orders: int) -> None:
        self._console = console
        self._live: Live | None = None
        self._orders = orders
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._said_at = 0.0
        self._status = Text("  starting", style="dim")
        self._progress = Progress(
            TextColumn("  {task.description:<8}"),
            BarColumn(bar_width=min(48, max(10, console.width - 34)), complete_style="cyan", finished_style="green"),
            TextColumn("[dim]{task.completed:>7,} of {task.total:,}[/]"),
            console=console,
        )
        self._bars: dict[str, TaskID] = {name: self._progress.add_task(name, total=orders) for name in STEPS}

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(self._view(), console=self._console, transient=True, refresh_per_second=12)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def title(self, text: str, detail: str) -> None:
        """What is going to happen."""
        self._print(Text(text, style="bold"))
        self._print(Text(f"{detail}\n", style="dim"))

    def event(self, text: str, *, kill: bool = False) -> None:
        """Something happened."""
        line = Text.assemble((f"  {self._seconds():6.2f} s  ", "dim"), (text, "bold red" if kill else ""))
        self._print(line)

    def progress(self, steps: Mapping[str, int], *, ended: int, worker: str, kills: tuple[int, int]) -> None:
        """How far the work is."""
        line = f"{ended:,} of {self._orders:,} orders done, {sum(steps.values()):,} steps, "
        line += f"{worker} at work, {kills[0]} of {kills[1]} kills"
        if self._live is None:
            self._say_now_and_then(line)
            return
        for name, bar in self._bars.items():
            self._progress.update(bar, completed=steps.get(name, 0))
        self._status = Text(f"  {self._seconds():6.2f} s  {line}", style="dim", no_wrap=True, overflow="ellipsis")
        self._live.update(self._view())

    def _say_now_and_then(self, line: str) -> None:
        if self._seconds() - self._said_at >= PLAIN_SECONDS:
            self._said_at = self._seconds()
            self.event(line)

    def _view(self) -> Group:
        return Group(Text(), self._progress, Text(), self._status)

    def _seconds(self) -> float:
        return self._loop.time() - self._began

    def _print(self, line: Text) -> None:
        console = self._console if self._live is None else self._live.console
        console.print(line, soft_wrap=not console.is_terminal, highlight=False)


def show_summary(console: Console, rows: list[tuple[str, str, str]]) -> None:
    """The summary: a name, a figure, and what the figure is. Fits 80 columns."""
    names, figures = max(len(row[0]) for row in rows), max(len(row[1]) for row in rows)
    for name, figure, meaning in rows:
        line = Text.assemble(f"  {name:<{names}}  ", (f"{figure:>{figures}}", "bold"), "  ", (meaning, "dim"))
        console.print(line, soft_wrap=True, highlight=False)


def show_check(console: Console, claim: str, findings: tuple[str, ...]) -> None:
    """A claim, and what contradicts it."""
    plain = console.options.ascii_only
    good, bad = ("ok", "FAILED") if plain else ("✓", "✗")
    mark = Text.assemble("  ", (bad, "bold red") if findings else (good, "green"), " ", claim)
    console.print(mark, soft_wrap=True, highlight=False)
    for finding in findings[:FINDINGS_MAX]:
        console.print(Text(f"      {finding}", style="red"), soft_wrap=True, highlight=False)
    if len(findings) > FINDINGS_MAX:
        console.print(Text(f"      and {len(findings) - FINDINGS_MAX:,} more", style="red"), highlight=False)
