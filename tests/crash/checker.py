"""The outside checker: what the processes were told and did, against the database as plain `sqlite3` reads it.

It shares no code with the engine. Its rules do not depend on clocks:

- A start or result that a client was told is in the database, with that very result. A run whose cancellation a client
  was told of is cancelled; one whose cancellation was only accepted has ended.
- A step's result is the mark of one execution. That execution is in the steps' log, and *no execution of the same step
  begins after it has ended*: otherwise a recorded step was executed again. Executions before it are attempts whose
  record did not become durable, or that failed.
- In a run whose steps follow each other, a step begins only when the one before it is durable. So once a step has
  begun, the one before it never begins again, whether its record was seen or not.
- A run's result is made of the results in its history.

A step's place is its run's generation and its number in it; the history is that of the last generation.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

Place: TypeAlias = tuple[int, int]
Step: TypeAlias = tuple[str, Place]


@dataclass
class Report:
    """What was compared, and what was wrong."""

    facts: int = 0
    lost: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    executions: int = 0
    runs: int = 0

    @property
    def ok(self) -> bool:
        return self.facts > 0 and not (self.lost or self.repeated or self.damaged)


def check(folder: Path) -> Report:
    """Compare the logs in `folder` with its database. Nothing else may have the database open."""
    report = Report()
    connection = sqlite3.connect(folder / "storm.db")
    try:
        _check_file(connection, report)
        runs = {row[0]: row[1:] for row in connection.execute("select id, workflow, state, output from holdfast_runs")}
        recorded = {
            (run, (generation, seq)): json.loads(output)
            for run, generation, seq, output in connection.execute(
                "select r.id, r.generation, h.seq, h.output from holdfast_runs r join holdfast_history h "
                "on r.number = h.run where h.kind = 'step' and h.state = 'succeeded'"
            )
        }
    finally:
        connection.close()
    report.runs = len(runs)
    cancelled = _check_told(folder / "client.log", runs, report)
    _check_results(runs, recorded, cancelled, report)
    _check_executions(folder / "steps.log", runs, recorded, report)
    return report


def _check_file(connection: sqlite3.Connection, report: Report) -> None:
    for pragma in ("integrity_check", "foreign_key_check"):
        report.facts += 1
        found = [row for row in connection.execute(f"pragma {pragma}").fetchall() if row != ("ok",)]
        report.damaged += [f"{pragma}: {row}" for row in found]


def _check_told(log: Path, runs: dict[str, tuple[str, str, str]], report: Report) -> set[str]:
    """Returns the runs whose cancellation was accepted."""
    cancelled: set[str] = set()
    for kind, run, *rest in _lines(log):
        report.facts += 1
        if run not in runs:
            report.lost.append(f"{run}: its start was acknowledged, it is not there")
            continue
        _, state, output = runs[run]
        if kind == "R" and (state != "succeeded" or json.loads(output) != rest[0]):
            report.lost.append(f"{run}: the client was told {rest[0]}, the database says {state} {output}")
        if kind == "X" and state != "cancelled":
            report.lost.append(f"{run}: the client was told that it is cancelled, the database says {state}")
        if kind == "C":
            cancelled.add(run)
    return cancelled


def _check_results(
    runs: dict[str, tuple[str, str, str]], recorded: dict[Step, str], cancelled: set[str], report: Report
) -> None:
    marks: dict[str, set[str]] = defaultdict(set)
    for (run, _), mark in recorded.items():
        marks[run].add(mark)
    for run, (workflow, state, output) in runs.items():
        report.facts += 1
        if state == "cancelled" and run in cancelled:
            continue
        if state != "succeeded":
            report.lost.append(f"{run} ({workflow}) is {state}, though every process had time to end it")
        elif set(json.loads(output).split(",")) != marks[run]:
            report.lost.append(f"{run} ({workflow}): result {output} is not made of its steps' results {marks[run]}")


def _check_executions(
    log: Path, runs: dict[str, tuple[str, str, str]], recorded: dict[Step, str], report: Report
) -> None:
    ended: set[str] = set()
    final: set[Step] = set()
    furthest: dict[str, Place] = defaultdict(lambda: (0, 0))
    for kind, run, number, mark in _lines(log):
        generation, _, seq = number.partition(".")
        step = run, (int(generation), int(seq))
        if kind == "E":
            ended.add(mark)
            if recorded.get(step) == mark:
                final.add(step)
            continue
        report.executions += 1
        report.facts += 1
        if step in final:
            report.repeated.append(f"{run} step {number} began again ({mark}) after the execution that is recorded")
        if run in runs and runs[run][0] != "side_by_side":
            if step[1] < furthest[run]:
                report.repeated.append(f"{run} step {number} began again after step {furthest[run]} had begun")
            furthest[run] = max(furthest[run], step[1])
    for step, mark in recorded.items():
        report.facts += 1
        if mark not in ended:
            report.lost.append(f"{step[0]} step {step[1]}: the recorded result {mark} is of no execution")


def _lines(path: Path) -> list[list[str]]:
    """Whole lines; a process killed in the middle of a write may leave a part of one, which says nothing."""
    text = path.read_text() if path.exists() else ""
    return [line.split(" ") for line in text.split("\n") if line.count(" ") >= 1]
