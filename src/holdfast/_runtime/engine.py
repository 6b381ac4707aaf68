"""The engine: one open database with its journal, its waiters and, in an app, its worker.

Opening and closing are all-or-nothing: what was started is stopped again when a later part fails.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from holdfast._flow.definitions import Workflow
from holdfast._model.lifecycle import RunState
from holdfast._model.records import RunRow, RunStarted, Started
from holdfast._model.retention import Retention
from holdfast._runtime.events import ENGINE_LOG, Events
from holdfast._runtime.executor import Executor
from holdfast._runtime.identity import Identity
from holdfast._runtime.options import WorkerOptions
from holdfast._runtime.results import Results
from holdfast._runtime.worker import Worker
from holdfast._store.journal import Journal, JournalOptions, Then, answering
from holdfast._store.port import Store
from holdfast._world import World
from holdfast.errors import StoreError

STARTS_PER_TURN: Final = 1000
"""Starts appended before the event loop gets a turn."""


class Engine:
    """Everything that is open while an app or a client is.

    Args:
        workflows: the code, by name.
        worker: how runs are executed here, or none for a client.
        retention: what `prune` goes by when it is told nothing else; none for a policy that keeps everything.
    """

    def __init__(
        self,
        *,
        store: Store,
        world: World,
        workflows: Mapping[str, Workflow[..., Any]],
        events: Events,
        journal: JournalOptions | None,
        worker: WorkerOptions | None,
        retention: Retention | None = None,
    ) -> None:
        self.store = store
        self.world = world
        self.retention = retention
        self.results = Results(store, always_watching=worker is not None)
        self.ended: Counter[str] = Counter()
        self._workflows = workflows
        self._events = events
        self._identity = Identity(
            store=store,
            world=world,
            results=self.results,
            options=journal,
            make_worker=None if worker is None else partial(self._new_worker, worker),
            on_trouble=_say,
        )

    @property
    def journal(self) -> Journal:
        """Where records go now."""
        return self._identity.journal

    @property
    def worker(self) -> Worker | None:
        """Who executes runs here now."""
        return self._identity.worker

    def _new_worker(self, options: WorkerOptions, journal: Journal) -> Worker:
        return Worker(
            workflows=self._workflows,
            store=self.store,
            journal=journal,
            results=self.results,
            world=self.world,
            events=self._events,
            options=options,
            ended=self.ended,
        )

    async def open(self) -> None:
        """Open the database, migrate it, and start the services."""
        await self.store.open(on_change=self._changed)
        try:
            await self.results.start()
            await self._identity.start()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop the worker, make durable what was accepted, and close the database."""
        try:
            await self._identity.stop()
        finally:  # also when leaving failed or was cancelled: our lock must go, so that others take over
            self.journal.close()
            await self.results.stop()
            await self.store.close()

    def start(self, record: RunStarted) -> asyncio.Future[Started]:
        """Append a start; executes the run here if it is due and there is room. Cancelling the future stops nothing."""
        future: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
        self._append(record, answering(future))
        return future

    async def start_all(self, records: Sequence[RunStarted]) -> list[Started]:
        """`start` for many, in order. Raises the first error after all of them have been answered."""
        answers: list[Any] = [None] * len(records)
        left = len(records)
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def tell(place: int, outcome: Started, error: BaseException | None) -> None:
            nonlocal left
            answers[place] = outcome if error is None else error
            left -= 1
            if not left and not answered.done():
                answered.set_result(None)

        for place, record in enumerate(records):
            if place % STARTS_PER_TURN == 0:
                await asyncio.sleep(0)  # others get a turn, and the first are written while the rest are appended
                await self.journal.wait_for_room()
            self._append(record, partial(tell, place))
        if records:
            await answered
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    def _append(self, record: RunStarted, tell: Then) -> None:
        """Append a start, claimed by this worker if it has room.

        The run is adopted in the acknowledgement, not by whoever awaits it: a caller that is cancelled meanwhile
        leaves no run behind that is claimed and not executed.
        """
        worker = self.worker
        if worker is None:
            self.journal.append(record, tell)
            return
        executor = worker.executor
        if record.state is RunState.READY and executor.room > 0:
            record = self._claimed(record, executor)

        def then(outcome: Started, error: BaseException | None) -> None:
            if record.state is RunState.RUNNING:
                executor.reserved -= 1
            if error is None:
                self._started(record, outcome)
            elif record.state is RunState.RUNNING:
                self.results.unexpect(record.id)
                worker.dispatcher.room_appeared()
            tell(outcome, error)

        self.journal.append(record, then)

    def _claimed(self, record: RunStarted, executor: Executor) -> RunStarted:
        """The same start, claimed by this worker as it is written: no second write, no poll."""
        executor.reserved += 1
        self.results.expect(record.id)
        now, timeout = record.created_at, record.timeout_us
        deadline = None if timeout is None else now + timeout
        return record._replace(state=RunState.RUNNING, worker=executor.worker, started_at=now, deadline_at=deadline)

    def _started(self, record: RunStarted, outcome: Started) -> None:
        worker = self.worker
        if record.state is RunState.RUNNING and (worker is None or record.worker != worker.id):
            self.results.unexpect(record.id)  # claimed by a worker that is no more: it was written unclaimed, or lost
            if worker is not None:
                worker.dispatcher.queued()
                worker.dispatcher.poke()
        elif worker is None:
            return
        elif not outcome.created:
            if record.state is RunState.RUNNING and outcome.number not in worker.executor.live:
                self.results.unexpect(record.id)
            worker.dispatcher.room_appeared()
        elif record.state is RunState.RUNNING and record.started_at is not None:
            worker.executor.adopt(
                RunRow(
                    number=outcome.number,
                    id=record.id,
                    workflow=record.workflow,
                    input=record.input,
                    seed=record.seed,
                    generation=0,
                    crashes=0,
                    request=None,
                    created_at=record.created_at,
                    started_at=record.started_at,
                    deadline_at=record.deadline_at,
                    has_history=False,
                )
            )
        elif record.due_at is not None:
            worker.dispatcher.due(record.due_at)
        else:
            worker.dispatcher.queued()
            worker.dispatcher.poke()

    def _changed(self) -> None:
        self.results.poke()
        if self.worker is not None:
            self.worker.changed()


def _say(trouble: StoreError | None) -> None:
    report: Callable[..., None] = ENGINE_LOG.info if trouble is None else ENGINE_LOG.warning
    report(
        "the store accepts writes again" if trouble is None else f"writing is delayed, will be tried again: {trouble}"
    )
