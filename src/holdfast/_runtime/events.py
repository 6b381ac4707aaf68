"""One hook for whoever observes the engine: logs now, metrics and traces later.

`events.active` is false while nobody listens; the engine asks it before it builds an event, so that observing costs
nothing on the hot path until somebody does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, NamedTuple

ENGINE_LOG: Final = logging.getLogger("holdfast.engine")
"""Our own troubles: store, leases, defects."""
RUN_LOG: Final = logging.getLogger("holdfast.run")
"""What happens to the user's runs; records carry run_id, workflow, step and attempt."""


class Event(NamedTuple):
    """Something happened to a run. `kind` is ``run.claimed``, ``run.ended``, ``step.started``, ``step.ended``, ..."""

    kind: str
    at_us: int
    run_id: str
    workflow: str
    step: str | None = None
    attempt: int = 0
    state: str | None = None


class Events:
    """Who listens. A listener that raises is logged and heard no more."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[Event], object]] = []
        self.active = False

    def listen(self, listener: Callable[[Event], object]) -> Callable[[], None]:
        """Hear every event from now on; returns what ends it."""
        self._listeners.append(listener)
        self.active = True

        def leave() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)
            self.active = bool(self._listeners)

        return leave

    def emit(self, event: Event) -> None:
        """Tell every listener, in the order they came."""
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception:
                ENGINE_LOG.exception("an event listener failed and is removed: %r", listener)
                self._listeners.remove(listener)
                self.active = bool(self._listeners)


def log_fields(run_id: str, workflow: str, step: str | None = None, attempt: int = 0) -> dict[str, object]:
    """The `extra` of a log record about a run."""
    return {"run_id": run_id, "workflow": workflow, "step": step, "attempt": attempt}
