"""Sync workflows: a plain function in a greenlet, driven by a task on the workflow's loop.

When the function calls a step, the greenlet hands the step's future to its task, which awaits it like any other and
switches back with the outcome. So a `def` workflow uses the same loop, the same history and no thread; the idea is the
bridge of SQLAlchemy's asyncio extension. Whatever the task receives at its `await` (a cancellation, the `GeneratorExit`
of a run that leaves memory) is raised in the function at the same call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped,unused-ignore]

from holdfast.errors import UsageError


class Bridge:
    """Runs one function in its greenlet."""

    def __init__(self) -> None:
        self._greenlet: greenlet | None = None

    async def run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run `function` to its end; its outcome is this coroutine's outcome."""
        inner = self._greenlet = greenlet(function)
        inner.gr_context = copy_context()
        awaited = inner.switch(*args, **kwargs)
        while not inner.dead:
            try:
                outcome = await awaited
            except BaseException as error:
                awaited = inner.throw(error)
            else:
                awaited = inner.switch(outcome)
        return awaited

    def is_inside(self) -> bool:
        """Whether the calling code is the function, or called by it."""
        return self._greenlet is not None and getcurrent() is self._greenlet

    def wait(self, awaitable: Awaitable[Any]) -> Any:
        """Called inside the function: suspend it until `awaitable` has its outcome, and return or raise that."""
        inner = self._greenlet
        if inner is None or getcurrent() is not inner or inner.parent is None:
            raise UsageError(
                "a step was called from another greenlet than the one of its sync workflow",
                hint="call steps from the workflow's own function, not from gevent or other greenlets",
            )
        return inner.parent.switch(awaitable)
