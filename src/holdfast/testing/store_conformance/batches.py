"""Batches: all or nothing, in order, and starts."""

from __future__ import annotations

import asyncio
import functools
from typing import cast

from holdfast._model.lifecycle import ENDED, RunState
from holdfast._model.records import (
    Record,
    RunContinued,
    RunParked,
    RunsClaimed,
    Started,
)
from holdfast._store.port import Halted, RecordRefused
from holdfast.testing.store_conformance.bench import (
    FAR,
    SIZES,
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


async def a_batch_is_all_or_nothing(bench: Bench) -> None:
    """One refused record undoes its whole batch."""
    number = await bench.start("a")
    await bench.submit(entry(number, 1, 1))
    error = await bench.refused(started("b"), entry(number, 2, 2), entry(number, 1, 3, output="9"), ended(number))
    expect(type(error), RecordRefused, "the error")
    expect(await bench.store.detail("b"), None, "the start beside it")
    expect([e.output for e in await bench.entries(number)], ["1"], "the history")
    expect((await bench.row("a")).state, S.RUNNING, "the run")


async def batches_are_applied_and_answered_in_order(bench: Bench) -> None:
    """Many batches under way at once: each sees what those before it did, and none overtakes another."""
    number = await bench.start("a")
    answered: list[int] = []
    futures = [bench.post([entry(number, 1, None, attempts=attempt)]) for attempt in range(50)]
    for place, future in enumerate(futures):
        future.add_done_callback(functools.partial(lambda place, _: answered.append(place), place))
    await asyncio.gather(*futures)
    await asyncio.sleep(0)
    expect(answered, list(range(50)), "the order of the answers")
    expect([e.attempts for e in await bench.entries(number)], [49], "the last one wins")


async def after_a_failure_batches_are_refused_until_proceed(bench: Bench) -> None:
    """No later batch lands before the failed one is tried again."""
    number = await bench.start("a")
    await bench.submit(entry(number, 1, 1))
    failed, next_one, later = (
        bench.post([r]) for r in (entry(number, 1, 2, output="9"), entry(number, 2, 2), ended(number))
    )
    errors = await asyncio.gather(failed, next_one, later, return_exceptions=True)
    expect([type(error) for error in errors], [RecordRefused, Halted, Halted], "the errors")
    expect(cast("Halted", errors[1]).retryable, True, "whether it may be tried again")
    expect((await bench.row("a")).state, S.RUNNING, "the run")
    bench.store.proceed()
    await bench.submit(entry(number, 2, 2))


async def a_batch_whose_answer_was_lost_is_not_applied_again(bench: Bench) -> None:
    """Submitted once more, it is answered as it was the first time, and changes nothing.

    Applied again, a claim would take other runs, and nobody would execute the first; an entry would come back into a
    history that the end of a generation, or a retry, has emptied.
    """
    for place in range(3):
        await bench.start(f"r{place}", S.READY)
    claim = [RunsClaimed(WORKER, ("flow",), 2, 10)]
    first = await bench.post(claim)
    expect(await bench.post(claim), first, "the second answer")
    expect((await bench.row("r2")).state, S.READY, "the run that was not claimed")
    number = first[0][0].number  # type: ignore[index, union-attr]
    batch: list[Record] = [
        entry(number, 1, 1),
        RunContinued(number, WORKER, "[]", 7),
        RunsClaimed(WORKER, ("flow",), 1, 11),
    ]
    expect(await bench.post(batch), await bench.post(batch), "the second answer")
    row = await bench.row("r0")
    expect((row.state, row.generation, await bench.entries(number)), (S.RUNNING, 1, []), "the run")
    expect((await bench.row("r2")).state, S.READY, "the run that was not claimed")


async def a_recorded_outcome_is_never_overwritten(bench: Bench) -> None:
    """Pending entries are replaced, outcomes are not: not by an outcome, not by something pending."""
    number = await bench.start("a")
    await bench.submit(entry(number, 1, attempts=1), entry(number, 2, kind="timer", name="timer", due_at=77))
    await bench.submit(entry(number, 1, attempts=2, due_at=50, error='"x"'))
    await bench.submit(entry(number, 1, 1, attempts=3))
    recorded = (await bench.entries(number))[0]
    expect((recorded.output, recorded.attempts, recorded.error), ("1", 3, None), "the outcome")
    for late in (
        entry(number, 1, 1, output="other"),
        entry(number, 1),
        entry(number, 1, 2, state="failed", error="{}"),
    ):
        expect(type(await bench.refused(late)), RecordRefused, "a second outcome")
    expect((await bench.entries(number))[0], recorded, "the outcome afterwards")


async def the_same_batch_again_is_the_same_facts(bench: Bench) -> None:
    """The answer to a batch was lost and it is submitted again: entries that say the same are accepted."""
    number = await bench.start("a")
    batch = [entry(number, 1, 1), entry(number, 2, 2, state="failed", output=None, error='{"type":"x"}')]
    await bench.submit(*batch)
    await bench.submit(*batch)
    expect(await bench.entries(number), batch, "the history")


async def many_records_in_one_batch(bench: Bench) -> None:
    """Every size of multi-row statement: starts, attributes, entries, ends and parkings land on their own rows."""
    for size in SIZES:
        ids = [f"{size}-{i}" for i in range(size)]
        pairs = [(("n", i), ("even", i % 2)) for i in range(size)]
        answers = await bench.post([started(i, pairs=p) for i, p in zip(ids, pairs, strict=True)])
        numbers = [cast("Started", answer).number for answer in answers]
        expect(len(set(numbers)), size, "numbers")
        await bench.post([entry(n, 1, 1, output=str(n)) for n in numbers])
        ending, parking = numbers[::2], numbers[1::2]
        await bench.post(
            [ended(n, output=str(n)) for n in ending] + [RunParked(n, WORKER, FAR + n) for n in parking], worker=WORKER
        )
        histories = await bench.store.histories(numbers)
        expect([histories[n][0].output for n in numbers], [str(n) for n in numbers], "outputs of entries")
        rows = [await bench.row(i) for i in (ids[0], ids[-1])]
        expect([row.number for row in rows], [numbers[0], numbers[-1]], "numbers of rows")
        expect(rows[0].output, str(numbers[0]), "output of a run")
        found = await bench.store.list_runs(search(f"n:{size - 1} id:{size}-*"), limit=9)
        expect([row.id for row in found], [ids[-1]], "by attribute")
        query = search(f"state:waiting id:{size}-*")
        expect(await bench.store.count_runs(query), len(parking), "parked runs")


async def the_same_id_twice_is_one_run(bench: Bench) -> None:
    """In one batch and in two: the first start creates the run, later ones are told what is there."""
    first, second, third = await bench.submit(started("a"), started("a", input='{"x":2}'), started("b"))
    expect([first.created, second.created, third.created], [True, False, True], "created")
    expect((second.number, second.input, second.state), (first.number, '{"x":1}', S.RUNNING), "what is there")
    again = await bench.submit(started("a", S.READY, workflow="other", pairs=(("k", "v"),)))
    expect((again.created, again.workflow, again.number), (False, "flow", first.number), "a later start")
    expect(await bench.store.count_runs(having(("k", "v"))), 0, "attributes of a refused start")


async def restart_replaces_only_what_has_ended(bench: Bench) -> None:
    """With `restart` an ended run makes way, with its history and attributes; any other stays."""
    for state in RunState:
        number = await bench.put(state.value, state)
        answer: Started = await bench.submit(started(state.value, S.READY, restart=True, input='"new"'))
        expect(answer.created, state in ENDED, f"restart of a run that is {state}")
        if state in ENDED:
            expect(await bench.entries(answer.number), [], "the new history")
            expect((await bench.row(state.value)).input, '"new"', "the new input")
        else:
            expect(answer.number, number, "the old run")
    both = await bench.submit(
        started("succeeded", restart=True), started("twice", restart=True), started("twice", restart=True)
    )
    expect([answer.created for answer in both], [False, True, False], "restarts in one batch")


CHECKS: tuple[Check, ...] = (
    a_batch_is_all_or_nothing,
    batches_are_applied_and_answered_in_order,
    after_a_failure_batches_are_refused_until_proceed,
    a_batch_whose_answer_was_lost_is_not_applied_again,
    a_recorded_outcome_is_never_overwritten,
    the_same_batch_again_is_the_same_facts,
    many_records_in_one_batch,
    the_same_id_twice_is_one_run,
    restart_replaces_only_what_has_ended,
)
