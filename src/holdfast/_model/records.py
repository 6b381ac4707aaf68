"""Records: the closed set of facts that the journal accepts.

A record is a frozen value. Nothing about a run enters a database in another way. Each kind says which run it is
about by `number` (the key of a run whose row exists) or by `id` (what people and clients use), and what the store
answers with. Records are named tuples because the hot one, `EntryRecorded`, is bound to SQL as it stands.

Within one batch the kinds are applied in the order of `APPLY_ORDER`, the records of a kind in the order they came.
That is the order in which a run can produce them: its entries precede its end, its parking precedes its next claim.
Two records of one run that would need another order never share a batch, because the later one waits for the
acknowledgement of the earlier (a claim for the start, a new generation for the continuation).
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

from holdfast._model.lifecycle import RunState

Scalar: TypeAlias = str | int | float | None
"""What a column holds."""


class RunStarted(NamedTuple):
    """A new run. Answer: `Started`."""

    id: str
    workflow: str
    state: RunState
    input: str
    attributes: str | None
    priority: int
    seed: int
    worker: str | None
    created_at: int
    due_at: int | None
    started_at: int | None
    timeout_us: int | None
    deadline_at: int | None
    pairs: tuple[tuple[str, str | int | float], ...] = ()
    restart: bool = False


class EntryRecorded(NamedTuple):
    """One entry of a history: an outcome (`ordinal` set) or something pending (`ordinal` none).

    The fields are the columns of `holdfast_history`, in order. An entry that has its outcome is never overwritten.
    """

    run: int
    seq: int
    after: int
    ordinal: int | None
    kind: str
    name: str
    state: str
    input: str | None
    output: str | None
    error: str | None
    attempts: int
    started_at: int | None
    finished_at: int | None
    due_at: int | None


class RunEnded(NamedTuple):
    """The run has its outcome. `failed_at` is the ordinal of the entry whose failure ended it."""

    number: int
    worker: str
    state: RunState
    output: str | None
    error: str | None
    failed_at: int | None
    ended_at: int
    closes_pending: bool


class RunContinued(NamedTuple):
    """`continue_as_new`: the same run with new input and an empty history."""

    number: int
    worker: str
    input: str
    seed: int


class RunParked(NamedTuple):
    """The run waits and leaves memory until `due_at`, or until something wakes it.

    `stopping` says that it has been told to stop and is cleaning up: a cancellation in its row is old news then.
    """

    number: int
    worker: str
    due_at: int | None
    stopping: bool = False


class RunReleased(NamedTuple):
    """The worker lets go of an unfinished run; another may claim it."""

    number: int
    worker: str


class RunBlocked(NamedTuple):
    """The engine cannot go on; `reason` is a slug, `error` says why and what to do.

    The run is cancelled instead if somebody has asked for that.
    """

    number: int
    worker: str
    reason: str
    error: str
    now: int


class RunPaused(NamedTuple):
    """The worker has stopped the run because a person asked for it."""

    number: int
    worker: str


class CancelRequested(NamedTuple):
    """A person or program wants the run cancelled. Answer: `Requested`."""

    id: str
    now: int


class PauseRequested(NamedTuple):
    """A person wants the run to stand still. Answer: `Requested`."""

    id: str
    now: int


class ResumeRequested(NamedTuple):
    """A paused, blocked or cancelled run is to go on. Answer: `Requested`."""

    id: str
    now: int


class RetryRequested(NamedTuple):
    """A failed, cancelled or blocked run is to go on; what caused the end is dropped. Answer: `Requested`."""

    id: str
    now: int


class RunForked(NamedTuple):
    """A new run that begins with the entries of `source` before `at`. Answer: `Forked`.

    With `output` set, entry `at` is kept as well, succeeded with that output. `seed` is used when nothing is kept.
    """

    source: str
    id: str
    at: int
    input: str | None
    output: str | None
    seed: int
    now: int


class RunCleared(NamedTuple):
    """A run that had taken workers down without progress has lived on in this one: its crashes are forgotten."""

    number: int
    worker: str


class ExportedRun(NamedTuple):
    """A run with its attributes and its history, each row as pairs of column and value."""

    columns: tuple[tuple[str, Scalar], ...]
    attributes: tuple[tuple[str, Scalar], ...]
    entries: tuple[tuple[tuple[str, Scalar], ...], ...]

    @property
    def id(self) -> str:
        """The run's id."""
        return str(dict(self.columns)["id"])

    def called(self, run_id: str) -> ExportedRun:
        """The same run under another id."""
        return self._replace(columns=tuple((name, run_id if name == "id" else value) for name, value in self.columns))


class RunsImported(NamedTuple):
    """Runs out of a file, all of them or none. Answer: `Imported`.

    One that has not ended comes in as paused, whatever it was, so that nothing executes by surprise; with `resume` it
    goes on at once.
    """

    runs: tuple[ExportedRun, ...]
    resume: bool
    now: int


class WorkerBuried(NamedTuple):
    """A worker is dead; its runs become ready, in the same transaction. Answer: `Buried`.

    Each of them counts a crash: one more than before, or the first if it has recorded anything since the last. From
    `poison_after` crashes on it is `blocked` with reason ``poison`` and this `error` instead; none means never.
    """

    worker: str
    now: int
    poison_after: int | None = None
    error: str | None = None


class RunsUnblocked(NamedTuple):
    """This worker may have other code: it takes runs of these workflows that *another* worker found not to match.

    It takes up to `limit`, none of those in `tried`. They are its own at once, so that no third worker gets them that
    does not know them any better. With `suspect` it takes only runs that have taken workers down again and again, else
    only others. Answer: tuple of `RunRow`.
    """

    worker: str
    workflows: tuple[str, ...]
    tried: tuple[int, ...]
    limit: int
    now: int
    suspect: bool = False


class RunsClaimed(NamedTuple):
    """A worker takes up to `limit` ready runs of workflows that it knows. Answer: tuple of `RunRow`.

    Where fewer are ready, runs that wait and are due are made ready and taken; `wakes` of them in any case, so that
    neither those that wait nor those that are ready can stall the others. With `suspect` it takes one run that has
    taken workers down again and again, which nobody gets otherwise.
    """

    worker: str
    workflows: tuple[str, ...]
    limit: int
    now: int
    wakes: int = 0
    suspect: bool = False


class Cutoff(NamedTuple):
    """Runs of a workflow that ended in `state` before the instant `before`."""

    workflow: str
    state: RunState
    before: int


class RunsPruned(NamedTuple):
    """Ended runs that the cutoffs mean go with all their rows, the oldest of each first. Answer: `Removed`.

    One record is one batch of a longer sweep: at most `runs_max` runs, and no more than about `budget_us` of work,
    since nobody else writes meanwhile.
    """

    cutoffs: tuple[Cutoff, ...]
    runs_max: int
    budget_us: int


Record: TypeAlias = (
    RunStarted
    | EntryRecorded
    | RunEnded
    | RunContinued
    | RunParked
    | RunReleased
    | RunBlocked
    | RunPaused
    | RunCleared
    | CancelRequested
    | PauseRequested
    | ResumeRequested
    | RetryRequested
    | RunForked
    | RunsImported
    | WorkerBuried
    | RunsUnblocked
    | RunsClaimed
    | RunsPruned
)

APPLY_ORDER: Final[tuple[type[Record], ...]] = (
    RunStarted,
    EntryRecorded,
    RunEnded,
    RunContinued,
    RunParked,
    RunReleased,
    RunBlocked,
    RunPaused,
    RunCleared,
    CancelRequested,
    PauseRequested,
    ResumeRequested,
    RetryRequested,
    RunForked,
    RunsImported,
    WorkerBuried,
    RunsUnblocked,
    RunsClaimed,
    RunsPruned,  # last: whoever retries or forks an ended run in the same batch comes first
)
"""The order in which the kinds of one batch are applied."""

OF_A_WORKER: Final[frozenset[type[Record]]] = frozenset(
    {
        EntryRecorded,
        RunEnded,
        RunContinued,
        RunParked,
        RunReleased,
        RunBlocked,
        RunPaused,
        RunCleared,
        WorkerBuried,
        RunsUnblocked,
        RunsClaimed,
    }
)
"""What a worker says in its own name: without meaning once it is no more. The others come from people and programs."""


class Started(NamedTuple):
    """Answer to `RunStarted`: the row that holds this id now, with the input that it was started with.

    Of a run that has continued as new that is not known, and the input of the record is given back.
    """

    number: int
    created: bool
    workflow: str
    input: str
    state: RunState


class Requested(NamedTuple):
    """Answer to a request about a run: its state before and after, and who holds it. `found` is false for no run."""

    found: bool
    before: RunState | None
    after: RunState | None
    number: int | None
    worker: str | None


class Forked(NamedTuple):
    """Answer to `RunForked`: what stood in the way, or nothing."""

    problem: str | None


class Removed(NamedTuple):
    """Answer to `RunsPruned`: runs removed for each of its cutoffs, and entries of histories.

    `more` is whether another batch would find something; `took_us` is how long the removal held up other writers.
    """

    runs: tuple[int, ...]
    entries: int
    more: bool
    took_us: int


class Imported(NamedTuple):
    """Answer to `RunsImported`: the id or the column that stood in the way, or the state of each run, in order."""

    problem: str | None
    what: str
    states: tuple[RunState, ...]


class Buried(NamedTuple):
    """Answer to `WorkerBuried`.

    Attributes:
        orphans: how many runs it left.
        poisoned: id and workflow of those that are blocked as poison.
        was_live: by its row; else it has left, or somebody else has buried it.
    """

    orphans: int
    poisoned: tuple[tuple[str, str], ...]
    was_live: bool = True


class RunRow(NamedTuple):
    """What a worker needs of a run that it has claimed."""

    number: int
    id: str
    workflow: str
    input: str
    seed: int
    generation: int
    crashes: int
    request: str | None
    created_at: int
    started_at: int
    deadline_at: int | None
    has_history: bool


Outcome: TypeAlias = Started | Requested | Forked | Imported | Removed | Buried | tuple[RunRow, ...] | None
"""What a store answers a record with; none where there is nothing to say."""
