"""How SQLite answers searches: the plan of every kind of search, and that every plan finds the same runs."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast._model.search import RunQuery
from holdfast._store import sqlite_search
from holdfast._store.sqlfile import load
from holdfast._store.sqlite import SqliteStore
from holdfast._store.uri import SqliteUri
from holdfast._world import SystemWorld
from holdfast.testing.store_conformance import run_check, searching
from holdfast.testing.store_conformance.bench import search

FEW, MANY = "FEW", "MANY"
STATE = "SEARCH r USING {}INDEX holdfast_runs_state (state=?"
WORKFLOW = "SEARCH r USING {}INDEX holdfast_runs_workflow (workflow=? AND state=?"
VALUE = "SEARCH a USING PRIMARY KEY (key=? AND value=?"
PROBE_VALUE = "SEARCH holdfast_attributes USING PRIMARY KEY (key=? AND value=? AND run=?)"
PROBE_RUN = "SEARCH holdfast_attributes USING COVERING INDEX holdfast_attributes_run (run=? AND key=?"
DRIVEN_VALUES = "SEARCH holdfast_attributes USING PRIMARY KEY (key=? AND value>? AND value<?)"
ROW = "SEARCH r USING INTEGER PRIMARY KEY (rowid=?)"
WALK = "SEARCH r USING INTEGER PRIMARY KEY (rowid<?)"

# What has many matches: the runs drive, or one attribute, and the page is in order as it comes.
ORDERED = {
    "": [STATE.format("COVERING ")],
    "state:failed": [STATE.format("COVERING ")],
    "-state:succeeded": [STATE.format("COVERING ")],
    "state:failed created:<1h": [STATE.format("COVERING ") + " AND created_at>?"],
    "created:>1h": [STATE.format("COVERING ") + " AND created_at<?"],
    "workflow:flow": [WORKFLOW.format("COVERING ")],
    "workflow:fl*": [WORKFLOW.format("COVERING ")],
    "-workflow:other": [WORKFLOW.format("COVERING ")],
    "workflow:flow state:failed": [WORKFLOW.format("COVERING ")],
    "workflow:flow state:failed created:1h..2h": [WORKFLOW.format("COVERING ") + " AND created_at>? AND created_at<?"],
    "started:>2h state:running": [STATE.format("")],
    "priority:>5": [STATE.format("")],
    "-customer:1": [STATE.format("COVERING "), PROBE_VALUE],
    "-customer:>1 workflow:flow": [WORKFLOW.format("COVERING "), PROBE_RUN],
    "ended:<1h": [STATE.format("")],
    "ended:>1h": [STATE.format("") + " AND created_at<?"],
    "id:r*": [STATE.format("")],
    "worker:*": [STATE.format("")],
    "customer:1": [VALUE],
    "customer:1,2,x": [VALUE],
    'customer:"x" region:"eu"': [VALUE, PROBE_VALUE],
    'customer:"x" state:failed started:>2h': [VALUE, ROW],
    'customer:"x" amount:>5 -region:"us"': [VALUE, PROBE_RUN, PROBE_VALUE],
    "amount:>5": [WALK, PROBE_RUN],
    "amount:* region:e*": [WALK, PROBE_RUN],
}
# What has few: it drives, and what is sorted are its few runs.
DRIVEN = {
    "customer:1": "holdfast_attributes USING PRIMARY KEY (key=? AND value=?",
    "customer:1 region:eu state:failed": "holdfast_attributes USING PRIMARY KEY (key=? AND value=?",
    "amount:>5": "holdfast_attributes USING PRIMARY KEY (key=? AND value>? AND value<?)",
    "amount:5..7 state:failed": "holdfast_attributes USING PRIMARY KEY (key=? AND value>? AND value<?)",
    "region:e*": "holdfast_attributes USING PRIMARY KEY (key=? AND value>? AND value<?)",
    "region:*": "holdfast_attributes USING PRIMARY KEY (key=?)",
    "id:r*": "holdfast_runs USING COVERING INDEX sqlite_autoindex_holdfast_runs_1 (id>? AND id<?)",
    "id:r1,r2": "holdfast_runs USING COVERING INDEX sqlite_autoindex_holdfast_runs_1 (id=?)",
    "worker:w1": "holdfast_runs USING COVERING INDEX holdfast_runs_worker (worker=?)",
    "reason:poison": "holdfast_runs USING COVERING INDEX holdfast_runs_reason (reason=?)",
    "forked:r1": "holdfast_runs USING COVERING INDEX holdfast_runs_forked (forked_from=?)",
    "due:<1h": "holdfast_runs USING INDEX holdfast_runs_due (due_at>? AND due_at<?)",
    "crashes:>=3 state:ready,running": "holdfast_runs USING INDEX holdfast_runs_suspect (crashes>?)",
    "ended:<1h": "holdfast_runs USING COVERING INDEX holdfast_runs_ended (workflow=? AND state=? AND ended_at>?)",
    "ended:<1h state:failed": "USING COVERING INDEX holdfast_runs_ended (workflow=? AND state=? AND ended_at>?)",
}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """The schema, with one run, as the engine opens it."""
    path = tmp_path_factory.mktemp("search") / "a.db"

    async def make() -> None:
        store = SqliteStore(SqliteUri(path=path), world=SystemWorld())
        await store.open(on_change=lambda: None)
        await store.close()

    asyncio.run(make())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "insert into holdfast_runs (number, id, workflow, state, input, seed, created_at, started_at)"
            " values (1, 'r1', 'flow', 'running', '{}', 1, 2, 3)"
        )
        connection.execute("insert into holdfast_attributes (key, value, run) values ('customer', 1, 1)")
        connection.commit()
        yield connection


def plan_of(connection: sqlite3.Connection, query: RunQuery) -> list[str]:
    text, values = sqlite_search.page_statement(connection, load("sqlite.sql"), query, limit=20)
    return [row[3] for row in connection.execute(f"explain query plan {text}", values)]


def inner(plan: list[str]) -> list[str]:
    """The plan without its last sort, which is that of one page."""
    assert plan[0] == "SEARCH holdfast_runs USING INTEGER PRIMARY KEY (rowid=?)", plan
    return plan[1:-1] if plan[-1] == "USE TEMP B-TREE FOR ORDER BY" else plan[1:]


def scans(plan: list[str]) -> list[str]:
    """Walks over whole tables; `r` may also be the few numbers that were found."""
    few = {"CO-ROUTINE r", "MATERIALIZE r"} & set(plan)
    return [
        line for line in plan if line.startswith("SCAN holdfast") or line == "SCAN a" or (line == "SCAN r" and not few)
    ]


@pytest.mark.parametrize("text", ORDERED)
def test_a_search_of_many_walks_indexes_in_the_order_of_the_page(
    text: str, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_search, FEW, -1)  # as if each condition had more
    monkeypatch.setattr(sqlite_search, MANY, -1)

    plan = inner(plan_of(database, search(text, now=10**15)))

    assert scans(plan) == []
    assert not any("TEMP B-TREE" in line for line in plan), plan
    for access in ORDERED[text]:
        assert any(line.startswith(access) for line in plan), (access, plan)


@pytest.mark.parametrize("text", DRIVEN)
def test_a_search_of_few_is_driven_by_the_index_of_what_is_few(text: str, database: sqlite3.Connection) -> None:
    plan = plan_of(database, search(text, now=10**15))

    assert scans(plan) == []
    assert any(DRIVEN[text] in line for line in plan), plan


@pytest.mark.parametrize("text", ["amount:>5", "amount:>5 region:eu", "region:e* -customer:1", "amount:>5 -id:r1"])
def test_numbers_are_sorted_before_runs_are_looked_at(
    text: str, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_search, FEW, -1)
    plan = plan_of(database, search(text, now=10**15))

    assert scans(plan) == []
    assert any("PRIMARY KEY (key=? AND value" in line for line in plan), plan


@pytest.mark.parametrize(
    "text", ["customer:1 state:failed", "customer:1,x state:failed -amount:5", "customer:1 id:no*"]
)
def test_a_walk_steps_from_one_of_few_runs_to_the_next(
    text: str, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_search, FEW, -1)
    plan = inner(plan_of(database, search(text, now=10**15)))

    assert "SEARCH a USING PRIMARY KEY (key=? AND value=? AND run=?)" in plan
    assert scans(plan) == []
    assert not any("TEMP B-TREE" in line for line in plan), plan


@pytest.mark.parametrize("name", ["workflows", "attribute_keys", "attribute_keys_among"])
def test_names_are_found_with_one_look_each(name: str, database: sqlite3.Connection) -> None:
    values = {"workflows": {"limit": 5}, "attribute_keys": (5,), "attribute_keys_among": ('["a"]',)}[name]
    plan = [row[3] for row in database.execute(f"explain query plan {load('sqlite.sql')[name]}", values)]

    assert scans(plan) == []
    assert any((line.startswith("SEARCH holdfast") and "INDEX" in line) or "PRIMARY KEY" in line for line in plan), plan


def test_statistics_read_indexes_only(database: sqlite3.Connection) -> None:
    statements = load("sqlite.sql")
    values = {"workflow": "flow", "since": 5, "limit": 9}
    counts = [row[3] for row in database.execute(f"explain query plan {statements['state_counts']}")]
    ended = [row[3] for row in database.execute(f"explain query plan {statements['ended_counts']}", ("[]", 5))]
    durations = [row[3] for row in database.execute(f"explain query plan {statements['durations']}", values)]

    assert counts == ["SCAN holdfast_runs USING COVERING INDEX holdfast_runs_workflow"]
    ranged = "SEARCH holdfast_runs USING {}INDEX holdfast_runs_ended (workflow=? AND state=? AND ended_at>?)"
    assert ranged.format("COVERING ") in ended
    assert durations.count(ranged.format("")) == 2
    assert not any("TEMP B-TREE" in line for line in durations), durations


@pytest.mark.parametrize(
    ("few", "many", "sides"), [(-1, -1, 64), (-1, 10, 64), (3, 3, 1), (5, 20, 9)], ids=lambda value: str(value)
)
def test_every_way_to_answer_finds_the_same_runs(
    few: int, many: int, sides: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_search, FEW, few)
    monkeypatch.setattr(sqlite_search, MANY, many)
    monkeypatch.setattr(sqlite_search, "SIDES_MAX", sides)

    def make() -> SqliteStore:
        return SqliteStore(SqliteUri(path=None), world=SystemWorld())

    for check in searching.CHECKS:
        asyncio.run(run_check(check, make))


@given(st.text(st.characters(codec="utf-8"), max_size=5), st.text(st.characters(codec="utf-8"), max_size=3))
def test_what_follows_a_beginning_is_the_first_text_that_does_not_begin_so(start: str, rest: str) -> None:
    following = sqlite_search._following(start)
    if following is None:
        assert start.strip("\U0010ffff") == ""
    else:
        following.encode()  # it can be bound
        assert start + rest < following
        assert not (start < rest < following) or rest.startswith(start)


def test_what_follows_a_beginning_passes_over_what_is_no_text() -> None:
    assert sqlite_search._following("a\ud7ff") == "a\ue000"
    assert sqlite_search._following("a\U0010ffff") == "b"
    assert sqlite_search._following("") is sqlite_search._following("\U0010ffff") is None


@pytest.mark.parametrize("few", [-1, sqlite_search.FEW])
def test_plans_do_not_change_with_statistics(
    few: int, tmp_path: Path, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = [search(text, now=10**15) for text in (*ORDERED, *DRIVEN)]
    monkeypatch.setattr(sqlite_search, FEW, few)
    before = [plan_of(database, query) for query in queries]
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        database.backup(copy)
        copy.execute("analyze")
        copy.commit()
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:  # statistics are read when a database is opened
        assert [plan_of(copy, query) for query in queries] == before


def test_more_workflows_than_are_named_are_still_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_search, "WORKFLOWS_MAX", 1)
    monkeypatch.setattr(sqlite_search, FEW, -1)

    def make() -> SqliteStore:
        return SqliteStore(SqliteUri(path=None), world=SystemWorld())

    for check in searching.CHECKS:
        asyncio.run(run_check(check, make))
