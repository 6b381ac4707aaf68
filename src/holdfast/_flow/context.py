"""What code inside a workflow or step may ask of its run: `current`, `sleep`, `now`, `uuid4`, `random`, `patched`,
`continue_as_new`.

Inside a workflow each answers the same in replay. Outside a run they are the plain functions of the standard library,
so that workflows and steps stay callable as ordinary code.
"""

from __future__ import annotations

import asyncio
import random as _random
import sys
import uuid
from asyncio import _get_running_loop
from collections.abc import Awaitable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from holdfast import _world
from holdfast._flow.activation import Activation
from holdfast._flow.calls import StepCall
from holdfast._flow.conclusion import ContinueAsNew
from holdfast._flow.loop import WorkflowLoop
from holdfast._model.bounds import check_text, plain, shown
from holdfast.errors import NotInRun, UsageError

PATCH_CHARS_MAX = 200
SLEEP_SECONDS_MAX = 100 * 365 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """Where the calling code runs.

    Attributes:
        run_id: the run.
        workflow: the workflow's name.
        generation: how often the run has continued as new.
        step: the step's name, or none in the workflow itself.
        seq: the step's number in the run's history, or none.
        attempt: which attempt of the step this is, from 1; 0 in the workflow itself.
        idempotency_key: the same text for every attempt of this step, also after a crash; pass it to services that
            can drop repeated requests. In the workflow itself it names the run.
    """

    run_id: str
    workflow: str
    generation: int
    step: str | None
    seq: int | None
    attempt: int

    @property
    def idempotency_key(self) -> str:
        """``RUN:SEQ:STEP``, with the generation when there is more than one."""
        run = self.run_id if self.generation == 0 else f"{self.run_id}:g{self.generation}"
        return run if self.step is None else f"{run}:{self.seq}:{self.step}"


executing: ContextVar[StepCall] = ContextVar("holdfast_executing")
"""The step whose body runs in this context. Set by the executor around each body."""


def current() -> Current:
    """Where the calling code runs: the run, and in a step its number and attempt.

    Raises:
        NotInRun: called outside a workflow and a step.
    """
    activation, call = _activation(), None
    if activation is None:
        call = executing.get(None)
        if call is None:
            raise NotInRun("current() outside a run", hint="call it in a workflow or in a step of a started run")
        activation = call.activation
    row = activation.row
    return Current(
        run_id=row.id,
        workflow=row.workflow,
        generation=row.generation,
        step=None if call is None else call.step.name,
        seq=None if call is None else call.seq,
        attempt=0 if call is None else call.attempts,
    )


def sleep(delay: float | timedelta) -> Awaitable[None]:
    """Sleep durably; in an async workflow ``await`` it, in a sync one the call itself sleeps.

    Args:
        delay: seconds or a timedelta, 0 to 100 years. The due time is stored; a restart does not begin it anew.

    Raises:
        UsageError: not a delay within these bounds.
    """
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 <= seconds <= SLEEP_SECONDS_MAX:
        raise UsageError(f"sleep({shown(delay)}) must be 0 to {SLEEP_SECONDS_MAX:g} seconds, or such a timedelta")
    activation = _activation()
    if activation is not None:
        return activation.wait(asyncio.sleep(seconds), f"sleep({shown(delay)})", sys._getframe(1))  # type: ignore[no-any-return]
    if _get_running_loop() is not None:
        return asyncio.sleep(seconds)
    return _world.block(seconds)


def now() -> datetime:
    """The run's time, aware, in UTC: when the last outcome reached it. Outside a run, the clock."""
    activation = _activation()
    now_us = _world.SystemWorld().now_us() if activation is None else activation.loop.now_us
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=now_us)


def uuid4() -> uuid.UUID:
    """A random UUID, the same in replay. Outside a run, `uuid.uuid4`."""
    activation = _activation()
    if activation is None:
        return uuid.uuid4()
    return uuid.UUID(int=activation.random.getrandbits(128), version=4)


def random() -> _random.Random:
    """The run's own random generator, the same numbers in replay: ``random().choice(options)``.

    Outside a run, a generator seeded by the system.
    """
    activation = _activation()
    return _random.Random(_world.SystemWorld().seed()) if activation is None else activation.random


def patched(name: str) -> bool:
    """Whether this run takes the new branch of a code change called `name`.

    Runs that were past this place under the old code get False and keep the old branch; all others get True, and that
    is recorded. The answer for a name never changes within a run.

    Raises:
        NotInRun: called outside a workflow.
        UsageError: `name` is not a string of 1 to 200 characters.
    """
    if not isinstance(name, str) or not name:
        raise UsageError(f"patched({shown(name)}) must be given a name for the change")
    check_text("patched(...)", name, chars_max=PATCH_CHARS_MAX)
    return _inside("patched").patched(plain(name))


def continue_as_new(*args: Any, **kwargs: Any) -> NoReturn:
    """End this generation of the run and begin the next with these arguments and an empty history.

    For workflows that live long: the history stays short. The run keeps its id, attributes and waiting clients.

    Raises:
        NotInRun: called outside a workflow.
        UsageError: the arguments do not fit the workflow.
    """
    activation = _inside("continue_as_new")
    activation.workflow.arguments.check(args, kwargs)
    raise ContinueAsNew(args, kwargs)


def _activation() -> Activation | None:
    loop = _get_running_loop()
    return loop.owner if type(loop) is WorkflowLoop else None  # type: ignore[return-value]


def _inside(name: str) -> Activation:
    activation = _activation()
    if activation is None:
        raise NotInRun(f"{name}() outside a workflow", hint="only a workflow's own code may call it, not its steps")
    return activation
