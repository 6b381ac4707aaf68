"""`holdfast ls`: runs, newest first."""

from __future__ import annotations

from functools import partial

import click
from rich.cells import cell_len
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from holdfast import Client, RunInfo
from holdfast.cli.answers import run_value, write_list
from holdfast.cli.filters import Filters, filter_options
from holdfast.cli.opening import with_client
from holdfast.cli.settings import Settings, pass_settings, shared_options
from holdfast.cli.watching import watch
from holdfast.cli.words import age, note_of, now, state_text

NOTE_CELLS_MIN = 16


@click.command("ls")
@filter_options
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="At most so many.")
@click.option("-w", "--watch", "watched", is_flag=True, help="Look again every half second, until Ctrl-C.")
@shared_options
@pass_settings
def ls(settings: Settings, filters: Filters, limit: int, watched: bool) -> None:
    """List runs, newest first."""

    async def work(client: Client) -> None:
        async def look() -> list[RunInfo]:
            return await client.list(limit=limit, **filters.conditions())

        if watched:
            await watch(settings, look=look, draw=partial(_draw, settings), write=partial(_write, settings))
            return
        runs = await look()
        _write(settings, runs)
        if len(runs) == limit and settings.err.is_terminal and not settings.is_json:
            total = await client.count(**filters.conditions())
            if total > limit:
                settings.err.print(f"the newest {limit} of {total:,}; --limit shows more", style="dim")

    with_client(settings, work)


def _write(settings: Settings, runs: list[RunInfo]) -> None:
    if settings.is_json:
        write_list(settings, map(run_value, runs))
    elif not runs:
        settings.err.print("no runs", style="dim")
    else:
        # A run's id is there to be copied: where it does not fit, the line goes on beyond the edge.
        settings.out.print(_draw(settings, runs), width=max(settings.out.width, _needed(runs)), crop=False)


def _draw(settings: Settings, runs: list[RunInfo]) -> RenderableType:
    if not runs:
        return Text("no runs", style="dim")
    seen = now()
    with_note = settings.out.width - _needed(runs) >= NOTE_CELLS_MIN
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("id", "workflow", "state"):
        table.add_column(name, no_wrap=True)
    table.add_column("age", justify="right", no_wrap=True)
    if with_note:
        table.add_column("", no_wrap=True, overflow="ellipsis")
    for run in runs:
        cells = [Text(run.id), Text(run.workflow), state_text(run.state), Text(age(seen - run.created_at), style="dim")]
        table.add_row(*cells, *([note_of(run)] if with_note else []))
    return table


def _needed(runs: list[RunInfo]) -> int:
    """The cells of all columns but the last."""
    ids = max((cell_len(run.id) for run in runs), default=0)
    workflows = max((cell_len(run.workflow) for run in runs), default=0)
    return max(ids, 2) + max(workflows, 8) + len("✓ succeeded") + len("59 min") + 4 * 2
