"""`holdfast ls`: runs, newest first."""

from __future__ import annotations

from functools import partial

import click
from rich.text import Text

from holdfast import Client, RunInfo
from holdfast.cli.answers import run_value, write_list
from holdfast.cli.filters import Filters, filter_options
from holdfast.cli.grid import grid
from holdfast.cli.opening import with_client
from holdfast.cli.settings import Settings, pass_settings, shared_options
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
        settings.out.print(_draw(settings, runs), soft_wrap=True)


def _draw(settings: Settings, runs: list[RunInfo]) -> Text:
    if not runs:
        return Text("no runs", style="dim")
    seen = now()
    rows = [
        [Text(run.id), Text(run.workflow), state_text(run.state), Text(age(seen - run.created_at)), note_of(run)]
        for run in runs
    ]
    return grid(("id", "workflow", "state", "age", ""), rows, right={"age"}, last_fits=settings.out.width)
