"""One seed of the simulator: processes on one file in one event loop, clients that use them, and what befalls them all.

    clients ─ start · result · steer · fork · list · prune ─────> processes (app or client, engine, journal, executor)
    chaos ─── crash · freeze · clock · memory · restart · fates > edge ─> SqliteStore ─> one real file
                                                   ledger <─ every commit, every body, every answer

**Real**: the apps and everything below them, the journal with its retries, group commit, recovery, leases, parking,
probation, retention, replay, the SQLite store with its SQL, its locks and its turnstile, on a real file. The processes
of a seed may have code of two releases, and some of its programs kill their process again and again.

**Simulated**: time (the loop's and the wall clock), the threads of the store and of `def` steps (their calls run on the
loop, in an order drawn from the seed), entropy, how much memory there is, and what the edge does to batches. In some
seeds the engine's bounds are small, so that long histories, many claims and large prunes come in pieces. The watchdog's
thread is left out. So a seed decides everything, and the same seed gives the same trace.

**What it cannot find**: races between real threads or real processes inside one call of the store, torn writes and lost
sync (`tests/crash/power` does that), signals and real deaths (`tests/crash` does), a failure for good of the store or
of one record, backups and imports, and whatever takes more runs, or longer, than a seed has.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from tests.sim.audit import audit
from tests.sim.clients import Clients
from tests.sim.ledger import Ledger
from tests.sim.life import MEMORY_MAX, Life, Setting
from tests.sim.life import new_store as real_store
from tests.sim.load import Order
from tests.sim.virtual import DAY_SECONDS, Clock, Commits, SimLoop, SimStepThreads

from holdfast._flow.calls import StepCall
from holdfast._runtime import bodies as bodies_module
from holdfast._runtime import dispatcher as dispatcher_module
from holdfast._runtime import engine as engine_module
from holdfast._runtime import executor as executor_module
from holdfast._runtime import memory as memory_module
from holdfast._runtime import pruning as pruning_module
from holdfast._runtime import timers as timers_module
from holdfast._runtime import worker as worker_module
from holdfast._runtime.bodies import Bodies, Body
from holdfast._store import sqlite_prune as prune_module
from holdfast._store.sqlite import SqliteStore
from holdfast.errors import HoldfastError

END_SECONDS: Final = 400
"""Virtual seconds in which everything must have ended once nothing goes wrong any more."""
LEAVE_SECONDS: Final = 60


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
        ids = [f"run-{place}" for place in range(self.setting.runs)]
        self.orders = {run_id: Order.drawn(chance, run_id) for run_id in ids}
        releases = len(self.setting.releases) > 1
        self.ledger = Ledger(path, clock=lambda: self.loop.seconds, orders=self.orders, releases=releases)
        self.lives: list[Life] = []
        self.squeezed = False
        self.kills: Counter[tuple[int, str]] = Counter()
        self._clients = Clients(self)
        self._over = False

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
                audit(self.ledger)
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
        clients = [asyncio.create_task(self._clients.client(place)) for place in range(self.setting.clients)]
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
        self.squeezed = False
        until = self.loop.seconds + END_SECONDS
        while self.ledger.unfinished or not self._is_calm():
            if self.loop.seconds > until:
                stuck = "; ".join(map(str, self.ledger.unfinished)) or "workers that are dead are not buried"
                self.ledger.check(False, f"stuck for {END_SECONDS} s without any fault: {stuck}")
                return
            await asyncio.sleep(0.3)
            for row in self.ledger.unfinished:
                if row.state == "paused" or row.reason == "poison":  # other runs go on by themselves
                    await self._clients.resume(row.id)
        await self._clients.look_at_everything()
        while not self._is_calm() and self.loop.seconds < until:  # a body that nobody waits for took its process down
            await asyncio.sleep(0.3)

    def _is_calm(self) -> bool:
        """Whether the workers of the file are those that are up, and every batch has been answered."""
        if any(life.edge.waiting or life.bodies for life in self.lives):  # a body may still take its process down
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

    def pick(self, chance: random.Random) -> Life | None:
        up = [life for life in self.lives if life.up]
        return chance.choice(sorted(up, key=lambda life: life.name)) if up else None

    # What goes wrong.

    async def _chaos(self) -> None:
        chance = random.Random(f"{self.seed} chaos")
        all_kinds = self._crash, self._freeze, self._jump, self._restart, self._arm, self._squeeze
        kinds = [kind for kind in all_kinds if chance.random() < 0.8]
        while kinds:
            await asyncio.sleep(chance.choice((0.05, 0.3, 0.6, 1.2)))
            life = self.pick(chance)
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
        self.ledger.clock_set()
        self.ledger.say(f"the clock is set by {seconds} s")

    def _restart(self, life: Life, _chance: random.Random) -> None:
        life.leave.set()

    def _arm(self, life: Life, chance: random.Random) -> None:
        life.armed += [chance.choice(("lost", "lost", "before", "after", "busy", "slow", "slow"))] * chance.randint(
            1, 2
        )

    def _squeeze(self, _life: Life, chance: random.Random) -> None:
        self.squeezed = chance.random() < 0.5
        self.ledger.say("memory is short" if self.squeezed else "there is memory")

    def begun(self, life: Life, worker: str, call: StepCall) -> None:
        """A body begins in this process; of some the process dies."""
        self.ledger.begun(life.name, worker, call)
        if call.step.name == "lethal":
            label, times = call.args
            key = call.activation.row.number, label
            self.kills[key] += 1
            if self.kills[key] <= times:
                self.loop.call_later(0.05, life.crash, f"of {call.activation.row.id}")

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
            self.ledger.say(f"log: {record.getMessage().splitlines()[0]}")


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
    """Hear of bodies and of the log; leave out threads and the memory of the real process; cut things into pieces."""
    begin, logger, listener = Bodies._begin, logging.getLogger("holdfast"), _Listener(simulation)

    def begun(bodies: Bodies, body: Body, now: int) -> None:
        begin(bodies, body, now)
        for life in simulation.lives:
            if life.world is bodies._world and not life.edge.dead:
                simulation.begun(life, body.run.executor.worker, body.call)

    seams: list[tuple[Any, str, Any]] = [
        (Bodies, "_begin", begun),
        (bodies_module, "StepThreads", SimStepThreads),
        (worker_module, "Watchdog", _NoWatchdog),
        (memory_module, "resident_bytes", lambda: MEMORY_MAX + simulation.squeezed),
        (logger, "propagate", False),
    ]
    if (bound := simulation.setting.bounds) is not None:
        seams += [(executor_module, "REPLAY_CHUNK", bound), (dispatcher_module, "CLAIM_MAX", bound)]
        seams += [(dispatcher_module, "ADOPTED_A_TURN", bound), (pruning_module, "RUNS_AT_ONCE", bound)]
        seams += [(prune_module, "CHUNK_RUNS", bound), (prune_module, "CHUNK_ENTRIES", bound)]
        seams += [(timers_module, "RUNG_MAX", bound), (engine_module, "STARTS_PER_TURN", bound)]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in seams]
    logger.addHandler(listener)
    for owner, name, value in seams:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
        logger.removeHandler(listener)
