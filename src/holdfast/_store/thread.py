"""A thread that owns a database connection, and the way calls get into it and answers out of it.

Calls run in the order they were posted. Between them, whenever nothing came for `poll_seconds`, the thread calls
`on_quiet` and posts the loop if that returns true: this is how the store looks for other processes' writes without a
second thread and without work on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
_log = logging.getLogger("holdfast.engine")
_Call: TypeAlias = Callable[[], object]


class StoreThread:
    """One daemon thread with a queue of calls.

    Args:
        name: of the thread, for stack dumps.
        on_quiet: called in the thread when it has been idle for `poll_seconds`; none for a thread that only waits.
    """

    def __init__(self, name: str, *, on_quiet: Callable[[], object] | None = None) -> None:
        self.poll_seconds: float | None = None
        self._on_quiet = on_quiet
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def post(self, call: _Call) -> None:
        """Run `call` in the thread; it must not raise."""
        self._calls.put(call)

    def answer(self, callback: Callable[..., object], *args: Any) -> None:
        """From the thread: call back on the event loop. A loop that is closed meanwhile hears nothing."""
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Run a function in the thread and return its result. A cancelled caller does not stop it."""
        future: asyncio.Future[T] = self._loop.create_future()

        def work() -> None:
            try:
                result = function(*args)
            except BaseException as error:
                self.answer(_settle, future, None, error)
            else:
                self.answer(_settle, future, result, None)

        self._calls.put(work)
        return await future

    async def stop(self) -> None:
        """Finish what was posted and end the thread."""
        ended: asyncio.Future[None] = self._loop.create_future()
        self._calls.put(lambda: self.answer(_settle, ended, None, None))
        self._calls.put(None)
        await ended
        self._thread.join()

    def _work(self) -> None:
        calls = self._calls
        while True:
            try:
                call = calls.get(timeout=self.poll_seconds) if self._on_quiet is not None else calls.get()
            except Empty:
                self._look_around()
                continue
            if call is None:
                return
            call()

    def _look_around(self) -> None:
        try:
            if self._on_quiet is not None:
                self._on_quiet()
        except Exception:  # the thread must live on: calls wait in its queue
            _log.exception("%s failed while it was quiet", self._thread.name)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
