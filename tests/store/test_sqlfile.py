from __future__ import annotations

import sqlite3

import pytest

from holdfast._store.sqlfile import load, parse
from holdfast.errors import InternalError

TEXT = """-- A file's head.

-- name: one
-- Why it is so.
-- And more.
select 1;

-- name: two
select ';' -- a comment within
    from t;
"""


def test_statements_are_found_by_name_without_their_semicolon() -> None:
    statements = parse(TEXT, source="x.sql")
    assert list(statements) == ["one", "two"]
    assert statements["one"] == "select 1"
    assert statements["two"] == "select ';' -- a comment within\n    from t"


def test_comments_below_a_name_are_its_documentation() -> None:
    assert parse(TEXT, source="x.sql").docs == {"one": "Why it is so.\nAnd more.", "two": ""}


def test_unknown_name_is_our_defect_and_names_the_file() -> None:
    with pytest.raises(InternalError, match=r"x\.sql has no statement 'three'"):
        parse(TEXT, source="x.sql")["three"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-- name: a\nselect 1;\n-- name: a\nselect 2;", "two statements are named 'a'"),
        ("-- name: a\n-- only words\n-- name: b\nselect 2;", "'a' is empty"),
        ("-- name:\nselect 1;", "no name"),
        ("select 1;\n-- name: a\nselect 2;", "before the first"),
    ],
)
def test_malformed_file_is_refused(text: str, message: str) -> None:
    with pytest.raises(InternalError, match=message):
        parse(text, source="x.sql")


def test_packaged_statements_are_one_statement_each() -> None:
    statements = load("sqlite.sql")
    assert statements
    assert all(sqlite3.complete_statement(f"{sql};") and ";" not in sql for sql in statements.values())
