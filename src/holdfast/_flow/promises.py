"""Promises: coroutines that Holdfast handed to a workflow, and which of them it never awaited.

A coroutine that nobody awaits does nothing, and Python says so only when it is collected, as a warning that names no
run. So a run keeps what `sleep` gave it until that has begun, and tells at its end what has not.
"""

from __future__ import annotations

import inspect
from collections.abc import Coroutine
from types import CodeType
from typing import Any, Final, TypeAlias

Promise: TypeAlias = tuple[Coroutine[Any, Any, Any], str, CodeType, int]
UNCHECKED_MAX: Final = 16
"""Promises kept before the first look for those that have begun."""


class Promises:
    """What one run has to await."""

    __slots__ = ("_checked_at", "_kept")

    def __init__(self) -> None:
        self._kept: list[Promise] = []
        self._checked_at = UNCHECKED_MAX

    def keep(self, promise: Promise) -> None:
        """Remember a coroutine, what it is called, and the code and line where it was asked for."""
        self._kept.append(promise)
        if len(self._kept) > self._checked_at:
            self._kept = [each for each in self._kept if _has_not_begun(each[0])]
            self._checked_at = max(UNCHECKED_MAX, 2 * len(self._kept))

    def break_all(self) -> list[str]:
        """Close what was never awaited, so that Python need not warn; returns what that was, and where."""
        kept, self._kept = self._kept, []
        broken: list[str] = []
        for coroutine, what, code, line in kept:
            if _has_not_begun(coroutine):
                coroutine.close()
                broken.append(f"{what} at {code.co_filename}:{line} in {code.co_name}")
        return broken


def _has_not_begun(coroutine: Coroutine[Any, Any, Any]) -> bool:
    return inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED
