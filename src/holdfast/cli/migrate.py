"""`holdfast migrate`: the schema, brought up to date or only compared."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from holdfast._store import migrate as migrations
from holdfast._store import place
from holdfast._store.migrate import Migration
from holdfast._store.readonly import ReadOnlyDatabase
from holdfast._store.sqlite_contents import refuse_foreign
from holdfast._store.sqlitefile import SqliteFile
from holdfast._store.turnstile import NoTurnstile
from holdfast._store.uri import SqliteUri
from holdfast._world import SystemWorld
from holdfast.cli.answers import write_json
from holdfast.cli.opening import location
from holdfast.cli.settings import Settings, pass_settings, shared_options
from holdfast.errors import UsageError


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be applied; writes nothing.")
@click.option("--target-version", type=click.IntRange(min=0), metavar="N", help="Stop after this migration.")
@shared_options
@pass_settings
def migrate(settings: Settings, dry_run: bool, target_version: int | None) -> None:
    """Bring the database to this release's schema; workers and clients do so, too, when they open it.

    In a database with tables of another program only this command makes Holdfast's tables.
    """
    uri = location(settings)
    if uri.path is None:
        raise UsageError("a database in memory belongs to one process", hint="name a file: --db sqlite:///orders.db")
    applied = _would_apply(uri.path, target_version) if dry_run else _apply(uri, target_version)
    if settings.is_json:
        write_json(settings, _value(uri.path, applied, dry_run))
        return
    for migration in applied:
        verb = "would apply" if dry_run else "applied"
        settings.out.print(f"{verb}  {migration.number:04}_{migration.name}", soft_wrap=True)
    if not applied:
        settings.out.print(f"up to date: {uri.path}", soft_wrap=True)


def _apply(uri: SqliteUri, target: int | None) -> list[Migration]:
    file = SqliteFile(uri, joins=True)
    try:
        return migrations.migrate(file.writer(), file.turnstile, now_us=SystemWorld().now_us(), target=target)
    finally:
        file.close()


def _would_apply(path: Path, target: int | None) -> list[Migration]:
    """Through a connection that cannot write; a missing file is compared as an empty one and not made."""

    def look(connection: sqlite3.Connection) -> list[Migration]:
        refuse_foreign(connection, path)
        return migrations.migrate(connection, NoTurnstile(), now_us=0, target=target, dry_run=True)

    if not os.path.exists(path):
        with closing(sqlite3.connect(":memory:")) as nothing:
            return migrations.migrate(nothing, NoTurnstile(), now_us=0, target=target, dry_run=True)
    place.refuse_other_than_file(path)
    database = ReadOnlyDatabase(path)
    try:
        return database.read(look)
    finally:
        database.close()


def _value(path: Path, applied: list[Migration], dry_run: bool) -> dict[str, Any]:
    rows = [{"number": migration.number, "name": migration.name} for migration in applied]
    return {"database": str(path), "dry_run": dry_run, "migrations": rows}
