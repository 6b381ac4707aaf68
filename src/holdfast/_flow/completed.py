"""`asyncio.as_completed` over bare coroutines, in an order that replay repeats.

CPython makes their tasks from ``{ensure_future(f) for f in set(fs)}``. Coroutines hash by address, so their tasks would
begin in another order in each process, and take other numbers. (Step calls, tasks and futures of a workflow's loop
hash by the order of their creation and need nothing.) When the loop is asked for a task from there, it makes those of
all coroutines of that call, in the order in which the caller listed them, and hands them out one by one.

Checked against CPython 3.11 to 3.13; a test runs each.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, Final, TypeVar, cast

from holdfast.errors import NotAllowedInWorkflow

Task = TypeVar("Task")

_TASKS_FILE: Final = asyncio.tasks.__file__
_FRAMES_MAX: Final = 4


def ordered_task(coro: Any, prepared: dict[int, Task], make: Callable[[Any], Task]) -> Task | None:
    """The task for `coro` if `as_completed` asks for it, else none. `prepared` keeps those that are made ahead.

    Raises:
        NotAllowedInWorkflow: the caller's coroutines have no order: they came from a generator or a set.
    """
    if id(coro) in prepared:
        return prepared.pop(id(coro))
    awaited = _awaited_by_as_completed(sys._getframe(2))
    if awaited is None:
        return None
    if not isinstance(awaited, list | tuple):
        raise NotAllowedInWorkflow(
            f"as_completed over a {type(awaited).__name__} of coroutines: they would start in another order in replay",
            hint="pass a list",
        )
    for each in dict.fromkeys(each for each in awaited if asyncio.iscoroutine(each) and not asyncio.isfuture(each)):
        prepared[id(each)] = make(each)
    return prepared.pop(id(coro), None)


def _awaited_by_as_completed(frame: FrameType | None) -> Iterable[Any] | None:
    for _ in range(_FRAMES_MAX):
        if frame is None or frame.f_code.co_filename != _TASKS_FILE:
            return None
        if frame.f_code.co_name == "as_completed":
            return cast("Iterable[Any]", frame.f_locals["fs"])
        if frame.f_code.co_name == "__init__" and "aws" in frame.f_locals:
            return cast("Iterable[Any]", frame.f_locals["aws"])
        frame = frame.f_back
    return None
