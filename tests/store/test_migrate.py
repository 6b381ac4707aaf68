from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

import holdfast
from holdfast._store.migrate import Migration, migrate, packaged, read
from holdfast._store.sqlitefile import SqliteFile
from holdfast._store.uri import SqliteUri
from holdfast.errors import InternalError, SchemaMismatch, StoreBusy, StoreError, UsageError

FIRST = """-- A comment; with a semicolon.
create table t (x text default ';'); create table u (x);
create trigger w after insert on t begin
    insert into u values (new.x);
end;
-- The end.
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_first.sql").write_text(FIRST)
    (folder / "0002_second.sql").write_text("alter table t add column y integer;")
    (folder / "README").write_text("not a migration")
    return folder


@pytest.fixture
def file(tmp_path: Path) -> Generator[SqliteFile, None, None]:
    opened = SqliteFile(SqliteUri(path=tmp_path / "a.db"))
    yield opened
    opened.close()


def test_migrations_are_applied_in_turns(file: SqliteFile, source: Path) -> None:
    outside: list[str] = []
    connection = file.writer()
    connection.set_trace_callback(lambda sql: None if file.turnstile.held else outside.append(sql))
    assert len(migrate(connection, file.turnstile, now_us=0, source=source)) == 2
    connection.set_trace_callback(None)
    assert outside
    assert [sql for sql in outside if not sql.startswith("select")] == []


def schema(file: SqliteFile) -> list[str]:
    return [row[0] for row in file.reader().execute("select name from sqlite_master order by name")]


def rows(file: SqliteFile) -> list[tuple[object, ...]]:
    return file.reader().execute("select number, name, applied_at from holdfast_migrations").fetchall()


def test_missing_migrations_are_applied_in_order_and_recorded(file: SqliteFile, source: Path) -> None:
    applied = migrate(file.writer(), file.turnstile, now_us=17, source=source)
    assert [migration.name for migration in applied] == ["first", "second"]
    assert schema(file) == ["holdfast_migrations", "t", "u", "w"]
    assert rows(file) == [(1, "first", 17), (2, "second", 17)]
    assert migrate(file.writer(), file.turnstile, now_us=18, source=source) == []


def test_target_stops_early_and_the_rest_follows_later(file: SqliteFile, source: Path) -> None:
    migrate(file.writer(), file.turnstile, now_us=17, source=source, target=1)
    assert rows(file) == [(1, "first", 17)]
    migrate(file.writer(), file.turnstile, now_us=18, source=source, target=2)
    assert rows(file) == [(1, "first", 17), (2, "second", 18)]


def test_dry_run_says_what_is_missing_and_writes_nothing(file: SqliteFile, source: Path) -> None:
    pending = migrate(file.writer(), file.turnstile, now_us=17, source=source, dry_run=True)
    assert [migration.number for migration in pending] == [1, 2]
    assert schema(file) == []


def test_there_is_no_way_down(file: SqliteFile, source: Path) -> None:
    migrate(file.writer(), file.turnstile, now_us=17, source=source)
    with pytest.raises(UsageError, match="no way down to 1"):
        migrate(file.writer(), file.turnstile, now_us=17, source=source, target=1)
    with pytest.raises(UsageError, match="no migration 3"):
        migrate(file.writer(), file.turnstile, now_us=17, source=source, target=3)


def test_newer_database_is_refused_with_a_hint(file: SqliteFile, source: Path) -> None:
    migrate(file.writer(), file.turnstile, now_us=17, source=source)
    (source / "0002_second.sql").unlink()
    with pytest.raises(SchemaMismatch, match="upgrade"):
        migrate(file.writer(), file.turnstile, now_us=17, source=source)


def test_changed_migration_is_refused_but_line_ends_do_not_matter(file: SqliteFile, source: Path) -> None:
    migrate(file.writer(), file.turnstile, now_us=17, source=source)
    (source / "0001_first.sql").write_bytes(FIRST.replace("\n", "\r\n").encode())
    assert migrate(file.writer(), file.turnstile, now_us=17, source=source) == []
    (source / "0001_first.sql").write_text(FIRST + "select 1;")
    with pytest.raises(SchemaMismatch, match="0001_first"):
        migrate(file.writer(), file.turnstile, now_us=17, source=source)


def test_failing_migration_leaves_the_schema_before_it(file: SqliteFile, source: Path) -> None:
    (source / "0002_second.sql").write_text("create table v (x); create table t (x);")
    with pytest.raises(StoreError, match="already exists"):
        migrate(file.writer(), file.turnstile, now_us=17, source=source)
    assert rows(file) == [(1, "first", 17)]
    assert "v" not in schema(file)
    assert not file.writer().in_transaction


def test_migration_may_not_end_its_transaction(file: SqliteFile, source: Path) -> None:
    (source / "0002_second.sql").write_text("create table v (x); commit;")
    with pytest.raises(InternalError, match="ends the transaction"):
        migrate(file.writer(), file.turnstile, now_us=17, source=source)


def test_unfinished_statement_and_gap_in_numbers_are_our_defects(source: Path) -> None:
    with pytest.raises(InternalError, match="middle"):
        list(Migration(1, "x", "select 1; select 2").statements())
    assert list(Migration(1, "x", "select 1; -- end\n/* really; */ ").statements()) == ["select 1;"]
    (source / "0001_first.sql").unlink()
    with pytest.raises(InternalError, match="1, 2, 3"):
        read(source)


def test_lock_of_another_program_is_busy_not_corrupt(tmp_path: Path, source: Path) -> None:
    file = SqliteFile(SqliteUri(path=tmp_path / "b.db", busy_timeout=0.001))
    writer = file.writer()
    other = sqlite3.connect(tmp_path / "b.db", isolation_level=None)
    other.execute("begin immediate")
    with pytest.raises(StoreBusy):
        migrate(writer, file.turnstile, now_us=17, source=source)
    other.close()
    file.close()


OPEN = """
import sys
from collections.abc import Generator
from pathlib import Path
from holdfast._store.migrate import migrate
from holdfast._store.sqlitefile import SqliteFile
from holdfast._store.uri import SqliteUri
print("ready", flush=True); sys.stdin.readline()
file = SqliteFile(SqliteUri(path=Path(sys.argv[1])))
applied = migrate(file.writer(), file.turnstile, now_us=1, source=Path(sys.argv[2]))
print(len(applied)); file.close()
"""


def start(*args: object, script: str = OPEN) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(holdfast.__file__).parents[1])}
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def test_four_processes_that_open_at_once_apply_each_migration_exactly_once(tmp_path: Path, source: Path) -> None:
    for number in range(3, 21):
        (source / f"{number:04}_more.sql").write_text(f"create table t{number} (x);")
    children = [start(tmp_path / "a.db", source) for _ in range(4)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    outputs = [child.communicate()[0] for child in children]
    assert [child.returncode for child in children] == [0] * 4
    assert sum(map(int, outputs)) == 20


DIE = """
import os, sqlite3
sqlite3.complete_statement = lambda text, real=sqlite3.complete_statement: "u (x)" not in text and real(text) or (
    os.kill(os.getpid(), 9) if "u (x)" in text else False)
"""


def test_process_killed_in_a_migration_leaves_the_schema_before_it(tmp_path: Path, source: Path) -> None:
    child = start(tmp_path / "a.db", source, script=DIE + OPEN)
    child.communicate("\n")
    assert child.returncode == -9
    file = SqliteFile(SqliteUri(path=tmp_path / "a.db"))
    assert schema(file) == []
    assert len(migrate(file.writer(), file.turnstile, now_us=17, source=source)) == 2
    file.close()


def test_packaged_migrations_apply_to_a_file_and_to_memory(file: SqliteFile) -> None:
    memory = SqliteFile(SqliteUri(path=None))
    for database in (file, memory):
        applied = migrate(database.writer(), database.turnstile, now_us=17)
        assert applied == read(packaged())
        assert "holdfast_runs" in schema(database)
    memory.close()
