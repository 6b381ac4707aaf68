"""Pruning: ended runs go, batch after batch. For `Client.prune`, which is asked to, and for the retention service.

Each batch is a record of its own, so it joins a transaction that others may share, and everything that is true of
records holds: a fenced worker prunes nothing, a passing failure is tried again, `_store/sqlite_prune.py` argues why
no half of a run is ever seen. Between two batches there is nothing that could be left undone: whoever dies, is stopped
or cancelled there leaves a consistent database, and the next sweep finds what is left by itself.

    groups that exist ──age──> cutoffs ──> [ RunsPruned ] · pause · [ RunsPruned ] · pause · ... ──> compact

The pause follows from how long a batch held up others, so that a sweep takes no more than its share of the time in
which the database can be written. Where many write anyway, a batch waits for its turn longer than it takes, and that
counts as pause. A sweep that goes on and on is behind: its share grows with each batch up to `SHARE_MAX`, because under
a load that ends 5,000 runs a second a quarter of the time was measured to be too little to keep up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from holdfast._model.lifecycle import RunState
from holdfast._model.records import Cutoff, Removed, RunsPruned
from holdfast._model.retention import Pruned, PrunedGroup
from holdfast._store.journal import Journal
from holdfast._store.port import EndedGroup, Store
from holdfast.errors import HoldfastError, StoreError

RUNS_AT_ONCE: Final = 10_000
BUDGET_US: Final = 10_000
"""Bounds of a batch; mostly it is the time that ends it."""
CUTOFFS_AT_ONCE: Final = 64
FREE_SHARE: Final = 10
"""What is free is given back only beyond a tenth of what is used: the next runs need room."""
LAST_ANSWER_SECONDS: Final = 1.0
"""How long an interrupted sweep waits for the answer to its last batch, so that it can say what it has removed."""
TROUBLE_SECONDS: Final = 0.25
SHARE_MAX: Final = 0.6
SHARE_GROWTH: Final = 1.05
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Age: TypeAlias = Callable[[str, str], timedelta | None]
"""How long runs of a workflow that ended in a state are kept; none for ever."""
Progress: TypeAlias = Callable[[Pruned], object]


def due(groups: Iterable[EndedGroup], *, age: Age, now: int) -> dict[Cutoff, EndedGroup]:
    """What has been kept long enough: cutoffs, with the groups that they are of."""
    cutoffs: dict[Cutoff, EndedGroup] = {}
    for group in groups:
        kept = age(group.workflow, group.state)
        if kept is not None and group.oldest < (before := now - kept // timedelta(microseconds=1)):
            cutoffs[Cutoff(group.workflow, RunState(group.state), before)] = group
    return cutoffs


class Sweep:
    """Removes what cutoffs mean, and knows at each moment what it has removed.

    Args:
        cutoffs: what to remove, with the groups it is of.
        share: of the time in which the database can be written, at first; above 0 and at most 1.
        runs_max: runs to remove at most.
    """

    def __init__(
        self, journal: Journal, cutoffs: dict[Cutoff, EndedGroup], *, share: float, runs_max: int | None = None
    ) -> None:
        self.runs: Counter[Cutoff] = Counter()
        self.entries = 0
        self._journal = journal
        self._cutoffs = cutoffs
        self._share = share
        self._runs_max = runs_max
        self._on_batch: Callable[[], object] = lambda: None

    async def work(self, on_batch: Callable[[], object] | None = None) -> None:
        """Batch after batch until nothing is left. Cancelling it takes effect between two batches."""
        self._on_batch = on_batch or (lambda: None)
        cutoffs = tuple(self._cutoffs)
        # Without cutoffs one batch all the same: a run whose pruning was interrupted may be left.
        for first in range(0, max(len(cutoffs), 1), CUTOFFS_AT_ONCE):
            await self._work_at(cutoffs[first : first + CUTOFFS_AT_ONCE])

    async def _work_at(self, cutoffs: tuple[Cutoff, ...]) -> None:
        clock = asyncio.get_running_loop().time
        more = True
        while more:
            while self._journal.trouble is not None:
                await asyncio.sleep(TROUBLE_SECONDS)
            began = clock()
            removed = await self._remove(cutoffs)
            more = removed.more
            await asyncio.sleep(max(0.0, removed.took_us / 1_000_000 / self._share - (clock() - began)))
            self._share = max(self._share, min(self._share * SHARE_GROWTH, SHARE_MAX))

    async def _remove(self, cutoffs: tuple[Cutoff, ...]) -> Removed:
        left = RUNS_AT_ONCE if self._runs_max is None else self._runs_max - self.runs.total()
        answer = asyncio.ensure_future(
            self._journal.write(RunsPruned(cutoffs, min(left, RUNS_AT_ONCE), BUDGET_US)),
        )
        try:
            removed: Removed = await asyncio.shield(answer)
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError, HoldfastError):
                self._count(cutoffs, await asyncio.wait_for(answer, LAST_ANSWER_SECONDS))
            raise
        self._count(cutoffs, removed)
        return removed

    def _count(self, cutoffs: tuple[Cutoff, ...], removed: Removed) -> None:
        self.runs.update({cutoff: runs for cutoff, runs in zip(cutoffs, removed.runs, strict=True) if runs})
        self.entries += removed.entries
        self._on_batch()

    def so_far(self, *, bytes_freed: int = 0) -> Pruned:
        """What it has removed."""
        return _pruned(self._cutoffs, self.runs, entries=self.entries, bytes_freed=bytes_freed)


async def compact(store: Store, *, keep: int, share: float) -> int:
    """Give back what is free beyond `keep` bytes and a tenth of what is used, piece by piece; bytes given back."""
    space = await store.space()
    keep = max(keep, (space.size - space.free) // FREE_SHARE)
    clock = asyncio.get_running_loop().time
    given, began = 0, clock()
    while piece := await store.compact(keep=keep):
        given += piece
        await asyncio.sleep((clock() - began) * (1 / share - 1))
        began = clock()
    return given


async def prune(
    store: Store,
    journal: Journal,
    groups: Sequence[EndedGroup],
    *,
    age: Age,
    now: int,
    runs_max: int | None,
    on_progress: Progress | None,
) -> Pruned:
    """Remove what is due and give back the space; see `Client.prune`."""
    sweep = Sweep(journal, due(groups, age=age, now=now), share=0.5, runs_max=runs_max)
    await sweep.work(None if on_progress is None else lambda: on_progress(sweep.so_far()))
    return sweep.so_far(bytes_freed=await _compact_if_possible(store))


async def would_prune(
    store: Store, groups: Sequence[EndedGroup], *, age: Age, now: int, runs_max: int | None
) -> Pruned:
    """What `prune` would remove now."""
    cutoffs = due(groups, age=age, now=now)
    runs: Counter[Cutoff] = Counter()
    entries = 0
    for cutoff, count in zip(cutoffs, await store.count_ended([*cutoffs]), strict=True):
        runs[cutoff] = count if runs_max is None else min(count, runs_max - runs.total())
        entries += await store.count_ended_entries(cutoff, runs_max=runs[cutoff])
    return _pruned(cutoffs, runs, entries=entries, dry_run=True)


async def _compact_if_possible(store: Store) -> int:
    """What was pruned stays pruned: that another program keeps the file from shrinking is no failure of it."""
    try:
        return await compact(store, keep=0, share=0.5)
    except StoreError as error:
        if not error.retryable:
            raise
        return 0


def _pruned(
    cutoffs: dict[Cutoff, EndedGroup],
    runs: Counter[Cutoff],
    *,
    entries: int = 0,
    bytes_freed: int = 0,
    dry_run: bool = False,
) -> Pruned:
    groups = tuple(
        PrunedGroup(
            workflow=cutoff.workflow,
            state=cutoff.state,
            runs=runs[cutoff],
            oldest=_EPOCH + timedelta(microseconds=group.oldest),
        )
        for cutoff, group in cutoffs.items()
        if runs[cutoff]
    )
    return Pruned(runs=runs.total(), entries=entries, bytes_freed=bytes_freed, groups=groups, dry_run=dry_run)
