"""Step bodies: one attempt of one step, as a task on the application's loop or in a thread.

A body knows nothing of histories or records. It turns what the function does into a `StepOutcome` and hands that to
`finished` on the event loop, exactly once, unless it was abandoned. An abandoned body is one that nobody waits for: the
workflow gave the step up, or the run leaves this process. An `async def` body is then cancelled; a `def` body goes on
in its thread, and what it returns is dropped.

**A `CancelledError` that leaves a body** has one of three origins, and only the first is no outcome:

- *From outside*: the end of `asyncio.run`, which cancels every task, or a supervisor of the application. The body was
  *interrupted*: the run leaves this process, and the step runs again later. A second Ctrl-C may land in the body's own
  code as a KeyboardInterrupt; that is the same.
- *By the step itself*: it cancelled its own task. `BodyTask` sees who asks: whatever a body calls, starts or schedules
  inherits its context, so code for which `executing` is this very call belongs to the step, and no other code does.
- *By nobody*: the task was never cancelled; the body raised the error, or awaited something that was cancelled.

The last two are failures like any other (`StepFailed`), retried by the step's policy. Otherwise such a step would be
released and tried again for ever, and its run would never end. Code of the step may hide its context, as a
connection pool does whose own task cancels those that use it. So an interruption counts once: when the same step
is interrupted again in this process, which evidently goes on, that attempt has failed. A process that really stops
never sees a second one, and workers can at most pass a step on once each.

**No body begins on a lapsed lease.** A body is held until the records before it are durable, and a commit proves the
lease; but the process may be stopped (SIGSTOP, a suspended laptop) between that commit and the callback that begins the
body, and another worker may have taken the run over since. So the instant at which a body begins is compared with the
end of the lease. Past it the body waits in line until the lease has been renewed, or for ever if this worker turns out
to be dead. It costs one comparison: the instant is read anyway. The wall clock is the one to ask, since leases are
judged by it; when it jumps forward by itself, bodies wait for the few milliseconds of a renewal.

What remains: a process that is stopped *after* that look. Bodies under way go on for a moment when it continues, and so
do those that began in the same turn of the event loop, or wait in the threads' line. They are attempts like any other
that a death cuts short: executed at least once, their outcomes refused.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any

from holdfast._flow.calls import StepCall, StepOutcome
from holdfast._flow.context import executing
from holdfast._model.failures import decode_failure, encode_failure, said
from holdfast._model.payloads import check_payload
from holdfast._runtime.options import ExecutorOptions
from holdfast._runtime.threads import Job, StepThreads
from holdfast._world import World
from holdfast.errors import HoldfastError, NotEncodable, StepFailed, StepTimeout


class Body(StepOutcome):
    """An attempt under way, of `call` for `run`; once it has ended, its outcome.

    Attributes:
        again: once it has failed, whether the step's policy wants another attempt.
        abandoned: nobody waits for it.
        interrupted: it was cancelled from outside and has no outcome.
    """

    __slots__ = ("abandoned", "again", "call", "ended", "interrupted", "job", "run", "task", "timer")

    def __init__(self, run: Any, call: StepCall) -> None:
        self.run = run
        self.call = call
        self.exception: BaseException | None = None
        self.abandoned = False
        self.again = False
        self.ended = False
        self.interrupted = False
        self.task: BodyTask | None = None
        self.job: Job | None = None
        self.timer: Callable[[], None] | None = None


class BodyTask(asyncio.Task[None]):
    """The task of an `async def` body, which knows who cancels it.

    Attributes:
        begun: the body's first instruction has been reached. Asyncio would drop a task that is cancelled before that
            without a turn, and nobody would learn of its end.
        interrupted: code that is not the step's own has cancelled it.
    """

    __slots__ = ("begun", "call", "interrupted")

    def __init__(self, body: Body, coro: Coroutine[Any, Any, None], *, loop: asyncio.AbstractEventLoop) -> None:
        self.begun = self.interrupted = False
        self.call = body.call
        super().__init__(coro, loop=loop)

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the body; one that has not begun will see it when it does."""
        if executing.get(None) is not self.call:
            self.interrupted = True
        return super().cancel(msg) if self.begun else not self.done()


class Bodies:
    """Starts bodies and reports how they end.

    Args:
        world: the clock.
        finished: called on the event loop with each body that has ended.
        options: bounds of bodies at once, of which more wait in line, and of threads for `def` bodies.
        payload_max: characters of JSON that a result may have.
    """

    def __init__(
        self,
        *,
        world: World,
        finished: Callable[[Body], object],
        options: ExecutorOptions,
        payload_max: int,
    ) -> None:
        self.threads = StepThreads(options.threads_max)
        self.active = 0
        self._now_us = world.now_us
        self._world = world
        self._finished = finished
        self._active_max = options.bodies_max
        self._payload_max = payload_max
        self.lease_until = sys.maxsize
        self.on_lapsed: Callable[[], object] = _nothing
        self._line: deque[Body] = deque()
        self._interrupted: set[tuple[int, int]] = set()
        self._loop = asyncio.get_running_loop()

    def start(self, run: Any, call: StepCall) -> Body:
        """Start an attempt, or put it in line."""
        call.due_us = None
        body = Body(run, call)
        now = self._now_us()
        if self.active >= self._active_max:
            self._line.append(body)
        elif now > self.lease_until:
            self._line.append(body)
            self.on_lapsed()
        else:
            self._begin(body, now)
        return body

    def renewed(self, lease_until: int) -> None:
        """The lease stands until this instant: what waits for it begins."""
        self.lease_until = lease_until
        self._begin_waiting()

    def abandon(self, body: Body) -> None:
        """Nobody waits for this body any more. It will not be reported."""
        if body.abandoned:
            return
        body.abandoned = True
        if body.timer is not None:
            body.timer()
        if body.task is not None:
            body.task.cancel()
        elif body.job is not None and not body.ended:
            self.threads.abandon(body.job)
            self._ended()

    def close(self) -> None:
        """No more bodies will be started."""
        self._line.clear()
        self.threads.close()

    def _begin(self, body: Body, now: int) -> None:
        self.active += 1
        call = body.call
        call.attempts += 1
        if call.started_at is None:
            call.started_at = now
        if call.step.is_async:
            # Not loop.create_task: its checks cost as much as the task. A task factory is for the user's own tasks.
            body.task = BodyTask(body, self._run_task(body), loop=self._loop)
        else:
            self._run_thread(body)

    def _ended(self) -> None:
        self.active -= 1
        self._begin_waiting()

    def _begin_waiting(self) -> None:
        now = self._now_us()
        while self._line and self.active < self._active_max:
            if now > self.lease_until:
                self.on_lapsed()
                return
            body = self._line.popleft()
            if not body.abandoned:
                self._begin(body, now)

    # As a task.

    async def _run_task(self, body: Body) -> None:
        call, task = body.call, body.task
        step = call.step
        executing.set(call)
        assert task is not None
        task.begun = True
        try:
            if body.abandoned or task.interrupted:  # before it has begun
                raise asyncio.CancelledError
            if step.timeout is None:
                value = await step.function(*call.args, **call.kwargs)
            else:
                value = await self._timed(call, step.timeout)
        except KeyboardInterrupt:  # on its way through the event loop, which stops: that is no outcome
            body.interrupted = True
            raise
        except asyncio.CancelledError as error:
            if not (body.abandoned or self._is_interrupted(body, task)):
                self._failed(body, _cancelled(call, error, task))
        except BaseException as error:
            self._failed(body, error)
        else:
            self._succeeded(body, value)
        finally:
            if self._interrupted and not body.interrupted:
                self._interrupted.discard(_step_of(body))
            if not body.abandoned:
                self._finished(body)
            self.active -= 1
            if self._line:
                self._begin_waiting()

    def _is_interrupted(self, body: Body, task: BodyTask) -> bool:
        """Whether a cancelled body has no outcome. The second interruption of a step in a row is its failure."""
        step = _step_of(body)
        body.interrupted = task.interrupted and step not in self._interrupted
        if body.interrupted:
            self._interrupted.add(step)
        return body.interrupted

    async def _timed(self, call: StepCall, seconds: float) -> Any:
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await call.step.function(*call.args, **call.kwargs)
        except TimeoutError as error:
            if limit.expired():
                raise _late(call) from error
            raise

    # In a thread.

    def _run_thread(self, body: Body) -> None:
        call = body.call
        context = copy_context()
        context.run(executing.set, call)

        def work() -> None:
            if call.step.timeout is not None:
                self._on_loop(self._start_clock, body, call.step.timeout)
            try:
                value = context.run(call.step.function, *call.args, **call.kwargs)
            except asyncio.CancelledError as error:
                self._failed(body, _cancelled(call, error, None))
            except BaseException as error:
                self._failed(body, error)
            else:
                self._succeeded(body, value)
            self._on_loop(self._thread_done, body)

        body.job = Job(work)
        self.threads.submit(body.job)

    def _start_clock(self, body: Body, seconds: float) -> None:
        """The body has begun in its thread; only now does its time run."""
        if not body.abandoned and not body.ended:
            body.timer = self._world.call_later(int(seconds * 1_000_000), lambda: self._overdue(body))

    def _thread_done(self, body: Body) -> None:
        if body.abandoned:
            return
        body.ended = True
        if body.timer is not None:
            body.timer()
        self._finished(body)
        self._ended()

    def _on_loop(self, callback: Callable[..., object], *args: Any) -> None:
        """From a thread: call back on the event loop. One that is closed meanwhile hears nothing."""
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def _overdue(self, body: Body) -> None:
        if body.abandoned:
            return
        self.abandon(body)
        late = Body(body.run, body.call)  # not the abandoned one: its thread may yet write to that
        self._failed(late, _late(body.call))
        self._finished(late)

    # Outcomes.

    def _succeeded(self, body: Body, value: Any) -> None:
        step = body.call.step
        try:
            body.output, body.value = step.result.settle(value, where=step.result_place)
            check_payload(body.output, step.result_place, chars_max=self._payload_max)
        except HoldfastError as error:  # the body has done its work: another attempt would do it twice
            self._set_error(body, error)
        except Exception as error:  # foreign code of the value; without an outcome its run would never end
            self._set_error(body, NotEncodable(f"{step.result_place} cannot be stored: {type(error).__name__}"))
        else:
            body.error = None
            body.finished_at = self._now_us()

    def _failed(self, body: Body, error: BaseException) -> None:
        body.again = body.call.step.retry.wants_another(error, attempt=body.call.attempts)
        self._set_error(body, error)

    def _set_error(self, body: Body, error: BaseException) -> None:
        body.value = body.output = None
        body.error = encode_failure(error, chars_max=self._payload_max)
        body.exception = decode_failure(body.error, fallback=StepFailed)
        body.finished_at = self._now_us()


def _nothing() -> None:
    """Nobody keeps a lease here."""


def _step_of(body: Body) -> tuple[int, int]:
    return body.run.row.number, body.call.seq


def _cancelled(call: StepCall, error: asyncio.CancelledError, task: BodyTask | None) -> StepFailed:
    """What a step has failed with that was not cancelled by the engine, and yet ended in a CancelledError."""
    if task is not None and task.interrupted:
        reason = "was cancelled from outside for the second time, while its worker goes on"
    elif task is not None and task.cancelling():
        reason = "cancelled itself: code of the step called cancel() on its own task"
    else:
        reason = "ended in a CancelledError that nobody asked for: it raised it, or awaited something cancelled"
    words = said(error) if error.args else ""
    failure = StepFailed(
        f"step {call.step.name!r}, attempt {call.attempts}, {reason}{f' ({words})' if words else ''}",
        type_name="asyncio.exceptions:CancelledError",
        hint="catch it in the step, and raise an error that says what is wrong",
    )
    failure.__cause__ = error
    return failure


def _late(call: StepCall) -> StepTimeout:
    return StepTimeout(
        f"step {call.step.name!r}, attempt {call.attempts}, took longer than its timeout of {call.step.timeout:g} s",
        hint="raise the step's timeout=..., or make the call inside it give up sooner",
    )
