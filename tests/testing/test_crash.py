"""The kit finds what it is there to find, and counts right."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import count

import pytest

from holdfast import Retry, current, sleep, step, workflow
from holdfast._runtime.executor import Executor
from holdfast.errors import UsageError
from holdfast.testing import CrashOptions, crash_everywhere, crash_everywhere_async


@step
async def add(a: int, b: int) -> int:
    return a + b


@step(retry=Retry(attempts=3, first_delay=1.0))
async def second_time_lucky() -> int:
    if current().attempt == 1:
        raise ValueError("the first time")
    return current().attempt


@workflow
async def two_steps(n: int) -> int:
    return await add(await add(n, 1), 1)


@workflow
async def retries() -> int:
    return await second_time_lucky()


@workflow
async def sleeps_long() -> int:
    await sleep(30 * 86_400)
    return await add(1, 1)


NUMBERS: Iterator[int] = count()


@workflow
async def looks_at_the_world() -> int:
    number = next(NUMBERS)
    await add(number, 0)
    await add(number, 1)
    return number


@workflow
async def waits_for_ever() -> None:
    await asyncio.Event().wait()


def test_every_record_is_a_crash_point_before_and_after() -> None:
    report = crash_everywhere(two_steps, 1, options=CrashOptions(batched=False, parked=False))
    assert report.outcome.value == 3
    assert report.records == 4  # start, two entries, end
    assert report.points == 2 * 4
    assert report.lives == 1 + 2 * report.points + 2  # and one trial for each moment that no death reaches


def test_arguments_reach_the_workflow_by_keyword_too() -> None:
    assert crash_everywhere(two_steps, n=5, options=CrashOptions(parked=False)).outcome.value == 7


def test_code_that_looks_at_the_world_is_caught_with_crash_point_history_and_seed() -> None:
    with pytest.raises(AssertionError) as caught:
        crash_everywhere(looks_at_the_world, options=CrashOptions(seed=17))
    text = str(caught.value)
    assert "seed 17" in text
    assert "DEATH   just " in text
    assert "durable RunStarted" in text


def test_body_that_starts_before_what_it_depends_on_is_durable_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the output-commit rule the kit must cry out: attempts that are not recorded begin again."""

    def at_once(self: Executor, run: object, call: object) -> None:
        run.bodies[call.seq] = self.bodies.start(run, call)  # type: ignore[attr-defined,arg-type]

    monkeypatch.setattr(Executor, "_request_body", at_once)
    with pytest.raises(AssertionError, match="ran"):
        crash_everywhere(retries, options=CrashOptions(batched=False, parked=False))


def test_run_that_never_ends_is_reported_and_not_waited_for() -> None:
    begin = time.monotonic()
    with pytest.raises(AssertionError, match="stuck"):
        crash_everywhere(waits_for_ever, options=CrashOptions(seconds_max=86_400))
    assert time.monotonic() - begin < 60


def test_sleeps_of_a_month_take_no_time() -> None:
    report = crash_everywhere(sleeps_long)
    assert report.outcome.value == 2
    assert report.points > 2 * report.records


def test_inside_an_event_loop_the_async_variant_is_named_and_works() -> None:
    async def main() -> object:
        with pytest.raises(UsageError, match="crash_everywhere_async"):
            crash_everywhere(two_steps, 1)
        report = await crash_everywhere_async(two_steps, 1, options=CrashOptions(parked=False, batched=False))
        return report.outcome.value

    assert asyncio.run(main()) == 3
