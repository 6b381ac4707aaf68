"""Measures what many runs cost: taking over ten thousand after a crash, and a million that sleep.

The million are real rows of one real run that was parked by the engine, multiplied by SQL: recording them one by one
would take minutes and measure something else. Waking them is real.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench import workloads
from bench.holdfast_bench import DATABASE, EXIT_AT_THE_GATE, new_app
from bench.measuring import (
    Bench,
    Report,
    add_arguments,
    checked_directory,
    copied_directory,
    empty_directory,
    resident_mb,
    stopwatch,
)
from holdfast import Client, ExecutorOptions, Holdfast, Start, WorkerOptions

RECOVERED = 10_000
RECORDED_EACH = 10
SLEEPING = 1_000_000
WAKING_SECONDS = 10.0
STARTS_A_CALL = 1_000
CALLS = 20
LOOK_SECONDS = 0.5
PAGE = 20
PAGES = 20


def main() -> None:
    """Measure and print the report; or, as a child, record runs and die, or tell what an open app has in memory."""
    parser = argparse.ArgumentParser(description="Many runs.")
    add_arguments(parser)
    parser.add_argument("--record-and-die", type=int, metavar="RUNS", help=argparse.SUPPRESS)
    parser.add_argument("--open-and-tell", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.record_and_die is not None:
        asyncio.run(record_and_die(given.dir, given.record_and_die))
    if given.open_and_tell:
        asyncio.run(open_and_tell(given.dir))
        return
    bench = Bench(directory=checked_directory(given.dir), repetitions=given.repetitions, scale=given.scale)
    report = Report("holdfast")
    measure_recovery(bench, report)
    measure_sleeping(bench, report)
    report.print_json()


# --- recovery ---


def measure_recovery(bench: Bench, report: Report) -> None:
    """From opening an app until each run of a dead worker has begun its next step."""
    runs = bench.count(RECOVERED)
    with empty_directory(bench.directory) as crashed:
        arguments = ["--dir", str(crashed), "--record-and-die", str(runs)]
        child = subprocess.run([sys.executable, "-m", "bench.many_runs_bench", *arguments], check=False)
        if child.returncode != EXIT_AT_THE_GATE:
            raise AssertionError(f"the recording process ended with {child.returncode}")
        samples = [recovery_ms(bench, crashed, runs) for _ in range(bench.repetitions)]
    note = f"{runs} runs of {RECORDED_EACH} recorded steps, until all have begun the next"
    report.add("recovery", "ms", samples, note=note)
    report.add("recovery_rate", "runs/s", [runs * 1_000 / sample for sample in samples], note="the same, as a rate")


async def record_and_die(directory: Path, runs: int) -> None:
    """Die when every run has begun its gate: everything before it is durable then."""
    arrived: list[None] = []

    def arrive() -> None:
        arrived.append(None)
        if len(arrived) == runs:
            os._exit(EXIT_AT_THE_GATE)

    workloads.at_gate[:] = [arrive]
    workloads.gate_opens = asyncio.Event()
    async with new_app(directory) as app:
        await app.start_many([Start(workloads.steps_and_gate, RECORDED_EACH, id=f"r{n}") for n in range(runs)])
        await asyncio.Event().wait()


def recovery_ms(bench: Bench, crashed: Path, runs: int) -> float:
    """Milliseconds of one recovery, of a copy of `crashed`."""
    with copied_directory(crashed, bench.directory) as directory:
        return asyncio.run(recover(directory, runs)) * 1_000


async def recover(directory: Path, runs: int) -> float:
    """Seconds until all runs are at the gate; then they end."""
    arrived: list[float] = []
    workloads.at_gate[:] = [lambda: arrived.append(time.perf_counter())]
    workloads.gate_opens = asyncio.Event()
    began = time.perf_counter()
    async with new_app(directory) as app:
        while len(arrived) < runs:
            await asyncio.sleep(0.01)
        workloads.gate_opens.set()
        while await app.count(state="succeeded") < runs:
            await asyncio.sleep(0.05)
    if len(arrived) != runs:
        raise AssertionError(f"{len(arrived)} steps began in {runs} runs")
    return max(arrived) - began


# --- a million that sleep ---


def measure_sleeping(bench: Bench, report: Report) -> None:
    """Starts and waking with a million sleeping runs in the database, and what the worker has in memory then."""
    count = bench.count(SLEEPING)
    with empty_directory(bench.directory) as directory, empty_directory(bench.directory) as empty:
        asyncio.run(park_one(directory))
        multiply(directory / DATABASE, count)
        measure_resident_each(bench, report, directory, count)
        asyncio.run(measure_list_page(bench, report, directory, count))
        measure_starts_beside(report, directory, empty, repetitions=bench.repetitions)
        wake_now(directory / DATABASE)
        asyncio.run(measure_waking(report, directory, count))


async def park_one(directory: Path) -> None:
    """One sleeping run, parked."""
    options = WorkerOptions(execution=ExecutorOptions(park_after=0.0))
    app = Holdfast(f"sqlite:///{directory / DATABASE}", worker=options)
    app.include(*workloads.WORKFLOWS)
    async with app:
        await app.start(workloads.sleeper, id="s0")
        while (await app.get("s0").describe()).state != "waiting":
            await asyncio.sleep(0.01)


def multiply(database: Path, count: int) -> None:
    """Make `count` runs of the one that is there: its row and its entries, under other numbers and ids."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("begin immediate")
    for table, key in (("holdfast_runs", "number"), ("holdfast_history", "run")):
        columns: list[str] = [row[1] for row in connection.execute(f"pragma table_info({table})")]
        others: dict[str, str] = {key: f"{key} + copy.value", "id": "'s' || copy.value"}
        connection.execute(
            f"""insert into {table} ({", ".join(columns)})
            with recursive copy (value) as (select 1 union all select value + 1 from copy where value < {count - 1})
            select {", ".join(others.get(column, column) for column in columns)} from {table}, copy where {key} = 1"""
        )
    connection.execute("commit")
    connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()


def measure_resident_each(bench: Bench, report: Report, directory: Path, count: int) -> None:
    """The memory of a worker beside a million that sleep, shared out among them."""
    arguments = ["-m", "bench.many_runs_bench", "--dir", str(directory), "--open-and-tell"]
    samples: list[float] = []
    for _ in range(bench.repetitions):
        child = subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.PIPE, text=True)
        samples.append(float(child.stdout) * 1_000 / count)
    note = f"all that a fresh worker has, interpreter included, by {count:,} sleeping runs: they are rows"
    report.add("resident_each", "KB", samples, note=note)


async def open_and_tell(directory: Path) -> None:
    """Print the memory of a worker that has opened the database and executed a run."""
    async with new_app(directory) as app:
        await app.run(workloads.steps, 1)
        print(resident_mb())


async def measure_list_page(bench: Bench, report: Report, directory: Path, count: int) -> None:
    """A page of the newest of a million; each sample is the median of some."""
    async with new_app(directory).client() as client:
        samples = [statistics.median([await page_ms(client) for _ in range(PAGES)]) for _ in range(bench.repetitions)]
    report.add("list_page", "ms", samples, note=f"the newest {PAGE} of {count:,}")


async def page_ms(client: Client) -> float:
    """Milliseconds of one page."""
    with stopwatch() as elapsed:
        await client.list(limit=PAGE)
    return elapsed() * 1_000


def wake_now(database: Path) -> None:
    """Let every sleeping run be due."""
    connection = sqlite3.connect(database, isolation_level=None)
    now = time.time_ns() // 1_000
    connection.execute("update holdfast_runs set due_at = ? where state = 'waiting'", (now,))
    connection.execute("update holdfast_history set due_at = ? where state = 'pending'", (now,))
    connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()


def measure_starts_beside(report: Report, full: Path, empty: Path, *, repetitions: int) -> None:
    """Start speed beside a million sleeping runs, as a share of that on an empty database; turn by turn."""
    shares: list[float] = []
    for repetition in range(repetitions):
        rate_full = asyncio.run(starts_a_second(full, f"f{repetition}"))
        rate_empty = asyncio.run(starts_a_second(empty, f"e{repetition}"))
        shares.append(100 * rate_full / rate_empty)
    note = f"{CALLS} calls of start_many with {STARTS_A_CALL} scheduled runs"
    report.add("start_full", "%", shares, note=note)


async def starts_a_second(directory: Path, prefix: str) -> float:
    """Acknowledged starts a second, of runs that are not due: they stay out of the way of what follows."""
    async with new_app(directory).client() as client:
        with stopwatch() as elapsed:
            for call in range(CALLS):
                names = range(call * STARTS_A_CALL, (call + 1) * STARTS_A_CALL)
                await client.start_many([Start(workloads.steps, 1, delay=86_400, id=f"{prefix}-{n}") for n in names])
        return CALLS * STARTS_A_CALL / elapsed()


async def measure_waking(report: Report, directory: Path, count: int) -> None:
    """Runs woken a second while a million are due, the memory that takes, and how long new work waits meanwhile."""
    resident: list[float] = []
    waits: list[float] = []
    app = new_app(directory)
    async with new_app(directory).client() as client, app:
        began, woken = time.perf_counter(), 0
        while time.perf_counter() - began < WAKING_SECONDS and woken < count:
            waits.append(await wait_of_new_work(client, len(waits)))
            resident.append(resident_mb())
            await asyncio.sleep(LOOK_SECONDS)
            woken = await client.count(workflow=workloads.sleeper, state="succeeded")
        rate = woken / (time.perf_counter() - began)
    report.add("waking", "runs/s", [rate], note=f"of {count:,} due sleeping runs, for {WAKING_SECONDS:g} s")
    report.add("resident", "MB", [max(resident)], note=f"the most of {len(resident)} looks while they wake")
    note = f"start to result of a run beside {count:,} due ones; worst {max(waits):.0f} ms"
    report.add("new_work", "ms", [statistics.median(waits)], note=note)


async def wait_of_new_work(client: Client, number: int) -> float:
    """Milliseconds from the start of a run by another connection to its result."""
    with stopwatch() as elapsed:
        await client.run(workloads.steps, 1, id=f"new-{number}")
    return elapsed() * 1_000


if __name__ == "__main__":
    main()
