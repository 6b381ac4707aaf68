"""DBOS on SQLite: steps, runs and starts a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from bench.measuring import Report, bench_from_arguments, stopwatch
from bench.peers.dbos_app import DBOS, QUEUE, best, launched, remember_pragmas, steps, steps_async

CONCURRENT_RUNS = 50
STEPS_EACH = 10
IDLE_QUEUE = "nobody-listens"


def main() -> None:
    """Measure DBOS and print the report."""
    bench = bench_from_arguments("DBOS on SQLite.")
    logging.disable(logging.WARNING)
    report = Report("dbos", facts={"version": version("dbos")})

    def fresh(measure: Callable[[], float]) -> list[float]:
        return bench.samples(lambda directory: launched_sample(directory, measure, report))

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


def launched_sample(directory: Path, measure: Callable[[], float], report: Report) -> float:
    """Take `measure` with DBOS launched on a fresh database."""
    with launched(directory) as dbos:
        remember_pragmas(dbos, report)
        return measure()


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
