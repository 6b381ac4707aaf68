"""Options, decorators, apps before they are open and the testing kit, with every value that anybody could pass."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.calls import CALLS, OPTIONS
from tests.fuzz.hostile import examples
from tests.fuzz.makings import MAKINGS
from tests.fuzz.stage import alarm, complaint
from tests.fuzz.things import JUNK, Thing

import holdfast
from holdfast import testing

pytestmark = pytest.mark.generated

CASES = {f"{place} {each.name}({name})": (each, name) for place, each in enumerate(MAKINGS) for name in each.values}
ACCEPTED_AS_FUNCTIONS = ("on_progress", "main", "body", "meanwhile", "same")


@st.composite
def makings(draw: st.DrawFn) -> tuple[str, Thing]:
    case = draw(st.sampled_from(list(CASES)))
    making, name = CASES[case]
    return case, draw(making.values[name])


@examples(300)
@given(makings())
def test_what_cannot_be_made_is_refused_in_our_words(tried: tuple[str, Thing]) -> None:
    judge(*tried)


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_every_hostile_value_in_every_option(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for thing in JUNK:
        judge(case, thing)


def judge(case: str, thing: Thing) -> None:
    making, name = CASES[case]
    value = thing.make()
    if name in ACCEPTED_AS_FUNCTIONS and callable(value):
        return  # what it raises is the caller's
    try:
        with alarm():
            making.make({name: value})
    except BaseException as error:
        problem = complaint(error, places=making.places or (name,))
        assert problem is None, f"{case} {thing!r} {problem}"


# --- nothing public is forgotten

ANSWERS = [
    "Backup",
    "Current",
    "EndedStats",
    "Entry",
    "EntryState",
    "ErrorInfo",
    "Page",
    "Pruned",
    "PrunedGroup",
    "RunInfo",
    "RunState",
    "WorkerInfo",
    "CrashReport",
    "Fake",
    "Outcome",
]
"""Values that we make and others read; nobody passes anything to them."""
MADE_BY_US = ["Client", "Clock", "Run", "Stats", "Step", "SyncClient", "SyncRun", "Workflow"]
"""Classes whose instances come from our calls: their methods are public, their constructors are not."""
OF_THE_ENGINE = {"Retry.wants_another", "Retry.delay_us", "Retention.age", "Clock.now"}
"""Asked with the engine's own values, or with none."""
ELSEWHERE = {
    "run_until_idle.timeout": "needs an open app: test_life",
    "run_until_idle_sync.timeout": "handed to run_until_idle",
    "export_run.path": "written by open(), which says what is wrong",
    "crash_everywhere.args": "arguments of a start",
    "crash_everywhere.kwargs": "arguments of a start",
    "Client.run.delay": "an option of start; the result would be long in coming",
    "Client.run.at": "an option of start; the result would be long in coming",
    "Client.count.conditions": "each of them is there by its name",
    "Client.iterate.conditions": "each of them is there by its name",
}
FACADES = {"SyncClient": "Client", "SyncRun": "Run", "Holdfast": "Client", "crash_everywhere_async": "crash_everywhere"}
"""Their calls are those of the other; what only they have is their own."""


def parameters(name: str, function: Any) -> set[str]:
    found = {each for each in inspect.signature(function).parameters if each != "self"}
    if name in ("Client.start", "Client.run"):
        found |= set(OPTIONS)
    return {f"{name}.{each}" for each in found} or {name}


def surface() -> set[str]:
    """Every public call with each of its parameters, from the code."""
    found: set[str] = set()
    for module in (holdfast, testing):
        for name in module.__all__:
            value = getattr(module, name)
            if name in ANSWERS or (name in FACADES and name != "Holdfast"):
                continue
            if not inspect.isclass(value):
                found |= parameters(name, value)
            elif not issubclass(value, BaseException):
                if name not in MADE_BY_US:
                    found |= parameters(name, value)
                members = vars(value).items()
                methods = [(m, f) for m, f in members if inspect.isfunction(f) and not m.startswith("_")]
                for method, function in methods:
                    found |= parameters(f"{name}.{method}", function)
    return {each for each in found if each not in OF_THE_ENGINE and each.rpartition(".")[0] not in OF_THE_ENGINE}


def tried() -> set[str]:
    """What the tables try."""
    entries = [*((call.name, call.values) for call in CALLS), *((each.name, each.values) for each in MAKINGS)]
    return {each for name, values in entries for each in ({f"{name}.{value}" for value in values} or {name})}


def test_no_public_call_and_no_parameter_is_forgotten() -> None:
    assert surface() - tried() - set(ELSEWHERE) == set()
    assert set(ELSEWHERE) <= surface()


def test_the_tables_try_nothing_that_does_not_exist() -> None:
    names = {name for call in CALLS for name in call.values}
    unknown = {each for each in tried() - surface() if each.rpartition(".")[2] not in names}
    assert unknown == set()


def test_every_answer_and_every_class_of_ours_is_still_there() -> None:
    public = {*holdfast.__all__, *testing.__all__}
    assert {*ANSWERS, *MADE_BY_US, *FACADES} <= public
