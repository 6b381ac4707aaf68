from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from tests.runtime.kit import Gate, app_of, journal_of, opened, park, play, worker_of

from holdfast import NotOpen, RunCancelled, RunNotFound, UsageError, WaitTimeout, sleep, step, workflow
from holdfast.errors import StoreBusy


@step
async def one() -> int:
    return 1


@workflow
async def flow() -> int:
    await sleep(0.05)
    return await one()


@workflow
async def fails() -> None:
    raise LookupError("not there", 3)


def test_a_cancelled_waiter_does_not_touch_the_run() -> None:
    async def main() -> None:
        async with opened(flow) as app:
            run = await app.start(flow)
            waiters = [asyncio.create_task(run.result()) for _ in range(3)]
            waiters.append(asyncio.create_task(app.get(run.id).result()))
            await asyncio.sleep(0)
            waiters[0].cancel()
            waiters[3].cancel()
            answers = await asyncio.gather(*waiters, return_exceptions=True)
            assert [type(answer) for answer in answers] == [asyncio.CancelledError, int, int, asyncio.CancelledError]
            assert (await run.describe()).state == "succeeded"

    play(main())


def test_a_result_reaches_another_client_while_it_waits_and_afterwards(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            opened(flow, fails, at=tmp_path / "a.db"),
            app_of(flow, fails, at=tmp_path / "a.db").client() as client,
        ):
            run = await client.start(flow)
            assert await run.result() == 1
            assert await client.get(run.id).result() == 1
            failing = await client.start(fails)
            for _ in range(2):
                with pytest.raises(LookupError) as raised:
                    await failing.result()
                assert raised.value.args == ("not there", 3)
                assert raised.value.__notes__ == [f"in run {failing.id!r}"]

    play(main())


def test_waiting_has_an_end_and_the_run_goes_on() -> None:
    async def main() -> None:
        gate = Gate()

        @step
        async def wait() -> int:
            await gate()
            return 3

        @workflow
        async def waiting() -> int:
            return await wait()

        async with opened(waiting) as app:
            run = await app.start(waiting)
            for handle in (run, app.get(run.id)):
                with pytest.raises(WaitTimeout, match="has not ended"):
                    await handle.result(timeout=0.01)
            gate.open.set()
            assert await run.result(timeout=20) == 3
            for wrong in (-1, "1", True, float("nan")):
                with pytest.raises(UsageError):
                    await run.result(timeout=wrong)  # type: ignore[arg-type]

    play(main())


def test_a_waiter_of_a_run_that_parks_is_answered_when_it_ends() -> None:
    async def main() -> None:
        async with opened(flow) as app:
            run = await app.start(flow)
            waiting = asyncio.create_task(run.result())
            await asyncio.sleep(0)
            await park(app)
            assert await waiting == 1

    play(main())


def test_no_such_run_is_said_by_every_call() -> None:
    async def main() -> None:
        async with opened(flow) as app:
            run = app.get("nobody")
            for call in (run.result, run.describe, run.history, run.cancel, run.pause, run.resume, run.retry):
                with pytest.raises(RunNotFound, match="nobody"):
                    await call()

    play(main())


def test_a_run_cancelled_before_it_began_is_cancelled_for_its_waiters() -> None:
    async def main() -> None:
        async with opened(flow) as app:
            run = await app.start(flow, delay=3600)
            waiting = asyncio.create_task(run.result())
            await asyncio.sleep(0)
            assert await run.cancel() == "cancelled"
            with pytest.raises(RunCancelled):
                await waiting

    play(main())


@pytest.mark.parametrize("how", ["own", "by id"])
def test_whoever_waits_when_the_app_closes_is_told(how: str) -> None:
    async def main() -> None:
        async with opened(flow) as app:
            run = await app.start(flow, delay=3600 if how == "by id" else None)
            waiting = asyncio.create_task((run if how == "own" else app.get(run.id)).result())
            for _ in range(3):
                await asyncio.sleep(0)
        answer = (await asyncio.gather(waiting, return_exceptions=True))[0]
        assert isinstance(answer, NotOpen) or answer == 1, repr(answer)

    play(main())


def test_closing_during_trouble_answers_everybody() -> None:
    async def main() -> None:
        app = app_of(flow, stop_timeout=0)
        async with app:
            submit = app._engine.store.submit

            def busy(batch: object, *, worker: object, done: object) -> None:
                asyncio.get_running_loop().call_soon(done, None, StoreBusy("held"))  # type: ignore[arg-type]

            app._engine.store.submit = busy  # type: ignore[method-assign, assignment]
            starting = asyncio.create_task(app.start(flow))
            while journal_of(app).trouble is None:
                await asyncio.sleep(0)
            del submit
        answer = (await asyncio.gather(starting, return_exceptions=True))[0]
        assert isinstance(answer, NotOpen), repr(answer)

    play(main())


def test_a_worker_goes_on_looking_for_others_when_the_last_waiter_has_gone(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(flow, at=tmp_path / "a.db") as app:
            assert worker_of(app) is not None
            writer = app._engine.store._writer  # type: ignore[attr-defined]
            often = writer.poll_seconds
            run = await app.start(flow)
            assert await app.get(run.id).result() == 1
            assert writer.poll_seconds == often
        async with app.client() as client:
            writer = client._engine.store._writer  # type: ignore[attr-defined]
            seldom = writer.poll_seconds
            assert seldom > often
            await client.get(run.id).result()
            while writer.poll_seconds != seldom:
                await asyncio.sleep(0)

    play(main())


def test_who_waits_for_a_run_that_was_pruned_before_he_looked_learns_that_it_is_gone(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate()

        @step
        async def wait() -> None:
            await gate()

        @workflow
        async def waits() -> None:
            await wait()

        async with opened(waits, at=tmp_path / "a.db") as app, app_of(waits, at=tmp_path / "a.db").client() as client:
            run = await app.start(waits)
            await gate.came.wait()
            waiter = asyncio.create_task(client.get(run.id).result())
            while run.id not in client._engine.results._waiting:
                await asyncio.sleep(0)
            await client.get(run.id).describe()  # read after the waiter's look, which found it running
            await client._engine.results._ticker.stop()  # it is late, as that of a process that was stopped
            gate.open.set()
            await run.result()
            await app.prune(older_than=timedelta(0))
            await client._engine.results._look()
            with pytest.raises(RunNotFound):
                await asyncio.wait_for(waiter, 5)

    play(main())


def test_a_timeout_of_nothing_answers_for_a_run_that_has_ended_and_for_no_other() -> None:
    async def main() -> None:
        async with opened(flow, fails) as app:
            run = await app.start(flow, id="r")
            with pytest.raises(WaitTimeout, match="has not ended within 0 s"):
                await run.result(timeout=0)
            assert await run.result() == 1
            assert await app.get("r").result(timeout=0) == 1
            failing = await app.start(fails, id="f")
            with pytest.raises(LookupError):
                await failing.result()
            with pytest.raises(LookupError):
                await app.get("f").result(timeout=0)
            with pytest.raises(RunNotFound):
                await app.get("nobody").result(timeout=0)

    play(main())
