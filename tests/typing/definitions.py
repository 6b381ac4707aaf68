"""Checked by mypy and pyright, never run: decorators keep the signatures of steps and workflows."""

# pyright: reportUnnecessaryTypeIgnoreComment=true
from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, assert_type

from holdfast import Holdfast, Retry, step, workflow

app = Holdfast("sqlite://")


@dataclass(frozen=True)
class Order:
    id: str
    cents: int


@dataclass(frozen=True)
class Receipt:
    order_id: str
    payment: str


@step
async def charge(order_id: str, *, cents: int) -> str:
    return f"{order_id}-{cents}"


@step(retry=Retry(attempts=3), timeout=30)
async def ship(order_id: str) -> int:
    return len(order_id)


@step
def pack(order_id: str) -> bytes:
    return order_id.encode()


@step(name="label")
def make_label(order_id: str) -> bytes:
    return order_id.encode()


@app.workflow
async def checkout(order: Order, express: bool = False) -> Receipt:
    payment = await charge(order.id, cents=order.cents)
    assert_type(payment, str)
    assert_type(await ship(order.id), int)
    await charge(order.id)  # type: ignore[call-arg]
    await charge(17, cents=1)  # type: ignore[arg-type]
    await ship(order)  # type: ignore[arg-type]
    return Receipt(order.id, payment)


@workflow
async def refund(order: Order) -> None:
    await charge(order.id, cents=-order.cents)


@app.workflow(name="count")
async def count_words(text: str) -> int:
    return len(text.split())


@workflow
def nightly(day: str) -> list[str]:
    return [day]


@app.workflow(name="weekly")
def weekly(week: int) -> dict[str, int]:
    return {"week": week}


@step(retry=3)  # type: ignore[call-overload,untyped-decorator]
async def wrong_option() -> None: ...


async def outside_a_run_definitions_are_plain_functions() -> None:
    waiting = assert_type(charge("a", cents=1), Coroutine[Any, Any, str])
    await waiting
    assert_type(await checkout(Order("a", 1)), Receipt)
    assert_type(await count_words("a b"), int)
    assert_type(nightly("monday"), list[str])
    assert_type(weekly(1), dict[str, int])
    nightly(1)  # type: ignore[arg-type]
    await checkout("order-17")  # type: ignore[arg-type]
