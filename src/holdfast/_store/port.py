"""The port: what the rest of the engine may ask of a store, whatever the database.

A store knows rows and records, never workflow code. Writing has one door, `submit`: a batch of records in one
transaction. Reading is short and never blocks writing. Only leases and migrations are written by other methods.
`holdfast.testing.store_conformance` is the suite that every store passes.

The contract of `submit`, on which the journal builds:

- Batches are applied in the order submitted. All of a batch becomes durable, or nothing of it.
- `done` is called exactly once per batch, on the event loop, after the commit is durable, or with the error.
- After a batch failed, the store refuses every later batch (`Halted`) until `proceed` is called: otherwise a later
  batch could land before the earlier one is tried again, and a history would have a hole.
- The acknowledgement of a commit may be lost on the way: the batch landed, the answer is a passing error. The journal
  then submits the same sequence again, the object itself, before anything else, and the store must recognise it and
  answer with the outcomes of the first time. Records are not safe to apply twice: a claim would take other runs, and
  nobody would execute the first; an entry would come back into a history that its next generation has emptied. Nothing
  need be written for that. Whoever asks again is the process that has asked before, so the store remembers the last
  batch that it knows to have landed. A database whose commit may itself be in doubt (its connection was lost in it) has
  to be asked what became of that transaction before the store answers at all.
- A `Fenced` error means that this worker was declared dead: nothing that it submits will be written any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

from holdfast._model.copies import Backup
from holdfast._model.records import Cutoff, EntryRecorded, Outcome, Record
from holdfast._model.runinfo import RunDetail, StateCount
from holdfast._model.search import RunQuery
from holdfast.errors import StoreError

Done: TypeAlias = Callable[[Sequence[Outcome] | None, BaseException | None], object]
"""Called with the outcomes of a batch (none: every outcome is none), or with the error that undid it."""


class Halted(StoreError):
    """An earlier batch failed; this one was not tried."""

    code = "halted"
    retryable = True


class RecordRefused(StoreError):
    """A record contradicts what is stored, such as a second outcome for an entry."""

    code = "record-refused"


class WorkerRow(NamedTuple):
    """A worker as the database knows it."""

    id: str
    host: str
    pid: int
    state: str
    started_at: int
    lease_until: int
    workflows: tuple[str, ...]
    runs: int


class EndedGroup(NamedTuple):
    """Runs of a workflow that ended in one state; `oldest` is the first end among them."""

    workflow: str
    state: str
    oldest: int


class Space(NamedTuple):
    """What a database takes: bytes in all, and those among them that hold nothing and are used again."""

    size: int
    free: int


class Store(Protocol):
    """A database that keeps runs. `pipeline` is how many batches it wants to have under way."""

    pipeline: int

    async def open(self, *, on_change: Callable[[], object]) -> None:
        """Open and migrate. `on_change` is called on the loop when another process may have written (a hint)."""
        ...

    async def close(self) -> None:
        """Finish what was submitted and let go of everything. May be called twice."""
        ...

    def submit(self, batch: Sequence[Record], *, worker: str | None, done: Done) -> None:
        """Apply a batch in one transaction, first asserting the lease of `worker` where one is given."""
        ...

    def proceed(self) -> None:
        """Accept batches again after a failed one."""
        ...

    def watch(self, active: bool) -> None:
        """Whether somebody waits for other processes: look for their writes often, or seldom."""
        ...

    async def register_worker(self, worker: str, *, now: int, lease_until: int, workflows: Sequence[str] = ()) -> None:
        """Enter a new worker that knows these workflows. It is alive as long as this process and its lease."""
        ...

    async def renew_lease(self, worker: str, *, lease_until: int, workflows: Sequence[str] | None = None) -> bool:
        """Prolong the lease, and tell anew which workflows it knows; false when the worker was declared dead."""
        ...

    async def leave(self, worker: str, *, now: int) -> None:
        """The worker has let go of its runs and is gone."""
        ...

    async def dead_workers(self, *, now: int) -> list[str]:
        """Workers that are entered as live but whose process is gone or whose lease has lapsed."""
        ...

    async def buried(self, worker: str) -> None:
        """Clean up behind a worker that was declared dead; it may have been this process's own."""
        ...

    async def sweep_locks(self, *, before: int) -> None:
        """Remove what processes left that died before they were entered, and before this instant."""
        ...

    async def forget_workers(self, *, before: int) -> None:
        """Delete the rows of workers that are gone since before this instant."""
        ...

    async def workers(self) -> list[WorkerRow]:
        """Every worker that is remembered, oldest first."""
        ...

    async def histories(self, numbers: Sequence[int]) -> dict[int, list[EntryRecorded]]:
        """The entries of several runs at once, each run's by `seq`; runs without any are left out."""
        ...

    async def detail(self, run_id: str) -> RunDetail | None:
        """A run's row, or none."""
        ...

    async def list_runs(self, query: RunQuery, *, limit: int) -> list[RunDetail]:
        """Rows that match, in the order that `RunQuery` tells."""
        ...

    async def count_runs(self, query: RunQuery, *, limit: int | None = None) -> int:
        """How many rows match; counting ends at `limit`."""
        ...

    async def attribute_keys(self, *, limit: int) -> list[str]:
        """Keys of attributes that runs have, sorted; at most so many."""
        ...

    async def attribute_keys_among(self, keys: Sequence[str]) -> list[str]:
        """Those of the keys that an attribute of some run has."""
        ...

    async def state_counts(self) -> list[StateCount]:
        """How many runs of each workflow are in each state."""
        ...

    async def ended_counts(self, workflows: Sequence[str], *, since: int) -> list[StateCount]:
        """How many runs of these workflows ended in each state since this instant, by workflow."""
        ...

    async def durations(self, workflow: str, *, since: int, limit: int) -> list[int]:
        """Microseconds from first claim to end of the latest runs that succeeded or failed since this instant."""
        ...

    async def ended_among(self, run_ids: Sequence[str]) -> list[tuple[str, str | None]]:
        """Those of the runs that have ended, with their states, and with none those that are not there any more."""
        ...

    async def requests_of(self, worker: str) -> list[tuple[int, str]]:
        """Requests (`cancel`, `pause`) about runs that this worker holds."""
        ...

    async def next_due(self) -> int | None:
        """The earliest instant at which a scheduled or waiting run is due."""
        ...

    async def has_ready(self, workflows: Sequence[str]) -> bool:
        """Whether a run of one of these workflows waits for a worker."""
        ...

    async def has_suspect(self, workflows: Sequence[str]) -> bool:
        """Whether a run waits that has taken workers down again and again; `has_ready` does not count those."""
        ...

    async def has_blocked(
        self, worker: str, workflows: Sequence[str], *, tried: Sequence[int] = (), suspect: bool = False
    ) -> bool:
        """Whether a run is blocked that another worker than this found not to match its code, except for `tried`.

        Of those that have taken workers down again and again, or of the others.
        """
        ...

    async def ended_groups(self) -> list[EndedGroup]:
        """The workflows and states of ended runs, by workflow and state. Costs no more with more runs."""
        ...

    async def count_ended(self, cutoffs: Sequence[Cutoff]) -> list[int]:
        """How many runs each cutoff means."""
        ...

    async def count_ended_entries(self, cutoff: Cutoff, *, runs_max: int) -> int:
        """How many entries the runs have that this cutoff means; at most so many runs, those that ended first."""
        ...

    async def is_pruning(self) -> bool:
        """Whether a run is half removed, as long ones are between batches; the next `RunsPruned` goes on with it."""
        ...

    async def space(self) -> Space:
        """What the database takes."""
        ...

    async def compact(self, *, keep: int) -> int:
        """Give unused space back to the file system: a little of what exceeds `keep` bytes, in a few milliseconds.

        Returns:
            Bytes given back; 0 when there is nothing to give, or when this database cannot shrink while it is used.
        """
        ...

    async def backup(self, target: Path, *, force: bool) -> Backup:
        """Make a consistent, verified copy as a new file, beside the work that goes on. Cancelling gives it up."""
        ...

    async def check(self) -> dict[str, Any]:
        """Facts for `holdfast doctor`."""
        ...
