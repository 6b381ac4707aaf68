"""The simulator's time and threads: one event loop in which a seed decides what comes when.

`SimLoop` is the testing kit's virtual loop without its stretched polls: here the engine's own periods (leases, sweeps,
polls) are part of what is tested. `SimThread` stands in the place of the store's threads. What is posted to it is
executed on the loop, in the order posted, each call after a delay drawn from the seed, as one indivisible piece; so the
real SQLite code runs, and no operating system's scheduler has a say.

The looks at `data_version` are driven by `Commits`: after a commit, every other store looks after a drawn delay, and
now and then not at all. The look is a hint; the engine's slow polls must be enough.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Any

from holdfast._runtime.threads import Job
from holdfast._store.thread import StoreThread
from holdfast.testing.virtual import VirtualLoop, VirtualWorld

DAY_SECONDS = 86_400


class SimLoop(VirtualLoop):
    """A virtual loop in which every timer is meant as it was set."""

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:
        """As ever."""
        return asyncio.SelectorEventLoop.call_at(self, when, callback, *args, context=context)


class Clock:
    """The wall clock of the one host; `ahead_us` is by how much somebody has set it forward, or back."""

    def __init__(self) -> None:
        self.ahead_us = 0


class SimWorld(VirtualWorld):
    """The world of one process."""

    def __init__(self, loop: SimLoop, clock: Clock, *, life: int, chance: random.Random) -> None:
        super().__init__(loop, life=life, seed=0)
        self._clock = clock
        self._chance = chance

    def now_us(self) -> int:
        """The host's clock."""
        return super().now_us() + self._clock.ahead_us

    def seed(self) -> int:
        """Another one each time, so that the store can tell two starts apart."""
        return self._chance.getrandbits(62)


class SimThread(StoreThread):
    """Executes calls on the loop, in order, each after a delay."""

    def __init__(
        self, _name: str, *, on_quiet: Callable[[], object] | None = None, chance: random.Random, commits: Commits
    ) -> None:
        self.poll_seconds = None
        self._on_quiet = on_quiet
        self._loop = asyncio.get_running_loop()
        self._chance = chance
        self._posted: deque[Callable[[], object]] = deque()
        self._due = 0.0
        self._looks = False
        if on_quiet is not None:
            commits.lookers.append(self)

    def post(self, call: Callable[[], object]) -> None:
        """After what was posted before."""
        self._posted.append(call)
        self._due = max(self._due, self._loop.time() + self._chance.choice((0.0001, 0.0005, 0.002, 0.01)))
        self._loop.call_at(self._due, self._next)

    def answer(self, callback: Callable[..., object], *args: Any) -> None:
        """On the loop. A callback with a method `landed` hears of it now: before anybody else can do anything."""
        landed = getattr(callback, "landed", None)
        if landed is not None:
            landed(*args)
        self._loop.call_soon(callback, *args)

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """The result of a function that was posted."""
        future: asyncio.Future[Any] = self._loop.create_future()

        def work() -> None:
            if future.done():
                return
            try:
                future.set_result(function(*args))
            except Exception as error:
                future.set_exception(error)

        self.post(work)
        return await future

    async def stop(self) -> None:
        """What was posted is done."""
        await self.call(_nothing)
        self._on_quiet = None

    def kill(self) -> None:
        """The process dies: what was posted is not done."""
        self._posted.clear()

    def look_soon(self) -> None:
        """Another connection has committed."""
        if self.poll_seconds is not None and not self._looks and self._chance.random() < 0.8:
            self._looks = True
            self._loop.call_later(self._chance.choice((0.001, 0.005, 0.02, 0.08, 1.0)), self._look)

    def _look(self) -> None:
        self._looks = False
        if self._on_quiet is not None:
            self._on_quiet()

    def _next(self) -> None:
        if self._posted:
            self._posted.popleft()()


class SimStepThreads:
    """In the place of the threads of `def` steps: each call on the loop, a little later."""

    def __init__(self, _bound: int) -> None:
        self.abandoned = 0
        self._closed = False

    def submit(self, job: Job) -> None:
        """Soon."""
        asyncio.get_running_loop().call_later(0.003, self._work, job)

    def abandon(self, job: Job) -> None:
        """Nobody waits for it."""
        job.abandoned = True

    def close(self) -> None:
        """Nothing begins any more."""
        self._closed = True

    def _work(self, job: Job) -> None:
        if not (job.abandoned or self._closed):
            job.started = True
            job.call()
            job.finished = True


class Commits:
    """Who wants to know that somebody has committed."""

    def __init__(self) -> None:
        self.lookers: list[SimThread] = []

    def happened(self) -> None:
        """Somebody has."""
        for looker in self.lookers:
            looker.look_soon()


def _nothing() -> None:
    """Nothing."""
