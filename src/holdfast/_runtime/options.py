"""How a worker runs: one frozen value for each of its services, and one that holds them."""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast._model.retention import Retention
from holdfast.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorOptions:
    """Bounds of a worker's execution.

    Args:
        runs_max: runs in memory at once; more wait in the database.
        bodies_max: step bodies at once; more wait in line.
        threads_max: threads for `def` steps.
        park_after: seconds that a run waits in memory for a timer before it becomes rows only.
        runs_cached_max: runs that may wait in memory; of more, those that wake last become rows at once.
        memory_max: bytes of this process; beyond it, runs that wait become rows at once. By default 80 % of what the
            machine or its container has.
    """

    runs_max: int = 10_000
    bodies_max: int = 10_000
    threads_max: int = 32
    park_after: float = 2.0
    runs_cached_max: int = 5_000
    memory_max: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseOptions:
    """How death is noticed.

    Args:
        seconds: a worker that has not renewed its lease for so long is dead, even if its process exists.
        sweep_seconds: how often dead workers are looked for.
    """

    seconds: float = 30.0
    sweep_seconds: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """How a process executes runs.

    Args:
        execution: bounds of the execution.
        lease: how death is noticed.
        retention: how long runs are kept after their end; none keeps all of them for ever.
        stop_timeout: seconds for steps under way when the worker stops; then they are cancelled and run again later.
        blocked_after: seconds after which a workflow that blocks the event loop is reported.
    """

    execution: ExecutorOptions = field(default_factory=ExecutorOptions)
    lease: LeaseOptions = field(default_factory=LeaseOptions)
    retention: Retention | None = field(default_factory=Retention)
    stop_timeout: float = 25.0
    blocked_after: float = 2.0

    def __post_init__(self) -> None:
        if self.retention is not None and not isinstance(self.retention, Retention):
            raise UsageError(
                f"WorkerOptions(retention={self.retention!r:.80}) must be a Retention, or None: keep all",
                hint="for example Retention(succeeded=timedelta(days=7))",
            )
