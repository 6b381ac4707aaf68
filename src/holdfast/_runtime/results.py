"""Results: who waits for which run, and how they learn of its end.

Three ways, from fast to sure: the run ends in this process and the executor says so; another process has written and
the store noticed; the slow poll looks. The answer is always a durable row.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import NamedTuple

from holdfast._runtime.service import Ticker
from holdfast._store.port import Store
from holdfast.errors import NotOpen

POLL_SECONDS = 1.0


class Ended(NamedTuple):
    """How a run ended: state, output or error as JSON text."""

    state: str
    output: str | None
    error: str | None


class Expectation:
    """The end of a run that this process executes.

    Attributes:
        ended: how it ended, once it has.
        cause: why this process will not see its end, once that is clear; none when it goes on elsewhere.
    """

    __slots__ = ("_waiters", "cause", "ended", "is_over")

    def __init__(self) -> None:
        self.ended: Ended | None = None
        self.cause: BaseException | None = None
        self.is_over = False
        self._waiters: list[asyncio.Future[None]] = []

    async def wait(self) -> Ended | None:
        """How the run ended, or none when it goes on elsewhere. Cancelling one waiter touches no other."""
        if not self.is_over:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(future)
            await future
        if self.cause is not None:
            raise self.cause
        return self.ended

    def settle(self, ended: Ended | None, cause: BaseException | None = None) -> None:
        """Tell every waiter."""
        self.ended, self.cause, self.is_over = ended, cause, True
        waiters, self._waiters = self._waiters, []
        for future in waiters:
            if not future.done():
                future.set_result(None)


class Results:
    """Waits for runs to end.

    Args:
        always_watching: whether the store looks for other processes' writes even while nobody waits, for a worker.
    """

    def __init__(self, store: Store, *, always_watching: bool) -> None:
        self._store = store
        self._always_watching = always_watching
        self._expected: dict[str, Expectation] = {}
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._waiters: Counter[str] = Counter()
        self._cause: BaseException | None = None
        self._ticker = Ticker("results", period=POLL_SECONDS, turn=self._look, on_fault=self.fail)

    async def start(self) -> None:
        """Begin to look for ends elsewhere."""
        await self._ticker.start()

    async def stop(self) -> None:
        """End; whoever still waits is told."""
        await self._ticker.stop()
        self.fail(NotOpen("the app was closed while a result was awaited", hint="the run goes on; ask again later"))

    def expect(self, run_id: str) -> None:
        """This process is about to execute this run."""
        if run_id not in self._expected:
            self._expected[run_id] = Expectation()

    def expected(self, run_id: str) -> Expectation | None:
        """The end of a run that this process executes, if it has not ended."""
        return self._expected.get(run_id)

    def ended(self, run_id: str, ended: Ended) -> None:
        """A run has durably ended in this process."""
        expectation = self._expected.pop(run_id, None)
        if expectation is not None:
            expectation.settle(ended)
        self._wake(run_id)

    def unexpect(self, run_id: str) -> None:
        """The run will go on elsewhere; whoever expects it waits by way of the database."""
        expectation = self._expected.pop(run_id, None)
        if expectation is not None:
            expectation.settle(None)

    def unexpect_all(self) -> None:
        """All runs of this process will go on elsewhere."""
        for run_id in list(self._expected):
            self.unexpect(run_id)

    def fail(self, cause: BaseException) -> None:
        """This process executes nothing any more, or sees nothing any more: whoever waits here learns why."""
        self._cause = cause
        expected, self._expected = self._expected, {}
        for expectation in expected.values():
            expectation.settle(None, cause)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(cause)
                waiting.exception()  # retrieved, should nobody wait any more

    def check(self) -> None:
        """Raise why nobody here will learn of ends any more, if that is so."""
        if self._cause is not None:
            raise self._cause

    async def changed(self, run_id: str) -> None:
        """Wait until the run may have ended or become blocked. Register before you look, or you miss it."""
        future = self._waiting.get(run_id)
        if future is None:
            future = self._waiting[run_id] = asyncio.get_running_loop().create_future()
        self._waiters[run_id] += 1
        self._store.watch(True)
        try:
            await asyncio.shield(future)
        finally:
            self._waiters[run_id] -= 1
            if not self._waiters[run_id]:
                del self._waiters[run_id]
                self._waiting.pop(run_id, None)
            if not self._waiters and not self._always_watching:
                self._store.watch(False)

    def poke(self) -> None:
        """Another process has written something."""
        if self._waiting:
            self._ticker.poke()

    async def _look(self) -> None:
        if self._waiting:
            for run_id, _ in await self._store.ended_among(list(self._waiting)):
                self._wake(run_id)

    def _wake(self, run_id: str) -> None:
        future = self._waiting.pop(run_id, None)
        if future is not None and not future.done():
            future.set_result(None)
