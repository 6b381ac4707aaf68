"""Putting a backup in the place of a database, and keeping what was there.

    verify the backup into a draft beside the database                  nothing is changed yet
    take the turn · nobody alive? · fold the log in                     as any last closing does
    old  ──link──> kept     old-wal ──link──> kept-wal                  two names for what is there
    unlink old-wal, old-shm                                             never beside another database
    draft ──rename──> old                                               from here on the backup is the database

**Who might be using it.** A worker holds the lock of its file for life; whoever else has the database open holds
SQLite's shared lock on it, so an exclusive lock is refused. Both are asked inside a turn, and whoever opens the
database meanwhile waits for that turn, then finds another file and says so.

**What can crash where.** A log that stays beside a database that is not its own would be played back into it, so it
must go before the backup comes. Between the two the old database is without its log; if the process dies there, the
database has two names, and a database with two names is refused by all of ours (`place.refuse_hard_link`) until a
person has looked: `kept` and its log are complete. Nothing is unlinked that has no other name, but for the -shm, which
is only an index of the log.

A damaged database can be replaced like any other, and its log is kept with it. Whether it can be read is asked of a
connection that cannot write: at its closing any other would fold the log into the damaged file, or delete it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from holdfast._store import lifelock, place
from holdfast._store.backup import Draft, Progress, sync
from holdfast._store.readonly import ReadOnlyDatabase
from holdfast._store.sqlite_faults import SQLITE_FAULTS, translate
from holdfast._store.turnstile import Turnstile
from holdfast._world import World
from holdfast.errors import SchemaMismatch, StoreBusy, StoreCorrupt, UsageError


class Restored(NamedTuple):
    """What `restore` did: the database, what became of the old one, and what the new one holds."""

    path: Path
    kept: Path | None
    runs: int
    entries: int


def restore(backup: Path, target: Path, *, world: World, progress: Progress | None = None) -> Restored:
    """Make a copy of `backup` the database at `target`; the old one stays beside it under another name.

    Raises:
        UsageError: the backup has a log beside it, or is the database itself.
        StoreUnavailable: there is no such backup.
        StoreCorrupt: the backup is damaged or no database of ours.
        SchemaMismatch: it is newer than this release.
        StoreBusy: a process uses the database.
        StoreUnsupported: the database would lie on a network file system, or has two names already.
    """
    target = place.real_path(target)
    _check_backup(backup, target)
    place.check(target)
    if target.exists():
        _is_readable(target)  # before anything is made beside it
    with Draft(target) as draft:
        with ReadOnlyDatabase(backup) as source:
            counts = draft.fill(source.read, source.path, progress=progress, stop=threading.Event())
        sync(draft.path)
        turnstile = Turnstile(target)
        try:
            with turnstile.turn():
                kept = _exchange(draft.path, target, world)
        finally:
            turnstile.close()
    return Restored(target, kept, counts.runs, counts.entries)


def _check_backup(backup: Path, target: Path) -> None:
    if place.real_path(backup) == target:
        raise UsageError(f"{backup} is the database itself", hint="give a file made by `holdfast backup`")
    if os.path.exists(f"{backup}-wal"):
        raise UsageError(
            f"{backup} has a log beside it: it is a database in use, or one that was killed",
            hint="make a backup of it: holdfast backup FILE --db ...",
        )


def _exchange(draft: Path, target: Path, world: World) -> Path | None:
    """In a turn: see that nobody is there, keep the old, put the new in its place."""
    for worker in _living_workers(target):
        raise StoreBusy(f"worker {worker} is working on {target}", hint="stop every worker, then restore")
    kept = None
    if target.exists():
        if _is_readable(target):
            _fold(target)
        kept = _kept_name(target, world)
        os.link(target, kept)
    kept = _set_log_aside(target, kept, world)
    sync(target.parent)
    os.replace(draft, target)
    sync(target.parent)
    return kept


def _is_readable(target: Path) -> bool:
    """Whether it is a database of ours that SQLite can read; a database of another application is not replaced."""
    try:
        with ReadOnlyDatabase(target):
            return True
    except SchemaMismatch:
        return True
    except StoreCorrupt as error:
        if isinstance(error.__cause__, SQLITE_FAULTS):
            return False
        raise


def _fold(target: Path) -> None:
    """Make sure that nobody has it open, and let SQLite fold the log into it."""
    try:
        connection = sqlite3.connect(f"file:{quote(bytes(target))}?mode=rw", uri=True, timeout=0, isolation_level=None)
        try:
            connection.execute("pragma locking_mode = exclusive")
            connection.execute("begin immediate")
            connection.execute("rollback")
        finally:
            connection.close()  # the last one: folds the log in and removes it
    except SQLITE_FAULTS as error:
        meaning = translate(error, target)
        if isinstance(meaning, StoreBusy):
            raise StoreBusy(
                f"{target} is open in another process",
                hint="stop every worker and every program that uses it, then restore",
            ) from error
        raise meaning from error


def _set_log_aside(target: Path, kept: Path | None, world: World) -> Path | None:
    """A log that could not be folded, or that stands there without its database, goes with the old one."""
    log = Path(f"{target}-wal")
    if log.exists():
        kept = kept or _kept_name(target, world)
        os.link(log, f"{kept}-wal")
        sync(target.parent)
        log.unlink()
    Path(f"{target}-shm").unlink(missing_ok=True)
    return kept


def _kept_name(target: Path, world: World) -> Path:
    at = datetime.fromtimestamp(world.now_us() / 1_000_000, UTC)
    name = f"{target.name}.before-restore-{at:%Y%m%dT%H%M%SZ}"
    names = (target.with_name(name if not again else f"{name}-{again}") for again in range(1000))
    return next(path for path in names if not path.exists() and not Path(f"{path}-wal").exists())


def _living_workers(target: Path) -> Iterator[str]:
    prefix = f"{target.name}-worker-"
    for file in target.parent.iterdir():
        worker = file.name.removeprefix(prefix)
        if worker != file.name and worker.isalnum() and not lifelock.is_free(target, worker):
            yield worker
