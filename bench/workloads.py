"""The workflows that are measured: the smallest step there is, called many times."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import cast

from holdfast import sleep, step, workflow

step_times_ns: list[int] = []
at_gate: list[Callable[[], None]] = []
gate_opens: asyncio.Event | None = None


@step
async def tick(number: int) -> int:
    """The smallest step."""
    return number + 1


@step
async def tock(number: int) -> int:
    """A step that notes when its body began. It begins when the step before it is on the disk."""
    step_times_ns.append(time.perf_counter_ns())
    return number + 1


@step
async def gate(number: int) -> int:
    """A step that does what `at_gate` says when the run has reached it, and waits until the gate opens."""
    for action in at_gate:
        action()
    if gate_opens is not None:
        await gate_opens.wait()
    return number


@workflow
async def steps(count: int) -> int:
    """A run of `count` steps, one after the other."""
    number = 0
    for _ in range(count):
        number = await tick(number)
    return number


@workflow
def steps_in_def(count: int) -> int:
    """The same in a `def` workflow, where a step call is its value."""
    number = 0
    for _ in range(count):
        number = cast("int", tick(number))  # its annotation is for `await`
    return number


@workflow
async def timed_steps(count: int) -> int:
    """A run of steps that note their times."""
    number = 0
    for _ in range(count):
        number = await tock(number)
    return number


@workflow
async def steps_and_gate(count: int) -> int:
    """Steps, and behind them the gate: the first thing that is not in the history after a crash."""
    number = 0
    for _ in range(count):
        number = await tick(number)
    return await gate(number)


@workflow
async def sleeper() -> None:
    """A run that sleeps for an hour."""
    await sleep(3600)


WORKFLOWS = (steps, steps_in_def, timed_steps, steps_and_gate, sleeper)
