"""Whether the file stops growing: steady load for a while, with a retention of a second and without any.

Each sample has a fresh database. Runs of one step are started and awaited by a fixed number of callers for a fixed
time, and the file with its log is measured at 10, 25, 50, 75 and 100 % of it. The figures of one repetition with and
without retention follow each other directly, so that a machine that changes its mind shows in both.

A minute is what `make bench` can afford; the long form is

    python -m bench.retention_bench --dir ... --scale 10 --repetitions 1
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

from bench import workloads
from bench.measuring import Bench, Report, add_arguments, checked_directory, empty_directory
from holdfast import Holdfast, Retention, WorkerOptions

SECONDS = 60
AT_ONCE = 500
MARKS = (0.10, 0.25, 0.50, 0.75, 1.00)
REPETITIONS_MAX = 2
DATABASE = "bench.db"


@dataclass(frozen=True, slots=True)
class Load:
    """One period of load: runs a second, and MB at each of the marks."""

    rate: float
    sizes_mb: list[float]


def main() -> None:
    """Measure and print the report."""
    parser = argparse.ArgumentParser(description="The size of a file under steady load.")
    add_arguments(parser)
    given = parser.parse_args()
    bench = Bench(directory=checked_directory(given.dir), repetitions=given.repetitions, scale=given.scale)
    report = Report("holdfast", facts={"version": version("holdfast"), "sqlite": sqlite3.sqlite_version})
    measure_retention(bench, report)
    report.print_json()


def measure_retention(bench: Bench, report: Report) -> None:
    """Add every figure to `report`."""
    seconds = max(5.0, SECONDS * bench.scale)
    kept, pruned = [], []
    for _ in range(min(bench.repetitions, REPETITIONS_MAX)):
        kept.append(load(bench.directory, seconds, None))
        pruned.append(load(bench.directory, seconds, Retention(succeeded=timedelta(seconds=1))))
    note = f"runs of one step, {AT_ONCE} at once, for {seconds:g} s"
    report.add("kept", "runs/s", [one.rate for one in kept], note=f"{note}, no retention")
    report.add("pruned", "runs/s", [one.rate for one in pruned], note=f"{note}, kept for 1 s")
    for place, mark in enumerate(MARKS):
        name = f"{mark * 100:.0f} %"
        report.add(f"kept at {name}", "MB", [one.sizes_mb[place] for one in kept], note="file and log, no retention")
        report.add(f"pruned at {name}", "MB", [one.sizes_mb[place] for one in pruned], note="file and log, kept 1 s")
    growth = [one.sizes_mb[-1] / one.sizes_mb[2] for one in pruned]
    report.add("growth", "times", growth, note="size at the end to that at half time, kept for 1 s")


def load(parent: Path, seconds: float, retention: Retention | None) -> Load:
    """One period of load in an empty directory."""
    with empty_directory(parent) as directory:
        found = asyncio.run(steady(directory, seconds, retention))
    told = " ".join(f"{size:,.0f}" for size in found.sizes_mb)
    print(f"  {found.rate:,.0f} runs/s, MB: {told}", file=sys.stderr, flush=True)
    return found


async def steady(directory: Path, seconds: float, retention: Retention | None) -> Load:
    """Callers that start a run and await it, again and again, and the sizes on the way."""
    app = Holdfast(f"sqlite:///{directory / DATABASE}", worker=WorkerOptions(retention=retention))
    app.include(*workloads.WORKFLOWS)
    count = 0
    async with app:
        began = time.perf_counter()

        async def caller() -> None:
            nonlocal count
            while time.perf_counter() - began < seconds:
                await app.run(workloads.steps, 1)
                count += 1

        callers = asyncio.gather(*(caller() for _ in range(AT_ONCE)))
        sizes = []
        for mark in MARKS:
            await asyncio.sleep(max(0.0, began + seconds * mark - time.perf_counter()))
            sizes.append(megabytes(directory))
        await callers
        rate = count / (time.perf_counter() - began)
    return Load(rate, sizes)


def megabytes(directory: Path) -> float:
    """The database with its log. Looked at with `stat`: nothing but SQLite opens them."""
    files = (directory / name for name in (DATABASE, f"{DATABASE}-wal"))
    return sum(file.stat().st_size for file in files if file.exists()) / 1_000_000


if __name__ == "__main__":
    main()
