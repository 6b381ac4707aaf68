"""A run in memory, as the executor sees it, and what surrounds the user's code while it runs."""

from __future__ import annotations

import sys
from asyncio import _get_running_loop
from collections.abc import Callable
from typing import Any, Protocol

from holdfast._flow.activation import Activation
from holdfast._flow.calls import StepCall
from holdfast._model.records import Record, RunRow
from holdfast._runtime.bodies import Body
from holdfast._store.journal import Then


class Keeper(Protocol):
    """Whoever keeps live runs: the executor."""

    activating: RunRow | None
    turns: int

    def start_held(self, run: LiveRun) -> None:
        """Everything of the run is durable."""
        ...

    def try_leave(self, run: LiveRun) -> None:
        """Something that kept the run from leaving is gone."""
        ...

    def drop(self, run: LiveRun, error: BaseException) -> None:
        """A record of the run was refused."""
        ...


class LiveRun:
    """A run in memory.

    Attributes:
        activation: its code and where it stands.
        undurable: how many of its records are not durable yet.
        held: steps whose bodies wait for that.
        bodies: attempts under way, by `seq`.
        leaving: makes the record with which it leaves memory, once that is wanted.
        gone: nothing reaches it any more.
        replaying: its history has not been delivered yet.
        quiet_since: since when it has only waited for timers, if so.
    """

    __slots__ = (
        "activation",
        "bodies",
        "executor",
        "gone",
        "held",
        "leaving",
        "quiet_since",
        "refused",
        "replaying",
        "row",
        "then",
        "undurable",
    )

    def __init__(self, executor: Keeper, activation: Activation) -> None:
        self.executor = executor
        self.activation = activation
        self.row: RunRow = activation.row
        self.undurable = 0
        self.held: list[StepCall] = []
        self.bodies: dict[int, Body] = {}
        self.leaving: Callable[[LiveRun], Record] | None = None
        self.gone = False
        self.replaying = True
        self.refused: BaseException | None = None
        self.quiet_since: int | None = None
        self.then: Then = self.acknowledged

    def forget(self) -> None:
        """It has left memory: cut the cycle, so that it is freed now and not by the collector."""
        self.then = _heard

    def acknowledged(self, _outcome: object, error: BaseException | None) -> None:
        """A record of this run is durable, or never will be."""
        if error is not None:
            self.executor.drop(self, error)
            return
        self.undurable -= 1
        if not self.undurable and not self.gone:
            if self.held:
                self.executor.start_held(self)
            if self.leaving is not None:
                self.executor.try_leave(self)


class WorkflowCode:
    """Around workflow code outside of the pump: whose it is, and where its async generators are kept."""

    __slots__ = ("_executor", "_hooks", "_row")

    def __init__(self, executor: Keeper, row: RunRow) -> None:
        self._executor = executor
        self._row = row

    def __enter__(self) -> None:
        self._hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(keep_generator, None)
        self._executor.turns += 1
        self._executor.activating = self._row

    def __exit__(self, *_error: object) -> None:
        self._executor.activating = None
        sys.set_asyncgen_hooks(*self._hooks)


def _heard(_outcome: object, _error: BaseException | None) -> None:
    """Nobody listens any more."""


def keep_generator(generator: Any) -> None:
    """Async generators of a workflow live as long as their run: their collection must not depend on the collector."""
    loop: Any = _get_running_loop()
    if loop.generators is None:
        loop.generators = []
    loop.generators.append(generator)
