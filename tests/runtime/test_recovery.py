from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from pathlib import Path

import pytest
from tests.runtime.kit import Gate, Seen, app_of, journal_of, opened, park, play, state_of, until_state, worker_of

from holdfast import Holdfast, LeaseOptions, WorkerOptions, Workflow, sleep, step, workflow
from holdfast._model.records import WorkerBuried
from holdfast._world import SystemWorld


@step
async def one() -> int:
    return 1


@workflow
async def ones() -> int:
    return await one() + await one()


def execute(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(sql)
    connection.close()


def test_an_app_can_be_opened_again(tmp_path: Path) -> None:
    async def main() -> None:
        app = app_of(ones, at=tmp_path / "a.db")
        for _ in range(3):
            async with app:
                assert await app.run(ones) == 2
        async with app:
            assert await app.count(state="succeeded") == 3
            assert [row.state for row in (await app.stats()).workers] == ["left", "left", "left", "live"]

    play(main())


def test_two_apps_in_one_process_share_a_file_and_steal_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate()

        @step
        async def wait() -> str:
            await gate()
            return "once"

        @workflow
        async def flow() -> str:
            return await wait()

        async with opened(flow, at=tmp_path / "a.db") as first:
            run = await first.start(flow, id="r")
            await gate.came.wait()
            async with opened(flow, at=tmp_path / "a.db") as second:
                await worker_of(second).recovery.sweep()
                assert (await second.get("r").describe()).worker == worker_of(first).id
                assert gate.visits == 1
                gate.open.set()
                assert await second.get("r").result() == "once"
            assert await run.result() == "once"

    play(main())


def test_two_databases_in_one_process_know_nothing_of_each_other(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(ones, at=tmp_path / "a.db") as a, opened(ones, at=tmp_path / "b.db") as b:
            await a.run(ones, id="r")
            assert await b.count() == 0

    play(main())


def test_a_worker_that_stops_gives_back_the_step_under_way_and_it_runs_again(tmp_path: Path) -> None:
    did: list[str] = []

    async def main() -> None:
        gate = Gate()

        @step
        async def finished() -> None:
            did.append("finished")

        @step
        async def under_way() -> str:
            did.append("under way")
            try:
                await gate()
            except asyncio.CancelledError:
                did.append("cancelled")
                raise
            return "done"

        @workflow
        async def flow() -> str:
            await finished()
            return await under_way()

        async with opened(flow, at=tmp_path / "a.db", stop_timeout=0) as app:
            await app.start(flow, id="r")
            await gate.came.wait()
        assert did == ["finished", "under way", "cancelled"]
        gate.open.set()
        async with opened(flow, at=tmp_path / "a.db") as app:
            assert await app.get("r").result() == "done"
            assert did[3:] == ["under way"]

    play(main())


def test_a_worker_that_stops_waits_for_the_step_under_way(tmp_path: Path) -> None:
    async def main() -> None:
        release, began = threading.Event(), threading.Event()

        @step
        def under_way() -> str:
            began.set()
            release.wait()
            return "done"

        @workflow
        async def flow() -> str:
            return await under_way()

        app = app_of(flow, at=tmp_path / "a.db", stop_timeout=20)
        async with app:
            await app.start(flow, id="r")
            await asyncio.to_thread(began.wait)
            asyncio.get_running_loop().call_later(0.05, release.set)
        async with opened(flow, at=tmp_path / "a.db") as app:
            assert await app.get("r").result() == "done"
            assert [e.attempts for e in await app.get("r").history()] == [1]

    play(main())


def test_nothing_is_left_running_when_a_worker_leaves_in_the_middle_of_starts(tmp_path: Path) -> None:
    async def main() -> None:
        app = app_of(ones, at=tmp_path / "a.db", stop_timeout=0)
        async with app:
            starts = [asyncio.create_task(app.start(ones, id=f"r{n}")) for n in range(50)]
            await asyncio.sleep(0)
            worker_of(app).dispatcher.poke()
        await asyncio.gather(*starts, return_exceptions=True)
        async with app.client() as client:
            running = await client.list(state="running")
            assert running == [], "nobody would ever take these"
        async with opened(ones, at=tmp_path / "a.db") as app:
            for run in await app.list():
                assert await app.get(run.id).result() == 2

    play(main())


def test_a_worker_that_leaves_while_it_is_looked_at_is_not_called_dead(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its row was live when it was read, and its lock is free when that is looked at."""

    async def main() -> None:
        async with opened(ones, at=tmp_path / "a.db") as stays:
            async with opened(ones, at=tmp_path / "a.db") as leaves:
                seen_alive = worker_of(leaves).id
            await worker_of(stays).recovery._bury(seen_alive)
            assert sorted(row.state for row in (await stays.stats()).workers) == ["left", "live"]

    play(main())
    assert "dead" not in caplog.text


def test_a_dead_workers_runs_are_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    async def begin() -> None:
        async with opened(slow, at=path) as app:
            await app.start(slow, id="r")
            await park_soon(app)
            os._exit(0)

    @workflow
    async def slow() -> int:
        value = await one()
        await sleep(0.2)
        return value + await one()

    async def park_soon(app: Holdfast) -> None:
        while not await app.get("r").history():
            await journal_of(app).settle()

    child = os.fork()
    if child == 0:
        try:
            asyncio.run(begin())
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0

    async def main() -> None:
        async with opened(slow, at=path) as app:
            assert await app.get("r").result() == 2
            states = [row.state for row in (await app.stats()).workers]
            assert states == ["dead", "live"]
            assert not [p for p in path.parent.iterdir() if "-worker-" in p.name and worker_of(app).id not in p.name]

    play(main())


def test_a_buried_worker_goes_on_as_another_and_its_callers_get_every_result(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        gate = Gate()

        @step
        async def wait() -> int:
            await gate()
            return 5

        @workflow
        async def flow() -> int:
            return await wait()

        path = tmp_path / "a.db"
        async with opened(flow, at=path) as app, app_of(flow, at=path).client() as other:
            run = await app.start(flow, id="r")
            await gate.came.wait()
            waiting = asyncio.create_task(run.result())
            await asyncio.sleep(0)
            old = worker_of(app)
            await other._engine.journal.write(WorkerBuried(old.id, SystemWorld().now_us()))
            assert await state_of(other, "r") == "ready"
            second = await app.start(flow, id="s")
            assert await app.get("r").pause() == "paused"
            assert not old.executor.live
            assert old.executor.room == 0
            assert await app.get("r").resume() == "ready"
            while app._engine.worker is None:
                await asyncio.sleep(0)
            new = worker_of(app)
            assert new.id != old.id
            gate.open.set()
            assert [await waiting, await second.result()] == [5, 5]
            assert [e.attempts for e in await run.history()] == [1]
            assert {w.id: w.state for w in (await app.stats()).workers} == {old.id: "dead", new.id: "live"}
            assert [p.name for p in path.parent.glob("*-worker-*")] == [f"a.db-worker-{new.id}"]
            told = [r.getMessage() for r in caplog.records if r.name == "holdfast.engine"]
            assert any(f"worker {old.id} was declared dead" in t and t.endswith("go on elsewhere: 1") for t in told)
            assert told[-1] == f"this process goes on as worker {new.id}"

    play(main())


def test_a_lease_that_cannot_be_renewed_makes_its_process_another_worker(tmp_path: Path) -> None:
    async def main() -> None:
        app = Holdfast(
            f"sqlite:///{tmp_path / 'a.db'}", worker=WorkerOptions(lease=LeaseOptions(seconds=0.15, sweep_seconds=3600))
        )
        app.include(ones)
        async with app:
            old = worker_of(app)
            connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
            connection.execute("update holdfast_workers set state = 'dead'")
            connection.close()
            while app._engine.worker in (old, None):
                await asyncio.sleep(0)
            assert await app.run(ones) == 2

    play(main())


def test_runs_in_memory_do_not_outlive_the_app_but_everything_else_works() -> None:
    @workflow
    async def flow() -> int:
        await sleep(0.01)
        return await one()

    async def main() -> None:
        app = app_of(flow)
        async with app:
            run = await app.start(flow, id="r", attributes={"k": "v"})
            await park(app)
            await run.pause()
            await until_state(app, "r", "paused") if await state_of(app, "r") != "succeeded" else None
            await run.resume()
            assert await app.get("r").result() == 1
            assert [r.id for r in await app.list(attributes={"k": "v"}, state=["succeeded"])] == ["r"]
            assert (await app.stats()).count("succeeded") == 1
        async with app:
            assert await app.count() == 0

    play(main())


def test_events_stop_after_leaving() -> None:
    async def main() -> None:
        async with opened(ones) as app:
            seen = Seen(app)
            await app.run(ones)
            count = len(seen.events)
            seen.leave()
            seen.leave()
            await app.run(ones)
            assert len(seen.events) == count > 0
            assert not app._events.active

    play(main())


class ShiftedWorld(SystemWorld):
    """The real world, with a clock that can be set."""

    shift_us = 0

    def now_us(self) -> int:
        return super().now_us() + self.shift_us


def test_a_clock_that_jumps_a_day_forward_buries_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate()

        @step
        async def wait() -> str:
            await gate()
            return "once"

        @workflow
        async def flow() -> str:
            return await wait()

        async with opened(flow, at=tmp_path / "a.db") as first:
            await first.start(flow, id="r")
            await gate.came.wait()
            second = app_of(flow, at=tmp_path / "a.db")
            world = second._world = ShiftedWorld()
            async with second:
                world.shift_us = 86_400 * 1_000_000
                await worker_of(second).recovery.sweep()
                assert (await second.get("r").describe()).worker == worker_of(first).id
                gate.open.set()
                assert await second.get("r").result() == "once"
                assert gate.visits == 1

    play(main())


def test_a_clock_that_is_set_forward_rings_what_is_overdue_in_memory() -> None:
    async def main() -> None:
        gate = Gate()

        @step
        async def wait() -> None:
            await gate()

        @workflow
        async def flow() -> str:
            try:
                async with asyncio.timeout(3600):
                    await wait()
            except TimeoutError:
                return "timed out"
            return "came"

        app = app_of(flow)
        world = app._world = ShiftedWorld()
        async with app:
            run = await app.start(flow)
            await gate.came.wait()
            world.shift_us = 86_400 * 1_000_000
            assert await run.result() == "timed out"

    play(main())


def test_a_lease_that_has_lapsed_by_a_steady_clock_is_the_end_of_its_worker(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(ones, at=tmp_path / "a.db") as first:
            old = worker_of(first).id
            second = Holdfast(f"sqlite:///{tmp_path / 'a.db'}", worker=WorkerOptions(lease=LeaseOptions(seconds=0.05)))
            second.include(ones)
            async with second:
                await second._engine.store.renew_lease(old, lease_until=1)
                while old in {row.id for row in (await second.stats()).workers if row.state == "live"}:
                    await worker_of(second).recovery.sweep()
                assert await first.run(ones) == 2
                assert first._engine.worker is None or worker_of(first).id != old

    play(main())


def test_two_workers_whose_code_does_not_match_try_a_blocked_run_once_each(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "a.db"
        tries: list[str] = []

        def variant(name: str) -> Workflow[[], str]:
            @workflow(name="flow")
            async def flow() -> str:
                tries.append(name)
                await (one() if name in ("first", "fits") else other())
                await sleep(3600 if name == "first" else 0)
                return name

            return flow

        @step
        async def other() -> None: ...

        async with opened(variant("first"), at=path) as app:
            await app.start("flow", id="r")
            while not (await app.get("r").history())[1:]:
                await park(app)
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("update holdfast_runs set state = 'ready', due_at = null")
        connection.close()
        tries.clear()
        async with opened(variant("a"), at=path) as a:
            await until_state(a, "r", "blocked")
            async with opened(variant("b"), at=path) as b:
                while "b" not in tries:
                    await worker_of(b).recovery.sweep()
                await until_state(b, "r", "blocked")
                for _ in range(5):
                    for app in (a, b):
                        await worker_of(app).recovery.sweep()
                        await worker_of(app).dispatcher._turn()
                        await journal_of(app).settle()
                assert tries == ["a", "b"]
                async with opened(variant("fits"), at=path) as c:
                    assert await c.get("r").result() == "fits"
        assert tries == ["a", "b", "fits"]

    play(main())


def test_a_run_that_does_not_match_elsewhere_is_taken_whenever_its_own_code_is_here(tmp_path: Path) -> None:
    """Workers of another release may find it again and again, while it parks and wakes."""

    async def main() -> None:
        path = tmp_path / "a.db"

        @workflow
        async def flow() -> None:
            while True:
                await one()
                await sleep(3600)

        async with opened(flow, at=path) as app:
            run = await app.start(flow, id="r")
            for _ in range(2):
                while (await run.describe()).state != "waiting":
                    await park(app)
                execute(path, "update holdfast_runs set state = 'blocked', reason = 'nondeterminism', worker = 'B'")
                await worker_of(app).recovery.sweep()
                assert (await run.describe()).worker == worker_of(app).id

    play(main())


def test_a_worker_that_did_not_match_once_takes_the_run_that_has_continued_as_new(tmp_path: Path) -> None:
    """What it remembers is a history that is no more."""

    async def main() -> None:
        path = tmp_path / "a.db"

        @workflow
        async def flow() -> None:
            await one()
            await sleep(3600)

        async with opened(flow, at=path) as app:
            run = await app.start(flow, id="r")
            while (await run.describe()).state != "waiting":
                await park(app)
            execute(path, "update holdfast_history set name = 'other' where kind = 'step'")
            execute(path, "update holdfast_runs set state = 'ready'")
            worker_of(app).dispatcher.poke()
            await until_state(app, "r", "blocked")
            execute(path, "delete from holdfast_history")
            await run.resume()
            while (await run.describe()).state != "waiting":
                await park(app)
            execute(path, "update holdfast_runs set state = 'blocked', reason = 'nondeterminism', worker = 'B'")
            await worker_of(app).recovery.sweep()
            assert (await run.describe()).worker == worker_of(app).id

    play(main())


def test_runs_that_cannot_be_released_in_time_stay_the_workers_until_it_is_found_dead(tmp_path: Path) -> None:
    """The store does not answer while the worker stops: it must not enter itself as gone while it holds runs."""

    async def main() -> None:
        gate = Gate()

        @step
        async def wait() -> int:
            await gate()
            return 3

        @workflow
        async def flow() -> int:
            return await wait()

        path = tmp_path / "a.db"
        app = app_of(flow, at=path, stop_timeout=0)
        async with app:
            await app.start(flow, id="r")
            await gate.came.wait()
            old, journal = worker_of(app), journal_of(app)

            async def unsettled() -> None:
                raise TimeoutError

            journal.settle = unsettled  # type: ignore[method-assign]
            await old.stop()
            del journal.settle
            async with app_of(flow, at=path).client() as client:
                (row,) = await client.workers()
                assert (row.id, row.state) == (old.id, "live")
            app._engine._identity._coming = app._engine._identity.worker = None
        gate.open.set()
        async with opened(flow, at=path) as app:
            assert await app.get("r").result() == 3
            assert [w.state for w in await app.workers(gone=True)] == ["dead", "live"]

    play(main())


def test_an_app_whose_closing_is_cancelled_lets_go_of_its_lock_so_that_others_take_over(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate()

        @step
        async def wait() -> str:
            if gate.visits == 0:
                await gate()
            return "once more"

        @workflow
        async def flow() -> str:
            return await wait()

        app = app_of(flow, at=tmp_path / "a.db", stop_timeout=3600)
        await app.__aenter__()
        executor = worker_of(app).executor
        await app.start(flow, id="r")
        await gate.came.wait()
        closing = asyncio.create_task(app.__aexit__(None, None, None))
        (live,) = executor.live.values()
        while live.leaving is None:
            await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        async with opened(flow, at=tmp_path / "a.db") as other:
            assert await other.get("r").result() == "once more"

    play(main())
