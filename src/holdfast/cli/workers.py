"""`holdfast workers`: who executes runs on this database."""

from __future__ import annotations

from datetime import datetime

import click
import msgspec
from rich.text import Text

from holdfast import Client, WorkerInfo
from holdfast.cli.answers import write_list
from holdfast.cli.grid import grid
from holdfast.cli.opening import with_client
from holdfast.cli.settings import Settings, pass_settings, shared_options
from holdfast.cli.strangers import NOBODY, START_ONE, workers_seen
from holdfast.cli.watching import watch
from holdfast.cli.words import age, now

CAPTIONS = ("worker", "host", "pid", "state", "up for", "lease", "runs", "workflows")


@click.command()
@click.option("--all", "gone", is_flag=True, help="Also those that are gone since at most seven days.")
@click.option("-w", "--watch", "watched", is_flag=True, help="Look again every half second, until Ctrl-C.")
@shared_options
@pass_settings
def workers(settings: Settings, gone: bool, watched: bool) -> None:
    """Show the workers: their processes, leases, and how many runs each of them holds."""

    def draw(found: tuple[WorkerInfo, ...]) -> Text:
        return _draw(found, settings.out.width)

    def write(found: tuple[WorkerInfo, ...]) -> None:
        if settings.is_json:
            write_list(settings, map(msgspec.to_builtins, found))
        elif not found:
            settings.err.print(NOBODY, style="dim")
        else:
            settings.out.print(draw(found), soft_wrap=True)
            if all(worker.state != "live" for worker in found):
                settings.err.print(f"{NOBODY}: {START_ONE}", style="dim", soft_wrap=True)

    async def work(client: Client) -> None:
        async def look() -> tuple[WorkerInfo, ...]:
            return await workers_seen(client, gone=gone)

        if watched:
            await watch(settings, look=look, draw=draw, write=write)
        else:
            write(await look())

    with_client(settings, work)


def _draw(found: tuple[WorkerInfo, ...], width: int) -> Text:
    if not found:
        return Text(NOBODY, style="dim")
    seen = now()
    rows = [_row(worker, seen) for worker in found]
    return grid(CAPTIONS, rows, right={"pid", "up for", "lease", "runs"}, last_fits=width)


def _row(worker: WorkerInfo, seen: datetime) -> list[Text]:
    lives = worker.state == "live"
    style = "default" if lives else "dim"
    up_for = age((seen if lives else min(seen, worker.lease_until)) - worker.started_at)
    cells = (worker.id, worker.host, str(worker.pid), worker.state, up_for)
    known = Text(", ".join(worker.workflows), style=style)
    left = worker.lease_until - seen
    since = f"gone {age(-left)} ago" if worker.lease_until < seen else "gone"
    lease = lease_text(left.total_seconds()) if lives else Text(since, style=style)
    return [*(Text(cell, style=style) for cell in cells), lease, Text(f"{worker.runs:,}", style=style), known]


def lease_text(seconds_left: float) -> Text:
    """How long a lease still stands, or since when it has lapsed."""
    return Text(f"{seconds_left:.0f} s left") if seconds_left > 0 else Text(f"{-seconds_left:.0f} s over", style="red")
