"""The watchdog: says which workflow blocks the event loop, for how long and where.

A workflow's code must not block: while it computes or sleeps, nothing else in the process moves. It cannot be stopped
from outside, so it is reported, once per activation, with its stack.
"""

from __future__ import annotations

import sys
import threading
import traceback
from typing import Final

from holdfast._model.records import RunRow
from holdfast._runtime.events import RUN_LOG, log_fields
from holdfast._runtime.executor import Executor
from holdfast._world import World

PERIOD_SECONDS: Final = 0.5


class Watchdog:
    """A thread that looks twice a second whether the executor is still in the same activation.

    Args:
        seconds: how long an activation may take before it is reported.
    """

    def __init__(self, executor: Executor, *, world: World, seconds: float) -> None:
        self._executor = executor
        self._world = world
        self._limit_us = int(seconds * 1_000_000)
        self._ended = threading.Event()
        self._watched: int | None = None
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """Watch the calling thread."""
        self._watched = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, name="holdfast-watchdog", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """End."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        turn, since, reported = -1, 0, False
        while not self._ended.wait(PERIOD_SECONDS):
            row, now = self._executor.activating, self._world.now_us()
            if row is None or self._executor.turns != turn:
                turn, since, reported = self._executor.turns, now, False
            elif not reported and now - since >= self._limit_us:
                reported = True
                self._report(row, now - since)

    def _report(self, row: RunRow, taken_us: int) -> None:
        frame = sys._current_frames().get(self._watched or 0)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else "(no stack)"
        RUN_LOG.warning(
            "workflow %s (run %s) has blocked the event loop for %.1f s; do such work in a step. Stack:\n%s",
            row.workflow,
            row.id,
            taken_us / 1_000_000,
            stack,
            extra=log_fields(row.id, row.workflow),
        )
