from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.kit import Gate, Seen, app_of, journal_of, opened, park, play, state_of, until_state, worker_of

import holdfast
from holdfast import (
    RunCancelled,
    RunTimeout,
    patched,
    sleep,
    step,
    workflow,
)
from holdfast._flow.context import _inside


def test_a_running_step_is_cancelled_and_cleanup_runs_steps() -> None:
    did: list[str] = []

    @step
    async def cleanup(what: str) -> None:
        did.append(what)

    async def main() -> None:
        gate = Gate()

        @step
        async def work() -> None:
            try:
                await gate()
            except asyncio.CancelledError:
                did.append("body cancelled")
                raise

        @workflow
        async def flow() -> None:
            try:
                await work()
            finally:
                await cleanup("room")
                await cleanup("house")

        async with opened(flow) as app:
            run = await app.start(flow)
            await gate.came.wait()
            assert await run.cancel() == "running"
            with pytest.raises(RunCancelled):
                await run.result()
            assert did == ["body cancelled", "room", "house"]
            assert (await run.describe()).state == "cancelled"
            assert await run.cancel() == "cancelled"
            assert [(e.kind, e.state) for e in await run.history()] == [
                ("cancel", "succeeded"),
                ("step", "cancelled"),
                ("step", "succeeded"),
                ("step", "succeeded"),
            ] or [e.kind for e in await run.history()] == ["cancel", "step", "step"]

    play(main())


def test_swallowing_the_cancellation_does_not_make_a_success() -> None:
    async def main() -> None:
        gate = Gate()

        @step
        async def work() -> None:
            await gate()

        @workflow
        async def flow() -> str:
            try:
                await work()
            except asyncio.CancelledError:
                return "as if nothing had happened"
            return "done"

        async with opened(flow) as app:
            run = await app.start(flow)
            await gate.came.wait()
            await run.cancel()
            with pytest.raises(RunCancelled):
                await run.result()

    play(main())


@pytest.mark.parametrize("kind", ["parked", "paused", "scheduled", "ready"])
def test_a_run_that_is_not_in_memory_is_cancelled(kind: str) -> None:
    did: list[str] = []

    @step
    async def cleanup() -> None:
        did.append("cleanup")

    @workflow
    async def flow() -> None:
        try:
            await sleep(3600)
        finally:
            await cleanup()

    async def main() -> None:
        async with opened(flow, runs_max=0 if kind == "ready" else 10) as app:
            options = {"delay": 3600} if kind == "scheduled" else {}
            run = await app.start(flow, id="r", **options)
            if kind == "parked":
                await park(app)
            if kind == "paused":
                await run.pause()
                await until_state(app, "r", "paused")
            expected = {"parked": "waiting"}.get(kind, kind)
            assert await state_of(app, "r") == expected
            answer = await run.cancel()
            with pytest.raises(RunCancelled):
                await run.result()
            begun = kind in ("parked", "paused")
            assert answer == ("ready" if begun else "cancelled")
            assert did == (["cleanup"] if begun else [])

    play(main())


def test_cancelling_a_parked_run_ends_it_once(caplog: pytest.LogCaptureFixture) -> None:
    @workflow
    async def flow() -> None:
        await sleep(3600)

    async def main() -> None:
        async with opened(flow) as app:
            seen = Seen(app)
            run = await app.start(flow)
            await park(app)
            await run.cancel()
            with pytest.raises(RunCancelled):
                await run.result()
            await journal_of(app).settle()
            assert [e.kind for e in seen.events].count("run.ended") == 1

    play(main())
    assert "dropped" not in caplog.text


def test_a_paused_run_stands_still_after_the_step_under_way_and_goes_on() -> None:
    async def main() -> None:
        gate = Gate()
        did: list[int] = []

        @step
        async def work(number: int) -> int:
            did.append(number)
            if number == 1:
                await gate()
            return number

        @workflow
        async def flow() -> int:
            return await work(1) + await work(2)

        async with opened(flow) as app:
            run = await app.start(flow, id="r")
            await gate.came.wait()
            assert await run.pause() == "running"
            assert (await run.describe()).request == "pause"
            gate.open.set()
            await until_state(app, "r", "paused")
            assert did == [1]
            assert await run.pause() == "paused"
            assert await run.resume() == "ready"
            assert await run.result() == 3
            assert did == [1, 2]

    play(main())


@pytest.mark.parametrize("then", ["resume", "cancel"])
def test_a_pause_is_overtaken_while_the_step_is_still_under_way(then: str) -> None:
    async def main() -> None:
        gate = Gate()
        cleaned: list[str] = []

        @step
        async def cleanup() -> None:
            cleaned.append("clean")

        @step
        async def work() -> int:
            await gate()
            return 5

        @workflow
        async def flow() -> int:
            try:
                return await work()
            except asyncio.CancelledError:
                await cleanup()
                raise

        async with opened(flow) as app:
            run = await app.start(flow)
            await gate.came.wait()
            await run.pause()
            assert await getattr(run, then)() == "running"
            gate.open.set()
            if then == "resume":
                assert await run.result() == 5
            else:
                with pytest.raises(RunCancelled):
                    await run.result()
                assert cleaned == ["clean"]

    play(main())


def test_a_request_that_waits_at_the_claim_is_obeyed_before_anything_starts(tmp_path: Path) -> None:
    did: list[int] = []

    async def main() -> None:
        gate = Gate()

        @step
        async def work(number: int) -> int:
            did.append(number)
            if number == 2:
                await gate()
            return number

        @workflow
        async def flow() -> int:
            return await work(1) + await work(2) + await work(3)

        async with opened(flow, at=tmp_path / "a.db", stop_timeout=0) as app:
            await app.start(flow, id="r")
            await gate.came.wait()
            async with app.client() as client:  # not told to the worker directly
                assert await client.get("r").pause() == "running"
        async with opened(flow, at=tmp_path / "a.db") as app:
            await until_state(app, "r", "paused")
            assert did == [1, 2]
            gate.open.set()
            await app.get("r").resume()
            assert await app.get("r").result() == 6
            assert did == [1, 2, 2, 3]

    play(main())


@pytest.mark.parametrize("parked", [False, True])
def test_a_deadline_fails_the_run_and_is_kept_while_it_is_parked(parked: bool) -> None:
    did: list[str] = []

    @step
    async def cleanup() -> None:
        did.append("cleanup")

    @workflow
    async def flow() -> None:
        try:
            await sleep(3600)
        finally:
            await cleanup()

    async def main() -> None:
        async with opened(flow) as app:
            run = await app.start(flow, timeout=0.1)
            if parked:
                await park(app)
                described = await run.describe()
                assert described.due_at == described.deadline_at
            with pytest.raises(RunTimeout):
                await run.result()
            assert did == ["cleanup"]
            assert next(iter(await run.history())).kind == "deadline"
            assert (await run.describe()).state == "failed"

    play(main())


def test_retry_keeps_finished_steps_and_repeats_what_failed() -> None:
    did: list[str] = []
    broken = [True]

    @step
    async def good() -> str:
        did.append("good")
        return "g"

    @step
    async def bad() -> str:
        did.append("bad")
        if broken[0]:
            raise RuntimeError("down")
        return "b"

    @workflow
    async def flow() -> str:
        first, second = await asyncio.gather(good(), good())
        return first + second + await bad()

    async def main() -> None:
        async with opened(flow) as app:
            run = await app.start(flow)
            with pytest.raises(RuntimeError, match="down"):
                await run.result()
            broken.clear()
            broken.append(False)
            assert await run.retry() == "ready"
            assert await app.get(run.id).result() == "ggb"
            assert did == ["good", "good", "bad", "bad"]
            with pytest.raises(holdfast.RunConflict):
                await run.retry()

    play(main())


def test_a_fork_replays_what_is_before_it_with_an_edited_result() -> None:
    did: list[int] = []

    @step
    async def work(number: int) -> int:
        did.append(number)
        return number

    @workflow
    async def flow(base: int) -> int:
        return base + await work(1) + await work(2) + await work(3)

    async def main() -> None:
        async with opened(flow) as app:
            run = await app.start(flow, 100)
            assert await run.result() == 106
            did.clear()
            plain = await run.fork(3)
            assert await plain.result() == 106
            assert did == [3]
            edited = await run.fork(2, result=50, id="edited")
            assert await edited.result() == 154
            assert did == [3, 3]
            other = await run.fork(3, args=(0,))
            assert await other.result() == 6
            assert (await edited.describe()).forked_from == run.id
            for wrong, error in (
                (lambda: run.fork(9), holdfast.UsageError),
                (lambda: run.fork(0), holdfast.UsageError),
                (lambda: run.fork(2, id="edited"), holdfast.RunConflict),
                (lambda: app.get("nobody").fork(1), holdfast.RunNotFound),
            ):
                with pytest.raises(error):
                    await wrong()

    play(main())


def test_a_long_history_is_replayed_in_pieces_and_requests_wait_for_its_end(tmp_path: Path) -> None:
    @step
    async def work(number: int) -> int:
        return number

    @workflow
    async def flow() -> int:
        total = sum([await work(number) for number in range(600)])
        await sleep(3600)
        return total

    async def main() -> None:
        async with opened(flow, at=tmp_path / "a.db") as app:
            await app.start(flow, id="r")
            seen = Seen(app)
            await seen.until("step.ended", times=600)
        async with opened(flow, at=tmp_path / "a.db") as app:

            def ask(event: Any) -> None:
                if event.kind == "run.claimed":
                    executor = worker_of(app).executor
                    (number,) = executor.live
                    asyncio.get_running_loop().call_soon(executor.request, number, "cancel")
                    asyncio.get_running_loop().call_soon(worker_of(app).parking.park_quiet)

            app._events.listen(ask)
            await app.get("r").cancel()
            with pytest.raises(RunCancelled):
                await app.get("r").result()
            history = await app.get("r").history()
            ordinals = [entry.ordinal for entry in history if entry.ordinal is not None]
            assert sorted(ordinals) == [*range(1, 602)]
            assert history[0].kind == "cancel"
            assert history[0].ordinal == 601

    play(main())


def test_an_acknowledged_cancel_outlives_a_pause_and_a_resume_of_a_run_that_nobody_holds(tmp_path: Path) -> None:
    @workflow
    async def flow() -> str:
        await sleep(3600)
        return "not cancelled"

    async def main() -> None:
        async with opened(flow, at=tmp_path / "a.db") as app:
            await app.start(flow, id="r")
            await park(app)
        async with app.client() as client:
            run = client.get("r")
            await run.cancel()
            await run.pause()
            await run.resume()
        async with app:
            with pytest.raises(RunCancelled):
                await app.get("r").result()

    play(main())


def test_a_pause_that_is_found_at_the_claim_keeps_what_the_run_recorded_until_then(tmp_path: Path) -> None:
    @workflow
    async def flow() -> list[bool]:
        first = patched("v2")
        await sleep(0.01)
        return [first, patched("v3")]

    async def main() -> None:
        app = app_of(flow, at=tmp_path / "a.db")
        async with app.client() as client:
            await client.start(flow, id="r")
        with sqlite3.connect(tmp_path / "a.db") as database:  # as a worker leaves it that dies with the request open
            database.execute("update holdfast_runs set request = 'pause'")
        database.close()
        async with app:
            await until_state(app, "r", "paused")
            assert [entry.kind for entry in await app.get("r").history()] == ["patch", "timer"]
            await app.get("r").resume()
            assert await app.get("r").result() == [True, True]

    play(main())


def test_a_run_whose_last_records_cannot_be_stored_is_blocked_and_not_lost_from_sight(tmp_path: Path) -> None:
    @workflow
    async def flow() -> int:
        _inside("patched").patched("lone surrogate \ud800")  # what the public function refuses
        return 1

    async def main() -> None:
        async with opened(flow, at=tmp_path / "a.db") as app:
            run = await app.start(flow, id="r")
            await until_state(app, "r", "blocked")
            assert (await run.describe()).reason == "record-refused"
            assert not worker_of(app).executor.live

    play(main())
