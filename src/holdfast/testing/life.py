"""One life of a process in an experiment of `crash_everywhere`: an app on its file, until the run's end or death.

The process is not really killed: its store stops taking anything (`holdfast.testing.dying`), which to a database is the
same, and makes the moment exact. Bodies under way are cancelled at the death.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from holdfast._app import Holdfast
from holdfast._flow.definitions import Workflow
from holdfast._model.records import EntryRecorded
from holdfast._run import Run
from holdfast._runtime.bodies import Bodies, Body
from holdfast._runtime.engine import Engine
from holdfast._runtime.executor import Executor
from holdfast._runtime.memory import Memory
from holdfast._runtime.options import ExecutorOptions, WorkerOptions
from holdfast._runtime.parking import Parking
from holdfast._store.journal import Journal, JournalOptions
from holdfast._store.port import Store
from holdfast._store.sqlite import SqliteStore
from holdfast._store.uri import parse
from holdfast._world import World
from holdfast.errors import HoldfastError
from holdfast.testing.dying import DyingStore, Moment
from holdfast.testing.ledger import Ledger
from holdfast.testing.stuck import WaitsForNothing, why_open
from holdfast.testing.virtual import VirtualLoop, VirtualWorld, hold_clock

RUN_ID: Final = "run"


class Outcome(NamedTuple):
    """How a run ended: a result, or the class and message of an exception."""

    kind: str
    value: Any

    def __str__(self) -> str:
        return f"{self.kind}: {self.value!r}"


@dataclass(frozen=True, slots=True)
class Manner:
    """How the engine is set in an experiment; `word` is part of the names of crash points."""

    word: str
    name: str
    journal: JournalOptions
    pipeline: int
    park_after: float


SINGLE: Final = Manner("single", "one record per commit", JournalOptions(batch_max=1), 1, 3600.0)
BATCHED: Final = Manner("batched", "batches as they form", JournalOptions(), 2, 3600.0)
PARKED: Final = Manner("parked", "one record per commit, parking at every wait", JournalOptions(batch_max=1), 1, 0.0)


@dataclass(frozen=True, slots=True)
class Death:
    """At which batch of a life, and when."""

    at: int
    moment: Moment


@dataclass(frozen=True, slots=True)
class Subject:
    """What is killed again and again."""

    workflow: Workflow[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    seed: int
    seconds_max: float
    meanwhile: Callable[[Run[Any]], Awaitable[object]] | None


class Life:
    """One process."""

    def __init__(
        self,
        subject: Subject,
        path: Path,
        ledger: Ledger,
        manner: Manner,
        death: Death | None,
        loop: VirtualLoop,
    ) -> None:
        self._subject = subject
        self._ledger = ledger
        self._manner = manner
        self._death = death
        self._loop = loop
        uri = f"sqlite:///{path}?synchronous=normal"
        world = VirtualWorld(loop, life=ledger.life, seed=subject.seed)
        self.store = self._make_store(SqliteStore(parse(uri), world=world))
        options = WorkerOptions(
            execution=ExecutorOptions(park_after=manner.park_after),
            poison_after=None,
        )
        self._app = _ProvedApp(uri, world=world, store=self.store, worker=options, journal=manner.journal)
        self._app.include(subject.workflow)

    async def live(self) -> Outcome | None:
        """Execute until the run has ended, or until death; none in that case."""
        dying = asyncio.create_task(self._die())
        working = asyncio.create_task(self._work())
        await asyncio.wait({working, dying}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            self.store.bury()
            working.cancel()
        dying.cancel()
        await asyncio.wait({working, dying})
        await self.store.close()  # a second time, unless the death came while the first was under way
        if working.cancelled() or (self._is_dead and isinstance(working.exception(), HoldfastError)):
            return None
        return working.result()

    async def _die(self) -> None:
        await self.store.died.wait()
        if self._death is not None:
            self._ledger.died(self._death.moment.value, self.store.fatal)

    @property
    def _is_dead(self) -> bool:
        return self.store.died.is_set()

    async def _work(self) -> Outcome:
        async with self._app as app:
            self._watch(app._engine)
            run = await self._start(app)
            meanwhile = self._subject.meanwhile
            if meanwhile is None:
                return await self._answer(run)
            beside = asyncio.ensure_future(meanwhile(run))
            try:
                return await self._answer(run)
            finally:
                beside.cancel()
                await asyncio.wait({beside})

    async def _start(self, app: Holdfast) -> Run[Any]:
        subject = self._subject
        if self._ledger.started:  # recovery needs no call of the user
            return Run(app, RUN_ID, subject.workflow)
        run: Run[Any] = await app.start(subject.workflow, *subject.args, id=RUN_ID, **subject.kwargs)
        return run

    async def _answer(self, run: Run[Any]) -> Outcome:
        limit = asyncio.timeout(self._subject.seconds_max)
        try:
            async with limit:
                outcome = Outcome("result", await run.result())
        except Exception as error:
            if self._is_dead:
                raise
            if limit.expired():
                raise WaitsForNothing(f"the run is stuck: {why_open(await run.describe())}") from None
            outcome = Outcome(f"{type(error).__module__}.{type(error).__qualname__}", str(error))
        self._ledger.told(outcome)
        await self._compare(run)
        return outcome

    async def _compare(self, run: Run[Any]) -> None:
        """The file holds what was acknowledged."""
        ledger = self._ledger
        stored = {entry.seq: entry for entry in await run.history()}
        for (generation, seq), entry in ledger.entries.items():
            if generation != ledger.generation:
                continue
            found = stored.get(seq)
            if found is None or (entry.ordinal is not None and found.ordinal != entry.ordinal):
                ledger.violations.append(f"entry {seq} was acknowledged but the file holds {found}")

    # What the app of this life is made of.

    def _make_store(self, inner: Store) -> DyingStore:
        manner, death = self._manner, self._death
        return DyingStore(
            inner,
            loop=self._loop,
            pipeline=manner.pipeline,
            die_at=None if death is None else death.at,
            moment=Moment.BEFORE if death is None else death.moment,
            committed=self._ledger.committed,
        )

    def _watch(self, engine: Engine) -> None:
        """Hear of every body that begins, and park what waits when nothing else is to be done."""
        worker = engine.worker
        if worker is None or worker.executor.live:
            raise AssertionError("the app executed something before it was open")
        executor = worker.executor
        if self._manner.park_after == 0.0:
            self._loop.on_idle = _parking(executor, engine.world)
        bodies: Bodies = executor.bodies
        begin = bodies._begin

        def begun(body: Body, now: int) -> None:
            begin(body, now)
            self._ledger.begun(body.call, early=_undurable(engine.journal))

        bodies._begin = begun  # type: ignore[method-assign]
        hold_clock(bodies, self._loop)


class _ProvedApp(Holdfast):
    """An app whose world and store are those of an experiment."""

    def __init__(
        self, uri: str, *, world: World, store: DyingStore, worker: WorkerOptions, journal: JournalOptions
    ) -> None:
        super().__init__(uri, worker=worker, journal=journal)
        self._world = world
        self._store = store

    def _new_engine(self, worker: WorkerOptions | None) -> Engine:
        return Engine(
            store=cast("Store", self._store),
            world=self._world,
            workflows=self._known,
            events=self._events,
            journal=self._journal_options,
            worker=worker,
        )


def _parking(executor: Executor, world: World) -> Callable[[], bool]:
    """Parks every run that waits; true when there was one."""
    parking = Parking(executor, world=world, options=ExecutorOptions(park_after=0.0), memory=Memory())

    def park() -> bool:
        before = _staying(executor)
        with suppress(StopIteration):  # a turn that never waits, stepped outside of any task
            parking._turn().send(None)
        return _staying(executor) < before

    return park


def _staying(executor: Executor) -> int:
    return sum(run.leaving is None and not run.gone for run in executor.live.values())


def _undurable(journal: Journal) -> bool:
    """Whether an outcome is still on its way to the file."""
    batches = [journal._intake, *journal._under_way]
    return any(isinstance(record, EntryRecorded) for batch in batches for record in batch.records)
