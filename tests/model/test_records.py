from __future__ import annotations

import sqlite3
from typing import get_args

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from holdfast._model.records import APPLY_ORDER, EntryRecorded, Record, RunRow, RunStarted
from holdfast._store.sqlfile import load


def test_the_set_of_records_is_closed_and_each_has_its_place_in_the_order() -> None:
    assert set(get_args(Record)) == set(APPLY_ORDER)
    assert len(APPLY_ORDER) == len(set(APPLY_ORDER))


def test_records_are_frozen_values() -> None:
    for kind in APPLY_ORDER:
        assert issubclass(kind, tuple)
        record = kind(*range(len(kind._fields)))  # type: ignore[attr-defined]
        assert record == kind(*range(len(kind._fields)))  # type: ignore[attr-defined]
        assert {kind}.pop() is kind


def test_the_order_lets_a_run_do_what_it_does_in_one_batch() -> None:
    order = [kind.__name__ for kind in APPLY_ORDER]
    for earlier, later in (
        ("EntryRecorded", "RunEnded"),
        ("EntryRecorded", "RunParked"),
        ("EntryRecorded", "RunContinued"),
        ("RunParked", "RunsClaimed"),
        ("RunEnded", "CancelRequested"),
        ("RunPaused", "ResumeRequested"),
        ("WorkerBuried", "RunsClaimed"),
        ("RunStarted", "CancelRequested"),
        ("RetryRequested", "RunsPruned"),
        ("RunForked", "RunsPruned"),
    ):
        assert order.index(earlier) < order.index(later)


def test_an_entry_is_bound_to_sql_as_it_stands() -> None:
    text = load("sqlite.sql")["insert_entries"]
    columns = [name.strip() for name in text[text.index("(") + 1 : text.index(")")].split(",")]
    assert columns == list(EntryRecorded._fields)
    text = load("sqlite.sql")["insert_runs"]
    columns = [name.strip() for name in text[text.index("(") + 1 : text.index(")")].split(",")]
    assert columns == ["number", *RunStarted._fields[:13]]


@given(st.text(), st.integers(-(2**63), 2**63 - 1))
def test_a_row_comes_through_sqlites_json_as_it_was(text: str, number: int) -> None:
    row = RunRow(number, text, text, text, number, 0, 1, None, number, number, None, True)
    connection = sqlite3.connect(":memory:")
    places = ", ".join(["?"] * 11)
    statement = f"select json_group_array(json_array({places}, json('true')))"
    found = connection.execute(statement, row[:11]).fetchone()[0]
    connection.close()
    assert msgspec.json.decode(found, type=tuple[RunRow, ...]) == (row,)
