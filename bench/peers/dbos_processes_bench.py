"""Several DBOS processes on one SQLite file, each with its own share of the runs: what do they do together?

Each has an executor id of its own: under the default one, `local`, a process that starts would take over the live runs
of the others. DBOS waits up to 30 s for the lock of another process, then tries again after a pause; how often it did
that, and how many runs failed, is said in the notes. The workflows are `def` ones.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from bench.measuring import Bench, Report, add_arguments, checked_directory, empty_directory
from bench.peers import dbos_app
from bench.peers.dbos_app import DBOS

PROCESSES = (1, 4)
RUNS = 60
STEPS_EACH = 10
CHILD_SECONDS_MAX = 120


class Together(NamedTuple):
    """What several processes did."""

    rate: float
    """Steps a second of all, from the first start to the last result."""
    share: float
    """The steps of the slowest by those of the fastest, while all were at work."""
    wait_ms: float
    """The longest time in which one of them began no step."""
    failed: int
    """Runs that gave no result."""
    locked: int
    """How often one gave up waiting for the lock and paused."""


def main() -> None:
    """Measure and print the report; or, as a child, be one of the processes."""
    parser = argparse.ArgumentParser(description="Several processes, in DBOS on SQLite.")
    add_arguments(parser)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        work(given.dir, given.child, given.runs)
        return
    bench = Bench(directory=checked_directory(given.dir), repetitions=given.repetitions, scale=given.scale)
    report = Report("dbos", facts={"version": version("dbos")})
    measure_processes(bench, report)
    report.print_json()


def measure_processes(bench: Bench, report: Report) -> None:
    """Rates of one process and of several, taken in turns so that a machine that slows down slows both."""
    runs = max(RUNS, bench.count(RUNS))  # few would not all be at work at once
    taken: dict[int, list[Together]] = {processes: [] for processes in PROCESSES}
    for _ in range(bench.repetitions):
        for processes in PROCESSES:
            with empty_directory(bench.directory) as directory:
                taken[processes].append(together(directory, processes, runs))
    for processes, samples in taken.items():
        note = f"{runs} runs of {STEPS_EACH} steps, split among {processes}; {troubles(samples)}"
        report.add(f"processes_{processes}", "steps/s", [sample.rate for sample in samples], note=note)
    most = PROCESSES[-1]
    pairs = zip(taken[most], taken[1], strict=True)
    note = f"steps/s of {most} processes by those of one"
    report.add("processes_gain", "%", [100 * many.rate / one.rate for many, one in pairs], note=note)
    note = f"the slowest of {most} by the fastest, while all work"
    report.add("processes_share", "%", [100 * sample.share for sample in taken[most]], note=note)
    note = f"longest time without a step in one of {most}"
    report.add("processes_wait", "ms", [sample.wait_ms for sample in taken[most]], note=note)


def troubles(samples: list[Together]) -> str:
    """What went wrong, in words."""
    failed, locked = sum(sample.failed for sample in samples), sum(sample.locked for sample in samples)
    return f'in all {failed} runs failed and {locked} statements met "database is locked" and were tried again'


def together(directory: Path, processes: int, runs: int) -> Together:
    """Let so many processes execute the runs."""
    children = [child(directory, number, runs // processes) for number in range(processes)]
    try:
        for each in children:
            if each.stdout.readline() != "ready\n":
                raise AssertionError("a process did not open the database")
        for each in children:
            each.stdin.write("go\n")
            each.stdin.flush()
        deadline = time.monotonic() + CHILD_SECONDS_MAX
        outputs = [each.communicate(timeout=deadline - time.monotonic())[0] for each in children]
    finally:
        for each in children:
            each.kill()
    return compared([json.loads(output) for output in outputs])


def child(directory: Path, number: int, runs: int) -> subprocess.Popen[str]:
    """One of the processes."""
    arguments = ["--dir", str(directory), "--child", str(number), "--runs", str(runs)]
    return subprocess.Popen(
        [sys.executable, "-m", "bench.peers.dbos_processes_bench", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def compared(found: list[dict[str, Any]]) -> Together:
    """From when each process began, began its steps and ended, in nanoseconds of one clock."""
    times: list[list[int]] = [each["times"] for each in found]
    first, last = min(each[0] for each in times), max(each[-1] for each in times)
    from_, until = max(each[0] for each in times), min(each[-1] for each in times)
    steps = [sum(from_ <= moment <= until for moment in each[1:-1]) for each in times]
    waits = [after - before for each in times for before, after in itertools.pairwise(each)]
    total = sum(len(each) - 2 for each in times)
    return Together(
        rate=total / (last - first) * 1e9,
        share=min(steps) / max(1, *steps),  # 0 where they were never all at work
        wait_ms=max(waits) / 1e6,
        failed=sum(each["failed"] for each in found),
        locked=sum(each["locked"] for each in found),
    )


class LockedCount(logging.Handler):
    """Counts what DBOS logs about a locked database."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += "locked" in record.getMessage()


def work(directory: Path, number: int, runs: int) -> None:
    """Be one of the processes: tell when each step began, and what went wrong."""
    locked = LockedCount()
    dbos_app.launch(directory, executor_id=f"p{number}", log_level="WARNING")
    logging.getLogger("dbos").handlers[:] = [locked]
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter_ns()
    failed = execute(runs)
    ended = time.perf_counter_ns()
    print(json.dumps({"times": [began, *dbos_app.step_times_ns, ended], "failed": failed, "locked": locked.count}))
    sys.stdout.flush()
    sys.stdin.read()
    DBOS.destroy()


def execute(runs: int) -> int:
    """Execute the runs at once; how many failed."""
    handles = [DBOS.start_workflow(dbos_app.timed_steps, STEPS_EACH) for _ in range(runs)]
    failed = 0
    for handle in handles:
        try:
            handle.get_result()
        except Exception as error:  # whatever DBOS lets a user see
            failed += 1
            print(f"  dbos: {error!r}", file=sys.stderr)
    return failed


if __name__ == "__main__":
    main()
