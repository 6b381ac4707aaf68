"""Exceptions that a step or a workflow may raise, and that are hard to store, to print or to make again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from tests.fuzz.things import HALF, Mischief, Quarrelsome, Thing, Unprintable, nested, ring

import holdfast


class Mute(Exception):
    """It cannot be printed."""

    def __str__(self) -> str:
        raise Mischief("str")

    __repr__ = __str__


class Exiting(Exception):
    """Whoever prints it leaves the program."""

    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


class HalfSaid(Exception):
    """Its text cannot be written in UTF-8."""

    def __str__(self) -> str:
        return HALF


class Closed(BaseException):
    """It is no `Exception`."""


class Demanding(Exception):
    """It cannot be made from its arguments."""

    def __init__(self, one: int, *, two: int) -> None:
        super().__init__("demanding")
        self.one, self.two = one, two


class Once(Exception):
    """It can be made only once."""

    made = 0

    def __init__(self, *args: object) -> None:
        Once.made += 1
        if Once.made % 2 == 0:
            raise SystemExit("made again")
        super().__init__(*args)


class Argless(Exception):
    """It keeps its arguments to itself."""

    @property
    def args(self) -> Any:  # type: ignore[override]
        """None to be had."""
        raise Mischief("args")

    @args.setter
    def args(self, value: Any) -> None:
        """Forgotten."""


class Guarded(Exception):
    """It lets nobody look."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("__dict__", "__notes__", "args"):
            raise Mischief(name)
        return super().__getattribute__(name)


class Unequal(Exception):
    """It cannot be compared, hashed or taken for true."""

    __eq__ = Quarrelsome.__eq__
    __hash__ = Quarrelsome.__hash__
    __bool__ = Quarrelsome.__bool__
    __len__ = Quarrelsome.__len__


class Stateful(Exception):
    """It carries what cannot be stored."""

    def __init__(self) -> None:
        super().__init__("stateful")
        self.lock = threading.Lock()
        self.ring = ring()
        self.item = Unprintable()


def with_causes(count: int) -> BaseException:
    """The last of many."""
    error = ValueError("first")
    for number in range(count):
        following = ValueError(f"number {number}")
        following.__cause__ = error
        error = following
    return error


def with_itself() -> BaseException:
    """Two that caused each other."""
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__context__ = two, one
    one.__context__ = one
    return one


def with_notes() -> BaseException:
    """Notes that are none."""
    error = ValueError("noted")
    error.__notes__ = [Unprintable(), HALF, 7, "x" * 1_000_000]
    return error


def deep_group(levels: int) -> BaseException:
    """A group in a group in a group."""
    error: Exception = ValueError("bottom")
    for _ in range(levels):
        error = ExceptionGroup("group", [error])
    return error


def too_deep() -> BaseException:
    """What endless recursion ends in."""

    def further() -> None:
        further()

    try:
        further()
    except RecursionError as error:
        return error
    raise AssertionError


def local() -> BaseException:
    """Of a class that nobody can import."""

    class Local(Exception):
        pass

    return Local("local")


MAKERS: dict[str, Callable[[], BaseException]] = {
    "plain": lambda: ValueError("plain"),
    "unprintable argument": lambda: ValueError(Unprintable()),
    "mute": Mute,
    "exiting": Exiting,
    "half said": HalfSaid,
    "half": lambda: ValueError(HALF),
    "a million characters": lambda: ValueError("x" * 1_000_000),
    "NUL": lambda: ValueError("\x00" * 100_000),
    "base": lambda: Closed("base"),
    "demanding": lambda: Demanding(1, two=2),
    "once": lambda: Once("made") if Once.made % 2 == 0 else ValueError("made"),
    "argless": Argless,
    "guarded": Guarded,
    "unequal": Unequal,
    "stateful": Stateful,
    "deep argument": lambda: ValueError(nested(100_000)),
    "ring": lambda: ValueError(ring()),
    "many arguments": lambda: ValueError(*range(100_000)),
    "huge number": lambda: ValueError(10**5000),
    "causes": lambda: with_causes(10_000),
    "itself": with_itself,
    "notes": with_notes,
    "group of 1,000 levels": lambda: deep_group(1_000),
    "group of many": lambda: ExceptionGroup("many", [ValueError(n) for n in range(10_000)]),
    "group of base": lambda: BaseExceptionGroup("base", [Closed(), GeneratorExit(), SystemExit(1)]),
    "recursion": too_deep,
    "local": local,
    "memory": MemoryError,
    "stop": lambda: StopIteration(7),
    "stop async": lambda: StopAsyncIteration(7),
    "generator exit": GeneratorExit,
    "system exit": lambda: SystemExit(3),
    "cancelled": asyncio.CancelledError,
    "cancelled, unprintable": lambda: asyncio.CancelledError(Unprintable()),
    "cancelled, half": lambda: asyncio.CancelledError(HALF),
    "cancelled at length": lambda: asyncio.CancelledError("x" * 1_000_000),
    "timeout": TimeoutError,
    "invalid state": asyncio.InvalidStateError,
    "os error": lambda: OSError(2, "nowhere", HALF),
    "unicode": lambda: UnicodeEncodeError("utf-8", HALF, 0, 1, "half"),
    "key": lambda: KeyError(Unprintable()),
    "fenced": lambda: holdfast.Fenced("not really", hint="none"),
    "store": lambda: holdfast.StoreFull("not really"),
    "internal": lambda: holdfast.InternalError("not really"),
    "not decodable": lambda: holdfast.NotDecodable("not really"),
    "nondeterminism": lambda: holdfast.NondeterminismError(run_id="x", seq=1, recorded="a", requested="b", hint=""),
    "run cancelled": lambda: holdfast.RunCancelled("other"),
    "a query": lambda: holdfast.QueryError("wrong", query="x\ud800", at=1),
    "a step's failure": lambda: holdfast.StepFailed("message", type_name="a:b", causes=("x",)),
}

MISHAPS = tuple(Thing(label, make) for label, make in MAKERS.items())
