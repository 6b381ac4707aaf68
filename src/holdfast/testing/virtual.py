"""Virtual time: an event loop whose clock jumps when nothing is left to do.

A workflow that sleeps for three days is tested in milliseconds: when every task waits and nothing is under way in
another thread, the clock is set to the next timer instead of waiting for it. This holds for everything on the loop,
`asyncio.sleep` in step bodies and timeouts of steps included, so time passes in one order for all of them.

What is under way elsewhere keeps the clock still: calls into the store's threads (`outside`) for as long as they take;
threads of step bodies and open sockets for `GRACE_SECONDS` of real time since something last happened there, because
such a body may be meant to run into its time-out. Where no timer of the test's own could be next, such as that
time-out, the clock does not pass the time with the engine's own periods: it waits for a body up to `STUCK_SECONDS`.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import socket
import stat
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from holdfast._runtime.bodies import Bodies
from holdfast._runtime.threads import Job
from holdfast._world import ticks_ns

EPOCH_US: Final = 1_893_456_000_000_000
"""Virtual time begins on 2030-01-01."""
GRACE_SECONDS: Final = 1.0
"""Real time that threads and sockets get to answer before the clock jumps."""
RESOLUTION_SECONDS: Final = 1e-7
"""What is so close is now: less than a microsecond, more than the error of a float after years of virtual time."""
STUCK_SECONDS: Final = 60.0
"""Real time after which a call into the store's threads counts as lost."""
POLL_STRETCH: Final = 1_000_000
"""By what the periods of the engine's own polls grow: a virtual month is not two million looks at the database."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time.

    Args:
        start: the first instant of `time()`, in seconds.

    Attributes:
        outside: calls under way in threads that are sure to answer; while there are any, the clock stands still.
        threads: step bodies and calls of executors under way in other threads, also those that nobody waits for.
        calls: those of executors.
        children: the transports of processes that asyncio has started and that have not ended.
        bodies: of the workers on this loop; they know how many of theirs are under way.
        patience: with what is at work in real time.
        on_idle: called before the clock jumps; true when it found something to do, so that the jump waits.
    """

    def __init__(self, *, start: float = 0.0) -> None:
        self.seconds = start
        self.outside = 0
        self.threads = 0
        self.calls = 0
        self.children: set[object] = set()
        self.bodies: weakref.WeakSet[Bodies] = weakref.WeakSet()
        self.on_idle: Callable[[], bool] = _nothing_to_do
        self._background: weakref.WeakSet[asyncio.TimerHandle] = weakref.WeakSet()
        self.patience = _Patience()
        super().__init__(_JumpingSelector(self))
        self._clock_resolution = RESOLUTION_SECONDS

    def time(self) -> float:
        """Virtual seconds."""
        return self.seconds

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> Any:
        """As ever; the polls of the engine's background services are stretched."""
        return self.call_at(self.seconds + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> Any:
        """As ever; the polls of the engine's background services are stretched."""
        task = asyncio.current_task(self)
        if task is not None and task.get_name().startswith("holdfast-"):
            when += (when - self.seconds) * POLL_STRETCH
            return self.call_in_background(when, callback, *args, context=context)
        return super().call_at(when, callback, *args, context=context)

    def call_in_background(
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """`call_at` for what nobody waits for: while a body is at work in real time, the clock does not jump there."""
        handle = super().call_at(when, callback, *args, context=context)
        self._background.add(handle)
        return handle

    def is_next_in_background(self) -> bool:
        """Whether nobody waits for the next timer."""
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        return not scheduled or scheduled[0] in self._background

    def is_at_work(self) -> bool:
        """Whether a body is under way, a call of an executor or a child process."""
        return self.calls > 0 or bool(self.children) or any(bodies.active for bodies in self.bodies)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        """As ever; the thread keeps the clock still for its grace time."""
        future = super().run_in_executor(executor, func, *args)
        self.threads += 1
        self.calls += 1
        self.patience.renew()
        future.add_done_callback(self._thread_ended)
        return future

    async def _make_subprocess_transport(self, *args: Any, **options: Any) -> Any:
        transport = await super()._make_subprocess_transport(*args, **options)  # type: ignore[misc]
        if transport.get_returncode() is None:
            self.children.add(transport)
            self.patience.renew()
        return transport

    def _child_watcher_callback(self, pid: int, returncode: int, transport: Any) -> None:
        """In the thread that has waited for the child, unless the system tells the loop itself."""
        super()._child_watcher_callback(pid, returncode, transport)  # type: ignore[misc]
        # Two turns later, as on Python 3.11 the transport knows its return code only then.
        self.call_soon_threadsafe(self.call_soon, self._child_ended, transport)

    def _child_ended(self, transport: object) -> None:
        self.children.discard(transport)  # of one whose making was cancelled nobody has heard
        self.patience.renew()

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """As ever, but without the limit of Python 3.12: threads end in real time, which no virtual limit measures."""
        await super().shutdown_default_executor()

    def _thread_ended(self, _future: object) -> None:
        self.threads -= 1
        self.calls -= 1
        self.patience.renew()


class _Patience:
    """Real time since something last happened outside of the loop."""

    def __init__(self) -> None:
        self._since = 0

    def renew(self) -> None:
        """Something has happened."""
        self._since = ticks_ns()

    def left(self, seconds: float) -> float:
        """What is left of so many seconds."""
        return max(0.0, seconds - (ticks_ns() - self._since) / 1e9)


class _JumpingSelector(selectors.DefaultSelector):
    """Waits for files only while somebody else is at work; else lets the clock jump."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop
        self._wake_up = -1
        self._passive: set[int] = set()

    def register(self, fileobj: Any, events: int, data: Any = None) -> Any:
        """A socket is to be watched: something will come. The first is the loop's own wake-up pipe.

        Not from a socket that listens: whoever connects to it has a socket, too.
        """
        key = super().register(fileobj, events, data)
        if self._wake_up == -1:
            self._wake_up = key.fd
        if key.fd == self._wake_up or _listens(key.fd):
            self._passive.add(key.fd)
        else:
            self._loop.patience.renew()
        return key

    def unregister(self, fileobj: Any) -> Any:
        """As ever."""
        key = super().unregister(fileobj)
        self._passive.discard(key.fd)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> Any:
        """As ever."""
        self._loop.patience.renew()
        return super().modify(fileobj, events, data)

    def select(self, timeout: float | None = None) -> Any:
        loop = self._loop
        ready = self._look(0)
        if ready or (timeout is not None and timeout < RESOLUTION_SECONDS):
            return ready
        if loop.outside:
            ready = self._look(STUCK_SECONDS)
            if not ready:
                raise RuntimeError(f"{loop.outside} calls of the store were not answered within {STUCK_SECONDS:g} s")
            return ready
        ready = self._look(self._real_seconds())
        if ready or loop.on_idle():
            return ready
        if timeout is None:
            return self._look(None)
        loop.seconds += timeout
        return []

    def _real_seconds(self) -> float:
        """How long to wait in real time before the clock jumps."""
        loop = self._loop
        if loop.threads <= 0 and not loop.children and len(self.get_map()) == len(self._passive):
            return 0.0
        seconds = STUCK_SECONDS if loop.is_next_in_background() and loop.is_at_work() else GRACE_SECONDS
        return loop.patience.left(seconds)

    def _look(self, seconds: float | None) -> Any:
        ready = super().select(seconds)
        if any(key.fd != self._wake_up for key, _ in ready):
            self._loop.patience.renew()
        return ready


def _listens(fd: int) -> bool:
    """Whether a descriptor is a socket that accepts connections."""
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return False
    it = socket.socket(fileno=fd)
    try:
        return bool(it.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    finally:
        it.detach()


class VirtualWorld:
    """The `World` of one life of a process in virtual time.

    Args:
        loop: whose time it is.
        life: makes ids unique among the lives of one experiment.
        seed: what every run is seeded with, so that lives and repetitions draw the same random numbers.
    """

    def __init__(self, loop: VirtualLoop, *, life: int, seed: int) -> None:
        self._loop = loop
        self._life = life
        self._seed = seed
        self._ids = 0

    def now_us(self) -> int:
        """Virtual microseconds UTC."""
        return EPOCH_US + round(self._loop.seconds * 1_000_000)

    def new_id(self) -> str:
        """26 characters; later ones sort later."""
        self._ids += 1
        return f"{self._life:010d}{self._ids:016d}"

    def seed(self) -> int:
        """Always the same."""
        return self._seed

    def call_soon(self, callback: Callable[[], object]) -> None:
        """In the loop's next turn."""
        self._loop.call_soon(callback)

    def call_later(self, delay_us: int, callback: Callable[[], object]) -> Callable[[], None]:
        """After virtual microseconds. Not stretched: these are the timers of runs."""
        when = self._loop.seconds + delay_us / 1_000_000
        cancel: Callable[[], None] = asyncio.SelectorEventLoop.call_at(self._loop, when, callback).cancel
        return cancel


def hold_clock(bodies: Bodies, loop: VirtualLoop) -> None:
    """Let the bodies of steps keep the clock still while they are at work in real time."""
    loop.bodies.add(bodies)
    begin, submit = bodies._begin, bodies.threads.submit

    def begun(body: Any, now: int) -> None:
        loop.patience.renew()
        begin(body, now)

    def submitted(job: Job) -> None:
        loop.threads += 1
        job.call = _counted(job.call, loop)
        submit(job)

    bodies._begin = begun  # type: ignore[method-assign]
    bodies.threads.submit = submitted  # type: ignore[method-assign]


def _counted(call: Callable[[], object], loop: VirtualLoop) -> Callable[[], object]:
    def ended() -> None:
        loop.threads -= 1
        loop.patience.renew()

    def counted() -> object:
        try:
            return call()
        finally:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(ended)

    return counted


def _nothing_to_do() -> bool:
    return False
