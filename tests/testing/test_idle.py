"""Idle means: nothing ready, running or due now; what waits is rows."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

import holdfast.testing.idle as idle_module
from holdfast import (
    Holdfast,
    NotOpen,
    RunState,
    SyncClient,
    UsageError,
    WaitTimeout,
    WorkerOptions,
    sleep,
    step,
    workflow,
)
from holdfast._runtime.options import ExecutorOptions
from holdfast.testing import Clock, play, run_until_idle, run_until_idle_sync

MakeApp = Callable[..., Holdfast]
GATE = threading.Event()


@step
async def work(n: int) -> int:
    await asyncio.sleep(0.01)
    return n


@step
def stuck() -> None:
    GATE.wait(30)


@workflow
async def works_then_sleeps(n: int) -> int:
    for number in range(n):
        await work(number)
    await sleep(86_400)
    return n


@workflow
async def gets_stuck() -> None:
    await stuck()


@workflow
async def never_rests() -> None:
    while True:
        await work(1)


CHANGED: list[int] = []


@workflow
async def changes() -> None:
    await work(len(CHANGED))
    await sleep(10)
    await work(2)


@workflow
async def sleeps_an_hour_in_a_step() -> None:
    await an_hour()


@step
async def an_hour() -> None:
    await asyncio.sleep(3600)


def test_everything_is_done_and_what_waits_is_parked(holdfast_app: MakeApp) -> None:
    async def main() -> None:
        options = WorkerOptions(execution=ExecutorOptions(runs_max=3))  # most must wait for a place
        async with holdfast_app(works_then_sleeps, worker=options) as app:
            for n in range(10):
                await app.start(works_then_sleeps, n)
            await run_until_idle(app)
            assert await app.count(state=RunState.WAITING) == 10
            assert app._engine.worker is not None
            assert app._engine.worker.executor.live == {}
            runs = await app.list()
            await app.get(runs[0].id).cancel()
            await run_until_idle(app)
            assert await app.count(state=RunState.CANCELLED) == 1

    asyncio.run(main())


def test_blocking_code_waits_too(holdfast_sync: Callable[..., SyncClient]) -> None:
    client = holdfast_sync(works_then_sleeps)
    run = client.start(works_then_sleeps, 2)
    run_until_idle_sync(client)
    assert run.describe().state == RunState.WAITING


def test_in_virtual_time_only_bodies_let_time_pass() -> None:
    async def main(clock: Clock) -> None:
        begin = clock.now()
        async with clock.app(works_then_sleeps, sleeps_an_hour_in_a_step) as app:
            run = await app.start(works_then_sleeps, 0)
            await run_until_idle(app)
            assert clock.now() == begin
            assert (await run.describe()).state == RunState.WAITING
            await app.start(sleeps_an_hour_in_a_step)
            await run_until_idle(app)
            assert (clock.now() - begin).total_seconds() == 3600

    play(main)


def test_what_is_due_later_paused_or_blocked_is_idle_and_left_alone() -> None:
    async def main(clock: Clock) -> None:
        begin = clock.now()
        async with clock.app(works_then_sleeps, changes) as app:
            paused = await app.start(works_then_sleeps, 5)
            await paused.pause()
            later = await app.start(works_then_sleeps, 1, delay=30 * 86_400)
            CHANGED.clear()
            blocked = await app.start(changes)
            await run_until_idle(app)
            CHANGED.append(1)
            await clock.advance(60)
            await run_until_idle(app)
            assert (await paused.describe()).state == RunState.PAUSED
            assert (await later.describe()).state == RunState.SCHEDULED
            assert (await blocked.describe()).state == RunState.BLOCKED
            assert (clock.now() - begin).total_seconds() < 61
            with pytest.raises(WaitTimeout, match=r"; it is paused .*resume"):
                await paused.result(timeout=0)
            with pytest.raises(WaitTimeout, match=r"(?s)it is blocked \(nondeterminism\): .*recorded: .*requested: "):
                await blocked.result(timeout=0)
            with pytest.raises(WaitTimeout, match=r"it is scheduled .hint: it goes on"):
                await later.result(timeout=0)
            await paused.resume()
            await run_until_idle(app)
            assert (await paused.describe()).state == RunState.WAITING
            assert len(await paused.history()) == 6

    play(main)


def test_in_virtual_time_too_the_real_clock_bounds_what_is_never_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle_module, "SECONDS", 0.2)

    async def main(clock: Clock) -> None:
        async with clock.app(never_rests) as app:
            run = await app.start(never_rests)
            with pytest.raises(AssertionError, match=f"not idle after 0.2 s: .*{run.id}"):
                await run_until_idle(app)
            await run.cancel()

    play(main)


def test_what_never_ends_is_named(holdfast_app: MakeApp) -> None:
    async def main() -> None:
        async with holdfast_app(gets_stuck) as app:
            run = await app.start(gets_stuck)
            with pytest.raises(AssertionError, match=f"stuck of run {run.id}"):
                await run_until_idle(app, timeout=0.05)
            GATE.set()
            await run_until_idle(app)
            assert (await run.describe()).state == RunState.SUCCEEDED

    asyncio.run(main())


def test_only_an_open_app_that_executes_can_be_idle(holdfast_app: MakeApp) -> None:
    async def main() -> None:
        app = holdfast_app(works_then_sleeps)
        with pytest.raises(NotOpen):
            await run_until_idle(app)
        async with app.client() as client:
            with pytest.raises(UsageError, match="executes nothing"):
                await run_until_idle(client)
        wrong: Any
        for wrong in (None, app.sync(), works_then_sleeps):
            with pytest.raises(UsageError, match="takes an app"):
                await run_until_idle(wrong)
        with pytest.raises(UsageError, match="sync"):
            run_until_idle_sync(app)  # type: ignore[arg-type]
        with pytest.raises(NotOpen):
            run_until_idle_sync(app.sync())

    asyncio.run(main())
