"""Why a test waits for something that does not come: where it stands, and what its open runs wait for."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, Final

from holdfast._client import Client
from holdfast._model.lifecycle import ENDED, RunState
from holdfast._model.runinfo import RunInfo
from holdfast.errors import HoldfastError
from holdfast.testing.places import waiting

RUNS_TOLD_MAX: Final = 5


class WaitsForNothing(AssertionError):
    """What the test waits for does not come."""


async def stuck(main: Coroutine[Any, Any, Any], apps: Iterable[Client]) -> str:
    """The line at which `main` waits, and the open runs of those apps that are open."""
    lines = [f"it waits at {waiting(main)}"]
    for app in apps:
        if app._opened is not None:
            lines += await _told_of(app)
    return "\n".join(dict.fromkeys(lines))  # apps on one file have the same runs


async def _told_of(app: Client) -> list[str]:
    try:
        return [why_open(info) for info in await open_runs(app)]
    except HoldfastError as error:  # the test would wait on for ever
        return [f"its runs cannot be looked at: {error}"]


async def open_runs(app: Client) -> list[RunInfo]:
    """Some of the runs that have not ended."""
    return list(await app.list(state=[state for state in RunState if state not in ENDED], limit=RUNS_TOLD_MAX))


def why_open(info: RunInfo) -> str:
    """What a run that has not ended waits for, in one line, or a few if it is blocked."""
    text = f"run {info.id!r} of workflow {info.workflow!r} is {info.state}"
    match info.state:
        case RunState.BLOCKED:
            return f"{text} ({info.reason}): {'' if info.error is None else info.error.message}"
        case RunState.PAUSED:
            return f"{text}: it goes on after run.resume()"
        case RunState.WAITING if info.due_at is None:
            return f"{text}, for nothing that has a time"
        case RunState.WAITING | RunState.SCHEDULED if info.due_at is not None:
            return f"{text} until {info.due_at:%Y-%m-%d %H:%M:%S} UTC"
        case _:
            return text
