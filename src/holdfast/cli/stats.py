"""`holdfast stats`: counts of runs, and the workers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from holdfast import Client, RunState, Stats
from holdfast.cli.answers import write_json
from holdfast.cli.opening import with_client
from holdfast.cli.settings import Settings, pass_settings, shared_options
from holdfast.cli.watching import watch
from holdfast.cli.words import STYLES, age, now


@click.command()
@click.option("-w", "--watch", "watched", is_flag=True, help="Look again every half second, until Ctrl-C.")
@shared_options
@pass_settings
def stats(settings: Settings, watched: bool) -> None:
    """Count runs by workflow and state, and show the workers."""

    def write(seen: Stats) -> None:
        if settings.is_json:
            write_json(settings, _value(seen))
        else:
            settings.out.print(_draw(seen))

    async def work(client: Client) -> None:
        if watched:
            await watch(settings, look=client.stats, draw=_draw, write=write)
        else:
            write(await client.stats())

    with_client(settings, work)


def _value(seen: Stats) -> dict[str, Any]:
    workers = [
        {**row._asdict(), "started_at": _instant(row.started_at), "lease_until": _instant(row.lease_until)}
        for row in seen.workers
    ]
    return {"runs": [row._asdict() for row in seen.runs], "workers": workers}


def _draw(seen: Stats) -> RenderableType:
    if not seen.runs:
        return Group(Text("no runs", style="dim"), Text(), _workers(seen))
    return Group(_runs(seen), Text(), _workers(seen))


def _runs(seen: Stats) -> Table:
    """One row for each workflow, one column for each state that occurs."""
    counts = {(row.workflow, row.state): row.runs for row in seen.runs}
    workflows = sorted({workflow for workflow, _ in counts})
    states = [state.value for state in RunState if any(key[1] == state for key in counts)]
    table = _table("workflow", right=(*states, "all"))
    for workflow in workflows:
        row = [counts.get((workflow, state), 0) for state in states]
        table.add_row(workflow, *map(_count, row, states), f"{sum(row):,}")
    if len(workflows) > 1:
        sums = [seen.count(state) for state in states]
        table.add_row(Text("all", style="dim"), *map(_count, sums, states), f"{sum(sums):,}")
    return table


def _workers(seen: Stats) -> RenderableType:
    live = [row for row in seen.workers if row.state == "live"]
    if not live:
        return Text("no worker is entered as live", style="dim")
    table = _table("worker", "host", right=("pid", "up for", "lease"))
    instant = now()
    for row in live:
        left = (_instant(row.lease_until) - instant).total_seconds()
        lease = Text(f"{left:.0f} s left") if left > 0 else Text(f"{-left:.0f} s over", style="red")
        table.add_row(row.id, row.host, str(row.pid), age(instant - _instant(row.started_at)), lease)
    return table


def _table(*left: str, right: tuple[str, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _count(runs: int, state: str) -> Text:
    return Text(f"{runs:,}", style=STYLES[state]) if runs else Text("·", style="dim")


def _instant(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds / 1_000_000, UTC)
