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

A lease that has lapsed while nobody has noticed is simply renewed. Until then no body begins here (see `bodies.py`).
One that cannot be renewed because this worker was declared dead is its end: the journal breaks, and `identity.py` goes
on.

A run whose code did not match its history was blocked by some worker. Another worker may have the code that fits, so it
takes such runs itself. One that does not match here either is blocked again, and this worker remembers that for as long
as it has not replayed the run after all. So while workers of two releases are about, a run goes back to those that it
fits however often the others find it. A new process may have new code; it begins to try anew.

**Poison.** Burying a worker counts a crash for each run that it held, in the transaction that takes them over: one more
than before, or the first again if the run has recorded an outcome or an attempt since its last crash. The n-th in a row
blocks it.
That alone would block the innocent with the guilty, since a process takes down all the runs that it holds. So from the
third crash on a run is a suspect, and `probation.py` tries suspects one at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from holdfast._model.failures import encode_failure
from holdfast._model.records import Buried, RunsUnblocked, WorkerBuried
from holdfast._runtime.dispatcher import CLAIM_MAX, Dispatcher
from holdfast._runtime.events import ENGINE_LOG
from holdfast._runtime.executor import Executor
from holdfast._runtime.options import LeaseOptions
from holdfast._runtime.service import Ticker
from holdfast._runtime.told import log_poisoned
from holdfast._store.journal import Journal
from holdfast._store.port import Store
from holdfast._world import World
from holdfast.errors import Fenced, RunPoisoned

CLOCK_JUMP_US: Final = 5_000_000
"""By how much the wall clock may move against the event loop's before it counts as a jump."""
WORKERS_KEPT_US: Final = 7 * 86_400 * 1_000_000
"""How long the row of a worker that is gone is kept."""
LOCK_SPARED_US: Final = 60_000_000
"""How long a lock file may be without a row: its process is about to enter it."""


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
        poison_after: int | None,
        executor: Executor,
        dispatcher: Dispatcher,
        workflows: Callable[[], tuple[str, ...]],
    ) -> None:
        self._worker = worker
        self._store = store
        self._journal = journal
        self._world = world
        self._options = options
        self._poison_after = poison_after
        self._executor = executor
        self._dispatcher = dispatcher
        self._workflows = workflows
        self._renewed_at = 0.0
        self._clock_ahead = 0.0
        self._steady_since = 0.0
        self._renew = Ticker("lease", period=options.seconds / 3, turn=self._renew_lease, on_fault=journal.fail)
        self._sweep = Ticker("recovery", period=options.sweep_seconds, turn=self.sweep, on_fault=journal.fail)

    async def start(self) -> None:
        """Enter this worker and take over from the dead."""
        now = self._world.now_us()
        until = self._lease_until(now)
        await self._store.register_worker(self._worker, now=now, lease_until=until, workflows=self._known())
        self._journal.worker = self._worker
        self._stands(until)
        self._executor.bodies.on_lapsed = self._renew.poke
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
        for dead in await self._store.dead_workers(now=self._trusted_now()):
            await self._bury(dead)
        tried, room = tuple(self._executor.blocked), min(self._executor.room, CLAIM_MAX)
        if room > 0 and await self._store.has_blocked(self._worker, self._workflows(), tried=tried):
            now = self._world.now_us()
            await self._dispatcher.take(RunsUnblocked(self._worker, self._workflows(), tried, room, now))

    async def _bury(self, dead: str) -> None:
        after = self._poison_after
        error = None if after is None else encode_failure(_poisoned(after))
        buried: Buried = await self._journal.write(WorkerBuried(dead, self._world.now_us(), after, error))
        await self._store.buried(dead)
        if buried.was_live:
            ENGINE_LOG.warning("worker %s is dead; what it left unfinished goes on here", dead)
        for run_id, workflow in buried.poisoned:
            log_poisoned(run_id, workflow, after or 0)
        if buried.orphans:
            self._dispatcher.poke()

    @property
    def away_seconds(self) -> float:
        """How long ago the lease was renewed."""
        return asyncio.get_running_loop().time() - self._renewed_at

    async def _renew_lease(self) -> None:
        now = self._world.now_us()
        until = self._lease_until(now)
        if not await self._store.renew_lease(self._worker, lease_until=until, workflows=self._known()):
            self._journal.fail(Fenced(f"worker {self._worker} was declared dead by another worker"))
            return
        self._stands(until)
        await self._store.forget_workers(before=now - WORKERS_KEPT_US)
        await self._store.sweep_locks(before=now - LOCK_SPARED_US)

    def _stands(self, until: int) -> None:
        """The lease is good until then: bodies may begin."""
        self._renewed_at = asyncio.get_running_loop().time()
        self._executor.bodies.renewed(until)

    def _known(self) -> list[str]:
        """What others see of the workflows."""
        return sorted(self._workflows())

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


def _poisoned(after: int) -> RunPoisoned:
    return RunPoisoned(
        f"its worker died with it {after} times in a row, and nothing was recorded in between",
        hint=f"look behind its last entry for what it was at; `holdfast resume ID` gives it another {after} tries",
    )
