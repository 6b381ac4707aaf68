"""Until nothing is left to do: then every run that has not ended waits, as rows, and can be looked at.

    no body under way, every record durable ─> park what waits ─> nothing ready or due in the database?  ─ no ─┐
       ^                                                             │ yes: idle                              │
       └────────────────────────────── wake the dispatcher <─────────┴──────────────────────────────────────────┘

In real time this looks every millisecond; in virtual time it is told by the loop, and time passes only while a step
that is under way waits for it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from holdfast._client import Client
from holdfast._model.bounds import shown
from holdfast._runtime.engine import Engine
from holdfast._runtime.executor import Executor
from holdfast._runtime.memory import Memory
from holdfast._runtime.options import ExecutorOptions
from holdfast._runtime.parking import Parking
from holdfast._runtime.worker import Worker
from holdfast._sync import SyncClient
from holdfast.errors import UsageError
from holdfast.testing.clock import ClockLoop

LOOK_SECONDS: Final = 0.001
SECONDS: Final = 30.0
NAMED_MAX: Final = 5


async def run_until_idle(app: Client, *, timeout: float | None = None) -> None:
    """Execute until nothing is ready, running or due now, and every other run waits as rows.

    Afterwards `describe()` says of each run that it has ended, or that it is waiting, scheduled, paused or blocked.
    Runs that another worker holds are not waited for. Cancelling the caller stops the waiting only.

    Args:
        app: an open app.
        timeout: seconds; by default 30, and in virtual time as long as it takes.

    Raises:
        UsageError: this is no app, or one that executes nothing.
        NotOpen: it is not open.
        AssertionError: there is something to do even after `timeout`; the message names the steps that run.
    """
    engine = _client(app)._engine
    worker = engine.worker
    if worker is None:
        raise UsageError("this client executes nothing, so it is never busy", hint="give the app that executes")
    if timeout is None and not isinstance(asyncio.get_running_loop(), ClockLoop):
        timeout = SECONDS
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            await _idle(engine, worker)
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise AssertionError(f"not idle after {timeout:g} s: {_under_way(worker.executor)}") from error


def run_until_idle_sync(client: SyncClient, *, timeout: float | None = None) -> None:
    """`run_until_idle` for blocking code, with what ``app.sync(worker=True)`` gives."""
    if not isinstance(client, SyncClient):
        raise UsageError(f"run_until_idle_sync({shown(client)}) takes an open client of app.sync(worker=True)")
    client._wait(run_until_idle(client._opened, timeout=timeout))


def _client(app: object) -> Client:
    if isinstance(app, Client):
        return app
    hint = "use run_until_idle_sync for what app.sync(worker=True) gives" if isinstance(app, SyncClient) else ""
    raise UsageError(f"run_until_idle({shown(app)}) takes an app", hint=hint or "async with app: ...")


async def _idle(engine: Engine, worker: Worker) -> None:
    executor = worker.executor
    parking = Parking(executor, world=engine.world, options=ExecutorOptions(park_after=0.0), memory=Memory())
    while True:
        await _until(lambda: not _is_busy(executor))
        await engine.journal.settle()
        parking.park_quiet()
        await engine.journal.settle()
        if not executor.live and not _is_busy(executor) and not await _is_something_ready(engine, worker):
            return
        worker.dispatcher.poke()
        await _turn()


async def _until(enough: Any) -> None:
    loop = asyncio.get_running_loop()
    if isinstance(loop, ClockLoop):
        await loop.idle(enough)
    else:
        while not enough():
            await asyncio.sleep(LOOK_SECONDS)


async def _turn() -> None:
    """Let others go on, without letting virtual time pass."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, ClockLoop):
        await loop.idle(lambda: True)
    else:
        await asyncio.sleep(LOOK_SECONDS)


def _is_busy(executor: Executor) -> bool:
    return bool(executor.reserved) or any(
        run.bodies or run.held or run.undurable or run.replaying or run.gone for run in executor.live.values()
    )


async def _is_something_ready(engine: Engine, worker: Worker) -> bool:
    due = await engine.store.next_due()
    return (due is not None and due <= engine.world.now_us()) or await engine.store.has_ready(worker.known())


def _under_way(executor: Executor) -> str:
    steps = [
        f"{body.call.step.name} of run {run.row.id}" for run in executor.live.values() for body in run.bodies.values()
    ]
    if not steps:
        return f"{len(executor.live)} runs are in memory, none of their steps runs"
    more = f" and {len(steps) - NAMED_MAX} more" if len(steps) > NAMED_MAX else ""
    return f"still running: {', '.join(steps[:NAMED_MAX])}{more}"
