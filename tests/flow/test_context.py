"""What code may ask of its run, inside and outside; sync workflows; workflows that block."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from greenlet import greenlet

from holdfast import (
    Holdfast,
    continue_as_new,
    current,
    now,
    patched,
    random,
    sleep,
    step,
    uuid4,
    workflow,
)
from holdfast._runtime.options import WorkerOptions
from holdfast.errors import NotAllowedInWorkflow, NotInRun, StepFailed, UsageError


@step
async def where() -> tuple[str, str | None, int | None, int, str]:
    here = current()
    return here.run_id, here.step, here.seq, here.attempt, here.idempotency_key


@step
def where_in_thread() -> tuple[str, int | None]:
    assert threading.current_thread() is not threading.main_thread()
    return current().run_id, current().seq


@step
async def add(a: int, b: int) -> int:
    return a + b


def run_once(path: Path, definition: object, *args: object) -> object:
    """The result of one run with the id `r`."""

    async def main() -> object:
        app = Holdfast(f"sqlite:///{path / 'x.db'}")
        app.include(definition)  # type: ignore[arg-type]
        async with app:
            return await app.run(definition, *args, id="r")

    return asyncio.run(main())


# Outside of a run.


def test_outside_a_run_steps_and_workflows_are_plain_functions() -> None:
    @workflow
    async def doubles(n: int) -> int:
        return await add(n, n)

    assert inspect.iscoroutine(coroutine := add(1, 2))
    assert asyncio.run(coroutine) == 3
    assert asyncio.run(doubles(4)) == 8


def test_outside_a_run_the_helpers_are_those_of_the_standard_library() -> None:
    assert abs(now() - datetime.now(UTC)) < timedelta(minutes=1)
    assert uuid4().version == 4
    assert uuid4() != uuid4()
    assert 0 <= random().random() < 1
    asyncio.run(_sleeps())


async def _sleeps() -> None:
    await sleep(0)
    await sleep(timedelta(0))


@pytest.mark.parametrize(
    "ask", [current, lambda: patched("x"), continue_as_new], ids=["current", "patched", "continue"]
)
def test_outside_a_run_what_needs_one_says_so(ask: object) -> None:
    with pytest.raises(NotInRun):
        ask()  # type: ignore[operator]


@pytest.mark.parametrize("delay", [-1, "1", None, True, float("nan"), 1e12])
def test_sleep_refuses_what_is_not_a_delay(delay: object) -> None:
    with pytest.raises(UsageError, match="sleep"):
        sleep(delay)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", None, 3])
def test_patched_refuses_what_is_not_a_name(name: object) -> None:
    with pytest.raises(UsageError, match="name"):
        patched(name)  # type: ignore[arg-type]


# Inside.


def test_current_tells_where_the_code_runs(tmp_path: Path) -> None:
    @workflow
    async def asks() -> list[object]:
        here = current()
        return [here.run_id, here.step, here.attempt, here.idempotency_key, await where(), await where_in_thread()]  # type: ignore[misc]

    assert run_once(tmp_path, asks) == [
        "r",
        None,
        0,
        "r",
        ["r", "where", 1, 1, "r:1:where"],
        ["r", 2],
    ]


def test_key_of_a_later_generation_differs(tmp_path: Path) -> None:
    @workflow
    async def twice(keys: list[str]) -> list[str]:
        key = (await where())[4]
        if not keys:
            continue_as_new([key])
        return [*keys, key]

    assert run_once(tmp_path, twice, []) == ["r:1:where", "r:g1:1:where"]


def test_a_step_is_not_the_workflow_and_cannot_patch_or_continue(tmp_path: Path) -> None:
    @step
    async def patches() -> str:
        try:
            patched("x")
        except NotInRun as error:
            return str(error)
        return "it worked"

    @workflow
    async def calls() -> str:
        return await patches()

    assert "only a workflow's own code" in str(run_once(tmp_path, calls))


def test_a_step_inside_a_step_is_a_plain_function(tmp_path: Path) -> None:
    @step
    async def outer() -> int:
        return await add(1, 2)

    @workflow
    async def nests() -> int:
        return await outer()

    assert run_once(tmp_path, nests) == 3


def test_a_workflow_inside_a_workflow_is_refused_with_the_way_out(tmp_path: Path) -> None:
    @workflow
    async def child() -> int:
        return 1

    @workflow
    async def parent() -> str:
        try:
            await child()
        except NotAllowedInWorkflow as error:
            return str(error)
        return "it worked"

    assert "plain function or a step" in str(run_once(tmp_path, parent))


def test_uuids_of_one_run_differ(tmp_path: Path) -> None:
    @workflow
    async def makes() -> list[uuid.UUID]:
        return [uuid4(), uuid4()]

    first, second = run_once(tmp_path, makes)  # type: ignore[misc]
    assert first != second


def test_state_of_one_run_does_not_leak_into_another(tmp_path: Path) -> None:
    @workflow
    async def mine(n: int) -> list[str]:
        seen = []
        for _ in range(3):
            seen.append(current().run_id)
            await add(n, 1)
        return seen

    async def main() -> None:
        app = Holdfast(f"sqlite:///{tmp_path / 'x.db'}")
        app.include(mine)
        async with app:
            runs = [await app.start(mine, n, id=f"r{n}") for n in range(20)]
            for run in runs:
                assert await run.result() == [run.id] * 3

    asyncio.run(main())


# Sync workflows.


def test_sync_workflow_calls_async_and_plain_steps_like_functions(tmp_path: Path) -> None:
    @workflow
    def plain(n: int) -> list[object]:
        total = add(n, 1)  # an async step: its value, not a coroutine
        sleep(0.001)
        return [total, where_in_thread()]

    assert run_once(tmp_path, plain, 4) == [5, ["r", 3]]  # the sleep is entry 2


def test_sync_workflow_catches_what_its_steps_raise(tmp_path: Path) -> None:
    @step
    def divides() -> float:
        return 1 / 0

    @workflow
    def plain() -> str:
        try:
            divides()
        except ZeroDivisionError as error:
            return f"caught {error}"
        return ""

    assert run_once(tmp_path, plain) == "caught division by zero"


def test_step_called_from_a_foreign_greenlet_is_refused(tmp_path: Path) -> None:
    @workflow
    def plain() -> str:
        def inner() -> str:
            try:
                add(1, 1)
            except UsageError as error:
                return str(error)
            return "it worked"

        return str(greenlet(inner).switch())

    assert "another greenlet" in str(run_once(tmp_path, plain))


def test_sync_workflow_that_is_cancelled_runs_its_finally_with_steps(tmp_path: Path) -> None:
    cleaned = []

    @step
    def clean() -> None:
        cleaned.append(current().run_id)

    @workflow
    def plain() -> None:
        try:
            sleep(3600)
        finally:
            clean()

    async def main() -> None:
        app = Holdfast(f"sqlite:///{tmp_path / 'x.db'}")
        app.include(plain)
        async with app:
            run = await app.start(plain, id="r")
            await run.cancel()
            with pytest.raises(Exception, match="was cancelled"):
                await run.result()

    asyncio.run(main())
    assert cleaned == ["r"]


def test_exit_in_a_plain_step_fails_the_step_and_not_the_process(tmp_path: Path) -> None:
    @step
    def leaves() -> None:
        raise SystemExit(3)

    @step
    async def leaves_too() -> None:
        raise SystemExit(4)

    @workflow
    async def survives() -> list[str]:
        seen = []
        for attempt in (leaves, leaves_too):
            try:
                await attempt()  # type: ignore[misc]
            except StepFailed as error:
                seen.append(error.type_name)
        return seen

    assert run_once(tmp_path, survives) == ["builtins:SystemExit"] * 2


# Blocking.


def test_workflow_that_blocks_the_loop_is_reported_with_its_stack(tmp_path: Path) -> None:
    reported, seen = threading.Event(), []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "blocked the event loop" in record.getMessage():
                seen.append(record)
                reported.set()

    @workflow
    async def blocks() -> bool:
        return reported.wait(30)  # what a workflow must not do

    listener = Listener()
    logging.getLogger("holdfast.run").addHandler(listener)
    try:

        async def main() -> object:
            app = Holdfast(f"sqlite:///{tmp_path / 'x.db'}", worker=WorkerOptions(blocked_after=0.1))
            app.include(blocks)
            async with app:
                return await app.run(blocks, id="r")

        assert asyncio.run(main()) is True
    finally:
        logging.getLogger("holdfast.run").removeHandler(listener)
    assert len(seen) == 1
    assert "reported.wait(30)" in seen[0].getMessage()
    assert (seen[0].run_id, seen[0].workflow) == ("r", "blocks")  # type: ignore[attr-defined]


def test_a_run_that_is_begun_anew_has_the_keys_of_its_id_and_a_fork_its_own() -> None:
    keys: list[str] = []

    @step
    async def effect() -> None:
        keys.append(current().idempotency_key)

    @workflow
    async def flow() -> None:
        await effect()

    async def main() -> None:
        app = Holdfast("sqlite:///:memory:")
        app.include(flow)
        async with app:
            await app.run(flow, id="order-17")
            await app.run(flow, id="order-17", on_conflict="restart")
            fork = await app.get("order-17").fork(at=1)
            await fork.result()
            assert keys == ["order-17:1:effect", "order-17:1:effect", f"{fork.id}:1:effect"]

    asyncio.run(main())
