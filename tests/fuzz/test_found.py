"""What the fuzzing has found, one test each: these hung, broke others or lost something before they were mended."""

from __future__ import annotations

import asyncio
import enum
import types
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.fuzz.things import BrokenZone, Unprintable
from tests.runtime.kit import opened, play

from holdfast import Holdfast, NotEncodable, QueryError, StepFailed, UsageError, patched, step, workflow


@workflow
async def flow(value: Any = None) -> Any:
    return value


class Order(enum.StrEnum):
    FIRST = "order-1"


def test_an_instant_outside_of_the_calendar_in_utc_is_refused_and_listings_go_on() -> None:
    async def main() -> None:
        async with opened(flow) as app:
            late = datetime.max.replace(tzinfo=timezone(-timedelta(hours=23)))
            with pytest.raises(UsageError, match="must be an instant of the years 1 to 9999 in UTC"):
                await app.start(flow, at=late)
            assert await app.list() == []

    play(main())


def test_an_id_of_an_enum_is_its_text() -> None:
    async def main() -> None:
        async with opened(flow) as app:
            run = await app.start(flow, 1, id=Order.FIRST, attributes={Order.FIRST: Order.FIRST})
            assert type(run.id) is str
            assert await run.result() == 1
            assert [info.id for info in await app.list(attributes={"order-1": "order-1"})] == ["order-1"]

    play(main())


@pytest.mark.parametrize("what", [Unprintable(), "half \ud800"], ids=["unprintable", "half"])
@pytest.mark.parametrize("kind", ["async", "def"])
def test_a_step_that_cancels_itself_with_an_unprintable_reason_fails(kind: str, what: Any) -> None:
    async def body() -> None:
        raise asyncio.CancelledError(what)

    def plain_body() -> None:
        raise asyncio.CancelledError(what)

    failing: Any = step(name="failing")(body if kind == "async" else plain_body)

    @workflow
    async def failing_flow() -> None:
        await failing()

    async def main() -> None:
        async with opened(failing_flow) as app:
            with pytest.raises(StepFailed, match="that nobody asked for"):
                await app.run(failing_flow)

    play(main())


@pytest.mark.parametrize("kind", ["async", "def"])
def test_a_value_whose_own_code_fails_when_it_is_stored_fails_its_step(kind: str) -> None:
    async def body() -> Any:
        return datetime(2030, 1, 1, tzinfo=BrokenZone())

    def plain_body() -> Any:
        return datetime(2030, 1, 1, tzinfo=BrokenZone())

    giving: Any = step(name="giving")(body if kind == "async" else plain_body)

    @workflow
    async def giving_flow() -> None:
        await giving()

    async def main() -> None:
        async with opened(giving_flow) as app:
            with pytest.raises(NotEncodable, match="result of step 'giving'"):
                await app.run(giving_flow)

    play(main())


def test_a_patch_that_cannot_be_recorded_fails_the_run_and_does_not_block_it() -> None:
    @workflow
    async def patched_flow(name: str) -> bool:
        return patched(name + "\ud800" if len(name) < 9 else name)

    async def main() -> None:
        async with opened(patched_flow) as app:
            for name, reason in (("half", "lone surrogate"), ("x" * 201, "the bound is 200")):
                with pytest.raises(UsageError, match=reason):
                    await app.run(patched_flow, name)
            assert await app.run(patched_flow, "x" * 200)

    play(main())


def test_a_fork_cannot_be_given_what_no_replay_can_read() -> None:
    @step
    async def one() -> int:
        return 1

    @workflow
    async def one_flow() -> int:
        return await one()

    async def main() -> None:
        async with opened(one_flow) as app:
            run = await app.start(one_flow)
            await run.result()
            with pytest.raises(NotEncodable):
                await run.fork(1, result=msgspec.Raw(b'{"a":'))
            assert await app.count() == 1

    play(main())


def test_unset_is_no_argument() -> None:
    async def main() -> None:
        async with opened(flow) as app:
            with pytest.raises(NotEncodable, match="UNSET"):
                await app.start(flow, msgspec.UNSET)

    play(main())


def test_a_query_with_half_a_character_is_shown_in_an_error_that_can_be_printed() -> None:
    async def main() -> None:
        async with opened(flow) as app:
            with pytest.raises(QueryError) as refused:
                await app.list(where="half \ud800")
            assert str(refused.value).encode()

    play(main())


def test_a_module_with_an_object_that_only_pretends_is_included() -> None:
    class Lazy:
        @property
        def __class__(self) -> Any:
            raise RuntimeError("not configured")

    module = types.ModuleType("flows")
    vars(module).update(settings=Lazy(), flow=flow)
    app = Holdfast("sqlite://")
    app.include(module)
    assert app.workflows == ("flow",)


FORMS = ["tool = 3", "[tool]\nholdfast = 3", f"x = {'9' * 5000}", f"x = {'[' * 100_000}"]


@pytest.mark.parametrize("text", FORMS, ids=range(len(FORMS)))
def test_a_project_file_of_another_form_is_no_traceback(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOLDFAST_URI", raising=False)
    with pytest.raises(UsageError, match=r"cannot be read|must be a table"):
        Holdfast()


def test_an_instant_is_stored_in_any_zone_of_whole_minutes() -> None:
    async def main() -> None:
        async with opened(flow) as app:
            at = datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=45)))
            assert datetime.fromisoformat(await app.run(flow, at)) == at.astimezone(UTC)

    play(main())
