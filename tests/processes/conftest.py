"""A folder with a database, the command line as processes in it, and ways to wait for what they do."""

from __future__ import annotations

import json
import os
import select
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60.0
Process = subprocess.Popen[str]


class Place:
    """The folder, its processes, its rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[Process] = []
        self.heard: dict[int, bytes] = {}

    # Processes.

    def python(self, *args: str, **environment: str) -> Process:
        with (self.folder / "errors.log").open("a") as errors:
            child = subprocess.Popen(
                [sys.executable, "-m", *args],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), "HOLDFAST_URI": "sqlite:///shop.db", **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.running.append(child)
        return child

    def worker(self, *args: str, **environment: str) -> tuple[Process, str]:
        """A worker that is ready, and its id."""
        worker = self.python("holdfast", "worker", "tests.processes.shop:app", "-o", "jsonl", *args, **environment)
        return worker, str(self.event(worker, "ready")["worker"])

    def cli(self, *args: str) -> str:
        child = self.python("holdfast", *args)
        out, _ = child.communicate(timeout=PATIENCE_SECONDS)
        return out

    def line(self, process: Process) -> str:
        """The next line that it prints."""
        assert process.stdout is not None
        heard = self.heard.pop(process.pid, b"")
        while b"\n" not in heard:
            ready, _, _ = select.select([process.stdout], [], [], PATIENCE_SECONDS)
            assert ready, f"it says nothing:\n{self.errors}"
            more = os.read(process.stdout.fileno(), 65_536)  # not its buffer, which `select` does not see
            assert more, f"it has ended:\n{self.errors}"
            heard += more
        line, _, self.heard[process.pid] = heard.partition(b"\n")
        return line.decode()

    def event(self, process: Process, kind: str) -> dict[str, Any]:
        line = self.line(process)
        assert line, self.errors
        event: dict[str, Any] = json.loads(line)
        assert event["event"] == kind
        return event

    def stop(self, process: Process) -> int:
        process.terminate()
        process.communicate(timeout=PATIENCE_SECONDS)
        return process.returncode

    @property
    def errors(self) -> str:
        return (self.folder / "errors.log").read_text()

    # What is there.

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(f"file:{self.folder / 'shop.db'}?mode=ro", uri=True, timeout=30)
        try:
            return connection.execute(sql, values).fetchall()
        finally:
            connection.close()

    def value(self, sql: str, *values: object) -> Any:
        return self.rows(sql, *values)[0][0]

    def states(self) -> dict[str, int]:
        return dict(self.rows("select state, count(*) from holdfast_runs group by state"))

    def steps(self) -> list[list[str]]:
        """The log of the steps: kind, run, number in the run, process."""
        return [line.split() for line in (self.folder / "steps.log").read_text().splitlines()]

    def executions(self) -> Counter[tuple[str, str]]:
        return Counter((run, seq) for _, run, seq, _ in self.steps())

    def locks(self) -> set[str]:
        return {path.name.removeprefix("shop.db-worker-") for path in self.folder.glob("shop.db-worker-*")}

    def until(self, what: str, holds: Callable[[], Any]) -> float:
        """Wait for it, and say how many seconds that took."""
        began = time.monotonic()
        while not holds():
            assert time.monotonic() - began < PATIENCE_SECONDS, f"not in time: {what}\n{self.errors[-4000:]}"
            time.sleep(0.01)  # between two looks at what other processes do
        return time.monotonic() - began


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "steps.log").touch()
    place = Place(tmp_path)
    yield place
    for child in place.running:
        if child.poll() is None:
            child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            assert pipe is not None
            pipe.close()
