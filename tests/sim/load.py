"""What the simulated clients start: small programs, generated from a seed, whose result can be told in advance.

A program is a list of nodes. Its result is the list of what they gave, in program order, so a client that is told a
result can say whether it is the program's (`fits`), however often processes died on the way. Only a node that races
with time may give one of two things.

    ["work", label, ms]      a step                         -> label
    ["flaky", label, n]      a step that fails n times      -> label
    ["nap", ms]              a durable sleep                -> "nap"
    ["both", nodes]          gathered                       -> a list
    ["hurry", ms, nodes]     under a durable timeout        -> a list, or "late"
    ["guarded", nodes]       with a step that cleans up     -> a list
    ["boom", label]          a step that fails for good: so does the run
    ["again"]                the rest is a new generation
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from holdfast import Retry, continue_as_new, current, sleep, step, workflow

DEPTH_MAX = 2
Boom = LookupError


@step
async def work(label: str, ms: int) -> str:
    await asyncio.sleep(ms / 1000)
    return label


@step(retry=Retry(attempts=4, first_delay=0.3, factor=3.0, max_delay=5.0, jitter=0.1))
async def flaky(label: str, failures: int) -> str:
    await asyncio.sleep(0.01)
    if current().attempt <= failures:
        raise OSError(f"{label} is flaky")
    return label


@step
async def boom(label: str) -> str:
    await asyncio.sleep(0.02)
    raise Boom(label)


@workflow
async def play(program: list[Any], given: list[Any]) -> list[Any]:
    for place, node in enumerate(program):
        if node[0] == "again":
            return continue_as_new(program[place + 1 :], given)
        given = [*given, await run(node)]
    return given


async def run(node: list[Any]) -> Any:
    match node:
        case ["work", label, ms]:
            return await work(label, ms)
        case ["flaky", label, failures]:
            return await flaky(label, failures)
        case ["boom", label]:
            return await boom(label)
        case ["nap", ms]:
            await sleep(ms / 1000)
            return "nap"
        case ["both", nodes]:
            return await asyncio.gather(*map(run, nodes))
        case ["hurry", ms, nodes]:
            try:
                async with asyncio.timeout(ms / 1000):
                    return [await run(each) for each in nodes]
            except TimeoutError:
                return "late"
        case ["guarded", nodes]:
            try:
                return [await run(each) for each in nodes]
            finally:
                await work("cleaned", 10)
        case _:
            raise AssertionError(node)


def program_of(chance: random.Random) -> list[Any]:
    """A program of one to five nodes."""
    program = [_node(chance, 0) for _ in range(chance.randint(1, 5))]
    if chance.random() < 0.2:
        program.insert(chance.randint(0, len(program)), ["again"])
    return program


def _node(chance: random.Random, depth: int) -> list[Any]:
    kinds = ["work"] * 6 + ["flaky", "nap", "nap"]
    if depth < DEPTH_MAX:
        kinds += ["both", "hurry", "guarded"]
    if chance.random() < 0.03:
        return ["boom", _label(chance)]
    kind = chance.choice(kinds)
    if kind == "work":
        return ["work", _label(chance), chance.choice([0, 1, 5, 5, 50, 300])]
    if kind == "flaky":
        return ["flaky", _label(chance), chance.randint(1, 2)]
    if kind == "nap":
        return ["nap", chance.choice([5, 300, 700, 2500])]
    nodes = [_node(chance, depth + 1) for _ in range(chance.randint(1, 3))]
    return ["hurry", chance.choice([10, 100, 2000]), nodes] if kind == "hurry" else [kind, nodes]


def _label(chance: random.Random) -> str:
    return str(chance.randrange(100))


def fails(program: list[Any]) -> bool:
    """Whether a program can fail by itself."""
    return any(node[0] == "boom" or (node[0] in ("both", "guarded", "hurry") and fails(node[-1])) for node in program)


def fits(program: list[Any], result: Any) -> bool:
    """Whether this may be the result of the program."""
    nodes = [node for node in program if node[0] != "again"]
    return isinstance(result, list) and len(result) == len(nodes) and all(map(_fits, nodes, result))


def _fits(node: list[Any], value: Any) -> bool:
    match node:
        case ["work" | "flaky", label, _]:
            return bool(value == label)
        case ["nap", _]:
            return bool(value == "nap")
        case ["hurry", _, nodes]:
            return bool(value == "late") or fits(nodes, value)
        case [_, nodes]:
            return fits(nodes, value)
        case _:
            return False
