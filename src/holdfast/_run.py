"""A run as its caller holds it: `Run`, and what goes into `start_many`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar

from holdfast import _options
from holdfast._flow.definitions import Workflow
from holdfast._model.codec import codec_for
from holdfast._model.failures import decode_failure
from holdfast._model.lifecycle import ENDED, RunState
from holdfast._model.records import CancelRequested, PauseRequested, ResumeRequested, RetryRequested
from holdfast._model.runinfo import Entry, RunDetail, RunInfo
from holdfast._rows import entry_of, info_of
from holdfast._runtime.engine import Engine
from holdfast._runtime.results import Ended, Expectation
from holdfast.errors import RunCancelled, RunFailed, RunNotFound, WaitTimeout

T = TypeVar("T")


class RunOwner(Protocol):
    """The client that a handle came from."""

    @property
    def _engine(self) -> Engine: ...

    async def _request(self, run: Run[Any], kind: type[Any]) -> RunState: ...

    async def _fork(
        self, run: Run[T], *, at: int, id: str | None, result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Run[T]: ...


class Start(Generic[T]):
    """One start for `start_many`; takes what `start` takes.

    Raises:
        UsageError: an option is wrong.
    """

    __slots__ = ("args", "kwargs", "options", "workflow")

    def __init__(
        self,
        workflow: Workflow[..., T] | str,
        /,
        *args: Any,
        id: str | None = None,
        on_conflict: str = "return",
        priority: int = 0,
        delay: float | timedelta | None = None,
        at: datetime | None = None,
        timeout: float | timedelta | None = None,
        attributes: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.workflow = workflow
        self.args = args
        self.kwargs = kwargs
        self.options = _options.StartOptions(
            id=id,
            on_conflict=on_conflict,
            priority=priority,
            delay=delay,
            at=at,
            timeout=timeout,
            attributes=attributes,
        )


class Run(Generic[T]):
    """A handle to one run, whether it exists here, elsewhere or not at all: every call asks the database.

    One exception: a handle from `start` remembers the end that this process has seen, until the run is steered through
    it. `get` makes a handle that remembers nothing.

    Attributes:
        id: the run's id.
    """

    def __init__(self, client: RunOwner, run_id: str, workflow: Workflow[..., T] | None = None) -> None:
        self.id = run_id
        self._client = client
        self._workflow = workflow
        self._expected: Expectation | None = None

    def __repr__(self) -> str:
        return f"<Run {self.id!r}>"

    async def result(self, timeout: float | None = None) -> T:
        """Wait for the run to end and return its result, or raise what it failed with.

        Cancelling the caller does not touch the run. The answer is durable before it is given.

        Args:
            timeout: seconds to wait, or none for as long as it takes; 0 only looks.

        Raises:
            RunNotFound: there is no such run.
            RunCancelled: it was cancelled.
            RunFailed: it failed with an exception that cannot be rebuilt here; otherwise that exception itself.
            WaitTimeout: it has not ended yet.
        """
        _options.check_wait(timeout)
        if timeout is None:
            return self._answer(await self._ended())
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                ended = await self._ended()
        except TimeoutError:
            if not limit.expired():
                raise
            row = await self._row()
            if row.state not in ENDED:
                raise _not_ended(info_of(row), timeout) from None
            ended = Ended(row.state, row.output, row.error)
        return self._answer(ended)

    async def _ended(self) -> Ended:
        if self._expected is not None:
            ended = await self._expected.wait()
            if ended is not None:
                return ended
        results = self._client._engine.results
        while True:
            changed = asyncio.ensure_future(results.changed(self.id))
            try:
                await asyncio.sleep(0)  # registers before looking: an end in between is not missed
                ended = await self._look()
                if ended is not None:
                    return ended
                results.check()
                await changed
            finally:
                changed.cancel()

    async def _look(self) -> Ended | None:
        """How the run ended, if it has, by its row."""
        row = await self._row()
        return Ended(row.state, row.output, row.error) if row.state in ENDED else None

    async def _row(self) -> RunDetail:
        row = await self._client._engine.store.detail(self.id)
        if row is None:
            raise RunNotFound(self.id)
        return row

    def _answer(self, ended: Ended) -> T:
        if ended.state == RunState.CANCELLED:
            raise RunCancelled(self.id)
        if ended.error is not None:
            error = decode_failure(ended.error, fallback=RunFailed)
            with contextlib.suppress(Exception):  # foreign code: some classes take no notes
                error.add_note(f"in run {self.id!r}")
            raise error
        codec = codec_for(Any) if self._workflow is None else self._workflow.result
        value: T = codec.decode(ended.output or "null", where=f"result of run {self.id!r}")
        return value

    async def describe(self) -> RunInfo:
        """What the database holds of the run.

        Raises:
            RunNotFound: there is no such run.
        """
        return info_of(await self._row())

    async def history(self) -> list[Entry]:
        """The run's entries, by `seq`; what came from outside (a cancellation) has negative numbers.

        Raises:
            RunNotFound: there is no such run.
        """
        store = self._client._engine.store
        row = await store.detail(self.id)
        if row is None:
            raise RunNotFound(self.id)
        histories = await store.histories([row.number])
        return [entry_of(entry) for entry in histories.get(row.number, ())]

    async def cancel(self) -> RunState:
        """Cancel the run: `CancelledError` at its next await; its `finally` blocks may still run steps.

        The request is durable when this returns; the run may still be cleaning up. An ended run is left alone.

        Returns:
            The run's state now.

        Raises:
            RunNotFound: there is no such run.
        """
        return await self._client._request(self, CancelRequested)

    async def pause(self) -> RunState:
        """Let the run stand still after the steps that are under way, until `resume`. An ended run is left alone.

        A blocked run stands still already; should a worker come whose code fits, it does not go on either.

        Raises:
            RunNotFound: there is no such run.
        """
        return await self._client._request(self, PauseRequested)

    async def resume(self) -> RunState:
        """Let a paused, blocked or cancelled run go on; recorded steps are not repeated. Others are left alone.

        A deadline stands; where it has passed, the run gets its `timeout` anew.

        Raises:
            RunNotFound: there is no such run.
        """
        return await self._client._request(self, ResumeRequested)

    async def retry(self) -> RunState:
        """Let a failed, cancelled or blocked run go on: finished steps are kept, what ended it is dropped.

        One that had ended, or whose deadline has passed, gets its `timeout` anew.

        Raises:
            RunNotFound: there is no such run.
            RunConflict: the run has succeeded or has not ended.
        """
        return await self._client._request(self, RetryRequested)

    async def fork(
        self,
        at: int,
        *,
        id: str | None = None,
        result: Any = _options.UNSET,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Run[T]:
        """Start a new run that replays what is before entry `at` of this one and executes the rest.

        Args:
            at: an entry's `seq`; 1 begins from the start.
            id: of the new run; a new one by default.
            result: take this as the result of entry `at` instead of executing it.
            args, kwargs: other arguments for the workflow. Entries that were made with the old ones must still match.

        Raises:
            RunNotFound: there is no such run.
            RunConflict: the new id is taken.
            UsageError: there is no such entry, or the arguments do not fit.
        """
        given, named = _options.call_of(args, kwargs)
        return await self._client._fork(self, at=at, id=id, result=result, args=given, kwargs=named)


def _not_ended(info: RunInfo, timeout: float) -> WaitTimeout:
    told = f"run {info.id!r} has not ended within {timeout:g} s; it is {info.state}"
    match info.state:
        case RunState.BLOCKED:
            why = "" if info.error is None else f": {info.error.message}"
            return WaitTimeout(f"{told} ({info.reason}){why}", hint="mend that, then wait again")
        case RunState.PAUSED:
            return WaitTimeout(told, hint="let it go on with run.resume()")
        case _:
            return WaitTimeout(told, hint="it goes on; wait again or look at it")
