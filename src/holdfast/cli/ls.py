"""`holdfast ls`: runs, newest first."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import click
from rich.text import Text

from holdfast import Client, RunInfo, RunState
from holdfast.cli.answers import run_value, write_list
from holdfast.cli.filters import Filters, filter_options
from holdfast.cli.grid import grid
from holdfast.cli.opening import with_client
from holdfast.cli.settings import Settings, pass_settings, shared_options
from holdfast.cli.strangers import UNKNOWN, waits_because
from holdfast.cli.watching import watch
from holdfast.cli.words import age, note_of, now, state_text


@click.command("ls")
@filter_options
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="At most so many.")
@click.option("-w", "--watch", "watched", is_flag=True, help="Look again every half second, until Ctrl-C.")
@shared_options
@pass_settings
def ls(settings: Settings, filters: Filters, limit: int, watched: bool) -> None:
    """List runs, newest first."""

    async def work(client: Client) -> None:
        async def look() -> Listed:
            runs = await client.list(limit=limit, **filters.conditions())
            return Listed(runs, {} if settings.is_json else await waits_because(client, runs))

        if watched:
            await watch(settings, look=look, draw=partial(_draw, settings), write=partial(_write, settings))
            return
        listed = await look()
        _write(settings, listed)
        if len(listed.runs) == limit and settings.err.is_terminal and not settings.is_json:
            total = await client.count(**filters.conditions())
            if total > limit:
                settings.err.print(f"the newest {limit} of {total:,}; --limit shows more", style="dim")

    with_client(settings, work)


class Listed(NamedTuple):
    """Runs, and why those of some workflows wait for good."""

    runs: list[RunInfo]
    waiting: dict[str, str]

    def note(self, run: RunInfo) -> Text:
        """What matters most about a run besides its state."""
        if run.state is RunState.READY and self.waiting.get(run.workflow) == UNKNOWN:
            return Text(UNKNOWN, style="yellow")
        return note_of(run)


def _write(settings: Settings, listed: Listed) -> None:
    if settings.is_json:
        write_list(settings, map(run_value, listed.runs))
    elif not listed.runs:
        settings.err.print("no runs", style="dim")
    else:
        settings.out.print(_draw(settings, listed), soft_wrap=True)


def _draw(settings: Settings, listed: Listed) -> Text:
    if not listed.runs:
        return Text("no runs", style="dim")
    seen = now()
    rows = [
        [Text(run.id), Text(run.workflow), state_text(run.state), Text(age(seen - run.created_at)), listed.note(run)]
        for run in listed.runs
    ]
    return grid(("id", "workflow", "state", "age", ""), rows, right={"age"}, last_fits=settings.out.width)
