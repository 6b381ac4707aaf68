"""The demo's child processes: started in sessions of their own, dismissed by closing their standard input, or killed.

A child reads its standard input and ends when that ends. The writing end is this process's alone, so the kernel closes
it however this process dies: no child outlives its parent. A session of their own keeps Ctrl-C away from the children:
the parent decides what it means for them.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from pathlib import Path

from holdfast.errors import HoldfastError

LOG_LINES_SHOWN = 12


class ChildFailed(HoldfastError):
    """A process of the demo ended, or did not begin, without being told to."""

    code = "demo-child-failed"


class Child:
    """A running child process.

    Attributes:
        name: what it is called on the screen.
        pid: its process.
    """

    def __init__(self, name: str, process: Process, log: Path) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process
        self._log = log

    @classmethod
    async def start(
        cls, name: str, *arguments: str, log: Path, environment: Mapping[str, str], answers: bool = False
    ) -> Child:
        """Start this Python with `arguments`; what it says on standard error goes to the end of `log`.

        Args:
            answers: its standard output is read with `first_line`; otherwise it is discarded.
        """
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                stdin=PIPE,
                stdout=PIPE if answers else DEVNULL,
                stderr=errors,
                env=environment,
                start_new_session=True,
            )
        return cls(name, process, log)

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.returncode is not None

    async def first_line(self, seconds: float) -> str:
        """The first line that it prints.

        Raises:
            ChildFailed: there was none in time.
        """
        output = self._process.stdout
        if output is None:
            raise ValueError(f"{self.name} was started with answers=False")
        line = b""
        try:
            async with asyncio.timeout(seconds):
                line = await output.readline()
        except TimeoutError:
            pass
        if not line.endswith(b"\n"):
            raise self.failure("did not begin")
        return line.decode().strip()

    async def kill(self) -> None:
        """SIGKILL, and wait until the process is gone. Nothing happens if it is."""
        if not self.has_ended:
            self._process.kill()
        await self._process.wait()

    async def dismiss(self, seconds: float) -> None:
        """Let it end by itself, and wait for that.

        Raises:
            ChildFailed: it did not in time, or failed on the way; it is gone anyway.
        """
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(seconds):
                status = await self._process.wait()
        except TimeoutError:
            await self.kill()
            raise self.failure(f"did not leave within {seconds:g} s") from None
        if status != 0:
            raise self.failure(f"ended with status {status}")

    def failure(self, what: str) -> ChildFailed:
        """An error that quotes the end of the child's log."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        quoted = "".join(f"\n  {line:.200}" for line in lines)
        return ChildFailed(f"{self.name} (pid {self.pid}) {what}{quoted}", hint="--keep DIR keeps all files")
