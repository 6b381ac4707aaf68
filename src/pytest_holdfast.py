"""The pytest plugin of Holdfast: its fixtures, and the watch for leaks.

pytest imports this module in every project of the environment that Holdfast is installed in. So it imports nothing of
Holdfast until a test asks for it, and without the option `holdfast_leaks` it adds nothing to any test.

    holdfast_app     makes apps on a temporary file; opened by `async with`, closed at teardown
    holdfast_sync    the same for blocking tests: gives open clients that execute
    holdfast_clock   virtual time; an `async def` test that has it is run by this plugin
    holdfast_fake    replaces the body of a step until the test's end
    holdfast_leaks   fails the test if it leaves an app, a client, a thread or a lock behind
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from holdfast import Holdfast, SyncClient, WorkerOptions
    from holdfast.testing import Clock, Fake
    from holdfast.testing.apps import Source
    from holdfast.testing.clock import Player
    from holdfast.testing.leaks import Leaks

MODES = ("off", "warn", "error")
_WATCHING: pytest.StashKey[Leaks | None] = pytest.StashKey()
_PLAYER: pytest.StashKey[Player] = pytest.StashKey()


class MakeApp(Protocol):
    """What the fixture ``holdfast_app`` gives."""

    def __call__(
        self, *sources: Source, path: str | Path | None = None, worker: WorkerOptions | None = None
    ) -> Holdfast:
        """An app with these workflows (or those of modules, or of another app); open it with ``async with``.

        The same path is the same database; by default one temporary file for the whole test.
        """
        ...


class MakeSync(Protocol):
    """What the fixture ``holdfast_sync`` gives."""

    def __call__(
        self, *sources: Source, path: str | Path | None = None, worker: WorkerOptions | None = None
    ) -> SyncClient:
        """An open blocking client that executes runs of these workflows; it is closed at teardown."""
        ...


class LeakWarning(pytest.PytestWarning):
    """A test has left something open."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """One option for the ini file."""
    parser.addini("holdfast_leaks", "tests that leave a Holdfast app open: off (default), warn or error", default="off")


def pytest_configure(config: pytest.Config) -> None:
    """One marker; a wrong option is refused now and not in every test."""
    config.addinivalue_line(
        "markers", "holdfast_leaks(mode='error'): off, warn or error if this test leaves an app open"
    )
    _check_mode(config.getini("holdfast_leaks"), "the option holdfast_leaks")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Watch the test for leaks if the option or its marker says so."""
    names = getattr(item, "fixturenames", None)
    if names is not None and "holdfast_leaks" not in names and _mode(item) != "off":
        names.insert(0, "holdfast_leaks")


@pytest.hookimpl(hookwrapper=True)
def pytest_fixture_setup(fixturedef: Any, request: pytest.FixtureRequest) -> Generator[None, None, None]:
    """What a fixture of a module or session opens is no leak of the test that is the first to use it."""
    leaks = request.config.stash.get(_WATCHING, None)
    with nullcontext() if leaks is None or fixturedef.scope == "function" else leaks.wider():
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Keep `async def` tests that use the clock from anyio, whose automatic mode marks every async test."""
    if not isinstance(item, pytest.Function) or "holdfast_clock" not in item.fixturenames:
        return
    if "anyio_backend" not in item._fixtureinfo.argnames:
        item.funcargs.pop("anyio_backend", None)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run `async def` tests that use the clock."""
    if "holdfast_clock" not in pyfuncitem.fixturenames:
        return None
    function = pyfuncitem.obj
    if type(pyfuncitem).__module__.startswith("pytest_asyncio"):
        function = inspect.unwrap(function)  # in its auto mode it takes every async test, and wraps it
    if not inspect.iscoroutinefunction(function):
        return None
    player = pyfuncitem.stash[_PLAYER]
    wanted = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    _play(player, lambda: function(**wanted))
    return True


def _play(player: Player, test: Callable[[], Coroutine[Any, Any, object]]) -> None:
    from holdfast.testing.stuck import WaitsForNothing

    try:
        player.play(test)
    except WaitsForNothing as error:
        told = str(error)
    else:
        return
    pytest.fail(told, pytrace=False)  # the test's own line is part of the message


@pytest.fixture
def holdfast_app(tmp_path: Path) -> Iterator[MakeApp]:
    """Makes apps on a temporary file: ``async with holdfast_app(checkout) as app: ...``.

    Takes workflows, modules of workflows, or an app whose workflows are taken; `path` and `worker` as keywords. Works
    in every event loop. What is still open at the end of the test is closed.
    """
    from holdfast.testing.apps import make_app
    from holdfast.testing.leaks import close_left_open

    made: list[Holdfast] = []

    def make(*sources: Source, path: str | Path | None = None, worker: WorkerOptions | None = None) -> Holdfast:
        app = make_app(_file(tmp_path, path), sources, worker=worker)
        made.append(app)
        return app

    yield make
    for app in made:
        close_left_open(app)


@pytest.fixture
def holdfast_sync(tmp_path: Path) -> Iterator[MakeSync]:
    """Makes open blocking clients that execute: ``client = holdfast_sync(checkout)``; closed at teardown."""
    from holdfast.testing.apps import make_app

    with ExitStack() as open_clients:

        def make(*sources: Source, path: str | Path | None = None, worker: WorkerOptions | None = None) -> SyncClient:
            app = make_app(_file(tmp_path, path), sources, worker=worker)
            return open_clients.enter_context(app.sync(worker=True))

        yield make


@pytest.fixture
def holdfast_clock(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Clock]:
    """A clock in virtual time. An `async def` test that has it runs in virtual time, without other plugins."""
    from holdfast.testing.clock import Player, is_loop_running

    if is_loop_running():
        pytest.fail("holdfast_clock has an event loop of its own, and another one is running here", pytrace=False)
    with Player(tmp_path) as player:
        request.node.stash[_PLAYER] = player
        yield player.clock


@pytest.fixture
def holdfast_fake() -> Iterator[Callable[..., Fake]]:
    """Replaces the body of a step until the test's end: ``charged = holdfast_fake(charge, returns="paid")``."""
    from holdfast.testing.fakes import fake

    with ExitStack() as replaced:

        def replace(*args: Any, **options: Any) -> Fake:
            return replaced.enter_context(fake(*args, **options))

        yield replace


@pytest.fixture
def holdfast_leaks(request: pytest.FixtureRequest) -> Iterator[Leaks]:
    """Fails the test if an app, a client, a thread or a worker's lock is left when its other fixtures are gone."""
    from holdfast.testing.leaks import Leaks

    leaks = Leaks()
    leaks.begin()
    request.config.stash[_WATCHING] = leaks
    try:
        yield leaks
    finally:
        request.config.stash[_WATCHING] = None
        leaks.end()
        lines = leaks.found()
        leaks.clean_up()
    if lines:
        _tell(request, lines)


def _tell(request: pytest.FixtureRequest, lines: list[str]) -> None:
    text = f"{request.node.nodeid} leaks:\n" + "\n".join(f"  {line}" for line in lines)
    if _mode(request.node) == "warn":
        request.node.warn(LeakWarning(text))
    else:
        pytest.fail(f"{text}\nhint: open it with `async with app:` or `with app.sync() as client:`", pytrace=False)


def _mode(item: pytest.Item) -> str:
    marker = item.get_closest_marker("holdfast_leaks")
    if marker is None:
        return str(item.config.getini("holdfast_leaks"))
    mode = marker.args[0] if marker.args else marker.kwargs.get("mode", "error")
    return _check_mode(mode, f"{item.nodeid}: the marker holdfast_leaks")


def _check_mode(mode: object, where: str) -> str:
    if mode not in MODES:
        raise pytest.UsageError(f"{where} is {mode!r}; write one of {', '.join(MODES)}")
    return str(mode)


def _file(folder: Path, path: str | Path | None) -> Path:
    return folder / ("holdfast.db" if path is None else path)
