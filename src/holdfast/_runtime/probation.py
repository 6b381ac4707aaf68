"""Probation: runs whose workers died with them again and again are tried one at a time.

A process that dies takes down all the runs that it holds, and each of them counts a crash. One of them may be to blame,
thousands are not. From the third crash in a row without progress a run is a *suspect*: the ordinary claim passes it
over, and each worker has at most one suspect in memory at a time, beside its other work. Hence, of all the suspects,
only the one on probation counts the next crash, and the guilty one is alone when it kills again.

A suspect is cleared (its crashes are forgotten) as soon as it has recorded an outcome, has ended or was parked, or has
lived for `PROBATION_SECONDS`; then comes the next, those with the fewest crashes first. A worker takes its first
suspect only when it has lived for `SETTLE_SECONDS` with its other runs: a run that kills at once, and is no suspect
yet, shall not spend the chances of those that are.

What remains. A suspect that is innocent may be on probation in the very moment when something else takes the process
down: an operator's `kill -9`, or a run that is no suspect yet and kills late. It is blocked only if that happens as
often in a row as the guilty one has chances left (two by default), each time before it has recorded anything; `resume`
gives it all of them back. And suspects come slowly: one after another, each for as long as its first outcome takes, or
ten seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from holdfast._model.records import RunCleared, RunsClaimed, RunsUnblocked
from holdfast._runtime.dispatcher import Dispatcher
from holdfast._runtime.executor import Executor
from holdfast._runtime.liverun import LiveRun
from holdfast._runtime.service import Ticker
from holdfast._runtime.told import log_cleared
from holdfast._store.journal import Journal
from holdfast._store.port import Store
from holdfast._world import World

LOOK_SECONDS: Final = 0.5
SETTLE_SECONDS: Final = 1.0
PROBATION_SECONDS: Final = 10.0


class Probation:
    """Tries the suspects of one worker."""

    def __init__(
        self,
        *,
        store: Store,
        journal: Journal,
        executor: Executor,
        dispatcher: Dispatcher,
        world: World,
        workflows: Callable[[], tuple[str, ...]],
    ) -> None:
        self._store = store
        self._journal = journal
        self._executor = executor
        self._dispatcher = dispatcher
        self._world = world
        self._workflows = workflows
        self._suspect: int | None = None
        self._next_at = 0.0
        self._ticker = Ticker("probation", period=LOOK_SECONDS, turn=self._turn, on_fault=journal.fail)

    async def start(self) -> None:
        """Begin, after a while."""
        self._next_at = _now() + SETTLE_SECONDS
        await self._ticker.start()

    async def stop(self) -> None:
        """Try no more."""
        await self._ticker.stop()

    def left(self, number: int) -> None:
        """A run has ended or left memory."""
        if number == self._suspect:
            self._free()

    async def _turn(self) -> None:
        if _now() < self._next_at:
            return
        if self._suspect is not None:
            self._clear(self._suspect)
        elif self._executor.room > 0 and (claim := await self._claim()) is not None:
            await self._try_one(claim)

    async def _claim(self) -> RunsClaimed | RunsUnblocked | None:
        """A suspect that is ready, or one whose history did not match the code of others."""
        worker, known, now = self._executor.worker, self._workflows(), self._world.now_us()
        if await self._store.has_suspect(known):
            return RunsClaimed(worker, known, 1, now, suspect=True)
        tried = tuple(self._executor.blocked)
        if await self._store.has_blocked(worker, known, tried=tried, suspect=True):
            return RunsUnblocked(worker, known, tried, 1, now, suspect=True)
        return None

    async def _try_one(self, claim: RunsClaimed | RunsUnblocked) -> None:
        for row in await self._dispatcher.take(claim):
            self._suspect = row.number
            self._next_at = _now() + PROBATION_SECONDS
            run = self._executor.live.get(row.number)
            if run is None:
                self._free()
            else:
                run.then = _Heard(self, run)

    def cleared_by(self, run: LiveRun) -> None:
        """The run has recorded an outcome."""
        if run.row.number == self._suspect:
            self._clear(run.row.number)

    def _clear(self, number: int) -> None:
        run = self._executor.live.get(number)
        if run is not None and not run.gone:
            self._journal.append(RunCleared(number, self._executor.worker), _ignore)
            log_cleared(run.row)
        self._free()

    def _free(self) -> None:
        self._suspect = None
        self._next_at = 0.0
        self._ticker.poke()


class _Heard:
    """What a suspect's records are answered to: as ever, and an outcome clears it."""

    def __init__(self, probation: Probation, run: LiveRun) -> None:
        self._probation = probation
        self._run = run
        self._ordinal = run.activation.ordinal_recorded  # the replay of a long history is not over yet

    def __call__(self, outcome: object, error: BaseException | None) -> None:
        run = self._run
        run.acknowledged(outcome, error)
        if error is None and not run.replaying and not run.undurable and run.activation.ordinal > self._ordinal:
            self._probation.cleared_by(run)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _ignore(_outcome: object, _error: BaseException | None) -> None:
    """If it is not stored, the run stays a suspect and is tried again one day."""
