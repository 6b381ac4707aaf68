"""The retention service: what has been kept long enough goes, so that the file stops growing.

It looks seldom (each minute, oftener for retentions of seconds), works in small batches with pauses, and says in one
line what it has removed. Each worker has one. Two that sweep at once disturb each other as little as any two writers:
a batch chooses its runs inside its own transaction, so they find different ones, and the later one finds nothing.

**Space.** Before it prunes, a turn gives back what was free already: that is, what a whole period of load did not need.
Under steady load the next runs take what the last sweep freed, and the file neither shrinks nor grows. After a load
that does not come back, or a large prune, a period later the file shrinks, but for `KEPT_FREE_BYTES` or a tenth.

**The clock.** Ages are judged by the wall clock, and that may leap: by a year, because of one wrong answer of a time
server, and everything that has ended would be gone. So the service prunes only while it trusts the clock:

- At its start, if the youngest run was created less than `IDLE_TRUSTED_US` ago, so that the clock agrees with whoever
  wrote last. (A database that nobody has used for longer looks the same as a clock that has leapt.)
- From then on as long as the wall clock keeps pace with the event loop's own, but for a tenth of the shortest
  retention: that error is one that retention itself can bear, and a laptop that has slept is no reason to stop.
- After a leap, or without that agreement, once it has kept pace for `SETTLE_SECONDS`, or for as long as the shortest
  retention if that is less. A warning tells of it, so there is an hour to set the clock right.

What remains: a clock that is wrong for longer than that is believed, and so is one that is wrong by less than a month
when a worker starts. A clock that is *behind* prunes late, never early.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from holdfast._model.retention import Retention
from holdfast._model.search import RunQuery
from holdfast._runtime.events import ENGINE_LOG
from holdfast._runtime.pruning import Sweep, compact, due
from holdfast._runtime.service import Ticker
from holdfast._store.journal import Journal
from holdfast._store.port import Store
from holdfast._world import World

PERIOD_SECONDS: Final = 60.0
PERIOD_SECONDS_MIN: Final = 0.5
PERIODS_IN_RETENTION: Final = 10
SHARE: Final = 0.25
"""Of the time in which the database can be written."""
KEPT_FREE_BYTES: Final = 64 * 1024 * 1024
IDLE_TRUSTED_US: Final = 31 * 86_400 * 1_000_000
SETTLE_SECONDS: Final = 3_600.0
LEAP_SECONDS_MIN: Final = 5.0
LEAP_SHARE: Final = 10


class RetentionService:
    """Applies a worker's `Retention`."""

    def __init__(self, *, store: Store, journal: Journal, world: World, policy: Retention) -> None:
        self._store = store
        self._journal = journal
        self._world = world
        self._policy = policy
        shortest = (policy.shortest or timedelta.max).total_seconds()
        self._clock = TrustedClock(world, shortest=shortest)
        period = min(PERIOD_SECONDS, max(PERIOD_SECONDS_MIN, shortest / PERIODS_IN_RETENTION))
        self._ticker = Ticker("retention", period=period, turn=self.turn, on_fault=journal.fail)

    async def start(self) -> None:
        """Begin; with a policy that keeps everything there is nothing to do."""
        if self._policy.shortest is not None:
            await self._ticker.start()

    async def stop(self) -> None:
        """End, after the batch under way."""
        if self._policy.shortest is not None:
            await self._ticker.stop()

    async def turn(self) -> None:
        """Give back what was not needed, then remove what is due."""
        if self._journal.broken is not None:
            return
        if not self._clock.has_looked:
            self._clock.look_first(newest=await self._newest())
        await compact(self._store, keep=KEPT_FREE_BYTES, share=SHARE)
        now = self._clock.now()
        if now is not None:
            await self._prune(now)

    async def _prune(self, now: int) -> None:
        cutoffs = due(await self._store.ended_groups(), age=self._policy.age, now=now)
        if not cutoffs and not await self._store.is_pruning():
            return
        sweep = Sweep(self._journal, cutoffs, share=SHARE)
        try:
            await sweep.work()
        finally:
            removed = sweep.so_far()
            if removed.runs or removed.entries:
                ENGINE_LOG.info("retention: runs removed: %s, their entries: %s", removed.runs, removed.entries)

    async def _newest(self) -> int | None:
        """When the run was created that was written last, whatever the clock said for others."""
        newest = await self._store.list_runs(RunQuery(as_written=True), limit=1)
        return newest[0].created_at if newest else None


class TrustedClock:
    """The wall clock, while there is reason to believe it: see above.

    Args:
        shortest: seconds, the shortest retention.
    """

    def __init__(self, world: World, *, shortest: float) -> None:
        self.has_looked = False
        self._world = world
        self._settle = min(SETTLE_SECONDS, shortest)
        self._leap_us = max(LEAP_SECONDS_MIN, shortest / LEAP_SHARE) * 1_000_000
        self._ahead = 0.0
        self._trusted_from = 0.0

    def look_first(self, *, newest: int | None) -> None:
        """Compare with the instant at which the youngest run was created, where there is one."""
        now, ticks = self._look()
        self.has_looked = True
        self._ahead = now - ticks * 1_000_000
        if newest is not None and now - newest > max(IDLE_TRUSTED_US, self._leap_us):
            self._doubt(ticks, f"nothing has happened here since {(now - newest) // 86_400_000_000} days")

    def now(self) -> int | None:
        """The instant to judge ages by, or none for the time being."""
        now, ticks = self._look()
        leap_us = now - ticks * 1_000_000 - self._ahead
        self._ahead += leap_us
        if abs(leap_us) > self._leap_us:
            self._doubt(ticks, f"the clock has leapt by {leap_us / 1_000_000:+,.0f} s")
        return now if ticks >= self._trusted_from else None

    def _doubt(self, ticks: float, why: str) -> None:
        self._trusted_from = ticks + self._settle
        ENGINE_LOG.warning(
            "retention: %s; nothing is removed for %g s, in case the clock is wrong: look at it", why, self._settle
        )

    def _look(self) -> tuple[int, float]:
        return self._world.now_us(), asyncio.get_running_loop().time()
