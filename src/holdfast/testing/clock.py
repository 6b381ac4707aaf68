"""Tests in virtual time: a month of sleeping takes milliseconds, and nothing happens before its hour.

    play(main) ─> ClockLoop: everything that is due happens ─> nothing left to do ─> the clock jumps to the next timer

Time passes only where the test awaits something: a run's result, or `clock.advance`. An assertion between two awaits
sees the world stand still. Apps made by `clock.app` read the same clock, so sleeps, time-outs, retries and deadlines of
their runs pass with it; the database is a real file.

Calls of the store keep the clock still for as long as they take, so a slow disk changes no outcome. Bodies that work in
real time, in threads or on sockets, keep it still for a second since something last happened there; one that takes
longer may be meant to run into its time-out.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from holdfast._app import Holdfast
from holdfast._model.bounds import plain, shown
from holdfast._runtime.options import WorkerOptions
from holdfast._world import SystemWorld
from holdfast.errors import UsageError
from holdfast.testing.apps import ClockApp, ClockStore, Source, included, options_of
from holdfast.testing.stuck import WaitsForNothing, stuck
from holdfast.testing.virtual import EPOCH_US, VirtualLoop, VirtualWorld

T = TypeVar("T")

START: Final = datetime.fromtimestamp(EPOCH_US // 1_000_000, UTC)
"""When time begins, unless a test says otherwise: 2030-01-01 00:00 UTC."""
YEARS_MAX: Final = timedelta(days=10 * 366)
"""Virtual time after which whoever still waits is told that it waits for nothing."""


class Clock:
    """The clock of a test in virtual time. `play` makes one; so does the fixture ``holdfast_clock``."""

    def __init__(self, loop: ClockLoop, *, seed: int, folder: Path) -> None:
        self._loop = loop
        self._world = _ClockWorld(loop, seed=seed)
        self._folder = folder
        self._apps: list[Holdfast] = []

    def __repr__(self) -> str:
        return f"<Clock at {self.now():%Y-%m-%d %H:%M:%S} UTC>"

    def now(self) -> datetime:
        """The virtual instant, aware, in UTC."""
        return START + timedelta(microseconds=self._world.now_us() - EPOCH_US)

    async def advance(self, span: timedelta | float) -> None:
        """Let time pass; returns when everything that is due by then has happened, and nothing that is due later.

        What begins on the way happens at its own instant, in order. A step that is still under way then, because it
        waits for something later, stays under way.

        Args:
            span: a timedelta, or seconds; 0 lets happen what is due now.

        Raises:
            UsageError: the span is negative or no span, or the clock belongs to another event loop.
        """
        self._loop.check_running("clock.advance")
        await asyncio.sleep(_seconds(span))
        await self._loop.idle(lambda: True)

    def app(self, *sources: Source, path: str | Path | None = None, worker: WorkerOptions | None = None) -> Holdfast:
        """An app that lives by this clock; open it with ``async with``.

        Args:
            sources: workflows, modules of workflows, or another app whose workflows are taken.
            path: the database file: the same path is the same runs. One temporary file for the whole test by default.
            worker: how runs are executed; nothing is pruned unless it says so.

        Raises:
            UsageError: a source or an option is wrong.
        """
        if path is not None and not isinstance(path, str | Path):
            raise UsageError(
                f"clock.app(path={shown(path)}) must be the path of a file", hint='such as tmp_path / "a.db"'
            )
        file = self._folder / "holdfast.db" if path is None else Path(plain(path) if isinstance(path, str) else path)
        app = ClockApp(
            f"sqlite:///{file.absolute()}?synchronous=normal",
            world=self._world,
            loop=self._loop,
            worker=options_of(worker),
        )
        self._apps.append(app)
        return included(app, sources)


def play(main: Callable[[Clock], Coroutine[Any, Any, T]], *, start: datetime = START, seed: int = 1) -> T:
    """Run `main(clock)` in virtual time, and return what it returns.

    Args:
        main: an `async def` function that takes the clock.
        start: when time begins, aware; later than before, if an earlier test's file is opened again.
        seed: of every run's random numbers.

    Raises:
        UsageError: called inside a running event loop, or `main` is no such function.
        AssertionError: it still waited after ten virtual years.
    """
    if not callable(main):
        raise UsageError(f"play({shown(main)}) takes a function of the clock", hint="async def main(clock): ...")
    if not isinstance(start, datetime) or start.tzinfo is None:
        raise UsageError(f"play(start={shown(start)}) must be an aware datetime", hint="datetime(..., tzinfo=UTC)")
    if type(seed) is not int:
        raise UsageError(f"play(seed={shown(seed)}) must be a whole number")
    with (
        tempfile.TemporaryDirectory(prefix="holdfast-play-") as folder,
        Player(Path(folder), start=start, seed=seed) as player,
    ):
        return player.play(lambda: main(player.clock))


class Player:
    """An event loop in virtual time with its clock, from `with` to its end. Outside of any running event loop.

    Args:
        folder: for the database files of its apps.
    """

    def __init__(self, folder: Path, *, start: datetime = START, seed: int = 1) -> None:
        self.loop = ClockLoop(start=(start - START).total_seconds())
        self.clock = Clock(self.loop, seed=seed, folder=folder)
        self._runner = asyncio.Runner(loop_factory=lambda: self.loop)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()
        self.loop.close()

    def play(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run it to its end."""
        if is_loop_running():
            raise UsageError(
                "virtual time needs an event loop of its own, and one is running here",
                hint="call play() in a plain test; with holdfast_clock leave the marks of other async plugins out",
            )
        return self._runner.run(self._bounded(main))

    async def _bounded(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        coroutine = main()
        if not asyncio.iscoroutine(coroutine):
            raise UsageError(f"play: {shown(main)} gave {shown(coroutine)}", hint="write async def main(clock): ...")
        limit, told, tasks = asyncio.timeout(None), list[str](), list[asyncio.Task[None]]()

        async def give_up() -> None:
            told.append(await stuck(coroutine, self.clock._apps))
            limit.reschedule(self.loop.time())

        end = self.loop.seconds + YEARS_MAX.total_seconds()
        timer = self.loop.call_in_background(end, lambda: tasks.append(asyncio.ensure_future(give_up())))
        try:
            async with limit:
                return await coroutine
        except TimeoutError:
            if not limit.expired():
                raise
        finally:
            timer.cancel()
        raise WaitsForNothing(f"after ten virtual years the test still waits for what does not come\n{told[0]}")


class ClockLoop(VirtualLoop):
    """A virtual loop that can be asked to stand still when nothing is left to do now."""

    def __init__(self, *, start: float = 0.0) -> None:
        super().__init__(start=start)
        self.on_idle = self._wake_idle
        self.stores: list[ClockStore] = []
        self._waiting: list[tuple[asyncio.Future[None], Callable[[], bool]]] = []

    async def idle(self, enough: Callable[[], bool]) -> None:
        """Return before the clock next jumps and `enough` is true; while it is not, time passes."""
        future: asyncio.Future[None] = self.create_future()
        self._waiting.append((future, enough))
        await future

    def check_running(self, what: str) -> None:
        """Raise `UsageError` unless this loop is the running one."""
        if asyncio.get_running_loop() is not self:
            raise UsageError(
                f"{what} belongs to a clock in virtual time, and this event loop is another one",
                hint="use it in an `async def` test that asks for holdfast_clock, not in an async fixture, and leave "
                "the marks of other async plugins out; without pytest call play(main)",
            )

    def _wake_idle(self) -> bool:
        self._waiting = [pair for pair in self._waiting if not pair[0].done()]
        woken = [pair for pair in self._waiting if pair[1]()]
        for pair in woken:
            self._waiting.remove(pair)
            pair[0].set_result(None)
        return bool(woken)


class _ClockWorld(VirtualWorld):
    """Virtual time, but real ids: several tests may use one file."""

    def __init__(self, loop: ClockLoop, *, seed: int) -> None:
        super().__init__(loop, life=1, seed=seed)
        self._real = SystemWorld()

    def new_id(self) -> str:
        """As in real life."""
        return self._real.new_id()


def is_loop_running() -> bool:
    """Whether this thread runs an event loop now."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _seconds(span: object) -> float:
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    limit = YEARS_MAX.total_seconds()
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= limit:
        raise UsageError(f"advance({shown(span)}) must be a timedelta or seconds, 0 to {limit:g} (ten years)")
    return float(seconds)
