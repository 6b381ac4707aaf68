"""A worker: the services that make this process execute runs, started and stopped in one order.

    start:  recovery (lease, the dead) -> watchdog -> parking -> probation -> retention -> dispatcher
    stop:   dispatcher -> runs finish or leave within `stop_timeout` -> the others in reverse -> lease back

If the process dies instead, its lock goes with it and the next worker takes over: nothing here is needed for that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from holdfast._flow.definitions import Workflow
from holdfast._model.records import RunEnded, RunRow
from holdfast._runtime.dispatcher import Dispatcher
from holdfast._runtime.events import ENGINE_LOG, Events
from holdfast._runtime.executor import Executor
from holdfast._runtime.memory import Memory
from holdfast._runtime.options import WorkerOptions
from holdfast._runtime.parking import Parking
from holdfast._runtime.probation import Probation
from holdfast._runtime.recovery import Recovery
from holdfast._runtime.results import Ended, Results
from holdfast._runtime.retention import RetentionService
from holdfast._runtime.service import Service
from holdfast._runtime.told import log_awaited
from holdfast._runtime.watchdog import Watchdog
from holdfast._store.journal import Journal
from holdfast._store.port import Store
from holdfast._world import World
from holdfast.errors import Fenced, StoreError

TOLD_AFTER_SECONDS: Final = 1.0
"""How long a worker that stops waits for steps before it says so: whoever has pressed Ctrl-C wonders."""


class Worker:
    """Executes runs in this process.

    Args:
        ended: counts the runs that have ended here, by state; shared with whoever works here before and after.
    """

    def __init__(
        self,
        *,
        workflows: Mapping[str, Workflow[..., Any]],
        store: Store,
        journal: Journal,
        results: Results,
        world: World,
        events: Events,
        options: WorkerOptions,
        ended: Counter[str],
    ) -> None:
        self.id = world.new_id()
        self.options = options
        self._workflows = workflows
        self._journal = journal
        self._results = results
        self.executor = Executor(
            worker=self.id,
            workflows=workflows,
            journal=journal,
            world=world,
            events=events,
            options=options.execution,
            on_ended=self._ended,
            on_left=self._left,
        )
        memory = Memory(options.execution.memory_max)
        self.parking = Parking(self.executor, world=world, options=options.execution, memory=memory)
        self.dispatcher = Dispatcher(
            store=store,
            journal=journal,
            executor=self.executor,
            world=world,
            workflows=self.known,
            make_room=self.parking.make_room,
        )
        self.recovery = Recovery(
            worker=self.id,
            store=store,
            journal=journal,
            world=world,
            options=options.lease,
            poison_after=options.poison_after,
            executor=self.executor,
            dispatcher=self.dispatcher,
            workflows=self.known,
        )
        self.probation = Probation(
            store=store,
            journal=journal,
            executor=self.executor,
            dispatcher=self.dispatcher,
            world=world,
            workflows=self.known,
        )
        self._store = store
        self._services = self._in_order(world)
        self._ended_counts = ended
        self._started: list[Service] = []

    def _in_order(self, world: World) -> list[Service]:
        """The services in the order in which they are started; the dispatcher follows them."""
        watchdog = Watchdog(self.executor, world=world, seconds=self.options.blocked_after)
        services: list[Service] = [self.recovery, watchdog, self.parking, self.probation]
        policy = self.options.retention
        if policy is not None:
            services.append(RetentionService(store=self._store, journal=self._journal, world=world, policy=policy))
        return services

    def known(self) -> tuple[str, ...]:
        """The workflows that this worker knows."""
        return tuple(self._workflows)

    async def start(self) -> None:
        """Enter the database and begin with what is there."""
        self._store.watch(True)
        for service in (*self._services, self.dispatcher):
            await service.start()
            self._started.append(service)

    async def stop(self) -> None:
        """Finish or release every run within `stop_timeout`, then leave."""
        started, self._started = self._started, []
        try:
            if self.dispatcher in started:
                await self.dispatcher.stop()
                started.remove(self.dispatcher)
            settled = self._journal.broken is None and await self._release_runs()
        finally:  # also when whoever waits for us is cancelled: nothing may stay behind
            self.executor.close()
            for service in reversed(started):
                await service.stop()
        if settled and self.recovery in started and self._journal.broken is None:
            await self.recovery.leave()

    async def _release_runs(self) -> bool:
        self.executor.release_all()
        timeout = self.options.stop_timeout
        told_after = min(TOLD_AFTER_SECONDS, timeout)
        if not await self._steps_end(told_after):
            log_awaited(self.executor.live.values(), seconds=timeout - told_after)
            await self._steps_end(timeout - told_after)
        self.executor.abandon_all()
        try:
            async with asyncio.timeout(max(self.options.stop_timeout, 1.0)):
                await self._journal.settle()
            return True
        except TimeoutError:
            ENGINE_LOG.error("worker %s leaves without release: the store does not answer; its runs wait", self.id)
            return False

    async def _steps_end(self, seconds: float) -> bool:
        """Wait for the steps under way; whether all of them have ended in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.executor.bodies.active and self.executor.live:
                    await asyncio.sleep(0.01)
                return True
        return False

    async def withdraw(self) -> None:
        """End a worker that was declared dead, or that could not begin: it says nothing more, and its lock goes.

        If it is cancelled, calling it again goes on where it stood.
        """
        self.executor.close()
        while self._started:
            await self._started[-1].stop()
            self._started.pop()
        if self._journal.worker == self.id:
            self._journal.worker = None
        await self._store.buried(self.id)  # its row is dead, or somebody finds the lock free and buries it

    def broken(self, cause: BaseException) -> None:
        """The journal takes nothing from this worker any more: forget what it holds."""
        ENGINE_LOG.critical("worker %s stops: %s", self.id, cause)
        self.executor.close()
        if isinstance(cause, StoreError):
            self._results.fail(cause)

    def changed(self) -> None:
        """Another process has written something."""
        self.dispatcher.poke()

    def _ended(self, row: RunRow, record: RunEnded) -> None:
        self._ended_counts[record.state.value] += 1
        self._results.ended(row.id, Ended(record.state.value, record.output, record.error))
        self.probation.left(row.number)
        self.dispatcher.room_appeared()

    def _left(self, row: RunRow, due_at: int | None) -> None:
        cause = self._journal.broken
        if cause is None or isinstance(cause, Fenced):  # else it goes on nowhere: `broken` tells whoever waits
            self._results.unexpect(row.id)
        self.probation.left(row.number)
        if due_at is not None:
            self.dispatcher.due(due_at)
        self.dispatcher.room_appeared()
