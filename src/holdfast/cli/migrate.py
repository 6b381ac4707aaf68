"""`holdfast migrate`: the schema, brought up to date or only compared."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import click

from holdfast._store import migrate as migrations
from holdfast._store.migrate import Migration
from holdfast._store.sqlitefile import SqliteFile, translate
from holdfast._store.turnstile import NoTurnstile
from holdfast._store.uri import SqliteUri
from holdfast._world import SystemWorld
from holdfast.cli.answers import write_json
from holdfast.cli.opening import location, read_only
from holdfast.cli.settings import Settings, pass_settings, shared_options
from holdfast.errors import UsageError


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be applied; writes nothing.")
@click.option("--target-version", type=click.IntRange(min=0), metavar="N", help="Stop after this migration.")
@shared_options
@pass_settings
def migrate(settings: Settings, dry_run: bool, target_version: int | None) -> None:
    """Bring the database to this release's schema; workers and clients do so, too, when they open it."""
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
    file = SqliteFile(uri)
    try:
        return migrations.migrate(file.writer(), file.turnstile, now_us=SystemWorld().now_us(), target=target)
    finally:
        file.close()


def _would_apply(path: Path, target: int | None) -> list[Migration]:
    """Through a connection that cannot write; a missing file is compared as an empty one and not made."""
    connection = None
    try:
        connection = sqlite3.connect(read_only(path) if path.exists() else ":memory:", uri=True, timeout=30.0)
        return migrations.migrate(connection, NoTurnstile(), now_us=0, target=target, dry_run=True)
    except sqlite3.Error as error:
        raise translate(error, path) from error
    finally:
        if connection is not None:
            connection.close()


def _value(path: Path, applied: list[Migration], dry_run: bool) -> dict[str, Any]:
    rows = [{"number": migration.number, "name": migration.name} for migration in applied]
    return {"database": str(path), "dry_run": dry_run, "migrations": rows}
