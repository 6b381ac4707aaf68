"""Hostile values and failures inside workflows: the run ends, says why, can be read, and replays."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.hostile import examples
from tests.fuzz.shapes import FLOWS, SHAPES
from tests.fuzz.stage import Stage, is_ours
from tests.fuzz.things import Allowed, Mischief

from holdfast import RunState
from holdfast.testing import assert_replays

pytestmark = pytest.mark.generated
Story = tuple[str, str, str, bool]
STORIES = st.sampled_from(list(SHAPES)).flatmap(
    lambda shape: st.tuples(st.sampled_from(list(FLOWS)), st.just(shape), st.sampled_from(SHAPES[shape]), st.booleans())
)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path / "a.db", *FLOWS.values()) as stage:
        yield stage


def test_a_run_ends_and_says_why_whatever_its_code_does(stage: Stage) -> None:
    @examples(200)
    @given(STORIES)
    def check(story: Story) -> None:
        judge(stage, story)

    check()


@pytest.mark.long
@pytest.mark.parametrize("plain_steps", [False, True], ids=["async-steps", "def-steps"])
@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_hostile_value_and_failure_in_every_shape(stage: Stage, flow: str, shape: str, plain_steps: bool) -> None:
    for name in SHAPES[shape]:
        judge(stage, (flow, shape, name, plain_steps))


def judge(stage: Stage, story: Story) -> None:
    """Live it, and say what is wrong with its end."""
    answer = stage.try_it(lambda: lived(stage, story))
    assert answer.error is None, f"{story}: {type(answer.error).__name__}: {answer.error!r:.300}"
    assert answer.value is None, f"{story} {answer.value}"


async def lived(stage: Stage, story: Story) -> str | None:
    """What is wrong; nothing if it is well. No task may end with an exception that cannot even be printed."""
    flow, shape, name, plain_steps = story
    run: Any = await stage.app.start(flow, shape, name, plain_steps)
    error = await ended_with(run)
    info = await run.describe()
    if info.state not in (RunState.SUCCEEDED, RunState.FAILED):
        return f"is {info.state} ({info.reason})"
    if (info.error is None) != (error is None) or (info.error is not None and not info.error.type):
        return "has another end than its row"
    if is_ours_and_unprintable(error):
        return f"fails with a {type(error).__name__} that cannot be printed"
    if isinstance(error, Mischief | Allowed):
        return f"fails with what some hostile method raised: {error}"
    await run.history()
    await stage.app.list(limit=1)
    try:
        assert_replays(run, *FLOWS.values(), hash_seeds=())
    except AssertionError as difference:
        return f"does not replay: {difference}"
    return None


async def ended_with(run: Any) -> BaseException | None:
    try:
        await run.result()
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return error
    return None


def is_ours_and_unprintable(error: BaseException | None) -> bool:
    if error is None or not is_ours(error):
        return False
    try:
        str(error).encode()
    except BaseException:
        return True
    return False
