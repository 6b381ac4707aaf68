"""The app of the tests with real processes. What its steps do is appended to `steps.log`, whole lines with the process.

A step that must wait does so until the file `open` appears: that is how a test lets all processes go on.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from holdfast import Holdfast, LeaseOptions, WorkerOptions, current, step

LEASE = LeaseOptions(seconds=float(os.environ.get("LEASE", "30")), sweep_seconds=0.2)
app = Holdfast("sqlite:///shop.db", worker=WorkerOptions(lease=LEASE))
_log = os.open("steps.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(kind: str) -> None:
    here = current()
    os.write(_log, f"{kind} {here.run_id} {here.seq} {os.getpid()}\n".encode())


@step
async def act(number: int) -> int:
    note("act")
    await asyncio.sleep(0.002)
    return number


@step
async def hold(number: int) -> int:
    note("hold")
    while not Path("open").exists():
        await asyncio.sleep(0.01)
    return number


@step
async def kill() -> str:
    note("kill")
    if "FIXED" not in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    return "fixed"


@app.workflow
async def row(number: int, length: int = 20) -> int:
    return sum([await act(number) for _ in range(length)])


@app.workflow
async def held(number: int) -> int:
    return await act(number) + await hold(number) + await act(number)


@app.workflow
async def poison() -> str:
    await act(1)
    return await kill()


if "NEWER" in os.environ:

    @app.workflow
    async def newer() -> int:
        return await act(7)
