"""One bound for every payload: what is over it is refused by name, fails what made it, and writes nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.runtime.kit import opened, play

from holdfast import (
    Holdfast,
    JournalOptions,
    NotEncodable,
    PayloadTooLarge,
    Retry,
    Start,
    UsageError,
    continue_as_new,
    step,
    workflow,
)
from holdfast._model.payloads import check_payload

MIB = 1_048_576


@workflow
async def length(text: str) -> int:
    return len(text)


def small(*flows: Any) -> Holdfast:
    app = Holdfast("sqlite://", journal=JournalOptions(payload_max=5_000))
    app.include(*flows)
    return app


def test_the_largest_payload_of_the_default_bound_passes_and_one_character_more_does_not() -> None:
    most = "x" * (MIB - len('{"text":""}'))

    async def main() -> None:
        async with opened(length) as app:
            assert await app.run(length, most) == len(most)
            with pytest.raises(PayloadTooLarge) as refused:
                await app.start(length, most + "x")
            told = str(refused.value)
            assert "arguments of workflow 'length': 1,048,577 characters of JSON, more than the 1,048,576" in told
            assert "pass a reference" in told
            assert "journal=JournalOptions(payload_max=...)" in told
            assert (refused.value.chars, refused.value.chars_max) == (MIB + 1, MIB)
            assert isinstance(refused.value, UsageError)
            assert await app.count() == 1

    play(main())


def test_characters_are_counted_and_not_bytes() -> None:
    most = "ü" * (MIB - len('{"text":""}'))

    async def main() -> None:
        async with opened(length) as app:
            assert await app.run(length, most) == len(most)

    play(main())


def test_arguments_attributes_and_edited_results_over_the_bound_write_nothing() -> None:
    @step
    async def work() -> str:
        return "ok"

    @workflow
    async def flow(text: str = "") -> str:
        return await work()

    async def main() -> None:
        async with small(flow) as app:
            run = await app.start(flow, id="r")
            await run.result()
            large = "x" * 5_000
            attributes = {str(number): "x" * 900 for number in range(6)}
            for refused in (
                lambda: app.start(flow, large),
                lambda: app.start("flow", text=large),
                lambda: app.start_many([Start(flow), Start(flow, large)]),
                lambda: app.start(flow, attributes=attributes),
                lambda: run.fork(1, result=large),
                lambda: run.fork(1, args=(large,)),
            ):
                with pytest.raises(PayloadTooLarge):
                    await refused()
            assert await app.count() == 1

    play(main())


@pytest.mark.parametrize("kind", ["async", "def"])
def test_a_step_with_too_large_a_result_fails_and_is_not_tried_again(kind: str) -> None:
    did: list[int] = []

    def body() -> str:
        did.append(1)
        return "x" * 5_000

    async def async_body() -> str:
        return body()

    large: Any = step(name="large", retry=Retry(attempts=5, first_delay=0))(body if kind == "def" else async_body)

    @workflow
    async def flow() -> str:
        try:
            return str(await large())
        except PayloadTooLarge as error:
            return f"{error.chars} {error.message}"

    async def main() -> None:
        async with small(flow) as app:
            run = await app.start(flow)
            told = await run.result()
            assert told == "5002 result of step 'large': 5,002 characters of JSON, more than the 5,000 of one payload"
            assert did == [1], "the body has done its work: once more would do it twice"
            (entry,) = await run.history()
            assert entry.error is not None
            assert (entry.state, entry.error.type) == ("failed", "holdfast.errors:PayloadTooLarge")

    play(main())


def test_a_workflow_with_too_large_a_result_or_next_generation_fails_with_the_reason() -> None:
    @workflow
    async def result() -> str:
        return "x" * 5_000

    @workflow
    def plain() -> str:
        return "x" * 5_000

    @workflow
    async def generation(text: str = "") -> str:
        continue_as_new("x" * 5_000)

    async def main() -> None:
        async with small(result, plain, generation) as app:
            for flow, place in (
                (result, "result of workflow 'result'"),
                (plain, "result of workflow 'plain'"),
                (generation, "arguments of workflow 'generation'"),
            ):
                run: Any = await app.start(flow)  # type: ignore[call-overload]
                with pytest.raises(PayloadTooLarge, match=place):
                    await run.result()
                assert (await run.describe()).state == "failed"

    play(main())


def test_a_failure_over_the_bound_is_abridged_and_not_refused() -> None:
    @step
    async def fail() -> None:
        raise ValueError("\x00" * 50_000 + "the end")

    @workflow
    async def flow() -> None:
        await fail()

    async def main() -> None:
        async with small(flow) as app:
            run = await app.start(flow)
            with pytest.raises(Exception, match="the end") as failed:
                await run.result()
            assert "ValueError" in str(failed.value)
            assert "characters left out" in str(failed.value)

    play(main())


def test_a_history_that_was_written_under_a_larger_bound_is_read_all_the_same(tmp_path: Any) -> None:
    did: list[int] = []

    async def main() -> None:
        blocked = [True]

        @step
        async def large() -> str:
            did.append(1)
            return "x" * 10_000

        @step
        async def wait() -> None:
            if blocked[0]:
                came.set()
                await asyncio.Event().wait()

        @workflow
        async def flow(text: str) -> int:
            found = len(await large())
            await wait()
            return found

        came = asyncio.Event()
        async with opened(flow, at=tmp_path / "a.db", stop_timeout=0) as app:
            await app.start(flow, "y" * 10_000, id="r")
            await came.wait()
        blocked[0] = False
        app = Holdfast(f"sqlite:///{tmp_path / 'a.db'}", journal=JournalOptions(payload_max=5_000))
        app.include(flow)
        async with app:
            assert await app.get("r").result() == 10_000
            assert did == [1]

    play(main())


def test_a_result_that_readers_could_not_decode_fails_its_step_and_listings_go_on() -> None:
    def nested(levels: int) -> Any:
        value: Any = "bottom"
        for _ in range(levels):
            value = [value]
        return value

    @step
    async def deep(levels: int) -> Any:
        return nested(levels)

    @workflow
    async def flow(levels: int) -> Any:
        return await deep(levels)

    async def far_down(frames: int, look: Any) -> Any:
        return await look() if frames == 0 else await far_down(frames - 1, look)

    async def main() -> None:
        async with opened(flow) as app:
            assert await app.run(flow, 150) == nested(150)
            for levels in (700, 900, 5_000):
                with pytest.raises(NotEncodable, match=r"result of step 'deep'.* cannot be stored: it is nested"):
                    await app.run(flow, levels)
            assert len(await far_down(300, app.list)) == 4

    play(main())


def test_the_bound_of_nesting_is_the_same_on_every_python_and_strings_do_not_count() -> None:
    def check(value: Any) -> None:
        check_payload(json.dumps(value), "result", chars_max=1_000_000)

    value: Any = "]" * 300 + '\\"['
    for _ in range(250):
        value = [value]
    check(value)
    check(["[{" * 50] * 20)
    with pytest.raises(NotEncodable, match=r"result cannot be stored: it is nested too deeply .*250 levels"):
        check([value])
    with pytest.raises(NotEncodable, match="nested"):
        check([["text"] * 50, [value]])
