"""`holdfast prune`: remove runs that have ended, after showing which, and give back the space."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import msgspec
from rich.text import Text

from holdfast import Client, Pruned
from holdfast.cli import problems
from holdfast.cli.answers import write_json
from holdfast.cli.grid import grid
from holdfast.cli.loading import load_app
from holdfast.cli.opening import with_client
from holdfast.cli.settings import Settings, pass_settings, shared_options
from holdfast.cli.unknown import say_unknown
from holdfast.cli.values import Duration
from holdfast.cli.words import age, now, size, state_text


@click.command()
@click.option("--older-than", type=Duration(), help="Runs that ended so long ago, such as 7d; 0 for every ended run.")
@click.option("--state", "states", multiple=True, metavar="STATE", help="Only runs that ended so; may be repeated.")
@click.option("--workflow", metavar="NAME", help="Only runs of this workflow.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
@click.option("--app", "target", metavar="MOD:APP", help="Go by the retention of this app.")
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@shared_options
@pass_settings
def prune(
    settings: Settings,
    older_than: float | None,
    states: tuple[str, ...],
    workflow: str | None,
    limit: int | None,
    target: str | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Remove ended runs with all their rows, and give back the space.

    Workers do so by themselves. Without --older-than, what has been kept longer than the retention goes: the app's with
    --app, else 7 days for succeeded runs, 30 for others. Runs that have not ended are never removed.
    """
    chosen = [part.strip() for state in states for part in state.split(",")]
    options = {"older_than": older_than, "states": chosen or None, "workflow": workflow, "limit": limit}
    pruning = _Pruning(settings, options, dry_run=dry_run, ask=not yes)
    with_client(settings, pruning.work, app=None if target is None else load_app(target))


class _Pruning:
    """One call of the command."""

    def __init__(self, settings: Settings, options: dict[str, Any], *, dry_run: bool, ask: bool) -> None:
        self._settings = settings
        self._options = options
        self._dry_run = dry_run
        self._ask = ask
        self._so_far = Pruned()

    async def work(self, client: Client) -> None:
        """Show, ask, remove."""
        if self._dry_run or self._ask:
            wanted = await client.prune(dry_run=True, **self._options)
            if self._dry_run:
                await self._write(client, wanted)
                return
            if wanted.runs:
                self._confirm(wanted)
        await self._remove(client)

    def _confirm(self, wanted: Pruned) -> None:
        what = f"remove {_runs(wanted.runs)} with {_entries(wanted.entries)} for good"
        if not sys.stdin.isatty():
            raise problems.ConfirmationNeeded(f"this would {what}", hint="add --yes, or look with --dry-run")
        self._settings.err.print(_table(wanted), soft_wrap=True)
        if not click.confirm(f"{what}?", err=True):
            raise problems.ConfirmationNeeded("nothing was removed")

    async def _remove(self, client: Client) -> None:
        try:
            with _progress(self._settings) as tell:

                def progress(so_far: Pruned) -> None:
                    self._so_far = so_far
                    tell(so_far)

                pruned = await client.prune(on_progress=progress, **self._options)
        except asyncio.CancelledError:  # asyncio's way of Ctrl-C
            self._settings.err.print(
                f"interrupted: {_runs(self._so_far.runs)} removed, the others are as they were", soft_wrap=True
            )
            raise
        await self._write(client, pruned)

    async def _write(self, client: Client, pruned: Pruned) -> None:
        if self._settings.is_json:
            write_json(self._settings, msgspec.to_builtins(pruned))
        else:
            if pruned.groups:
                self._settings.out.print(_table(pruned), soft_wrap=True)
            self._settings.out.print(_summary(pruned), soft_wrap=True)
        if not pruned.runs and self._options["workflow"] is not None:
            await say_unknown(self._settings, client, [self._options["workflow"]])


def _table(pruned: Pruned) -> Text:
    instant = now()
    rows = [
        [Text(group.workflow), state_text(group.state), Text(f"{group.runs:,}"), Text(age(instant - group.oldest))]
        for group in pruned.groups
    ]
    return grid(("workflow", "state", "runs", "oldest ended"), rows, right={"runs", "oldest ended"})


def _summary(pruned: Pruned) -> str:
    if pruned.dry_run:
        what = f"{_runs(pruned.runs)} with {_entries(pruned.entries)}"
        return f"would remove {what}; nothing was changed" if pruned.runs else "nothing to remove"
    if not pruned.runs and not pruned.entries:
        return f"nothing to remove{_freed(pruned)}"
    return f"removed {_runs(pruned.runs)} with {_entries(pruned.entries)}{_freed(pruned)}"


def _freed(pruned: Pruned) -> str:
    return f"; the database is {size(pruned.bytes_freed)} smaller" if pruned.bytes_freed else ""


def _runs(count: int) -> str:
    return f"{count:,} {'run' if count == 1 else 'runs'}"


def _entries(count: int) -> str:
    return f"{count:,} {'entry' if count == 1 else 'entries'}"


@contextmanager
def _progress(settings: Settings) -> Iterator[Callable[[Pruned], object]]:
    """On a terminal a line that counts, gone in the end."""
    if settings.is_json or not settings.err.is_terminal:
        yield lambda _: None
        return
    with settings.err.status("removing") as status:
        yield lambda so_far: status.update(f"removed {_runs(so_far.runs)} with {_entries(so_far.entries)}")
