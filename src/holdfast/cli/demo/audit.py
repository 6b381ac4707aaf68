"""The demo's final check: order file, provider's ledger and database against each other.

It imports nothing of the engine. The ledger is read with `json`, the database with plain `sqlite3`, read-only, after
every other process has left it. Each check is one claim with what speaks against it; a claim without findings holds. A
file that cannot be read is a finding too, never an exception.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from holdfast.cli.demo.orders import Order

EXPECTED_STEPS: Final = ("reserve", "charge", "ship", "notify")
_RUNS_SQL: Final = "select number, id, workflow, state, input, output from holdfast_runs order by number"
_ENTRIES_SQL: Final = "select run, kind, name, state, output, attempts from holdfast_history order by run, seq"


@dataclass(frozen=True, slots=True)
class Check:
    """A claim, and everything found that contradicts it."""

    claim: str
    findings: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing contradicts it."""
        return not self.findings


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What the audit found.

    Attributes:
        checks: the claims, in the order in which they are shown.
        charges: charges in the ledger.
        cents: their sum.
        repeats: requests for a charge that was made already, as the ledger counted them.
        steps: finished steps in the database.
        attempts: how often their bodies were started, as recorded.
        integrity: the answer of SQLite's `integrity_check`.
        liveliest: the run with the most attempts, or an empty string.
    """

    checks: tuple[Check, ...]
    charges: int
    cents: int
    repeats: int
    steps: int
    attempts: int
    integrity: str
    liveliest: str

    @property
    def passed(self) -> bool:
        """Whether every claim holds."""
        return all(check.holds for check in self.checks)


@dataclass(frozen=True, slots=True)
class _Charge:
    charge: str
    key: str
    order: str
    cents: int


@dataclass(slots=True)
class _Ledger:
    charges: list[_Charge] = field(default_factory=list[_Charge])
    repeats: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    unreadable: list[str] = field(default_factory=list[str])


@dataclass(slots=True)
class _Run:
    id: str
    workflow: str
    state: str
    order: Mapping[str, Any]
    receipt: Mapping[str, Any]
    steps: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    charge: object = None
    attempts: int = 0


@dataclass(slots=True)
class _Database:
    runs: dict[str, _Run] = field(default_factory=dict[str, _Run])
    steps: int = 0
    integrity: str = "not checked"
    damage: list[str] = field(default_factory=list[str])


def audit(orders: Sequence[Order], *, database: Path, ledger: Path) -> Audit:
    """Compare what was ordered with what was charged and what was recorded. Nobody may have the database open."""
    book, base = _read_ledger(ledger), _read_database(database)
    wanted = {order.order_id: order for order in orders}
    checks = (
        Check("every order has its run, and every run succeeded", tuple(_runs_missing(wanted, base))),
        Check("every order was charged exactly once, by idempotency key", tuple(_charged_otherwise(wanted, book))),
        Check("order file, ledger and results agree on every amount", tuple(_amounts_differ(wanted, book, base))),
        Check("the ledger's charge numbers are those in the database", tuple(_charges_differ(book, base))),
        Check("nothing is left over: no unknown run, charge or repeat", tuple(_left_over(wanted, book, base))),
        Check("every step of every order is recorded exactly once", tuple(_steps_differ(base))),
        Check(f"SQLite's integrity_check of the database: {base.integrity}", tuple(base.damage)),
    )
    return Audit(
        checks=checks,
        charges=len(book.charges),
        cents=sum(charge.cents for charge in book.charges),
        repeats=len(book.repeats),
        steps=base.steps,
        attempts=sum(run.attempts for run in base.runs.values()),
        integrity=base.integrity,
        liveliest=max(base.runs, key=lambda run_id: base.runs[run_id].attempts, default=""),
    )


# Claims.


def _runs_missing(wanted: Mapping[str, Order], base: _Database) -> Iterator[str]:
    for order_id in wanted:
        run = base.runs.get(order_id)
        if run is None:
            yield f"{order_id}: no run"
        elif run.state != "succeeded":
            yield f"{order_id}: its run is {run.state}"


def _charged_otherwise(wanted: Iterable[str], book: _Ledger) -> Iterator[str]:
    yield from book.unreadable
    charges_of_order = Counter(charge.order for charge in book.charges)
    for order_id in wanted:
        if charges_of_order[order_id] != 1:
            yield f"{order_id}: charged {charges_of_order[order_id]} times"
    for what, values in (("key", (c.key for c in book.charges)), ("charge number", (c.charge for c in book.charges))):
        yield from (f"{what} {value} is {times} times in the ledger" for value, times in _repeated(values))


def _amounts_differ(wanted: Mapping[str, Order], book: _Ledger, base: _Database) -> Iterator[str]:
    charged: dict[str, int] = defaultdict(int)
    for charge in book.charges:
        charged[charge.order] += charge.cents
    for order_id, order in wanted.items():
        run = base.runs.get(order_id)
        recorded = (None, None) if run is None else (run.order.get("cents"), run.receipt.get("cents"))
        if not order.cents == charged.get(order_id) == recorded[0] == recorded[1]:
            yield (
                f"{order_id}: ordered {order.cents}, charged {charged.get(order_id)}, "
                f"recorded as ordered {recorded[0]} and charged {recorded[1]} cents"
            )


def _charges_differ(book: _Ledger, base: _Database) -> Iterator[str]:
    of_order = {charge.order: charge.charge for charge in book.charges}
    for run in base.runs.values():
        in_ledger = of_order.get(run.id)
        if in_ledger is None or not in_ledger == run.receipt.get("charge") == run.charge:
            result = run.receipt.get("charge")
            yield f"{run.id}: {in_ledger} in the ledger, {run.charge} in the step, {result} in the result"
    if not base.runs:
        yield "the database has no runs"


def _left_over(wanted: Mapping[str, Order], book: _Ledger, base: _Database) -> Iterator[str]:
    yield from (f"run {run_id} belongs to no order" for run_id in base.runs if run_id not in wanted)
    yield from (f"charge {c.charge} is for {c.order}, not an order" for c in book.charges if c.order not in wanted)
    charge_of_key = {charge.key: charge.charge for charge in book.charges}
    for key, charge in book.repeats:
        if charge_of_key.get(key) != charge:
            yield f"a repeat of {charge} with key {key}, which was never charged"


def _steps_differ(base: _Database) -> Iterator[str]:
    expected = [(name, "succeeded") for name in EXPECTED_STEPS]
    for run in base.runs.values():
        if run.steps != expected:
            found = ", ".join(f"{name} {state}" for name, state in run.steps) or "nothing"
            yield f"{run.id}: {found}"
    if not base.runs:
        yield "the database has no runs"


def _repeated(values: Iterable[str]) -> list[tuple[str, int]]:
    return [(value, times) for value, times in Counter(values).items() if times > 1]


# Reading.


def _read_ledger(path: Path) -> _Ledger:
    ledger = _Ledger()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        ledger.unreadable.append(f"the ledger cannot be read: {error}")
        return ledger
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            _enter(ledger, json.loads(line))
        except (KeyError, TypeError, ValueError) as error:
            ledger.unreadable.append(f"line {number} of the ledger cannot be read: {error!r}")
    return ledger


def _enter(ledger: _Ledger, line: dict[str, Any]) -> None:
    match line["kind"]:
        case "charge":
            if type(line["cents"]) is not int:
                raise ValueError("cents is not a whole number")
            ledger.charges.append(_Charge(line["charge"], line["key"], line["order"], line["cents"]))
        case "repeat":
            ledger.repeats.append((line["key"], line["charge"]))
        case kind:
            raise ValueError(f"unknown kind {kind!r}")


def _read_database(path: Path) -> _Database:
    base = _Database()
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            _check_integrity(base, connection)
            _read_runs(base, connection)
    except (sqlite3.Error, KeyError, TypeError, ValueError) as error:
        base.integrity = "failed"
        base.damage.append(f"the database cannot be read: {error}")
    return base


def _check_integrity(base: _Database, connection: sqlite3.Connection) -> None:
    answers = [str(row[0]) for row in connection.execute("pragma integrity_check")]
    base.integrity = "ok" if answers == ["ok"] else "failed"
    base.damage += [] if answers == ["ok"] else answers
    for row in connection.execute("pragma foreign_key_check"):
        base.damage.append(f"row {row['rowid']} of {row['table']} refers to nothing")


def _read_runs(base: _Database, connection: sqlite3.Connection) -> None:
    by_number: dict[int, _Run] = {}
    for row in connection.execute(_RUNS_SQL):
        receipt = json.loads(row["output"] or "{}")
        run = _Run(row["id"], row["workflow"], row["state"], json.loads(row["input"])["order"], receipt)
        base.runs[run.id] = by_number[row["number"]] = run
    for row in connection.execute(_ENTRIES_SQL):
        run = by_number[row["run"]]
        run.steps.append((row["name"] if row["kind"] == "step" else f"{row['kind']} {row['name']}", row["state"]))
        base.steps += row["kind"] == "step" and row["state"] == "succeeded"
        run.attempts += row["attempts"]
        if row["name"] == "charge":
            run.charge = json.loads(row["output"] or "null")
