"""How a workflow ends, where it used asyncio in a plain function or forgot an `await`."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from tests.runtime.kit import opened, park, play

from holdfast import NotAllowedInWorkflow, sleep, step, workflow


@step
async def one() -> int:
    return 1


async def both() -> list[int]:
    return [await one(), await one()]


@workflow
def gathers_results() -> None:
    asyncio.gather(one(), one())


@workflow
def gathers_coroutines() -> None:
    asyncio.gather(both())


@workflow
def starts_a_task() -> None:
    asyncio.create_task(both())  # noqa: RUF006


@workflow
def starts_a_task_of_a_result() -> None:
    asyncio.create_task(one())  # noqa: RUF006


@workflow
def runs_a_loop() -> None:
    unused = both()
    try:
        asyncio.run(unused)
    finally:
        unused.close()


@workflow
def returns_a_sleep() -> Any:
    return asyncio.sleep(3600)


@workflow
def returns_a_future() -> Any:
    return asyncio.get_running_loop().create_future()


@pytest.mark.parametrize(
    "flow",
    [
        gathers_results,
        gathers_coroutines,
        starts_a_task,
        starts_a_task_of_a_result,
        runs_a_loop,
        returns_a_sleep,
        returns_a_future,
    ],
    ids=lambda flow: flow.name,
)
def test_asyncio_in_a_def_workflow_fails_it_with_the_way_out(flow: Any) -> None:
    async def main() -> None:
        async with opened(flow) as app:
            with pytest.raises(NotAllowedInWorkflow) as refused:
                await app.run(flow)
            told = str(refused.value)
            assert "`def`" in told
            assert "sleep with holdfast.sleep(...); to do several things at once, make the workflow `async def`" in told

    play(main())
    gc.collect()


def test_errors_of_the_def_workflow_itself_are_left_as_they_are() -> None:
    @workflow
    def own_type_error() -> None:
        raise TypeError("mine")

    @workflow
    def empty_queue() -> None:
        asyncio.Queue[int]().get_nowait()

    async def main() -> None:
        async with opened(own_type_error, empty_queue) as app:
            with pytest.raises(TypeError, match="mine"):
                await app.run(own_type_error)
            with pytest.raises(asyncio.QueueEmpty):
                await app.run(empty_queue)

    play(main())


def test_an_async_workflow_starts_tasks_and_a_def_one_beside_it_does_not_change_that() -> None:
    @workflow
    async def tasks() -> list[int]:
        return [*await asyncio.create_task(both()), *await asyncio.gather(one(), one())]

    @workflow
    def plain() -> Any:
        sleep(0.001)
        return one()

    async def main() -> None:
        async with opened(tasks, plain) as app:
            assert await asyncio.gather(app.run(tasks), app.run(plain)) == [[1, 1, 1, 1], 1]

    play(main())


def test_a_sleep_that_nobody_awaits_is_told_with_run_and_place(caplog: pytest.LogCaptureFixture) -> None:
    @workflow
    async def forgets() -> None:
        sleep(3600)
        awaited = sleep(0.001)
        await asyncio.gather(sleep(0.001), asyncio.ensure_future(sleep(0.001)))
        await awaited
        await one()

    async def main() -> None:
        async with opened(forgets) as app:
            await app.run(forgets, id="hasty")

    play(main())
    gc.collect()
    told = [record for record in caplog.records if "ended without awaiting" in record.getMessage()]
    assert len(told) == 1
    message = told[0].getMessage()
    assert message.startswith(f"run hasty: ended without awaiting sleep(3600) at {__file__}:")
    assert message.endswith("in forgets, which did not count: write `await`")
    assert vars(told[0])["run_id"] == "hasty"


def test_many_sleeps_at_once_are_not_taken_for_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    @workflow
    async def many() -> None:
        for _ in range(3):
            await asyncio.gather(*(sleep(0.001) for _ in range(50)))

    async def main() -> None:
        async with opened(many) as app:
            await app.run(many)

    play(main())
    assert "ended without awaiting" not in caplog.text


def test_a_run_that_leaves_memory_before_it_awaits_its_sleep_warns_of_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @workflow
    async def flow() -> str:
        later = sleep(0.001)
        await sleep(0.2)
        await later
        return "slept twice"

    async def main() -> None:
        async with opened(flow) as app:
            run = await app.start(flow)
            await park(app)
            assert await run.result() == "slept twice"

    play(main())
    gc.collect()
    assert "awaiting" not in caplog.text
