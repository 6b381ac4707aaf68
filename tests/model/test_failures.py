"""Exceptions come back as what they were, or are told in full; writing them never fails."""

from __future__ import annotations

import asyncio
import collections
import datetime as dt
import json
import os
import sqlite3
import sys
import urllib.error
from decimal import Decimal
from typing import Any
from uuid import UUID

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast._model import codec
from holdfast._model.failures import TEXT_CHARS_MAX, decode_failure, encode_failure
from holdfast.errors import NotEncodable, RunFailed, RunTimeout, StepFailed, StepTimeout


class Halt(BaseException):
    """Not an Exception."""


class CardDeclined(Exception):
    def __init__(self, order_id: str, *, cents: int) -> None:
        super().__init__(f"order {order_id} declined")
        self.order_id = order_id
        self.cents = cents
        self.at = dt.datetime(2024, 1, 2, tzinfo=dt.UTC)


class NoSuper(Exception):
    def __init__(self, a: int, b: int) -> None:
        self.total = a + b

    def __str__(self) -> str:
        return f"total {self.total}"


class Slotted(Exception):
    __slots__ = ("__private", "amount", "never")

    def __init__(self, amount: Decimal) -> None:
        super().__init__(amount)
        self.amount = amount
        self.__private = 5

    def private(self) -> int:
        return self.__private


class Both(ValueError, OSError):
    pass


class Disk(OSError):
    def __init__(self, where: str) -> None:
        super().__init__(28, "disk full", where)
        self.where = where


class Connected(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.connection = object()
        self.code = 7


class Carrier(Exception):
    def __init__(self, payload: object) -> None:
        super().__init__("carried", payload)


class Recounting(Exception):
    """Prints what only its own constructor sets."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.render = lambda: word.upper()

    def __str__(self) -> str:
        return self.render()


class Guarded(Exception):
    @property
    def name(self) -> str:
        raise RuntimeError("no")

    def __setattr__(self, name: str, value: object) -> None:
        raise RuntimeError("frozen")


class Outer:
    class Inner(LookupError):
        pass


class Batch(ExceptionGroup[Exception]):
    pass


class Moody(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt

    __repr__ = __str__


class Hidden(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


def through(error: BaseException) -> BaseException:
    return decode_failure(encode_failure(error), fallback=StepFailed)


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def unicode_fault() -> BaseException:
    try:
        b"\xff".decode()
    except UnicodeDecodeError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad"),
        ValueError(),
        KeyError("k"),
        KeyError(("a", 1)),
        IndexError(3, 4.5, None, True),
        FileNotFoundError(2, "none", "/tmp/x"),
        OSError(28, "full", "a", None, "b"),
        OSError("only text"),
        unicode_fault(),
        ImportError("gone", name="mod", path="/p"),
        SyntaxError("bad", ("f.py", 1, 2, "x = (", 1, 3)),
        AttributeError("no x", name="x"),
        StopAsyncIteration(1),
        TimeoutError(),
        sqlite3.OperationalError("locked"),
        json.JSONDecodeError("bad", "{", 1),
        urllib.error.URLError("refused"),
        CardDeclined("o-1", cents=5),
        NoSuper(1, 2),
        Slotted(Decimal("1.20")),
        Both("a", "b"),
        Disk("/var"),
        Outer.Inner("x"),
        Recounting("hello"),
        Guarded("x"),
        Carrier({"a": [1, (2, b"\xff"), {3}, frozenset({"x"})], "$": "dollar", 5: float("inf")}),
        Carrier([UUID(int=1), dt.date(2020, 1, 1), dt.time(1), dt.timedelta(-1, 2, 3), Decimal("NaN").is_nan()]),
        Carrier(ValueError("inner").args),
        NotEncodable("no", path="a.b", hint="do"),
        StepTimeout("slow"),
        RunTimeout("late", hint="wait"),
        StepFailed("x", type_name="a:B", traceback_text="tb", causes=("c: d",)),
        ValueError("x" * 50_000),
        ValueError("é\x00\n"),
        RecursionError("maximum"),
        ExceptionGroup("two", [ValueError(1), ExceptionGroup("deep", [KeyError("k"), CardDeclined("o", cents=1)])]),
        Batch("own", [ValueError("x")]),
        BaseExceptionGroup("base", [Halt("x")]),
    ],
    ids=lambda error: f"{type(error).__name__}-{ascii(str(error))[:30]}",
)
def test_exception_comes_back_with_class_message_arguments_and_attributes(error: BaseException) -> None:
    again = through(raised(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert_same(again, error)
    assert_same(through(again), error)


def assert_same(again: BaseException, error: BaseException) -> None:
    ours = ("holdfast_traceback", "holdfast_causes", "render")
    if isinstance(error, BaseExceptionGroup):
        assert isinstance(again, BaseExceptionGroup)
        assert again.message == error.message
        assert [type(each) for each in again.exceptions] == [type(each) for each in error.exceptions]
        for mine, theirs in zip(again.exceptions, error.exceptions, strict=True):
            assert_same(mine, theirs)
    else:
        assert again.args == error.args
    state = {name: value for name, value in vars(again).items() if name not in ours}
    assert state == {name: value for name, value in vars(error).items() if name not in ours}
    for name in ("errno", "strerror", "filename", "filename2", "name", "path", "msg", "lineno", "encoding", "reason"):
        if not isinstance(error, Guarded):
            assert getattr(again, name, None) == getattr(error, name, None)


def test_slots_are_restored() -> None:
    again = through(Slotted(Decimal(3)))
    assert isinstance(again, Slotted)
    assert (again.amount, again.private(), hasattr(again, "never")) == (Decimal(3), 5, False)


def test_attribute_that_is_not_data_is_left_out() -> None:
    again = through(Connected("x"))
    assert isinstance(again, Connected)
    assert again.code == 7
    assert not hasattr(again, "connection")


@given(
    st.lists(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False)
            | st.text()
            | st.binary()
            | st.uuids()
            | st.decimals(allow_nan=False)
            | st.datetimes(timezones=st.just(dt.UTC)).map(lambda instant: instant.replace(fold=0))
            | st.dates()
            | st.times().map(lambda time: time.replace(fold=0))
            | st.timedeltas(),
            lambda inner: (
                st.lists(inner)
                | st.lists(inner).map(tuple)
                | st.dictionaries(st.text(), inner)
                | st.dictionaries(st.integers() | st.just("$"), inner)
                | st.sets(st.text())
            ),
            max_leaves=10,
        )
    )
)
def test_any_plain_arguments_come_back(args: list[Any]) -> None:
    again = through(ValueError(*args))
    assert type(again) is ValueError
    assert again.args == tuple(args)


def test_text_is_readable() -> None:
    record = json.loads(encode_failure(CardDeclined("o-1", cents=5)))
    assert record["type"] == f"{__name__}:CardDeclined"
    assert record["message"] == "order o-1 declined"
    assert record["args"] == ["order o-1 declined"]
    assert record["state"]["cents"] == 5
    assert not record.keys() & {"traceback", "causes", "notes"}


def test_set_in_the_message_comes_back_whatever_its_order() -> None:
    record = json.loads(encode_failure(ValueError({"a", "b"})))
    for message in ("{'a', 'b'}", "{'b', 'a'}"):
        again = decode_failure(json.dumps(record | {"message": message}), fallback=StepFailed)
        assert type(again) is ValueError
        assert again.args == ({"a", "b"},)
    assert isinstance(decode_failure(json.dumps(record | {"message": "ab"}), fallback=StepFailed), StepFailed)


def test_class_that_cannot_be_imported_is_told() -> None:
    class Local(Exception):
        pass

    error = raised(Local("here"))
    error.__cause__ = KeyError("first")
    error.add_note("a note")
    for fallback in (StepFailed, RunFailed):
        again = decode_failure(encode_failure(error), fallback=fallback)
        assert type(again) is fallback
        assert isinstance(again, StepFailed | RunFailed)
        assert again.message == "here"
        assert again.type_name.endswith("Local")
        assert "raise error" in again.traceback_text
        assert again.causes == ("builtins:KeyError: 'first'",)
        assert again.__notes__ == ["a note"]


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit(), StopIteration(1), asyncio.CancelledError()]
)
def test_exception_with_a_meaning_to_the_interpreter_is_not_rebuilt(error: BaseException) -> None:
    again = through(error)
    assert isinstance(again, StepFailed)
    assert again.type_name == f"{type(error).__module__}:{type(error).__name__}"


@pytest.mark.parametrize(
    "name", ["os:getcwd", "os:path", "builtins:int", "nowhere:X", "os:X", ":", "", "a:b:c", "..:x"]
)
def test_name_that_is_no_exception_class_is_told(name: str) -> None:
    text = json.dumps({"type": name, "message": "m", "args": []})
    again = decode_failure(text, fallback=StepFailed)
    assert isinstance(again, StepFailed)
    assert (again.type_name, again.message) == (name, "m")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"type":3}', "[" * 100_000])
def test_unreadable_text_becomes_the_fallback(text: str) -> None:
    assert isinstance(decode_failure(text, fallback=RunFailed), RunFailed)


def test_unplain_arguments_are_not_rebuilt() -> None:
    again = through(Carrier(object()))
    assert isinstance(again, StepFailed)
    assert again.type_name.endswith(":Carrier")


def test_pydantic_validation_error_is_told() -> None:
    class Model(pydantic.BaseModel):
        x: int

    with pytest.raises(pydantic.ValidationError) as caught:
        Model.model_validate({"x": "?"})
    again = through(caught.value)
    assert isinstance(again, StepFailed)
    assert "valid integer" in again.message


def test_causes_are_listed_outermost_first() -> None:
    try:
        try:
            try:
                raise KeyError("a")
            except KeyError as error:
                raise OSError(2, "b") from error
        except OSError:
            raise ValueError("c")  # noqa: B904 - a context, not a cause
    except ValueError as error:
        text = encode_failure(error)
    assert json.loads(text)["causes"] == ["builtins:FileNotFoundError: [Errno 2] b", "builtins:KeyError: 'a'"]
    again = decode_failure(text, fallback=StepFailed)
    assert again.holdfast_causes == tuple(json.loads(text)["causes"])  # type: ignore[attr-defined]
    assert json.loads(encode_failure(again))["causes"] == json.loads(text)["causes"]
    told = json.loads(text)["traceback"]
    assert told.index('raise KeyError("a")') < told.index('raise OSError(2, "b")') < told.index('raise ValueError("c")')


def test_suppressed_context_is_no_cause() -> None:
    error = ValueError("x")
    error.__context__ = KeyError("y")
    error.__suppress_context__ = True
    assert "causes" not in json.loads(encode_failure(error))


def test_members_of_a_group_are_listed() -> None:
    group = ExceptionGroup("g", [ValueError("a"), ExceptionGroup("h", [KeyError("b")]), OSError("c")])
    assert json.loads(encode_failure(group))["causes"] == [
        "builtins:ValueError: a",
        "builtins:ExceptionGroup: h (1 sub-exception)",
        "builtins:KeyError: 'b'",
        "builtins:OSError: c",
    ]


def test_group_with_a_member_that_cannot_be_rebuilt_is_told() -> None:
    again = through(ExceptionGroup("g", [ValueError("a"), Carrier(object())]))
    assert isinstance(again, StepFailed)
    assert len(again.causes) == 2


def test_traceback_leaves_out_our_leading_frames() -> None:
    try:
        codec.codec_for(int | _Hostile())  # type: ignore[operator]
    except ZeroDivisionError as error:
        told = json.loads(encode_failure(error))["traceback"]
    assert "test_failures.py" in told

    def body() -> None:
        raise ValueError("from the user")

    runner = compile("def run(body): body()", os.path.join(os.path.dirname(codec.__file__), "fake.py"), "exec")
    scope: dict[str, Any] = {}
    exec(runner, scope)
    with pytest.raises(ValueError) as caught:
        scope["run"](body)
    caught.value.__traceback__ = caught.tb.tb_next  # as if our frame had been the outermost
    told = json.loads(encode_failure(caught.value))["traceback"]
    assert "fake.py" not in told
    assert "from the user" in told


class _Hostile:
    def __ror__(self, other: object) -> object:
        raise ZeroDivisionError


def test_error_that_is_ours_keeps_its_frames() -> None:
    with pytest.raises(NotEncodable) as caught:
        codec.codec_for().encode(object())
    caught.value.__traceback__ = caught.tb.tb_next
    assert "codec.py" in json.loads(encode_failure(caught.value))["traceback"]


def test_traceback_and_notes_survive_being_raised_again() -> None:
    error = raised(ValueError("x"))
    error.add_note("n")
    again = through(error)
    assert again.__notes__ == ["n"]
    assert "raise error" in again.holdfast_traceback  # type: ignore[attr-defined]
    third = through(raised(again))
    assert third.holdfast_traceback.count("Traceback (most recent call last)") == 2  # type: ignore[attr-defined]
    assert third.__notes__ == ["n"]


def test_everything_is_bounded() -> None:
    def dive(depth: int) -> None:
        if depth:
            dive(depth - 1)
        raise ValueError("m" * 10**6, ["x"] * 10**5)

    with pytest.raises(ValueError) as caught:
        dive(500)
    error: BaseException = caught.value
    error.big = ["x" * 1000] * 10**4  # type: ignore[attr-defined]
    for number in range(3000):
        error.add_note("n" * 10_000)
        outer = KeyError("k" * 10_000, number)
        outer.__cause__ = error
        error = outer
    assert len(encode_failure(error)) < 400_000
    record = json.loads(encode_failure(caught.value))
    assert len(record["message"]) <= TEXT_CHARS_MAX
    assert len(record["traceback"]) <= TEXT_CHARS_MAX
    assert "dive(depth - 1)" in record["traceback"]
    assert not record.keys() & {"args", "state"}
    group: Exception = ValueError()
    for _ in range(3000):
        group = ExceptionGroup("x" * 1000, [group, ValueError("y" * 1000)])
    assert len(encode_failure(group)) < 400_000
    assert len(encode_failure(ExceptionGroup("wide", [ValueError("z" * 1000)] * 10**4))) < 400_000


def hostile() -> list[BaseException]:
    ring = ValueError("ring")
    ring.__cause__ = KeyError("other")
    ring.__cause__.__cause__ = ring
    itself = ValueError()
    itself.args = (itself,)
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    odd = ValueError("odd")
    odd.__dict__ |= {"\ud800": 1, "__notes__": 3, 5: 6, "holdfast_traceback": 7, "holdfast_causes": [8]}  # type: ignore[dict-item]
    notes = ValueError("notes")
    notes.__notes__ = [Moody(), 3, "\ud800"]
    renamed = type("Renamed", (Exception,), {"__module__": None})
    surrogate = type("S", (Exception,), {"__qualname__": "A", "__module__": "m\udfff"})
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    return [
        ring,
        itself,
        odd,
        notes,
        ValueError(cyclic),
        ValueError(deep),
        ValueError("\ud800", b"\xff", 10**5000),
        Moody(),
        Hidden("x"),
        renamed("x"),
        surrogate("x"),
        ExceptionGroup("g", [Moody(), Hidden()]),
        Carrier(collections.deque([1])),
        UnicodeDecodeError("utf-8", b"\xff" * 10**6, 0, 1, "r"),
    ]


@pytest.mark.parametrize("number", range(len(hostile())))
def test_writing_never_fails(number: int) -> None:
    text = encode_failure(raised(hostile()[number]))
    assert json.loads(text)["type"]
    assert len(text) < 400_000
    assert isinstance(decode_failure(text, fallback=StepFailed), BaseException)


def test_writing_near_the_end_of_the_stack_does_not_fail() -> None:
    def dive() -> str:
        try:
            return dive()
        except RecursionError as error:
            return encode_failure(error)

    assert "RecursionError" in dive()
    assert sys.getrecursionlimit() > 0


@pytest.mark.parametrize(
    "text", ["x" * 100_000, "\x00" * 100_000, "ü\ud800" * 50_000], ids=["plain", "escaped", "lone"]
)
@pytest.mark.parametrize("chars_max", [4_096, 20_000, 1_048_576])
def test_a_failure_of_many_large_parts_is_abridged_to_its_bound(text: str, chars_max: int) -> None:
    group = ExceptionGroup(text, [ValueError(text) for _ in range(900)])
    group.add_note(text)
    stored = encode_failure(group, chars_max=chars_max)
    assert len(stored) <= chars_max
    told = decode_failure(stored, fallback=StepFailed)
    assert "characters left out" in str(told)
    assert "ExceptionGroup" in f"{type(told).__name__} {told}"
