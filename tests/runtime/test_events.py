from __future__ import annotations

import asyncio
import logging

import pytest
from tests.runtime.kit import Seen, opened, play

from holdfast import Retry, step, workflow
from holdfast._runtime.events import Event, Events

EVENT = Event("run.ended", 1, "r", "flow")


def test_listeners_hear_in_order_until_they_leave() -> None:
    events, heard = Events(), []
    assert not events.active
    leave_first = events.listen(lambda event: heard.append(("first", event)))
    leave_second = events.listen(lambda event: heard.append(("second", event)))
    events.emit(EVENT)
    leave_first()
    leave_first()
    events.emit(EVENT)
    leave_second()
    assert not events.active
    assert heard == [("first", EVENT), ("second", EVENT), ("second", EVENT)]


def test_a_listener_that_fails_is_removed_and_the_others_hear_on(caplog: pytest.LogCaptureFixture) -> None:
    events, heard = Events(), []

    def fail(_event: Event) -> None:
        raise ValueError("mine")

    events.listen(fail)
    leave = events.listen(heard.append)
    events.emit(EVENT)
    events.emit(EVENT)
    assert heard == [EVENT, EVENT]
    assert caplog.text.count("is removed") == 1
    leave()
    assert not events.active


def test_the_life_of_a_run_is_told_and_logs_carry_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    failures = [ValueError("once")]

    @step(retry=Retry(attempts=2, first_delay=0))
    async def flaky() -> int:
        if failures:
            raise failures.pop()
        return 1

    @workflow
    async def flow() -> int:
        return await flaky()

    async def main() -> None:
        async with opened(flow) as app:
            seen = Seen(app)
            await app.run(flow, id="r")
            await seen.until("run.ended")
            assert [(e.kind, e.step, e.attempt, e.state) for e in seen.events] == [
                ("run.claimed", None, 0, None),
                ("step.started", "flaky", 1, None),
                ("step.started", "flaky", 2, None),
                ("step.ended", "flaky", 2, "succeeded"),
                ("run.ended", None, 0, "succeeded"),
            ]
            assert {(e.run_id, e.workflow) for e in seen.events} == {("r", "flow")}

    with caplog.at_level(logging.INFO):
        play(main())
    (record,) = [r for r in caplog.records if r.name == "holdfast.run"]
    fields = {name: getattr(record, name) for name in ("run_id", "workflow", "step", "attempt")}
    assert fields == {"run_id": "r", "workflow": "flow", "step": "flaky", "attempt": 1}


def test_what_a_workflows_loop_complains_about_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    @workflow
    async def flow() -> int:
        asyncio.get_running_loop().call_exception_handler({"message": "odd", "exception": ValueError("nobody looks")})
        return 1

    async def main() -> None:
        async with opened(flow) as app:
            assert await app.run(flow, id="r") == 1

    play(main())
    (record,) = [r for r in caplog.records if r.getMessage() == "run r: odd"]
    assert record.exc_info is not None
    assert "nobody looks" in str(record.exc_info[1])
