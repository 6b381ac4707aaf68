"""Drives the demo: starts provider and runs, kills the worker and starts another, waits for the end, audits.

It looks at the work the way anybody could: with a read-only `sqlite3` connection and the documented tables. The moments
of the kills are shares of the work, drawn by the seed, plus a few random milliseconds: so they fall on the way on a
slow machine as on a fast one, and anywhere between a request and the commit that records its answer.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

from holdfast import Start
from holdfast.cli.demo import provider
from holdfast.cli.demo.app import PORT_VARIABLE, SEED_VARIABLE, STEPS, fulfil, make_app
from holdfast.cli.demo.audit import Audit, audit
from holdfast.cli.demo.children import Child
from holdfast.cli.demo.orders import Order
from holdfast.cli.demo.screen import Screen

DATABASE: Final = "orders.db"
LEDGER: Final = "ledger.jsonl"
WORKER_LOG: Final = "worker.log"
PROVIDER_LOG: Final = "provider.log"
KILLS_MAX: Final = 100
LOOK_SECONDS: Final = 0.04
LOOK_SHARE_MAX: Final = 0.1
"""Looking may take this share of the time; with a huge order file there are fewer looks."""
KILL_DELAY_SECONDS: Final = 0.05
START_SECONDS: Final = 20.0
LEAVE_SECONDS: Final = 15.0
STALL_SECONDS: Final = 30.0
_STEPS_SQL: Final = (
    "select name, count(*) from holdfast_history where kind = 'step' and state = 'succeeded' group by name"
)
_STATES_SQL: Final = "select state, count(*) from holdfast_runs group by state"


class Look(NamedTuple):
    """One look at the database.

    Attributes:
        steps: finished steps, by name.
        states: runs, by state.
    """

    steps: Mapping[str, int]
    states: Mapping[str, int]

    @property
    def steps_total(self) -> int:
        """Finished steps."""
        return sum(self.steps.values())

    @property
    def ended(self) -> int:
        """Runs that have ended, however. A blocked run will not move any more either."""
        return sum(self.states.get(state, 0) for state in ("succeeded", "failed", "cancelled", "blocked"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What happened.

    Attributes:
        audit: the final check.
        orders: orders in the file.
        kills: workers that were killed.
        resumed: runs that a killed worker had in its hands, summed over the kills; all of them were taken over.
        seconds: from the first worker's start to the last run's end, restarts included.
    """

    audit: Audit
    orders: int
    kills: int
    resumed: int
    seconds: float


class Drive:
    """One demo.

    Args:
        orders: the order book.
        folder: where database, ledger and logs are kept; it must be empty.
        kills: how often a worker is to be killed.
        seed: decides failures, delays and the moments of the kills.
        screen: where it is shown.
    """

    def __init__(self, orders: Sequence[Order], *, folder: Path, kills: int, seed: int, screen: Screen) -> None:
        self._orders = orders
        self._folder = folder
        self._seed = seed
        self._screen = screen
        self._chance = random.Random(seed)
        self._thresholds = self._kill_thresholds(kills)
        self._kills = kills
        self._children: list[Child] = []
        self._resumed = 0
        self._environment = dict(os.environ)

    async def run(self) -> Outcome:
        """Run it from beginning to end. Whatever happens, no child is left when this returns or raises.

        Raises:
            ChildFailed: a child ended by itself, or the work stands still.
            StoreError: the database cannot be used.
        """
        loop = asyncio.get_running_loop()
        try:
            service = await self._start_provider()
            await self._start_runs()
            began = loop.time()
            worker = await self._start_worker(1)
            self._screen.event(f"{worker.name} starts (pid {worker.pid})")
            with closing(self._connect()) as connection:
                worker, kills = await self._work(connection, worker)
            seconds = loop.time() - began
            await worker.dismiss(LEAVE_SECONDS)
            await service.dismiss(LEAVE_SECONDS)
        finally:
            await self._kill_children()
        self._screen.event("every order has ended, worker and provider have left; the audit")
        return Outcome(
            audit=audit(self._orders, database=self._folder / DATABASE, ledger=self._folder / LEDGER),
            orders=len(self._orders),
            kills=kills,
            resumed=self._resumed,
            seconds=seconds,
        )

    async def _start_provider(self) -> Child:
        program, ledger = provider.__file__, str(self._folder / LEDGER)
        child = await Child.start(
            "payment provider",
            *("-I", program, ledger, str(self._seed)),
            log=self._folder / PROVIDER_LOG,
            environment=self._environment,
            answers=True,
        )
        self._children.append(child)
        port = await child.first_line(START_SECONDS)
        self._environment |= {PORT_VARIABLE: port, SEED_VARIABLE: str(self._seed)}
        self._screen.event(f"the payment provider is up (pid {child.pid}), with a ledger of its own")
        return child

    async def _start_runs(self) -> None:
        async with make_app(self._folder / DATABASE).client() as client:
            await client.start_many(Start(fulfil, order, id=order.order_id) for order in self._orders)
        self._screen.event(f"{len(self._orders):,} runs are in the database; nobody executes them yet")

    async def _start_worker(self, number: int) -> Child:
        child = await Child.start(
            f"worker {number}",
            *("-P", "-m", "holdfast.cli.demo.worker", str(self._folder / DATABASE), str(self._folder / WORKER_LOG)),
            log=self._folder / WORKER_LOG,
            environment=self._environment,
        )
        self._children.append(child)
        return child

    async def _work(self, connection: sqlite3.Connection, worker: Child) -> tuple[Child, int]:
        """Watch until every run has ended; kill and restart on the way. Returns the last worker and the kills."""
        loop = asyncio.get_running_loop()
        kills, moved_at, before = 0, loop.time(), -1
        while True:
            looked_at = loop.time()
            look = _look(connection)
            self._show(look, worker, kills)
            if look.ended >= len(self._orders):
                return worker, kills
            self._check_alive(worker)
            if look.steps_total != before:
                before, moved_at = look.steps_total, looked_at
            elif looked_at - moved_at > STALL_SECONDS:
                raise worker.failure(f"has recorded nothing for {STALL_SECONDS:g} s")
            if kills < self._kills and look.steps_total >= self._thresholds[kills]:
                kills += 1
                worker = await self._replace(connection, worker, kills)
                continue
            await asyncio.sleep(max(LOOK_SECONDS, (loop.time() - looked_at) / LOOK_SHARE_MAX))

    async def _replace(self, connection: sqlite3.Connection, worker: Child, kills: int) -> Child:
        """Kill this worker at a random moment from now, start the next, and see it go on."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._chance.uniform(0, KILL_DELAY_SECONDS))
        self._check_alive(worker)
        await worker.kill()
        killed_at, look = loop.time(), _look(connection)
        held = look.states.get("running", 0)
        self._resumed += held
        self._screen.event(f"kill -9 {worker.pid}: {worker.name} dies with {held} orders in its hands", kill=True)
        following = await self._start_worker(kills + 1)
        while (now := _look(connection)).steps_total == look.steps_total and now.ended < len(self._orders):
            self._show(now, following, kills)
            self._check_alive(following)
            if loop.time() - killed_at > STALL_SECONDS:
                raise following.failure(f"does not go on within {STALL_SECONDS:g} s")
            await asyncio.sleep(LOOK_SECONDS)
        seconds = loop.time() - killed_at
        self._screen.event(f"{following.name} (pid {following.pid}) goes on {seconds:.2f} s after the kill")
        return following

    def _show(self, look: Look, worker: Child, kills: int) -> None:
        self._screen.progress(look.steps, ended=look.ended, worker=worker.name, kills=(kills, self._kills))

    def _check_alive(self, worker: Child) -> None:
        for child in (self._children[0], worker):  # the provider is the first
            if child.has_ended:
                raise child.failure("ended by itself")

    async def _kill_children(self) -> None:
        for child in self._children:
            await child.kill()

    def _kill_thresholds(self, kills: int) -> list[float]:
        """Finished steps at which the kills are due: one in each of as many equal parts of the work."""
        steps = len(self._orders) * len(STEPS)
        bounds = [0.03 + 0.92 * part / max(kills, 1) for part in range(kills + 1)]
        return [steps * self._chance.uniform(low, low + (high - low) * 0.8) for low, high in pairwise(bounds)]

    def _connect(self) -> sqlite3.Connection:
        uri = f"file:{quote(str(self._folder / DATABASE))}?mode=ro"
        return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=LEAVE_SECONDS)


def _look(connection: sqlite3.Connection) -> Look:
    steps = dict(connection.execute(_STEPS_SQL).fetchall())
    return Look(steps=steps, states=dict(connection.execute(_STATES_SQL).fetchall()))
