"""How a worker runs: one frozen value for each of its services, and one that holds them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from holdfast._model.bounds import check_kind, check_number, check_whole, shown
from holdfast._model.retention import Retention
from holdfast.errors import UsageError

COUNT_MAX: Final = 10_000_000
"""Upper bound of whatever is counted in memory."""
THREADS_MAX: Final = 10_000
DAY_SECONDS: Final = 86_400.0
YEAR_SECONDS: Final = 365 * DAY_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorOptions:
    """Bounds of a worker's execution.

    Args:
        runs_max: runs in memory at once; more wait in the database. With 0 this process executes none.
        bodies_max: step bodies at once; more wait in line.
        threads_max: threads for `def` steps.
        park_after: seconds that a run waits in memory for a timer before it becomes rows only.
        runs_cached_max: runs that may wait in memory; of more, those that wake last become rows at once.
        memory_max: bytes of this process; beyond it, runs that wait become rows at once. By default 80 % of what the
            machine or its container has.

    Raises:
        UsageError: a field is out of its bounds.
    """

    runs_max: int = 10_000
    bodies_max: int = 10_000
    threads_max: int = 32
    park_after: float = 2.0
    runs_cached_max: int = 5_000
    memory_max: int | None = None

    def __post_init__(self) -> None:
        check_whole(self, "runs_max", low=0, high=COUNT_MAX)
        check_whole(self, "bodies_max", low=1, high=COUNT_MAX)
        check_whole(self, "threads_max", low=1, high=THREADS_MAX)
        check_number(self, "park_after", low=0, high=YEAR_SECONDS)
        check_whole(self, "runs_cached_max", low=0, high=COUNT_MAX)
        check_whole(self, "memory_max", low=1, high=1 << 62, none="80 % of the machine's")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseOptions:
    """How death is noticed.

    Args:
        seconds: a worker that has not renewed its lease for so long is dead, even if its process exists.
        sweep_seconds: how often dead workers are looked for.

    Raises:
        UsageError: a field is out of its bounds.
    """

    seconds: float = 30.0
    sweep_seconds: float = 1.0

    def __post_init__(self) -> None:
        check_number(self, "seconds", low=0.01, high=DAY_SECONDS)
        check_number(self, "sweep_seconds", low=0.01, high=DAY_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """How a process executes runs.

    Args:
        execution: bounds of the execution.
        lease: how death is noticed.
        retention: how long runs are kept after their end; none keeps all of them for ever.
        stop_timeout: seconds for steps under way when the worker stops; then they are cancelled and run again later.
        blocked_after: seconds after which a workflow that blocks the event loop is reported.
        poison_after: a run whose workers died with it so many times, with no outcome recorded in between, is blocked
            as poison; none for never. From the third time on each worker tries such runs one at a time.

    Raises:
        UsageError: a field is out of its bounds.
    """

    execution: ExecutorOptions = field(default_factory=ExecutorOptions)
    lease: LeaseOptions = field(default_factory=LeaseOptions)
    retention: Retention | None = field(default_factory=Retention)
    stop_timeout: float = 25.0
    blocked_after: float = 2.0
    poison_after: int | None = 5

    def __post_init__(self) -> None:
        check_kind(self, "execution", ExecutorOptions)
        check_kind(self, "lease", LeaseOptions)
        check_number(self, "stop_timeout", low=0, high=DAY_SECONDS)
        check_number(self, "blocked_after", low=0.01, high=DAY_SECONDS)
        if self.retention is not None and not isinstance(self.retention, Retention):
            raise UsageError(
                f"WorkerOptions(retention={shown(self.retention)}) must be a Retention, or None: keep all",
                hint="for example Retention(succeeded=timedelta(days=7))",
            )
        check_whole(self, "poison_after", low=1, high=COUNT_MAX, none="never")
