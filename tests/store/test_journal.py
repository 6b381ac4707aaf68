from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast._model.records import EntryRecorded, Outcome, Record, WorkerBuried
from holdfast._store.journal import Journal, JournalOptions
from holdfast._store.port import Done, Halted, RecordRefused, Store
from holdfast._store.sqlite import SqliteStore
from holdfast._store.uri import SqliteUri
from holdfast._world import SystemWorld
from holdfast.errors import Fenced, NotOpen, StoreBusy, StoreCorrupt, StoreError, StoreFull
from holdfast.testing.store_conformance.bench import FAR, WORKER, entry, started

BUSY = StoreBusy("another program holds the database")


class ImpatientWorld(SystemWorld):
    """Waits are noted, and over at once."""

    def __init__(self) -> None:
        self.delays_us: list[int] = []

    def call_later(self, delay_us: int, callback: Callable[[], object]) -> Callable[[], None]:
        self.delays_us.append(delay_us)
        return asyncio.get_running_loop().call_soon(callback).cancel


class PatientWorld(SystemWorld):
    """Waits are over when the test says so."""

    def __init__(self) -> None:
        self.waits: list[Callable[[], object]] = []

    def call_later(self, delay_us: int, callback: Callable[[], object]) -> Callable[[], None]:
        self.waits.append(callback)
        return lambda: self.waits.remove(callback)


class FaultyStore:
    """A real store whose commits fail when the test says so: before they are made, or with the answer lost after."""

    pipeline = 2

    def __init__(self, inner: SqliteStore) -> None:
        self.inner = inner
        self.before: deque[StoreError | None] = deque()
        self.after: deque[StoreError | None] = deque()
        self.gate = asyncio.Event()
        self.gate.set()
        self.tried: list[list[Record]] = []
        self.submitted = 0
        self._halted = False
        self._calls: asyncio.Queue[tuple[Sequence[Record], str | None, Done]] = asyncio.Queue()
        self._task = asyncio.create_task(self._work())

    def submit(self, batch: Sequence[Record], *, worker: str | None, done: Done) -> None:
        self.submitted += 1
        self._calls.put_nowait((batch, worker, done))

    def proceed(self) -> None:
        self._halted = False
        self.inner.proceed()

    async def _work(self) -> None:
        while True:
            batch, worker, done = await self._calls.get()
            await self.gate.wait()
            done(*await self._answer(batch, worker))

    async def _answer(self, batch: Sequence[Record], worker: str | None) -> tuple[Any, BaseException | None]:
        if self._halted:
            return None, Halted("an earlier batch failed")
        self.tried.append(list(batch))
        error = self.before.popleft() if self.before else None
        if error is None:
            outcomes, error = await self._commit(batch, worker)
            lost = self.after.popleft() if self.after and error is None else None
            if error is None and lost is None:
                return outcomes, None
            error = error or lost
        self._halted = True
        return None, error

    async def _commit(self, batch: Sequence[Record], worker: str | None) -> tuple[Any, BaseException | None]:
        future: asyncio.Future[tuple[Any, BaseException | None]] = asyncio.get_running_loop().create_future()
        self.inner.submit(batch, worker=worker, done=lambda *answer: future.set_result(answer))
        return await future

    async def close(self) -> None:
        self._task.cancel()
        await self.inner.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Fixture:
    def __init__(self, store: FaultyStore, world: SystemWorld, options: JournalOptions | None) -> None:
        self.store = store
        self.troubles: list[StoreError | None] = []
        self.breaks: list[BaseException] = []
        self.answers: list[tuple[Record, BaseException | None]] = []
        seam: Store = store  # type: ignore[assignment]
        self.journal = Journal(
            seam, world=world, options=options, on_trouble=self.troubles.append, on_broken=self.breaks.append
        )

    def append(self, *records: Record) -> None:
        for record in records:
            self.journal.append(record, lambda _, error, record=record: self.answers.append((record, error)))

    @property
    def acknowledged(self) -> list[Record]:
        return [record for record, error in self.answers if error is None]

    async def runs(self, count: int) -> list[int]:
        answers = [await self.journal.write(started(f"run{i}")) for i in range(count)]
        return [answer.number for answer in answers]

    async def stored(self, *numbers: int) -> dict[int, list[int]]:
        histories = await self.store.inner.histories(numbers)
        return {number: [e.seq for e in histories.get(number, [])] for number in numbers}


@asynccontextmanager
async def a_journal(
    *, world: SystemWorld | None = None, options: JournalOptions | None = None
) -> AsyncIterator[Fixture]:
    inner = SqliteStore(SqliteUri(path=None), world=SystemWorld())
    await inner.open(on_change=lambda: None)
    await inner.register_worker(WORKER, now=1, lease_until=FAR)
    store = FaultyStore(inner)
    try:
        yield Fixture(store, world or ImpatientWorld(), options)
    finally:
        await store.close()


def test_records_gather_while_a_batch_commits_and_share_the_next_one() -> None:
    async def main() -> None:
        async with a_journal() as j:
            (run,) = await j.runs(1)
            j.store.tried.clear()
            j.append(entry(run, 1, 1))
            await asyncio.sleep(0)
            j.append(*(entry(run, n, n) for n in range(2, 1001)))
            await j.journal.settle()
            assert [len(batch) for batch in j.store.tried] == [1, 999]
            assert j.acknowledged == [entry(run, n, n) for n in range(1, 1001)]

    asyncio.run(main())


def test_a_batch_has_at_most_batch_max_records_and_order_is_kept() -> None:
    async def main() -> None:
        async with a_journal(options=JournalOptions(batch_max=7)) as j:
            (run,) = await j.runs(1)
            j.store.tried.clear()
            j.append(*(entry(run, n, n) for n in range(1, 31)))
            await j.journal.settle()
            assert [len(batch) for batch in j.store.tried] == [7, 7, 7, 7, 2]
            assert [r.seq for batch in j.store.tried for r in batch if isinstance(r, EntryRecorded)] == [*range(1, 31)]

    asyncio.run(main())


def test_at_most_the_pipeline_is_under_way() -> None:
    async def main() -> None:
        async with a_journal(options=JournalOptions(batch_max=1)) as j:
            (run,) = await j.runs(1)
            j.store.gate.clear()
            j.store.submitted = 0
            j.append(*(entry(run, n, n) for n in range(1, 10)))
            for _ in range(5):
                await asyncio.sleep(0)
            assert j.store.submitted == 2
            j.store.gate.set()
            await j.journal.settle()
            assert j.store.submitted == 9

    asyncio.run(main())


def test_callers_wait_for_room_beyond_intake_max() -> None:
    async def main() -> None:
        async with a_journal(options=JournalOptions(batch_max=1, intake_max=5)) as j:
            (run,) = await j.runs(1)
            j.store.gate.clear()
            writers = [asyncio.create_task(j.journal.write(entry(run, n, n))) for n in range(1, 51)]
            for _ in range(10):
                await asyncio.sleep(0)
                assert len(j.journal._intake) <= 5
            assert not j.journal.has_room
            writers[-1].cancel()  # one that waits for room: its record was never accepted
            j.store.gate.set()
            await asyncio.gather(*writers, return_exceptions=True)
            assert (await j.stored(run))[run] == [*range(1, 50)]
            assert j.journal.has_room

    asyncio.run(main())


def test_cancelling_a_writer_does_not_take_its_record_back() -> None:
    async def main() -> None:
        async with a_journal() as j:
            (run,) = await j.runs(1)
            j.store.gate.clear()
            done, failing = (asyncio.create_task(j.journal.write(entry(run, n, n))) for n in (1, 2))
            j.append(entry(run, 2, 3, output="other"))
            await asyncio.sleep(0)
            done.cancel()
            failing.cancel()
            j.store.gate.set()
            await j.journal.settle()
            assert (await j.stored(run))[run] == [1, 2]

    asyncio.run(main())


def test_a_passing_failure_is_retried_in_order_and_nothing_is_acknowledged_meanwhile() -> None:
    async def main() -> None:
        world = ImpatientWorld()
        async with a_journal(world=world, options=JournalOptions(batch_max=1)) as j:
            (run,) = await j.runs(1)
            j.store.before.extend([BUSY, StoreFull("full"), BUSY, None, BUSY])
            j.append(*(entry(run, n, n) for n in range(1, 6)))
            await j.journal.settle()
            assert j.acknowledged == [entry(run, n, n) for n in range(1, 6)]
            assert (await j.stored(run))[run] == [1, 2, 3, 4, 5]
            assert [str(t) if t else None for t in j.troubles] == [str(BUSY), "full", str(BUSY), None, str(BUSY), None]
            assert world.delays_us == [20_000, 40_000, 80_000, 20_000]
            assert j.journal.trouble is None

    asyncio.run(main())


def test_the_back_off_is_bounded() -> None:
    async def main() -> None:
        world = ImpatientWorld()
        options = JournalOptions(backoff_first_ms=100, backoff_max_ms=300)
        async with a_journal(world=world, options=options) as j:
            j.store.before.extend([BUSY] * 5)
            await j.journal.write(started("a"))
            assert world.delays_us == [100_000, 200_000, 300_000, 300_000, 300_000]

    asyncio.run(main())


def test_nothing_is_sent_while_a_failed_batch_waits_for_its_siblings() -> None:
    async def main() -> None:
        world = PatientWorld()
        async with a_journal(world=world, options=JournalOptions(batch_max=1)) as j:
            (run,) = await j.runs(1)
            j.store.submitted = 0
            j.store.before.append(BUSY)
            j.append(*(entry(run, n, n) for n in range(1, 100)))
            while not world.waits:
                j.append(entry(run, 99 + len(j.journal._intake), None))  # a load that never pauses
                await asyncio.sleep(0)
            assert j.store.submitted == 2
            assert j.journal.trouble is BUSY

    asyncio.run(main())


def test_settle_waits_through_a_back_off() -> None:
    async def main() -> None:
        world = PatientWorld()
        async with a_journal(world=world) as j:
            j.store.before.append(BUSY)
            j.append(started("a"))
            settling = asyncio.create_task(j.journal.settle())
            while not world.waits:
                await asyncio.sleep(0)
            assert not settling.done()
            assert j.answers == []
            world.waits.pop()()
            await settling
            assert len(j.acknowledged) == 1

    asyncio.run(main())


def test_a_lost_acknowledgement_is_made_good() -> None:
    async def main() -> None:
        async with a_journal() as j:
            (run,) = await j.runs(1)
            j.store.after.append(BUSY)
            j.append(entry(run, 1, 1), entry(run, 2, 2), started("b"))
            await j.journal.settle()
            assert len(j.store.tried[-1]) == len(j.store.tried[-2]) == 3
            assert len(j.acknowledged) == 3
            assert (await j.stored(run))[run] == [1, 2]
            j.store.after.append(BUSY)
            again = await j.journal.write(started("c"))
            assert again.created, "the caller that started it must not be told that somebody else did"

    asyncio.run(main())


@pytest.mark.parametrize("place", [0, 1, 6, 12])
def test_a_poisoned_batch_is_split_until_only_the_bad_record_is_out(place: int) -> None:
    async def main() -> None:
        async with a_journal() as j:
            runs = await j.runs(13)
            bad = entry(runs[place], 1, 1, output="\ud800")
            records = [entry(run, 1, 1) for run in runs]
            records[place] = bad
            j.append(*records, *(entry(run, 2, 2) for run in runs))
            await j.journal.settle()
            refused = [(record, type(error)) for record, error in j.answers if error is not None]
            assert refused == [(bad, RecordRefused), (entry(runs[place], 2, 2), RecordRefused)]
            wanted = {run: [1, 2] for run in runs} | {runs[place]: []}
            assert await j.stored(*runs) == wanted
            assert j.breaks == []

    asyncio.run(main())


def test_later_records_of_a_refused_run_are_refused_wherever_they_wait() -> None:
    async def main() -> None:
        async with a_journal(options=JournalOptions(batch_max=2)) as j:
            bad, good = await j.runs(2)
            j.append(entry(bad, 1, 1, output="\ud800"), entry(good, 1, 1))
            j.append(entry(bad, 2, 2), entry(good, 2, 2), entry(bad, 3, 3), entry(good, 3, 3))
            await j.journal.settle()
            assert await j.stored(bad, good) == {bad: [], good: [1, 2, 3]}

    asyncio.run(main())


@pytest.mark.parametrize("cause", [Fenced("declared dead"), StoreCorrupt("damaged")])
def test_a_final_failure_refuses_everything_now_and_later(cause: StoreError) -> None:
    async def main() -> None:
        async with a_journal(options=JournalOptions(batch_max=1)) as j:
            (run,) = await j.runs(1)
            j.store.before.append(cause)
            j.append(*(entry(run, n, n) for n in range(1, 6)))
            await j.journal.settle()
            assert [error for _, error in j.answers] == [cause] * 5
            assert j.breaks == [cause]
            assert j.journal.broken is cause
            with pytest.raises(type(cause)):
                await j.journal.write(started("later"))
            assert (await j.stored(run))[run] == []

    asyncio.run(main())


def test_a_buried_worker_is_fenced_by_the_store_itself() -> None:
    async def main() -> None:
        async with a_journal() as j:
            (run,) = await j.runs(1)
            j.journal.worker = WORKER
            await j.journal.write(entry(run, 1, 1))
            await j.store._commit([WorkerBuried(WORKER, 9)], None)
            with pytest.raises(Fenced):
                await j.journal.write(entry(run, 2, 2))
            assert isinstance(j.breaks[0], Fenced)
            assert (await j.stored(run))[run] == [1]

    asyncio.run(main())


def test_waiters_for_room_are_released_when_the_journal_breaks() -> None:
    async def main() -> None:
        async with a_journal(options=JournalOptions(batch_max=1, intake_max=2)) as j:
            j.store.gate.clear()
            j.store.before.append(StoreCorrupt("damaged"))
            writers = [asyncio.create_task(j.journal.write(started(f"r{n}"))) for n in range(10)]
            await asyncio.sleep(0)
            j.store.gate.set()
            errors = await asyncio.gather(*writers, return_exceptions=True)
            assert {type(error) for error in errors} == {StoreCorrupt}

    asyncio.run(main())


def test_a_closed_journal_refuses_what_waits_and_what_comes() -> None:
    async def main() -> None:
        world = PatientWorld()
        async with a_journal(world=world) as j:
            j.store.before.append(BUSY)
            j.append(started("a"))
            while not world.waits:
                await asyncio.sleep(0)
            j.journal.close()
            j.journal.close()
            assert [type(error) for _, error in j.answers] == [NotOpen]
            with pytest.raises(NotOpen):
                await j.journal.write(started("b"))
            world.waits.pop()()
            assert j.store.submitted == 1

    asyncio.run(main())


def test_a_batch_that_fails_after_close_is_answered() -> None:
    async def main() -> None:
        world = PatientWorld()
        async with a_journal(world=world) as j:
            j.store.gate.clear()
            j.store.before.append(BUSY)
            writer = asyncio.create_task(j.journal.write(started("a")))
            while not j.store.submitted:
                await asyncio.sleep(0)
            j.journal.close()
            j.store.gate.set()
            while not (world.waits or writer.done()):
                await asyncio.sleep(0)
            for again in world.waits:
                again()
            await asyncio.sleep(0)
            assert writer.done(), "its caller waits for ever"
            with pytest.raises(StoreError if not isinstance(writer.exception(), NotOpen) else NotOpen):
                await writer

    asyncio.run(main())


def test_records_are_accepted_on_a_running_loop_only() -> None:
    async def main() -> Journal:
        async with a_journal() as j:
            return j.journal

    journal = asyncio.run(main())
    with pytest.raises(NotOpen):
        journal.append(started("a"), lambda _outcome, _error: None)


class Plan:
    """A random life of a journal: records of some runs, poison among them, and failing commits."""

    def __init__(self, data: st.DataObject) -> None:
        self.batch_max = data.draw(st.integers(1, 8))
        self.appends = data.draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 19)), min_size=1, max_size=40))
        self.before = data.draw(st.lists(st.booleans(), max_size=20))
        self.after = data.draw(st.lists(st.booleans(), max_size=20))
        self.pauses = data.draw(st.sets(st.integers(0, 40)))


@settings(max_examples=60, deadline=None, print_blob=True)
@given(st.data())
def test_whatever_fails_histories_have_no_holes_and_no_acknowledged_record_is_lost(data: st.DataObject) -> None:
    plan = Plan(data)

    async def main() -> None:
        async with a_journal(options=JournalOptions(batch_max=plan.batch_max)) as j:
            runs = await j.runs(4)
            j.store.before.extend(BUSY if fails else None for fails in plan.before)
            j.store.after.extend(BUSY if fails else None for fails in plan.after)
            seqs = dict.fromkeys(runs, 0)
            poisoned: set[int] = set()
            for place, (which, dice) in enumerate(plan.appends):
                run = runs[which]
                if run in poisoned and any(record.run == run and error for record, error in j.answers):  # type: ignore[union-attr]
                    continue  # the executor drops a run whose record was refused
                seqs[run] += 1
                if dice == 0:
                    poisoned.add(run)
                j.append(entry(run, seqs[run], seqs[run], output="\ud800" if dice == 0 else str(place)))
                if place in plan.pauses:
                    await asyncio.sleep(0)
            await j.journal.settle()
            stored = await j.stored(*runs)
            for run in runs:
                assert stored[run] == [*range(1, len(stored[run]) + 1)], f"a hole in {stored[run]}"
                told = [r.seq for r in j.acknowledged if isinstance(r, EntryRecorded) and r.run == run]
                assert told == stored[run]
                if run not in poisoned:
                    assert len(stored[run]) == seqs[run]
            assert len(j.answers) == sum(seqs.values())

    asyncio.run(main())


def test_outcomes_reach_the_record_that_they_answer() -> None:
    async def main() -> None:
        async with a_journal() as j:
            got: dict[str, Outcome] = {}
            (run,) = await j.runs(1)
            for record in (entry(run, 1, 1), started("x"), entry(run, 2, 2), started("y")):
                name = getattr(record, "id", str(getattr(record, "seq", "")))
                j.journal.append(record, lambda outcome, _, name=name: got.__setitem__(name, outcome))
            await j.journal.settle()
            assert got["1"] is None
            assert got["2"] is None
            x, y = got["x"], got["y"]
            assert (x.number, y.number) == (run + 1, run + 2)  # type: ignore[union-attr]

    asyncio.run(main())
