"""Parking: a run that waits long leaves memory and is only rows, until something wakes it.

A run is quiet when nothing of it is under way: no body, no record. After a grace time it is parked; what it waits for
is in its rows by then (running timers, delayed attempts), and so is the instant at which it must wake.
"""

from __future__ import annotations

from typing import Final

from holdfast._model.records import RunParked
from holdfast._runtime.executor import Executor
from holdfast._runtime.liverun import LiveRun
from holdfast._runtime.service import Ticker
from holdfast._world import World

PERIOD_SECONDS: Final = 0.5


class Parking:
    """Parks the quiet runs of one executor.

    Args:
        after: seconds that a run may be quiet in memory.
    """

    def __init__(self, executor: Executor, *, world: World, after: float) -> None:
        self._executor = executor
        self._world = world
        self._after_us = int(after * 1_000_000)
        self._ticker = Ticker("parking", period=PERIOD_SECONDS, turn=self._turn)

    async def start(self) -> None:
        """Begin."""
        await self._ticker.start()

    async def stop(self) -> None:
        """End."""
        await self._ticker.stop()

    async def _turn(self) -> None:
        self.park_quiet()

    def park_quiet(self) -> None:
        """Park the runs that have been quiet for long enough."""
        now = self._world.now_us()
        for run in list(self._executor.live.values()):
            if run.quiet_since is None or run.quiet_since > now - self._after_us or run.leaving is not None or run.gone:
                continue
            due = _due_at(run)
            if due is None or due > now:
                self._executor.leave(run, self._parked)

    def _parked(self, run: LiveRun) -> RunParked:
        return RunParked(run.row.number, self._executor.worker, _due_at(run))


def _due_at(run: LiveRun) -> int | None:
    dues = [due for due in (run.activation.next_due_us(), run.row.deadline_at) if due is not None]
    return min(dues, default=None)
