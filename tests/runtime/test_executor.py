from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import (
    NondeterminismError,
    NotEncodable,
    Retry,
    RunCancelled,
    RunTimeout,
    StepFailed,
    continue_as_new,
    current,
    sleep,
    step,
    workflow,
)
from tests.runtime.kit import Gate, Seen, app_of, journal_of, opened, park, play, state_of, until_state, worker_of

AGAIN = Retry(attempts=3, first_delay=0, jitter=0)
LATE = Retry(attempts=3, first_delay=3600, max_delay=3600, jitter=0)


def test_a_failed_attempt_is_tried_again_and_counted() -> None:
    attempts: list[tuple[int, str]] = []

    @step(retry=AGAIN)
    async def flaky() -> int:
        attempts.append((current().attempt, current().idempotency_key))
        if len(attempts) < 3:
            raise ValueError("not yet")
        return 7

    @workflow
    async def flow() -> int:
        return await flaky()

    async def main() -> None:
        async with opened(flow) as app:
            run = await app.start(flow, id="r")
            assert await run.result() == 7
            (entry,) = await run.history()
            assert (entry.attempts, entry.state) == (3, "succeeded")
            assert attempts == [(n, "r:1:flaky") for n in (1, 2, 3)]

    play(main())


def test_attempts_and_the_next_time_outlive_the_worker(tmp_path: Path) -> None:
    attempts: list[int] = []

    @step(retry=LATE)
    async def flaky() -> int:
        attempts.append(current().attempt)
        raise ValueError("not yet")

    @workflow
    async def flow() -> int:
        return await flaky()

    async def main() -> None:
        async with opened(flow, at=tmp_path / "a.db") as app:
            seen = Seen(app)
            run = await app.start(flow, id="r")
            await seen.until("step.started")
            while not (await run.history()):
                await journal_of(app).settle()
            (entry,) = await run.history()
            assert (entry.attempts, entry.state) == (1, "pending")
            due = entry.due_at
        async with opened(flow, at=tmp_path / "a.db") as app:
            await Seen(app).until("run.claimed") if await state_of(app, "r") == "ready" else None
            (entry,) = await app.get("r").history()
            assert (entry.attempts, entry.due_at) == (1, due)
            await park(app)
            described = await app.get("r").describe()
            assert (described.state, described.due_at) == ("waiting", due)
            assert attempts == [1], "it was not tried before its time"

    play(main())


def test_after_the_last_attempt_the_workflow_catches_the_very_error() -> None:
    class Refused(Exception):
        pass

    @step(retry=Retry(attempts=2, first_delay=0, give_up_on=(KeyError,)))
    async def fail(how: str) -> None:
        raise {"value": ValueError("no", 4), "key": KeyError("k"), "local": Refused("mine")}[how]

    @workflow
    async def flow() -> list[str]:
        caught = []
        for how in ("value", "key", "local"):
            try:
                await fail(how)
            except Exception as error:
                caught.append(f"{type(error).__name__} {error.args}"[:30])
        return caught

    async def main() -> None:
        async with opened(flow) as app:
            run = await app.start(flow)
            first, second, third = await run.result()
            assert (first, second) == ("ValueError ('no', 4)", "KeyError ('k',)")
            assert third.startswith("StepFailed")
            assert [entry.attempts for entry in await run.history()] == [2, 1, 2]

    play(main())


def test_a_body_starts_only_when_everything_before_it_is_durable() -> None:
    began: list[str] = []

    @step
    async def first() -> int:
        began.append("first")
        return 1

    @step
    async def second() -> int:
        began.append("second")
        return 2

    @workflow
    async def flow() -> int:
        return await first() + await second()

    async def main() -> None:
        async with opened(flow) as app:
            run = await app.start(flow)
            submit = app._engine.store.submit
            held: list[Any] = []
            app._engine.store.submit = lambda *a, **k: held.append((a, k))  # type: ignore[method-assign]
            while not held:
                await asyncio.sleep(0)
            for _ in range(20):
                await asyncio.sleep(0)
            assert began == ["first"], "its record is not durable yet"
            app._engine.store.submit = submit  # type: ignore[method-assign]
            for args, options in held:
                submit(*args, **options)
            assert await run.result() == 3

    play(main())


@pytest.mark.parametrize("bad", [object(), {1: object()}])
def test_a_result_that_cannot_be_stored_fails_the_run_and_names_the_place(bad: object) -> None:
    @step(retry=AGAIN)
    async def give() -> Any:
        return {"items": [1, bad]}

    @workflow
    async def stepping() -> None:
        await give()

    @workflow
    async def ending() -> Any:
        return [bad]

    async def main() -> None:
        async with opened(stepping, ending) as app:
            run = await app.start(stepping)
            with pytest.raises(NotEncodable) as failure:
                await run.result()
            assert "items" in str(failure.value)
            assert [entry.attempts for entry in await run.history()] == [1], "another attempt would do the work twice"
            with pytest.raises(NotEncodable):
                await app.run(ending)

    play(main())


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
            assert [e.kind for e in await run.history()][0] == "deadline"
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


def test_continue_as_new_begins_with_an_empty_history_and_one_result() -> None:
    keys: list[str] = []

    @step
    async def tick(left: int) -> None:
        keys.append(current().idempotency_key)

    @workflow
    async def flow(left: int) -> str:
        await tick(left)
        if left:
            continue_as_new(left - 1)
        return "landed"

    async def main() -> None:
        async with opened(flow) as app:
            run = await app.start(flow, 2, id="r")
            assert await run.result() == "landed"
            described = await run.describe()
            assert (described.generation, described.input) == (2, {"left": 0})
            assert len(await run.history()) == 1
            assert keys == ["r:1:tick", "r:g1:1:tick", "r:g2:1:tick"]

    play(main())


def test_code_that_no_longer_matches_blocks_the_run_until_it_does(tmp_path: Path) -> None:
    @step
    async def old() -> int:
        return 1

    @step
    async def new() -> int:
        return 2

    def flow_of(code: Any) -> Any:
        @workflow(name="flow")
        async def flow() -> int:
            value: int = await code()
            await sleep(0.01)
            return value

        return flow

    async def main() -> None:
        path = tmp_path / "a.db"
        first, second = flow_of(old), flow_of(new)
        async with opened(first, at=path) as app:
            await app.start(first, id="r")
            while not await app.get("r").history():
                await journal_of(app).settle()
            worker_of(app).executor.release_all()
            await journal_of(app).settle()
        async with opened(second, at=path) as app:
            await until_state(app, "r", "blocked")
            described = await app.get("r").describe()
            assert described.reason == "nondeterminism"
            assert described.error is not None
            assert "old" in described.error.message
            assert "new" in described.error.message
            assert NondeterminismError.__name__ in described.error.type
        async with opened(first, at=path) as app:
            assert await app.get("r").result() == 1

    play(main())


def test_input_that_does_not_fit_the_code_blocks_the_run_until_it_does(tmp_path: Path) -> None:
    @workflow(name="flow")
    async def takes_text(value: str) -> str:
        return value

    @workflow(name="flow")
    async def takes_number(value: int) -> int:
        return value

    async def main() -> None:
        async with app_of(takes_text, at=tmp_path / "a.db").client() as client:
            await client.start(takes_text, "seven", id="r")
        async with opened(takes_number, at=tmp_path / "a.db") as app:
            await until_state(app, "r", "blocked")
            assert (await app.get("r").describe()).reason == "not-decodable"
        async with opened(takes_text, at=tmp_path / "a.db") as app:
            await app.get("r").resume()
            assert await app.get("r").result() == "seven"

    play(main())


def test_a_long_history_is_replayed_in_pieces_and_requests_wait_for_its_end(tmp_path: Path) -> None:
    @step
    async def work(number: int) -> int:
        return number

    @workflow
    async def flow() -> int:
        total = sum([await work(number) for number in range(1200)])
        await sleep(3600)
        return total

    async def main() -> None:
        async with opened(flow, at=tmp_path / "a.db") as app:
            await app.start(flow, id="r")
            seen = Seen(app)
            await seen.until("step.ended", times=1200)
        async with opened(flow, at=tmp_path / "a.db") as app:

            def ask(event: Any) -> None:
                if event.kind == "run.claimed":
                    executor = worker_of(app).executor
                    (number,) = executor.live
                    asyncio.get_running_loop().call_soon(executor.request, number, "cancel")
                    asyncio.get_running_loop().call_soon(executor.park_quiet)

            app._events.listen(ask)
            await app.get("r").cancel()
            with pytest.raises(RunCancelled):
                await app.get("r").result()
            history = await app.get("r").history()
            ordinals = [entry.ordinal for entry in history if entry.ordinal is not None]
            assert sorted(ordinals) == [*range(1, 1202)]
            assert history[0].kind == "cancel"
            assert history[0].ordinal == 1201

    play(main())


def test_runs_max_is_held_whatever_is_started_at_once() -> None:
    async def main() -> None:
        active = [0, 0]

        @step
        async def work() -> None:
            active[0] += 1
            active[1] = max(active)
            await asyncio.sleep(0)
            active[0] -= 1

        @workflow
        async def flow() -> None:
            await work()
            await work()

        async with opened(flow, runs_max=2) as app:
            runs = await app.start_many([holdfast.Start(flow) for _ in range(20)])
            await asyncio.gather(*(run.result() for run in runs))
            assert active[1] <= 2

    play(main())


def test_bodies_max_is_held() -> None:
    async def main() -> None:
        active = [0, 0]

        @step
        async def work() -> None:
            active[0] += 1
            active[1] = max(active)
            await asyncio.sleep(0)
            active[0] -= 1

        @workflow
        async def flow() -> None:
            await asyncio.gather(*(work() for _ in range(30)))

        async with opened(flow, bodies_max=3) as app:
            await app.run(flow)
            assert active[1] == 3

    play(main())


def test_a_step_that_raises_cancelled_error_by_itself_does_not_hang_the_run() -> None:
    @step
    async def odd() -> None:
        raise asyncio.CancelledError("by itself")

    @workflow
    async def flow() -> None:
        await odd()

    async def main() -> None:
        async with opened(flow) as app:
            run = await app.start(flow)
            with pytest.raises((asyncio.CancelledError, StepFailed, RunCancelled, holdfast.RunFailed)):
                await run.result()
            assert (await run.describe()).state == "failed"

    play(main())
