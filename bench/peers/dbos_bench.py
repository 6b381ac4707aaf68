"""DBOS on SQLite, as it sets itself up: steps, runs and starts a second.

DBOS needs SQLite 3.42. Where the library of the standard `sqlite3` is older, `pysqlite3` (from `pysqlite3-binary`)
takes its name before anything imports it. DBOS chooses its own journal mode; the report says which, and how it syncs.
Steps are measured in a `def` workflow with `def` steps and in an `async def` workflow with `async def` steps: the
faster is kept.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import statistics
import sys
from collections.abc import Callable
from importlib.metadata import version
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

from bench.measuring import Report, bench_from_arguments, stopwatch  # noqa: E402

CONCURRENT_RUNS = 50
STEPS_EACH = 10
QUEUE = "bench"
IDLE_QUEUE = "nobody-listens"


@DBOS.step()
def tick(number: int) -> int:
    """The smallest step."""
    return number + 1


@DBOS.workflow()
def steps(count: int) -> int:
    """A run of `count` steps."""
    number = 0
    for _ in range(count):
        number = tick(number)
    return number


@DBOS.step()
async def tick_async(number: int) -> int:
    """The smallest step, on the event loop."""
    return number + 1


@DBOS.workflow()
async def steps_async(count: int) -> int:
    """A run of `count` steps, on the event loop."""
    number = 0
    for _ in range(count):
        number = await tick_async(number)
    return number


def main() -> None:
    """Measure DBOS and print the report."""
    bench = bench_from_arguments("DBOS on SQLite.")
    logging.disable(logging.WARNING)
    report = Report("dbos", facts={"version": version("dbos")})

    def fresh(measure: Callable[[], float]) -> list[float]:
        return bench.samples(lambda directory: launched(directory, measure, report))

    single = bench.count(500)
    best(report, "sequential", "steps/s", single_notes(single, fresh))
    best(report, "concurrent", "steps/s", concurrent_notes(fresh))
    queued, started = max(300, bench.count(300)), bench.count(300)  # few queued runs would measure its polling
    report.add("runs", "runs/s", fresh(lambda: queued_runs(queued)), note=f"{queued} queued runs of one step")
    report.add("start", "runs/s", fresh(lambda: starts(started)), note=f"{started} enqueues, nothing executes them")
    report.print_json()


def single_notes(count: int, fresh: Callable[[Callable[[], float]], list[float]]) -> dict[str, list[float]]:
    """One run of `count` steps, both ways."""
    return {
        f"{count} steps, def": fresh(lambda: one_run(count)),
        f"{count} steps, async def": fresh(lambda: asyncio.run(one_run_async(count))),
    }


def concurrent_notes(fresh: Callable[[Callable[[], float]], list[float]]) -> dict[str, list[float]]:
    """Many runs at once, both ways."""
    shape = f"{CONCURRENT_RUNS} runs of {STEPS_EACH} steps"
    return {
        f"{shape}, def": fresh(many_runs),
        f"{shape}, async def": fresh(lambda: asyncio.run(many_runs_async())),
    }


def best(report: Report, name: str, unit: str, ways: dict[str, list[float]]) -> None:
    """Keep the fastest of several ways to do the same."""
    note = max(ways, key=lambda way: statistics.median(ways[way]))
    report.add(name, unit, ways[note], note=note)


def launched(directory: Path, measure: Callable[[], float], report: Report) -> float:
    """Take `measure` with DBOS launched on a fresh database."""
    config: dict[str, Any] = {
        "name": "bench",
        "system_database_url": f"sqlite:///{directory / 'dbos.db'}",
        "log_level": "ERROR",
    }
    dbos = DBOS(config=config)  # type: ignore[arg-type]
    DBOS.launch()
    try:
        DBOS.register_queue(QUEUE, polling_interval_sec=0.01)
        remember_pragmas(dbos, report)
        return measure()
    finally:
        DBOS.destroy()


def remember_pragmas(dbos: Any, report: Report) -> None:
    """Ask DBOS's own connection how it is set up."""
    with dbos._sys_db.engine.connect() as connection:
        for fact, query in {
            "sqlite": "select sqlite_version()",
            "journal_mode": "pragma journal_mode",
            "synchronous": "pragma synchronous",
        }.items():
            report.facts[fact] = connection.execute(sqlalchemy.text(query)).scalar()


def one_run(count: int) -> float:
    """Steps a second of one run."""
    with stopwatch() as elapsed:
        steps(count)
    return count / elapsed()


async def one_run_async(count: int) -> float:
    """Steps a second of one run, on the event loop."""
    with stopwatch() as elapsed:
        await steps_async(count)
    return count / elapsed()


def many_runs() -> float:
    """Steps a second of concurrent runs."""
    with stopwatch() as elapsed:
        handles = [DBOS.start_workflow(steps, STEPS_EACH) for _ in range(CONCURRENT_RUNS)]
        for handle in handles:
            handle.get_result()
    return CONCURRENT_RUNS * STEPS_EACH / elapsed()


async def many_runs_async() -> float:
    """Steps a second of concurrent runs, on the event loop."""
    with stopwatch() as elapsed:
        handles = [await DBOS.start_workflow_async(steps_async, STEPS_EACH) for _ in range(CONCURRENT_RUNS)]
        await asyncio.gather(*(handle.get_result() for handle in handles))
    return CONCURRENT_RUNS * STEPS_EACH / elapsed()


def queued_runs(count: int) -> float:
    """Queued runs of one step a second, from the first enqueue to the last result."""
    with stopwatch() as elapsed:
        handles = [DBOS.enqueue_workflow(QUEUE, steps, 1) for _ in range(count)]
        for handle in handles:
            handle.get_result(polling_interval_sec=0.01)
    return count / elapsed()


def starts(count: int) -> float:
    """Enqueues a second into a queue that nobody listens to."""
    with stopwatch() as elapsed:
        for _ in range(count):
            DBOS.enqueue_workflow(IDLE_QUEUE, steps, 1)
    return count / elapsed()


if __name__ == "__main__":
    main()
