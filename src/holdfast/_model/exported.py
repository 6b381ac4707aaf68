"""A run as a file: everything that replay needs and everything that a person would miss, as JSON lines.

    {"holdfast": "export", "version": 1, "schema": 2}
    {"run": {"id": "order-17", "workflow": ..., }, "attributes": [["customer", "anna"]], "entries": 2}
    {"entry": {"seq": 1, "after": 0, "ordinal": 1, "kind": "step", ...}}
    {"entry": {"seq": 2, ...}}

Columns are those of the database that it was read from, in their order there; payloads are the stored text, character
for character, so that an export of an import is the same file. Left out is what belongs to a database and not to the
run: its number, the worker that holds it, and what is asked of that worker. A file may hold several runs, and several
files may be put together into one. The number of entries is said before they come, so a file that was cut short is
noticed.

Reading checks each line by itself and in its place, and says which one is wrong. Whether the columns are those of the
database that they go into is for that database to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NoReturn, get_type_hints

import msgspec

from holdfast._model.bounds import ID_CHARS_MAX, INSTANT_US_MAX, INSTANT_US_MIN, is_id
from holdfast._model.lifecycle import EntryState, RunState
from holdfast._model.records import EntryRecorded, ExportedRun, RunRow, Scalar
from holdfast._model.runinfo import RunDetail
from holdfast.errors import UsageError

VERSION: Final = 1
OF_A_DATABASE: Final = frozenset({"number", "worker", "request"})
"""Columns of a run that mean nothing elsewhere."""

_REQUIRED: Final = ("id", "workflow", "state", "input", "seed", "created_at")
_REQUIRED_OF_ENTRY: Final = ("seq", "after", "kind", "name", "state")
_RUN_JSON: Final = ("input", "output", "error", "attributes")
_ENTRY_JSON: Final = ("output", "error")
_OBJECTS: Final = frozenset({"error", "attributes"})
_encoder: Final = msgspec.json.Encoder()


def header(schema: int) -> str:
    """The first line of a file."""
    return _line({"holdfast": "export", "version": VERSION, "schema": schema})


def lines_of(run: ExportedRun) -> Iterator[str]:
    """A run as lines, without line ends."""
    yield _line({"run": dict(run.columns), "attributes": run.attributes, "entries": len(run.entries)})
    yield from (_line({"entry": dict(entry)}) for entry in run.entries)


def read(lines: Iterable[str | bytes], *, source: str) -> list[ExportedRun]:
    """The runs of a file. Holds them all: nothing is to be done with a file whose last line is wrong.

    Args:
        lines: the file's.
        source: its name, for errors.

    Raises:
        UsageError: a line is wrong; the message says which, and why.
    """
    reader = _Reader(source)
    for number, line in enumerate(lines, 1):
        reader.take(number, line)
    return reader.finished()


class _Reader:
    """Takes lines one by one and knows which may come next."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._number = 0
        self._has_header = False
        self._runs: list[ExportedRun] = []
        self._ids: set[str] = set()
        self._entries: list[tuple[tuple[str, Scalar], ...]] = []
        self._missing = 0
        self._seqs: set[object] = set()
        self._ordinals: set[object] = set()

    def take(self, number: int, line: str | bytes) -> None:
        """The next line."""
        self._number = number
        if not line.strip():
            return
        try:
            value = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._refuse(f"is not JSON: {error}")
        if not isinstance(value, dict):
            self._refuse("is not a JSON object")
        if not self._has_header or "holdfast" in value:  # again where files were put together
            self._complete()
            self._header(value)
        elif "run" in value:
            self._run(value)
        elif "entry" in value:
            self._entry(value)
        else:
            self._refuse(f"is neither a run nor an entry: it has {', '.join(map(repr, value)) or 'nothing'}")

    def finished(self) -> list[ExportedRun]:
        """All runs, once every line has been taken."""
        self._number += 1
        if not self._has_header:
            self._refuse("is the end of the file, and there was no header")
        self._complete()
        if not self._runs:
            self._refuse("is the end of the file, and there was no run")
        return self._runs

    def _header(self, value: dict[str, Any]) -> None:
        if value.get("holdfast") != "export":
            self._refuse("is no header of an export", hint="make the file with `holdfast export ID > FILE`")
        if value.get("version") != VERSION:
            self._refuse(
                f"says version {value.get('version')!r}; this release reads version {VERSION}",
                hint="use the release of holdfast that made the file, or a newer one",
            )
        self._has_header = True

    def _run(self, value: dict[str, Any]) -> None:
        self._complete()
        run, attributes, entries = value["run"], value.get("attributes"), value.get("entries")
        self._check_row(run, _REQUIRED, _run_types(), _RUN_JSON)
        if run["state"] not in set(RunState):
            self._refuse(f"has state {run['state']!r}, which is none of a run")
        if not is_id(run["id"]):
            self._refuse(f"has id = {_short(run['id'])}; a run's id is 1 to {ID_CHARS_MAX} printable characters")
        if run["id"] in self._ids:
            self._refuse(f"is a second run with the id {run['id']!r}")
        if type(entries) is not int or entries < 0:
            self._refuse("does not say how many entries follow")
        if not isinstance(attributes, list) or not all(_is_attribute(pair) for pair in attributes):
            self._refuse("has attributes that are not a list of names with texts or numbers")
        self._ids.add(run["id"])
        self._missing, self._entries = entries, []
        self._seqs, self._ordinals = set(), set()
        columns = tuple((name, item) for name, item in run.items() if name not in OF_A_DATABASE)
        self._runs.append(ExportedRun(columns, tuple((key, item) for key, item in attributes), ()))

    def _entry(self, value: dict[str, Any]) -> None:
        entry = value["entry"]
        if not self._missing:
            self._refuse("is an entry too many" if self._runs else "is an entry before any run")
        self._check_row(entry, _REQUIRED_OF_ENTRY, _entry_types(), _ENTRY_JSON)
        if entry["state"] not in set(EntryState):
            self._refuse(f"has state {entry['state']!r}, which is none of an entry")
        for name, seen in (("seq", self._seqs), ("ordinal", self._ordinals)):
            if entry.get(name) in seen:
                self._refuse(f"is a second entry with {name} {entry[name]}")
            if entry.get(name) is not None:
                seen.add(entry[name])
        self._entries.append(tuple((name, item) for name, item in entry.items() if name != "run"))
        self._missing -= 1
        if not self._missing:
            self._runs[-1] = self._runs[-1]._replace(entries=tuple(self._entries))

    def _complete(self) -> None:
        if self._missing:
            left = f"{self._missing} {'entry' if self._missing == 1 else 'entries'}"
            self._refuse(f"comes too early: {left} of run {self._runs[-1].id!r} are missing")

    def _check_row(
        self, row: object, required: Iterable[str], types: Mapping[str, Any], payloads: Iterable[str]
    ) -> None:
        if not isinstance(row, dict):
            self._refuse("has no columns: a JSON object of them is wanted")
        for name in required:
            if row.get(name) is None:
                self._refuse(f"lacks {name!r}")
        for name, value in row.items():
            if not isinstance(value, str | int | None) or isinstance(value, bool):
                self._refuse(f"has {name} = {_short(value)}; a text, a whole number or null is wanted")
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                self._refuse(f"has {name} = {value}, which does not fit 64 bits")
            if name.endswith("_at") and isinstance(value, int) and not INSTANT_US_MIN <= value <= INSTANT_US_MAX:
                self._refuse(f"has {name} = {value}, which is outside of the years 1 to 9999")
            if name in types and not _is_of(value, types[name]):
                self._refuse(f"has {name} = {_short(value)}, which is of the wrong type")
        for name in payloads:
            if row.get(name) is not None and not _is_json(row[name], object_only=name in _OBJECTS):
                kind = "the JSON text of an object" if name in _OBJECTS else "JSON text"
                self._refuse(f"has {name} = {_short(row[name])}, which is not {kind}")

    def _refuse(self, problem: str, *, hint: str = "nothing was written; export the run again") -> NoReturn:
        raise UsageError(f"{self._source}: line {self._number} {problem}", hint=hint)


def _run_types() -> dict[str, Any]:
    """The types of a run's columns, from the values that are made of them."""
    return {**get_type_hints(RunRow), **get_type_hints(RunDetail)}


def _entry_types() -> dict[str, Any]:
    return get_type_hints(EntryRecorded)


def _is_of(value: object, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _is_attribute(pair: object) -> bool:
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and isinstance(pair[0], str)
        and isinstance(pair[1], str | int | float)
        and not isinstance(pair[1], bool)
    )


def _is_json(text: object, *, object_only: bool) -> bool:
    try:
        value = msgspec.json.decode(str(text))
    except (msgspec.DecodeError, RecursionError):
        return False
    return isinstance(value, dict) or not object_only


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _line(value: Any) -> str:
    return _encoder.encode(value).decode()
