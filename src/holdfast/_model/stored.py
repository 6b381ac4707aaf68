"""A run with its whole history, out of the columns of a database or of a file: what a replay needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast._model.records import EntryRecorded, ExportedRun, RunRow


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run to be replayed."""

    row: RunRow
    state: str
    output: str | None
    history: tuple[EntryRecorded, ...]


def of_export(run: ExportedRun) -> StoredRun:
    """A run out of a file, which says nothing of a database's numbers."""
    columns = {"number": 0, **dict(run.columns)}
    return stored_run(columns, [{"run": 0, **dict(entry)} for entry in run.entries])


def stored_run(run: Mapping[str, Any], history: list[Mapping[str, Any]]) -> StoredRun:
    """A run out of rows by the names of their columns. Columns that an older schema lacks are none."""
    fields = {name: run.get(name) for name in RunRow._fields}
    fields["started_at"] = run["started_at"] if run["started_at"] is not None else run["created_at"]
    fields["has_history"] = bool(history)
    entries = tuple(
        EntryRecorded(**{name: entry.get(name) for name in EntryRecorded._fields})  # type: ignore[arg-type]
        for entry in history
    )
    return StoredRun(RunRow(**fields), run["state"], run["output"], entries)  # type: ignore[arg-type]
