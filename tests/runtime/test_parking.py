"""Which runs leave memory while they wait, when, and with what effect: none."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.runtime.kit import Gate, app_of, journal_of, opened, park, play, state_of, until_state, worker_of

from holdfast import Holdfast, Retry, RunCancelled, Start, current, sleep, step, workflow
from holdfast._runtime.memory import Memory

TOUCHED: list[str] = []


@step
async def touch(word: str) -> str:
    TOUCHED.append(word)
    return word


@workflow
async def wait(seconds: float) -> float:
    await sleep(seconds)
    return seconds


async def quiet(app: Holdfast, count: int) -> None:
    """Until so many runs are quiet in memory."""
    live = worker_of(app).executor.live
    while sum(run.quiet_since is not None for run in live.values()) < count:
        await asyncio.sleep(0)


async def waiting(app: Holdfast) -> list[str]:
    await journal_of(app).settle()
    return sorted(info.id for info in await app.list(state="waiting"))


def test_of_more_quiet_runs_than_are_cached_those_that_wake_last_are_parked() -> None:
    async def main() -> None:
        async with opened(wait, park_after=3600, runs_cached_max=2) as app:
            await app.start_many(Start(wait, 3600.0 + number, id=f"r{number}") for number in range(5))
            await quiet(app, 5)
            worker_of(app).parking.park_quiet()
            assert await waiting(app) == ["r2", "r3", "r4"]
            worker_of(app).parking.park_quiet()
            assert await waiting(app) == ["r2", "r3", "r4"], "two are within the bound"

    play(main())


def test_when_memory_is_short_every_quiet_run_is_parked_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    used = [0]

    async def main() -> None:
        async with opened(wait, park_after=3600) as app:
            parking = worker_of(app).parking
            parking._memory = Memory(1_000_000, resident=lambda: used[0])
            await app.start_many(Start(wait, 3600.0, id=f"r{number}") for number in range(3))
            await quiet(app, 3)
            parking.park_quiet()
            assert await waiting(app) == []
            used[0] = 1_000_001
            parking.park_quiet()
            parking.park_quiet()
            assert await waiting(app) == ["r0", "r1", "r2"]

    with caplog.at_level(logging.WARNING, logger="holdfast.engine"):
        play(main())
    assert [record.message for record in caplog.records] == [
        "memory is short (more than 1 MB in use): runs that wait are parked at once"
    ]


def test_the_bound_of_the_options_is_the_one_that_counts() -> None:
    async def main() -> None:
        async with opened(wait, park_after=3600, memory_max=1) as app:
            await app.start(wait, 3600.0, id="r")
            await until_state(app, "r", "waiting")

    play(main())


def test_a_full_worker_parks_what_waits_for_long_and_executes_what_is_ready() -> None:
    async def main() -> None:
        async with opened(wait, park_after=3600, runs_max=3) as app:
            await app.start_many(Start(wait, 3600.0, id=f"long{number}") for number in range(3))
            run = await app.start(wait, 0.0, id="short")
            assert await run.result() == 0.0
            assert await state_of(app, "short") == "succeeded"

    play(main())


def test_a_full_worker_keeps_what_wakes_soon() -> None:
    async def main() -> None:
        async with opened(wait, park_after=3600, runs_max=2) as app:
            await app.start_many(Start(wait, seconds, id=f"r{seconds:g}") for seconds in (0.9, 3600.0))
            await quiet(app, 2)
            worker_of(app).parking.make_room()
            assert await waiting(app) == ["r3600"]

    play(main())


def test_finally_blocks_of_a_parked_run_have_no_effect_until_it_really_ends(tmp_path: Path) -> None:
    TOUCHED.clear()
    left: list[str] = []

    @workflow
    async def tidy() -> str:
        try:
            await touch("begin")
            await sleep(3600)
        finally:
            left.append("finally")
            await touch("clean")
            await sleep(0.001)
            left.append("cleaned")
        return "never"

    async def main() -> None:
        async with opened(tidy, at=tmp_path / "a.db") as app:
            run = await app.start(tidy, id="r")
            await quiet(app, 1)
            await journal_of(app).settle()
            before = [(entry.kind, entry.name) for entry in await run.history()]
            await park(app)
            assert left == ["finally"], "the block ran when the coroutine was closed"
            assert TOUCHED == ["begin"], "its step was refused"
            entries = [(entry.kind, entry.name, entry.state) for entry in await run.history()]
            assert before == [("step", "touch")]
            assert entries == [("step", "touch", "succeeded"), ("timer", "timer", "pending")]
            await run.cancel()
            await until_state(app, "r", "cancelled")
            assert TOUCHED == ["begin", "clean"]
            assert left == ["finally", "finally", "cleaned"]

    play(main())


def test_a_cancelled_run_that_waits_while_it_cleans_up_is_parked_once() -> None:
    lives: list[str] = []

    @workflow
    async def slow_to_leave() -> None:
        lives.append("life")
        try:
            await sleep(3600)
        finally:
            await sleep(3600)

    async def main() -> None:
        async with opened(slow_to_leave, park_after=0) as app:
            run = await app.start(slow_to_leave, id="r")
            await until_state(app, "r", "waiting")
            await run.cancel()
            while len(lives) < 2:
                await asyncio.sleep(0)
            await until_state(app, "r", "waiting")
            first, worker = len(lives), worker_of(app)
            for _ in range(3):
                worker.parking.park_quiet()
                worker.dispatcher.poke()
                await asyncio.sleep(0.02)
            assert (await run.describe()).due_at is not None
            assert len(lives) == first, "nothing wakes it before its time"

    play(main())


def test_a_run_past_its_deadline_is_parked_while_it_cleans_up() -> None:
    @workflow
    async def slow_to_leave() -> None:
        try:
            await sleep(3600)
        finally:
            await sleep(7200)

    async def main() -> None:
        async with opened(slow_to_leave, park_after=0) as app:
            run = await app.start(slow_to_leave, id="r", timeout=0.05)
            while "deadline" not in [entry.kind for entry in await run.history()]:
                await asyncio.sleep(0.01)
            await until_state(app, "r", "waiting")
            info = await run.describe()
            assert info.due_at is not None
            assert info.deadline_at is not None
            assert info.due_at > info.deadline_at

    play(main())


def test_new_work_passes_the_many_timers_that_are_due(tmp_path: Path) -> None:
    order: list[str] = []

    @workflow
    async def due(number: int) -> None:
        order.append("due")

    @workflow
    async def new() -> None:
        order.append("new")

    async def main() -> None:
        async with app_of(due, new, at=tmp_path / "a.db").client() as client:
            await client.start_many(Start(due, number, delay=0.001) for number in range(2000))
            await client.start(new, id="new")
            await asyncio.sleep(0.01)
            async with opened(due, new, at=tmp_path / "a.db") as app:
                await app.get("new").result()
                place = order.index("new")
                assert place < 1000, f"{place} of 2000 due timers came before it"
                while await app.count(state="succeeded") < 2001:
                    await asyncio.sleep(0.01)

    play(main())


def test_an_attempt_that_is_due_before_its_record_is_durable_waits_for_that_and_is_not_parked(tmp_path: Path) -> None:
    """The alarm rings while another program holds the file: the body must not begin, nor the run leave without it."""

    async def main() -> None:
        gate = Gate()
        attempts: list[int] = []

        @step(retry=Retry(attempts=2, first_delay=0.01, jitter=0))
        async def flaky() -> str:
            attempts.append(current().attempt)
            if len(attempts) == 1:
                await gate()
                raise ValueError("not yet")
            return "done"

        @workflow
        async def flow() -> str:
            return await flaky()

        async with opened(flow, at=tmp_path / "a.db") as app:
            run = await app.start(flow)
            await gate.came.wait()
            await journal_of(app).settle()
            (live,) = worker_of(app).executor.live.values()
            with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
                other.execute("begin immediate")
                gate.open.set()
                while not live.held:
                    await asyncio.sleep(0.001)
                assert live.undurable == 1
                if live.quiet_since is not None:
                    live.quiet_since = 0
                worker_of(app).parking.park_quiet()
                assert attempts == [1]
                other.execute("rollback")
            assert await run.result() == "done"
            assert attempts == [1, 2]

    play(main())


def test_a_run_that_is_told_to_stop_while_it_is_about_to_be_parked_goes_on_with_its_clean_up() -> None:
    async def main() -> None:
        gate = Gate()

        @step
        async def first() -> None:
            await gate()

        @workflow
        async def flow() -> None:
            await first()
            try:
                await sleep(3600)
            finally:
                await touch("clean")

        TOUCHED.clear()
        async with opened(flow) as app:
            run = await app.start(flow)
            await gate.came.wait()
            executor, parking = worker_of(app).executor, worker_of(app).parking
            (live,) = executor.live.values()
            gate.open.set()
            while live.quiet_since is None:
                await asyncio.sleep(0)
            assert live.undurable, "its outcome is not durable yet, so it cannot leave at once"
            executor.leave(live, parking._parked)
            cancelling = asyncio.create_task(run.cancel())
            executor.request(live.row.number, "cancel")  # as the dispatcher tells what another process asked for
            await cancelling
            with pytest.raises(RunCancelled):
                await run.result(timeout=10)
            assert TOUCHED == ["clean"]

    play(main())


def test_a_run_that_cleans_up_is_quiet_although_its_cancellation_is_told_again_with_every_look() -> None:
    @workflow
    async def flow() -> None:
        try:
            await sleep(3600)
        finally:
            await sleep(3600)

    async def main() -> None:
        async with opened(flow) as app:
            run = await app.start(flow)
            await quiet(app, 1)
            await run.cancel()
            executor = worker_of(app).executor
            (live,) = executor.live.values()
            while live.activation.cancel_kind is None:
                await asyncio.sleep(0)
            live.quiet_since = 1
            executor.request(live.row.number, "cancel")
            assert live.quiet_since == 1

    play(main())
