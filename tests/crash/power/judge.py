"""Compares a rebuilt disk with what the outside was told before the power went. Knows `sqlite3`, not the engine.

Lost is what was acknowledged and is not there. Damaged is what cannot be read or contradicts itself. Changed is an
outcome that differs from the one that was acknowledged or that another rebuilt disk of the same recording has: an
outcome is written once, so all cuts must agree on it.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias

Place: TypeAlias = tuple[str, int, int]
"""Of an outcome: run, generation, number."""


def place_of(outcome: str) -> Place:
    run, generation, number, _ = outcome.split(" ")
    return run, int(generation), int(number)


class Told:
    """What the outside knows at a moment of the recording."""

    def __init__(self) -> None:
        self.started: set[str] = set()
        self.cancelled: set[str] = set()
        self.outcomes: dict[Place, str] = {}
        self.results: dict[str, str] = {}

    def hear(self, mark: str) -> None:
        kind, _, rest = mark.partition(" ")
        match kind:
            case "S":
                self.started.add(rest)
            case "C":
                self.cancelled.add(rest)
            case "K":
                self.outcomes[place_of(rest)] = rest
            case "R":
                run, _, result = rest.partition(" ")
                self.results[run] = result
                self.outcomes[place_of(result)] = result
            case _:
                return  # `E`: a body's end, which promises nothing

    @property
    def facts(self) -> int:
        return len(self.started) + len(self.cancelled) + len(self.outcomes) + len(self.results)


class RunRow(NamedTuple):
    """A run as the database has it."""

    state: str
    request: str | None
    output: object
    generation: int


@dataclass
class Found:
    """What a rebuilt database has."""

    runs: dict[str, RunRow] = field(default_factory=dict)
    outcomes: dict[Place, str] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)


@dataclass
class Verdict:
    """What is wrong with one rebuilt disk."""

    lost: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not (self.lost or self.damaged or self.changed)


def lay_out(survivors: dict[str, bytes], folder: Path) -> Path:
    """Write the surviving files into a fresh folder; returns the database's path."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    database = folder / "power.db"
    for ending, content in survivors.items():
        database.with_name(database.name + ending).write_bytes(content)
    return database


def read(database: Path) -> Found:
    """Let SQLite recover it, examine every page, and read what is in it."""
    found = Found()
    if not database.exists():
        return found
    with closing(sqlite3.connect(database)) as connection:
        try:
            for pragma in ("integrity_check", "foreign_key_check"):
                rows = [row for row in connection.execute(f"pragma {pragma}").fetchall() if row != ("ok",)]
                found.damage += [f"{pragma}: {row}" for row in rows]
            if connection.execute("select 1 from sqlite_master where name = 'holdfast_runs'").fetchone():
                _read_rows(connection, found)
        except (
            sqlite3.DatabaseError,
            ValueError,
            KeyError,
        ) as error:  # also a text that is no JSON, an entry of no run
            found.damage.append(f"{type(error).__name__}: {error}")
    return found


def _read_rows(connection: sqlite3.Connection, found: Found) -> None:
    numbers: dict[int, tuple[str, int]] = {}
    query = "select number, id, state, request, output, generation from holdfast_runs"
    for number, run, state, request, output, generation in connection.execute(query):
        found.runs[run] = RunRow(state, request, json.loads(output or "null"), generation)
        numbers[number] = run, generation
    query = "select run, seq, output from holdfast_history where kind = 'step' and state = 'succeeded'"
    for number, seq, output in connection.execute(query):
        found.outcomes[*numbers[number], seq] = json.loads(output)


def judge(found: Found, told: Told, *, ever: dict[Place, str]) -> Verdict:
    """Compare; `ever` collects the outcomes of all disks of one recording."""
    verdict = Verdict(damaged=list(found.damage))
    verdict.lost += [f"start of {run}" for run in told.started - found.runs.keys()]
    for run in told.cancelled & found.runs.keys():
        row = found.runs[run]
        if row.request != "cancel" and row.state not in {"cancelled", "succeeded"}:
            verdict.lost.append(f"cancellation of {run}, which is {row.state}")
    for run, result in told.results.items():
        if run in found.runs and found.runs[run].state != "succeeded":
            verdict.lost.append(f"result of {run}, which is {found.runs[run].state}")
        elif run in found.runs and found.runs[run].output != result:
            verdict.changed.append(f"result of {run}")
    for place, outcome in told.outcomes.items():
        there = found.outcomes.get(place)
        if there is None and not _left_behind(place, found):
            verdict.lost.append(f"outcome {place}")
        elif there is not None and there != outcome:
            verdict.changed.append(f"outcome {place}")
    verdict.changed += [
        f"outcome {p}" for p, outcome in found.outcomes.items() if ever.setdefault(p, outcome) != outcome
    ]
    return verdict


def _left_behind(place: Place, found: Found) -> bool:
    """Whether the run has continued as new since, which removes its history."""
    run, generation, _ = place
    return run in found.runs and found.runs[run].generation > generation
