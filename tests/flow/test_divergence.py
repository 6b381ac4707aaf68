"""Code that does not repeat its history: loud, blocked, and gone as soon as the code fits again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast import Holdfast, Run, patched, random, sleep, step, workflow
from holdfast._runtime.options import WorkerOptions


@step
async def reserve(n: int) -> int:
    return n


@step
async def charge(n: int) -> int:
    return n


@step
async def wait_for_release() -> None:
    await asyncio.Event().wait()


Body = Callable[[int], Awaitable[Any]]


def app_with(path: Path, body: Body) -> Holdfast:
    """A process whose code of the workflow `order` is `body`."""
    app = Holdfast(f"sqlite:///{path}", worker=WorkerOptions(stop_timeout=0.05))
    app.include(workflow(name="order")(body))
    return app


async def ended(app: Holdfast) -> Any:
    return await app.get("order").result()


async def blocked(app: Holdfast) -> Any:
    """Wait until the run is blocked; looks as often as the loop turns."""
    while True:
        info = await app.get("order").describe()
        if info.state == "blocked":
            return info
        assert info.state in ("ready", "running"), info


async def begin(path: Path, body: Body, *, entries: int) -> None:
    """Start the run under `body`, until it has so many entries; then the process stops."""
    async with app_with(path, body) as app:
        run: Run[Any] = await app.start("order", 1, id="order")
        while len(await run.history()) < entries:
            await asyncio.sleep(0)


async def old(n: int) -> int:
    total = await reserve(n) + await charge(n)
    await wait_for_release()
    return total


async def matching(n: int) -> int:
    return await reserve(n) + await charge(n)


async def swapped(n: int) -> int:
    return await charge(n) + await reserve(n)


async def other_arguments(n: int) -> int:
    return await reserve(n + 1) + await charge(n)


async def shorter(n: int) -> int:
    return await reserve(n)


async def failing(n: int) -> int:
    await reserve(n)
    raise KeyError("no such order")


async def a_timer_first(n: int) -> int:
    await sleep(0)
    await sleep(1)
    return await reserve(n)


@pytest.mark.parametrize(
    ("body", "recorded", "requested"),
    [
        (swapped, 'step reserve({"n":1})', 'step charge({"n":1})'),
        (other_arguments, 'step reserve({"n":1})', 'step reserve({"n":2})'),
        (shorter, 'step charge({"n":1})', "nothing: the workflow has ended"),
        (failing, 'step charge({"n":1})', "nothing: the workflow has failed with KeyError: 'no such order'"),
        (a_timer_first, 'step reserve({"n":1})', "timer"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_divergence_blocks_the_run_and_shows_both_sides(
    tmp_path: Path, body: Body, recorded: str, requested: str
) -> None:
    async def main() -> None:
        await begin(tmp_path / "x.db", old, entries=2)
        async with app_with(tmp_path / "x.db", body) as app:
            info = await blocked(app)
            assert info.reason == "nondeterminism"
            assert info.error is not None
            assert f"recorded:  {recorded}" in info.error.message
            assert f"requested: {requested}" in info.error.message
            assert "patched" in info.error.hint
            assert info.ended_at is None

    asyncio.run(main())


def test_blocked_run_goes_on_by_itself_once_matching_code_runs_it(tmp_path: Path) -> None:
    async def main() -> None:
        await begin(tmp_path / "x.db", old, entries=2)
        async with app_with(tmp_path / "x.db", swapped) as app:
            waiting = asyncio.create_task(ended(app))
            await blocked(app)
            assert not waiting.done()  # blocked is not an end
            waiting.cancel()
        async with app_with(tmp_path / "x.db", matching) as app:
            assert await ended(app) == 2
            entries = await app.get("order").history()
            assert [entry.attempts for entry in entries if entry.ordinal is not None] == [1, 1]

    asyncio.run(main())


# Patches.


async def before_patch(n: int) -> int:
    await reserve(n)
    await reserve(n)
    await wait_for_release()
    return 1


async def with_patch(n: int) -> str:
    first = await reserve(n)
    if patched("charge first"):
        await charge(n)
    await reserve(n)
    return "new" if patched("charge first") else f"old {first}"


async def without_patch(n: int) -> str:
    await reserve(n)
    await charge(n)
    await reserve(n)
    return "patch removed"


async def patched_and_waiting(n: int) -> str:
    outcome = await with_patch(n)
    await wait_for_release()
    return outcome


def test_old_history_takes_the_old_branch_of_a_patch(tmp_path: Path) -> None:
    async def main() -> None:
        await begin(tmp_path / "x.db", before_patch, entries=2)
        async with app_with(tmp_path / "x.db", with_patch) as app:
            assert await ended(app) == "old 1"

    asyncio.run(main())


def test_new_run_takes_the_new_branch_also_in_replay(tmp_path: Path) -> None:
    async def main() -> None:
        await begin(tmp_path / "x.db", patched_and_waiting, entries=4)
        async with app_with(tmp_path / "x.db", with_patch) as app:
            assert await ended(app) == "new"
            names = [entry.name for entry in await app.get("order").history() if entry.state == "succeeded"]
            assert names == ["reserve", "charge first", "charge", "reserve"]

    asyncio.run(main())


def test_run_that_had_not_reached_the_place_takes_the_new_branch(tmp_path: Path) -> None:
    async def stuck_before(n: int) -> None:
        await reserve(n)
        await wait_for_release()

    async def main() -> None:
        await begin(tmp_path / "x.db", stuck_before, entries=1)
        async with app_with(tmp_path / "x.db", with_patch) as app:
            assert await ended(app) == "new"

    asyncio.run(main())


def test_removing_a_patch_that_a_run_needs_is_loud(tmp_path: Path) -> None:
    async def main() -> None:
        await begin(tmp_path / "x.db", patched_and_waiting, entries=4)
        async with app_with(tmp_path / "x.db", without_patch) as app:
            info = await blocked(app)
            assert info.error is not None
            assert "recorded:  patch charge first" in info.error.message
            assert "put it back" in info.error.hint

    asyncio.run(main())


def test_second_patch_before_the_first_leaves_old_histories_alone(tmp_path: Path) -> None:
    async def two_patches(n: int) -> list[bool]:
        await reserve(n)
        answers = [patched("newer"), patched("charge first")]
        await charge(n)
        await reserve(n)
        return answers

    async def main() -> None:
        await begin(tmp_path / "x.db", patched_and_waiting, entries=4)
        async with app_with(tmp_path / "x.db", two_patches) as app:
            assert await ended(app) == [False, True]

    asyncio.run(main())


def test_chance_is_the_same_in_replay(tmp_path: Path) -> None:
    drawn: list[float] = []

    async def chancy(n: int) -> float:
        number = random().random()
        drawn.append(number)
        await reserve(n)
        await wait_for_release()
        return number

    async def main() -> None:
        await begin(tmp_path / "x.db", chancy, entries=1)
        await begin_again(tmp_path / "x.db", chancy)

    async def begin_again(path: Path, body: Body) -> None:
        async with app_with(path, body):
            while len(drawn) < 2:
                await asyncio.sleep(0)

    asyncio.run(main())
    assert drawn[0] == drawn[1]


def test_a_sleep_that_has_begun_ends_when_it_was_to_whatever_the_code_says_since(tmp_path: Path) -> None:
    async def short(n: int) -> int:
        await reserve(n)
        await sleep(0.05)
        return n

    async def long(n: int) -> int:
        await reserve(n)
        await sleep(86_400)
        return n

    async def main() -> None:
        await begin(tmp_path / "a.db", short, entries=1)
        async with app_with(tmp_path / "a.db", long) as app:
            assert await asyncio.wait_for(ended(app), 20) == 1

    asyncio.run(main())
