"""`holdfast worker`: a process that executes runs until it is told to stop.

    first SIGTERM or SIGINT     steps under way finish, or are cancelled after --stop-timeout; runs are given back
    second                      leaves at once: what was not recorded is executed again elsewhere
    --stop-timeout + 5 s        leaves as after a second signal, should something not let it stop, such as a step that
                                blocks the event loop

The handlers are Python's, not the event loop's, so that they work while a step blocks the loop. Leaving at once loses
nothing: the kernel drops the worker's lock with its process, and the next worker takes its runs over.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import click

from holdfast import Holdfast
from holdfast._model.records import RunEnded, RunRow
from holdfast._runtime.worker import Worker
from holdfast._store.journal import Journal
from holdfast.cli.answers import write_json
from holdfast.cli.loading import load_app
from holdfast.cli.logs import LOG, log_to_stderr
from holdfast.cli.opening import point_to
from holdfast.cli.settings import Settings, pass_settings, shared_options
from holdfast.cli.values import Duration
from holdfast.errors import Fenced, InternalError

LOOK_SECONDS: Final = 0.5
GRACE_SECONDS: Final = 5.0


@click.command()
@click.argument("target", metavar="MOD:APP")
@click.option(
    "--stop-timeout",
    type=Duration(),
    default=25.0,
    show_default=True,
    help="For steps under way when it stops, in seconds.",
)
@click.option("-v", "--verbose", count=True, help="Log more.")
@click.option("-q", "--quiet", count=True, help="Log warnings only; twice: errors only.")
@shared_options
@pass_settings
def worker(settings: Settings, target: str, stop_timeout: float, verbose: int, quiet: int) -> None:
    """Execute the runs of APP in module MOD, such as shop:app for `app` in shop.py.

    SIGTERM or Ctrl-C stops it gracefully, a second one at once. Logs go to stderr.
    """
    app = load_app(target)
    if settings.db is not None:
        point_to(app, settings.db)
    app._worker_options = dataclasses.replace(app._worker_options, stop_timeout=stop_timeout)
    log_to_stderr(settings, level=_level(verbose - quiet))
    asyncio.run(_Serving(settings, app, stop_timeout).serve())


def _level(louder: int) -> int:
    """Information by default."""
    return min(max(logging.INFO - 10 * louder, logging.DEBUG), logging.ERROR)


class _Serving:
    """One life of the worker."""

    def __init__(self, settings: Settings, app: Holdfast, stop_timeout: float) -> None:
        self._settings = settings
        self._app = app
        self._stop_timeout = stop_timeout
        self._ended: Counter[str] = Counter()

    async def serve(self) -> None:
        """Open, work, close.

        Raises:
            HoldfastError: the store refuses this worker for good; whoever supervises it may start it again.
        """
        signals = Signals(self._stop_timeout)
        with signals:
            async with self._app:
                engine = self._app._engine
                worker = engine.worker
                if worker is None:
                    raise InternalError("the app has opened without a worker")
                self._count_ends(worker)
                self._say_ready(worker)
                broken = await self._until_stopped(signals, lambda: _broken(engine.journal, worker))
                LOG.info("stopping: %s", self._under_way(worker))
            self._say_stopped(worker)
        if broken is not None:
            raise broken

    async def _until_stopped(
        self, signals: Signals, broken: Callable[[], BaseException | None]
    ) -> BaseException | None:
        """Wait for a signal, or for the journal to break: then nothing would ever happen here again."""
        while not signals.stop.is_set():
            if (cause := broken()) is not None:
                return cause
            try:
                await asyncio.wait_for(signals.stop.wait(), LOOK_SECONDS)
            except TimeoutError:
                continue
        return None

    def _count_ends(self, worker: Worker) -> None:
        """Through the executor's own callback: the event hook would cost two events for every step."""
        executor, tell = worker.executor, worker.executor._on_ended

        def count(row: RunRow, record: RunEnded) -> None:
            self._ended[record.state.value] += 1
            tell(row, record)

        executor._on_ended = count

    def _under_way(self, worker: Worker) -> str:
        runs = len(worker.executor.live)
        if not runs:
            return "no run is under way"
        told = f"{runs} {'run' if runs == 1 else 'runs'} under way"
        return f"{told}; steps have {self._stop_timeout:g} s to finish, a second signal leaves at once"

    # What it says.

    def _say_ready(self, worker: Worker) -> None:
        names = self._app.workflows
        known = f"workflows {', '.join(names)}" if names else "no workflows"
        LOG.info("worker %s ready: %s, %s", worker.id, self._app.uri, known)
        self._event({"event": "ready", "worker": worker.id, "database": self._app.uri, "workflows": list(names)})

    def _say_stopped(self, worker: Worker) -> None:
        states = ("succeeded", "failed", "cancelled")
        LOG.info("worker %s stopped: %s", worker.id, ", ".join(f"{self._ended[state]:,} {state}" for state in states))
        self._event({"event": "stopped", "worker": worker.id, **{state: self._ended[state] for state in states}})

    def _event(self, event: dict[str, Any]) -> None:
        if self._settings.is_json:
            write_json(dataclasses.replace(self._settings, output="jsonl"), event)


def _broken(journal: Journal, worker: Worker) -> BaseException | None:
    """Why this worker will never execute anything again, if so."""
    if journal.broken is None and worker.executor._closed:  # fenced when it renewed its lease, with nothing to write
        return Fenced(f"worker {worker.id} was declared dead by another worker", hint="its runs go on elsewhere")
    return journal.broken


class Signals:
    """SIGTERM and SIGINT while in the block: the first sets `stop`, the second leaves at once.

    From the first on a thread counts the time, since the loop may be what does not answer. It goes on counting after
    the block: a thread of the user's may keep the process from ending.
    """

    def __init__(self, stop_timeout: float) -> None:
        self._stop_timeout = stop_timeout
        self.stop = asyncio.Event()
        self._stopping = False
        self._loop = asyncio.get_running_loop()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._received)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _received(self, number: int, frame: FrameType | None) -> None:
        if self._stopping:
            os._exit(128 + number)
        self._stopping = True
        timer = threading.Timer(self._stop_timeout + GRACE_SECONDS, self._leave)
        timer.daemon = True
        timer.start()
        self._loop.call_soon_threadsafe(self.stop.set)

    @staticmethod
    def _leave() -> None:
        LOG.error("did not stop in time; leaving, the runs go on elsewhere")
        os._exit(1)
