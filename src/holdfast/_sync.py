"""The blocking facade: every method of the client in one line, on an event loop in a background thread.

There is no second implementation: a call is handed to the loop and waited for. A test compares the two surfaces.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

from holdfast._client import Client
from holdfast._model.copies import Backup
from holdfast._model.lifecycle import RunState
from holdfast._model.retention import Pruned
from holdfast._model.runinfo import Entry, RunInfo, WorkerInfo
from holdfast._run import Run, Start
from holdfast._search import Page
from holdfast._stats import Stats
from holdfast.errors import NotOpen, UsageError

T = TypeVar("T")

INTERRUPTED_SECONDS: Final = 2.0
"""For what is cancelled when leaving was interrupted."""


class SyncRun(Generic[T]):
    """`Run` for blocking code: the same methods, each waits for its answer."""

    def __init__(self, client: SyncClient, run: Run[T]) -> None:
        self.id = run.id
        self._client = client
        self._run = run

    def __repr__(self) -> str:
        return f"<SyncRun {self.id!r}>"

    def result(self, timeout: float | None = None) -> T:
        """See `Run.result`."""
        return self._client._wait(self._run.result(timeout))

    def describe(self) -> RunInfo:
        """See `Run.describe`."""
        return self._client._wait(self._run.describe())

    def history(self) -> list[Entry]:
        """See `Run.history`."""
        return self._client._wait(self._run.history())

    def cancel(self) -> RunState:
        """See `Run.cancel`."""
        return self._client._wait(self._run.cancel())

    def pause(self) -> RunState:
        """See `Run.pause`."""
        return self._client._wait(self._run.pause())

    def resume(self) -> RunState:
        """See `Run.resume`."""
        return self._client._wait(self._run.resume())

    def retry(self) -> RunState:
        """See `Run.retry`."""
        return self._client._wait(self._run.retry())

    def fork(self, at: int, **options: Any) -> SyncRun[T]:
        """See `Run.fork`."""
        return SyncRun(self._client, self._client._wait(self._run.fork(at, **options)))


class SyncClient:
    """`Client` for blocking code: ``with app.sync() as client``. Usable from several threads at once."""

    def __init__(self, make_client: Callable[[], Client]) -> None:
        self._make_client = make_client
        self._client: Client | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0

    def __enter__(self) -> Self:
        if self._loop is not None:
            raise UsageError("this client is open already", hint="open it once, or make another one with app.sync()")
        self._pid = os.getpid()
        loop = self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=loop.run_forever, name="holdfast-sync", daemon=True)
        self._thread.start()
        client = self._make_client()
        try:
            self._wait(client.__aenter__())
        except BaseException:
            self._end()
            raise
        self._client = client
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        client, self._client = self._opened, None
        if os.getpid() != self._pid:  # the thread and all that is open are the parent's
            self._loop = self._thread = None
            return
        try:
            self._wait(client.__aexit__(kind, error, traceback))
        finally:
            self._end()

    def start(self, workflow: Any, /, *args: Any, **kwargs: Any) -> SyncRun[Any]:
        """See `Client.start`."""
        return SyncRun(self, self._wait(self._opened.start(workflow, *args, **kwargs)))

    def run(self, workflow: Any, /, *args: Any, **kwargs: Any) -> Any:
        """See `Client.run`."""
        return self._wait(self._opened.run(workflow, *args, **kwargs))

    def start_many(self, starts: Iterable[Start[T]]) -> list[SyncRun[T]]:
        """See `Client.start_many`."""
        return [SyncRun(self, run) for run in self._wait(self._opened.start_many(starts))]

    def get(self, run_id: str) -> SyncRun[Any]:
        """See `Client.get`."""
        return SyncRun(self, self._opened.get(run_id))

    def count(self, **conditions: Any) -> int:
        """See `Client.count`."""
        return self._wait(self._opened.count(**conditions))

    def iterate(self, **conditions: Any) -> Iterator[RunInfo]:
        """See `Client.iterate`."""
        runs = self._opened.iterate(**conditions)
        while (run := self._wait(_following(runs))) is not None:
            yield run

    def workers(self, *, gone: bool = False) -> tuple[WorkerInfo, ...]:
        """See `Client.workers`."""
        return self._wait(self._opened.workers(gone=gone))

    def backup(self, path: str | os.PathLike[str], *, force: bool = False) -> Backup:
        """See `Client.backup`."""
        return self._wait(self._opened.backup(path, force=force))

    def stats(self, **options: Any) -> Stats:
        """See `Client.stats`."""
        return self._wait(self._opened.stats(**options))

    def list(self, **conditions: Any) -> Page:
        """See `Client.list`."""
        return self._wait(self._opened.list(**conditions))

    def prune(self, **options: Any) -> Pruned:
        """See `Client.prune`. What `on_progress` names is called on the client's own thread."""
        return self._wait(self._opened.prune(**options))

    # Leaves.

    @property
    def _opened(self) -> Client:
        if self._client is None:
            raise NotOpen("this client is not open", hint="use it inside `with app.sync() as client:`")
        return self._client

    def _wait(self, answer: Coroutine[Any, Any, T]) -> T:
        loop = self._loop
        if loop is None:
            answer.close()
            raise NotOpen("this client is not open", hint="use it inside `with app.sync() as client:`")
        if os.getpid() != self._pid:
            answer.close()
            raise NotOpen("this client was opened before a fork, by the parent", hint="open another one here")
        if threading.current_thread() is self._thread:
            answer.close()
            raise UsageError(
                "a blocking call on the client's own event loop would wait for itself",
                hint="call it in another thread, or use an app there",
            )
        return asyncio.run_coroutine_threadsafe(answer, loop).result()

    def _end(self) -> None:
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is not None and thread is not None:
            asyncio.run_coroutine_threadsafe(_wind_up(), loop)
            thread.join()
            loop.close()


async def _wind_up() -> None:
    """Stop the loop. Something is left on it only if leaving was interrupted, as by a second Ctrl-C."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=INTERRUPTED_SECONDS)
    asyncio.get_running_loop().stop()


async def _following(runs: AsyncIterator[T]) -> T | None:
    return await anext(runs, None)
