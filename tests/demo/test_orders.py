"""Order files: what is read, and that every malformed line is reported with its number, column and reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cli.demo.orders import SHIPPED, Order, OrderFileError, read_orders

HEADER = "order_id,customer,item,quantity,cents\n"


@pytest.fixture
def write(tmp_path: Path):
    def write(content: str | bytes) -> Path:
        path = tmp_path / "my.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def problems_of(path: Path) -> list[tuple[int, str]]:
    with pytest.raises(OrderFileError) as caught:
        read_orders(path)
    for problem in caught.value.problems:
        assert str(problem) in str(caught.value)
    return [(problem.line, problem.column) for problem in caught.value.problems]


def test_the_shipped_file_has_600_different_orders() -> None:
    orders = read_orders(SHIPPED)
    assert len(orders) == 600
    assert len({order.order_id for order in orders}) == 600
    assert len({order.customer for order in orders}) > 200
    assert len({order.item for order in orders}) > 40


def test_a_plain_file_is_read(write) -> None:
    assert read_orders(write(HEADER + "A1,Ann,Tea,2,995\n")) == (Order("A1", "Ann", "Tea", 2, 995),)


def test_columns_may_come_in_any_order_and_others_are_ignored(write) -> None:
    path = write("cents,note,Item ,quantity,customer,ORDER_ID\n995,x,Tea,2,Ann,A1\n")
    assert read_orders(path) == (Order("A1", "Ann", "Tea", 2, 995),)


def test_a_byte_order_mark_windows_line_ends_and_empty_lines_do_no_harm(write) -> None:
    path = write(b"\xef\xbb\xbf" + (HEADER + "A1,Ann,Tea,2,995\n\n\n").replace("\n", "\r\n").encode())
    assert read_orders(path) == (Order("A1", "Ann", "Tea", 2, 995),)


def test_quotes_keep_commas_and_quotation_marks(write) -> None:
    path = write(HEADER + 'A1,"O""Neill, Ann","Cups, set of 6",2,995\n')
    assert read_orders(path) == (Order("A1", 'O"Neill, Ann', "Cups, set of 6", 2, 995),)


def test_every_malformed_line_is_reported_at_once(write) -> None:
    path = write(
        HEADER
        + "A1,Ann,Tea,2,995\n"
        + "A2,,Tea,0,12.50\n"
        + "A3,Ann,Tea,2\n"
        + "A1,Ann,Tea,two,995\n"
        + "A4,Ann,Tea,2,995,extra\n"
    )
    assert problems_of(path) == [
        (3, "cents"),
        (3, "customer"),
        (3, "quantity"),
        (4, ""),
        (5, "order_id"),
        (5, "quantity"),
        (6, ""),
    ]


def test_a_decimal_amount_is_answered_with_what_to_write(write) -> None:
    with pytest.raises(OrderFileError, match=r"line 2: cents: '12.50' is not a whole number of cents; write 1250"):
        read_orders(write(HEADER + "A1,Ann,Tea,1,12.50\n"))


@pytest.mark.parametrize("number", ["", "-1", "0", "1e3", "1 000", "٣", "9" * 15, "9" * 30, "0x10", "nan"])
def test_a_bad_number_is_refused(write, number: str) -> None:
    assert problems_of(write(HEADER + f"A1,Ann,Tea,1,{number}\n")) == [(2, "cents")]


def test_a_repeated_order_id_names_the_first_line(write) -> None:
    with pytest.raises(OrderFileError, match=r"line 4: order_id: 'A1' is on line 2 already"):
        read_orders(write(HEADER + "A1,Ann,Tea,1,1\nA2,Ann,Tea,1,1\nA1,Ann,Tea,1,1\n"))


def test_missing_columns_are_all_named_and_a_near_one_is_suggested(write) -> None:
    with pytest.raises(OrderFileError, match=r"quantity: this column is missing from the header; it has 'quantty'"):
        read_orders(write("order_id,item,quantty,cents\nA1,Tea,1,1\n"))
    assert problems_of(write("order_id,item,quantty,cents\nA1,Tea,1,1\n")) == [(1, "customer"), (1, "quantity")]


def test_a_column_that_is_there_twice_is_refused(write) -> None:
    assert problems_of(write("order_id,customer,item,quantity,cents,cents\nA1,Ann,Tea,1,1,2\n")) == [(1, "cents")]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf", b"  "])
def test_an_empty_file_is_refused(write, content: bytes) -> None:
    with pytest.raises(OrderFileError, match="is empty"):
        read_orders(write(content))


def test_a_file_without_orders_is_refused(write) -> None:
    with pytest.raises(OrderFileError, match="no orders"):
        read_orders(write(HEADER))


def test_lines_in_another_encoding_are_named(write) -> None:
    path = write(HEADER.encode() + "A1,Zoé,Tea,1,1\nA2,Ann,Tea,1,1\nA3,Ann,Thé,1,1\n".encode("latin-1"))
    assert problems_of(path) == [(2, ""), (4, "")]


def test_utf_16_is_named(write) -> None:
    with pytest.raises(OrderFileError, match="UTF-16"):
        read_orders(write((HEADER + "A1,Ann,Tea,1,1\n").encode("utf-16")))


def test_a_quotation_mark_that_is_never_closed_is_reported_where_it_begins(write) -> None:
    path = write(HEADER + 'A1,Ann,Tea,1,1\nA2,"Ann,Tea,1,1\nA3,Ann,Tea,1,1\n')
    with pytest.raises(OrderFileError, match=r"line 3: a quotation mark is opened and never closed"):
        read_orders(path)


def test_text_after_a_closing_quotation_mark_is_reported_and_reading_goes_on(write) -> None:
    assert problems_of(write(HEADER + 'A1,"Ann"x,Tea,1,1\nA2,Ann,Tea,1,x\n')) == [(2, ""), (3, "cents")]


def test_line_numbers_count_the_lines_inside_quotes(write) -> None:
    assert problems_of(write(HEADER + 'A1,Ann,Tea,1,1,"a\nb"\nA2,Ann,Tea,1,x\n')) == [(2, ""), (4, "cents")]


def test_unprintable_ids_and_overlong_texts_are_refused(write) -> None:
    path = write(HEADER + f"A\x07,Ann,Tea,1,1\n{'A' * 101},Ann,Tea,1,1\nA3,{'n' * 501},Tea,1,1\n")
    assert problems_of(path) == [(2, "order_id"), (3, "order_id"), (4, "customer")]


def test_what_cannot_be_read_is_an_error_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(OrderFileError, match="No such file"):
        read_orders(tmp_path / "none.csv")
    with pytest.raises(OrderFileError, match="directory"):
        read_orders(tmp_path)


@given(content=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_with_the_right_error(tmp_path_factory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("orders") / "any.csv"
    path.write_bytes(HEADER.encode() + content)
    try:
        orders = read_orders(path)
    except OrderFileError:
        return
    assert orders
