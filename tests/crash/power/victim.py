"""The program whose power goes: an app under load that tells the recorder whatever it was told.

    python -m tests.crash.power.victim FOLDER SEED RUNS SYNCHRONOUS CHECKPOINT_PAGES

Marks are lines. `S` a start was acknowledged, `R` a result was told, `C` a cancellation was acknowledged, and `K` a
step's outcome is *known outside*: a step that came after it in the same run has begun, which it may only when all
before it is durable. A step's outcome names its run, generation and number, and is of that execution alone.

The engine is as it is, but that it folds its log into the database after some tens of pages instead of thousands, so
that a second of work has hundreds of checkpoints, and that `off` is let in, which the URI refuses.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from holdfast import ExecutorOptions, Holdfast, RunCancelled, WorkerOptions, continue_as_new, current, step, workflow
from holdfast._store import sqlitefile
from holdfast._store.uri import Synchronous

AT_ONCE = 16
CANCELLED_EVERY = 7
PADDING_MAX = 9_000

tell: list[Callable[[str], object]] = []
"""Where marks go: to the recorder, or to whoever executes these workflows on a rebuilt disk."""


def executed(known: list[str], padding: str) -> str:
    here = current()
    for outcome in known:
        tell[0](f"K {outcome}")
    outcome = f"{here.run_id} {here.generation} {here.seq} {os.urandom(6).hex()}{padding}"
    tell[0](f"E {outcome}")
    return outcome


@step
async def act(known: list[str], padding: str = "") -> str:
    return executed(known, padding)


@step
def act_in_thread(known: list[str], padding: str = "") -> str:
    return executed(known, padding)


@workflow
async def in_a_row(length: int, padding: str) -> str:
    outcome = await act([])
    for place in range(length):
        outcome = await (act_in_thread if place % 3 == 2 else act)([outcome], padding)
    return outcome


@workflow
async def side_by_side(width: int, padding: str) -> str:
    outcomes = await asyncio.gather(*(act([]) for _ in range(width)))
    return await act(outcomes, padding)


@workflow
async def napping(naps: int, padding: str) -> str:
    """Sleeps long enough to be parked, and wakes by replay."""
    outcome = await act([], padding)
    for _ in range(naps):
        await asyncio.sleep(0.03)
        outcome = await act([outcome])
    return outcome


@workflow
async def onwards(rounds: int, padding: str) -> str:
    """Leaves its history behind, so that pages are freed and used again."""
    outcome = await act([await act([], padding)])
    if rounds:
        continue_as_new(rounds - 1, padding)
    return outcome


WORKFLOWS: tuple[Any, ...] = (in_a_row, side_by_side, napping, onwards)


def app_at(path: Path) -> Holdfast:
    execution = ExecutorOptions(park_after=0.005, runs_cached_max=4)
    app = Holdfast(f"sqlite:///{path}", worker=WorkerOptions(execution=execution))
    app.include(*WORKFLOWS)
    return app


async def load(app: Holdfast, *, runs: int, seed: int) -> None:
    """Start, wait, cancel; leave in the middle, so that the log of the database is removed, and come again."""
    dice = random.Random(seed)

    async def one(number: int) -> None:
        padding = "x" * dice.choice((0, 0, 50, PADDING_MAX))
        run = await app.start(WORKFLOWS[number % 4], dice.randrange(1, 4), padding, id=f"run-{number}")
        tell[0](f"S {run.id}")
        if number % CANCELLED_EVERY == 0:
            await run.cancel()
            tell[0](f"C {run.id}")
        try:
            tell[0](f"R {run.id} {await run.result()}")
        except RunCancelled:
            return

    async def some(numbers: range) -> None:
        for number in numbers:
            await one(number)

    for begin, end in ((0, runs // 3), (runs // 3, runs)):
        async with app:
            await asyncio.gather(*(some(range(begin + place, end, AT_ONCE)) for place in range(AT_ONCE)))


def main() -> None:
    folder, seed, runs, synchronous, pages = sys.argv[1:]
    descriptor = os.open(Path(folder) / "marks", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    tell.append(lambda line: os.write(descriptor, line.encode()))
    sqlitefile.CHECKPOINT_PAGES = int(pages)  # type: ignore[misc]
    app = app_at(Path(folder) / "power.db")
    app._parsed = replace(app._parsed, synchronous=cast("Synchronous", synchronous))
    asyncio.run(load(app, runs=int(runs), seed=int(seed)))


if __name__ == "__main__":
    main()
