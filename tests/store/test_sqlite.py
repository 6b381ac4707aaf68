from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest

from holdfast._model.search import RunQuery
from holdfast._store.port import Halted, RecordRefused
from holdfast._store.sqlfile import load
from holdfast._store.sqlite import SqliteStore
from holdfast._store.turnstile import Turnstile
from holdfast._store.uri import SqliteUri
from holdfast._world import SystemWorld
from holdfast.errors import NotOpen, StoreBusy, StoreFull, StoreReplaced
from holdfast.testing.store_conformance.bench import FAR, WORKER, Bench, entry, started


@asynccontextmanager
async def a_store(
    path: Path | None, *, busy_timeout: float = 30.0, world: SystemWorld | None = None
) -> AsyncIterator[Bench]:
    uri = SqliteUri(path=path, busy_timeout=busy_timeout)
    bench = Bench(SqliteStore(uri, world=world or SystemWorld()), lambda: SqliteStore(uri, world=SystemWorld()))
    await bench.store.open(on_change=bench.changes.set)
    try:
        await bench.store.register_worker(WORKER, now=1, lease_until=FAR)
        yield bench
    finally:
        await bench.store.close()


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_store(tmp_path / "a.db") as bench:
            pass
        for call in (
            lambda: bench.store.detail("a"),
            lambda: bench.store.renew_lease(WORKER, lease_until=1),
            lambda: bench.submit(started("a")),
        ):
            with pytest.raises(NotOpen):
                await call()
        bench.store.watch(True)

    asyncio.run(main())


def test_a_database_that_another_program_holds_is_busy_not_broken(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_store(tmp_path / "a.db", busy_timeout=0.01) as bench:
            other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
            other.execute("begin immediate")
            error = await bench.refused(started("a"))
            assert type(error) is StoreBusy
            assert error.retryable
            with pytest.raises(StoreBusy):
                await bench.store.renew_lease(WORKER, lease_until=5)
            assert await bench.store.count_runs(RunQuery()) == 0, "reading goes on"
            other.execute("rollback")
            other.close()
            await bench.submit(started("a"))

    asyncio.run(main())


def test_a_full_disk_is_a_passing_failure_and_the_connection_recovers(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_store(tmp_path / "a.db") as bench:
            store = bench.store
            assert isinstance(store, SqliteStore)
            assert store._writer is not None

            def limit(pages: int) -> None:
                assert store._connection is not None
                store._connection.execute(f"pragma max_page_count = {pages}").fetchone()

            await store._writer.call(limit, 1)  # SQLite does not go below what there is
            error = await bench.refused(started("a", input=f'"{"x" * 1_000_000}"'))
            assert type(error) is StoreFull
            assert error.retryable
            await store._writer.call(limit, 2**30)
            await bench.submit(started("a"))
            assert (await bench.row("a")).input == '{"x":1}'

    asyncio.run(main())


def test_what_fails_after_the_commit_does_not_undo_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with a_store(tmp_path / "a.db") as bench:
            store = bench.store
            assert isinstance(store, SqliteStore)
            assert store._file is not None
            turnstile = store._file.turnstile

            @contextmanager
            def turn() -> Generator[None]:
                with Turnstile.turn(turnstile):
                    yield
                raise OSError("the lock cannot be let go of")

            monkeypatch.setattr(turnstile, "turn", turn)
            assert (await bench.submit(started("a"))).created
            monkeypatch.undo()
            assert (await bench.submit(started("b"))).created
            assert await store.count_runs(RunQuery()) == 2
        assert "its turn did not end as it should" in caplog.text

    asyncio.run(main())


def test_a_replaced_file_stops_the_store(tmp_path: Path) -> None:
    class LeapingWorld(SystemWorld):
        leap = 0

        def now_us(self) -> int:
            self.leap += 10_000_000
            return super().now_us() + self.leap

    async def main() -> None:
        path = tmp_path / "a.db"
        async with a_store(path, world=LeapingWorld()) as bench:
            await bench.submit(started("a"))
            path.rename(tmp_path / "moved.db")
            sqlite3.connect(path).close()
            path.touch()
            error = await bench.refused(started("b"))
            assert type(error) is StoreReplaced
            assert not error.retryable
            path.unlink()
            (tmp_path / "moved.db").rename(path)

    asyncio.run(main())


def test_a_failed_transaction_leaves_none_open(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_store(tmp_path / "a.db") as bench:
            number = await bench.start("a")
            for _ in range(3):
                await bench.refused(entry(number, 1, 1, kind="nonsense"))
                store = bench.store
                assert isinstance(store, SqliteStore)
                assert store._connection is not None
                assert not store._connection.in_transaction
            await bench.submit(entry(number, 1, 1))

    asyncio.run(main())


def test_what_is_acknowledged_is_in_the_file_for_others_before_the_answer(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_store(tmp_path / "a.db") as bench:
            for number in range(20):
                await bench.start(f"r{number}")
                other = sqlite3.connect(f"file:{tmp_path / 'a.db'}?mode=ro", uri=True)
                assert other.execute("select count(*) from holdfast_runs").fetchone()[0] == number + 1
                other.close()

    asyncio.run(main())


KILLED = """
import asyncio, os, sys
from pathlib import Path
from holdfast._store.sqlite import SqliteStore
from holdfast._store.turnstile import Turnstile
from holdfast._store.uri import SqliteUri
from holdfast._world import SystemWorld
from holdfast.testing.store_conformance.bench import Bench, FAR, started

async def main():
    uri = SqliteUri(path=Path(sys.argv[1]))
    make = lambda: SqliteStore(uri, world=SystemWorld())
    bench = Bench(make(), make)
    await bench.store.open(on_change=lambda: None)
    await bench.store.register_worker("w1", now=1, lease_until=FAR)
    for number in range(1000):
        await bench.submit(started(f"r{number}"))
        os.write(1, b".")

asyncio.run(main())
"""


def test_every_acknowledged_batch_of_a_killed_process_is_there(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "a.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        told = 0
        while told < 50:
            told += len(os.read(process.stdout.fileno(), 100))
        process.kill()
        told += len(process.stdout.read())

    async def look() -> None:
        store = SqliteStore(SqliteUri(path=tmp_path / "a.db"), world=SystemWorld())
        await store.open(on_change=lambda: None)
        there = await store.count_runs(RunQuery())
        assert told <= there <= told + 1
        assert await store.dead_workers(now=2) == [WORKER]
        await store.close()

    asyncio.run(look())


def test_a_worker_enters_and_leaves_when_a_foreign_program_lets_go_however_long_that_takes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with a_store(tmp_path / "a.db", busy_timeout=0.01) as bench:
            for change in (
                lambda: bench.store.register_worker("w2", now=1, lease_until=FAR),
                lambda: bench.store.leave("w2", now=2),
            ):
                caplog.clear()
                with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as foreign:
                    foreign.execute("begin immediate")
                    waiting = asyncio.ensure_future(change())
                    while caplog.text.count("waiting goes on") < 2:
                        assert not waiting.done()
                        await asyncio.sleep(0)
                    foreign.execute("rollback")
                await waiting

    asyncio.run(main())


def test_whatever_the_store_writes_it_writes_in_a_turn(tmp_path: Path) -> None:
    """A commit or a checkpoint outside of one may meet another process's: then the WAL-reset bug takes pages away."""

    async def main() -> None:
        with closing(sqlite3.connect(tmp_path / "a.db")) as other:
            other.executescript("pragma auto_vacuum = 2; create table t (x); insert into t values (zeroblob(99999))")
            other.execute("drop table t")
        in_turn: dict[str, bool] = {}
        async with a_store(tmp_path / "a.db") as bench:
            connection, file = bench.store._connection, bench.store._file
            assert connection is not None
            assert file is not None

            def note(sql: str) -> None:
                name = sql.partition("(")[0].strip()
                in_turn[name] = in_turn.get(name, True) and file.turnstile.held

            connection.set_trace_callback(note)
            await bench.submit(started("a"), worker=WORKER)
            assert await bench.store.renew_lease(WORKER, lease_until=FAR)
            await bench.store.forget_workers(before=1)
            assert await bench.store.compact(keep=0) > 0
            await bench.store.leave(WORKER, now=1)
            connection.set_trace_callback(None)
        assert in_turn.pop("pragma data_version") is False, "that is how other processes' commits are noticed"
        assert {"begin immediate", "commit", "pragma incremental_vacuum", "pragma wal_checkpoint"} <= in_turn.keys()
        assert [sql for sql, held in in_turn.items() if not held] == []

    asyncio.run(main())


@pytest.mark.parametrize("name", ["linked/a.db", "link.db", "../place/a.db"])
def test_a_worker_lives_by_whatever_name_its_file_was_opened(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock that proves it lies beside the file itself: not beside a link, nor where the process has gone since."""
    (place := tmp_path / "place").mkdir()
    (place / "linked").symlink_to(place)
    (place / "link.db").symlink_to("a.db")

    async def main() -> None:
        monkeypatch.chdir(place)
        async with a_store(Path(name)) as bench:
            monkeypatch.chdir(tmp_path)
            other = SqliteStore(SqliteUri(path=place / "a.db"), world=SystemWorld())
            await other.open(on_change=lambda: None)
            await other.register_worker("w2", now=1, lease_until=FAR)
            assert (await bench.store.dead_workers(now=2), await other.dead_workers(now=2)) == ([], [])
            await bench.store.buried(WORKER)
            await other.buried("w2")
            assert await other.dead_workers(now=2) == await bench.store.dead_workers(now=2) == [WORKER, "w2"]
            await other.close()

    asyncio.run(main())


def test_facts_for_the_doctor(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_store(tmp_path / "a.db") as bench:
            facts = await bench.store.check()
            assert facts, "something to look at"

    asyncio.run(main())


def test_a_store_halts_by_itself_and_says_why(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_store(None) as bench:
            number = await bench.start("a")
            with pytest.raises(RecordRefused, match="SQLite refused a record"):
                await bench.post([entry(number, 1, 1, kind="nonsense")])
            with pytest.raises(Halted):
                await bench.post([started("b")])
            bench.store.proceed()
            await bench.submit(started("b"))

    asyncio.run(main())


RUN_BY_ID = "holdfast_runs USING INDEX sqlite_autoindex_holdfast_runs_1 (id=?)"
HOT: dict[str, tuple[tuple[object, ...], str]] = {
    "claim": (('["flow"]', 10), "holdfast_runs USING COVERING INDEX holdfast_runs_ready"),
    "ready_count": (('["flow"]', 10), "holdfast_runs USING COVERING INDEX holdfast_runs_ready"),
    "has_ready": (('["flow"]',), "holdfast_runs USING COVERING INDEX holdfast_runs_ready"),
    "wake_due": ((5, 1000), "holdfast_runs USING INDEX holdfast_runs_due (due_at>? AND due_at<?)"),
    "next_due": ((), "holdfast_runs USING INDEX holdfast_runs_due (due_at>?)"),
    "claim_runs": (("[1]", "w", 5), "holdfast_runs USING INTEGER PRIMARY KEY (rowid=?)"),
    "claimed_rows": (("[1]",), "holdfast_runs USING INTEGER PRIMARY KEY (rowid=?)"),
    "requests_of_worker": (("w",), "holdfast_runs USING INDEX holdfast_runs_request (worker=?)"),
    "orphan_runs": (("w", 1, 5, "{}"), "holdfast_runs USING INDEX holdfast_runs_worker (worker=?)"),
    "give_back_runs": (("w",), "holdfast_runs USING INDEX holdfast_runs_worker (worker=?)"),
    "claim_suspect": (('["flow"]',), "holdfast_runs USING INDEX holdfast_runs_suspect (crashes>?)"),
    "has_suspect": (('["flow"]',), "holdfast_runs USING INDEX holdfast_runs_suspect (crashes>?)"),
    "run_of_id": (("a",), RUN_BY_ID),
    "detail": (("a",), RUN_BY_ID),
    "request_row": (("a",), RUN_BY_ID),
    "ended_among": (('["a"]',), RUN_BY_ID),
    "histories": (("[1]",), "holdfast_history USING INDEX sqlite_autoindex_holdfast_history_1 (run=?)"),
}
"""Hot statements, with values and the access to a table that they stand or fall by."""


@pytest.mark.parametrize("name", HOT)
def test_hot_statements_keep_their_query_plans(name: str, tmp_path: Path) -> None:
    values, access = HOT[name]

    async def main() -> list[str]:
        async with a_store(tmp_path / "a.db"):
            connection = sqlite3.connect(f"file:{tmp_path / 'a.db'}?mode=ro", uri=True)
            try:
                plan = connection.execute(f"explain query plan {load('sqlite.sql')[name]}", values).fetchall()
            finally:
                connection.close()
            return [row[3] for row in plan]

    plan = asyncio.run(main())
    assert any(line.endswith(access) for line in plan), plan
    walks = [line for line in plan if line.startswith("SCAN holdfast") and "holdfast_runs_ready" not in line]
    assert not walks, plan
    assert not any("TEMP B-TREE" in line for line in plan), plan


def test_a_look_between_closing_and_stopping_does_no_harm(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_store(tmp_path / "a.db") as bench:
            store = bench.store
            assert isinstance(store, SqliteStore)
            writer = store._writer
            assert writer is not None
            looked = threading.Event()
            look, stop = writer._on_quiet, writer.stop
            assert look is not None

            def look_and_tell() -> None:
                try:
                    look()
                except BaseException as error:
                    failures.append(error)
                finally:
                    looked.set()

            async def stop_after_a_look() -> None:
                looked.clear()
                await asyncio.to_thread(looked.wait, 20)
                await stop()

            failures: list[BaseException] = []
            writer._on_quiet = look_and_tell
            writer.stop = stop_after_a_look  # type: ignore[method-assign]
            store.watch(True)
            await store.close()
            assert failures == []

    asyncio.run(main())


def test_a_look_that_fails_does_not_end_the_writer(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_store(tmp_path / "a.db") as bench:
            store = bench.store
            assert isinstance(store, SqliteStore)

            def failing() -> int:
                raise sqlite3.OperationalError("disk I/O error")

            store._read_data_version = failing  # type: ignore[method-assign]
            await bench.submit(started("a"))
            second = bench.post([started("b")])
            await asyncio.wait([second], timeout=10)
            if not second.done():
                store._closing = True  # nobody is left who could close it
            assert second.done(), "the writer thread has died"

    asyncio.run(main())
