"""What many workflows cost DBOS on SQLite: recovery, a list page over a million, and those that sleep.

- *recovery* has fewer runs than ours and is compared by runs a second. At its launch DBOS puts what its executor left
  behind back into an internal queue, a commit each, and takes it from there at its next look, once a second. The rate
  does not grow with the number: 1,500 came back no faster than 400.
- *a list page* is over a million rows of one real workflow, multiplied by SQL, and is read without inputs and outputs.
- *a million sleeping runs* cannot be measured: a workflow in `DBOS.sleep` keeps its thread, or its task with all that
  belongs to it, until it wakes, and a restart brings all of them back into memory. What one costs is measured with a
  few hundred. (A start with a delay is only a row, as it is with us.)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

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
from bench.peers import dbos_app
from bench.peers.dbos_app import DBOS, best

RECOVERED = 400
RECORDED_EACH = 10
SLEEPING = 300
LISTED = 1_000_000
FAILED_ONE_IN = 1_000
PAGE = 20
PAGES = 20
REPETITIONS_MAX = 3
WAYS = ("def", "async def")
EXIT_AT_THE_GATE = 42
CHILD_SECONDS_MAX = 60
LOOK_SECONDS = 0.01


def main() -> None:
    """Measure and print the report; or be a child: record and die, recover, or sleep."""
    parser = argparse.ArgumentParser(description="Many runs, in DBOS on SQLite.")
    add_arguments(parser)
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    if given.child is not None:
        CHILDREN[given.child](given.dir, given.way, given.runs)
    bench = Bench(directory=checked_directory(given.dir), repetitions=given.repetitions, scale=given.scale)
    report = Report("dbos", facts={"version": version("dbos")})
    measure_list_page(bench, report)
    long = replace(bench, repetitions=min(REPETITIONS_MAX, bench.repetitions))
    measure_recovery(long, report)
    measure_sleeping(long, report)
    report.print_json()


def child(name: str, directory: Path, way: str, runs: int) -> subprocess.CompletedProcess[str]:
    """Run one of the children to its end; they end at once, whatever their threads still wait for."""
    arguments = ["--dir", str(directory), "--child", name, "--way", way, "--runs", str(runs)]
    return subprocess.run(
        [sys.executable, "-m", "bench.peers.dbos_many_runs_bench", *arguments],
        check=False,
        stdout=subprocess.PIPE,
        text=True,
        timeout=3 * CHILD_SECONDS_MAX,
    )


def answer(name: str, directory: Path, way: str, runs: int) -> dict[str, float]:
    """What a child found out."""
    ended = child(name, directory, way, runs)
    if ended.returncode != 0:
        raise AssertionError(f"the child {name} ({way}) ended with {ended.returncode}")
    found: dict[str, float] = json.loads(ended.stdout)
    return found


def leave(**found: float) -> None:
    """Tell what was found out and leave at once."""
    print(json.dumps(found), flush=True)
    os._exit(0)


# --- recovery ---


def measure_recovery(bench: Bench, report: Report) -> None:
    """From launching until each run of a dead process has begun its next step."""
    runs = max(RECOVERED // 4, bench.count(RECOVERED))  # few would measure its polling
    shape = f"{runs} runs of {RECORDED_EACH} recorded steps, until all have begun the next"
    ways = {f"{shape}, {way}": recovery_rates(bench, way, runs) for way in WAYS}
    best(report, "recovery_rate", "runs/s", ways)


def recovery_rates(bench: Bench, way: str, runs: int) -> list[float]:
    """Runs recovered a second, of copies of what one process left."""
    with empty_directory(bench.directory) as crashed:
        recorded = child("record", crashed, way, runs)
        if recorded.returncode != EXIT_AT_THE_GATE:
            raise AssertionError(f"the recording process ended with {recorded.returncode}")
        return [recovery_rate(bench, crashed, way, runs) for _ in range(bench.repetitions)]


def recovery_rate(bench: Bench, crashed: Path, way: str, runs: int) -> float:
    """Runs recovered a second, of one copy; those that did not come back in time are said, and do not count."""
    with copied_directory(crashed, bench.directory) as directory:
        found = answer("recover", directory, way, runs)
    if found["arrived"] < runs:
        print(f"  dbos: {found['arrived']} of {runs} runs came back in {CHILD_SECONDS_MAX} s", file=sys.stderr)
    return found["arrived"] / found["seconds"]


def record(directory: Path, way: str, runs: int) -> None:
    """Die when every run has begun its gate: everything before it is durable then."""
    arrived: list[None] = []

    def arrive() -> None:
        arrived.append(None)
        if len(arrived) == runs:
            os._exit(EXIT_AT_THE_GATE)

    dbos_app.at_gate[:] = [arrive]
    dbos_app.launch(directory)
    if way == "def":
        for _ in range(runs):
            DBOS.start_workflow(dbos_app.steps_and_gate, RECORDED_EACH)
        threading.Event().wait(CHILD_SECONDS_MAX)
    else:
        asyncio.run(start_async(runs, dbos_app.steps_and_gate_async, RECORDED_EACH))
    leave()


async def start_async(runs: int, workflow: Any, *arguments: int) -> None:
    """Start so many on this event loop, and keep it."""
    handles = [await DBOS.start_workflow_async(workflow, *arguments) for _ in range(runs)]
    await asyncio.sleep(CHILD_SECONDS_MAX)
    del handles


def recover(directory: Path, way: str, runs: int) -> None:
    """Seconds until all runs are at the gate, whichever way they go."""
    arrived: list[float] = []
    dbos_app.at_gate[:] = [lambda: arrived.append(time.perf_counter())]
    began = time.perf_counter()
    dbos_app.launch(directory)
    wait_until(lambda: len(arrived) >= runs)
    leave(arrived=len(arrived), seconds=max(arrived, default=time.perf_counter()) - began)


def wait_until(done: Callable[[], bool]) -> None:
    """Look until it is done, but not for ever."""
    began = time.perf_counter()
    while not done() and time.perf_counter() - began < CHILD_SECONDS_MAX:
        time.sleep(LOOK_SECONDS)


# --- sleeping ---


def measure_sleeping(bench: Bench, report: Report) -> None:
    """What a sleeping workflow adds to the memory of its process, both ways."""
    runs = max(SLEEPING // 3, bench.count(SLEEPING))  # few would measure what the first one loads
    ways: dict[str, list[float]] = {}
    for way in WAYS:
        found = [sleeping(bench, way, runs) for _ in range(bench.repetitions)]
        kilobytes = [each["kilobytes"] for each in found]
        seconds = statistics.median(each["seconds"] for each in found)
        ways[
            f"growth by {runs} sleeping workflows, {way}, asleep after {seconds:.1f} s; each keeps a "
            f"{'thread' if way == 'def' else 'task'}, so a million would need {statistics.median(kilobytes):,.0f} GB"
        ] = kilobytes
    best(report, "resident_each", "KB", ways, lowest=True)


def sleeping(bench: Bench, way: str, runs: int) -> dict[str, float]:
    """What one process found out."""
    with empty_directory(bench.directory) as directory:
        return answer("sleep", directory, way, runs)


def sleep(directory: Path, way: str, runs: int) -> None:
    """Memory and seconds until all sleep, which is when each sleep is recorded."""
    dbos = dbos_app.launch(directory)
    before, began = resident_mb(), time.perf_counter()
    if way == "def":
        for _ in range(runs):
            DBOS.start_workflow(dbos_app.sleeper)
    else:
        arguments = (start_async(runs, dbos_app.sleeper_async),)
        threading.Thread(target=asyncio.run, args=arguments, daemon=True).start()
    wait_until(lambda: dbos_app.scalar(dbos, "select count(*) from operation_outputs") >= runs)
    recorded = dbos_app.scalar(dbos, "select count(*) from operation_outputs")
    if recorded < runs:
        raise AssertionError(f"{recorded} of {runs} workflows were asleep in {CHILD_SECONDS_MAX} s")
    leave(kilobytes=(resident_mb() - before) * 1_000 / runs, seconds=time.perf_counter() - began)


# --- a list page over a million ---


def measure_list_page(bench: Bench, report: Report) -> None:
    """Pages of 20: the newest, the newest of a state that few have, and the last."""
    count = bench.count(LISTED)
    with empty_directory(bench.directory) as directory:
        with dbos_app.launched(directory):
            dbos_app.steps(1)
        multiply(directory / dbos_app.DATABASE, count)
        with dbos_app.launched(directory) as dbos:
            dbos_app.remember_pragmas(dbos, report)
            add_page(bench, report, "list_page", f"the newest {PAGE} of {count:,}")
            note = f"the newest {PAGE} in state ERROR, which 1 in {FAILED_ONE_IN:,} of {count:,} has"
            add_page(bench, report, "list_page_state", note, status="ERROR")
            note = f"the last {PAGE} of {count:,}: by offset, there are no keys to page by"
            add_page(bench, report, "list_page_last", note, pages=1, offset=count - PAGE)


def add_page(bench: Bench, report: Report, name: str, note: str, *, pages: int = PAGES, **filters: Any) -> None:
    """Milliseconds of a page, without inputs and outputs; each sample is the median of some."""
    samples = [statistics.median(page_ms(filters) for _ in range(pages)) for _ in range(bench.repetitions)]
    report.add(name, "ms", samples, note=note)


def page_ms(filters: dict[str, Any]) -> float:
    """Milliseconds of one page."""
    with stopwatch() as elapsed:
        page = DBOS.list_workflows(limit=PAGE, sort_desc=True, load_input=False, load_output=False, **filters)
    if not page:
        raise AssertionError(f"an empty page for {filters}")
    return elapsed() * 1_000


def multiply(database: Path, count: int) -> None:
    """Make `count` workflows of the one that is there, each a millisecond younger than the one before.

    DBOS has closed the file: this may be another SQLite library than its own, and two on one file lose their locks.
    """
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("pragma synchronous=off")
    connection.execute("begin immediate")
    others = {
        "workflow_uuid": "'s' || copy.value",
        "created_at": "created_at + copy.value",
        "status": f"iif(copy.value % {FAILED_ONE_IN} = 0, 'ERROR', status)",
    }
    for table in ("workflow_status", "workflow_input", "workflow_output"):
        columns: list[str] = [row[1] for row in connection.execute(f"pragma table_info({table})")]
        connection.execute(
            f"""insert into {table} ({", ".join(columns)})
            with recursive copy (value) as (select 1 union all select value + 1 from copy where value < {count - 1})
            select {", ".join(others.get(column, column) for column in columns)} from {table}, copy"""
        )
    connection.execute("commit")
    connection.close()


CHILDREN: dict[str, Callable[[Path, str, int], None]] = {"record": record, "recover": recover, "sleep": sleep}

if __name__ == "__main__":
    main()
