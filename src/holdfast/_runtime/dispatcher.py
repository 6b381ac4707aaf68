"""The dispatcher: brings due runs into this worker, as many as it has room for.

It claims when it may find something: at the start, when a run became ready here, when another process has written, when
a parked or scheduled run is due, when room appears while there was a backlog, and once a second in any case. A look
costs a short read; only when that finds something is a claim (a write) made. Claims are decided inside one transaction,
so two workers never get the same run.

**Waking is spread.** A million timers may be due at once. A claim makes only as many due runs ready as it can take, and
at most half of its places go to them while other runs are ready: new work waits for a few claims, not for the million.
Where the worker is full and others wait, quiet runs that do not wake soon are asked to leave (`parking.py`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from holdfast._model.lifecycle import SUSPECT_AFTER
from holdfast._model.records import RunReleased, RunRow, RunsClaimed, RunsUnblocked
from holdfast._runtime.executor import Executor
from holdfast._runtime.service import Ticker
from holdfast._runtime.told import log_suspect
from holdfast._store.journal import Journal
from holdfast._store.port import Store
from holdfast._world import World

POLL_SECONDS: Final = 1.0
CLAIM_MAX: Final = 200
"""Runs in one claim; more follow in the next. Larger claims are no faster, and others wait longer for their turn."""
LOOK_US_MIN: Final = 10_000
LOOK_US_A_RUN: Final = 50
"""How long until the next look for quiet runs in a full worker; a look costs far less than this for each run."""
ADOPTED_A_TURN: Final = 50
"""Runs brought into memory before the event loop gets a turn."""


class Dispatcher:
    """Claims runs for one executor.

    Args:
        workflows: the names that this worker knows.
        make_room: called when runs wait for a place while there is none.
    """

    def __init__(
        self,
        *,
        store: Store,
        journal: Journal,
        executor: Executor,
        world: World,
        workflows: Callable[[], tuple[str, ...]],
        make_room: Callable[[], object],
    ) -> None:
        self._store = store
        self._journal = journal
        self._executor = executor
        self._world = world
        self._workflows = workflows
        self._make_room = make_room
        self._claims = 0
        self._backlog = False
        self._next_due: int | None = None
        self._cancel_alarm: Callable[[], None] | None = None
        self._cancel_look: Callable[[], None] | None = None
        self._ticker = Ticker("dispatcher", period=POLL_SECONDS, turn=self._turn, on_fault=journal.fail)

    async def start(self) -> None:
        """Begin with what is ready now."""
        await self._ticker.start()

    async def stop(self) -> None:
        """Claim nothing more."""
        for cancel in (self._cancel_alarm, self._cancel_look):
            if cancel is not None:
                cancel()
        await self._ticker.stop()

    def poke(self) -> None:
        """Something may be ready."""
        self._ticker.poke()

    def room_appeared(self) -> None:
        """A run has left memory."""
        if self._backlog:
            self._ticker.poke()

    def queued(self) -> None:
        """A run was put into the database because there was no room for it."""
        self._backlog = True

    def due(self, at_us: int) -> None:
        """A run that is only rows is due at this instant."""
        if self._next_due is None or at_us < self._next_due:
            self._next_due = at_us
            if self._cancel_alarm is not None:
                self._cancel_alarm()
            self._cancel_alarm = self._world.call_later(max(at_us - self._world.now_us(), 0), self._rung)

    def _rung(self) -> None:
        self._next_due = self._cancel_alarm = None
        self._ticker.poke()

    async def _turn(self) -> None:
        self._executor.timers.look()
        for number, request in await self._store.requests_of(self._executor.worker):
            self._executor.request_soon(number, request)
        await self._claim_all()
        due = await self._store.next_due()
        full = self._executor.room <= 0
        self._backlog = self._backlog or full
        if full and await self._something_is_ready():
            self._make_room()
            self._look_again()
        if due is not None and not (full and due <= self._world.now_us()):
            self.due(due)

    async def _claim_all(self) -> None:
        """Claim while there is room and something to claim. What one claim brought is adopted during the next."""
        adopting: asyncio.Task[None] | None = None
        try:
            while self._executor.room > 0 and await self._something_is_ready():
                limit = min(self._executor.room, CLAIM_MAX)
                rows = await self._claim(limit)
                before, adopting = adopting, asyncio.create_task(self._adopt(rows))
                if before is not None:
                    await before
                self._backlog = len(rows) == limit
                if not self._backlog:
                    break
        finally:
            if adopting is not None:
                await adopting

    def _look_again(self) -> None:
        """More runs of the full worker may fall quiet; nobody tells us when."""
        if self._cancel_look is None:
            delay_us = max(LOOK_US_MIN, LOOK_US_A_RUN * len(self._executor.live))
            self._cancel_look = self._world.call_later(delay_us, self._looked)

    def _looked(self) -> None:
        self._cancel_look = None
        self._ticker.poke()

    async def _something_is_ready(self) -> bool:
        due = await self._store.next_due()
        return (due is not None and due <= self._world.now_us()) or await self._store.has_ready(self._workflows())

    async def _claim(self, limit: int) -> tuple[RunRow, ...]:
        """Claim once. The places of what it brings are reserved until `_adopt` has filled them."""
        self._claims += 1
        wakes = (limit + self._claims % 2) // 2  # half, and of single places every other one
        rows: tuple[RunRow, ...] = await self._journal.write(
            RunsClaimed(self._executor.worker, self._workflows(), limit, self._world.now_us(), wakes)
        )
        self._executor.reserved += len(rows)
        return rows

    async def take(self, claim: RunsClaimed | RunsUnblocked) -> tuple[RunRow, ...]:
        """Claim what the record says, and bring it into memory before this returns."""
        rows: tuple[RunRow, ...] = await self._journal.write(claim)
        self._executor.reserved += len(rows)
        for row in rows:
            if row.crashes >= SUSPECT_AFTER:
                log_suspect(row)  # before it is executed, which may be the last thing that this process does
        await self._adopt(rows)
        return rows

    async def _adopt(self, rows: tuple[RunRow, ...]) -> None:
        """Hand claimed runs to the executor, with turns for others in between."""
        left = deque(rows)
        try:
            old = [row.number for row in rows if row.has_history]
            histories = await self._store.histories(old) if old else {}
            while left:
                for _ in range(min(len(left), ADOPTED_A_TURN)):
                    row = left.popleft()
                    self._executor.reserved -= 1
                    self._executor.adopt_soon(row, histories.pop(row.number, ()))
                await asyncio.sleep(0)
        finally:
            self._executor.reserved -= len(left)
            for row in left:  # they are ours, but cannot be executed now: give them back
                self._journal.append(RunReleased(row.number, self._executor.worker), _ignore)


def _ignore(_outcome: object, _error: BaseException | None) -> None:
    """Whether this is stored or not: the end of this worker gives its runs back in any case."""
