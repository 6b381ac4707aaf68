from __future__ import annotations

import asyncio
import logging

import pytest
from tests.runtime.kit import play

from holdfast._runtime.service import Ticker
from holdfast._store.port import RecordRefused
from holdfast.errors import StoreBusy, StoreCorrupt, StoreError


def test_the_first_turn_comes_at_once_and_a_poke_brings_the_next() -> None:
    async def main() -> None:
        turns: asyncio.Queue[int] = asyncio.Queue()

        async def turn() -> None:
            turns.put_nowait(1)

        ticker = Ticker("test", period=3600, turn=turn)
        await ticker.start()
        await turns.get()
        ticker.poke()
        await turns.get()
        await ticker.stop()
        assert turns.empty()

    play(main())


def test_a_poke_during_a_turn_is_not_lost() -> None:
    async def main() -> None:
        turns: list[int] = []
        second = asyncio.Event()

        async def turn() -> None:
            turns.append(1)
            if len(turns) == 1:
                ticker.poke()
            else:
                second.set()

        ticker = Ticker("test", period=3600, turn=turn)
        await ticker.start()
        await second.wait()
        await ticker.stop()
        assert len(turns) == 2

    play(main())


def test_a_turn_that_fails_is_logged_and_the_next_one_comes(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        errors: list[BaseException | None] = [StoreBusy("held elsewhere"), RuntimeError("ours"), None]
        done = asyncio.Event()

        async def turn() -> None:
            error = errors.pop(0)
            if error is None:
                done.set()
                await asyncio.Event().wait()
                return
            ticker.poke()
            raise error

        ticker = Ticker("test", period=3600, turn=turn)
        await ticker.start()
        await done.wait()
        await ticker.stop()  # in the middle of a turn

    with caplog.at_level(logging.WARNING, "holdfast.engine"):
        play(main())
    assert [(r.levelname, r.getMessage().split(":")[0]) for r in caplog.records] == [
        ("WARNING", "test"),
        ("ERROR", "test failed; it goes on"),
    ]


def test_an_error_of_the_store_that_will_not_pass_is_told() -> None:
    async def main() -> None:
        broken = StoreCorrupt("a page")
        errors = [StoreBusy("held elsewhere"), RecordRefused("one record"), OSError("no descriptor"), broken]
        told: asyncio.Queue[StoreError] = asyncio.Queue()

        async def turn() -> None:
            if not errors:
                await asyncio.Event().wait()
            ticker.poke()
            raise errors.pop(0)

        ticker = Ticker("test", period=3600, turn=turn, on_fault=told.put_nowait)
        await ticker.start()
        assert await told.get() is broken
        await ticker.stop()

    play(main())


@pytest.mark.parametrize("moments", range(8))
def test_stop_ends_it_at_whatever_moment_a_poke_came(moments: int) -> None:
    """`asyncio.wait_for` of Python 3.11 swallows a cancellation that meets its own end (bpo-37658)."""

    async def main() -> None:
        async def turn() -> None:
            pass

        ticker = Ticker("test", period=3600, turn=turn)
        await ticker.start()
        for _ in range(5):
            await asyncio.sleep(0)
        ticker.poke()
        for _ in range(moments):
            await asyncio.sleep(0)
        stopping = asyncio.create_task(ticker.stop())
        for _ in range(20):
            await asyncio.sleep(0)
        assert stopping.done(), "it goes on for ever"

    play(main())


def test_stop_before_start_does_nothing() -> None:
    async def main() -> None:
        async def turn() -> None:
            pass

        await Ticker("test", period=1, turn=turn).stop()

    play(main())


def test_whoever_stops_a_ticker_can_be_cancelled() -> None:
    async def main() -> None:
        waits, may_end = asyncio.Event(), asyncio.Event()

        async def turn() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                waits.set()
                await may_end.wait()

        ticker = Ticker("test", period=3600, turn=turn)
        await ticker.start()
        await asyncio.sleep(0)
        stopping = asyncio.create_task(ticker.stop())
        await waits.wait()
        stopping.cancel()
        await asyncio.sleep(0)
        may_end.set()
        await asyncio.wait((stopping,))
        assert stopping.cancelled()
        await ticker.stop()

    play(main())
