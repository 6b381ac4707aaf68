"""Python's garbage collector, held while a batch is digested.

Between a step's start and the acknowledgement of its record a dozen objects live for a few milliseconds, thousands at a
time. The collector counts them, starts in the middle of every batch, finds nothing to free and moves them to its older
generations, which are then searched in full: a fifth of all the time at 1,000 concurrent runs, half of that with the
collector held during our own loops over a batch. It is held for one callback of the event loop at most, and left alone
where the application has switched it off.
"""

from __future__ import annotations

import gc


class CollectorHeld:
    """``with CollectorHeld():`` around a loop over a batch. Blocks nest."""

    __slots__ = ("_was_enabled",)

    def __enter__(self) -> None:
        self._was_enabled = gc.isenabled()
        gc.disable()

    def __exit__(self, *_error: object) -> None:
        if self._was_enabled:
            gc.enable()
