"""DBOS on SQLite as it sets itself up, and the workflows that are measured.

DBOS needs SQLite 3.42. Where the library of the standard `sqlite3` is older, `pysqlite3` (from `pysqlite3-binary`)
takes its name before anything imports it. DBOS chooses its own journal mode; the report says which, and how it syncs.
Workflows are there twice, as `def` and as `async def`, because DBOS runs them differently: a thread each, or a task
each on an event loop. Where both were measured the better is kept.
"""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SQLITE_NEEDED = (3, 42, 0)

if sqlite3.sqlite_version_info < SQLITE_NEEDED:
    import pysqlite3
    import pysqlite3.dbapi2

    sys.modules["sqlite3"] = pysqlite3
    sys.modules["sqlite3.dbapi2"] = pysqlite3.dbapi2

import sqlalchemy  # noqa: E402
from dbos import DBOS  # noqa: E402

from bench.measuring import Report  # noqa: E402

QUEUE = "bench"
DATABASE = "dbos.db"

step_times_ns: list[int] = []
at_gate: list[Callable[[], None]] = []


# --- def ---


@DBOS.step()
def tick(number: int) -> int:
    """The smallest step."""
    return number + 1


@DBOS.step()
def tock(number: int) -> int:
    """A step that notes when its body began."""
    step_times_ns.append(time.perf_counter_ns())
    return number + 1


@DBOS.step()
def gate(number: int) -> int:
    """A step that does what `at_gate` says when the run has reached it, and waits for ever."""
    for action in at_gate:
        action()
    threading.Event().wait()
    return number


@DBOS.workflow()
def steps(count: int) -> int:
    """A run of `count` steps."""
    number = 0
    for _ in range(count):
        number = tick(number)
    return number


@DBOS.workflow()
def timed_steps(count: int) -> int:
    """A run of steps that note their times."""
    number = 0
    for _ in range(count):
        number = tock(number)
    return number


@DBOS.workflow()
def steps_and_gate(count: int) -> int:
    """Steps, and behind them the gate: the first thing that is not recorded after a crash."""
    number = 0
    for _ in range(count):
        number = tick(number)
    return gate(number)


@DBOS.workflow()
def sleeper() -> None:
    """A run that sleeps for an hour."""
    DBOS.sleep(3600)


# --- async def ---


@DBOS.step()
async def tick_async(number: int) -> int:
    """The smallest step, on the event loop."""
    return number + 1


@DBOS.step()
async def gate_async(number: int) -> int:
    """The gate, on the event loop."""
    for action in at_gate:
        action()
    await asyncio.Event().wait()
    return number


@DBOS.workflow()
async def steps_async(count: int) -> int:
    """A run of `count` steps, on the event loop."""
    number = 0
    for _ in range(count):
        number = await tick_async(number)
    return number


@DBOS.workflow()
async def steps_and_gate_async(count: int) -> int:
    """Steps and the gate, on the event loop."""
    number = 0
    for _ in range(count):
        number = await tick_async(number)
    return await gate_async(number)


@DBOS.workflow()
async def sleeper_async() -> None:
    """A run that sleeps for an hour, on the event loop."""
    await DBOS.sleep_async(3600)


# --- opening ---


@contextmanager
def launched(directory: Path) -> Generator[Any, None, None]:
    """DBOS, launched on the database of `directory`, with a queue that is polled every 10 ms; destroyed afterwards."""
    dbos = launch(directory)
    try:
        DBOS.register_queue(QUEUE, polling_interval_sec=0.01)
        yield dbos
    finally:
        DBOS.destroy()


def launch(directory: Path, **config: Any) -> Any:
    """Launch DBOS on the database of `directory`. At its launch it takes over what its executor left unfinished."""
    url = f"sqlite:///{directory / DATABASE}"
    dbos = DBOS(config={"name": "bench", "system_database_url": url, "log_level": "ERROR", **config})
    DBOS.launch()
    return dbos


def remember_pragmas(dbos: Any, report: Report) -> None:
    """Ask DBOS's own connection how it is set up."""
    for fact, query in {
        "sqlite": "select sqlite_version()",
        "journal_mode": "pragma journal_mode",
        "synchronous": "pragma synchronous",
    }.items():
        report.facts[fact] = scalar(dbos, query)


def scalar(dbos: Any, query: str) -> Any:
    """One value, read by a connection of DBOS's own."""
    with dbos._sys_db.engine.connect() as connection:
        return connection.execute(sqlalchemy.text(query)).scalar()


# --- reporting ---


def best(report: Report, name: str, unit: str, ways: dict[str, list[float]], *, lowest: bool = False) -> None:
    """Keep the better of several ways to do the same: the highest median, or the lowest."""
    choose = min if lowest else max
    note = choose(ways, key=lambda way: statistics.median(ways[way]))
    report.add(name, unit, ways[note], note=note)
