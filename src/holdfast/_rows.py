"""Rows into what people see: instants become datetimes, JSON text becomes values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from holdfast._model.lifecycle import EntryState, RunState
from holdfast._model.records import EntryRecorded
from holdfast._model.runinfo import Entry, ErrorInfo, RunDetail, RunInfo, WorkerInfo
from holdfast._store.port import WorkerRow
from holdfast.errors import StoreCorrupt

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNREADABLE: Final = (msgspec.DecodeError, TypeError, ValueError, OverflowError, RecursionError)
"""What reading a row raises that somebody has changed: text that is no JSON, an instant outside of the calendar."""
_object: Final = msgspec.json.Decoder(dict[str, Any])  # made once: a type is analysed at each `msgspec.json.decode`
_object_or_null: Final = msgspec.json.Decoder(dict[str, Any] | None)


def info_of(row: RunDetail) -> RunInfo:
    """A run's row as `RunInfo`.

    Raises:
        StoreCorrupt: somebody has changed the row, and it means nothing any more.
    """
    try:
        return _info_of(row)
    except _UNREADABLE as error:
        raise _changed(f"run {row.id!r}", error, hint=f"look at the others with -id:{row.id}") from error


def _info_of(row: RunDetail) -> RunInfo:
    return RunInfo(
        id=row.id,
        workflow=row.workflow,
        state=RunState(row.state),
        input=_value(row.input),
        output=_value(row.output),
        error=_error(row.error),
        reason=row.reason,
        attributes=_attributes(row.attributes),
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
    """A row of a history as `Entry`.

    Raises:
        StoreCorrupt: somebody has changed the row, and it means nothing any more.
    """
    try:
        return _entry_of(row)
    except _UNREADABLE as error:
        what = f"entry {row.seq} of run number {row.run}"
        raise _changed(what, error, hint="correct it, or restore a backup") from error


def _entry_of(row: EntryRecorded) -> Entry:
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
    """A worker's row as `WorkerInfo`.

    Raises:
        StoreCorrupt: somebody has changed the row, and it means nothing any more.
    """
    try:
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
    except _UNREADABLE as error:
        raise _changed(f"worker {row.id!r}", error, hint="delete it, unless that worker lives") from error


def instant(microseconds: int | None) -> datetime | None:
    """Microseconds UTC as an aware datetime."""
    return None if microseconds is None else _EPOCH + timedelta(microseconds=microseconds)


def _value(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)


def _attributes(text: str | None) -> dict[str, Any]:
    return {} if text is None else _object_or_null.decode(text) or {}


def _error(text: str | None) -> ErrorInfo | None:
    if text is None:
        return None
    stored = _object.decode(text)
    causes, state = stored.get("causes"), stored.get("state")
    return ErrorInfo(
        type=_text(stored.get("type")),
        message=_text(stored.get("message")),
        traceback=_text(stored.get("traceback")),
        causes=tuple(map(_text, causes)) if isinstance(causes, list) else (),
        hint=_text(state.get("hint")) if isinstance(state, dict) else "",
    )


def _text(value: object) -> str:
    """A part of an error's row; a file that was imported may have anything there."""
    return "" if value is None else value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _changed(what: str, error: Exception, *, hint: str) -> StoreCorrupt:
    return StoreCorrupt(f"{what} has a row that cannot be read: {error}", hint=hint)
