"""The audit, on the books of a real demo: it passes as they are, and every way of tampering with them makes it fail."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from holdfast.cli.demo.audit import Audit, audit
from holdfast.cli.demo.drive import DATABASE, LEDGER, Drive
from holdfast.cli.demo.orders import SHIPPED, Order, read_orders
from holdfast.cli.demo.screen import Screen

ORDERS = read_orders(SHIPPED)[:12]
ONE = ORDERS[3].order_id

RUNS, CHARGED, AMOUNTS, NUMBERS, LEFT_OVER, STEPS, INTEGRITY = range(7)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("books")

    async def perform() -> None:
        with Screen(Console(file=StringIO()), orders=len(ORDERS)) as screen:
            await Drive(ORDERS, folder=folder, kills=0, seed=1, screen=screen).run()

    asyncio.run(perform())
    return folder


class Books:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / DATABASE
        self.ledger = folder / LEDGER

    def audit(self, orders: tuple[Order, ...] = ORDERS) -> Audit:
        return audit(orders, database=self.database, ledger=self.ledger)

    def failed(self) -> set[int]:
        return {number for number, check in enumerate(self.audit().checks) if not check.holds}

    def execute(self, sql: str, *values: Any) -> None:
        with closing(sqlite3.connect(self.database)) as connection, connection:
            assert connection.execute(sql, values).rowcount > 0

    def change(self, change: Callable[[list[dict[str, Any]]], object]) -> None:
        lines = [json.loads(line) for line in self.ledger.read_text().splitlines()]
        change(lines)
        self.ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def books(original: Path, tmp_path: Path) -> Books:
    return Books(Path(shutil.copytree(original, tmp_path / "books")))


def charge_of(lines: list[dict[str, Any]], order: str) -> dict[str, Any]:
    return next(line for line in lines if line["kind"] == "charge" and line["order"] == order)


def test_honest_books_pass(books: Books) -> None:
    found = books.audit()
    assert found.passed, found.checks
    assert (found.charges, found.steps, found.integrity) == (12, 48, "ok")
    assert found.cents == sum(order.cents for order in ORDERS)
    assert found.attempts >= 48
    assert found.liveliest in {order.order_id for order in ORDERS}


def test_the_audit_leaves_the_books_as_they_are(books: Books) -> None:
    before = (books.database.read_bytes(), books.ledger.read_bytes())
    books.audit()
    assert (books.database.read_bytes(), books.ledger.read_bytes()) == before


def test_a_double_charge_under_another_key_is_found(books: Books) -> None:
    books.change(lambda lines: lines.append(charge_of(lines, ONE) | {"charge": "ch_999999", "key": "other"}))
    assert {CHARGED, AMOUNTS, NUMBERS} <= books.failed()


def test_a_double_charge_under_the_same_key_is_found(books: Books) -> None:
    books.change(lambda lines: lines.append(charge_of(lines, ONE)))
    assert {CHARGED, AMOUNTS} <= books.failed()


def test_a_missing_charge_is_found(books: Books) -> None:
    books.change(lambda lines: lines.remove(charge_of(lines, ONE)))
    assert {CHARGED, AMOUNTS, NUMBERS} <= books.failed()


def test_another_amount_in_the_ledger_is_found(books: Books) -> None:
    books.change(lambda lines: charge_of(lines, ONE).update(cents=1))
    assert books.failed() == {AMOUNTS}


def test_a_charge_of_a_stranger_is_found(books: Books) -> None:
    stranger = {"kind": "charge", "charge": "ch_999999", "key": "other", "order": "nobody", "cents": 5}
    books.change(lambda lines: lines.append(stranger))
    assert books.failed() == {LEFT_OVER}


def test_a_repeat_of_nothing_is_found(books: Books) -> None:
    books.change(lambda lines: lines.append({"kind": "repeat", "charge": "ch_000001", "key": "never"}))
    assert books.failed() == {LEFT_OVER}


def test_another_charge_number_is_found(books: Books) -> None:
    books.change(lambda lines: charge_of(lines, ONE).update(charge="ch_777777"))
    assert NUMBERS in books.failed()


@pytest.mark.parametrize("line", ['{"kind": "char', "[]", '{"kind": "refund"}', '{"kind": "charge"}', "\x00"])
def test_a_ledger_line_that_cannot_be_read_is_found(books: Books, line: str) -> None:
    with books.ledger.open("a") as ledger:
        ledger.write(line)
    assert books.failed() == {CHARGED}


def test_a_missing_ledger_is_found(books: Books) -> None:
    books.ledger.unlink()
    assert CHARGED in books.failed()


def test_a_lost_run_is_found(books: Books) -> None:
    books.execute("delete from holdfast_history where run = (select number from holdfast_runs where id = ?)", ONE)
    books.execute("delete from holdfast_runs where id = ?", ONE)
    assert {RUNS, AMOUNTS} <= books.failed()


@pytest.mark.parametrize("state", ["ready", "running", "waiting", "failed", "blocked"])
def test_a_run_that_did_not_succeed_is_found(books: Books, state: str) -> None:
    books.execute("update holdfast_runs set state = ? where id = ?", state, ONE)
    assert books.failed() == {RUNS}


def test_a_run_without_an_order_is_found(books: Books) -> None:
    found = books.audit(ORDERS[:-1])
    assert {number for number, check in enumerate(found.checks) if not check.holds} == {LEFT_OVER}


def test_a_result_with_another_amount_is_found(books: Books) -> None:
    books.execute("update holdfast_runs set output = json_set(output, '$.cents', 1) where id = ?", ONE)
    assert books.failed() == {AMOUNTS}


def test_a_result_with_another_charge_is_found(books: Books) -> None:
    books.execute("update holdfast_runs set output = json_set(output, '$.charge', 'ch_0') where id = ?", ONE)
    assert books.failed() == {NUMBERS}


def test_a_step_with_another_charge_is_found(books: Books) -> None:
    books.execute("update holdfast_history set output = '\"ch_0\"' where name = 'charge'")
    assert books.failed() == {NUMBERS}


@pytest.mark.parametrize("name", ["reserve", "charge", "ship", "notify"])
def test_a_lost_step_is_found(books: Books, name: str) -> None:
    books.execute("delete from holdfast_history where name = ?", name)
    assert STEPS in books.failed()


def test_a_step_that_is_recorded_twice_is_found(books: Books) -> None:
    books.execute(
        "insert into holdfast_history (run, seq, after, ordinal, kind, name, state, output, attempts) "
        "select run, 99, after, ordinal, kind, name, state, output, attempts from holdfast_history where name = 'ship'"
    )
    assert books.failed() == {STEPS}


def test_a_step_that_is_still_pending_is_found(books: Books) -> None:
    books.execute("update holdfast_history set state = 'pending' where name = 'notify'")
    assert books.failed() == {STEPS}


def test_an_entry_of_no_run_is_found(books: Books) -> None:
    books.execute("update holdfast_history set run = 4711 where run = 1")
    assert INTEGRITY in books.failed()


def test_damaged_pages_are_found(books: Books) -> None:
    content = bytearray(books.database.read_bytes())
    for page in range(2, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    books.database.write_bytes(content)
    assert INTEGRITY in books.failed()


@pytest.mark.parametrize("content", [b"", b"this is not a database, it only has its name" * 100])
def test_a_file_that_is_no_database_is_found(books: Books, content: bytes) -> None:
    books.database.write_bytes(content)
    found = books.audit()
    assert {RUNS, AMOUNTS, INTEGRITY} <= books.failed()
    assert found.integrity == "failed"


def test_a_missing_database_is_found_and_not_made(books: Books) -> None:
    books.database.unlink()
    assert INTEGRITY in books.failed()
    assert not books.database.exists()
