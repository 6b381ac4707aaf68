"""Rows into what people see: instants become datetimes, JSON text becomes values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from holdfast._model.lifecycle import EntryState, RunState
from holdfast._model.records import EntryRecorded
from holdfast._model.runinfo import Entry, ErrorInfo, RunDetail, RunInfo, WorkerInfo
from holdfast._store.port import WorkerRow

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def info_of(row: RunDetail) -> RunInfo:
    """A run's row as `RunInfo`."""
    return RunInfo(
        id=row.id,
        workflow=row.workflow,
        state=RunState(row.state),
        input=_value(row.input),
        output=_value(row.output),
        error=_error(row.error),
        reason=row.reason,
        attributes=_value(row.attributes) or {},
        priority=row.priority,
        worker=row.worker,
        request=row.request,
        generation=row.generation,
        crashes=row.crashes,
        forked_from=row.forked_from,
        created_at=_EPOCH + timedelta(microseconds=row.created_at),
        due_at=instant(row.due_at),
        started_at=instant(row.started_at),
        ended_at=instant(row.ended_at),
        deadline_at=instant(row.deadline_at),
    )


def entry_of(row: EntryRecorded) -> Entry:
    """A row of a history as `Entry`."""
    return Entry(
        seq=row.seq,
        after=row.after,
        ordinal=row.ordinal,
        kind=row.kind,
        name=row.name,
        state=EntryState(row.state),
        input=row.input,
        output=_value(row.output),
        error=_error(row.error),
        attempts=row.attempts,
        started_at=instant(row.started_at),
        finished_at=instant(row.finished_at),
        due_at=instant(row.due_at),
    )


def worker_of(row: WorkerRow) -> WorkerInfo:
    """A worker's row as `WorkerInfo`."""
    return WorkerInfo(
        id=row.id,
        host=row.host,
        pid=row.pid,
        state=row.state,
        started_at=_EPOCH + timedelta(microseconds=row.started_at),
        lease_until=_EPOCH + timedelta(microseconds=row.lease_until),
        workflows=row.workflows,
        runs=row.runs,
    )


def instant(microseconds: int | None) -> datetime | None:
    """Microseconds UTC as an aware datetime."""
    return None if microseconds is None else _EPOCH + timedelta(microseconds=microseconds)


def _value(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)


def _error(text: str | None) -> ErrorInfo | None:
    if text is None:
        return None
    stored = msgspec.json.decode(text)
    return ErrorInfo(
        type=stored.get("type", ""),
        message=stored.get("message", ""),
        traceback=stored.get("traceback", ""),
        causes=tuple(stored.get("causes", ())),
        hint=(stored.get("state") or {}).get("hint", ""),
    )
