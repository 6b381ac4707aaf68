"""One seed of the simulator: processes on one file in one event loop, clients that use them, and what befalls them all.

    clients ─ start · result · cancel · pause · resume · retry ─> processes (app or client, engine, journal, executor)
    chaos ─── crash · freeze · clock · restart · fates ─────────> edge ─> SqliteStore ─> one real file
                                                   ledger <─ every commit, every body, every answer

**Real**: the apps and everything below them, the journal with its retries, group commit, recovery, leases, parking,
replay, the SQLite store with its SQL, its locks and its turnstile, on a real file.

**Simulated**: time (the loop's and the wall clock), the store's threads (their calls run on the loop, in an order drawn
from the seed), entropy, and what the edge does to batches. The watchdog's thread is left out. So a seed decides
everything, and the same seed gives the same trace.

**What it cannot find**: races between real threads or real processes inside one call of the store, torn writes and lost
sync (`tests/crash/power` does that), `def` steps, signals and real deaths (`tests/crash` does), and whatever takes more
runs, or longer, than a seed has.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from tests.sim import load
from tests.sim.ledger import Ledger
from tests.sim.life import Gone, Life, Setting
from tests.sim.life import new_store as real_store
from tests.sim.virtual import DAY_SECONDS, Clock, Commits, SimLoop

from holdfast import Start
from holdfast._runtime import worker as worker_module
from holdfast._runtime.bodies import Bodies, Body
from holdfast._store.sqlite import SqliteStore
from holdfast.errors import HoldfastError, RunCancelled, RunConflict, RunNotFound, StoreError, UsageError, WaitTimeout

END_SECONDS: Final = 400
"""Virtual seconds in which everything must have ended once nothing goes wrong any more."""
LEAVE_SECONDS: Final = 60
TRIES_MAX: Final = 5
MANY: Final = 8
"""Runs that a client starts at once."""


class Simulation:
    """One seed.

    Args:
        seed: decides everything.
        path: a migrated, empty database.
        new_store: makes the real store of each process.
    """

    def __init__(self, seed: int, path: Path, *, new_store: Callable[..., SqliteStore] | None = None) -> None:
        self.seed = seed
        self.path = path
        self.new_store: Callable[..., SqliteStore] = new_store or real_store
        self.loop = SimLoop()
        self.clock = Clock()
        self.commits = Commits()
        self.faulty = True
        self.setting = Setting.drawn(random.Random(f"{seed} setting"))
        chance = random.Random(f"{seed} programs")
        self.programs = {f"run-{place}": load.program_of(chance) for place in range(self.setting.runs)}
        self.ledger = Ledger(path, clock=lambda: self.loop.seconds, programs=self.programs)
        self.lives: list[Life] = []
        self._over = False
        self._acknowledged: set[str] = set()

    def run(self) -> Ledger:
        """Live through it.

        Raises:
            AssertionError: something happened that must not; the message has the seed and the trace.
        """
        self.loop.set_exception_handler(self._unhandled)
        try:
            with _seams(self), asyncio.Runner(loop_factory=lambda: self.loop) as runner:
                runner.run(self._main())
            if not self.ledger.problems:
                self.ledger.audit()
        finally:
            self.ledger.close()
        if self.ledger.problems:
            raise AssertionError(self.report())
        return self.ledger

    def report(self) -> str:
        """What went wrong first, the end of the story, and how to repeat it."""
        return (
            f"seed {self.seed}: {self.ledger.problems[0]}\n\n{self.setting}\n\n{self.ledger}\n\n"
            f"once more: HOLDFAST_SIM_SEED={self.seed} python -m pytest tests/sim -k seeds"
        )

    @property
    def digest(self) -> str:
        """Of the trace."""
        return hashlib.sha256("\n".join(self.ledger.trace).encode()).hexdigest()

    async def _main(self) -> None:
        names = [(f"p{place}", place < self.setting.workers) for place in range(self.setting.workers + 1)]
        processes = [asyncio.create_task(self._process(name, works=works)) for name, works in names]
        clients = [asyncio.create_task(self._client(place)) for place in range(self.setting.clients)]
        chaos = asyncio.create_task(self._chaos())
        story = asyncio.create_task(self._story(clients, chaos))
        while not story.done() and not self.ledger.problems:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await asyncio.wait((story,))
        if story.done() and not story.cancelled() and (error := story.exception()) is not None:
            self.ledger.check(False, f"{type(error).__name__}: {error}")
        for task in (story, chaos, *clients):
            task.cancel()
        self._over = True
        for life in self.lives:
            life.leave.set()
        _, left = await asyncio.wait(processes, timeout=LEAVE_SECONDS)
        self.ledger.check(not left, f"{len(left)} processes do not leave within {LEAVE_SECONDS} s")
        for life in self.lives:
            life.crash("at the end") if left else None

    async def _story(self, clients: list[asyncio.Task[None]], chaos: asyncio.Task[None]) -> None:
        for client in clients:
            await client
        chaos.cancel()
        self.faulty = False
        self.ledger.say("the faults are off")
        for life in self.lives:
            life.thaw()
        until = self.loop.seconds + END_SECONDS
        chance = random.Random(f"{self.seed} end")
        while self.ledger.unfinished or not self._is_calm():
            if self.loop.seconds > until:
                stuck = "; ".join(map(str, self.ledger.unfinished)) or "workers that are dead are not buried"
                self.ledger.check(False, f"stuck for {END_SECONDS} s without any fault: {stuck}")
                return
            await asyncio.sleep(0.3)
            for row in self.ledger.unfinished:
                if row.state in ("paused", "blocked"):
                    await self._attempt(chance, self._resume, row.id)
        for run_id in sorted(self._acknowledged):
            await self._attempt(chance, self._result, run_id, 30.0)

    def _is_calm(self) -> bool:
        """Whether the workers of the file are those that are up, and every batch has been answered."""
        if any(life.edge.waiting for life in self.lives):
            return False
        up = sum(life.up and life.works for life in self.lives)
        return up == self.setting.workers == self.ledger.live_workers

    # Processes.

    async def _process(self, name: str, *, works: bool) -> None:
        chance = random.Random(f"{self.seed} {name}")
        place, number = int(name[1:]), 0
        while not self._over:
            number += 1
            life = Life(self, f"{name}.{number}", place * 1000 + number, works=works)
            self.lives.append(life)
            self.ledger.counts["processes"] += 1
            await life.live()
            self.lives.remove(life)
            if not self._over:
                await asyncio.sleep(chance.choice((0.0, 0.1, 1.0, 3.0)) if self.faulty else 0.1)

    def _pick(self, chance: random.Random) -> Life | None:
        up = [life for life in self.lives if life.up]
        return chance.choice(sorted(up, key=lambda life: life.name)) if up else None

    # What goes wrong.

    async def _chaos(self) -> None:
        chance = random.Random(f"{self.seed} chaos")
        kinds = [
            kind for kind in (self._crash, self._freeze, self._jump, self._restart, self._arm) if chance.random() < 0.8
        ]
        while kinds:
            await asyncio.sleep(chance.choice((0.05, 0.3, 0.6, 1.2)))
            life = self._pick(chance)
            if life is not None:
                chance.choice(kinds)(life, chance)

    def _crash(self, life: Life, _chance: random.Random) -> None:
        life.crash("of nothing")

    def _freeze(self, life: Life, chance: random.Random) -> None:
        life.freeze(chance.choice((0.3, self.setting.lease * 1.1, self.setting.lease * 2.5)))

    def _jump(self, _life: Life, chance: random.Random) -> None:
        seconds = chance.choice((-20, -3, 1, 7, 60, DAY_SECONDS))
        self.clock.ahead_us += seconds * 1_000_000
        self.ledger.counts["clock jumps"] += 1
        self.ledger.say(f"the clock is set by {seconds} s")

    def _restart(self, life: Life, _chance: random.Random) -> None:
        life.leave.set()

    def _arm(self, life: Life, chance: random.Random) -> None:
        life.armed += [chance.choice(("lost", "lost", "before", "after", "busy", "slow"))] * chance.randint(1, 2)

    # Clients.

    async def _client(self, place: int) -> None:
        chance = random.Random(f"{self.seed} client {place}")
        steer = [self._cancel, self._pause, self._resume, self._resume, self._retry]
        calls = [self._start] * 7 + [self._start_many] + [self._wait] * 3 + steer
        for _ in range(self.setting.calls):
            await asyncio.sleep(chance.choice((0.0, 0.0, 0.05, 0.2, 0.6)))
            run_id = chance.choice(list(self.programs))
            call = chance.choice(calls)
            vanishes = chance.random() < 0.06
            if not vanishes:
                await self._attempt(chance, call, run_id)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(chance.choice((0.0, 0.001, 0.01))):
                    await self._attempt(chance, call, run_id)

    async def _attempt(
        self, chance: random.Random, call: Callable[..., Awaitable[None]], run_id: str, *args: Any
    ) -> None:
        """A call, and again through another process when the one it went through is gone."""
        for _ in range(TRIES_MAX):
            life = self._pick(chance)
            if life is None:
                await asyncio.sleep(0.5)
                continue
            name = call.__name__.strip("_")
            self.ledger.say(f"client {name} {run_id} through {life.name}")
            try:
                await call(life, run_id, *args)
            except (WaitTimeout, RunNotFound):
                return
            except (Gone, StoreError) as error:
                self.ledger.say(f"client {name} {run_id} knows nothing: {type(error).__name__}")
                await asyncio.sleep(0.1)
                continue
            except UsageError as error:
                self.ledger.say(f"client {name} {run_id}: {type(error).__name__}")
            return

    async def _start(self, life: Life, run_id: str) -> None:
        try:
            await life.call("start", life.client.start(load.play, self.programs[run_id], [], id=run_id))
        except RunConflict:
            self.ledger.check(False, f"{run_id} was started again with the same arguments, and refused")
        self._acknowledged.add(run_id)
        self.ledger.start_acknowledged(run_id)

    async def _start_many(self, life: Life, run_id: str) -> None:
        ids = list(self.programs)
        place = ids.index(run_id)
        some = [Start(load.play, self.programs[each], [], id=each) for each in ids[place : place + MANY]]
        await life.call("start_many", life.client.start_many(some))
        for each in ids[place : place + MANY]:
            self._acknowledged.add(each)
            self.ledger.start_acknowledged(each)

    async def _wait(self, life: Life, run_id: str) -> None:
        await self._result(life, run_id, 2.0)

    async def _result(self, life: Life, run_id: str, seconds: float) -> None:
        before = self.ledger.reopenings(run_id)
        try:
            value = await life.call("result", life.client.get(run_id).result(seconds))
        except RunCancelled:
            end = ("cancelled", "")
        except (load.Boom, OSError) as error:
            if isinstance(error, HoldfastError):
                raise
            end = ("failed", str(error))
        else:
            self.ledger.check(load.fits(self.programs[run_id], value), f"{run_id} gave {value}")
            end = ("succeeded", repr(value))
        if self.ledger.reopenings(run_id) == before:
            self.ledger.told(run_id, *end)

    async def _cancel(self, life: Life, run_id: str) -> None:
        self.ledger.cancelling(run_id)
        await life.call("cancel", life.client.get(run_id).cancel())

    async def _pause(self, life: Life, run_id: str) -> None:
        await life.call("pause", life.client.get(run_id).pause())

    async def _resume(self, life: Life, run_id: str) -> None:
        self.ledger.reopening(run_id)
        await life.call("resume", life.client.get(run_id).resume())

    async def _retry(self, life: Life, run_id: str) -> None:
        self.ledger.reopening(run_id)
        await life.call("retry", life.client.get(run_id).retry())

    # Defects.

    def _unhandled(self, _loop: object, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, HoldfastError):
            self.ledger.check(False, f"an error nobody handled: {context.get('message')}: {error!r}")

    def logged(self, record: logging.LogRecord) -> None:
        """The engine has logged something; with a traceback it is a defect."""
        if record.exc_info is not None and record.exc_info[1] is not None:
            error = record.exc_info[1]
            self.ledger.check(isinstance(error, HoldfastError), f"logged: {record.getMessage()}: {error!r}")
        elif record.levelno >= logging.ERROR:
            self.ledger.counts["fenced"] += "was declared dead" in record.getMessage()
            self.ledger.say(f"log: {record.getMessage()}")


class _NoWatchdog:
    """Its thread would look at a clock that stands still."""

    def __init__(self, *_args: object, **_options: object) -> None:
        pass

    async def start(self) -> None:
        """Nothing."""

    async def stop(self) -> None:
        """Nothing."""


class _Listener(logging.Handler):
    def __init__(self, simulation: Simulation) -> None:
        super().__init__()
        self._simulation = simulation

    def emit(self, record: logging.LogRecord) -> None:
        self._simulation.logged(record)


@contextmanager
def _seams(simulation: Simulation) -> Generator[None]:
    """Hear of bodies and of the log; leave out the watchdog's thread."""
    begin = Bodies._begin

    def begun(bodies: Bodies, body: Body, now: int) -> None:
        begin(bodies, body, now)
        for life in simulation.lives:
            if life.world is bodies._world and not life.edge.dead:
                simulation.ledger.begun(life.name, body.run.executor.worker, body.call)

    logger, listener, before = (
        logging.getLogger("holdfast"),
        _Listener(simulation),
        logging.getLogger("holdfast").propagate,
    )
    watchdog = worker_module.Watchdog
    logger.addHandler(listener)
    logger.propagate = False
    worker_module.Watchdog = _NoWatchdog  # type: ignore[assignment, misc]
    Bodies._begin = begun  # type: ignore[method-assign]
    try:
        yield
    finally:
        Bodies._begin = begin  # type: ignore[method-assign]
        worker_module.Watchdog = watchdog  # type: ignore[misc]
        logger.propagate = before
        logger.removeHandler(listener)
