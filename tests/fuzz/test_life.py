"""Apps, clients and facades at the wrong moment: closed, open twice, in another loop or thread, after a fork."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fuzz.calls import CALLS, Call
from tests.fuzz.stage import Stage, complaint, flow
from tests.fuzz.things import JUNK

from holdfast import Holdfast, NotOpen, UsageError
from holdfast.testing import run_until_idle

ASKING = [call for call in CALLS if call.name != "Client.get"]
CHILD_SECONDS = 10


class Closed:
    """A stage whose client is not open."""

    def __init__(self, client: Any, path: Path) -> None:
        self.client, self.path = client, path
        self.old = client.get("old")


def app_at(path: Path) -> Holdfast:
    app = Holdfast(f"sqlite:///{path}")
    app.include(flow)
    return app


async def asked(call: Call, stage: Any) -> Any:
    answer = call.make(stage, {})
    return [each async for each in answer] if hasattr(answer, "__aiter__") else await answer


@pytest.mark.parametrize("kind", ["app", "client"])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("call", ASKING, ids=lambda call: call.name)
def test_a_call_outside_of_the_block_says_so(call: Call, moment: str, kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        app = app_at(tmp_path / "a.db")
        client = app if kind == "app" else app.client()
        if moment == "after":
            async with client:
                pass
        with pytest.raises(NotOpen, match="not open") as refused:
            await asked(call, Closed(client, tmp_path / "a.db"))
        assert "async with" in str(refused.value)

    asyncio.run(main())


@pytest.mark.parametrize("call", ASKING, ids=lambda call: call.name)
def test_a_call_in_another_event_loop_or_thread_says_so(call: Call, tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def elsewhere(stage: Stage) -> None:
        try:
            asyncio.run(asked(call, stage))
        except BaseException as error:
            errors.append(error)

    with Stage(tmp_path / "a.db") as stage:
        before = stage.rows()
        elsewhere(stage)
        thread = threading.Thread(target=elsewhere, args=(stage,))
        thread.start()
        thread.join()
        assert [complaint(error, places=("another event loop",)) for error in errors] == [None, None]
        assert stage.rows() == before
        assert stage.ask(lambda: stage.client.run(flow, 1)) == 1


@pytest.mark.parametrize("kind", ["app", "client", "facade"])
def test_opening_twice_is_refused_and_the_first_goes_on(kind: str, tmp_path: Path) -> None:
    with Stage(tmp_path / "a.db", kind=kind) as stage:
        with pytest.raises(UsageError, match="open already"):
            stage.ask(stage.client.__enter__ if kind == "facade" else stage.client.__aenter__)
        assert stage.ask(stage.client.count) == 1


def test_closing_what_is_not_open_says_so(tmp_path: Path) -> None:
    app = app_at(tmp_path / "a.db")
    with pytest.raises(NotOpen):
        asyncio.run(app.__aexit__(None, None, None))
    with pytest.raises(NotOpen):
        app.sync().__exit__(None, None, None)


def told_by_a_fork(work: Callable[[], str]) -> str:
    """What a forked child says before it leaves; one that hangs is ended by its alarm."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(CHILD_SECONDS)
        try:
            os.write(writing, work().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    assert status == 0, "the child hung"
    return told


def test_a_facade_after_a_fork_says_so_and_the_parent_goes_on(tmp_path: Path) -> None:
    app = app_at(tmp_path / "a.db")
    with app.sync(worker=True) as client:
        run = client.start(flow, 1)

        def work() -> str:
            told = []
            for call in (client.count, lambda: client.start(flow, 2), run.result, lambda: list(client.iterate())):
                try:
                    told.append(f"answered {call()}")
                except NotOpen as error:
                    told.append(str(error))
            client.__exit__(None, None, None)  # as `sys.exit` in the child does
            with app_at(tmp_path / "a.db").sync() as own:
                return f"{set(told)} {own.count()}"

        told = told_by_a_fork(work)
        assert told.count("opened before a fork") == 1, told
        assert "answered" not in told
        assert told.endswith("1")
        assert run.result() == 1
        assert client.run(flow, 3) == 3


def test_an_app_after_a_fork_says_so_and_the_parent_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        app = app_at(tmp_path / "a.db")
        async with app:

            def work() -> str:
                told = []
                for call in (app.count, lambda: app.start(flow, 2), app.get("x").result):
                    try:
                        call().send(None)
                    except UsageError as error:
                        told.append(str(error))
                return str(set(told))

            told = told_by_a_fork(work)
            assert "none is running here" in told
            assert "answered" not in told
            assert await app.run(flow, 3) == 3
            assert await app.count() == 1

    asyncio.run(main())


def test_only_seconds_are_a_time_out_of_waiting_for_idleness(tmp_path: Path) -> None:
    with Stage(tmp_path / "a.db") as stage:
        for thing in JUNK:
            answer = stage.try_it(lambda thing=thing: run_until_idle(stage.app, timeout=thing.make()))
            if answer.error is not None and not isinstance(answer.error, AssertionError):
                assert complaint(answer.error, places=("timeout",)) is None, thing
