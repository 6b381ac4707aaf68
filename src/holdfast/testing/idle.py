"""Until nothing is left to do: then every run that has not ended waits, as rows, and can be looked at.

    no body under way, every record durable ─> park what waits ─> nothing ready or due in the database?  ─ no ─┐
       ^                                                             │ yes: idle                              │
       └────────────────────────────── wake the dispatcher <─────────┴──────────────────────────────────────────┘

In real time this looks every millisecond; in virtual time it is told by the loop, and time passes only while a step
that is under way waits for it. Either way it gives up after `SECONDS` of real time: a workflow that calls one step
after the other for ever is never idle.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from holdfast._client import Client
from holdfast._model.bounds import shown
from holdfast._options import SECONDS_MAX, is_seconds
from holdfast._runtime.engine import Engine
from holdfast._runtime.executor import Executor
from holdfast._runtime.memory import Memory
from holdfast._runtime.options import ExecutorOptions
from holdfast._runtime.parking import Parking
from holdfast._runtime.worker import Worker
from holdfast._sync import SyncClient
from holdfast._world import ticks_ns
from holdfast.errors import UsageError
from holdfast.testing.clock import ClockLoop

LOOK_SECONDS: Final = 0.001
SECONDS: Final = 30.0
NAMED_MAX: Final = 5


async def run_until_idle(app: Client, *, timeout: float | None = None) -> None:
    """Execute until nothing is ready, running or due now, and every other run waits as rows.

    Afterwards `describe()` says of each run that it has ended, or that it is waiting, scheduled, paused or blocked.
    What is due later is left for later, be it a second. Runs that another worker holds, and those of workflows that
    this app does not know, are not waited for. Cancelling the caller stops the waiting only.

    Args:
        app: an open app.
        timeout: seconds; by default 30, in virtual time too those of the real clock.

    Raises:
        UsageError: this is no app, or one that executes nothing.
        NotOpen: it is not open.
        AssertionError: there is something to do even after `timeout`; the message names the steps that run.
    """
    engine = _client(app)._engine
    worker = engine.worker
    if worker is None:
        raise UsageError("this client executes nothing, so it is never busy", hint="give the app that executes")
    if timeout is not None and not is_seconds(timeout):
        raise UsageError(f"run_until_idle(timeout={shown(timeout)}) must be seconds, 0 to {SECONDS_MAX:g}, or None")
    is_virtual = isinstance(asyncio.get_running_loop(), ClockLoop)
    seconds = SECONDS if timeout is None else timeout
    real_end_ns = ticks_ns() + round(SECONDS * 1e9) if is_virtual and timeout is None else None
    limit = asyncio.timeout(timeout if is_virtual else seconds)
    try:
        async with limit:
            await _idle(engine, worker, real_end_ns)
            return
    except TimeoutError:
        if not limit.expired():
            raise
    except _Late:
        pass
    raise AssertionError(f"not idle after {seconds:g} s: {_under_way(worker.executor)}")


def run_until_idle_sync(client: SyncClient, *, timeout: float | None = None) -> None:
    """`run_until_idle` for blocking code, with what ``app.sync(worker=True)`` gives."""
    if not isinstance(client, SyncClient):
        raise UsageError(f"run_until_idle_sync({shown(client)}) takes an open client", hint="of app.sync(worker=True)")
    client._wait(run_until_idle(client._opened, timeout=timeout))


def _client(app: object) -> Client:
    if isinstance(app, Client):
        return app
    hint = "use run_until_idle_sync for what app.sync(worker=True) gives" if isinstance(app, SyncClient) else ""
    raise UsageError(f"run_until_idle({shown(app)}) takes an app", hint=hint or "async with app: ...")


class _Late(Exception):
    """The real clock says that it takes too long."""


async def _idle(engine: Engine, worker: Worker, real_end_ns: int | None) -> None:
    executor = worker.executor
    parking = Parking(executor, world=engine.world, options=ExecutorOptions(park_after=0.0), memory=Memory())
    while True:
        await _until(lambda: not _is_busy(executor) or _is_late(real_end_ns))
        if _is_late(real_end_ns):
            raise _Late
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


def _is_late(real_end_ns: int | None) -> bool:
    return real_end_ns is not None and ticks_ns() > real_end_ns


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
