"""Holdfast on SQLite as it comes, with `synchronous=FULL`: every figure of its own.

Only the public surface is used. Each sample has a fresh database and a fresh app. Two measures need a word:

- *sequential*: the body of step n + 1 begins when step n is durable, so the distance between two bodies is what one
  durable step costs, commit and engine together. The sample is the median over a run.
- *replay*: a child process records a run and dies (`os._exit`) while the step behind the recorded ones executes. A new
  app on a copy of what is left rebuilds the run; the time until that step begins again, less the same for a run without
  recorded steps (opening, recovery), divided by the entries, is what one entry costs.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import workloads
from bench.measuring import (
    Bench,
    Report,
    add_arguments,
    checked_directory,
    copied_directory,
    empty_directory,
    stopwatch,
)
from holdfast import Holdfast, Start

STEPS_EACH = 50
RUNS_AT_ONCE = 2_000
STARTS_A_CALL = 1_000
IMPORTS = 10
DATABASE = "bench.db"


def main() -> None:
    """Measure Holdfast and print the report; or, as the child of the replay measure, record a run and die."""
    parser = argparse.ArgumentParser(description="Holdfast on SQLite.")
    add_arguments(parser)
    parser.add_argument("--record-and-die", type=int, metavar="STEPS", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.record_and_die is not None:
        asyncio.run(record_and_die(given.dir, given.record_and_die))
    bench = Bench(directory=checked_directory(given.dir), repetitions=given.repetitions, scale=given.scale)
    report = Report("holdfast", facts={"version": version("holdfast"), "sqlite": sqlite3.sqlite_version})
    measure_holdfast(bench, report)
    report.print_json()


def measure_holdfast(bench: Bench, report: Report) -> None:
    """Add every figure to `report`."""
    measure_import(report)
    measure_sequential(bench, report)
    measure_concurrent(bench, report)
    measure_runs(bench, report)
    measure_starts(bench, report)
    measure_replay(bench, report)


def new_app(directory: Path) -> Holdfast:
    """An app on the database of `directory` that knows the measured workflows."""
    app = Holdfast(f"sqlite:///{directory / DATABASE}")
    app.include(*workloads.WORKFLOWS)
    return app


# --- import ---


def measure_import(report: Report) -> None:
    """`import holdfast` in fresh interpreters."""
    samples = [import_ms() for _ in range(IMPORTS)]
    report.add("import", "ms", samples, note=f"best {min(samples):.0f}")


def import_ms() -> float:
    """Milliseconds that `import holdfast` takes in a fresh interpreter."""
    code = "import time; began = time.perf_counter(); import holdfast; print(time.perf_counter() - began)"
    child = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(child.stdout) * 1_000


# --- one run ---


def measure_sequential(bench: Bench, report: Report) -> None:
    """The median cost of a step in a run of sequential steps."""
    count = bench.count(300)
    samples = bench.samples(lambda directory: asyncio.run(sequential_us(directory, count)))
    report.add("sequential", "us", samples, note=f"p50 of {count} steps of one run")


async def sequential_us(directory: Path, count: int) -> float:
    """Microseconds between the bodies of consecutive steps, at the median."""
    workloads.step_times_ns.clear()
    async with new_app(directory) as app:
        await app.run(workloads.timed_steps, count)
    began = workloads.step_times_ns
    return statistics.median(after - before for before, after in itertools.pairwise(began)) / 1_000


# --- many runs ---


def measure_concurrent(bench: Bench, report: Report) -> None:
    """Steps a second of many runs; bytes on disk; and a `def` workflow against an `async def` one."""
    runs, fewer = bench.count(1_000), bench.count(200)
    sizes: list[float] = []

    def many(directory: Path) -> float:
        rate = asyncio.run(steps_a_second(directory, workloads.steps, runs=runs))
        sizes.append(bytes_on_disk(directory) / (runs * STEPS_EACH))
        return rate

    report.add("concurrent", "steps/s", bench.samples(many), note=f"{runs} runs of {STEPS_EACH} steps")
    report.add("bytes", "bytes/step", sizes, note="the file after a checkpoint, by steps")
    report.add("def", "times", bench.samples(lambda directory: def_ratio(directory, fewer)), note=f"{fewer} runs each")


async def steps_a_second(directory: Path, workflow: Any, *, runs: int) -> float:
    """Steps a second, from the first start to the last result."""
    directory.mkdir(exist_ok=True)
    async with new_app(directory) as app:
        with stopwatch() as elapsed:
            started = await app.start_many([Start(workflow, STEPS_EACH, id=f"r{number}") for number in range(runs)])
            results = await asyncio.gather(*(run.result() for run in started))
    if results != [STEPS_EACH] * runs:
        raise AssertionError("a run gave a wrong result")
    return runs * STEPS_EACH / elapsed()


def def_ratio(directory: Path, runs: int) -> float:
    """How many times longer the `def` workflow takes than the `async def` one."""
    rate_async = asyncio.run(steps_a_second(directory / "async", workloads.steps, runs=runs))
    rate_def = asyncio.run(steps_a_second(directory / "def", workloads.steps_in_def, runs=runs))
    return rate_async / rate_def


def bytes_on_disk(directory: Path) -> int:
    """The size of the closed database, everything moved from the log into the file."""
    connection = sqlite3.connect(directory / DATABASE)
    connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()
    return (directory / DATABASE).stat().st_size


# --- runs and starts ---


def measure_runs(bench: Bench, report: Report) -> None:
    """Runs of one step, started and finished concurrently."""
    count = bench.count(20_000)
    samples = bench.samples(lambda directory: asyncio.run(runs_a_second(directory, count)))
    report.add("runs", "runs/s", samples, note=f"{count} runs of one step, {RUNS_AT_ONCE} at once")


async def runs_a_second(directory: Path, count: int) -> float:
    """Runs a second, each started by a call of its own and awaited."""
    numbers = iter(range(count))

    async def start_and_await(app: Holdfast, numbers: Iterator[int]) -> None:
        for number in numbers:
            await app.run(workloads.steps, 1, id=f"r{number}")

    async with new_app(directory) as app:
        with stopwatch() as elapsed:
            await asyncio.gather(*(start_and_await(app, numbers) for _ in range(RUNS_AT_ONCE)))
    return count / elapsed()


def measure_starts(bench: Bench, report: Report) -> None:
    """`start_many` by a client that executes nothing."""
    calls = bench.count(50)
    samples = bench.samples(lambda directory: asyncio.run(starts_a_second(directory, calls)))
    report.add("start", "runs/s", samples, note=f"{calls} calls of start_many with {STARTS_A_CALL} runs")


async def starts_a_second(directory: Path, calls: int) -> float:
    """Acknowledged starts a second."""
    async with new_app(directory).client() as client:
        with stopwatch() as elapsed:
            for call in range(calls):
                await client.start_many(
                    [Start(workloads.steps, 1, id=f"r{call}-{number}") for number in range(STARTS_A_CALL)]
                )
    return calls * STARTS_A_CALL / elapsed()


# --- replay ---


def measure_replay(bench: Bench, report: Report) -> None:
    """The cost of one recorded entry when a run is rebuilt."""
    entries = bench.count(5_000)
    with empty_directory(bench.directory) as recorded, empty_directory(bench.directory) as empty:
        record(recorded, entries)
        record(empty, 0)
        samples = [(rebuild_us(bench, recorded) - rebuild_us(bench, empty)) / entries for _ in range(bench.repetitions)]
    report.add("replay", "us", samples, note=f"an entry, in a run of {entries}, after a crash")


def record(directory: Path, entries: int) -> None:
    """Let a child process record a run of `entries` steps and die in the next step."""
    arguments = ["--dir", str(directory), "--record-and-die", str(entries)]
    child = subprocess.run([sys.executable, "-m", "bench.holdfast_bench", *arguments], check=False)
    if child.returncode != EXIT_AT_THE_GATE:
        raise AssertionError(f"the recording process ended with {child.returncode}")


EXIT_AT_THE_GATE = 42


async def record_and_die(directory: Path, entries: int) -> None:
    """Die in the body of the gate, which begins when everything before it is durable."""
    async with new_app(directory) as app:
        workloads.at_gate.append(lambda: os._exit(EXIT_AT_THE_GATE))
        await app.run(workloads.steps_and_gate, entries, id="replayed")


def rebuild_us(bench: Bench, crashed: Path) -> float:
    """Microseconds from opening an app on a copy of `crashed` until its run is at the gate again."""
    with copied_directory(crashed, bench.directory) as directory:
        reached_ns: list[int] = []
        workloads.at_gate[:] = [lambda: reached_ns.append(time.perf_counter_ns())]
        began_ns = time.perf_counter_ns()
        asyncio.run(finish_replayed(directory))
        return (reached_ns[0] - began_ns) / 1_000


async def finish_replayed(directory: Path) -> None:
    """Recover the run and let it end."""
    async with new_app(directory) as app:
        await app.get("replayed").result()


if __name__ == "__main__":
    main()
