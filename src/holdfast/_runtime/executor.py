"""The executor: runs in memory, their steps' bodies, and the output-commit rule. It alone knows history *and* journal.

    body ends ─> inbox ─> pump: deliver · drain ─> records ─> journal ─ durable ─> held bodies start
                           └──────── run ahead: rows join the same batch ────────┘

**The output-commit rule.** An outcome reaches the workflow at once, and the workflow computes on. What it asks for next
is an effect of two kinds. A *row* (a timer, a patch marker, the end of the run) is appended behind the outcome and may
share its batch. A *body* touches the world, so it is held until every earlier record of its run is durable
(`undurable == 0`). Hence:

- Dying before the commit: the outcome is lost, but so is everything that was computed from it; no body has started that
  depended on it. The step runs again.
- Dying after the commit: the outcome is there; replay delivers it and starts the held body.
- A finished `result()` and `start()` are answered from acknowledgements only.

**One run, one order.** All of a run's records pass through the journal in the order it made them. Deliveries happen one
at a time on the event loop, in `_pump` (a plain callback, never inside a task).

**Leaving memory** (parked, paused, released): no body is under way, the record is appended, and from that moment
nothing is delivered to the run any more. If the record is refused, the run is set aside as blocked.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from holdfast._collector import CollectorHeld
from holdfast._flow.activation import Activation
from holdfast._flow.calls import StepCall
from holdfast._flow.definitions import Workflow
from holdfast._flow.history import CANCEL, DEADLINE
from holdfast._model.failures import encode_failure
from holdfast._model.lifecycle import RunState
from holdfast._model.records import (
    EntryRecorded,
    Record,
    RunBlocked,
    RunContinued,
    RunEnded,
    RunParked,
    RunPaused,
    RunReleased,
    RunRow,
)
from holdfast._runtime.bodies import Bodies, Body
from holdfast._runtime.events import ENGINE_LOG, Event, Events
from holdfast._runtime.liverun import LiveRun, WorkflowCode, keep_generator
from holdfast._runtime.options import ExecutorOptions
from holdfast._runtime.timers import Target, Timers
from holdfast._runtime.told import log_blocked, log_defect, log_failed, log_failure, log_unhandled
from holdfast._store.journal import Journal
from holdfast._world import World
from holdfast.errors import HoldfastError, NondeterminismError

REPLAY_CHUNK: Final = 500
"""Entries replayed before other work gets a turn."""


class Executor:
    """Executes the runs that this worker holds.

    Args:
        worker: this worker's id.
        workflows: the code, by name.
        on_ended: told of every durable end: number, id, state, output, error.
        on_left: told when a run has left memory otherwise, with the instant it is due (none: when something wakes it).
    """

    def __init__(
        self,
        *,
        worker: str,
        workflows: Mapping[str, Workflow[..., Any]],
        journal: Journal,
        world: World,
        events: Events,
        options: ExecutorOptions,
        on_ended: Callable[[RunRow, RunEnded], object],
        on_left: Callable[[RunRow, int | None], object],
    ) -> None:
        self.worker = worker
        self.live: dict[int, LiveRun] = {}
        self.reserved = 0
        self.blocked: set[int] = set()
        self.activating: RunRow | None = None
        self.turns = 0
        self._workflows = workflows
        self._journal = journal
        self._world = world
        self._events = events
        self._options = options
        self._on_ended = on_ended
        self._on_left = on_left
        self.bodies = Bodies(world=world, finished=self._finished, options=options, payload_max=journal.payload_max)
        self._inbox: list[Body] = []
        self._pump_due = False
        self.timers = Timers(world=world, ring=self._ring)
        self._loop = asyncio.get_running_loop()
        self._chance = random.Random(world.seed())
        self._closed = False

    @property
    def room(self) -> int:
        """How many more runs may come into memory; starts under way have reserved theirs."""
        return 0 if self._closed else self._options.runs_max - len(self.live) - self.reserved

    # Runs come in.

    def adopt_soon(self, row: RunRow, history: Sequence[EntryRecorded] = ()) -> None:
        """`adopt` from a plain callback: for callers that are tasks."""
        self.reserved += 1

        def adopt() -> None:
            self.reserved -= 1
            self.adopt(row, history)

        self._loop.call_soon(adopt)

    def request_soon(self, number: int, request: str) -> None:
        """`request` from a plain callback: for callers that are tasks."""
        self._loop.call_soon(self.request, number, request)

    def adopt(self, row: RunRow, history: Sequence[EntryRecorded] = ()) -> None:
        """Execute a run that this worker holds, from where its history ends."""
        if self._closed or row.number in self.live:
            return
        activation = Activation(row, self._workflows[row.workflow], history, payload_max=self._journal.payload_max)
        run = self.live[row.number] = LiveRun(self, activation)
        if self._events.active:
            self._tell("run.claimed", run)
        try:
            with WorkflowCode(self, row):
                activation.begin()
        except HoldfastError as error:  # the stored input does not fit this code's signature; other code's it may
            self._block(run, error)
        except Exception as error:
            self._defect(run, error)
        else:
            if history:
                self._replay(run, activation.replay(chunk=REPLAY_CHUNK))
            else:
                self._ready(run)

    def _replay(self, run: LiveRun, replay: Iterator[None]) -> None:
        if run.gone:
            return
        with WorkflowCode(self, run.row), CollectorHeld():
            more = next(replay, self) is not self
        if more:
            self._world.call_later(0, lambda: self._replay(run, replay))
        else:
            self._ready(run)

    def _ready(self, run: LiveRun) -> None:
        """The run stands where its history ends: from here on it is live."""
        row = run.row
        run.replaying = False
        self.blocked.discard(row.number)
        if row.deadline_at is not None:
            self.timers.set(row.deadline_at, run, None)
        if row.request is not None:
            self.request(row.number, row.request)
        self._advance(run)

    # Outcomes go in.

    def _finished(self, body: Body) -> None:
        """A body has ended. Deliver it from a plain callback: we may be inside its task."""
        self._inbox.append(body)
        if not self._pump_due:
            self._pump_due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        if not self._journal.has_room and not self._closed:
            self._world.call_later(5_000, self._pump)
            return
        self._pump_due = False
        inbox, self._inbox = self._inbox, []
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(keep_generator, None)
        left = iter(inbox)
        try:
            with CollectorHeld():
                for body in left:
                    try:
                        self._take(body)
                    except Exception as error:
                        self._defect(body.run, error)
        finally:
            self.activating = None
            sys.set_asyncgen_hooks(*hooks)
            for body in left:  # only after an interrupt
                self._finished(body)
        self._journal.flush()

    def _defect(self, run: LiveRun, error: Exception) -> None:
        """Our own code failed over one run: set that aside, go on with the others."""
        defect = log_defect(run.row, error)
        if not run.gone:
            self._block(run, defect)

    def _take(self, body: Body) -> None:
        run: LiveRun = body.run
        call = body.call
        if run.bodies.pop(call.seq, None) is None or run.gone:
            return
        if body.interrupted:  # somebody cancelled our task, as `asyncio.run` does at its end: that is no outcome
            self._release(run)
            self.try_leave(run)
            return
        if body.exception is not None:
            log_failure(run.row, call, body.exception, again=body.again)
            if body.again and not call.done():
                self._try_again(run, call, body)
                return
        if self._events.active:
            self._tell("step.ended", run, call, state="failed" if body.exception else "succeeded")
        self.turns += 1
        self.activating = run.row
        run.activation.deliver_step(call, body)
        self._advance(run)

    def _try_again(self, run: LiveRun, call: StepCall, body: Body) -> None:
        """Record the attempt and when the next is due. That must be durable before the next begins."""
        delay_us = call.step.retry.delay_us(attempt=call.attempts, chance=self._chance.random())
        call.due_us = body.finished_at + delay_us
        entry = run.activation.pending_attempt(call, error=body.error)
        self._append(run, entry)
        self._request_body(run, call)
        self._advance(run)

    def request(self, number: int, request: str) -> None:
        """A person asked for `cancel` or `pause` of a run that this worker may hold."""
        run = self.live.get(number)
        if run is None or run.gone or run.replaying:  # after the replay the dispatcher finds the request again
            return
        if request == "pause":
            run.leaving = run.leaving or (lambda r: RunPaused(r.row.number, self.worker))
            self._advance(run)  # what the run has recorded so far goes before
            return
        with WorkflowCode(self, run.row):
            delivered = run.activation.deliver_cancel(CANCEL, now_us=self._world.now_us())
        if delivered:  # once; the request stands in its row for as long as it cleans up
            self._advance(run)

    # What the run wants next.

    def _advance(self, run: LiveRun) -> None:
        """Carry out what the last delivery left: records first, then abandoned, ended, requested."""
        if run.gone:
            return
        activation = run.activation
        if activation.divergence is not None:
            self._block(run, activation.divergence)
            return
        if activation.records:
            records, activation.records = activation.records, []
            run.undurable += len(records)
            for record in records:
                self._journal.append(record, run.then)
        if activation.cancelled:
            self._abandon_cancelled(run)
        if activation.unhandled_errors:
            log_unhandled(run.row, activation)
        if activation.conclusion is not None:
            self._conclude(run)
            return
        if activation.started_timers:
            self._arm_timers(run)
        if activation.requested:
            calls, activation.requested = activation.requested, []
            for call in calls:
                if run.undurable and call.due_us is None:  # the hot path of `_request_body`
                    run.held.append(call)
                elif not call.done():
                    self._request_body(run, call)
        run.quiet_since = None if run.bodies or run.held else self._world.now_us()
        if run.leaving is not None:
            self.try_leave(run)

    def _request_body(self, run: LiveRun, call: StepCall) -> None:
        """Start a body, unless it is not due yet or an earlier record of its run is not durable yet."""
        if call.due_us is not None and call.due_us > self._world.now_us():
            self.timers.set(call.due_us, run, call)
        elif run.undurable or run.leaving is not None:
            run.held.append(call)
        else:
            run.held.append(call)
            self.start_held(run)

    def start_held(self, run: LiveRun) -> None:
        """Everything of the run is durable: its held bodies may touch the world."""
        if run.leaving is not None:
            return
        held, run.held = run.held, []
        run.quiet_since = None
        for call in held:
            if not call.done():
                run.bodies[call.seq] = self.bodies.start(run, call)
                if self._events.active:
                    self._tell("step.started", run, call)

    def _abandon_cancelled(self, run: LiveRun) -> None:
        calls, run.activation.cancelled = run.activation.cancelled, None
        for call in calls or ():
            body = run.bodies.pop(call.seq, None)
            if body is not None:
                self.bodies.abandon(body)

    # The end of a run, and of its stay.

    def _conclude(self, run: LiveRun) -> None:
        conclusion = run.activation.conclusion
        if conclusion is None:
            return
        if conclusion.continues is not None:
            record = RunContinued(run.row.number, self.worker, conclusion.continues, self._world.seed())
            self._depart(run, record, due_at=0)
        elif conclusion.state is not None:
            self._end(
                run,
                conclusion.state,
                output=conclusion.output,
                error=conclusion.error,
                failed_at=conclusion.failed_at,
            )

    def _end(
        self,
        run: LiveRun,
        state: RunState,
        *,
        output: str | None = None,
        error: str | None = None,
        failed_at: int | None = None,
    ) -> None:
        row = run.row
        now = max(self._world.now_us(), run.activation.loop.now_us)
        closes_pending = row.has_history or bool(run.activation.timers) or bool(run.activation.steps)
        record = RunEnded(row.number, self.worker, state, output, error, failed_at, now, closes_pending)
        self._vanish(run)
        if error is not None:
            log_failed(row, error)

        def then(_outcome: object, refused: BaseException | None) -> None:
            if refused is not None:
                self.drop(run, refused)
                return
            self.live.pop(row.number, None)
            run.forget()
            if self._events.active:
                self._tell("run.ended", run, state=state.value)
            self._on_ended(row, record)

        self._journal.append(record, then)

    def _block(self, run: LiveRun, error: HoldfastError) -> None:
        row = run.row
        reason = "nondeterminism" if isinstance(error, NondeterminismError) else error.code
        log_blocked(row, reason, error)
        self.blocked.add(row.number)
        record = RunBlocked(row.number, self.worker, reason, encode_failure(error), self._world.now_us())
        self._depart(run, record, due_at=None)

    def leave(self, run: LiveRun, record_of: Callable[[LiveRun], Record]) -> None:
        """Take the run out of memory as soon as no body of it is under way; no new one is started."""
        if run.leaving is None and not run.gone:
            run.leaving = record_of
            self.try_leave(run)

    def try_leave(self, run: LiveRun) -> None:
        """Leave now if nothing of the run is under way."""
        if run.leaving is None or run.gone or run.replaying or run.bodies or run.undurable:
            return
        record = run.leaving(run)
        for entry in run.activation.pending_entries():
            self._append(run, entry)
        # A paused run may have been resumed or cancelled meanwhile; then it is ready, and looked for at once.
        due_at = record.due_at if isinstance(record, RunParked) else 0 if isinstance(record, RunPaused) else None
        self._depart(run, record, due_at=due_at)

    def _depart(self, run: LiveRun, record: Record, *, due_at: int | None) -> None:
        """Append the last record of the run's stay; it is out of memory when that is durable."""
        self._vanish(run)

        def then(_outcome: object, refused: BaseException | None) -> None:
            if refused is not None:
                self.drop(run, refused)
                return
            self.live.pop(run.row.number, None)
            run.forget()
            self._on_left(run.row, due_at)

        self._journal.append(record, then)

    def _vanish(self, run: LiveRun) -> None:
        """From here on nothing reaches the run."""
        run.gone = True
        for body in run.bodies.values():
            self.bodies.abandon(body)
        run.bodies.clear()
        run.held.clear()
        if run.activation.loop.is_suspended():
            with WorkflowCode(self, run.row):
                run.activation.close()
        else:
            run.activation.close()

    def drop(self, run: LiveRun, error: BaseException) -> None:
        """The journal refused a record of this run: forget it here; its rows are the truth.

        While the journal works, the run is set aside as blocked, so that it is not lost from sight.
        """
        if not run.gone:
            self._vanish(run)
        if self._journal.broken is None and isinstance(error, HoldfastError) and run.row.number in self.live:
            if not run.refused:
                run.refused = error
                self._block(run, error)
                return
            if error is run.refused:
                return
        if self.live.pop(run.row.number, None) is not None and not self._closed:
            ENGINE_LOG.error("run %s is dropped by worker %s: %s", run.row.id, self.worker, error)
            self._on_left(run.row, None)

    # Time.

    def _arm_timers(self, run: LiveRun) -> None:
        timers, run.activation.started_timers = run.activation.started_timers, None
        for timer in timers or ():
            if timer.seq in run.activation.timers:
                self.timers.set(timer.due_us, run, timer)

    def _ring(self, run: LiveRun, target: Target, now: int) -> bool:
        """Something of a run is due. False while the journal is full: then it is due later."""
        if not self._journal.has_room:
            return False
        if not run.gone and run.leaving is None:
            self._rung(run, target, now)
        return True

    def _rung(self, run: LiveRun, target: Target, now: int) -> None:
        if isinstance(target, StepCall):
            if not target.done():
                target.due_us = None
                self._request_body(run, target)
                run.quiet_since = None
            return
        with WorkflowCode(self, run.row):
            if target is None:
                delivered = run.activation.deliver_cancel(DEADLINE, now_us=now)
            else:
                delivered = run.activation.deliver_timer(target, now_us=now)
        if delivered:
            self._advance(run)

    # The end of the worker.

    def release_all(self) -> None:
        """Let every run go as soon as no body of it is under way."""
        for run in list(self.live.values()):
            self._release(run)

    def abandon_all(self) -> None:
        """Cancel the bodies that are still under way, so that their runs can leave now."""
        for run in list(self.live.values()):
            for body in run.bodies.values():
                self.bodies.abandon(body)
            run.bodies.clear()
            self.try_leave(run)

    def close(self) -> None:
        """Nothing runs any more; what is in memory is forgotten."""
        self._closed = True
        self.timers.close()
        for run in list(self.live.values()):
            if not run.gone:
                self._vanish(run)
        self.live.clear()
        self.bodies.close()

    def _release(self, run: LiveRun) -> None:
        self.leave(run, lambda r: RunReleased(r.row.number, self.worker))

    # Leaves.

    def _append(self, run: LiveRun, record: Record) -> None:
        run.undurable += 1
        self._journal.append(record, run.then)

    def _tell(self, kind: str, run: LiveRun, call: StepCall | None = None, *, state: str | None = None) -> None:
        row, now = run.row, self._world.now_us()
        step, attempt = (None, 0) if call is None else (call.step.name, call.attempts)
        self._events.emit(Event(kind, now, row.id, row.workflow, step, attempt, state))
