"""What must be true, seen from outside of every simulated process.

The ledger sees three things: the file itself, after every commit, through a connection of its own; every body that
begins; and whatever a client was told. It believes the file and the clients, never the engine. It knows at once when

- a run that has ended changes, though nobody has asked to retry or resume it (an outcome is one, and stays);
- a record is written for a run by a worker that does not hold it, or a run changes hands without a burial or a release;
- a recorded outcome of an entry is replaced by another, or a batch that is written a second time changes anything;
- a body begins though its outcome is recorded, with a wrong attempt number, or before everything that its
  workflow had seen when it called the step is in the file; one of a worker that was declared dead may, and is counted;
- a request is acknowledged and not kept, a claim does not tell of it, or a run that was paused begins a body;
- a run is claimed by who does not know its workflow, or is blocked though no other release is about;
- crashes are counted otherwise than they happen, a worker holds two suspects, or one is cleared too early;
- a run is removed that has not ended, or whose time has not come;
- a client is told an end that the file does not hold, or a result that is not the program's.

What must be true at the end is in `audit.py`.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from tests.sim.load import Order
from tests.sim.row import ENDED, Row

from holdfast._flow.calls import StepCall
from holdfast._model.records import (
    APPLY_ORDER,
    CancelRequested,
    EntryRecorded,
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
    RunRow,
    RunsClaimed,
    RunsPruned,
    RunStarted,
    RunsUnblocked,
    Started,
    WorkerBuried,
)
from holdfast._runtime.probation import PROBATION_SECONDS
from holdfast._store.sqlite_prune import MARKED_IDS
from holdfast.testing.ledger import describe

STOPS = ("cancel", "deadline")
OUTCOMES = ("succeeded", "failed")
HEEDED_SECONDS = 60.0
"""How long a cancellation or a pause may take, whatever befalls the processes."""
STEPS_WHEN_LATE = 2
"""What was due before the deadline is delivered before it, and quick steps may come in between."""
SUSPECT_AFTER = 3
TRACE_SHOWN = 120


class Ledger:
    """The facts of one seed.

    Args:
        path: the file.
        clock: virtual seconds, for the trace.
        orders: what each id was started with.
        releases: whether code of two releases is about.
    """

    def __init__(
        self, path: Path, *, clock: Callable[[], float], orders: dict[str, Order], releases: bool = False
    ) -> None:
        self.trace: list[str] = []
        self.facts = 0
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()
        self.orders = orders
        self.connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
        self.rows: dict[int, Row] = {}
        self.entries: dict[tuple[int, int, int], EntryRecorded] = {}
        self.started: set[str] = set()
        self.pruned: set[str] = set()
        self.known_cancels: set[str] = set()
        self.last_told: dict[str, tuple[str, str | None]] = {}
        self.gone_back: set[int] = set()
        self.asked: Counter[tuple[type[Record], str]] = Counter()
        self._clock = clock
        self._releases = releases
        self._ordinals: Counter[tuple[int, int]] = Counter()
        self._landed: dict[int, Record] = {}
        self._buried: set[str] = set()
        self._cancelled: dict[int, float] = {}
        self._paused: dict[int, float] = {}
        self._told_to_stop: dict[int, tuple[int, int]] = {}
        self._told_to_pause: set[int] = set()
        self._late: dict[int, int] = {}
        self._crashes: dict[int, tuple[int, int]] = {}
        self._tried: dict[int, tuple[float, int]] = {}

    def close(self) -> None:
        self.connection.close()

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
        before, rows = self.rows, self.read_rows()
        self.say(f"{life} durable {', '.join(map(_line, batch))}")
        if all(self._landed.get(id(record)) is record for record in batch):
            self.counts["repeated batches"] += 1
            changed = [old for number, old in before.items() if rows.get(number) not in (old, self._given_back(old))]
            self.check(not changed, f"a batch that was written a second time changed {changed} to {rows}")
            return
        for record in batch:
            self._landed[id(record)] = record
        self.rows = rows
        for number in {record.run for record in batch if isinstance(record, EntryRecorded)}:
            self._note_ordinals(number)
        answers = outcomes if outcomes is not None else [None] * len(batch)
        # In the order in which the store applies them: requests of one batch were made at the same time.
        pairs: list[tuple[Any, Outcome]] = sorted(
            zip(batch, answers, strict=True), key=lambda pair: APPLY_ORDER.index(type(pair[0]))
        )
        steered = {record.id: (record, outcome) for record, outcome in pairs if isinstance(outcome, Requested)}
        for record, outcome in pairs:
            self._take(record, outcome, before, worker)
            if isinstance(outcome, Requested):
                self.asked[type(record), record.id] += 1
        for asked, answer in steered.values():
            self._steered(asked, answer)
        for number, row in rows.items():
            self._compare(before.get(number), row, worker, steered.keys())
        for number in before.keys() - rows.keys():
            self._gone(before[number], batch)
        self._count_crashes(batch)

    def _take(self, record: Record, outcome: Outcome, before: dict[int, Row], worker: str | None) -> None:
        match record:
            case EntryRecorded():
                self._enter(record, before, worker)
            case RunStarted() if isinstance(outcome, Started) and outcome.created:
                self.counts["runs"] += 1
            case RunForked() if getattr(outcome, "problem", "") is None:
                self._forked(record)
            case RetryRequested() | ResumeRequested() if isinstance(outcome, Requested) and outcome.number is not None:
                self._went_back(record, outcome, before.get(outcome.number))
                self._reopened(outcome.number)
                if outcome.before in ENDED and outcome.before != outcome.after:
                    kinds = {entry.kind for entry in self.read_history(outcome.number)}
                    self.check(kinds.isdisjoint(STOPS), f"{record} does not go back to before what ended the run")
            case CancelRequested() if isinstance(outcome, Requested) and outcome.number is not None:
                self._paused.pop(outcome.number, None)
                self._told_to_pause.discard(outcome.number)
                if outcome.before not in ENDED:
                    self._cancelled.setdefault(outcome.number, self._clock())
            case RunsClaimed() | RunsUnblocked() if isinstance(outcome, tuple):
                for claimed in outcome:
                    self._claimed(record, claimed)
            case WorkerBuried():
                self.counts["second burials" if record.worker in self._buried else "burials"] += 1
                self._buried.add(record.worker)
                self._orphaned(record, before)
            case _ if hasattr(record, "number"):
                old = before.get(record.number)
                self.check(
                    old is not None and old.worker == record.worker == worker and old.state == "running",
                    f"{worker} wrote {_line(record)} of {old}",
                )
                if isinstance(record, RunBlocked) and old is not None:
                    self.counts["diverged"] += 1
                    divided = self._releases and self.orders[old.id].is_divided and record.reason == "nondeterminism"
                    self.check(divided, f"{old} was blocked: {record}")
                if isinstance(record, RunCleared):
                    self._cleared(record.number)
            case _:
                pass

    def _enter(self, entry: EntryRecorded, before: dict[int, Row], worker: str | None) -> None:
        old = before.get(entry.run)
        self.check(old is not None and old.worker == worker, f"{worker} wrote {describe(entry)} of {old}")
        if old is None:
            return
        key = entry.run, old.generation, entry.seq
        known = self.entries.get(key)
        self.check(
            known is None or known.state == "pending" or known == entry,
            f"entry {entry.seq} of {old.id} was replaced: {known} by {entry}",
        )
        self.entries[key] = entry

    def _forked(self, record: RunForked) -> None:
        """Its history is what its source had recorded before that entry."""
        self.counts["forks"] += 1
        numbers = {row.id: row.number for row in self.rows.values()}
        fork, source = numbers[record.id], {entry.seq: entry for entry in self.read_history(numbers[record.source])}
        after = source[record.at].after if record.at > 1 else -1
        kept = [
            entry._replace(run=fork)
            for seq, entry in source.items()
            if entry.state in OUTCOMES and (0 < seq < record.at or (seq < 0 and (entry.ordinal or 0) <= after))
        ]
        history = self.read_history(fork)
        self.check(history == kept, f"{record.id}, forked at {record.at}, has {history}, not {kept}")
        self.entries.update({(fork, 0, entry.seq): entry for entry in history})
        self._note_ordinals(fork)
        self.gone_back.add(fork)

    def _claimed(self, record: RunsClaimed | RunsUnblocked, claimed: RunRow) -> None:
        number = claimed.number
        self.say(f"    claimed {claimed.id}" + (f" to {claimed.request}" if claimed.request else ""))
        self.check(claimed.workflow in record.workflows, f"{claimed.id} was claimed by who does not know its workflow")
        if number in self._cancelled:
            self.check(claimed.request == "cancel", f"{claimed.id} was claimed without its cancellation")
            self._told_to_stop[number] = self._stand(number)
        if number in self._paused:
            self.check(claimed.request == "pause", f"{claimed.id} was claimed without its pause")
            self._told_to_pause.add(number)
        self._late.pop(number, None)
        if claimed.deadline_at is not None and claimed.deadline_at <= record.now:
            self._late[number] = record.now
        self.check((claimed.crashes >= SUSPECT_AFTER) == record.suspect, f"{claimed} was claimed by {record}")
        if record.suspect:
            self.counts["probations"] += 1
            self._tried[number] = self._clock(), self._stand(number)[1]

    def _steered(self, asked: Any, answer: Requested) -> None:
        """Who is told that a request is durable may rely on it: it was carried out, or stands in the row."""
        row = self.rows.get(answer.number or 0)
        if row is None or (answer.before in ENDED and isinstance(asked, CancelRequested | PauseRequested)):
            return
        match asked:
            case CancelRequested():
                kept = row.state == "cancelled" or row.request == "cancel"
            case PauseRequested():
                kept = row.state == "paused" or row.request is not None
                if row.state == "paused" or row.request == "pause":
                    self._paused.setdefault(row.number, self._clock())
            case ResumeRequested():
                kept = row.state not in ("paused", "blocked", "cancelled") and row.request != "pause"
            case _:
                kept = answer.before not in (*ENDED[1:], "blocked") or row.state in ("ready", "running")
        self.check(kept, f"{type(asked).__name__} of {row.id} was acknowledged, and is not kept: {row}")

    def _compare(self, old: Row | None, row: Row, worker: str | None, steered: Collection[str]) -> None:
        if old is None or old == row:
            return
        self.facts += 2
        if old.ended and row.id not in steered:
            self.check(False, f"the end of {row.id} was changed from {old} to {row}")
        if old.state == "paused" != row.state:
            self.check(row.id in steered, f"{row.id} was paused, and nobody has asked for {row}")
        if old.state == "running" and row.worker != old.worker and old.worker != worker:
            self.check(not self._is_live(old.worker), f"{row.id} was taken from {old.worker} by {worker}: now {row}")
        if row.state == "waiting" and row.request is not None:
            told = row.request == "cancel" and any(entry.kind in STOPS for entry in self.read_history(row.number))
            self.check(told, f"{row.id} waits, and was not told of its request: {row}")
        if row.ended and not old.ended:
            self._heeded(row)

    def _heeded(self, row: Row) -> None:
        """A cancellation comes at the next await: who succeeds after it must not have had another."""
        self._paused.pop(row.number, None)
        if row.state != "succeeded":
            return
        stand = self._stand(row.number)
        told = self._told_to_stop.get(row.number, stand)
        self.check(told == stand, f"{row.id} succeeded, though it was told to stop")
        if (late := self._late.get(row.number)) is not None:
            begun = [entry.started_at or 0 for entry in self.read_history(row.number) if entry.kind == "step"]
            steps = sum(at >= late for at in begun)
            self.check(steps <= STEPS_WHEN_LATE, f"{row.id} was claimed when it was late, and took {steps} steps")
        since = self._cancelled.get(row.number, self._clock())
        self.check(self._clock() - since < HEEDED_SECONDS, f"{row.id} succeeded, though it was cancelled at {since}")

    def _stand(self, number: int) -> tuple[int, int]:
        """How far a run has come."""
        generation = self.rows[number].generation
        return generation, self._ordinals[number, generation]

    def _went_back(self, record: Record, answer: Requested, old: Row | None) -> None:
        """Before what ended the run, and no further: no recorded step is repeated."""
        if old is None or answer.number is None or old.state != answer.before:
            return
        mine = {key[2]: entry for key, entry in self.entries.items() if key[:2] == (old.number, old.generation)}
        ends = [entry.ordinal for entry in mine.values() if entry.kind in STOPS]
        ends += [old.failed_at]
        goes = old.state == "cancelled" or (isinstance(record, RetryRequested) and old.state in ("failed", "blocked"))
        at = min((end for end in ends if end is not None and goes), default=1 << 62)
        kept = {seq for seq, entry in mine.items() if entry.ordinal is not None and entry.ordinal != at > entry.after}
        found = {entry.seq for entry in self.read_history(old.number) if entry.ordinal is not None}
        self.check(found == kept, f"{record} kept {found} of what {old.id} had recorded, not {kept}")

    def _reopened(self, number: int) -> None:
        """Somebody made a run go on: what ended it was dropped, by the rules that `retry` and `resume` have."""
        self.gone_back.add(number)
        self._cancelled.pop(number, None)
        self._told_to_stop.pop(number, None)
        self._late.pop(number, None)
        self._paused.pop(number, None)
        self._told_to_pause.discard(number)
        if (row := self.rows.get(number)) is None:
            return
        self.last_told.pop(row.id, None)
        stored = {entry.seq: entry for entry in self.read_history(number)}
        for key in [key for key in self.entries if key[:2] == (number, row.generation)]:
            if key[2] in stored:
                self.entries[key] = stored[key[2]]
            else:
                del self.entries[key]
        self._note_ordinals(number)

    def _gone(self, old: Row, batch: Sequence[Record]) -> None:
        """Only runs that have ended are ever removed, when their time has come or who starts them anew asks for it."""
        cutoffs = [cutoff for record in batch if isinstance(record, RunsPruned) for cutoff in record.cutoffs]
        ends = {(old.state, old.ended_at)} if old.ended else _ends(old, batch)
        due = any(
            (old.workflow, state) == cutoff[:2] and at < cutoff.before for cutoff in cutoffs for state, at in ends
        )
        again = any(isinstance(record, RunStarted) and record.restart and record.id == old.id for record in batch)
        self.check(bool(ends) and (due or again), f"run {old} is gone")
        self.counts["removed"] += 1
        self.pruned.add(old.id)
        self.reopening(old.id)

    def clock_set(self) -> None:
        """Deadlines that had passed may be ahead again."""
        self._late.clear()

    # Crashes.

    def _orphaned(self, record: WorkerBuried, before: dict[int, Row]) -> None:
        for number, old in before.items():
            if old.state != "running" or old.worker != record.worker or number not in self.rows:
                continue
            last, progress = self._crashes.get(number, (0, None))
            now = self._progress(number)
            count = last + 1 if progress == now else 1
            self._crashes[number] = count, now
            row, after = self.rows[number], record.poison_after
            poisoned = after is not None and count >= after
            self.counts["poisoned"] += poisoned
            self.check(
                poisoned == (row.state == "cancelled" or row.reason == "poison"),
                f"{row.id} has crashed {count} times without progress, of {after}: {row}",
            )

    def _progress(self, number: int) -> int:
        sql = "select count(ordinal) + coalesce(sum(attempts), 0) from holdfast_history where run = ?"
        return int(self.connection.execute(sql, (number,)).fetchone()[0])

    def _cleared(self, number: int) -> None:
        """A suspect is cleared by an outcome or by time."""
        since, ordinal = self._tried.get(number, (self._clock(), 0))
        self.check(
            self._stand(number)[1] > ordinal or self._clock() - since >= PROBATION_SECONDS,
            f"run {number} was cleared, and has neither recorded an outcome nor lived since {since}",
        )

    def _count_crashes(self, batch: Sequence[Record]) -> None:
        """The file counts them as we do, and no worker has two suspects."""
        kinds = RunCleared, RunParked, RunPaused, RunEnded, RunContinued
        forgiven = {record.number for record in batch if isinstance(record, kinds)}
        asked = {record.id for record in batch if isinstance(record, ResumeRequested | RetryRequested)}
        held: Counter[str | None] = Counter()
        for number, row in self.rows.items():
            count, progress = self._crashes.get(number, (0, -1))
            if number in forgiven or row.id in asked:
                self._crashes[number] = row.crashes, progress
                self.check(row.crashes in (0, count), f"{row.id} has crashed {count} times: {row}")
            else:
                self.check(row.crashes == count, f"{row.id} has crashed {count} times: {row}")
            held[row.worker] += row.state == "running" and row.crashes >= SUSPECT_AFTER
        for worker, suspects in held.items():
            self.check(suspects <= 1, f"{worker} has {suspects} suspects")

    # Reading.

    def _given_back(self, row: Row) -> Row:
        """The same, unless its worker has left: no batch tells of what that gave back."""
        held = row.state == "running" and not self._is_live(row.worker)
        return row._replace(state="ready", worker=None) if held else row

    def _note_ordinals(self, number: int) -> None:
        if number in self.rows:
            sql = "select coalesce(max(ordinal), 0) from holdfast_history where run = ?"
            generation = self.rows[number].generation
            self._ordinals[number, generation] = self.connection.execute(sql, (number,)).fetchone()[0]

    def _is_live(self, worker: str | None) -> bool:
        """Whether a worker may have runs: nobody has buried it, and it has not left."""
        sql = "select 1 from holdfast_workers where id = ? and state = 'live'"
        return self.connection.execute(sql, (worker,)).fetchone() is not None

    def read_rows(self) -> dict[int, Row]:
        """The runs. One of which only remains are left, to be pruned, is none."""
        sql = f"select {', '.join(Row._fields)} from holdfast_runs where id < ? or id >= ?"
        return {row[0]: Row(*row) for row in self.connection.execute(sql, MARKED_IDS)}

    def read_history(self, number: int) -> list[EntryRecorded]:
        """The entries of a run, as they stand in the file."""
        columns = ", ".join(EntryRecorded._fields)
        sql = f"select {columns} from holdfast_history where run = ? order by seq"
        return [EntryRecorded(*row) for row in self.connection.execute(sql, (number,))]

    @property
    def unfinished(self) -> list[Row]:
        """Runs that have not ended."""
        return [row for row in self.read_rows().values() if not row.ended]

    @property
    def live_workers(self) -> int:
        """Workers that nobody has buried and that have not left."""
        sql = "select count(*) from holdfast_workers where state = 'live'"
        return int(self.connection.execute(sql).fetchone()[0])

    # Bodies.

    def begun(self, life: str, worker: str, call: StepCall) -> None:
        """A body begins; `attempts` counts it already."""
        self.counts["bodies"] += 1
        activation = call.activation
        number, generation = activation.row.number, activation.row.generation
        what = f"{call.step.name} {call.seq}.{call.attempts} of {activation.row.id}/{generation}"
        row = self.rows.get(number)
        self.say(f"{life} body {what}")
        if row is None or row.worker != worker or row.state != "running" or row.generation != generation:
            self.check(not self._is_live(worker), f"{worker} began {what}, which it does not hold: {row}")
            self.counts["zombie bodies"] += 1
            return
        entry = self.entries.get((number, generation, call.seq))
        recorded = 0 if entry is None else entry.attempts
        self.check(entry is None or entry.state not in OUTCOMES, f"{what} began, though its outcome is recorded")
        self.check(call.attempts == recorded + 1, f"{what} began after {recorded} recorded attempts")
        durable = self._ordinals[number, generation]
        self.check(durable >= call.after, f"{what}, called after {call.after} outcomes, began with {durable} durable")
        since = self._paused.get(number, self._clock())
        heard = number not in self._told_to_pause and self._clock() - since < HEEDED_SECONDS
        self.check(heard, f"{what} began, though the run was paused at {since}")

    # Clients.

    def start_acknowledged(self, run_id: str) -> None:
        """A client holds a handle."""
        self.started.add(run_id)
        there = run_id in self.pruned or any(row.id == run_id for row in self.rows.values())
        self.check(there, f"{run_id} was acknowledged and is not there")

    def told(self, run_id: str, state: str, text: str | None) -> None:
        """A client was told how a run ended. Only call it when nobody has reopened the run meanwhile."""
        self.counts["told"] += 1
        known = self.last_told.setdefault(run_id, (state, text))
        self.check(known == (state, text), f"{run_id} was told to be {known}, and later {(state, text)}")

    def reopenings(self, run_id: str) -> int:
        """How often a run was asked to go on, to see whether it happened during a call."""
        return self.counts[f"reopened {run_id}"]

    def reopening(self, run_id: str) -> None:
        """A client is about to ask a run to go on. What others are told may change from here on."""
        self.counts[f"reopened {run_id}"] += 1
        self.last_told.pop(run_id, None)

    def __str__(self) -> str:
        return "\n".join(self.trace[-TRACE_SHOWN:])


def _line(record: Record) -> str:
    about = getattr(record, "id", None) or getattr(record, "number", None) or getattr(record, "run", None)
    if isinstance(record, WorkerBuried):
        about = record.worker
    return f"{describe(record)} ({about})" if about is not None else describe(record)


def _ends(run: Row, batch: Sequence[Record]) -> set[tuple[str, int]]:
    """How a run may have ended in this very batch, before what is pruned in it."""
    ended = {(str(r.state), r.ended_at) for r in batch if isinstance(r, RunEnded) and r.number == run.number}
    return ended | {("cancelled", r.now) for r in batch if isinstance(r, CancelRequested) and r.id == run.id}
