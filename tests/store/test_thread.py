from __future__ import annotations

import asyncio
import threading

import pytest

from holdfast._store.thread import StoreThread


def test_calls_run_in_order_in_one_thread_and_answers_come_on_the_loop() -> None:
    async def main() -> None:
        thread = StoreThread("t")
        seen: list[int] = []
        ids = set()

        def work(number: int) -> int:
            seen.append(number)
            ids.add(threading.get_ident())
            return number * 2

        answers = await asyncio.gather(*(thread.call(work, number) for number in range(20)))
        assert answers == [number * 2 for number in range(20)]
        assert seen == [*range(20)]
        assert len(ids) == 1
        assert threading.get_ident() not in ids
        await thread.stop()

    asyncio.run(main())


def test_an_error_reaches_the_caller_and_the_thread_goes_on() -> None:
    def fail() -> None:
        raise ValueError("mine")

    async def main() -> None:
        thread = StoreThread("t")
        with pytest.raises(ValueError, match="mine"):
            await thread.call(fail)
        assert await thread.call(lambda: 5) == 5
        await thread.stop()

    asyncio.run(main())


def test_a_cancelled_caller_does_not_stop_the_call() -> None:
    async def main() -> None:
        thread = StoreThread("t")
        release, done = threading.Event(), threading.Event()

        def work() -> None:
            release.wait()
            done.set()

        caller = asyncio.create_task(thread.call(work))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        release.set()
        await thread.stop()
        assert done.is_set()

    asyncio.run(main())


def test_stop_finishes_what_was_posted() -> None:
    async def main() -> None:
        thread = StoreThread("t")
        done: list[int] = []
        for number in range(100):
            thread.post(lambda number=number: done.append(number))
        await thread.stop()
        assert done == [*range(100)]

    asyncio.run(main())


def test_quiet_is_noticed_with_the_period_that_holds_now() -> None:
    async def main() -> None:
        quiet = asyncio.Event()
        loop = asyncio.get_running_loop()
        thread = StoreThread("t", on_quiet=lambda: loop.call_soon_threadsafe(quiet.set))
        await thread.call(lambda: None)
        assert not quiet.is_set()
        thread.poll_seconds = 0.001
        thread.post(lambda: None)
        await quiet.wait()
        thread.poll_seconds = None
        await thread.stop()

    asyncio.run(main())


def test_an_answer_to_a_closed_loop_is_dropped() -> None:
    release, done = threading.Event(), threading.Event()
    kept: list[StoreThread] = []

    async def main() -> None:
        thread = StoreThread("t")
        kept.append(thread)

        def work() -> None:
            release.wait()
            thread.answer(print, "nobody hears this")
            done.set()

        thread.post(work)

    asyncio.run(main())
    release.set()
    assert done.wait(20)
    kept[0]._calls.put(None)
    kept[0]._thread.join()
