"""Parking: a run that waits long leaves memory and is only rows, until something wakes it.

A run is quiet when nothing of it is under way: no body, no record. What it waits for is in its rows once it is parked
(running timers, delayed attempts), and so is the instant at which it must wake. Parking costs a write and a replay, so
a run is given a grace time first. It is parked earlier where its place is wanted:

    quiet for `park_after`                 parked
    more quiet runs than `runs_cached_max` those that wake last are parked, down to the bound
    the worker is full and others wait     those that wake last are parked, unless they wake within a second
    memory is short                        every quiet run is parked

**What a crash can meet.** The entries of what the run waits for and `RunParked` are appended together, in the order of
the run, so they share a batch or follow each other. Dying before that commit, the run is a dead worker's and is taken
over; dying after it, the row says when to wake. The coroutine is closed when the record is appended, not when it is
durable; that is safe because closing has no recorded effect: the user's `finally` blocks run, and every durable
operation in them refuses (`RunClosing`).
"""

from __future__ import annotations

from typing import Final

from holdfast._model.records import RunParked
from holdfast._runtime.events import ENGINE_LOG
from holdfast._runtime.executor import Executor
from holdfast._runtime.liverun import LiveRun
from holdfast._runtime.memory import Memory
from holdfast._runtime.options import ExecutorOptions
from holdfast._runtime.service import Ticker
from holdfast._world import World

PERIOD_SECONDS: Final = 0.5
SOON_US: Final = 1_000_000
"""A run that wakes so soon keeps its place even when others want it."""
FOREVER_US: Final = 1 << 62
ROOM_MADE_MAX: Final = 200
"""Runs parked at once to make room: as many as one claim brings."""


class Parking:
    """Parks the quiet runs of one executor.

    Args:
        memory: whether it is short.
    """

    def __init__(self, executor: Executor, *, world: World, options: ExecutorOptions, memory: Memory) -> None:
        self._executor = executor
        self._world = world
        self._after_us = int(options.park_after * 1_000_000)
        self._cached_max = options.runs_cached_max
        self._memory = memory
        self._is_short = False
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
        """Park the runs that have been quiet for long enough, and more where memory is short."""
        now = self._world.now_us()
        since = now if self._memory_is_short() else now - self._after_us
        cached: list[tuple[int, LiveRun]] = []
        for due, run, quiet_since in self._quiet(now):
            if quiet_since <= since:
                self._executor.leave(run, self._parked)
            else:
                cached.append((due, run))
        if len(cached) > self._cached_max:
            self._park_last(cached, len(cached) - self._cached_max)

    def make_room(self) -> None:
        """Others wait for a place in memory: park quiet runs that do not wake soon."""
        now = self._world.now_us()
        self._park_last([(due, run) for due, run, _ in self._quiet(now) if due > now + SOON_US], ROOM_MADE_MAX)

    def _quiet(self, now: int) -> list[tuple[int, LiveRun, int]]:
        """The runs that could be parked, each with when it wakes and since when it is quiet."""
        quiet: list[tuple[int, LiveRun, int]] = []
        for run in self._executor.live.values():
            if run.quiet_since is None or run.leaving is not None or run.gone:
                continue
            due = due_at(run)
            if due is None or due > now:
                quiet.append((FOREVER_US if due is None else due, run, run.quiet_since))
        return quiet

    def _park_last(self, quiet: list[tuple[int, LiveRun]], count: int) -> None:
        quiet.sort(key=lambda pair: pair[0], reverse=True)
        for _, run in quiet[:count]:
            self._executor.leave(run, self._parked)

    def _parked(self, run: LiveRun) -> RunParked:
        # Told to stop while it was about to leave, it may have bodies to start: it comes back at once.
        due = self._world.now_us() if run.held else due_at(run)
        return RunParked(run.row.number, self._executor.worker, due, run.activation.cancel_kind is not None)

    def _memory_is_short(self) -> bool:
        was_short, self._is_short = self._is_short, self._memory.is_short()
        if self._is_short and not was_short:
            ENGINE_LOG.warning(
                "memory is short (more than %d MB in use): runs that wait are parked at once",
                self._memory.bytes_max // 1_000_000,
            )
        return self._is_short


def due_at(run: LiveRun) -> int | None:
    """When a run must be in memory again, or none. A deadline that it has been told of does not count any more."""
    deadline = run.row.deadline_at if run.activation.cancel_kind is None else None
    dues = [due for due in (run.activation.next_due_us(), deadline) if due is not None]
    return min(dues, default=None)
