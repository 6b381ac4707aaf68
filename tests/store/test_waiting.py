"""The list at the door of a turnstile: who is let past, and who is waited for in vain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

import holdfast
from holdfast._store.turnstile import Turnstile
from holdfast._store.waiting import PLACES, WaitingList

WAITER = """
import os, sys
from holdfast._store.waiting import WaitingList
waiting = WaitingList()
waiting.open(os.open(sys.argv[1], os.O_RDWR))
waiting.enter()
print("waits", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def door(tmp_path: Path) -> Generator[int]:
    descriptor = os.open(tmp_path / "a.db-turn-a", os.O_RDWR | os.O_CREAT, 0o600)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def waiter(tmp_path: Path, door: int) -> Generator[subprocess.Popen[str]]:
    """A process that is on the list and never comes to the door."""
    child = subprocess.Popen(
        [sys.executable, "-c", WAITER, str(tmp_path / "a.db-turn-a")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(holdfast.__file__).parents[1])},
    )
    yield child
    child.kill()
    child.communicate()


def wait_for(child: subprocess.Popen[str]) -> None:
    assert child.stdout is not None
    assert child.stdout.readline() == "waits\n"


def a_list(door: int) -> WaitingList:
    waiting = WaitingList()
    waiting.open(door)
    return waiting


def test_only_one_who_has_had_a_turn_since_stands_back(door: int) -> None:
    early, late = a_list(door), a_list(door)
    assert not early.somebody_is_before_me()
    early.turn_has_come()
    late.enter()
    assert not early.somebody_is_before_me()  # its turn was before
    early.turn_has_come()
    assert early.somebody_is_before_me()
    assert not late.somebody_is_before_me()
    late.turn_has_come()
    assert not early.somebody_is_before_me()


def test_a_wait_counts_from_its_beginning(door: int) -> None:
    first, second, third = a_list(door), a_list(door), a_list(door)
    first.enter()
    second.turn_has_come()
    first.enter()
    assert second.somebody_is_before_me()
    first.give_up()
    third.turn_has_come()
    first.enter()
    assert not third.somebody_is_before_me()


def test_closed_list_waits_for_nothing_and_gives_its_place_up(door: int) -> None:
    for _ in range(2 * PLACES):
        waiting, other = a_list(door), a_list(door)
        waiting.enter()
        other.turn_has_come()
        assert other.somebody_is_before_me()
        waiting.close()
        assert not other.somebody_is_before_me()
        other.close()


def test_who_finds_no_place_waits_without_one(door: int) -> None:
    lists = [a_list(door) for _ in range(PLACES + 1)]
    for waiting in lists:
        waiting.enter()
    late = a_list(door)
    late.turn_has_come()
    for waiting in lists[:-1]:
        assert late.somebody_is_before_me()
        waiting.give_up()
    assert not late.somebody_is_before_me()
    lists[-1].give_up()


def test_killed_waiter_is_struck_out(door: int, waiter: subprocess.Popen[str]) -> None:
    wait_for(waiter)
    mine = a_list(door)
    mine.turn_has_come()
    assert mine.somebody_is_before_me()
    waiter.kill()
    waiter.wait()
    assert not mine.somebody_is_before_me()
    assert not any(os.pread(door, 8 * PLACES, 64))


def test_stopped_waiter_is_waited_for_once(tmp_path: Path, door: int, waiter: subprocess.Popen[str]) -> None:
    wait_for(waiter)
    waiter.send_signal(signal.SIGSTOP)
    turnstile = Turnstile(tmp_path / "a.db")
    stood_back: list[int] = []
    for turn in range(4):
        with turnstile.turn():
            waiting = turnstile._seat()._list
            if waiting.somebody_is_before_me():
                stood_back.append(turn)
    assert stood_back == [0]  # the first turn made the waiter one that was overtaken; the second waited, then passed
    turnstile.close()


def test_forked_child_leaves_the_place_of_its_parent_alone(door: int) -> None:
    mine, other = a_list(door), a_list(door)
    mine.enter()
    other.turn_has_come()
    child = os.fork()
    if child == 0:
        mine.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert other.somebody_is_before_me()
    mine.close()
