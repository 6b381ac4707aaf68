"""Huey on SQLite, with fsync: enqueues and executions a second.

A task queue rather than a workflow engine: a task leaves the queue before it executes, so that nothing is recovered;
nothing sleeps in the middle of itself, no page lists a million runs, and several processes share tasks, not steps. None
of that is measured. `fsync=True` is `synchronous=FULL`; its journal mode is WAL by its own default. Results are stored.
Executions are measured with one and with four worker threads, and the faster is kept.
"""

from __future__ import annotations

import sqlite3
import threading
from importlib.metadata import version
from pathlib import Path

from huey import SqliteHuey

from bench.measuring import Report, bench_from_arguments, stopwatch

WORKERS = (1, 4)


def main() -> None:
    """Measure Huey and print the report."""
    bench = bench_from_arguments("Huey on SQLite.")
    report = Report("huey", facts={"version": version("huey"), "sqlite": sqlite3.sqlite_version})
    count = bench.count(3_000)
    enqueues: list[float] = []
    executions: dict[int, list[float]] = {workers: [] for workers in WORKERS}

    def measure(directory: Path, workers: int) -> float:
        enqueued, executed = enqueue_and_execute(directory, count=count, workers=workers, report=report)
        enqueues.append(enqueued)
        return executed

    for workers in WORKERS:
        executions[workers] = bench.samples(lambda directory, workers=workers: measure(directory, workers))
    best = max(WORKERS, key=lambda workers: sorted(executions[workers])[len(executions[workers]) // 2])
    report.add("start", "runs/s", enqueues, note=f"{count} enqueues, one thread")
    report.add("runs", "runs/s", executions[best], note=f"{count} executions, {best} worker threads")
    report.print_json()


def enqueue_and_execute(directory: Path, *, count: int, workers: int, report: Report) -> tuple[float, float]:
    """Enqueues a second, then executions a second of the same tasks."""
    huey = SqliteHuey("bench", filename=str(directory / "huey.db"), fsync=True)
    remaining = iter(range(count - 1, -1, -1))
    lock, finished = threading.Lock(), threading.Event()

    @huey.task()
    def tick(number: int) -> int:
        with lock:
            if next(remaining) == 0:
                finished.set()
        return number + 1

    with stopwatch() as enqueue_seconds:
        for number in range(count):
            tick(number)
    connection = huey.storage.conn
    report.facts["journal_mode"] = connection.execute("pragma journal_mode").fetchone()[0]
    report.facts["synchronous"] = connection.execute("pragma synchronous").fetchone()[0]
    consumer = huey.create_consumer(workers=workers, periodic=False)
    with stopwatch() as execute_seconds:
        consumer.start()
        finished.wait()
    consumer.stop(graceful=True)
    return count / enqueue_seconds(), count / execute_seconds()


if __name__ == "__main__":
    main()
