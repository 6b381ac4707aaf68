"""Fair turns between real processes that use the real store. Turns are counted; nothing depends on how long they take.

Each process commits batches of one start, so the number of the run is the number of the turn.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

import pytest

import holdfast

TURNS = 800
HEAD = """
import asyncio, json, os, sys
from pathlib import Path
from holdfast._store.sqlite import SqliteStore
from holdfast._store.turnstile import Turnstile
from holdfast._store.uri import SqliteUri
from holdfast._store.waiting import WaitingList
from holdfast._world import SystemWorld, ticks_ns
from holdfast.testing.store_conformance.bench import Bench, S, started

asked = came = 0
enter, turn_has_come = WaitingList.enter, WaitingList.turn_has_come

def noted_enter(self):
    global asked
    enter(self)
    asked = asked or ticks_ns()  # after it is on the list: a pause before this line makes the wait shorter

def noted_turn(self):
    global came
    came = ticks_ns()
    turn_has_come(self)

WaitingList.enter, WaitingList.turn_has_come = noted_enter, noted_turn
"""
STORE = (
    HEAD
    + """
async def main(path, name, turns):
    global asked
    store = SqliteStore(SqliteUri(path=path), world=SystemWorld())
    bench = Bench(store, lambda: store)
    await store.open(on_change=lambda: None)
    print("ready", flush=True)
    sys.stdin.readline()
    seen, count, number = [], 0, 0
    while number < turns:
        asked, count = 0, count + 1
        number = (await bench.submit(started(f"{name}-{count}", S.READY))).number
        seen.append((asked, came, number))
    print(json.dumps(seen), flush=True)
    sys.stdin.readline()
    await store.close()

asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
"""
)
# Nothing but turns, so that whoever leaves is back before the next one has been woken: the worst case of fairness.
BARE = (
    HEAD
    + """
turnstile = Turnstile(Path(sys.argv[1]))
counter = os.open(sys.argv[1] + "-count", os.O_RDWR | os.O_CREAT)
print("ready", flush=True)
sys.stdin.readline()
seen, number = [], 0
while number < int(sys.argv[3]):
    asked = 0
    with turnstile.turn():
        number = int(os.pread(counter, 20, 0) or 0) + 1
        os.pwrite(counter, b"%d" % number, 0)
        os.fdatasync(counter)
    seen.append((asked, came, number))
print(json.dumps(seen), flush=True)
sys.stdin.readline()
turnstile.close()
"""
)


class Turn(NamedTuple):
    """When a process asked for a turn (0: it did not wait), when it came, and which it was."""

    asked: int
    came: int
    number: int


@pytest.fixture
def children() -> Generator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for child in started:
        child.kill()
        child.communicate()


def say(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def hear(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline()


def turns_of(children: list[subprocess.Popen[str]], path: Path, *, script: str, processes: int) -> list[list[Turn]]:
    env = {**os.environ, "PYTHONPATH": str(Path(holdfast.__file__).parents[1])}
    for name in range(processes):
        command = [sys.executable, "-c", script, str(path), f"p{name}", str(TURNS)]
        children.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env))
    for child in children:
        assert hear(child) == "ready\n"
    for child in children:
        say(child)
    answers = [hear(child) for child in children]
    for child in children:
        say(child)
        assert child.wait() == 0
    return [[Turn(*turn) for turn in json.loads(answer)] for answer in answers]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "processes"),
    [*((STORE, processes) for processes in (1, 2, 4, 8)), (BARE, 2), (BARE, 8)],
    ids=lambda value: ("bare" if value is BARE else "store") if isinstance(value, str) else None,
)
def test_turns_are_fair_among_processes(
    script: str, processes: int, tmp_path: Path, children: list[subprocess.Popen[str]]
) -> None:
    of_each = turns_of(children, tmp_path / "a.db", script=script, processes=processes)
    numbers = sorted(turn.number for turns in of_each for turn in turns)
    assert numbers == [*range(1, len(numbers) + 1)]  # every acknowledged batch is there, once

    came = sorted(turn.came for turns in of_each for turn in turns)
    overtaken = [
        bisect_left(came, turn.came) - bisect_left(came, turn.asked)
        for turns in of_each
        for turn in turns
        if turn.asked
    ]
    # One of each other, and the two that were on their way; the rest is for a machine that lets a woken process lie.
    assert max(overtaken, default=0) <= 2 * processes + 2, sorted(overtaken)[-20:]
    if script is BARE:
        assert len(overtaken) > TURNS / 20, "they hardly met"

    # While all of them came back again and again: from the last one's start to the first one's end.
    begin, end = max(turns[0].number for turns in of_each), min(turns[-1].number for turns in of_each)
    shares = [sum(begin <= turn.number <= end for turn in turns) for turns in of_each]
    assert 2 * min(shares) >= max(shares), shares
    assert sum(shares) > TURNS / 2, "they hardly worked at the same time"
