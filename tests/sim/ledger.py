"""What must be true, seen from outside of every simulated process.

The ledger sees three things: the file itself, after every commit, through a connection of its own; every body that
begins; and whatever a client was told. It believes the file and the clients, never the engine. It knows at once when

- a run that has ended changes, though nobody has asked to retry or resume it (an outcome is one, and stays);
- a record is written for a run by a worker that does not hold it, or a run changes hands without a burial or a release;
- a recorded outcome of an entry is replaced by another, or a batch that is written a second time changes anything;
- a body begins though its outcome is recorded, with a wrong attempt number, or before everything that its
  workflow had seen when it called the step is in the file; one of a worker that was declared dead may, and is counted;
- a client is told an end that the file does not hold, or a result that is not the program's.

At the end, with the faults off, it also wants: every acknowledged start there and ended, every acknowledged
cancellation heeded, no run held, histories equal to what was committed and without gaps (but where somebody has gone
back), and a sound file.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.sim import load

from holdfast._flow.calls import StepCall
from holdfast._model.records import (
    APPLY_ORDER,
    CancelRequested,
    EntryRecorded,
    Outcome,
    Record,
    Requested,
    ResumeRequested,
    RetryRequested,
    RunBlocked,
    RunsClaimed,
    RunStarted,
    Started,
    WorkerBuried,
)
from holdfast.testing.ledger import describe

ENDED = ("succeeded", "failed", "cancelled")
OUTCOMES = ("succeeded", "failed")
CANCEL_HEEDED_SECONDS = 60.0
TRACE_SHOWN = 120


class Row(NamedTuple):
    """A run in the file."""

    number: int
    id: str
    state: str
    worker: str | None
    output: str | None
    error: str | None
    generation: int

    @property
    def ended(self) -> bool:
        return self.state in ENDED


class Ledger:
    """The facts of one seed.

    Args:
        path: the file.
        clock: virtual seconds, for the trace.
        programs: what each id was started with.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float], programs: dict[str, list[Any]]) -> None:
        self.trace: list[str] = []
        self.facts = 0
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()
        self._connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
        self._clock = clock
        self._programs = programs
        self._rows: dict[int, Row] = {}
        self._entries: dict[tuple[int, int, int], EntryRecorded] = {}
        self._ordinals: Counter[tuple[int, int]] = Counter()
        self._landed: dict[int, Record] = {}
        self._buried: set[str] = set()
        self._started: set[str] = set()
        self._told: dict[str, tuple[str, str | None]] = {}
        self._cancelled: dict[int, float] = {}
        self._gone_back: set[int] = set()
        self._told_to_stop: dict[int, tuple[int, int]] = {}
        self._known_cancels: set[str] = set()

    def close(self) -> None:
        self._connection.close()

    def say(self, line: str) -> None:
        """Into the trace."""
        self.trace.append(f"{self._clock():10.4f} {line}")

    def check(self, claim: bool, problem: str) -> None:
        """A fact that was looked at. Who finds it false may be deep in a callback: it is noted, and the seed ends."""
        self.facts += 1
        if not claim:
            self.say(f"VIOLATION {problem}")
            self.problems.append(problem)

    # The file.

    def landed(
        self, life: str, batch: Sequence[Record], worker: str | None, outcomes: Sequence[Outcome] | None
    ) -> None:
        """A batch is durable. Nobody else has done anything since."""
        before, rows = self._rows, self._read_rows()
        self.say(f"{life} durable {', '.join(map(_line, batch))}")
        if all(self._landed.get(id(record)) is record for record in batch):
            self.counts["repeated batches"] += 1
            self.check(rows == before, f"a batch that was written a second time changed {_changes(before, rows)}")
            return
        for record in batch:
            self._landed[id(record)] = record
        self._rows = rows
        for number in {record.run for record in batch if isinstance(record, EntryRecorded)}:
            self._note_ordinals(number)
        answers = outcomes if outcomes is not None else [None] * len(batch)
        # In the order in which the store applies them: requests of one batch were made at the same time.
        pairs = sorted(zip(batch, answers, strict=True), key=lambda pair: APPLY_ORDER.index(type(pair[0])))
        for record, outcome in pairs:
            self._take(record, outcome, before, worker)
        reopened = {record.id for record in batch if isinstance(record, RetryRequested | ResumeRequested)}
        for number, row in rows.items():
            self._compare(before.get(number), row, worker, reopened)
        for number, old in before.items():
            self.check(number in rows, f"run {old.id} is gone")

    def _take(self, record: Record, outcome: Outcome, before: dict[int, Row], worker: str | None) -> None:
        match record:
            case EntryRecorded():
                old = before.get(record.run)
                self.check(old is not None and old.worker == worker, f"{worker} wrote {describe(record)} of {old}")
                if old is None:
                    return
                key = record.run, old.generation, record.seq
                known = self._entries.get(key)
                self.check(
                    known is None or known.state == "pending" or known == record,
                    f"entry {record.seq} of {old.id} was replaced: {known} by {record}",
                )
                self._entries[key] = record
            case RunStarted() if isinstance(outcome, Started) and outcome.created:
                self.counts["runs"] += 1
            case RetryRequested() | ResumeRequested() if isinstance(outcome, Requested) and outcome.number is not None:
                self._reopened(outcome.number)
            case CancelRequested() if isinstance(outcome, Requested) and outcome.number is not None:
                if outcome.before not in ENDED:
                    self._cancelled.setdefault(outcome.number, self._clock())
            case RunsClaimed() if isinstance(outcome, tuple):
                for claimed in outcome:
                    self.say(f"    claimed {claimed.id}" + (" to cancel" if claimed.request == "cancel" else ""))
                    if claimed.number in self._cancelled:
                        self.check(claimed.request == "cancel", f"{claimed.id} was claimed without its cancellation")
                        self._told_to_stop[claimed.number] = self._stand(claimed.number)
            case WorkerBuried():
                self.counts["second burials" if record.worker in self._buried else "burials"] += 1
                self._buried.add(record.worker)
            case RunBlocked():
                self.check(False, f"{before.get(record.number)} was blocked: {record}")
            case _ if hasattr(record, "number"):
                old = before.get(record.number)
                self.check(
                    old is not None and old.worker == record.worker == worker and old.state == "running",
                    f"{worker} wrote {_line(record)} of {old}",
                )
            case _:
                pass

    def _compare(self, old: Row | None, row: Row, worker: str | None, reopened: set[str]) -> None:
        if old is None or old == row:
            return
        self.facts += 2
        if old.ended and row.id not in reopened:
            self.check(False, f"the end of {row.id} was changed from {old} to {row}")
        if old.state == "running" and row.worker != old.worker and old.worker != worker:
            self.check(not self._is_live(old.worker), f"{row.id} was taken from {old.worker} by {worker}: now {row}")
        if row.ended and not old.ended:
            self._heeded(row)

    def _heeded(self, row: Row) -> None:
        """A cancellation comes at the next await: who succeeds after it must not have had another."""
        since = self._cancelled.get(row.number)
        if row.state != "succeeded" or since is None:
            return
        stand = self._stand(row.number)
        self.check(
            self._told_to_stop.get(row.number, stand) == stand and self._clock() - since < CANCEL_HEEDED_SECONDS,
            f"{row.id} succeeded, though it was cancelled at {since:.4f}, and went on",
        )

    def _stand(self, number: int) -> tuple[int, int]:
        """How far a run has come."""
        generation = self._rows[number].generation
        return generation, self._ordinals[number, generation]

    def _reopened(self, number: int) -> None:
        """Somebody made a run go on: what ended it was dropped, by the rules that `retry` and `resume` have."""
        self._gone_back.add(number)
        self._cancelled.pop(number, None)
        self._told_to_stop.pop(number, None)
        row = self._rows[number]
        self._told.pop(row.id, None)
        stored = {entry.seq: entry for entry in self._read_history(number)}
        for key in [key for key in self._entries if key[:2] == (number, row.generation)]:
            if key[2] in stored:
                self._entries[key] = stored[key[2]]
            else:
                del self._entries[key]
        self._note_ordinals(number)

    def _note_ordinals(self, number: int) -> None:
        generation = self._rows[number].generation
        sql = "select coalesce(max(ordinal), 0) from holdfast_history where run = ?"
        self._ordinals[number, generation] = self._connection.execute(sql, (number,)).fetchone()[0]

    def _is_live(self, worker: str | None) -> bool:
        """Whether a worker may have runs: nobody has buried it, and it has not left."""
        sql = "select 1 from holdfast_workers where id = ? and state = 'live'"
        return self._connection.execute(sql, (worker,)).fetchone() is not None

    def _read_rows(self) -> dict[int, Row]:
        rows = self._connection.execute(
            "select number, id, state, worker, output, error, generation from holdfast_runs"
        ).fetchall()
        return {row[0]: Row(*row) for row in rows}

    def _read_history(self, number: int) -> list[EntryRecorded]:
        columns = ", ".join(EntryRecorded._fields)
        sql = f"select {columns} from holdfast_history where run = ? order by seq"
        return [EntryRecorded(*row) for row in self._connection.execute(sql, (number,))]

    # Bodies.

    def begun(self, life: str, worker: str, call: StepCall) -> None:
        """A body begins; `attempts` counts it already."""
        self.counts["bodies"] += 1
        activation = call.activation
        number, generation = activation.row.number, activation.row.generation
        what = f"{call.step.name} {call.seq}.{call.attempts} of {activation.row.id}/{generation}"
        row = self._rows.get(number)
        self.say(f"{life} body {what}")
        if row is None or row.worker != worker or row.state != "running" or row.generation != generation:
            self.check(not self._is_live(worker), f"{worker} began {what}, which it does not hold: {row}")
            self.counts["zombie bodies"] += 1
            return
        entry = self._entries.get((number, generation, call.seq))
        recorded = 0 if entry is None else entry.attempts
        self.check(entry is None or entry.state not in OUTCOMES, f"{what} began, though its outcome is recorded")
        self.check(call.attempts == recorded + 1, f"{what} began after {recorded} recorded attempts")
        durable = self._ordinals[number, generation]
        self.check(durable >= call.after, f"{what}, called after {call.after} outcomes, began with {durable} durable")

    # Clients.

    def start_acknowledged(self, run_id: str) -> None:
        """A client holds a handle."""
        self._started.add(run_id)
        self.check(any(row.id == run_id for row in self._rows.values()), f"{run_id} was acknowledged and is not there")

    def told(self, run_id: str, state: str, text: str | None) -> None:
        """A client was told how a run ended. Only call it when nobody has reopened the run meanwhile."""
        self.counts["told"] += 1
        known = self._told.setdefault(run_id, (state, text))
        self.check(known == (state, text), f"{run_id} was told to be {known}, and later {(state, text)}")

    def reopenings(self, run_id: str) -> int:
        """How often a run was asked to go on, to see whether it happened during a call."""
        return self.counts[f"reopened {run_id}"]

    def reopening(self, run_id: str) -> None:
        """A client is about to ask a run to go on. What others are told may change from here on."""
        self.counts[f"reopened {run_id}"] += 1
        self._told.pop(run_id, None)

    # The end.

    @property
    def unfinished(self) -> list[Row]:
        """Runs that have not ended."""
        return [row for row in self._read_rows().values() if not row.ended]

    @property
    def live_workers(self) -> int:
        """Workers that nobody has buried and that have not left."""
        sql = "select count(*) from holdfast_workers where state = 'live'"
        return int(self._connection.execute(sql).fetchone()[0])

    def audit(self) -> None:
        """After the faults are off, everything has ended and every process has left."""
        rows = self._read_rows()
        ids = {row.id: row for row in rows.values()}
        for run_id in sorted(self._started):
            self.check(run_id in ids, f"{run_id} was acknowledged and is lost")
        for row in rows.values():
            self.check(row.ended and row.worker is None, f"not ended, or held: {row}")
            self._audit_outcome(row)
            self._audit_history(row)
        answer = self._connection.execute("pragma integrity_check").fetchone()[0]
        self.check(answer == "ok", f"integrity_check: {answer}")
        left = self._connection.execute("select id from holdfast_workers where state = 'live'").fetchall()
        self.check(not left, f"workers that left are still live: {left}")

    def _audit_outcome(self, row: Row) -> None:
        told = self._told.get(row.id)
        self.check(told is None or told[0] == row.state, f"{row.id} was told to be {told} and is {row}")
        program = self._programs[row.id]
        if row.state == "succeeded":
            result = json.loads(row.output or "null")
            self.check(load.fits(program, result), f"{row.id} gave {result} for {program}")
        elif row.state == "failed":
            self.check(load.fails(program), f"{row.id} failed with {row.error}, and its program cannot: {program}")
        else:
            self.check(row.id in self._known_cancels, f"{row.id} was cancelled, and nobody asked for that")

    def cancelling(self, run_id: str) -> None:
        """A client is about to cancel a run."""
        self._known_cancels.add(run_id)

    def _audit_history(self, row: Row) -> None:
        stored = {entry.seq: entry for entry in self._read_history(row.number)}
        ordinals = sorted(entry.ordinal for entry in stored.values() if entry.ordinal is not None)
        self.check(len(set(ordinals)) == len(ordinals), f"ordinals of {row.id} repeat: {ordinals}")
        dense = ordinals == [*range(1, len(ordinals) + 1)]
        self.check(dense or row.number in self._gone_back, f"the history of {row.id} has gaps: {ordinals}")
        for (number, generation, seq), entry in self._entries.items():
            if number == row.number and generation == row.generation:
                found = stored.get(seq)
                same = found is not None and (entry.state == "pending" or _outcome(found) == _outcome(entry))
                self.check(same, f"entry {seq} of {row.id} was committed as {entry}, the file holds {found}")
        for entry in stored.values():
            self.check((row.number, row.generation, entry.seq) in self._entries, f"{row.id} has a foreign {entry}")

    def __str__(self) -> str:
        return "\n".join(self.trace[-TRACE_SHOWN:])


def _outcome(entry: EntryRecorded) -> tuple[object, ...]:
    return entry.ordinal, entry.state, entry.output, entry.error


def _changes(before: dict[int, Row], after: dict[int, Row]) -> str:
    return "; ".join(f"{before.get(number)} -> {row}" for number, row in after.items() if before.get(number) != row)


def _line(record: Record) -> str:
    about = getattr(record, "id", None) or getattr(record, "number", None) or getattr(record, "run", None)
    if isinstance(record, WorkerBuried):
        about = record.worker
    return f"{describe(record)} ({about})" if about is not None else describe(record)
