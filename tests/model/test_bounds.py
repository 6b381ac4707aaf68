"""Options refuse what makes no sense, where it is written."""

from __future__ import annotations

import math
from typing import Any

import pytest

import holdfast
from holdfast import ExecutorOptions, Holdfast, JournalOptions, LeaseOptions, Retry, UsageError, WorkerOptions

WRONG: list[tuple[Any, str, list[Any]]] = [
    (ExecutorOptions, "runs_max", [-1, 1.5, "10", None, True, math.nan, 10**30]),
    (ExecutorOptions, "bodies_max", [0, -1, 2.0, math.inf]),
    (ExecutorOptions, "threads_max", [0, -1, "4", 1_000_000]),
    (ExecutorOptions, "park_after", [-0.1, math.nan, math.inf, "2", None]),
    (ExecutorOptions, "runs_cached_max", [-1, 0.5]),
    (ExecutorOptions, "memory_max", [0, -5, "1 GB", 1e9]),
    (LeaseOptions, "seconds", [0, -1, math.nan, math.inf, "30", None]),
    (LeaseOptions, "sweep_seconds", [0, -1, math.nan, math.inf]),
    (WorkerOptions, "execution", [None, {}, LeaseOptions()]),
    (WorkerOptions, "lease", [None, 30.0]),
    (WorkerOptions, "stop_timeout", [-1, math.nan, math.inf, None]),
    (WorkerOptions, "blocked_after", [0, -1, math.nan, "2"]),
    (JournalOptions, "batch_max", [0, -1, 1.5, None, 10**9]),
    (JournalOptions, "intake_max", [0, "many"]),
    (JournalOptions, "backoff_first_ms", [0, -1, 0.5]),
    (JournalOptions, "backoff_max_ms", [0, 19, math.inf]),
    (JournalOptions, "payload_max", [0, -1, 100, 1e6, 2**40]),
    (Retry, "first_delay", [-1, math.nan, "1"]),
    (Holdfast, "worker", [5, JournalOptions(), {}]),
    (Holdfast, "journal", [5, WorkerOptions(), {}]),
]


@pytest.mark.parametrize(
    ("options", "field", "value"), [(kind, field, value) for kind, field, values in WRONG for value in values]
)
def test_an_option_that_makes_no_sense_is_refused_by_name_where_it_is_written(
    options: Any, field: str, value: object
) -> None:
    with pytest.raises(UsageError) as refused:
        options(**{field: value})
    assert f"{options.__name__}({field}={value!r}"[:60] in str(refused.value)
    assert " must be a" in str(refused.value)


def test_the_message_has_the_bound() -> None:
    with pytest.raises(UsageError, match=r"JournalOptions\(batch_max=0\) must be a whole number from 1 to 1,000,000"):
        JournalOptions(batch_max=0)
    with pytest.raises(UsageError, match=r"LeaseOptions\(seconds=nan\) must be a number from 0\.01 to 86400"):
        LeaseOptions(seconds=math.nan)


def test_a_worker_that_executes_nothing_is_legal() -> None:
    assert ExecutorOptions(runs_max=0, runs_cached_max=0, park_after=0).runs_max == 0


def test_the_defaults_are_within_their_bounds() -> None:
    for name in ("ExecutorOptions", "LeaseOptions", "WorkerOptions", "JournalOptions"):
        getattr(holdfast, name)()
