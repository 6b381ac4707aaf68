"""A step as the workflow calls it, and how it ends: what passes between a run and whoever executes its steps."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from holdfast._flow.loop import WorkflowFuture

if TYPE_CHECKING:
    from holdfast._flow.activation import Activation
    from holdfast._flow.definitions import Step


class StepCall(WorkflowFuture[Any]):
    """A step that the workflow called: a future that begins to work when it is made.

    It carries what is known of the step's attempts.
    """

    __slots__ = (
        "activation",
        "after",
        "args",
        "attempts",
        "due_us",
        "input",
        "kwargs",
        "seq",
        "started_at",
        "step",
    )

    def __init__(
        self, activation: Activation, seq: int, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        # The base class's base directly: this is the hot path.
        loop = activation.loop
        asyncio.Future.__init__(self, loop=loop)
        self._number = loop.number = loop.number + 1
        self.activation = activation
        self.seq = seq
        self.after = activation.ordinal
        self.step = step
        self.args = args
        self.kwargs = kwargs
        self.input = step.arguments.fingerprint(args, kwargs)
        self.attempts = 0
        self.due_us: int | None = None
        self.started_at: int | None = None

    def __repr__(self) -> str:
        return f"<step {self.step.name!r}, entry {self.seq}>"

    def is_awaited(self) -> bool:
        """Whether anything waits for it."""
        return bool(self._callbacks)

    def cancel(self, msg: Any | None = None) -> bool:
        """The workflow gives the step up: it is not started again, and a late outcome is dropped."""
        if not super().cancel(msg):
            return False
        self.activation.step_cancelled(self)
        return True


class StepOutcome:
    """How a step ended. Either `output` (JSON text) and `value` are set, or `error` (JSON text) and `exception`."""

    __slots__ = ("error", "exception", "finished_at", "output", "value")

    def __init__(
        self, value: Any, output: str | None, exception: BaseException | None, error: str | None, finished_at: int
    ) -> None:
        self.value = value
        self.output = output
        self.exception = exception
        self.error = error
        self.finished_at = finished_at
