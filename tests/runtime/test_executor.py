from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.kit import Gate, Seen, app_of, journal_of, opened, park, play, state_of, until_state, worker_of

import holdfast
from holdfast import (
    NondeterminismError,
    NotAllowedInWorkflow,
    NotEncodable,
    Retry,
    RunCancelled,
    StepFailed,
    UsageError,
    continue_as_new,
    current,
    step,
    workflow,
)

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


def test_the_same_start_is_the_same_run_in_its_later_generations() -> None:
    @workflow
    async def flow(left: int) -> str:
        if left:
            continue_as_new(left - 1)
        return "landed"

    async def main() -> None:
        async with opened(flow) as app:
            for _ in range(2):  # the second time its arguments are others than those it was started with
                run = await app.start(flow, 2, id="r")
                assert await run.result() == "landed"
            assert await app.count() == 1

    play(main())


def test_code_that_no_longer_matches_blocks_the_run_until_it_does(tmp_path: Path) -> None:
    @step
    async def old() -> int:
        return 1

    @step
    async def new() -> int:
        return 2

    async def main() -> None:
        path, gate = tmp_path / "a.db", Gate()

        @step
        async def wait() -> None:
            await gate()

        def flow_of(code: Any) -> Any:
            @workflow(name="flow")
            async def flow() -> int:
                value: int = await code()
                await wait()
                return value

            return flow

        first, second = flow_of(old), flow_of(new)
        async with opened(first, at=path, stop_timeout=0) as app:
            await app.start(first, id="r")
            await gate.came.wait()
        gate.open.set()
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


def test_a_step_whose_task_is_cancelled_from_outside_has_no_outcome(tmp_path: Path) -> None:
    """As the end of `asyncio.run` does after a second Ctrl-C: the run goes on later, it has not failed."""

    async def main() -> None:
        gate = Gate()

        @step
        async def wait() -> str:
            await gate()
            return "once more"

        @workflow
        async def flow() -> str:
            return await wait()

        async with opened(flow, at=tmp_path / "a.db") as app:
            run = await app.start(flow, id="r")
            await gate.came.wait()
            (live,) = worker_of(app).executor.live.values()
            (body,) = live.bodies.values()
            gate.open.set()
            assert body.task is not None
            body.task.cancel()
            assert await run.result() == "once more"
            assert gate.visits == 2
            assert [entry.state for entry in await run.history()] == ["succeeded"]

    play(main())


def test_a_step_that_nobody_awaits_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    @step
    async def charge() -> str:
        return "paid"

    @workflow
    async def forgets() -> str:
        charge()
        return "done"

    async def main() -> None:
        async with opened(forgets) as app:
            assert await app.run(forgets) == "done"

    play(main())
    assert "ended without awaiting <step 'charge', entry 1>" in caplog.text


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
def test_a_failed_run_is_one_line_in_the_log_and_its_traceback_only_for_debug(
    level: int, caplog: pytest.LogCaptureFixture
) -> None:
    @workflow
    async def fails() -> None:
        raise LookupError("no parcel service\nto the moon")

    async def main() -> None:
        async with opened(fails) as app:
            with pytest.raises(LookupError):
                await app.run(fails, id="r")

    with caplog.at_level(level, "holdfast.run"):
        play(main())
    error, *debug = [record for record in caplog.records if record.name == "holdfast.run"]
    assert error.levelno == logging.ERROR
    assert error.run_id == "r"  # type: ignore[attr-defined]
    assert re.fullmatch(
        r"run r of fails failed: LookupError: no parcel service to the moon \(at test_executor\.py:\d+ in fails\)",
        error.getMessage(),
    )
    assert [("Traceback" in record.getMessage(), record.levelno) for record in debug] == (
        [(True, logging.DEBUG)] if level == logging.DEBUG else []
    )


def test_an_app_used_inside_a_workflow_is_refused_with_the_way_out() -> None:
    @workflow
    async def inner() -> int:
        return 1

    async def main() -> None:
        async with opened(inner) as app:

            @app.workflow
            async def outer() -> str:
                try:
                    await app.run(inner)
                except NotAllowedInWorkflow as error:
                    return str(error)
                return "it worked"

            assert "do it in a step" in await app.run(outer)

    play(main())


def test_a_step_whose_result_could_not_be_stored_is_refused_before_its_body_runs() -> None:
    did: list[str] = []

    class Connection:
        pass

    @step
    async def connect() -> Connection:
        did.append("connected")
        return Connection()

    @workflow
    async def flow() -> None:
        await connect()

    async def main() -> None:
        async with opened(flow) as app:
            with pytest.raises(UsageError, match="result of step 'connect'"):
                await app.run(flow)
            assert did == []

    play(main())
