"""The retention service in an app, `prune` of its clients, and the clock that they go by."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.kit import Gate, play, worker_of

from holdfast import Holdfast, NotOpen, Pruned, Retention, RunState, Start, UsageError, WorkerOptions, step, workflow
from holdfast._model.search import RunQuery
from holdfast._runtime import pruning
from holdfast._runtime.retention import IDLE_TRUSTED_US, SETTLE_SECONDS, RetentionService, TrustedClock
from holdfast._world import SystemWorld

DAY_US = 86_400_000_000
ALL_STATES = ("succeeded", "failed", "cancelled")
gate = Gate()


@step
async def work(number: int) -> int:
    return number


@workflow
async def flow(steps: int) -> int:
    return sum([await work(number) for number in range(steps)])


@workflow
async def failing() -> None:
    raise ValueError("as it should")


@workflow
async def sleeper() -> None:
    await asyncio.sleep(3600)


class Later(SystemWorld):
    """The wall clock, ahead by as much as a test says."""

    ahead_us = 0

    def now_us(self) -> int:
        return super().now_us() + self.ahead_us


@asynccontextmanager
async def an_app(at: Path | None = None, retention: Retention | None = None, **days: float) -> AsyncIterator[Holdfast]:
    """An app whose world can be set forward; nothing is pruned by itself unless `retention` says so."""
    app = Holdfast("sqlite://" if at is None else f"sqlite:///{at}", worker=WorkerOptions(retention=retention))
    app.include(flow, failing, sleeper)
    app._world = Later()
    async with app:
        yield app


def later(app: Holdfast, delta: timedelta) -> None:
    assert isinstance(app._world, Later)
    app._world.ahead_us += delta // timedelta(microseconds=1)


def service_of(app: Holdfast, policy: Retention) -> RetentionService:
    engine = app._engine
    return RetentionService(store=engine.store, journal=engine.journal, world=engine.world, policy=policy)


async def some_runs(app: Holdfast) -> None:
    """Two that succeeded, one that failed, one cancelled, and three that have not ended."""
    for run in await app.start_many([Start(flow, 3, id="s1"), Start(flow, 2, id="s2")]):
        await run.result()
    with pytest.raises(ValueError):
        await app.run(failing, id="f1")
    await (await app.start(sleeper, id="c1", delay=3600)).cancel()
    await app.start(sleeper, id="asleep")
    await app.start(sleeper, id="scheduled", delay=3600)
    await (await app.start(sleeper, id="paused", delay=3600)).pause()


async def ids(app: Any) -> set[str]:
    return {run.id for run in await app.list()}


UNENDED = {"asleep", "scheduled", "paused"}


def test_a_worker_removes_what_has_been_kept_long_enough_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with an_app() as app:
            await some_runs(app)
            service = service_of(app, Retention())
            with caplog.at_level(logging.INFO, "holdfast.engine"):
                await service.turn()
                assert len(await ids(app)) == 7
                service._clock._leap_us = float("inf")
                later(app, timedelta(days=8))
                await service.turn()
                assert await ids(app) == {"f1", "c1", *UNENDED}
                later(app, timedelta(days=23))
                await service.turn()
                assert await ids(app) == UNENDED
            told = [record.getMessage() for record in caplog.records if "removed" in record.getMessage()]
            assert told == [
                "retention: runs removed: 2, their entries: 5",
                "retention: runs removed: 2, their entries: 0",
            ]

    play(main())


def test_the_service_works_by_itself_in_an_app_and_a_second_one_beside_it(tmp_path: Path) -> None:
    async def main() -> None:
        policy = Retention(succeeded=timedelta(seconds=1), workflows={"failing": None})
        async with an_app(tmp_path / "a.db", policy) as app, an_app(tmp_path / "a.db", policy) as other:
            await some_runs(app)
            await other.run(flow, 1, id="s3")
            while await app.count(state="succeeded"):
                await asyncio.sleep(0.01)
            assert await ids(app) == {"f1", "c1", *UNENDED}

    play(main())


def test_an_app_that_keeps_everything_has_no_such_service() -> None:
    async def main() -> None:
        async with an_app() as app:
            assert not [s for s in worker_of(app)._services if isinstance(s, RetentionService)]
            with pytest.raises(UsageError, match="for ever"):
                await app.prune()
            assert (await app.prune(older_than=0)).runs == 0

    play(main())


def test_a_policy_without_any_duration_starts_nothing() -> None:
    async def main() -> None:
        async with an_app(retention=Retention(succeeded=None, failed=None, cancelled=None)):
            assert "holdfast-retention" not in {task.get_name() for task in asyncio.all_tasks()}

    play(main())


@pytest.mark.slow
def test_under_steady_load_the_file_stops_growing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The short form of `bench/retention_bench.py`: what is written in total is several times what is kept."""
    path = tmp_path / "a.db"

    async def main() -> tuple[list[int], int]:
        sizes: list[int] = []
        async with an_app(path, Retention(succeeded=timedelta(seconds=1))) as app:
            for wave in range(WAVES):
                runs = await app.start_many([Start(flow, 4) for _ in range(RUNS_IN_WAVE)])
                await asyncio.gather(*(run.result() for run in runs), asyncio.sleep(WAVE_SECONDS))
                space = await app._engine.store.space()
                sizes.append(space.size)
                if wave == 1:
                    first = space.size - space.free
            assert await app.count() < WAVES * RUNS_IN_WAVE / 2
        return sizes, first // 2 * WAVES

    sizes, without = asyncio.run(asyncio.wait_for(main(), 60))
    with capsys.disabled():
        print(f"\nMB under steady load: {' '.join(f'{size / 1e6:.2f}' for size in sizes)}; kept: {without / 1e6:.2f}")
    half = WAVES // 2
    assert max(sizes[half:]) <= 1.15 * max(sizes[:half])
    assert max(sizes) < without / 1.5


WAVES = 24
RUNS_IN_WAVE = 100
WAVE_SECONDS = 0.25


# prune


def test_prune_goes_by_the_apps_retention_or_by_what_it_is_told() -> None:
    async def main() -> None:
        async with an_app() as app:
            app._engine.retention = Retention(workflows={"flow": None})
            await some_runs(app)
            assert (await app.prune()).runs == 0
            later(app, timedelta(days=31))
            would = await app.prune(dry_run=True)
            assert (would.runs, would.dry_run) == (2, True)
            assert [(group.workflow, group.state, group.runs) for group in would.groups] == [
                ("failing", RunState.FAILED, 1),
                ("sleeper", RunState.CANCELLED, 1),
            ]
            assert len(await ids(app)) == 7
            did = await app.prune()
            assert did == Pruned(runs=2, groups=would.groups, bytes_freed=did.bytes_freed)
            assert await ids(app) == {"s1", "s2", *UNENDED}
            assert (await app.prune(older_than=timedelta(days=32))).runs == 0
            succeeded: dict[str, Any] = {"older_than": timedelta(days=31), "workflow": flow, "states": "succeeded"}
            would = await app.prune(**succeeded, dry_run=True)
            did = await app.prune(**succeeded)
            assert (did.runs, did.entries) == (would.runs, would.entries) == (2, 5)
            assert await ids(app) == UNENDED

    play(main())


def test_prune_by_a_client_without_worker_takes_states_workflows_and_a_limit(tmp_path: Path) -> None:
    async def main() -> None:
        async with an_app(tmp_path / "a.db") as app:
            await some_runs(app)
            async with app.client() as client:
                assert (await client.prune(older_than=0, states=["failed"], workflow="flow")).runs == 0
                for wrong in ({"states": []}, {"states": ()}, {"dry_run": "yes"}, {"dry_run": None}):
                    with pytest.raises(UsageError, match=next(iter(wrong))):
                        await client.prune(older_than=0, **wrong)
                assert (await client.prune(older_than=0, limit=3, dry_run=True)).runs == 3
                assert (await client.prune(older_than=0, limit=1)).runs == 1
                assert (await client.prune(older_than=0, states=["failed", "cancelled"])).runs <= 2
                assert (await client.prune(older_than=0)).runs >= 1
                assert await ids(client) == UNENDED
                assert (await client.start("flow", steps=1, id="s1")).id == "s1", "its id is free again"
            with app.sync() as blocking:
                assert blocking.prune(older_than=0, dry_run=True, states="failed").runs == 0

    play(main())


def test_progress_is_told_after_each_batch_and_a_cancelled_prune_stops_between_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "BUDGET_US", 0)

    async def main() -> None:
        async with an_app(tmp_path / "a.db") as app:
            await asyncio.gather(*(run.result() for run in await app.start_many([Start(flow, 1)] * 1000)))
            told: list[Pruned] = []
            cancelled = asyncio.Event()

            def progress(so_far: Pruned) -> None:
                told.append(so_far)
                if len(told) == 2:
                    task.cancel()
                    cancelled.set()

            task = asyncio.create_task(app.prune(older_than=0, on_progress=progress))
            with pytest.raises(asyncio.CancelledError):
                await task
            assert cancelled.is_set()
            assert [so_far.runs for so_far in told] == [256, 512]
            assert await app.count() == 1000 - 512
            assert (await app.prune(older_than=0)).runs == 1000 - 512

    play(main())


def test_a_sweep_that_is_cancelled_within_a_batch_knows_what_the_batch_did() -> None:
    async def main() -> None:
        async with an_app() as app:
            await app.run(flow, 2)
            engine = app._engine
            groups = await engine.store.ended_groups()
            cutoffs = pruning.due(groups, age=lambda *_: timedelta(0), now=engine.world.now_us())
            sweep = pruning.Sweep(engine.journal, cutoffs, share=1.0)
            task = asyncio.create_task(sweep.work())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert sweep.so_far().runs == 1 - await app.count()

    play(main())


def test_a_long_history_is_removed_and_the_space_given_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with an_app(tmp_path / "a.db") as app:
            await app.run(flow, 1_500, id="long")
            did = await app.prune(older_than=0)
            assert (did.runs, did.entries) == (1, 1_500)
            assert did.bytes_freed > 0
            assert await app._engine.store.list_runs(RunQuery(), limit=10) == []

    play(main())


WRONG: list[dict[str, Any]] = [
    {"older_than": -1},
    {"older_than": "7d"},
    {"older_than": True},
    {"states": "paused"},
    {"states": ["succeeded", "running"]},
    {"states": "sucseeded"},
    {"states": 5},
    {"workflow": 5},
    {"limit": 0},
    {"limit": 1.5},
    {"on_progress": "tell me"},
]


@pytest.mark.parametrize("options", WRONG, ids=str)
def test_prune_refuses_what_means_nothing_and_removes_nothing(options: dict[str, Any]) -> None:
    async def main() -> None:
        async with an_app() as app:
            await app.run(flow, 1)
            with pytest.raises(UsageError) as caught:
                await app.prune(**{"older_than": 0, **options})
            assert repr(next(iter(options.values())))[:8].strip("['") in str(caught.value)
            assert await app.count() == 1

    play(main())


def test_prune_of_a_closed_app_says_so() -> None:
    async def main() -> None:
        with pytest.raises(NotOpen):
            await Holdfast("sqlite://").prune()

    play(main())


# The clock


def test_a_clock_that_leaps_by_a_year_removes_nothing_until_it_has_kept_pace_for_an_hour(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with an_app() as app:
            await some_runs(app)
            service = service_of(app, Retention())
            ticks = asyncio.get_running_loop().time()
            monkeypatch.setattr(service._clock, "_look", lambda: (app._world.now_us(), ticks))
            await service.turn()
            later(app, timedelta(days=365))
            for passed in (60, SETTLE_SECONDS - 60):
                ticks += passed
                later(app, timedelta(seconds=passed))
                await service.turn()
                assert len(await ids(app)) == 7
            assert [r for r in caplog.records if "the clock has leapt by +31,5" in r.getMessage()]
            ticks += 120
            later(app, timedelta(seconds=120))
            await service.turn()
            assert await ids(app) == UNENDED

    play(main())


def test_a_leap_that_is_taken_back_within_the_hour_has_removed_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with an_app() as app:
            await some_runs(app)
            service = service_of(app, Retention())
            await service.turn()
            for days in (365, -365):
                later(app, timedelta(days=days))
                await service.turn()
            assert len(await ids(app)) == 7

    play(main())


def test_a_worker_that_starts_trusts_a_clock_that_agrees_with_who_wrote_last() -> None:
    async def first_look(newest: int | None) -> int | None:
        clock = TrustedClock(world, shortest=7 * 86_400.0)
        clock.look_first(newest=newest)
        return clock.now()

    world = SystemWorld()
    now = world.now_us()
    assert play(first_look(None)) is not None
    assert play(first_look(now - DAY_US)) is not None
    assert play(first_look(now + 365 * DAY_US)) is not None, "the clock is behind: nothing goes too early"
    assert play(first_look(now - IDLE_TRUSTED_US - DAY_US)) is None


def test_a_clock_may_be_off_by_a_tenth_of_the_shortest_retention() -> None:
    async def main() -> None:
        world = Later()
        clock = TrustedClock(world, shortest=7 * 86_400.0)
        clock.look_first(newest=None)
        world.ahead_us += 16 * 3600 * 1_000_000
        assert clock.now() is not None, "a laptop has slept"
        world.ahead_us += 17 * 3600 * 1_000_000
        assert clock.now() is None

    play(main())
