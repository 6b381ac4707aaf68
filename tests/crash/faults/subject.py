"""The program that faults happen to: an app under endless load, which says on standard output what it was told.

    python -m tests.crash.faults.subject DATABASE NAME [QUERY] [LEASE_SECONDS]

Marks and workflows are those of the power cuts (`tests/crash/power/victim.py`), a line each. The load ends with the
input; then every run comes to its end, the app closes, and `D` is written. What the engine logs is on standard error.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import sys
from pathlib import Path

from holdfast import ExecutorOptions, Holdfast, LeaseOptions, WorkerOptions
from tests.crash.power.victim import WORKFLOWS, tell

AT_ONCE = 8


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def app_at(path: Path, query: str = "", lease_seconds: float = 30.0) -> Holdfast:
    options = WorkerOptions(
        execution=ExecutorOptions(park_after=0.01), lease=LeaseOptions(seconds=lease_seconds, sweep_seconds=0.1)
    )
    app = Holdfast(f"sqlite:///{path}{query}", worker=options)
    app.include(*WORKFLOWS)
    return app


async def load(app: Holdfast, name: str) -> None:
    stopping = asyncio.Event()
    numbers = itertools.count()

    asyncio.get_running_loop().add_reader(0, lambda: os.read(0, 1) or stopping.set())

    async def many() -> None:
        while not stopping.is_set():
            number = next(numbers)
            run = await app.start(WORKFLOWS[number % 4], 1 + number % 3, "x" * (number % 50), id=f"{name}-{number}")
            say(f"S {run.id}")
            say(f"R {run.id} {await run.result()}")

    async with app:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(many())
    say("D")


def main() -> None:
    path, name, *rest = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    tell.append(say)
    query, lease = (*rest, "", "30")[:2] if rest else ("", "30")
    asyncio.run(load(app_at(Path(path), query, float(lease)), name))


if __name__ == "__main__":
    main()
