"""Measures finding runs among a million: pages, counts, statistics, and what the searchable million costs a start.

The million are rows written by SQL, as the engine would have written them over thirty days: recording them one by one
would take minutes and measure something else. Searches go through the public client, in a process of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from bench import workloads
from bench.holdfast_bench import DATABASE, new_app
from bench.measuring import Bench, Report, add_arguments, checked_directory, empty_directory, stopwatch
from holdfast import Client, Start

RUNS: Final = 1_000_000
LOOKS: Final = 20
"""How often each search is made; the worst is reported, too."""
LIMITS: Final = (20, 100)
LATE: Final = ("", "region:eu", "state:failed")
STARTS_A_CALL: Final = 1_000
CALLS: Final = 20

SEARCHES: Final = (
    "",
    "state:failed",
    "state:paused",
    "workflow:refund",
    "workflow:checkout",
    "workflow:checkout state:failed",
    "workflow:refund state:failed",
    "-workflow:checkout",
    "created:<1h",
    "created:>20d",
    "created:20d..21d state:failed",
    "state:running started:>2h",
    "started:<1h",
    "ended:<1h",
    "ended:<1d",
    "ended:>20d",
    "id:run-0004*",
    "id:run-*",
    "worker:worker-1",
    "due:<1h",
    "customer:42",
    "region:eu",
    "customer:42 region:eu",
    "region:eu even:true",
    "region:eu state:failed",
    "region:eu state:failed created:<1d",
    "region:eu state:paused",
    "region:eu workflow:checkout state:failed started:>2h",
    "amount:>990",
    "amount:>10",
    "amount:990..995 state:failed",
    "address.city:Ber*",
    "address.city:Berlin,Paris -state:succeeded",
    "vip:*",
    "-vip:* state:failed",
    "region:eu -customer:42",
)
UNLUCKY: Final = ("region:eu age:old", "started:>20d")
"""Frequent conditions that exclude each other over the newest runs: told beside the others, not hidden among them."""

FILL = """
with recursive n (i) as (select 1 union all select i + 1 from n where i < :runs)
insert into holdfast_runs (
    number, id, workflow, state, input, output, attributes, priority, worker, seed, created_at, due_at, started_at,
    ended_at
)
select i, printf('run-%07d', i), workflow, state, '{"order":"' || i || '","cents":1250}',
    iif(state = 'succeeded', '"payment for ' || i || '"', null), '{"customer":' || i % :customers || '}', 0,
    iif(state = 'running', 'worker-' || i % 4, null), i, created,
    iif(state = 'waiting', created + 40 * 86400000000, null),
    iif(state = 'ready', null, created + 2000), iif(state in ('succeeded', 'failed'), created + 5000 + i % 977, null)
from (
    select i, :now - (:runs - i) * (30 * 86400000000 / :runs) as created,
        case when i % 10000 = 7 then 'refund' when i % 10 < 5 then 'checkout' when i % 10 < 8 then 'ship'
            else 'reminder' end as workflow,
        case when i % 200 = 3 then 'failed' when i % 300000 = 11 then 'paused' when i % 20 = 9 then 'waiting'
            when i % 40000 = 13 then 'running' else 'succeeded' end as state
    from n
)
"""
ATTRIBUTES = (
    "select 'customer', number % :customers, number from holdfast_runs",
    "select 'region', iif(number % 4 < 2, 'eu', 'us'), number from holdfast_runs",
    "select 'even', number % 2 = 0, number from holdfast_runs",
    "select 'amount', number * 7919 % 1000, number from holdfast_runs",
    "select 'address.city', iif(number % 50 = 0, 'Berlin', 'Bonn' || number % 50), number from holdfast_runs",
    "select 'vip', 1, number from holdfast_runs where number % 100000 = 1",
    "select 'age', 'old', number from holdfast_runs where number < :runs / 10",
)


def main() -> None:
    """Measure and print the report."""
    parser = argparse.ArgumentParser(description="Searches.")
    add_arguments(parser)
    given = parser.parse_args()
    bench = Bench(directory=checked_directory(given.dir), repetitions=given.repetitions, scale=given.scale)
    report = Report("holdfast")
    with empty_directory(bench.directory) as directory:
        fill(directory, bench.count(RUNS))
        asyncio.run(measure_searches(directory, report))
    measure_starts(bench, report)
    report.print_json()


def fill(directory: Path, runs: int) -> None:
    """A database with so many runs; the schema is made by the app."""
    asyncio.run(opened(directory))
    values = {"runs": runs, "customers": max(1, runs // 5), "now": time.time_ns() // 1_000}
    with closing(sqlite3.connect(directory / DATABASE)) as connection:
        connection.execute("pragma synchronous = off")
        connection.execute(FILL, values)
        for rows in ATTRIBUTES:
            connection.execute(f"insert into holdfast_attributes (key, value, run) {rows} order by 1, 2, 3", values)
        connection.commit()


async def opened(directory: Path) -> None:
    """Open and close a client."""
    async with new_app(directory).client():
        pass


async def measure_searches(directory: Path, report: Report) -> None:
    """Every search, then the counts and the statistics."""
    async with new_app(directory).client() as client:
        for limit in LIMITS:
            add(report, f"list_{limit}", {where: await page_ms(client, where, limit=limit) for where in SEARCHES})
        add(report, "list_unlucky", {where: await page_ms(client, where, limit=20) for where in UNLUCKY})
        add(report, "list_late", {where: await late_page_ms(client, where) for where in LATE})
        add(report, "count_capped", {where: await count_ms(client, where) for where in SEARCHES})
        windows = {"1 h": 3_600, "30 d": 30 * 86_400}
        add(report, "stats", {name: await stats_ms(client, seconds) for name, seconds in windows.items()})


async def page_ms(client: Client, where: str, *, limit: int) -> list[float]:
    """The first page."""
    return await looks_ms(lambda: client.list(where=where, limit=limit))


async def late_page_ms(client: Client, where: str) -> list[float]:
    """Pages behind the two thousandth run cost what the first costs."""
    after = (await client.list(where=where, limit=2_000)).next
    return await looks_ms(lambda: client.list(where=where, limit=20, after=after))


async def count_ms(client: Client, where: str) -> list[float]:
    """A count that ends at ten thousand."""
    return await looks_ms(lambda: client.count(where=where, limit=10_001))


async def stats_ms(client: Client, seconds: int) -> list[float]:
    """The statistics of a window."""
    return await looks_ms(lambda: client.stats(window=seconds))


async def looks_ms(look: Callable[[], Awaitable[object]]) -> list[float]:
    """Milliseconds of each look, after one that warms the cache."""
    await look()
    samples: list[float] = []
    for _ in range(LOOKS):
        with stopwatch() as seconds:
            await look()
        samples.append(seconds() * 1_000)
    return samples


def add(report: Report, name: str, timings: dict[str, list[float]]) -> None:
    """The figure is the slowest search's; the note tells which it is, what is usual, and the worst single look."""
    medians = {where: statistics.median(samples) for where, samples in timings.items()}
    slowest = max(medians, key=lambda where: medians[where])
    worst = max(timings, key=lambda where: max(timings[where]))
    usual = statistics.median(medians.values())
    note = (
        f"{slowest!r}, the slowest at the median of {len(timings)} searches, median of all {usual:.2f} ms; worst single"
        f" look {max(timings[worst]):.1f} ms, {worst!r}; rows written by SQL as the engine writes them"
    )
    report.add(name, "ms", timings[slowest], note=note)
    for where, median in medians.items():
        worst_ms = max(timings[where])
        print(f"    {name}  {where or '(all)':60} {median:8.2f} ms  worst {worst_ms:8.2f}", file=sys.stderr)


def measure_starts(bench: Bench, report: Report) -> None:
    """Starts with attributes into the filled database, as a share of those into an empty one."""
    shares: list[float] = []
    with empty_directory(bench.directory) as directory:
        fill(directory, bench.count(RUNS))
        for _ in range(max(1, bench.repetitions // 2)):
            with empty_directory(bench.directory) as empty:
                free = asyncio.run(starts_per_second(empty))
            shares.append(100 * asyncio.run(starts_per_second(directory)) / free)
    note = "starts/s with two attributes, among 1,000,000 runs, as a share of those into an empty database"
    report.add("start_searchable", "%", shares, note=note)


async def starts_per_second(directory: Path) -> float:
    """Starts in a second, many in each call."""
    async with new_app(directory).client() as client:
        with stopwatch() as seconds:
            for _ in range(CALLS):
                await client.start_many(
                    [
                        Start(workloads.steps, 1, attributes={"customer": n, "region": "eu"})
                        for n in range(STARTS_A_CALL)
                    ]
                )
        return CALLS * STARTS_A_CALL / seconds()


if __name__ == "__main__":
    main()
