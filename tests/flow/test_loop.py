"""The workflow's loop: order, hashes, refusals, closing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast import current, sleep, step, workflow
from holdfast._flow.activation import Activation
from holdfast._flow.calls import StepOutcome
from holdfast._flow.loop import RunClosing, WorkflowLoop
from holdfast._model.failures import decode_failure, encode_failure
from holdfast._model.lifecycle import RunState
from holdfast._model.records import RunRow
from holdfast._runtime.liverun import keep_generator
from holdfast.errors import NotAllowedInWorkflow, StepFailed

EXECUTED: list[str] = []


@step
async def touch(label: str) -> str:
    EXECUTED.append(label)
    return label


def begun(definition: Any, text: str = "{}") -> Activation:
    """A run that was just started."""
    row = RunRow(
        number=1,
        id="run",
        workflow=definition.name,
        input=text,
        seed=7,
        generation=0,
        crashes=0,
        request=None,
        created_at=1_000_000,
        started_at=2_000_000,
        deadline_at=None,
        has_history=False,
    )
    activation = Activation(row, definition)
    activation.begin()
    return activation


def answer(activation: Activation, seq: int, text: str, *, at: int = 3_000_000) -> None:
    """The outcome of the step with this number arrives."""
    call = activation.steps[seq]
    activation.deliver_step(call, StepOutcome(text, f'"{text}"', None, None, at))


class Owner:
    """The least that a loop needs."""

    def __init__(self) -> None:
        self.errors: list[dict[str, Any]] = []

    def timer_started(self, timer: Any) -> None:
        raise AssertionError("no timers here")

    def timer_cancelled(self, timer: Any) -> None:
        raise AssertionError("no timers here")

    def unhandled(self, context: dict[str, Any]) -> None:
        self.errors.append(context)


def test_callbacks_run_first_in_first_out_also_those_that_callbacks_add() -> None:
    loop, seen = WorkflowLoop(Owner(), salt=1), []

    def first() -> None:
        seen.append(1)
        loop.call_soon(seen.append, 3)

    loop.call_soon(first)
    loop.call_soon(seen.append, 2)
    loop.drain()
    assert seen == [1, 2, 3]


def test_error_in_a_callback_reaches_the_owner_and_the_rest_goes_on() -> None:
    owner = Owner()
    loop, seen = WorkflowLoop(owner, salt=1), []
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(seen.append, "after")
    loop.drain()
    assert seen == ["after"]
    assert isinstance(owner.errors[0]["exception"], ZeroDivisionError)


def test_cancelled_callback_does_not_run() -> None:
    loop, seen = WorkflowLoop(Owner(), salt=1), []
    loop.call_soon(seen.append, 1).cancel()
    loop.drain()
    assert seen == []


def test_futures_hash_by_the_order_of_their_creation() -> None:
    loop = WorkflowLoop(Owner(), salt=3)
    hashes = [hash(loop.create_future()) for _ in range(5)]
    assert hashes == list(range(hashes[0], hashes[0] + 5))
    assert [hash(WorkflowLoop(Owner(), salt=3).create_future())] == hashes[:1]


REFUSED = {
    "run_in_executor": lambda loop: loop.run_in_executor(None, print),
    "to_thread": lambda _: asyncio.to_thread(print),
    "getaddrinfo": lambda loop: loop.getaddrinfo("localhost", 80),
    "open_connection": lambda _: asyncio.open_connection("localhost", 80),
    "start_server": lambda _: asyncio.start_server(print, "localhost", 0),
    "create_subprocess_exec": lambda _: asyncio.create_subprocess_exec("true"),
    "add_reader": lambda loop: loop.add_reader(0, print),
    "add_signal_handler": lambda loop: loop.add_signal_handler(2, print),
    "call_soon_threadsafe": lambda loop: loop.call_soon_threadsafe(print),
    "set_task_factory": lambda loop: loop.set_task_factory(None),
    "set_exception_handler": lambda loop: loop.set_exception_handler(None),
    "stop": lambda loop: loop.stop(),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_the_outside_world_is_refused_with_the_way_out(name: str) -> None:
    @workflow
    async def reaches_out() -> str:
        try:
            outcome = REFUSED[name](asyncio.get_running_loop())
            if asyncio.iscoroutine(outcome):
                await outcome
        except NotAllowedInWorkflow as error:
            return str(error)
        return "it worked"

    activation = begun(reaches_out)
    assert activation.conclusion is not None
    assert "do this in a step" in str(activation.conclusion.output)


def test_nested_asyncio_run_is_refused_by_asyncio_itself() -> None:
    @workflow
    async def nested() -> str:
        inner = asyncio.sleep(0)
        try:
            asyncio.run(inner)
        except RuntimeError as error:
            inner.close()
            return str(error)
        return "it worked"

    conclusion = begun(nested).conclusion
    assert conclusion is not None
    assert "running event loop" in str(conclusion.output)


def test_time_is_the_instant_of_the_last_delivery() -> None:
    @workflow
    async def looks() -> list[float]:
        loop = asyncio.get_running_loop()
        before = loop.time()
        await touch("x")
        return [before, loop.time()]

    activation = begun(looks)
    answer(activation, 1, "x", at=5_000_000)
    assert activation.conclusion is not None
    assert activation.conclusion.output == "[2.0,5.0]"


def test_a_finally_block_cannot_act_while_its_run_leaves_memory() -> None:
    EXECUTED.clear()
    refused: list[str] = []

    @workflow
    async def cleans() -> None:
        try:
            await touch("body")
        finally:
            for attempt in (lambda: touch("clean"), lambda: sleep(5), lambda: asyncio.ensure_future(touch("task"))):
                try:
                    await attempt()
                except RunClosing:
                    refused.append("refused")

    activation = begun(cleans)
    activation.close()
    assert refused == ["refused"] * 3
    assert EXECUTED == []
    assert not activation.records


def test_a_coroutine_that_will_not_end_is_given_up_and_the_others_are_closed() -> None:
    closed: list[str] = []

    async def stubborn() -> None:
        for _ in range(150):  # more than the loop asks
            with contextlib.suppress(BaseException):
                await asyncio.get_running_loop().create_future()

    @workflow
    async def has_both() -> None:
        task = asyncio.create_task(stubborn())
        try:
            await touch("x")
        finally:
            closed.append(task.get_name())

    activation = begun(has_both)
    activation.close()
    assert closed == ["Task-2"]


async def in_time(awaitable: Any) -> None:
    async with asyncio.timeout(5):
        await awaitable


async def in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(touch("again"))


@pytest.mark.parametrize(
    "operation",
    [
        lambda: touch("again"),
        lambda: sleep(5),
        lambda: asyncio.gather(touch("again")),
        lambda: asyncio.ensure_future(asyncio.sleep(1)),
        lambda: in_time(touch("again")),
        lambda: in_a_group(),
    ],
    ids=["step", "sleep", "gather", "task", "timeout", "group"],
)
def test_code_that_swallows_every_refusal_and_tries_again_does_not_hold_the_thread(operation: Any) -> None:
    """``except:`` around what is tried again is common; refused at once each time, it would spin for ever."""

    @workflow
    async def tries_for_ever() -> None:
        while True:
            try:
                await operation()
            except BaseException:
                continue

    activation = begun(tries_for_ever)
    activation.close()
    assert not activation.steps
    assert not activation.timers


def test_a_plain_workflow_that_swallows_every_refusal_does_not_hold_the_thread_either() -> None:
    @workflow
    def tries_for_ever() -> None:
        while True:
            try:
                touch("again")
            except BaseException:
                continue

    begun(tries_for_ever).close()


def test_an_abandoned_async_generator_is_closed_with_its_run_and_not_by_the_collector() -> None:
    """Left to the collector, its `finally` would call steps in whichever run is active then."""
    seen: list[str] = []

    async def numbers() -> Any:
        try:
            while True:
                yield await touch("n")
        finally:
            seen.append("closing")
            await touch("clean")

    @workflow
    async def breaks_off() -> str:
        async for number in numbers():
            return str(number)
        return ""

    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(keep_generator, None)
    try:
        activation = begun(breaks_off)
        answer(activation, 1, "n")
        assert seen == []
        activation.close()
    finally:
        sys.set_asyncgen_hooks(*hooks)
    assert seen == ["closing"]
    gc.collect()
    assert seen == ["closing"]
    assert EXECUTED.count("clean") == 0


def test_exit_in_a_workflow_fails_the_run_and_not_the_process() -> None:
    @workflow
    async def leaves() -> None:
        await touch("x")
        sys.exit(3)

    activation = begun(leaves)
    answer(activation, 1, "x")
    assert activation.conclusion is not None
    assert activation.conclusion.state is RunState.FAILED
    assert "SystemExit" in str(activation.conclusion.error)


def test_stop_iteration_from_a_step_does_not_break_the_loop() -> None:
    @workflow
    async def iterates() -> str:
        try:
            await touch("x")
        except Exception as error:
            return type(error).__name__
        return ""

    activation = begun(iterates)
    text = encode_failure(StopIteration(5))
    failure = decode_failure(text, fallback=StepFailed)
    activation.deliver_step(activation.steps[1], StepOutcome(None, None, failure, text, 3_000_000))
    assert activation.conclusion is not None
    assert activation.conclusion.output == '"StepFailed"'


@pytest.mark.parametrize("delay", [1e15, float("inf")])
def test_a_timer_beyond_all_bounds_is_a_timer_that_a_database_can_hold(delay: float) -> None:
    @workflow
    async def waits_for_ever() -> None:
        await asyncio.sleep(delay)

    activation = begun(waits_for_ever)
    assert activation.conclusion is None
    assert [entry.due_at is not None and entry.due_at < 2**63 for entry in activation.pending_entries()] == [True]
    activation.close()


SET_ORDER = """
import asyncio
from holdfast import step, workflow
import json, sys
sys.path.insert(0, {folder!r})
import test_loop

async def sub(i):
    await test_loop.touch(str(i))

@workflow
async def orders() -> list[str]:
    junk = [object() for _ in range({junk})]
    names = [t.get_name() for t in {{asyncio.create_task(sub(i), name=str(i)) for i in range(20)}}]
    done, pending = await asyncio.wait([asyncio.create_task(sub(i), name=str(i)) for i in range(20)], timeout=0.5)
    names += [task.get_name() for task in pending]
    for future in asyncio.as_completed([sub(i) for i in range(20)]):
        future.close() if asyncio.iscoroutine(future) else None
        break
    return names

activation = test_loop.begun(orders)
timer = next(iter(activation.timers.values()))
activation.deliver_timer(timer, now_us=9_000_000)
print(activation.conclusion.output, [call.args for call in activation.steps.values()])
"""


def test_sets_of_tasks_and_as_completed_have_one_order_in_every_process() -> None:
    outputs = set()
    for hash_seed, junk in (("1", 3), ("2", 1000), ("3", 77)):
        code = SET_ORDER.format(folder=str(Path(__file__).parent), junk=junk)
        answer_ = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer_.returncode == 0, answer_.stderr
        outputs.add(answer_.stdout)
    assert len(outputs) == 1


def test_as_completed_over_an_iterator_of_coroutines_is_refused_with_the_way_out() -> None:
    async def sub(i: int) -> None:
        await touch(str(i))

    @workflow
    async def iterates() -> str:
        coroutines = [sub(i) for i in range(3)]
        try:
            for future in asyncio.as_completed(iter(coroutines)):
                await future
        except NotAllowedInWorkflow as error:
            for coroutine in coroutines:
                coroutine.close()
            return str(error)
        return "it worked"

    conclusion = begun(iterates).conclusion
    assert conclusion is not None
    assert "pass a list" in str(conclusion.output)


def test_current_knows_the_run_while_its_loop_runs_and_nothing_afterwards() -> None:
    @workflow
    async def who() -> str:
        return current().run_id

    conclusion = begun(who).conclusion
    assert conclusion is not None
    assert conclusion.output == '"run"'
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
