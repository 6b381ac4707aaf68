"""Backups under way in this process: each in a thread of its own, with a connection of its own.

A copy holds its snapshot for as long as it copies, so it must not sit in the reader's thread, where everything else
would wait behind it. The connection is the file's, so that forks know of it: a fork in another thread waits until the
copying is over.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from holdfast._model.copies import Backup
from holdfast._store.backup import Counts, Stopped, back_up
from holdfast._store.sqlite_faults import translate
from holdfast._store.sqlitefile import SqliteFile
from holdfast._store.thread import StoreThread
from holdfast.errors import NotOpen, UsageError


class Copies:
    """The copies of one store."""

    def __init__(self) -> None:
        self._under_way: dict[asyncio.Task[Backup], threading.Event] = {}

    async def make(self, file: SqliteFile, target: Path, *, force: bool) -> Backup:
        """Make one. Cancelling the caller gives it up, and returns when nothing is left of it.

        Raises:
            NotOpen: the store was closed meanwhile.
            UsageError: the database is in memory.
        """
        source = file.path
        if source is None:
            raise UsageError("a database in memory cannot be backed up", hint="use a file: sqlite:///orders.db")
        stop = threading.Event()
        task = asyncio.create_task(_in_a_thread(lambda: _copy(file, source, target, force, stop)))
        self._under_way[task] = stop
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait({task})
            raise
        except Stopped:
            raise NotOpen("the app was closed while its database was copied", hint="back it up again") from None
        finally:
            del self._under_way[task]

    async def end(self) -> None:
        """Give up what is under way; no connection of theirs is open any more when this returns."""
        for stop in self._under_way.values():
            stop.set()
        if self._under_way:
            await asyncio.wait([*self._under_way])


async def _in_a_thread(work: Callable[[], Backup]) -> Backup:
    thread = StoreThread("holdfast-backup")
    try:
        return await thread.call(work)
    finally:
        await thread.stop()


def _copy(file: SqliteFile, source: Path, target: Path, force: bool, stop: threading.Event) -> Backup:
    def snapshot(query: Callable[[sqlite3.Connection], Counts]) -> Counts:
        with file.reading() as connection:
            connection.execute("begin")
            try:
                return query(connection)
            finally:
                connection.execute("rollback")

    try:
        return back_up(snapshot, source, target, force=force, stop=stop)
    except sqlite3.Error as error:
        raise translate(error, source) from error
    finally:
        file.close_thread()
