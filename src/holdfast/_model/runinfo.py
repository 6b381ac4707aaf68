"""What people see of a run: frozen values, as `describe()`, `history()` and listings return them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from holdfast._model.lifecycle import EntryState, RunState


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorInfo:
    """An error as it is stored.

    Attributes:
        type: the class, as ``module:QualifiedName``.
        message: its text.
        traceback: the traceback's text, or empty.
        causes: ``type: message`` of each cause, outermost first.
        hint: the next move, for errors of the engine.
    """

    type: str
    message: str
    traceback: str = ""
    causes: tuple[str, ...] = ()
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """A run as the database holds it. Instants are aware datetimes in UTC.

    Attributes:
        id: the run's id.
        workflow: the workflow's name.
        state: where it stands.
        input: the arguments, by parameter name, as JSON values.
        output: the result as a JSON value, once succeeded.
        error: why it failed or is blocked.
        reason: slug of why it is blocked: ``nondeterminism``, ``not-decodable``, ``poison``, ...
        attributes: searchable metadata.
        priority: higher goes first.
        worker: who holds it while it is running.
        request: ``cancel`` or ``pause`` while that is under way.
        generation: how often it has continued as new.
        crashes: how often its worker died with it since it last made progress.
        forked_from: the run that it was forked from.
        created_at, due_at, started_at, ended_at, deadline_at: its instants.
    """

    id: str
    workflow: str
    state: RunState
    input: Any = None
    output: Any = None
    error: ErrorInfo | None = None
    reason: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    priority: int = 0
    worker: str | None = None
    request: str | None = None
    generation: int = 0
    crashes: int = 0
    forked_from: str | None = None
    created_at: datetime
    due_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    deadline_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of a run's history.

    Attributes:
        seq: the operation's number, in the order the workflow called them; negative for what came from outside.
        after: how many outcomes the workflow had seen when it called it.
        ordinal: place in the order of delivery; none while pending.
        kind: ``step``, ``timer``, ``patch``, ``cancel`` or ``deadline``.
        name: the step's name, or what the kind says.
        state: pending, succeeded, failed or cancelled.
        input: arguments as JSON text; long ones are abridged.
        output: the result as a JSON value.
        error: why it failed.
        attempts: how often it was tried.
        started_at, finished_at, due_at: its instants.
    """

    seq: int
    after: int
    ordinal: int | None
    kind: str
    name: str
    state: EntryState
    input: str | None = None
    output: Any = None
    error: ErrorInfo | None = None
    attempts: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    due_at: datetime | None = None


class RunDetail(NamedTuple):
    """A run's row as text and numbers, as a store reads it for `RunInfo`."""

    number: int
    id: str
    workflow: str
    state: str
    input: str
    output: str | None
    error: str | None
    reason: str | None
    attributes: str | None
    priority: int
    worker: str | None
    request: str | None
    generation: int
    crashes: int
    forked_from: str | None
    created_at: int
    due_at: int | None
    started_at: int | None
    ended_at: int | None
    deadline_at: int | None


class StateCount(NamedTuple):
    """How many runs of a workflow are in a state."""

    workflow: str
    state: str
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """A worker as the database knows it. Instants are aware datetimes in UTC.

    Attributes:
        id: the worker's id; a process that was declared dead goes on under a new one.
        host, pid: its machine and process.
        state: ``live``, ``left`` (by itself) or ``dead`` (declared so by another worker).
        started_at: when it was entered.
        lease_until: until when it counts as alive without a sign; of one that is gone, since when.
        workflows: the names of the workflows that it knows.
        runs: how many runs it holds.
    """

    id: str
    host: str
    pid: int
    state: str
    started_at: datetime
    lease_until: datetime
    workflows: tuple[str, ...]
    runs: int
