"""The SQLite store: one writer thread, one reader thread, one file.

    event loop ── submit ──> writer thread:  turn [ BEGIN IMMEDIATE · fence · records · COMMIT (· checkpoint) ]
         ^                        │
         └──────── done ──────────┘          reader thread: short reads, query_only

Every commit and every checkpoint of ours happens inside the file's turnstile (see `turnstile.py` for why). The writer
asserts the worker's lease inside the transaction that it is about to write: a worker loses its runs only in the
transaction that declares it dead, so either that one comes first and this batch is refused, or this batch comes first
and is history when the runs are taken over. There is no moment between.

A commit of SQLite is never in doubt: an error means that it was rolled back, or is fatal (a failed sync). What fails
between the commit and the answer, such as letting go of the turn, does not make the batch undone. So the writer notes a
batch as landed in the instruction after its commit; from then on that batch has one answer, however often it is asked.
The note is the batch itself and its outcomes, in memory, until the next one lands: it is of use only to this process.

While the writer is idle it looks at `PRAGMA data_version` (3 to 4 us), which changes when another connection has
committed: often while something is going on, here or elsewhere, seldom when nothing is. That is a hint that makes other
processes' work visible within milliseconds; the runtime's slow poll is the truth.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from holdfast._model.copies import Backup
from holdfast._model.records import Cutoff, EntryRecorded, Outcome, Record
from holdfast._model.runinfo import RunDetail, StateCount
from holdfast._model.search import RunQuery
from holdfast._store import lifelock, sqlite_space
from holdfast._store.copies import Copies
from holdfast._store.migrate import migrate
from holdfast._store.port import Done, EndedGroup, Halted, RecordRefused, Space, WorkerRow
from holdfast._store.rowsjson import decode_rows, rows_of, workers_of
from holdfast._store.sqlfile import load
from holdfast._store.sqlite_apply import Applier
from holdfast._store.sqlite_doctor import examine
from holdfast._store.sqlite_faults import NOT_UTF8, SQLITE_FAULTS, translate
from holdfast._store.sqlite_prune import MARKED_IDS
from holdfast._store.sqlite_search import count_rows, list_rows
from holdfast._store.sqlitefile import SqliteFile
from holdfast._store.thread import StoreThread
from holdfast._store.transaction import transaction
from holdfast._store.uri import SqliteUri
from holdfast._world import World
from holdfast.errors import Fenced, InternalError, NotOpen, StoreBusy, StoreUnavailable

WATCH_SECONDS: Final = {0: 0.005, 200: 0.02, 650: 0.08}
"""How often another process's writes are looked for while somebody waits for them, by the looks that found nothing: for
a second, for ten seconds, and from then on. A look costs 4 us, but waking up for it 100 to 200: 5 ms are 2 % of a core.
So what happens at least every ten seconds is seen within 20 ms, at the median 10, and what happens seldom within 80."""
IDLE_SECONDS: Final = 1.0
"""How often while nobody does."""
IDENTITY_CHECK_US: Final = 1_000_000
"""How often it is checked that the path still leads to the open file."""
BUSY_SECONDS_MAX: Final = 5.0
"""How long a batch waits for a program that takes no turns, before that is logged and the batch is tried again."""
BUSY_PAUSE_SECONDS: Final = 0.02

_log = logging.getLogger("holdfast.engine")
_seq_of = attrgetter("seq")
_json = msgspec.json.Encoder()
_entries = msgspec.json.Decoder(list[EntryRecorded])
_ABOUT_A_RECORD = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    UnicodeEncodeError,
)


class _LiveWorker(NamedTuple):
    id: str
    lease_until: int


class SqliteStore:
    """Part of the `Store` protocol: see `port.py`.

    Args:
        uri: the database and its options.
        world: for the instants of migrations.
        thread: what makes the threads that own the connections; a simulator has its own, see `tests/sim`.
    """

    pipeline = 2

    def __init__(self, uri: SqliteUri, *, world: World, thread: Callable[..., StoreThread] = StoreThread) -> None:
        self.uri = uri
        self._world = world
        self._new_thread = thread
        self._sql = load("sqlite.sql")
        self._file: SqliteFile | None = None
        self._path: Path | None = None
        self._writer: StoreThread | None = None
        self._reader: StoreThread | None = None
        self._locks: dict[str, lifelock.LifeLock] = {}
        self._copies = Copies()
        self._watch = False
        # Owned by the writer thread:
        self._connection: sqlite3.Connection | None = None
        self._applier: Applier | None = None
        self._halted = False
        self._landed: tuple[Sequence[Record], Sequence[Outcome] | None] = ([], None)
        self._closing = False
        self._no_fork: AbstractContextManager[object] | None = None
        self._data_version = 0
        self._calm_looks = 0
        self._identity_checked_at = 0
        self._on_change: Callable[[], object] = _nothing

    # Life.

    async def open(self, *, on_change: Callable[[], object]) -> None:
        self._on_change = on_change
        self._closing = self._watch = False
        try:
            await self._open()
        except OSError as error:
            raise StoreUnavailable(
                f"cannot open {self.uri.path}: {error}",
                hint="look at the path, its owner, and the number of open files",
            ) from error

    async def _open(self) -> None:
        file = self._file = SqliteFile(self.uri)
        self._path = file.path  # what lies beside the file has one name, whatever led to it
        writer = self._writer = self._new_thread("holdfast-writer", on_quiet=self._look)
        try:
            await writer.call(self._open_writer, file)
        except BaseException:
            await self.close()
            raise
        self._reader = writer if file.memory else self._new_thread("holdfast-reader")

    def _open_writer(self, file: SqliteFile) -> None:
        with file.no_fork():
            connection = self._connect(file)
            migrate(connection, file.turnstile, now_us=self._world.now_us())
            connection.execute(f"pragma busy_timeout = {int(min(self.uri.busy_timeout, BUSY_SECONDS_MAX) * 1000)}")
            self._data_version = self._read_data_version()
        if not file.memory:
            self._no_fork = file.no_fork()
            self._begin_to_look()

    def _connect(self, file: SqliteFile) -> sqlite3.Connection:
        connection = self._connection = file.writer()
        connection.row_factory = sqlite3.Row
        self._applier = Applier(connection, self._sql, self._world.now_us)
        return connection

    async def close(self) -> None:
        file, writer, reader = self._file, self._writer, self._reader
        if self._closing or file is None:
            return
        self._closing = True
        await self._copies.end()
        if reader is not None and reader is not writer:
            await reader.call(file.close_thread)
            await reader.stop()
        if writer is not None:
            await writer.call(self._close_writer, file)
            await writer.stop()
        self._file = self._writer = self._reader = None
        for lock in self._locks.values():
            lock.release()
        self._locks.clear()

    def _close_writer(self, file: SqliteFile) -> None:
        self._connection = self._applier = self._no_fork = None  # in the writer thread: it may look before it stops
        file.close()

    # Writing.

    def submit(self, batch: Sequence[Record], *, worker: str | None, done: Done) -> None:
        writer = self._open_thread(self._writer)
        writer.post(lambda: self._commit(writer, batch, worker, done))

    def proceed(self) -> None:
        def work() -> None:
            self._halted = False

        self._open_thread(self._writer).post(work)

    def _commit(self, writer: StoreThread, batch: Sequence[Record], worker: str | None, done: Done) -> None:
        """In the writer thread: one batch, one transaction, one answer."""
        if self._halted:
            writer.answer(done, None, Halted("an earlier batch failed"))
            return
        if self._landed[0] is not batch:
            try:
                self._transact(batch, worker)
            except BaseException as error:
                if self._landed[0] is not batch:
                    self._halted = True
                    writer.answer(done, None, self._explain(error))
                    return
                _log.exception("a batch is durable, but its turn did not end as it should")
        writer.answer(done, self._landed[1], None)
        self._begin_to_look()
        self._look()

    def _transact(self, batch: Sequence[Record], worker: str | None) -> None:
        connection, applier, file = self._connection, self._applier, self._file
        if connection is None or applier is None or file is None:
            raise InternalError("the writer thread has no connection")
        with file.no_fork(), file.turnstile.turn():
            self._check_identity(file)
            with transaction(connection):
                if worker is not None and connection.execute(self._sql["fence"], (worker,)).fetchone() is None:
                    raise Fenced(
                        f"worker {worker} was declared dead; its batch of {len(batch)} records was refused",
                        hint="the process was stopped for longer than its lease; its runs go on elsewhere",
                    )
                outcomes = applier.apply(batch)
            self._landed = (batch, outcomes)

    def _check_identity(self, file: SqliteFile) -> None:
        now = self._world.now_us()
        if abs(now - self._identity_checked_at) >= IDENTITY_CHECK_US:
            self._identity_checked_at = now
            file.check_identity()

    def _explain(self, error: BaseException) -> BaseException:
        if isinstance(error, _ABOUT_A_RECORD) or str(error).startswith(NOT_UTF8):
            return RecordRefused(f"SQLite refused a record: {error}")
        if isinstance(error, SQLITE_FAULTS):
            return translate(error, self.uri.path)
        return error

    # Noticing other processes.

    def watch(self, active: bool) -> None:
        if active != self._watch and self._writer is not None:
            self._watch = active
            self._writer.post(self._begin_to_look)  # so that the thread's wait begins anew, with another period

    def _begin_to_look(self) -> None:
        """In the writer thread: look often, if somebody waits, since something is going on."""
        self._calm_looks = 0
        if self._writer is not None and self._no_fork is not None:
            self._writer.poll_seconds = WATCH_SECONDS[0] if self._watch else IDLE_SECONDS

    def _look(self) -> None:
        """In the writer thread: tell the loop when another connection has committed since the last look."""
        writer, no_fork = self._writer, self._no_fork
        if self._connection is None or writer is None or no_fork is None:
            return
        try:
            with no_fork:
                version = self._read_data_version()
        except sqlite3.Error:  # this is only a hint; the next commit meets the fault and tells
            return
        if version != self._data_version:
            self._data_version = version
            writer.answer(self._on_change)
            self._begin_to_look()
        elif self._watch:
            self._calm_looks += 1
            writer.poll_seconds = WATCH_SECONDS.get(self._calm_looks, writer.poll_seconds)

    def _read_data_version(self) -> int:
        if self._connection is None:
            raise InternalError("the writer thread has no connection")
        version: int = self._connection.execute("pragma data_version").fetchone()[0]
        return version

    # Workers.

    async def register_worker(self, worker: str, *, now: int, lease_until: int, workflows: Sequence[str] = ()) -> None:
        if self._path is not None:
            self._locks[worker] = lifelock.LifeLock(self._path, worker)
        values = (worker, socket.gethostname(), os.getpid(), now, lease_until, _text(workflows))
        await self._patiently(lambda: self._write("register_worker", *values))

    async def renew_lease(self, worker: str, *, lease_until: int, workflows: Sequence[str] | None = None) -> bool:
        known = None if workflows is None else _text(workflows)
        return await self._write("renew_lease", worker, lease_until, known) == 1

    async def leave(self, worker: str, *, now: int) -> None:
        await self._patiently(lambda: self._write("leave", worker, now, also=("give_back_runs", worker)))
        self._release(worker)

    def _release(self, worker: str) -> None:
        lock = self._locks.pop(worker, None)
        if lock is not None:
            lock.release()

    async def dead_workers(self, *, now: int) -> list[str]:
        live = await self._rows(_LiveWorker, "live_workers")
        path = self._path
        if path is None:
            return [row.id for row in live if row.lease_until < now and row.id not in self._locks]
        return [
            row.id
            for row in live
            if row.id not in self._locks and (row.lease_until < now or lifelock.is_free(path, row.id))
        ]

    async def buried(self, worker: str) -> None:
        self._release(worker)
        if self._path is not None:
            lifelock.remove(self._path, worker)

    async def forget_workers(self, *, before: int) -> None:
        await self._write("forget_workers", before)

    async def sweep_locks(self, *, before: int) -> None:
        path = self._path
        if path is not None:
            live = {row.id for row in await self._rows(_LiveWorker, "live_workers")}
            await self._call(self._reader, lambda: lifelock.sweep(path, live | self._locks.keys(), before_us=before))

    async def workers(self) -> list[WorkerRow]:
        return workers_of(await self._read(lambda c: c.execute(self._sql["workers"]).fetchall()))

    async def _write(self, name: str, *values: Any, also: tuple[Any, ...] = ()) -> int:
        """Leases only: one statement, or two, in a transaction of their own."""

        def work() -> int:
            file, connection = self._file, self._connection
            if file is None or connection is None:
                raise NotOpen("the store is closed")
            with file.turnstile.turn(), transaction(connection):
                changed = connection.execute(self._sql[name], values).rowcount
                if also:
                    connection.execute(self._sql[also[0]], also[1:])
                return changed

        changed: int = await self._call(self._writer, work)
        return changed

    # Reading.

    async def histories(self, numbers: Sequence[int]) -> dict[int, list[EntryRecorded]]:
        raw = await self._read(lambda c: c.execute(self._sql["histories"], (_text(numbers),)).fetchone()[0])
        histories: dict[int, list[EntryRecorded]] = {}
        for entry in decode_rows(_entries, raw):
            histories.setdefault(entry.run, []).append(entry)
        for entries in histories.values():
            entries.sort(key=_seq_of)
        return histories

    async def detail(self, run_id: str) -> RunDetail | None:
        rows = await self._rows(RunDetail, "detail", run_id)
        return rows[0] if rows else None

    async def list_runs(self, query: RunQuery, *, limit: int) -> list[RunDetail]:
        rows = await self._read(lambda c: list_rows(c, self._sql, query, limit=limit))
        return rows_of(RunDetail, rows)

    async def count_runs(self, query: RunQuery, *, limit: int | None = None) -> int:
        count: int = await self._read(lambda c: count_rows(c, self._sql, query, limit=limit))
        return count

    async def attribute_keys(self, *, limit: int) -> list[str]:
        rows = await self._read(lambda c: c.execute(self._sql["attribute_keys"], (limit,)).fetchall())
        return [str(row["name"]) for row in rows]  # on a damaged page it may be anything

    async def attribute_keys_among(self, keys: Sequence[str]) -> list[str]:
        rows = await self._read(lambda c: c.execute(self._sql["attribute_keys_among"], (_text(keys),)).fetchall())
        return [row["name"] for row in rows]

    async def state_counts(self) -> list[StateCount]:
        return await self._rows(StateCount, "state_counts")

    async def ended_counts(self, workflows: Sequence[str], *, since: int) -> list[StateCount]:
        return await self._rows(StateCount, "ended_counts", _text(workflows), since)

    async def durations(self, workflow: str, *, since: int, limit: int) -> list[int]:
        values = {"workflow": workflow, "since": since, "limit": limit}
        rows = await self._read(lambda c: c.execute(self._sql["durations"], values).fetchall())
        return [row["took"] for row in rows]

    async def ended_among(self, run_ids: Sequence[str]) -> list[tuple[str, str | None]]:
        rows = await self._read(lambda c: c.execute(self._sql["ended_among"], (_text(run_ids),)).fetchall())
        return [(row["id"], row["ended"]) for row in rows]

    async def requests_of(self, worker: str) -> list[tuple[int, str]]:
        rows = await self._read(lambda c: c.execute(self._sql["requests_of_worker"], (worker,)).fetchall())
        return [(row["number"], row["request"]) for row in rows]

    async def next_due(self) -> int | None:
        due: int | None = await self._value("next_due")
        return due

    async def has_ready(self, workflows: Sequence[str]) -> bool:
        return bool(await self._value("has_ready", _text(workflows)))

    async def has_suspect(self, workflows: Sequence[str]) -> bool:
        return bool(await self._value("has_suspect", _text(workflows)))

    async def has_blocked(
        self, worker: str, workflows: Sequence[str], *, tried: Sequence[int] = (), suspect: bool = False
    ) -> bool:
        return bool(await self._value("has_blocked", worker, _text(workflows), _text(tried), suspect))

    async def ended_groups(self) -> list[EndedGroup]:
        return await self._rows(EndedGroup, "ended_groups")

    async def count_ended(self, cutoffs: Sequence[Cutoff]) -> list[int]:
        return [await self._value("count_ended", *cutoff) for cutoff in cutoffs]

    async def count_ended_entries(self, cutoff: Cutoff, *, runs_max: int) -> int:
        return int(await self._value("count_ended_entries", *cutoff, runs_max))

    async def is_pruning(self) -> bool:
        return await self._value("prune_marked", *MARKED_IDS) is not None

    async def space(self) -> Space:
        return Space(*await self._read(sqlite_space.space))

    async def compact(self, *, keep: int) -> int:
        def work() -> int:
            file, connection = self._file, self._connection
            if file is None or connection is None:
                raise NotOpen("the store is closed")
            with file.no_fork(), file.turnstile.turn():
                self._check_identity(file)
                return sqlite_space.compact(connection, keep=keep)

        given: int = await self._call(self._writer, work)
        return given

    async def backup(self, target: Path, *, force: bool) -> Backup:
        file = self._file
        if file is None or self._closing:
            raise NotOpen("the store is closed")
        return await self._copies.make(file, target, force=force)

    async def check(self) -> dict[str, Any]:
        facts: dict[str, Any] = await self._read(examine)
        return facts

    async def _rows(self, kind: type[Any], name: str, *values: Any) -> list[Any]:
        rows = await self._read(lambda c: c.execute(self._sql[name], values).fetchall())
        return rows_of(kind, rows)

    async def _value(self, name: str, *values: Any) -> Any:
        return await self._read(lambda c: c.execute(self._sql[name], values).fetchone()[0])

    async def _read(self, query: Callable[[sqlite3.Connection], Any]) -> Any:
        file = self._file
        if file is None:
            raise NotOpen("the store is closed")

        def work() -> Any:
            with file.reading() as connection:
                connection.row_factory = sqlite3.Row
                return query(connection)

        return await self._patiently(lambda: self._call(self._reader, work))

    async def _patiently(self, attempt: Callable[[], Awaitable[Any]]) -> Any:
        """Try again for as long as another program holds the database: locked is not an error that a user sees."""
        while True:
            try:
                return await attempt()
            except StoreBusy as error:
                _log.warning("waiting goes on: %s", error)
                await asyncio.sleep(BUSY_PAUSE_SECONDS)

    async def _call(self, thread: StoreThread | None, work: Callable[[], Any]) -> Any:
        try:
            return await self._open_thread(thread).call(work)
        except SQLITE_FAULTS as error:
            raise translate(error, self.uri.path) from error

    def _open_thread(self, thread: StoreThread | None) -> StoreThread:
        if thread is None or self._closing:
            raise NotOpen("the store is not open", hint="use it inside `async with app:`")
        return thread


def _text(value: object) -> str:
    return _json.encode(value).decode()


def _nothing() -> None:
    """Nothing."""
