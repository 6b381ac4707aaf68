"""Replay without a runtime: a run's history against the code at hand, and how the run stands then.

    row + history + workflow ──> Activation: begin · deliver every recorded outcome ──> Standing

Nothing is executed: no step's body begins, no timer runs, nothing is written. The workflow's own code does run, up to
where the history ends, which is what replay is. So it must be given time: code that never ends does not end here
either, and whoever replays code that nobody has run yet bounds it from outside (see `holdfast.cli.check.limit`).

`holdfast check`, `holdfast replay` and the test kit judge runs by this one function, which judges as the executor does:
what is blocked here would be blocked there, for the same reason.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from holdfast._flow.activation import Activation
from holdfast._flow.conclusion import Conclusion
from holdfast._flow.definitions import Workflow
from holdfast._flow.history import DEADLINE, PATCH, TIMER, call_line, line_of
from holdfast._model.failures import in_short
from holdfast._model.lifecycle import ENDED, RunState
from holdfast._model.records import EntryRecorded, RunRow
from holdfast._runtime.liverun import keep_generator
from holdfast.errors import HoldfastError, NondeterminismError

_CHUNK: Final = 1_000_000


class Verdict(StrEnum):
    """What would become of a run under this code."""

    GOES_ON = "goes on"
    BLOCKED = "blocked"  # the code asks for something else than the history records
    PATCH_REMOVED = "patch removed"  # the same, because a `patched(...)` that this run took is gone
    INPUT = "input not decodable"
    RESULT = "result not decodable"  # of a step, under its present annotation
    RAISES = "raises"  # the code itself fails: the run would end as failed
    STUCK = "does not end"  # the replay took longer than it may
    OTHERWISE = "ends otherwise"  # a run that has ended: under this code it ends differently, or not at all
    UNKNOWN = "unknown"  # the app has no workflow of this name
    NOT_TRIED = "not tried"  # other runs of the workflow did not end

    @property
    def is_fault(self) -> bool:
        """Whether the run would be blocked, would fail or would not end: deploying this code does harm."""
        return self not in (Verdict.GOES_ON, Verdict.UNKNOWN, Verdict.NOT_TRIED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a run stands after its replay.

    Attributes:
        verdict: what would become of it.
        entry: the number of the entry where the code leaves the history.
        recorded, requested: both sides there, each as one line.
        problem: what is wrong, where there are no two sides.
        hint: the next move.
        waits_for: the steps and timers that the run would go on with, each as one line.
        ends: how it would end at once, or none; if it failed, `problem` says with what.
        output: the result that it would end with, or none.
        error: what the executor would block the run with.
        traceback: of the exception that the code raised.
    """

    verdict: Verdict
    entry: int | None = None
    recorded: str = ""
    requested: str = ""
    problem: str = ""
    hint: str = ""
    waits_for: tuple[str, ...] = ()
    ends: RunState | None = None
    output: str | None = None
    error: HoldfastError | None = None
    traceback: str = ""

    @property
    def fails(self) -> bool:
        """Whether it goes on only to fail at once, of a step's failure that this code does not catch."""
        return self.verdict is Verdict.GOES_ON and self.ends is RunState.FAILED and bool(self.problem)


def replay(row: RunRow, workflow: Workflow[..., Any], history: Sequence[EntryRecorded]) -> Standing:
    """Run the workflow's code against a history, executing nothing. Call it outside of any workflow.

    Args:
        row: the run; where it has not been claimed yet, `started_at` is any instant.
        workflow: the code.
        history: its entries, in any order.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(keep_generator, None)
    activation = Activation(row, workflow, history)
    try:
        return _replay(activation, history)
    finally:
        try:
            activation.close()
        finally:
            sys.set_asyncgen_hooks(*hooks)


def against_outcome(standing: Standing, *, state: str, output: str | None) -> Standing:
    """The same, for a run that has ended: under this code it must come to the end that is recorded.

    A cancelled run has no end of its own, so for it every standing that repeats the history will do.
    """
    if standing.verdict not in (Verdict.GOES_ON, Verdict.RAISES) or state not in ENDED or state == RunState.CANCELLED:
        return standing
    ended, told = _end(standing)
    if ended == state and (state == RunState.FAILED or _same_json(told, output)):
        return Standing(verdict=Verdict.GOES_ON, ends=standing.ends, output=standing.output)
    recorded = f"{state}{f' with {output}' if output is not None else ''}"
    requested = f"{ended}{f' with {told}' if told is not None else ''}" if ended else _going_on(standing)
    return Standing(
        verdict=Verdict.OTHERWISE,
        recorded=recorded,
        requested=requested,
        hint="the run has ended, so deploying this code does it no harm",
        traceback=standing.traceback,
    )


def _replay(activation: Activation, history: Sequence[EntryRecorded]) -> Standing:
    try:
        activation.begin()
    except HoldfastError as error:  # as in the executor: the stored input does not fit this code's signature
        return Standing(verdict=Verdict.INPUT, problem=error.message, hint=error.hint, error=error)
    for _ in activation.replay(chunk=_CHUNK):
        pass
    if activation.divergence is not None:
        return _diverged(activation, activation.divergence, history)
    if activation.conclusion is not None:
        return _concluded(activation.conclusion, activation.cancel_kind)
    return Standing(verdict=Verdict.GOES_ON, waits_for=_waits(activation))


def _diverged(activation: Activation, error: HoldfastError, history: Sequence[EntryRecorded]) -> Standing:
    failure = None if activation.conclusion is None else activation.conclusion.error
    if isinstance(error, NondeterminismError):
        return Standing(
            verdict=Verdict.PATCH_REMOVED if error.recorded.startswith(f"{PATCH} ") else Verdict.BLOCKED,
            entry=error.seq,
            recorded=error.recorded,
            requested=error.requested,
            problem="" if failure is None else "its code fails",
            hint=error.hint,
            error=error,
            traceback=_traceback_of(failure),
        )
    delivered = next((entry for entry in history if entry.ordinal == activation.ordinal), None)
    return Standing(
        verdict=Verdict.RESULT,
        entry=None if delivered is None else delivered.seq,
        recorded="" if delivered is None else line_of(delivered),
        problem=error.message,
        hint=error.hint,
        error=error,
    )


def _concluded(conclusion: Conclusion, cancel_kind: str | None) -> Standing:
    """The code ends where the history ends. A failure that is no step's and no deadline's is the code's own."""
    if conclusion.state is None:
        return Standing(verdict=Verdict.GOES_ON, waits_for=("its next generation",))
    problem = "" if conclusion.error is None else in_short(conclusion.error)
    failed = conclusion.state is RunState.FAILED
    if not failed or conclusion.failed_at is not None or cancel_kind == DEADLINE:
        return Standing(verdict=Verdict.GOES_ON, ends=conclusion.state, output=conclusion.output, problem=problem)
    return Standing(
        verdict=Verdict.RAISES,
        problem=problem,
        hint="the run would fail at once; mend the code before it is deployed",
        ends=RunState.FAILED,
        traceback=_traceback_of(conclusion.error),
    )


def _traceback_of(failure: str | None) -> str:
    return "" if failure is None else str(msgspec.json.decode(failure).get("traceback", ""))


def _waits(activation: Activation) -> tuple[str, ...]:
    steps = {call.seq: call_line(call.step.kind, call.step.name, call.input) for call in activation.steps.values()}
    timers = {timer.seq: f"{TIMER} due {_instant(timer.due_us)}" for timer in activation.timers.values()}
    return tuple(f"{line} (entry {seq})" for seq, line in sorted((steps | timers).items()))


def _instant(microseconds: int) -> str:
    return f"{datetime.fromtimestamp(microseconds // 1_000_000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _end(standing: Standing) -> tuple[str | None, str | None]:
    if standing.ends is None:
        return None, None
    return standing.ends.value, standing.problem or standing.output


def _going_on(standing: Standing) -> str:
    return ", ".join(standing.waits_for) or "nothing: it waits for something that is no step and no timer"


def _same_json(one: str | None, other: str | None) -> bool:
    return one == other or (
        one is not None and other is not None and bool(msgspec.json.decode(one) == msgspec.json.decode(other))
    )
