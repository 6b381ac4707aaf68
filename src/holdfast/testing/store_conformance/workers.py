"""Workers and claims: fencing, leaving, order, due instants."""

from __future__ import annotations

from holdfast._model.records import (
    Buried,
    CancelRequested,
    PauseRequested,
    ResumeRequested,
    RunBlocked,
    RunCleared,
    RunParked,
    RunReleased,
    RunsClaimed,
    RunsUnblocked,
    WorkerBuried,
)
from holdfast.errors import Fenced
from holdfast.testing.store_conformance.bench import (
    FAR,
    OTHER,
    WORKER,
    Bench,
    Check,
    S,
    blocked,
    ended,
    entry,
    expect,
    started,
)


async def a_buried_worker_writes_nothing(bench: Bench) -> None:
    """Its runs are ready in the transaction that buries it, and from then on its batches are refused whole."""
    number = await bench.start("a")
    await bench.submit(entry(number, 1, 1), worker=WORKER)
    expect(await bench.submit(WorkerBuried(WORKER, 9), worker=OTHER), Buried(1, ()), "orphans")
    for record in (entry(number, 2, 2), ended(number), started("b"), CancelRequested("a", 9)):
        expect(type(await bench.refused(record, worker=WORKER)), Fenced, type(record).__name__)
    expect(await bench.store.detail("b"), None, "a start of the dead")
    (row,) = await bench.claim(worker=OTHER)
    expect((row.number, row.has_history, row.crashes), (number, True, 1), "the run elsewhere")
    expect(len(await bench.entries(number)), 1, "its history")
    expect(await bench.store.renew_lease(WORKER, lease_until=FAR), False, "the lease of the dead")
    expect(type(await bench.refused(started("c"), worker="never")), Fenced, "an unknown worker")


async def crashes_are_counted_until_a_run_makes_progress(bench: Bench) -> None:
    """One more for each burial, one again after an outcome or an attempt, and in the end poison."""

    async def crash(place: int) -> Buried:
        worker = f"c{place}"
        await bench.store.register_worker(worker, now=1, lease_until=FAR)
        taken = await bench.claim(worker=worker)
        taken += await bench.submit(RunsClaimed(worker, ("flow",), 1, 10, suspect=True))
        expect([row.id for row in taken], ["a"], "the run is taken")
        buried: Buried = await bench.submit(WorkerBuried(worker, 9, 5, '{"message": "poison"}'))
        return buried

    number = await bench.start("a", S.READY)
    counts: list[int] = []
    for place in range(2):
        await crash(place)
        counts.append((await bench.row("a")).crashes)
    await bench.claim()
    await bench.submit(entry(number, 1, 1))
    await bench.submit(RunReleased(number, WORKER))
    expect(await crash(2), Buried(1, ()), "a burial")
    counts.append((await bench.row("a")).crashes)
    await bench.claim()
    await bench.submit(entry(number, 2, None))
    await bench.submit(RunReleased(number, WORKER))
    for place in range(3, 7):
        expect(await crash(place), Buried(1, ()), "a burial")
        counts.append((await bench.row("a")).crashes)
    expect(counts, [1, 2, 1, 1, 2, 3, 4], "crashes")
    expect((await bench.store.has_ready(["flow"]), await bench.store.has_suspect(["flow"])), (False, True), "a suspect")
    expect(await bench.claim(), [], "what the ordinary claim takes")
    expect(await crash(7), Buried(1, (("a", "flow"),)), "the last burial")
    row = await bench.row("a")
    found = (row.state, row.reason, row.crashes, row.error, row.worker)
    expect(found, (S.BLOCKED, "poison", 5, '{"message": "poison"}', "c7"), "the poison run")
    await bench.submit(ResumeRequested("a", 20))
    row = await bench.row("a")
    expect((row.state, row.reason, row.crashes, row.error), (S.READY, None, 0, None), "the resumed run")


async def a_poison_run_that_is_to_be_cancelled_is_cancelled(bench: Bench) -> None:
    """There is nobody left who could tell its code."""
    await bench.start("a")
    await bench.submit(CancelRequested("a", 5))
    expect(await bench.submit(WorkerBuried(WORKER, 9, 1, "{}")), Buried(1, ()), "the burial")
    row = await bench.row("a")
    expect((row.state, row.ended_at, row.reason, row.request), (S.CANCELLED, 9, None, None), "the run")


async def a_suspect_is_cleared_by_its_worker_only(bench: Bench) -> None:
    """Those with the fewest crashes come first, one at a time; a cleared one is like any other again."""
    for place, run_id in enumerate("ab"):
        await bench.start(run_id, S.READY)
        for turn in range(4 - place):
            worker = f"{run_id}{turn}"
            await bench.store.register_worker(worker, now=1, lease_until=FAR)
            if not await bench.claim(worker=worker):
                await bench.submit(RunsClaimed(worker, ("flow",), 1, 10, suspect=True))
            await bench.submit(WorkerBuried(worker, 9, None))
    (row,) = await bench.submit(RunsClaimed(WORKER, ("flow",), 9, 10, suspect=True))
    expect((row.id, row.crashes), ("b", 3), "the first suspect")
    await bench.submit(RunCleared(row.number, OTHER))
    expect((await bench.row("b")).crashes, 3, "after a stranger's word")
    await bench.submit(RunCleared(row.number, WORKER))
    expect((await bench.row("b")).crashes, 0, "after its worker's")


async def a_worker_that_leaves_gives_its_runs_back(bench: Bench) -> None:
    """Whatever it held when it left is ready for others."""
    await bench.start("a")
    await bench.store.leave(WORKER, now=9)
    expect((await bench.row("a")).state, S.READY, "the run")
    expect([row.id for row in await bench.claim(worker=OTHER)], ["a"], "claimed elsewhere")
    expect(type(await bench.refused(started("b"), worker=WORKER)), Fenced, "a batch of the one that left")
    states = {row.id: row.state for row in await bench.store.workers()}
    expect(states, {WORKER: "left", OTHER: "live"}, "workers")
    expect(await bench.store.dead_workers(now=9), [], "nobody is dead: one has left")
    await bench.store.forget_workers(before=FAR)
    expect([row.id for row in await bench.store.workers()], [OTHER], "workers that are remembered")


async def claims_take_priority_then_first_come(bench: Bench) -> None:
    """Higher priority first, then the order of the starts; never more than asked for; each run once."""
    for place, priority in enumerate((0, 5, -1, 5, 0)):
        await bench.start(f"r{place}", S.READY, priority=priority)
    order: list[str] = []
    while rows := await bench.claim(limit=1):
        order += [row.id for row in rows]
    expect(order, ["r1", "r3", "r0", "r4", "r2"], "the order")
    expect(await bench.claim(), [], "nothing is left")
    expect(set(await bench.states(*order)), {S.RUNNING}, "states")


async def claims_leave_unknown_workflows(bench: Bench) -> None:
    """A run of a workflow that the worker does not know waits, visibly."""
    await bench.start("a", S.READY, workflow="mystery", timeout_us=100)
    await bench.start("b", S.READY)
    expect(await bench.store.has_ready(["flow"]), True, "ready")
    expect([row.id for row in await bench.claim()], ["b"], "claimed")
    expect(await bench.store.has_ready(["flow"]), False, "ready afterwards")
    expect((await bench.row("a")).state, S.READY, "the unknown one")
    (row,) = await bench.claim("mystery", now=40)
    expect((row.id, row.started_at, row.deadline_at), ("a", 40, 140), "the first claim starts the clock")


async def due_runs_are_claimed_and_others_wait(bench: Bench) -> None:
    """Scheduled and parked runs become claimable when they are due, not before; `next_due` says when."""
    await bench.start("later", S.SCHEDULED, due_at=100)
    await bench.submit(RunParked(await bench.start("parked"), WORKER, 50))
    await bench.submit(RunParked(await bench.start("for good"), WORKER, None))
    expect(await bench.store.next_due(), 50, "the next")
    expect(await bench.claim(now=49), [], "nothing is due")
    expect([row.id for row in await bench.claim(now=50)], ["parked"], "due at its instant")
    expect(await bench.store.next_due(), 100, "the next after it")
    expect([row.id for row in await bench.claim(now=1000)], ["later"], "due later")
    expect(await bench.store.next_due(), None, "no further")


async def a_claim_wakes_no_more_than_it_takes_unless_it_is_told_to(bench: Bench) -> None:
    """Due runs fill the places that ready ones leave; `wakes` of them have a place in any case."""
    await bench.post([started(f"due{number}", S.SCHEDULED, due_at=5) for number in range(6)])
    await bench.post([started(f"ready{number}", S.READY) for number in range(6)])

    async def claimed(limit: int, wakes: int) -> list[str]:
        rows = await bench.submit(RunsClaimed(WORKER, ("flow",), limit, 10, wakes))
        return sorted(row.id for row in rows)

    expect(await claimed(2, 0), ["ready0", "ready1"], "two of those that are ready")
    expect(await claimed(4, 2), ["due0", "due1", "ready2", "ready3"], "half of each")
    expect(await claimed(100, 0), ["due2", "due3", "due4", "due5", "ready4", "ready5"], "all that is left")


async def a_run_that_cleans_up_waits_in_spite_of_its_cancellation(bench: Bench) -> None:
    """It has been told; only a request that it does not know of may wake it at once."""
    for how, told, state in (("told", True, S.WAITING), ("not told", False, S.READY)):
        number = await bench.start(how)
        await bench.submit(CancelRequested(how, 5))
        await bench.submit(RunParked(number, WORKER, FAR, told))
        expect((await bench.row(how)).state, state, f"cancelled and {how}")
    number = await bench.start("paused")
    await bench.submit(PauseRequested("paused", 5))
    await bench.submit(RunParked(number, WORKER, FAR, True))
    expect((await bench.row("paused")).state, S.READY, "a pause is to be obeyed while it cleans up, too")


async def runs_that_stand_aside_do_not_hold_up_timers(bench: Bench) -> None:
    """However many paused runs have a due instant in the past."""
    ids = [f"p{i}" for i in range(1500)]
    await bench.post([started(i, S.SCHEDULED, due_at=5) for i in ids])
    await bench.post([PauseRequested(i, 3) for i in ids])
    await bench.start("due", S.SCHEDULED, due_at=6)
    expect([row.id for row in await bench.claim(now=10)], ["due"], "the run that is due")


async def blocked_runs_are_for_other_workers(bench: Bench) -> None:
    """Only a run that another worker found not to match is tried again, never one blocked for another reason."""
    await bench.submit(blocked(await bench.start("a")))
    await bench.submit(blocked(await bench.start("b"), "poison"))
    expect(await bench.store.has_blocked(WORKER, ["flow"]), False, "for the worker that found it")
    expect(await bench.submit(RunsUnblocked(WORKER, ("flow",), (), 9, 10)), (), "by that worker")
    expect(await bench.store.has_blocked(OTHER, ["mystery"]), False, "for one that does not know it")
    expect(await bench.store.has_blocked(OTHER, ["flow"]), True, "for one that does")
    number = (await bench.row("a")).number
    expect(await bench.store.has_blocked(OTHER, ["flow"], tried=[number]), False, "for one that has tried it")
    expect(await bench.submit(RunsUnblocked(OTHER, ("flow",), (number,), 9, 10)), (), "by one that has tried it")
    (row,) = await bench.submit(RunsUnblocked(OTHER, ("flow",), (), 9, 10))
    expect(row.id, "a", "by one that has not")
    expect(await bench.states("a", "b"), [S.RUNNING, S.BLOCKED], "states")
    run = await bench.row("a")
    expect((run.worker, run.reason, run.error), (OTHER, None, None), "the run that is tried")


async def blocked_suspects_are_taken_as_such(bench: Bench) -> None:
    """Who takes the others does not get them, or a worker might have several at once."""
    number = await bench.start("a")
    for worker in ("x", "y", "z"):
        await bench.store.register_worker(worker, now=1, lease_until=FAR)
    for worker, after in ((WORKER, "x"), ("x", "y"), ("y", "z")):
        await bench.submit(WorkerBuried(worker, 9), RunsClaimed(after, ("flow",), 9, 10, suspect=worker == "y"))
    await bench.submit(RunBlocked(number, "z", "nondeterminism", "{}", 20))
    expect(await bench.store.has_blocked(OTHER, ["flow"]), False, "for who takes others")
    expect(await bench.submit(RunsUnblocked(OTHER, ("flow",), (), 9, 10)), (), "by who takes others")
    expect(await bench.store.has_blocked(OTHER, ["flow"], suspect=True), True, "for who tries suspects")
    (row,) = await bench.submit(RunsUnblocked(OTHER, ("flow",), (), 1, 10, suspect=True))
    expect((row.id, row.crashes), ("a", 3), "by who tries suspects")


async def a_pause_outlives_a_block(bench: Bench) -> None:
    """Whoever has the code that fits finds the pause first, whether it was asked for before the block or after it."""
    for run_id in ("before", "after"):
        number = await bench.start(run_id)
        requests = PauseRequested(run_id, 5), blocked(number)
        for record in requests if run_id == "before" else reversed(requests):
            await bench.submit(record)
        expect((await bench.row(run_id)).state, S.BLOCKED, f"paused {run_id} it was blocked")
        (row,) = await bench.submit(RunsUnblocked(OTHER, ("flow",), (), 9, 10))
        expect((row.id, row.request), (run_id, "pause"), "what the worker is told that takes it")
    number = await bench.start("resumed")
    await bench.submit(blocked(number))
    await bench.submit(PauseRequested("resumed", 6))
    await bench.submit(ResumeRequested("resumed", 7))
    expect([(row.id, row.request) for row in await bench.claim()], [("resumed", None)], "a resumption ends it")


async def a_claim_gets_what_a_burial_of_its_batch_left(bench: Bench) -> None:
    """Whichever of the two was asked for first: the dead are buried before the living claim."""
    await bench.start("a")
    claim, burial = RunsClaimed(OTHER, ("flow",), 9, 10), WorkerBuried(WORKER, 10)
    (rows, _) = await bench.submit(claim, burial, worker=OTHER)
    expect([(row.id, row.crashes) for row in rows], [("a", 1)], "what is claimed")
    expect((await bench.row("a")).worker, OTHER, "who holds it")


CHECKS: tuple[Check, ...] = (
    a_buried_worker_writes_nothing,
    crashes_are_counted_until_a_run_makes_progress,
    a_poison_run_that_is_to_be_cancelled_is_cancelled,
    a_suspect_is_cleared_by_its_worker_only,
    a_worker_that_leaves_gives_its_runs_back,
    claims_take_priority_then_first_come,
    claims_leave_unknown_workflows,
    due_runs_are_claimed_and_others_wait,
    a_claim_wakes_no_more_than_it_takes_unless_it_is_told_to,
    a_run_that_cleans_up_waits_in_spite_of_its_cancellation,
    runs_that_stand_aside_do_not_hold_up_timers,
    blocked_runs_are_for_other_workers,
    blocked_suspects_are_taken_as_such,
    a_pause_outlives_a_block,
    a_claim_gets_what_a_burial_of_its_batch_left,
)
