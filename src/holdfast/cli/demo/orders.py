"""The order file: CSV in UTF-8 with a header line; `order_id`, `customer`, `item`, `quantity`, `cents`, others ignored.

A file is taken whole or not at all. Every malformed line is reported with its number, column and reason, so that a
file is corrected in one go. Nothing is guessed: no other encoding, no decimal points, no repeated ids.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Final, NamedTuple

from holdfast.errors import UsageError

COLUMNS: Final = ("order_id", "customer", "item", "quantity", "cents")
SHIPPED: Final = Path(__file__).with_name("orders.csv")
"""The order file that comes with the package."""

FILE_BYTES_MAX: Final = 64 * 1024 * 1024
ORDER_ID_CHARS_MAX: Final = 100
TEXT_CHARS_MAX: Final = 500
QUANTITY_MAX: Final = 1_000_000
CENTS_MAX: Final = 100_000_000_000
_HINT: Final = f"the columns are {','.join(COLUMNS)}; cents is what the whole order costs; save the file as UTF-8"


@dataclass(frozen=True, slots=True)
class Order:
    """One order.

    Attributes:
        order_id: unique in its file; becomes the id of the run.
        customer: who ordered.
        item: what.
        quantity: how many.
        cents: what the whole order costs.
    """

    order_id: str
    customer: str
    item: str
    quantity: int
    cents: int


class Problem(NamedTuple):
    """What is wrong in one place of an order file. `column` is empty when it is the line as a whole."""

    line: int
    column: str
    why: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.column}: {self.why}" if self.column else f"line {self.line}: {self.why}"


class OrderFileError(UsageError):
    """An order file that cannot be used.

    Attributes:
        problems: every malformed line, by number; empty when the file as a whole cannot be read.
    """

    code = "order-file"

    def __init__(self, message: str, *, problems: tuple[Problem, ...] = (), hint: str = _HINT) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


def read_orders(path: Path) -> tuple[Order, ...]:
    """Read an order file.

    Raises:
        OrderFileError: it cannot be read, or lines of it are malformed; it names all of them.
    """
    content = _read(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _malformed(path, _undecodable(content)) from None
    if not text.strip():
        raise OrderFileError(f"{path} is empty; nothing was started")
    reading = _Reading(text)
    orders = tuple(reading.orders())
    if reading.problems:
        raise _malformed(path, reading.problems)
    if not orders:
        raise OrderFileError(f"{path} has a header line but no orders; nothing was started")
    return orders


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise OrderFileError(f"{path} is larger than {FILE_BYTES_MAX:,} bytes", hint="split it")
        return path.read_bytes()
    except OSError as error:
        raise OrderFileError(f"cannot read {path}: {error.strerror}", hint="give the path of a CSV file") from error


def _malformed(path: Path, problems: list[Problem]) -> OrderFileError:
    ordered = tuple(sorted(problems))
    lines = len({problem.line for problem in ordered})
    listed = "\n".join(f"  {problem}" for problem in ordered)
    what = "1 malformed line" if lines == 1 else f"{lines:,} malformed lines"
    # The hint is part of the first line: at the end it would read as if it belonged to the last problem.
    return OrderFileError(
        f"{path} has {what}; nothing was started (hint: {_HINT})\n{listed}", problems=ordered, hint=""
    )


def _undecodable(content: bytes) -> list[Problem]:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return [Problem(1, "", "the file is UTF-16, not UTF-8")]
    problems: list[Problem] = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            problems.append(Problem(number, "", f"byte {error.start + 1} (0x{line[error.start]:02x}) is not UTF-8"))
    return problems


class _Reading:
    """One pass over a file's text; collects problems instead of stopping at the first."""

    def __init__(self, text: str) -> None:
        self.problems: list[Problem] = []
        self._rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        self._line_of_id: dict[str, int] = {}

    def orders(self) -> Iterator[Order]:
        """The well-formed orders; complete only if `problems` is empty afterwards."""
        records = self._records()
        line, header = next(records, (1, list[str]()))
        names = [name.strip().lower() for name in header]
        if self.problems or not self._is_header(line, names):
            return
        for line, fields in records:
            if len(fields) != len(names):
                self._report(line, "", f"has {len(fields)} fields, the header has {len(names)}")
                continue
            order = self._order(line, dict(zip(names, fields, strict=True)))
            if order is not None:
                yield order

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Records with the number of the line on which each begins; empty lines are passed over."""
        while True:
            line = self._rows.line_num + 1
            try:
                fields = next(self._rows)
            except StopIteration:
                return
            except csv.Error as error:
                self._report(line, "", _csv_reason(error))
                continue
            if fields:
                yield line, fields

    def _is_header(self, line: int, names: list[str]) -> bool:
        for column in COLUMNS:
            if column not in names:
                self._report(line, column, f"this column is missing from the header{_near(column, names)}")
        for name, times in Counter(names).items():
            if times > 1 and name in COLUMNS:
                self._report(line, name, f"this column is {times} times in the header")
        return not self.problems

    def _order(self, line: int, row: dict[str, str]) -> Order | None:
        problems_before = len(self.problems)
        order = Order(
            order_id=self._order_id(line, row["order_id"].strip()),
            customer=self._text(line, "customer", row["customer"].strip(), TEXT_CHARS_MAX),
            item=self._text(line, "item", row["item"].strip(), TEXT_CHARS_MAX),
            quantity=self._number(line, "quantity", row["quantity"].strip(), QUANTITY_MAX),
            cents=self._number(line, "cents", row["cents"].strip(), CENTS_MAX),
        )
        return order if len(self.problems) == problems_before else None

    def _order_id(self, line: int, value: str) -> str:
        self._text(line, "order_id", value, ORDER_ID_CHARS_MAX)
        first = self._line_of_id.setdefault(value, line) if value else line
        if first != line:
            self._report(line, "order_id", f"{value!r} is on line {first} already")
        return value

    def _text(self, line: int, column: str, value: str, chars_max: int) -> str:
        if not value:
            self._report(line, column, "is empty")
        elif len(value) > chars_max:
            self._report(line, column, f"has {len(value):,} characters; at most {chars_max} are possible")
        elif not value.isprintable():
            self._report(line, column, f"{value!r:.60} has a character that cannot be printed")
        return value

    def _number(self, line: int, column: str, value: str, most: int) -> int:
        if not value:
            self._report(line, column, "is empty")
        elif re.fullmatch(r"[0-9]{1,15}", value) is None:
            self._report(line, column, f"{value!r:.60} is not a whole number{_whole_cents(column, value)}")
        elif not 1 <= int(value) <= most:
            self._report(line, column, f"{value} is not between 1 and {most:,}")
        else:
            return int(value)
        return 0

    def _report(self, line: int, column: str, why: str) -> None:
        self.problems.append(Problem(line, column, why))


def _csv_reason(error: csv.Error) -> str:
    reason = str(error)
    if reason == "unexpected end of data":
        return "a quotation mark is opened and never closed"
    if "expected after" in reason:
        return "something follows a closing quotation mark; inside quotes write two for one"
    return reason


def _near(column: str, names: list[str]) -> str:
    near = get_close_matches(column, names, n=1)
    return f"; it has {near[0]!r}" if near else ""


def _whole_cents(column: str, value: str) -> str:
    amount = re.fullmatch(r"([0-9]{1,9})[.,]([0-9]{2})", value)
    if column != "cents" or amount is None:
        return ""
    return f" of cents; write {int(amount[1] + amount[2])}"
