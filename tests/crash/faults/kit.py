"""What the tests of faults share: the subject as a process, its switches, and what it has told."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.crash.power import judge
from tests.crash.power.judge import Told
from tests.crash.power.recording import ROOT

SOURCE = Path(__file__).with_name("faults.c")
PATIENCE_SECONDS = 30.0
FOR_GOOD = 1 << 60
TRIES = int(os.environ.get("HOLDFAST_FAULTS", "1"))
"""How many times each fault is tried: 100 in `make crash`."""
SEED = int(os.environ.get("HOLDFAST_SEED", random.SystemRandom().randrange(2**32)))


class Fault(ctypes.Structure):
    """`struct fault` of faults.c: which of the calls fail that it could strike."""

    begins: int
    ends: int
    calls: int
    _fields_ = [("begins", ctypes.c_int64), ("ends", ctypes.c_int64), ("calls", ctypes.c_int64)]

    def strike(self, nth: int = 1, *, times: int = FOR_GOOD) -> None:
        """From the n-th call on, counted from now."""
        self.ends = 0
        self.begins = self.calls + nth
        self.ends = self.begins + times

    def end(self) -> None:
        self.ends = 0

    @property
    def has_struck(self) -> bool:
        """Whether the first of these calls was made."""
        return self.calls >= self.begins

    @property
    def is_over(self) -> bool:
        """Whether the last of these calls was made."""
        return self.calls >= self.ends - 1


class Switches(ctypes.Structure):
    """`struct switches` of faults.c, in memory that the subject shares."""

    clock: int
    full: Fault
    sync_fails: Fault
    read_only: Fault
    no_files: Fault
    _fields_ = [
        ("clock", ctypes.c_int64),
        ("full", Fault),
        ("sync_fails", Fault),
        ("read_only", Fault),
        ("no_files", Fault),
    ]


class Faults:
    """The faults of one folder, and how a process gets them."""

    def __init__(self, library: Path, folder: Path) -> None:
        path = folder.parent / f"{folder.name}-switches"
        path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self.switches = Switches.from_buffer(self._page)
        self.environment = {
            **os.environ,
            "LD_PRELOAD": str(library),
            "FAULTS_FOLDER": str(folder),
            "FAULTS_SWITCHES": str(path),
        }


class Subject:
    """The running subject: what it told so far, and waiting for what it will say. It never waits for the test to read.

    Attributes:
        told: what it acknowledged.
        log: what it logged.
        done: whether it came to its end and closed its app.
        lines: how many lines it wrote.
        results: how many results it was told.
    """

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.told = Told()
        self.log = ""
        self.done = False
        self.lines = 0
        self._open_pipes = 2
        self._heard = threading.Condition()
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._listeners = [
            threading.Thread(target=self._listen, args=(self.process.stdout, self._hear)),
            threading.Thread(target=self._listen, args=(self.process.stderr, self._read_log)),
        ]
        for listener in self._listeners:
            listener.start()

    @property
    def results(self) -> int:
        return len(self.told.results)

    def until(self, come: Callable[[], bool], *, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until this has come to pass."""
        with self._heard:
            if not self._heard.wait_for(lambda: come() or not self._is_listening, seconds):
                raise TimeoutError(f"it has not come within {seconds:g} s; the log:\n{self.log[-3000:]}")
            if not come():
                raise EOFError(f"the subject has ended ({self.process.wait()}); the log:\n{self.log[-3000:]}")

    def until_logged(self, words: str, *, times: int = 1) -> None:
        self.until(lambda: self.log.count(words) >= times)

    def until_results(self, more: int) -> None:
        goal = self.results + more
        self.until(lambda: self.results >= goal)

    def finish(self) -> int:
        """End its input, let everything come to its end; returns the exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.ended()

    def ended(self) -> int:
        self.until(lambda: not self._is_listening)
        return self.process.wait(PATIENCE_SECONDS)

    def leave(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()  # the end also of what a shell has started
        for listener in self._listeners:
            listener.join()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    @property
    def _is_listening(self) -> bool:
        return self._open_pipes > 0

    def _listen(self, pipe: IO[bytes], hear: Callable[[str], None]) -> None:
        for line in pipe:
            with self._heard:
                hear(line.decode())
                self._heard.notify_all()
        with self._heard:
            self._open_pipes -= 1
            self._heard.notify_all()

    def _hear(self, line: str) -> None:
        self.lines += 1
        self.told.hear(line.rstrip("\n"))
        self.done = self.done or line == "D\n"

    def _read_log(self, line: str) -> None:
        self.log += line


@contextmanager
def subject(
    database: Path, *options: str, faults: Faults | None = None, within: Sequence[str] = ()
) -> Iterator[Subject]:
    """The subject under load; it is killed at the end of the block if it still lives.

    Args:
        within: a command that executes the command which follows it.
    """
    command = [*within, sys.executable, "-m", "tests.crash.faults.subject", str(database), *options]
    running = Subject(command, dict(os.environ) if faults is None else faults.environment)
    try:
        yield running
    finally:
        running.leave()


def assert_kept(database: Path, told: Told, *, ended: bool = True) -> None:
    """The file is sound and has everything that was acknowledged."""
    found = judge.read(database)
    verdict = judge.judge(found, told, ever={})
    assert told.facts > 0
    assert verdict.ok, str(verdict)[:2000]
    if ended:
        assert {row.state for row in found.runs.values()} == {"succeeded"}
