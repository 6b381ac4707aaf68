"""Workflows that do one hostile thing each: in a step's arguments, its result or its failure, or by themselves.

Every shape is there four times, as an `async def` and as a `def` workflow, each with `async def` and with `def` steps.
What is hostile is named by the run's argument, so that replay meets it again.
"""

from __future__ import annotations

import asyncio
from typing import Any

from tests.fuzz.mishaps import MISHAPS
from tests.fuzz.things import JUNK, Thing

from holdfast import Retry, Workflow, continue_as_new, patched, sleep, step, workflow

JUNK_THINGS = {f"value {thing.label}": thing for thing in JUNK}
MISHAP_THINGS = {f"error {thing.label}": thing for thing in MISHAPS}
THINGS: dict[str, Thing] = {**JUNK_THINGS, **MISHAP_THINGS}
VALUES, ERRORS = tuple(JUNK_THINGS), tuple(MISHAP_THINGS)
SHAPES: dict[str, tuple[str, ...]] = {
    "argument": VALUES,
    "two arguments": VALUES,
    "result": VALUES,
    "own result": VALUES,
    "sleep": VALUES,
    "patched": VALUES,
    "continue": VALUES,
    "failure": ERRORS,
    "retried failure": ERRORS,
    "caught failure": ERRORS,
    "failure at once": ERRORS,
    "own failure": ERRORS,
}


@step
async def give(name: str) -> Any:
    return THINGS[name].make()


@step(name="give-def")
def give_def(name: str) -> Any:
    return THINGS[name].make()


@step
async def take(value: Any, second: Any = None) -> str:
    return type(value).__name__


@step(name="take-def")
def take_def(value: Any, second: Any = None) -> str:
    return type(value).__name__


@step
async def fail(name: str) -> None:
    raise THINGS[name].make()


@step(name="fail-def")
def fail_def(name: str) -> None:
    raise THINGS[name].make()


EAGER = Retry(attempts=2, first_delay=0, retry_on=(BaseException,))
fail_again = step(name="fail-again", retry=EAGER)(fail.function)
fail_again_def = step(name="fail-again-def", retry=EAGER)(fail_def.function)


@workflow(name="async")
async def async_flow(shape: str, name: str, plain_steps: bool) -> Any:
    giving, taking, failing = (give_def, take_def, fail_def) if plain_steps else (give, take, fail)
    match shape:
        case "argument":
            return await _awaited(taking(THINGS[name].make()))
        case "two arguments":
            return await _awaited(taking(1, second=[THINGS[name].make()]))
        case "result":
            await _awaited(giving(name))
        case "own result":
            return THINGS[name].make()
        case "sleep":
            await asyncio.wait_for(sleep(THINGS[name].make()), 0.01)
        case "patched":
            return [patched(THINGS[name].make()), await _awaited(taking(1))]
        case "continue":
            if name == "end":
                return "ended"
            continue_as_new(shape, "end", THINGS[name].make())
        case "failure":
            await _awaited(failing(name))
        case "retried failure":
            await _awaited((fail_again_def if plain_steps else fail_again)(name))
        case "caught failure":
            try:
                await _awaited(failing(name))
            except Exception as error:
                return type(error).__name__
        case "failure at once":
            async with asyncio.TaskGroup() as group:
                group.create_task(_awaited(failing(name)))
                group.create_task(_awaited(taking(1)))
        case "own failure":
            raise THINGS[name].make()
    return "done"


async def _awaited(call: Any) -> Any:
    return await call


@workflow(name="def")
def def_flow(shape: str, name: str, plain_steps: bool) -> Any:
    giving: Any
    taking: Any
    giving, taking, failing = (give_def, take_def, fail_def) if plain_steps else (give, take, fail)
    match shape:
        case "argument":
            return taking(THINGS[name].make())
        case "two arguments":
            return taking(1, second=[THINGS[name].make()])
        case "result":
            giving(name)
        case "own result":
            return THINGS[name].make()
        case "sleep":
            value = THINGS[name].make()
            if type(value) is int or not isinstance(value, int | float) or not value < 1:
                sleep(value)
        case "patched":
            return [patched(THINGS[name].make()), taking(1)]
        case "continue":
            if name == "end":
                return "ended"
            continue_as_new(shape, "end", THINGS[name].make())
        case "failure" | "failure at once":
            failing(name)
        case "retried failure":
            (fail_again_def if plain_steps else fail_again)(name)
        case "caught failure":
            try:
                failing(name)
            except Exception as error:
                return type(error).__name__
        case "own failure":
            raise THINGS[name].make()
    return "done"


FLOWS: dict[str, Workflow[..., Any]] = {"async": async_flow, "def": def_flow}
