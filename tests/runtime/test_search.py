"""Finding runs from Python: queries, pages, counts, attributes and statistics."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.kit import app_of, opened, play

from holdfast import Client, NotOpen, QueryError, Start, UsageError, sleep, workflow


@workflow
async def flow(number: int) -> int:
    if number < 0:
        raise ValueError("negative")
    return number


@workflow
async def sleeper() -> None:
    await sleep(86_400)


async def ended(client: Client, *runs: Any) -> None:
    for run in await client.start_many(runs):
        await asyncio.gather(run.result(), return_exceptions=True)


async def ids(client: Client, where: str, **options: Any) -> list[str]:
    return [run.id for run in await client.list(where=where, **options)]


def test_attributes_are_found_nested_in_lists_and_by_type() -> None:
    order = {"customer": 42, "address": {"city": "Berlin", "zip": "10115"}, "tags": ["new", "eu"], "vip": True}
    other = {"customer": "42", "address": {"city": "Bonn"}, "tags": [], "vip": False, "rest": {}}

    async def main() -> None:
        async with opened(flow) as app:
            await ended(app, Start(flow, 1, id="a", attributes=order), Start(flow, 2, id="b", attributes=other))
            assert (await app.get("a").describe()).attributes == order
            assert (await app.get("b").describe()).attributes == other
            assert await ids(app, "customer:42") == ["b", "a"]
            assert await ids(app, 'customer:"42"') == ["b"]
            assert await ids(app, "address.city:B* -address.city:Bonn") == ["a"]
            assert await ids(app, "address.zip:>1") == []
            assert await ids(app, 'address.zip:>"1"') == ["a"]
            assert await ids(app, "tags:eu,us") == ["a"]
            assert await ids(app, "-tags:* vip:false") == ["b"]
            for attributes in (
                {"tags": ["eu", "new"]},
                {"address": {"city": "Berlin"}},
                {"customer": 42},
                {"vip": True},
            ):
                assert [run.id for run in await app.list(attributes=attributes)] == ["a"]
                assert await app.count(attributes=attributes, where="state:succeeded") == 1
            fork = await app.get("a").fork(1, id="c")
            await fork.result()
            assert await ids(app, "forked:a tags:eu") == ["c"]

    play(main())


def test_a_list_with_equal_items_is_stored_once() -> None:
    async def main() -> None:
        async with opened(flow) as app:
            await ended(
                app, Start(flow, 1, id="a", attributes={"n": [1, 1.0, True, "1"], "n.m": 1, "x": {"y": 1}, "x.y": 1})
            )
            assert await ids(app, "n:1 x.y:1") == ["a"]

    play(main())


def test_keys_that_no_run_has_are_errors_unless_they_are_meant() -> None:
    async def main() -> None:
        async with opened(flow) as app:
            with pytest.raises(QueryError, match="neither a key nor an attribute") as raised:
                await app.list(where="customer:42")
            assert raised.value.at == 0
            assert await ids(app, "@customer:42") == []
            await ended(app, Start(flow, 1, id="a", attributes={"customer": 1, "state": "open"}))
            assert await ids(app, "customer:42") == []
            with pytest.raises(QueryError, match="did you mean 'customer'"):
                await app.count(where="state:failed custmer:42")
            with pytest.raises(QueryError, match="did you mean 'workflow'"):
                [run async for run in app.iterate(where="workflw:x")]
            assert await ids(app, "@state:open state:succeeded") == ["a"]

    play(main())


def test_pages_lead_to_each_other_and_keep_the_meaning_of_durations() -> None:
    async def main() -> None:
        async with opened(flow) as app:
            await ended(app, *(Start(flow, n, id=f"r{n}", attributes={"k": n % 2}) for n in range(9)))
            for where in ("", "state:succeeded", "k:0,1", "created:<1h", "k:*"):
                first = await app.list(where=where, limit=4)
                await ended(app, Start(flow, 1, id=f"late {where}", attributes={"k": 1}))
                second = await app.list(where=where, limit=4, after=first.next)
                third = await app.list(where=where, limit=40, after=second.next)
                everything = [run.id for run in (*first, *second, *third)]
                assert len(first) == len(second) == 4
                assert third.next is None
                assert len(set(everything)) == len(everything)
                assert {f"r{n}" for n in range(9)} <= set(everything)
            assert first.next is not None
            seen_at = int(first.next.split("-")[0], 16)
            aged = await app.list(where="created:<1h", after=f"{seen_at + 2 * 3_600_000_000:x}-{2**50:x}-{2**50:x}")
            assert aged == []  # asked for two hours later, every run is older than one

    play(main())


def test_iterate_reads_page_after_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast._search.ITERATE_PAGE", 3)

    async def main() -> None:
        async with opened(flow) as app:
            await ended(app, *(Start(flow, n, id=f"r{n}") for n in range(8)))
            assert [run.id async for run in app.iterate()] == [f"r{n}" for n in range(7, -1, -1)]
            assert [run.id async for run in app.iterate(where="id:r1,r5", workflow=flow)] == ["r5", "r1"]
            runs = app.iterate(state="succeeded")
            assert (await anext(runs)).id == "r7"
            left = runs
        with pytest.raises(NotOpen):
            [run async for run in left]

    play(main())


def test_the_blocking_facade_searches_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast._search.ITERATE_PAGE", 2)
    with app_of(flow, at=tmp_path / "a.db").sync(worker=True) as client:
        for run in client.start_many([Start(flow, n, id=f"r{n}", attributes={"k": n}) for n in range(5)]):
            run.result()
        page = client.list(where="k:>1", limit=2)
        assert [run.id for run in page] == ["r4", "r3"]
        assert [run.id for run in client.list(where="k:>1", limit=2, after=page.next)] == ["r2"]
        assert [run.id for run in client.iterate(where="k:<4")] == ["r3", "r2", "r1", "r0"]
        assert client.count(where="k:*", limit=3) == 3
        assert client.stats(window=timedelta(minutes=1)).ended[0].succeeded == 5
        with pytest.raises(QueryError):
            next(client.iterate(where="state:"))


def test_counts_end_at_their_limit() -> None:
    async def main() -> None:
        async with opened(flow) as app:
            await ended(app, *(Start(flow, n) for n in range(6)))
            assert [await app.count(limit=limit) for limit in (None, 1, 6, 7)] == [6, 1, 6, 6]
            assert await app.count(where="state:failed", limit=3) == 0
            assert await app.count(state=[]) == 0

    play(main())


def test_keywords_and_query_are_joined() -> None:
    async def main() -> None:
        async with opened(flow) as app:
            await ended(app, *(Start(flow, n, id=f"r{n}") for n in (1, 2, -3)))
            now = datetime.now(UTC)
            assert await ids(app, "state:succeeded", id_prefix="r", state=["succeeded", "failed"]) == ["r2", "r1"]
            assert await ids(app, "-id:r1", created_from=now - timedelta(hours=1), workflow=flow) == ["r-3", "r2"]
            assert await ids(app, "", created_before=now - timedelta(hours=1)) == []
            assert await ids(app, "created:>1h") == []
            assert await ids(app, "started:<1h ended:<1h state:failed") == ["r-3"]

    play(main())


def test_statistics_tell_how_it_went_lately() -> None:
    async def main() -> None:
        async with opened(flow, sleeper) as app:
            await ended(app, *(Start(flow, n) for n in (1, 2, 3, -1)))
            await (await app.start(sleeper, id="s")).cancel()
            await app.start(sleeper)
            stats = await app.stats(window=60)
            assert stats.window == timedelta(minutes=1)
            went = {row.workflow: row for row in stats.ended}
            row = went["flow"]
            assert (row.ended, row.succeeded, row.failed, row.cancelled, row.sampled) == (4, 3, 1, 0, 4)
            assert row.failed_share == 0.25
            assert row.per_second == 4 / 60
            assert row.average is not None
            assert row.p50 is not None
            assert row.p95 is not None
            assert timedelta(0) <= row.p50 <= row.p95 < timedelta(minutes=1)
            assert (await app.stats(window=timedelta(microseconds=1))).ended == ()
            assert (await app.stats()).count("succeeded") == 3

    play(main())


def test_a_closed_app_finds_nothing() -> None:
    app = app_of(flow)
    for call in (app.list, app.count, app.stats):
        with pytest.raises(NotOpen):
            asyncio.run(call())

    async def main() -> None:
        with pytest.raises(NotOpen):
            [run async for run in app.iterate()]
        with pytest.raises(UsageError):
            [run async for run in app.iterate(limit=5)]

    asyncio.run(main())
