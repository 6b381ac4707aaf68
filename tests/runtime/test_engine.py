from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.kit import Gate, app_of, opened, play

from holdfast import (
    Client,
    Holdfast,
    NotOpen,
    Run,
    RunConflict,
    Start,
    StoreError,
    SyncClient,
    SyncRun,
    UsageError,
    WorkerOptions,
    continue_as_new,
    step,
    workflow,
)


@step
def double(number: int) -> int:
    return 2 * number


@workflow
async def flow(number: int) -> int:
    return await double(number)


@workflow
def plain(number: int) -> int:
    return double(number) + double(number)


def test_outside_of_the_block_every_call_says_that_the_app_is_not_open() -> None:
    async def main() -> None:
        app = app_of(flow)
        run = app.get("r")
        calls: list[Callable[[], Any]] = [
            lambda: app.start(flow, 1),
            lambda: app.run(flow, 1),
            lambda: app.start_many([Start(flow, 1)]),
            app.list,
            app.count,
            app.stats,
            app.workers,
            run.result,
            run.describe,
            run.history,
            run.cancel,
            run.pause,
            run.resume,
            run.retry,
            lambda: run.fork(1),
        ]
        for _ in range(2):
            for call in calls:
                with pytest.raises(NotOpen):
                    await call()
            async with app:
                with pytest.raises(UsageError, match="open already"):
                    await app.__aenter__()

    play(main())


def test_an_app_belongs_to_the_loop_that_opened_it() -> None:
    app = app_of(flow)

    async def main() -> None:
        async with app:

            def elsewhere() -> None:
                with pytest.raises(UsageError, match="another event loop"):
                    asyncio.run(app.count())

            await asyncio.to_thread(elsewhere)

    play(main())


def test_opening_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "a.db").write_bytes(b"not a database, but long enough to be looked at" * 100)
        app = app_of(flow, at=tmp_path / "a.db")
        before = threading.active_count()
        for _ in range(2):
            with pytest.raises(Exception, match="not a database"):
                async with app:
                    pass
        assert threading.active_count() == before
        (tmp_path / "a.db").unlink()
        async with app:
            assert await app.run(flow, 1) == 2

    play(main())


def nested(depth: int) -> dict[str, Any]:
    return {"a": nested(depth - 1)} if depth else {"a": 1}


WRONG: dict[str, Callable[[Client], Any]] = {
    "not a workflow": lambda app: app.start(len),
    "a step": lambda app: app.start(double),
    "a missing argument": lambda app: app.start(flow),
    "too many arguments": lambda app: app.start(flow, 1, 2),
    "an unknown keyword": lambda app: app.start(flow, 1, colour="red"),
    "an argument of the wrong type": lambda app: app.start(flow, object()),
    "id": lambda app: app.start(flow, 1, id=7),
    "an empty id": lambda app: app.start(flow, 1, id=""),
    "an id with a line break": lambda app: app.start(flow, 1, id="a\nb"),
    "a long id": lambda app: app.start(flow, 1, id="x" * 201),
    "on_conflict": lambda app: app.start(flow, 1, on_conflict="ignore"),
    "priority": lambda app: app.start(flow, 1, priority=1.5),
    "a boolean priority": lambda app: app.start(flow, 1, priority=True),
    "a high priority": lambda app: app.start(flow, 1, priority=10**9),
    "delay": lambda app: app.start(flow, 1, delay="1"),
    "a negative delay": lambda app: app.start(flow, 1, delay=-1),
    "delay and at": lambda app: app.start(flow, 1, delay=1, at=datetime.now().astimezone()),
    "a naive at": lambda app: app.start(flow, 1, at=datetime(2030, 1, 1)),  # noqa: DTZ001
    "a timeout of nothing": lambda app: app.start(flow, 1, timeout=0),
    "a timeout": lambda app: app.start(flow, 1, timeout=timedelta(days=-1)),
    "attributes": lambda app: app.start(flow, 1, attributes=["a"]),
    "an attribute's name": lambda app: app.start(flow, 1, attributes={7: 1}),
    "an attribute's value": lambda app: app.start(flow, 1, attributes={"a": None}),
    "an attribute's item": lambda app: app.start(flow, 1, attributes={"a": [1, [2]]}),
    "an attribute nested too deep": lambda app: app.start(flow, 1, attributes=nested(9)),
    "an attribute's long nested name": lambda app: app.start(flow, 1, attributes={"a" * 150: {"b" * 50: 1}}),
    "too many attributes": lambda app: app.start(flow, 1, attributes={"a": list(range(65))}),
    "an infinite attribute": lambda app: app.start(flow, 1, attributes={"a": float("inf")}),
    "an attribute that is no number": lambda app: app.start(flow, 1, attributes={"a": float("nan")}),
    "a large attribute": lambda app: app.start(flow, 1, attributes={"a": 2**64}),
    "a long attribute": lambda app: app.start(flow, 1, attributes={"a": "x" * 1001}),
    "start_many of something else": lambda app: app.start_many([Start(flow, "x"), Start(flow, 1, 2)]),
    "a state": lambda app: app.list(state="runing"),
    "states": lambda app: app.count(state=["ready", "lost"]),
    "a limit": lambda app: app.list(limit=0),
    "a limit of another type": lambda app: app.list(limit="10"),
    "a prefix": lambda app: app.list(id_prefix=7),
    "an instant": lambda app: app.list(created_from="yesterday"),
    "whether workers are gone": lambda app: app.workers(gone="yes"),
    "a workflow's name": lambda app: app.list(workflow=7),
    "a state of another type": lambda app: app.list(state=7),
    "a query": lambda app: app.list(where=7),
    "a query that is none": lambda app: app.count(where="state:"),
    "a condition": lambda app: app.count(colour="red"),
    "a count's limit": lambda app: app.count(limit=0),
    "a count's limit of another type": lambda app: app.count(limit="all"),
    "a cursor": lambda app: app.list(after="next"),
    "a cursor of another type": lambda app: app.list(after=7),
    "a condition of iterate": lambda app: anext(app.iterate(limit=5)),
    "a window": lambda app: app.stats(window=0),
    "a window of another type": lambda app: app.stats(window="1h"),
    "a window without end": lambda app: app.stats(window=float("inf")),
    "a window that is no number": lambda app: app.stats(window=float("nan")),
    "a fork's entry": lambda app: app.get("r").fork("1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused_by_name_and_nothing_is_written(name: str) -> None:
    async def main() -> None:
        async with opened(flow) as app:
            with pytest.raises((UsageError, TypeError)) as raised:
                await WRONG[name](app)
            assert str(raised.value)
            assert await app.count() == 0

    play(main())


@pytest.mark.parametrize("run_id", ["", 7, None, "a\x00"])
def test_a_handle_needs_a_proper_id(run_id: Any) -> None:
    with pytest.raises(UsageError):
        app_of(flow).get(run_id)


def test_the_blocking_facade_offers_what_the_client_does() -> None:
    def surface(kind: type[Any]) -> dict[str, list[str]]:
        methods = inspect.getmembers(kind, callable)
        return {
            name: list(inspect.signature(method).parameters) for name, method in methods if not name.startswith("_")
        }

    for blocking, awaiting in ((SyncClient, Client), (SyncRun, Run)):
        assert surface(blocking).keys() == surface(awaiting).keys()
        for name, parameters in surface(blocking).items():
            wanted = surface(awaiting)[name]
            assert parameters == wanted or parameters[-1] in ("conditions", "options"), f"{blocking.__name__}.{name}"


def test_the_blocking_facade_does_what_the_client_does(tmp_path: Path) -> None:
    app = app_of(flow, plain, at=tmp_path / "a.db")
    with app.sync(worker=True) as client:
        run = client.start(flow, 4, id="r", attributes={"k": 1})
        assert (run.result(), run.result(timeout=5), client.get("r").result()) == (8, 8, 8)
        assert client.run(plain, 1) == 4
        assert [r.result() for r in client.start_many([Start(flow, 1), Start(flow, 2)])] == [2, 4]
        assert [info.id for info in client.list(attributes={"k": 1})] == ["r"]
        assert client.count(state="succeeded") == 4
        assert client.stats().count("succeeded") == 4
        assert [worker.state for worker in client.workers()] == ["live"]
        assert (run.describe().state, len(run.history())) == ("succeeded", 1)
        assert [run.cancel(), run.pause(), run.resume()] == ["succeeded"] * 3
        with pytest.raises(RunConflict):
            run.retry()
        assert run.fork(1, args=(5,)).result() == 10
        assert repr(run) == "<SyncRun 'r'>"
        with pytest.raises(UsageError, match="open already"):
            client.__enter__()
        loop = client._loop
        assert loop is not None

        async def on_its_loop() -> None:
            with pytest.raises(UsageError, match="wait for itself"):
                client.count()

        asyncio.run_coroutine_threadsafe(on_its_loop(), loop).result()
    for call in (client.count, lambda: client.start(flow, 1), run.describe):
        with pytest.raises(NotOpen):
            call()


def test_the_blocking_facade_serves_several_threads(tmp_path: Path) -> None:
    app = app_of(flow, at=tmp_path / "a.db")
    answers: list[int] = []
    with app.sync(worker=True) as client:
        threads = [threading.Thread(target=lambda n=n: answers.append(client.run(flow, n))) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(answers) == [2 * n for n in range(8)]


def test_a_facade_that_cannot_open_leaves_no_thread(tmp_path: Path) -> None:
    client = app_of(flow, at=tmp_path / "missing" / "a.db").sync()
    before = threading.active_count()
    with pytest.raises(Exception, match="missing"):
        client.__enter__()
    assert threading.active_count() == before


def test_a_client_executes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        app = app_of(flow, at=tmp_path / "a.db")
        async with app.client() as client:
            run = await client.start(flow, 1)
            assert (await run.describe()).state == "ready"
            assert (await client.stats()).workers == ()
        assert isinstance(app, Holdfast)

    play(main())


def test_an_error_while_the_worker_leaves_still_frees_its_lock_and_its_threads(tmp_path: Path) -> None:
    async def main() -> None:
        before = threading.active_count()
        app = app_of(flow, at=tmp_path / "a.db")

        async def failing(*_args: Any, **_options: Any) -> None:
            raise StoreError("the disk is gone")

        await app.__aenter__()
        assert await app.run(flow, 1) == 2
        app._engine.store.leave = failing  # type: ignore[method-assign]
        with pytest.raises(StoreError, match="the disk is gone"):
            await app.__aexit__(None, None, None)
        assert threading.active_count() == before
        assert not list(tmp_path.glob("*-worker-*"))
        async with app:
            assert await app.run(flow, 2) == 4
            assert [worker.state for worker in await app.workers(gone=True)] == ["dead", "live"]

    play(main())


@pytest.mark.parametrize("after", [0, -1, 1.5, "5", True])
def test_poison_after_must_be_a_positive_number_or_none(after: Any) -> None:
    with pytest.raises(UsageError, match=r"poison_after=.* must be a whole number .*, or None: never"):
        WorkerOptions(poison_after=after)
    assert WorkerOptions(poison_after=None).poison_after is None


def test_workers_are_frozen_values_with_what_they_know_and_hold(tmp_path: Path) -> None:
    async def main() -> None:
        app = app_of(flow, plain, at=tmp_path / "a.db")
        async with app, app.client() as client:
            (worker,) = await client.workers()
            assert (worker.state, worker.pid, worker.runs) == ("live", os.getpid(), 0)
            assert worker.workflows == ("flow", "plain")
            assert worker.lease_until > worker.started_at
            with pytest.raises(AttributeError):
                worker.state = "dead"  # type: ignore[misc]
        async with app.client() as client:
            assert await client.workers() == ()
            assert [w.state for w in await client.workers(gone=True)] == ["left"]

    play(main())


def test_a_close_that_is_cancelled_while_it_waits_for_a_step_leaves_nothing_running(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate()

        @step
        async def wait() -> None:
            await gate()

        @workflow
        async def waits() -> None:
            await wait()

        app = app_of(waits, at=tmp_path / "a.db", stop_timeout=60)
        before = asyncio.all_tasks()
        await app.__aenter__()
        await app.start(waits)
        await gate.came.wait()
        closing = asyncio.create_task(app.__aexit__(None, None, None))
        while worker_is_here(app):
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await asyncio.sleep(0)
        left = {task.get_name() for task in asyncio.all_tasks() - before if task.get_name().startswith("holdfast-")}
        assert not left
        assert "holdfast-watchdog" not in {thread.name for thread in threading.enumerate()}

    def worker_is_here(app: Holdfast) -> bool:
        return app._opened is not None

    play(main())


def test_the_same_start_is_the_same_run_after_it_has_continued_as_new() -> None:
    @workflow
    async def counts(number: int) -> int:
        if number < 3:
            continue_as_new(number + 1)
        return number

    async def main() -> None:
        async with opened(counts) as app:
            assert await app.run(counts, 1, id="r") == 3
            assert await app.run(counts, 1, id="r") == 3
            assert await app.count() == 1

    play(main())
