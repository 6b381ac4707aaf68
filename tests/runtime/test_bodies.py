from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.runtime.kit import Gate, Seen, opened, play, until_state, worker_of

from holdfast import Retry, RunCancelled, StepFailed, StepTimeout, current, step, workflow
from holdfast._runtime.bodies import Body, BodyTask
from holdfast._runtime.events import Event


def test_an_async_body_that_is_late_is_cancelled_and_the_step_fails() -> None:
    async def main() -> None:
        gate = Gate()
        cancelled: list[bool] = []

        @step(timeout=0.02)
        async def slow() -> None:
            try:
                await gate()
            except asyncio.CancelledError:
                cancelled.append(True)
                raise

        @workflow
        async def flow() -> str:
            try:
                await slow()
            except StepTimeout as late:
                return str(late)
            return "in time"

        async with opened(flow) as app:
            run = await app.start(flow)
            assert "took longer than its timeout of 0.02 s" in await run.result()
            assert cancelled == [True]
            assert [e.error.type for e in await run.history() if e.error] == ["holdfast.errors:StepTimeout"]

    play(main())


def test_a_timeout_is_fresh_for_each_attempt() -> None:
    async def main() -> None:
        attempts: list[int] = []

        @step(timeout=0.02, retry=Retry(attempts=3, first_delay=0))
        async def slow() -> int:
            attempts.append(current().attempt)
            if len(attempts) < 3:
                await asyncio.Event().wait()
            return len(attempts)

        @workflow
        async def flow() -> int:
            return await slow()

        async with opened(flow) as app:
            assert await app.run(flow) == 3

    play(main())


def test_a_timeout_error_of_the_bodys_own_is_not_taken_for_the_steps() -> None:
    @step(timeout=5)
    async def work() -> None:
        raise TimeoutError("the service's")

    @workflow
    async def flow() -> str:
        try:
            await work()
        except TimeoutError as error:
            return f"{type(error).__name__}: {error}"
        return ""

    async def main() -> None:
        async with opened(flow) as app:
            assert await app.run(flow) == "TimeoutError: the service's"

    play(main())


def test_a_late_thread_is_abandoned_counted_and_its_outcome_dropped() -> None:
    async def main() -> None:
        release = threading.Event()
        back = threading.Event()

        @step(timeout=0.02)
        def stuck() -> str:
            release.wait()
            back.set()
            return "too late"

        @step
        def quick() -> str:
            return "quick"

        @workflow
        async def flow() -> str:
            try:
                return await stuck()
            except StepTimeout:
                return await quick()

        async with opened(flow, threads_max=1) as app:
            run = await app.start(flow)
            assert await run.result() == "quick", "the only thread was written off, so another took its place"
            assert worker_of(app).executor.bodies.threads.abandoned == 1
            assert worker_of(app).executor.bodies.active == 0
            release.set()
            await asyncio.to_thread(back.wait)
            while worker_of(app).executor.bodies.threads.abandoned:
                await asyncio.sleep(0)
            assert [e.state for e in await run.history()] == ["failed", "succeeded"]

    play(main())


def test_the_time_of_a_def_step_begins_with_its_thread_not_in_the_line() -> None:
    async def main() -> None:
        release = threading.Event()
        began = threading.Event()

        @step
        def hold() -> None:
            began.set()
            release.wait()

        @step(timeout=0.05)
        def quick() -> str:
            return "in time"

        @workflow
        async def holding() -> None:
            await hold()

        @workflow
        async def flow() -> str:
            return await quick()

        async with opened(holding, flow, threads_max=1) as app:
            first = await app.start(holding)
            await asyncio.to_thread(began.wait)
            second = await app.start(flow)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(second.result())), 0.2)
            release.set()
            assert await second.result() == "in time"
            await first.result()

    play(main())


def test_a_body_in_line_that_is_cancelled_never_starts() -> None:
    async def main() -> None:
        gate = Gate()
        did: list[int] = []

        @step
        async def hold() -> None:
            await gate()

        @step
        async def work() -> None:
            did.append(1)

        @workflow
        async def holding() -> None:
            await hold()

        @workflow
        async def flow() -> None:
            await work()

        async with opened(holding, flow, bodies_max=1) as app:
            first = await app.start(holding)
            await gate.came.wait()
            second = await app.start(flow)
            await second.cancel()
            await until_state(app, second.id, "cancelled")
            gate.open.set()
            await first.result()
            assert did == []

    play(main())


def test_the_loser_of_a_race_is_cancelled_and_its_outcome_dropped() -> None:
    async def main() -> None:
        gate = Gate()
        ended: list[str] = []

        @step
        async def slow() -> str:
            try:
                await gate()
            finally:
                ended.append("slow")
            return "slow"

        @step
        async def fast() -> str:
            await gate.came.wait()
            return "fast"

        @workflow
        async def flow() -> str:
            calls = [asyncio.ensure_future(slow()), asyncio.ensure_future(fast())]
            done, pending = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            for call in pending:
                call.cancel()
            return done.pop().result()

        async with opened(flow) as app:
            run = await app.start(flow)
            assert await run.result() == "fast"
            while not ended:
                await asyncio.sleep(0)
            assert [(e.name, e.state) for e in await run.history() if e.state == "succeeded"] == [("fast", "succeeded")]

    play(main())


def test_context_of_a_thread_is_its_own_step() -> None:
    @step
    def who() -> str:
        return f"{current().step} {current().seq} {threading.current_thread().name}"

    @workflow
    async def flow() -> list[str]:
        return list(await asyncio.gather(who(), who()))

    async def main() -> None:
        async with opened(flow) as app:
            seen = Seen(app)
            assert await app.run(flow) == ["who 1 holdfast-step", "who 2 holdfast-step"]
            assert [e.attempt for e in seen.events if e.kind == "step.started"] == [1, 1]

    play(main())


def test_an_error_of_a_class_that_cannot_be_rebuilt_keeps_name_text_and_causes() -> None:
    class Own(Exception):
        pass

    @step
    def fail() -> None:
        try:
            raise KeyError("deep")
        except KeyError as error:
            raise Own("outer") from error

    @workflow
    async def flow() -> list[str]:
        try:
            await fail()
        except StepFailed as error:
            return [error.type_name.rsplit(".", 1)[-1], error.message, *error.causes]
        return []

    async def main() -> None:
        async with opened(flow) as app:
            name, message, cause = await app.run(flow)
            assert (name, "outer" in message, "KeyError" in cause) == ("Own", True, True)

    play(main())


async def _cancel_own_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def _cancel_from_a_child() -> None:
    parent = asyncio.current_task()
    assert parent is not None

    async def child() -> None:
        parent.cancel()

    child_task = asyncio.ensure_future(child())
    await asyncio.Event().wait()
    await child_task


async def _await_something_cancelled() -> None:
    other = asyncio.ensure_future(asyncio.Event().wait())
    asyncio.get_running_loop().call_soon(other.cancel)
    await other


async def _raise_it() -> None:
    raise asyncio.CancelledError("odd")


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        (_cancel_own_task, "cancelled itself"),
        (_cancel_from_a_child, "cancelled itself"),
        (_await_something_cancelled, "awaited something cancelled"),
        (_raise_it, "nobody asked for"),
    ],
)
@pytest.mark.parametrize("timeout", [None, 60.0])
def test_a_step_that_cancels_itself_has_failed_and_is_retried_by_its_policy(
    way: Callable[[], Awaitable[None]], reason: str, timeout: float | None
) -> None:
    attempts: list[int] = []

    @step(retry=Retry(attempts=3, first_delay=0), timeout=timeout)
    async def odd() -> None:
        attempts.append(current().attempt)
        await way()

    @workflow
    async def flow() -> str:
        try:
            await odd()
        except StepFailed as error:
            return str(error)
        return "it succeeded"

    async def main() -> None:
        async with opened(flow) as app:
            told = await app.run(flow)
            assert reason in told
            assert "step 'odd', attempt 3" in told
            assert "CancelledError" in told
            assert attempts == [1, 2, 3]

    play(main())


def test_a_def_step_that_raises_cancelled_error_has_failed() -> None:
    @step
    def odd() -> None:
        raise asyncio.CancelledError("odd")

    @workflow
    def flow() -> None:
        odd()

    async def main() -> None:
        async with opened(flow) as app:
            run = await app.start(flow)
            with pytest.raises(StepFailed, match=r"step 'odd', attempt 1.*nobody asked for.*odd"):
                await run.result()
            assert (await run.describe()).state == "failed"

    play(main())


def test_a_step_that_is_interrupted_again_and_again_has_failed_in_the_end() -> None:
    """As by a connection pool whose own task, outside of the step's context, cancels those that use it."""
    visits: list[int] = []

    async def main() -> None:
        wanted: asyncio.Queue[asyncio.Task[None]] = asyncio.Queue()

        async def pool() -> None:
            while True:
                (await wanted.get()).cancel()

        @step
        async def query() -> None:
            visits.append(current().attempt)
            task = asyncio.current_task()
            assert task is not None
            wanted.put_nowait(task)
            await asyncio.Event().wait()

        @workflow
        async def flow() -> None:
            await query()

        pooling = asyncio.create_task(pool())
        async with opened(flow) as app:
            for _ in range(2):
                run = await app.start(flow)
                with pytest.raises(StepFailed, match="from outside for the second time"):
                    await run.result()
        pooling.cancel()
        assert len(visits) == 4

    play(main())


def test_steps_that_the_end_of_asyncio_run_cancels_have_no_outcome_and_run_again(tmp_path: Path) -> None:
    visits: list[int] = []

    async def main() -> None:
        came = asyncio.Event()

        @step(retry=Retry(attempts=3, first_delay=0))
        async def wait() -> str:
            visits.append(current().attempt)
            if len(visits) == 1:
                came.set()
                await asyncio.Event().wait()
            return "once more"

        @workflow
        async def flow() -> str:
            return await wait()

        async with opened(flow, at=tmp_path / "a.db") as app:
            await app.start(flow, id="r")
            await came.wait()
            for task in asyncio.all_tasks():  # as `asyncio.run` does when its own coroutine has ended
                if task.get_name().startswith("holdfast-") or isinstance(task, BodyTask):
                    task.cancel()
            while worker_of(app).executor.live:
                await asyncio.sleep(0)
        async with opened(flow, at=tmp_path / "a.db") as app:
            assert await app.get("r").result() == "once more"
            assert [entry.state for entry in await app.get("r").history()] == ["succeeded"]
            assert visits == [1, 1]

    play(main())


def test_a_body_that_is_given_up_before_its_first_instruction_frees_its_place() -> None:
    did: list[str] = []

    @step
    async def work() -> None:
        did.append("work")

    @workflow
    async def flow() -> None:
        await work()

    async def main() -> None:
        async with opened(flow) as app:
            executor, seen = worker_of(app).executor, Seen(app)

            def give_up(event: Event) -> None:
                if event.kind == "step.started":
                    for live in executor.live.values():
                        executor.bodies.abandon(*live.bodies.values())

            app._events.listen(give_up)
            run = await app.start(flow)
            await seen.until("step.started")
            await run.cancel()
            with pytest.raises(RunCancelled):
                await run.result()
            assert (did, executor.bodies.active) == ([], 0)

    play(main())


def test_a_thread_that_ended_just_before_its_run_left_frees_its_place_once() -> None:
    @step
    def work() -> int:
        return 1

    @workflow
    async def flow() -> int:
        return await work()

    async def main() -> None:
        async with opened(flow) as app:
            bodies = worker_of(app).executor.bodies
            report = bodies._finished

            def report_and_leave(body: Body) -> None:
                report(body)
                bodies.abandon(body)

            bodies._finished = report_and_leave
            assert await app.run(flow) == 1
            assert bodies.active == 0

    play(main())
