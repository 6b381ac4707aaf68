"""The pytest plugin in runs of pytest of its own: fixtures, async tests in virtual time, leaks with their places."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

import holdfast.testing.leaks
import holdfast.testing.replays  # noqa: F401

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.slow

SHOP = """
import asyncio
from holdfast import Holdfast, sleep, step, workflow

app = Holdfast("sqlite:///shop.db")

@step
def greet(name: str) -> str:
    return f"hello {name}"

@app.workflow
async def greeting(name: str) -> str:
    await sleep(0.001)
    return await greet(name)

@app.workflow
async def waits_a_month() -> str:
    await sleep(30 * 86400)
    return await greet("anna")
"""

FIXTURES = """
import asyncio
import pytest
import shop
from datetime import timedelta
from holdfast.testing import run_until_idle_sync

def test_blocking(holdfast_sync):
    assert holdfast_sync(shop.greeting).run(shop.greeting, "anna") == "hello anna"

def test_the_same_file_again_is_the_same_runs(holdfast_sync):
    with_all = holdfast_sync(shop)
    run = with_all.start(shop.waits_a_month, id="month")
    run_until_idle_sync(with_all)
    assert holdfast_sync(shop.app).get("month").describe().state == "waiting"
    assert holdfast_sync(shop.app, path="other.db").count() == 0

def test_async_without_a_plugin(holdfast_app):
    async def main():
        async with holdfast_app(shop.greeting) as app:
            return await app.run(shop.greeting, "anna")
    assert asyncio.run(main()) == "hello anna"

@pytest.mark.parametrize("days", [30])
async def test_virtual(days, holdfast_clock, holdfast_fake):
    fake = holdfast_fake(shop.greet, returns="faked")
    async with holdfast_clock.app(shop.app) as app:
        begin = holdfast_clock.now()
        assert await app.run(shop.waits_a_month) == "faked"
        assert holdfast_clock.now() - begin == timedelta(days=days)
        assert len(fake) == 1

class TestInAClass:
    async def test_virtual(self, holdfast_clock):
        async with holdfast_clock.app(shop.app) as app:
            assert await app.run(shop.greeting, "anna") == "hello anna"

def test_virtual_from_a_plain_test(holdfast_clock):
    assert holdfast_clock.now().year == 2030

def test_left_open_but_made_by_the_fixture(holdfast_app):
    asyncio.run(holdfast_app(shop.greeting).__aenter__())
"""

LEAKS = """
import asyncio
import pytest
import threading
import shop
from holdfast import Holdfast

LOOP, LEFT, GATE = asyncio.new_event_loop(), [], threading.Event()

@pytest.fixture(scope="module")
def shared():
    with shop.app.sync(worker=True) as client:
        yield client

@pytest.fixture
def forgotten():
    return shop.app.sync().__enter__()                       # opened here: 1

def test_clean(shared, holdfast_sync):
    assert shared.run(shop.greeting, "a") == holdfast_sync(shop.greeting).run(shop.greeting, "a")

def test_app_whose_loop_is_closed():
    app = Holdfast("sqlite:///closed.db")
    asyncio.run(app.__aenter__())                            # opened here: 2

def test_app_whose_loop_stands_still():
    LOOP.run_until_complete(shop.app.client().__aenter__())  # opened here: 3

def test_blocking_client(forgotten):
    pass

async def test_in_virtual_time(holdfast_clock):
    app = holdfast_clock.app(shop.greeting)
    await app.__aenter__()                                   # opened here: 4

@pytest.mark.holdfast_leaks("off")
def test_not_watched():
    LEFT.append(shop.app.sync().__enter__())

def test_thread():
    threading.Thread(target=GATE.wait, name="holdfast-reader", daemon=True).start()

def test_nothing_is_left_in_the_end():
    GATE.set()
    LOOP.close()
    LEFT.pop().__exit__(None, None, None)
"""


@pytest.fixture
def shop(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyfile(shop=SHOP)
    pytester.syspathinsert()
    return pytester


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("holdfast-")]


def test_fixtures_serve_blocking_async_and_virtual_tests(shop: pytest.Pytester) -> None:
    shop.makepyfile(FIXTURES)
    # A false alarm of CPython 3.12.0 to 3.12.3 about numbered placeholders (gh-117995).
    shop.runpytest("-W", "error", "-W", "ignore:Binding:DeprecationWarning").assert_outcomes(passed=7)
    assert ours() == []


def test_every_leak_is_an_error_that_names_app_and_place_and_is_cleaned_up(shop: pytest.Pytester) -> None:
    shop.makeini("[pytest]\nholdfast_leaks = error")
    file = shop.makepyfile(LEAKS)
    lines = LEAKS.splitlines()
    result = shop.runpytest("-W", "ignore", "-rN")  # no summary: where `CI` is set it repeats every message in full
    result.assert_outcomes(passed=8, errors=5)
    for number, name in enumerate(
        ["client of app.sync()", "<Holdfast 'sqlite:///closed.db'", "<Client of", "<Holdfast"]
    ):
        place = next(at for at, line in enumerate(lines) if line.endswith(f"opened here: {number + 1}"))
        (told,) = [line for line in result.outlines if f"opened here: {number + 1}" in line and "left open" in line]
        assert name in told
        assert f"{file}:{place}, in " in told
    result.stdout.fnmatch_lines(["*thread holdfast-reader is left*"])
    assert ours() == []


def test_a_warning_if_that_is_wanted(shop: pytest.Pytester) -> None:
    shop.makeini("[pytest]\nholdfast_leaks = warn")
    shop.makepyfile("import shop\ndef test_leak():\n    shop.app.sync().__enter__()")
    result = shop.runpytest("-W", "default")
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(["*LeakWarning*", "*left open*"])
    assert ours() == []


def test_one_test_may_ask_for_the_check(shop: pytest.Pytester) -> None:
    shop.makepyfile(
        "import pytest, shop\n"
        "def test_off():\n    client = shop.app.sync().__enter__()\n    client.__exit__(None, None, None)\n"
        "@pytest.mark.holdfast_leaks\ndef test_marked():\n    shop.app.sync().__enter__()\n"
        "def test_fixture(holdfast_leaks):\n    shop.app.sync().__enter__()\n"
    )
    shop.runpytest("--strict-markers").assert_outcomes(passed=3, errors=2)
    assert ours() == []


@pytest.mark.parametrize("where", ["ini", "marker"])
def test_a_wrong_mode_is_refused(shop: pytest.Pytester, where: str) -> None:
    if where == "ini":
        shop.makeini("[pytest]\nholdfast_leaks = yes")
    shop.makepyfile("import pytest\n@pytest.mark.holdfast_leaks('yes')\ndef test_it(): pass")
    result = shop.runpytest()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*'yes'; write one of off, warn, error*"])


def test_the_clock_in_the_loop_of_another_plugin_says_what_to_do(shop: pytest.Pytester) -> None:
    shop.makeconftest(
        "import asyncio, inspect, pytest\n"
        "@pytest.hookimpl(tryfirst=True)\n"
        "def pytest_pyfunc_call(pyfuncitem):\n"
        "    if inspect.iscoroutinefunction(pyfuncitem.obj):\n"
        "        asyncio.run(pyfuncitem.obj(**{n: pyfuncitem.funcargs[n] for n in pyfuncitem._fixtureinfo.argnames}))\n"
        "        return True\n"
    )
    shop.makepyfile(
        "import shop\nasync def test_it(holdfast_clock):\n    async with holdfast_clock.app(shop.app):\n        pass\n"
    )
    result = shop.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*other async plugins*"])


AUTO_MODE = """
import asyncio, functools, pytest

class AutoItem(pytest.Function):
    def runtest(self):
        original = self.obj

        @functools.wraps(original)
        def synchronized(**arguments):
            asyncio.run(original(**arguments))

        self.obj = synchronized
        super().runtest()
"""


def test_the_automatic_mode_of_pytest_asyncio_leaves_tests_with_the_clock_to_us(shop: pytest.Pytester) -> None:
    """It makes every async test an item of its own, which runs a blocking wrapper of the test."""
    shop.makepyfile(pytest_asyncio_stand_in=AUTO_MODE)
    shop.makeconftest(
        "import pytest_asyncio_stand_in\n"
        "def pytest_itemcollected(item):\n"
        "    item.__class__ = pytest_asyncio_stand_in.AutoItem\n"
    )
    shop.makepyfile(
        "import asyncio, shop\n"
        "async def test_virtual(holdfast_clock):\n"
        "    async with holdfast_clock.app(shop.app) as app:\n"
        "        await app.run(shop.waits_a_month)\n"
        "async def test_real(holdfast_app):\n"
        "    async with holdfast_app(shop.app) as app:\n"
        "        await app.run(shop.greeting, 'anna')\n"
    )
    shop.runpytest().assert_outcomes(passed=2)


def test_the_automatic_mode_of_anyio_leaves_tests_with_the_clock_to_us(shop: pytest.Pytester) -> None:
    """It gives every async test a fixture, and runs tests that have it before any other plugin does."""
    shop.makeconftest(
        "import asyncio, inspect, pytest\n"
        "@pytest.fixture(autouse=True)\n"
        "def anyio_backend():\n    return 'asyncio'\n"
        "@pytest.hookimpl(tryfirst=True)\n"
        "def pytest_pyfunc_call(pyfuncitem):\n"
        "    if pyfuncitem.funcargs.get('anyio_backend') and inspect.iscoroutinefunction(pyfuncitem.obj):\n"
        "        asyncio.run(pyfuncitem.obj(**{n: pyfuncitem.funcargs[n] for n in pyfuncitem._fixtureinfo.argnames}))\n"
        "        return True\n"
    )
    shop.makepyfile(
        "import shop\n"
        "async def test_virtual(holdfast_clock):\n"
        "    async with holdfast_clock.app(shop.app) as app:\n"
        "        await app.run(shop.waits_a_month)\n"
        "async def test_real(holdfast_app):\n"
        "    async with holdfast_app(shop.app) as app:\n"
        "        await app.run(shop.greeting, 'anna')\n"
    )
    shop.runpytest().assert_outcomes(passed=2)


@pytest.mark.parametrize("mode", ["prepend", "importlib"])
def test_a_workflow_of_a_test_module_within_packages_is_found_by_the_children(
    pytester: pytest.Pytester, mode: str
) -> None:
    """With `importlib` no path leads to the packages of tests, and their relative imports work all the same."""
    package = pytester.mkpydir("shop_tests")
    (package / "unit").mkdir()
    (package / "unit" / "__init__.py").touch()
    (package / "unit" / "names.py").write_text("NAME = 'anna'\n", encoding="utf-8")
    (package / "unit" / "test_it.py").write_text(
        "from holdfast import workflow\nfrom holdfast.testing import assert_replays\nfrom .names import NAME\n"
        "@workflow\nasync def greets() -> str:\n    return NAME\n"
        "def test_it(holdfast_sync):\n    run = holdfast_sync(greets).start(greets)\n    run.result()\n"
        "    assert_replays(run, greets, hash_seeds=[1])\n",
        encoding="utf-8",
    )
    pytester.runpytest(f"--import-mode={mode}").assert_outcomes(passed=1)


def test_whoever_waits_for_nothing_sees_one_message_and_no_traceback(shop: pytest.Pytester) -> None:
    file = shop.makepyfile(
        "import shop\nasync def test_it(holdfast_clock):\n    async with holdfast_clock.app(shop.app) as app:\n"
        "        run = await app.start(shop.waits_a_month, id='month')\n        await run.pause()\n"
        "        await run.result()\n"
    )
    result = shop.runpytest("-rN")
    result.assert_outcomes(failed=1)
    begin = next(at for at, line in enumerate(result.outlines) if "ten virtual years" in line)
    assert result.outlines[begin - 1].startswith("_")
    assert result.outlines[begin + 1] == f"it waits at {file}:6, in test_it: await run.result()"
    assert (
        result.outlines[begin + 2] == "run 'month' of workflow 'waits_a_month' is paused: it goes on after run.resume()"
    )


def test_a_project_that_does_not_use_it_does_not_import_holdfast(tmp_path: Path) -> None:
    names = "{'holdfast', 'pytest_holdfast'} & {*sys.modules}"
    test = f"import sys\n\ndef test_it():\n    assert {names} == {{'pytest_holdfast'}}\n"
    (tmp_path / "test_it.py").write_text(test, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    child = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert child.returncode == 0, child.stdout + child.stderr
