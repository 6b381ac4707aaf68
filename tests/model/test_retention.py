from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from holdfast import Retention, UsageError, WorkerOptions
from holdfast._model.lifecycle import ENDED, RunState

DAY = timedelta(days=1)


def test_retention_is_on_by_default_and_keeps_what_went_wrong_for_longer() -> None:
    policy = WorkerOptions().retention
    assert policy == Retention(succeeded=7 * DAY, failed=30 * DAY, cancelled=30 * DAY)
    assert WorkerOptions(retention=None).retention is None


def test_a_workflow_may_have_a_retention_of_its_own_or_none() -> None:
    policy = Retention(succeeded=DAY, workflows={"audit": None, "report": Retention(succeeded=None, failed=DAY)})
    assert policy.age("checkout", "succeeded") == DAY
    assert [policy.age("audit", state) for state in ENDED] == [None, None, None]
    assert [policy.age("report", state) for state in ("succeeded", "failed", "cancelled")] == [None, DAY, 30 * DAY]
    assert policy.shortest == DAY
    assert Retention(succeeded=None, failed=None, cancelled=None).shortest is None


def test_no_retention_means_a_run_that_has_not_ended() -> None:
    policy = Retention()
    assert {policy.age("w", state) for state in RunState if state not in ENDED} == {None}


def test_a_retention_is_frozen() -> None:
    own: dict[str, Retention | None] = {"a": None}
    policy = Retention(workflows=own)
    own["b"] = None
    assert "b" not in policy.workflows
    with pytest.raises(TypeError):
        policy.workflows["c"] = None  # type: ignore[index]
    with pytest.raises(AttributeError):
        policy.failed = DAY  # type: ignore[misc]


WRONG: dict[str, Callable[[], Any]] = {
    "seconds": lambda: Retention(succeeded=7),  # type: ignore[arg-type]
    "nothing": lambda: Retention(failed=timedelta(0)),
    "negative": lambda: Retention(cancelled=-DAY),
    "too long": lambda: Retention(failed=timedelta(days=40_000)),
    "no mapping": lambda: Retention(workflows=[("a", None)]),  # type: ignore[arg-type]
    "no name": lambda: Retention(workflows={1: None}),  # type: ignore[dict-item]
    "a timedelta for a workflow": lambda: Retention(workflows={"a": DAY}),  # type: ignore[dict-item]
    "nested": lambda: Retention(workflows={"a": Retention(workflows={"b": None})}),
    "no policy": lambda: WorkerOptions(retention=DAY),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("how", WRONG)
def test_what_means_nothing_is_refused_with_the_value(how: str) -> None:
    with pytest.raises(UsageError, match=r"retention|Retention"):
        WRONG[how]()
