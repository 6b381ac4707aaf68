"""Recovery: this worker's lease, and the runs of workers that are dead.

A worker is alive while it holds the lock on its file and renews its lease. Whoever finds it dead declares it so and
takes its runs, in one transaction (`WorkerBuried`); from that commit on every batch of the dead one is refused. A
worker that merely starts takes nothing from one that lives.

A free lock is proof of death. A lapsed lease is only as good as the clock: when that jumps forward by a day, every
lease has lapsed. So leases are judged only by a worker that has seen the wall clock keep pace with the event loop's own
for a whole lease; by then whoever lives has renewed under the new time.

Nor does a lapsed lease mean anything while nobody can write: the disk is full, or a foreign program holds the file.
Whoever could not renew its own lease in time knows that, and judges others only after a whole lease in which it could.
(Two workers on a file that was locked for 30 s declared each other dead.)

A run whose code did not match its history was blocked by some worker. Another worker may have the code that fits, so it
puts such runs back to ready; the worker that blocked a run never tries it again by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from holdfast._model.records import RunsUnblocked, WorkerBuried
from holdfast._runtime.events import ENGINE_LOG
from holdfast._runtime.options import LeaseOptions
from holdfast._runtime.service import Ticker
from holdfast._store.journal import Journal
from holdfast._store.port import Store
from holdfast._world import World
from holdfast.errors import Fenced, StoreError

CLOCK_JUMP_US: Final = 5_000_000
"""By how much the wall clock may move against the event loop's before it counts as a jump."""
WORKERS_KEPT_US: Final = 7 * 86_400 * 1_000_000
"""How long the row of a worker that is gone is kept."""


class Recovery:
    """Keeps one worker's lease and buries others."""

    def __init__(
        self,
        *,
        worker: str,
        store: Store,
        journal: Journal,
        world: World,
        options: LeaseOptions,
        workflows: Callable[[], tuple[str, ...]],
        on_ready: Callable[[], object],
    ) -> None:
        self._worker = worker
        self._store = store
        self._journal = journal
        self._world = world
        self._options = options
        self._workflows = workflows
        self._on_ready = on_ready
        self._renewed_at = 0.0
        self._clock_ahead = 0.0
        self._steady_since = 0.0
        self._renew = Ticker("lease", period=options.seconds / 3, turn=self._renew_lease)
        self._sweep = Ticker("recovery", period=options.sweep_seconds, turn=self.sweep)

    async def start(self) -> None:
        """Enter this worker and take over from the dead."""
        now = self._world.now_us()
        await self._store.register_worker(self._worker, now=now, lease_until=self._lease_until(now))
        self._journal.worker = self._worker
        self._renewed_at = asyncio.get_running_loop().time()
        await self.sweep()
        await self._renew.start()
        await self._sweep.start()

    async def stop(self) -> None:
        """Stop renewing. The lease is given back by `leave`, after the runs are."""
        await self._sweep.stop()
        await self._renew.stop()

    async def leave(self) -> None:
        """This worker holds nothing any more and is gone."""
        self._journal.worker = None
        await self._store.leave(self._worker, now=self._world.now_us())

    async def sweep(self) -> None:
        """Take over from the dead, and try what others could not replay."""
        found = 0
        for dead in await self._store.dead_workers(now=self._trusted_now()):
            orphans = await self._journal.write(WorkerBuried(dead, self._world.now_us()))
            await self._store.buried(dead)
            ENGINE_LOG.warning("worker %s is dead; what it left unfinished goes on here", dead)
            found += orphans
        if await self._store.has_blocked(self._worker, self._workflows()):
            found += await self._journal.write(RunsUnblocked(self._worker, self._workflows()))
        if found:
            self._on_ready()

    async def _renew_lease(self) -> None:
        now = self._world.now_us()
        try:
            stands = await self._store.renew_lease(self._worker, lease_until=self._lease_until(now))
            await self._store.forget_workers(before=now - WORKERS_KEPT_US)
        except StoreError as error:
            if not error.retryable:  # a failed sync: nobody knows what is on the disk
                self._journal.fail(error)
            raise
        if not stands:
            self._journal.fail(Fenced(f"worker {self._worker} was declared dead by another worker"))
        self._renewed_at = asyncio.get_running_loop().time()

    def _trusted_now(self) -> int:
        """The time to judge leases by: the clock's, or the beginning of time while leases say nothing."""
        now, ticks = self._world.now_us(), asyncio.get_running_loop().time()
        if ticks - self._renewed_at > self._options.seconds / 2:
            self._steady_since = ticks
        if abs(now - ticks * 1_000_000 - self._clock_ahead) > CLOCK_JUMP_US:
            self._clock_ahead = now - ticks * 1_000_000
            self._steady_since = ticks
        return now if ticks - self._steady_since >= self._options.seconds else 0

    def _lease_until(self, now: int) -> int:
        return now + int(self._options.seconds * 1_000_000)
