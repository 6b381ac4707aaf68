"""Ctrl-C in a user's own program: the first stops in order, and says what it waits for; the second leaves at once."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import pytest
from tests.runtime.kit import PATIENCE_SECONDS

from holdfast import Holdfast

HEAD = """
import asyncio, signal, sys
from holdfast import Holdfast, WorkerOptions, step, workflow

@step
async def lasting() -> None:
    print("begun", flush=True)
    await asyncio.Event().wait()

@step
async def interrupted() -> None:
    signal.raise_signal(signal.SIGINT)   # asyncio.run cancels what it runs
    signal.raise_signal(signal.SIGINT)   # a KeyboardInterrupt, here

@workflow
async def waits() -> None:
    await lasting()

@workflow
async def hurries() -> None:
    await interrupted()

@workflow
async def sleeps() -> None:
    print("begun", flush=True)
    await asyncio.sleep(3600)

app = Holdfast("sqlite:///" + sys.argv[1], worker=WorkerOptions(stop_timeout=3600.0))
flows = {"lasting": waits, "interrupted": hurries, "sleeper": sleeps}
app.include(*flows.values())
"""
ASYNC = (
    HEAD
    + """
async def main():
    async with app:
        await app.run(flows[sys.argv[2]], id="r")

asyncio.run(main())
"""
)
BLOCKING = (
    HEAD
    + """
with app.sync(worker=True) as client:
    client.run(flows[sys.argv[2]], id="r")
"""
)


@contextmanager
def started(program: str, path: Path, which: str) -> Iterator[subprocess.Popen[str]]:
    """One that waits for its `stop_timeout` of an hour is killed, and fails the test."""
    command = [sys.executable, "-c", program, str(path), which]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        bound = Timer(PATIENCE_SECONDS, child.kill)
        bound.start()
        yield child
        bound.cancel()


def ended(child: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code, and what it has left on stderr."""
    said = child.communicate()[1]
    return child.returncode, said


def state_in(path: Path) -> str:
    async def look() -> str:
        async with Holdfast(f"sqlite:///{path}").client() as client:
            return (await client.get("r").describe()).state

    return asyncio.run(look())


@pytest.mark.parametrize("program", [ASYNC, BLOCKING], ids=["async", "blocking"])
def test_ctrl_c_while_the_run_only_sleeps_leaves_in_order_and_without_a_word(program: str, tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with started(program, path, "sleeper") as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        child.send_signal(signal.SIGINT)
        code, said = ended(child)
    assert (code, "under way" in said) == (-signal.SIGINT, False)
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert state_in(path) == "ready"


@pytest.mark.parametrize("program", [ASYNC, BLOCKING], ids=["async", "blocking"])
def test_ctrl_c_names_the_steps_that_it_waits_for_and_a_second_one_leaves_at_once(program: str, tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with started(program, path, "lasting") as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == "begun\n"
        child.send_signal(signal.SIGINT)
        assert child.stderr.readline() == (
            "stopping waits up to 3599 s more for steps under way: lasting of run r; a second signal leaves at once\n"
        )
        child.send_signal(signal.SIGINT)
        code, said = ended(child)
    assert (code, "destroyed" in said) == (-signal.SIGINT, False)
    assert said.rstrip().endswith("KeyboardInterrupt")


def test_a_keyboard_interrupt_in_the_code_of_a_step_is_no_outcome_and_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with started(ASYNC, path, "interrupted") as child:
        code, said = ended(child)
    assert (code, "under way" in said) == (-signal.SIGINT, False)
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert state_in(path) == "ready"
