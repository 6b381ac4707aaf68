"""Records into SQLite rows: what each kind does, inside the transaction of its batch.

The records of a kind go into as few statements as possible, each with many rows. That is not only less work: Python's
`sqlite3` gives up the interpreter lock around every step of a statement and must win it back from a busy event loop, up
to 5 ms each time. Measured with the other thread busy: 1,000 rows one by one 469 ms, in four statements 37 ms.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, Final

import msgspec

from holdfast._model.lifecycle import ENDED, RunState
from holdfast._model.records import (
    APPLY_ORDER,
    Buried,
    CancelRequested,
    EntryRecorded,
    Forked,
    Imported,
    Outcome,
    PauseRequested,
    Record,
    Requested,
    ResumeRequested,
    RetryRequested,
    RunBlocked,
    RunCleared,
    RunContinued,
    RunEnded,
    RunForked,
    RunParked,
    RunPaused,
    RunReleased,
    RunRow,
    RunsClaimed,
    RunsImported,
    RunsPruned,
    RunStarted,
    RunsUnblocked,
    Started,
    WorkerBuried,
)
from holdfast._store.port import RecordRefused
from holdfast._store.rowsjson import decode_rows
from holdfast._store.sqlfile import Statements
from holdfast._store.sqlite_import import import_runs
from holdfast._store.sqlite_prune import Pruner

ROWS_PER_STATEMENT: Final = (1024, 256, 64, 16, 4, 1)
"""Sizes of multi-row statements; few, so that each stays prepared."""

_NOT_HELD: Final = (RunState.SCHEDULED, RunState.READY, RunState.WAITING)

_json = msgspec.json.Encoder()
_rows_decoder = msgspec.json.Decoder(tuple[RunRow, ...])


class Applier:
    """Applies records on one connection. Knows nothing of transactions, turns or threads.

    Args:
        clock: microseconds; bounds how long one record of a sweep may take.
    """

    def __init__(self, connection: sqlite3.Connection, statements: Statements, clock: Callable[[], int]) -> None:
        self._connection = connection
        self._sql = statements
        self._many = {
            name: {size: self._multi(name, columns, size) for size in ROWS_PER_STATEMENT}
            for name, columns in (
                ("insert_runs", 14),
                ("insert_entries", 14),
                ("insert_attributes", 3),
                ("end_run", 7),
                ("park_run", 4),
            )
        }
        self._kinds: dict[type[Record], Callable[[list[Any]], Sequence[Outcome] | None]] = {
            RunStarted: self._start,
            EntryRecorded: self._enter,
            RunEnded: self._end,
            RunContinued: self._each(self._continue),
            RunParked: self._park,
            RunReleased: self._each(self._release),
            RunBlocked: self._each(self._block),
            RunPaused: self._each(self._pause_owned),
            RunCleared: self._each(self._clear),
            CancelRequested: self._each(self._cancel),
            PauseRequested: self._each(self._pause),
            ResumeRequested: self._each(self._resume),
            RetryRequested: self._each(self._retry),
            RunForked: self._each(self._fork),
            RunsImported: self._each(self._import),
            WorkerBuried: self._each(self._bury),
            RunsUnblocked: self._each(self._unblock),
            RunsClaimed: self._each(self._claim),
            RunsPruned: self._each(Pruner(connection, statements, clock).prune),
        }

    def apply(self, batch: Sequence[Record]) -> Sequence[Outcome] | None:
        """Apply a batch in `APPLY_ORDER`; the outcomes stand where their records stood, none if there are none."""
        places: dict[type[Any], list[int]] = {}
        for place, record in enumerate(batch):
            places.setdefault(type(record), []).append(place)
        outcomes: list[Outcome] = []
        for kind in APPLY_ORDER:
            if kind not in places:
                continue
            answers = self._kinds[kind]([batch[place] for place in places[kind]])
            if answers is not None:
                outcomes = outcomes or [None for _ in batch]
                for place, answer in zip(places[kind], answers, strict=True):
                    outcomes[place] = answer
        return outcomes or None

    # Starts.

    def _start(self, records: list[RunStarted]) -> list[Outcome]:
        first = self._value("next_number")  # before the deletions: a number is never given twice
        for record in records:
            if record.restart:
                self._run("delete_run", record.id)
        rows = [(number, *record[:13]) for number, record in enumerate(records, first)]
        created = self._insert("insert_runs", rows)
        if created == len(records):
            outcomes = [
                Started(number, True, record.workflow, record.input, record.state)
                for number, record in enumerate(records, first)
            ]
        else:
            outcomes = [self._started(number, record) for number, record in enumerate(records, first)]
        pairs = [
            (key, value, outcome.number)
            for record, outcome in zip(records, outcomes, strict=True)
            if outcome.created
            for key, value in record.pairs
        ]
        self._insert("insert_attributes", pairs)
        return [*outcomes]

    def _started(self, number: int, record: RunStarted) -> Started:
        row = self._row("run_of_id", record.id)
        # The same seed: this very record was stored before, and its acknowledgement was lost on the way.
        created = row["number"] == number or row["seed"] == record.seed
        # What a run that has continued as new was started with is not kept: then the id alone says that it is the same.
        text = record.input if row["generation"] else row["input"]
        return Started(row["number"], created, row["workflow"], text, _state_of(record.id, row))

    # What a worker tells of its runs.

    def _enter(self, records: list[EntryRecorded]) -> None:
        if self._insert("insert_entries", records) != len(records):
            raise RecordRefused(
                f"an outcome for entry {records[0].seq} of run number {records[0].run} is recorded already"
                if len(records) == 1
                else "one of the entries has its outcome already"
            )

    def _end(self, records: list[RunEnded]) -> None:
        self._expect(self._insert("end_run", [record[:7] for record in records]), records)
        for record in records:
            if record.closes_pending:
                self._run("close_pending", record.number)

    def _park(self, records: list[RunParked]) -> None:
        self._expect(self._insert("park_run", records), records)

    def _continue(self, record: RunContinued) -> None:
        self._expect(self._run("continue_run", *record), [record])
        self._run("delete_history", record.number)

    def _release(self, record: RunReleased) -> None:
        self._expect(self._run("release_run", *record), [record])

    def _block(self, record: RunBlocked) -> None:
        self._expect(self._run("block_run", *record), [record])

    def _pause_owned(self, record: RunPaused) -> None:
        self._expect(self._run("pause_run", *record), [record])

    def _clear(self, record: RunCleared) -> None:
        self._run("clear_run", *record)  # no row: it has ended or left in this very batch, which clears it, too

    # What people and clients ask for.

    def _cancel(self, record: CancelRequested) -> Requested:
        row = self._maybe_row("request_row", record.id)
        if row is None or row["state"] in ENDED:
            return self._requested(record.id, row)
        if row["state"] == RunState.RUNNING:
            self._run("request_of_owner", row["number"], "cancel")
        elif row["started_at"] is None or row["state"] == RunState.BLOCKED:
            self._run("cancel_now", row["number"], record.now)
        else:
            self._run("wake_with_request", row["number"], "cancel")
        return self._requested(record.id, row)

    def _pause(self, record: PauseRequested) -> Requested:
        row = self._maybe_row("request_row", record.id)
        if row is not None and row["state"] in (RunState.RUNNING, RunState.BLOCKED):
            if row["request"] is None:
                self._run("request_of_owner", row["number"], "pause")
        elif row is not None and row["state"] in _NOT_HELD and row["request"] != "cancel":
            self._run("pause_now", row["number"])
        return self._requested(record.id, row)

    def _resume(self, record: ResumeRequested) -> Requested:
        row = self._maybe_row("request_row", record.id)
        if row is not None and row["state"] in (RunState.PAUSED, RunState.BLOCKED):
            self._run("resume_run", row["number"], record.now)
        elif row is not None and row["state"] == RunState.CANCELLED:
            self._go_back(row, record.now)
        elif row is not None and row["request"] == "pause":  # held, or let go of before it was obeyed
            self._run("request_of_owner", row["number"], None)
        return self._requested(record.id, row)

    def _retry(self, record: RetryRequested) -> Requested:
        row = self._maybe_row("request_row", record.id)
        if row is not None and row["state"] in (RunState.FAILED, RunState.CANCELLED, RunState.BLOCKED):
            self._go_back(row, record.now)
        return self._requested(record.id, row)

    def _go_back(self, row: sqlite3.Row, now: int) -> None:
        """Drop what ended the run, and what it did because of that; finished steps stay."""
        stopped_at = self._value("cancel_ordinal", row["number"])
        ordinals = [ordinal for ordinal in (stopped_at, row["failed_at"]) if ordinal is not None]
        if ordinals:
            self._run("drop_entries_from", row["number"], min(ordinals))
        self._run("reopen_pending", row["number"])
        self._run("resume_run", row["number"], now)

    def _requested(self, run_id: str, before: sqlite3.Row | None) -> Requested:
        if before is None:
            return Requested(False, None, None, None, None)
        after = self._row("request_row", run_id)
        states = _state_of(run_id, before), _state_of(run_id, after)
        return Requested(True, *states, after["number"], after["worker"])

    def _fork(self, record: RunForked) -> Forked:
        source = self._maybe_row("fork_source", record.source)
        if source is None:
            return Forked("no-source")
        if self._maybe_row("run_of_id", record.id) is not None:
            return Forked("id-taken")
        at = self._maybe_row("entry_after", source["number"], record.at)
        if at is None and (record.at > 1 or record.output is not None):
            return Forked("no-entry")
        keeps = record.at > 1 or record.output is not None
        number = self._value("next_number")
        timeout = source["timeout_us"]
        self._run(
            "fork_run",
            number,
            record.id,
            source["workflow"],
            record.input if record.input is not None else source["input"],
            source["attributes"],
            source["priority"],
            source["seed"] if keeps else record.seed,
            record.now,
            source["started_at"] if keeps else None,
            timeout,
            record.now + timeout if keeps and timeout is not None else None,
            record.source,
        )
        self._run("fork_attributes", source["number"], number)
        if keeps and at is not None:
            self._run("fork_history", source["number"], number, record.at, at["after"])
            if record.output is not None:
                self._run("fork_entry", source["number"], number, record.at, record.output)
        return Forked(None)

    def _import(self, record: RunsImported) -> Imported:
        return import_runs(self._connection, self._sql, record)

    # Workers.

    def _bury(self, record: WorkerBuried) -> Buried:
        worker = record.worker
        was_live = self._run("bury_worker", worker, record.now) > 0
        orphans = self._run("orphan_runs", worker, record.now, record.poison_after, record.error)
        poisoned = self._connection.execute(self._sql["poisoned_runs"], (worker,)).fetchall() if orphans else ()
        return Buried(orphans, tuple((row["id"], row["workflow"]) for row in poisoned), was_live)

    def _unblock(self, record: RunsUnblocked) -> tuple[RunRow, ...]:
        numbers: str = self._value(
            "blocked_runs", record.worker, _text(record.workflows), _text(record.tried), record.limit, record.suspect
        )
        self._run("unblock_runs", numbers)
        return self._take(numbers, record)

    def _claim(self, record: RunsClaimed) -> tuple[RunRow, ...]:
        workflows = _text(record.workflows)
        if record.suspect:
            return self._take(self._value("claim_suspect", workflows), record)
        ready: int = self._value("ready_count", workflows, record.limit)
        self._run("wake_due", record.now, max(record.limit - ready, record.wakes))
        return self._take(self._value("claim", workflows, record.limit), record)

    def _take(self, numbers: str, record: RunsClaimed | RunsUnblocked) -> tuple[RunRow, ...]:
        if numbers == "[]":
            return ()
        self._run("claim_runs", numbers, record.worker, record.now)
        return decode_rows(_rows_decoder, self._value("claimed_rows", numbers))

    # SQL.

    def _multi(self, name: str, columns: int, size: int) -> str:
        row = f"({', '.join('?' * columns)})"
        return self._sql[name].replace("{rows}", ", ".join([row] * size))

    def _insert(self, name: str, rows: Sequence[tuple[Any, ...]]) -> int:
        """Run a multi-row statement over all rows, in few pieces; returns how many rows it changed."""
        statements, place, changed = self._many[name], 0, 0
        for size in ROWS_PER_STATEMENT:
            while len(rows) - place >= size:
                values = [*chain.from_iterable(rows[place : place + size])]
                changed += self._connection.execute(statements[size], values).rowcount
                place += size
        return changed

    def _run(self, name: str, *values: Any) -> int:
        return self._connection.execute(self._sql[name], values).rowcount

    def _maybe_row(self, name: str, *values: Any) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._connection.execute(self._sql[name], values).fetchone()
        return row

    def _row(self, name: str, *values: Any) -> sqlite3.Row:
        row = self._maybe_row(name, *values)
        if row is None:
            raise RecordRefused(f"statement {name!r} found no row for {values!r}")
        return row

    def _value(self, name: str, *values: Any) -> Any:
        return self._row(name, *values)[0]

    @staticmethod
    def _each(apply_one: Callable[[Any], Outcome]) -> Callable[[list[Any]], Sequence[Outcome] | None]:
        def apply_all(records: Iterable[Any]) -> Sequence[Outcome] | None:
            return [apply_one(record) for record in records]

        return apply_all

    @staticmethod
    def _expect(changed: int, records: Sequence[Any]) -> None:
        if changed != len(records):
            record = records[0]
            raise RecordRefused(
                f"{type(record).__name__} for run number {record.number}: the run is not held by worker {record.worker}"
                if len(records) == 1
                else f"one of {len(records)} runs is not held by its worker"
            )


def _text(value: object) -> str:
    return _json.encode(value).decode()


def _state_of(run_id: str, row: sqlite3.Row) -> RunState:
    try:
        return RunState(row["state"])
    except ValueError:
        raise RecordRefused(
            f"run {run_id!r} has state {row['state']!r}, which is none of a run",
            hint="its row is damaged, or was edited: correct it, or restore a backup",
        ) from None
