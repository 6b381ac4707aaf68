"""`holdfast worker --procs N`: a small parent that keeps N worker processes running.

    parent ── lifeline (a socket pair) ──> children 1, 2, ... N, each `holdfast worker MOD:APP --number I --lifeline FD`

- Children are fresh interpreters in sessions of their own: Ctrl-C reaches the parent alone, and it decides what that
  means. The first SIGTERM or SIGINT is passed on and stops them gracefully, the second lets all leave at once.
- A child says over its lifeline that it is ready. When the lifeline ends, its parent is gone, however that happened:
  the kernel closes the parent's end. Then the child stops as after SIGTERM. No child outlives its parent for long.
- A child that dies is replaced: at once if it had lived for `QUICK_SECONDS`, or if it is the first quick death; then
  after 0.5 s, 1 s, 2 s, ... up to `BACKOFF_SECONDS_MAX`.
- The parent gives up when trying again is of no use: a child ends with a usage error (the module cannot be imported,
  the app is not there) or does not know the schema, or `NEVER_READY_MAX` in a row died before any was ready.

The parent imports neither the app nor a database. Its events come over one queue: from a thread for each child, and
from the signal handlers (`SimpleQueue.put` may interrupt itself).
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any, Final

from holdfast.cli.logs import LOG
from holdfast.cli.problems import ExitCode

QUICK_SECONDS: Final = 10.0
BACKOFF_SECONDS_FIRST: Final = 0.5
BACKOFF_SECONDS_MAX: Final = 30.0
NEVER_READY_MAX: Final = 5
LEAVE_SECONDS: Final = 2.0
"""What the children get beyond the time in which they leave by themselves."""
HOPELESS: Final = (ExitCode.USAGE, ExitCode.SCHEMA_MISMATCH)


@dataclass
class _Place:
    """One of the N places, and who is in it."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    line: socket.socket | None = None
    born_at: float = 0.0
    ready: bool = False
    deaths: int = 0
    due_at: float = field(default=0.0)


class Parent:
    """Keeps the places filled until it is told to stop.

    Args:
        procs: how many processes.
        arguments: of `holdfast worker`, for each of them.
        leave_seconds: within which a child leaves after SIGTERM.
    """

    def __init__(self, procs: int, arguments: Sequence[str], *, leave_seconds: float) -> None:
        self._arguments = arguments
        self._leave_seconds = leave_seconds
        self._places = [_Place(number) for number in range(1, procs + 1)]
        self._events: SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]]] = SimpleQueue()
        self._never_ready = 0
        self._seen_ready = False
        self._signals = 0
        self._code: int | None = None
        self._until = float("inf")

    def supervise(self) -> int:
        """Until all have left; returns the exit code."""
        before = {number: signal.signal(number, self._received) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            while self._code is None or any(place.process for place in self._places):
                self._fill()
                self._wait()
                if time.monotonic() > self._until:
                    self._kill()
        finally:
            self._kill()
            for number, handler in before.items():
                signal.signal(number, handler)
        return self._code

    # What happens.

    def _received(self, number: int, _frame: FrameType | None) -> None:
        self._events.put((self._told, (number,)))

    def _told(self, number: int) -> None:
        self._signals += 1
        if self._signals == 1 and self._code is None:
            LOG.info("stopping %d processes; a second signal leaves at once", len(self._living()))
            self._stop(0)
        else:
            self._code = 128 + number
            self._until = time.monotonic() + LEAVE_SECONDS
            self._send(signal.SIGTERM)

    def _is_ready(self, place: _Place) -> None:
        place.ready = self._seen_ready = True
        self._never_ready = 0

    def _is_gone(self, place: _Place, process: subprocess.Popen[bytes]) -> None:
        code, lived = process.returncode, time.monotonic() - place.born_at
        _close(place)
        if self._code is not None:
            if self._signals < 2 and code not in (0, -signal.SIGTERM) and self._code == 0:
                self._code = ExitCode.ERROR
            return
        place.deaths = 1 if lived >= QUICK_SECONDS else place.deaths + 1
        self._never_ready += not place.ready
        told = f"worker process {place.number} (pid {process.pid}) {_how(code)} after {lived:.1f} s"
        if not place.ready and code in HOPELESS:
            LOG.error("%s; it cannot start: giving up", told)
            self._stop(code)
        elif self._never_ready >= NEVER_READY_MAX and code != ExitCode.RETRYABLE:
            LOG.error("%s; %d in a row died before they were ready: giving up", told, self._never_ready)
            self._stop(ExitCode.ERROR)
        else:
            delay = _delay(place.deaths)
            place.due_at = time.monotonic() + delay
            LOG.warning("%s; another one starts %s", told, f"in {delay:g} s" if delay else "now")

    def _stop(self, code: int) -> None:
        self._code = code
        self._until = time.monotonic() + self._leave_seconds + LEAVE_SECONDS
        self._send(signal.SIGTERM)

    # Children.

    def _fill(self) -> None:
        # Until one is ready only the first is tried: what keeps it from starting is said once, not N times.
        for place in self._places if self._seen_ready else self._places[:1]:
            if self._code is None and place.process is None and place.due_at <= time.monotonic():
                self._start(place)

    def _start(self, place: _Place) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            lifeline = theirs.fileno()
            command = [sys.executable, "-m", "holdfast", "worker", *self._arguments]
            command += ["--number", str(place.number), "--lifeline", str(lifeline)]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(lifeline,), start_new_session=True)
        place.process, place.line, place.born_at, place.ready = process, ours, time.monotonic(), False
        watch = threading.Thread(target=self._watch, args=(place, process, ours), daemon=True)
        watch.start()

    def _watch(self, place: _Place, process: subprocess.Popen[bytes], line: socket.socket) -> None:
        """In a thread: what becomes of this child."""
        try:
            said = line.recv(1)
        except OSError:  # it was killed with something unread
            said = b""
        if said:
            self._events.put((self._is_ready, (place,)))
        process.wait()
        self._events.put((self._is_gone, (place, process)))

    def _wait(self) -> None:
        dues = [place.due_at for place in self._places if place.process is None and self._code is None]
        seconds = min([*dues, self._until]) - time.monotonic()
        try:
            happened, values = self._events.get(timeout=min(max(seconds, 0.0), 60.0))
        except Empty:
            return
        happened(*values)

    def _living(self) -> list[subprocess.Popen[bytes]]:
        return [place.process for place in self._places if place.process is not None]

    def _send(self, number: int) -> None:
        for process in self._living():
            process.send_signal(number)

    def _kill(self) -> None:
        for place in self._places:
            if place.process is not None:
                place.process.kill()
                place.process.wait()
                _close(place)


def hold(lifeline: int, on_gone: Callable[[], object]) -> None:
    """In a child: say that it is ready, and call back, in a thread, when the parent is gone."""
    line = socket.socket(fileno=lifeline)
    line.set_inheritable(False)  # a step's own child process must not hold it

    def watch() -> None:
        with line:
            try:
                line.send(b"r")
                while line.recv(1):
                    pass
            except OSError:  # as good as an end
                pass
        on_gone()

    threading.Thread(target=watch, name="holdfast-lifeline", daemon=True).start()


def arguments_of(target: str, *, stop_timeout: float, louder: int, db: str | None, output: str | None) -> list[str]:
    """The command line of a child."""
    more = ["--stop-timeout", f"{stop_timeout}s", *(["-v"] * louder), *(["-q"] * -louder)]
    return [target, *more, *(["--db", db] if db else []), *(["-o", output] if output else [])]


def _close(place: _Place) -> None:
    if place.line is not None:
        place.line.close()
    place.process = place.line = None


def _delay(deaths: int) -> float:
    """Seconds before the next child, after so many quick deaths in a row."""
    return 0.0 if deaths < 2 else min(BACKOFF_SECONDS_FIRST * 2.0 ** (deaths - 2), BACKOFF_SECONDS_MAX)


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
