"""Values that nobody should pass, and somebody will: strategies of hypothesis for the tests of every public edge.

Each strategy gives a `Thing`: a label that can always be printed, and a way to make the value. So a failing example can
be shown even if the value's own `repr` fails, and what a call could change or exhaust is made anew for each example.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import enum
import fractions
import io
import math
import threading
import types
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any

import msgspec
import pydantic
from hypothesis import strategies as st
from tests.fuzz.hostile import EXAMPLES

LONG = EXAMPLES > 0
DEEP_LEVELS = 100_000
TEXT_CHARS = 1_000_000
HALF = "half a character \ud800"


class Mischief(Exception):
    """Raised by hostile methods that nobody has to call: where it comes out, we called one."""


class Allowed(Exception):
    """Raised by methods that whoever uses such a value has to call: it may come out, since it is the caller's own."""


@dataclasses.dataclass(frozen=True)
class Thing:
    """A value to be made."""

    label: str
    make: Callable[[], Any] = dataclasses.field(repr=False, compare=False)

    def __repr__(self) -> str:
        return f"<{self.label}>"


def given_as(value: Any) -> Thing:
    """A value that is harmless to print."""
    return Thing(ascii(value)[:100], lambda: value)


# --- classes that misbehave


class Unprintable:
    """Its `repr` fails, and so would a message with it."""

    def __repr__(self) -> str:
        raise Mischief("repr")

    __str__ = __repr__


class HalfPrintable:
    """Its `repr` cannot be written in UTF-8."""

    def __repr__(self) -> str:
        return HALF

    __str__ = __repr__


class LongPrintable:
    """Its `repr` fills the screen."""

    def __repr__(self) -> str:
        return "long\n" * 100_000


class Quarrelsome:
    """It cannot be compared, hashed, counted or taken for true."""

    def __eq__(self, other: object) -> bool:
        raise Mischief("eq")

    def __hash__(self) -> int:
        raise Mischief("hash")

    def __bool__(self) -> bool:
        raise Mischief("bool")

    def __len__(self) -> int:
        raise Mischief("len")

    def __lt__(self, other: object) -> bool:
        raise Mischief("lt")

    __le__ = __gt__ = __ge__ = __lt__


class Agreeable:
    """It equals everything."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("return")

    def __lt__(self, other: object) -> bool:
        return True

    __le__ = __gt__ = __ge__ = __lt__


class Secretive:
    """It has no attributes that one could ask for without harm."""

    def __getattr__(self, name: str) -> Any:
        raise Mischief(name)


class Endless:
    """Going through it never ends."""

    def __iter__(self) -> Iterator[str]:
        return forever()


def forever() -> Iterator[str]:
    """In Python, so that an alarm can end whoever goes through it."""
    while True:
        yield "failed"


class BrokenIteration:
    """Going through it fails."""

    def __iter__(self) -> Iterator[Any]:
        raise Allowed("iter")


class BrokenMapping(Mapping[str, Any]):
    """A mapping that fails when it is read."""

    def __getitem__(self, key: str) -> Any:
        raise Allowed("getitem")

    def __iter__(self) -> Iterator[str]:
        raise Allowed("iter")

    def __len__(self) -> int:
        return 1


class BrokenPath:
    """A path that fails when it is read."""

    def __fspath__(self) -> str:
        raise Allowed("fspath")


class BytesPath:
    """A path of bytes."""

    def __fspath__(self) -> bytes:
        return b"\xff\x00"


class BrokenZone(tzinfo):
    """A time zone that does not know its offset."""

    def utcoffset(self, when: datetime | None) -> timedelta | None:
        raise Allowed("utcoffset")

    dst = utcoffset

    def tzname(self, when: datetime | None) -> str | None:
        raise Allowed("tzname")


class Text(str):
    """A text that lies about itself to whoever prints it."""

    __slots__ = ()

    def __repr__(self) -> str:
        raise Mischief("repr")

    def __str__(self) -> str:
        raise Mischief("str")


class Whole(int):
    """A whole number that cannot be printed."""

    def __repr__(self) -> str:
        raise Mischief("repr")

    __str__ = __repr__


class Colour(enum.Enum):
    """Values that are no texts."""

    RED = "red"


class Word(enum.StrEnum):
    """Values that are texts."""

    RETURN = "return"
    FAILED = "failed"


class Level(enum.IntEnum):
    """Values that are numbers."""

    ONE = 1


@dataclasses.dataclass
class Item:
    """A dataclass whose field may hold anything."""

    content: Any = None


@dataclasses.dataclass
class BrokenItem:
    """A dataclass whose field cannot be read."""

    content: Any = None

    def __getattribute__(self, name: str) -> Any:
        if name == "content":
            raise Mischief("content")
        return super().__getattribute__(name)


class Struct(msgspec.Struct):
    """A struct whose field may hold anything."""

    content: Any = None


class Model(pydantic.BaseModel):
    """A model whose field may hold anything."""

    content: Any = None


class Unwritable(pydantic.BaseModel, arbitrary_types_allowed=True):
    """A model that pydantic cannot write."""

    content: object = object()


# --- values that are made


def nested(levels: int, wrap: Callable[[Any], Any] = lambda inner: [inner]) -> Any:
    """So many levels around nothing."""
    value: Any = wrap(None)
    for _ in range(levels):
        value = wrap(value)
    return value


def ring() -> list[Any]:
    """A list that contains itself."""
    value: list[Any] = [1]
    value.append({"again": value})
    return value


def dict_ring() -> dict[str, Any]:
    """A dictionary that contains itself."""
    value: dict[str, Any] = {}
    value["self"] = value
    return value


def item_ring() -> Item:
    """An object that contains itself."""
    value = Item()
    value.content = [value]
    return value


def closed_coroutine() -> Any:
    """A coroutine object that nobody will miss."""

    async def nothing() -> None: ...

    coroutine = nothing()
    coroutine.close()
    return coroutine


def dead_future() -> Any:
    """A future of an event loop that is closed."""
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    loop.close()
    return future


JUNK: tuple[Thing, ...] = (
    given_as(None),
    given_as(True),
    given_as(False),
    given_as(0),
    given_as(-1),
    given_as(2**63),
    given_as(2**64),
    given_as(-(2**63) - 1),
    Thing("10**400", lambda: 10**400),
    Thing("-10**400", lambda: -(10**400)),
    Thing("10**5000, too long to print", lambda: 10**5000),
    given_as(math.nan),
    given_as(math.inf),
    given_as(-math.inf),
    given_as(-0.0),
    given_as(5e-324),
    given_as(1.7976931348623157e308),
    given_as(1 + 2j),
    given_as(b""),
    given_as(b"\x00\xff"),
    Thing("bytearray", lambda: bytearray(b"abc")),
    Thing("memoryview", lambda: memoryview(b"abc")),
    given_as(""),
    given_as("\x00"),
    given_as("a\x00b"),
    given_as(HALF),
    given_as("\udfff\ud800"),
    Thing("a million characters", lambda: "x" * TEXT_CHARS),
    Thing("a million surrogates", lambda: "\ud800" * TEXT_CHARS),
    given_as("'; drop table holdfast_runs; --"),
    given_as('"quoted" and \\'),
    given_as("../../etc/passwd"),
    given_as("%s %d {} {0} %(x)s"),
    given_as(" "),
    given_as("\n"),
    given_as("\u202e\u200b\ufeff"),
    given_as(timedelta.max),
    given_as(timedelta.min),
    given_as(timedelta(microseconds=1)),
    given_as(datetime(2030, 1, 1)),  # noqa: DTZ001
    given_as(datetime.max),  # noqa: DTZ901
    given_as(datetime.min.replace(tzinfo=UTC)),
    given_as(datetime.max.replace(tzinfo=timezone(-timedelta(hours=23)))),
    given_as(datetime.min.replace(tzinfo=timezone(timedelta(hours=23, minutes=59)))),
    Thing("an instant of a broken zone", lambda: datetime(2030, 1, 1, tzinfo=BrokenZone())),
    given_as(date(2030, 1, 1)),
    given_as(time(12)),
    given_as(Decimal("NaN")),
    given_as(Decimal("1e999999")),
    given_as(fractions.Fraction(1, 3)),
    given_as(uuid.UUID(int=1)),
    given_as([]),
    given_as(()),
    given_as({}),
    given_as(frozenset()),
    given_as([None]),
    given_as({None: None}),
    given_as({1: 2, "1": 3}),
    given_as({(1, 2): 3}),
    given_as({"": ""}),
    given_as({"\x00": HALF}),
    given_as([math.nan]),
    given_as({1, "a", None}),
    Thing("a list in a list in 100,000", lambda: nested(DEEP_LEVELS)),
    Thing("a tuple in a tuple in 100,000", lambda: nested(DEEP_LEVELS, lambda inner: (inner,))),
    Thing("a dict in a dict in 100,000", lambda: nested(DEEP_LEVELS, lambda inner: {"a": inner})),
    Thing("600 levels", lambda: nested(600)),
    Thing("an item in an item in 20,000", lambda: nested(20_000, Item)),
    Thing("a list that contains itself", ring),
    Thing("a dict that contains itself", dict_ring),
    Thing("an item that contains itself", item_ring),
    Thing("unprintable", Unprintable),
    Thing("printed as half a character", HalfPrintable),
    Thing("printed at length", LongPrintable),
    Thing("quarrelsome", Quarrelsome),
    Thing("agreeable", Agreeable),
    Thing("secretive", Secretive),
    Thing("endless", Endless),
    Thing("an endless iterator", forever),
    Thing("a huge range", lambda: range(10**15)),
    Thing("broken iteration", BrokenIteration),
    Thing("broken mapping", BrokenMapping),
    Thing("broken path", BrokenPath),
    Thing("path of bytes", BytesPath),
    Thing("text that cannot be printed", lambda: Text("return")),
    Thing("number that cannot be printed", lambda: Whole(1)),
    Thing("key that cannot be printed", lambda: {Text("a"): math.nan}),
    Thing("[unprintable]", lambda: [Unprintable()]),
    Thing("{unprintable: 1}", lambda: {Unprintable(): 1}),
    Thing("{'a': quarrelsome}", lambda: {"a": Quarrelsome()}),
    given_as(Colour.RED),
    given_as(Word.RETURN),
    given_as(Word.FAILED),
    given_as(Level.ONE),
    Thing("an item", lambda: Item(1)),
    Thing("an item with an unprintable one", lambda: Item(Unprintable())),
    Thing("an item that cannot be read", BrokenItem),
    Thing("a struct with NaN", lambda: Struct(math.nan)),
    Thing("a model", lambda: Model(content=1)),
    Thing("a model with a lock", lambda: Model(content=threading.Lock())),
    Thing("an unwritable model", Unwritable),
    Thing("a generator", lambda: (n for n in range(3))),
    Thing("a coroutine", closed_coroutine),
    Thing("a future", dead_future),
    Thing("a function", lambda: len),
    Thing("a lambda", lambda: lambda *args, **kwargs: None),
    Thing("a class", lambda: Item),
    Thing("type", lambda: type),
    Thing("a module", lambda: types),
    Thing("an empty module", lambda: types.ModuleType(HALF)),
    Thing("an exception", lambda: ValueError(Unprintable())),
    Thing("a lock", threading.Lock),
    Thing("a stream", io.BytesIO),
    Thing("a deque", lambda: collections.deque([1])),
    Thing("ellipsis", lambda: ...),
    Thing("NotImplemented", lambda: NotImplemented),
    Thing("msgspec.UNSET", lambda: msgspec.UNSET),
    Thing("msgspec.Raw that is no JSON", lambda: msgspec.Raw(b'{"a":')),
)


# --- strategies


def junk() -> st.SearchStrategy[Thing]:
    """Any of the values above, or a plain one that hypothesis thinks of."""
    return st.sampled_from(JUNK) | plain().map(given_as)


def plain() -> st.SearchStrategy[Any]:
    """Values of built-in types."""
    return st.one_of(
        st.none(), st.booleans(), integers(), st.floats(), texts(), st.binary(max_size=20), timedeltas(), datetimes()
    )


def integers() -> st.SearchStrategy[int]:
    """Whole numbers of any size, most of them beside a bound."""
    bounds = st.sampled_from([0, 1, 100, 1_000, 10_000, 10**6, 2**31, 2**53, 2**63, 2**64, 10**30, 10**400])
    beside = st.builds(
        lambda bound, step, sign: sign * (bound + step), bounds, st.integers(-1, 1), st.sampled_from([1, -1])
    )
    return beside | st.integers()


def texts(max_size: int = 30) -> st.SearchStrategy[str]:
    """Texts with everything that a text can hold: NUL, halves of characters, quotes, slashes, SQL."""
    nasty = st.sampled_from(
        ["\x00", "\ud800", "'", '"', "\\", "/", "%", "_", "*", ";--", "\n", "\u202e", "$", "`", "[", "𝄞"]
    )
    return st.lists(nasty | st.characters(codec=None), max_size=max_size).map("".join)


def timedeltas() -> st.SearchStrategy[timedelta]:
    """Spans of time up to the extremes."""
    return st.timedeltas() | st.sampled_from([timedelta.max, timedelta.min, timedelta(0), timedelta(microseconds=-1)])


def datetimes() -> st.SearchStrategy[datetime]:
    """Instants with and without a zone, up to the extremes."""
    zones = (
        st.none() | st.just(UTC) | st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
    )
    return st.datetimes(timezones=zones)
