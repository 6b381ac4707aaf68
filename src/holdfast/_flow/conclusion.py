"""Conclusions: how a workflow's main task ended, as what is recorded of its run.

A pure function of the ended task and of whether somebody had cancelled the run. Every way to end is an outcome: a
result that cannot be stored, a `CancelledError` that nobody asked for and a `SystemExit` all fail the run with a
reason; none of them leaves it pending.
"""

from __future__ import annotations

import asyncio
import os.path
import traceback
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from holdfast._flow.definitions import Workflow
from holdfast._flow.history import CANCEL
from holdfast._flow.loop import ASYNC_HINT
from holdfast._model.bounds import shown
from holdfast._model.failures import encode_failure
from holdfast._model.lifecycle import RunState
from holdfast._model.payloads import check_payload
from holdfast._model.records import RunRow
from holdfast.errors import NotAllowedInWorkflow, RunTimeout

_ASYNCIO: Final = os.path.dirname(asyncio.__file__)


class ContinueAsNew(BaseException):
    """Carries the new arguments from `continue_as_new` to the engine. Not an `Exception`: nobody should eat it."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__("continue_as_new")
        self.new_args = args
        self.new_kwargs = kwargs


@dataclass(frozen=True, slots=True)
class Conclusion:
    """How the run ended: a state with its texts, or the arguments of its next generation (`continues`)."""

    state: RunState | None
    output: str | None = None
    error: str | None = None
    failed_at: int | None = None
    continues: str | None = None


def conclusion_of(
    main: asyncio.Task[Any],
    *,
    row: RunRow,
    workflow: Workflow[..., Any],
    cancel_kind: str | None,
    failures: Sequence[tuple[BaseException, int]],
    payload_max: int,
) -> Conclusion:
    """What to record of a run whose main task is done.

    Args:
        main: the task.
        row, workflow: whose it is.
        cancel_kind: whether the run was cancelled (CANCEL), passed its deadline (DEADLINE), or neither.
        failures: the exceptions of steps that the workflow has seen, each with its ordinal.
        payload_max: characters of JSON that a result may have, or the arguments of the next generation.
    """
    error = _error_of(main) if workflow.is_async else _explained(_error_of(main), workflow)
    stopped = cancel_kind is not None
    if stopped and (error is None or isinstance(error, asyncio.CancelledError | ContinueAsNew)):
        return _stopped(row, cancel_kind)
    try:
        if isinstance(error, ContinueAsNew):
            continues = workflow.arguments.encode(error.new_args, error.new_kwargs)
            check_payload(continues, f"arguments of workflow {workflow.name!r}", chars_max=payload_max)
            return Conclusion(None, continues=continues)
        if error is None:
            _refuse_awaitable(main.result(), workflow)
            place = f"result of workflow {workflow.name!r}"
            output = workflow.result.settle(main.result(), where=place)[0]
            check_payload(output, place, chars_max=payload_max)
            return Conclusion(RunState.SUCCEEDED, output=output)
    except Exception as unstorable:  # mostly an error of ours; the value's own code may raise any other
        return Conclusion(RunState.FAILED, error=encode_failure(unstorable, chars_max=payload_max))
    failed_at = _origin_of(error, failures)
    return Conclusion(RunState.FAILED, error=encode_failure(error, chars_max=payload_max), failed_at=failed_at)


def _error_of(main: asyncio.Task[Any]) -> BaseException | None:
    if main.cancelled():
        return asyncio.CancelledError("CancelledError left the workflow, but nobody cancelled it")
    return main.exception()


def _explained(error: BaseException | None, workflow: Workflow[..., Any]) -> BaseException | None:
    """In a `def` workflow: what asyncio complains of, such as a `gather` of results, in words that help."""
    if type(error) not in (TypeError, RuntimeError) or error is None or not _is_raised_by_asyncio(error):
        return error
    explained = NotAllowedInWorkflow(f"asyncio was used in {workflow!r}, a `def` function: {error}", hint=ASYNC_HINT)
    explained.__cause__ = error
    return explained


def _is_raised_by_asyncio(error: BaseException) -> bool:
    place = ""
    for frame, _line in traceback.walk_tb(error.__traceback__):
        place = frame.f_code.co_filename
    return place.startswith(_ASYNCIO)


def _refuse_awaitable(result: object, workflow: Workflow[..., Any]) -> None:
    """A `def` workflow that returns an awaitable meant to wait for it, as it would in an `async def` one."""
    if workflow.is_async or not hasattr(type(result), "__await__"):
        return
    if isinstance(result, Coroutine):
        result.close()
    raise NotAllowedInWorkflow(
        f"{workflow!r}, a `def` function, returned {shown(result)}, which nobody awaits", hint=ASYNC_HINT
    )


def _stopped(row: RunRow, kind: str | None) -> Conclusion:
    if kind == CANCEL:
        return Conclusion(RunState.CANCELLED)
    late = RunTimeout(f"run {row.id!r} passed its deadline", hint="start it with a longer timeout=...")
    return Conclusion(RunState.FAILED, error=encode_failure(late))


def _origin_of(error: BaseException, failures: Sequence[tuple[BaseException, int]]) -> int | None:
    """The ordinal of the step failure that `error` is, groups or was caused by; what `retry` goes back to."""
    known = {id(failure): ordinal for failure, ordinal in failures}
    seen: set[int] = set()
    level = [error]
    while level:
        found = [known[id(e)] for e in level if id(e) in known]
        if found:
            return min(found)
        seen.update(id(e) for e in level)
        related: list[BaseException | None] = []
        for e in level:
            related += [*e.exceptions] if isinstance(e, BaseExceptionGroup) else [e.__cause__, e.__context__]
        level = [e for e in related if e is not None and id(e) not in seen]
    return None
