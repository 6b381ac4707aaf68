"""Several apps in one process on one file, under different names: opened, closed, forked beside, left for dead.

POSIX knows locks of processes, not of connections: whatever one app closes could take the locks of another. So a
process of its own (the subject) works on the same file all the time, and in the end the file is judged.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.crash.faults.kit import SEED, TRIES, assert_kept, subject
from tests.crash.faults.subject import app_at
from tests.crash.power.judge import Told
from tests.crash.power.victim import WORKFLOWS, in_a_row, napping, tell

from holdfast import Holdfast

pytestmark = pytest.mark.crash
ROUNDS = 3 * TRIES
PATIENCE_SECONDS = 60 + 5 * ROUNDS


@pytest.fixture
def names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Of the same file."""
    (other := folder.parent / "other").mkdir()
    (other / "link.db").symlink_to(folder / "a.db")
    (folder.parent / "linked").symlink_to(folder)
    monkeypatch.chdir(folder)
    return [
        folder / "a.db",
        other / "link.db",
        folder.parent / "linked" / "a.db",
        Path("a.db"),
        Path("../other/link.db"),
    ]


@contextmanager
def listening() -> Iterator[Told]:
    told = Told()
    tell.append(told.hear)
    try:
        yield told
    finally:
        tell.clear()


async def work(app: Holdfast, told: Told, name: str) -> None:
    """Some runs of each kind, from start to result."""

    async def one(number: int) -> None:
        run = await app.start(WORKFLOWS[number % 4], 1 + number % 3, "", id=f"{name}-{number}")
        told.hear(f"S {run.id}")
        told.hear(f"R {run.id} {await run.result()}")

    await asyncio.gather(*(one(number) for number in range(8)))


def fork() -> None:
    """A child that does nothing but end, as those of many libraries."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    assert os.waitpid(pid, 0) == (pid, 0)


def test_apps_that_come_and_go_under_any_name_bury_nobody_and_take_no_locks_away(
    names: list[Path], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dice = random.Random(SEED)

    async def visit(number: int, told: Told) -> None:
        async with app_at(dice.choice(names), query="", lease_seconds=30.0) as app:
            await work(app, told, f"visit-{number}")
            if dice.random() < 0.5:
                fork()

    async def main(told: Told) -> None:
        async with app_at(names[1], query="", lease_seconds=30.0) as stays:
            staying = asyncio.create_task(work(stays, told, "first"))
            os.chdir("/")
            names[3:] = []  # they led elsewhere now
            for number in range(ROUNDS):
                await asyncio.gather(visit(2 * number, told), visit(2 * number + 1, told))
                await work(stays, told, f"stays-{number}")
            await staying

    with subject(folder / "a.db", "--name", "outside") as outside, listening() as told:
        outside.until_results(1)
        asyncio.run(asyncio.wait_for(main(told), PATIENCE_SECONDS))
        outside.until_results(1)
        assert outside.finish() == 0
    assert "dead" not in outside.log + caplog.text, f"HOLDFAST_SEED={SEED}"
    for heard in (told, outside.told):
        assert_kept(folder / "a.db", heard)


def test_an_app_whose_loop_stands_still_is_followed_by_another_of_its_process(names: list[Path], folder: Path) -> None:
    """Its lock is held as long as the process lives, so its lease must lapse; what it wakes to say is refused."""
    may_go_on, has_begun = threading.Event(), threading.Event()

    async def stands_still(told: Told) -> None:
        async with app_at(names[1], query="", lease_seconds=0.5) as app:
            run = await app.start(napping, 2, "", id="left")
            told.hear(f"S {run.id}")
            await app.start(in_a_row, 30, "", id="middle")
            told.hear("S middle")
            has_begun.set()
            may_go_on.wait()  # the whole loop
            told.hear(f"R {run.id} {await run.result()}")

    async def follows(told: Told) -> None:
        async with app_at(names[0], query="", lease_seconds=0.5) as app:
            for run in ("left", "middle"):
                told.hear(f"R {run} {await app.get(run).result()}")
            may_go_on.set()

    with listening() as told:
        thread = threading.Thread(target=asyncio.run, args=(stands_still(told),))
        thread.start()
        has_begun.wait()
        try:
            asyncio.run(asyncio.wait_for(follows(told), PATIENCE_SECONDS))
        finally:
            may_go_on.set()
            thread.join()
    assert_kept(folder / "a.db", told)
