"""What must be true at the end, with the faults off, everything ended and every process gone.

Every acknowledged start is there and has ended, or was removed; nobody holds a run; outcomes are the programs'; replay
of each history comes to the end that is recorded; attributes are those that were given; nothing is left of runs that
were removed; histories are what was committed, without gaps but where somebody has gone back; and the file is sound.
"""

from __future__ import annotations

import json

from tests.sim import load
from tests.sim.ledger import STOPS, Ledger
from tests.sim.row import Row

from holdfast._model.records import EntryRecorded, RunRow
from holdfast._runtime.replay import Verdict, against_outcome, replay

_REMAINS = {
    "history": "select count(*) from holdfast_history where run not in (select number from holdfast_runs)",
    "attributes": "select count(*) from holdfast_attributes where run not in (select number from holdfast_runs)",
    "runs that are being pruned": "select count(*) from holdfast_runs where reason = 'pruning'",
    "live workers": "select count(*) from holdfast_workers where state = 'live'",
}
_ROW = """
select number, id, workflow, input, seed, generation, crashes, request, created_at, started_at, deadline_at, 1
from holdfast_runs where number = ?
"""


def audit(ledger: Ledger) -> None:
    """Look at everything once more; what is wrong is noted in the ledger."""
    rows = ledger.read_rows()
    ids = {row.id for row in rows.values()}
    for run_id in sorted(ledger.started):
        ledger.check(run_id in ids or run_id in ledger.pruned, f"{run_id} was acknowledged and is lost")
    for row in rows.values():
        ledger.check(row.ended and row.worker is None, f"not ended, or held: {row}")
        history = ledger.read_history(row.number)
        _audit_outcome(ledger, row)
        _audit_history(ledger, row, {entry.seq: entry for entry in history})
        _audit_attributes(ledger, row)
        if row.ended and row.started_at is not None:
            _audit_replay(ledger, row, history)
    for what, sql in _REMAINS.items():
        left = ledger.connection.execute(sql).fetchone()[0]
        ledger.check(left == 0, f"{what}: {left} are left")
    answer = ledger.connection.execute("pragma integrity_check").fetchone()[0]
    ledger.check(answer == "ok", f"integrity_check: {answer}")


def _audit_outcome(ledger: Ledger, row: Row) -> None:
    told, order = ledger.last_told.get(row.id), ledger.orders[row.id]
    ledger.check(told is None or told[0] == row.state, f"{row.id} was told to be {told} and is {row}")
    if row.state == "succeeded":
        result = json.loads(row.output or "null")
        ledger.check(load.fits(order.program, result), f"{row.id} gave {result} for {order}")
    elif row.state == "failed":
        late = "RunTimeout" in str(row.error) and "timeout" in order.options
        ledger.check(late or load.has(order.program, ("boom",)), f"{row.id} failed with {row.error}, for {order}")
    else:
        ledger.check(row.id in ledger.known_cancels, f"{row.id} was cancelled, and nobody asked for that")


def _audit_history(ledger: Ledger, row: Row, stored: dict[int, EntryRecorded]) -> None:
    ordinals = sorted(entry.ordinal for entry in stored.values() if entry.ordinal is not None)
    ledger.check(len(set(ordinals)) == len(ordinals), f"ordinals of {row.id} repeat: {ordinals}")
    dense = ordinals == [*range(1, len(ordinals) + 1)]
    ledger.check(dense or row.number in ledger.gone_back, f"the history of {row.id} has gaps: {ordinals}")
    stops = [entry for entry in stored.values() if entry.kind in STOPS]
    ledger.check(len(stops) <= 1, f"{row.id} was told to stop more than once: {stops}")
    for (number, generation, seq), entry in ledger.entries.items():
        if number == row.number and generation == row.generation:
            found = stored.get(seq)
            same = found is not None and (entry.state == "pending" or _outcome(found) == _outcome(entry))
            ledger.check(same, f"entry {seq} of {row.id} was committed as {entry}, the file holds {found}")
    for entry in stored.values():
        ledger.check((row.number, row.generation, entry.seq) in ledger.entries, f"{row.id} has a foreign {entry}")


def _audit_attributes(ledger: Ledger, row: Row) -> None:
    """What is searched is what was given, and what is shown."""
    given = ledger.orders[row.id].options["attributes"]
    sql = "select attributes from holdfast_runs where number = ?"
    shown = json.loads(ledger.connection.execute(sql, (row.number,)).fetchone()[0])
    found = dict(ledger.connection.execute("select key, value from holdfast_attributes where run = ?", (row.number,)))
    ledger.check(given == shown == found, f"{row.id} was given {given}, shows {shown}, and is found by {found}")


def _audit_replay(ledger: Ledger, row: Row, history: list[EntryRecorded]) -> None:
    """Run against its history once more, the code of one release comes to the end that is recorded."""
    run = RunRow(*ledger.connection.execute(_ROW, (row.number,)).fetchone())
    codes = load.PLOD if row.workflow == "plod" else load.PLAY
    standings = [against_outcome(replay(run, code, history), state=row.state, output=row.output) for code in codes]
    ledger.check(
        any(standing.verdict is Verdict.GOES_ON for standing in standings),
        f"{row.id} replays otherwise than {row}: {standings}",
    )


def _outcome(entry: EntryRecorded) -> tuple[object, ...]:
    return entry.ordinal, entry.state, entry.output, entry.error
