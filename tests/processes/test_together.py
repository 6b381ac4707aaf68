"""Apps in several processes on one file: stopped and killed in the middle of a commit, and told of by each other."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.kit import PATIENCE_SECONDS, app_of, opened, play, until_state

import holdfast
from holdfast import Holdfast, RunNotFound, sleep, step, workflow

POLL_SECONDS = 3_600.0
"""Of everything that looks regularly, so that only a hint can have brought what a test sees."""

HEAD = """
import asyncio, os, signal, sys, threading
from holdfast import ExecutorOptions, Holdfast, WorkerOptions, sleep, step, workflow

def say(word): print(word, flush=True)

@step
async def act(number: int) -> int:
    say(f"act {number}")
    return number

@workflow
async def flow(number: int) -> int:
    return await act(number)

@workflow
async def waiting() -> str:
    await act(0)
    try:
        await sleep(3600)
    finally:
        await act(1)
    return "woken"

app = Holdfast("sqlite:///" + sys.argv[1], worker=WorkerOptions(execution=ExecutorOptions(park_after=0.0)))
app.include(flow, waiting)
"""
STOPS_IN_THE_MIDDLE = (
    HEAD
    + """
from holdfast._store.sqlite_apply import Applier
apply = Applier.apply

def apply_and_stop(self, batch):
    answers = apply(self, batch)
    if any(getattr(record, "id", None) == "half" for record in batch):
        say("in the middle")
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # this very thread, or it might go on for a moment
    return answers

Applier.apply = apply_and_stop

async def main():
    async with app:
        await app.start(flow, 1, id="half")

asyncio.run(main())
"""
)
WORKS = (
    HEAD
    + f"""
from holdfast._runtime import dispatcher, results
dispatcher.POLL_SECONDS = results.POLL_SECONDS = {POLL_SECONDS}

async def main():
    async with app:
        say("ready")
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""
)


@step
async def act(number: int) -> int:
    return number


@workflow
async def flow(number: int) -> int:
    return await act(number)


@workflow
async def waiting() -> str:
    await act(0)
    try:
        await sleep(3600)
    finally:
        await act(1)
    return "woken"


@pytest.fixture
def children() -> Generator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for child in started:
        child.kill()
        child.communicate()


def spawn(children: list[subprocess.Popen[bytes]], script: str, path: Path) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, "PYTHONPATH": str(Path(holdfast.__file__).parents[1])},
    )
    children.append(child)
    return child


def hear(child: subprocess.Popen[bytes]) -> str:
    assert child.stdout is not None
    if not select.select([child.stdout], [], [], PATIENCE_SECONDS / 2)[0]:  # its pipe has no buffer on this side
        return "nothing"
    return child.stdout.readline().decode().strip()


async def until_logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    while not any(text in message for message in caplog.messages):
        await asyncio.sleep(0.005)


@pytest.mark.crash
def test_app_stopped_in_the_middle_of_a_commit_is_named_and_when_killed_frees_its_turn_at_once(
    tmp_path: Path, children: list[subprocess.Popen[bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with opened(flow, at=tmp_path / "a.db") as app:
            app._engine.store._file.turnstile._patience_s = 0.02  # type: ignore[attr-defined]
            child = spawn(children, STOPS_IN_THE_MIDDLE, tmp_path / "a.db")
            assert await asyncio.to_thread(hear, child) == "in the middle"
            with caplog.at_level(logging.WARNING, logger="holdfast.engine"):
                starting = asyncio.create_task(app.start(flow, 7, id="mine"))
                await until_logged(caplog, f"process {child.pid}")
            assert not starting.done()
            with pytest.raises(RunNotFound):  # reading goes on, and sees nothing of the half batch
                await app.get("half").describe()
            child.send_signal(signal.SIGKILL)
            assert await (await starting).result() == 7
            with pytest.raises(RunNotFound):
                await app.get("half").describe()

    play(main())


def test_a_program_that_takes_no_turns_costs_a_delay_and_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        app = Holdfast(f"sqlite:///{tmp_path / 'a.db'}?busy_timeout=0.02")
        app.include(flow)
        async with app:
            other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
            other.execute("begin immediate")
            with caplog.at_level(logging.WARNING, logger="holdfast.engine"):
                starting = asyncio.create_task(app.run(flow, 1))
                await until_logged(caplog, "writing is delayed")
                assert await app.count() == 0
                other.execute("commit")
                assert await starting == 1
            other.close()

    play(main())


def test_worker_enters_and_leaves_though_another_program_holds_the_database(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        app = Holdfast(f"sqlite:///{tmp_path / 'a.db'}?busy_timeout=0.02")
        app.include(flow)
        async with app:
            pass
        other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
        other.execute("begin immediate")
        with caplog.at_level(logging.WARNING, logger="holdfast.engine"):
            entering = asyncio.create_task(app.__aenter__())
            await until_logged(caplog, "waiting goes on")
            other.execute("commit")
            await entering
            other.execute("begin immediate")
            caplog.clear()
            leaving = asyncio.create_task(app.__aexit__(None, None, None))
            await until_logged(caplog, "waiting goes on")
            other.execute("commit")
            await leaving
        other.close()

    play(main())


# Events between processes. The polls are an hour apart: what is seen at all was brought by a hint.


@pytest.fixture
def no_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast._runtime.results.POLL_SECONDS", POLL_SECONDS)
    monkeypatch.setattr("holdfast._runtime.dispatcher.POLL_SECONDS", POLL_SECONDS)


async def a_worker(children: list[subprocess.Popen[bytes]], path: Path) -> subprocess.Popen[bytes]:
    child = spawn(children, WORKS, path)
    assert await asyncio.to_thread(hear, child) == "ready"
    return child


@pytest.mark.usefixtures("no_polls")
def test_a_start_and_a_finish_are_seen_by_the_other_process_without_polling(
    tmp_path: Path, children: list[subprocess.Popen[bytes]]
) -> None:
    async def main() -> None:
        await a_worker(children, tmp_path / "a.db")
        async with app_of(flow, at=tmp_path / "a.db").client() as client:
            for number in range(10):
                assert await client.run(flow, number) == number

    play(main())


@pytest.mark.usefixtures("no_polls")
def test_what_a_client_asks_for_is_seen_by_the_worker_without_polling(
    tmp_path: Path, children: list[subprocess.Popen[bytes]]
) -> None:
    async def main() -> None:
        child = await a_worker(children, tmp_path / "a.db")
        async with app_of(flow, waiting, at=tmp_path / "a.db").client() as client:
            run = await client.start(waiting)
            assert await asyncio.to_thread(hear, child) == "act 0"
            await run.pause()
            await until_state(client, run.id, "paused")
            await run.resume()
            await until_state(client, run.id, "waiting")  # replayed, and parked again
            await run.cancel()
            assert await asyncio.to_thread(hear, child) == "act 1"
            await until_state(client, run.id, "cancelled")
            await run.retry()
            await until_state(client, run.id, "waiting")
            fork = await (await client.start(flow, 5)).fork(1, args=(6,))
            assert await fork.result() == 6

    play(main())


def test_a_dropped_hint_is_made_up_for_by_the_slow_poll(
    tmp_path: Path, children: list[subprocess.Popen[bytes]]
) -> None:
    async def main() -> None:
        deaf = WORKS.replace(f"= {POLL_SECONDS}", "= 0.05").replace('say("ready")', DEAF)
        child = spawn(children, deaf, tmp_path / "a.db")
        assert await asyncio.to_thread(hear, child) == "ready"
        async with app_of(flow, at=tmp_path / "a.db").client() as client:
            _make_deaf(client)
            assert await client.run(flow, 3) == 3

    play(main())


DEAF = 'app._engine.store._on_change = lambda: None; say("ready")'


def _make_deaf(client: Any) -> None:
    client._engine.store._on_change = lambda: None
