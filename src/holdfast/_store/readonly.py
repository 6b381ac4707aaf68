"""A database that is only looked at: nothing is written into it or beside it, whoever uses it meanwhile.

`SqliteFile` cannot do that: it makes the turnstile's files and migrates. Here there are two ways to open.

    somebody has it open, or a crash left a log     mode=ro            reads beside writers, as every reader does
    it was closed cleanly: there is no -wal         immutable=1        SQLite takes no lock and makes no file

With `mode=ro` alone SQLite would make a log and its index beside a database that was closed cleanly, and leave them
there. With `immutable` it would not notice a worker that starts meanwhile. So the second way is taken back: a process
that opens the database for writing makes a -wal before it changes anything, and only a checkpoint changes the database
itself. Whoever reads here looks before *and after* each read whether there is still no log and the file is the one it
was; if not, what was read is dropped and read again in the first way.

Every `read` is one short transaction: it sees one state of the database, and does not keep the log from being reset.
The turnstile is not used. Turns order commits and checkpoints, and a connection that cannot write makes neither.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote

from holdfast._store.migrate import migrate
from holdfast._store.place import real_path
from holdfast._store.sqlfile import load
from holdfast._store.sqlite_contents import refuse_foreign
from holdfast._store.sqlite_faults import SQLITE_FAULTS, translate
from holdfast._store.turnstile import NoTurnstile
from holdfast.errors import StoreCorrupt, StoreError, StoreUnavailable

T = TypeVar("T")

BUSY_SECONDS: Final = 30.0


class ReadOnlyDatabase:
    """A database file that is only read. Use it in one thread, as a context manager.

    Args:
        path: the file.

    Attributes:
        path: the real path.
        behind: how many migrations of this release the database lacks; they are not applied.

    Raises:
        StoreUnavailable: there is no such file, or it cannot be read.
        StoreCorrupt: it is not a database, belongs to another application, or holds no runs.
        SchemaMismatch: it is newer than this release.
    """

    def __init__(self, path: Path) -> None:
        self.path = real_path(path)
        self.behind = 0
        self._sql = load("sqlite.sql")
        self._connection: sqlite3.Connection | None = None
        self._sealed: tuple[int, ...] | None = None

    def __enter__(self) -> Self:
        if not self.path.is_file():
            raise StoreUnavailable(f"no database at {self.path}", hint="look at the path")
        try:
            self.behind = self.read(self._examine)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. May be called twice."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def statement(self, name: str) -> str:
        """A statement of `sqlite.sql`."""
        return self._sql[name]

    def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run `query` in one read transaction. Keep it short, and let it have no effects: it may be called twice.

        Raises:
            StoreError: the database cannot be read.
        """
        try:
            while True:
                connection = self._connection or self._open()
                answer = self._in_transaction(connection, query)
                if self._sealed is None or self._sealed == self._seal():
                    return answer
                self.close()  # somebody has opened it for writing since: read again, as everybody does
        except SQLITE_FAULTS as error:
            self.close()
            raise self._meaning(error) from error

    def _meaning(self, error: sqlite3.Error | UnicodeDecodeError) -> StoreError:
        meaning, log = translate(error, self.path), Path(f"{self.path}-wal")
        if isinstance(meaning, StoreUnavailable) and log.exists():
            return StoreUnavailable(
                f"{meaning.message}; its log {log} can only be read where the index beside it can be made",
                hint="let this user write into the folder, or look at a copy made by `holdfast backup`",
            )
        return meaning

    def _in_transaction(self, connection: sqlite3.Connection, query: Callable[[sqlite3.Connection], T]) -> T:
        try:
            connection.execute("begin")
            return query(connection)
        except Exception:
            if self._sealed is None or self._sealed == self._seal():
                raise
            return None  # type: ignore[return-value]  # torn by a writer, whatever it looked like; `read` drops it
        finally:
            if connection.in_transaction:
                connection.execute("rollback")

    def _open(self) -> sqlite3.Connection:
        self._sealed = self._seal()
        how = "mode=ro" if self._sealed is None else "mode=ro&immutable=1"
        connection = sqlite3.connect(
            f"file:{quote(bytes(self.path))}?{how}", uri=True, timeout=BUSY_SECONDS, isolation_level=None
        )
        connection.execute("pragma trusted_schema = off")
        connection.row_factory = sqlite3.Row
        self._connection = connection
        return connection

    def _seal(self) -> tuple[int, ...] | None:
        """What identifies a file that nobody has open for writing; none when somebody may have."""
        if os.path.exists(f"{self.path}-wal") or os.path.exists(f"{self.path}-journal"):
            return None
        status = os.stat(self.path)
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    def _examine(self, connection: sqlite3.Connection) -> int:
        """How many migrations are missing; raises where this is no database of ours, or a newer one."""
        refuse_foreign(connection, self.path)
        if connection.execute("select 1 from sqlite_master where name = 'holdfast_runs'").fetchone() is None:
            raise StoreCorrupt(f"{self.path} holds no runs of holdfast", hint="give the path of a holdfast database")
        return len(migrate(connection, NoTurnstile(), now_us=0, dry_run=True))


def row_dict(row: sqlite3.Row) -> dict[str, Any]:
    """A row by the names of its columns, whatever this schema calls them."""
    return dict(zip(row.keys(), row, strict=True))
