"""Queries at random: what is right finds what a plain reading of the runs finds, what is wrong shows its place.

The oracle knows the language from its documentation only: it shares no code with the parser or the search. `pages`,
`iterate` and `count` must agree with it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.hostile import ANY_TEXT, NAMES, examples, fault

from holdfast import Holdfast, RunInfo, Start, SyncClient, step, workflow
from holdfast.errors import QueryError, UsageError

pytestmark = pytest.mark.crash

RUNS: Final = 40
DAY: Final = datetime(2026, 3, 1, 12, 30, 15, tzinfo=UTC)
WORDS: Final = ("", "Anna", "Anna Lee", "annex", "é", "42", "042", "4.20", "true", "x,y", 'say "hi"', "back\\slash",
 "a:b",
                "2026-03-01", "..", "*", "-5", ">5", "'; --", "z%_", "\uffdc")  # fmt: skip
NUMBERS: Final = (0, 1, -5, 42, 4.2, 2.5, 10, 2**62, 1e300)
KEYS: Final = ("k", "address.city", "odd key", "state", "ключ")
"""`state` is an attribute, too: ``@state:...`` asks for it."""


class Found(NamedTuple):
    """A run and the attributes that it is found by."""

    info: RunInfo
    values: dict[str, list[Any]]


class Said(NamedTuple):
    """A condition as text, and what it means."""

    text: str
    meets: Callable[[Found], bool]
    by_number: bool = False


@step
async def fail() -> None:
    raise ValueError("no")


@workflow
async def checkout(n: int) -> int:
    if n % 5 == 0:
        await fail()
    return n


@workflow(name="check-in")
async def check_in(n: int) -> int:
    return n


@dataclass(frozen=True, repr=False)
class Shop:
    """The runs, in the order in which they were started."""

    client: SyncClient
    runs: list[Found]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Generator[Shop]:
    """Runs of all kinds with all values, created over several days, in no order."""
    path = tmp_path_factory.mktemp("queries") / "a.db"
    app, plain = Holdfast(f"sqlite:///{path}"), Holdfast(f"sqlite:///{path}")
    app.include(checkout, check_in)
    names = ("checkout", "check-in", "elsewhere")
    starts: list[Start[Any]] = []
    for n in range(RUNS):
        delay = 86400.0 * 300 if n % 7 == 6 else None
        options = {"priority": n % 4 - 1, "attributes": attributes_of(n), "delay": delay}
        starts.append(Start(names[n % 3], id=f"{'abc'[n % 3]}{n}", n=n, **options))
    with app.sync(worker=True) as client, plain.sync() as starter:  # an app without workflows starts any
        for run in starter.start_many(starts):
            info = run.describe()
            if info.workflow != "elsewhere" and info.due_at is None:
                with_outcome(client.get(run.id))
    with closing(sqlite3.connect(path)) as database, database:
        for n in range(RUNS):
            at = DAY + timedelta(hours=17 * (n * 7 % RUNS), microseconds=n % 3)
            created = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
            database.execute("update holdfast_runs set created_at = ? where number = ?", (created, n + 1))
    with plain.sync() as client:
        infos = {info.id: info for info in client.iterate()}
        yield Shop(client, [Found(infos[f"{'abc'[n % 3]}{n}"], flat(attributes_of(n))) for n in range(RUNS)])


def with_outcome(run: Any) -> None:
    with suppress(ValueError):
        run.result()


def attributes_of(n: int) -> dict[str, Any]:
    text, number = WORDS[n % len(WORDS)], NUMBERS[n % len(NUMBERS)]
    return {
        "k": [text, number][: n % 3],
        "address": {"city": WORDS[n * 3 % len(WORDS)]} if n % 2 else {},
        "odd key": n % 4 == 0,
        "state": "open",
        **({"ключ": number} if n % 5 == 1 else {}),
    }


def flat(attributes: dict[str, Any], above: str = "") -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for name, value in attributes.items():
        if isinstance(value, dict):
            found |= flat(value, f"{above}{name}.")
        else:
            items = value if isinstance(value, list) else [value]
            found[above + name] = [int(item) if isinstance(item, bool) else item for item in items]
    return found


# The language, said and understood.


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def same(value: Any, other: Any) -> bool:
    """A number is never a text."""
    return value == other and isinstance(value, str) == isinstance(other, str)


@st.composite
def attribute_terms(draw: st.DrawFn) -> Said:
    """A condition on an attribute."""
    key = draw(st.sampled_from(KEYS))
    name = key if key.replace(".", "").isalpha() else quoted(key)
    name = f"@{name}" if key == "state" or draw(st.booleans()) else name
    test, meets = draw(st.one_of(one_of(), prefix(), exists(), ranges()))
    negated = draw(st.booleans())
    text = f"{'-' if negated else ''}{name}:{test}"
    return Said(text, lambda run: any(map(meets, run.values.get(key, []))) is not negated, not negated)


Test = tuple[str, Callable[[Any], bool]]


@st.composite
def one_of(draw: st.DrawFn) -> Test:
    """Words with quotes are texts; a number without them is the number and the text."""
    texts, wanted = [], []
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            word = draw(st.sampled_from(WORDS))
            texts.append(quoted(word))
            wanted.append(word)
        else:
            text, values = draw(
                st.sampled_from(
                    [("42", [42, "42"]), ("042", ["042"]), ("4.20", [4.2, "4.20"]), ("4.2", [4.2, "4.2"]), ("-5",
                     [-5, "-5"]),
                     ("true", [1, "true"]), ("false", [0, "false"]), ("1e300", [1e300, "1e300"]), ("Anna", ["Anna"]),
                     ("a:b", ["a:b"]),
                     ("1", [1, "1"]), ("0", [0, "0"]), (str(2**62), [2**62, str(2**62)]), ("1e999", ["1e999"])]
                )
            )  # fmt: skip
            texts.append(text)
            wanted += values
    return ",".join(texts), lambda value: any(same(value, other) for other in wanted)


@st.composite
def prefix(draw: st.DrawFn) -> Test:
    start = draw(st.sampled_from(["Anna", "a", "", "é", "4", "z%", "\uffdc", "back\\"]))
    text = f"{start}*" if start and start.isalnum() and draw(st.booleans()) else f"{quoted(start)}*"
    return text, lambda value: isinstance(value, str) and value.startswith(start)


@st.composite
def exists(draw: st.DrawFn) -> Test:
    return draw(st.just("*")), lambda value: True


@st.composite
def ranges(draw: st.DrawFn) -> Test:
    """Numbers without quotes compare numbers, texts compare texts."""
    if draw(st.booleans()):
        low, high = sorted(draw(st.tuples(st.sampled_from(NUMBERS), st.sampled_from(NUMBERS))))
        first, last, kind = f"{low!r}".replace("e+", "e"), f"{high!r}".replace("e+", "e"), (int, float)
    else:
        low, high = sorted(draw(st.tuples(st.sampled_from(WORDS), st.sampled_from(WORDS))))
        first, last, kind = quoted(low), quoted(high), (str, str)
    said = draw(st.sampled_from(["a..b", "a..", "..b", ">a", ">=a", "<b", "<=b"]))
    meanings: dict[str, Callable[[Any], bool]] = {
        "a..b": lambda value: low <= value <= high,
        "a..": lambda value: value >= low,
        "..b": lambda value: value <= high,
        ">a": lambda value: value > low,
        ">=a": lambda value: value >= low,
        "<b": lambda value: value < high,
        "<=b": lambda value: value <= high,
    }
    text = said.replace("a", "\0").replace("b", last).replace("\0", first)
    return text, lambda value: isinstance(value, kind) and meanings[said](value)


def column(name: str, of: Callable[[RunInfo], Any], test: Test, negated: bool) -> Said:
    def meets(run: Found) -> bool:
        value = of(run.info)
        return (value is not None and test[1](value)) is not negated

    return Said(f"{'-' if negated else ''}{name}:{test[0]}", meets)


@st.composite
def column_terms(draw: st.DrawFn) -> Said:
    """A condition on what every run has."""
    name, of, test = draw(st.one_of(states(), texts(), priorities(), instants()))
    return column(name, of, test, draw(st.booleans()))


@st.composite
def states(draw: st.DrawFn) -> tuple[str, Any, Test]:
    wanted = draw(st.lists(st.sampled_from(["succeeded", "failed", "ready", "scheduled", "running"]), min_size=1))
    some = (",".join(wanted), lambda value: str(value) in wanted)
    return "state", lambda info: info.state, draw(st.sampled_from([some, ("*", lambda value: True)]))


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, Any, Test]:
    name, of = draw(
        st.sampled_from(
            [("id", lambda info: info.id), ("workflow", lambda info: info.workflow), ("worker",
             lambda info: info.worker),
             ("reason", lambda info: info.reason), ("forked", lambda info: info.forked_from)]
        )
    )  # fmt: skip
    words = draw(st.lists(st.sampled_from(["a0", "a3", "b1", "checkout", "check-in", "nobody", "z z"]), min_size=1))
    start = draw(st.sampled_from(["a", "b1", "check", "zz", ""]))
    tests: list[Test] = [
        (",".join(map(quoted, words)), lambda value: value in words),
        (f"{quoted(start)}*", lambda value: value.startswith(start)),
        ("*", lambda value: True),
    ]
    return name, of, draw(st.sampled_from(tests))


@st.composite
def priorities(draw: st.DrawFn) -> tuple[str, Any, Test]:
    low, high = sorted(draw(st.tuples(st.integers(-2, 3), st.integers(-2, 3))))
    tests: list[Test] = [
        (f"{low},{high}", lambda value: value in {low, high}),
        (f"{low}..{high}", lambda value: low <= value <= high),
        (f">{low}", lambda value: value > low),
        (f"<={high}.5", lambda value: value <= high + 0.5 if high >= 0 else value <= high - 0.5),
        (f"{float(low)}" if low >= 0 else f"{low}.0", lambda value: value == low),
    ]
    return "priority", lambda info: info.priority, draw(st.sampled_from(tests))


@st.composite
def instants(draw: st.DrawFn) -> tuple[str, Any, Test]:
    """A date is a whole day, a time to the minute a whole minute, all in UTC unless it says otherwise."""
    name = draw(st.sampled_from(["created", "started", "ended", "due"]))
    first = draw(st.sampled_from([DAY + timedelta(hours=17 * n) for n in range(RUNS)]))
    unit, text = draw(
        st.sampled_from(
            [(timedelta(days=1), "%Y-%m-%d"), (timedelta(minutes=1), "%Y-%m-%dT%H:%M"), (timedelta(seconds=1),
             "%Y-%m-%dT%H:%M:%SZ"),
             (timedelta(seconds=1), "%Y-%m-%dT%H:%M:%S+00:00"), (timedelta(microseconds=1), "%Y-%m-%dT%H:%M:%S.%f")]
        )
    )  # fmt: skip
    word = first.strftime(text)
    begins = {"%Y-%m-%d": first.replace(hour=0, minute=0, second=0), "%Y-%m-%dT%H:%M": first.replace(second=0)}
    begin = begins.get(text, first)
    end = begin + unit
    tests: list[Test] = [
        (word, lambda value: begin <= value < end),
        (f">{word}", lambda value: value >= end),
        (f">={word}", lambda value: value >= begin),
        (f"<{word}", lambda value: value < begin),
        (f"<={word}", lambda value: value < end),
        (f"..{word}", lambda value: value < end),
        (f"{word}..", lambda value: value >= begin),
        ("*", lambda value: True),
        ("<200000h" if name != "due" else ">0s", lambda value: True),
        (">200000h" if name != "due" else "<1d", lambda value: False),
    ]
    return name, lambda info: getattr(info, f"{name}_at"), draw(st.sampled_from(tests))


SPACES = st.sampled_from([" ", "  ", "\t", "\n", " \u00a0 "])


@examples(150, share=2.0)
@given(st.lists(attribute_terms() | column_terms(), max_size=4), SPACES, st.integers(1, 15))
def test_a_query_finds_what_a_plain_reading_finds(shop: Shop, terms: list[Said], space: str, limit: int) -> None:
    client, runs = shop.client, shop.runs
    where = space.join(term.text for term in terms)
    by_number = any(term.by_number for term in terms)
    meeting = [(n, run.info) for n, run in enumerate(runs) if all(term.meets(run) for term in terms)]
    meeting.sort(key=lambda pair: pair[0] if by_number else (pair[1].created_at, pair[0]), reverse=True)
    wanted = [info.id for _, info in meeting]
    pages: list[str] = []
    after: str | None = None
    while True:
        page = client.list(where=where, limit=limit, after=after)
        pages += [info.id for info in page]
        after = page.next
        if after is None:
            break
    assert pages == wanted, where
    assert [info.id for info in client.iterate(where=where)] == wanted, where
    assert client.count(where=where) == len(wanted), where
    assert client.count(where=where, limit=limit) == min(limit, len(wanted)), where


PIECES = st.sampled_from(
    [*'ab059-@:.,*<>="\\ \t()é\u00a0', "..", ">=", "state:", "created:", "k:", "@k:", "odd key", "2h", "1e5", "due:",
     "priority:",
     "id:", "workflow:", "failed", "2026-03-01", "forked:", "9" * 30, "1e999", "\U0010ffff", "' or 1=1 --", "-", '"']
)  # fmt: skip


@examples(150, share=2.0)
@given(st.lists(PIECES, max_size=12).map("".join) | ANY_TEXT | st.sampled_from(NAMES))
def test_any_text_is_answered_or_shows_its_place(shop: Shop, text: str) -> None:
    client = shop.client
    error = fault(UsageError, lambda: client.list(where=text))
    if isinstance(error, QueryError):
        assert 0 <= error.at <= len(text)
        assert error.hint
        for ask in (lambda: client.count(where=text), lambda: list(client.iterate(where=text))):
            assert str(fault(QueryError, ask)) == str(error)
    elif error is not None:
        assert len(text) > 2_000, error
    else:
        found = client.list(where=text, limit=RUNS * 2)
        assert client.count(where=text) == len(found)
        assert [info.id for info in client.iterate(where=text)] == [info.id for info in found]


@examples(50)
@given(
    ANY_TEXT | st.from_regex(r"[0-9a-f]{1,16}-[0-9a-f]{1,16}-[0-9a-f]{1,16}", fullmatch=True),
    st.sampled_from(["", "k:*", "created:>1h"]),
)
def test_any_cursor_continues_or_is_refused(shop: Shop, cursor: str, where: str) -> None:
    client, runs = shop.client, shop.runs
    error = fault(UsageError, lambda: client.list(where=where, after=cursor))
    if error is None:
        page = client.list(where=where, after=cursor, limit=RUNS)
        assert {info.id for info in page} <= {run.info.id for run in runs}
    else:
        assert "cursor" in str(error)
