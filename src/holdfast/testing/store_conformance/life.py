"""The life of a run: moves, requests, and whose word counts."""

from __future__ import annotations

from collections.abc import Callable

from holdfast._model.lifecycle import ENDED, TRANSITIONS, RunState
from holdfast._model.records import (
    CancelRequested,
    Cutoff,
    PauseRequested,
    Record,
    Requested,
    ResumeRequested,
    RetryRequested,
    RunCleared,
    RunContinued,
    RunForked,
    RunParked,
    RunPaused,
    RunReleased,
    RunsClaimed,
    RunsImported,
    RunsPruned,
    RunsUnblocked,
    WorkerBuried,
)
from holdfast._store.port import RecordRefused
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
    exported,
    started,
)

MOVES: dict[str, Callable[[str, int], Record]] = {
    "RunStarted": lambda run_id, _: started(run_id, S.READY),
    "RunsClaimed": lambda _, __: RunsClaimed(OTHER, ("flow",), 100, FAR + 1),
    "RunParked": lambda _, number: RunParked(number, WORKER, 50),
    "RunReleased": lambda _, number: RunReleased(number, WORKER),
    "RunContinued": lambda _, number: RunContinued(number, WORKER, "{}", 8),
    "RunEnded": lambda _, number: ended(number, S.FAILED),
    "RunBlocked": lambda _, number: blocked(number),
    "RunPaused": lambda _, number: RunPaused(number, WORKER),
    "CancelRequested": lambda run_id, _: CancelRequested(run_id, 20),
    "PauseRequested": lambda run_id, _: PauseRequested(run_id, 20),
    "ResumeRequested": lambda run_id, _: ResumeRequested(run_id, 20),
    "RetryRequested": lambda run_id, _: RetryRequested(run_id, 20),
    "RunForked": lambda run_id, _: RunForked(run_id, run_id, 1, None, None, 3, 20),
    "RunCleared": lambda _, number: RunCleared(number, WORKER),
    "RunsImported": lambda run_id, _: RunsImported((exported(run_id),), resume=False, now=20),
    "WorkerBuried": lambda _, __: WorkerBuried(WORKER, 20),
    "RunsUnblocked": lambda _, __: RunsUnblocked(OTHER, ("flow",), (), 9, 20),
    "RunsPruned": lambda _, __: RunsPruned(tuple(Cutoff("flow", state, FAR) for state in RunState), 1000, FAR),
}
"""For each record of the table, one that means the given run."""


async def every_move_agrees_with_the_table(bench: Bench) -> None:
    """From each state, each record moves the run as `TRANSITIONS` says, or leaves its row alone."""
    expect(sorted(MOVES), sorted(TRANSITIONS), "records that move a run")
    for kind, (sources, targets) in TRANSITIONS.items():
        for state in RunState:
            run_id = f"{kind}-{state}"
            number = await bench.put(run_id, state)
            before = await bench.row(run_id)
            try:
                await bench.submit(MOVES[kind](run_id, number))
            except RecordRefused:
                bench.store.proceed()
            after = await bench.store.detail(run_id)
            if after is None or (state in sources and not targets):
                expect((after, targets), (None, frozenset()), f"{kind} removes a run that is {state}")
                continue
            if state in sources:
                expect(after != before or state in targets, True, f"{kind} changes a run that is {state}")
                expect(
                    after.state in targets,
                    True,
                    f"{kind} moves a run from {state} to {after.state}, in {sorted(targets)}",
                )
            elif after != before:  # such as a running run whose pause is withdrawn: allowed only where the table says
                raise AssertionError(f"{kind} must leave a run alone that is {state}: {before!r} became {after!r}")
            await _remove(bench, run_id, number)


async def _remove(bench: Bench, run_id: str, number: int) -> None:
    """Bring the run to an end, so that it is in nobody's way; make its worker live again."""
    await bench.store.register_worker(f"{WORKER}x{number}", now=1, lease_until=FAR)
    ends = [ended(number, S.CANCELLED, worker=worker) for worker in (WORKER, OTHER)]
    records: list[Record] = [CancelRequested(run_id, 30), *ends]
    for record in records:
        try:
            await bench.submit(record)
        except RecordRefused:
            bench.store.proceed()
    if (await bench.row(run_id)).state not in ENDED:
        for row in await bench.claim(now=31):
            await bench.submit(ended(row.number, S.CANCELLED))
    expect((await bench.row(run_id)).state in ENDED, True, f"{run_id} has ended")


async def only_the_holder_moves_a_running_run(bench: Bench) -> None:
    """What a worker says of a run that it does not hold is refused, and nothing of the batch stays."""
    number = await bench.start("a")
    owned: tuple[Record, ...] = (
        ended(number, worker=OTHER),
        RunParked(number, OTHER, None),
        RunReleased(number, OTHER),
        RunContinued(number, OTHER, "{}", 1),
        blocked(number)._replace(worker=OTHER),
        RunPaused(number, OTHER),
    )
    before = await bench.row("a")
    for record in owned:
        error = await bench.refused(entry(number, 1, 1), record, worker=OTHER)
        expect(type(error), RecordRefused, f"{type(record).__name__} of a stranger")
    expect(await bench.row("a"), before, "the row")
    expect(await bench.entries(number), [], "the history")


async def records_of_one_batch_are_applied_in_the_stated_order(bench: Bench) -> None:
    """Whatever order they stand in: entries before the end, the end before a restart's look, parking before a claim."""
    number = await bench.start("a")
    other = await bench.start("b")
    outcomes = await bench.submit(
        RunsClaimed(OTHER, ("flow",), 10, 99),
        RunParked(other, WORKER, 98),
        ended(number),
        entry(number, 1, 1),
        started("a"),
    )
    expect([row.id for row in outcomes[0]], ["b"], "the run that was parked and is due is claimed")
    expect(outcomes[4].created, False, "the start of a taken id")
    expect((await bench.row("a")).state, S.SUCCEEDED, "the run that ended")
    expect(len(await bench.entries(number)), 1, "its entry")


async def requests_wait_in_the_row_for_the_holder(bench: Bench) -> None:
    """A request about a running run is noted, found by its worker, and honoured by whichever way the run leaves."""
    number = await bench.start("a")
    expect(await bench.submit(PauseRequested("a", 5)), Requested(True, S.RUNNING, S.RUNNING, number, WORKER), "pause")
    expect(await bench.store.requests_of(WORKER), [(number, "pause")], "requests")
    await bench.submit(CancelRequested("a", 6))
    await bench.submit(PauseRequested("a", 7))
    expect(await bench.store.requests_of(WORKER), [(number, "cancel")], "a cancellation is not weakened to a pause")
    expect(await bench.store.requests_of(OTHER), [], "requests of another worker")
    await bench.submit(RunParked(number, WORKER, FAR))
    (row,) = await bench.claim()
    expect((row.id, row.request), ("a", "cancel"), "a parked run with a request is ready at once, and brings it along")
    nothing = await bench.submit(CancelRequested("nobody", 5))
    expect(nothing, Requested(False, None, None, None, None), "a request about no run")


async def an_acknowledged_cancellation_survives_every_way_to_leave(bench: Bench) -> None:
    """The worker pauses, blocks or continues a run while a cancellation arrives: the cancellation wins."""
    for how in ("pause", "block", "release", "park", "continue"):
        number = await bench.start(how)
        await bench.submit(PauseRequested(how, 4))
        expect((await bench.submit(CancelRequested(how, 5))).after, S.RUNNING, "the acknowledged state")
        leaves: dict[str, Record] = {
            "pause": RunPaused(number, WORKER),
            "block": blocked(number),
            "release": RunReleased(number, WORKER),
            "park": RunParked(number, WORKER, FAR),
            "continue": RunContinued(number, WORKER, "{}", 1),
        }
        await bench.submit(leaves[how])
        claimed = [row.request for row in await bench.claim() if row.id == how]
        state = (await bench.row(how)).state
        expect(claimed == ["cancel"] or state == S.CANCELLED, True, f"cancelled, then {how}: {state}, {claimed}")


async def a_withdrawn_pause_does_not_pause(bench: Bench) -> None:
    """Resume of a running run takes its pause back, even when the worker has begun to obey it."""
    number = await bench.start("a")
    await bench.submit(PauseRequested("a", 4))
    expect((await bench.submit(ResumeRequested("a", 5))).after, S.RUNNING, "the acknowledged state")
    await bench.submit(RunPaused(number, WORKER))
    expect((await bench.row("a")).state, S.READY, "the state")


async def a_pause_is_withdrawn_from_a_run_that_nobody_holds_any_more(bench: Bench) -> None:
    """Its worker let go of it before it obeyed; the next one must not obey a pause that was taken back."""
    leaves: dict[str, Callable[[int], Record]] = {
        "released": lambda number: RunReleased(number, WORKER),
        "continued": lambda number: RunContinued(number, WORKER, "{}", 1),
        "parked": lambda number: RunParked(number, WORKER, FAR),
    }
    for how, leave in leaves.items():
        number = await bench.start(how)
        await bench.submit(PauseRequested(how, 4))
        await bench.submit(leave(number))
        expect((await bench.row(how)).request, "pause", f"the request of a run that was {how}")
        expect((await bench.submit(ResumeRequested(how, 5))).after, S.READY, "the acknowledged state")
    expect([row.request for row in await bench.claim()], [None] * len(leaves), "what the next worker is asked")


CHECKS: tuple[Check, ...] = (
    every_move_agrees_with_the_table,
    only_the_holder_moves_a_running_run,
    records_of_one_batch_are_applied_in_the_stated_order,
    requests_wait_in_the_row_for_the_holder,
    an_acknowledged_cancellation_survives_every_way_to_leave,
    a_withdrawn_pause_does_not_pause,
    a_pause_is_withdrawn_from_a_run_that_nobody_holds_any_more,
)
