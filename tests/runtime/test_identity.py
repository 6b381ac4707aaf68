"""Fencing within one process: what moves to the new identity, what ends, and that no body begins between them."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.kit import Gate, app_of, journal_of, opened, play, until_state, worker_of
from tests.runtime.test_recovery import ShiftedWorld

from holdfast import Fenced, Holdfast, Start, StoreError, StoreFull, step, workflow
from holdfast._model.records import OF_A_WORKER, EntryRecorded, RunsClaimed


@step
async def one() -> int:
    return 1


@workflow
async def ones() -> int:
    return await one() + await one()


def bury(path: Path) -> None:
    """What another worker's burial does to the row that the fence looks at."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("update holdfast_workers set state = 'dead'")
    connection.execute("update holdfast_runs set state = 'ready', worker = null where state = 'running'")
    connection.close()


async def until_another(app: Holdfast, old: str) -> None:
    while app._engine.worker is None or app._engine.worker.id == old:
        await asyncio.sleep(0)


def test_every_request_under_way_when_the_worker_is_declared_dead_is_answered_as_ever(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate()

        @step
        async def wait() -> int:
            await gate()
            return 1

        @workflow
        async def flow() -> int:
            return await wait()

        path = tmp_path / "a.db"
        async with opened(flow, ones, at=path) as app:
            runs = [await app.start(flow, id=f"r{n}") for n in range(4)]
            await gate.came.wait()
            old = worker_of(app).id
            bury(path)
            starts = [asyncio.create_task(app.start(ones, id=f"s{n}")) for n in range(100)]
            many = asyncio.create_task(app.start_many(Start(ones, id=f"m{n}") for n in range(3000)))
            asked = asyncio.gather(runs[0].cancel(), runs[1].pause(), runs[2].fork(1, id="f"))
            results = asyncio.gather(*(run.result() for run in (runs[2], runs[3])))
            gate.open.set()
            assert [await (await start).result() for start in starts] == [2] * 100
            assert [await run.result() for run in await many] == [2] * 3000
            await asked
            assert await results == [1, 1]
            await until_state(app, "r0", "cancelled")
            assert await runs[1].resume() in ("ready", "running")
            assert await runs[1].result() == 1
            assert await app.get("f").result() == 1
            await until_another(app, old)
            assert await app.count() == 4 + 100 + 3000 + 1
            assert journal_of(app).broken is None

    play(main())


def test_what_the_old_identity_says_late_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "a.db"
        async with opened(ones, at=path) as app:
            await app.run(ones, id="r")
            old, journal = worker_of(app), journal_of(app)
            bury(path)
            await app.run(ones, id="s")
            await until_another(app, old.id)
            fields = (1, 9, 0, 9, "step", "late", "succeeded", None, "1", None, 1, 1, 1, None)
            for record in (EntryRecorded(*fields), RunsClaimed(old.id, ("ones",), 9, 9)):
                assert type(record) in OF_A_WORKER
                with pytest.raises(Fenced):
                    await journal.write(record)
            assert len(await app.get("r").history()) == 2
            assert old.executor.room == 0

    play(main())


def test_a_new_identity_that_is_declared_dead_too_makes_room_for_the_next(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "a.db"
        async with opened(ones, at=path) as app:
            for number in range(5):
                old = worker_of(app).id
                bury(path)
                assert await app.run(ones, id=f"r{number}") == 2
                await until_another(app, old)
            states = [row.state for row in (await app.stats()).workers]
            assert states == ["dead"] * 5 + ["live"]
            assert [p.name for p in tmp_path.glob("*-worker-*")] == [f"a.db-worker-{worker_of(app).id}"]
        assert not list(tmp_path.glob("*-worker-*"))

    play(main())


@pytest.mark.parametrize("passing", [StoreFull("no room"), OSError(24, "Too many open files"), None])
@pytest.mark.parametrize("call", ["register_worker", "buried"])
def test_a_store_that_fails_while_the_new_identity_begins(call: str, tmp_path: Path, passing: Exception | None) -> None:
    async def main() -> None:
        path = tmp_path / "a.db"
        async with opened(ones, at=path) as app:
            old, store = worker_of(app).id, app._engine.store
            original: Any = getattr(store, call)
            failures: list[Exception] = [passing or StoreError("gone")]

            async def failing(*args: Any, **options: Any) -> None:
                if failures:
                    raise failures.pop()
                await original(*args, **options)

            setattr(store, call, failing)
            waiting = asyncio.ensure_future((await app.start(ones, id="later", delay=3600)).result())
            await asyncio.sleep(0)
            bury(path)
            if passing:
                run = await app.start(ones, id="r")  # answered without a worker
                assert await run.result() == 2
                await until_another(app, old)
                waiting.cancel()
            else:
                with contextlib.suppress(StoreError):  # whichever comes first, the answer or the end
                    await app.start(ones, id="r")
                while journal_of(app).broken is None:
                    await asyncio.sleep(0)
                with pytest.raises(StoreError, match="gone"):
                    await app.start(ones)
                with pytest.raises(StoreError, match="gone"):  # nobody here will ever execute it
                    await asyncio.wait_for(waiting, 10)

    play(main())


def test_an_app_that_is_closed_in_the_middle_of_a_change_leaves_nothing_behind(tmp_path: Path) -> None:
    async def main() -> None:
        for number in range(3):
            app = app_of(ones, at=tmp_path / "a.db")
            async with app:
                bury(tmp_path / "a.db")
                run = await app.start(ones, id=f"r{number}")
                for _ in range(number):
                    await asyncio.sleep(0)
            assert not list(tmp_path.glob("*-worker-*"))
        async with opened(ones, at=tmp_path / "a.db") as app:
            assert [await app.get(f"r{n}").result() for n in range(3)] == [2, 2, 2]
        assert run.id == "r2"

    play(main())


@pytest.mark.parametrize("buried", [False, True])
def test_no_body_begins_on_a_lapsed_lease_before_it_is_renewed(tmp_path: Path, buried: bool) -> None:
    """As after SIGCONT: the records before the body are acknowledged, the clock says that the lease is over."""

    async def main() -> None:
        began: list[str | None] = []
        may_renew, asked = asyncio.Event(), asyncio.Event()

        @step
        async def act() -> int:
            worker = app._engine.worker
            began.append(worker and worker.id)
            return 7

        @workflow
        async def flow() -> int:
            return await act()

        path = tmp_path / "a.db"
        app = app_of(flow, at=path)
        world = app._world = ShiftedWorld()
        async with app:
            old, store = worker_of(app).id, app._engine.store
            renew: Any = store.renew_lease

            async def gated(*args: Any, **options: Any) -> bool:
                asked.set()
                await may_renew.wait()
                renewed: bool = await renew(*args, **options)
                return renewed

            store.renew_lease = gated  # type: ignore[method-assign]
            world.shift_us = 31_000_000
            run = await app.start(flow, id="r")
            await asked.wait()
            await journal_of(app).settle()
            assert began == []
            if buried:
                bury(path)
            may_renew.set()
            assert await run.result() == 7
            if buried:
                await until_another(app, old)
            assert began == [worker_of(app).id]
            assert (worker_of(app).id == old) is not buried

    play(main())


def test_an_app_that_is_closed_while_its_dead_worker_withdraws_leaves_nothing_behind(tmp_path: Path) -> None:
    async def main() -> None:
        withdrawing = asyncio.Event()
        async with opened(ones, at=tmp_path / "a.db") as app:
            old = worker_of(app)
            stop = old.dispatcher.stop

            async def stop_slowly_once() -> None:
                old.dispatcher.stop = stop  # type: ignore[method-assign]
                withdrawing.set()
                await asyncio.Event().wait()

            old.dispatcher.stop = stop_slowly_once  # type: ignore[method-assign]
            bury(tmp_path / "a.db")
            starting = asyncio.create_task(app.start(ones, id="r"))
            await withdrawing.wait()
            await starting
        assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("holdfast-")] == []
        assert [thread.name for thread in threading.enumerate() if thread.name.startswith("holdfast-")] == []

    play(main())
