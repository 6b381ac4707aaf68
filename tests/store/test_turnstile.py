"""Turns, between real processes. Children tell what they do through pipes; nothing here waits for a time to pass."""

from __future__ import annotations

import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest

import holdfast
from holdfast._store.turnstile import NoTurnstile, Turnstile
from holdfast.errors import StoreReplaced, StoreUnavailable

HEAD = """
import os, sys
from pathlib import Path
from holdfast._store.turnstile import Turnstile
turnstile = Turnstile(Path(sys.argv[1]))
def say(word): sys.stdout.write(word + chr(10)); sys.stdout.flush()
def hear(): return sys.stdin.readline()
"""
HOLD = HEAD + "\nwith turnstile.turn():\n    say('in')\n    hear()\nsay('out')\n"
WAIT = HEAD + "\nsay('coming')\nwith turnstile.turn():\n    say('in')\n"

# Whoever is alone in its turn finds the counter as the last one left it. The others' start is part of the record.
COUNT = (
    HEAD
    + """
say('ready'); hear()
turns = int(sys.argv[2])
log = os.open(sys.argv[3], os.O_RDWR | os.O_APPEND)
while True:
    with turnstile.turn():
        size = os.fstat(log).st_size
        if size >= turns: break
        os.write(log, sys.argv[4].encode())
        assert os.fstat(log).st_size == size + 1, 'two at once'
        os.fsync(log)
"""
)


@pytest.fixture
def children() -> Generator[list[subprocess.Popen[str]], None, None]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for child in started:
        child.kill()
        child.communicate()


def spawn(children: list[subprocess.Popen[str]], script: str, *args: object) -> subprocess.Popen[str]:
    package = str(Path(holdfast.__file__).parents[1])
    child = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": package},
    )
    children.append(child)
    return child


def hear(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def say(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def count_turns(children: list[subprocess.Popen[str]], folder: Path, turns: int) -> str:
    log = folder / "log"
    log.touch()
    counting = [spawn(children, COUNT, folder / "a.db", turns, log, name) for name in "abcd"]
    for child in counting:
        assert hear(child) == "ready"
    for child in counting:
        say(child)
    assert [child.wait() for child in counting] == [0, 0, 0, 0]
    return log.read_text()


def test_four_processes_are_never_in_their_turns_at_once_and_have_fair_shares(
    tmp_path: Path, children: list[subprocess.Popen[str]]
) -> None:
    log = count_turns(children, tmp_path, 2000)
    assert len(log) == 2000
    shares = Counter(log)
    assert set(shares) == set("abcd")
    # While all four come back again and again: from the last start to the first end.
    busy = log[max(log.index(name) for name in "abcd") : min(log.rindex(name) for name in "abcd")]
    shares = Counter(busy)
    assert min(shares.values()) > len(busy) / 12, shares
    longest_wait = max(len(gap) for name in "abcd" for gap in busy.split(name))
    assert longest_wait < 60, longest_wait


def test_killed_holder_frees_the_turn(tmp_path: Path, children: list[subprocess.Popen[str]]) -> None:
    holder = spawn(children, HOLD, tmp_path / "a.db")
    assert hear(holder) == "in"
    waiter = spawn(children, WAIT, tmp_path / "a.db")
    assert hear(waiter) == "coming"
    holder.kill()
    assert hear(waiter) == "in"


def test_killed_waiter_leaves_the_door_open(tmp_path: Path, children: list[subprocess.Popen[str]]) -> None:
    waiting: queue.Queue[int | None] = queue.Queue()
    turnstile = Turnstile(tmp_path / "a.db", patience_s=0.01, on_wait=lambda holder, _: waiting.put(holder))
    holder = spawn(children, HOLD, tmp_path / "a.db")
    assert hear(holder) == "in"
    waiter = spawn(children, WAIT, tmp_path / "a.db")
    assert hear(waiter) == "coming"
    entered = threading.Event()
    thread = threading.Thread(target=_enter, args=(turnstile, entered))
    thread.start()
    assert waiting.get() == holder.pid
    waiter.kill()
    say(holder)
    entered.wait()
    thread.join()
    turnstile.close()


def _enter(turnstile: Turnstile, entered: threading.Event) -> None:
    with turnstile.turn():
        entered.set()


def test_stopped_holder_is_named_to_those_who_wait(
    tmp_path: Path, children: list[subprocess.Popen[str]], caplog: pytest.LogCaptureFixture
) -> None:
    holder = spawn(children, HOLD, tmp_path / "a.db")
    assert hear(holder) == "in"
    holder.send_signal(signal.SIGSTOP)
    reported: queue.Queue[tuple[int | None, float]] = queue.Queue()
    turnstile = Turnstile(tmp_path / "a.db", patience_s=0.01, on_wait=lambda *facts: reported.put(facts))
    entered = threading.Event()
    thread = threading.Thread(target=_enter, args=(turnstile, entered))
    thread.start()
    first, second = reported.get(), reported.get()
    assert first == (holder.pid, 0.01)
    assert second == (holder.pid, 0.02)
    assert not entered.is_set()
    holder.send_signal(signal.SIGCONT)
    say(holder)
    entered.wait()
    thread.join()
    turnstile.close()


def test_holder_stopped_at_the_door_is_named_too(tmp_path: Path, children: list[subprocess.Popen[str]]) -> None:
    turnstile, other = Turnstile(tmp_path / "a.db"), Turnstile(tmp_path / "a.db")
    script = HEAD + "\nfrom fcntl import *\nseat = turnstile.turn()\ndoor, room = turnstile.open()\n"
    script += "flock(door, LOCK_EX)\nseat._leave_stamp(door)\nsay('at the door')\nhear()\n"
    child = spawn(children, script, tmp_path / "a.db")
    assert hear(child) == "at the door"
    assert turnstile.holder() == child.pid
    child.kill()
    child.wait()
    assert turnstile.holder() is None
    with other.turn():
        assert turnstile.holder() == os.getpid()
    other.close()


def test_waiting_is_logged_with_the_holder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    turnstile = Turnstile(tmp_path / "a.db")
    with caplog.at_level(logging.WARNING, logger="holdfast.engine"):
        turnstile._warn(4711, 5.0)
        turnstile._warn(None, 5.0)
    assert "process 4711" in caplog.messages[0]
    assert "another process" in caplog.messages[1]


def test_threads_and_objects_of_one_process_take_turns_too(tmp_path: Path) -> None:
    shared, own = Turnstile(tmp_path / "a.db"), Turnstile(tmp_path / "a.db")
    inside, most = 0, 0

    def work(turnstile: Turnstile) -> None:
        nonlocal inside, most
        for _ in range(200):
            with turnstile.turn():
                inside += 1
                most = max(most, inside)
                os.sched_yield()
                inside -= 1

    threads = [threading.Thread(target=work, args=(turnstile,)) for turnstile in (shared, shared, own)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    shared.close()
    own.close()


def test_turns_nest_in_a_thread(tmp_path: Path) -> None:
    turnstile = Turnstile(tmp_path / "a.db")
    assert not turnstile.held
    with turnstile.turn():
        with turnstile.turn():
            pass
        assert turnstile.held
        assert turnstile.holder() == os.getpid()
    assert not turnstile.held
    assert turnstile.holder() is None
    turnstile.close()


def test_turn_that_fails_is_given_back(tmp_path: Path) -> None:
    turnstile = Turnstile(tmp_path / "a.db")
    with pytest.raises(ZeroDivisionError), turnstile.turn():
        _ = 1 / 0
    assert turnstile.holder() is None
    turnstile.close()


def test_closed_turnstile_opens_again(tmp_path: Path) -> None:
    turnstile = Turnstile(tmp_path / "a.db")
    for _ in range(2):
        with turnstile.turn():
            assert turnstile.held
        turnstile.close()


def test_files_of_a_turnstile_are_private_and_beside_the_database(tmp_path: Path) -> None:
    turnstile = Turnstile(tmp_path / "a.db")
    with turnstile.turn():
        files = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert files == {"a.db-turn-a": 0o600, "a.db-turn-b": 0o600}
    turnstile.close()


def test_removed_file_is_reported(tmp_path: Path) -> None:
    turnstile = Turnstile(tmp_path / "a.db")
    turnstile.check()
    with turnstile.turn():
        turnstile.check()
    turnstile.door.unlink()
    with pytest.raises(StoreReplaced, match="turn-a"):
        turnstile.check()
    turnstile.door.touch()
    with pytest.raises(StoreReplaced):
        turnstile.check()
    turnstile.close()


def test_folder_that_is_missing_is_reported_and_leaves_nothing_open(tmp_path: Path) -> None:
    turnstile = Turnstile(tmp_path / "none" / "a.db")
    with pytest.raises(StoreUnavailable, match="turn-a"), turnstile.turn():
        pass
    room_is_a_folder = Turnstile(tmp_path / "b.db")
    room_is_a_folder.room.mkdir()
    with pytest.raises(StoreUnavailable, match="turn-b"), room_is_a_folder.turn():
        pass


def test_database_in_memory_has_free_turns() -> None:
    turnstile = NoTurnstile()
    with turnstile.turn(), turnstile.turn():
        assert not turnstile.held
    assert turnstile.holder() is None


def test_watcher_that_leaves_is_followed_by_another(tmp_path: Path, children: list[subprocess.Popen[str]]) -> None:
    """A wait may begin at the very moment in which the watcher finds that there are none."""
    reported = threading.Event()
    turnstile = Turnstile(tmp_path / "a.db", patience_s=0.001, on_wait=lambda *_: reported.set())
    lock, left = turnstile._lock, threading.Event()

    class Told:
        """The turnstile's lock, but the watcher's letting go of it is where the wait begins."""

        def __enter__(self) -> None:
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()
            if threading.current_thread().name == "holdfast-turnstile" and not left.is_set():
                left.set()
                began.wait(20)

    began = threading.Event()
    turnstile._lock = Told()  # type: ignore[assignment]
    turnstile.watch()
    assert left.wait(20)
    holder = spawn(children, HOLD, tmp_path / "a.db")
    assert hear(holder) == "in"
    entered = threading.Event()
    waiter = threading.Thread(target=_enter, args=(turnstile, entered))
    waiter.start()
    while turnstile.holder() is None or not any(seat.waiting for seat in list(turnstile._seats)):
        os.sched_yield()
    began.set()
    assert reported.wait(20)
    say(holder)
    waiter.join()
    turnstile.close()
