"""What every benchmark shares: repetitions, medians, a clean directory for each, and the report they print.

Standard library only, because the peers' environments import this module too.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs", "devtmpfs"})


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure: the median of its samples.

    Attributes:
        unit: such as ``us`` or ``steps/s``.
        samples: one value a repetition, in the order they were taken.
        note: how it was measured, where the name does not say it.
    """

    unit: str
    samples: list[float]
    note: str = ""

    @property
    def value(self) -> float:
        """The median of the samples."""
        return statistics.median(self.samples)


@dataclass(slots=True)
class Report:
    """What one engine's process prints: facts about it, and its measures by name."""

    engine: str
    facts: dict[str, str | int | float] = field(default_factory=dict[str, str | int | float])
    measures: dict[str, Measure] = field(default_factory=dict[str, Measure])

    def add(self, name: str, unit: str, samples: list[float], *, note: str = "") -> None:
        """Keep a measure and say on stderr that it is done."""
        measure = Measure(unit=unit, samples=samples, note=note)
        self.measures[name] = measure
        print(f"  {self.engine} {name}: {measure.value:,.1f} {unit} (n={len(samples)})", file=sys.stderr, flush=True)

    def print_json(self) -> None:
        """Write the report to stdout, for the process that asked for it."""
        json.dump(asdict(self), sys.stdout)
        print()

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read what `print_json` wrote."""
        raw = json.loads(text)
        measures = {name: Measure(**measure) for name, measure in raw["measures"].items()}
        return cls(engine=raw["engine"], facts=raw["facts"], measures=measures)


@dataclass(frozen=True, slots=True)
class Bench:
    """Where and how much to measure.

    Attributes:
        directory: an existing directory on the disk that is measured.
        repetitions: how often each measure is taken.
        scale: a factor on all counts; below 1 for a quick look.
    """

    directory: Path
    repetitions: int
    scale: float

    def count(self, full: int) -> int:
        """`full`, scaled, and at least 10."""
        return max(10, math.ceil(full * self.scale))

    def samples(self, measure: Callable[[Path], float]) -> list[float]:
        """Take `measure` once for each repetition, each time in an empty directory."""
        values: list[float] = []
        for _ in range(self.repetitions):
            with empty_directory(self.directory) as directory:
                values.append(measure(directory))
        return values


def bench_from_arguments(description: str) -> Bench:
    """Read ``--dir``, ``--repetitions`` and ``--scale`` from the command line of a child."""
    parser = argparse.ArgumentParser(description=description)
    add_arguments(parser)
    given = parser.parse_args()
    return Bench(directory=checked_directory(given.dir), repetitions=given.repetitions, scale=given.scale)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that the runner hands on to every child."""
    parser.add_argument("--dir", type=Path, default=Path("bench/.work"), help="a directory on the disk to measure")
    parser.add_argument("--repetitions", type=int, default=5, help="how often each measure is taken (default 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on all counts; 0.1 for a quick look")


def checked_directory(directory: Path) -> Path:
    """Create the directory; refuse one in memory, where a sync costs nothing and every figure would lie."""
    directory.mkdir(parents=True, exist_ok=True)
    if file_system(directory) in MEMORY_FILE_SYSTEMS:
        sys.exit(f"error: {directory} is in memory (hint: --dir with a directory on a disk)")
    return directory.resolve()


def file_system(path: Path) -> str:
    """The type of the file system that holds `path`, or ``unknown`` where /proc does not tell."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return "unknown"
    found, kind = Path("/"), "unknown"
    for mount in mounts:
        _, point, mounted_kind, *_ = mount.split(" ")
        if path.resolve().is_relative_to(point) and len(Path(point).parts) >= len(found.parts):
            found, kind = Path(point), mounted_kind
    return kind


@contextmanager
def empty_directory(parent: Path) -> Generator[Path, None, None]:
    """A fresh directory below `parent`, removed afterwards."""
    directory = parent / f"bench-{time.monotonic_ns()}"
    directory.mkdir()
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@contextmanager
def copied_directory(original: Path, parent: Path) -> Generator[Path, None, None]:
    """A copy of `original` below `parent`, removed afterwards."""
    with empty_directory(parent) as directory:
        yield Path(shutil.copytree(original, directory / "copy"))


@contextmanager
def stopwatch() -> Generator[Callable[[], float], None, None]:
    """Gives a function: the seconds since the block began, frozen when it ends."""
    began = time.perf_counter()
    ended: float | None = None
    yield lambda: (time.perf_counter() if ended is None else ended) - began
    ended = time.perf_counter()


def resident_mb() -> float:
    """What this process has in memory, in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1_000_000
