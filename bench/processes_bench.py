"""Several processes on one file, each a worker with its own share of the runs: what do they do together?

The same number of runs is split among 1, 2 and 4 processes. Each opens the file, says so, and begins when all are
there. Only the time while all of them work counts for the shares, since one that is left alone is faster. The longest
wait is the longest time in which no step of one process began: its turns, its commits and its own computing together.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from bench import workloads
from bench.measuring import Bench, Report, add_arguments, checked_directory, empty_directory
from holdfast import Holdfast, Start

PROCESSES = (1, 2, 4)
STEPS_EACH = 50
DATABASE = "bench.db"
CHILD_SECONDS_MAX = 600


class Together(NamedTuple):
    """What several processes did."""

    rate: float
    """Steps a second of all, from the first start to the last result."""
    share: float
    """The steps of the slowest by those of the fastest, while all were at work."""
    wait_ms: float
    """The longest time in which one of them began no step."""


def main() -> None:
    """Measure and print the report; or, as a child, be one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        asyncio.run(work(given.dir, given.child, given.runs))
        return
    bench = Bench(directory=checked_directory(given.dir), repetitions=given.repetitions, scale=given.scale)
    report = Report("holdfast", facts={"version": version("holdfast")})
    measure_processes(bench, report)
    report.print_json()


def measure_processes(bench: Bench, report: Report) -> None:
    """Rates for each number of processes, taken in turns so that a machine that slows down slows all of them."""
    runs = bench.count(1_000)
    taken: dict[int, list[Together]] = {processes: [] for processes in PROCESSES}
    for _ in range(bench.repetitions):
        for processes in PROCESSES:
            with empty_directory(bench.directory) as directory:
                taken[processes].append(together(directory, processes, runs))
    for processes, samples in taken.items():
        note = f"{runs} runs of {STEPS_EACH} steps, split among {processes}"
        report.add(f"processes_{processes}", "steps/s", [sample.rate for sample in samples], note=note)
    most = PROCESSES[-1]
    pairs = zip(taken[most], taken[1], strict=True)
    note = f"steps/s of {most} processes by those of one"
    report.add("processes_gain", "%", [100 * many.rate / one.rate for many, one in pairs], note=note)
    note = f"the slowest of {most} by the fastest, while all work"
    report.add("processes_share", "%", [100 * sample.share for sample in taken[most]], note=note)
    note = f"longest time without a step in one of {most}"
    report.add("processes_wait", "ms", [sample.wait_ms for sample in taken[most]], note=note)


def together(directory: Path, processes: int, runs: int) -> Together:
    """Let so many processes execute the runs."""
    children = [child(directory, number, runs // processes) for number in range(processes)]
    for each in children:
        assert each.stdout is not None
        if each.stdout.readline() != "ready\n":
            raise AssertionError("a process did not open the database")
    for each in children:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    times: list[list[int]] = []
    for each in children:
        assert each.stdout is not None
        times.append(json.loads(each.stdout.readline()))
    for each in children:
        each.communicate(timeout=CHILD_SECONDS_MAX)
    return compared(times)


def child(directory: Path, number: int, runs: int) -> subprocess.Popen[str]:
    """One of the processes. It ends with its input."""
    arguments = ["--dir", str(directory), "--child", str(number), "--runs", str(runs)]
    return subprocess.Popen(
        [sys.executable, "-m", "bench.processes_bench", *arguments],
        cwd=Path(__file__).parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def compared(times: list[list[int]]) -> Together:
    """From when each process began, began its steps and ended, in nanoseconds of one clock."""
    first, last = min(each[0] for each in times), max(each[-1] for each in times)
    from_, until = max(each[0] for each in times), min(each[-1] for each in times)
    steps = [sum(from_ <= moment <= until for moment in each[1:-1]) for each in times]
    waits = [after - before for each in times for before, after in itertools.pairwise(each)]
    total = sum(len(each) - 2 for each in times)
    return Together(total / (last - first) * 1e9, min(steps) / max(steps), max(waits) / 1e6)


async def work(directory: Path, number: int, runs: int) -> None:
    """Be one of the processes: tell when each step began."""
    app = Holdfast(f"sqlite:///{directory / DATABASE}")
    app.include(workloads.timed_steps)
    async with app:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        began = time.perf_counter_ns()
        starts = [Start(workloads.timed_steps, STEPS_EACH, id=f"r{number}-{each}") for each in range(runs)]
        started = await app.start_many(starts)
        results = await asyncio.gather(*(run.result() for run in started))
        ended = time.perf_counter_ns()
        if results != [STEPS_EACH] * runs:
            raise AssertionError("a run gave a wrong result")
        print(json.dumps([began, *workloads.step_times_ns, ended]), flush=True)
        await asyncio.to_thread(sys.stdin.read)  # others still work


if __name__ == "__main__":
    main()
