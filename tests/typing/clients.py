"""Checked by mypy and pyright, never run: starting a workflow is checked like calling it, and results have its type."""

# pyright: reportUnnecessaryTypeIgnoreComment=true
from __future__ import annotations

from datetime import timedelta
from typing import Any, assert_type

from definitions import Order, Receipt, app, checkout, nightly, refund

from holdfast import Client, Entry, Page, Run, RunInfo, RunState, Start


async def starting_infers_the_result(client: Client, order: Order) -> None:
    run = await app.start(checkout, order)
    assert_type(run, Run[Receipt])
    assert_type(await run.result(), Receipt)
    assert_type(await app.start(checkout, order, express=True), Run[Receipt])
    assert_type(await client.start(refund, order), Run[None])
    assert_type(await client.start(nightly, "monday"), Run[list[str]])


async def wrong_arguments_are_errors(order: Order) -> None:
    await app.start(checkout, "order-17")  # type: ignore[call-overload]
    await app.start(checkout)  # type: ignore[call-overload]
    await app.start(checkout, order, exprss=True)  # type: ignore[call-arg]
    await app.start(nightly, 17)  # type: ignore[call-overload]
    await app.start(len, order)  # type: ignore[call-overload]


async def options_keep_the_result(order: Order) -> None:
    assert_type(await app.start(checkout, order, id="order-17"), Run[Receipt])
    assert_type(await app.start(checkout, order, delay=timedelta(hours=1), priority=3), Run[Receipt])
    assert_type(await app.start(checkout, order, attributes={"customer": "anna"}), Run[Receipt])
    assert_type(await app.start(nightly, "monday", timeout=60), Run[list[str]])
    await app.start(checkout, order, id=17)  # type: ignore[call-arg]


async def a_name_gives_a_run_of_anything() -> None:
    assert_type(await app.start("checkout", order={"id": "a", "cents": 1}), Run[Any])
    assert_type(app.get("order-17"), Run[Any])


async def many_starts_keep_the_result(order: Order) -> None:
    assert_type(await app.start_many([Start(checkout, order)]), list[Run[Receipt]])


async def handles_answer_with_values(run: Run[Receipt]) -> None:
    assert_type(await run.describe(), RunInfo)
    assert_type(await run.history(), list[Entry])
    assert_type(await run.cancel(), RunState)
    assert_type(await run.fork(2), Run[Receipt])
    assert_type(await app.list(workflow=checkout), Page)
    assert_type((await app.list(where="state:failed")).next, str | None)
    assert_type([run async for run in app.iterate(where="state:failed")], list[RunInfo])
    assert_type(await app.count(state="failed"), int)
