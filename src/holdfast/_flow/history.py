"""A history: the recorded entries of a run, as replay needs them.

Replay asks two things. *By number*: what was recorded for the operation that the code calls now? *By order*: which
outcome is delivered next? Ordinals may have gaps, where a retry or a fork has dropped entries; their order counts.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast._model.records import EntryRecorded

STEP, TIMER, PATCH, CANCEL, DEADLINE = "step", "timer", "patch", "cancel", "deadline"


class History:
    """The entries of one run, in any order.

    Attributes:
        deliveries: those that have their outcome, in the order it reached the workflow.
        last_ordinal: of the last of them, or 0.
    """

    def __init__(self, entries: Sequence[EntryRecorded]) -> None:
        self.deliveries = sorted((e for e in entries if e.ordinal is not None), key=lambda e: e.ordinal or 0)
        self._entries = {entry.seq: entry for entry in entries}
        self._last_seq = max(self._entries, default=0)
        self.last_ordinal = (self.deliveries[-1].ordinal or 0) if self.deliveries else 0

    def entry(self, seq: int) -> EntryRecorded | None:
        """What is recorded for operation `seq`, if anything."""
        return self._entries.get(seq)

    def goes_on(self, *, seq: int, ordinal: int) -> bool:
        """Whether the history holds anything beyond operation `seq`, called after delivery `ordinal`."""
        return ordinal < self.last_ordinal or seq <= self._last_seq


def matches(entry: EntryRecorded, kind: str, name: str, arguments: str | None) -> bool:
    """Whether the code's call is the one that was recorded."""
    return entry.kind == kind and entry.name == name and (entry.input or "") == (arguments or "")


def line_of(entry: EntryRecorded) -> str:
    """A recorded entry as one line, for people."""
    return call_line(entry.kind, entry.name, entry.input)


def call_line(kind: str, name: str, arguments: str | None) -> str:
    """A call as one line, for people."""
    return kind if kind == name else f"{kind} {name}({arguments or ''})"
