"""Runs with their histories, as they are read for a replay: a page at a time, each page in one short transaction.

A run and its history come from the same transaction, so no step of a worker falls between them. The numbers of all
unfinished runs are read once at the start, from an index, eight bytes each: a run that changes its state meanwhile is
neither missed nor seen twice, and one that has ended meanwhile is left out.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterator
from typing import Final

from holdfast._model.lifecycle import ENDED
from holdfast._model.stored import StoredRun, stored_run
from holdfast._store.readonly import ReadOnlyDatabase, row_dict

PAGE_RUNS: Final = 500
PAGE_ENTRIES: Final = 20_000
"""A page ends with the run that passes this many entries, so that memory is bounded by the longest history."""


def numbers(database: ReadOnlyDatabase) -> array[int]:
    """The keys of all unfinished runs, oldest first."""
    sql = database.statement("unfinished_numbers")
    return database.read(lambda connection: array("q", (row[0] for row in connection.execute(sql))))


def pages(database: ReadOnlyDatabase, wanted: array[int], *, workflow: str | None) -> Iterator[list[StoredRun | None]]:
    """The runs with these keys; none in the place of one that has ended meanwhile or is of another workflow."""
    place = 0
    while place < len(wanted):
        chunk = wanted[place : place + PAGE_RUNS]
        page = database.read(lambda connection, chunk=chunk: _page(database, connection, chunk, workflow))  # type: ignore[misc]
        place += len(page)
        yield page


def _page(
    database: ReadOnlyDatabase, connection: sqlite3.Connection, chunk: array[int], workflow: str | None
) -> list[StoredRun | None]:
    page: list[StoredRun | None] = []
    entries = 0
    for number in chunk:
        run = connection.execute(database.statement("whole_run"), (number,)).fetchone()
        if run is None or run["state"] in ENDED or (workflow is not None and run["workflow"] != workflow):
            page.append(None)
            continue
        history = [row_dict(row) for row in connection.execute(database.statement("whole_history"), (number,))]
        page.append(stored_run(row_dict(run), [*history]))
        entries += len(history)
        if entries >= PAGE_ENTRIES:
            break
    return page
