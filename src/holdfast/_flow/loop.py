"""The workflow's event loop: FIFO, no selector, no threads, time that stands still.

A workflow is a coroutine on this loop. The loop guarantees that what the coroutine does is a function of the order in
which outcomes are delivered to it, and of nothing else:

- callbacks run first in, first out, until none is left (`drain`);
- `time()` is the instant of the last delivery, the same in replay as it was live;
- futures and tasks hash by the order of their creation, so the sets of tasks that asyncio iterates (`wait`,
  `as_completed`, the abort of a `TaskGroup`) and the `done` set that users iterate have the same order in replay;
- `call_later` and `call_at` are durable timers;
- sockets, executors, signals and subprocesses are refused: they belong into a step.

The loop knows neither stores nor real time. Its owner (`_flow.activation`) makes it the running loop while it drains,
from a plain callback of the real loop and never inside one of its tasks: CPython refuses a task within a task.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from functools import cache
from typing import Any, NoReturn, Protocol, TypeVar

from holdfast._flow.completed import ordered_task
from holdfast.errors import NotAllowedInWorkflow

T = TypeVar("T")

_Base: Any = asyncio.AbstractEventLoop  # of its 60 methods, those that a workflow must not use are refused below

_REFUSED = """
    run_in_executor set_default_executor shutdown_default_executor call_soon_threadsafe getaddrinfo getnameinfo
    create_connection create_server sendfile start_tls create_unix_connection create_unix_server
    connect_accepted_socket create_datagram_endpoint connect_read_pipe connect_write_pipe subprocess_shell
    subprocess_exec add_reader remove_reader add_writer remove_writer sock_recv sock_recv_into sock_recvfrom
    sock_recvfrom_into sock_sendall sock_sendto sock_connect sock_accept sock_sendfile add_signal_handler
    remove_signal_handler run_forever run_until_complete stop
"""


FAR_US = 32_503_680_000_000_000
"""The year 3000: a timer that is due later, or never, is due then."""
TASKS_UNCHECKED_MAX = 64
"""Tasks that a loop holds before it looks which of them are done."""
REFUSALS_MAX = 1_000
"""Operations that a run which leaves memory is refused; after these they are never answered instead."""


ASYNC_HINT = "sleep with holdfast.sleep(...); to do several things at once, make the workflow `async def`"
"""The next move where asyncio was used in a `def` workflow."""


class RunClosing(BaseException):
    """Raised in workflow code by every durable operation while its run is taken out of memory.

    Not an `Exception`, so that a workflow's ``except Exception`` does not mistake it for its own.
    """


class WorkflowHandle:
    """A callback in the ready queue. Stands in for `asyncio.Handle`, whose constructor is slow for the hot path."""

    __slots__ = ("_cancelled", "args", "callback", "context")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...], context: Context) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self._cancelled = False

    def cancel(self) -> None:
        """The callback will not be called."""
        self._cancelled = True

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._cancelled


class WorkflowFuture(asyncio.Future[T]):
    """A future that hashes by the order of its creation."""

    __slots__ = ("_number",)

    def __init__(self, *, loop: WorkflowLoop) -> None:
        super().__init__(loop=loop)
        self._number = loop.number = loop.number + 1

    def __hash__(self) -> int:
        return self._number


class WorkflowTask(asyncio.Task[T]):
    """A task that hashes by the order of its creation, and is kept alive by its loop until it ends."""

    def __init__(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        loop: WorkflowLoop,
        name: str | None = None,
        context: Context | None = None,
    ) -> None:
        self._number = loop.number = loop.number + 1  # before super(): the base class puts the task into a set
        super().__init__(coro, loop=loop, name=name or f"Task-{self._number & 0xFFFF_FFFF}", context=context)
        loop.keep(self)

    def __hash__(self) -> int:
        return self._number


class WorkflowTimer(asyncio.TimerHandle):
    """A durable timer: what `call_later` and `call_at` return."""

    __slots__ = ("_call", "_fired", "_workflow_loop", "after", "due_us", "seq")

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: WorkflowLoop,
        context: Context | None,
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self._workflow_loop = loop
        self._fired: WorkflowHandle | None = None
        self._call = (callback, args, copy_context() if context is None else context)
        self.due_us = min(round(when * 1_000_000), FAR_US) if math.isfinite(when) else FAR_US
        self.seq = 0
        self.after = 0

    def fire(self) -> None:
        """Put the callback into the ready queue. Until it runs, `cancel` still takes it back."""
        handle = self._fired = WorkflowHandle(*self._call)
        self._workflow_loop.ready.append(handle)

    def cancel(self) -> None:
        """Cancel the timer; one that was not recorded yet costs no row."""
        if self._fired is not None:
            self._fired.cancel()
        super().cancel()


class LoopOwner(Protocol):
    """Whoever drives a workflow's loop."""

    def timer_started(self, timer: WorkflowTimer) -> None:
        """The workflow started a timer. May raise `RunClosing`, or leave a timer alone that is never to fire."""
        ...

    def timer_cancelled(self, timer: WorkflowTimer) -> None:
        """The workflow cancelled a timer, perhaps one that has fired."""
        ...

    def unhandled(self, context: dict[str, Any]) -> None:
        """Asyncio reports an error that nobody handled."""
        ...


class _Nobody:
    """Owns the loops of runs that have left memory; what still reaches one of them comes from the collector."""

    def timer_started(self, timer: WorkflowTimer) -> None:
        raise RunClosing

    def timer_cancelled(self, timer: WorkflowTimer) -> None:
        """The timer went with its run."""

    def unhandled(self, context: dict[str, Any]) -> None:
        """The run is gone; what it left unretrieved was never seen by anyone."""

    def call_step(self, step: object, args: object, kwargs: object) -> NoReturn:
        raise RunClosing


NOBODY: LoopOwner = _Nobody()


class WorkflowLoop(_Base):  # type: ignore[misc]
    """The loop of one run.

    Args:
        owner: told of timers and of unhandled errors.
        salt: added to the hashes of tasks and futures. It must be the same in every replay of the run; that it
            differs between runs keeps CPython's global set of tasks from collisions.

    Attributes:
        is_in_plain_code: for a `def` workflow, whether its own code is what runs now: it must not start tasks.
    """

    def __init__(self, owner: LoopOwner, *, salt: int) -> None:
        self.owner = owner
        self.ready: deque[WorkflowHandle] = deque()
        self.tasks: list[WorkflowTask[Any]] = []
        self.generators: list[Any] | None = None
        self._tasks_checked_at = TASKS_UNCHECKED_MAX
        self._prepared: dict[int, WorkflowTask[Any]] = {}
        self.now_us = 0
        self.closing = False
        self.halted = False
        self._refusals = 0
        self.is_in_plain_code: Callable[[], bool] | None = None
        self.number = (salt & 0x3FFF_FFFF) << 32

    def drain(self) -> None:
        """Run callbacks until none is ready, or until the run is halted."""
        ready = self.ready
        while ready and not self.halted:
            handle = ready.popleft()
            if not handle._cancelled:
                try:
                    handle.context.run(handle.callback, *handle.args)
                except SystemExit:
                    pass  # of a task, which holds it: it ends the run, not the worker
                except KeyboardInterrupt:
                    self.halted = True  # meant for the process; the run goes on where its records end
                    raise
                except BaseException as error:
                    self.owner.unhandled({"message": f"a callback failed: {handle!r}", "exception": error})

    def refuse(self) -> None:
        """Raise `RunClosing`: this run asks for nothing any more.

        Returns when that has been raised too often: code that swallows it and tries again (``while True: try: ...
        except: continue``) would hold the worker's thread for ever. What it asks for then must never come.
        """
        self._refusals += 1
        if self._refusals <= REFUSALS_MAX:
            raise RunClosing

    # What a workflow, and asyncio on its behalf, may use.

    def time(self) -> float:
        """Seconds UTC of the last delivery; the same in replay."""
        return self.now_us / 1_000_000

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> WorkflowHandle:
        handle = WorkflowHandle(callback, args, copy_context() if context is None else context)
        self.ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = WorkflowTimer(when, callback, args, self, context)
        self.owner.timer_started(timer)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        assert isinstance(handle, WorkflowTimer)
        self.owner.timer_cancelled(handle)

    def create_future(self) -> WorkflowFuture[Any]:
        return WorkflowFuture(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
        **_options: object,
    ) -> WorkflowTask[T]:
        if self.closing:
            if isinstance(coro, Coroutine):
                _close_quietly(coro)
            self.refuse()
            return self.create_future()  # type: ignore[return-value]
        if self.is_in_plain_code is not None and self.is_in_plain_code():
            if isinstance(coro, Coroutine):
                coro.close()
            raise NotAllowedInWorkflow("a task was started in a `def` workflow, which cannot await it", hint=ASYNC_HINT)
        if isinstance(coro, asyncio.Future):  # a step call, where a plain step would have given a coroutine
            return self._task_of(coro, name=name, context=context)
        task = ordered_task(coro, self._prepared, lambda each: WorkflowTask(each, loop=self))
        return WorkflowTask(coro, loop=self, name=name, context=context) if task is None else task

    def _task_of(self, call: asyncio.Future[T], *, name: str | None, context: Context | None) -> WorkflowTask[T]:
        task = WorkflowTask(_outcome_of(call), loop=self, name=name, context=context)
        task.add_done_callback(lambda done: call.cancel() if done.cancelled() else None)  # even before it has begun
        return task

    def keep(self, task: WorkflowTask[Any]) -> None:
        """Hold a task until it is done: asyncio itself refers to tasks weakly."""
        self.tasks.append(task)
        if len(self.tasks) > self._tasks_checked_at:
            self.tasks = [task for task in self.tasks if not task.done()]
            self._tasks_checked_at = max(TASKS_UNCHECKED_MAX, 2 * len(self.tasks))

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        """Accepted and ignored: debug mode would only slow the replay."""

    def get_task_factory(self) -> None:
        return None

    def set_task_factory(self, factory: object) -> None:
        _refuse("set_task_factory")

    def get_exception_handler(self) -> None:
        return None

    def set_exception_handler(self, handler: object) -> None:
        _refuse("set_exception_handler")

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.owner.unhandled(context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.owner.unhandled(context)

    async def shutdown_asyncgens(self) -> None:
        for generator in self.generators or ():
            await generator.aclose()

    def is_suspended(self) -> bool:
        """Whether a task or an async generator has not ended."""
        return self.generators is not None or not all(task.done() for task in self.tasks)

    def close(self) -> None:
        """Close what is still suspended, so that user `finally` blocks run now and under this loop.

        The caller has made this the running loop. Every durable operation refuses with `RunClosing` meanwhile.
        """
        self.closing = True
        for task in self.tasks:
            if task.done():
                continue
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            if not self._close_task(task):
                self.owner.unhandled(
                    {"message": f"{task.get_name()} cannot be closed: its `finally` awaits without end"}
                )
                _given_up().append(task)
        for generator in reversed(self.generators or ()):
            _close_generator(generator)
        self.tasks.clear()
        self.ready.clear()
        self.generators = None

    def _close_task(self, task: WorkflowTask[Any]) -> bool:
        """As the current task: `timeout` and `TaskGroup` would fail without one, before they ask for anything."""
        asyncio.tasks._enter_task(self, task)
        try:
            return _close_quietly(task.get_coro())
        finally:
            asyncio.tasks._leave_task(self, task)


@cache
def _given_up() -> list[object]:
    """Tasks that swallow every attempt to close them. Kept: collected, they would spin for ever in the collector."""
    return []


async def _outcome_of(call: asyncio.Future[T]) -> T:
    return await call


_CLOSE_TRIES_MAX = 100


def _close_quietly(coro: Any) -> bool:
    """Close a coroutine that may await in its `finally` blocks; a stubborn one is asked again, then given up.

    What its clean-up raises is dropped: the run only leaves memory, and will raise it again, recorded, when it ends.
    """
    for _ in range(_CLOSE_TRIES_MAX):
        try:
            coro.throw(RunClosing())  # before 3.13, `close` passes by an async generator that the coroutine awaits
        except KeyboardInterrupt:
            raise
        except BaseException:
            coro.close()
            return True
    return False


def _close_generator(generator: Any) -> None:
    """Close an async generator now; left to the garbage collector it would do so inside some other run."""
    closing = generator.aclose()
    try:
        closing.send(None)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if not isinstance(error, StopIteration | RunClosing | asyncio.CancelledError):
            return  # see _close_quietly
    else:
        _close_quietly(closing)


def _refuse(name: str) -> NoReturn:
    raise NotAllowedInWorkflow(
        f"`{name}` is not available in a workflow: its outcome could not be replayed",
        hint="do this in a step: move the call into a function decorated with @step",
    )


def _refusal(name: str) -> Callable[..., Any]:
    def refused(self: WorkflowLoop, *args: object, **options: object) -> Any:
        _refuse(name)

    refused.__name__ = name
    return refused


for _name in _REFUSED.split():
    setattr(WorkflowLoop, _name, _refusal(_name))
