"""Identity: as which worker this process writes, and how it goes on as another one when it was declared dead.

    stopped past its lease ─> somebody buries worker A, takes its runs ─> continued: a batch or the renewal is `Fenced`
        ─> A's journal is broken for good, its runs are closed ─> new journal, unfenced, for people's requests
        ─> worker B: new id, new lock file, new lease ─> claims again

**Nothing of A is written any more.** What executes runs (executor, dispatcher, recovery, probation) holds the journal
it was made with, and that journal is broken for good: whatever comes late from a body or a timer of A ends there. B has
objects of its own. Only what *people and programs* ask for (starts, cancel, pause, ...) does not depend on who writes
it: those records move to the new journal, in their order, and their callers never learn what happened.

**Nothing is written twice.** Where can such a record be when A is declared dead?

- In the intake, or in a batch that came back: it was not written. A fenced batch is refused by its first statement, and
  a store halts behind a failed batch, so the ones after it were not tried.
- In a batch under way when the renewal finds A dead. The store answers in order: the batch was either committed and its
  callers are told so, or it comes back fenced and moves then.
- Committed, but its acknowledgement was lost (a connection that breaks in the commit; SQLite in a file has no such
  case). It is asked for again, as after every passing failure: a start with the same id and seed is recognised as the
  same, a request finds what it wanted already done.

A start that A had claimed as it wrote it moves as one that nobody claims: if it is stored already, it was A's, and is
somebody else's by now; if not, the first worker with room takes it. It is never executed on the strength of the answer.

**Between A and B** the new journal writes without a fence, as a client's does; there is no worker, so nothing is
claimed. B is visible as `worker` only when it is entered. It may be declared dead in its turn, even before that; then
the same happens once more. A store that fails for a passing reason is asked again; any other error is the end, as it is
elsewhere.

Who awaits the result of a run that A executed looks at the database from then on.

A lease that has lapsed without anybody having buried its worker is renewed as if nothing had happened. Only `Fenced` is
survived like this: any other permanent error of the store says nothing about who holds which run.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from holdfast._model.lifecycle import RunState
from holdfast._model.records import Record, RunStarted
from holdfast._runtime.events import ENGINE_LOG
from holdfast._runtime.results import Results
from holdfast._runtime.worker import Worker
from holdfast._store.journal import Journal, JournalOptions, Then
from holdfast._store.port import Store
from holdfast._world import World
from holdfast.errors import Fenced, HoldfastError, StoreError

RETRY_SECONDS: Final = 1.0


class Identity:
    """The journal and the worker of this process, as they are now.

    Args:
        make_worker: makes a worker on a journal; none for a client.

    Attributes:
        journal: where records go.
        worker: who executes; none for a client, and while one worker follows another.
    """

    def __init__(
        self,
        *,
        store: Store,
        world: World,
        results: Results,
        options: JournalOptions | None,
        make_worker: Callable[[Journal], Worker] | None,
        on_trouble: Callable[[StoreError | None], object],
    ) -> None:
        self._store = store
        self._world = world
        self._results = results
        self._options = options
        self._make_worker = make_worker
        self._on_trouble = on_trouble
        self.worker: Worker | None = None
        self._coming: Worker | None = None
        self._dead: list[Worker] = []
        self._change: asyncio.Task[None] | None = None
        self._leaving = False
        self.journal = self._new_journal()

    async def start(self) -> None:
        """Enter as a worker, if this is one."""
        if self._make_worker is not None:
            self.worker = self._make_worker(self.journal)
            await self.worker.start()

    async def stop(self) -> None:
        """Leave as a worker and make durable what was accepted."""
        self._leaving = True
        if self._change is not None:
            self._change.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._change
        worker = self._coming = self.worker or self._coming  # still known to `_broken`, no longer to others
        self.worker = None
        for dead in self._dead:
            await dead.withdraw()
        if worker is not None:
            await worker.stop()
        while self.journal.trouble is None and self.journal.is_busy:
            await self.journal.settle()

    def _new_journal(self) -> Journal:
        return Journal(
            self._store,
            world=self._world,
            options=self._options,
            pipeline=self._store.pipeline,
            on_trouble=self._on_trouble,
            on_broken=self._broken,
        )

    def _broken(self, cause: BaseException) -> None:
        worker = self.worker or self._coming
        if worker is None:
            return
        if not isinstance(cause, Fenced):
            worker.broken(cause)
            return
        ENGINE_LOG.critical(
            "worker %s was declared dead, %.1f s after it had last renewed its lease; runs that go on elsewhere: %d",
            worker.id,
            worker.recovery.away_seconds,
            len(worker.executor.live),
        )
        worker.executor.close()
        self._results.unexpect_all()
        self._follow(worker)

    def _follow(self, dead: Worker) -> None:
        """Another journal from here on, and another worker as soon as there is one."""
        self.worker = self._coming = None
        before, self.journal = self.journal, self._new_journal()
        self._store.proceed()
        before.heir = self._inherit
        self._dead.append(dead)
        if not self._leaving and (self._change is None or self._change.done()):
            self._change = asyncio.create_task(self._become(), name="holdfast-identity")

    def _inherit(self, record: Record, then: Then) -> None:
        if isinstance(record, RunStarted) and record.state is RunState.RUNNING:
            record = record._replace(state=RunState.READY, worker=None, started_at=None, deadline_at=None)
        self.journal.append(record, then)

    async def _become(self) -> None:
        while self.worker is None and self._make_worker is not None:
            journal, worker = self.journal, None
            try:
                while self._dead:  # each stays there until it is withdrawn, or `stop` would not find it
                    await self._dead[0].withdraw()
                    del self._dead[0]
                journal = self.journal
                self._coming = worker = self._make_worker(journal)
                await worker.start()
            except (HoldfastError, OSError) as error:  # such as no free descriptor for the lock
                if journal is not self.journal:  # declared dead once more; its remains wait in `_dead`
                    continue
                self._coming = None
                if worker is not None:
                    self._dead.append(worker)
                if isinstance(error, HoldfastError) and not error.retryable:
                    journal.fail(error)
                    self._results.fail(error)  # there is no worker that would tell whoever waits
                    return
                ENGINE_LOG.warning("no new worker yet, will be tried again: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                if journal is self.journal:
                    self.worker, self._coming = worker, None
                    ENGINE_LOG.warning("this process goes on as worker %s", worker.id)
