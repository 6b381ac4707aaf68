"""One life of a simulated process: an app, or a client, with a store of its own behind an edge of its own.

A life opens, and ends by leaving, by death or by an engine that has given up; then the next life of the same process
begins, with new ids. Death is what the edge makes of it (`edge.py`): from that moment nothing reaches the file and no
answer comes. What is left in memory is then taken apart, which a real death would do at once.

Everything that a life needs of its simulation is a `Host`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, cast

from tests.sim import load
from tests.sim.edge import Dead, Edge
from tests.sim.ledger import Ledger
from tests.sim.virtual import Clock, Commits, SimLoop, SimThread, SimWorld

from holdfast import ExecutorOptions, Holdfast, JournalOptions, LeaseOptions, Retention, WorkerOptions
from holdfast._client import Client
from holdfast._model.records import Record
from holdfast._runtime.engine import Engine
from holdfast._store.port import Store
from holdfast._store.sqlite import SqliteStore
from holdfast._store.uri import parse
from holdfast.errors import HoldfastError

MEMORY_MAX = 1 << 60
"""The real process's memory is no part of the story."""


class Gone(Exception):
    """The process that a call went through is no more; nobody knows what became of the call."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How one seed is set up; drawn from it.

    Attributes:
        releases: of the code, by turns; the processes of a seed have one of them, or the other, or each its own.
        strangers: the second process does not know `plod`.
        kept: retention, in seconds.
        bounds: of what goes in one piece: of a replay, a claim, a prune; and of what a journal takes in.
    """

    workers: int
    clients: int
    calls: int
    runs: int
    lease: float
    batch_max: int
    runs_max: int
    park_after: float
    cached_max: int
    poison_after: int | None
    releases: tuple[int, ...]
    strangers: bool
    kept: float | None
    bounds: int | None
    rates: dict[str, float]

    @classmethod
    def drawn(cls, chance: random.Random) -> Setting:
        """Some seeds are calm in some way: a fault shows best without others around it."""
        rates = {"busy": 0.02, "lost": 0.03, "slow": 0.03, "before": 0.004, "after": 0.004, "refused": 0.005}
        return cls(
            workers=chance.choice([2, 2, 3]),
            clients=chance.choice([2, 3, 4]),
            calls=chance.choice([6, 10, 14]),
            runs=chance.choice([8, 16, 30]),
            lease=chance.choice([1.5, 3.0]),
            batch_max=chance.choice([1, 3, 4096]),
            runs_max=chance.choice([1, 3, 100]),
            park_after=chance.choice([0.0, 0.4, 2.0]),
            cached_max=chance.choice([0, 1, 100]),
            poison_after=chance.choice([None, 3, 5]),
            releases=chance.choice([(0,), (1,), (0, 1), (1, 0)]),
            strangers=chance.random() < 0.3,
            kept=chance.choice([None, None, 2.0, 30.0]),
            bounds=chance.choice([None, None, 2, 5]),
            rates={fate: rate for fate, rate in rates.items() if chance.random() < 0.7},
        )


class Host(Protocol):
    """The simulation, as its lives see it. `faulty` says whether anything may go wrong now."""

    seed: int
    path: Path
    setting: Setting
    loop: SimLoop
    clock: Clock
    commits: Commits
    ledger: Ledger
    faulty: bool
    new_store: Callable[..., SqliteStore]


class Life:
    """One life of a process."""

    def __init__(self, simulation: Host, name: str, number: int, *, works: bool) -> None:
        self.name = name
        self.works = works
        self.up = False
        self.armed: list[str] = []
        self.died = asyncio.Event()
        self.leave = asyncio.Event()
        self.simulation = simulation
        self._calls: list[asyncio.Task[Any]] = []
        chance = random.Random(f"{simulation.seed} life {number}")
        self._chance = chance
        setting = simulation.setting
        place = number // 1000
        self.release = setting.releases[place % len(setting.releases)]
        self.world = SimWorld(simulation.loop, simulation.clock, life=number, chance=chance)
        uri = f"sqlite:///{simulation.path}?synchronous=normal"
        self.edge = Edge(
            simulation.new_store(uri, world=self.world, thread=self._thread),
            fate=self._fate,
            landed=self._landed,
            refuses=self._refuses,
            on_death=self._on_death,
        )
        options = WorkerOptions(
            execution=ExecutorOptions(
                runs_max=setting.runs_max,
                park_after=setting.park_after,
                runs_cached_max=setting.cached_max,
                memory_max=MEMORY_MAX,
            ),
            lease=LeaseOptions(seconds=setting.lease, sweep_seconds=0.5),
            retention=None if setting.kept is None else _retention(setting.kept),
            stop_timeout=1.0,
            poison_after=setting.poison_after,
        )
        intake = {} if setting.bounds is None else {"intake_max": setting.bounds}
        journal = JournalOptions(batch_max=setting.batch_max, backoff_max_ms=500, **intake)
        self._app = _SimApp(uri, world=self.world, edge=self.edge, worker=options, journal=journal)
        self._app.include(load.PLAY[self.release])
        if not (setting.strangers and place == 1):
            self._app.include(load.PLOD[self.release])
        self.client: Client = self._app if works else self._app.client()

    def _thread(self, name: str, *, on_quiet: Callable[[], object] | None = None) -> SimThread:
        thread = SimThread(name, on_quiet=on_quiet, chance=self._chance, commits=self.simulation.commits)
        self.edge.threads.append(thread)
        return thread

    # Its life.

    async def live(self) -> None:
        """From opening to leaving or death."""
        say = self.simulation.ledger.say
        say(f"{self.name} opens")
        opened = await self._finish(self.client.__aenter__())
        if not opened:
            return
        self.up = True
        engine = self.client._engine
        while not (self.died.is_set() or self.leave.is_set() or engine.journal.broken is not None):
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await self.died.wait()
        self.up = False
        say(f"{self.name} leaves" if not self.died.is_set() else f"{self.name} is dead")
        if self.died.is_set():
            self._bury(engine)
        for call in self._calls:
            call.cancel()
        await self._finish(self.client.__aexit__(None, None, None))

    async def _finish(self, work: Awaitable[Any]) -> bool:
        """Carry something through, unless the process dies meanwhile."""
        task = asyncio.ensure_future(work)
        dying = asyncio.ensure_future(self.died.wait())
        await asyncio.wait((task, dying), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            engine = self.client._opened
            if engine is not None:
                self._bury(engine)
            else:
                self.edge.bury()
            if not self.up and self.died.is_set():
                task.cancel()
            await asyncio.wait((task,))
        dying.cancel()
        if task.cancelled():
            return False
        error = task.exception()
        if error is not None:
            self.simulation.ledger.say(f"{self.name} {type(error).__name__}: {error}")
            self.simulation.ledger.check(
                isinstance(error, HoldfastError), f"{self.name} met a defect: {type(error).__name__}: {error}"
            )
        return error is None

    def _bury(self, engine: Engine) -> None:
        engine.journal.fail(Dead("this process is dead"))
        self.edge.bury()

    @property
    def bodies(self) -> int:
        """Bodies of steps under way."""
        worker = None if self.client._opened is None else self.client._opened.worker
        return 0 if worker is None else worker.executor.bodies.active

    async def call(self, what: str, work: Awaitable[Any]) -> Any:
        """A client's call through this process. `Gone` when the process goes away meanwhile."""
        task = asyncio.ensure_future(work)
        self._calls.append(task)
        try:
            await asyncio.wait((task,))
        finally:
            task.cancel()
            self._calls.remove(task)
        if task.cancelled():
            raise Gone(what)
        return task.result()

    # What befalls it.

    def crash(self, why: str) -> None:
        """The process is gone."""
        if not self.edge.dead:
            self.edge.kill()
            self._on_death(why)

    def freeze(self, seconds: float) -> None:
        """Nothing passes the store's edge for so long; then it goes on as if nothing had happened."""
        if self.edge.frozen or self.edge.dead:
            return
        lease = self.simulation.setting.lease
        self.simulation.ledger.counts["zombies" if seconds > lease and self.works else "freezes"] += 1
        self.edge.freeze()
        self.simulation.ledger.say(f"{self.name} is frozen for {seconds} s")
        self.simulation.loop.call_later(seconds, self.thaw)

    def thaw(self) -> None:
        """Go on."""
        if self.edge.frozen:
            self.simulation.ledger.say(f"{self.name} is thawed")
            self.edge.thaw()

    def _on_death(self, why: str) -> None:
        self.simulation.ledger.counts["crashes"] += 1
        self.simulation.ledger.say(f"{self.name} DIES {why}")
        self.died.set()

    def _fate(self, batch: Sequence[Record]) -> tuple[str, float]:
        simulation = self.simulation
        if not simulation.faulty:
            return "pass", 0.0
        fate = self.armed.pop() if self.armed else self._drawn_fate()
        if fate != "pass":
            simulation.ledger.counts[fate] += 1
            simulation.ledger.say(f"{self.name} fate {fate} of {len(batch)}: {type(batch[0]).__name__}")
        return fate, self._chance.choice((0.05, 0.3, 1.0, 3.5))

    def _refuses(self, name: str) -> bool:
        simulation = self.simulation
        refused = simulation.faulty and self._chance.random() < simulation.setting.rates.get("refused", 0.0)
        if refused:
            simulation.ledger.counts["refused calls"] += 1
            simulation.ledger.say(f"{self.name} cannot {name}")
        return refused

    def _drawn_fate(self) -> str:
        drawn = self._chance.random()
        for fate, rate in self.simulation.setting.rates.items():
            drawn -= rate
            if drawn < 0 and fate != "refused":
                return fate
        return "pass"

    def _landed(self, batch: Sequence[Record], worker: str | None, outcomes: Any) -> None:
        self.simulation.ledger.landed(self.name, batch, worker, outcomes)
        self.simulation.commits.happened()


class _SimApp(Holdfast):
    """An app whose world and store are those of a simulation."""

    def __init__(
        self, uri: str, *, world: SimWorld, edge: Edge, worker: WorkerOptions, journal: JournalOptions
    ) -> None:
        super().__init__(uri, worker=worker, journal=journal)
        self._world = world
        self._edge = edge

    def _new_engine(self, worker: WorkerOptions | None) -> Engine:
        return Engine(
            store=cast("Store", self._edge),
            world=self._world,
            workflows=self._known,
            events=self._events,
            journal=self._journal_options,
            worker=worker,
        )


def _retention(seconds: float) -> Retention:
    kept = timedelta(seconds=seconds)
    return Retention(succeeded=kept, failed=kept, cancelled=2 * kept)


def new_store(uri: str, *, world: SimWorld, thread: Callable[..., SimThread]) -> SqliteStore:
    """The real store, on simulated threads."""
    return SqliteStore(parse(uri), world=world, thread=thread)
