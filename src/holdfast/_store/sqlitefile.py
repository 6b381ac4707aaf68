"""One database file of this process: the checks before it is touched, and its connections.

    SqliteFile ── writer(), reader() ── one connection each per thread, opened when first asked for
               ── turnstile ─────────── every commit, checkpoint, opening and closing happens in a turn

Opening and closing take a turn, too. The first connection may have to replay the log, and the last one folds it into
the database and removes it. SQLite does the latter under an exclusive lock on the database, which no other connection
can then hold, so it cannot meet a commit even without a turn (a process that exits without closing is safe); inside
one, nobody who opens at that moment is told that the database is locked.

Nothing but SQLite opens the database, its `-wal` and its `-shm`: POSIX drops all locks of a process on a file when
*any* of its descriptors for that file is closed. So contents are looked at through SQLite, identity with `stat`, and
the file is created by us only while it does not exist. For the same reason there must be one SQLite library in the
process.

Connections are used by one thread each. They are opened without SQLite's own check of that, because whoever closes the
file closes all of them. What happens to them in a fork is told in `forks.py`: it costs a lock around their use.
"""

from __future__ import annotations

import logging
import sqlite3
import sys
import threading
import warnings
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Final
from urllib.parse import quote

from holdfast._store import place
from holdfast._store.forks import forks
from holdfast._store.sqlite_contents import APPLICATION_ID, check_contents
from holdfast._store.sqlite_faults import SQLITE_FAULTS, translate
from holdfast._store.turnstile import NoTurnstile, Turnstile
from holdfast._store.uri import SqliteUri
from holdfast.errors import (
    NotOpen,
    StoreReplaced,
    StoreUnsupported,
)

OLDEST_LIBRARY: Final = (3, 37, 0)
"""The first with STRICT tables."""
PAGE_BYTES: Final = 4096
CHECKPOINT_PAGES: Final = 4000
LOG_BYTES_MAX: Final = 64 * 1024 * 1024
CACHED_STATEMENTS: Final = 256
_INCREMENTAL: Final = 2
_OTHER_LIBRARIES: Final = ("apsw", "libsql", "libsql_experimental", "pysqlite2", "pysqlite3", "sqlean", "sqlcipher3")

_log = logging.getLogger("holdfast.engine")


class SqliteFile:
    """A database file, or a database in memory.

    In memory there is one connection, which is both writer and reader, and turns are free.

    Attributes:
        path: the real path, or none in memory.
        memory: whether it is in memory.
        turnstile: where the calling thread gets its turn; see `turnstile.py`.
        identity: device and inode.

    Raises:
        StoreUnsupported: the SQLite library is too old, the file has a hard link, or is on a network file system.
        StoreUnavailable: the folder or the file is missing, no file, or may not be written.
        StoreCorrupt: not a database, or one that another application has marked as its own.
        UsageError: it has tables of another program and none of ours, and nobody has said that we may join them.
    """

    def __init__(self, uri: SqliteUri, *, joins: bool = False) -> None:
        _check_library(sqlite3.sqlite_version_info)
        self.uri = uri
        self.joins = joins
        self.path = None if uri.path is None else place.real_path(uri.path)
        self.memory = self.path is None
        self.identity = (0, 0)
        self.turnstile: Turnstile = NoTurnstile()
        self._closed = False
        self._reset()
        if self.path is not None:
            self._claim(self.path)

    def _claim(self, path: Path) -> None:
        place.check(path)
        if path.exists():
            forks().check(place.identity(path), path)
            with forks().no_fork():
                check_contents(path, joins=self.joins)
        else:
            place.create(path)
        self.identity = place.identity(path)
        self.turnstile = Turnstile(path, mode=path.stat().st_mode & 0o666)
        _warn_of_other_libraries(tuple(name for name in _OTHER_LIBRARIES if name in sys.modules))
        forks().add(self)

    def _reset(self) -> None:
        self._mutex = threading.Lock()
        self._local = threading.local()
        self._threads: list[_Thread] = []

    # Connections.

    def writer(self) -> sqlite3.Connection:
        """The calling thread's connection for writing, in autocommit mode: begin and commit it yourself, in a turn.

        Raises:
            NotOpen: the file was closed.
            StoreError: it cannot be opened.
        """
        mine = self._mine()
        if mine.writer is None:
            mine.writer = self._open(query_only=False)
        return mine.writer

    def reader(self) -> sqlite3.Connection:
        """The calling thread's connection for reading. Use it inside `no_fork()`; keep reads short."""
        if self.memory:
            return self.writer()
        mine = self._mine()
        if mine.reader is None:
            mine.reader = self._open(query_only=True)
        return mine.reader

    def no_fork(self) -> AbstractContextManager[object]:
        """While the calling thread is in this block, a fork in another thread waits. Turns have the same effect.

        Whoever uses a connection outside of both may find it closed, and open again, between two of its calls. The
        block belongs outside of a turn that is taken in it, never the other way round: inside a turn it does nothing.
        """
        if self.memory or self.turnstile.held:
            return nullcontext()
        return self._mine()

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection, None, None]:
        """`reader()` inside `no_fork()`."""
        with self.no_fork():
            yield self.reader()

    def check_identity(self) -> None:
        """Make sure that the path still leads to the file that was opened. Costs a `stat`; opens nothing.

        Raises:
            StoreReplaced: it does not, or the turnstile's files were replaced.
            StoreUnsupported: somebody has made a hard link to it.
        """
        if self.path is None:
            return
        if place.identity(self.path) != self.identity:
            raise StoreReplaced(
                f"{self.path} is another file than the one that was opened",
                hint="stop every process that uses it before it is replaced, then start again",
            )
        self.turnstile.check()

    def close_thread(self) -> None:
        """Close the calling thread's connections."""
        mine: _Thread | None = getattr(self._local, "mine", None)
        if mine is not None and not self.memory:
            with self.turnstile.turn():
                mine.close()

    def close(self) -> None:
        """Close everything, in a turn. No thread may be using a connection. May be called twice."""
        if self._closed:
            return
        self._closed = True
        with forks().no_fork():  # a fork in another thread would wait for a turn on descriptors that are closed here
            with self.turnstile.turn():
                for thread in self.threads():
                    thread.close()
            self.turnstile.close()
            forks().remove(self)

    def _mine(self) -> _Thread:
        if self._closed:
            raise NotOpen(f"{self.path or 'the database in memory'} was closed", hint="open the app again")
        try:
            mine: _Thread = self._local.mine
        except AttributeError:
            mine = self._local.mine = self._new_thread()
        return mine

    def _new_thread(self) -> _Thread:
        with self._mutex:
            if self.memory and self._threads:
                return self._threads[0]
            thread = _Thread()
            self._threads.append(thread)
            return thread

    def _open(self, *, query_only: bool) -> sqlite3.Connection:
        if self.path is not None:
            forks().check(self.identity, self.path)
        with self.turnstile.turn():
            self._close_for_ended_threads()
            self.check_identity()
            try:
                connection = sqlite3.connect(
                    self._name(),
                    uri=True,
                    timeout=self.uri.busy_timeout,
                    isolation_level=None,
                    check_same_thread=False,
                    cached_statements=CACHED_STATEMENTS,
                )
                self._prepare(connection, query_only=query_only)
            except SQLITE_FAULTS as error:
                raise translate(error, self.path) from error
        return connection

    def _name(self) -> str:
        # mode=rw: SQLite must not make a file, since it would be readable for all, and a missing one is a fault.
        return ":memory:" if self.path is None else f"file:{quote(bytes(self.path))}?mode=rw"

    def _prepare(self, connection: sqlite3.Connection, *, query_only: bool) -> None:
        try:
            _set_up(connection, self.uri, query_only=query_only)
            self.check_identity()
        except BaseException:
            connection.close()
            raise

    def _close_for_ended_threads(self) -> None:
        with self._mutex:
            ended = [thread for thread in self._threads if not self.memory and not thread.owner.is_alive()]
            self._threads = [thread for thread in self._threads if thread not in ended]
        for thread in ended:
            thread.close()

    # Forks; called by the handlers of `forks.py`, in this order.

    def threads(self) -> list[_Thread]:
        """What each thread has of this file."""
        with self._mutex:
            return list(self._threads)

    def connections(self) -> list[sqlite3.Connection]:
        """All that are open."""
        return [connection for thread in self.threads() for connection in thread.connections()]

    def in_use_here(self) -> bool:
        """Whether the calling thread is in a turn, in `no_fork()` or in a transaction."""
        mine: _Thread | None = getattr(self._local, "mine", None)
        if self.turnstile.held:
            return True
        return mine is not None and (mine.depth > 0 or any(c.in_transaction for c in mine.connections()))

    def rest(self) -> None:
        """Before a fork, in a turn, while all threads are held: close every connection, keep the objects."""
        for connection in self.connections():
            connection.close()

    def reopen(self) -> None:
        """In the parent, after a fork: the same objects, connected again."""
        for thread in self.threads():
            writer, thread.writer = thread.writer, None
            reader, thread.reader = thread.reader, None
            thread.writer = self._reopened(writer, query_only=False)
            thread.reader = self._reopened(reader, query_only=True)

    def _reopened(self, connection: sqlite3.Connection | None, *, query_only: bool) -> sqlite3.Connection | None:
        if connection is None:
            return None
        row_factory, text_factory = connection.row_factory, connection.text_factory
        sqlite3.Connection.__init__(  # connects an object anew; sqlite3 supports that and tests it
            connection,
            self._name(),
            uri=True,
            timeout=self.uri.busy_timeout,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=CACHED_STATEMENTS,
        )
        self._prepare(connection, query_only=query_only)
        connection.row_factory, connection.text_factory = row_factory, text_factory
        return connection

    def forget(self) -> None:
        """In the child: start without connections and without threads."""
        self.turnstile.abandon()
        self._reset()


class _Thread:
    """What one thread has of a file: its connections, and the lock that it holds while it uses them."""

    __slots__ = ("_lock", "depth", "owner", "reader", "writer")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.depth = 0
        self.owner = threading.current_thread()
        self.writer: sqlite3.Connection | None = None
        self.reader: sqlite3.Connection | None = None

    def __enter__(self) -> None:
        self._lock.acquire()
        self.depth += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.depth -= 1
        self._lock.release()

    def connections(self) -> list[sqlite3.Connection]:
        return [connection for connection in (self.writer, self.reader) if connection is not None]

    def close(self) -> None:
        """In a turn, in which no fork can be. Waiting for the lock there would be a circle: a fork waits with it."""
        for connection in self.connections():
            connection.close()
        self.writer = self.reader = None


# What is checked and set.


def _check_library(version: tuple[int, ...]) -> None:
    if version < OLDEST_LIBRARY:
        raise StoreUnsupported(
            f"this Python has SQLite {'.'.join(map(str, version))}; holdfast needs 3.37 or newer",
            hint="use a newer Python or a newer system SQLite",
        )


def _set_up(connection: sqlite3.Connection, uri: SqliteUri, *, query_only: bool) -> None:
    if connection.execute("pragma page_count").fetchone()[0] == 0:
        # These take effect before the first page is written, and never again. The turn makes us the only one here.
        connection.execute(f"pragma page_size = {PAGE_BYTES}")
        connection.execute(f"pragma auto_vacuum = {_INCREMENTAL}")
        connection.execute(f"pragma application_id = {APPLICATION_ID}")
    mode = connection.execute("pragma journal_mode = wal").fetchone()[0]
    if mode not in {"wal", "memory"}:
        raise StoreUnsupported(
            f"SQLite cannot keep a write-ahead log for {uri.path} (journal mode {mode})",
            hint="put the database on a local disk",
        )
    for pragma in _pragmas(uri):
        connection.execute(f"pragma {pragma}")
    if query_only:
        connection.execute("pragma query_only = on")


def _pragmas(uri: SqliteUri) -> list[str]:
    return [
        f"synchronous = {uri.synchronous}",
        "foreign_keys = on",
        "trusted_schema = off",
        "cell_size_check = on",
        "temp_store = memory",
        "mmap_size = 0",
        f"journal_size_limit = {LOG_BYTES_MAX}",
        f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
        # fsync of macOS does not reach the disk; elsewhere these do nothing.
        "fullfsync = on",
        "checkpoint_fullfsync = on",
    ]


@cache
def _warn_of_other_libraries(names: tuple[str, ...]) -> None:
    """Once per process and set of names."""
    if names:
        message = (
            f"{', '.join(names)} is loaded beside sqlite3: if it opens a holdfast database in this process, "
            "POSIX drops the locks of both and commits are lost"
        )
        _log.warning(message)
        warnings.warn(message, RuntimeWarning, stacklevel=2)


def wal_reset_bug(version: tuple[int, ...]) -> bool:
    """Whether a SQLite library can corrupt a database when a checkpoint runs beside a commit; turns prevent it."""
    if version[:2] in {(3, 44), (3, 50)}:
        return version < ((3, 44, 6) if version[1] == 44 else (3, 50, 7))
    return (3, 7, 0) <= version <= (3, 51, 2)
