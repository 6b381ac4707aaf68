"""Rows that SQLite has put together as one JSON array, as bytes, and what is done when a text in them is damaged.

SQLite does not look whether a text is UTF-8; a bit that flipped on the disk may have made one that is not. Then that
text alone must be unreadable, and not all runs of a claim: each wrong byte is read as a NUL, which stands in no JSON.
So whoever decodes the payload finds out, and that run is blocked.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any, Final, TypeVar

import msgspec

from holdfast._store.port import WorkerRow
from holdfast.errors import StoreCorrupt

T = TypeVar("T")

_names: Final = msgspec.json.Decoder(tuple[str, ...])
_WRONG: Final = re.compile("[\udc80-\udcff]")


def decode_rows(decoder: msgspec.json.Decoder[T], raw: bytes | str) -> T:
    """The rows.

    Raises:
        StoreCorrupt: a column holds what none of ours can hold.
    """
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = raw if isinstance(raw, str) else _WRONG.sub(r"\\u0000", raw.decode("utf-8", "surrogateescape"))
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _unreadable(error) from error


def rows_of(kind: type[T], rows: Sequence[sqlite3.Row]) -> list[T]:
    """Rows as named tuples. Types are checked: on a damaged page a column may hold anything.

    Raises:
        StoreCorrupt: one does.
    """
    return _checked(kind, [*map(_columns(kind, rows), rows)])


def workers_of(rows: Iterable[sqlite3.Row]) -> list[WorkerRow]:
    """Workers, with the names of their workflows."""
    named = ({**dict(row), "workflows": decode_rows(_names, row["workflows"])} for row in rows)
    return _checked(WorkerRow, [WorkerRow(**row) for row in named])


def _columns(kind: Any, rows: Sequence[sqlite3.Row]) -> Callable[[sqlite3.Row], Any]:
    """Takes the fields of `kind` from a row; their places are looked up once, since by name is three times as slow."""
    names = rows[0].keys() if rows else kind._fields
    return itemgetter(*map(names.index, kind._fields))


def _checked(kind: type[T], rows: list[Any]) -> list[T]:
    try:
        return msgspec.convert(rows, list[kind])  # type: ignore[valid-type]
    except msgspec.ValidationError as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> StoreCorrupt:
    hint = "run `holdfast doctor`, keep a copy of all files, restore a backup"
    return StoreCorrupt(f"a row cannot be read: {error}", hint=hint)
