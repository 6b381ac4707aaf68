"""Apps for tests: on a temporary file, in real time or by a clock in virtual time.

They are apps like any other, on a real database. What differs: nothing is pruned, and commits are not synced
(`synchronous=normal`), since no test survives a power cut.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from holdfast._app import Holdfast
from holdfast._flow.definitions import Workflow
from holdfast._model.records import Outcome, Record
from holdfast._runtime.engine import Engine
from holdfast._runtime.options import WorkerOptions
from holdfast._store.port import Done, Store
from holdfast._store.sqlite import SqliteStore
from holdfast._world import World
from holdfast.errors import UsageError
from holdfast.testing.virtual import hold_clock

if TYPE_CHECKING:
    from holdfast.testing.clock import ClockLoop

Source: TypeAlias = Workflow[..., Any] | ModuleType | Holdfast
"""Where an app's workflows come from."""


def make_app(path: Path, sources: Iterable[Source], *, worker: WorkerOptions | None = None) -> Holdfast:
    """An app in real time on the file at `path`.

    Raises:
        UsageError: a source or an option is wrong.
    """
    return included(Holdfast(f"sqlite:///{path.absolute()}?synchronous=normal", worker=options_of(worker)), sources)


def included(app: Holdfast, sources: Iterable[Source]) -> Holdfast:
    """The app, with the workflows of these sources; another app is a source too."""
    for source in sources:
        if isinstance(source, Holdfast):
            app.include(*source._known.values())
        else:
            app.include(source)
    return app


def options_of(worker: WorkerOptions | None) -> WorkerOptions:
    """How a test's app executes runs, unless it says otherwise: what has ended stays to be looked at."""
    return WorkerOptions(retention=None) if worker is None else worker


class ClockApp(Holdfast):
    """An app in virtual time."""

    def __init__(self, uri: str, *, world: World, loop: ClockLoop, worker: WorkerOptions) -> None:
        super().__init__(uri, worker=worker)
        self._world = world
        self._clock_loop = loop

    def sync(self, *, worker: bool = False) -> Any:
        """Not in virtual time: the facade's event loop is another one."""
        raise UsageError("app.sync() has an event loop of its own, in real time", hint="await the app's own calls")

    def _new_engine(self, worker: WorkerOptions | None) -> Engine:
        return _ClockEngine(
            self._clock_loop,
            store=cast("Store", ClockStore(SqliteStore(self._parsed, world=self._world), self._clock_loop)),
            world=self._world,
            workflows=self._known,
            events=self._events,
            journal=self._journal_options,
            worker=worker,
            retention=self._worker_options.retention,
        )


class _ClockEngine(Engine):
    """An engine whose threads keep the clock still."""

    def __init__(self, loop: ClockLoop, **parts: Any) -> None:
        super().__init__(**parts)
        self._loop = loop

    async def open(self) -> None:
        await super().open()
        if self.worker is not None:  # nothing has begun yet: the dispatcher's first turn comes after this one
            hold_clock(self.worker.executor.bodies, self._loop)


class ClockStore:
    """A `Store` whose calls keep the clock still, and whose commits are seen at once by the clock's other apps."""

    def __init__(self, inner: SqliteStore, loop: ClockLoop) -> None:
        self.pipeline = inner.pipeline
        self.inner = inner
        self._loop = loop
        self.changed: Callable[[], object] | None = None

    async def open(self, *, on_change: Callable[[], object]) -> None:
        """Open the database, in the clock's own event loop.

        Raises:
            UsageError: in another one.
        """
        self._loop.check_running("this app")
        self._loop.outside += 1
        try:
            await self.inner.open(on_change=on_change)
        finally:
            self._loop.outside -= 1
        self.changed = on_change
        self._loop.stores.append(self)

    async def close(self) -> None:
        """Close the database."""
        if self in self._loop.stores:
            self._loop.stores.remove(self)
        self._loop.outside += 1
        try:
            await self.inner.close()
        finally:
            self._loop.outside -= 1

    def submit(self, batch: Sequence[Record], *, worker: str | None, done: Done) -> None:
        """Commit the batch."""
        self._loop.outside += 1

        def answered(outcomes: Sequence[Outcome] | None, error: BaseException | None) -> None:
            self._loop.outside -= 1
            for store in self._loop.stores:
                if store is not self and store.changed is not None:
                    self._loop.call_soon(store.changed)
            done(outcomes, error)

        self.inner.submit(batch, worker=worker, done=answered)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if not inspect.iscoroutinefunction(method):
            return method

        async def call(*args: Any, **options: Any) -> Any:
            self._loop.outside += 1
            try:
                return await method(*args, **options)
            finally:
                self._loop.outside -= 1

        return call
