"""Databases of other applications, and files that are none: refused with a clear word, and not a byte is written.

An application's database without a mark of its own and without tables of our names may be shared: ours then go beside
the application's, and only when `migrate` asks for it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path

import pytest
from tests.fuzz.commandline import call, check, fresh, inside
from tests.fuzz.commandline import files as all_files
from tests.fuzz.hostile import fault

from holdfast import Holdfast
from holdfast.errors import SchemaMismatch, StoreCorrupt, StoreError, UsageError

pytestmark = pytest.mark.crash

LOOKS = (
    ("ls",), ("count",), ("show", "r"), ("wait", "r", "--timeout", "0"), ("stats",), ("workers",), ("export", "r"),
    ("doctor",),
    ("backup", "../made.db"), ("check", "shop:app"), ("prune", "--dry-run"), ("migrate", "--dry-run"), ("cancel",
    "r", "--yes"),
    ("pause", "r"), ("resume", "r"), ("retry", "r"), ("fork", "r", "--at", "1"), ("prune", "--yes"), ("ls", "-o",
    "json"),
)  # fmt: skip
"""Commands that look, or that change runs that must be there."""
WRITES = (("start", "flow"), ("import", "../runs.jsonl"), ("migrate",), ("restore", "../backup.db"))
"""Commands that would make our tables."""


def files(folder: Path) -> dict[str, bytes | None]:
    """All bytes but those of a log's index, in which every reader marks where it reads."""
    return {name: data if not name.endswith("-shm") else None for name, data in all_files(folder).items()}


def app_db(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement).fetchall()


def with_log(path: Path, *statements: str) -> None:
    """With a log beside it, as a killed program leaves it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for statement in ("pragma journal_mode = wal", *statements):
            database.execute(statement).fetchall()
        kept = {name: path.with_name(path.name + name).read_bytes() for name in ("", "-wal", "-shm")}
    for name, data in kept.items():
        path.with_name(path.name + name).write_bytes(data)


OWN = ("create table t (x)", "insert into t values (1)")
MARK = "pragma application_id = 252006673"
NAMED = "create table holdfast_runs (id text, mine text)"
REFUSED: dict[str, Callable[[Path], None]] = {
    "marked": lambda path: app_db(path, MARK, *OWN),
    "marked, in WAL mode": lambda path: app_db(path, "pragma journal_mode = wal", MARK, *OWN),
    "marked, with a log": lambda path: with_log(path, MARK, *OWN),
    "marked and empty": lambda path: app_db(path, MARK),
    "marked, with a version": lambda path: app_db(path, MARK, "pragma user_version = 7", *OWN),
    "a table named as ours": lambda path: app_db(path, NAMED, *OWN),
    "a table named as ours, in WAL mode": lambda path: app_db(path, "pragma journal_mode = wal", NAMED),
    "a view named as ours": lambda path: app_db(path, *OWN, "create view holdfast_runs as select * from t"),
    "other migrations": lambda path: app_db(path, "create table holdfast_migrations (id text)", NAMED),
    "UTF-16": lambda path: app_db(path, "pragma encoding = 'UTF-16'", MARK, *OWN),
    "text": lambda path: path.write_text("no database\n" * 1000) and None,  # type: ignore[func-returns-value]
    "short text": lambda path: path.write_text("x") and None,  # type: ignore[func-returns-value]
    "zeros": lambda path: path.write_bytes(bytes(8192)) and None,  # type: ignore[func-returns-value]
    "a header alone": lambda path: path.write_bytes(b"SQLite format 3\0" + b"\xff" * 900) and None,  # type: ignore[func-returns-value]
    "a pickle": lambda path: path.write_bytes(b"\x80\x04\x95" + b"x" * 2000) and None,  # type: ignore[func-returns-value]
}
NO_DATABASE = {"text", "short text", "zeros", "a header alone", "a pickle"}
SHARED: dict[str, Callable[[Path], None]] = {
    "unmarked": lambda path: app_db(path, *OWN),
    "unmarked, in WAL mode": lambda path: app_db(path, "pragma journal_mode = wal", "pragma user_version = 3", *OWN),
    "empty": lambda path: path.touch(),
}


@pytest.fixture(scope="module")
def beside(shop_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """An export and a backup."""
    folder = fresh(shop_folder, tmp_path_factory.mktemp("template") / "shop")
    with inside(folder):
        runs = call("export", "done").out.encode()
        assert call("backup", "backup.db").code == 0
        return {"runs.jsonl": runs, "backup.db": (folder / "backup.db").read_bytes()}


@pytest.fixture
def here(tmp_path: Path, beside: dict[str, bytes]) -> Generator[Path]:
    """An empty folder for one database, below one with the app and the files."""
    for name, data in beside.items():
        (tmp_path / name).write_bytes(data)
    folder = tmp_path / "db"
    with inside(tmp_path):
        folder.mkdir()
        (folder / "shop.py").write_bytes(Path("shop.py").read_bytes())
        os.chdir(folder)
        yield folder


@pytest.mark.parametrize("kind", REFUSED)
def test_a_database_that_is_not_ours_is_refused_by_all_and_stays_as_it_was(kind: str, here: Path) -> None:
    REFUSED[kind](here / "orders.db")
    before = files(here.parent)
    for args in (*LOOKS, *WRITES):
        answer = check(call(*args), output="json" if "json" in args else None)
        assert "orders.db" in answer.err + answer.out, answer.told()
        if args[0] == "restore" and kind in NO_DATABASE:  # as any damaged database: replaced, and kept
            assert before["db/orders.db"] in files(here).values(), answer.told()
            continue
        assert answer.code == 1, answer.told()
        assert files(here.parent) == before, answer.told()
    REFUSED[kind](clean(here) / "orders.db")
    before = files(here.parent)
    for open_it in (lambda app: app.sync(worker=True), lambda app: app.sync()):
        with pytest.raises(StoreCorrupt), open_it(Holdfast("sqlite:///orders.db")):
            pass
        assert files(here.parent) == before


def clean(folder: Path) -> Path:
    for path in folder.iterdir():
        if path.name.startswith("orders.db"):
            path.unlink()
    return folder


@pytest.mark.parametrize("kind", [kind for kind in REFUSED if kind not in NO_DATABASE])
def test_a_backup_is_not_put_in_the_place_of_another_applications_database(kind: str, here: Path) -> None:
    REFUSED[kind](here / "orders.db")
    before = files(here.parent)
    answer = check(call("restore", "../backup.db"))
    assert answer.code == 1, answer.told()
    assert files(here.parent) == before


@pytest.mark.parametrize("kind", SHARED)
def test_commands_that_look_leave_a_database_without_our_tables_as_it_is(kind: str, here: Path) -> None:
    SHARED[kind](here / "orders.db")
    before = files(here.parent)
    for args in LOOKS:
        answer = check(call(*args), output="json" if "json" in args else None)
        assert answer.code == 1 or args == ("migrate", "--dry-run"), answer.told()
        assert files(here.parent) == before, answer.told()


@pytest.mark.parametrize("kind", ["unmarked", "unmarked, in WAL mode"])
def test_tables_of_another_program_are_joined_by_migrate_only(kind: str, here: Path) -> None:
    SHARED[kind](here / "orders.db")
    before = files(here.parent)
    for args in (("start", "flow"), ("import", "../runs.jsonl")):
        answer = check(call(*args))
        assert (answer.code, "tables of another program: t" in answer.err) == (2, True), answer.told()
        assert files(here.parent) == before, answer.told()
    for open_it in (lambda app: app.sync(worker=True), lambda app: app.sync()):
        with pytest.raises(UsageError, match="holdfast migrate"), open_it(Holdfast("sqlite:///orders.db")):
            pass
        assert files(here.parent) == before


def test_an_applications_tables_stay_beside_ours(here: Path) -> None:
    SHARED["unmarked"](here / "orders.db")
    assert check(call("migrate")).code == 0
    assert check(call("start", "flow", "--id", "r")).code == 0
    with closing(sqlite3.connect("orders.db")) as database:
        assert database.execute("select x from t").fetchall() == [(1,)]
        assert database.execute("pragma application_id").fetchone() == (0,)
    assert check(call("ls", "-o", "jsonl"), output="jsonl").code == 0


CHANGES = {
    "newer": "insert into holdfast_migrations values (99, 'later', 'x', 0)",
    "other text": "update holdfast_migrations set checksum = 'x' where number = 2",
    "a gap": "delete from holdfast_migrations where number = 2",
    "no name": "update holdfast_migrations set number = -1 where number = 2",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_schema_that_is_not_known_is_refused_and_stays(change: str, here: Path) -> None:
    (here / "orders.db").write_bytes((here.parent / "backup.db").read_bytes())
    app_db(here / "orders.db", CHANGES[change])
    before = files(here)["orders.db"]
    for args in (*LOOKS, *WRITES[:3]):
        answer = check(call(*args), output="json" if "json" in args else None)
        assert answer.code == 8 or (args[0] in {"doctor", "check"} and answer.code in {1, 8}), answer.told()
    for open_it in (lambda app: app.sync(worker=True), lambda app: app.sync()):
        with pytest.raises(SchemaMismatch), open_it(Holdfast("sqlite:///orders.db")):
            pass
    assert files(here)["orders.db"] == before


@pytest.mark.parametrize("table", ["runs", "history", "attributes", "workers", "numbers"])
def test_a_table_that_is_gone_is_named(table: str, here: Path) -> None:
    (here / "orders.db").write_bytes((here.parent / "backup.db").read_bytes())
    app_db(here / "orders.db", "pragma foreign_keys = off", f"drop table holdfast_{table}")
    for args in (*LOOKS, *WRITES[:3]):
        check(call(*args), output="json" if "json" in args else None)

    def use() -> None:
        with Holdfast("sqlite:///orders.db").sync() as client:
            client.list(where="@k:1")
            client.stats()
            client.get("done").history()
            client.start("flow").cancel()

    error = fault(StoreError, use)
    if error is None:
        assert table in {"workers", "numbers"}
    else:
        assert f"holdfast_{table}" in str(error)
        assert "report it" not in str(error)
