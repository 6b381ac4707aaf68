"""The journal: the one door through which facts about runs enter the database.

    append(record, then) ─> intake ─> batch ─> store.submit ─> durable ─> then(outcome)
                              ^ gathers while earlier batches commit

Group commit without linger: when a batch is on its way the next one gathers, so a lone record waits for nothing and a
thousand records share one sync. Up to `store.pipeline` batches are under way, which keeps the store's writer busy while
the event loop digests the previous acknowledgement.

What can go wrong, and what then:

- The process dies before the commit is durable. Nobody was told, nothing is there: the facts did not happen.
- It dies after the commit, before `then`. The facts are there, recovery finds them; a client that asks again with the
  same id gets the same run.
- The store fails for a passing reason (locked, disk full, connection lost). Every batch under way comes back, they are
  submitted again in their order after a back-off, for as long as it takes. Nothing is acknowledged meanwhile and the
  intake pushes back (`wait_for_room`, `has_room`); `trouble` says why.
- The commit landed, but what came back is a passing failure. The same batch is submitted again, before anything else;
  the store recognises it and answers as it would have the first time (see `port.py`).
- One record cannot be stored. Its batch is undone as a whole, then halved until that record is alone. Only it is
  refused, and with it the later records of the same run in that batch: a history has no holes.
- This worker was declared dead (`Fenced`), or the store fails for good. Everything is refused, now and later;
  `on_broken` tells the worker to stop. Whoever hears that may name an `heir`: what people and programs ask for goes
  there instead of being refused, only what the worker said in its own name ends here.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final, TypeAlias

from holdfast._collector import CollectorHeld
from holdfast._model.bounds import check_whole
from holdfast._model.payloads import PAYLOAD_CHARS_MAX
from holdfast._model.records import OF_A_WORKER, Outcome, Record
from holdfast._store.port import Halted, RecordRefused, Store
from holdfast._world import World
from holdfast.errors import HoldfastError, InternalError, NotOpen, StoreError

_log = logging.getLogger("holdfast.engine")
DEAF: Final = "a listener of the journal failed; the others are told all the same"

RECORDS_MAX: Final = 1_000_000
BACKOFF_MS_MAX: Final = 3_600_000
PAYLOAD_MAX_LEAST: Final = 4_096
"""A failure must have room for its message."""
PAYLOAD_MAX_MOST: Final = 64 * 1024 * 1024
"""Far below what SQLite takes in one row, even at four bytes a character."""

Then: TypeAlias = Callable[[Any, BaseException | None], object]
"""Called once with a record's outcome after it is durable, or with the error that kept it out."""
Heir: TypeAlias = Callable[[Record, Then], object]
"""Where a record goes that this journal can no longer write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalOptions:
    """Bounds of the journal.

    Args:
        batch_max: records in one transaction.
        intake_max: records that may wait; beyond it callers wait for room.
        backoff_first_ms, backoff_max_ms: pause after a passing failure, doubled up to the bound.
        payload_max: characters of JSON in one payload: a workflow's arguments, its result or a step's, attributes. A
            larger one is refused with `PayloadTooLarge`; failures are abridged to fit.

    Raises:
        UsageError: a field is out of its bounds.
    """

    batch_max: int = 4096
    intake_max: int = 32_768
    backoff_first_ms: int = 20
    backoff_max_ms: int = 2_000
    payload_max: int = PAYLOAD_CHARS_MAX

    def __post_init__(self) -> None:
        check_whole(self, "batch_max", low=1, high=RECORDS_MAX)
        check_whole(self, "intake_max", low=1, high=RECORDS_MAX)
        check_whole(self, "backoff_first_ms", low=1, high=BACKOFF_MS_MAX)
        check_whole(self, "backoff_max_ms", low=self.backoff_first_ms, high=BACKOFF_MS_MAX)
        check_whole(self, "payload_max", low=PAYLOAD_MAX_LEAST, high=PAYLOAD_MAX_MOST)


class _Batch:
    """Records, and beside each what to call. Two lists, since a tuple for each record would burden the collector."""

    __slots__ = ("records", "thens")

    def __init__(self, records: list[Record] | None = None, thens: list[Then] | None = None) -> None:
        self.records: list[Record] = [] if records is None else records
        self.thens: list[Then] = [] if thens is None else thens

    def __len__(self) -> int:
        return len(self.records)

    def cut(self, at: int) -> tuple[_Batch, _Batch]:
        return _Batch(self.records[:at], self.thens[:at]), _Batch(self.records[at:], self.thens[at:])

    def without(self, run: object) -> tuple[_Batch, list[Then]]:
        """The batch without the records of a run, and what to call for those."""
        kept, refused = _Batch(), []
        for record, then in zip(self.records, self.thens, strict=True):
            if run is not None and _run_of(record) == run:
                refused.append(then)
            else:
                kept.records.append(record)
                kept.thens.append(then)
        return kept, refused

    def refuse(self, cause: BaseException, heir: Heir | None) -> None:
        for record, then in zip(self.records, self.thens, strict=True):
            if heir is None or type(record) in OF_A_WORKER:
                _tell(then, None, cause)
            else:
                heir(record, then)


class Journal:
    """Accepts records on one event loop and tells each caller when its record is durable."""

    def __init__(
        self,
        store: Store,
        *,
        world: World,
        options: JournalOptions | None = None,
        pipeline: int = 2,
        on_trouble: Callable[[StoreError | None], object],
        on_broken: Callable[[BaseException], object],
    ) -> None:
        self.worker: str | None = None
        self.trouble: StoreError | None = None
        self.broken: BaseException | None = None
        self.heir: Heir | None = None
        self.committed = 0
        self._store = store
        self._world = world
        self._options = options or JournalOptions()
        self._pipeline = pipeline
        self._on_trouble = on_trouble
        self._on_broken = on_broken
        self._intake = _Batch()
        self._under_way: deque[_Batch] = deque()
        self._returned: list[_Batch] = []
        self._cause: BaseException = InternalError("no batch has failed")
        self._backoff_ms = 0
        self._flush_due = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting_for_room: deque[asyncio.Future[None]] = deque()
        self._idle: list[asyncio.Future[None]] = []

    # Callers.

    def append(self, record: Record, then: Then) -> None:
        """Accept a record; never waits. Call on the event loop. `then` is called there, too, and exactly once."""
        intake = self._intake
        intake.records.append(record)
        intake.thens.append(then)
        if not self._flush_due:
            self._flush_due = True
            loop = self._loop or self._bind()
            loop.call_soon(self.flush)

    async def write(self, record: Record) -> Any:
        """Accept a record when there is room, and return its outcome once it is durable.

        Cancelling the caller does not take the record back.

        Raises:
            StoreError: the record could not be stored.
        """
        await self.wait_for_room()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.append(record, answering(future))
        return await future

    @property
    def payload_max(self) -> int:
        """Characters of JSON that one payload of a record may have."""
        return self._options.payload_max

    @property
    def has_room(self) -> bool:
        """Whether the intake is below its bound."""
        return len(self._intake) < self._options.intake_max

    async def wait_for_room(self) -> None:
        """Wait while the intake is full."""
        while not self.has_room and self.broken is None:
            future = asyncio.get_running_loop().create_future()
            self._waiting_for_room.append(future)
            await future

    async def settle(self) -> None:
        """Wait until everything that was accepted is durable or refused."""
        while self.is_busy:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(future)
            self.flush()
            await future

    @property
    def is_busy(self) -> bool:
        """Whether something that was accepted is neither durable nor refused yet."""
        return bool(self._intake or self._under_way or self._returned)

    # Batches.

    def flush(self) -> None:
        """Send what has gathered, as far as the pipeline has room."""
        self._flush_due = False
        if self.broken is not None:
            self._refuse_all(self.broken)
            return
        batch_max = self._options.batch_max
        while self._intake and len(self._under_way) < self._pipeline and not self._returned:
            if len(self._intake) <= batch_max:
                batch, self._intake = self._intake, _Batch()
            else:
                batch, self._intake = self._intake.cut(batch_max)
            self._submit(batch)
        while self._waiting_for_room and self.has_room:
            _release(self._waiting_for_room.popleft())

    def _submit(self, batch: _Batch) -> None:
        self._under_way.append(batch)
        self._store.submit(batch.records, worker=self.worker, done=self._done)

    def _done(self, outcomes: Sequence[Outcome] | None, error: BaseException | None) -> None:
        batch = self._under_way.popleft()
        if error is not None:
            self._failed(batch, error)
            return
        self.committed += 1
        if self.trouble is not None:
            self._recovered()
        with CollectorHeld():
            for then, outcome in zip(batch.thens, outcomes or repeat(None), strict=False):
                try:
                    then(outcome, None)
                except Exception:
                    _log.exception(DEAF)
        self.flush()
        self._wake_idle()

    def _failed(self, batch: _Batch, error: BaseException) -> None:
        """Collect the batches that come back until none is under way, then decide by the first error."""
        if not isinstance(error, Halted) and not self._returned:
            self._cause = error
        self._returned.append(batch)
        if self._under_way:
            return
        if self.broken is not None:
            self._refuse_all(self.broken)
            return
        cause = self._cause
        if isinstance(cause, HoldfastError) and cause.retryable:
            self._later(cause)
        elif isinstance(cause, StoreError) and not isinstance(cause, RecordRefused):
            self.fail(cause)
        else:
            self._split(cause)

    def _later(self, cause: HoldfastError) -> None:
        if isinstance(cause, StoreError):
            self.trouble = cause
            self._on_trouble(cause)
        options = self._options
        self._backoff_ms = min(self._backoff_ms * 2 or options.backoff_first_ms, options.backoff_max_ms)
        self._world.call_later(self._backoff_ms * 1000, self._again)

    def _again(self) -> None:
        if self.broken is not None:
            return
        returned, self._returned = self._returned, []
        self._store.proceed()
        for batch in returned:
            self._submit(batch)
        self.flush()

    def _recovered(self) -> None:
        self.trouble = None
        self._backoff_ms = 0
        self._on_trouble(None)

    def _split(self, cause: BaseException) -> None:
        """Halve the batch that failed; the store applies the parts in order, so only the bad record stays out."""
        self._store.proceed()
        (first, *rest), self._returned = self._returned, []
        if len(first) > 1:
            parts = [*first.cut(len(first) // 2), *rest]
        else:
            parts = self._without_run(first, rest, cause)
        for batch in parts:
            self._submit(batch)
        self.flush()
        self._wake_idle()

    def _without_run(self, bad: _Batch, rest: list[_Batch], cause: BaseException) -> list[_Batch]:
        """Refuse one record, and every later one of its run that was accepted already; returns what remains."""
        run = _run_of(bad.records[0])
        refused = bad.thens
        parts: list[_Batch] = []
        for batch in rest:
            kept, more = batch.without(run)
            refused += more
            if kept:
                parts.append(kept)
        self._intake, more = self._intake.without(run)
        for then in refused + more:
            _tell(then, None, cause)
        return parts

    def close(self) -> None:
        """Accept nothing more. What is not durable by now is refused; a batch under way may still become durable."""
        if self.broken is None:
            self.broken = NotOpen("the app was closed before this was stored", hint="start again and look")
            self._refuse_all(self.broken)

    def fail(self, cause: BaseException) -> None:
        """Refuse everything, now and later: the store has failed for good, or this worker was declared dead."""
        if self.broken is not None:
            return
        self.broken = cause
        self._on_broken(cause)
        self._refuse_all(cause)

    def _refuse_all(self, cause: BaseException) -> None:
        while self._intake or self._returned:
            batches, self._returned, self._intake = [*self._returned, self._intake], [], _Batch()
            for batch in batches:
                batch.refuse(cause, self.heir)
        while self._waiting_for_room:
            _release(self._waiting_for_room.popleft())
        self._wake_idle()

    def _wake_idle(self) -> None:
        if not self.is_busy:
            waiting, self._idle = self._idle, []
            for future in waiting:
                _release(future)

    def _bind(self) -> asyncio.AbstractEventLoop:
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise NotOpen("the journal is used outside of its event loop") from None
        return self._loop


def answering(future: asyncio.Future[Any]) -> Then:
    """What to pass to `append` so that a future gets the answer; one that was cancelled meanwhile is left alone."""

    def then(outcome: Outcome, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(outcome)
        else:
            future.set_exception(error)

    return then


def _tell(then: Then, outcome: Outcome, error: BaseException | None) -> None:
    try:
        then(outcome, error)
    except Exception:
        _log.exception(DEAF)


def _release(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _run_of(record: Record) -> object:
    return getattr(record, "run", None) or getattr(record, "number", None)
