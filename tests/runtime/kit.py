"""What the tests of the runtime share: apps, a patience that ends, and gates that steps wait at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from holdfast import ExecutorOptions, Holdfast, WorkerOptions, Workflow
from holdfast._model.lifecycle import RunState
from holdfast._runtime.events import Event
from holdfast._runtime.worker import Worker
from holdfast._store.journal import Journal

T = TypeVar("T")
PATIENCE_SECONDS = 30.0


def play(main: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine; one that hangs fails."""

    async def patient() -> T:
        return await asyncio.wait_for(main, PATIENCE_SECONDS)

    return asyncio.run(patient())


def app_of(
    *workflows: Workflow[..., Any], at: Path | None = None, stop_timeout: float = 5, **execution: Any
) -> Holdfast:
    """An app with these workflows, in memory or in a file."""
    uri = "sqlite://" if at is None else f"sqlite:///{at}"
    options = WorkerOptions(execution=ExecutorOptions(**execution), stop_timeout=stop_timeout)
    app = Holdfast(uri, worker=options)
    app.include(*workflows)
    return app


@asynccontextmanager
async def opened(*workflows: Workflow[..., Any], at: Path | None = None, **options: Any) -> AsyncIterator[Holdfast]:
    app = app_of(*workflows, at=at, **options)
    async with app:
        yield app


def worker_of(app: Holdfast) -> Worker:
    worker = app._engine.worker
    assert worker is not None
    return worker


def journal_of(app: Holdfast) -> Journal:
    return app._engine.journal


async def park(app: Holdfast) -> None:
    """Park whatever is quiet, now, and wait until that is durable."""
    for run in worker_of(app).executor.live.values():
        if run.quiet_since is not None:
            run.quiet_since = 0
    worker_of(app).parking.park_quiet()
    await journal_of(app).settle()


async def state_of(app: Any, run_id: str) -> RunState:
    return (await app.get(run_id).describe()).state


class Gate:
    """A place where a step's body waits, and says that it has come."""

    def __init__(self) -> None:
        self.came = asyncio.Event()
        self.open = asyncio.Event()
        self.visits = 0

    async def __call__(self) -> None:
        self.visits += 1
        self.came.set()
        await self.open.wait()


class Seen:
    """Events of an app, and a way to wait for one."""

    def __init__(self, app: Holdfast) -> None:
        self.events: list[Event] = []
        self._changed = asyncio.Event()
        self.leave = app._events.listen(self._hear)

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    async def until(self, kind: str, *, times: int = 1, step: str | None = None) -> None:
        while sum(e.kind == kind and step in (None, e.step) for e in self.events) < times:
            self._changed.clear()
            await self._changed.wait()


async def until_state(app: Any, run_id: str, state: str) -> None:
    """Look at the row, again and again, until it is in this state. `play` bounds the patience."""
    while (await app.get(run_id).describe()).state != state:
        await asyncio.sleep(0)
