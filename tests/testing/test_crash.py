"""The kit finds what it is there to find, and counts right."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

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
PAID: list[str] = []
REMEMBERED: dict[str, int] = {}


@step
async def pay(order: str) -> None:
    PAID.append(order)


@step
async def times_paid() -> int:
    return len(PAID)


@workflow
async def pays() -> str:
    await pay("A-17")
    await add(1, 1)
    return "paid"


@workflow
async def pays_and_counts() -> int:
    await pay("A-17")
    return await times_paid()


@workflow
async def goes_by_the_world() -> int:
    await add(1, 1)
    return next(NUMBERS)


@workflow
async def remembers_in_a_module() -> int:
    if "two" not in REMEMBERED:
        REMEMBERED["two"] = await add(1, 1)
    return await add(REMEMBERED["two"], 1)


@workflow
async def begins_with_another_number_each_time() -> int:
    number = next(NUMBERS)
    await add(number, 0)
    await add(number, 1)
    return 0


@workflow
async def swallows_everything() -> int:
    done = 0
    while done < 1:
        try:
            await sleep(3_600)
            done += 1
        except BaseException:
            continue
    return done


@workflow
async def swallows_everything_and_goes_by_the_world() -> int:
    while True:
        try:
            await add(next(NUMBERS), 0)
            await add(0, 0)
            return 0
        except BaseException:
            continue


@workflow
async def cleans_up() -> int:
    try:
        await add(1, 1)
        await sleep(10)
        return 1
    finally:
        await add(2, 2)


@workflow
async def fails() -> None:
    await add(1, 1)
    raise LookupError("nothing left")


@step(timeout=30)
def works_in_a_thread() -> str:
    time.sleep(0.08)
    return "in time"


@workflow
async def uses_a_thread() -> str:
    return await works_in_a_thread()


@workflow
async def waits_for_ever() -> None:
    await asyncio.Event().wait()


def test_every_record_is_a_crash_point_before_and_after() -> None:
    report = crash_everywhere(two_steps, 1, options=CrashOptions(batched=False, parked=False))
    assert report.outcome.value == 3
    assert report.records == 4  # start, two entries, end
    assert report.points == 2 * 4
    assert (
        report.lives == 2 + 2 * report.points + 2
    )  # undisturbed twice, and for each moment once that no death reaches


def test_arguments_reach_the_workflow_by_keyword_too() -> None:
    assert crash_everywhere(two_steps, n=5, options=CrashOptions(parked=False)).outcome.value == 7


QUICK = {"batched": False, "parked": False}


@contextmanager
def empty_till() -> Iterator[None]:
    PAID.clear()
    yield


@contextmanager
def paid_once() -> Iterator[None]:
    PAID.clear()
    yield
    assert PAID == ["A-17"]


def failure(shape: Any, **options: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        crash_everywhere(shape, options=CrashOptions(**{**QUICK, **options}))
    text = str(caught.value)
    assert "durable RunStarted" in text
    assert len(caught.traceback) <= 3  # the kit's own frames tell nothing
    return text


def test_what_a_death_changes_is_shown_with_crash_point_history_and_seed_and_can_be_repeated_alone() -> None:
    text = failure(pays_and_counts, around=empty_till, seed=17)
    assert "workflow 'pays_and_counts' at crash point single-before-2: the outcome differs:" in text
    assert 'only this one again: options=CrashOptions(only="single-before-2", seed=17)' in text
    assert "seed 17\n-- life 1: one record per commit, dies just before batch 2\n" in text
    assert "DEATH   just before the commit of: entry 1 step pay" in text
    again = failure(pays_and_counts, around=empty_till, seed=17, only="single-before-2")
    assert again.partition("\n\nlog:")[0] == text.partition("\n\nlog:")[0]  # what the dead log depends on their threads
    alone = crash_everywhere(pays_and_counts, options=CrashOptions(around=empty_till, only="single-after-2"))
    assert (alone.points, alone.outcome.value) == (1, 1)


def test_an_effect_that_is_not_idempotent_is_found_by_looking_around_each_experiment() -> None:
    text = failure(pays, around=paid_once)
    assert "at crash point single-before-2: what `around` checks does not hold: " in text
    assert "['A-17', 'A-17']" in text


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        (goes_by_the_world, "two undisturbed runs are not alike:\n  undisturbed: result: "),
        (remembers_in_a_module, "two undisturbed runs are not alike, only the first did step add"),
    ],
)
def test_what_differs_without_any_death_is_told_so(shape: Any, told: str) -> None:
    text = failure(shape)
    assert told in text
    assert "crash point" not in text
    assert "or what a module remembers" in text


@pytest.mark.parametrize("shape", [begins_with_another_number_each_time, swallows_everything_and_goes_by_the_world])
def test_a_run_that_is_blocked_shows_both_sides(shape: Any) -> None:
    text = failure(shape)
    assert "at crash point single-" in text
    assert "the run is stuck: run 'run' of workflow" in text
    assert "is blocked (nondeterminism)" in text
    assert "recorded:  step add" in text
    assert "requested: step add" in text


@pytest.mark.parametrize("shape", [swallows_everything, cleans_up])
def test_what_a_dying_run_does_in_its_last_moment_does_no_harm(shape: Any) -> None:
    assert crash_everywhere(shape, options=CrashOptions(batched=False)).points > 10


def test_an_undisturbed_run_that_fails_is_no_success_unless_that_is_wanted() -> None:
    assert "the undisturbed run fails with builtins.LookupError: 'nothing left'\nhint: " in failure(fails)
    report = crash_everywhere(fails, options=CrashOptions(**QUICK, may_fail=True))
    assert report.outcome == ("builtins.LookupError", "nothing left")


def test_a_thread_that_works_for_a_moment_meets_no_virtual_time_out() -> None:
    assert crash_everywhere(uses_a_thread, options=CrashOptions(**QUICK)).outcome.value == "in time"


def test_each_point_is_told_before_it_is_tried() -> None:
    told: list[str] = []
    report = crash_everywhere(two_steps, 1, options=CrashOptions(**QUICK, tell=told.append))
    assert told == [f"single-{moment}-{at}" for moment in ("before", "after") for at in range(1, 6)]
    assert report.points == len(told) - 2  # none is left at the fifth


@pytest.mark.parametrize("name", ["", "single", "single-before-0", "single-during-1", "double-before-1", "-1", 3])
def test_wrong_arguments_are_refused(name: Any) -> None:
    with pytest.raises(UsageError, match="is no crash point"):
        crash_everywhere(two_steps, 1, options=CrashOptions(only=name))
    with pytest.raises(UsageError, match="over before"):
        crash_everywhere(two_steps, 1, options=CrashOptions(only="single-before-9"))
    wrong: Any = add
    with pytest.raises(UsageError, match="takes a workflow"):
        crash_everywhere(wrong, 1, 2)
    wrong = {"seed": 1}
    with pytest.raises(UsageError, match="options=CrashOptions"):
        crash_everywhere(two_steps, 1, options=wrong)
    with pytest.raises(UsageError, match="points_max"):
        crash_everywhere(two_steps, 1, options=CrashOptions(points_max=0))


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
