"""What a hostile call is tried on: an open app with a run, on one event loop; and how its answer is judged.

A call may answer or refuse. A refusal is an error of ours that can be printed, names the place and says what to do, and
leaves every row as it was. Nothing may take longer than `CALL_SECONDS`, whether it awaits or computes.
"""

from __future__ import annotations

import asyncio
import inspect
import signal
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.fuzz.things import Allowed

from holdfast import (
    Holdfast,
    HoldfastError,
    QueryError,
    StoreError,
    SyncClient,
    UsageError,
    WaitTimeout,
    Workflow,
    step,
    workflow,
)

CALL_SECONDS = 10
MESSAGE_CHARS_MAX = 1_000
LOOKS = (
    "select count(*), max(number) from holdfast_runs",
    "select count(*) from holdfast_attributes",
    "select input, attributes, priority, generation, request from holdfast_runs where id = 'old'",
)


@step
async def echo(value: Any) -> Any:
    """What it got."""
    return value


@workflow
async def flow(value: Any = None) -> Any:
    """What it got, by way of a step."""
    return await echo(value)


class Hung(BaseException):
    """Raised by the alarm; not an `Exception`: nobody should eat it."""


@contextmanager
def alarm(seconds: int = CALL_SECONDS) -> Iterator[None]:
    """Whoever computes for longer is interrupted."""

    def ring(*_: object) -> None:
        raise Hung(f"still busy after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True)
class Answer:
    """What became of a call: a value, or an error."""

    value: Any = None
    error: BaseException | None = None


class Stage:
    """An open app on a file, and a loop to use it in.

    Attributes:
        client: what is called: the app itself, a client of it, or a facade.
    """

    def __init__(self, path: Path, *workflows: Workflow[..., Any], kind: str = "app") -> None:
        self.path = path
        self.app = Holdfast(f"sqlite:///{path}?synchronous=normal")
        self.app.include(flow, *workflows)
        self.client: Any = self.app
        if kind != "app":
            self.client = self.app.client() if kind == "client" else self.app.sync(worker=True)
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        if isinstance(self.client, SyncClient):
            self.client.__enter__()
        else:
            self.run(self.app.__aenter__())
            if self.client is not self.app:
                self.run(self.client.__aenter__())
        self.old_is_there()
        self._reader = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        if isinstance(self.client, SyncClient):
            self.client.__exit__(None, None, None)
        else:
            if self.client is not self.app:
                self.run(self.client.__aexit__(None, None, None))
            self.run(self.app.__aexit__(None, None, None))
        self._runner.close()

    def run(self, awaitable: Awaitable[Any]) -> Any:
        """Await it here."""

        async def awaited() -> Any:
            return await asyncio.wait_for(awaitable, CALL_SECONDS)

        return self._runner.run(awaited())

    def ask(self, call: Callable[[], Any]) -> Any:
        """Make the call, and wait for what it gives."""
        if isinstance(self.client, SyncClient):
            answer = call()
            return list(answer) if inspect.isgenerator(answer) else answer
        return self.run(self._awaited(call))

    def try_it(self, call: Callable[[], Any]) -> Answer:
        """Make the call, wait for what it gives, and see how it ends."""
        try:
            with alarm():
                return Answer(self.ask(call))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return Answer(error=error)

    async def _awaited(self, call: Callable[[], Any]) -> Any:
        answer = call()
        if inspect.isasyncgen(answer):
            return [each async for each in answer]
        return await answer if inspect.isawaitable(answer) else answer

    @property
    def old(self) -> Any:
        """A run that has ended."""
        return self.client.get("old")

    def rows(self) -> list[Any]:
        """What a refused call must leave as it is."""
        if not isinstance(self.client, SyncClient):
            self.run(self._settle())
        return [self._reader.execute(query).fetchall() for query in LOOKS]

    def old_is_there(self) -> None:
        """Some calls rightly remove it."""
        run = self.ask(lambda: self.client.start(flow, 1, id="old", attributes={"customer": 42, "name": "ann"}))
        self.ask(run.result)

    async def _settle(self) -> None:
        for client in (self.app, self.client):
            await client._engine.journal.settle()


def complaint(error: BaseException, *, places: tuple[str, ...]) -> str | None:
    """What is wrong with an error as the answer to a wrong call; nothing if it is a good one."""
    if isinstance(error, Allowed):
        return None
    if not isinstance(error, UsageError | StoreError | WaitTimeout):
        return f"{type(error).__name__}: {_text(error)}"
    text = str(error)
    if not text or len(text) > MESSAGE_CHARS_MAX:
        return f"{len(text)} characters: {text[:100]!r}..."
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return f"cannot be printed: {ascii(text)[:200]}"
    if not isinstance(error, QueryError) and not any(place in text for place in places):
        return f"does not name any of {places}: {text}"
    if not error.hint and "must be" not in text and "bound is" not in text:
        return f"does not say what to do: {text}"
    return None


def _text(error: BaseException) -> str:
    try:
        return ascii(str(error))[:300]
    except BaseException as other:
        return f"<{type(other).__name__} in str()>"


def is_ours(error: BaseException) -> bool:
    """Whether an error is of our tree."""
    return isinstance(error, HoldfastError)
