"""A fake replaces the body of a step and nothing else, and only as long as it is asked to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from holdfast import NotEncodable, Retry, SyncClient, UsageError, step, workflow
from holdfast.testing import fake


@step(retry=Retry(attempts=3, first_delay=0.001))
async def charge(order: str, *, cents: int) -> tuple[str, int]:
    return order, cents


@step
def pack(order: str) -> str:
    return f"parcel {order}"


@workflow
async def checkout(order: str) -> list[Any]:
    return [await charge(order, cents=5), await pack(order)]


def test_results_calls_and_the_types_of_the_real_step(holdfast_sync: Callable[..., SyncClient]) -> None:
    with fake(charge, returns=("fake", 1)) as charged, fake(pack, returns="p") as packed:
        assert holdfast_sync(checkout).run(checkout, "A") == [["fake", 1], "p"]
    assert (charged.calls, charged.keywords) == ([("A",)], [{"cents": 5}])
    assert packed.calls == [("A",)]
    assert pack("A") == "parcel A"


def test_a_fake_result_must_fit_the_annotation_of_the_real_step(holdfast_sync: Callable[..., SyncClient]) -> None:
    with fake(pack), pytest.raises(NotEncodable, match="result of step 'pack'"):
        holdfast_sync(checkout).run(checkout, "A")


def test_retries_are_those_of_the_real_step(holdfast_sync: Callable[..., SyncClient]) -> None:
    with fake(charge, raises=OSError("no network")) as charged:
        run = holdfast_sync(checkout).start(checkout, "A")
        with pytest.raises(OSError, match="no network"):
            run.result()
    assert len(charged) == 3


def test_bodies_may_be_functions_of_either_kind(holdfast_sync: Callable[..., SyncClient]) -> None:
    async def another(order: str, *, cents: int) -> tuple[str, int]:
        return order * 2, cents * 2

    with fake(charge, another), fake(pack, lambda order: order.lower()):
        assert holdfast_sync(checkout).run(checkout, "A") == [["AA", 10], "a"]


def test_wrong_fakes_are_refused() -> None:
    with pytest.raises(UsageError, match="takes a step"), fake(checkout):  # type: ignore[arg-type]
        pass
    with pytest.raises(UsageError, match="one of"), fake(pack, lambda order: "", returns=1):
        pass
    with pytest.raises(UsageError, match="as body"), fake(pack, "parcel"):  # type: ignore[arg-type]
        pass
    with pytest.raises(UsageError, match="async def"), fake(pack, charge.function):
        pass
