"""What is in a file before we open it: a database of ours, one that may become ours, or somebody else's.

Looked at through SQLite, since nothing else may open the file, and so that nothing is written: not a byte, not a file
beside it. An application's database is left alone when it bears a mark of its own, when it has tables with our names
that we did not make, and, unless it was said that we may join them, when it has any tables and none of ours.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final
from urllib.parse import quote

from holdfast._store.sqlite_faults import SQLITE_FAULTS, translate
from holdfast.errors import StoreCorrupt, StoreUnavailable, UsageError

APPLICATION_ID: Final = 0x686F6C64
"""`hold` in ASCII: marks databases that we made. One that an application made keeps its own mark, or none."""
SMALLEST_PAGE_BYTES: Final = 512
TABLES_NAMED_MAX: Final = 3


def check_contents(path: Path, *, joins: bool, again: int = 2) -> None:
    """Look at an existing file through SQLite, before anything of ours is written beside it."""
    if not _has_log(path):
        # As a file at rest: a connection that looks for a log makes one, and leaves it beside a database not ours.
        try:
            return _look(path, "mode=ro&immutable=1", joins=joins)
        except StoreCorrupt:
            if not again:
                raise
            # It may be torn: somebody has written meanwhile, or does.
            return check_contents(path, joins=joins, again=again - 1)
    try:
        _look(path, "mode=ro", joins=joins)
    except StoreUnavailable as error:
        if not _is_read_only(error.__cause__):
            raise
        # A crash left a journal that a reader may not play back: let SQLite recover, as any program's opening would.
        _look(path, "mode=rw", joins=joins)


def _has_log(path: Path) -> bool:
    return os.path.exists(f"{path}-wal") or os.path.exists(f"{path}-journal")


def _is_read_only(error: BaseException | None) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY


def _look(path: Path, how: str, *, joins: bool) -> None:
    try:
        connection = sqlite3.connect(f"file:{quote(bytes(path))}?{how}", uri=True, timeout=30.0)
        try:
            refuse_foreign(connection, path)
            if not joins:
                _refuse_to_join(connection, path)
        finally:
            connection.close()
    except SQLITE_FAULTS as error:
        raise translate(error, path) from error


def refuse_foreign(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a database that another application has marked as its own, or that has tables with our names.

    Raises:
        StoreCorrupt: it is one, or a file that is too short to be any.
    """
    if 0 < path.stat().st_size < SMALLEST_PAGE_BYTES:
        # SQLite would take it for empty, and write over it.
        raise StoreCorrupt(f"{path} is not a database: it is too short", hint="it was left as it is; give another path")
    owner = connection.execute("pragma application_id").fetchone()[0]
    if owner not in {0, APPLICATION_ID}:
        raise StoreCorrupt(
            f"{path} belongs to another application (application_id {owner:#x})",
            hint="give holdfast a file of its own; nothing was written to this one",
        )
    like_ours = "type in ('table', 'view') and name like 'holdfast@_%' escape '@'"
    names = [row[0] for row in connection.execute(f"select name from sqlite_master where {like_ours} order by name")]
    columns = {row[0] for row in connection.execute("select name from pragma_table_info('holdfast_migrations')")}
    if names and not columns >= {"number", "name", "checksum"}:
        raise StoreCorrupt(
            f"{path} has a table {names[0]} that holdfast did not make",
            hint="give holdfast a file of its own; nothing was written to this one",
        )


def _refuse_to_join(connection: sqlite3.Connection, path: Path) -> None:
    """Our tables go beside those of another program only where somebody has made them there on purpose."""
    query = "select name from sqlite_master where type = 'table' and name not like 'sqlite@_%' escape '@' order by name"
    names = [row[0] for row in connection.execute(query)]
    if names and "holdfast_migrations" not in names:
        more = ", ..." if len(names) > TABLES_NAMED_MAX else ""
        raise UsageError(
            f"{path} holds tables of another program: {', '.join(names[:TABLES_NAMED_MAX])}{more}",
            hint="nothing was written; choose another path, or, if it is meant to hold both, `holdfast migrate` first",
        )
