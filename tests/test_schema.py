"""docs/schema.md says what the migrations make: every table, column, type and index, in order, and nothing else."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast._model.lifecycle import EntryState, RunState
from holdfast._store.migrate import migrate
from holdfast._store.sqlitefile import SqliteFile
from holdfast._store.uri import SqliteUri

PAGE = Path(__file__).parent.parent / "docs" / "schema.md"
Rows = list[list[str]]


@pytest.fixture(scope="module")
def database() -> Iterator[sqlite3.Connection]:
    file = SqliteFile(SqliteUri(path=None))
    migrate(file.writer(), file.turnstile, now_us=0)
    yield file.writer()
    file.close()


def documented() -> dict[str, list[Rows]]:
    """For each table the rows of the grids below its heading: first its columns, then its indexes."""
    text = PAGE.read_text(encoding="utf-8")
    found: dict[str, list[Rows]] = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        if heading.startswith("holdfast_"):
            grids = re.findall(r"(?:^\|.*\n)+", body, flags=re.MULTILINE)
            found[heading] = [[cells_of(line) for line in grid.splitlines()] for grid in grids]
    return found


def cells_of(line: str) -> list[str]:
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    return [re.sub(r"^`([^`]*)`$", r"\1", cell) for cell in cells]


def tables_of(database: sqlite3.Connection) -> list[str]:
    rows = database.execute("select name from sqlite_master where type = 'table' and name not like 'sqlite_%'")
    return [row[0] for row in rows]


def columns_of(database: sqlite3.Connection, table: str) -> Rows:
    rows = database.execute('select name, lower(type), "notnull", pk from pragma_table_info(?)', (table,)).fetchall()
    return [[name, kind, "no" if notnull or key else "yes"] for name, kind, notnull, key in rows]


def indexes_of(database: sqlite3.Connection, table: str) -> dict[str, str]:
    names = [row[0] for row in database.execute("select name from pragma_index_list(?)", (table,))]
    columns = "select name from pragma_index_info(?) order by seqno"
    return {name: ", ".join(row[0] for row in database.execute(columns, (name,))) for name in names}


def test_page_describes_every_table_and_no_other(database: sqlite3.Connection) -> None:
    assert sorted(documented()) == sorted(tables_of(database))


@pytest.mark.parametrize("table", documented())
def test_columns_have_the_names_types_and_order_of_the_database(database: sqlite3.Connection, table: str) -> None:
    head, _, *rows = documented()[table][0]
    assert head == ["column", "type", "null", "meaning"]
    assert [row[:3] for row in rows] == columns_of(database, table)


@pytest.mark.parametrize("table", documented())
def test_every_column_has_a_meaning_and_instants_say_so(table: str) -> None:
    for name, kind, _, meaning in documented()[table][0][2:]:
        assert meaning
        if name.endswith("_at") and kind == "integer":
            assert "instant" in meaning, f"{table}.{name} has no unit"
        if name.endswith("_us"):
            assert "microseconds" in meaning, f"{table}.{name} has no unit"


@pytest.mark.parametrize("table", documented())
def test_indexes_have_the_names_and_columns_of_the_database(database: sqlite3.Connection, table: str) -> None:
    grids = documented()[table]
    rows = grids[1] if len(grids) > 1 and grids[1][0] == ["index", "columns", "for"] else [[], []]
    assert {name: columns for name, columns, _ in rows[2:]} == indexes_of(database, table)
    assert all(use for _, _, use in rows[2:])


def test_states_are_those_of_the_lifecycle_and_of_the_database(database: sqlite3.Connection) -> None:
    states = [state.value for state in RunState]
    assert [row[0] for row in documented()["holdfast_runs"][2][2:]] == states
    assert allowed(database, "state in", table="holdfast_runs") == set(states)


def test_kinds_and_states_of_entries_are_those_of_the_database(database: sqlite3.Connection) -> None:
    meanings = {row[0]: row[3] for row in documented()["holdfast_history"][0][2:]}
    kinds = allowed(database, "kind in") | allowed(database, "kind =")
    states = allowed(database, "state in") | allowed(database, "state =")
    assert set(re.findall(r"`(\w+)`", meanings["kind"])) == kinds
    assert set(re.findall(r"`(\w+)`", meanings["state"])) == states == {state.value for state in EntryState}


def test_all_tables_are_strict(database: sqlite3.Connection) -> None:
    rows = database.execute("select name, strict from pragma_table_list where name like 'holdfast%'")

    assert {name: strict for name, strict in rows if not strict} == {}


def allowed(database: sqlite3.Connection, words: str, *, table: str = "holdfast_history") -> set[str]:
    """The values that a check constraint lists after `words`."""
    (sql,) = database.execute("select sql from sqlite_master where name = ?", (table,)).fetchone()
    match = re.search(rf"\b{words}\s*(\([^)]*\)|'\w+')", sql)
    assert match is not None, words
    return set(re.findall(r"'(\w+)'", match[1]))
