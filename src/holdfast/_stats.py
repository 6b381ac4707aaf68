"""Statistics: what is in the database, and how it went for the runs that ended lately.

Counts are exact. Durations are those of the latest runs of each workflow, at most `SAMPLE_MAX`: as many as tell the
95th percentile well, and few enough that a busy day costs no more to look at than a quiet one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import Final

from holdfast._model.bounds import shown
from holdfast._model.lifecycle import RunState
from holdfast._model.runinfo import StateCount
from holdfast._options import states_of
from holdfast._store.port import Store, WorkerRow
from holdfast.errors import UsageError

SAMPLE_MAX: Final = 1_000
WINDOW_MAX: Final = timedelta(days=36_500)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedStats:
    """Runs of one workflow that ended within the window.

    Attributes:
        workflow: its name.
        succeeded, failed, cancelled: how many ended so.
        window: how long the window is.
        sampled: how many runs the durations are of: the latest that succeeded or failed, at most 1,000.
        average, p50, p95: how long these took from their first claim to their end, with all waiting between; none
            without any. The percentiles are durations that occurred (nearest rank).
    """

    workflow: str
    succeeded: int
    failed: int
    cancelled: int
    window: timedelta
    sampled: int
    average: timedelta | None
    p50: timedelta | None
    p95: timedelta | None

    @property
    def ended(self) -> int:
        """How many ended."""
        return self.succeeded + self.failed + self.cancelled

    @property
    def per_second(self) -> float:
        """How many ended in a second, on average over the window."""
        return self.ended / self.window.total_seconds()

    @property
    def failed_share(self) -> float:
        """The share of failures among those that succeeded or failed; 0 without any."""
        done = self.succeeded + self.failed
        return self.failed / done if done else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What is in the database.

    Attributes:
        runs: how many runs of each workflow are in each state.
        workers: the workers that are remembered, oldest first.
        window: how far back `ended` looks.
        ended: for each workflow with runs that ended within the window, how it went; by name.
    """

    runs: tuple[StateCount, ...]
    workers: tuple[WorkerRow, ...]
    window: timedelta = timedelta(hours=1)
    ended: tuple[EndedStats, ...] = ()

    def count(self, state: str) -> int:
        """How many runs are in this state.

        Raises:
            UsageError: there is no such state.
        """
        states_of(state)
        return sum(row.runs for row in self.runs if row.state == state)


async def gather_stats(store: Store, *, window: object, now: int) -> Stats:
    """Everything there is to tell, in a few reads."""
    span = _window(window)
    since = now - span // timedelta(microseconds=1)
    counts = await store.state_counts()
    workflows = sorted({row.workflow for row in counts})
    ended = await store.ended_counts(workflows, since=since)
    return Stats(
        runs=tuple(counts),
        workers=tuple(await store.workers()),
        window=span,
        ended=tuple(
            [
                _ended(name, list(rows), await store.durations(name, since=since, limit=SAMPLE_MAX), span)
                for name, rows in groupby(ended, key=lambda row: row.workflow)
            ]
        ),
    )


def _ended(workflow: str, counts: list[StateCount], durations: Sequence[int], window: timedelta) -> EndedStats:
    runs = {row.state: row.runs for row in counts}
    ordered = sorted(durations)
    return EndedStats(
        workflow=workflow,
        succeeded=runs.get(RunState.SUCCEEDED, 0),
        failed=runs.get(RunState.FAILED, 0),
        cancelled=runs.get(RunState.CANCELLED, 0),
        window=window,
        sampled=len(ordered),
        average=timedelta(microseconds=sum(ordered) / len(ordered)) if ordered else None,
        p50=_percentile(ordered, 50),
        p95=_percentile(ordered, 95),
    )


def _percentile(ordered: Sequence[int], percent: int) -> timedelta | None:
    """The smallest value that is at least as great as so many of a hundred."""
    if not ordered:
        return None
    return timedelta(microseconds=ordered[(len(ordered) * percent + 99) // 100 - 1])


def _window(window: object) -> timedelta:
    if isinstance(window, int | float) and not isinstance(window, bool) and 0 < window <= WINDOW_MAX.total_seconds():
        window = timedelta(seconds=window)
    if not isinstance(window, timedelta) or not timedelta(0) < window <= WINDOW_MAX:
        raise UsageError(
            f"window={shown(window)} must be seconds, more than 0, or such a timedelta",
            hint=f"at most {WINDOW_MAX.days:,} days",
        )
    return window
