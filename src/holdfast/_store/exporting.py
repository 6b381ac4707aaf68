"""Reading whole runs for export: every column that this database has, each run from one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from holdfast._model.exported import OF_A_DATABASE
from holdfast._model.records import ExportedRun
from holdfast._store.readonly import ReadOnlyDatabase, row_dict


def exported(database: ReadOnlyDatabase, key: int) -> ExportedRun | None:
    """A run from one transaction; none if it was deleted meanwhile."""

    def query(connection: sqlite3.Connection) -> ExportedRun | None:
        run = connection.execute(database.statement("whole_run"), (key,)).fetchone()
        if run is None:
            return None
        entries = connection.execute(database.statement("whole_history"), (key,))
        attributes = connection.execute(database.statement("whole_attributes"), (key,))
        return ExportedRun(
            tuple((name, value) for name, value in row_dict(run).items() if name not in OF_A_DATABASE),
            tuple((row["key"], row["value"]) for row in attributes),
            tuple(tuple(_without_run(row_dict(row))) for row in entries),
        )

    return database.read(query)


def _without_run(entry: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in entry.items() if name != "run")


def schema_of(database: ReadOnlyDatabase) -> int:
    """The number of the newest migration that it has."""
    schema: int = database.read(
        lambda connection: connection.execute("select max(number) from holdfast_migrations").fetchone()[0]
    )
    return schema
