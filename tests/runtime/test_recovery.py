from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from pathlib import Path

import pytest
from tests.runtime.kit import Gate, Seen, app_of, journal_of, opened, park, play, state_of, until_state, worker_of

from holdfast import Fenced, Holdfast, LeaseOptions, WorkerOptions, sleep, step, workflow
from holdfast._model.records import WorkerBuried
from holdfast._world import SystemWorld


@step
async def one() -> int:
    return 1


@workflow
async def ones() -> int:
    return await one() + await one()


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


def test_a_buried_worker_stops_and_its_callers_get_the_result_from_elsewhere(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate()

        @step
        async def wait() -> int:
            await gate()
            return 5

        @workflow
        async def flow() -> int:
            return await wait()

        async with opened(flow, at=tmp_path / "a.db") as app, app_of(flow, at=tmp_path / "a.db").client() as other:
            run = await app.start(flow, id="r")
            await gate.came.wait()
            waiting = asyncio.create_task(run.result())
            await asyncio.sleep(0)
            await other._engine.journal.write(WorkerBuried(worker_of(app).id, 1))
            assert await state_of(other, "r") == "ready"
            gate.open.set()
            while worker_of(app).executor.room:
                await asyncio.sleep(0)
            with pytest.raises(Fenced):
                await app.start(flow)
            assert await other.get("r").history() == []
            async with opened(flow, at=tmp_path / "a.db"):
                assert await waiting == 5

    play(main())


def test_a_lease_that_cannot_be_renewed_stops_the_worker(tmp_path: Path) -> None:
    async def main() -> None:
        app = Holdfast(
            f"sqlite:///{tmp_path / 'a.db'}", worker=WorkerOptions(lease=LeaseOptions(seconds=0.15, sweep_seconds=3600))
        )
        app.include(ones)
        async with app:
            worker = worker_of(app)
            connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
            connection.execute("update holdfast_workers set state = 'dead'")
            connection.close()
            while worker.executor.room:
                await asyncio.sleep(0)

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
            second = Holdfast(f"sqlite:///{tmp_path / 'a.db'}", worker=WorkerOptions(lease=LeaseOptions(seconds=0.05)))
            second.include(ones)
            async with second:
                await second._engine.store.renew_lease(worker_of(first).id, lease_until=1)
                while worker_of(first).id in {row.id for row in (await second.stats()).workers if row.state == "live"}:
                    await worker_of(second).recovery.sweep()
                with pytest.raises(Fenced):
                    await first.start(ones)

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
