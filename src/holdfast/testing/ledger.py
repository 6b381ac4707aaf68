"""What the database was told and what the bodies did, seen from outside of the dying processes.

The ledger hears of every committed batch and of every body that begins, over all lives of a process. From these two it
knows what must not happen:

- a body begins though the outcome of its step is recorded;
- a body begins with another attempt number than the recorded attempts call for, or twice in one life;
- a body begins while an outcome of its run is not durable yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from holdfast._flow.calls import StepCall
from holdfast._model.records import EntryRecorded, Outcome, Record, RunContinued, RunEnded, RunStarted, Started

_OUTCOMES: Final = ("succeeded", "failed")


class Ledger:
    """One run's facts over all lives. Operations are known by generation and number."""

    def __init__(self) -> None:
        self.life = 0
        self.started = False
        self.records = 0
        self.bodies = 0
        self.generation = 0
        self.entries: dict[tuple[int, int], EntryRecorded] = {}
        self.violations: list[str] = []
        self._lines: list[str] = []
        self._begun: set[tuple[int, int, int, int]] = set()

    def begin_life(self, what: str) -> None:
        """A process starts."""
        self.life += 1
        self._lines.append(f"-- life {self.life}: {what}")

    def committed(self, batch: Sequence[Record], outcomes: Sequence[Outcome] | None) -> None:
        """A batch is durable."""
        self.records += len(batch)
        answers = outcomes if outcomes is not None else [None] * len(batch)
        for record, outcome in zip(batch, answers, strict=True):
            self._take(record, outcome)

    def begun(self, call: StepCall, *, early: bool) -> None:
        """The body of an attempt begins; `early` says that an outcome before it is not durable yet."""
        self.bodies += 1
        generation, seq, attempt = call.activation.row.generation, call.seq, call.attempts
        what = f"{call.step.name}, entry {seq}, attempt {attempt}"
        self._lines.append(f"   body    {what}")
        entry = self.entries.get((generation, seq))
        recorded = 0 if entry is None else entry.attempts
        if entry is not None and entry.state in _OUTCOMES:
            self.violations.append(f"the body of {what} ran again, though its outcome is recorded")
        elif attempt != recorded + 1:
            self.violations.append(f"the body of {what} ran after {recorded} recorded attempts")
        if early:
            self.violations.append(f"the body of {what} ran before what came before it was durable")
        if (self.life, generation, seq, attempt) in self._begun:
            self.violations.append(f"the body of {what} ran twice in one life")
        self._begun.add((self.life, generation, seq, attempt))

    def died(self, moment: str, batch: Sequence[Record]) -> None:
        """The process dies at this batch."""
        self._lines.append(f"   DEATH   {moment} the commit of: {', '.join(map(describe, batch))}")

    def told(self, outcome: object) -> None:
        """A client was told how the run ended."""
        self._lines.append(f"   told    {outcome}")

    def __str__(self) -> str:
        return "\n".join(self._lines)

    def _take(self, record: Record, outcome: Outcome) -> None:
        self._lines.append(f"   durable {describe(record)}")
        if isinstance(record, RunStarted) and isinstance(outcome, Started):
            self.started = True
        elif isinstance(record, RunContinued):
            self.generation += 1
        elif isinstance(record, EntryRecorded):
            key = self.generation, record.seq
            known = self.entries.get(key)
            if known is not None and known.state in _OUTCOMES:
                self.violations.append(f"entry {record.seq} was overwritten: {describe(known)} by {describe(record)}")
            self.entries[key] = record


def describe(record: Record) -> str:
    """A record as part of a line."""
    if isinstance(record, EntryRecorded):
        order = "pending" if record.ordinal is None else f"#{record.ordinal}"
        return f"entry {record.seq} {record.kind} {record.name} {order} {_short(record.output or record.error)}"
    if isinstance(record, RunEnded):
        return f"RunEnded {record.state} {_short(record.output or record.error)}"
    return type(record).__name__


def _short(text: Any) -> str:
    line = "" if text is None else str(text)
    return line if len(line) <= 60 else f"{line[:57]}..."
