"""Many seeds, over the cores of the machine, and what came of them.

python -m tests.sim.hunt 2000            # seeds 0 to 1999
python -m tests.sim.hunt 2000 --first 5000
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from tests.sim.simulation import Simulation

from holdfast._store.sqlite import SqliteStore
from holdfast._store.uri import parse
from holdfast._world import SystemWorld

CHUNK: Final = 50
"""Seeds that a process of the pool takes at once."""
SHOWN_MAX: Final = 3
"""Failures that are shown in full."""


def live(seed: int, folder: Path, *, new_store: Callable[..., SqliteStore] | None = None) -> Simulation:
    """Live through one seed on a file of its own in this folder.

    Raises:
        AssertionError: something happened that must not.
    """
    template, path = folder / "template.db", folder / f"{seed}.db"
    if not template.exists():
        asyncio.run(_migrate(template))
    shutil.copyfile(template, path)
    simulation = Simulation(seed, path, new_store=new_store)
    try:
        simulation.run()
    finally:
        for file in folder.glob(f"{seed}.db*"):
            file.unlink()
    return simulation


def live_all(seeds: Iterable[int]) -> tuple[Counter[str], list[str]]:
    """Live through these seeds; the counts, and the messages of those that failed."""
    counts: Counter[str] = Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="holdfast-sim-", dir=_memory()) as folder:
        for seed in seeds:
            counts["seeds"] += 1
            try:
                ledger = live(seed, Path(folder)).ledger
            except AssertionError as error:
                failures.append(str(error))
            else:
                counts.update(ledger.counts)
                counts["facts"] += ledger.facts
    return counts, failures


def hunt(first: int, count: int, tell: Callable[[str], None] = print) -> tuple[Counter[str], list[str]]:
    """`live_all`, in a process for each core when there are many."""
    seeds = range(first, first + count)
    if count <= CHUNK * 4:
        return live_all(seeds)
    counts: Counter[str] = Counter()
    failures: list[str] = []
    chunks = [seeds[place : place + CHUNK] for place in range(0, count, CHUNK)]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for more, failed in pool.map(live_all, chunks):
            counts.update(more)
            failures += failed
            tell(f"simulator: {counts['seeds']:,} of {count:,} seeds")
    return counts, failures


def line_of(counts: Counter[str], failures: list[str], seconds: float) -> str:
    """What came of it, in one line."""
    shown = ("seeds", "runs", "processes", "bodies", "crashes", "zombies", "fenced", "clock jumps", "burials")
    shown += ("probations", "poisoned", "diverged", "forks", "removed")
    parts = [f"{counts[name]:,} {name}" for name in shown]
    parts += [f"{counts['lost']:,} lost acknowledgements", f"{counts['busy']:,} passing failures"]
    parts += [f"{counts['slow']:,} slow commits", f"{counts['facts']:,} facts checked"]
    return f"simulator: {', '.join(parts)}; lost or repeated in {len(failures)} seeds; {seconds:.1f} s"


async def _migrate(path: Path) -> None:
    store = SqliteStore(parse(f"sqlite:///{path}"), world=SystemWorld())
    await store.open(on_change=_ignore)
    await store.close()


def _ignore() -> None:
    """Nobody else writes."""


def _memory() -> str | None:
    """A file system in memory, where there is one: a simulated crash loses nothing that was written."""
    with suppress(OSError):
        if os.access("/dev/shm", os.W_OK):
            return "/dev/shm"
    return None


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    began = time.monotonic()
    counts, failures = hunt(options.first, options.count)
    print(*failures[:SHOWN_MAX], *(failure.splitlines()[0] for failure in failures[SHOWN_MAX:]), sep="\n\n")
    print(line_of(counts, failures, time.monotonic() - began))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
