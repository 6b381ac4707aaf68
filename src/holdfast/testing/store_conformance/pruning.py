"""Pruning: only ended runs, with all their rows, in batches that anybody may interrupt."""

from __future__ import annotations

from holdfast._model.lifecycle import ENDED, RunState
from holdfast._model.records import Cutoff, Removed, RetryRequested, RunForked, RunsPruned
from holdfast._store.port import EndedGroup
from holdfast.testing.store_conformance.bench import FAR, Bench, Check, S, ended, entry, expect, having, search, started

LONG = 3_000
"""Entries of a run whose history goes in slices, if anybody's does."""


async def _prune(bench: Bench, *cutoffs: Cutoff, runs_max: int = 1_000, budget_us: int = FAR) -> Removed:
    """One batch."""
    removed: Removed = await bench.submit(RunsPruned(cutoffs, runs_max, budget_us))
    return removed


async def _ended(bench: Bench, run_id: str, *, at: int = 9, state: RunState = S.SUCCEEDED, entries: int = 2) -> int:
    """A run with a history and an attribute that ended at an instant; its number."""
    number = await bench.start(run_id, attributes='{"k":"v"}', pairs=(("k", "v"),))
    await bench.post([*(entry(number, seq, seq) for seq in range(1, entries + 1)), ended(number, state, ended_at=at)])
    return number


async def pruning_takes_ended_runs_with_all_their_rows(bench: Bench) -> None:
    """In every state, with every instant before the cutoff: what has not ended stays whole."""
    numbers = {state: await bench.put(state, state) for state in RunState}
    histories = [numbers[state] for state in RunState]
    await bench.post([entry(number, -1, None, kind="cancel", name="cancel") for number in histories])
    removed = await _prune(bench, *(Cutoff("flow", state, FAR) for state in RunState))
    wanted = tuple(int(state in ENDED) for state in RunState)
    expect((removed.runs, removed.entries, removed.more), (wanted, 3, False), "the answer")
    for state, number in numbers.items():
        expect(await bench.store.detail(state) is None, state in ENDED, f"the run that is {state} is gone")
        expect(len(await bench.entries(number)), int(state not in ENDED), f"history of the run that is {state}")


async def pruning_keeps_what_ended_later_or_is_of_another_kind(bench: Bench) -> None:
    """The instant of the cutoff itself is kept; so are other workflows and other states."""
    await _ended(bench, "before", at=99)
    await _ended(bench, "at", at=100)
    await _ended(bench, "failed", at=1, state=S.FAILED)
    other = await bench.start("other", workflow="another")
    await bench.submit(ended(other))
    removed = await _prune(bench, Cutoff("flow", S.SUCCEEDED, 100))
    expect((removed.runs, removed.entries), ((1,), 2), "the answer")
    expect([row.id for row in await bench.store.list_runs(search(), limit=9)], ["other", "failed", "at"], "kept")
    expect(await bench.store.count_runs(having(("k", "v"))), 2, "found by attribute")


async def pruning_of_one_instant_comes_to_its_end(bench: Bench) -> None:
    """Many runs that ended in the same microsecond, in batches smaller than they are many: none twice, none left."""
    await bench.post([started(f"r{place}") for place in range(100)])
    rows = await bench.store.list_runs(search(), limit=200)
    await bench.post([ended(row.number, ended_at=7) for row in rows])
    left = [100]
    while left[-1]:
        removed = await _prune(bench, Cutoff("flow", S.SUCCEEDED, 8), runs_max=7)
        expect(removed.runs, (min(7, left[-1]),), "one batch")
        left.append(await bench.store.count_runs(search()))
    expect(left, [*range(100, 0, -7), 0], "runs that are left after each batch")


async def a_batch_keeps_to_its_budget_and_does_something(bench: Bench) -> None:
    """However small the budget, a batch removes something, and says that there is more."""
    for place in range(600):
        await bench.submit(started(f"r{place}"))
    await bench.post([ended(row.number) for row in await bench.store.list_runs(search(), limit=1000)])
    removed = await _prune(bench, Cutoff("flow", S.SUCCEEDED, FAR), budget_us=0)
    expect(0 < removed.runs[0] < 600, True, "something")
    expect(removed.more, True, "more")


async def a_long_run_is_gone_from_its_first_batch_on(bench: Bench) -> None:
    """Whatever is left of its rows: nobody finds it by id or attribute, nobody can retry or fork it; its id is free."""
    number = await _ended(bench, "long", state=S.FAILED, entries=LONG)
    batches = 0
    total = 0
    while True:
        removed = await _prune(bench, Cutoff("flow", S.FAILED, FAR), budget_us=0)
        batches += 1
        total += removed.entries
        expect(await bench.store.detail("long"), None, f"the run after batch {batches}")
        expect((await bench.submit(RetryRequested("long", 20))).found, False, "a retry")
        fork = await bench.submit(RunForked("long", f"fork{batches}", 1, None, None, 3, 20))
        expect(fork.problem, "no-source", "a fork")
        expect(await bench.store.count_runs(having(("k", "v"))), 0, "found by attribute")
        if not removed.more:
            break
        expect(await bench.store.is_pruning(), len(await bench.entries(number)) > 0, "under way")
    expect((total, await bench.store.is_pruning()), (LONG, False), "in the end")
    expect(await bench.entries(number), [], "the history")
    expect(await bench.store.count_runs(search()), 0, "runs")
    expect((await bench.submit(started("long"))).created, True, "a new run of that id")


async def an_interrupted_removal_is_finished_by_whoever_prunes_next(bench: Bench) -> None:
    """Even if that one prunes something else, and even with a new run of the same id."""
    number = await _ended(bench, "long", entries=LONG)
    await _prune(bench, Cutoff("flow", S.SUCCEEDED, FAR), budget_us=0)
    await bench.start("long")
    removed = await _prune(bench)
    expect((removed.runs, removed.more), ((), False), "a batch that means nothing else")
    expect(await bench.entries(number), [], "the history")
    expect([row.id for row in await bench.store.list_runs(search(), limit=9)], ["long"], "the new run")


async def a_limit_is_kept_and_the_last_run_goes_whole(bench: Bench) -> None:
    """A batch that may remove no further run still finishes the one under way."""
    await _ended(bench, "long", at=1, entries=LONG)
    await _ended(bench, "next", at=2)
    cutoff = Cutoff("flow", S.SUCCEEDED, FAR)
    removed = await _prune(bench, cutoff, runs_max=1, budget_us=0)
    expect(removed.runs, (1,), "the first batch")
    while removed.more:
        removed = await _prune(bench, cutoff, runs_max=0, budget_us=0)
        expect(removed.runs, (0,), "no further run")
    expect(await bench.store.is_pruning(), False, "something half removed")
    expect([row.id for row in await bench.store.list_runs(search(), limit=9)], ["next"], "what is left")


async def a_number_is_never_given_twice(bench: Bench) -> None:
    """Not even when the youngest run was removed, at once or in slices, or restarted, and then an older one went."""
    numbers = [await _ended(bench, "first"), await _ended(bench, "last", entries=LONG)]
    for _ in range(3):
        await _prune(bench, Cutoff("flow", S.SUCCEEDED, FAR))
        expect(await bench.store.count_runs(search()), 0, "runs")
        numbers.append(await _ended(bench, "again"))
    numbers += [await _ended(bench, "older", at=9), await _ended(bench, "younger", at=8)]
    await _prune(bench, Cutoff("flow", S.SUCCEEDED, 9))
    await _prune(bench, Cutoff("flow", S.SUCCEEDED, FAR))
    numbers.append(await _ended(bench, "restarted"))
    for _ in range(2):
        number = (await bench.submit(started("restarted", restart=True))).number
        await bench.submit(ended(number))
        numbers.append(number)
    expect(numbers, sorted(set(numbers)), "numbers")


async def groups_of_ended_runs_are_told_with_their_oldest_end(bench: Bench) -> None:
    """By workflow and state; unended runs are in no group, and a run that goes on again leaves its group."""
    expect(await bench.store.ended_groups(), [], "without runs")
    for state in RunState:
        await bench.put(state, state)
    await _ended(bench, "older", at=4)
    await bench.submit(ended(await bench.start("b", workflow="b"), S.FAILED, ended_at=2))
    wanted = [("b", "failed", 2), ("flow", "cancelled", 9), ("flow", "failed", 9), ("flow", "succeeded", 4)]
    expect(await bench.store.ended_groups(), [EndedGroup(*group) for group in wanted], "groups")
    cutoffs = [Cutoff("flow", S.SUCCEEDED, 9), Cutoff("flow", S.SUCCEEDED, 10), Cutoff("c", S.FAILED, FAR)]
    expect(await bench.store.count_ended(cutoffs), [1, 2, 0], "counts")
    await _ended(bench, "long", at=5, entries=3)
    looks = [(cutoffs[0], 9), (cutoffs[0], 1), (cutoffs[0], 0), (cutoffs[2], 9)]
    entries = [await bench.store.count_ended_entries(cutoff, runs_max=most) for cutoff, most in looks]
    expect(entries, [2 + 3, 2, 0, 0], "entries of those that ended first")
    await bench.submit(RetryRequested("b", 20))
    expect((await bench.store.ended_groups())[0].workflow, "flow", "the group that is left")


async def space_is_told_and_given_back_without_loss(bench: Bench) -> None:
    """Compacting goes on until it has nothing to give, and touches no run."""
    for place in range(50):
        await _ended(bench, f"r{place}", entries=20)
    await bench.start("stays")
    await _prune(bench, Cutoff("flow", S.SUCCEEDED, FAR))
    before = await bench.store.space()
    expect(0 <= before.free <= before.size, True, f"{before}")
    given = 0
    while piece := await bench.store.compact(keep=0):
        expect(piece > 0, True, "a piece")
        given += piece
    after = await bench.store.space()
    expect(after.size, before.size - given, "the size")
    expect([row.id for row in await bench.store.list_runs(search(), limit=9)], ["stays"], "runs")
    expect(await bench.store.compact(keep=0), 0, "once more")


CHECKS: tuple[Check, ...] = (
    pruning_takes_ended_runs_with_all_their_rows,
    pruning_keeps_what_ended_later_or_is_of_another_kind,
    pruning_of_one_instant_comes_to_its_end,
    a_batch_keeps_to_its_budget_and_does_something,
    a_long_run_is_gone_from_its_first_batch_on,
    an_interrupted_removal_is_finished_by_whoever_prunes_next,
    a_limit_is_kept_and_the_last_run_goes_whole,
    a_number_is_never_given_twice,
    groups_of_ended_runs_are_told_with_their_oldest_end,
    space_is_told_and_given_back_without_loss,
)
