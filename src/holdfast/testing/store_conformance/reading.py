"""Reading, text, closing, and what other processes see."""

from __future__ import annotations

import asyncio
from typing import cast

from holdfast._model.records import (
    Buried,
    Record,
    Started,
    WorkerBuried,
)
from holdfast._model.search import Between, Condition, Place, Prefix, RunQuery
from holdfast._store.port import RecordRefused
from holdfast.testing.store_conformance.bench import (
    FAR,
    OTHER,
    WORKER,
    Bench,
    Check,
    S,
    ended,
    entry,
    expect,
    having,
    search,
    started,
)


async def listings_filter_and_page(bench: Bench) -> None:
    """Newest first; every condition narrows; attribute values match by type."""
    pairs: tuple[tuple[tuple[str, str | int | float], ...], ...]
    pairs = ((("k", "1"),), (("k", 1),), (("k", 1.5), ("z", "é")), ())
    for place in range(4):
        await bench.start(
            f"run{place}", S.READY, workflow=f"flow{place % 2}", created_at=10 + place, pairs=pairs[place]
        )
    queries = {
        search(): "3210",
        search("workflow:flow1"): "31",
        having(("k", 1)): "1",
        having(("k", "1")): "0",
        having(("k", 1.5), ("z", "é")): "2",
        having(("k", 1), ("z", "é")): "",
        search("id:run2*"): "2",
        search("id:RUN*"): "",
        search("state:ready,failed"): "3210",
        search("state:failed"): "",
        RunQuery((Condition("created_at", Between(11, 13, high_included=False)),)): "21",
    }
    for query, wanted in queries.items():
        found = await bench.store.list_runs(query, limit=10)
        expect("".join(row.id[-1] for row in found), wanted, repr(query))
        expect(await bench.store.count_runs(query), len(wanted), f"count of {query!r}")
    newest = await bench.store.list_runs(search(), limit=2)
    rest = await bench.store.list_runs(search(after=Place(newest[-1].created_at, newest[-1].number)), limit=10)
    expect([row.id for row in (*newest, *rest)], ["run3", "run2", "run1", "run0"], "two pages")
    counts = {(c.workflow, c.state): c.runs for c in await bench.store.state_counts()}
    expect(counts, {("flow0", "ready"): 2, ("flow1", "ready"): 2}, "counts by state")
    await bench.put("end", S.FAILED)
    ends = await bench.store.ended_among(["run1", "end", "nobody"])
    expect(ends, [("end", "failed"), ("nobody", None)], "those that ended or are gone")
    expect(await bench.store.detail("nobody"), None, "no such run")


async def text_comes_back_as_it_was(bench: Bench) -> None:
    """Unicode beyond the first plane, control characters, NUL, quotes, and a payload of megabytes."""
    texts = ('"é𝄞日本\u202e"', '"a\x00b"', '"it\'s \\" $1 ? :x --"', f'"{"x" * 5_000_000}"')
    for text in texts:
        run_id = f"id{text[:12]}"
        number = await bench.start(run_id, S.READY, input=text, attributes=text)
        (row,) = await bench.claim()
        expect((row.id, row.input), (run_id, text), "id and input")
        await bench.submit(entry(number, 1, 1, input=text, output=text, name=text[:20]), ended(number, output=text))
        detail = await bench.row(run_id)
        expect((detail.output, detail.attributes), (text, text), "output")
        (found,) = await bench.entries(number)
        expect((found.output, found.input, found.name), (text, text, text[:20]), "entry")
        by_prefix = await bench.store.list_runs(RunQuery((Condition("id", Prefix(run_id)),)), limit=5)
        expect([row.id for row in by_prefix], [run_id], "by prefix")


async def what_cannot_be_stored_is_refused_alone(bench: Bench) -> None:
    """A record with a value that no column takes is refused as a record, not taken for a failing database."""
    number = await bench.start("a")
    bad: tuple[Record, ...] = (
        entry(number, 1, 1, output="\ud800"),
        entry(number, 1, 1, kind="nonsense"),
        entry(number + 1000, 1, 1),
        started("b", seed=2**70),
        started("b", S.READY, pairs=(("k", float("nan")),)),
        started("b", S.READY, pairs=(("k", 1), ("k", 1))),
    )
    for record in bad:
        expect(type(await bench.refused(record)), RecordRefused, repr(record)[:120])
    expect(await bench.store.detail("b"), None, "no such start")
    await bench.submit(entry(number, 1, 1))


async def closing_finishes_what_was_submitted(bench: Bench) -> None:
    """Batches that were submitted before `close` are answered, and `close` may be called twice."""
    futures = [bench.post([started(f"r{i}", S.READY)]) for i in range(20)]
    await bench.store.close()
    answers = await asyncio.gather(*futures)
    expect([cast("Started", answer[0]).created for answer in answers], [True] * 20, "answers")
    await bench.store.close()


async def what_was_acknowledged_is_there_when_opened_again(bench: Bench) -> None:
    """Runs, histories, attributes and workers survive closing."""
    number = await bench.start("a", pairs=(("k", "v"),))
    await bench.submit(entry(number, 1, 1), entry(number, 2, kind="timer", name="timer", due_at=9))
    before, history = await bench.row("a"), await bench.entries(number)
    await bench.store.close()
    bench.store = bench.make()
    await bench.store.open(on_change=bench.changes.set)
    expect((await bench.row("a"), await bench.entries(number)), (before, history), "the run")
    expect(await bench.store.dead_workers(now=3), [WORKER, OTHER], "its workers' process let go of them: both are dead")
    expect(await bench.submit(WorkerBuried(WORKER, 9)), Buried(1, ()), "orphans")
    await bench.store.buried(WORKER)


async def another_connection_is_noticed(bench: Bench) -> None:
    """Somebody else's commit is a hint within moments, and their live worker is not dead."""
    second = Bench(bench.make(), bench.make)
    await second.store.open(on_change=second.changes.set)
    try:
        await second.store.register_worker("w3", now=1, lease_until=FAR)
        expect(await bench.store.dead_workers(now=2), [], "nobody is dead")
        expect(await bench.store.dead_workers(now=FAR + 1), ["w3"], "until its lease lapses")
        second.store.watch(True)
        await asyncio.sleep(0)
        second.changes.clear()
        await bench.start("a", S.READY)
        await asyncio.wait_for(second.changes.wait(), 30)
        expect([row.id for row in await second.claim(worker="w3")], ["a"], "claimed by the other")
        expect(await bench.claim(), [], "by one only")
    finally:
        await second.store.close()


CHECKS: tuple[Check, ...] = (
    listings_filter_and_page,
    text_comes_back_as_it_was,
    what_cannot_be_stored_is_refused_alone,
    closing_finishes_what_was_submitted,
)
SHARED_CHECKS: tuple[Check, ...] = (
    what_was_acknowledged_is_there_when_opened_again,
    another_connection_is_noticed,
)
