"""Virtual time jumps when nothing is left to do, and waits for what is under way elsewhere."""

from __future__ import annotations

import asyncio
import threading
import time

from holdfast.testing.virtual import VirtualLoop


def run(main: object, loop: VirtualLoop) -> object:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)  # type: ignore[arg-type]


def test_a_day_passes_in_no_time_and_sleepers_wake_in_order() -> None:
    loop, seen = VirtualLoop(), []

    async def sleeper(seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((seconds, round(loop.time())))

    async def main() -> None:
        await asyncio.gather(*map(sleeper, (86_400, 60, 3_600)))

    run(main(), loop)
    assert seen == [(60, 60), (3_600, 3_600), (86_400, 86_400)]


def test_the_clock_stands_still_while_a_thread_works_for_its_grace_time() -> None:
    loop = VirtualLoop()

    async def main() -> float:
        async with asyncio.timeout(5):
            await asyncio.to_thread(time.sleep, 0)
        return loop.time()

    assert run(main(), loop) == 0.0


def test_a_thread_that_never_answers_meets_its_timeout() -> None:
    loop, release = VirtualLoop(), threading.Event()

    async def main() -> str:
        waiting = loop.run_in_executor(None, release.wait)
        try:
            await asyncio.wait_for(asyncio.shield(waiting), 5)
        except TimeoutError:
            return "late"
        finally:
            release.set()
            await waiting
        return "in time"

    assert run(main(), loop) == "late"
    assert loop.time() >= 5


def test_what_is_found_when_idle_comes_before_the_jump() -> None:
    loop = VirtualLoop()
    found: list[float] = []

    def look() -> bool:
        found.append(loop.time())
        return len(found) == 1

    async def main() -> None:
        loop.on_idle = look
        await asyncio.sleep(10)

    run(main(), loop)
    assert found[:2] == [0.0, 0.0]


def test_the_clock_waits_for_connections_but_not_for_a_server_that_only_listens() -> None:
    loop = VirtualLoop()

    async def main() -> tuple[float, float]:
        ended = loop.create_future()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()
            await writer.wait_closed()
            ended.set_result(None)

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            listening = loop._selector._real_seconds()  # type: ignore[attr-defined]
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            connected = loop._selector._real_seconds()  # type: ignore[attr-defined]
            writer.close()
            await writer.wait_closed()
            await ended
        return listening, connected

    listening, connected = run(main(), loop)  # type: ignore[misc]
    assert listening == 0.0
    assert connected > 0.0


def test_a_child_process_keeps_the_clock_still_whatever_was_cancelled_or_waited_for_before() -> None:
    loop = VirtualLoop()

    async def main() -> float:
        making = asyncio.create_task(asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # it has begun, and its pipes are not yet connected
        making.cancel()
        await asyncio.wait([making])
        assert making.cancelled()
        loop.patience._since = 0  # nothing has happened for long
        child = await asyncio.create_subprocess_exec("sleep", "0.1")
        assert loop._selector._real_seconds() > 0.0  # type: ignore[attr-defined]
        await asyncio.wait_for(child.wait(), 60)
        return loop.time()

    assert run(main(), loop) == 0.0
    assert not loop.children
