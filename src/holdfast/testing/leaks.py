"""Leaks: what a test has opened and left open, with the place where it was opened.

    Leaks().begin() ─> the test, its fixtures ─> found() ─> one line for each leak ─> clean_up()

An app or a client that is left open holds threads, a worker's lock and a database; the tests after it inherit them. Its
opening is seen by a wrapper around `__aenter__` (and `__enter__` of the blocking facade) that is there while a test is
watched. What a wider fixture opens, one of a module or session, lives on by intent and is not counted.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Final

import holdfast
from holdfast._client import Client
from holdfast._runtime.watchdog import Watchdog
from holdfast._store.lifelock import LifeLock, held_locks
from holdfast._store.sqlite import SqliteStore
from holdfast._sync import SyncClient
from holdfast.testing.apps import ClockStore
from holdfast.testing.places import calling

JOIN_SECONDS: Final = 1.0
"""Real time that threads which are about to end are given; only waited for where one is left."""
CLOSE_SECONDS: Final = 10.0


@dataclass(slots=True, eq=False)
class Opening:
    """Something that was opened during a test."""

    thing: Client | SyncClient
    place: str
    loop: asyncio.AbstractEventLoop | None

    @property
    def is_open(self) -> bool:
        """Whether it still is."""
        return (self.thing._opened if isinstance(self.thing, Client) else self.thing._client) is not None

    def __str__(self) -> str:
        return f"{_named(self.thing)} was left open; it was opened at {self.place}"


@dataclass(slots=True)
class Leaks:
    """Watches one test. `begin` before it, then `found`, then `end`."""

    openings: list[Opening] = field(default_factory=list)
    suspended: int = 0
    _threads: set[threading.Thread] = field(default_factory=set)
    _locks: set[LifeLock] = field(default_factory=set)
    _restore: list[Callable[[], None]] = field(default_factory=list)

    def begin(self) -> None:
        """Watch from here on."""
        self._threads = set(_threads())
        self._locks = set(held_locks())
        self._wrap_async()
        self._wrap_sync()

    def end(self) -> None:
        """Watch no more."""
        while self._restore:
            self._restore.pop()()

    @contextmanager
    def wider(self) -> Iterator[None]:
        """What is opened meanwhile belongs to a wider fixture."""
        self.suspended += 1
        threads, locks = set(_threads()), set(held_locks())
        try:
            yield
        finally:
            self.suspended -= 1
            self._threads |= set(_threads()) - threads
            self._locks |= set(held_locks()) - locks

    def found(self) -> list[str]:
        """One line for each app and client that is left open; else for each task, thread and lock that is left."""
        lines = [str(opening) for opening in self.openings if opening.is_open]
        if lines:  # what they hold goes with them
            return lines
        lines += [f"task {name} is left" for name in self._left_tasks()]
        lines += [f"thread {thread.name} is left" for thread in self._left_threads()]
        lines += [f"the lock file {lock.path} is held" for lock in held_locks() if lock not in self._locks]
        return lines

    def clean_up(self) -> None:
        """Close what is left open, so that the next test does not meet it."""
        for opening in self.openings:
            if opening.is_open:
                close_left_open(opening.thing)

    def _wrap_async(self) -> None:
        opened = Client.__aenter__

        @wraps(opened)
        async def opening(client: Client) -> Any:
            place = calling()
            answer = await opened(client)
            if not self.suspended and threading.current_thread().name != "holdfast-sync":
                self.openings.append(Opening(client, place, asyncio.get_running_loop()))
            return answer

        Client.__aenter__ = opening  # type: ignore[method-assign,assignment]
        self._restore.append(lambda: setattr(Client, "__aenter__", opened))

    def _wrap_sync(self) -> None:
        opened = SyncClient.__enter__

        @wraps(opened)
        def opening(client: SyncClient) -> Any:
            answer = opened(client)
            if not self.suspended:
                self.openings.append(Opening(client, calling(), None))
            return answer

        SyncClient.__enter__ = opening  # type: ignore[method-assign]
        self._restore.append(lambda: setattr(SyncClient, "__enter__", opened))

    def _left_tasks(self) -> list[str]:
        loops = {opening.loop for opening in self.openings if opening.loop is not None}
        tasks = [task for loop in loops if not loop.is_closed() for task in asyncio.all_tasks(loop)]
        return sorted(task.get_name() for task in tasks if task.get_name().startswith("holdfast-"))

    def _left_threads(self) -> list[threading.Thread]:
        left = [thread for thread in _threads() if thread not in self._threads]
        if any(lock.is_held for lock in self._locks):  # a wider fixture's app executes `def` steps
            left = [thread for thread in left if thread.name != "holdfast-step"]
        for thread in left:
            thread.join(JOIN_SECONDS)
        return [thread for thread in left if thread.is_alive()]


def close_left_open(thing: Client | SyncClient) -> None:
    """Close what somebody else has opened, wherever its event loop is: running, standing still, or closed."""
    if isinstance(thing, SyncClient):
        thing.__exit__(None, None, None)
        return
    loop = thing._opened_in
    if thing._opened is None or loop is None:
        return
    if loop.is_closed():
        _in_a_thread(lambda: asyncio.run(_close_without_loop(thing)))
    elif loop.is_running():
        asyncio.run_coroutine_threadsafe(thing.__aexit__(None, None, None), loop).result(CLOSE_SECONDS)
    else:
        _in_a_thread(lambda: loop.run_until_complete(thing.__aexit__(None, None, None)))


async def _close_without_loop(client: Client) -> None:
    """The loop is gone, and with it every task: what is left are threads, connections and locks."""
    engine, client._opened = client._opened, None
    if engine is None:
        return
    store: Any = engine.store
    if isinstance(store, ClockStore):
        store = store.inner
    if isinstance(store, SqliteStore):
        for thread in (store._writer, store._reader):
            if thread is not None:
                thread._loop = asyncio.get_running_loop()
        await store.close()
    if engine.worker is not None:
        engine.worker.executor.bodies.threads.close()
        for service in engine.worker._started:
            if isinstance(service, Watchdog):
                await service.stop()


def _in_a_thread(call: Callable[[], object]) -> None:
    """This thread may have an event loop of its own that runs."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="close-left-open")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("holdfast-")]


def _named(thing: Client | SyncClient) -> str:
    if isinstance(thing, SyncClient):
        return f"a client of app.sync() ({_named(thing._client)})" if thing._client else "a client of app.sync()"
    kind = "app" if thing._opened is not None and thing._opened.worker is not None else "client"
    store: Any = None if thing._opened is None else thing._opened.store
    uri = getattr(getattr(store, "uri", None), "path", None)
    name = repr(thing) if isinstance(thing, holdfast.Holdfast) else f"<{type(thing).__name__} of {uri}>"
    return f"{kind} {name}"
