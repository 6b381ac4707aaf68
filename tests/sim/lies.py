"""Engines that lie. Each breaks one promise in a small way, and the simulator must notice soon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any, Final, TypeAlias, cast

from tests.sim.virtual import SimWorld

from holdfast._flow.history import History
from holdfast._model.records import CancelRequested, EntryRecorded, Outcome, Record, RunStarted, Started
from holdfast._runtime.bodies import Bodies
from holdfast._runtime.executor import Executor
from holdfast._runtime.liverun import LiveRun
from holdfast._store.journal import Journal, Then
from holdfast._store.sqlfile import Statements
from holdfast._store.sqlite import SqliteStore
from holdfast._store.sqlite_apply import Applier
from holdfast._store.thread import StoreThread
from holdfast._store.uri import parse

Lie: TypeAlias = Callable[[], AbstractContextManager[Callable[..., SqliteStore]]]


def _of(kind: type[SqliteStore], **statements: Callable[[str], str]) -> Callable[..., SqliteStore]:
    def make(uri: str, *, world: SimWorld, thread: Callable[..., StoreThread]) -> SqliteStore:
        store = kind(parse(uri), world=world, thread=thread)
        changed = Statements("lies")
        changed.update(store._sql)
        changed.update({name: change(store._sql[name]) for name, change in statements.items()})
        store._sql = changed
        return store

    return make


@contextmanager
def _patched(owner: Any, name: str, change: Callable[..., Any]) -> Generator[None]:
    real = getattr(owner, name)
    setattr(owner, name, change(real))
    try:
        yield
    finally:
        setattr(owner, name, real)


@contextmanager
def fence_is_open() -> Generator[Callable[..., SqliteStore]]:
    """A worker that was declared dead goes on writing, and its bodies do not look at the lease."""

    def unbounded(real: Callable[..., None]) -> Callable[..., None]:
        return lambda bodies, _until: real(bodies, 1 << 62)

    with _patched(Bodies, "renewed", unbounded):
        yield _of(
            SqliteStore,
            fence=lambda _: "select 1 where ?1 is not null",
            renew_lease=lambda sql: sql.replace(" and state = 'live'", ""),
        )


@contextmanager
def bodies_are_hasty() -> Generator[Callable[..., SqliteStore]]:
    """Entries are acknowledged when they are accepted, so the next body begins before they are durable."""

    def hasty(real: Callable[[Journal, Record, Then], None]) -> Callable[[Journal, Record, Then], None]:
        def append(journal: Journal, record: Record, then: Then) -> None:
            if type(record) is EntryRecorded:
                asyncio.get_running_loop().call_soon(then, None, None)
                then = _ignore
            real(journal, record, then)

        return append

    with _patched(Journal, "append", hasty):
        yield _of(SqliteStore)


@contextmanager
def ends_are_changed() -> Generator[Callable[..., SqliteStore]]:
    """Cancelling a run that has ended cancels it."""

    def cancelling(
        real: Callable[[Applier, CancelRequested], Outcome],
    ) -> Callable[[Applier, CancelRequested], Outcome]:
        def cancel(applier: Applier, record: CancelRequested) -> Outcome:
            row = applier._maybe_row("request_row", record.id)
            if row is not None:
                applier._run("cancel_now", row["number"], record.now)
            return real(applier, record)

        return cancel

    with _patched(Applier, "_cancel", cancelling):
        yield _of(SqliteStore)


class _Dropping(SqliteStore):
    """Acknowledges every fifth batch of entries without writing it."""

    entries = 0

    def _transact(self, batch: Sequence[Record], worker: str | None) -> None:
        if all(type(record) is EntryRecorded for record in batch):
            self.entries += 1
            if self.entries % 5 == 0:
                self._landed = (batch, None)
                return
        super()._transact(batch, worker)


@contextmanager
def batches_are_dropped() -> Generator[Callable[..., SqliteStore]]:
    """An acknowledged batch is not in the file."""
    yield _of(_Dropping)


@contextmanager
def claims_take_what_runs() -> Generator[Callable[..., SqliteStore]]:
    """A claim does not look whether somebody holds the run."""

    def greedy(sql: str) -> str:
        return sql.replace("indexed by holdfast_runs_ready", "").replace(
            "state = 'ready'", "state in ('ready', 'running')"
        )

    yield _of(SqliteStore, claim=greedy)


class _Forgetting(SqliteStore):
    """Reads histories without their last entry."""

    async def histories(self, numbers: Sequence[int]) -> dict[int, list[EntryRecorded]]:
        histories = await super().histories(numbers)
        return {number: entries[:-1] for number, entries in histories.items()}


@contextmanager
def histories_are_cut() -> Generator[Callable[..., SqliteStore]]:
    """A run that is taken over does not know what its last step gave."""
    yield _of(_Forgetting)


class _Repeating(SqliteStore):
    """Applies a batch again whose acknowledgement was lost."""

    def _commit(self, *args: Any) -> None:
        self._landed = ([], None)
        super()._commit(*args)


@contextmanager
def batches_are_repeated() -> Generator[Callable[..., SqliteStore]]:
    """What is submitted twice is applied twice."""
    yield _of(_Repeating)


class _Pious(SqliteStore):
    """Believes that everybody lives."""

    async def dead_workers(self, *, now: int) -> list[str]:
        return []


@contextmanager
def nobody_is_buried() -> Generator[Callable[..., SqliteStore]]:
    """What a dead worker held stays with it."""
    yield _of(_Pious)


@contextmanager
def cancellations_are_deaf() -> Generator[Callable[..., SqliteStore]]:
    """A cancellation is acknowledged, and not kept."""

    def deaf(real: Callable[..., int]) -> Callable[..., int]:
        @wraps(real)
        def run(applier: Applier, name: str, *values: Any) -> int:
            if name in ("request_of_owner", "wake_with_request") and values[-1] == "cancel":
                return 1
            return real(applier, name, *values)

        return cast("Callable[..., int]", run)

    with _patched(Applier, "_run", deaf):
        yield _of(SqliteStore)


@contextmanager
def starts_are_hasty() -> Generator[Callable[..., SqliteStore]]:
    """A start is acknowledged when it is accepted."""

    def hasty(real: Callable[[Journal, Record, Then], None]) -> Callable[[Journal, Record, Then], None]:
        def append(journal: Journal, record: Record, then: Then) -> None:
            if type(record) is RunStarted and record.worker is None:
                started = Started(0, True, record.workflow, record.input, record.state)
                asyncio.get_running_loop().call_soon(then, started, None)
                then = _ignore
            real(journal, record, then)

        return append

    with _patched(Journal, "append", hasty):
        yield _of(SqliteStore)


@contextmanager
def attempts_are_forgotten() -> Generator[Callable[..., SqliteStore]]:
    """Whoever takes a run over counts the attempts of its steps anew."""

    def pending(real: Callable[[History, int], EntryRecorded | None]) -> Callable[..., EntryRecorded | None]:
        def entry(history: History, seq: int) -> EntryRecorded | None:
            found = real(history, seq)
            return found if found is None or found.ordinal is not None else found._replace(attempts=0)

        return entry

    with _patched(History, "entry", pending):
        yield _of(SqliteStore)


@contextmanager
def deadlines_are_forgotten() -> Generator[Callable[..., SqliteStore]]:
    """Whoever takes a run over does not set its deadline."""

    def ready(real: Callable[[Executor, LiveRun], None]) -> Callable[[Executor, LiveRun], None]:
        def without(executor: Executor, run: LiveRun) -> None:
            row = run.row
            run.row = row._replace(deadline_at=None) if row.has_history else row
            real(executor, run)
            run.row = row

        return without

    with _patched(Executor, "_ready", ready):
        yield _of(SqliteStore)


@contextmanager
def pauses_are_deaf() -> Generator[Callable[..., SqliteStore]]:
    """A pause stands in the row, and nobody obeys it."""

    def deaf(real: Callable[[Executor, int, str], None]) -> Callable[[Executor, int, str], None]:
        def request(executor: Executor, number: int, asked: str) -> None:
            if asked != "pause":
                real(executor, number, asked)

        return request

    with _patched(Executor, "request", deaf):
        yield _of(SqliteStore)


def _in_sql(name: str, statement: str, *changes: tuple[str, str]) -> Lie:
    def change(sql: str) -> str:
        for old, new in changes:
            assert old in sql, (statement, old)
            sql = sql.replace(old, new)
        return sql

    @contextmanager
    def lie() -> Generator[Callable[..., SqliteStore]]:
        yield _of(SqliteStore, **{statement: change})

    lie.__name__ = name
    return lie


_NOT_SEEN: Final = "iif(request is null or (request = 'cancel' and v.column4), "
_LIES_IN_SQL: Final = (
    _in_sql("the_guilty_go_free", "orphan_runs", ("then crashes_then + 1 else 1", "then crashes_then else 1")),
    _in_sql("retries_do_not_go_back", "drop_entries_from", ("where run = ?1", "where run = ?1 and 0")),
    _in_sql("retries_go_back_too_far", "drop_entries_from", ("(ordinal = ?2 or after >= ?2)", "?2 = ?2")),
    _in_sql("forks_keep_too_much", "fork_history", ("seq between 0 and ?3 - 1", "seq between 0 and ?3")),
    _in_sql("generations_keep_their_history", "delete_history", ("where run = ?", "where run = ? and 0")),
    _in_sql("what_is_young_is_pruned", "prune_candidates", ("ended_at < ?3", "ended_at < ?3 + 1000000")),
    _in_sql("numbers_come_again", "next_number", ("(select highest from holdfast_numbers)", "0")),
    _in_sql(
        "workers_take_what_they_do_not_know", "claim", ("workflow in (select value from json_each(?1))", "?1 = ?1")
    ),
)

LIES: Final[tuple[Lie, ...]] = (
    fence_is_open,
    bodies_are_hasty,
    ends_are_changed,
    batches_are_dropped,
    claims_take_what_runs,
    histories_are_cut,
    batches_are_repeated,
    nobody_is_buried,
    cancellations_are_deaf,
    starts_are_hasty,
    attempts_are_forgotten,
    deadlines_are_forgotten,
    pauses_are_deaf,
    *_LIES_IN_SQL,
)
"""Each is found within a few seeds."""
RARE_LIES: Final[tuple[Lie, ...]] = (
    _in_sql("requests_are_lost_in_parking", "park_run", (f"{_NOT_SEEN}'waiting', 'ready')", "'waiting'")),
    _in_sql("suspects_come_together", "claim_suspect", ("limit 1", "limit 9")),
    _in_sql("blocked_runs_are_left_alone", "has_blocked", ("state = 'blocked'", "state = 'none'")),
)
"""These take rare circumstances; a long hunt tells them."""


def _ignore(_outcome: object, _error: BaseException | None) -> None:
    """Who was told too early."""
