"""Code that is only looked at: nothing opens a database while it is imported or replayed to be judged.

A module that ends with a bare ``asyncio.run(main())`` would be a worker as soon as `holdfast check` imports it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from holdfast.errors import UsageError

_what: Final[ContextVar[str]] = ContextVar("holdfast_only_looking")


@contextmanager
def nothing_opens(what: str) -> Generator[None]:
    """No client opens a database in this block, since code is only `what`, such as checked."""
    token = _what.set(what)
    try:
        yield
    finally:
        _what.reset(token)


def check_may_open(name: str) -> None:
    """Raises UsageError where code is only looked at."""
    if what := _what.get(""):
        raise UsageError(
            f"this {name} is opened while its code is only {what}",
            hint='where that is at the end of a module, put it under: if __name__ == "__main__"',
        )
