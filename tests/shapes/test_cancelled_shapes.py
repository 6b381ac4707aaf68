"""Cancelled shapes die at each of their records, before, during and after their clean-up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast import sleep, step, workflow
from holdfast.testing import CrashOptions, crash_everywhere


@step
async def add(a: int, b: int) -> int:
    return a + b


@step
async def slow(label: str, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return label


@step
def double(x: int) -> int:
    return 2 * x


@workflow
async def cleans_up() -> None:
    try:
        await add(1, 1)
        await asyncio.gather(asyncio.sleep(3600), slow("body", 7200))
    finally:
        await add(2, 2)
        await slow("clean", 1)


@workflow
def cleans_up_plainly() -> None:
    try:
        double(1)
        sleep(3600)
    finally:
        double(2)


@workflow
async def stubborn() -> str:
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        await slow("ignored", 1)
    return "a result that does not count"


async def cancel_later(run: Any) -> None:
    await asyncio.sleep(100)
    await run.cancel()


@pytest.mark.parametrize("shape", [cleans_up, cleans_up_plainly, stubborn], ids=lambda shape: shape.name)
def test_cancelled_shape_survives_dying_at_each_record(shape: Any) -> None:
    report = crash_everywhere(shape, options=CrashOptions(meanwhile=cancel_later, may_fail=True))
    assert report.outcome.kind == "holdfast.errors.RunCancelled"
