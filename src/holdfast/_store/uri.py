"""Where the database is, and how it is opened, as one line of text.

    sqlite:///orders.db             relative to the current directory
    sqlite:////var/lib/orders.db    absolute
    sqlite:///:memory:  sqlite://   in memory: for tests, nothing survives the process
    sqlite:///orders.db?synchronous=normal&busy_timeout=60

Percent signs in the path are decoded, so `%3F` is a question mark. Parsing is pure: nothing is opened, made or looked
up, and what the text does not say is refused by name instead of being ignored.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args
from urllib.parse import unquote

from holdfast._model.bounds import shown
from holdfast.errors import MissingExtra, UsageError

Synchronous: TypeAlias = Literal["full", "normal"]

BUSY_TIMEOUT_SECONDS_MAX: Final = 3600.0
WORD_CHARS_MAX: Final = 80
_SYNCHRONOUS: Final[tuple[Synchronous, ...]] = get_args(Synchronous)
_PASSWORD: Final = re.compile(r":[^:@/]*@")
_POSTGRES: Final = ("postgresql", "postgres")


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteUri:
    """A parsed `sqlite://` URI.

    Attributes:
        path: the file as given, or none for a database in memory.
        synchronous: `full` acknowledges only what survives a power cut; `normal` may lose the last commits in one.
        busy_timeout: seconds that SQLite itself waits for a lock of a program that takes no turns.
    """

    path: Path | None
    synchronous: Synchronous = "full"
    busy_timeout: float = 30.0


def parse(uri: str) -> SqliteUri:
    """Read a database URI.

    Raises:
        MissingExtra: a PostgreSQL URI; this release has SQLite only.
        UsageError: any other scheme, an unknown option, or a value that it cannot have.
    """
    scheme, colon, rest = uri.partition("://")
    if not colon:
        known = without_password(uri)
        path = known.removeprefix("sqlite:")[:WORD_CHARS_MAX]
        raise UsageError(f"{shown(known)} is not a database URI", hint=f"write sqlite:///{path}")
    _check_scheme(scheme.lower())
    location, _, query = rest.partition("?")
    return _with_options(SqliteUri(path=_path(location, uri)), query)


def without_password(uri: str) -> str:
    """The URI as it may be shown: somebody may have meant another database, and its password is in the text."""
    return _PASSWORD.sub(":***@", uri)


def _check_scheme(scheme: str) -> None:
    if scheme.partition("+")[0] in _POSTGRES:
        raise MissingExtra("this release of holdfast keeps its runs in SQLite only", hint="use sqlite:///holdfast.db")
    if scheme != "sqlite":
        hint = _did_you_mean(scheme, ["sqlite", "postgresql"]) or "write sqlite:///holdfast.db"
        raise UsageError(f"unknown database {shown(scheme)}", hint=hint)


def _path(location: str, uri: str) -> Path | None:
    if location in {"", "/:memory:"}:
        return None
    if not location.startswith("/"):
        raise UsageError(
            f"{shown(without_password(uri))} names a host, and SQLite has none",
            hint=f"three slashes for a relative path: sqlite:///{without_password(location)[:WORD_CHARS_MAX]}",
        )
    path = unquote(location[1:], errors="surrogateescape")
    if not path or "\0" in path or _has_no_bytes(path):
        raise UsageError(f"{shown(without_password(uri))} names no file", hint="write sqlite:///holdfast.db")
    return Path(path)


def _has_no_bytes(path: str) -> bool:
    """Whether the path cannot be told to the system: it holds half a character."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return True
    return False


def _with_options(parsed: SqliteUri, query: str) -> SqliteUri:
    seen: set[str] = set()
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        if name not in _OPTIONS:
            hint = _did_you_mean(name, _OPTIONS) or f"there are {' and '.join(sorted(_OPTIONS))}"
            raise UsageError(f"unknown database option {shown(without_password(name))}", hint=hint)
        if name in seen:
            raise UsageError(f"database option {name!r} is given twice", hint="keep one of them")
        seen.add(name)
        parsed = _OPTIONS[name](parsed, unquote(value))
    return parsed


def _set_synchronous(parsed: SqliteUri, value: str) -> SqliteUri:
    for known in _SYNCHRONOUS:
        if value.lower() == known:
            return replace(parsed, synchronous=known)
    hint = _did_you_mean(value.lower(), _SYNCHRONOUS) or "it is full or normal"
    if value.lower() == "off":
        hint = "off corrupts the database in a power cut; normal is the fastest that does not"
    raise UsageError(f"synchronous={shown(value)} is not possible", hint=hint)


def _set_busy_timeout(parsed: SqliteUri, value: str) -> SqliteUri:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= BUSY_TIMEOUT_SECONDS_MAX:
        raise UsageError(
            f"busy_timeout={shown(value)} is not possible",
            hint=f"seconds, more than 0 and at most {BUSY_TIMEOUT_SECONDS_MAX:.0f}",
        )
    return replace(parsed, busy_timeout=seconds)


_OPTIONS: Final[dict[str, Callable[[SqliteUri, str], SqliteUri]]] = {
    "synchronous": _set_synchronous,
    "busy_timeout": _set_busy_timeout,
}


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    matches = get_close_matches(word[:WORD_CHARS_MAX], list(known), n=1)
    return f"did you mean {matches[0]}?" if matches else ""
