"""Every call of an app, a client, a facade and a run, with every value that anybody could pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.calls import CALLS, PLACES
from tests.fuzz.hostile import examples
from tests.fuzz.stage import Answer, Stage, complaint
from tests.fuzz.things import JUNK, Thing

from holdfast import Page, Run, RunConflict, RunTimeout, SyncRun

pytestmark = pytest.mark.generated
CASES = {f"{call.name}({name})": (call, name) for call in CALLS for name in call.values}
TRIED = {"app": 250, "client": 40, "facade": 40}
"""How many examples each kind is worth in an ordinary run: behind the arguments they are one."""


@pytest.fixture(params=list(TRIED))
def stage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.chdir(tmp_path)  # for paths that are right by accident
    with Stage(tmp_path / "a.db", kind=request.param) as stage:
        yield stage


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, Thing]:
    case = draw(st.sampled_from(list(CASES)))
    call, name = CASES[case]
    return case, draw(call.values[name])


def test_any_value_is_answered_or_refused_in_our_words_and_refusals_write_nothing(
    stage: Stage, request: pytest.FixtureRequest
) -> None:
    @examples(TRIED[request.node.callspec.params["stage"]])
    @given(calls())
    def check(tried: tuple[str, Thing]) -> None:
        judge(stage, *tried)

    check()
    assert stage.ask(lambda: stage.client.run("flow", "still alive")) == "still alive"


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_every_hostile_value_in_every_place(stage: Stage, case: str) -> None:
    for thing in JUNK:
        judge(stage, case, thing)


def judge(stage: Stage, case: str, thing: Thing) -> None:
    """Try it, and say what is wrong with the answer."""
    call, name = CASES[case]
    if name == "on_progress" and callable(thing.make()):
        return  # what the caller's own function raises is the caller's
    stage.old_is_there()
    before = stage.rows()
    answer = stage.try_it(lambda: call.make(stage, {name: thing.make()}))
    what = f"{call.name}({name}={thing!r})"
    if answer.error is None:
        problem = wrong_answer(stage, name, answer)
    elif isinstance(answer.error, RunTimeout) and (call.name, name) == ("Client.run", "timeout"):
        problem = None
    else:
        problem = complaint(answer.error, places=PLACES.get(name, (name,)))
        of_many = isinstance(answer.error, RunConflict) and call.name == "Start"  # the others have been started
        if stage.rows() != before and not of_many:
            problem = f"was refused and has written something: {answer.error!r:.200}"
    assert problem is None, f"{what} {problem}"


def wrong_answer(stage: Stage, name: str, answer: Answer) -> str | None:
    """A value that was taken must not make what is stored unreadable."""
    value: Any = answer.value
    if isinstance(value, Run | SyncRun):
        if type(value.id) is not str:
            return f"has an id of {type(value.id)}"
        told = stage.try_it(value.describe)
        if told.error is not None:
            return f"cannot be described: {told.error!r:.200}"
    if isinstance(value, Page):
        return None
    listed = stage.try_it(lambda: stage.client.list(limit=3))
    return None if listed.error is None else f"breaks listings: {listed.error!r:.200}"


def test_runs_with_any_id_attributes_and_argument_are_found_by_them(tmp_path: Path) -> None:
    from tests.fuzz import things

    with Stage(tmp_path / "a.db") as stage:

        @examples(60)
        @given(things.texts(), things.texts(8), things.texts() | st.integers() | st.booleans())
        def check(run_id: str, key: str, value: Any) -> None:
            async def found() -> None:
                run = await stage.app.start("flow", [value], id=run_id, attributes={key: value}, on_conflict="raise")
                assert await run.result() == [value]
                info = await stage.app.get(run_id).describe()
                assert (info.id, info.input, info.attributes) == (run_id, {"value": [value]}, {key: value})
                assert run_id in [each.id for each in await stage.app.list(attributes={key: value})]
                assert run_id in [each.id for each in await stage.app.list(id_prefix=run_id)]
                assert await stage.app.count(workflow=run_id[:100]) in (0, await stage.app.count())

            before = stage.rows()
            answer = stage.try_it(found)
            if answer.error is not None:
                assert complaint(answer.error, places=("",)) is None, repr(answer.error)
                assert stage.rows() == before

        check()
