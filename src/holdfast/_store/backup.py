"""A consistent copy of a database that is in use.

    pin one snapshot · count · copy its pages · let go      the source: one read transaction, nothing else
    verify · fsync · rename into place · fsync the folder   the copy: under a temporary name until it is all of it

**How it is copied.** SQLite's backup API, from a connection that holds a read transaction open. The transaction pins
one state of the database, so the pages can be copied piece by piece although others commit meanwhile; without it, the
API begins anew whenever another connection has written, and under load never ends. `vacuum into` needs no pinning, but
builds every table and index again: about twice the time, and all that time the snapshot is held, too (228 MB: 0.28 s
against 0.45 s).

**What it costs others.** Writers are not blocked: in WAL mode readers never block them, and a copy takes no turn at the
turnstile since it neither commits nor checkpoints. But while the snapshot is held the log cannot be reset, so it grows
by what is written meanwhile, until the first checkpoint after the copy. That time is the copying alone: verification,
which takes longer, reads the copy.

**What can crash where.** Until the rename there is a file with a temporary name, made 0600, which means nothing to
anybody. It is fsynced before the rename and the folder after it, so the name never stands for less than the copy. An
existing file is replaced only by `force`, and only by a whole one.

The copy is opened without locks (`nolock`, `immutable`): nobody knows its name yet, and so it may lie on a network file
system, where a database may not.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, Protocol, Self
from urllib.parse import quote

from holdfast._model.copies import Backup
from holdfast._store.place import real_path
from holdfast._store.sqlite_faults import SQLITE_FAULTS, translate
from holdfast.errors import StoreCorrupt, StoreError, StoreFull, StoreUnavailable, UsageError

PAGES_PER_PIECE: Final = 1024
"""4 MB: between two pieces the copy can be stopped and tells how far it is."""
STEPS_BETWEEN_LOOKS: Final = 100_000
PROBLEMS_MAX: Final = 3

Progress = Callable[[str, int, int], object]
"""Told what is being done (`copying`, `verifying`), and of how many pages how many are done."""


class Snapshot(Protocol):
    """Whoever gives a connection inside a read transaction; may do so twice, when the first one was torn."""

    def __call__(self, query: Callable[[sqlite3.Connection], Counts], /) -> Counts:
        """Run the query."""
        ...


class Counts(NamedTuple):
    """What a copy is compared by."""

    runs: int
    entries: int
    attributes: int


class Stopped(StoreError):
    """The copy was given up, because whoever wanted it is gone."""

    code = "stopped"


def back_up(
    snapshot: Snapshot,
    source: Path,
    target: Path,
    *,
    force: bool = False,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> Backup:
    """Copy, verify, and put in place. Blocks; runs in a thread of its own where a loop must go on.

    Args:
        snapshot: runs a query in a read transaction of the source.
        source: the database, for messages and so that it is not overwritten.
        target: the copy. It must not exist, unless `force`.
        progress: called from this thread.
        stop: set to give up.

    Raises:
        UsageError: the target exists, is the database itself, or is not a file.
        StoreUnavailable: the folder is missing or may not be written.
        StoreFull: no room; nothing is left behind.
        StoreCorrupt: the copy is damaged, and so the source is.
    """
    target = Path(f"/{os.path.abspath(target).lstrip('/')}")  # "//name" is a path, but in a URI a host
    try:
        _check_target(source, target, force=force)
    except OSError as error:
        raise StoreUnavailable(f"cannot look at {target}: {error.strerror}", hint="choose another path") from error
    with Draft(target) as draft:
        counts = draft.fill(snapshot, source, progress=progress, stop=stop)
        _refuse_existing(target, force=force)
        size = draft.path.stat().st_size
        draft.put()
    return Backup(path=target, size=size, runs=counts.runs, entries=counts.entries)


class Draft:
    """A copy under a temporary name beside its target; gone at the end of the block unless it was put in place."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target

    def __enter__(self) -> Self:
        try:
            descriptor, path = tempfile.mkstemp(
                prefix=f".{self.target.name}.", suffix=".partial", dir=self.target.parent
            )
        except OSError as error:
            raise StoreUnavailable(
                f"cannot make a file in {self.target.parent}: {error.strerror}", hint="look at the folder and its mode"
            ) from error
        os.close(descriptor)
        self.path = Path(path)
        return self

    def __exit__(self, *_error: object) -> None:
        self.path.unlink(missing_ok=True)

    def fill(
        self, snapshot: Snapshot, source: Path, *, progress: Progress | None, stop: threading.Event | None
    ) -> Counts:
        """Copy and verify."""
        stop = stop or threading.Event()
        tell = progress or _nothing
        counts = snapshot(lambda connection: self._copy(connection, tell, stop))
        found = verified(self.path, source, tell, stop)
        if found != counts:
            raise StoreCorrupt(
                f"the copy of {source} holds {found}, not {counts}", hint="run `holdfast doctor`; nothing was written"
            )
        return counts

    def put(self) -> None:
        """Make it durable and give it its name."""
        sync(self.path)
        os.replace(self.path, self.target)
        sync(self.target.parent)

    def _copy(self, source: sqlite3.Connection, tell: Progress, stop: threading.Event) -> Counts:
        counts = _counted(source)  # the first read pins the snapshot
        os.truncate(self.path, 0)  # of a first attempt that was torn

        def piece(_status: int, remaining: int, total: int) -> None:
            if stop.is_set():
                raise Stopped("the copy was given up")
            tell("copying", total - remaining, total)

        copy = sqlite3.connect(f"file:{quote(bytes(self.path))}?mode=rw&nolock=1", uri=True, isolation_level=None)
        try:
            copy.execute("pragma journal_mode = off")  # a draft that fails is thrown away
            copy.execute("pragma synchronous = off")  # `put` syncs it as a whole
            source.backup(copy, pages=PAGES_PER_PIECE, progress=piece)
        except SQLITE_FAULTS as error:
            meaning = translate(error, self.target)
            if isinstance(meaning, StoreFull):
                raise StoreFull(meaning.message, hint="make room there, or choose another place") from error
            raise meaning from error
        finally:
            copy.close()
        return counts


def verified(path: Path, source: Path, tell: Progress, stop: threading.Event) -> Counts:
    """Read a whole copy that nobody else uses, and count what is in it.

    Raises:
        StoreCorrupt: it is damaged; `source` is where it came from.
    """
    tell("verifying", 0, 0)
    connection = sqlite3.connect(f"file:{quote(bytes(path))}?mode=ro&immutable=1", uri=True)
    connection.set_progress_handler(stop.is_set, STEPS_BETWEEN_LOOKS)
    try:
        problems = [row[0] for row in connection.execute(f"pragma integrity_check({PROBLEMS_MAX})")]
        if problems != ["ok"]:
            raise StoreCorrupt(
                f"{source} is damaged, and a copy of it would be: {'; '.join(problems)}",
                hint="stop every worker, keep all of its files, and restore an earlier backup",
            )
        return _counted(connection)
    except SQLITE_FAULTS as error:
        if stop.is_set():
            raise Stopped("the copy was given up") from error
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            raise KeyboardInterrupt from error  # Ctrl-C in the handler, whose exceptions the sqlite3 module drops
        raise translate(error, source) from error
    finally:
        connection.close()


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_target(source: Path, target: Path, *, force: bool) -> None:
    both = os.path.exists(target) and os.path.exists(source)
    if real_path(target) == source or (both and os.path.samefile(target, source)):
        raise UsageError(f"{target} is the database itself", hint="give the copy a name of its own")
    if not os.path.isdir(target.parent):
        raise StoreUnavailable(f"there is no folder {target.parent}", hint=f"make it: mkdir -p {target.parent}")
    _refuse_existing(target, force=force)
    for suffix in ("-wal", "-journal"):
        # SQLite would play it back into the copy.
        if os.path.exists(f"{target}{suffix}"):
            raise UsageError(f"{target}{suffix} is there: {target} is in use, or was", hint="choose another name")


def _refuse_existing(target: Path, *, force: bool) -> None:
    """Only a file is replaced: the rename would put the copy in the place of a device or a pipe, too."""
    if os.path.islink(target):
        raise UsageError(f"{target} is a link to {os.readlink(target)}", hint="name the file itself")
    if os.path.isdir(target):
        raise UsageError(f"{target} is a folder", hint=f"name a file in it: {target / 'backup.db'}")
    if os.path.exists(target) and not os.path.isfile(target):
        raise UsageError(f"{target} is not a file, and a backup is one", hint="name a file")
    if os.path.exists(target) and not force:
        raise UsageError(
            f"{target} exists already", hint="choose another name, or replace it: --force, in Python force=True"
        )


def _counted(connection: sqlite3.Connection) -> Counts:
    tables = ("holdfast_runs", "holdfast_history", "holdfast_attributes")
    return Counts(*(connection.execute(f"select count(*) from {table}").fetchone()[0] for table in tables))


def _nothing(_what: str, _done: int, _total: int) -> None:
    """Nobody wants to know."""
