"""The store's edge: a real store behind a door where everything can go wrong.

Each batch that comes through `submit` meets a fate:

    pass    committed and acknowledged
    busy    refused for a passing reason; nothing of it reached the file
    lost    committed, but what comes back is a passing failure: the acknowledgement is lost
    slow    committed; the answer, and all later ones, come virtual seconds later
    before  the process dies, the batch never reached the file
    after   the process dies, the batch is durable, nobody was told

What is not a batch (a look, a lease) may fail for a passing reason, too, before it has done anything.

As the port demands, answers come in the order of the batches, and after a failure everything is refused until
`proceed`. While the door is frozen nothing passes, in or out: the process is a zombie that thinks it lives, and holds
its lock. When it dies its locks go, as the kernel would see to, and what it had posted to its threads is never done.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from tests.sim.virtual import SimThread

from holdfast._model.records import Outcome, Record
from holdfast._store.port import Done, Halted
from holdfast._store.sqlite import SqliteStore
from holdfast.errors import StoreBusy, StoreError, StoreFull


class Dead(StoreError):
    """The process of this store is dead; what is left of it only gets out of the way."""

    code = "dead"


class Edge:
    """A `Store` in front of the real one.

    Args:
        inner: the real store.
        fate: asked for each batch: one of the above, and for `slow` by how many seconds.
        landed: told of each batch the moment it is durable, before anybody else can do anything.
        refuses: asked for each call that is no batch, by its name, whether it fails.
        on_death: called when a fate ends the process.
    """

    def __init__(
        self,
        inner: SqliteStore,
        *,
        fate: Callable[[Sequence[Record]], tuple[str, float]],
        landed: Callable[[Sequence[Record], str | None, Sequence[Outcome] | None], object],
        refuses: Callable[[str], bool],
        on_death: Callable[[str], object],
    ) -> None:
        self.inner = inner
        self.pipeline = inner.pipeline
        self.dead = False
        self.threads: list[SimThread] = []
        self._fate = fate
        self._landed = landed
        self._refuses = refuses
        self._on_death = on_death
        self._halted = False
        self._frozen = False
        self._at_door: deque[Callable[[], object]] = deque()
        self._answers: deque[_Answer] = deque()
        self._thawed = asyncio.Event()
        self._thawed.set()

    # Batches.

    def submit(self, batch: Sequence[Record], *, worker: str | None, done: Done) -> None:
        """Part of `Store`."""
        answer = _Answer(self, batch, worker, done)
        self._answers.append(answer)
        if self.dead:
            return
        if self._halted:
            answer.give(None, Halted("an earlier batch failed"))
            return
        fate, seconds = self._fate(batch)
        if fate == "before":
            self._die(fate)
            return
        answer.fate, answer.seconds = fate, seconds
        if fate == "busy":
            self._halted = True
            answer.give(None, _passing(len(batch)))
            return
        if fate == "lost":
            self._halted = True
        self._pass(lambda: self.inner.submit(batch, worker=worker, done=answer))

    def proceed(self) -> None:
        """Part of `Store`."""
        self._halted = False
        if not self.dead:
            self._pass(self.inner.proceed)

    def _pass(self, call: Callable[[], object]) -> None:
        if self._frozen:
            self._at_door.append(call)
        else:
            call()

    def flush(self) -> None:
        """Give the answers that are there, in order."""
        while self._answers and self._answers[0].ready and not self._frozen and not self.dead:
            answer = self._answers.popleft()
            answer.done(answer.outcomes, answer.error)

    def landed(self, answer: _Answer, outcomes: Sequence[Outcome] | None) -> None:
        """A batch is durable."""
        self._landed(answer.batch, answer.worker, outcomes)
        if answer.fate == "after":
            self._die("after")

    # What is not a batch.

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if not inspect.iscoroutinefunction(method):
            return method

        async def call(*args: Any, **options: Any) -> Any:
            if name == "close":
                return await method(*args, **options)
            await self._door()
            if self._refuses(name):
                raise _passing(1)
            answer = await method(*args, **options)
            await self._door()
            return answer

        return call

    async def _door(self) -> None:
        if self.dead:
            raise Dead("this process is dead")
        if self._frozen:
            await self._thawed.wait()
            if self.dead:
                raise Dead("this process is dead")

    # Disasters.

    def freeze(self) -> None:
        """Nothing passes any more."""
        self._frozen = True
        self._thawed.clear()

    def thaw(self) -> None:
        """Go on as if nothing had happened."""
        self._frozen = False
        self._thawed.set()
        while self._at_door and not self.dead:
            self._at_door.popleft()()
        asyncio.get_running_loop().call_soon(self.flush)

    @property
    def waiting(self) -> int:
        """Batches without an answer."""
        return len(self._answers)

    @property
    def frozen(self) -> bool:
        """Whether nothing passes."""
        return self._frozen

    def kill(self) -> None:
        """The process is gone: its locks, and all that it had not done yet."""
        self.dead = True
        for thread in self.threads:
            thread.kill()
        self._at_door.clear()
        for lock in self.inner._locks.values():
            lock.abandon()
        self._thawed.set()

    def bury(self) -> None:
        """Refuse what still waits for an answer, so that the remains can be taken apart."""
        answers, self._answers = self._answers, deque()
        for answer in answers:
            answer.done(None, Dead("this process is dead"))

    def _die(self, moment: str) -> None:
        if not self.dead:
            self.kill()
            self._on_death(moment)


class _Answer:
    """The answer to one batch: first from the database, then to the journal."""

    def __init__(self, edge: Edge, batch: Sequence[Record], worker: str | None, done: Done) -> None:
        self.edge = edge
        self.batch = batch
        self.worker = worker
        self.done = done
        self.fate = "pass"
        self.seconds = 0.0
        self.ready = False
        self.outcomes: Sequence[Outcome] | None = None
        self.error: BaseException | None = None

    def landed(self, outcomes: Sequence[Outcome] | None, error: BaseException | None) -> None:
        """The database has answered."""
        if error is None:
            self.edge.landed(self, outcomes)

    def __call__(self, outcomes: Sequence[Outcome] | None, error: BaseException | None) -> None:
        """The loop comes to it."""
        if self.fate == "lost" and error is None:
            outcomes, error = None, _passing(len(self.batch))
        self.outcomes, self.error = outcomes, error
        if self.fate == "slow":
            asyncio.get_running_loop().call_later(self.seconds, self._arrive)
        else:
            self._arrive()

    def give(self, outcomes: Sequence[Outcome] | None, error: BaseException | None) -> None:
        """An answer that the database has no part in."""
        self.outcomes, self.error = outcomes, error
        asyncio.get_running_loop().call_soon(self._arrive)

    def _arrive(self) -> None:
        self.ready = True
        self.edge.flush()


def _passing(size: int) -> StoreError:
    return StoreBusy("the file is locked") if size % 2 else StoreFull("the disk is full")
