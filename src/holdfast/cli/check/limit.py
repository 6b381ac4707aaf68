"""A bound on code that may never end: what a replay of code that nobody has run yet needs.

    after `seconds`        SIGALRM: TooLong is raised in the workflow's code, wherever it is, and again every second
    after three times that the process ends with 1, and the interpreter's stack is on stderr: not even the alarm came
                           through, because the code swallows every exception or never returns to the interpreter

`TooLong` is a KeyboardInterrupt, the one exception that neither asyncio's tasks nor `except Exception` keep for
themselves. Alarms reach the main thread only, which is where a command runs.
"""

from __future__ import annotations

import faulthandler
import io
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import FrameType
from typing import Final, Self, TextIO

AGAIN_SECONDS: Final = 1.0
REARM_SECONDS: Final = 1.0


class TooLong(KeyboardInterrupt):
    """The code has taken longer than it may."""


class Limit:
    """Bounds pieces of work one after the other. Use it as a context manager around all of them.

    Args:
        seconds: for each.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._name = ""
        self._alarms = 0
        self._armed_at = 0.0
        self._in_main = threading.current_thread() is threading.main_thread()
        self._before: object = None
        self._quiet = _Nowhere()

    def __enter__(self) -> Self:
        if self._in_main:
            self._before = signal.signal(signal.SIGALRM, self._alarm)
        return self

    def __exit__(self, *_error: object) -> None:
        if self._in_main:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)  # type: ignore[arg-type]
            faulthandler.cancel_dump_traceback_later()

    @contextmanager
    def over(self, name: str) -> Generator[None]:
        """Bound what is done in this block; what it prints is dropped. `name` says whose code it is.

        Raises:
            TooLong: it has taken too long.
        """
        self._name, self._alarms = name, 0
        self._arm()
        try:
            with redirect_stdout(self._quiet), redirect_stderr(self._quiet):
                yield
        finally:
            if self._in_main:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _arm(self) -> None:
        if not self._in_main:
            return
        now = time.monotonic()
        if now - self._armed_at >= REARM_SECONDS and (stderr := _real_stderr()) is not None:
            self._armed_at = now
            faulthandler.dump_traceback_later(REARM_SECONDS + 3 * self._seconds, exit=True, file=stderr)
        signal.setitimer(signal.ITIMER_REAL, self._seconds, AGAIN_SECONDS)

    def _alarm(self, _signal: int, _frame: FrameType | None) -> None:
        self._alarms += 1
        if self._alarms == 2 and (stderr := _real_stderr()) is not None:  # it was told once, and goes on
            print(f"error: {self._name} does not end, and swallows every attempt to end it", file=stderr, flush=True)
        raise TooLong


class _Nowhere(io.TextIOBase):
    """Where what workflow code prints goes: a million replays would print it a million times."""

    def write(self, text: str, /) -> int:
        return len(text)

    def writable(self) -> bool:
        return True


def _real_stderr() -> TextIO | None:
    """The process's own, for which the C code that writes to it needs a descriptor."""
    stream = sys.__stderr__
    try:
        return stream if stream is not None and stream.fileno() >= 0 else None
    except (OSError, ValueError):
        return None
