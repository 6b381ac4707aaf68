"""What SQLite's errors mean. Locked is not corrupt, full is not broken."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from holdfast.errors import StoreBusy, StoreCorrupt, StoreError, StoreFull, StoreReplaced, StoreUnavailable

_MEANINGS: Final[dict[int, tuple[type[StoreError], str]]] = {
    sqlite3.SQLITE_BUSY: (StoreBusy, "another program holds a transaction open on this database"),
    sqlite3.SQLITE_LOCKED: (StoreBusy, "another connection of this process holds a lock"),
    sqlite3.SQLITE_PROTOCOL: (StoreBusy, "too many processes open this database at once; try again"),
    sqlite3.SQLITE_FULL: (StoreFull, "make room on the disk; work goes on by itself"),
    sqlite3.SQLITE_CORRUPT: (StoreCorrupt, "run `holdfast doctor`, keep a copy of all files, restore a backup"),
    sqlite3.SQLITE_NOTADB: (StoreCorrupt, "this file is not an SQLite database; it was left as it is"),
    sqlite3.SQLITE_CANTOPEN: (StoreUnavailable, "look at the path, its owner, and the number of open files"),
    sqlite3.SQLITE_READONLY: (StoreUnavailable, "the file, its folder or the mount is read-only for this user"),
    sqlite3.SQLITE_PERM: (StoreUnavailable, "look at the owner and the mode of the file"),
    sqlite3.SQLITE_NOLFS: (StoreUnavailable, "the file system cannot keep files this large"),
    sqlite3.SQLITE_IOERR: (StoreError, "the disk failed; stop, look at the system's log, then start again"),
}
_EXACTLY: Final[dict[int, tuple[type[StoreError], str]]] = {
    sqlite3.SQLITE_READONLY | (4 << 8): (StoreReplaced, "stop every process that uses it before it is moved"),
    # The log's index could not grow by a page. It holds nothing that a crash must not take, so trying again is safe.
    sqlite3.SQLITE_IOERR_SHMSIZE: (StoreFull, "make room on the disk; work goes on by itself"),
    sqlite3.SQLITE_IOERR_SHMOPEN: (StoreUnavailable, "look at the owner and the mode of the -shm file"),
}


NOT_UTF8: Final = "Could not decode to UTF-8"
SQLITE_FAULTS: Final = (sqlite3.Error, UnicodeDecodeError)
"""What `sqlite3` raises. The second when SQLite's message quotes a damaged schema."""
_SAYINGS: Final = ("no such table", "no such column", "malformed JSON", NOT_UTF8, "integer overflow")
"""What SQLite says of tables and values that are not as we made them, without a code that would tell."""


def translate(error: sqlite3.Error | UnicodeDecodeError, path: Path | None) -> StoreError:
    """What an error of SQLite means for the operator. Raise the result `from error`.

    An I/O error is a plain `StoreError`, which is not retryable: after a failed sync nobody knows what is on the disk.
    """
    if isinstance(error, UnicodeDecodeError):
        error = sqlite3.DatabaseError("its schema is damaged")
        error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_CORRUPT, "SQLITE_CORRUPT"
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    name: str = getattr(error, "sqlite_errorname", type(error).__name__)
    unknown = StoreError, "this is unexpected: please report it"
    kind, hint = _EXACTLY.get(code) or _MEANINGS.get(code & 0xFF, unknown)
    if code == sqlite3.SQLITE_ERROR and str(error).startswith(_SAYINGS):
        kind, hint = (
            StoreCorrupt,
            "somebody has changed its tables or values: run `holdfast doctor`, or restore a backup",
        )
    return kind(f"{path or 'the database'}: {error} ({name})", hint=hint)
