"""Searching: every kind of condition, alone and together, against a plain reading of the same rows."""

from __future__ import annotations

import random
from typing import Any

from holdfast._model.records import PauseRequested
from holdfast._model.search import Between, Condition, Exists, OneOf, Place, Prefix, RunQuery, Scalar, Test
from holdfast.testing.store_conformance.bench import FAR, WORKER, Bench, Check, S, ended, expect, search, started

RUNS = 60
ROUNDS = 400
PAGE = 7
_STATES = (S.SCHEDULED, S.READY, S.RUNNING, S.WAITING, S.SUCCEEDED, S.FAILED, S.CANCELLED, S.PAUSED, S.BLOCKED)
_VALUES: tuple[Scalar, ...] = (0, 1, -3, 2.5, 10, "1", "10", "", "Anna", "Anna Lee", "annex", "é", "\U0010ffff", "z")
_LIKELY = (*_VALUES, *("Anna", 1) * 8)
"""Some values have many runs, most have few: stores may answer these in other ways."""
_TEXTS = tuple(value for value in _VALUES if isinstance(value, str))
_NUMBERS = tuple(value for value in _VALUES if not isinstance(value, str))
_KEYS = ("k", "address.city", "odd key")
Rows = list[tuple[Any, list[tuple[str, Scalar]]]]


async def every_search_finds_what_a_plain_reading_finds(bench: Bench) -> None:
    """Random conditions on random runs: lists, pages and counts, in the promised order."""
    chance = random.Random(20260301)
    rows = await _random_runs(bench, chance)
    for _ in range(ROUNDS):
        conditions = tuple(_random_condition(chance) for _ in range(chance.choice((1, 1, 2, 3))))
        await _compare(bench, RunQuery(conditions, as_written=chance.random() < 0.1), rows)
    await _compare(bench, RunQuery(as_written=True), rows)


async def words_of_a_query_find_runs(bench: Bench) -> None:
    """The language from end to end: types, ranges, prefixes, lists, negation, instants and durations."""
    pairs: dict[str, tuple[tuple[str, Scalar], ...]] = {
        "a1": (("customer", 42), ("vip", 1), ("city", "Berlin")),
        "a2": (("customer", "42"), ("vip", 0), ("city", "Bern"), ("tags", "x"), ("tags", "y")),
        "b3": (("customer", 43.5), ("vip", "true")),
        "b4": (),
    }
    day = 86_400_000_000
    for place, (run_id, values) in enumerate(pairs.items()):
        await bench.start(run_id, S.READY, pairs=values, created_at=place * day, priority=place)
    queries = {
        "customer:42": "a2 a1",
        'customer:"42"': "a2",
        "customer:42..44": "b3 a1",
        "customer:>42": "b3",
        "customer:*": "b3 a2 a1",
        "-customer:*": "b4",
        "-customer:42": "b4 b3",
        "vip:true": "b3 a1",
        "vip:false": "a2",
        "city:Ber*": "a2 a1",
        "city:>Berlin": "a2",
        "city:..Berlin": "a1",
        "tags:x,y": "a2",
        "tags:x tags:y": "a2",
        "-tags:y": "b4 b3 a1",
        "id:a*": "a2 a1",
        "id:a1,b4": "b4 a1",
        "-id:a*": "b4 b3",
        "priority:>=2": "b4 b3",
        "created:1970-01-02": "a2",
        "created:>1970-01-02": "b4 b3",
        "created:<=1970-01-02": "a2 a1",
        "created:1970-01-02..1970-01-03": "b3 a2",
        "created:<24h": "b4",
        "created:>2d": "a2 a1",
        "created:1d..2d": "b3",
        "-created:<25h": "a2 a1",
        "started:*": "",
        "-started:*": "b4 b3 a2 a1",
        "workflow:fl* state:ready": "b4 b3 a2 a1",
        "-workflow:flow": "",
        "nobody:*": "",
    }
    for text, wanted in queries.items():
        query = search(text, now=3 * day + 1)
        found = await bench.store.list_runs(query, limit=10)
        expect(" ".join(row.id for row in found), wanted, text)
        expect(await bench.store.count_runs(query), len(wanted.split()), f"count of {text}")


async def pages_stay_whole_while_runs_are_started(bench: Bench) -> None:
    """No run comes twice and none is missed, whatever is started between pages and however many share an instant."""
    wanted = [f"r{place}" for place in range(20)]
    for place, run_id in enumerate(wanted):
        await bench.start(run_id, S.READY, created_at=place // 7, pairs=(("k", 1),))
    for text in ("", "k:1", "state:ready id:*", "-id:nobody", "k:*"):
        found: list[str] = []
        after: Place | None = None
        while rows := await bench.store.list_runs(search(text, after=after), limit=3):
            found += [row.id for row in rows]
            after = Place(rows[-1].created_at, rows[-1].number)
            late = f"late {len(found)} of {text}"
            await bench.start(late, S.READY, created_at=after.created_at + 1, pairs=(("k", 1),))
        expect([run_id for run_id in found if run_id in wanted], wanted[::-1], f"pages of {text!r}")
        expect(len(found), len(set(found)), "each once")


async def counts_end_at_their_limit(bench: Bench) -> None:
    """A count is exact up to its limit and no greater."""
    await bench.submit(*(started(f"r{place}", S.READY, pairs=(("k", place % 2),)) for place in range(20)))
    for text, runs in (("", 20), ("k:0", 10), ("state:ready", 20), ("k:*", 20), ("k:0,1", 20), ("state:failed", 0)):
        for limit in (None, 1, 9, 10, 11, 50):
            expect(await bench.store.count_runs(search(text), limit=limit), min(runs, limit or runs), f"{text} {limit}")


async def keys_of_attributes_are_known(bench: Bench) -> None:
    """Keys come sorted, up to a limit, and single ones can be asked for."""
    expect(await bench.store.attribute_keys(limit=5), [], "none yet")
    await bench.start("a", S.READY, pairs=(("b", 1), ("a.b", "x"), ("b", 2), ("é", 1)))
    await bench.start("b", S.READY, pairs=(("b", 3), ("c", 1)))
    expect(await bench.store.attribute_keys(limit=10), ["a.b", "b", "c", "é"], "all keys")
    expect(await bench.store.attribute_keys(limit=2), ["a.b", "b"], "some keys")
    expect(await bench.store.attribute_keys_among(["b", "x", "é"]), ["b", "é"], "those that occur")


async def statistics_of_what_ended(bench: Bench) -> None:
    """Counts by workflow and state since an instant; durations of the latest that succeeded or failed."""
    for place in range(9):
        number = await bench.start(f"r{place}", workflow=f"flow{place % 2}", started_at=100)
        state = S.FAILED if place == 4 else S.CANCELLED if place == 5 else S.SUCCEEDED
        await bench.submit(ended(number, state, ended_at=200 + place))
    never = await bench.start("never", S.READY)
    await bench.start("open", workflow="flow0")
    counts = await bench.store.ended_counts(["flow0", "flow1", "other"], since=202)
    found = sorted((row.workflow, row.state, row.runs) for row in counts)
    wanted = [("flow0", "failed", 1), ("flow0", "succeeded", 3), ("flow1", "cancelled", 1), ("flow1", "succeeded", 2)]
    expect(found, wanted, "counts")
    expect([row.workflow for row in counts], sorted(row.workflow for row in counts), "by workflow")
    expect(await bench.store.durations("flow0", since=202, limit=3), [108, 106, 104], "durations, the latest first")
    expect(await bench.store.durations("flow1", since=0, limit=9), [107, 103, 101], "without what was cancelled")
    expect(await bench.store.durations("flow", since=0, limit=9), [], f"nothing ended, number {never}")


async def _compare(bench: Bench, query: RunQuery, rows: Rows) -> None:
    matching = [row for row, pairs in rows if all(_meets(c, row, pairs) for c in query.conditions)]
    matching.sort(key=lambda row: (0 if query.by_number else row.created_at, row.number), reverse=True)
    wanted = [row.id for row in matching]
    found = [row.id for row in await bench.store.list_runs(query, limit=RUNS + 1)]
    expect(found, wanted, f"list of {query!r}")
    expect(await bench.store.count_runs(query), len(wanted), f"count of {query!r}")
    paged: list[str] = []
    after: Place | None = None
    while page := await bench.store.list_runs(RunQuery(query.conditions, after, query.as_written), limit=PAGE):
        paged += [row.id for row in page]
        expect(len(paged) <= RUNS, True, f"an end of the pages of {query!r}")
        after = Place(page[-1].created_at, page[-1].number)
    expect(paged, wanted, f"pages of {query!r}")


async def _random_runs(bench: Bench, chance: random.Random) -> Rows:
    """Runs in every state with random attributes; `created_at` does not follow the numbers."""
    rows: Rows = []
    for place in range(RUNS):
        run_id = f"{chance.choice('abc')}{place}"
        pairs = list({(chance.choice(_KEYS), chance.choice(_LIKELY)) for _ in range(chance.randrange(5))})
        state = chance.choice(_STATES)
        slept = state is S.PAUSED and chance.random() < 0.5
        first = S.SCHEDULED if slept else state if state in (S.SCHEDULED, S.READY) else S.RUNNING
        await bench.start(
            run_id,
            first,
            workflow=f"flow{chance.randrange(4)}",
            created_at=chance.randrange(8),
            priority=chance.randrange(3),
            pairs=tuple(pairs),
            due_at=FAR + chance.randrange(3) if first is S.SCHEDULED else None,
        )
        if slept:
            await bench.submit(PauseRequested(run_id, 5))
        elif first is not state:
            await _move(bench, run_id, state, chance)
        rows.append((await bench.row(run_id), pairs))
    return rows


async def _move(bench: Bench, run_id: str, state: S, chance: random.Random) -> None:
    number = (await bench.row(run_id)).number
    if state in (S.SUCCEEDED, S.FAILED, S.CANCELLED):
        await bench.submit(ended(number, state, ended_at=chance.randrange(8, 12)))
    elif state in (S.WAITING, S.PAUSED, S.BLOCKED):
        await bench.move(number, run_id, state)


def _random_condition(chance: random.Random) -> Condition:
    negated = chance.random() < 0.25
    if chance.random() < 0.5:
        return Condition(chance.choice((*_KEYS, "none")), _random_test(chance), negated, attribute=True)
    name = chance.choice(
        ("state", "workflow", "id", "created_at", "ended_at", "due_at", "priority", "worker", "reason")
    )
    tests: dict[str, tuple[Test, ...]] = {
        "state": (OneOf(tuple(chance.sample(_STATES, 3))), OneOf((S.FAILED,)), Exists()),
        "workflow": (OneOf(("flow1",)), OneOf(("flow1", "flow3", "none")), Prefix("flow"), Prefix("x"), Exists()),
        "id": (OneOf((f"a{chance.randrange(RUNS)}", "b1")), Prefix("a"), Prefix("c1")),
        "created_at": (Between(2, 5), Between(low=3, low_included=False), Between(high=4, high_included=False)),
        "ended_at": (Between(9, 10), Between(low=10), Between(high=9), Exists()),
        "due_at": (Between(low=FAR), Between(high=FAR), Exists()),
        "priority": (OneOf((1, 2)), Between(low=1), Between(0, 1)),
        "worker": (OneOf((WORKER,)), Prefix("w"), Exists()),
        "reason": (OneOf(("nondeterminism",)), Prefix("n"), Exists()),
    }
    return Condition(name, chance.choice(tests[name]), negated)


def _random_test(chance: random.Random) -> Test:
    kind: tuple[Scalar, ...] = chance.choice((_TEXTS, _NUMBERS))
    included = chance.random() < 0.5, chance.random() < 0.5
    tests: tuple[Test, ...] = (
        OneOf((chance.choice(_LIKELY),)),
        OneOf(tuple(chance.sample(_VALUES, 3))),
        Prefix(chance.choice(_TEXTS)),
        Between(chance.choice(kind), None, *included),
        Between(None, chance.choice(kind), *included),
        Between(kind[0], chance.choice(kind), *included),
        Exists(),
    )
    return chance.choice(tests)


def _meets(condition: Condition, row: Any, pairs: list[tuple[str, Scalar]]) -> bool:
    if condition.attribute:
        values: list[Scalar] = [value for key, value in pairs if key == condition.name]
    else:
        value = getattr(row, condition.name)
        values = [] if value is None else [value]
    return any(_passes(condition.test, value) for value in values) is not condition.negated


def _passes(test: Test, value: Any) -> bool:
    text = isinstance(value, str)
    match test:
        case OneOf(wanted):
            return any(value == other and text == isinstance(other, str) for other in wanted)
        case Prefix(start):
            return text and value.startswith(start)
        case Exists():
            return True
        case Between(low, high):
            if text is not isinstance(high if low is None else low, str):
                return False
            above = low is None or value > low or (test.low_included and value == low)
            return above and (high is None or value < high or (test.high_included and value == high))


CHECKS: tuple[Check, ...] = (
    every_search_finds_what_a_plain_reading_finds,
    words_of_a_query_find_runs,
    pages_stay_whole_while_runs_are_started,
    counts_end_at_their_limit,
    keys_of_attributes_are_known,
    statistics_of_what_ended,
)
