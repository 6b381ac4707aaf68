"""Bounds, odd values and defects: what must not stop the other runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.runtime.kit import Gate, app_of, opened, play, until_state

from holdfast import Holdfast, JournalOptions, Retry, Start, UsageError, WorkflowError, sleep, step, workflow


@step
async def echo(value: Any) -> Any:
    return value


@workflow
async def busy(number: int) -> int:
    total = 0
    for place in range(5):
        total += await echo(place)
        await sleep(0.001)
    return total + number


def test_a_journal_that_is_nearly_always_full_slows_down_and_loses_nothing() -> None:
    async def main() -> None:
        app = Holdfast("sqlite://", journal=JournalOptions(batch_max=2, intake_max=4))
        app.include(busy)
        async with app:
            runs = await app.start_many(Start(busy, number) for number in range(60))
            assert [await run.result() for run in runs] == [10 + number for number in range(60)]

    play(main())


def test_timeouts_that_do_not_come_to_pass_are_forgotten() -> None:
    @workflow
    async def flow() -> int:
        total = 0
        for _ in range(120):
            async with asyncio.timeout(3600):
                async with asyncio.TaskGroup() as group:
                    for _ in range(100):
                        group.create_task(limited())
                total += 1
        return total

    async def limited() -> None:
        async with asyncio.timeout(3600):
            await asyncio.sleep(0)

    async def main() -> None:
        async with opened(flow) as app:
            run = await app.start(flow)
            assert await run.result() == 120
            assert await run.history() == [], "a timer that was cancelled before it was due costs no row"

    play(main())


def test_async_generators_of_a_workflow_live_as_long_as_the_run() -> None:
    @workflow
    async def flow() -> list[int]:
        async def numbers() -> AsyncIterator[int]:
            for number in range(3):
                yield await echo(number)

        first = numbers()
        got = [await anext(first)]  # left suspended
        return got + [number async for number in numbers()]

    async def main() -> None:
        async with opened(flow) as app:
            assert await app.run(flow) == [0, 0, 1, 2]

    play(main())


class OddRetry(Retry):
    """A policy of the user's own, with a fault."""

    def delay_us(self, *, attempt: int, chance: float) -> int:
        raise ZeroDivisionError("in the policy")


def test_a_fault_over_one_run_sets_that_aside_and_others_go_on() -> None:
    async def main() -> None:
        gate = Gate()

        @step(retry=OddRetry(attempts=3))
        async def fail() -> None:
            raise ValueError("once")

        @step
        async def wait() -> str:
            await gate()
            return "unharmed"

        @workflow
        async def failing() -> None:
            await fail()

        @workflow
        async def other() -> str:
            return await wait()

        async with opened(failing, other) as app:
            unharmed = await app.start(other)
            await gate.came.wait()
            run = await app.start(failing)
            await until_state(app, run.id, "blocked")
            described = await run.describe()
            assert described.error is not None
            assert "in the policy" in described.error.message
            gate.open.set()
            assert await unharmed.result() == "unharmed"

    play(main())


@pytest.mark.parametrize("text", ["a\x00b", "é𝄞", "\u2028", "x" * 300_000])
def test_text_comes_back_as_it_was(text: str) -> None:
    @workflow
    async def flow(value: str) -> list[str]:
        return [value, await echo(value)]

    async def main() -> None:
        async with opened(flow) as app:
            assert await app.run(flow, text) == [text, text]

    play(main())


@pytest.mark.parametrize("where", ["argument", "step", "result", "step error", "error"])
def test_half_a_character_is_refused_or_kept_and_never_hangs_a_run(where: str) -> None:
    half = "\ud800"

    @step
    async def fail() -> None:
        raise ValueError(half)

    @workflow
    async def flow(value: str) -> Any:
        if where == "step":
            await echo(half)
        if where == "step error":
            await fail()
        if where == "error":
            raise ValueError(half)
        return half

    async def main() -> None:
        async with opened(flow) as app:
            if where == "argument":
                with pytest.raises(UsageError):
                    await app.start(flow, half)
                return
            run = await app.start(flow, "")
            with pytest.raises((UsageError, WorkflowError)):  # kept as text where it cannot be rebuilt
                await run.result()
            assert (await run.describe()).state == "failed"

    play(main())


def test_a_wide_run_shares_commits() -> None:
    @workflow
    async def flow() -> int:
        return len(await asyncio.gather(*(echo(number) for number in range(2000))))

    async def main() -> None:
        app = app_of(flow)
        async with app:
            assert await app.run(flow) == 2000
            assert app._engine.journal.committed < 200

    play(main())
