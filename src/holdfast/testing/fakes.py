"""Fakes: the body of a step is replaced for one test, and its calls are kept.

Only the body: name, retries, time-out and the recording of the outcome stay what they are, so the test runs the engine
that production runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from holdfast._flow.definitions import Step
from holdfast._model.bounds import shown
from holdfast.errors import UsageError

_UNSET: Final = object()


@dataclass(slots=True)
class Fake:
    """What was called instead of a step's body.

    Attributes:
        step: the step.
        calls: the positional arguments of each attempt, in order, as the body got them.
        keywords: the keyword arguments of each attempt.
    """

    step: Step[..., Any]
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    keywords: list[dict[str, Any]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.calls)


@contextmanager
def fake(
    step: Step[..., Any],
    body: Callable[..., Any] | None = None,
    *,
    returns: Any = _UNSET,
    raises: BaseException | type[BaseException] | None = None,
) -> Iterator[Fake]:
    """Replace the body of a step from `with` to its end: ``with fake(charge, returns="paid") as charged: ...``.

    Give one of `body`, `returns` and `raises`; without any the step returns none.

    Args:
        step: a function decorated with `@step`.
        body: called instead, with the step's arguments; for an `async def` step it may be `async def`.
        returns: what every attempt returns; it must fit the step's annotation.
        raises: what every attempt raises.

    Raises:
        UsageError: this is no step, or too much is given.
    """
    if not isinstance(step, Step):
        raise UsageError(f"fake({shown(step)}) takes a step", hint="a function decorated with @step")
    if (body is not None) + (returns is not _UNSET) + (raises is not None) > 1:
        raise UsageError("fake takes one of a body, returns= and raises=")
    if body is not None and not callable(body):
        raise UsageError(f"fake(..., {shown(body)}) takes a function as body", hint="or returns=..., raises=...")
    if raises is not None and not _is_exception(raises):
        raise UsageError(f"fake(raises={shown(raises)}) must be an exception or a class of exceptions")
    if not step.is_async and inspect.iscoroutinefunction(body):
        raise UsageError(f"{step!r} is a def step, and the fake body is async def", hint="write a def body")
    step.result  # noqa: B018  its codec comes from the real body's annotations
    record = Fake(step)

    def called(*args: Any, **kwargs: Any) -> Any:
        record.calls.append(args)
        record.keywords.append(kwargs)
        if raises is not None:
            raise raises
        if body is not None:
            return body(*args, **kwargs)
        return None if returns is _UNSET else returns

    async def called_async(*args: Any, **kwargs: Any) -> Any:
        answer = called(*args, **kwargs)
        return await answer if body is not None and hasattr(answer, "__await__") else answer

    before = step.function
    step.function = called_async if step.is_async else called
    try:
        yield record
    finally:
        step.function = before


def _is_exception(value: object) -> bool:
    return isinstance(value, BaseException) or (isinstance(value, type) and issubclass(value, BaseException))
