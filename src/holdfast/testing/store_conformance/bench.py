"""What every check gets: an open store, ways to write to it, and records with the usual values."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from holdfast._model.lifecycle import ENDED, RunState
from holdfast._model.query import parse
from holdfast._model.querykeys import conditions_of
from holdfast._model.records import (
    EntryRecorded,
    ExportedRun,
    Outcome,
    PauseRequested,
    Record,
    RunBlocked,
    RunEnded,
    RunParked,
    RunPaused,
    RunRow,
    RunsClaimed,
    RunStarted,
    Started,
)
from holdfast._model.runinfo import RunDetail
from holdfast._model.search import Condition, OneOf, Place, RunQuery, Scalar
from holdfast._store.port import Store
from holdfast._world import SystemWorld
from holdfast.errors import StoreError

S = RunState
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
        await self.move(number, run_id, state)
        expect((await self.row(run_id)).state, state, f"putting {run_id} into its state")
        return number

    async def move(self, number: int, run_id: str, state: RunState) -> None:
        """Bring a running run into another state."""
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
    return check.__name__


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
        seed=SystemWorld().seed(),
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


def search(text: str = "", *, now: int = 0, after: Place | None = None) -> RunQuery:
    """What a query asks of a store, with durations counted from `now`."""
    return RunQuery(conditions_of(parse(text), now=now), after)


def having(*pairs: tuple[str, Scalar]) -> RunQuery:
    """Runs with attributes of exactly these values, by type."""
    return RunQuery(tuple(Condition(key, OneOf((value,)), attribute=True) for key, value in pairs))


def exported(run_id: str, state: RunState = S.SUCCEEDED, **columns: Any) -> ExportedRun:
    """A run out of a file, with one entry and one attribute; `columns` are added to the usual ones."""
    usual: dict[str, Any] = {
        "id": run_id,
        "workflow": "flow",
        "state": state.value,
        "input": "{}",
        "seed": 7,
        "created_at": 2,
    }
    step: dict[str, Any] = {
        "seq": 1,
        "after": 0,
        "ordinal": 1,
        "kind": "step",
        "name": "work",
        "state": "succeeded",
        "attempts": 1,
    }
    return ExportedRun(tuple((usual | columns).items()), (("k", 1),), (tuple(step.items()),))


def expect(found: object, wanted: object, what: str) -> None:
    """Compare; asserts of this module must hold under ``python -O`` too."""
    if found != wanted:
        raise AssertionError(f"{what}: wanted {wanted!r:.2000}, found {found!r:.2000}")
