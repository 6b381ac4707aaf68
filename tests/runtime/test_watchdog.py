from __future__ import annotations

import logging
import threading

import pytest
from tests.runtime.kit import play

from holdfast import Holdfast, WorkerOptions, workflow


class Waits(logging.Handler):
    """Lets the blocked workflow go as soon as the report is there."""

    def __init__(self) -> None:
        super().__init__()
        self.reported = threading.Event()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "blocked the event loop" in record.getMessage():
            self.records.append(record)
            self.reported.set()


@pytest.fixture
def waits() -> Waits:
    return Waits()


def test_a_workflow_that_blocks_the_loop_is_reported_with_its_stack_and_not_stopped(waits: Waits) -> None:
    def compute_for_ever() -> bool:
        return waits.reported.wait(20)

    @workflow
    async def flow() -> bool:
        return compute_for_ever()

    async def main() -> None:
        app = Holdfast("sqlite://", worker=WorkerOptions(blocked_after=0.2))
        app.include(flow)
        async with app:
            assert await app.run(flow, id="r") is True

    logger = logging.getLogger("holdfast.run")
    logger.addHandler(waits)
    try:
        play(main())
    finally:
        logger.removeHandler(waits)
    (record,) = waits.records
    assert "compute_for_ever" in record.getMessage()
    assert (record.run_id, record.workflow) == ("r", "flow")  # type: ignore[attr-defined]
