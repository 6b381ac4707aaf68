"""What the log tells of runs: one function for each line, all with the run, workflow, step and attempt as fields."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from holdfast._flow.activation import Activation
from holdfast._flow.calls import StepCall
from holdfast._model.failures import said, told, traceback_of
from holdfast._model.records import RunRow
from holdfast._runtime.events import ENGINE_LOG, RUN_LOG, log_fields
from holdfast._runtime.liverun import LiveRun
from holdfast.errors import InternalError

STEPS_NAMED_MAX: Final = 3


def log_failure(row: RunRow, call: StepCall, error: BaseException, *, again: bool) -> None:
    """An attempt of a step failed."""
    fields = log_fields(row.id, row.workflow, call.step.name, call.attempts)
    verdict = "will be tried again" if again else "failed"
    what = said(error, as_repr=True)
    RUN_LOG.warning("step %s of run %s %s: %s", call.step.name, row.id, verdict, what, extra=fields)


def log_failed(row: RunRow, error: str) -> None:
    """A run ends with a failure, given as it is stored: one line. The traceback is in its row, and here for DEBUG."""
    fields = log_fields(row.id, row.workflow)
    RUN_LOG.error("run %s of %s failed: %s", row.id, row.workflow, told(error), extra=fields)
    if RUN_LOG.isEnabledFor(logging.DEBUG):
        RUN_LOG.debug("run %s of %s failed:\n%s", row.id, row.workflow, traceback_of(error), extra=fields)


def log_blocked(row: RunRow, reason: str, error: BaseException) -> None:
    """The engine cannot go on with a run."""
    RUN_LOG.error("run %s is blocked (%s): %s", row.id, reason, error, extra=log_fields(row.id, row.workflow))


def log_suspect(row: RunRow) -> None:
    """A run with which its process has died again and again is tried once more, alone."""
    told = "run %s of %s: its process has died with it %d times in a row, without progress; it is tried alone"
    RUN_LOG.warning(told, row.id, row.workflow, row.crashes, extra=log_fields(row.id, row.workflow))


def log_cleared(row: RunRow) -> None:
    """A suspect has lived on."""
    told = "run %s of %s goes on like any other: its process has lived on with it"
    RUN_LOG.info(told, row.id, row.workflow, extra=log_fields(row.id, row.workflow))


def log_defect(row: RunRow, error: Exception) -> InternalError:
    """Our own code failed over a run; what to block the run with."""
    ENGINE_LOG.error("a defect while executing run %s; please report it", row.id, exc_info=error)
    return InternalError(f"{type(error).__name__}: {said(error)}", hint="please report this")


def log_poisoned(run_id: str, workflow: str, crashes: int) -> None:
    """A run has taken its workers down and is set aside."""
    told = "run %s is blocked (poison): its worker died with it %d times without progress"
    RUN_LOG.error(told, run_id, crashes, extra=log_fields(run_id, workflow))


def log_awaited(runs: Iterable[LiveRun], *, seconds: float) -> None:
    """A worker that stops still waits for steps under way."""
    steps = [(body.call.step.name, run.row.id) for run in runs for body in run.bodies.values()]
    if steps and seconds > 0:
        told = "stopping waits up to %g s more for steps under way: %s%s; a second signal leaves at once"
        named = ", ".join(f"{step} of run {run_id}" for step, run_id in steps[:STEPS_NAMED_MAX])
        more = f" and {len(steps) - STEPS_NAMED_MAX:,} more" if len(steps) > STEPS_NAMED_MAX else ""
        ENGINE_LOG.warning(told, seconds, named, more)


def log_unhandled(row: RunRow, activation: Activation) -> None:
    """What nobody in the run handled: asyncio's reports, and steps that it forgot to await."""
    contexts, activation.unhandled_errors = activation.unhandled_errors, None
    fields = log_fields(row.id, row.workflow)
    for context in contexts or ():
        RUN_LOG.warning("run %s: %s", row.id, context.get("message"), exc_info=context.get("exception"), extra=fields)
