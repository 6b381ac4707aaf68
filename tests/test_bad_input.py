"""Hostile values at every public entry: each gets an error of ours that names value and place, and writes nothing."""

from __future__ import annotations

import asyncio
import json
import math
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast import Client, Holdfast, HoldfastError, NotOpen, Run, Start, UsageError, step, workflow

PATIENCE_SECONDS = 5.0
HUGE = 10**5000
"""Too many digits for Python itself to print."""
HALF = "half a character \ud800"


class Unprintable:
    """Its `repr` fails, and so would a message with it."""

    def __repr__(self) -> str:
        raise ZeroDivisionError("repr")


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


@step
async def echo(value: Any) -> Any:
    return value


@workflow
async def flow(value: Any = None) -> Any:
    return await echo(value)


@workflow
async def typed(number: int = 0) -> int:
    return number


Call = Callable[[Client, Run[Any]], Awaitable[Any]]
IDS: list[Any] = ["", "\x00", "a\x00b", HALF, "a\nb", "x" * 201, 7, None, b"r", HUGE, math.nan, ["r"], Unprintable()]
NUMBERS: list[Any] = ["1", -1, math.nan, -math.inf, HUGE, -HUGE, True, [1], Unprintable()]
SECONDS: list[Any] = [*NUMBERS, math.inf, timedelta.max, timedelta.min, timedelta(days=-1)]
INSTANTS: list[Any] = [0, "2030-01-01", datetime(2030, 1, 1), math.nan, HUGE, timedelta(1), Unprintable()]  # noqa: DTZ001
ATTRIBUTES: list[Any] = [
    7,
    0,
    [],
    "text",
    [("a", 1)],
    {7: 1},
    {"": 1},
    {None: 1},
    {HALF: 1},
    {"a\x00": 1},
    {"a": HALF},
    {"a": math.nan},
    {"a": math.inf},
    {"a": HUGE},
    {"a": 2**63},
    {"a": None},
    {"a": nested(3)},
    {"a": b"x"},
    {"a": Unprintable()},
    {"a": "x" * 1001},
    {str(n): n for n in range(65)},
]
ARGUMENTS: list[Any] = [
    math.nan,
    math.inf,
    {"deep": [1.0, -math.inf]},
    HUGE,
    HALF,
    {HALF: 1},
    {(1, 2): 3},
    object(),
    Unprintable(),
    nested(600),
    nested(10_000),
    lambda: None,
    open,
    {"x": {1, "a", None, object()}},
    "x" * 2_000_000,
]


def starting() -> Iterator[tuple[str, Call]]:
    for value in [value for value in IDS if value is not None]:
        yield f"start(id={short(value)})", lambda c, r, value=value: c.start(flow, id=value)
    for value in ["ignore", "", None, 7, [], HALF, Unprintable()]:
        yield f"start(on_conflict={short(value)})", lambda c, r, value=value: c.start(flow, on_conflict=value)
    for value in [*NUMBERS, 1.5, None, 10**7]:
        if value != -1:
            yield f"start(priority={short(value)})", lambda c, r, value=value: c.start(flow, priority=value)
    for value in SECONDS:
        yield f"start(delay={short(value)})", lambda c, r, value=value: c.start(flow, delay=value)
        yield f"start(timeout={short(value)})", lambda c, r, value=value: c.start(flow, timeout=value)
    for value in INSTANTS:
        yield f"start(at={short(value)})", lambda c, r, value=value: c.start(flow, at=value)
    for value in ATTRIBUTES:
        yield f"start(attributes={short(value)})", lambda c, r, value=value: c.start(flow, attributes=value)
    for value in ARGUMENTS:
        yield f"start(value={short(value)})", lambda c, r, value=value: c.start(flow, value)
        yield f"run(value={short(value)})", lambda c, r, value=value: c.run("flow", value=value)
        yield f"start_many({short(value)})", lambda c, r, value=value: c.start_many([Start(flow), Start(flow, value)])
    for value in ["1", None, 1.5, [1], HUGE]:
        yield f"start(number={short(value)})", lambda c, r, value=value: c.start(typed, value)
    for value in [None, 7, len, echo, "", "fllow", HALF, "x\x00", "x" * 300, "a b", b"flow", Unprintable(), HUGE]:
        yield f"start({short(value)})", lambda c, r, value=value: c.start(value)
    for value in [None, 7, [1], [flow], [None], "flow", [Start(len)], Unprintable()]:  # type: ignore[arg-type]
        yield f"start_many({short(value)})", lambda c, r, value=value: c.start_many(value)


def reading() -> Iterator[tuple[str, Call]]:
    conditions: list[tuple[str, list[Any]]] = [
        ("state", ["runing", 7, ["ready", 7], HALF, [HALF], [["ready"]], True, Unprintable(), HUGE]),
        ("workflow", [7, len, HALF, b"flow", Unprintable(), HUGE]),
        ("attributes", ATTRIBUTES),
        ("id_prefix", [7, HALF, b"r", Unprintable(), HUGE]),
        ("created_from", INSTANTS),
        ("created_before", INSTANTS),
    ]
    for name, values in conditions:
        for value in values:
            yield f"list({name}={short(value)})", lambda c, r, n=name, v=value: c.list(**{n: v})
            yield f"count({name}={short(value)})", lambda c, r, n=name, v=value: c.count(**{n: v})
    for value in [*NUMBERS, 0, 10_001, None]:
        yield f"list(limit={short(value)})", lambda c, r, value=value: c.list(limit=value)
    for value in [*NUMBERS, math.inf]:
        yield f"result({short(value)})", lambda c, r, value=value: r.result(value)
    for value in IDS:
        yield f"get({short(value)})", lambda c, r, value=value: c.get(value).describe()


def forking() -> Iterator[tuple[str, Call]]:
    for value in [*NUMBERS, 0, None, 10**12, 2**64]:
        yield f"fork({short(value)})", lambda c, r, value=value: r.fork(value)
    for value in [value for value in IDS if value is not None]:
        yield f"fork(id={short(value)})", lambda c, r, value=value: r.fork(1, id=value)
    for value in ARGUMENTS:
        yield f"fork(result={short(value)})", lambda c, r, value=value: r.fork(1, result=value)
        yield f"fork(args={short(value)})", lambda c, r, value=value: r.fork(1, args=[value])
    for value in [7, "text", HALF, Unprintable(), {1}, math.nan]:
        yield f"fork(args={short(value)})!", lambda c, r, value=value: r.fork(1, args=value)
    for value in [7, "text", [1], {7: 1}, {"colour": 1}, Unprintable()]:
        yield f"fork(kwargs={short(value)})!", lambda c, r, value=value: r.fork(1, kwargs=value)


def pruning() -> Iterator[tuple[str, Call]]:
    conditions: list[tuple[str, list[Any]]] = [
        ("older_than", SECONDS),
        ("states", ["running", "", 7, ["failed", 7], HALF, Unprintable(), HUGE]),
        ("workflow", [7, len, HALF, b"flow", Unprintable(), HUGE]),
        ("limit", [*(value for value in NUMBERS if value is not HUGE), 0, 1.5]),
    ]
    for name, values in conditions:
        for value in values:
            options = {"older_than": 0, name: value}
            yield f"prune({name}={short(value)})", lambda c, r, options=options: c.prune(**options)


def short(value: object) -> str:
    try:
        return repr(value)[:30]
    except Exception as error:
        return type(error).__name__


@pytest.mark.parametrize("make", [starting, reading, forking, pruning], ids=lambda make: make.__name__)
@pytest.mark.parametrize("kind", ["app", "client"])
def test_what_cannot_be_meant_is_refused_in_our_words_and_writes_nothing(
    make: Callable[[], Iterator[tuple[str, Call]]], kind: str, tmp_path: Path
) -> None:
    wrong: list[str] = []

    async def refused(client: Client, run: Run[Any], name: str, call: Call) -> None:
        try:
            answer = await asyncio.wait_for(call(client, run), PATIENCE_SECONDS)
            wrong.append(f"{name} was accepted: {answer!r:.80}")
        except HoldfastError as error:
            if not str(error) or len(str(error)) > 1_000:
                wrong.append(f"{name}: {len(str(error))} characters: {str(error)[:100]}")
        except BaseException as error:
            wrong.append(f"{name}: {type(error).__name__}: {str(error)[:100]}")

    async def main() -> None:
        app = Holdfast(f"sqlite:///{tmp_path / 'a.db'}")
        app.include(flow, typed)
        async with app:
            run = await app.start(flow, 1, id="r")
            await run.result()
            before = await rows(app)
            async with app.client() as client:
                used = app if kind == "app" else client
                for name, call in make():
                    await refused(used, used.get("r"), name, call)
            assert wrong == []
            assert await rows(app) == before
            assert await app.run(flow, "still alive") == "still alive"

    asyncio.run(main())


async def rows(app: Holdfast) -> list[str]:
    """Every row that a call could have left: runs and entries. (Workers renew their leases meanwhile.)"""
    await app._engine.journal.settle()
    with closing(sqlite3.connect(f"file:{app._parsed.path}?mode=ro", uri=True)) as database:
        tables = ["holdfast_runs", "holdfast_history", "holdfast_attributes"]
        return [repr(row) for table in tables for row in database.execute(f"select * from {table} order by 1, 2")]


STRANGE = [
    "order'17",
    'order"17',
    "a/b/../c",
    "%",
    "_",
    "*",
    "[a-z]*",
    "'; drop table holdfast_runs; --",
    "$.id",
    "a\\b",
    "ünïcødé 漢字 𝄞",
    "-rf",
    "null",
    "r ",
    "x" * 200,
]


def test_strange_ids_and_values_are_only_text(tmp_path: Path) -> None:
    async def main() -> None:
        app = Holdfast(f"sqlite:///{tmp_path / 'a.db'}")
        app.include(flow, typed)
        async with app:
            for text in STRANGE:
                run = await app.start(flow, text, id=text, attributes={text: text})
                assert await run.result() == text
            for text in STRANGE:
                assert [info.id for info in await app.list(attributes={text: text})] == [text]
                prefixed = {info.id for info in await app.list(id_prefix=text)}
                assert prefixed == {other for other in STRANGE if other.startswith(text)}
                assert await app.count(workflow=text) == 0
                assert (await app.get(text).fork(1, id=f"f{text}"[:200])).id
                assert await app.get(text).cancel() == "succeeded"
            assert await app.count(id_prefix="a\x00") == 0

    asyncio.run(main())


URIS: list[Any] = [
    7,
    b"sqlite://",
    HUGE,
    Unprintable(),
    "",
    "orders.db",
    "sqlite:/x",
    "sqlite:///",
    "sqlite:///a\x00b",
    "sqlite:///a%00b",
    "mysql://x",
    "sqlite:///a.db?synchronous=off",
    "sqlite:///a.db?colour=red",
    "sqlite://host/a.db",
    f"sqlite:///{HALF}.db",
]


@pytest.mark.parametrize("uri", URIS, ids=range(len(URIS)))
def test_a_uri_that_names_no_database_is_refused_when_it_is_given(uri: Any) -> None:
    with pytest.raises(HoldfastError) as refused:
        Holdfast(uri)
    assert str(refused.value)


@pytest.mark.parametrize("source", [7, None, len, echo, "flow", Unprintable(), json])
def test_only_workflows_and_modules_are_included(source: Any) -> None:
    with pytest.raises(UsageError):
        Holdfast("sqlite://").include(source)


@pytest.mark.parametrize("name", ["", "a b", "a\x00", HALF, "x" * 201, 7, b"flow", Unprintable()])
def test_a_name_that_cannot_be_stored_is_refused_when_it_is_given(name: Any) -> None:
    async def function() -> None: ...

    with pytest.raises(UsageError):
        workflow(name=name)(function)
    with pytest.raises(UsageError):
        step(name=name)(function)


def test_a_facade_refuses_the_same_values_and_says_when_it_is_not_open() -> None:
    app = Holdfast("sqlite://")
    app.include(flow)
    client = app.sync(worker=True)
    with pytest.raises(NotOpen):
        client.start(flow)
    with client:
        run = client.start(flow, 1)
        assert run.result() == 1
        for call in (
            lambda: client.start(flow, math.nan),
            lambda: client.run(flow, nested(10_000)),
            lambda: client.start_many(7),  # type: ignore[arg-type]
            lambda: client.get(HALF),
            lambda: client.list(limit=HUGE),
            lambda: client.count(state=7),
            lambda: run.result(math.nan),
            lambda: run.fork(HUGE),
        ):
            with pytest.raises(UsageError):
                call()
        assert client.count() == 1
    for call in (client.stats, client.list, client.count, run.result, run.describe, run.history, run.cancel):
        with pytest.raises(NotOpen):
            call()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_any_value_comes_back_as_it_was_or_is_refused() -> None:
    app = Holdfast("sqlite://")
    app.include(flow)
    with app.sync(worker=True) as client:

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(json_values, st.text(min_size=1, max_size=20))
        def check(value: Any, run_id: str) -> None:
            before = client.count()
            try:
                run = client.start(flow, value, id=run_id, on_conflict="raise", attributes={run_id: run_id})
            except UsageError:
                assert client.count() == before
            else:
                assert run.result() == value
                assert run.describe().input == {"value": value}

        check()
