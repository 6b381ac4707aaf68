"""The one contract of everything that runs in the background.

`start` returns when the service works; `stop` returns when nothing of it runs any more. Services are started in one
order and stopped in the reverse one. Neither is called twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Protocol

from holdfast._runtime.events import ENGINE_LOG
from holdfast._store.port import RecordRefused
from holdfast.errors import Fenced, HoldfastError, StoreError


class Service(Protocol):
    """Something with a beginning and an end."""

    async def start(self) -> None:
        """Begin to work."""
        ...

    async def stop(self) -> None:
        """End, leaving nothing behind."""
        ...


class Ticker:
    """A service that does one thing again and again, at most once at a time.

    Args:
        name: for logs.
        period: seconds between the end of one turn and the next.
        turn: what to do. A passing error is logged and tried again in the next turn.
        on_fault: told of an error of the store that will not pass: a damaged page, a disk that fails.
    """

    def __init__(
        self,
        name: str,
        *,
        period: float,
        turn: Callable[[], Awaitable[object]],
        on_fault: Callable[[StoreError], object] | None = None,
    ) -> None:
        self._name = name
        self._period = period
        self._turn = turn
        self._on_fault = on_fault
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Begin; the first turn comes at once."""
        self._task = asyncio.create_task(self._work(), name=f"holdfast-{self._name}")

    def poke(self) -> None:
        """Do not wait for the period."""
        self._wake.set()

    async def stop(self) -> None:
        """End, in the middle of a turn if need be."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))  # not the task itself: its cancellation and the caller's would look alike

    async def _work(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                await self._turn()
            except Fenced:  # the worker that it served is no more; whoever noticed that says so
                return
            except (HoldfastError, OSError) as error:  # such as no free descriptor
                ENGINE_LOG.warning("%s: %s", self._name, error)
                self._tell_of(error)
            except Exception:
                ENGINE_LOG.exception("%s failed; it goes on", self._name)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._period):  # wait_for of Python 3.11 may swallow a cancellation
                    await self._wake.wait()

    def _tell_of(self, error: BaseException) -> None:
        if self._on_fault is None or not isinstance(error, StoreError):
            return
        if not error.retryable and not isinstance(error, RecordRefused):
            self._on_fault(error)
