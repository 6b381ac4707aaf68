"""Pruning on SQLite: ended runs go, within a budget of time and without a moment in which half a run can be seen.

One `RunsPruned` is part of one transaction. It works in chunks of a few milliseconds and looks at the clock between
them, because nobody else writes meanwhile. Measured with entries of 200 bytes: 1,000 entries of one run go in 2 ms,
commit included, 500 runs of 20 entries in 17 ms, one run of 100,000 entries in 150 to 210 ms, with 20 to 37 MB of log.

So a run with a *long* history cannot go at once, and it must not be seen, retried or forked while a part of its history
is missing: it would execute recorded steps again. Its first transaction therefore takes it from everybody: its id
becomes one with a character that no client may use (`check_id` refuses it), its attributes go. From that commit on
there is no run of its id, and a new one may have it. Later batches take its history in slices, the last one its row:

    failed "order-17" ──> [ id = MARK 17 order-17 · attributes · slice ] ──> [ slice ] ... ──> [ slice · row ]

A process that dies between two of them leaves a run that nobody can ask for by id, visible in listings as being pruned
(`reason` is `pruning`). Whoever prunes next, whatever its cutoffs, goes on with it first: it is found by its id.

Candidates are chosen inside the transaction that deletes them, oldest first, without a cursor. So runs that share an
instant are neither missed nor met twice, a prune that was interrupted is resumed by the next one, and two workers that
prune at once just find different runs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from itertools import accumulate
from typing import Any, Final

import msgspec

from holdfast._model.records import Cutoff, Removed, RunsPruned
from holdfast._store.sqlfile import Statements

CHUNK_RUNS: Final = 256
CHUNK_ENTRIES: Final = 1_024
"""How much goes between two looks at the clock, and how long a history may be to go at once."""
MARK: Final = "\u00ad"
"""A soft hyphen: not printable, so no id of a user has it."""
MARKED_IDS: Final = (MARK, "\u00ae")
"""From and before: a range of the index of ids."""

_candidates = msgspec.json.Decoder(list[tuple[int, int]])
_json = msgspec.json.Encoder()


class Pruner:
    """Carries out `RunsPruned` on one connection, inside the caller's transaction.

    Args:
        clock: microseconds, to measure with.
    """

    def __init__(self, connection: sqlite3.Connection, statements: Statements, clock: Callable[[], int]) -> None:
        self._connection = connection
        self._sql = statements
        self._clock = clock

    def prune(self, record: RunsPruned) -> Removed:
        """One batch. At least one chunk, whatever the budget."""
        began = self._clock()
        removed = [0] * len(record.cutoffs)
        entries, place = 0, 0
        while True:
            spent = abs(self._clock() - began)
            left = record.runs_max - sum(removed)
            if entries + sum(removed) > 0 and spent >= record.budget_us:
                return Removed((*removed,), entries, True, spent)
            marked = self._value("prune_marked", *MARKED_IDS)
            if marked is not None:
                entries += self._slice(marked)
            elif place == len(record.cutoffs) or left <= 0:
                return Removed((*removed,), entries, False, spent)
            else:
                runs, gone = self._chunk(record.cutoffs[place], min(CHUNK_RUNS, left))
                removed[place] += runs
                entries += gone
                place += runs == 0

    def _chunk(self, cutoff: Cutoff, limit: int) -> tuple[int, int]:
        """The oldest runs of a cutoff, as many as go at once; runs and entries removed."""
        candidates = _candidates.decode(self._value("prune_candidates", *cutoff, limit))
        totals = accumulate(entries for _, entries in candidates)
        numbers = [number for (number, _), total in zip(candidates, totals, strict=True) if total <= CHUNK_ENTRIES]
        if numbers:
            return self._remove(numbers)
        return (1, self._mark(candidates[0][0])) if candidates else (0, 0)

    def _remove(self, numbers: list[int]) -> tuple[int, int]:
        text = _json.encode(numbers).decode()
        entries = self._run("prune_histories", text)
        self._run("prune_numbers", text)
        return self._run("prune_runs", text), entries

    def _mark(self, number: int) -> int:
        self._run("prune_mark", number, MARK)
        self._run("prune_attributes", number)
        return self._slice(number)

    def _slice(self, number: int) -> int:
        entries = self._run("prune_slice", number, CHUNK_ENTRIES)
        if entries < CHUNK_ENTRIES:
            self._remove([number])
        return entries

    def _run(self, name: str, *values: Any) -> int:
        return self._connection.execute(self._sql[name], values).rowcount

    def _value(self, name: str, *values: Any) -> Any:
        return self._connection.execute(self._sql[name], values).fetchone()[0]
