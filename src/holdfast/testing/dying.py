"""A store that dies: the process's death, as far as a database can tell, injected at the one door.

`DyingStore` stands before a real store and counts the batches of `submit`. At batch number `die_at` the process "dies":

- `before`: the batch never reaches the database, nor does anything after it;
- `after`: the batch is committed, but its acknowledgement never arrives, and nothing after it reaches the database.

Earlier batches that are still under way commit, and are acknowledged, as they may be in a real death. `died` is set
when nothing is under way any more. From then on the engine above only looks alive: no acknowledgement comes, so no body
that waits for one starts. `bury` then ends the remains along the path of a store that has failed for good: every call
is refused, nothing is written, and closing the store frees the worker's lock as the kernel would.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from holdfast._model.records import Outcome, Record
from holdfast._store.port import Done, Store
from holdfast.errors import StoreError
from holdfast.testing.virtual import VirtualLoop


class Moment(Enum):
    """When the process dies, seen from the commit of a batch."""

    BEFORE = "just before"
    AFTER = "just after"


class DyingStore:
    """A `Store` in front of another.

    Args:
        inner: the real one.
        loop: kept from jumping in time while a call is under way.
        pipeline: how many batches may be under way.
        die_at: number of the fatal batch, from 1; none for a store that lives.
        moment: before or after its commit.
        committed: told of each batch that became durable, with its outcomes.
    """

    def __init__(
        self,
        inner: Store,
        *,
        loop: VirtualLoop,
        pipeline: int,
        die_at: int | None,
        moment: Moment,
        committed: Callable[[Sequence[Record], Sequence[Outcome] | None], object],
    ) -> None:
        self.pipeline = pipeline
        self.submitted = 0
        self.fatal: Sequence[Record] = ()
        self.died = asyncio.Event()
        self._inner = inner
        self._loop = loop
        self._die_at = die_at
        self._moment = moment
        self._committed = committed
        self._doomed = False
        self._buried = False
        self._under_way = 0
        self._unanswered: list[Done] = []

    def submit(self, batch: Sequence[Record], *, worker: str | None, done: Done) -> None:
        """Pass the batch on, or die."""
        if self._doomed:
            self._drop(done)
            return
        self.submitted += 1
        fatal = self.submitted == self._die_at
        if fatal:
            self._doomed, self.fatal = True, batch
        if fatal and self._moment is Moment.BEFORE:
            self._drop(done)
            self._look_whether_dead()
            return
        self._under_way += 1
        self._loop.outside += 1

        def answered(outcomes: Sequence[Outcome] | None, error: BaseException | None) -> None:
            self._under_way -= 1
            self._loop.outside -= 1
            if error is None:
                self._committed(batch, outcomes)
            if fatal:
                self._unanswered.append(done)
            else:
                done(outcomes, error)
            self._look_whether_dead()

        self._inner.submit(batch, worker=worker, done=answered)

    def bury(self) -> None:
        """End what is left of the dead process: everything that waits, and all that comes, is refused."""
        self._doomed = self._buried = True
        unanswered, self._unanswered = self._unanswered, []
        for done in unanswered:
            done(None, _killed())

    def __getattr__(self, name: str) -> Any:
        """Everything but `submit` goes to the real store, until death."""
        method = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(method):
            return method

        async def call(*args: Any, **options: Any) -> Any:
            if self.died.is_set() and name != "close":
                if not self._buried:
                    await asyncio.get_running_loop().create_future()
                raise _killed()
            self._loop.outside += 1
            try:
                return await method(*args, **options)
            finally:
                self._loop.outside -= 1

        return call

    def _drop(self, done: Done) -> None:
        if self._buried:
            self._loop.call_soon(done, None, _killed())
        else:
            self._unanswered.append(done)

    def _look_whether_dead(self) -> None:
        if self._doomed and not self._under_way:
            self.died.set()


def _killed() -> StoreError:
    return StoreError("this process is dead")
