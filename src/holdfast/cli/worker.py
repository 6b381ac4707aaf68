"""`holdfast worker`: a process that executes runs until it is told to stop.

    first SIGTERM or SIGINT     steps under way finish, or are cancelled after --stop-timeout; runs are given back
    second                      leaves at once: what was not recorded is executed again elsewhere
    --stop-timeout + 5 s        leaves as after a second signal, should something not let it stop, such as a step that
                                blocks the event loop

With `--procs N` this process executes nothing: it is the parent of N others, see `procs.py`.

The handlers are Python's, not the event loop's, so that they work while a step blocks the loop. Leaving at once loses
nothing: the kernel drops the worker's lock with its process, and the next worker takes its runs over.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import threading
from collections import Counter
from types import FrameType
from typing import Any, Final

import click

from holdfast import Holdfast
from holdfast._runtime.engine import Engine
from holdfast._runtime.worker import Worker
from holdfast.cli.answers import write_json
from holdfast.cli.loading import load_app
from holdfast.cli.logs import LOG, log_to_stderr
from holdfast.cli.opening import point_to
from holdfast.cli.procs import Parent, arguments_of, hold
from holdfast.cli.settings import Settings, pass_settings, shared_options
from holdfast.cli.values import Duration
from holdfast.errors import InternalError

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
@click.option("--procs", type=click.IntRange(1, 256), help="So many processes, under a parent that restarts the dead.")
@click.option("--number", type=int, hidden=True)
@click.option("--lifeline", type=int, hidden=True)
@click.option("-v", "--verbose", count=True, help="Log more.")
@click.option("-q", "--quiet", count=True, help="Log warnings only; twice: errors only.")
@shared_options
@pass_settings
def worker(
    settings: Settings,
    target: str,
    stop_timeout: float,
    procs: int | None,
    number: int | None,
    lifeline: int | None,
    verbose: int,
    quiet: int,
) -> int:
    """Execute the runs of APP in module MOD, such as shop:app for `app` in shop.py.

    SIGTERM or Ctrl-C stops it gracefully, a second one at once. Logs go to stderr.
    """
    if procs is not None:
        log_to_stderr(settings, level=_level(verbose - quiet))
        arguments = arguments_of(
            target, stop_timeout=stop_timeout, louder=verbose - quiet, db=settings.db, output=settings.output
        )
        return Parent(procs, arguments, leave_seconds=stop_timeout + GRACE_SECONDS).supervise()
    app = load_app(target, prints=not settings.is_json)
    if settings.db is not None:
        point_to(app, settings.db)
    app._worker_options = dataclasses.replace(app._worker_options, stop_timeout=stop_timeout)
    log_to_stderr(settings, level=_level(verbose - quiet), number=number)
    asyncio.run(_Serving(settings, app, stop_timeout, number=number, lifeline=lifeline).serve())
    return 0


def _level(louder: int) -> int:
    """Information by default."""
    return min(max(logging.INFO - 10 * louder, logging.DEBUG), logging.ERROR)


class _Serving:
    """One life of the worker."""

    def __init__(
        self, settings: Settings, app: Holdfast, stop_timeout: float, *, number: int | None, lifeline: int | None
    ) -> None:
        self._number = number
        self._lifeline = lifeline
        self._settings = settings
        self._app = app
        self._worker = ""
        self._stop_timeout = stop_timeout

    async def serve(self) -> None:
        """Open, work, close.

        Raises:
            HoldfastError: the store refuses this worker for good; whoever supervises it may start it again.
        """
        signals = Signals(self._stop_timeout)
        with signals:
            async with self._app:
                engine = self._app._engine
                if engine.worker is None:
                    raise InternalError("the app has opened without a worker")
                self._say_ready(engine.worker.id)
                if self._lifeline is not None:
                    hold(self._lifeline, signals.orphaned)
                broken = await self._until_stopped(signals, engine)
                LOG.info("stopping: %s", self._under_way(engine.worker))
            self._say_stopped(engine.ended)
        if broken is not None:
            raise broken

    async def _until_stopped(self, signals: Signals, engine: Engine) -> BaseException | None:
        """Wait for a signal, or for the journal to break for good: then nothing would ever happen here again."""
        while not signals.stop.is_set():
            if engine.journal.broken is not None:
                return engine.journal.broken
            if engine.worker is not None and engine.worker.id != self._worker:
                self._say_ready(engine.worker.id)  # it was declared dead, and goes on as another
            try:
                await asyncio.wait_for(signals.stop.wait(), LOOK_SECONDS)
            except TimeoutError:
                continue
        return None

    def _under_way(self, worker: Worker | None) -> str:
        runs = 0 if worker is None else len(worker.executor.live)
        if not runs:
            return "no run is under way"
        told = f"{runs} {'run' if runs == 1 else 'runs'} under way"
        return f"{told}; steps have {self._stop_timeout:g} s to finish, a second signal leaves at once"

    # What it says.

    def _say_ready(self, worker: str) -> None:
        self._worker = worker
        names = self._app.workflows
        known = f"workflows {', '.join(names)}" if names else "no workflows"
        LOG.info("worker %s ready: %s, %s", worker, self._app.uri, known)
        self._event({"event": "ready", "worker": worker, "database": self._app.uri, "workflows": list(names)})

    def _say_stopped(self, ended: Counter[str]) -> None:
        counts = {state: ended[state] for state in ("succeeded", "failed", "cancelled")}
        told = ", ".join(f"{count:,} {state}" for state, count in counts.items())
        LOG.info("worker %s stopped: %s", self._worker, told)
        self._event({"event": "stopped", "worker": self._worker, **counts})

    def _event(self, event: dict[str, Any]) -> None:
        if self._settings.is_json:
            event = event if self._number is None else {**event, "number": self._number}
            write_json(dataclasses.replace(self._settings, output="jsonl"), event)


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

    def orphaned(self) -> None:
        """From a thread: the parent is gone. Stop as after a first signal; while stopping, that changes nothing."""
        if not self._stopping:
            LOG.warning("the parent process is gone")
            self._begin_to_stop()

    def _received(self, number: int, frame: FrameType | None) -> None:
        if self._stopping:
            os._exit(128 + number)
        self._begin_to_stop()

    def _begin_to_stop(self) -> None:
        self._stopping = True
        timer = threading.Timer(self._stop_timeout + GRACE_SECONDS, self._leave)
        timer.daemon = True
        timer.start()
        with contextlib.suppress(RuntimeError):  # the loop is closed: it has stopped already
            self._loop.call_soon_threadsafe(self.stop.set)

    @staticmethod
    def _leave() -> None:
        LOG.error("did not stop in time; leaving, the runs go on elsewhere")
        os._exit(1)
