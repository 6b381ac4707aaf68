"""The load of the storm: a worker's and a client's process, each with its own synced log.

A step writes `B` when its body begins and `E` before it returns, with the run, its number in the run and a mark that no
other execution has. The mark is the step's result, so the database says which execution it recorded. The client writes
`S` when a start is acknowledged and `R` when it is told a result.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from holdfast import Holdfast, Retry, current, sleep, step, workflow

AT_ONCE = 24


class Log:
    """Whole lines, appended and synced before the caller goes on; several processes may write."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, *words: object) -> None:
        os.write(self._descriptor, (" ".join(map(str, words)) + "\n").encode())
        os.fdatasync(self._descriptor)


class Flaky(Exception):
    """The service was not there this time."""


def executed(fails: bool = False) -> str:
    """One execution of a step, in the log and as a byte on the pipe to the storm."""
    here = current()
    mark = f"{os.getpid()}.{os.urandom(6).hex()}"
    steps.write("B", here.run_id, here.seq, mark)
    os.write(1, b".")
    if fails:
        raise Flaky(mark)
    steps.write("E", here.run_id, here.seq, mark)
    return mark


@step
async def act(number: int) -> str:
    return executed()


@step
def act_in_thread(number: int) -> str:
    return executed()


@step(retry=Retry(attempts=50, first_delay=0.001, max_delay=0.01, retry_on=(Flaky,)))
async def act_sometimes(number: int) -> str:
    return executed(fails=os.urandom(1)[0] < 80)


@workflow
async def in_a_row(length: int) -> str:
    """Each step begins only when the one before it is durable."""
    return ",".join([await (act if place % 2 else act_in_thread)(place) for place in range(length)])


@workflow
async def side_by_side(width: int) -> str:
    marks = await asyncio.gather(*(act(place) for place in range(width)), act_sometimes(width))
    await sleep(0.005)
    return ",".join([*marks, await act(99)])


@workflow
def plainly(length: int) -> str:
    return ",".join([act_sometimes(place) for place in range(length)])  # type: ignore[misc]  # a sync workflow's call


def app_on(folder: Path) -> Holdfast:
    app = Holdfast(f"sqlite:///{folder / 'storm.db'}")
    app.include(in_a_row, side_by_side, plainly)
    return app


async def work(folder: Path) -> None:
    """Execute until killed, or told to stop by the end of the input."""
    async with app_on(folder):
        await asyncio.to_thread(sys.stdin.read)


async def ask(folder: Path) -> None:
    """Keep runs going until the end of the input, then wait for those that are left."""
    told = Log(folder / "client.log")
    stopping = asyncio.Event()
    flows = (in_a_row, side_by_side, plainly)

    async def one(number: int) -> None:
        run_id = f"run-{number}"
        run = await client.start(flows[number % 3], 2 + number % 4, id=run_id)
        told.write("S", run_id)
        told.write("R", run_id, await run.result())

    async def many(first: int) -> None:
        number = first
        while not stopping.is_set():
            await one(number)
            number += AT_ONCE

    async def listen() -> None:
        await asyncio.to_thread(sys.stdin.read)
        stopping.set()

    async with app_on(folder).client() as client:
        await asyncio.gather(listen(), *(many(first) for first in range(AT_ONCE)))


if __name__ == "__main__":
    _, role, place = sys.argv
    steps = Log(Path(place) / "steps.log")
    asyncio.run({"worker": work, "client": ask}[role](Path(place)))
