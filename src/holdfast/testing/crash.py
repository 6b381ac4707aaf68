"""Dying everywhere: a workflow is run once per record with the process dying just before and just after its commit.

Each experiment is a sequence of *lives*, one app each, on one real SQLite file. The first life ends at the chosen
record; the next one opens the file as a fresh process would, finds a worker that is dead (its lock is free), takes the
run over by replay, and finishes it. What is compared:

- the outcome (result, or class and message of the exception) is that of the undisturbed run;
- no body of a step began whose outcome was recorded, or before what came before it was durable; attempts were counted;
- the history in the file is what was acknowledged, entry by entry.

The process is not really killed: its store stops taking anything (`holdfast.testing.dying`), which to a database is the
same, and makes the moment exact. Bodies under way are cancelled at the death; `kill -9` of real processes is tested
elsewhere. Time is virtual (`holdfast.testing.virtual`), and every run gets the same seed, so lives draw the same random
numbers. The order in which racing steps end may differ after a death (a step that runs again ends later); where the
result depends on it, give `same`, which compares outcomes.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
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
from holdfast._world import SystemWorld, World
from holdfast.errors import HoldfastError, UsageError
from holdfast.testing.dying import DyingStore, Moment
from holdfast.testing.ledger import Ledger
from holdfast.testing.virtual import VirtualLoop, VirtualWorld, hold_clock

RUN_ID: Final = "run"
LIVES_MAX: Final = 1_000
_LOG_LINES_MAX: Final = 40


class Outcome(NamedTuple):
    """How a run ended: a result, or the class and message of an exception."""

    kind: str
    value: Any

    def __str__(self) -> str:
        return f"{self.kind}: {self.value!r}"


def _equal(expected: Outcome, found: Outcome) -> bool:
    return expected == found


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashOptions:
    """How to experiment.

    Args:
        seed: of the run's random numbers; printed with every failure.
        batched: also die at whole batches as they form by themselves, not only at single records.
        parked: also let every waiting run leave memory at once, and die there.
        points_max: at most so many records (or batches) of each kind, from the first on.
        seconds_max: virtual seconds after which an unfinished run counts as stuck.
        meanwhile: called beside the run in every life, to cancel it, for instance; virtual time passes in it.
        same: whether an outcome counts as the expected one; equality by default.
    """

    seed: int = 1
    batched: bool = True
    parked: bool = True
    points_max: int = 1_000
    seconds_max: float = 366 * 86_400.0
    meanwhile: Callable[[Run[Any]], Awaitable[object]] | None = None
    same: Callable[[Outcome, Outcome], bool] = _equal


@dataclass(slots=True, kw_only=True)
class CrashReport:
    """What was done.

    Attributes:
        outcome: of the undisturbed run, and so of all.
        records: records that the undisturbed run wrote.
        points: experiments: deaths that were survived.
        lives: processes in total.
        bodies: step bodies that began, in all experiments.
    """

    outcome: Outcome
    records: int
    points: int = 0
    lives: int = 0
    bodies: int = 0


def crash_everywhere(
    workflow: Workflow[..., Any], *args: Any, options: CrashOptions | None = None, **kwargs: Any
) -> CrashReport:
    """Prove that a workflow survives dying at any moment; see the module.

    Call it in a plain test function; it runs event loops of its own. The workflow's steps are executed many times, so
    let them write to fakes.

    Args:
        workflow: the workflow; it needs no app.
        args, kwargs: its arguments.
        options: how to experiment.

    Returns:
        What was done: the number of crash points, and more.

    Raises:
        AssertionError: an outcome differs, a recorded step ran again, or a run got stuck; the message has the crash
            point, everything that became durable, and the seed.
        UsageError: called inside a running event loop: use `crash_everywhere_async` there.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise UsageError("crash_everywhere inside an event loop", hint="await crash_everywhere_async(...) instead")
    settings = options or CrashOptions()
    with tempfile.TemporaryDirectory(prefix="holdfast-crash-") as folder, _logs() as log:
        experiment = Experiment(workflow, args, kwargs, settings, Path(folder), log)
        return experiment.everywhere()


async def crash_everywhere_async(
    workflow: Workflow[..., Any], *args: Any, options: CrashOptions | None = None, **kwargs: Any
) -> CrashReport:
    """`crash_everywhere` for callers in an event loop: the same, in a thread."""
    return await asyncio.to_thread(crash_everywhere, workflow, *args, options=options, **kwargs)


@dataclass(frozen=True, slots=True)
class Manner:
    """How the engine is set in an experiment."""

    name: str
    journal: JournalOptions
    pipeline: int
    park_after: float


SINGLE: Final = Manner("one record per commit", JournalOptions(batch_max=1), 1, 3600.0)
BATCHED: Final = Manner("batches as they form", JournalOptions(), 2, 3600.0)
PARKED: Final = Manner("one record per commit, parking at every wait", JournalOptions(batch_max=1), 1, 0.0)


@dataclass(frozen=True, slots=True)
class Death:
    """At which batch of a life, and when."""

    at: int
    moment: Moment


@dataclass(slots=True)
class Experiment:
    """One workflow with its arguments, to be killed again and again."""

    workflow: Workflow[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: CrashOptions
    folder: Path
    log: deque[str]
    files: int = 0
    expected: Outcome | None = None
    report: CrashReport | None = None
    deaths: list[Death] = field(default_factory=list)

    def everywhere(self) -> CrashReport:
        """The undisturbed run, then every crash point in every manner."""
        manners = [SINGLE]
        manners += [BATCHED] if self.options.batched else []
        manners += [PARKED] if self.options.parked else []
        ledger, self.expected = self.trial(SINGLE, [])
        report = self.report = CrashReport(outcome=self.expected, records=ledger.records)
        self._count(ledger)
        for manner in manners:
            for moment in Moment:
                for at in range(1, self.options.points_max + 1):
                    if not self._survives(manner, [Death(at, moment)]):
                        break
        return report

    def _survives(self, manner: Manner, deaths: list[Death]) -> bool:
        """One experiment; false when the run was over before a death came."""
        ledger, _ = self.trial(manner, deaths)
        self._count(ledger)
        if ledger.life == 1:
            return False
        if self.report is not None:
            self.report.points += 1
        return True

    def _count(self, ledger: Ledger) -> None:
        if self.report is not None:
            self.report.lives += ledger.life
            self.report.bodies += ledger.bodies

    def trial(self, manner: Manner, deaths: list[Death]) -> tuple[Ledger, Outcome]:
        """Lives on one file until the run has ended; dies once per life as long as `deaths` lasts."""
        self.log.clear()
        path, ledger = self._new_file(), Ledger()
        seconds, outcome = 0.0, None
        for life in range(LIVES_MAX):
            death = deaths[life] if life < len(deaths) else None
            end = "" if death is None else f", dies {death.moment.value} batch {death.at}"
            ledger.begin_life(manner.name + end)
            seconds, outcome = self._life(path, ledger, manner, death, seconds)
            if outcome is not None:
                break
        for problem in ledger.violations:
            self._fail(problem, ledger)
        if outcome is None:
            self._fail("the run has not ended", ledger)
            raise AssertionError("unreachable")
        if self.expected is not None and not self.options.same(self.expected, outcome):
            self._fail(f"the outcome differs:\n  undisturbed: {self.expected}\n  now:         {outcome}", ledger)
        return ledger, outcome

    def _life(
        self, path: Path, ledger: Ledger, manner: Manner, death: Death | None, seconds: float
    ) -> tuple[float, Outcome | None]:
        loop = VirtualLoop(start=seconds)
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            life = _Life(self, path, ledger, manner, death, loop)
            outcome = runner.run(life.live())
        return loop.seconds, outcome

    def _new_file(self) -> Path:
        """A database of its own, copied from a migrated one, which is quicker than migrating each."""
        template = self.folder / "template.db"
        if not self.files:
            asyncio.run(_create(template))
        self.files += 1
        path = self.folder / f"{self.files}.db"
        shutil.copyfile(template, path)
        return path

    def _fail(self, problem: str, ledger: Ledger) -> None:
        log = "\n".join(self.log) or "(nothing)"
        raise AssertionError(
            f"workflow {self.workflow.name!r}: {problem}\n\nseed {self.options.seed}\n{ledger}\n\nlog:\n{log}"
        )


class _Life:
    """One process."""

    def __init__(
        self,
        experiment: Experiment,
        path: Path,
        ledger: Ledger,
        manner: Manner,
        death: Death | None,
        loop: VirtualLoop,
    ) -> None:
        self._experiment = experiment
        self._ledger = ledger
        self._manner = manner
        self._death = death
        self._loop = loop
        uri = f"sqlite:///{path}?synchronous=normal"
        world = VirtualWorld(loop, life=ledger.life, seed=experiment.options.seed)
        self.store = self._make_store(SqliteStore(parse(uri), world=world))
        options = WorkerOptions(
            execution=ExecutorOptions(park_after=manner.park_after),
            poison_after=None,
        )
        self._app = _ProvedApp(uri, world=world, store=self.store, worker=options, journal=manner.journal)
        self._app.include(experiment.workflow)

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
            meanwhile = self._experiment.options.meanwhile
            if meanwhile is None:
                return await self._answer(run)
            beside = asyncio.ensure_future(meanwhile(run))
            try:
                return await self._answer(run)
            finally:
                beside.cancel()
                await asyncio.wait({beside})

    async def _start(self, app: Holdfast) -> Run[Any]:
        experiment = self._experiment
        if self._ledger.started:  # recovery needs no call of the user
            return Run(app, RUN_ID, experiment.workflow)
        run: Run[Any] = await app.start(experiment.workflow, *experiment.args, id=RUN_ID, **experiment.kwargs)
        return run

    async def _answer(self, run: Run[Any]) -> Outcome:
        limit = asyncio.timeout(self._experiment.options.seconds_max)
        try:
            async with limit:
                outcome = Outcome("result", await run.result())
        except Exception as error:
            if self._is_dead:
                raise
            if limit.expired():
                raise AssertionError(f"the run is stuck: {await run.describe()}\n\n{self._ledger}") from error
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
        hold_clock(bodies.threads, self._loop)


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


async def _create(path: Path) -> None:
    store = SqliteStore(parse(f"sqlite:///{path}"), world=SystemWorld())
    await store.open(on_change=_ignore)
    await store.close()


def _ignore() -> None:
    """Nobody else writes."""


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


class _Collector(logging.Handler):
    """Keeps the last lines of the engine's log for the message of a failure."""

    def __init__(self, lines: deque[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))


@contextmanager
def _logs() -> Iterator[deque[str]]:
    """Every life's end is loud; its log is kept, and shown only when an experiment fails."""
    lines: deque[str] = deque(maxlen=_LOG_LINES_MAX)
    logger, collector = logging.getLogger("holdfast"), _Collector(lines)
    before = logger.propagate
    logger.addHandler(collector)
    logger.propagate = False
    try:
        yield lines
    finally:
        logger.propagate = before
        logger.removeHandler(collector)
