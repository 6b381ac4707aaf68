from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.kit import Gate, Seen, app_of, journal_of, opened, park, play, state_of, until_state, worker_of

from holdfast import Holdfast, RunConflict, Start, StoreError, UnknownWorkflow, current, sleep, step, workflow
from holdfast._runtime.dispatcher import LOOK_US_MIN
from holdfast.errors import StoreBusy

ORDER: list[int] = []


@step
async def note(number: int) -> int:
    ORDER.append(number)
    return number


@workflow
async def noting(number: int) -> int:
    return await note(number)


def test_with_one_place_runs_go_by_priority_then_first_come(tmp_path: Path) -> None:
    ORDER.clear()

    async def main() -> None:
        async with app_of(noting, at=tmp_path / "a.db").client() as client:
            for number, priority in enumerate((0, 3, -2, 3, 0)):
                await client.start(noting, number, priority=priority, id=f"r{number}")
        async with opened(noting, at=tmp_path / "a.db", runs_max=1) as app:
            await asyncio.gather(*(app.get(f"r{number}").result() for number in range(5)))
            assert ORDER == [1, 3, 0, 4, 2]

    play(main())


@pytest.mark.parametrize("by", ["delay", "timedelta", "at"])
def test_a_delayed_run_waits_for_its_instant(by: str) -> None:
    async def main() -> None:
        async with opened(noting) as app:
            instant = datetime.now(UTC) + timedelta(seconds=0.1)
            options = {"delay": {"delay": 0.1}, "timedelta": {"delay": timedelta(seconds=0.1)}, "at": {"at": instant}}
            run = await app.start(noting, 5, **options[by])
            described = await run.describe()
            assert described.state == "scheduled"
            assert described.due_at is not None
            assert described.due_at >= instant
            assert await run.result() == 5
            ended = await run.describe()
            assert ended.started_at is not None
            assert ended.started_at >= described.due_at

    play(main())


def test_an_instant_in_the_past_means_now() -> None:
    async def main() -> None:
        async with opened(noting) as app:
            run = await app.start(noting, 5, at=datetime(2001, 1, 1, tzinfo=UTC))
            assert await run.result() == 5

    play(main())


def test_a_run_of_an_unknown_workflow_waits_and_runs_once_it_is_known(tmp_path: Path) -> None:
    @workflow
    async def other() -> None: ...

    async def main() -> None:
        path = tmp_path / "a.db"
        async with app_of(at=path).client() as stranger:
            await stranger.start("noting", number=9, id="r")
            with pytest.raises(Exception, match="keyword"):
                await stranger.start("noting", 9)
        async with opened(other, at=path) as app:
            await app.run(other)
            assert await state_of(app, "r") == "ready"
            with pytest.raises(UnknownWorkflow, match="did you mean 'other'"):
                await app.start("othr")
            with pytest.raises(UnknownWorkflow):
                await app.start(noting, 1)
            app.include(noting)
            worker_of(app).dispatcher.poke()
            assert await app.get("r").result() == 9

    play(main())


def test_a_parked_run_wakes_when_due_and_after_a_restart(tmp_path: Path) -> None:
    @workflow
    async def flow() -> str:
        await sleep(0.15)
        await sleep(0.01)
        return current().run_id

    async def main() -> None:
        async with opened(flow, at=tmp_path / "a.db") as app:
            first = await app.start(flow, id="here")
            await app.start(flow, id="elsewhere")
            await park(app)
            assert await state_of(app, "here") == "waiting"
            assert not worker_of(app).executor.live
            assert await first.result() == "here"
        async with opened(flow, at=tmp_path / "a.db") as app:
            assert await app.get("elsewhere").result() == "elsewhere"
            kinds = [(e.kind, e.state) for e in await app.get("elsewhere").history()]
            assert kinds == [("timer", "succeeded"), ("timer", "succeeded")]

    play(main())


def test_quiet_runs_are_parked_by_themselves() -> None:
    @workflow
    async def flow() -> None:
        await sleep(3600)

    async def main() -> None:
        async with opened(flow, park_after=0) as app:
            run = await app.start(flow)
            await until_state(app, run.id, "waiting")

    play(main())


def test_another_clients_start_and_cancel_are_noticed_without_the_poll(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate()

        @step
        async def wait() -> None:
            await gate()

        @workflow
        async def flow() -> None:
            await wait()

        async with opened(flow, at=tmp_path / "a.db") as app, app_of(flow, at=tmp_path / "a.db").client() as client:
            await app.get((await app.start(noting_of(app), 1)).id).result()  # a waiter comes and goes
            worker_of(app).dispatcher._ticker._period = 3600
            worker_of(app).dispatcher.poke()
            run = await client.start(flow, id="r")
            await gate.came.wait()
            await run.cancel()
            await until_state(client, "r", "cancelled")

    play(main())


def noting_of(app: object) -> object:
    app.include(noting)  # type: ignore[attr-defined]
    return noting


def test_start_many_keeps_the_order_and_says_which_conflicts() -> None:
    async def main() -> None:
        async with opened(noting, runs_max=3) as app:
            runs = await app.start_many(Start(noting, number, id=f"r{number}") for number in range(50))
            assert [run.id for run in runs] == [f"r{number}" for number in range(50)]
            assert [await run.result() for run in runs] == [*range(50)]
            again = await app.start_many([Start(noting, 1, id="r1"), Start(noting, 2, id="r2")])
            assert [await run.result() for run in again] == [1, 2]
            with pytest.raises(RunConflict, match="r3"):
                await app.start_many([Start(noting, 99, id="r3")])
            assert await app.count() == 50

    play(main())


def test_runs_whose_history_cannot_be_read_are_given_back_and_claimed_again() -> None:
    @workflow
    async def flow() -> str:
        await sleep(3600)
        return "never"

    async def main() -> None:
        async with opened(flow) as app:
            run = await app.start(flow, id="r")
            await park(app)
            store = app._engine.store
            histories, failures = store.histories, [StoreBusy("read refused")]

            async def failing(numbers: object) -> object:
                if failures:
                    raise failures.pop()
                return await histories(numbers)  # type: ignore[arg-type]

            store.histories = failing  # type: ignore[method-assign, assignment]
            await run.cancel()
            await until_state(app, "r", "cancelled")
            assert not failures

    play(main())


@pytest.mark.parametrize("conflict", ["return", "raise", "restart"])
def test_the_same_id_is_the_same_run(conflict: str) -> None:
    @workflow
    async def other(number: int) -> int:
        return -number

    async def main() -> None:
        async with opened(noting, other) as app:
            first = await app.start(noting, 1, id="r")
            assert await first.result() == 1
            if conflict == "raise":
                with pytest.raises(RunConflict) as raised:
                    await app.start(noting, 1, id="r", on_conflict="raise")
                assert raised.value.run_id == "r"
            elif conflict == "return":
                assert await (await app.start(noting, 1, id="r")).result() == 1
                for workflow_, number in ((noting, 2), (other, 1)):
                    with pytest.raises(RunConflict):
                        await app.start(workflow_, number, id="r")
            else:
                again = await app.start(noting, 2, id="r", on_conflict="restart")
                assert await again.result() == 2
                assert await app.count() == 1
                assert len(await again.history()) == 1

    play(main())


def test_concurrent_starts_of_one_id_make_one_run() -> None:
    ORDER.clear()

    async def main() -> None:
        async with opened(noting) as app:
            runs = await asyncio.gather(*(app.start(noting, 7, id="r") for _ in range(50)))
            assert await asyncio.gather(*(run.result() for run in runs)) == [7] * 50
            assert ORDER == [7]

    play(main())


def test_a_start_whose_caller_is_cancelled_is_executed_all_the_same() -> None:
    async def main() -> None:
        async with opened(noting) as app:
            seen = Seen(app)
            starting = asyncio.create_task(app.start(noting, 3, id="r"))
            await asyncio.sleep(0)
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            await seen.until("run.ended")
            assert await app.get("r").result() == 3
            await journal_of(app).settle()
            assert not worker_of(app).executor.live

    play(main())


def test_a_store_error_is_what_callers_get_when_the_database_fails() -> None:
    async def main() -> None:
        async with opened(noting) as app:
            app._engine.journal.fail(StoreError("gone"))
            with pytest.raises(StoreError, match="gone"):
                await app.start(noting, 1)

    play(main())


def deafen(app: Holdfast) -> None:
    """Neither the poll nor other processes' writes make the worker look from here on."""
    worker = worker_of(app)
    worker.changed = lambda: None  # type: ignore[method-assign]
    worker.dispatcher._ticker._period = 3600


def test_a_slot_that_a_parked_run_frees_is_filled_without_the_poll(tmp_path: Path) -> None:
    @workflow
    async def sleeper() -> None:
        await sleep(3600)

    async def main() -> None:
        path = tmp_path / "a.db"
        async with opened(sleeper, noting, at=path, runs_max=1) as app, app_of(noting, at=path).client() as client:
            await app.start(sleeper, id="s")
            deafen(app)
            await client.start(noting, 1, id="n")
            await worker_of(app).dispatcher._turn()  # it is seen, and there is no room
            worker_of(app).dispatcher.poke()  # the turn under way ends, and the long period begins
            await asyncio.sleep(0)
            await park(app)
            await until_state(client, "n", "succeeded")

    play(main())


def test_a_slot_that_was_reserved_in_vain_is_filled_without_the_poll(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "a.db"
        async with opened(noting, at=path, runs_max=1) as app, app_of(noting, at=path).client() as client:
            await app.run(noting, 1, id="n1")
            deafen(app)
            worker_of(app).dispatcher.poke()
            journal, held = journal_of(app), []

            def holding(record: Any, then: Any) -> None:
                held.append((record, then))

            journal.append = holding  # type: ignore[method-assign]
            again = asyncio.create_task(app.start(noting, 1, id="n1"))
            while not held:
                await asyncio.sleep(0)
            await client.start(noting, 2, id="n2")
            await worker_of(app).dispatcher._turn()  # it is seen, and the only slot is reserved
            del journal.append
            journal.append(*held[0])
            await again
            await until_state(client, "n2", "succeeded")

    play(main())


def test_a_full_worker_does_not_spin_over_runs_that_are_due() -> None:
    @workflow
    async def sleeper() -> None:
        await sleep(0.01)

    async def main() -> None:
        gate = Gate()

        @step
        async def wait() -> None:
            await gate()

        @workflow
        async def holder() -> None:
            await wait()

        async with opened(sleeper, holder, runs_max=1) as app:
            run = await app.start(sleeper, id="s")
            await park(app)
            await app.start(holder, id="h")
            await gate.came.wait()
            dispatcher, store = worker_of(app).dispatcher, app._engine.store
            while (await store.next_due() or 0) > app._world.now_us():
                await asyncio.sleep(0)
            await dispatcher._turn()
            looks, began = 0, app._world.now_us()
            next_due = store.next_due

            async def counted() -> int | None:
                nonlocal looks
                looks += 1
                return await next_due()

            store.next_due = counted  # type: ignore[method-assign]
            for _ in range(200):
                await app.count()
            turns = 2 + (app._world.now_us() - began) // LOOK_US_MIN
            assert looks <= 3 * turns, "it looks again and again although there is no room"
            gate.open.set()
            await run.result()

    play(main())
