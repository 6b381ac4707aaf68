"""Timers: what is due when, for the runs in memory. One heap, one callback of the event loop.

Instants are those of the wall clock, the callback comes after a span of the event loop's. If the clock is set forward
in between, as it also is when a computer wakes up, the dispatcher's slow poll notices what is overdue. If it is set
back, what waits goes on waiting until it has caught up.

Cancelled timers and departed runs leave their alarms behind; they are passed over when they ring, and swept out when
they may be the most of the heap (every step with a timeout leaves one).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Final, TypeAlias

from holdfast._flow.calls import StepCall
from holdfast._flow.loop import WorkflowTimer
from holdfast._runtime.liverun import LiveRun
from holdfast._world import World

Target: TypeAlias = WorkflowTimer | StepCall | None
"""A timer of the workflow, a step whose next attempt is due, or none for the run's deadline."""
UNCHECKED_MAX: Final = 10_000
"""Alarms kept before the first look for those that nobody awaits."""
RUNG_MAX: Final = 500
"""Alarms in one turn of the event loop; more follow in the next, so that new work is not held up."""
FULL_US: Final = 5_000
"""How long to wait when `ring` cannot take more."""


class Timers:
    """Rings for runs in memory.

    Args:
        ring: called with the run, what is due and the time; false when it cannot take it now.
    """

    def __init__(self, *, world: World, ring: Callable[[LiveRun, Target, int], bool]) -> None:
        self._world = world
        self._ring_for = ring
        self._alarms: list[tuple[int, int, LiveRun, Target]] = []
        self._number = count()
        self._checked_at = UNCHECKED_MAX
        self._planned_at: int | None = None
        self._cancel: Callable[[], None] | None = None

    def set(self, at_us: int, run: LiveRun, target: Target) -> None:
        """Ring at this instant."""
        heapq.heappush(self._alarms, (at_us, next(self._number), run, target))
        if len(self._alarms) > self._checked_at:
            self._sweep()
        self._plan()

    def look(self) -> None:
        """Ring what is overdue: the clock may have been set since the callback was planned."""
        if self._planned_at is not None and self._planned_at <= self._world.now_us():
            if self._cancel is not None:
                self._cancel()
            self._ring()

    def close(self) -> None:
        """Ring no more."""
        if self._cancel is not None:
            self._cancel()
        self._alarms.clear()

    def _plan(self, *, not_before: int = 0) -> None:
        if not self._alarms:
            return
        at_us = max(self._alarms[0][0], not_before)
        if self._planned_at is not None and self._planned_at <= at_us:
            return
        if self._cancel is not None:
            self._cancel()
        self._planned_at = at_us
        self._cancel = self._world.call_later(max(at_us - self._world.now_us(), 0), self._ring)

    def _ring(self) -> None:
        self._planned_at = self._cancel = None
        now = self._world.now_us()
        for _ in range(RUNG_MAX):
            if not self._alarms or self._alarms[0][0] > now:
                break
            at_us, number, run, target = heapq.heappop(self._alarms)
            if not self._ring_for(run, target, now):
                heapq.heappush(self._alarms, (at_us, number, run, target))
                self._plan(not_before=now + FULL_US)
                return
        self._plan()

    def _sweep(self) -> None:
        self._alarms = [alarm for alarm in self._alarms if _is_awaited(alarm[2], alarm[3])]
        heapq.heapify(self._alarms)
        self._checked_at = max(UNCHECKED_MAX, 2 * len(self._alarms))


def _is_awaited(run: LiveRun, target: Target) -> bool:
    if run.gone:
        return False
    if isinstance(target, WorkflowTimer):
        return target.seq in run.activation.timers
    return target is None or not target.done()
