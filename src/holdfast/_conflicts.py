"""Starts and forks that cannot be: the id is taken by something else, or there is nothing to fork from."""

from __future__ import annotations

import msgspec

from holdfast._model.records import RunStarted, Started
from holdfast.errors import RunConflict, RunNotFound, UsageError


def check_conflict(record: RunStarted, on_conflict: str, started: Started) -> None:
    """Whether a run that was there before may be given to who asked for this start.

    Raises:
        RunConflict: it may not.
    """
    if on_conflict == "raise":
        raise RunConflict(
            f"run {record.id!r} exists already ({started.workflow}, {started.state})",
            run_id=record.id,
            hint="choose another id, or on_conflict='return' for the existing run",
        )
    if started.workflow != record.workflow:
        raise RunConflict(
            f"run {record.id!r} exists with workflow {started.workflow!r}, not {record.workflow!r}",
            run_id=record.id,
            hint="choose another id",
        )
    if started.input != record.input and msgspec.json.decode(started.input) != msgspec.json.decode(record.input):
        raise RunConflict(
            f"run {record.id!r} exists with other arguments: {_short(started.input)}, not {_short(record.input)}",
            run_id=record.id,
            hint="choose another id, or start it with the same arguments",
        )


def fork_problem(problem: str, run_id: str, new_id: str, at: int) -> Exception:
    """The error for a fork that the store refused."""
    if problem == "no-source":
        return RunNotFound(run_id)
    if problem == "id-taken":
        return RunConflict(f"run {new_id!r} exists already", run_id=new_id, hint="choose another id for the fork")
    return UsageError(
        f"run {run_id!r} has no entry {at} to fork at", hint=f"see its entries with `holdfast show {run_id}`"
    )


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}..."
