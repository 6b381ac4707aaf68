"""Virtual time for users: nothing happens before its hour, what is due has happened, and it takes no time."""

from __future__ import annotations

import asyncio
import re
import socket
import sqlite3
import sys
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from holdfast import Holdfast, Retry, RunState, UsageError, WorkerOptions, now, sleep, step, workflow
from holdfast.testing import Clock, play
from holdfast.testing.clock import START

DAY = timedelta(days=1)
SEEN: list[tuple[str, datetime]] = []
REAL_SECONDS = 0.1  # five times what the clock once gave to sockets


@pytest.fixture(autouse=True)
def _forget() -> None:
    SEEN.clear()


@step
async def note(text: str, at: datetime) -> None:
    SEEN.append((text, at))


@step
async def body_that_sleeps(seconds: float) -> None:
    await asyncio.sleep(seconds)


@step
def body_in_a_thread() -> str:
    time.sleep(0.1)  # longer than the grace of the loop itself
    return threading.current_thread().name


@step(retry=Retry(attempts=4, first_delay=3600, factor=1, max_delay=3600, jitter=0))
async def fourth_time_lucky() -> None:
    SEEN.append(("attempt", START))
    if len(SEEN) < 4:
        raise OSError("not yet")


@workflow
async def two_reminders() -> str:
    await sleep(3 * DAY)
    await note("first", now())
    await sleep(27 * DAY)
    await note("second", now())
    return "done"


@workflow
async def thread_within_a_time_out() -> str:
    async with asyncio.timeout(5):
        return await body_in_a_thread()


@workflow
async def retries() -> None:
    await fourth_time_lucky()


@workflow
async def works_for(seconds: float) -> None:
    await body_that_sleeps(seconds)


@step(timeout=30)
def in_a_thread() -> str:
    time.sleep(REAL_SECONDS)
    return "thread"


@step(timeout=30)
async def on_a_socket() -> str:
    ours, theirs = socket.socketpair()
    answer = threading.Timer(REAL_SECONDS, theirs.sendall, [b"socket\n"])
    answer.start()
    reader, writer = await asyncio.open_connection(sock=ours)
    line = await reader.readline()
    writer.close()
    answer.join()
    theirs.close()
    return line.decode().strip()


@step(timeout=30)
async def in_a_child() -> str:
    code = f"import time; time.sleep({REAL_SECONDS}); print('child')"
    child = await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", code, stdout=asyncio.subprocess.PIPE)
    output, _ = await child.communicate()
    return output.decode().strip()


@workflow
async def works_in_real_time() -> list[str]:
    return [await in_a_thread(), await on_a_socket(), await in_a_child()]


@step
def longer_than_the_grace() -> None:
    time.sleep(1.2)


@workflow
async def works_longer() -> None:
    await longer_than_the_grace()


@workflow
async def waits_for_ever() -> None:
    await asyncio.Event().wait()


def test_a_month_passes_exactly_and_in_order() -> None:
    async def main(clock: Clock) -> str:
        async with clock.app(two_reminders) as app:
            run = await app.start(two_reminders)
            await clock.advance(3 * DAY - timedelta(microseconds=1))
            assert SEEN == []
            await clock.advance(timedelta(microseconds=1))
            assert SEEN == [("first", START + 3 * DAY)]
            await clock.advance(26 * DAY)
            assert len(SEEN) == 1
            result = await run.result()
            assert clock.now() == START + 30 * DAY
            return result

    assert play(main) == "done"
    assert SEEN[1:] == [("second", START + 30 * DAY)]


def test_a_thousand_sleeps_do_not_drift() -> None:
    async def main(clock: Clock) -> datetime:
        for _ in range(1000):
            await clock.advance(0.1)
        return clock.now()

    assert play(main) == START + timedelta(seconds=100)


def test_back_offs_pass_with_the_clock() -> None:
    async def main(clock: Clock) -> datetime:
        async with clock.app(retries) as app:
            await app.run(retries)
            return clock.now()

    assert play(main) == START + timedelta(hours=3)


def test_a_body_in_a_thread_does_not_run_into_virtual_time_outs() -> None:
    async def main(clock: Clock) -> str:
        async with clock.app(thread_within_a_time_out) as app:
            return await app.run(thread_within_a_time_out)

    assert play(main).startswith("holdfast-step")


def test_advancing_leaves_a_body_under_way_that_needs_longer() -> None:
    async def main(clock: Clock) -> None:
        async with clock.app(works_for) as app:
            run = await app.start(works_for, 7200.0)
            await clock.advance(3600)
            assert (await run.describe()).state == RunState.RUNNING
            await clock.advance(3600)
            assert (await run.describe()).state == RunState.SUCCEEDED

    play(main)


def test_a_client_on_the_same_clock_sees_what_the_app_does_without_time_passing() -> None:
    async def main(clock: Clock) -> datetime:
        async with clock.app(works_for) as app, app.client() as client:
            run = await client.start(works_for, 60.0)
            await run.result()
            return clock.now()

    assert play(main) == START + timedelta(seconds=60)


def test_two_workers_on_one_file_leave_each_other_alone_for_a_year(tmp_path: Path) -> None:
    async def main(clock: Clock) -> list[Any]:
        path = tmp_path / "shop.db"
        async with clock.app(two_reminders, path=path) as first:
            await clock.advance(5 * DAY)  # so that they renew their leases at different instants
            async with clock.app(two_reminders, path=path) as second:
                runs = [await first.start(two_reminders), await second.start(two_reminders)]
                workers = {row.id for row in (await first.stats()).workers}
                await clock.advance(365 * DAY)
                assert {row.id for row in (await first.stats()).workers if row.state == "live"} == workers
                return [await run.result() for run in runs]

    assert play(main) == ["done", "done"]


def test_a_restart_and_a_later_test_go_on_with_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"

    async def begin(clock: Clock) -> None:
        async with clock.app(two_reminders, path=path) as app:
            await app.start(two_reminders, id="r")
            await clock.advance(4 * DAY)
        async with clock.app(two_reminders, path=path):
            await clock.advance(DAY)

    async def later(clock: Clock) -> str:
        async with clock.app(two_reminders, path=path) as app:
            return await app.get("r").result()

    play(begin)
    assert play(later, start=START + 100 * DAY) == "done"
    assert [text for text, _ in SEEN] == ["first", "second"]


def test_another_app_gives_its_workflows() -> None:
    shop = Holdfast("sqlite:///never-opened.db")
    shop.include(two_reminders)

    async def main(clock: Clock) -> tuple[str, ...]:
        async with clock.app(shop, worker=WorkerOptions(stop_timeout=1)) as app:
            return app.workflows

    assert play(main) == ("two_reminders",)
    assert not Path("never-opened.db").exists()


def test_whoever_waits_for_nothing_is_told_where_and_what_the_open_runs_wait_for() -> None:
    async def main(clock: Clock) -> None:
        async with clock.app(waits_for_ever, two_reminders) as app:
            await (await app.start(two_reminders, id="month")).pause()
            await app.run(waits_for_ever, id="ever")  # here

    with pytest.raises(AssertionError, match="ten virtual years") as caught:
        play(main)
    lines = str(caught.value).splitlines()
    assert re.fullmatch(rf"it waits at {re.escape(__file__)}:\d+, in main: await app.run\(.*# here", lines[1])
    assert sorted(lines[2:]) == [
        "run 'ever' of workflow 'waits_for_ever' is waiting, for nothing that has a time",
        "run 'month' of workflow 'two_reminders' is paused: it goes on after run.resume()",
    ]
    assert caught.value.__cause__ is None


def test_whoever_waits_for_nothing_is_told_so_even_if_the_runs_cannot_be_looked_at(tmp_path: Path) -> None:
    async def main(clock: Clock) -> None:
        async with clock.app(waits_for_ever, path=tmp_path / "damaged.db") as app:
            run = await app.start(waits_for_ever, id="ever")
            await clock.advance(1)
            with closing(sqlite3.connect(tmp_path / "damaged.db", isolation_level=None)) as connection:
                connection.execute("update holdfast_runs set created_at = 9000000000000000000")
            await run.result()

    with pytest.raises(AssertionError, match="ten virtual years") as caught:
        play(main)
    assert "its runs cannot be looked at: run 'ever' has a row that cannot be read" in str(caught.value)


def test_bodies_that_work_in_real_time_keep_the_clock_still() -> None:
    """In a thread, on a socket and in a child process, each beside the time-out of its step."""

    async def main(clock: Clock) -> datetime:
        async with clock.app(works_in_real_time) as app:
            assert await app.run(works_in_real_time) == ["thread", "socket", "child"]
            return clock.now()

    assert play(main) == START


def test_a_body_in_a_thread_without_a_time_out_is_waited_for_and_no_time_passes() -> None:
    async def main(clock: Clock) -> datetime:
        async with clock.app(works_longer) as app:
            await app.run(works_longer)
            return clock.now()

    assert play(main) == START


def test_a_time_out_of_the_test_is_no_wait_for_nothing() -> None:
    async def main(clock: Clock) -> None:
        async with asyncio.timeout(5):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        play(main)


@pytest.mark.parametrize("span", [-1, float("nan"), float("inf"), "1 day", None, True, timedelta(days=-1)])
def test_time_does_not_go_back_and_spans_are_spans(span: Any) -> None:
    async def main(clock: Clock) -> None:
        with pytest.raises(UsageError, match="advance"):
            await clock.advance(span)

    play(main)


@pytest.mark.parametrize("wrong", [None, 1, "main"])
def test_play_takes_a_function_of_the_clock(wrong: Any) -> None:
    with pytest.raises(UsageError, match="function of the clock"):
        play(wrong)
    with pytest.raises(UsageError, match="async def"):
        play(lambda clock: wrong)
    with pytest.raises(UsageError, match="aware"):
        play(_nothing, start=datetime(2030, 1, 1))  # noqa: DTZ001


async def _nothing(clock: Clock) -> None:
    return None


def test_virtual_and_real_loops_are_told_apart() -> None:
    kept: list[Any] = []

    async def main(clock: Clock) -> None:
        kept.extend([clock, clock.app(two_reminders)])
        with pytest.raises(UsageError, match="one is running here"):
            play(_nothing)
        with pytest.raises(UsageError, match="real time"):
            kept[1].sync()

    async def elsewhere() -> None:
        with pytest.raises(UsageError, match="another one"):
            await kept[0].advance(1)
        with pytest.raises(UsageError, match="another one"):
            async with kept[1]:
                pass

    play(main)
    asyncio.run(elsewhere())


def test_the_clock_shows_its_time() -> None:
    async def main(clock: Clock) -> str:
        await clock.advance(90)
        return repr(clock)

    assert play(main, start=datetime(2031, 5, 17, tzinfo=UTC)) == "<Clock at 2031-05-17 00:01:30 UTC>"
