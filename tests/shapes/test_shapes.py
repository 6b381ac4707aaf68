"""Every workflow shape of ours dies at each of its records and goes on as if nothing had happened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

from holdfast import Retry, continue_as_new, current, now, patched, random, sleep, step, uuid4, workflow
from holdfast.testing import CrashOptions, Outcome, crash_everywhere


class Refused(Exception):
    """What a step of these shapes fails with."""

    def __init__(self, what: str, *, code: int = 0) -> None:
        super().__init__(what)
        self.code = code


@step
async def add(a: int, b: int) -> int:
    return a + b


@step
async def slow(label: str, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return label


@step
def double(x: int) -> int:
    return 2 * x


@step
async def refuse(what: str) -> None:
    raise Refused(what, code=7)


@step
def refuse_in_thread(what: str) -> None:
    raise Refused(what, code=8)


@step(retry=Retry(attempts=3, first_delay=10.0, jitter=0.0))
async def third_time_lucky(x: int) -> int:
    attempt = current().attempt
    if attempt < 3:
        raise Refused(f"attempt {attempt}")
    return x + attempt


@step(retry=Retry(attempts=2, first_delay=1.0, jitter=0.5))
def never_lucky() -> None:
    raise ValueError("no luck")


@step(timeout=5)
async def too_slow() -> None:
    await asyncio.sleep(3600)


@step
async def key() -> str:
    return current().idempotency_key


# Sequential, parallel.


@workflow
async def sequential(n: int) -> int:
    total = 0
    for i in range(n):
        total = await add(total, i)
    return total


@workflow
async def mixed(n: int) -> int:
    total = 0
    for i in range(n):
        total = await double(await add(total, i))  # type: ignore[misc]
    return total


@workflow
async def gathered() -> list[str]:
    return await asyncio.gather(slow("a", 0.3), slow("b", 0.1), slow("c", 0.2))


async def two_steps(label: str, seconds: float) -> str:
    first = await slow(label + "1", seconds)
    return first + await slow(label + "2", seconds)


@workflow
async def gathered_branches() -> list[str]:
    return await asyncio.gather(two_steps("a", 0.2), two_steps("b", 0.1), two_steps("c", 0.15))


@workflow
async def gathered_exceptions() -> list[str]:
    results = await asyncio.gather(refuse("x"), add(1, 2), refuse_in_thread("y"), return_exceptions=True)
    return [repr(result) for result in results]


# Groups.


@workflow
async def grouped() -> list[str]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(two_steps(label, 0.1 * i)) for i, label in enumerate("abc", 1)]
    return [task.result() for task in tasks]


@workflow
async def group_fails() -> list[str]:
    trace: list[str] = []

    async def branch(label: str) -> None:
        try:
            trace.append(await slow(label, 60))
        except asyncio.CancelledError:
            trace.append("cancelled " + label)
            raise

    try:
        async with asyncio.TaskGroup() as group:
            for label in "abc":
                group.create_task(branch(label))
            await slow("first", 0.1)
            group.create_task(refuse("the group"))
    except* Refused as failures:
        trace += [str(error) for error in failures.exceptions]
    return [*trace, await slow("after", 0.1)]


@workflow
async def nested_groups() -> list[int]:
    async def inner(base: int) -> int:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(add(base, i)) for i in range(2)]
        return sum(task.result() for task in tasks)

    async with asyncio.TaskGroup() as outer:
        tasks = [outer.create_task(inner(10 * i)) for i in range(2)]
    return [task.result() for task in tasks]


@workflow
async def group_leaves_the_run() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(refuse("out"))
        group.create_task(slow("x", 60))


# Races.


@workflow
async def race() -> list[str]:
    tasks = [asyncio.create_task(two_steps(label, 0.1 * i), name=label) for i, label in enumerate("abc", 1)]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.wait(pending)
    return [task.result() for task in done] + [str(task.cancelled()) for task in tasks]


@workflow
async def completed_in_order() -> list[str]:
    trace = []
    for future in asyncio.as_completed([slow("a", 0.3), slow("b", 0.1), slow("c", 0.2)]):
        trace.append(await future)
    return trace


@workflow
async def wait_for_expires() -> list[str]:
    trace = []
    try:
        await asyncio.wait_for(slow("never", 3600), 1.5)
    except TimeoutError:
        trace.append("late")
    trace.append(await asyncio.wait_for(slow("soon", 0.1), 60))
    return trace


@workflow
async def timeout_expires() -> list[str]:
    trace = []
    try:
        async with asyncio.timeout(2) as limit:
            trace.append(await slow("in time", 0.5))
            limit.reschedule(asyncio.get_running_loop().time() + 1)
            await slow("never", 3600)
    except TimeoutError:
        trace.append("late")
    async with asyncio.timeout(60):
        trace.append(await slow("soon", 0.1))
    return trace


@workflow
async def shielded() -> list[str]:
    task = asyncio.create_task(two_steps("kept", 2))
    try:
        await asyncio.wait_for(asyncio.shield(task), 1)
    except TimeoutError:
        return ["late", await task]
    return []


# Primitives.


@workflow
async def queue_workers() -> list[str]:
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=2)
    trace: list[str] = []

    async def work(name: str, seconds: float) -> None:
        while True:
            job = await queue.get()
            trace.append(name + await slow(str(job), seconds))
            queue.task_done()

    workers = [asyncio.create_task(work(name, 0.1 * i)) for i, name in enumerate("xy", 1)]
    for job in range(5):
        await queue.put(job)
    await queue.join()
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    return trace


@workflow
async def primitives() -> list[str]:
    event, lock, semaphore, condition = asyncio.Event(), asyncio.Lock(), asyncio.Semaphore(2), asyncio.Condition()
    trace: list[str] = []

    async def member(label: str) -> None:
        await event.wait()
        async with semaphore:
            trace.append(await slow(label, 0.1))
        async with lock:
            trace.append(await slow(label.upper(), 0.1))
        async with condition:
            condition.notify_all()

    async with asyncio.TaskGroup() as group:
        for label in "abc":
            group.create_task(member(label))
        await slow("go", 0.1)
        event.set()
        async with condition:
            await condition.wait_for(lambda: len(trace) == 6)
    return trace


@workflow
async def generated() -> list[int]:
    async def numbers() -> AsyncIterator[int]:
        try:
            for i in range(10):
                yield await add(i, 1)
        finally:
            await add(0, 0)

    seen = []
    async with aclosing(numbers()) as source:
        async for number in source:
            seen.append(number)
            if number == 3:
                break
    return [*seen, *[n async for n in numbers() if n > 8]]


# Time, randomness, identity.


@workflow
async def sleeper() -> list[str]:
    begin = now()
    await asyncio.sleep(3 * 86400)
    await sleep(60)
    await asyncio.gather(asyncio.sleep(5), slow("x", 1))
    assert isinstance(begin, datetime)
    return [str((now() - begin).days), await slow("end", 0.1)]


@workflow
async def chances() -> list[str]:
    trace = [str(random().random()), await slow("x", 0.1), str(uuid4()), str(random().choice("abc"))]
    assert UUID(trace[2]).version == 4
    return [*trace, await key(), current().run_id]


@workflow
async def retried() -> list[str]:
    trace = [str(await third_time_lucky(1))]
    for attempt in (never_lucky, too_slow):
        try:
            await attempt()  # type: ignore[misc]
        except (ValueError, TimeoutError) as error:
            trace.append(type(error).__name__)
    return trace


@workflow
async def with_patch() -> list[str]:
    trace = [await slow("a", 0.1)]
    if patched("fix"):
        trace.append(await slow("new", 0.1))
    await asyncio.gather(slow("b", 0.1), two_steps("c", 0.1))
    if patched("fix") and patched("other"):
        trace.append(await slow("newer", 0.1))
    return trace


@workflow
async def continued(n: int, total: int = 0) -> int:
    total = await add(total, n)
    await asyncio.sleep(10)
    if n > 1:
        continue_as_new(n - 1, total)
    return total


# Exceptions.


@workflow
async def caught() -> list[str]:
    trace = []
    for attempt in (refuse, refuse_in_thread):
        try:
            await attempt("caught")  # type: ignore[misc]
        except Refused as error:
            trace.append(f"{type(error).__name__} {error} {error.code}")
        finally:
            trace.append(await slow("finally", 0.1))
    return trace


@workflow
async def raised() -> None:
    await add(1, 1)
    try:
        await refuse("the run")
    finally:
        await add(2, 2)


@workflow
async def exception_groups() -> list[str]:
    names: set[str] = set()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(refuse("one"))
            group.create_task(refuse_in_thread("two"))
            group.create_task(add(1, 1))
    except* Refused as failures:
        names = {type(error).__name__ for error in failures.exceptions}
    return sorted(names)


# Sync workflows.


@workflow
def plain(n: int) -> int:
    total = 0
    for i in range(n):
        total = double(total) + i
    sleep(3600)
    return total + len(chosen())


def chosen() -> str:
    return str(slow(random().choice("abc"), 0.1)) if patched("choice") else ""


@workflow
def plain_exceptions() -> list[str]:
    trace = []
    try:
        refuse_in_thread("sync")
    except Refused as error:
        trace.append(f"{error} {error.code}")
    finally:
        trace.append(str(double(2)))
    try:
        refuse("async")
    except Refused as error:
        trace.append(str(error))
    refuse_in_thread("the end")
    return trace


SHAPES: list[tuple[Any, tuple[Any, ...], Any]] = [
    (sequential, (5,), 10),
    (mixed, (3,), 8),
    (gathered, (), ["a", "b", "c"]),
    (gathered_branches, (), ["a1a2", "b1b2", "c1c2"]),
    (gathered_exceptions, (), ["Refused('x')", "3", "Refused('y')"]),
    (grouped, (), ["a1a2", "b1b2", "c1c2"]),
    (group_fails, (), ["cancelled a", "cancelled b", "cancelled c", "the group", "after"]),
    (nested_groups, (), [1, 21]),
    (race, (), ["a1a2", "False", "True", "True"]),
    (completed_in_order, (), ["b", "c", "a"]),
    (wait_for_expires, (), ["late", "soon"]),
    (timeout_expires, (), ["in time", "late", "soon"]),
    (shielded, (), ["late", "kept1kept2"]),
    (primitives, (), None),
    (generated, (), [1, 2, 3, 9, 10]),
    (sleeper, (), ["3", "end"]),
    (chances, (), None),
    (retried, (), ["4", "ValueError", "StepTimeout"]),
    (with_patch, (), ["a", "new", "newer"]),
    (continued, (3,), 6),
    (caught, (), ["Refused caught 7", "finally", "Refused caught 8", "finally"]),
    (exception_groups, (), ["Refused"]),
    (plain, (3,), 5),
]


@pytest.mark.parametrize(("shape", "args", "expected"), SHAPES, ids=[shape.name for shape, _, _ in SHAPES])
def test_shape_survives_dying_at_each_record(shape: Any, args: tuple[Any, ...], expected: object) -> None:
    report = crash_everywhere(shape, *args)
    assert report.outcome.kind == "result"
    if expected is not None:
        assert report.outcome.value == expected
    assert report.points >= report.records


def test_pool_of_queue_workers_survives_dying_at_each_record() -> None:
    """Which worker gets which job depends on what was recorded before the death; that each is done once does not."""

    def same_jobs(expected: Outcome, found: Outcome) -> bool:
        return sorted(entry[1:] for entry in expected.value) == sorted(entry[1:] for entry in found.value)

    report = crash_everywhere(queue_workers, options=CrashOptions(same=same_jobs))
    assert len(report.outcome.value) == 5


@pytest.mark.parametrize(
    ("shape", "kind", "message"),
    [
        (raised, "Refused", "the run"),
        (plain_exceptions, "Refused", "the end"),
        (group_leaves_the_run, "ExceptionGroup", "unhandled errors in a TaskGroup (1 sub-exception)"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_shape_that_fails_survives_dying_at_each_record(shape: Any, kind: str, message: str) -> None:
    report = crash_everywhere(shape, options=CrashOptions(may_fail=True))
    assert report.outcome.kind.endswith(kind)
    assert str(report.outcome.value).startswith(message)
