"""The program that faults happen to: an app under endless load, which says on standard output what it was told.

    python -m tests.crash.faults.subject DATABASE --name run --lease 1 --at-once 8

Marks and workflows are those of the power cuts (`tests/crash/power/victim.py`), a line each. The load ends with the
input; then every run comes to its end, the app closes, and `D` is written; `O` was
when it opened. What the engine logs is on standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import os
from pathlib import Path

from tests.crash.power.victim import WORKFLOWS, tell

from holdfast import ExecutorOptions, Holdfast, LeaseOptions, WorkerOptions


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def app_at(path: Path, *, query: str, lease_seconds: float) -> Holdfast:
    options = WorkerOptions(
        execution=ExecutorOptions(park_after=0.01), lease=LeaseOptions(seconds=lease_seconds, sweep_seconds=0.1)
    )
    app = Holdfast(f"sqlite:///{path}{query}", worker=options)
    app.include(*WORKFLOWS)
    return app


async def load(app: Holdfast, *, name: str, at_once: int, kinds: int) -> None:
    stopping = asyncio.Event()
    numbers = itertools.count()

    asyncio.get_running_loop().add_reader(0, lambda: os.read(0, 1) or stopping.set())

    async def many() -> None:
        while not stopping.is_set():
            number = next(numbers)
            run = await app.start(WORKFLOWS[number % kinds], 1 + number % 3, "x" * (number % 50), id=f"{name}-{number}")
            say(f"S {run.id}")
            say(f"R {run.id} {await run.result()}")

    async with app:
        say("O")
        async with asyncio.TaskGroup() as group:
            group.create_task(stopping.wait())
            for _ in range(at_once):
                group.create_task(many())
    say("D")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("database", type=Path)
    parser.add_argument("--name", default="run")
    parser.add_argument("--query", default="", help="such as ?busy_timeout=1")
    parser.add_argument("--lease", type=float, default=30.0, help="seconds")
    parser.add_argument("--at-once", type=int, default=8, help="runs; 0 for a worker with nothing to do")
    parser.add_argument("--kinds", type=int, default=4, help="of workflows; 2 for those that do not sleep")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    tell.append(say)
    app = app_at(options.database, query=options.query, lease_seconds=options.lease)
    asyncio.run(load(app, name=options.name, at_once=options.at_once, kinds=options.kinds))


if __name__ == "__main__":
    main()
