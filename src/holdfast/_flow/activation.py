"""An activation: one run in memory, live or in replay.

Outcomes go in, one at a time, each followed by draining the loop; out come the operations that the workflow requested,
the entries to record, and at the end a conclusion. The order of delivery is numbered (`ordinal`) and recorded, and
replay delivers in that order, so a racy program reaches the same state again.

    deliver(outcome) ──> loop.drain() ──> requested · cancelled · records · conclusion

Numbers. An operation takes the next `seq` when it is called, and notes how many outcomes the workflow had seen by then
(`after`). What comes from outside (a cancellation, a deadline) has negative numbers. Replay compares kind, name and
arguments of each call with the entry of the same number; a difference halts the run at once, before anything else of
its code runs, and becomes the `divergence`.

A step's argument check, its fingerprint and the decoding of recorded results happen here. What is done with requests,
when bodies run and when records are durable is the executor's business; this module knows no clock, store or thread.
"""

from __future__ import annotations

import asyncio
import random
from asyncio import _get_running_loop, _set_running_loop
from collections.abc import Coroutine, Iterator, Sequence
from functools import partial
from types import FrameType
from typing import Any, NoReturn

from holdfast._flow.bridge import Bridge
from holdfast._flow.calls import StepCall, StepOutcome
from holdfast._flow.conclusion import Conclusion, conclusion_of
from holdfast._flow.definitions import Step, Workflow
from holdfast._flow.history import CANCEL, DEADLINE, PATCH, STEP, TIMER, History, call_line, line_of, matches
from holdfast._flow.loop import NOBODY, RunClosing, WorkflowLoop, WorkflowTimer
from holdfast._flow.promises import Promises
from holdfast._model.failures import decode_failure, in_short
from holdfast._model.lifecycle import EntryState
from holdfast._model.payloads import PAYLOAD_CHARS_MAX
from holdfast._model.records import EntryRecorded, RunRow
from holdfast.errors import HoldfastError, NondeterminismError, NotDecodable, StepFailed, UsageError

OPERATIONS_MAX = 1_000_000
"""Operations of one generation of a run; past it the run fails and is told to continue as new."""


class Activation:
    """One run in memory.

    Args:
        row: the run as it was claimed.
        workflow: its code.
        history: its recorded entries, in any order.
        payload_max: characters of JSON that its result may have, and the arguments of its next generation.
    """

    def __init__(
        self,
        row: RunRow,
        workflow: Workflow[..., Any],
        history: Sequence[EntryRecorded] = (),
        *,
        payload_max: int = PAYLOAD_CHARS_MAX,
    ) -> None:
        self.row = row
        self.workflow = workflow
        self.loop = WorkflowLoop(self, salt=row.seed)
        self.loop.now_us = row.started_at
        self.ordinal = 0
        self.requested: list[StepCall] = []
        self.cancelled: list[StepCall] | None = None
        self.timers: dict[int, WorkflowTimer] = {}
        self.started_timers: list[WorkflowTimer] | None = None
        self.steps: dict[int, StepCall] = {}
        self.records: list[EntryRecorded] = []
        self.conclusion: Conclusion | None = None
        self.divergence: HoldfastError | None = None
        self.cancel_kind: str | None = None
        self.unhandled_errors: list[dict[str, Any]] | None = None
        self._payload_max = payload_max
        self._seq = 0
        self._outside = 0
        self._history = History(history) if history else None
        self.ordinal_recorded = 0 if self._history is None else self._history.last_ordinal
        self._failures: list[tuple[BaseException, int]] | None = None
        self._patches: dict[str, bool] | None = None
        self._random: random.Random | None = None
        self._bridge = None if workflow.is_async else Bridge()
        self._main: asyncio.Task[Any] | None = None
        self._promises: Promises | None = None
        if self._bridge is not None:
            self.loop.is_in_plain_code = self._bridge.is_inside

    # Driving: what the executor calls.

    def begin(self) -> None:
        """Start the workflow's main task and drain.

        Raises:
            NotDecodable: the stored input does not fit the workflow's signature.
        """
        args, kwargs = self.workflow.arguments.decode(self.row.input)
        function = self.workflow.function
        main = function(*args, **kwargs) if self._bridge is None else self._bridge.run(function, args, kwargs)
        self._main = self.loop.create_task(main, name=self.row.id)
        self._activate()

    def replay(self, *, chunk: int) -> Iterator[None]:
        """Deliver the recorded outcomes in their order, yielding after every `chunk` of them.

        On return the run stands where its history ends: `conclusion` or `divergence` is set, or it is live.
        """
        deliveries = () if self._history is None else self._history.deliveries
        for count, entry in enumerate(deliveries, 1):
            if self.divergence is not None:
                return
            self._redeliver(entry)
            if count % chunk == 0:
                yield
        if self.divergence is None:
            self._finish_replay()

    def deliver_step(self, call: StepCall, outcome: StepOutcome) -> bool:
        """Hand a step's outcome to the workflow and record it. False when nobody waits for it any more."""
        if call.done() or self.conclusion is not None or self.loop.halted:
            return False
        self.ordinal += 1
        loop = self.loop
        loop.now_us = finished_at = max(loop.now_us, outcome.finished_at)
        failed = outcome.exception is not None
        fields = (
            self.row.number,
            call.seq,
            call.after,
            self.ordinal,
            STEP,
            call.step.name,
            "failed" if failed else "succeeded",
            call.input,
            outcome.output,
            outcome.error,
            call.attempts,
            call.started_at,
            finished_at,
            None,
        )
        self.records.append(_new_entry(fields))
        if failed:
            self._settle(call, outcome.value, outcome.exception)
        else:
            del self.steps[call.seq]
            call.set_result(outcome.value)
            self._activate()
        return True

    def deliver_timer(self, timer: WorkflowTimer, *, now_us: int) -> bool:
        """Fire a timer and record it. False when the workflow has cancelled it."""
        if self.timers.pop(timer.seq, None) is None or self.conclusion is not None or self.loop.halted:
            return False
        self.ordinal += 1
        loop = self.loop
        loop.now_us = max(loop.now_us, timer.due_us, now_us)
        self.records.append(self._timer_entry(timer, finished_at=loop.now_us))
        timer.fire()
        self._activate()
        return True

    def deliver_cancel(self, kind: str, *, now_us: int) -> bool:
        """Cancel the run (`kind` CANCEL or DEADLINE) at its next await, and record where. Once per run."""
        if self.cancel_kind is not None or self.conclusion is not None or self.loop.halted:
            return False
        self._outside -= 1
        self.ordinal += 1
        loop = self.loop
        loop.now_us = now = max(loop.now_us, now_us)
        fields = (self.row.number, self._outside, self.ordinal - 1, self.ordinal, kind, kind, "succeeded")
        self.records.append(EntryRecorded(*fields, None, None, None, 0, now, now, None))
        self._cancel(kind)
        return True

    def pending_entries(self) -> list[EntryRecorded]:
        """The timers that are running, as entries to record while the run is parked."""
        return [self._timer_entry(timer, finished_at=None) for timer in self.timers.values()]

    def pending_attempt(self, call: StepCall, *, error: str | None) -> EntryRecorded:
        """A step whose last attempt failed with `error` and whose next is due at ``call.due_us``, as an entry."""
        return EntryRecorded(
            run=self.row.number,
            seq=call.seq,
            after=call.after,
            ordinal=None,
            kind=STEP,
            name=call.step.name,
            state=EntryState.PENDING.value,
            input=call.input,
            output=None,
            error=error,
            attempts=call.attempts,
            started_at=call.started_at,
            finished_at=None,
            due_at=call.due_us,
        )

    def next_due_us(self) -> int | None:
        """When the earliest timer or delayed attempt is due, or none."""
        dues = [timer.due_us for timer in self.timers.values()]
        dues += [call.due_us for call in self.steps.values() if call.due_us is not None]
        return min(dues, default=None)

    def close(self) -> None:
        """Take the run out of memory: the user's `finally` blocks run, and every durable operation in them refuses."""
        loop = self.loop
        loop.halted = True
        if loop.is_suspended():
            running = _get_running_loop()
            _set_running_loop(loop)
            try:
                loop.close()
            finally:
                _set_running_loop(running)
        if self._promises is not None:
            self._promises.break_all()
        # Cut the cycles: a run that has left is freed at once, not by the collector.
        self.steps.clear()
        self.timers.clear()
        self.requested.clear()
        loop.tasks.clear()
        loop.owner = NOBODY
        self._main = self._failures = self._history = self._bridge = None

    # Inside: what the workflow's code calls, through definitions, context and loop.

    def call_step(self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A step was called: number it, check it against the history, and request it."""
        if self.loop.closing or self.loop.halted:
            self.loop.refuse()
            never = self.loop.create_future()
            return never if self._bridge is None else self._bridge.wait(never)
        step.result  # noqa: B018 - an annotation that cannot be stored is refused before the body has run
        self._seq = seq = self._seq + 1
        if seq > OPERATIONS_MAX:
            self._refuse_more()
        call = StepCall(self, seq, step, args, kwargs)
        if self._history is not None:
            recorded = self._check(call.seq, STEP, step.name, call.input)
            if recorded is not None and recorded.ordinal is None:
                call.attempts, call.due_us = recorded.attempts, recorded.due_at
                call.started_at = recorded.started_at
        self.steps[call.seq] = call
        self.requested.append(call)
        return call if self._bridge is None else self._bridge.wait(call)

    def wait(self, coroutine: Coroutine[Any, Any, Any], what: str, caller: FrameType) -> Any:
        """For module functions such as `sleep`: the coroutine itself, or in a sync workflow its outcome.

        Should the workflow forget to await it, the log says `what` and where.
        """
        if self._bridge is not None:
            return self._bridge.wait(coroutine)
        if self._promises is None:
            self._promises = Promises()
        self._promises.keep((coroutine, what, caller.f_code, caller.f_lineno))
        return coroutine

    def timer_started(self, timer: WorkflowTimer) -> None:
        """Part of `LoopOwner`."""
        if self.loop.closing or self.loop.halted:
            self.loop.refuse()
            return
        timer.seq = self._take_seq()
        timer.after = self.ordinal
        if self._history is not None:
            recorded = self._check(timer.seq, TIMER, TIMER, None)
            if recorded is not None and recorded.due_at is not None:
                timer.due_us = recorded.due_at
        self.timers[timer.seq] = timer
        if self.started_timers is None:
            self.started_timers = []
        self.started_timers.append(timer)

    def timer_cancelled(self, timer: WorkflowTimer) -> None:
        """Part of `LoopOwner`."""
        self.timers.pop(timer.seq, None)

    def step_cancelled(self, call: StepCall) -> None:
        """A step's future was cancelled by the workflow."""
        if self.steps.pop(call.seq, None) is not None and not self.loop.closing:
            if self.cancelled is None:
                self.cancelled = []
            self.cancelled.append(call)

    def unhandled(self, context: dict[str, Any]) -> None:
        """Part of `LoopOwner`: kept for the executor's log."""
        if self.unhandled_errors is None:
            self.unhandled_errors = []
        self.unhandled_errors.append(context)

    def patched(self, name: str) -> bool:
        """Whether this run takes the new branch; asked once per name, recorded when it does."""
        if self.loop.closing or self.loop.halted:
            self.loop.refuse()
            return True
        if self._patches is None:
            self._patches = {}
        if name not in self._patches:
            self._patches[name] = self._decide_patch(name)
        return self._patches[name]

    @property
    def random(self) -> random.Random:
        """The run's own generator; the same numbers in replay."""
        if self._random is None:
            self._random = random.Random(self.row.seed)
        return self._random

    # Leaves.

    def _activate(self) -> None:
        running = _get_running_loop()
        _set_running_loop(self.loop)
        try:
            self.loop.drain()
        finally:
            _set_running_loop(running)
        main = self._main
        if main is not None and main.done() and self.divergence is None and self.conclusion is None:
            self.conclusion = self._conclude(main)

    def _settle(self, call: StepCall, value: Any, exception: BaseException | None) -> None:
        del self.steps[call.seq]
        if exception is None:
            call.set_result(value)
        else:
            if self._failures is None:
                self._failures = []
            self._failures.append((exception, self.ordinal))
            call.set_exception(exception)
        self._activate()

    def _cancel(self, kind: str) -> None:
        self.cancel_kind = kind
        if self._main is not None:
            self._main.cancel()
        self._activate()

    def _take_seq(self) -> int:
        self._seq = seq = self._seq + 1
        if seq > OPERATIONS_MAX:
            self._refuse_more()
        return seq

    def _refuse_more(self) -> NoReturn:
        raise UsageError(
            f"run {self.row.id!r} has called {OPERATIONS_MAX} operations",
            hint="let long-lived workflows call continue_as_new(...) now and then",
        )

    def _timer_entry(self, timer: WorkflowTimer, *, finished_at: int | None) -> EntryRecorded:
        fired = finished_at is not None
        return EntryRecorded(
            run=self.row.number,
            seq=timer.seq,
            after=timer.after,
            ordinal=self.ordinal if fired else None,
            kind=TIMER,
            name=TIMER,
            state=EntryState.SUCCEEDED.value if fired else EntryState.PENDING.value,
            input=None,
            output=None,
            error=None,
            attempts=0,
            started_at=None,
            finished_at=finished_at,
            due_at=timer.due_us,
        )

    def _decide_patch(self, name: str) -> bool:
        seq = self._seq + 1
        history = self._history
        if history is not None:
            recorded = history.entry(seq)
            if recorded is not None and matches(recorded, PATCH, name, None):
                self._take_seq()
                return True
            if history.goes_on(seq=seq, ordinal=self.ordinal):
                return False  # without the patch: it was made by the old code
        self._take_seq()
        now = self.loop.now_us
        fields = (self.row.number, seq, self.ordinal, None, PATCH, name, "succeeded")
        self.records.append(EntryRecorded(*fields, None, None, None, 0, now, now, None))
        return True

    # Replay.

    def _check(self, seq: int, kind: str, name: str, arguments: str | None) -> EntryRecorded | None:
        recorded = None if self._history is None else self._history.entry(seq)
        if recorded is not None and not matches(recorded, kind, name, arguments):
            self._diverge(seq, recorded=line_of(recorded), requested=call_line(kind, name, arguments))
            raise RunClosing
        return recorded

    def _redeliver(self, entry: EntryRecorded) -> None:
        self.ordinal = entry.ordinal or self.ordinal
        if entry.kind in (CANCEL, DEADLINE):
            self._outside -= 1
            self.loop.now_us = entry.finished_at or self.loop.now_us
            self._cancel(entry.kind)
            return
        call, timer = self.steps.get(entry.seq), self.timers.pop(entry.seq, None)
        if call is None and timer is None:
            self._diverge(entry.seq, recorded=line_of(entry), requested=f"nothing: the workflow {self._did_instead()}")
            return
        self.loop.now_us = entry.finished_at or self.loop.now_us
        if timer is not None:
            timer.fire()
            self._activate()
        elif call is not None:
            self._redeliver_step(call, entry)

    def _redeliver_step(self, call: StepCall, entry: EntryRecorded) -> None:
        if entry.error is not None:
            self._settle(call, None, decode_failure(entry.error, fallback=StepFailed))
            return
        try:
            value = call.step.result.decode(entry.output or "null", where=call.step.result_place)
        except NotDecodable as error:
            self.divergence = error
            self.loop.halted = True
            return
        self._settle(call, value, None)

    def _did_instead(self) -> str:
        """What the workflow did, where the history has the outcome of something that it did not call."""
        if self.conclusion is None:
            return "did not call it"
        return "has ended" if self.conclusion.error is None else f"has failed with {in_short(self.conclusion.error)}"

    def _finish_replay(self) -> None:
        self._history = None
        self.requested = [call for call in self.requested if not call.done()]
        self.cancelled = None

    def _diverge(self, seq: int, *, recorded: str, requested: str) -> None:
        self.loop.halted = True
        patch = recorded.startswith(PATCH)
        self.divergence = NondeterminismError(
            run_id=self.row.id,
            seq=seq,
            recorded=recorded,
            requested=requested,
            hint="this run needs its patched(...) branch: put it back"
            if patch
            else "deploy the code that began this run, or guard the change with patched(...)",
        )

    # The end.

    def _conclude(self, main: asyncio.Task[Any]) -> Conclusion:
        forgotten = [repr(call) for call in self.steps.values() if not call.is_awaited()]
        if self._promises is not None:
            forgotten += self._promises.break_all()
        for what in forgotten:
            self.unhandled({"message": f"ended without awaiting {what}, which did not count: write `await`"})
        return conclusion_of(
            main,
            row=self.row,
            workflow=self.workflow,
            cancel_kind=self.cancel_kind,
            failures=self._failures or (),
            payload_max=self._payload_max,
        )


_new_entry = partial(tuple.__new__, EntryRecorded)  # half the cost of calling the class, on the hot path
