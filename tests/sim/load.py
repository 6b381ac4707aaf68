"""What the simulated clients start: small programs, generated from a seed, whose result can be told in advance.

A program is a list of nodes. Its result is the list of what they gave, in program order, so a client that is told a
result can say whether it is the program's (`fits`), however often processes died on the way. Only a node that races
with time may give one of two things.

    ["work", label, ms]      a step                         -> label
    ["plain", label]         a `def` step                   -> label
    ["flaky", label, n]      a step that fails n times      -> label
    ["lethal", label, n]     a step that takes its process down n times -> label
    ["nap", ms]              a durable sleep                -> "nap"
    ["both", nodes]          gathered                       -> a list
    ["hurry", ms, nodes]     under a durable timeout        -> a list, or "late"
    ["guarded", nodes]       with a step that cleans up     -> a list
    ["changed", label]       another step in another release: histories of one do not fit the other -> label
    ["patched", label]       the same, guarded with `patched` by the later release -> label
    ["boom", label]          a step that fails for good: so does the run
    ["again"]                the rest is a new generation

`play` knows all of them, `plod` is a `def` workflow and knows those without nodes inside. Of each there are two
releases, which differ in `changed` and `patched`.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from holdfast import Retry, Workflow, continue_as_new, current, patched, sleep, step, workflow

DEPTH_MAX = 2
Boom = LookupError


@step
async def work(label: str, ms: int) -> str:
    await asyncio.sleep(ms / 1000)
    return label


@step
async def polish(label: str) -> str:
    await asyncio.sleep(0.005)
    return label


@step
def plain(label: str) -> str:
    return label


@step
async def lethal(label: str, times: int) -> str:
    """The simulation kills the process while this sleeps."""
    await asyncio.sleep(0.1)
    return label


@step(retry=Retry(attempts=4, first_delay=0.3, factor=3.0, max_delay=5.0, jitter=0.1), timeout=0.5)
async def flaky(label: str, failures: int) -> str:
    """Fails, or takes too long."""
    fails = current().attempt <= failures
    await asyncio.sleep(2.0 if fails and int(label) % 2 else 0.01)
    if fails:
        raise OSError(f"{label} is flaky")
    return label


@step
async def boom(label: str) -> str:
    await asyncio.sleep(0.02)
    raise Boom(label)


def _is_new(release: int, node: list[Any]) -> bool:
    """Which step this release calls for a node that has changed."""
    return release > 0 and (node[0] == "changed" or patched(f"{node[0]} {node[1]}"))


def _play_of(release: int) -> Workflow[..., Any]:
    @workflow(name="play")
    async def play(program: list[Any], given: list[Any]) -> list[Any]:
        for place, node in enumerate(program):
            if node[0] == "again":
                return continue_as_new(program[place + 1 :], given)
            given = [*given, await run(node, release)]
        return given

    return play


def _plod_of(release: int) -> Workflow[..., Any]:
    @workflow(name="plod")
    def plod(program: list[Any], given: list[Any]) -> list[Any]:
        for place, node in enumerate(program):
            if node[0] == "again":
                return continue_as_new(program[place + 1 :], given)
            given = [*given, run_plainly(node, release)]
        return given

    return plod


PLAY: Final = (_play_of(0), _play_of(1))
PLOD: Final = (_plod_of(0), _plod_of(1))


def run_plainly(node: list[Any], release: int) -> Any:
    match node:
        case ["work", label, ms]:
            return work(label, ms)
        case ["plain", label]:
            return plain(label)
        case ["flaky", label, failures]:
            return flaky(label, failures)
        case ["lethal", label, times]:
            return lethal(label, times)
        case ["boom", label]:
            return boom(label)
        case ["nap", ms]:
            sleep(ms / 1000)
            return "nap"
        case ["changed" | "patched", label]:
            return polish(label) if _is_new(release, node) else work(label, 5)
        case _:
            raise AssertionError(node)


async def run(node: list[Any], release: int) -> Any:
    run_it = partial(run, release=release)
    match node:
        case ["both", nodes]:
            return await asyncio.gather(*map(run_it, nodes))
        case ["hurry", ms, nodes]:
            try:
                async with asyncio.timeout(ms / 1000):
                    return [await run_it(each) for each in nodes]
            except TimeoutError:
                return "late"
        case ["guarded", nodes]:
            try:
                return [await run_it(each) for each in nodes]
            finally:
                await work("cleaned", 10 if len(nodes) > 1 else 1500)
        case ["nap", ms]:
            await sleep(ms / 1000)
            return "nap"
        case _:
            return await run_plainly(node, release)


@dataclass(frozen=True, slots=True)
class Order:
    """What an id is started with, whoever starts it."""

    id: str
    plods: bool
    program: list[Any]
    options: dict[str, Any]

    @classmethod
    def drawn(cls, chance: random.Random, run_id: str) -> Order:
        """One to five nodes, and now and then an option."""
        plods = chance.random() < 0.2
        program = program_of(chance, depth=DEPTH_MAX if plods else 0)
        options: dict[str, Any] = {"attributes": {"kind": chance.choice("ab"), "size": chance.randrange(3)}}
        if chance.random() < 0.15:
            options["timeout"] = chance.choice((0.4, 2.0, 10.0))
        if chance.random() < 0.15:
            options["delay"] = chance.choice((0.3, 3.0))
        if chance.random() < 0.3:
            options["priority"] = chance.randrange(3)
        return cls(run_id, plods, program, options)

    def code(self, release: int) -> Workflow[..., Any]:
        """Its workflow in this release."""
        return (PLOD if self.plods else PLAY)[release]

    @property
    def is_divided(self) -> bool:
        """Whether its history may fit only one of two releases."""
        return has(self.program, ("changed", "patched"))


def program_of(chance: random.Random, *, depth: int = 0) -> list[Any]:
    """A program of one to five nodes."""
    program = [_node(chance, depth) for _ in range(chance.randint(1, 5))]
    if chance.random() < 0.2:
        program.insert(chance.randint(0, len(program)), ["again"])
    return program


def _node(chance: random.Random, depth: int) -> list[Any]:
    kinds = ["work"] * 6 + ["flaky", "nap", "nap", "plain"]
    if depth < DEPTH_MAX:
        kinds += ["both", "hurry", "guarded"]
    if chance.random() < 0.03:
        return ["boom", _label(chance)]
    if chance.random() < 0.06:
        return [chance.choice(("changed", "patched")), _label(chance)]
    if chance.random() < 0.02:
        return ["lethal", _label(chance), chance.choice((1, 3, 4, 7))]
    kind = chance.choice(kinds)
    if kind == "work":
        return ["work", _label(chance), chance.choice([0, 1, 5, 5, 50, 300])]
    if kind == "plain":
        return ["plain", _label(chance)]
    if kind == "flaky":
        return ["flaky", _label(chance), chance.randint(1, 2)]
    if kind == "nap":
        return ["nap", chance.choice([5, 300, 700, 2500])]
    nodes = [_node(chance, depth + 1) for _ in range(chance.randint(1, 3))]
    return ["hurry", chance.choice([10, 100, 2000]), nodes] if kind == "hurry" else [kind, nodes]


def _label(chance: random.Random) -> str:
    return str(chance.randrange(100))


def has(program: list[Any], kinds: tuple[str, ...]) -> bool:
    """Whether a node of these kinds is in the program."""
    return any(
        node[0] in kinds or (node[0] in ("both", "guarded", "hurry") and has(node[-1], kinds)) for node in program
    )


def fits(program: list[Any], result: Any) -> bool:
    """Whether this may be the result of the program."""
    nodes = [node for node in program if node[0] != "again"]
    return isinstance(result, list) and len(result) == len(nodes) and all(map(_fits, nodes, result))


def _fits(node: list[Any], value: Any) -> bool:
    match node:
        case ["both" | "guarded", nodes]:
            return fits(nodes, value)
        case ["hurry", _, nodes]:
            return bool(value == "late") or fits(nodes, value)
        case ["nap", _]:
            return bool(value == "nap")
        case ["boom", _]:
            return False
        case [_, label, *_]:
            return bool(value == label)
        case _:
            return False
