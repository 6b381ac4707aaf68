"""`holdfast ls`: runs, newest first."""

from __future__ import annotations

import shlex
from functools import partial
from typing import Final, NamedTuple

import click
import msgspec
from rich.text import Text

from holdfast import Client, Page, RunInfo
from holdfast.cli.answers import run_value, write_list
from holdfast.cli.filters import Filters, QueryCommand, query_options
from holdfast.cli.grid import grid
from holdfast.cli.opening import with_client
from holdfast.cli.settings import Settings, pass_settings, shared_options
from holdfast.cli.strangers import NOBODY, START_ONE, waits_because
from holdfast.cli.unknown import say_unknown_workflows
from holdfast.cli.watching import watch
from holdfast.cli.words import age, note_of, now, state_text

TOTAL_MAX: Final = 10_000
"""How far a total is counted; beyond it is "10,000+"."""


@click.command("ls", cls=QueryCommand)
@query_options
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="At most so many.")
@click.option("--after", metavar="CURSOR", help="The page behind the one that named this cursor.")
@click.option("-w", "--watch", "watched", is_flag=True, help="Look again every half second, until Ctrl-C.")
@shared_options
@pass_settings
def ls(settings: Settings, filters: Filters, limit: int, after: str | None, watched: bool) -> None:
    """List runs, newest first.

    QUERY chooses them, such as: holdfast ls state:failed workflow:checkout 'started:>2h'
    """

    async def work(client: Client) -> None:
        async def look() -> Listed:
            runs = await client.list(limit=limit, after=after, **filters.conditions())
            return Listed(runs, await waits_because(client, runs))

        if watched:
            await watch(settings, look=look, draw=partial(_draw, settings), write=partial(_write, settings))
            return
        listed = await look()
        _write(settings, listed)
        if not listed.runs:
            await say_unknown_workflows(settings, client, filters)
        if listed.runs.next is not None and (settings.is_json or settings.err.is_terminal):
            total = None if settings.is_json else await client.count(limit=TOTAL_MAX + 1, **filters.conditions())
            _say_more(settings, filters, len(listed.runs), listed.runs.next, total)

    with_client(settings, work)


class Listed(NamedTuple):
    """Runs, and by their ids why some are not taken like others."""

    runs: Page
    waits: dict[str, str]

    def note(self, run: RunInfo) -> Text:
        """What matters most about a run besides its state."""
        reason = self.waits.get(run.id, NOBODY)
        return note_of(run) if reason == NOBODY else Text(reason, style="yellow")


def total_text(runs: int) -> str:
    """A capped count."""
    return f"{TOTAL_MAX:,}+" if runs > TOTAL_MAX else f"{runs:,}"


def _say_more(settings: Settings, filters: Filters, shown: int, cursor: str, total: int | None) -> None:
    """That there are more, and how to see them: for programs as JSON; both on stderr."""
    if total is None:
        settings.err.print(msgspec.json.encode({"next": cursor}).decode(), soft_wrap=True)
        return
    again = shlex.join(["holdfast", "ls", *filters.words(), "--limit", str(shown), "--after", cursor])
    settings.err.print(f"{shown:,} of {total_text(total)}; the next: {again}", style="dim", soft_wrap=True)


def _write(settings: Settings, listed: Listed) -> None:
    if settings.is_json:
        write_list(settings, [{**run_value(run), "waits": listed.waits.get(run.id)} for run in listed.runs])
    elif not listed.runs:
        settings.err.print("no runs", style="dim")
    else:
        settings.out.print(_draw(settings, listed), soft_wrap=True)
        if NOBODY in listed.waits.values():
            settings.err.print(f"{NOBODY}: {START_ONE}", style="dim", soft_wrap=True)


def _draw(settings: Settings, listed: Listed) -> Text:
    if not listed.runs:
        return Text("no runs", style="dim")
    seen = now()
    rows = [
        [Text(run.id), Text(run.workflow), state_text(run.state), Text(age(seen - run.created_at)), listed.note(run)]
        for run in listed.runs
    ]
    return grid(("id", "workflow", "state", "age", ""), rows, right={"age"}, last_fits=settings.out.width)
