"""Two processes, a client and a worker: how soon does one see what the other has done, and what does waiting cost?

At a light load, some 20 runs a second at irregular distances:

- *start*: from the call of `start` in the client until the first body begins in the worker.
- *finish*: from the end of the last body in the worker until `result()` returns in the client.
- *cancel*: from the call of `cancel` in the client until the run, in the worker, begins to clean up.

Each includes the commits that belong to it. *idle* is the processor time of a worker with nothing to do, threads and
kernel included, in percent of one processor. All clocks are the same one: both processes are on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from bench.measuring import Bench, Report, add_arguments, checked_directory, empty_directory
from holdfast import Holdfast, RunCancelled, sleep, step, workflow

DATABASE = "bench.db"
EVENTS = 100
PAUSE_SECONDS = 0.05
SETTLE_SECONDS = 12.0
IDLE_SECONDS = 12.0
LONG_SECONDS = 3_600.0


@step
async def now_ns() -> int:
    """The instant at which this body runs."""
    return time.perf_counter_ns()


@workflow
async def noted() -> int:
    """A run of one body."""
    return await now_ns()


@workflow
async def noted_when_cancelled() -> None:
    """A run that waits to be cancelled, and notes when it is."""
    await now_ns()
    try:
        await sleep(LONG_SECONDS)
    finally:
        await now_ns()


def main() -> None:
    """Measure and print the report; or, as a child, be the worker."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        asyncio.run(work(given.dir))
        return
    bench = Bench(directory=checked_directory(given.dir), repetitions=given.repetitions, scale=given.scale)
    report = Report("holdfast", facts={"version": version("holdfast")})
    measure_events(bench, report)
    report.print_json()


def measure_events(bench: Bench, report: Report) -> None:
    """Medians and 95th percentiles over one series of events, and the worker's idle cost."""
    events = bench.count(EVENTS)
    with empty_directory(bench.directory) as directory, worker(directory) as child:
        start, finish, cancel = asyncio.run(latencies(directory, events))
        idle = [idle_percent(child) for _ in range(min(bench.repetitions, 2))]
    for name, samples in (("start", start), ("finish", finish), ("cancel", cancel)):
        p95 = statistics.quantiles(samples, n=20)[-1]
        note = f"{events} of them, one each {PAUSE_SECONDS * 1000:.0f} ms; p95 {p95:.1f} ms"
        report.add(f"event_{name}", "ms", samples, note=note)
    report.add("idle", "% of a core", idle, note=f"processor time of an idle worker over {IDLE_SECONDS:g} s")


async def latencies(directory: Path, events: int) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds of starts, finishes and cancellations, as a client sees them."""
    start: list[float] = []
    finish: list[float] = []
    cancel: list[float] = []
    async with new_app(directory).client() as client:
        await client.run(noted)
        for _ in range(events):
            await pause()
            began = time.perf_counter_ns()
            at = await (await client.start(noted)).result()
            finish.append((time.perf_counter_ns() - at) / 1e6)
            start.append((at - began) / 1e6)
        for _ in range(events):
            run = await client.start(noted_when_cancelled)
            while not await run.history():
                await pause()
            began = time.perf_counter_ns()
            await run.cancel()
            with suppress(RunCancelled):
                await run.result()
            cleaned_up = [entry for entry in await run.history() if entry.kind == "step"][-1]
            cancel.append((cleaned_up.output - began) / 1e6)
    return start, finish, cancel


async def pause() -> None:
    """Irregular, so that the events are not in step with anything that looks regularly."""
    await asyncio.sleep(random.uniform(0.5, 1.5) * PAUSE_SECONDS)


@contextmanager
def worker(directory: Path) -> Generator[subprocess.Popen[str]]:
    """A process with a worker; it ends with its input."""
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.events_bench", "--dir", str(directory), "--worker"],
        cwd=Path(__file__).parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    if child.stdout.readline() != "ready\n":
        raise AssertionError("the worker did not open the database")
    yield child
    child.communicate()


def idle_percent(child: subprocess.Popen[str]) -> float:
    """Ask the worker what doing nothing costs it."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("idle\n")
    child.stdin.flush()
    return float(child.stdout.readline())


def new_app(directory: Path) -> Holdfast:
    """An app on the database of `directory`."""
    app = Holdfast(f"sqlite:///{directory / DATABASE}")
    app.include(noted, noted_when_cancelled)
    return app


async def work(directory: Path) -> None:
    """Be the worker; for each line of the input, tell the cost of being idle."""
    async with new_app(directory):
        print("ready", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            await asyncio.sleep(SETTLE_SECONDS)
            cpu, began = time.process_time(), time.perf_counter()
            await asyncio.sleep(IDLE_SECONDS)
            print(100 * (time.process_time() - cpu) / (time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    main()
