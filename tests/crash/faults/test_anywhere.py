"""Faults at any call, from the first of the opening on, and damage to any page.

`make crash` tries HOLDFAST_FAULTS (100) of each; the places come from HOLDFAST_SEED, which every failure names.
"""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.crash.faults.kit import FOR_GOOD, PATIENCE_SECONDS, SEED, TRIES, Fault, Faults, Subject, assert_kept, subject
from tests.crash.faults.subject import app_at
from tests.crash.power.trials import recover
from tests.crash.power.victim import WORKFLOWS, tell

from holdfast._store.sqlitefile import PAGE_BYTES
from holdfast.errors import StoreCorrupt

pytestmark = pytest.mark.crash
SOME = 40
CALLS = {"full": 310, "sync_fails": 36, "read_only": 330, "no_files": 18}
"""How many there are until the database is open and some runs have ended."""
NAMED = {
    "full": {"StoreFull"},
    "sync_fails": {"StoreError"},
    "read_only": {"StoreError", "StoreUnavailable", "StoreFull"},  # SQLite does not say why the -shm cannot grow
    "no_files": {"StoreUnavailable"},
}
WINDOWS_A_TRY = 20
MORE_PAGES = 10 * (TRIES - 1)
POINTER_MAP = 2
"""The page, counted from one, that only says where others are used. SQLite cannot see that it is wrong, but for a check
of the whole file; the pages after it are tables and indexes."""


@pytest.mark.parametrize("kind", CALLS)
def test_a_fault_at_any_call_is_named_and_takes_back_nothing(kind: str, library: Path, tmp_path: Path) -> None:
    dice = random.Random(f"{SEED} {kind}")
    for number in range(TRIES):
        folder = tmp_path.resolve() / f"{kind}-{number}"
        folder.mkdir()
        faults = Faults(library, folder)
        fault: Fault = getattr(faults.switches, kind)
        nth, times = dice.randint(1, CALLS[kind]), dice.choice((1, FOR_GOOD))
        fault.strike(nth, times=times)
        try:
            with subject(folder / "a.db", faults=faults) as running:
                goes_on = lives_through(fault, running)
                fault.end()
                assert_said(running, NAMED[kind], goes_on=goes_on)
            assert not (kind == "sync_fails" and goes_on), "what a failed sync has left on the disk is not known"
            recover(folder / "a.db", running.told)
        except (AssertionError, TimeoutError) as error:
            raise AssertionError(
                f"{kind} from call {nth}, {times} times, HOLDFAST_SEED={SEED}\n{running.log}"
            ) from error
        shutil.rmtree(folder)


def lives_through(fault: Fault, running: Subject) -> bool:
    """Whether the process goes on after the fault has struck: with its work, or with trying."""
    try:
        running.until(lambda: fault.has_struck)
        goal = running.results + SOME  # more than what was under way before it struck
        running.until(lambda: running.results >= goal or "writing is delayed" in running.log)
    except EOFError:
        return False
    return True


def assert_said(running: Subject, kinds: set[str], *, goes_on: bool) -> None:
    if goes_on:
        assert running.finish() == 0
    else:
        assert running.ended() == 1
        named = set(re.findall(r"holdfast\.errors\.(\w+)", running.log))
        assert named, "an error of ours says what is wrong"
        assert named <= kinds
    assert "please report" not in running.log


def test_writes_that_find_no_room_are_tried_again_wherever_they_were(faults: Faults, folder: Path) -> None:
    dice = random.Random(f"{SEED} windows")
    fault = faults.switches.full
    with subject(folder / "a.db", faults=faults) as running:
        running.until_results(SOME)
        for _ in range(TRIES * WINDOWS_A_TRY):
            fault.strike(dice.randint(1, 30), times=dice.choice((1, 1, 1, 2, 4)))
            running.until(lambda: fault.is_over)
            running.until_results(2)
        assert "database or disk is full (SQLITE_FULL)" in running.log, f"HOLDFAST_SEED={SEED}"
        assert running.finish() == 0
        assert_kept(folder / "a.db", running.told)


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with ended runs, closed, of which no page is free."""
    database = tmp_path_factory.mktemp("used").resolve() / "a.db"
    with subject(database) as running:
        running.until_results(3 * SOME)
        assert running.finish() == 0
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("pragma incremental_vacuum").fetchall()
        assert connection.execute("pragma freelist_count").fetchone() == (0,)
    return database


def test_damage_to_any_page_is_named_or_not_met_and_never_written_over(
    used: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first page of every table and index, and in the long form any page."""
    dice = random.Random(f"{SEED} pages")
    content = used.read_bytes()
    pages = [*first_pages(used), *(dice.randrange(POINTER_MAP, len(content) // PAGE_BYTES) for _ in range(MORE_PAGES))]
    named = 0
    for number in pages:
        at = number * PAGE_BYTES
        page = bytes([dice.choice((0, 0xA5, 0xFF))] * 64) + content[at + 64 : at + PAGE_BYTES]
        (folder / "a.db").write_bytes(content[:at] + page + content[at + PAGE_BYTES :])
        where = f"page {number + 1} begins with {page[:1]!r}, HOLDFAST_SEED={SEED}"
        named += works_or_names_it(folder / "a.db", where)
        assert (folder / "a.db").read_bytes()[at : at + PAGE_BYTES] == page, where
        for file in folder.iterdir():
            assert file.name.startswith("a.db")
            file.unlink()
    assert named > len(pages) // 4
    with capsys.disabled():
        print(f"\n{len(pages)} damaged pages, {named} met and named; seed {SEED}")


def first_pages(database: Path) -> list[int]:
    with closing(sqlite3.connect(database)) as connection:
        return [row[0] - 1 for row in connection.execute("select rootpage from sqlite_master where rootpage > 1")]


def works_or_names_it(database: Path, where: str) -> bool:
    async def work() -> None:
        async with app_at(database, query="", lease_seconds=30.0) as app, asyncio.TaskGroup() as group:
            for number, workflow in enumerate(2 * WORKFLOWS):
                group.create_task(app.run(workflow, 3, "x" * 900, id=f"new-{number}"))

    tell.append(str)
    try:
        asyncio.run(asyncio.wait_for(work(), PATIENCE_SECONDS))
    except TimeoutError as error:
        raise AssertionError(f"{where}: runs neither end nor fail") from error
    except StoreCorrupt:
        return True
    except BaseExceptionGroup as group:
        if (others := group.split(StoreCorrupt)[1]) is not None:
            raise AssertionError(f"{where}: {others.exceptions}") from group
        return True
    finally:
        tell.clear()
    return False
