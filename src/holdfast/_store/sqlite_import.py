"""Runs out of a file into SQLite rows, inside the transaction of their batch.

The columns are those of the file, so their names come from outside: each must be a column of the table here before it
becomes a part of a statement. Values are bound.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from holdfast._model.lifecycle import ENDED, RunState
from holdfast._model.records import ExportedRun, Imported, RunsImported, Scalar
from holdfast._store.sqlfile import Statements


def import_runs(connection: sqlite3.Connection, sql: Statements, record: RunsImported) -> Imported:
    """Write all runs of the record, or find what stands in the way of one and write none."""
    for run in record.runs:
        if connection.execute(sql["run_of_id"], (run.id,)).fetchone() is not None:
            return Imported("id-taken", run.id, ())
    for table, rows in (
        ("holdfast_runs", [run.columns for run in record.runs]),
        ("holdfast_history", [entry for run in record.runs for entry in run.entries]),
    ):
        unknown = {name for row in rows for name, _ in row} - _columns(connection, table)
        if unknown:
            return Imported("unknown-column", f"{table}.{min(unknown)}", ())
    return Imported(None, "", tuple(_import(connection, sql, run, record) for run in record.runs))


def _import(connection: sqlite3.Connection, sql: Statements, run: ExportedRun, record: RunsImported) -> RunState:
    columns = dict(run.columns)
    if columns["state"] not in ENDED:
        columns["state"] = RunState.PAUSED.value
    number: int = connection.execute(sql["next_number"]).fetchone()[0]
    _insert(connection, sql["import_run"], [("number", number), *columns.items()])
    for key, value in run.attributes:
        connection.execute(sql["import_attribute"], (key, value, number))
    for entry in run.entries:
        _insert(connection, sql["import_entry"], [("run", number), *entry])
    if record.resume and columns["state"] not in ENDED:
        connection.execute(sql["resume_run"], (number, record.now))
    return RunState(connection.execute(sql["request_row"], (run.id,)).fetchone()["state"])


def _insert(connection: sqlite3.Connection, statement: str, row: Sequence[tuple[str, Scalar]]) -> None:
    names = ", ".join(name for name, _ in row)
    places = ", ".join("?" for _ in row)
    connection.execute(statement.replace("{columns}", names).replace("{values}", places), [value for _, value in row])


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[0] for row in connection.execute("select name from pragma_table_info(?)", (table,))}
