"""A foreign program that holds the file: a writer that never ends its transaction, a reader that never closes."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from tests.crash.faults.kit import TRIES, assert_kept, subject
from tests.crash.faults.subject import app_at
from tests.crash.power.victim import in_a_row, tell

from holdfast import Holdfast
from holdfast._store import sqlitefile
from holdfast.cli import checks

pytestmark = pytest.mark.crash
SOME = 20
SHRUNK = 16 if TRIES == 1 else 1
LOG_BYTES_MAX = sqlitefile.LOG_BYTES_MAX // SHRUNK
LOCKED_SECONDS = float(os.environ.get("HOLDFAST_LOCKED_SECONDS", "3"))
"""31 in `make crash`: longer than SQLite itself waits for a lock."""


@contextmanager
def locked(database: Path) -> Iterator[None]:
    with closing(sqlite3.connect(database, isolation_level=None)) as foreign:
        foreign.execute("begin immediate")
        yield
        foreign.execute("rollback")


def test_a_foreign_writer_is_waited_for_and_named_in_the_log(folder: Path) -> None:
    with subject(folder / "a.db", "--query", "?busy_timeout=0.05") as running:
        running.until_results(SOME)
        with locked(folder / "a.db"):
            running.until_logged("writing is delayed, will be tried again", times=2)
            assert "database is locked (SQLITE_BUSY) (hint: another program holds a transaction open" in running.log
            before = running.told.facts
            running.until_logged("writing is delayed", times=4)
            assert running.told.facts == before
        running.until_logged("the store accepts writes again")
        running.until_results(SOME)
        assert running.finish() == 0
        assert_kept(folder / "a.db", running.told)


def test_two_workers_survive_a_file_that_is_locked_for_longer_than_their_leases(folder: Path) -> None:
    """Neither could renew its lease, and neither may conclude that the other one is dead."""
    lease = LOCKED_SECONDS / 2
    options = ("--lease", f"{lease:g}")
    with (
        subject(folder / "a.db", *options, "--name", "a") as first,
        subject(folder / "a.db", *options, "--name", "b") as other,
    ):
        for running in (first, other):
            running.until_results(SOME)
        time.sleep(1.2 * lease)  # so that each has seen a whole lease of the other
        with locked(folder / "a.db"):
            time.sleep(LOCKED_SECONDS)  # the fault itself lasts so long
        for running in (first, other):
            running.until_results(SOME)
        assert [running.finish() for running in (first, other)] == [0, 0]
        for running in (first, other):
            assert "dead" not in running.log
            assert_kept(folder / "a.db", running.told)


def test_a_log_that_a_reader_keeps_from_shrinking_is_reported_and_shrinks_after(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a sixteenth of the sizes, so that it takes no minute; in the long form with the real ones."""
    monkeypatch.setattr(sqlitefile, "LOG_BYTES_MAX", LOG_BYTES_MAX)
    monkeypatch.setattr(sqlitefile, "CHECKPOINT_PAGES", sqlitefile.CHECKPOINT_PAGES // SHRUNK)
    monkeypatch.setattr(checks, "LOG_BYTES_MAX", LOG_BYTES_MAX)
    path = folder / "a.db"

    async def grow(app: Holdfast, *, while_below: int) -> None:
        number = await app.count()
        while log_bytes(path) < while_below:
            number += 1
            await app.run(in_a_row, 1, "x" * 100_000, id=f"run-{number}")

    async def main() -> None:
        async with subject_app(path) as app:
            await grow(app, while_below=LOG_BYTES_MAX // 8)
            with closing(sqlite3.connect(path)) as foreign:
                foreign.execute("begin")
                seen = foreign.execute("select count(*) from holdfast_runs").fetchone()
                await grow(app, while_below=2 * LOG_BYTES_MAX + 1)
                assert warnings(path) == ["a program keeps a read transaction open: find it and close it"]
                assert foreign.execute("select count(*) from holdfast_runs").fetchone() == seen, "its own snapshot"
            ended = await app.count()
            while log_bytes(path) > LOG_BYTES_MAX:
                await app.run(in_a_row, 1, "", id=f"after-{await app.count()}")
                assert await app.count() < ended + 10, "the first commits after it must fold the log in"
            assert warnings(path) == []
            assert await app.count(state="succeeded") == await app.count()

    tell.append(str)
    try:
        asyncio.run(asyncio.wait_for(main(), 60 if SHRUNK > 1 else 900))
    finally:
        tell.clear()


def subject_app(path: Path) -> Holdfast:
    return app_at(path, query="", lease_seconds=30.0)


def log_bytes(path: Path) -> int:
    return path.with_name(f"{path.name}-wal").stat().st_size


def warnings(path: Path) -> list[str]:
    return [finding.advice for finding in checks.log_size(path) if finding.level is not checks.Level.OK]
