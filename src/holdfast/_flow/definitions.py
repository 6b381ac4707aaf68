"""Definitions: what `@step` and `@workflow` make of a function.

A definition is a frozen value with a name, the function and how its arguments and results are stored. It belongs to no
app: an app *includes* it. Called outside a run, a definition is the plain function; called inside one, a step becomes a
durable operation of the run whose loop is running in this thread.
"""

from __future__ import annotations

import inspect
import re
from asyncio import _get_running_loop
from collections.abc import Callable, Coroutine
from functools import cached_property, update_wrapper
from typing import Any, Final, Generic, NoReturn, ParamSpec, TypeVar, overload

from holdfast._flow.loop import WorkflowLoop
from holdfast._model.arguments import Arguments, annotations_of
from holdfast._model.bounds import plain, shown
from holdfast._model.codec import Codec, codec_for
from holdfast._model.policies import NO_RETRY, Retry
from holdfast.errors import NotAllowedInWorkflow, UsageError

P = ParamSpec("P")
R = TypeVar("R")

NAME_CHARS_MAX: Final = 200
STEP_SECONDS_MAX: Final = 30 * 86_400.0
_NAME = re.compile(r"[^\x00-\x20\x7f\ud800-\udfff]+")


class _Definition(Generic[P, R]):
    """What steps and workflows share."""

    kind = "definition"

    def __init__(self, function: Callable[P, Any], *, name: str | None) -> None:
        self.function = function
        self.name = checked_name(self.kind, name if name is not None else getattr(function, "__name__", ""))
        self.is_async = inspect.iscoroutinefunction(function)
        self.arguments = Arguments(function)
        update_wrapper(self, function)  # type: ignore[arg-type]

    @cached_property
    def result(self) -> Codec[Any]:
        """How its results are stored, by its return annotation."""
        try:
            return codec_for(annotations_of(self.function).get("return", Any))
        except UsageError as error:
            raise UsageError(f"result of {self.kind} {self.name!r}: {error.message}", hint=error.hint) from error

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name!r} of {self.function.__module__}.{self.function.__qualname__}>"


class Step(_Definition[P, R]):
    """A function whose outcome is recorded. Made by `@step`.

    Attributes:
        name: what the history calls it.
        retry: when a failed attempt is tried again.
        timeout: seconds that one attempt may take, or none.
    """

    kind = "step"

    def __init__(self, function: Callable[P, Any], *, name: str | None, retry: Retry, timeout: float | None) -> None:
        super().__init__(function, name=name)
        self.retry = retry
        self.timeout = timeout
        self.result_place = f"result of step {self.name!r}"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        loop = _get_running_loop()
        if type(loop) is WorkflowLoop:
            return loop.owner.call_step(self, args, kwargs)  # type: ignore[attr-defined]
        return self.function(*args, **kwargs)


class AsyncStep(Step[P, R]):
    """A step of an `async def` function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Inside a run: the durable operation, to be awaited. Outside: the plain coroutine."""
        loop = _get_running_loop()
        if type(loop) is WorkflowLoop:
            return loop.owner.call_step(self, args, kwargs)  # type: ignore[attr-defined,no-any-return]
        return self.function(*args, **kwargs)  # type: ignore[no-any-return]


class Workflow(_Definition[P, R]):
    """A function whose runs are durable. Made by `@workflow` or `@app.workflow`.

    Attributes:
        name: what runs of it are called; it is stored, so renaming the function needs ``name="old"``.
    """

    kind = "workflow"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        if type(_get_running_loop()) is WorkflowLoop:
            _refuse_child(self.name)
        return self.function(*args, **kwargs)


class AsyncWorkflow(Workflow[P, R]):
    """A workflow of an `async def` function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Outside a run: the plain coroutine."""
        if type(_get_running_loop()) is WorkflowLoop:
            _refuse_child(self.name)
        return self.function(*args, **kwargs)  # type: ignore[no-any-return]


class SyncWorkflow(Workflow[P, R]):
    """A workflow of a `def` function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Outside a run: the plain function."""
        if type(_get_running_loop()) is WorkflowLoop:
            _refuse_child(self.name)
        return self.function(*args, **kwargs)  # type: ignore[no-any-return]


class _StepDecorator:
    """`@step(...)` with options: gives `AsyncStep` for `async def`, `Step` for `def`."""

    def __init__(self, *, name: str | None, retry: Retry, timeout: float | None) -> None:
        self._name = name
        self._retry = retry
        self._timeout = timeout

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncStep[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Step[P, R]: ...
    def __call__(self, function: Callable[P, Any], /) -> Step[P, Any]:
        _check_function("step", function)
        kind = AsyncStep if inspect.iscoroutinefunction(function) else Step
        return kind(function, name=self._name, retry=self._retry, timeout=self._timeout)


@overload
def step(function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncStep[P, R]: ...
@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(*, name: str | None = None, retry: Retry | None = None, timeout: float | None = None) -> _StepDecorator: ...
def step(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: float | None = None,
) -> Any:
    """Make a function a step: its outcome is recorded, and a recorded step never runs again.

    An `async def` body runs as a task on the application's own loop, a `def` body in a thread. The body runs at least
    once and is recorded exactly once; ``current().idempotency_key`` is the same for every attempt. Arguments and result
    are stored as JSON by their annotations. Outside a run the step is the plain function.

    Args:
        name: what the history calls it; the function's name by default. It is stored: keep it when renaming.
        retry: when a failed attempt is tried again; by default it is not.
        timeout: seconds for one attempt. An `async def` body is then cancelled; a `def` body is abandoned, its thread
            counted and its late outcome dropped. The attempt fails with `StepTimeout`.

    Raises:
        UsageError: wrong options, or something that is not a function.
    """
    if retry is not None and not isinstance(retry, Retry):
        raise UsageError(f"@step(retry={shown(retry)}) must be a Retry", hint="write retry=Retry(attempts=5)")
    if timeout is not None and not _is_seconds(timeout):
        raise UsageError(
            f"@step(timeout={shown(timeout)}) must be seconds, more than 0 and at most {STEP_SECONDS_MAX:g} (30 days)"
        )
    decorate = _StepDecorator(name=name, retry=retry or NO_RETRY, timeout=timeout)
    return decorate if function is None else decorate(function)


class WorkflowDecorator:
    """`@workflow(...)` with options. `register` is told of each definition made."""

    def __init__(self, *, name: str | None, register: Callable[[Workflow[..., Any]], object] | None = None) -> None:
        self._name = name
        self._register = register

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncWorkflow[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, function: Callable[P, R], /) -> SyncWorkflow[P, R]: ...
    def __call__(self, function: Callable[P, Any], /) -> Workflow[P, Any]:
        _check_function("workflow", function)
        kind = AsyncWorkflow if inspect.iscoroutinefunction(function) else SyncWorkflow
        definition: Workflow[P, Any] = kind(function, name=self._name)
        if self._register is not None:
            self._register(definition)
        return definition


@overload
def workflow(function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncWorkflow[P, R]: ...  # type: ignore[overload-overlap]
@overload
def workflow(function: Callable[P, R], /) -> SyncWorkflow[P, R]: ...
@overload
def workflow(*, name: str | None = None) -> WorkflowDecorator: ...
def workflow(function: Callable[..., Any] | None = None, /, *, name: str | None = None) -> Any:
    """Make a function a workflow; `app.include(...)` adds it to an app.

    The body must be deterministic: everything that looks at the world belongs into steps. `async def` workflows use
    plain asyncio, `def` workflows call steps like functions.

    Args:
        name: what runs of it are called; the function's name by default. It is stored: keep it when renaming.

    Raises:
        UsageError: a wrong name, or something that is not a function.
    """
    decorate = WorkflowDecorator(name=name)
    return decorate if function is None else decorate(function)


def checked_name(kind: str, name: object) -> str:
    """The name of a step or workflow, if it can be one.

    Raises:
        UsageError: it cannot.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > NAME_CHARS_MAX:
        raise UsageError(
            f"{shown(name)} cannot name a {kind}: a name has 1 to {NAME_CHARS_MAX} characters without white space",
            hint=f'give one: @{kind}(name="...")',
        )
    return plain(name)


def _check_function(kind: str, function: object) -> None:
    if isinstance(function, _Definition):
        raise UsageError(f"@{kind} on {function!r}, which is a {function.kind} already")
    if not inspect.isfunction(function):
        raise UsageError(
            f"@{kind} needs a function, not {shown(function)}",
            hint="decorate a `def` or an `async def` at module level; wrap a method or a callable object in one",
        )
    first = next(iter(inspect.signature(function).parameters), "")
    if first in ("self", "cls") and "." in function.__qualname__.rpartition("<locals>.")[2]:
        raise UsageError(
            f"@{kind} on {function.__qualname__!r}, a method", hint="decorate a function outside of classes"
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise UsageError(
            f"@{kind} on generator function {function.__qualname__!r}",
            hint="return a list, or yield outside of it",
        )


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= STEP_SECONDS_MAX


def _refuse_child(name: str) -> NoReturn:
    raise NotAllowedInWorkflow(
        f"workflow {name!r} was called inside another workflow; child runs are not part of this release",
        hint="move the shared code into a plain function or a step that both call",
    )
