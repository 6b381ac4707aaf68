"""Runs every benchmark in a process of its own and reports: `python -m bench`, or better `make bench`.

The floor is measured first and again last: a disk that changes its mind on the way shows in the spread.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from bench.measuring import Report, add_arguments, checked_directory
from bench.report import joined, merged, print_table, write_results

HERE = Path(__file__).parent
CHILD_SECONDS_MAX = 1_800
OURS = (
    "bench.holdfast_bench",
    "bench.many_runs_bench",
    "bench.processes_bench",
    "bench.events_bench",
    "bench.search_bench",
    "bench.retention_bench",
)
"""What measures Holdfast, in this order, each in a process of its own; the table shows their measures as one report."""
PEERS = {"dbos": ("dbos_bench", "dbos_many_runs_bench", "dbos_processes_bench"), "huey": ("huey_bench",)}
"""What measures the peers, each below `bench.peers` and in the peer's own environment."""


def main() -> None:
    """Measure, print the table, write `bench/results.json`."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Holdfast, its floor and its peers.")
    add_arguments(parser)
    parser.add_argument("--peers", default="dbos huey", help='peers to measure beside it (default "dbos huey")')
    parser.add_argument("--output", type=Path, default=HERE / "results.json", help="where the JSON goes")
    given = parser.parse_args()
    directory = checked_directory(given.dir)
    options = ["--dir", str(directory), "--repetitions", str(given.repetitions), "--scale", str(given.scale)]

    load = {"before": load_average()}
    floor_before = measure(sys.executable, "bench.floor", options)
    reports = [joined([measure(sys.executable, module, options) for module in OURS])]
    reports += [measure_peer(peer, options) for peer in given.peers.split()]
    floor = merged(floor_before, measure(sys.executable, "bench.floor", options))
    load["after"] = load_average()

    print_table([floor, *reports], load=load)
    write_results(given.output, [floor, *reports], load=load)
    print(f"written to {given.output}")


def measure(python: str, module: str, options: list[str]) -> Report:
    """Run a benchmark module and read its report; its progress goes to stderr."""
    child = run_module(python, module, options)
    if child.returncode != 0:
        sys.exit(f"error: {module} ended with exit code {child.returncode}")
    return Report.from_json(child.stdout.splitlines()[-1])


def measure_peer(peer: str, options: list[str]) -> Report:
    """Everything of one peer. Where a module fails, the report says so, and the others are measured all the same."""
    python = peer_python(peer)
    parts = [Report(peer)]
    for name in PEERS[peer]:
        child = run_module(python, f"bench.peers.{name}", options)
        failed = Report(peer, facts={name: f"FAILED (exit code {child.returncode})"})
        parts.append(failed if child.returncode != 0 else Report.from_json(child.stdout.splitlines()[-1]))
    return joined(parts)


def run_module(python: str, module: str, options: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a benchmark module to its end."""
    print(module, file=sys.stderr, flush=True)
    return subprocess.run(
        [python, "-m", module, *options],
        check=False,
        cwd=HERE.parent,
        stdout=subprocess.PIPE,
        text=True,
        timeout=CHILD_SECONDS_MAX,
    )


def peer_python(peer: str) -> str:
    """The interpreter of a peer's environment, which `make bench` creates."""
    python = HERE / ".venvs" / peer / "bin" / "python"
    if not python.exists():
        sys.exit(f'error: no environment for {peer} (hint: run `make bench`, or choose others with --peers "")')
    return str(python)


def load_average() -> list[float]:
    """The load of the machine over 1, 5 and 15 minutes."""
    return [round(load, 2) for load in os.getloadavg()]


if __name__ == "__main__":
    main()
