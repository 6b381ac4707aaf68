from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import Retry, UsageError
from holdfast._model.policies import DELAY_SECONDS_MAX, NO_RETRY


def test_delays_grow_by_the_factor_up_to_the_bound() -> None:
    retry = Retry(attempts=9, first_delay=0.5, factor=2, max_delay=3, jitter=0)
    assert [retry.delay_us(attempt=n, chance=0.3) for n in range(1, 6)] == [
        500_000,
        1_000_000,
        2_000_000,
        3_000_000,
        3_000_000,
    ]


def test_jitter_moves_a_delay_by_its_share_both_ways() -> None:
    retry = Retry(first_delay=10, jitter=0.1)
    assert [retry.delay_us(attempt=1, chance=chance) for chance in (0.0, 0.5)] == [9_000_000, 10_000_000]
    assert 10_990_000 < retry.delay_us(attempt=1, chance=0.9999) <= 11_000_000


@given(
    st.floats(0, DELAY_SECONDS_MAX),
    st.floats(1, 1000),
    st.floats(0, DELAY_SECONDS_MAX),
    st.floats(0, 1),
    st.integers(1, 10**9),
    st.floats(0, 1, exclude_max=True),
)
def test_every_delay_is_finite_and_within_the_bound(
    first: float, factor: float, longest: float, jitter: float, attempt: int, chance: float
) -> None:
    retry = Retry(attempts=10, first_delay=first, factor=factor, max_delay=longest, jitter=jitter)
    delay = retry.delay_us(attempt=attempt, chance=chance)
    assert 0 <= delay <= math.ceil(longest * (1 + jitter) * 1_000_000) + 1


def test_attempts_are_counted_in_total() -> None:
    retry = Retry(attempts=3)
    assert [retry.wants_another(ValueError(), attempt=n) for n in (1, 2, 3, 4)] == [True, True, False, False]
    assert not NO_RETRY.wants_another(ValueError(), attempt=1)


def test_give_up_on_wins_over_retry_on() -> None:
    retry = Retry(retry_on=(OSError,), give_up_on=(ConnectionError,))
    assert retry.wants_another(OSError(), attempt=1)
    assert not retry.wants_another(ConnectionResetError(), attempt=1)
    assert not retry.wants_another(ValueError(), attempt=1)
    assert not Retry().wants_another(asyncio.CancelledError(), attempt=1), "not an Exception"


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"attempts": True},
        {"attempts": 2.0},
        {"first_delay": -1},
        {"first_delay": float("nan")},
        {"first_delay": "1"},
        {"factor": 0.5},
        {"factor": 1001},
        {"max_delay": float("inf")},
        {"jitter": 1.1},
        {"jitter": True},
        {"retry_on": ValueError},
        {"retry_on": (ValueError, "x")},
        {"give_up_on": [ValueError]},
        {"give_up_on": (int,)},
    ],
    ids=repr,
)
def test_what_is_out_of_bounds_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Retry(**wrong)
