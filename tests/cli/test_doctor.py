"""`doctor` on sound, damaged, foreign and missing files; `migrate`."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from holdfast.cli import checks

Cli = Callable[..., Any]


def levels(answer: Any) -> dict[str, str]:
    return {check["name"]: check["level"] for check in answer.json["checks"]}


def test_sound_database_passes(worked_off: Cli) -> None:
    answer = worked_off("doctor", "-o", "json")
    assert (answer.code, answer.json["ok"]) == (0, True)
    assert all(set(check) == {"level", "name", "message", "advice"} for check in answer.json["checks"])
    assert "fail" not in levels(answer).values()
    expected = {"sqlite", "file system", "permissions", "integrity", "schema", "pragmas", "workers", "log", "turns"}
    assert expected <= set(levels(answer))
    assert [line["name"] for line in worked_off("doctor", "-o", "jsonl").lines] == list(levels(answer))


def test_missing_database_is_reported_and_not_made(cli: Cli, shop: Path) -> None:
    answer = cli("doctor", "-o", "json")
    assert (answer.code, answer.json["ok"], levels(answer)["database"]) == (1, False, "fail")
    assert not (shop / "orders.db").exists()
    assert f"no database at {shop / 'orders.db'}" in " ".join(cli("doctor").out.split())


def test_file_that_is_no_database_is_reported(cli: Cli, shop: Path) -> None:
    (shop / "orders.db").write_bytes(b"not a database " * 1000)
    answer = cli("doctor", "-o", "json")
    assert (answer.code, levels(answer)["open"]) == (1, "fail")


def test_damaged_pages_are_found(worked_off: Cli, shop: Path) -> None:
    """No connection is open here, so writing the file by other means is allowed."""
    path = shop / "orders.db"
    with sqlite3.connect(path) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
        page = connection.execute("select rootpage from sqlite_master where name = 'holdfast_runs'").fetchone()[0]
    connection.close()
    content = bytearray(path.read_bytes())
    content[(page - 1) * 4096 : page * 4096] = b"\xff" * 4096
    path.write_bytes(content)
    answer = worked_off("doctor", "-o", "json")
    assert answer.code == 1
    assert levels(answer)["integrity"] == "fail"


def test_newer_schema_is_reported(worked_off: Cli, shop: Path) -> None:
    with sqlite3.connect(shop / "orders.db") as connection:
        connection.execute("insert into holdfast_migrations values (99, 'later', 'x', 0)")
    connection.close()
    answer = worked_off("doctor", "-o", "json")
    assert (answer.code, levels(answer)["schema"]) == (1, "fail")
    assert worked_off("ls").code == 8
    assert worked_off("migrate", "--dry-run").code == 8


def test_missing_migrations_are_reported_and_not_applied(worked_off: Cli, shop: Path) -> None:
    with sqlite3.connect(shop / "orders.db") as connection:
        connection.execute("delete from holdfast_migrations")
    connection.close()
    answer = worked_off("doctor", "-o", "json")
    assert (answer.code, levels(answer)["schema"]) == (0, "warn")


def test_blocked_runs_are_reported(worked_off: Cli, process: Callable[..., Any]) -> None:
    worker = process("worker", "shop:app", "-o", "jsonl")
    worked_off("start", "checkout", "order=7", "--id", "b1")  # a number, where the code says text
    while "is blocked" not in worker.stderr.readline():
        assert worker.poll() is None
    worker.terminate()
    worker.communicate()  # the log tells it before it is written; a worker that has stopped has written all
    answer = worked_off("doctor", "-o", "json")
    assert (answer.code, levels(answer)["runs"]) == (0, "warn")
    assert "blocked" in worked_off("show", "b1").out.splitlines()[0]


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ((3, 36, 0), "fail"),
        ((3, 40, 1), "warn"),
        ((3, 44, 6), "ok"),
        ((3, 50, 7), "ok"),
        ((3, 51, 2), "warn"),
        ((3, 51, 3), "ok"),
    ],
)
def test_bad_versions_of_sqlite_are_named(version: tuple[int, int, int], level: str) -> None:
    assert checks.sqlite_version(version).level == level


def test_file_that_others_may_read_is_named(worked_off: Cli, shop: Path) -> None:
    (shop / "orders.db").chmod(0o644)
    answer = worked_off("doctor", "-o", "json")
    assert (answer.code, levels(answer)["permissions"]) == (0, "warn")


def test_second_sqlite_library_is_named(worked_off: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apsw", ModuleType("apsw"))
    with pytest.warns(RuntimeWarning, match="apsw"):
        answer = worked_off("doctor", "-o", "json")
    assert levels(answer)["libraries"] == "fail"


def test_synchronous_normal_is_a_warning(worked_off: Cli) -> None:
    answer = worked_off("doctor", "--db", "sqlite:///orders.db?synchronous=normal", "-o", "json")
    assert (answer.code, levels(answer)["pragmas"]) == (0, "warn")


def test_dead_worker_is_named(worked_off: Cli, process: Callable[..., Any]) -> None:
    worker = process("worker", "shop:app", "-o", "jsonl")
    worker.stdout.readline()
    worker.kill()
    worker.wait()
    answer = worked_off("doctor", "-o", "json")
    assert (answer.code, levels(answer)["workers"]) == (0, "warn")


def test_runs_that_nobody_executes_are_told_with_what_starts_a_worker(
    worked_off: Cli, process: Callable[..., Any], cli: Cli
) -> None:
    def found(name: str) -> list[Any]:
        return [check for check in worked_off("doctor", "-o", "json").json["checks"] if check["name"] == name]

    (finding,) = found("workers")
    assert (finding["level"], finding["message"]) == ("warn", "none is alive, and 1 run waits for one")
    assert "holdfast worker MOD:APP" in finding["advice"]
    assert found("ready") == []
    cli("start", "nobody_knows")
    worker = process("worker", "shop:app", "-o", "jsonl")
    worker.stdout.readline()
    assert [check["message"] for check in found("workers")] == ["1 alive"]
    assert [check["message"] for check in found("ready")] == [
        "1 run of nobody_knows ready, and no live worker knows it"
    ]


def test_unusable_turnstile_is_found(worked_off: Cli, shop: Path) -> None:
    (shop / "orders.db-turn-a").unlink()
    (shop / "orders.db-turn-a").symlink_to("elsewhere")
    answer = worked_off("doctor", "-o", "json")
    assert (answer.code, levels(answer)["turns"]) == (1, "fail")


def test_report_has_a_line_for_each_check_and_advice_below(worked_off: Cli) -> None:
    lines = worked_off("doctor").out.splitlines()
    assert all(line.split()[0] in {"ok", "warn", "fail", "→"} for line in lines)


# migrate


def test_dry_run_says_what_would_be_applied_and_makes_nothing(cli: Cli, shop: Path) -> None:
    answer = cli("migrate", "--dry-run")
    assert (answer.code, answer.out.splitlines()[0]) == (0, "would apply  0001_initial")
    assert not (shop / "orders.db").exists()


def test_migrate_applies_once(cli: Cli) -> None:
    applied = cli("migrate", "-o", "json").json
    assert applied["migrations"][0] == {"number": 1, "name": "initial"}
    assert set(applied) == {"database", "dry_run", "migrations"}
    assert cli("migrate", "-o", "json").json["migrations"] == []
    assert cli("migrate").out.startswith("up to date")


def test_migrate_stops_at_the_target(cli: Cli) -> None:
    assert [m["number"] for m in cli("migrate", "--target-version", "1", "-o", "json").json["migrations"]] == [1]
    assert cli("migrate", "--target-version", "0").code == 2
    assert cli("migrate", "--target-version", "9999").code == 2
