"""Facts about a database for `holdfast doctor`: read on the reader's connection, judged by the command line."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

_PRAGMAS: Final = ("journal_mode", "synchronous", "foreign_keys", "page_size", "auto_vacuum", "wal_autocheckpoint")


def examine(connection: sqlite3.Connection) -> dict[str, Any]:
    """Integrity, pragmas of a connection of ours, size and schema. Reads the whole file."""
    pragmas = {name: connection.execute(f"pragma {name}").fetchone()[0] for name in _PRAGMAS}
    pages = connection.execute("pragma page_count").fetchone()[0]
    free = connection.execute("pragma freelist_count").fetchone()[0]
    schema = connection.execute("select max(number) from holdfast_migrations").fetchone()[0]
    return {
        "integrity": [row[0] for row in connection.execute("pragma integrity_check(10)")],
        "broken_references": len(connection.execute("pragma foreign_key_check").fetchall()),
        "pragmas": pragmas,
        "sqlite_version": sqlite3.sqlite_version,
        "pages": pages,
        "pages_free": free,
        "schema": schema,
    }
