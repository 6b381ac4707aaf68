"""Brings a database to this code's schema, by numbered `.sql` files.

    migrations/sqlite/0001_initial.sql, 0002_....sql, ...    one row of holdfast_migrations for each applied

Each migration is one transaction inside the file's turn, which also records it. So a process that dies in the middle
leaves the previous schema, and of several processes that open at once each finds, inside its own transaction, what the
others have done: every migration is applied exactly once. There is no way down: going back is restoring a copy.

Code refuses what it does not know: a database with migrations that this release lacks (the code is older than the
data), or with a migration whose text was another one when it was applied.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast._store.sqlite_faults import SQLITE_FAULTS, translate
from holdfast._store.transaction import transaction
from holdfast._store.turnstile import Turnstile
from holdfast.errors import InternalError, SchemaMismatch, UsageError

_FILE: Final = re.compile(r"(\d{4})_(\w+)\.sql")
_NOTHING_LEFT: Final = re.compile(r"(\s|--[^\n]*(\n|$)|/\*.*?\*/)*", re.DOTALL)
_CREATE: Final = """
create table if not exists holdfast_migrations (
    number integer primary key,
    name text not null,
    checksum text not null,
    applied_at integer not null
) strict
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """Over the text; the kind of line ends does not matter."""
        return hashlib.sha256("\n".join(self.sql.splitlines()).encode()).hexdigest()

    def statements(self) -> Iterator[str]:
        """The statements one by one, since `executescript` would commit the transaction."""
        text = ""
        for piece in re.split(r"(?<=;)", self.sql):
            text += piece
            if sqlite3.complete_statement(text):
                yield text.strip()
                text = ""
        if not _NOTHING_LEFT.fullmatch(text):
            raise InternalError(f"migration {self.number:04} ends in the middle of a statement")


def packaged() -> Path:
    """The folder of the migrations that ship with this release."""
    return Path(__file__).parent / "migrations" / "sqlite"


def read(source: Path) -> list[Migration]:
    """The migrations of a folder, in order.

    Raises:
        InternalError: the numbers are not 1, 2, 3, ...
    """
    matches = [(match, file) for file in source.iterdir() if (match := _FILE.fullmatch(file.name))]
    known = [Migration(int(match[1]), match[2], file.read_text("utf-8")) for match, file in matches]
    known.sort(key=lambda migration: migration.number)
    if [migration.number for migration in known] != list(range(1, len(known) + 1)):
        raise InternalError(f"the migrations of {source} are not numbered 1, 2, 3, ...")
    return known


def migrate(
    connection: sqlite3.Connection,
    turnstile: Turnstile,
    *,
    now_us: int,
    target: int | None = None,
    dry_run: bool = False,
    source: Path | None = None,
) -> list[Migration]:
    """Apply what is missing, up to `target` or all, and return what this call applied (or would, in a dry run).

    Raises:
        SchemaMismatch: the database is newer than this code, or was made by other migrations.
        UsageError: `target` is below what is applied, or there is no such migration.
        StoreError: the database failed; the migration under way is undone, earlier ones stay.
    """
    known = read(source or packaged())
    _check_target(known, target)
    try:
        pending = _pending(connection, known, target)
        if dry_run or not pending:
            return pending
        return _apply_all(connection, turnstile, known, target, now_us)
    except SQLITE_FAULTS as error:
        raise translate(error, None) from error


def _check_target(known: Sequence[Migration], target: int | None) -> None:
    if target is not None and not 0 <= target <= len(known):
        raise UsageError(f"there is no migration {target}", hint=f"this release has 1 to {len(known)}")


def _pending(connection: sqlite3.Connection, known: Sequence[Migration], target: int | None) -> list[Migration]:
    """What is missing, after comparing what is there with what we know."""
    applied = _applied(connection)
    if len(applied) > len(known):
        raise SchemaMismatch(
            f"the database has migration {applied[-1][0]}, this release of holdfast knows {len(known)}",
            hint="upgrade holdfast: pip install --upgrade holdfast",
        )
    for (number, name, checksum), migration in zip(applied, known, strict=False):
        if (number, checksum) != (migration.number, migration.checksum):
            raise SchemaMismatch(
                f"migration {number:04}_{name} of the database is not the {migration.number:04}_{migration.name} "
                "of this release",
                hint="use the release that made the database, or restore a copy",
            )
    if target is not None and target < len(applied):
        raise UsageError(
            f"the database is at migration {len(applied)}, and there is no way down to {target}",
            hint="restore a copy from before the upgrade",
        )
    return list(known[len(applied) : target])


def _applied(connection: sqlite3.Connection) -> list[tuple[int, str, str]]:
    if not connection.execute("select 1 from sqlite_master where name = 'holdfast_migrations'").fetchone():
        return []
    rows = connection.execute("select number, name, checksum from holdfast_migrations order by number")
    return [(row[0], row[1], row[2]) for row in rows]


def _apply_all(
    connection: sqlite3.Connection,
    turnstile: Turnstile,
    known: Sequence[Migration],
    target: int | None,
    now_us: int,
) -> list[Migration]:
    done: list[Migration] = []
    while True:
        with turnstile.turn():
            migration = _apply_next(connection, known, target, now_us)
        if migration is None:
            return done
        done.append(migration)


def _apply_next(
    connection: sqlite3.Connection, known: Sequence[Migration], target: int | None, now_us: int
) -> Migration | None:
    """The first that is missing, in a transaction that has looked by itself what is missing."""
    with transaction(connection):
        pending = _pending(connection, known, target)
        if pending:
            _apply(connection, pending[0], now_us)
    return pending[0] if pending else None


def _apply(connection: sqlite3.Connection, migration: Migration, now_us: int) -> None:
    connection.execute(_CREATE)
    for statement in migration.statements():
        connection.execute(statement)
        if not connection.in_transaction:
            raise InternalError(f"migration {migration.number:04} ends the transaction that it is applied in")
    connection.execute(
        "insert into holdfast_migrations (number, name, checksum, applied_at) values (?, ?, ?, ?)",
        (migration.number, migration.name, migration.checksum, now_us),
    )
