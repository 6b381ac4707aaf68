"""The load of the storm: a worker's and a client's process, each with its own synced log.

A step writes `B` when its body begins and `E` before it returns, with the run, its generation and number in the run and
a mark that no other execution has. The mark is the step's result, so the database says which execution it recorded.

The client writes `S` when a start is acknowledged and `R` when it is told a result. On the way it pauses and resumes
some runs, retries those that failed, and cancels some: `C` when that is acknowledged, `X` when it is told that the run
was cancelled.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from holdfast import (
    ExecutorOptions,
    Holdfast,
    Retry,
    Run,
    RunCancelled,
    RunConflict,
    WorkerOptions,
    continue_as_new,
    current,
    sleep,
    step,
    workflow,
)

AT_ONCE = 24
PAUSED_EVERY = 5
CANCELLED_EVERY = 11


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
    place = f"{here.generation}.{here.seq}"
    steps.write("B", here.run_id, place, mark)
    os.write(1, b".")
    if fails:
        raise Flaky(mark)
    steps.write("E", here.run_id, place, mark)
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


@step
async def act_unreliably(number: int) -> str:
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


@workflow
async def napping(naps: int) -> str:
    """Is parked at each nap, and may wake up anywhere."""
    marks = [await act(0)]
    for place in range(naps):
        await sleep(0.02)
        marks.append(await act(place))
    return ",".join(marks)


@workflow
async def onwards(rounds: int) -> str:
    """Leaves its history behind several times."""
    marks = [await act(place) for place in range(2)]
    if rounds:
        continue_as_new(rounds - 1)
    return ",".join(marks)


@workflow
async def failing(length: int) -> str:
    """Fails, often, and goes on where it failed when the client retries it."""
    return ",".join([await act_unreliably(place) for place in range(length)])


FLOWS: tuple[Any, ...] = (in_a_row, side_by_side, plainly, napping, onwards, failing)


def app_on(folder: Path) -> Holdfast:
    # A kill at random is what poison detection must take for the run's fault, and several a second are too many for it:
    # suspects are set aside and tried one by one, as ever, but none is given up.
    options = WorkerOptions(execution=ExecutorOptions(park_after=0.01), poison_after=1_000)
    app = Holdfast(f"sqlite:///{folder / 'storm.db'}", worker=options)
    app.include(*FLOWS)
    return app


async def work(folder: Path) -> None:
    """Execute until killed, or told to stop by the end of the input."""
    async with app_on(folder):
        await asyncio.to_thread(sys.stdin.read)


async def pause_and_resume(run: Run[str]) -> None:
    """A run that has ended cannot be paused."""
    try:
        await run.pause()
    except RunConflict:
        return
    await run.resume()


async def result_of(run: Run[str]) -> str:
    while True:
        try:
            return await run.result()
        except Flaky:
            await run.retry()


async def ask(folder: Path) -> None:
    """Keep runs going until the end of the input, then wait for those that are left."""
    told = Log(folder / "client.log")
    stopping = asyncio.Event()

    async def one(number: int) -> None:
        run = await client.start(FLOWS[number % len(FLOWS)], 2 + number % 4, id=f"run-{number}")
        told.write("S", run.id)
        if number % PAUSED_EVERY == 0:
            await pause_and_resume(run)
        if number % CANCELLED_EVERY == 0:
            await run.cancel()
            told.write("C", run.id)
        try:
            told.write("R", run.id, await result_of(run))
        except RunCancelled:
            told.write("X", run.id)

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
