"""The floor: what the disk and plain SQLite can do, with nothing of ours in between.

Three figures: a bare `fdatasync` after writing one page; one row committed with `synchronous=FULL` in WAL mode, the
least that one durable step can cost; and `executemany` in transactions of 1,000 rows, which bounds what any group
commit can reach. Rows have the size of a small journal entry.
"""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from bench.measuring import Bench, Report, bench_from_arguments, file_system, stopwatch

PAGE = b"\x55" * 4096
BATCH_ROWS = 1_000
INSERT = "insert into entry (run_id, seq, kind, payload) values (?, ?, ?, ?)"


def main() -> None:
    """Measure the floor and print the report."""
    bench = bench_from_arguments("The disk's own floor.")
    report = Report("floor", facts=facts(bench.directory))
    measure_floor(bench, report)
    report.print_json()


def measure_floor(bench: Bench, report: Report) -> None:
    """Add the three floors to `report`."""
    single = bench.count(500)
    report.add(
        "fdatasync", "us", bench.samples(lambda directory: fdatasync_us(directory, single)), note=f"p50 of {single}"
    )
    report.add(
        "commit", "us", bench.samples(lambda directory: commit_us(directory, single)), note=f"p50 of {single}, one row"
    )
    batches = bench.count(50)
    report.add(
        "executemany",
        "rows/s",
        bench.samples(lambda directory: executemany_rows(directory, batches)),
        note=f"{batches} transactions of {BATCH_ROWS} rows",
    )


def fdatasync_us(directory: Path, count: int) -> float:
    """The median time to sync one written page, in microseconds."""
    descriptor = os.open(directory / "raw", os.O_CREAT | os.O_RDWR, 0o600)
    try:

        def write_and_sync(number: int) -> None:
            os.pwrite(descriptor, PAGE, number * len(PAGE))
            sync(descriptor)

        return median_us(write_and_sync, count)
    finally:
        os.close(descriptor)


def sync(descriptor: int) -> None:
    """`fdatasync`, or `fsync` where there is none (macOS)."""
    getattr(os, "fdatasync", os.fsync)(descriptor)


def commit_us(directory: Path, count: int) -> float:
    """The median time of one transaction with one row, in microseconds."""
    connection = open_database(directory)

    def commit(number: int) -> None:
        connection.execute("begin immediate")
        connection.execute(INSERT, row(number))
        connection.execute("commit")

    try:
        return median_us(commit, count)
    finally:
        connection.close()


def executemany_rows(directory: Path, batches: int) -> float:
    """Rows a second, written in transactions of 1,000."""
    connection = open_database(directory)
    rows = [[row(batch * BATCH_ROWS + number) for number in range(BATCH_ROWS)] for batch in range(batches)]
    with stopwatch() as elapsed:
        for batch in rows:
            connection.execute("begin immediate")
            connection.executemany(INSERT, batch)
            connection.execute("commit")
    connection.close()
    return batches * BATCH_ROWS / elapsed()


def median_us(action: Callable[[int], None], count: int) -> float:
    """The median time of `action`, called with 0 to `count` - 1, in microseconds."""
    times: list[int] = []
    for number in range(count):
        began = time.perf_counter_ns()
        action(number)
        times.append(time.perf_counter_ns() - began)
    return statistics.median(times) / 1_000


def row(number: int) -> tuple[str, int, str, str]:
    """A row like that of a small step."""
    return f"run-{number // 50}", number % 50, "step", '{"name":"tick","result":12345,"at":1700000000000000}'


def open_database(directory: Path) -> sqlite3.Connection:
    """A WAL database with `synchronous=FULL` and one table."""
    connection = sqlite3.connect(directory / "floor.db", isolation_level=None)
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=full")
    connection.execute(
        "create table entry (run_id text not null, seq integer not null, kind text not null, payload text not null,"
        " primary key (run_id, seq)) without rowid"
    )
    return connection


def facts(directory: Path) -> dict[str, str | int | float]:
    """What the figures depend on."""
    return {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "file_system": file_system(directory),
        "journal_mode": "wal",
        "synchronous": "full",
    }


if __name__ == "__main__":
    main()
