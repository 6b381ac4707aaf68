"""The size of an SQLite file, and how it shrinks while it is used.

What pruning removes becomes free pages, which the next writes take; under steady load that is all there is to do.
Databases that we made keep `auto_vacuum = incremental`: `pragma incremental_vacuum(N)` moves pages from the end of the
file into N free ones and gives the end back. That is a write like any other, so it happens in the caller's turn, a few
pages at a time: measured 64 pages in 6 ms, 1,024 in 98 ms.

The file itself becomes smaller with a checkpoint, which SQLite would start by itself only after many more commits. So
the last piece ends with one, in the same turn: passive, since it must not wait for readers while others wait for us.

A database that an application made without `auto_vacuum` cannot shrink this way. Making it so means `vacuum`, which
rewrites everything under a lock: that is the operator's decision, and `holdfast doctor` says how.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from holdfast._store.port import Space

PAGES_AT_ONCE: Final = 64
NONE: Final = 0
INCREMENTAL: Final = 2
"""Values of `pragma auto_vacuum`."""


def space(connection: sqlite3.Connection) -> Space:
    """What the file takes, and what of it is free; what is still in the log counts as if it were in the file."""
    page = _pragma(connection, "page_size")
    return Space(_pragma(connection, "page_count") * page, _pragma(connection, "freelist_count") * page)


def compact(connection: sqlite3.Connection, *, keep: int) -> int:
    """One piece of what is free beyond `keep` bytes, in the caller's turn; bytes given back."""
    if _pragma(connection, "auto_vacuum") != INCREMENTAL:
        return 0
    before = space(connection)
    page = _pragma(connection, "page_size")
    excess = (before.free - keep) // page
    if excess <= 0:
        return 0
    _vacuum(connection, min(excess, PAGES_AT_ONCE))
    if excess <= PAGES_AT_ONCE:
        connection.execute("pragma wal_checkpoint(passive)").fetchall()
    return before.size - space(connection).size


def _vacuum(connection: sqlite3.Connection, pages: int) -> None:
    # As a script: Connection.execute takes one step of a statement without columns, and a step is one page.
    try:
        connection.executescript(f"begin immediate; pragma incremental_vacuum({pages}); commit")
    except BaseException:
        if connection.in_transaction:
            connection.execute("rollback")
        raise


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"pragma {name}").fetchone()[0]
    return value
