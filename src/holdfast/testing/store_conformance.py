"""The suite that every store passes: what `port.py` promises, as named checks.

Each check gets a fresh, open store in a `Bench` and speaks to it through the `Store` protocol only, so the same checks
hold for every database. `CHECKS` are for all stores, `SHARED_CHECKS` for those that outlive a connection: their factory
may be called again and leads to the same database. A failed expectation is an `AssertionError` that shows what was
wanted and what was found.

    @pytest.mark.parametrize("check", CHECKS, ids=name_of)
    def test_my_store(check): asyncio.run(run_check(check, lambda: MyStore(...)))

The life of a run is checked in both directions against `lifecycle.TRANSITIONS`: from each state, a record that the
table allows moves the run to where the table says, and every other record is refused or leaves the row as it is.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, TypeVar, cast

from holdfast._model.lifecycle import ENDED, TRANSITIONS, RunState
from holdfast._model.records import (
    CancelRequested,
    EntryRecorded,
    Forked,
    Outcome,
    PauseRequested,
    Record,
    Requested,
    ResumeRequested,
    RetryRequested,
    RunBlocked,
    RunContinued,
    RunEnded,
    RunForked,
    RunParked,
    RunPaused,
    RunReleased,
    RunRow,
    RunsClaimed,
    RunStarted,
    RunsUnblocked,
    Started,
    WorkerBuried,
)
from holdfast._model.runinfo import RunDetail
from holdfast._store.port import Halted, RecordRefused, RunQuery, Store
from holdfast.errors import Fenced, StoreError

S = RunState
T = TypeVar("T")
Factory: TypeAlias = Callable[[], Store]
FAR = 10**15
"""An instant that no test's clock reaches."""
WORKER, OTHER = "w1", "w2"
SIZES = (1, 3, 5, 70, 1500)
"""How many records of a kind go into one batch: below, between and above the sizes of multi-row statements."""


class Bench:
    """A store under test."""

    def __init__(self, store: Store, make: Factory) -> None:
        self.store = store
        self.make = make
        self.changes = asyncio.Event()

    async def submit(self, *records: Record, worker: str | None = None) -> Any:
        """Apply one batch; one outcome, or the tuple of them for several records."""
        outcomes = await self.post(records, worker=worker)
        return outcomes[0] if len(records) == 1 else outcomes

    def post(self, records: Sequence[Record], *, worker: str | None = None) -> asyncio.Future[tuple[Outcome, ...]]:
        """Submit a batch without waiting. A second call of `done` is an error."""
        future: asyncio.Future[tuple[Outcome, ...]] = asyncio.get_running_loop().create_future()

        def done(outcomes: Sequence[Outcome] | None, error: BaseException | None) -> None:
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(tuple(outcomes) if outcomes is not None else (None,) * len(records))

        self.store.submit(records, worker=worker, done=done)
        return future

    async def refused(self, *records: Record, worker: str | None = None) -> StoreError:
        """Apply one batch that must fail, and accept batches again."""
        try:
            await self.post(records, worker=worker)
        except StoreError as error:
            self.store.proceed()
            return error
        raise AssertionError(f"this batch was accepted: {records!r:.500}")

    async def start(self, run_id: str, state: RunState = S.RUNNING, **fields: Any) -> int:
        """A new run in a state that a start can have; its number."""
        outcome: Started = await self.submit(started(run_id, state, **fields))
        expect(outcome.created, True, f"start of {run_id}")
        return outcome.number

    async def put(self, run_id: str, state: RunState) -> int:
        """A run in any state; its number."""
        if state in {S.SCHEDULED, S.READY}:
            return await self.start(run_id, state)
        number = await self.start(run_id)
        if state is S.PAUSED:
            await self.submit(PauseRequested(run_id, 5))
        moves: dict[RunState, Record] = {
            S.WAITING: RunParked(number, WORKER, FAR),
            S.PAUSED: RunPaused(number, WORKER),
            S.BLOCKED: blocked(number),
            **{end: ended(number, end) for end in ENDED},
        }
        if state in moves:
            await self.submit(moves[state])
        expect((await self.row(run_id)).state, state, f"putting {run_id} into its state")
        return number

    async def row(self, run_id: str) -> RunDetail:
        """The run's row, which must exist."""
        row = await self.store.detail(run_id)
        if row is None:
            raise AssertionError(f"run {run_id!r} is not there")
        return row

    async def states(self, *run_ids: str) -> list[str]:
        """The states of runs."""
        return [(await self.row(run_id)).state for run_id in run_ids]

    async def entries(self, number: int) -> list[EntryRecorded]:
        """A run's history."""
        return (await self.store.histories([number])).get(number, [])

    async def claim(self, *workflows: str, limit: int = 100, now: int = 10, worker: str = WORKER) -> list[RunRow]:
        """Claim runs; those that came, in the order they came."""
        rows: tuple[RunRow, ...] = await self.submit(RunsClaimed(worker, workflows or ("flow",), limit, now))
        return list(rows)


Check: TypeAlias = Callable[[Bench], Awaitable[None]]


async def run_check(check: Check, make: Factory) -> None:
    """Run one check against a new store."""
    bench = Bench(make(), make)
    await bench.store.open(on_change=bench.changes.set)
    try:
        for worker in (WORKER, OTHER):
            await bench.store.register_worker(worker, now=1, lease_until=FAR)
        await check(bench)
    finally:
        await bench.store.close()


def name_of(check: Check) -> str:
    """The check's name, for a parametrised test."""
    return check.__name__  # type: ignore[attr-defined]  # checks are functions


def started(run_id: str, state: RunState = S.RUNNING, **fields: Any) -> RunStarted:
    """A start in a state that a start can have; `fields` replace the usual ones."""
    running, due = state is S.RUNNING, FAR if state is S.SCHEDULED else None
    record = RunStarted(
        id=run_id,
        workflow="flow",
        state=state,
        input='{"x":1}',
        attributes=None,
        priority=0,
        seed=7,
        worker=WORKER if running else None,
        created_at=2,
        due_at=due,
        started_at=2 if running else None,
        timeout_us=None,
        deadline_at=None,
    )
    return record._replace(**fields)


def entry(run: int, seq: int, ordinal: int | None = None, **fields: Any) -> EntryRecorded:
    """An entry: with an ordinal a step that succeeded, without one a step under way."""
    state, output = ("pending", None) if ordinal is None else ("succeeded", str(seq))
    after = fields.pop("after", 0 if ordinal is None else ordinal - 1)
    record = EntryRecorded(run, seq, after, ordinal, "step", "work", state, "[1]", output, None, 1, 3, 4, None)
    return record._replace(**fields)


def ended(number: int, state: RunState = S.SUCCEEDED, **fields: Any) -> RunEnded:
    """An end."""
    output, error = ('"done"', None) if state is S.SUCCEEDED else (None, '{"type":"builtins:ValueError"}')
    return RunEnded(number, WORKER, state, output, error, None, 9, True)._replace(**fields)


def blocked(number: int, reason: str = "nondeterminism") -> RunBlocked:
    """A block, whatever further fields the record has."""
    values: dict[str, Any] = {"number": number, "worker": WORKER, "reason": reason, "error": "{}", "now": 9}
    return RunBlocked(**{name: values[name] for name in RunBlocked._fields})


def expect(found: object, wanted: object, what: str) -> None:
    """Compare; asserts of this module must hold under ``python -O`` too."""
    if found != wanted:
        raise AssertionError(f"{what}: wanted {wanted!r:.2000}, found {found!r:.2000}")


# The life of a run.

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
    "WorkerBuried": lambda _, __: WorkerBuried(WORKER, 20),
    "RunsUnblocked": lambda _, __: RunsUnblocked(OTHER, ("flow",)),
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
            after = await bench.row(run_id)
            if state in sources:
                expect(after != before, True, f"{kind} changes a run that is {state}")
                expect(after.state in targets, True, f"{kind} moves a run from {state} to {after.state}, in {sorted(targets)}")
            elif after != before:  # such as a running run whose pause is withdrawn: allowed only where the table says
                raise AssertionError(f"{kind} must leave a run alone that is {state}: {before!r} became {after!r}")
            await _remove(bench, run_id, number)


async def _remove(bench: Bench, run_id: str, number: int) -> None:
    """Bring the run to an end, so that it is in nobody's way; make its worker live again."""
    await bench.store.register_worker(f"{WORKER}x{number}", now=1, lease_until=FAR)
    for record in (CancelRequested(run_id, 30), *(ended(number, S.CANCELLED, worker=w) for w in (WORKER, OTHER))):
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


# Batches.


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
    failed, next_one, later = (bench.post([r]) for r in (entry(number, 1, 2, output="9"), entry(number, 2, 2), ended(number)))
    errors = await asyncio.gather(failed, next_one, later, return_exceptions=True)
    expect([type(error) for error in errors], [RecordRefused, Halted, Halted], "the errors")
    expect(cast(Halted, errors[1]).retryable, True, "whether it may be tried again")
    expect((await bench.row("a")).state, S.RUNNING, "the run")
    bench.store.proceed()
    await bench.submit(entry(number, 2, 2))


async def a_recorded_outcome_is_never_overwritten(bench: Bench) -> None:
    """Pending entries are replaced, outcomes are not: not by an outcome, not by something pending."""
    number = await bench.start("a")
    await bench.submit(entry(number, 1, attempts=1), entry(number, 2, kind="timer", name="timer", due_at=77))
    await bench.submit(entry(number, 1, attempts=2, due_at=50, error='"x"'))
    await bench.submit(entry(number, 1, 1, attempts=3))
    recorded = (await bench.entries(number))[0]
    expect((recorded.output, recorded.attempts, recorded.error), ("1", 3, None), "the outcome")
    for late in (entry(number, 1, 1, output="other"), entry(number, 1), entry(number, 1, 2, state="failed", error="{}")):
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
        numbers = [cast(Started, answer).number for answer in answers]
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
        found = await bench.store.list_runs(RunQuery(attributes=(("n", size - 1),), id_prefix=f"{size}-"), limit=9)
        expect([row.id for row in found], [ids[-1]], "by attribute")
        query = RunQuery(states=(S.WAITING,), id_prefix=f"{size}-")
        expect(await bench.store.count_runs(query), len(parking), "parked runs")


async def the_same_id_twice_is_one_run(bench: Bench) -> None:
    """In one batch and in two: the first start creates the run, later ones are told what is there."""
    first, second, third = await bench.submit(started("a"), started("a", input='{"x":2}'), started("b"))
    expect([first.created, second.created, third.created], [True, False, True], "created")
    expect((second.number, second.input, second.state), (first.number, '{"x":1}', S.RUNNING), "what is there")
    again = await bench.submit(started("a", S.READY, workflow="other", pairs=(("k", "v"),)))
    expect((again.created, again.workflow, again.number), (False, "flow", first.number), "a later start")
    expect(await bench.store.count_runs(RunQuery(attributes=(("k", "v"),))), 0, "attributes of a refused start")


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
    both = await bench.submit(started("succeeded", restart=True), started("twice", restart=True), started("twice", restart=True))
    expect([answer.created for answer in both], [False, True, False], "restarts in one batch")


# Workers and claims.


async def a_buried_worker_writes_nothing(bench: Bench) -> None:
    """Its runs are ready in the transaction that buries it, and from then on its batches are refused whole."""
    number = await bench.start("a")
    await bench.submit(entry(number, 1, 1), worker=WORKER)
    expect(await bench.submit(WorkerBuried(WORKER, 9), worker=OTHER), 1, "orphans")
    for record in (entry(number, 2, 2), ended(number), started("b"), CancelRequested("a", 9)):
        expect(type(await bench.refused(record, worker=WORKER)), Fenced, type(record).__name__)
    expect(await bench.store.detail("b"), None, "a start of the dead")
    (row,) = await bench.claim(worker=OTHER)
    expect((row.number, row.has_history, row.claims), (number, True, 1), "the run elsewhere")
    expect(len(await bench.entries(number)), 1, "its history")
    expect(await bench.store.renew_lease(WORKER, lease_until=FAR), False, "the lease of the dead")
    expect(type(await bench.refused(started("c"), worker="never")), Fenced, "an unknown worker")


async def a_worker_that_leaves_gives_its_runs_back(bench: Bench) -> None:
    """Whatever it held when it left is ready for others."""
    await bench.start("a")
    await bench.store.leave(WORKER, now=9)
    expect((await bench.row("a")).state, S.READY, "the run")
    expect([row.id for row in await bench.claim(worker=OTHER)], ["a"], "claimed elsewhere")
    expect(type(await bench.refused(started("b"), worker=WORKER)), Fenced, "a batch of the one that left")
    states = {row.id: row.state for row in await bench.store.workers()}
    expect(states, {WORKER: "left", OTHER: "live"}, "workers")
    expect(await bench.store.dead_workers(now=FAR * 2), [], "nobody is dead: one left, one is of this process")
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
    expect((row.id, row.started_at, row.deadline_at, row.claims), ("a", 40, 140, 1), "the first claim starts the clock")


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
    expect(await bench.submit(RunsUnblocked(WORKER, ("flow",))), 0, "by that worker")
    expect(await bench.store.has_blocked(OTHER, ["mystery"]), False, "for one that does not know it")
    expect(await bench.store.has_blocked(OTHER, ["flow"]), True, "for one that does")
    expect(await bench.submit(RunsUnblocked(OTHER, ("flow",))), 1, "by that one")
    expect(await bench.states("a", "b"), [S.READY, S.BLOCKED], "states")


# Going back, forks, generations.


async def retry_drops_the_failure_and_what_followed(bench: Bench) -> None:
    """Finished steps stay; the failed one, and what was called after it was seen, go; pending ones are open again."""
    number = await bench.start("a", timeout_us=50, deadline_at=52)
    await bench.submit(
        entry(number, 1, 1),
        entry(number, 2, 2, state="failed", error='"x"', output=None, after=1),
        entry(number, 3, 3, after=1),
        entry(number, 4, 4, after=2),
        entry(number, 5, None, after=1),
        ended(number, S.FAILED, failed_at=2),
    )
    expect([e.state for e in await bench.entries(number)][4], "cancelled", "what was pending at the end is closed")
    answer: Requested = await bench.submit(RetryRequested("a", 1000))
    expect((answer.before, answer.after), (S.FAILED, S.READY), "the answer")
    kept = await bench.entries(number)
    expect([(e.seq, e.state) for e in kept], [(1, "succeeded"), (3, "succeeded"), (5, "pending")], "what is kept")
    row = await bench.row("a")
    expect((row.error, row.ended_at, row.deadline_at), (None, None, 1050), "error, end, and a deadline anew")
    await bench.submit(ended((await bench.claim())[0].number))
    done: Requested = await bench.submit(RetryRequested("a", 2000))
    expect((done.before, done.after), (S.SUCCEEDED, S.SUCCEEDED), "a run that succeeded is left alone")


async def resume_of_a_cancelled_run_forgets_the_cancellation(bench: Bench) -> None:
    """And the clean-up that it led to, not the steps before it."""
    number = await bench.start("a")
    cancel = entry(number, -1, 2, kind="cancel", name="cancel", input=None, output=None)
    await bench.submit(entry(number, 1, 1), cancel, entry(number, 2, 3, after=2), ended(number, S.CANCELLED))
    await bench.submit(ResumeRequested("a", 20))
    expect([e.seq for e in await bench.entries(number)], [1], "what is kept")
    expect((await bench.row("a")).state, S.READY, "the state")


async def a_paused_schedule_waits_on_after_resume(bench: Bench) -> None:
    """Pausing a scheduled run does not bring its instant forward."""
    await bench.start("a", S.SCHEDULED, due_at=500)
    expect((await bench.submit(PauseRequested("a", 5))).after, S.PAUSED, "paused")
    expect(await bench.store.next_due(), None, "nothing is due while it is paused")
    expect((await bench.submit(ResumeRequested("a", 6))).after, S.SCHEDULED, "resumed early")
    await bench.submit(PauseRequested("a", 7))
    expect((await bench.submit(ResumeRequested("a", 600))).after, S.READY, "resumed late")


async def a_fork_keeps_what_came_before(bench: Bench) -> None:
    """Entries before the fork are copied with their order, the rest is not, and the source is untouched."""
    number = await bench.start("a", pairs=(("k", 1),), attributes='{"k":1}', priority=3, seed=42)
    history = [entry(number, i, i) for i in (1, 2, 3)]
    await bench.submit(*history, ended(number))
    expect(await bench.submit(RunForked("a", "f", 3, None, None, 5, 20)), Forked(None), "the fork")
    row = await bench.row("f")
    expect((row.state, row.forked_from, row.priority, row.input), (S.READY, "a", 3, '{"x":1}'), "its row")
    copied = await bench.entries(row.number)
    expect(copied, [e._replace(run=row.number) for e in history[:2]], "its history")
    expect(await bench.store.count_runs(RunQuery(attributes=(("k", 1),))), 2, "its attributes")
    await bench.submit(RunForked("a", "g", 2, '{"x":9}', '"edited"', 5, 20))
    row = await bench.row("g")
    expect([e.output for e in await bench.entries(row.number)], ["1", '"edited"'], "an edited result")
    expect(row.input, '{"x":9}', "edited arguments")
    seeds = {r.id: r.seed for r in await bench.claim()}
    expect(seeds, {"f": 42, "g": 42}, "what is kept goes on with the same random numbers")
    await bench.submit(RunForked("a", "fresh", 1, None, None, 5, 20))
    expect([(r.id, r.seed, r.has_history) for r in await bench.claim()], [("fresh", 5, False)], "a fork at the beginning")
    problems = [await bench.submit(RunForked(*names, None, None, 5, 20)) for names in (("no", "h", 1), ("a", "f", 1), ("a", "h", 9))]
    expect([answer.problem for answer in problems], ["no-source", "id-taken", "no-entry"], "what stands in the way")
    expect(await bench.entries(number), history, "the source")


async def a_new_generation_begins_empty(bench: Bench) -> None:
    """`continue_as_new`: the same run with new input, no history, and the deadline of the first."""
    number = await bench.start("a", timeout_us=90, deadline_at=92)
    await bench.submit(entry(number, 1, 1), RunContinued(number, WORKER, '{"x":2}', 99))
    (row,) = await bench.claim(now=10)
    expect((row.number, row.input, row.seed, row.generation), (number, '{"x":2}', 99, 1), "the next generation")
    expect((row.has_history, row.deadline_at), (False, 92), "history and deadline")


# Reading, text, life.


async def listings_filter_and_page(bench: Bench) -> None:
    """Newest first; every condition narrows; attribute values match by type."""
    pairs: tuple[tuple[str, str | int | float], ...]
    for place, pairs in enumerate(((("k", "1"),), (("k", 1),), (("k", 1.5), ("z", "é")), ())):
        await bench.start(f"run{place}", S.READY, workflow=f"flow{place % 2}", created_at=10 + place, pairs=pairs)
    queries = {
        RunQuery(): "3210",
        RunQuery(workflow="flow1"): "31",
        RunQuery(attributes=(("k", 1),)): "1",
        RunQuery(attributes=(("k", "1"),)): "0",
        RunQuery(attributes=(("k", 1.5), ("z", "é"))): "2",
        RunQuery(attributes=(("k", 1), ("z", "é"))): "",
        RunQuery(id_prefix="run2"): "2",
        RunQuery(id_prefix="RUN"): "",
        RunQuery(states=(S.READY, S.FAILED)): "3210",
        RunQuery(states=(S.FAILED,)): "",
        RunQuery(created_from=11, created_before=13): "21",
    }
    for query, wanted in queries.items():
        found = await bench.store.list_runs(query, limit=10)
        expect("".join(row.id[-1] for row in found), wanted, repr(query))
        expect(await bench.store.count_runs(query), len(wanted), f"count of {query!r}")
    newest = await bench.store.list_runs(RunQuery(), limit=2)
    rest = await bench.store.list_runs(RunQuery(before=newest[-1].number), limit=10)
    expect([row.id for row in (*newest, *rest)], ["run3", "run2", "run1", "run0"], "two pages")
    counts = {(c.workflow, c.state): c.runs for c in await bench.store.state_counts()}
    expect(counts, {("flow0", "ready"): 2, ("flow1", "ready"): 2}, "counts by state")
    await bench.put("end", S.FAILED)
    expect(await bench.store.ended_among(["run1", "end", "nobody"]), [("end", "failed")], "those that ended")
    expect(await bench.store.detail("nobody"), None, "no such run")


async def text_comes_back_as_it_was(bench: Bench) -> None:
    """Unicode beyond the first plane, control characters, NUL, quotes, and a payload of megabytes."""
    texts = ('"é𝄞日本\u202e"', '"a\x00b"', "\"it's \\\" $1 ? :x --\"", f'"{"x" * 5_000_000}"')
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
        by_prefix = await bench.store.list_runs(RunQuery(id_prefix=run_id), limit=5)
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
    expect([cast(Started, answer[0]).created for answer in answers], [True] * 20, "answers")
    await bench.store.close()


CHECKS: tuple[Check, ...] = (
    every_move_agrees_with_the_table,
    only_the_holder_moves_a_running_run,
    records_of_one_batch_are_applied_in_the_stated_order,
    requests_wait_in_the_row_for_the_holder,
    an_acknowledged_cancellation_survives_every_way_to_leave,
    a_withdrawn_pause_does_not_pause,
    a_batch_is_all_or_nothing,
    batches_are_applied_and_answered_in_order,
    after_a_failure_batches_are_refused_until_proceed,
    a_recorded_outcome_is_never_overwritten,
    the_same_batch_again_is_the_same_facts,
    many_records_in_one_batch,
    the_same_id_twice_is_one_run,
    restart_replaces_only_what_has_ended,
    a_buried_worker_writes_nothing,
    a_worker_that_leaves_gives_its_runs_back,
    claims_take_priority_then_first_come,
    claims_leave_unknown_workflows,
    due_runs_are_claimed_and_others_wait,
    runs_that_stand_aside_do_not_hold_up_timers,
    blocked_runs_are_for_other_workers,
    retry_drops_the_failure_and_what_followed,
    resume_of_a_cancelled_run_forgets_the_cancellation,
    a_paused_schedule_waits_on_after_resume,
    a_fork_keeps_what_came_before,
    a_new_generation_begins_empty,
    listings_filter_and_page,
    text_comes_back_as_it_was,
    what_cannot_be_stored_is_refused_alone,
    closing_finishes_what_was_submitted,
)
"""For every store."""


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
    expect(await bench.submit(WorkerBuried(WORKER, 9)), 1, "orphans")
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


SHARED_CHECKS: tuple[Check, ...] = (
    what_was_acknowledged_is_there_when_opened_again,
    another_connection_is_noticed,
)
"""For stores that several processes can share."""
