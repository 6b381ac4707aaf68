"""`holdfast backup` and `holdfast restore`: the whole database as a file, and back."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click
from rich.text import Text

from holdfast._model.copies import Backup
from holdfast._store import restore as restoring
from holdfast._store.backup import Progress, back_up
from holdfast._store.readonly import ReadOnlyDatabase
from holdfast._world import SystemWorld
from holdfast.cli.answers import say, write_json
from holdfast.cli.opening import existing, location
from holdfast.cli.settings import Settings, pass_settings, shared_options
from holdfast.cli.words import folded, size
from holdfast.errors import UsageError

_THE_PAST: Final = (
    "a restored backup is the past: what happened after it was made is not known to it and is executed again once a "
    "worker opens it; idempotency keys are the same as the first time"
)


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE if it exists; by a whole copy or not at all.")
@shared_options
@pass_settings
def backup(settings: Settings, file: Path, force: bool) -> None:
    """Copy the database into FILE, while workers are working.

    The copy is one consistent state, verified, readable by you alone, and on the disk when this ends. The database is
    only read.
    """
    if str(file) == "-":
        raise UsageError("a backup is a file, and standard output may be none", hint="name one: holdfast backup b.db")
    with ReadOnlyDatabase(existing(location(settings))) as database, _progress(settings) as progress:
        made = back_up(database.read, database.path, file, force=force, progress=progress)
    if settings.is_json:
        write_json(settings, _value(made))
    else:
        settings.out.print(
            f"{made.path}  {size(made.size)}, {_held(made.runs, made.entries)}, verified", soft_wrap=True
        )


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@shared_options
@pass_settings
def restore(settings: Settings, file: Path) -> None:
    """Put the backup FILE in the place of the database. The old database stays beside it, under another name.

    Refused while a process uses the database: stop every worker first. FILE itself is left as it is.
    """
    path = location(settings).path
    if path is None:
        raise UsageError("a database in memory cannot be restored", hint="name a file: --db sqlite:///orders.db")
    if not file.exists():
        raise UsageError(f"there is no file {file}", hint="give one made by `holdfast backup FILE`")
    with _progress(settings) as progress:
        done = restoring.restore(file, path, world=SystemWorld(), progress=progress)
    if settings.is_json:
        kept = None if done.kept is None else str(done.kept)
        write_json(settings, {"database": str(done.path), "kept": kept, "runs": done.runs, "entries": done.entries})
        say(settings, _THE_PAST)
        return
    settings.out.print(f"restored  {done.path}  {_held(done.runs, done.entries)}, verified", soft_wrap=True)
    if done.kept is not None:
        settings.out.print(f"kept      {done.kept}", soft_wrap=True)
    for line in folded(_THE_PAST, settings.err.width):
        settings.err.print(Text(line, style="dim"), soft_wrap=True)


@contextmanager
def _progress(settings: Settings) -> Generator[Progress | None]:
    """A line on a terminal: what is done, and how much of it."""
    if not settings.err.is_terminal or settings.is_json:
        yield None
        return
    with settings.err.status("reading", spinner="dots", spinner_style="cyan") as status:

        def tell(what: str, done: int, total: int) -> None:
            status.update(f"{what} {done / total:.0%} of {total:,} pages" if total else what)

        yield tell


def _held(runs: int, entries: int) -> str:
    return f"{runs:,} {'run' if runs == 1 else 'runs'}, {entries:,} {'entry' if entries == 1 else 'entries'}"


def _value(made: Backup) -> dict[str, object]:
    return {"file": str(made.path), "bytes": made.size, "runs": made.runs, "entries": made.entries, "verified": True}
