"""The life of a run: its states, and every transition between them.

The table below is the only place that names what may follow what. The SQL of each store guards its updates
with the same states, and a test compares the two. `blocked` and `paused` stand aside: neither is an end.

    scheduled ──> ready ──> running <──> waiting (parked)
        └───────────┴──────────┴─────────────> succeeded | failed | cancelled
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class RunState(StrEnum):
    """Where a run stands in its life."""

    SCHEDULED = "scheduled"  # accepted, not due yet
    READY = "ready"  # due, waits for a worker
    RUNNING = "running"  # a worker holds it
    WAITING = "waiting"  # parked: only rows, until something wakes it
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PAUSED = "paused"  # a person stopped it for now
    BLOCKED = "blocked"  # the engine cannot go on and needs a person or other code


class EntryState(StrEnum):
    """Where one entry of a history stands."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED: Final = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})
"""States that a run does not leave by itself."""

SUSPECT_AFTER: Final = 3
"""Crashes without progress from which on each worker tries such runs one at a time. The SQL names the same number."""

TRANSITIONS: Final[dict[str, tuple[frozenset[RunState], frozenset[RunState]]]] = {
    # record: (states it applies to, states it leads to); an empty set on the left means "no run yet",
    # on the right "no run any more"
    "RunStarted": (frozenset(), frozenset({RunState.SCHEDULED, RunState.READY, RunState.RUNNING})),
    "RunsClaimed": (
        frozenset({RunState.SCHEDULED, RunState.READY, RunState.WAITING}),
        frozenset({RunState.READY, RunState.RUNNING}),
    ),
    "RunParked": (frozenset({RunState.RUNNING}), frozenset({RunState.WAITING, RunState.READY})),
    "RunReleased": (frozenset({RunState.RUNNING}), frozenset({RunState.READY})),
    "RunContinued": (frozenset({RunState.RUNNING}), frozenset({RunState.READY})),
    "RunEnded": (frozenset({RunState.RUNNING}), ENDED),
    "RunBlocked": (frozenset({RunState.RUNNING}), frozenset({RunState.BLOCKED, RunState.CANCELLED})),
    "RunPaused": (frozenset({RunState.RUNNING}), frozenset({RunState.PAUSED, RunState.READY})),
    "CancelRequested": (
        frozenset(RunState) - ENDED,
        frozenset({RunState.READY, RunState.RUNNING, RunState.CANCELLED}),
    ),
    "PauseRequested": (
        frozenset({RunState.SCHEDULED, RunState.READY, RunState.WAITING, RunState.RUNNING, RunState.BLOCKED}),
        frozenset({RunState.PAUSED, RunState.RUNNING, RunState.BLOCKED}),
    ),
    "ResumeRequested": (
        frozenset({RunState.PAUSED, RunState.BLOCKED, RunState.CANCELLED, RunState.RUNNING, RunState.READY}),
        frozenset({RunState.READY, RunState.SCHEDULED, RunState.RUNNING}),
    ),
    "RetryRequested": (
        frozenset({RunState.FAILED, RunState.CANCELLED, RunState.BLOCKED}),
        frozenset({RunState.READY}),
    ),
    "RunForked": (frozenset(), frozenset({RunState.READY})),
    "RunCleared": (frozenset({RunState.RUNNING}), frozenset({RunState.RUNNING})),
    "WorkerBuried": (
        frozenset({RunState.RUNNING}),
        frozenset({RunState.READY, RunState.BLOCKED, RunState.CANCELLED}),
    ),
    "RunsUnblocked": (frozenset({RunState.BLOCKED}), frozenset({RunState.RUNNING})),
    "RunsImported": (frozenset(), ENDED | {RunState.PAUSED, RunState.READY, RunState.SCHEDULED}),
    "RunsPruned": (ENDED, frozenset()),
}
"""Every record that moves a run, with the states before and after."""
